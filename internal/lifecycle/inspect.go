package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"occam/internal/datacheck"
	"occam/internal/engine"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

// A DataCheck is what was found in a task's examples.
type DataCheck struct {
	*datacheck.Report
	Examples []task.Example // that Report's rows count in
	Labels   []Finding      // what sorting the labels found: contradictions, keys that gave too many
}

// CheckData looks for duplicates, contradictions and wrong labels among a task's examples. It costs about as much as training
// a model, and holds up nothing but the processors. progress may be nil.
func (c *Controller) CheckData(ctx context.Context, taskName string, progress func(stage string, done, total int)) (*DataCheck, error) {
	t, err := c.taskNamed(ctx, taskName)
	if err != nil {
		return nil, err
	}
	stored, err := c.examples(ctx, taskName)
	if err != nil {
		return nil, err
	}
	curated := Curate(t, stored, time.Time{}, nil)
	check := &DataCheck{Report: &datacheck.Report{}, Labels: curated.Findings}
	check.Examples = append(append(append(check.Examples, curated.Examples...), curated.Background...), curated.Gold...)
	if len(check.Examples) == 0 {
		return check, nil
	}
	check.Report, err = datacheck.Check(ctx, t.Fields, check.Examples, datacheck.Options{Seed: hash64(taskName), Workers: c.opts.Workers, Progress: progress})
	return check, err
}

func (c *Controller) taskNamed(ctx context.Context, name string) (t *task.Task, err error) {
	loopErr := c.inLoop(ctx, func(context.Context) {
		if s := c.subjects[name]; s != nil {
			t = s.task
			return
		}
		err = fmt.Errorf("there is no task %q; there are: %s", name, strings.Join(c.names, ", "))
	})
	return t, errors.Join(loopErr, err)
}

// ErrNoModel says that a model that answered once is not kept any more.
var ErrNoModel = errors.New("that model is no longer kept")

// Explain says what spoke for and against what a model answers to a text. weights is the beginning of the hash of the model's
// weights, as the ledger's rows end in it.
func (c *Controller) Explain(ctx context.Context, taskName, weights, text string) (why *engine.Explanation, err error) {
	var use *specialist.Model
	err = c.inLoop(ctx, func(context.Context) {
		s := c.subjects[taskName]
		if s == nil {
			return
		}
		for _, h := range s.held {
			if h.LoadedModel != nil && strings.HasPrefix(h.Model.Hash(), weights) {
				use = h.Model
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if use != nil {
		return engine.Explain(use, text)
	}
	hash, err := c.storedWeights(ctx, taskName, weights)
	if err != nil {
		return nil, err
	}
	data, err := c.opts.Store.LoadModel(ctx, hash)
	if err != nil {
		return nil, err
	}
	m, err := decodeModel(data)
	if err != nil {
		return nil, err
	}
	return engine.Explain(m.Model, text)
}

// storedWeights finds the stored file that holds some weights.
func (c *Controller) storedWeights(ctx context.Context, taskName, weights string) (hash string, err error) {
	err = c.opts.Store.View(ctx, func(tx *store.Tx) error {
		models, err := tx.Models().List(taskName)
		for _, m := range models {
			var report ModelReport
			if json.Unmarshal(m.Report, &report) == nil && weights != "" && strings.HasPrefix(report.Specialist, weights) {
				hash = m.Hash
			}
		}
		return err
	})
	if err == nil && hash == "" {
		err = ErrNoModel
	}
	return hash, err
}

package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// Explain says what spoke for and against what a model answers to a text, and which of the task's examples that it may have learned
// from are most like it. weights is the beginning of the hash of the model's weights, as the ledger's rows end in it.
func (c *Controller) Explain(ctx context.Context, taskName, weights, text string) (*engine.Explanation, error) {
	var use *LoadedModel
	err := c.inLoop(ctx, func(context.Context) {
		if s := c.subjects[taskName]; s != nil {
			for _, h := range s.held {
				if h.LoadedModel != nil && strings.HasPrefix(h.Model.Hash(), weights) {
					use = h.LoadedModel
				}
			}
		}
	})
	if err == nil && use == nil {
		use, err = c.storedModel(ctx, taskName, weights)
	}
	if err != nil {
		return nil, err
	}
	why, err := engine.Explain(use.Model, text)
	if err != nil || why == nil || len(why.Nearest) > 0 {
		return why, err
	}
	why.Nearest, why.Lack, err = c.nearest(ctx, taskName, use, text)
	return why, err
}

func (c *Controller) storedModel(ctx context.Context, taskName, weights string) (*LoadedModel, error) {
	hash, err := c.storedWeights(ctx, taskName, weights)
	if err != nil {
		return nil, err
	}
	data, err := c.opts.Store.LoadModel(ctx, hash)
	if err != nil {
		return nil, err
	}
	return decodeModel(data)
}

// searched is how many examples, the newest before a model was made, are looked through for those that are like a text.
const searched = 5000

// nearest finds kept examples that are like a text. A model's file holds none: what was redacted, forgotten, or is past its retention
// must not live on in it. lack says why there are none.
func (c *Controller) nearest(ctx context.Context, taskName string, m *LoadedModel, text string) (found []specialist.Alike, lack string, err error) {
	if !c.opts.Capture {
		return nil, "texts are not kept (capture.prompts is off)", nil
	}
	var kept []store.Example
	err = c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		kept, err = tx.Examples().Before(taskName, m.TrainedAt, searched)
		return err
	})
	var taught []task.Example
	for i := range kept {
		if labels := learned(&kept[i], m.TrainedAt); kept[i].Text != "" && len(labels) > 0 {
			taught = append(taught, task.Example{ID: kept[i].ID, Text: kept[i].Text, Labels: labels})
		}
	}
	for _, near := range m.Model.Nearest(text, taught, engine.NearestShown) {
		if e := &taught[near.Index]; near.Likeness > 0 {
			found = append(found, specialist.Alike{ID: e.ID, Text: e.Text, Labels: e.Labels, Likeness: near.Likeness})
		}
	}
	switch {
	case len(taught) == 0:
		lack = "no labelled request from before the model was trained is kept"
	case len(found) == 0:
		lack = fmt.Sprintf("none of the %d kept requests that it may have learned from shares a word with it", len(taught))
	}
	return found, lack, err
}

// learned is what was known of an example at a time, people believed first; empty where nothing might be learned.
func learned(e *store.Example, at time.Time) task.Output {
	v := &voices{Example: e}
	for i := range e.Labels {
		if l := &e.Labels[i]; l.Trainable && !l.At.After(at) {
			v.hear(l)
		}
	}
	known := task.Output{}
	maps.Copy(known, v.teacher)
	maps.Copy(known, v.person)
	return known
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

package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"occam/internal/calibration"
	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// Asked is what a model said of an input of the past.
type Asked struct {
	Values  []task.Value // in the order of the task's fields; nil: no valid answer
	LogProb float64      // of the answer's text; NaN where the model tells none or was not asked
	Version string       // as the answer names the model
	Cost    cost.Amount
	Priced  bool
}

// A Source is where a model of the configuration is and what it costs beside its calls.
type Source struct {
	Provider, Upstream string
	Priced             bool    // the price book knows what a call costs, or the model runs on servers of one's own
	Monthly            float64 // dollars for its servers; 0: it is paid by the call
}

// A PlannedTier is a model served elsewhere as a tier of a task, with the certificate that it has there.
type PlannedTier struct {
	Name        string                   `json:"name"` // of the model, as the configuration names it
	Provider    string                   `json:"provider"`
	Upstream    string                   `json:"upstream"`
	Version     string                   `json:"version"` // that answered when it was measured
	Prompt      string                   `json:"prompt"`  // hash of what it is asked with
	Certificate *calibration.Certificate `json:"certificate"`
}

// hash identifies what answers: where it is, what it calls itself and what it is asked with.
func (p *PlannedTier) hash() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{p.Provider, p.Upstream, p.Version, p.Prompt}, "\x00")))
	return hex.EncodeToString(sum[:])
}

// describe is the same for people.
func (p *PlannedTier) describe() string {
	return fmt.Sprintf("%s/%s, which answers as %s, prompt %s", p.Provider, p.Upstream, p.Version, p.Prompt)
}

// askedWith is the hash of the prompt with which tiers served elsewhere are asked for a task.
func askedWith(t *task.Task) string {
	system, user := t.Ask("")
	sum := sha256.Sum256([]byte(system + "\x00" + user + "\x00" + string(task.Schema(t.Fields))))
	return hex.EncodeToString(sum[:8])
}

// answers are what one model said of a task's examples, kept so that no answer is bought twice.
type answers struct {
	Version string            `json:"version"`
	Scored  bool              `json:"scored"` // it tells log-probabilities
	Calls   int               `json:"calls"`  // that were paid for these
	Cost    cost.Amount       `json:"cost_nano_usd"`
	Most    cost.Amount       `json:"most_nano_usd"` // of one call
	By      map[string]answer `json:"by"`            // example
}

type answer struct {
	Output  task.Output `json:"o,omitempty"` // nil: no valid answer
	LogProb float64     `json:"p,omitempty"`
}

// outcome is what an answer means for the certificate of its tier, as it would for a request.
func (a *answers) outcome(fields []task.Field, e *task.Example) calibration.Outcome {
	said, ok := a.By[e.ID]
	if !ok || said.Output == nil {
		return calibration.Outcome{Score: math.Inf(-1), Wrong: true}
	}
	o := calibration.Outcome{}
	if a.Scored {
		o.Score = said.LogProb
	}
	for _, f := range fields {
		o.Wrong = o.Wrong || f.Labelled(e.Labels) && !said.Output[f.Name].Equal(e.Labels[f.Name])
	}
	return o
}

func (a *answers) mean() float64 {
	if a.Calls == 0 {
		return 0
	}
	return a.Cost.USD() / float64(a.Calls)
}

// An asker buys answers, within a budget.
type asker struct {
	task   *task.Task
	ask    func(ctx context.Context, taskName, model, input string, scored bool) (Asked, error)
	keep   answerKeeper
	budget cost.Amount // left
	spent  cost.Amount
	known  map[string]*answers // by model
	fresh  map[string]bool     // models that were asked in this run: their version is today's
	report func(done, total int)
}

// An answerKeeper remembers answers between runs.
type answerKeeper interface {
	load(ctx context.Context, name string) (*answers, error)
	save(ctx context.Context, name string, a *answers) error
}

const (
	askersAtOnce  = 4
	failuresShare = 0.05   // of calls without a reply, above which nothing is concluded
	maxAnswers    = 10_000 // of one model that are kept
)

// errBudget says that the budget for calibration has no room for what is needed.
var errBudget = errors.New("the budget for calibration is spent")

// need buys the answers to examples that are not there yet. At least one is asked anew in every run: an answer of another version
// of the model makes all that are kept worthless.
func (a *asker) need(ctx context.Context, model string, examples []*task.Example) (*answers, error) {
	have, err := a.have(ctx, model)
	if err != nil || len(examples) == 0 {
		return have, err
	}
	if !a.fresh[model] {
		if err := a.first(ctx, model, have, examples[0]); err != nil {
			return have, err
		}
	}
	missing := slices.DeleteFunc(slices.Clone(examples), func(e *task.Example) bool { _, ok := have.By[e.ID]; return ok })
	failed := 0
	for done := 0; done < len(missing); {
		lot := missing[done:min(done+askersAtOnce, len(missing))]
		if reserve := have.Most * cost.Amount(len(lot)); reserve > a.budget {
			return have, errors.Join(a.keep.save(ctx, a.name(model), have),
				fmt.Errorf("%w: %d of %d answers of %s are there, the next ones need %v and %v is left (calibration_budget of the task)",
					errBudget, len(examples)-len(missing)+done, len(examples), model, reserve, a.budget))
		}
		lost, err := a.lot(ctx, model, have, lot)
		if err != nil {
			return have, err
		}
		done += len(lot)
		if failed += lost; float64(failed) > max(2, failuresShare*float64(done)) {
			return have, fmt.Errorf("%d of %d calls to %s gave no reply", failed, done, model)
		}
		a.report(done, len(missing))
	}
	return have, a.keep.save(ctx, a.name(model), have)
}

// have returns what is kept of a model.
func (a *asker) have(ctx context.Context, model string) (*answers, error) {
	if have := a.known[model]; have != nil {
		return have, nil
	}
	have, err := a.keep.load(ctx, a.name(model))
	if err != nil {
		return nil, err
	}
	if have.By == nil || len(have.By) > maxAnswers {
		have = &answers{By: map[string]answer{}}
	}
	a.known[model] = have
	return have, nil
}

// name is under which a model's answers are kept: another prompt is another question.
func (a *asker) name(model string) string { return a.task.Name + "/" + model + "/" + askedWith(a.task) }

// first asks anew, to learn what the model calls itself today, whether it tells log-probabilities, and what a call costs.
func (a *asker) first(ctx context.Context, model string, have *answers, e *task.Example) error {
	said, err := a.ask(ctx, a.task.Name, model, e.Text, true)
	if err != nil {
		said, err = a.ask(ctx, a.task.Name, model, e.Text, false)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be asked: %w", model, err)
	}
	if scored := !math.IsNaN(said.LogProb); said.Version != have.Version || scored != have.Scored {
		*have = answers{Version: said.Version, Scored: scored, By: map[string]answer{}}
	}
	a.fresh[model] = true
	a.add(have, e, said)
	return nil
}

func (a *asker) spend(amount cost.Amount) {
	a.spent += amount
	a.budget -= amount
}

func (a *asker) add(have *answers, e *task.Example, said Asked) {
	a.spend(said.Cost)
	have.Calls++
	have.Cost += said.Cost
	have.Most = max(have.Most, said.Cost)
	one := answer{}
	if said.Values != nil {
		one.Output = output(a.task.Fields, said.Values)
		if have.Scored {
			one.LogProb = said.LogProb
			if math.IsNaN(one.LogProb) {
				one.LogProb = -math.MaxFloat64
			}
		}
	}
	have.By[e.ID] = one
}

// lot asks a few at once. A call without a reply is an answer that no app would have got from the tier either.
func (a *asker) lot(ctx context.Context, model string, have *answers, lot []*task.Example) (lost int, err error) {
	said, errs := make([]Asked, len(lot)), make([]error, len(lot))
	var wait sync.WaitGroup
	for i, e := range lot {
		wait.Go(func() { said[i], errs[i] = a.ask(ctx, a.task.Name, model, e.Text, have.Scored) })
	}
	wait.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	for i, e := range lot {
		switch {
		case errs[i] != nil:
			lost++
			have.By[e.ID] = answer{}
		case said[i].Version != have.Version:
			return 0, fmt.Errorf("%s answers as %q and as %q: pin its version in the configuration", model, have.Version, said[i].Version)
		default:
			a.add(have, e, said[i])
		}
	}
	return lost, nil
}

// kindAnswers is the kind of document that holds what a model said of a task's examples.
const kindAnswers = "tier answers"

// storedAnswers keeps answers in the store. Those of examples that are gone go too.
type storedAnswers struct {
	store *store.Store
	alive map[string]bool // examples there are
}

func (k storedAnswers) load(ctx context.Context, name string) (*answers, error) {
	a := &answers{}
	err := k.store.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(kindAnswers).Get(name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(r.Value, a)
	})
	for id := range a.By {
		if !k.alive[id] {
			delete(a.By, id)
		}
	}
	return a, err
}

func (k storedAnswers) save(ctx context.Context, name string, a *answers) error {
	value, err := json.Marshal(a)
	if err != nil || len(value) > store.MaxRecord { // what is too much to keep is bought again
		return err
	}
	return k.store.Update(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(kindAnswers).Get(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		r.Name, r.Value = name, value
		return tx.Records(kindAnswers).Put(r)
	})
}

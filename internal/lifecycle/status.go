package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// A Status is where one task stands, for people.
type Status struct {
	Task       string             `json:"task"`
	Version    int64              `json:"version"` // a command names the version that it was given for
	Record                        // state, models, reason
	Auto       bool               `json:"auto"`
	Target     task.Target        `json:"target"`
	Generalist string             `json:"generalist"`
	Fields     []task.Field       `json:"fields"`
	Answer     string             `json:"answer,omitempty"` // how answers are written, "" for compact JSON
	OnDoubt    string             `json:"on_doubt"`
	Audit      float64            `json:"audit"` // share of answers that is audited now
	Examples   store.ExampleCount `json:"examples"`
	Outside    OutsideCount       `json:"outside,omitzero"` // of the generalist's answers
	Training   TrainingStatus     `json:"training"`
	Models     []ModelStatus      `json:"models,omitempty"`   // that the record names, the lead first
	Commands   []Command          `json:"commands,omitempty"` // that would be obeyed now
	Next       string             `json:"next"`               // what happens next, or what a person can do
	Dropped    Dropped            `json:"dropped,omitzero"`   // of the whole process, since it started
}

// TrainingStatus is the last run and the next.
type TrainingStatus struct {
	Progress
	Running bool    `json:"running"`
	Stage   string  `json:"stage,omitempty"`
	Share   float64 `json:"share,omitempty"` // of the stage
	Waiting string  `json:"waiting,omitempty"`
}

// A ModelStatus is one model with the evidence about it.
type ModelStatus struct {
	Model       string                   `json:"model"` // content hash
	Place       string                   `json:"place"` // "lead", "incumbent", "previous"
	Mode        string                   `json:"mode"`  // off, shadow, canary, live, suspended; "" when it is not in the cascade
	Specialist  string                   `json:"specialist,omitempty"`
	Void        string                   `json:"void,omitempty"` // why its certificate does not hold
	Certificate *calibration.Certificate `json:"certificate,omitempty"`
	// MinConfidence is the calibrated confidence at the certificate's threshold, 0 without a certificate.
	MinConfidence float64             `json:"min_confidence,omitempty"`
	Evaluation    Evaluation          `json:"evaluation"`
	Curve         []calibration.Point `json:"curve,omitempty"`
	Bytes         int                 `json:"bytes"`
	TrainedAt     time.Time           `json:"trained_at"`
	Evidence      *EvidenceStatus     `json:"evidence,omitempty"`
	Tiers         []TierStatus        `json:"tiers,omitempty"`  // of its plan after the specialist, in order
	Choice        *cascade.Choice     `json:"choice,omitempty"` // the plans that were considered when it was made
	Truth         *calibration.Truth  `json:"truth,omitempty"`  // agreement with the teacher beside accuracy against people's labels
}

// A TierStatus is a tier served elsewhere, in a model's plan.
type TierStatus struct {
	Name        string                   `json:"name"`
	Mode        string                   `json:"mode"` // off, canary, live, suspended; "" when it is not in the cascade
	Version     string                   `json:"version"`
	Void        string                   `json:"void,omitempty"`
	Certificate *calibration.Certificate `json:"certificate"`
	Evidence    *EvidenceStatus          `json:"evidence"`
}

// EvidenceStatus is what is known of a model's answers since it was stored.
type EvidenceStatus struct {
	drift.Status
	Allowed   float64         `json:"allowed"` // share of answers that may differ from the generalist's
	Stage     State           `json:"stage"`
	Compared  int             `json:"compared"` // in this stage
	Disagreed int             `json:"disagreed"`
	Days      []AuditDay      `json:"days,omitempty"`
	Warnings  []drift.Warning `json:"warnings,omitempty"`
	Rare      *RareStatus     `json:"rare,omitempty"` // of the answers in rare classes, which are audited more often
}

// RareStatus is what is known of a tier's answers in its rare classes.
type RareStatus struct {
	drift.Status
	Allowed float64  `json:"allowed"` // share that may be wrong: what calibration found at most
	Classes []string `json:"classes"`
	Audit   float64  `json:"audit"` // share of these answers that is audited beside the uniform sample
}

// Dropped counts what found no room in a queue. Dropped audits count as failed ones; the rest is only missed.
type Dropped struct {
	Comparisons int64 `json:"comparisons,omitempty"`
	Signs       int64 `json:"signs,omitempty"`
	Examples    int64 `json:"examples,omitempty"`
	Reviews     int64 `json:"reviews,omitempty"`
	Traffic     int64 `json:"traffic,omitempty"`
}

// Status returns where every task stands, by name. It is quick, and at most a moment old.
func (c *Controller) Status() []Status {
	if view := c.view.Load(); view != nil {
		return *view
	}
	return nil
}

// show renews what Status returns.
func (c *Controller) show() {
	d := Dropped{c.dropped.comparisons.Load(), c.dropped.signs.Load(), c.dropped.captures.Load(), c.dropped.reviews.Load(), c.dropped.traffic.Load()}
	all := make([]Status, 0, len(c.names))
	for _, name := range c.names {
		all = append(all, c.status(c.subjects[name], d))
	}
	c.view.Store(&all)
}

func (c *Controller) status(s *subject, d Dropped) Status {
	st := Status{Task: s.task.Name, Version: s.version, Record: s.record, Auto: s.task.Auto, Target: s.task.Target, Generalist: s.task.Generalist, Fields: s.task.Fields, Answer: s.task.Answer.String(), OnDoubt: s.task.OnDoubt,
		Audit: s.published.Task.Audit, Examples: s.counts, Outside: s.outside, Dropped: d, Training: TrainingStatus{Progress: s.progress, Waiting: s.waiting}}
	if r := c.training.Load(); r != nil && r.job.Task == s.task.Name {
		st.Training.Running, st.Training.Share, st.Training.Waiting = true, float64(r.share.Load())/100, ""
		if stage := r.stage.Load(); stage != nil {
			st.Training.Stage = *stage
		}
	}
	if s.unrecorded != "" && !st.Training.Running {
		st.Training.Waiting = s.unrecorded
	}
	if !c.opts.Capture {
		st.Training.Waiting = "capture is off, so there is nothing to learn from: set capture.prompts: true in the configuration"
	}
	for _, m := range []struct{ hash, place string }{{s.record.Lead, "lead"}, {s.record.Incumbent, "incumbent"}, {s.record.Previous, "previous"}} {
		if m.hash != "" {
			st.Models = append(st.Models, s.modelStatus(m.hash, m.place))
		}
	}
	st.Next = s.outlook(st.Training)
	facts, previous := s.facts(c.opts.Now()), s.evidence(s.record.Previous)
	for _, cmd := range []Command{Promote, RollBack, Pause, Resume} {
		if _, err := Obey(s.record, facts, previous, cmd); err == nil {
			st.Commands = append(st.Commands, cmd)
		}
	}
	return st
}

func (s *subject) modelStatus(hash, place string) ModelStatus {
	m := ModelStatus{Model: hash, Place: place}
	for _, p := range s.record.Placements() {
		if p.Model == hash {
			m.Mode = string(p.Mode)
		}
	}
	h := s.held[hash]
	if h == nil {
		return m
	}
	m.Void = s.void(h)
	if h.LoadedModel != nil {
		m.Specialist, m.Certificate, m.Evaluation, m.Curve = h.Model.Hash(), h.Certificate, h.Evaluation, h.Curve
		m.Bytes, m.TrainedAt = h.Bytes, h.TrainedAt
		if h.Certificate != nil {
			m.MinConfidence = h.Model.ConfidenceAt(h.Certificate.Threshold)
		}
	}
	if h.gauge != nil {
		m.Evidence = h.gauge.status()
		if g := h.gauge.Rare; g != nil {
			names, _ := rareClasses(h.Certificate)
			m.Evidence.Rare = &RareStatus{Status: g.Status(), Allowed: g.Options().Risk, Classes: names, Audit: s.task.AuditRare}
		}
	}
	if h.LoadedModel == nil {
		return m
	}
	m.Choice = h.Choice
	if h.Certificate != nil {
		m.Truth = h.Certificate.Truth
	}
	modes := s.cascadeTiers(h, Placement{Mode: cascade.Mode(m.Mode)})
	for i, r := range h.rungs {
		t := TierStatus{Name: r.Name, Version: r.Version, Void: cmp.Or(s.voidTier(r), r.renamed()), Certificate: r.Certificate, Evidence: r.gauge.status()}
		if m.Mode != "" {
			t.Mode = string(modes[i].Mode)
		}
		if t.Void != "" && (modes[i].Mode == cascade.Live || modes[i].Mode == cascade.Canary) { // it is asked now and then, and does not answer
			t.Mode = string(cascade.Suspended)
		}
		m.Tiers = append(m.Tiers, t)
	}
	return m
}

func (g *gauge) status() *EvidenceStatus {
	return &EvidenceStatus{Status: g.Monitor.Status(), Allowed: g.allowed(), Stage: g.Stage, Compared: g.Compared, Disagreed: g.Disagreed,
		Days: slices.Clone(g.Days), Warnings: g.warnings()}
}

// outlook says what happens next.
func (s *subject) outlook(t TrainingStatus) string {
	byHand := fmt.Sprintf("`occam models promote %s` takes it further", s.task.Name)
	switch {
	case s.record.Paused:
		return fmt.Sprintf("paused: `occam tasks pause --resume %s` goes on", s.task.Name)
	case t.Running:
		return fmt.Sprintf("a model is being trained (%s, %.0f %%)", t.Stage, 100*t.Share)
	case s.record.State == Candidate && !s.task.Auto:
		return byHand + " into shadow, where it answers nothing"
	case s.record.State == Shadow || s.record.State == Canary:
		needed := map[State]int{Shadow: shadowNeeded, Canary: canaryNeeded}[s.record.State]
		e := s.evidence(s.record.Lead)
		text := fmt.Sprintf("%d of %d comparisons with the generalist's answers are made, %d differ", e.Compared, needed, e.Disagreed)
		if e.Unconfirmed != "" {
			text += "; " + e.Unconfirmed
		}
		if !s.task.Auto {
			text += "; " + byHand
		}
		return text
	}
	if t.Waiting == "" { // nobody has counted yet
		return "training: `occam serve` counts what there is to learn from, and trains when that is enough"
	}
	return "training " + t.Waiting
}

// ErrStale says that a command was given for a state that is no more.
var ErrStale = errors.New("the task has changed meanwhile")

// Do carries out a person's command. version is that of the Status that the person saw: when the task moved since, nothing is
// done and the error (ErrStale) says what it is now. model names another model than the lead to promote, "" none.
func (c *Controller) Do(ctx context.Context, taskName string, cmd Command, model, by string, version int64) (Status, error) {
	var status Status
	var err error
	loopErr := c.inLoop(ctx, func(ctx context.Context) {
		s := c.subjects[taskName]
		if s == nil {
			err = fmt.Errorf("there is no task %q; there are: %s", taskName, strings.Join(c.names, ", "))
			return
		}
		for range 3 { // where another process leads, its evidence may be newer than what is known here
			if err = c.reloadGauges(ctx, s); err == nil {
				err = c.obey(ctx, s, cmd, model, by, version)
			}
			if !errors.Is(err, store.ErrConflict) || s.version != version {
				break
			}
		}
		if err == nil {
			if c.leading {
				c.step(ctx, s)
			}
			err = c.publish()
		}
		status = c.status(s, Dropped{})
	})
	return status, errors.Join(loopErr, err)
}

func (c *Controller) obey(ctx context.Context, s *subject, cmd Command, model, by string, version int64) error {
	stale := fmt.Errorf("%w: it is %s now (version %d, not %d): %s; look again and repeat the command if it still makes sense",
		ErrStale, s.record.State, s.version, version, s.record.Reason)
	if version != s.version {
		return stale
	}
	facts := s.facts(c.opts.Now())
	if cmd == Promote && model != "" && !strings.HasPrefix(s.record.Lead, model) {
		return c.choose(ctx, s, model, by)
	}
	next, err := Obey(s.record, facts, s.evidence(s.record.Previous), cmd)
	if err != nil {
		return fmt.Errorf("task %s: %w", s.task.Name, err)
	}
	err = c.move(ctx, s, next, by)
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

// choose makes a stored model the candidate, by hand.
func (c *Controller) choose(ctx context.Context, s *subject, prefix, by string) error {
	models, err := c.Models(ctx, s.task.Name)
	if err != nil {
		return err
	}
	models = slices.DeleteFunc(models, func(m StoredModel) bool { return !strings.HasPrefix(m.Hash, prefix) })
	switch {
	case len(models) == 0:
		return fmt.Errorf("task %s has no model %s: see `occam models list`", s.task.Name, prefix)
	case len(models) > 1:
		return fmt.Errorf("%d models of task %s begin with %s: give more of the hash", len(models), s.task.Name, prefix)
	case s.record.State == Canary:
		return fmt.Errorf("model %s is a canary now: roll it back first", short(s.record.Lead))
	}
	hash := models[0].Hash
	if hash == s.record.incumbent() {
		return fmt.Errorf("model %s is live already", short(hash))
	}
	h, err := c.load(ctx, s, hash)
	if err != nil {
		return err
	}
	if void := s.void(h); void != "" {
		return fmt.Errorf("model %s may not be promoted: its certificate does not hold: %s", short(hash), void)
	}
	if live := s.record.incumbent(); live != "" && h.Certificate != nil && h.gauge.confirmation(h.Certificate) != "" { // a shadow beside it would never see a fair sample
		return fmt.Errorf("model %s may not be promoted while model %s is live: %s; `occam models rollback %s` first, so that it can be watched beside the generalist, or wait for a newer model",
			short(hash), short(live), h.gauge.confirmation(h.Certificate), s.task.Name)
	}
	seen := s.record.Seen
	next := s.record.consider(Contender{Model: hash, Reason: "chosen by hand"}).stamped(s.record, c.opts.Now().UTC())
	next.Seen = seen // the newest model that was considered stays the same
	return c.move(ctx, s, next, by)
}

// A StoredModel is one model in the store.
type StoredModel struct {
	store.Model
	Certificate *calibration.Certificate
	Report      ModelReport
}

// Models lists a task's models, newest first; all tasks' when taskName is "".
func (c *Controller) Models(ctx context.Context, taskName string) ([]StoredModel, error) {
	return Models(ctx, c.opts.Store, taskName)
}

// Models lists a task's models from a store, newest first; all tasks' when taskName is "".
func Models(ctx context.Context, s *store.Store, taskName string) ([]StoredModel, error) {
	var rows []store.Model
	err := s.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Models().List(taskName)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := make([]StoredModel, len(rows))
	for i, row := range rows {
		all[i].Model = row
		if err := json.Unmarshal(row.Report, &all[i].Report); err != nil {
			return nil, fmt.Errorf("the report of model %s is damaged: %w", row.ID, err)
		}
		if len(row.Certificate) > 0 {
			if err := json.Unmarshal(row.Certificate, &all[i].Certificate); err != nil {
				return nil, fmt.Errorf("the certificate of model %s is damaged: %w", row.ID, err)
			}
		}
	}
	return all, nil
}

package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// A subject is one task as the controller knows it.
type subject struct {
	task     *task.Task
	record   Record
	version  int64
	held     map[string]*held // the models that the record names, by content hash
	fresh    *Contender       // the newest stored model
	counts   store.ExampleCount
	progress Progress
	waiting  string // what the next training run waits for
	// unrecorded is why the last run must be repeated though it ended; "" when it need not be.
	unrecorded string
	teacher    teacher
	outside    OutsideCount
	published  Deployment                       // that is in force
	lost       *atomic.Int64                    // audits that found no room in the queue
	model      func(name string) (Source, bool) // where the configuration's models are; may be nil
}

// held is a model in memory with the evidence about it.
type held struct {
	*LoadedModel
	hash    string
	task    string  // that it is held for: another task may name the same file
	broken  string  // why it cannot be used at all; LoadedModel is nil then
	gauge   *gauge  // nil without a certificate
	version int64   // of the stored evidence
	rungs   []*rung // the plan's tiers after the specialist
}

// kinds of small documents in the store.
const (
	kindGauge    = "gauge"    // by task and content hash of the model
	kindProgress = "training" // by task
)

// adopt reads a task's state from the store, or begins it.
func (c *Controller) adopt(ctx context.Context, setup Setup) error {
	s := &subject{task: setup.Task, held: map[string]*held{}, lost: new(atomic.Int64), model: c.opts.Model, published: Deployment{Task: setup.Task}}
	name := setup.Task.Name
	if c.subjects[name] != nil {
		return errors.New("there are two tasks of this name")
	}
	c.subjects[name] = s
	c.names = append(c.names, name)
	slices.Sort(c.names)
	err := c.reload(ctx, s)
	if errors.Is(err, store.ErrNotFound) {
		if err = c.begin(ctx, s); errors.Is(err, store.ErrExists) { // another process was quicker
			err = c.reload(ctx, s)
		}
	}
	if err != nil {
		return err
	}
	if setup.Model != nil {
		return c.install(ctx, s, setup.Model)
	}
	return nil
}

func (c *Controller) begin(ctx context.Context, s *subject) error {
	r := Record{State: Observing, Since: c.opts.Now().UTC(), Reason: "the task is new: the generalist answers"}
	return c.move(ctx, s, r, "occam")
}

// reload reads the record, its models and the newest model.
func (c *Controller) reload(ctx context.Context, s *subject) error {
	var state store.TaskState
	var newest []store.Model
	var progress store.Record
	err := c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		if state, err = tx.Tasks().Get(s.task.Name); err != nil {
			return err
		}
		if progress, err = tx.Records(kindProgress).Get(s.task.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err = s.loadOutside(tx); err != nil {
			return err
		}
		newest, err = tx.Models().List(s.task.Name)
		return err
	})
	if err != nil {
		return err
	}
	if state.Version != s.version {
		var r Record
		if err := json.Unmarshal(state.Data, &r); err != nil {
			return fmt.Errorf("the stored state is damaged: %w", err)
		}
		s.record, s.version = r, state.Version
	}
	if len(progress.Value) > 0 {
		if err := json.Unmarshal(progress.Value, &s.progress); err != nil {
			return fmt.Errorf("the stored account of training is damaged: %w", err)
		}
	}
	if len(newest) > 0 {
		if s.fresh, err = contender(newest[0]); err != nil {
			return err
		}
	}
	return c.hold(ctx, s, s.record)
}

func contender(m store.Model) (*Contender, error) {
	var report ModelReport
	if err := json.Unmarshal(m.Report, &report); err != nil {
		return nil, fmt.Errorf("the report of model %s is damaged: %w", m.ID, err)
	}
	return &Contender{Model: m.Hash, Refusal: report.Refusal, Reason: report.Reason, Unrivalled: report.Unrivalled}, nil
}

// hold loads the models that a record names and lets others go. A model that cannot be loaded is held as broken: its
// certificate holds for nothing.
func (c *Controller) hold(ctx context.Context, s *subject, r Record) error {
	wanted := []string{r.Lead, r.Incumbent, r.Previous}
	for hash := range s.held {
		if !slices.Contains(wanted, hash) && !slices.Contains([]string{s.record.Lead, s.record.Incumbent, s.record.Previous}, hash) {
			delete(s.held, hash)
		}
	}
	for _, hash := range wanted {
		if hash == "" || s.held[hash] != nil {
			continue
		}
		h, err := c.load(ctx, s, hash)
		if err != nil {
			return err
		}
		s.held[hash] = h
	}
	return nil
}

func (c *Controller) load(ctx context.Context, s *subject, hash string) (*held, error) {
	h := &held{hash: hash, task: s.task.Name}
	data, err := c.opts.Store.LoadModel(ctx, hash)
	if err == nil {
		h.LoadedModel, err = decodeModel(data)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.opts.Log.Error("a model cannot be used", "task", s.task.Name, "model", short(hash), "error", err)
		h.broken = err.Error()
		return h, nil
	}
	h.Bytes, h.unmap = len(data), func() error { return nil }
	if h.Certificate != nil {
		if h.gauge, h.version, err = c.storedGauge(ctx, h.evidenceOf("")); err != nil {
			return nil, err
		}
		if h.gauge == nil {
			if h.gauge, err = c.newGauge(ctx, s, h, h.Certificate); err != nil {
				return nil, err
			}
		}
	}
	return h, c.loadRungs(ctx, s, h)
}

// storedGauge reads the evidence about a tier; nil where there is none yet.
func (c *Controller) storedGauge(ctx context.Context, name string) (*gauge, int64, error) {
	var stored store.Record
	err := c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.Records(kindGauge).Get(name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	g, err := decodeGauge(stored.Value)
	return g, stored.Version, err
}

// newGauge begins the evidence about a tier of a model's plan.
func (c *Controller) newGauge(ctx context.Context, s *subject, h *held, certificate *calibration.Certificate) (*gauge, error) {
	report, err := c.report(ctx, s.task.Name, h.hash)
	if err != nil {
		return nil, err
	}
	baseline := h.Baseline
	if certificate != h.Certificate {
		baseline = drift.Baseline{} // it is of what the specialist sees
	}
	g, err := newGauge(certificate, baseline, report.teacherError())
	if err == nil {
		g.Outside, err = s.outside.watch(certificate.Delta)
	}
	return g, err
}

func (c *Controller) report(ctx context.Context, taskName, hash string) (ModelReport, error) {
	var report ModelReport
	err := c.opts.Store.View(ctx, func(tx *store.Tx) error {
		models, err := tx.Models().List(taskName)
		for _, m := range models {
			if m.Hash == hash {
				return json.Unmarshal(m.Report, &report)
			}
		}
		return err
	})
	return report, err
}

func taskState(s *subject, next Record) (store.TaskState, error) {
	data, err := json.Marshal(next)
	return store.TaskState{Name: s.task.Name, State: string(next.State), Version: s.version, Data: data}, err
}

// byWeights finds the model whose weights have a hash.
func (s *subject) byWeights(specialist string) *held {
	for _, h := range s.held {
		if h.LoadedModel != nil && h.Model.Hash() == specialist {
			return h
		}
	}
	return nil
}

// facts are what the next decision rests on.
func (s *subject) facts(now time.Time) Facts {
	return Facts{Now: now.UTC(), Auto: s.task.Auto, Fresh: s.fresh,
		Lead: s.evidence(s.record.Lead), Incumbent: s.evidence(s.record.Incumbent), Previous: s.evidence(s.record.Previous)}
}

// evidence is what is known of a model now.
func (s *subject) evidence(hash string) Evidence {
	h := s.held[hash]
	if h == nil {
		return Evidence{Void: "the model is not loaded"}
	}
	if void := s.void(h); void != "" {
		return Evidence{Void: void, Moved: s.moved(h)}
	}
	_, g := h.first()
	e := g.evidence()
	e.Paid = h.Certificate == nil
	if h.Certificate != nil {
		e.Unconfirmed = g.confirmation(h.Certificate)
	}
	return e
}

// void says why a model's certificate does not hold for what would be served now.
func (s *subject) void(h *held) string {
	switch {
	case h.LoadedModel == nil:
		return h.broken
	case h.Certificate == nil && len(h.rungs) == 0:
		return "there is none"
	case !task.SameFields(s.task.Fields, h.Model.Fields()):
		return "the task's schema has changed since"
	case h.Certificate == nil:
		return s.voidTier(h.rungs[0])
	case weaker(h.Certificate, s.task.Target):
		c, target := h.Certificate, s.task.Target
		return fmt.Sprintf("it proves %s accuracy %.4g at %.4g confidence and the task promises %s accuracy %.4g at %.4g: train for that, or lower the task's target",
			c.Promise, 1-c.Risk, 1-c.Delta, target.Promise, target.Accuracy, target.Confidence)
	}
	return h.Certificate.Void(s.identity(h))
}

// moved reports whether another teacher or prompt gives the labels than when a model was certified.
func (s *subject) moved(h *held) bool {
	c, _ := h.first()
	return c != nil && c.Teacher != "" && s.teacher.settled() && (s.teacher.model != c.Teacher || s.teacher.prompt != c.PromptHash)
}

// weaker reports whether a certificate proves less than the target asks for.
func weaker(c *calibration.Certificate, target task.Target) bool {
	const rounding = 1e-9
	return c.Promise != string(target.Promise) || c.Risk > 1-target.Accuracy+rounding || c.Delta > 1-target.Confidence+rounding
}

// identity is what would be served: these weights, and the teacher and prompt that answer now.
func (s *subject) identity(h *held) calibration.Identity {
	return s.taught(h.identity(), h.Certificate)
}

// taught completes an identity with the teacher and prompt that answer now, where the certificate is about a teacher's answers.
func (s *subject) taught(id calibration.Identity, c *calibration.Certificate) calibration.Identity {
	if c != nil && c.Teacher != "" && s.teacher.settled() {
		id.Teacher, id.PromptHash = s.teacher.model, s.teacher.prompt
	}
	return id
}

// deployment is what the data plane needs of the task.
func (s *subject) deployment() Deployment {
	copied := *s.task
	copied.Audit = s.auditShare()
	d := Deployment{Task: &copied}
	for _, p := range s.record.Placements() {
		h := s.held[p.Model]
		if h == nil || h.LoadedModel == nil {
			continue
		}
		if h.Certificate != nil {
			tier := cascade.Tier{Name: linear, Mode: p.Mode, Share: p.Share, Certificate: h.Certificate, Identity: s.identity(h)}
			if !s.evidence(p.Model).sound() && tier.Mode != cascade.Off {
				tier.Mode = cascade.Suspended
			}
			tier.Rare = h.gauge.stratum(h.Certificate, s.task.Fields, s.task.AuditRare)
			d.Tiers = append(d.Tiers, Tier{Tier: tier, Model: inOrder(h.Model, s.task.Fields)})
		}
		d.Tiers = append(d.Tiers, s.cascadeTiers(h, p)...)
	}
	return d
}

// stale reports whether another deployment should be published than is in force.
func (s *subject) stale() bool {
	d := s.deployment()
	return d.Task.Audit != s.published.Task.Audit || !slices.EqualFunc(d.Tiers, s.published.Tiers, func(a, b Tier) bool {
		return a.Mode == b.Mode && a.Share == b.Share && a.Identity == b.Identity && (a.Rare != nil && a.Rare.Barred) == (b.Rare != nil && b.Rare.Barred)
	})
}

const (
	canaryAudit = 0.5 // of a canary's answers: it has few, and each is evidence
	alertFactor = 5   // more audits while there is reason for doubt
	alertFloor  = 0.05
	calmAudits  = 500 // comparisons after which a new model after an alarm is audited as usual
)

// auditShare is the share of answers to be audited now: more for a canary, after an alarm, and while requests look different
// from those that the model was certified on.
func (s *subject) auditShare() float64 {
	share := s.task.Audit
	h := s.held[s.record.Lead]
	if h == nil {
		return share
	}
	if _, g := h.first(); g != nil {
		recovering := !s.record.AlarmAt.IsZero() && g.Total < calmAudits
		if recovering || len(g.warnings()) > 0 || h.alarmed() {
			share = min(1, max(share*alertFactor, alertFloor))
		}
		if s.record.State == Canary {
			share = max(share, canaryAudit)
		}
	}
	return share
}

// putGauges writes the evidence that has changed.
func (s *subject) putGauges(tx *store.Tx) error {
	for _, h := range s.held {
		err := h.gauges(func(name string, g *gauge, version *int64) error {
			if !g.dirty {
				return nil
			}
			value, err := g.encode()
			if err != nil {
				return err
			}
			return tx.Records(kindGauge).Put(store.Record{Name: name, Version: *version, Value: value})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *subject) gaugesWritten() {
	for _, h := range s.held {
		_ = h.gauges(func(_ string, g *gauge, version *int64) error { // never fails
			if g.dirty {
				g.dirty = false
				*version++
			}
			return nil
		})
	}
}

func (s *subject) dirty() (dirty bool) {
	dirty = s.outside.unwritten
	for _, h := range s.held {
		_ = h.gauges(func(_ string, g *gauge, _ *int64) error { // never fails
			dirty = dirty || g.dirty
			return nil
		})
	}
	return dirty
}

// A teacher is who answers as the generalist now. A change counts once it has answered a few times in a row: a fallback to
// another provider for a moment is none.
type teacher struct {
	model, prompt string
	next, nextTo  string
	run           int
	seen          int // answers by model in a row, until it is settled
}

const teacherRun = 10

func (t *teacher) answered(model, prompt string) (changed bool) {
	same := model == t.model && prompt == t.prompt
	switch {
	case same:
		t.seen, t.run = t.seen+1, 0
		return false
	case !t.settled(): // the first answer after a start may be a fallback's
		t.model, t.prompt, t.seen = model, prompt, 1
		return false
	}
	if model != t.next || prompt != t.nextTo {
		t.next, t.nextTo, t.run = model, prompt, 0
	}
	if t.run++; t.run < teacherRun {
		return false
	}
	t.model, t.prompt, t.run = model, prompt, 0
	return true
}

// settled reports whether it is known who answers.
func (t *teacher) settled() bool { return t.seen >= teacherRun }

// inOrder gives a model's values in the order of the task's fields.
func inOrder(m predictor, fields []task.Field) predictor {
	own := m.Fields()
	same := slices.EqualFunc(own, fields, func(a, b task.Field) bool { return a.Name == b.Name })
	if same {
		return m
	}
	o := ordered{predictor: m, from: make([]int, len(fields))}
	for i, f := range fields {
		o.from[i] = slices.IndexFunc(own, func(g task.Field) bool { return g.Name == f.Name })
	}
	return o
}

type predictor interface {
	Predict(text string, p *task.Prediction)
	Fields() []task.Field
}

type ordered struct {
	predictor
	from []int
}

// Predict implements engine.Predictor.
func (o ordered) Predict(text string, p *task.Prediction) {
	o.predictor.Predict(text, p)
	values, confidence := slices.Clone(p.Values), slices.Clone(p.FieldConfidence)
	for i, from := range o.from {
		if from >= 0 {
			p.Values[i], p.FieldConfidence[i] = values[from], confidence[from]
		}
	}
}

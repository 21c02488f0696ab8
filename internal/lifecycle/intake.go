package lifecycle

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// An Answer is what the generalist answered to a task's request.
type Answer struct {
	RequestID  string
	At         time.Time
	Task       string
	Input      string
	Values     []task.Value // in the order of the task's fields
	Model      string       // that answered, as its provider names it
	PromptHash string
	Barred     bool // the terms of whoever answered forbid training on it
	Outside    bool // the task's schema does not hold the answer: Values is nil, and nothing is kept
	Unplain    bool // no tier is ever asked such a request: its answer may teach, but not calibrate
}

// A Doubt is a request that no tier may answer and that its task wants a person to see.
type Doubt struct {
	RequestID string
	At        time.Time
	Task      string
	Input     string
	Guess     []task.Value // of the last tier that predicted, nil if none did
	Reason    string
}

// A Glance is one prediction of a tier, whether or not it answered. Predicted is not kept.
type Glance struct {
	RequestID  string
	At         time.Time
	Task       string
	Specialist string
	Input      string
	Predicted  *task.Prediction
	Version    string // of a model served elsewhere: what its answer called it; "" of a model in this process
	Answered   bool
}

// policy is what the callbacks need to know of a task. It never changes: publish replaces it.
type policy struct {
	task      *task.Task
	answering bool    // some tier answers requests
	canary    float64 // share of requests outside which only the generalist answers; 0: there is no such share
	audit     float64
	signers   map[string]signer // by specialist
	versions  map[string]string // that models served elsewhere were certified as, by specialist
	lost      *atomic.Int64
}

// signer turns predictions of one model into signs.
type signer struct {
	classes     classes
	certificate *calibration.Certificate
	watched     bool // the model has a baseline, and it is the one whose signs matter now
}

func (s *subject) policy(d Deployment) *policy {
	p := &policy{task: s.task, audit: d.Task.Audit, signers: map[string]signer{}, versions: map[string]string{}, lost: s.lost}
	for _, tier := range d.Tiers {
		if tier.Served != nil {
			p.versions[tier.Identity.Specialist] = tier.Version
		}
		p.answering = p.answering || tier.Mode == cascade.Live || tier.Mode == cascade.Canary
		h := s.byWeights(tier.Identity.Specialist)
		if h != nil && h.gauge != nil && h.gauge.Watch != nil {
			p.signers[tier.Identity.Specialist] = signer{newClasses(h.Model.Fields()), h.Certificate, h.hash == s.record.Lead}
		}
	}
	if s.record.State == Canary && s.record.Incumbent == "" {
		p.canary = canaryShare
	}
	return p
}

// uniform reports whether a request that the generalist answered belongs to a uniform sample of all requests. Where a tier
// answers some, what is left is not one; then as many are taken of it, by chance, as are audited of what the tier answers.
func (p *policy) uniform(requestID, input string) bool {
	if !p.answering || p.canary > 0 && !cascade.InShare(hash64(input), p.canary) {
		return true
	}
	return cascade.InShare(hash64(requestID), p.audit)
}

func (c *Controller) policy(taskName string) *policy {
	if all := c.policies.Load(); all != nil {
		return (*all)[taskName]
	}
	return nil
}

// Example keeps what the generalist answered, to learn from.
func (c *Controller) Example(a Answer) {
	p := c.policy(a.Task)
	if p == nil || a.Input == "" {
		return
	}
	uniform := !a.Unplain && p.uniform(a.RequestID, a.Input)
	c.glance(signed{task: a.Task, teacher: a.Model, prompt: a.PromptHash, uniform: uniform, outside: a.Outside})
	if !a.Outside {
		c.keep(p, a, uniform)
	}
}

// keep queues an answer for the store, if the task's requests may be kept.
func (c *Controller) keep(p *policy, a Answer, uniform bool) {
	if !c.opts.Capture || len(a.Input) > store.MaxText {
		return
	}
	source := a.Model
	if source == "" {
		source = p.task.Generalist
	}
	c.capture(store.Example{ID: a.RequestID, RequestID: a.RequestID, Task: a.Task, At: a.At, Text: a.Input, InputHash: hash64(a.Input), Uniform: uniform,
		Labels: []store.Label{{Example: a.RequestID, At: a.At, Source: source, Prompt: a.PromptHash, Output: output(p.task.Fields, a.Values),
			Trainable: !a.Barred}}})
}

func output(fields []task.Field, values []task.Value) task.Output {
	o := make(task.Output, len(fields))
	for i, f := range fields {
		if i < len(values) {
			o[f.Name] = values[i]
		}
	}
	return o
}

func (c *Controller) capture(e store.Example) {
	select {
	case c.captures <- e:
	default:
		c.dropped.captures.Add(1)
	}
}

// Compare takes a prediction of a tier that was put beside the generalist's answer.
func (c *Controller) Compare(cmp Comparison) {
	p := c.policy(cmp.Task)
	if p == nil {
		return
	}
	if cmp.Answered && !cmp.Missing { // an audit's answer is the only one for a request that a tier served
		c.keep(p, Answer{RequestID: cmp.RequestID, At: cmp.At, Task: cmp.Task, Input: cmp.Input, Values: cmp.Values, Model: cmp.Model,
			PromptHash: cmp.PromptHash, Barred: cmp.Barred}, !cmp.Extra)
	}
	if worth, reason := reviewWorth(&cmp); worth > 0 {
		c.review(p, &cmp, worth, reason)
	}
	select {
	case c.comparisons <- cmp:
	default:
		c.dropped.comparisons.Add(1)
		if cmp.Answered {
			p.lost.Add(1)
		}
	}
}

// signed is what one prediction showed without a label, or who answered as the generalist.
type signed struct {
	task, specialist string
	sign             drift.Sign
	teacher, prompt  string
	uniform, outside bool // of what the generalist answered

	version string // by which a model served elsewhere answered
}

// See takes a look at a prediction, for warnings that need no labels, and keeps the input of what a tier answered, so that
// people can correct it.
func (c *Controller) See(g Glance) {
	p := c.policy(g.Task)
	if p == nil {
		return
	}
	if s, ok := p.signers[g.Specialist]; ok && s.watched {
		c.glance(signed{task: g.Task, specialist: g.Specialist, sign: s.classes.sign(g.Predicted, len(g.Input), s.certificate)})
	}
	if p.versions[g.Specialist] != "" && g.Version != "" {
		c.glance(signed{task: g.Task, specialist: g.Specialist, version: g.Version})
	}
	if g.Answered && c.opts.Capture && len(g.Input) <= store.MaxText {
		c.capture(store.Example{ID: g.RequestID, RequestID: g.RequestID, Task: g.Task, At: g.At, Text: g.Input, InputHash: hash64(g.Input)})
	}
}

func (c *Controller) glance(s signed) {
	select {
	case c.signs <- s:
	default:
		c.dropped.signs.Add(1)
	}
}

// see updates the label-free watch of a model, or who the generalist is.
func (c *Controller) see(g signed) {
	s := c.subjects[g.task]
	if s == nil {
		return
	}
	if g.version != "" {
		c.named(context.Background(), s, g.specialist, g.version)
		return
	}
	if g.specialist == "" {
		if g.uniform {
			c.tally(s, g.outside)
		}
		if s.teacher.answered(g.teacher, g.prompt) {
			c.opts.Log.Warn("another model answers as the generalist: certificates on the former one's answers are void", "task", g.task, "model", g.teacher)
			c.withdraw(context.Background(), s)
		}
		return
	}
	h := s.byWeights(g.specialist)
	if h == nil || h.gauge == nil || h.gauge.Watch == nil || !c.leading { // the leader's own share of the requests is enough
		return
	}
	before := len(h.gauge.warnings())
	h.gauge.Watch.Observe(g.sign)
	h.gauge.dirty = true
	if n := len(h.gauge.warnings()); n > before {
		level := slog.LevelInfo // one warning is enough: `occam tasks show` lists every sign
		if before == 0 {
			level = slog.LevelWarn
		}
		c.opts.Log.Log(context.Background(), level, "requests look different from those that the model was certified on", "task", g.task,
			"sign", h.gauge.warnings()[n-1].Sign, "see", "occam tasks show "+g.task)
		if err := c.publish(); err != nil { // with a higher audit share
			c.opts.Log.Error("publishing", "task", g.task, "error", err)
		}
	}
}

// Doubt puts a request into the review queue.
func (c *Controller) Doubt(d Doubt) {
	p := c.policy(d.Task)
	if p == nil || d.Input == "" || len(d.Input) > store.MaxText {
		return
	}
	e := store.Example{ID: d.RequestID, RequestID: d.RequestID, Task: d.Task, At: d.At, Text: d.Input, InputHash: hash64(d.Input)}
	r := store.Review{ID: d.RequestID, Task: d.Task, RequestID: d.RequestID, Example: d.RequestID, At: d.At, Priority: WorthDoubt, Reason: "no tier may answer: " + d.Reason}
	if d.Guess != nil {
		r.Suggestion = suggestion(output(p.task.Fields, d.Guess))
	}
	c.queueReview(e, r)
}

func suggestion(o task.Output) json.RawMessage {
	data, err := json.Marshal(o)
	if err != nil {
		return nil // values of a checked prediction always encode
	}
	return data
}

// record writes what was captured. It waits for the store so that the callbacks need not.
func (c *Controller) record(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.captures:
			c.recordExample(ctx, e)
		case q := <-c.reviews:
			c.recordReview(ctx, q)
		}
	}
}

func (c *Controller) recordExample(ctx context.Context, e store.Example) {
	if err := c.opts.Store.Capture(ctx, e); err != nil && ctx.Err() == nil {
		if c.dropped.captures.Add(1) == 1 {
			c.opts.Log.Warn("an example could not be kept; later ones are counted only", "task", e.Task, "error", err)
		}
	}
}

func (c *Controller) recordReview(ctx context.Context, q queuedReview) {
	if err := c.addReview(ctx, q); err != nil && ctx.Err() == nil {
		c.opts.Log.Error("a request could not be put into the review queue", "task", q.review.Task, "error", err)
	}
}

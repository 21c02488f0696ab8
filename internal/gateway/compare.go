package gateway

import (
	"hash/fnv"
	"io"
	"slices"
	"strconv"

	"occam/internal/cascade"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// A watched prediction waits for the generalist's answer to be compared with.
type watched struct {
	tier     *Tier
	p        task.Prediction
	accepted bool // by the tier's certificate
	rare     bool // it belongs to the tier's stratum of rare classes
	extra    bool // audited for that alone: it is no part of the uniform sample
}

// watch keeps a prediction to compare with the generalist's answer.
func (x *exchange) watch(tier *Tier, p *task.Prediction, accepted bool) {
	x.watched = append(x.watched, watched{tier: tier, p: clone(p), accepted: accepted})
}

func clone(p *task.Prediction) task.Prediction {
	c := *p
	c.Values, c.FieldConfidence = slices.Clone(p.Values), slices.Clone(p.FieldConfidence)
	return c
}

// learn hands the generalist's answer to a task's request to whoever learns from it, and compares what was watched.
func (x *exchange) learn(a *paid, model, content string) {
	if x.task == nil {
		x.overhear(a, model, content)
		return
	}
	if !x.readable {
		return
	}
	said := x.said(a, model, content)
	if (said.values != nil || said.outside) && x.opts.OnExample != nil {
		x.opts.OnExample(Example{RequestID: x.id, At: x.began, Task: x.task.Task, Input: x.input, Values: said.values, Model: model,
			Provider: said.provider, PromptHash: said.prompt, Outside: said.outside, Unplain: !x.plain(), Simulated: said.simulated})
	}
	for i := range x.watched {
		x.compare(&x.watched[i], said, false, 0)
	}
}

// overhear hands on a request that belongs to no task.
func (x *exchange) overhear(a *paid, model, content string) {
	if x.opts.OnTraffic == nil {
		return
	}
	messages, err := x.request.Turns()
	if err != nil {
		return // no task was looked for, so this was not found out before
	}
	t := Traffic{RequestID: x.id, At: x.began, Asked: x.request.Model, Model: model, Provider: a.Provider, Plain: x.request.Plain,
		Messages: make([]task.Message, len(messages)), Schema: slices.Clone(x.request.Schema), Content: content,
		Usage: a.Usage, Cost: a.Cost, Priced: a.State != store.Unpriced, Simulated: a.Simulated}
	for i, m := range messages {
		t.Messages[i] = task.Message(m)
	}
	x.opts.OnTraffic(t)
}

// said is what the generalist answered to a task's request; values is nil where that was no valid answer.
type said struct {
	values                  []task.Value
	model, provider, prompt string
	outside                 bool // there is an answer, which the task's schema does not hold
	simulated               bool
}

func (x *exchange) said(a *paid, model, content string) said {
	values, err := x.task.Answer.Parse(x.task.Fields, []byte(content))
	if err != nil {
		values = nil
	}
	return said{values: values, outside: values == nil && content != "", model: model, provider: a.Provider, prompt: x.promptHash(), simulated: a.Simulated}
}

// promptHash is of everything that the generalist is told beside the input: the task's own words, the other messages, the
// answer's schema. Labels of another prompt are labels of another teacher.
func (x *exchange) promptHash() string {
	messages, err := x.request.Turns()
	if err != nil {
		return ""
	}
	h := fnv.New64a()
	put := func(text string) { _, _ = io.WriteString(h, text+"\x00") } // a hash takes everything
	put(x.task.Input.String())
	if x.request.Model == x.task.Name {
		put(x.task.System)
	}
	last := len(messages) - 1
	for last >= 0 && messages[last].Role != "user" {
		last--
	}
	for i, m := range messages {
		put(m.Role)
		if i != last { // the last word of the user is the input
			put(task.Outline(m.Text)) // the date in a prompt makes no other teacher
		}
	}
	put(string(x.request.Schema))
	return strconv.FormatUint(h.Sum64(), 16)
}

// compare tells whoever watches a tier how its prediction and the generalist's answer relate.
func (x *exchange) compare(w *watched, s said, answered bool, share float64) {
	agreed := s.values != nil && slices.EqualFunc(w.p.Values, s.values, task.Value.Equal)
	if answered {
		result := "disagreed"
		switch {
		case s.values == nil:
			result = "missing"
		case agreed:
			result = "agreed"
		}
		x.metrics.audits.WithLabelValues(x.task.Name, result).Inc()
	}
	if x.opts.OnComparison == nil {
		return
	}
	x.opts.OnComparison(Comparison{
		RequestID: x.id, At: x.opts.Now(), Task: x.task.Task, Tier: w.tier.Name, Specialist: w.tier.Identity.Specialist,
		Input: x.input, Predicted: w.p, Answered: answered, Accepted: w.accepted, Share: share, Rare: w.rare, Extra: w.extra, Missing: s.values == nil, Outside: s.outside,
		Values: s.values, Agreed: agreed,
		Model: s.model, Provider: s.provider, PromptHash: s.prompt, Simulated: s.simulated,
	})
}

// decided hands on what became of a prediction.
func (x *exchange) decided(tier *Tier, p *task.Prediction, answered bool, reason cascade.Reason) {
	if x.opts.OnDecision == nil || reason == cascade.Failed {
		return
	}
	d := Decision{RequestID: x.id, At: x.began, Task: x.task.Task, Tier: tier.Name, Specialist: tier.Identity.Specialist,
		Input: x.input, Predicted: p, Answered: answered, Reason: reason}
	if tier.Specialist == nil {
		d.Version = x.named
	}
	x.opts.OnDecision(d)
}

// drawn draws whether a tier's answer is checked, and says how likely that was. The draw does not look at the request: every answer has
// the same chance, which is what the drift tests assume. Answers in rare classes are drawn once more, for a detector of their own: extra.
func (x *exchange) drawn(tier *Tier, p *task.Prediction) (share float64, extra, ok bool) {
	share = x.task.Audit
	switch {
	case cascade.Audited(share, x.opts.Rand()):
		return share, false, true
	case tier.Rare.Holds(p) && cascade.Audited(tier.Rare.Audit, x.opts.Rand()):
		return (1 - share) * tier.Rare.Audit, true, true
	}
	return 0, false, false
}

// auditing is the reason of a call that only checks an answer.
func auditing(extra bool) cascade.Reason {
	if extra {
		return cascade.AuditingRare
	}
	return cascade.Auditing
}

// audit asks the generalist in the background about a tier's answer, if it is drawn.
func (x *exchange) audit(tier *Tier, p *task.Prediction) {
	share, extra, ok := x.drawn(tier, p)
	if !ok {
		return
	}
	w := &watched{tier: tier, p: clone(p), accepted: true, rare: tier.Rare.Holds(p), extra: extra}
	later := *x // the request ends before the audit does
	later.w, later.r = nil, x.r.WithContext(x.life)
	select {
	case x.audits <- func() {
		defer func() {
			if r := recover(); r != nil {
				later.crashed(r)
			}
		}()
		later.compare(w, later.ask(share, extra), true, share)
	}:
	default:
		x.opts.Log.Warn("too many audits wait; one is reported as missing", "request", x.id, "task", x.task.Name)
		x.compare(w, said{}, true, share)
	}
}

// ask puts the request to the generalist for an audit. That it was drawn is on the disk, as the attempt's intent, before the
// generalist is asked, with the probability of the draw: no outcome can make an audit disappear, and shares that change can be weighed.
func (x *exchange) ask(share float64, extra bool) said {
	x.reason = auditing(extra)
	edit := x.teach()
	edit.Usage, edit.NoStream = false, true
	a, r, ok := x.complete(&call{route: x.task.paid, edit: edit, tier: generalist, audit: true, share: share})
	if !ok {
		return said{}
	}
	a.account(&r, true, 0, r.Content, int64(len(r.Content)))
	return x.said(a, r.Model, r.Content)
}

// teach is what the generalist must be told beside the request: a request that named the task instead of a model may lack
// the answer's schema and the task's instructions. It is also asked for usage, which the app does not get to see.
func (x *exchange) teach() openai.Edit {
	edit := openai.Edit{Usage: true}
	if x.request.Model == x.task.Name {
		edit.System = x.task.System
		if x.task.Answer.IsJSON() {
			edit.Schema = x.task.schema
		}
	}
	return edit
}

func (s *Server) runAudits() {
	for {
		select {
		case job := <-s.audits:
			job()
		case <-s.life.Done():
			return
		}
	}
}

// review shows a request that no tier could answer to a person.
func (x *exchange) review() {
	if x.opts.OnReview == nil {
		return
	}
	r := Review{RequestID: x.id, At: x.began, Task: x.task.Task, Input: x.input, Reason: string(x.reason)}
	if n := len(x.watched); n > 0 {
		r.Guess = x.watched[n-1].p.Values
	}
	x.opts.OnReview(r)
}

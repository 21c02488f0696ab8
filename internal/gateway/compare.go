package gateway

import (
	"slices"
	"strings"

	"occam/internal/cascade"
	"occam/internal/openai"
	"occam/internal/task"
)

// A watched prediction waits for the generalist's answer to be compared with.
type watched struct {
	tier     *Tier
	p        task.Prediction
	accepted bool // by the tier's certificate
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
	if x.task == nil || !x.readable {
		return
	}
	values, err := task.ParseAnswer(x.task.Fields, []byte(strings.TrimSpace(content)))
	if err == nil && x.opts.OnExample != nil {
		x.opts.OnExample(Example{RequestID: x.id, Task: x.task.Task, Input: x.input, Values: values, Model: model, Simulated: a.Simulated})
	}
	for i := range x.watched {
		x.compare(&x.watched[i], values, false, 0, a.Simulated)
	}
}

func (x *exchange) compare(w *watched, values []task.Value, answered bool, share float64, simulated bool) {
	if x.opts.OnComparison == nil {
		return
	}
	x.opts.OnComparison(Comparison{
		RequestID: x.id, At: x.opts.Now(), Task: x.task.Task, Tier: w.tier.Name, Specialist: w.tier.Identity.Specialist,
		Input: x.input, Predicted: w.p, Answered: answered, Accepted: w.accepted, Share: share, Missing: values == nil,
		Values: values, Agreed: values != nil && slices.EqualFunc(w.p.Values, values, task.Value.Equal), Simulated: simulated,
	})
}

// audit draws whether a tier's answer is checked and, if so, asks the generalist in the background. The draw does not look
// at the request: every answer has the same chance, which is what the drift tests assume.
func (x *exchange) audit(tier *Tier, p *task.Prediction) {
	share := x.task.Audit
	if !cascade.Audited(share, x.opts.Rand()) {
		return
	}
	w := &watched{tier: tier, p: clone(p), accepted: true}
	later := *x // the request ends before the audit does
	later.w = nil
	select {
	case x.audits <- func() {
		values, simulated := later.ask()
		later.compare(w, values, true, share, simulated)
	}:
	default:
		x.opts.Log.Warn("too many audits wait; one is reported as missing", "request", x.id, "task", x.task.Name)
		x.compare(w, nil, true, share, false)
	}
}

// ask puts the request to the generalist for an audit. It returns its answer, nil where it gave no valid one.
func (x *exchange) ask() (values []task.Value, simulated bool) {
	x.reason = cascade.Auditing
	edit := x.teach()
	edit.Usage, edit.NoStream = false, true
	a, r, ok := x.complete(&call{route: x.task.paid, edit: edit, tier: generalist, audit: true})
	if !ok {
		return nil, false
	}
	a.account(&r, true, 0, r.Content, int64(len(r.Content)))
	values, err := task.ParseAnswer(x.task.Fields, []byte(strings.TrimSpace(r.Content)))
	if err != nil {
		return nil, a.Simulated
	}
	return values, a.Simulated
}

// teach is what the generalist must be told beside the request: a request that named the task instead of a model may lack
// the answer's schema and the task's instructions. It is also asked for usage, which the app does not get to see.
func (x *exchange) teach() openai.Edit {
	edit := openai.Edit{Usage: true}
	if x.request.Model == x.task.Name {
		edit.ResponseFormat, edit.System = x.task.format, x.task.System
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

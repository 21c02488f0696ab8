package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// passes says why a tier is not asked, "" where it is. A tier at an upstream is paid by the call, so it is asked only when it may
// answer, and only about requests that its certificate was made for.
func (x *exchange) passes(tier *Tier, step cascade.Step) cascade.Reason {
	switch {
	case step.Role == cascade.Skip, tier.Specialist == nil && step.Role == cascade.Watch:
		return step.Reason
	case !tier.Covers(x.way):
		if tier.Certificate == nil && tier.Specialist != nil {
			return "" // its prediction is watched
		}
		return cascade.NotCovered
	}
	return ""
}

// left is the score with which a request goes past a tier. Of a specialist that failed it is not known what it would have said.
func (t *Tier) left(p *task.Prediction, reason cascade.Reason) float64 {
	switch {
	case reason == cascade.Failed && t.Specialist != nil, reason == cascade.InvalidOutput && t.Specialist != nil:
		return math.Inf(1)
	case reason == cascade.Failed, reason == cascade.InvalidOutput, reason == cascade.OtherVersion:
		return math.Inf(-1)
	}
	return t.Gated(p)
}

// consult asks a tier at an upstream, with the task's own prompt whatever the app's is, because that is what was certified.
func (x *exchange) consult(tier *Tier, p *task.Prediction) (*trial, cascade.Reason) {
	*p = task.Prediction{Score: math.Inf(-1), InScope: math.Inf(-1)} // what the tier before said is not this one's
	scored := tier.Identity.Score != cascade.ScoreConstant
	a, r, ok := x.complete(x.put(x.task.Task, x.input, scored, &call{route: tier.Route, tier: tier.Name}))
	t := &trial{x: x, paid: a, reply: r}
	if !ok {
		t.paid = nil // its row is closed
		return t, cascade.Failed
	}
	x.named = r.Model
	if tier.Version != "" && r.Model != tier.Version {
		return t, cascade.OtherVersion
	}
	values, err := task.ParseAnswer(x.task.Fields, []byte(strings.TrimSpace(r.Content)))
	if err != nil {
		return t, cascade.InvalidOutput
	}
	*p = task.Prediction{Values: values, Confidence: math.Exp(r.LogProb), Score: r.LogProb}
	if !scored {
		p.Score, p.Confidence = 0, 0
	}
	a.Confidence = p.Confidence
	return t, tier.Decide(x.task.Fields, x.input, p)
}

// put makes a call ask a task's question about an input in the task's own words.
func (x *exchange) put(t *task.Task, input string, scored bool, c *call) *call {
	system, user := t.Ask(input)
	c.own = openai.NewChat(t.Name, []openai.Message{{Role: "system", Text: system}, {Role: "user", Text: user}}, 0)
	c.edit = openai.Edit{Logprobs: scored, Schema: task.Schema(t.Fields)}
	return c
}

// A Consulted is what a model said of an input when it was measured as a tier.
type Consulted struct {
	Values  []task.Value // nil: no valid answer
	LogProb float64      // of the answer's text, NaN where the model tells none or was not asked
	Version string       // as the answer names the model
	Cost    cost.Amount
	Priced  bool
}

// Consult puts an input of the past to a model, by the name that apps use, exactly as a tier of that model would be asked. It is
// a call like any other: its attempt stands in the ledger as an audit of the task with the reason "calibration". scored asks for
// log-probabilities, which some models refuse. An error says that the model gave no reply, so nothing is known of it.
func (s *Server) Consult(ctx context.Context, taskName, model, input string, scored bool) (Consulted, error) {
	snap := s.snapshot.Load()
	if snap == nil {
		return Consulted{}, errors.New("gateway: consult: nothing is published yet")
	}
	route, ok := snap.route(model)
	t := snap.taskNamed(taskName)
	if !ok || t == nil {
		return Consulted{}, fmt.Errorf("gateway: consult: there is no task %q or no way to reach model %q", taskName, model)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/calibration", nil)
	if err != nil {
		return Consulted{}, err
	}
	now := s.opts.Now()
	x := &exchange{Server: s, api: openai.Chat, snap: snap, r: r, id: store.NewID(now), began: now, reason: cascade.Calibrating, trace: ctx,
		task: t, input: input, inputHash: inputHash(input), attempts: 1} // attempt 0 is an app's, which counts as a request
	route.Targets = route.Targets[:1] // a fallback is another model
	c := x.put(t.Task, input, scored, &call{route: route, tier: model, audit: true})
	x.request = c.own
	a, reply, ok := x.complete(c)
	if !ok {
		return Consulted{}, fmt.Errorf("gateway: consult: %s gave no answer; see the ledger's rows of request %s", model, x.id)
	}
	a.account(&reply, true, 0, reply.Content, int64(len(reply.Content)))
	found := Consulted{LogProb: reply.LogProb, Version: reply.Model, Cost: a.Cost, Priced: a.priced}
	if values, err := task.ParseAnswer(t.Fields, []byte(strings.TrimSpace(reply.Content))); err == nil {
		found.Values = values
	}
	return found, ctx.Err()
}

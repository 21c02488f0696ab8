package gateway

import (
	"net/http"
	"sync"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// generalist is the tier name of a task's large model.
const generalist = "generalist"

// ask answers a request for a model, in any of the shapes. It is the whole path of one request.
func (s *Server) ask(x *exchange) {
	if refused := x.read(); refused != nil {
		x.refuse(refused)
		return
	}
	if x.task == nil {
		x.passThrough()
		return
	}
	plan := cascade.Plan(make([]cascade.Step, 0, 4), x.task.deciding, cascade.Request{
		Plain: x.plain(), Readable: x.readable, Hash: x.inputHash,
	})
	p := predictions.Get().(*task.Prediction)
	defer predictions.Put(p)
	x.reason = cascade.NoTier
	for i, step := range plan {
		tier := &x.task.Tiers[i]
		if why := x.passes(tier, step); why != "" {
			x.reason = why
			continue
		}
		t, reason := x.try(tier, p)
		accepted := reason == cascade.Certified
		if accepted && step.Role == cascade.Answer {
			x.reason = reason
			x.answer(t, p)
			x.audit(tier, p)
			x.decided(tier, p, true, reason)
			return
		}
		x.way = append(x.way, cascade.Passed{Tier: tier.Identity.Specialist, Score: tier.left(p, reason)})
		if accepted {
			reason = step.Reason
		}
		x.reason = reason
		t.decline(reason)
		x.decided(tier, p, false, reason)
		if reason != cascade.Failed && reason != cascade.OtherVersion && p.Values != nil {
			x.watch(tier, p, accepted)
		}
	}
	x.doubtful()
}

// read takes the request in: its body, its task, and whether its key may ask for that.
func (x *exchange) read() *openai.Error {
	body, refused := x.body()
	if refused != nil {
		return refused
	}
	if x.poisons.known.Load() > 0 && x.poisons.holds("", bodyHash(body)) {
		return &openai.Error{Status: 422, Type: "invalid_request_error", Code: "quarantined",
			Message: "This very request has crashed the gateway before, so it is not tried again. Please report it with its request ID."}
	}
	var err error
	if x.request, err = openai.Parse(x.api, body); err != nil {
		return err.(*openai.Error) // Parse promises it
	}
	if err := x.recognize(); err != nil {
		return openai.BadRequest("messages", "The messages cannot be read: "+err.Error()+".")
	}
	return x.permitted()
}

// recognize finds the request's task. Without tasks nothing of the messages is decoded.
func (x *exchange) recognize() error {
	if len(x.snap.Tasks) == 0 || x.api == openai.Embeddings {
		return nil
	}
	messages, err := x.request.Turns()
	if err != nil {
		return err
	}
	q := task.Query{Model: x.request.Model, Schema: x.request.Schema, Messages: make([]task.Message, len(messages))}
	for i, m := range messages {
		q.Messages[i] = task.Message(m)
	}
	match, ok := x.snap.recognizer.Recognize(q)
	if ok {
		x.task = x.snap.tasks[match.Task]
		x.input, x.readable = match.Input, match.Readable
		x.inputHash = inputHash(match.Input)
	}
	return nil
}

// plain reports whether a tier's answer could stand in for the generalist's: one text in the task's own format.
func (x *exchange) plain() bool {
	return x.request.Plain && (x.request.Schema == nil || x.task.Answer.IsJSON() && x.snap.sameSchema(x.task, x.request.Schema))
}

// A trial is one tier's attempt at a request whose row is not closed yet.
type trial struct {
	x *exchange
	store.Attempt
	paid  *paid // of a tier at an upstream
	reply openai.Reply
}

// try asks one tier and decides.
func (x *exchange) try(tier *Tier, p *task.Prediction) (*trial, cascade.Reason) {
	if tier.Specialist == nil {
		return x.consult(tier, p)
	}
	if x.poisons.holds(tier.label, x.inputHash) {
		return &trial{x: x}, cascade.Failed
	}
	t := &trial{x: x, Attempt: x.attempt()}
	t.Tier, t.Model = tier.Name, tier.label
	err := engine.Predict(tier.Specialist, x.input, p)
	t.Latency = x.opts.Now().Sub(t.At)
	if err != nil {
		quarantined := x.poisons.crashed(tier.label, x.inputHash)
		x.opts.Log.Error("a tier failed", "request", x.id, "task", x.task.Name, "tier", tier.Name, "error", err, "quarantined", quarantined)
		return t, cascade.Failed
	}
	t.Confidence = p.Confidence
	return t, tier.Decide(x.task.Fields, x.input, p)
}

// decline closes the row of a tier that may not answer.
func (t *trial) decline(reason cascade.Reason) {
	switch {
	case t.paid != nil:
		t.paid.Reason = string(reason)
		t.paid.account(&t.reply, true, 0, t.reply.Content, int64(len(t.reply.Content)))
	case t.ID != "":
		t.Reason = string(reason)
		t.x.record(t.Attempt)
	}
}

// answer writes a tier's prediction as the app's answer. What cost money is recorded before, what cost nothing after.
func (x *exchange) answer(t *trial, p *task.Prediction) {
	text := x.task.Answer.Append(make([]byte, 0, 128), x.task.Fields, p.Values)
	answer := openai.Answer{ID: x.id, Created: x.began.Unix(), Model: x.request.Model, Content: string(text)}
	if t.paid != nil {
		t.paid.Answered, t.paid.Reason = true, string(cascade.Certified)
		t.paid.account(&t.reply, true, 0, t.reply.Content, int64(len(t.reply.Content)))
		x.own(&answer, &t.paid.Attempt)
		return
	}
	t.Reason, t.Answered, t.Status = string(cascade.Certified), true, http.StatusOK
	x.own(&answer, &t.Attempt)
	t.Reference = x.reference(len(text))
	t.Latency = x.opts.Now().Sub(x.began)
	x.record(t.Attempt)
}

// own writes an answer that this process made. An app that went away has no use for it.
func (x *exchange) own(answer *openai.Answer, a *store.Attempt) {
	x.headers(a)
	h := x.w.Header()
	h["X-Occam-Cost-Usd"] = []string{x.cost()}
	if x.request.Stream {
		h["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
		h["Cache-Control"] = []string{"no-cache"}
	} else {
		h["Content-Type"] = []string{"application/json"}
	}
	x.wrote = true
	x.deadline()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	_, _ = x.w.Write(answer.Append((*buffer)[:0], x.request))
	x.done(a)
}

// record puts an attempt that cost nothing into the ledger.
func (x *exchange) record(a store.Attempt) {
	if err := x.opts.Ledger.RecordFree(x.patience(), a); err != nil {
		x.opts.Log.Error("an answer that cost nothing is missing from the ledger", "request", x.id, "error", err)
	}
}

// doubtful handles a request that no tier may answer, as the task says: the generalist answers, or a person, or both.
func (x *exchange) doubtful() {
	if x.task.OnDoubt == "review" || x.task.OnDoubt == "both" {
		x.review()
	}
	if x.task.OnDoubt == "review" {
		x.held()
		return
	}
	if refused := x.mayEscalate(); refused != nil {
		x.refuse(refused)
		return
	}
	x.relay(&call{route: x.task.paid, edit: x.teach(), tier: generalist})
}

// held tells the app, in the shape of a refusal, that a person will answer.
func (x *exchange) held() {
	a := x.attempt()
	a.Tier, a.Model, a.Reason, a.Status = "person", "person", string(cascade.Doubt), http.StatusOK
	x.own(x.heldAnswer(), &a)
	a.Latency = x.opts.Now().Sub(x.began)
	x.record(a)
}

func (x *exchange) heldAnswer() *openai.Answer {
	return &openai.Answer{ID: x.id, Created: x.began.Unix(), Model: x.request.Model,
		Refusal: "No model may answer this request with the required certainty. It waits for a person under request " + x.id + "."}
}

// passThrough sends a request that belongs to no task to its model, as it came.
func (x *exchange) passThrough() {
	route, ok := x.snap.route(x.request.Model)
	if !ok {
		x.refuse(x.unknownModel())
		return
	}
	x.reason = cascade.PassThrough
	x.relay(&call{route: route, edit: openai.Edit{Usage: x.snap.Limits.AskUsage}})
}

func (x *exchange) unknownModel() *openai.Error {
	return &openai.Error{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model",
		Message: "The model '" + x.request.Model + "' is not configured and there is no provider to ask for it."}
}

// inputHash is the 64-bit FNV-1a hash of a task's input: it finds repeats in the ledger without storing the text.
func inputHash(input string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(input) {
		h = (h ^ uint64(input[i])) * 1099511628211
	}
	return h
}

// predictions are reused: a prediction's slices grow to the task's size once.
var predictions = sync.Pool{New: func() any { return new(task.Prediction) }}

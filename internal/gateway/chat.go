package gateway

import (
	"net/http"
	"slices"
	"sync"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// chat answers POST /v1/chat/completions. It is the whole path of one request.
func (s *Server) chat(x *exchange) {
	body, refused := x.body()
	if refused != nil {
		x.refuse(refused)
		return
	}
	req, err := openai.ParseRequest(body)
	if err != nil {
		x.refuse(err.(*openai.Error)) // ParseRequest promises it
		return
	}
	x.request = req
	match, err := x.recognize()
	if err != nil {
		x.refuse(openai.BadRequest("messages", "The messages cannot be read: "+err.Error()+"."))
		return
	}
	if x.task == nil {
		x.passThrough()
		return
	}
	x.input, x.reason = match.Input, cascade.NoTier
	x.inputHash = inputHash(match.Input)
	plan := cascade.Plan(make([]cascade.Step, 0, 4), x.task.deciding, cascade.Request{
		Plain: x.plain(), Readable: match.Readable, Hash: x.inputHash,
	})
	p := predictions.Get().(*task.Prediction)
	defer predictions.Put(p)
	for i, step := range plan {
		if step.Role == cascade.Skip {
			x.reason = step.Reason
			continue
		}
		tier := &x.task.Tiers[i]
		attempt, reason := x.predict(tier, p)
		accepted := reason == cascade.Certified
		if accepted && step.Role == cascade.Answer {
			x.answer(tier, p, attempt)
			x.audit(tier, p)
			return
		}
		if accepted {
			reason = step.Reason
		}
		x.reason = reason
		x.declined(attempt, reason)
		if reason != cascade.Failed {
			x.watch(tier, p, accepted)
		}
	}
	x.doubtful()
}

// recognize finds the request's task. Without tasks nothing of the messages is decoded.
func (x *exchange) recognize() (task.Match, error) {
	if len(x.snap.Tasks) == 0 {
		return task.Match{}, nil
	}
	messages, err := x.request.Messages()
	if err != nil {
		return task.Match{}, err
	}
	q := task.Query{Model: x.request.Model, Schema: x.request.Schema, Messages: make([]task.Message, len(messages))}
	for i, m := range messages {
		q.Messages[i] = task.Message(m)
	}
	match, ok := x.snap.recognizer.Recognize(q)
	if ok {
		x.task = x.snap.tasks[match.Task]
	}
	return match, nil
}

// plain reports whether a tier's answer could stand in for the generalist's: one text in the task's own format.
func (x *exchange) plain() bool {
	return x.request.Plain && (x.request.Schema == nil || x.snap.sameSchema(x.task, x.request.Schema))
}

// predict asks one tier and decides. The attempt is that of a tier in this process, not recorded yet; a tier at an
// upstream records its own.
func (x *exchange) predict(tier *Tier, p *task.Prediction) (store.Attempt, cascade.Reason) {
	a := x.attempt()
	a.Tier, a.Model = tier.Name, tier.label
	err := engine.Predict(tier.Specialist, x.input, p)
	a.Latency = x.opts.Now().Sub(a.At)
	if err != nil {
		x.opts.Log.Error("a tier failed", "request", x.id, "task", x.task.Name, "tier", tier.Name, "error", err)
		return a, cascade.Failed
	}
	a.Confidence = p.Confidence
	return a, tier.Decide(x.task.Fields, x.input, p)
}

// answer writes a tier's prediction as the app's answer and records it after it was sent: it cost nothing.
func (x *exchange) answer(tier *Tier, p *task.Prediction, a store.Attempt) {
	text := task.AppendAnswer(nil, x.task.Fields, p.Values)
	answer := openai.Answer{ID: "chatcmpl-" + x.id, Created: a.At.Unix(), Model: x.request.Model, Content: string(text)}
	a.Reason, a.Answered, a.Status = string(cascade.Certified), true, http.StatusOK
	x.own(&answer, &a)
	a.Reference = x.reference(len(text))
	a.Latency = x.opts.Now().Sub(x.began)
	x.record(a)
}

// own writes an answer that this process made.
func (x *exchange) own(answer *openai.Answer, a *store.Attempt) {
	x.headers(a)
	h := x.w.Header()
	h["X-Occam-Cost-Usd"] = []string{costHeader(a)}
	var body []byte
	if x.request.Stream {
		h["Content-Type"] = []string{"text/event-stream; charset=utf-8"}
		h["Cache-Control"] = []string{"no-cache"}
		body = answer.AppendStream(make([]byte, 0, 2048), x.request.IncludeUsage)
	} else {
		h["Content-Type"] = []string{"application/json"}
		body = answer.AppendJSON(make([]byte, 0, 1024))
	}
	x.wrote = true
	x.deadline()
	_, _ = x.w.Write(body) // an app that went away has no use for its answer, and nothing was paid
}

// declined records a tier that predicted and may not answer.
func (x *exchange) declined(a store.Attempt, reason cascade.Reason) {
	a.Reason = string(reason)
	x.record(a)
}

func (x *exchange) record(a store.Attempt) {
	ctx, cancel := x.detached(ledgerPatience)
	defer cancel()
	if err := x.opts.Ledger.RecordFree(ctx, a); err != nil {
		x.opts.Log.Error("an answer that cost nothing is missing from the ledger", "request", x.id, "error", err)
	}
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

// doubtful handles a request that no tier may answer, as the task says: the generalist answers, or a person, or both.
func (x *exchange) doubtful() {
	if x.task.OnDoubt != "generalist" && x.task.OnDoubt != "" {
		x.review()
	}
	if x.task.OnDoubt == "review" {
		x.held()
		return
	}
	x.escalate()
}

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

// held tells the app, in the shape of a refusal, that a person will answer.
func (x *exchange) held() {
	a := x.attempt()
	a.Tier, a.Model, a.Reason, a.Status = "person", "person", string(cascade.Doubt), http.StatusOK
	answer := openai.Answer{ID: "chatcmpl-" + x.id, Created: a.At.Unix(), Model: x.request.Model,
		Refusal: "No model may answer this request with the required certainty. It waits for a person under request " + x.id + "."}
	x.own(&answer, &a)
	a.Latency = x.opts.Now().Sub(x.began)
	x.record(a)
}

// passThrough sends a request that belongs to no task to its model, as it came.
func (x *exchange) passThrough() {
	route, ok := x.snap.route(x.request.Model)
	if !ok {
		x.refuse(&openai.Error{Status: 404, Type: "invalid_request_error", Code: "model_not_found", Param: "model",
			Message: "The model '" + x.request.Model + "' is not configured and there is no provider to ask for it."})
		return
	}
	x.reason = cascade.PassThrough
	x.relay(route, openai.Edit{})
}

// escalate sends a task's request to the generalist. A request that named the task instead of a model may lack what the
// generalist needs to know; that is added.
func (x *exchange) escalate() {
	edit := openai.Edit{Usage: true}
	if x.request.Model == x.task.Name {
		edit.ResponseFormat, edit.System = x.task.format, x.task.System
	}
	x.relay(x.task.paid, edit)
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

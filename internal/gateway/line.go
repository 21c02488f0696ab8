package gateway

import (
	"bytes"
	"context"
	"net/http"
	"runtime/debug"
	"time"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// A Line is one request of a batch. Its ID, a ULID, is the request's: a line that is looked at again after a crash keeps it.
type Line struct {
	ID    string
	Began time.Time
	Key   *store.Key // nil where the API asks for none
	API   openai.API
	Body  []byte
}

// A Sorted line has one of: Refused, an error of its own; Answer, the body of a specialist's answer; Ask, what is to be put to
// the provider. An answer that is audited has both.
type Sorted struct {
	Refused *openai.Error
	Answer  []byte
	Row     store.Attempt   // of the answer
	Rows    []store.Attempt // for the ledger, what cost nothing: Row too
	Ask     *Ask
}

// An Ask is what is to be put to a provider for a line, as a line of a batch of its own.
type Ask struct {
	Upstream *engine.Upstream
	Model    string        // as the upstream knows it
	Body     []byte        // for the upstream, in the words of the line's API
	Intent   store.Attempt // at the prices of the provider's batch API
	Audited  string        // the specialist whose answer is audited, "" where this is the answer itself
}

// offline is an exchange without an app that waits.
func (s *Server) offline(ctx context.Context, l *Line) (*exchange, *openai.Error) {
	x := &exchange{Server: s, api: l.API, snap: s.snapshot.Load(), id: l.ID, began: l.Began, key: l.Key, wrote: true, batch: true}
	if x.snap == nil {
		return nil, &openai.Error{Status: 503, Type: "api_error", Code: "starting", Message: "The gateway is starting."}
	}
	if l.Key != nil {
		x.account = s.account(l.Key.ID)
	}
	x.r = (&http.Request{Method: http.MethodPost, Header: http.Header{}}).WithContext(ctx)
	return x, x.take(l.Body)
}

// take parses a line's body and finds its task.
func (x *exchange) take(body []byte) *openai.Error {
	var err error
	if x.request, err = openai.Parse(x.api, body); err != nil {
		return err.(*openai.Error) // Parse promises it
	}
	if x.request.Stream {
		return openai.BadRequest("stream", "Requests of a batch cannot be streamed.")
	}
	if err := x.recognize(); err != nil {
		return openai.BadRequest("messages", "The messages cannot be read: "+err.Error()+".")
	}
	return x.permitted()
}

// Sort finds out what becomes of a line. It sends nothing and writes nothing. Models at an upstream that are tiers of a task
// are not asked: their price is no batch price. A line that crashes is refused.
func (s *Server) Sort(ctx context.Context, l *Line) (sorted Sorted) {
	defer func() {
		if crash := recover(); crash != nil {
			s.logCrash(l, crash)
			sorted = Sorted{Refused: internalError(l.ID)}
		}
	}()
	x, refused := s.offline(ctx, l)
	switch {
	case refused != nil:
		return Sorted{Refused: refused}
	case int64(len(l.Body)) > x.snap.Limits.BodyBytes:
		return Sorted{Refused: &openai.Error{Status: 413, Type: "invalid_request_error", Code: "body_too_large",
			Message: "The body is larger than the gateway's limit."}}
	}
	if x.task == nil {
		route, ok := x.snap.route(x.request.Model)
		if !ok {
			return Sorted{Refused: x.unknownModel()}
		}
		x.reason = cascade.PassThrough
		return x.asking(nil, &call{route: route})
	}
	tier, t, p, rows := x.attend()
	if tier == nil {
		return x.unsettled(rows)
	}
	text := x.task.Answer.Append(make([]byte, 0, 128), x.task.Fields, p.Values)
	t.Reason, t.Answered, t.Status = string(cascade.Certified), true, http.StatusOK
	t.Reference = x.reference(len(text))
	answer := openai.Answer{ID: x.id, Created: x.began.Unix(), Model: x.request.Model, Content: string(text)}
	x.decided(tier, p, true, cascade.Certified)
	x.metrics.answered(&t.Attempt, http.StatusOK, t.Latency)
	done := Sorted{Answer: answer.Append(make([]byte, 0, 1024), x.request), Row: t.Attempt, Rows: append(rows, t.Attempt)}
	if share, extra, ok := x.drawn(tier, p); ok {
		x.reason = auditing(extra)
		done.Ask = x.asking(nil, &call{route: x.task.paid, edit: x.teach(), tier: generalist, audit: true, share: share}).Ask
		if done.Ask == nil { // the generalist cannot be asked that
			x.compare(&watched{tier: tier, p: clone(p), accepted: true, rare: tier.Rare.Holds(p), extra: extra}, said{}, true, share)
			return done
		}
		done.Ask.Audited = tier.Identity.Specialist
	}
	return done
}

// attend asks the specialists in order until one may answer. Without one tier is nil, the reason stands in x and what was
// predicted waits to be compared. rows are those of specialists that may not answer.
func (x *exchange) attend() (_ *Tier, _ *trial, _ *task.Prediction, rows []store.Attempt) {
	x.reason = cascade.NoTier
	plan := cascade.Plan(nil, x.task.deciding, cascade.Request{Plain: x.plain(), Readable: x.readable, Hash: x.inputHash})
	for i, step := range plan {
		tier := &x.task.Tiers[i]
		if why := x.passes(tier, step); why != "" {
			x.reason = why
			continue
		}
		if tier.Specialist == nil {
			continue
		}
		p := new(task.Prediction)
		t, reason := x.try(tier, p)
		if reason == cascade.Certified && step.Role == cascade.Answer {
			return tier, t, p, rows
		}
		x.way = append(x.way, cascade.Passed{Tier: tier.Identity.Specialist, Score: tier.left(p, reason)})
		accepted := reason == cascade.Certified
		if accepted {
			reason = step.Reason
		}
		x.reason, t.Reason = reason, string(reason)
		if t.ID != "" { // it was asked: an input that crashed it too often is not shown to it
			rows = append(rows, t.Attempt)
		}
		x.decided(tier, p, false, reason)
		if reason != cascade.Failed {
			x.watch(tier, p, accepted)
		}
	}
	return nil, nil, nil, rows
}

// unsettled handles a line of a task that no specialist may answer, as the task says.
func (x *exchange) unsettled(rows []store.Attempt) Sorted {
	if x.task.OnDoubt == "review" || x.task.OnDoubt == "both" {
		x.review()
	}
	if x.task.OnDoubt != "review" {
		return x.asking(rows, &call{route: x.task.paid, edit: x.teach(), tier: generalist})
	}
	a := x.attempt()
	a.Tier, a.Model, a.Reason, a.Status = "person", "person", string(cascade.Doubt), http.StatusOK
	answer := x.heldAnswer()
	return Sorted{Answer: answer.Append(nil, x.request), Row: a, Rows: append(rows, a)}
}

// asking prepares what a provider is to be asked.
func (x *exchange) asking(rows []store.Attempt, c *call) Sorted {
	a := x.intent(c, c.route.Targets[0])
	a.ID = store.LineID(x.id, attemptsBefore+a.Seq) // never that of a row without cost, which a look before a crash may have left
	if x.key != nil && x.key.Limits.Budget > 0 && !a.priced && !a.target.Upstream.Hosted {
		return Sorted{Rows: rows, Refused: x.unpricedModel(a)}
	}
	if _, err := a.target.Upstream.Translate(x.api, a.body); err != nil {
		return Sorted{Rows: rows, Refused: asFailure(err).Reply()}
	}
	return Sorted{Rows: rows, Ask: &Ask{Upstream: a.target.Upstream, Model: a.target.Model, Body: a.body, Intent: a.Attempt}}
}

// Cheaper is what to put to the cheaper model that a line's key names, instead of an Ask that its budget has no room for; nil
// where there is none. It has the ID of the Ask that it stands for, of which the ledger knows nothing.
func (s *Server) Cheaper(ctx context.Context, l *Line, ask *Ask) *Ask {
	x, refused := s.offline(ctx, l)
	if x == nil || refused != nil {
		return nil
	}
	c := &call{audit: ask.Intent.Audit, share: ask.Intent.AuditShare}
	if x.task != nil {
		c.edit, c.tier = x.teach(), generalist
	}
	x.attempts, x.reason = ask.Intent.Seq, cascade.Reason(ask.Intent.Reason)
	c, ok := x.cheaper(c)
	if !ok || c.route.Targets[0].Upstream == ask.Upstream && c.route.Targets[0].Model == ask.Model {
		return nil
	}
	instead := x.asking(nil, c).Ask
	if instead != nil {
		instead.Intent.Confidence = ask.Intent.Confidence
	}
	return instead
}

// Settle makes the outcome of an intended line of what the provider answered: status and body as its results give them, or
// status 0 when it says that it never ran the line. Whoever learns from answers is told.
func (s *Server) Settle(ctx context.Context, l *Line, ask *Ask, status int, body []byte) (row store.Attempt) {
	a := &paid{Attempt: ask.Intent, target: engine.Target{Upstream: ask.Upstream, Model: ask.Model}, body: ask.Body}
	x, refused := s.offline(ctx, l)
	if x == nil {
		return a.Attempt
	}
	a.x = x
	a.price, a.priced = x.price(a.target, "", a.At)
	a.high = x.bound(a.target, len(a.body))
	a.Status = status
	reply, ok := openai.ParseReply(body)
	switch {
	case status == 0:
		a.finish(store.Void)
		return a.Attempt
	case status != http.StatusOK:
		a.unbilled(status)
	case !ok:
		a.lost(errNotJSON)
	default:
		a.Answered = !a.Audit
		a.account(&reply, true, 0, reply.Content, int64(len(reply.Content)))
	}
	if refused == nil && (x.task == nil) == (a.Task == "") { // else the task was changed meanwhile
		defer func() {
			if crash := recover(); crash != nil { // in whoever is told: the outcome stands
				s.logCrash(l, crash)
				row = a.Attempt
			}
		}()
		x.tell(a, ask, &reply, ok && status == http.StatusOK)
	}
	return a.Attempt
}

func (s *Server) logCrash(l *Line, crash any) {
	s.opts.Log.Error("a line of a batch crashed", "request", l.ID, "panic", crash, "stack", string(debug.Stack()))
}

// tell tells what the provider said to a line.
func (x *exchange) tell(a *paid, ask *Ask, reply *openai.Reply, ok bool) {
	switch {
	case ask.Audited != "" && x.task != nil:
		x.audited(a, ask, reply, ok)
	case ok:
		x.heard(a, reply)
	}
}

// heard tells whoever learns what the generalist answered to a line. The predictions that it is compared with are made again:
// a specialist predicts the same every time, and one that was replaced meanwhile has nothing to compare.
func (x *exchange) heard(a *paid, reply *openai.Reply) {
	if x.task != nil {
		x.watched = x.predictions()
	}
	x.learn(a, reply.Model, reply.Content)
}

// audited does the same for the audit of a specialist's answer, which counts as missing when the generalist gave none.
func (x *exchange) audited(a *paid, ask *Ask, reply *openai.Reply, answered bool) {
	for _, w := range x.predictions() {
		if w.tier.Identity.Specialist != ask.Audited {
			continue
		}
		w.accepted, w.rare, w.extra = true, w.tier.Rare.Holds(&w.p), ask.Intent.Reason == string(cascade.AuditingRare)
		var s said
		if answered {
			s = x.said(a, reply.Model, reply.Content)
		}
		x.compare(&w, s, true, ask.Intent.AuditShare)
	}
}

// predictions are what the specialists that are asked now say to the request.
func (x *exchange) predictions() (all []watched) {
	plan := cascade.Plan(nil, x.task.deciding, cascade.Request{Plain: x.plain(), Readable: x.readable, Hash: x.inputHash})
	for i, step := range plan {
		tier := &x.task.Tiers[i]
		if step.Role == cascade.Skip || tier.Specialist == nil {
			continue
		}
		var p task.Prediction
		if engine.Predict(tier.Specialist, x.input, &p) == nil {
			all = append(all, watched{tier: tier, p: p, accepted: tier.Decide(x.task.Fields, x.input, &p) == cascade.Certified})
		}
	}
	return all
}

// Call puts a line to its model by an ordinary call, with the ledger's intent and outcome, the retries and the prices of one.
// try counts the calls of this line from 0. It returns the answer that an app would have got.
func (s *Server) Call(ctx context.Context, l *Line, try int) (status int, header http.Header, body []byte) {
	w := &recorder{header: http.Header{}}
	x, refused := s.offline(ctx, l)
	if x == nil || refused != nil {
		return refused.Status, w.header, refused.Append(nil, l.API)
	}
	defer func() {
		if crash := recover(); crash != nil {
			x.crashed(crash)
			failed := internalError(x.id)
			status, header, body = failed.Status, w.header, failed.Append(nil, l.API)
		}
	}()
	x.w, x.wrote, x.batch = w, false, false
	x.attempts = attemptsBefore * (try + 1) // its row of a batch came first
	switch {
	case x.task == nil:
		x.passThrough()
	default:
		x.reason = cascade.NoTier
		x.relay(&call{route: x.task.paid, edit: x.teach(), tier: generalist})
	}
	return w.status, w.header, w.body.Bytes()
}

// attemptsBefore is more than the attempts at a line before it is called, tiers that did not answer and the batch, and more
// than one call makes.
const attemptsBefore = 16

// A recorder keeps an answer that no app waits for.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// Upstream returns a provider of the models that the snapshot knows, by the configuration's name; nil where there is none.
func (s *Server) Upstream(name string) *engine.Upstream {
	snap := s.snapshot.Load()
	if snap == nil {
		return nil
	}
	if snap.Fallback != nil && snap.Fallback.Name == name {
		return snap.Fallback
	}
	for _, r := range snap.Models {
		for _, t := range r.Targets {
			if t.Upstream.Name == name {
				return t.Upstream
			}
		}
	}
	return nil
}

// KeyOf returns the virtual key of an ID, as the API takes it now: nil where it was revoked, or where the API asks for none.
func (s *Server) KeyOf(id string) *store.Key {
	snap := s.snapshot.Load()
	if snap == nil || snap.Keys == nil {
		return nil
	}
	for _, k := range snap.Keys.byHash {
		if k.ID == id {
			return k
		}
	}
	return nil
}

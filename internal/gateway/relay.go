package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// ledgerPatience is how long the ledger may take to write an outcome before the answer goes out without waiting further:
// the store keeps the outcome and the durable intent stands for it meanwhile.
const ledgerPatience = 10 * time.Second

// generalist is the tier name of a task's large model.
const generalist = "generalist"

// A paid attempt is one call to an upstream with its row of the ledger.
type paid struct {
	store.Attempt
	x      *exchange
	target engine.Target
	price  cost.Price
	priced bool
	body   []byte
	high   cost.Usage // most that it can bill
	done   bool
}

// relay sends the request to a route's model and passes its answer on as it comes.
func (x *exchange) relay(route engine.Route, edit openai.Edit) {
	a, reply, refused := x.call(route, edit, "/chat/completions", false)
	if refused != nil {
		x.refuse(refused)
		return
	}
	defer reply.Body.Close()
	if reply.Status == http.StatusOK && isEventStream(reply.Header) {
		x.stream(a, reply)
		return
	}
	x.whole(a, reply)
}

// call makes one attempt after another along the route until one gives a reply. Every attempt is in the ledger before it
// is sent. The error is what the app gets when none did.
func (x *exchange) call(route engine.Route, edit openai.Edit, path string, audit bool) (*paid, *engine.Reply, *openai.Error) {
	trip := route.Start(x.snap.Limits.Patience, x.opts.Now, x.opts.Rand)
	defer trip.End()
	for {
		ctx := x.callContext(audit)
		target, err := trip.Next(ctx)
		if err != nil {
			return nil, nil, x.failed(err)
		}
		a := x.intend(target, edit, audit)
		if err := x.opts.Ledger.Intend(ctx, a.Attempt); err != nil {
			return nil, nil, x.ledgerDown(err, audit)
		}
		reply, err := target.Upstream.Send(ctx, &engine.Call{Path: path, Body: a.body, Header: forwarded(x.r.Header)})
		again := trip.Report(reply, err)
		switch {
		case err != nil && !again:
			a.lost(err)
			return nil, nil, x.failed(err)
		case err != nil:
			a.lost(err)
		case !again:
			return a, reply, nil
		default:
			a.unbilled(reply.Status)
			_ = reply.Body.Close()
		}
	}
}

// callContext is the context of a call upstream: it ends with the app's request, unless policy says to drain.
func (x *exchange) callContext(audit bool) context.Context {
	switch {
	case audit:
		return x.life
	case x.snap.Limits.Drain:
		return context.WithoutCancel(x.r.Context())
	}
	return x.r.Context()
}

// failed is the answer when an upstream gave no reply.
func (x *exchange) failed(err error) *openai.Error {
	failure := asFailure(err)
	if failure.Kind != engine.Cancelled {
		x.opts.Log.Warn("an upstream gave no reply", "request", x.id, "error", failure)
	}
	if failure.After > 0 && x.w != nil {
		x.w.Header().Set("Retry-After", strconv.Itoa(int((failure.After+time.Second-1)/time.Second)))
	}
	return failure.Reply()
}

// asFailure is the failure that an error from an upstream is, or a broken reply where it is none.
func asFailure(err error) *engine.Failure {
	var failure *engine.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return &engine.Failure{Upstream: "upstream", Kind: engine.Rubbish, Err: err}
}

// ledgerDown is the answer when an intent cannot be written: nothing was sent, because what is sent must be recorded.
func (x *exchange) ledgerDown(err error, audit bool) *openai.Error {
	if x.r.Context().Err() != nil && !audit {
		return &openai.Error{Status: 499, Type: "api_error", Code: "cancelled", Message: "The request was cancelled."}
	}
	x.opts.Log.Error("the ledger cannot be written; nothing was sent upstream", "request", x.id, "error", err)
	if !audit {
		x.w.Header().Set("Retry-After", "1")
	}
	if errors.Is(err, store.ErrBusy) {
		return &openai.Error{Status: 503, Type: "overloaded_error", Code: "overloaded",
			Message: "Too many requests wait for the ledger. Try again in a second."}
	}
	return &openai.Error{Status: 503, Type: "api_error", Code: "ledger_unavailable",
		Message: "The ledger cannot be written, so nothing that costs money is sent. Check the disk or the database."}
}

// intend prepares an attempt: what is sent, under which price, and at most how much it can bill.
func (x *exchange) intend(target engine.Target, edit openai.Edit, audit bool) *paid {
	edit.Model = target.Model
	a := &paid{Attempt: x.attempt(), x: x, target: target, body: x.request.Edited(edit)}
	a.Provider, a.Model, a.Simulated, a.Audit = target.Upstream.Name, target.Model, target.Upstream.Simulated, audit
	a.Reason, a.KeyID = string(x.reason), ""
	if x.task != nil {
		a.Tier = generalist
	}
	if n := len(x.watched); n > 0 {
		a.Confidence = x.watched[n-1].p.Confidence
	}
	a.price, a.priced = x.snap.price(target, "", a.At)
	a.high = x.bound(target, len(a.body))
	if a.priced {
		a.Price = a.price.Version()
		a.CostHigh = a.price.Cost(a.high, a.At)
	}
	return a
}

// bound is the most that a call can bill: no token is shorter than a byte of text.
func (x *exchange) bound(target engine.Target, body int) cost.Usage {
	output := x.request.MaxOutput
	if output == 0 {
		output = target.MaxOutput
	}
	if output == 0 {
		output = x.snap.Limits.MaxOutput
	}
	return cost.Usage{Input: int64(body) + overheadTokens, Output: output * x.request.N}
}

// overheadTokens covers what a provider adds to a prompt around its messages.
const overheadTokens = 64

// settle records what the attempt billed, as the provider said it.
func (a *paid) settle(usage cost.Usage, answered string) {
	if !a.priced {
		a.price, a.priced = a.x.snap.price(a.target, answered, a.At)
	}
	a.Usage = usage
	if !a.priced {
		a.finish(store.Unpriced)
		return
	}
	a.Price = a.price.Version()
	a.Cost = a.price.Cost(usage, a.At)
	a.finish(store.Settled)
}

// estimate records an attempt whose bill was not seen: between low and high, best guess in between.
func (a *paid) estimate(low, best, high cost.Usage) {
	a.Usage = best
	if !a.priced {
		a.finish(store.Unpriced)
		return
	}
	at := func(u cost.Usage) cost.Amount { return a.price.Cost(u, a.At) }
	a.CostLow, a.CostHigh = at(low), max(at(high), at(best))
	a.Cost = max(at(best), a.CostLow)
	a.finish(store.Estimated)
}

// unbilled records a reply that providers do not bill: an error status. What a server error cost is bounded, not known.
func (a *paid) unbilled(status int) {
	a.Status = status
	if status >= 500 {
		a.estimate(cost.Usage{}, cost.Usage{}, a.high)
		return
	}
	a.settle(cost.Usage{}, "")
}

// lost records an attempt that gave no reply.
func (a *paid) lost(err error) {
	if !asFailure(err).Sent() {
		a.finish(store.Void)
		return
	}
	a.estimate(cost.Usage{}, a.x.guess(len(a.body), 0), a.high)
}

func (a *paid) finish(state store.State) {
	if a.done {
		return
	}
	a.done = true
	a.State = state
	a.Latency = a.x.opts.Now().Sub(a.At)
	if a.Answered {
		a.Reference = a.Cost
	}
	ctx, cancel := a.x.detached(ledgerPatience)
	defer cancel()
	if err := a.x.opts.Ledger.Finish(ctx, a.Attempt); err != nil {
		a.x.opts.Log.Error("an outcome is not in the ledger yet; its intent stands for it", "request", a.x.id, "attempt", a.ID, "error", err)
	}
}

// guess estimates usage from sizes.
func (x *exchange) guess(body, answer int) cost.Usage {
	name := ""
	if x.task != nil {
		name = x.task.Name
	}
	return x.ratio(name).estimate(body, answer)
}

// reference is what the generalist would have cost for a request that a tier answered, 0 where its price is not known.
func (x *exchange) reference(answer int) cost.Amount {
	if len(x.task.paid.Targets) == 0 {
		return 0
	}
	price, ok := x.snap.price(x.task.paid.Targets[0], "", x.began)
	if !ok {
		return 0
	}
	return price.Cost(x.guess(len(x.request.Body), answer), x.began)
}

// whole passes on a reply that is not a stream: read to its end, recorded, then written.
func (x *exchange) whole(a *paid, reply *engine.Reply) {
	body, err := readAll(reply, x.snap.Limits.ReplyBytes)
	if err != nil {
		a.Status = reply.Status
		a.lost(err)
		x.refuse(x.failed(err))
		return
	}
	parsed, ok := openai.ParseReply(body)
	a.Status = reply.Status
	switch {
	case reply.Status >= 400:
		a.unbilled(reply.Status)
		x.pass(a, reply, errorBody(reply, a.Provider, body, ok))
		return
	case !ok:
		err := fmt.Errorf("status %d with %d bytes that are no JSON object", reply.Status, len(body))
		a.lost(err)
		x.refuse(x.failed(&engine.Failure{Upstream: a.Provider, Kind: engine.Rubbish, Err: err}))
		return
	}
	a.Answered = true
	a.account(parsed, true, int64(len(parsed.Content)))
	x.pass(a, reply, body)
	x.learn(a, parsed.Model, parsed.Content)
}

// account records the bill of a reply that came: the provider's own usage where it can be true, else an estimate.
func (a *paid) account(r openai.Reply, complete bool, text int64) {
	if r.Billed && complete {
		a.x.ratio(a.Task).learn(len(a.body), r.Usage.Input, text, r.Usage.Output)
		a.settle(r.Usage, r.Model)
		return
	}
	best := a.x.guess(len(a.body), int(text))
	low, high := cost.Usage{}, a.high
	if complete { // nothing more can come: a token is no shorter than a byte, unless the model thought in secret
		low = cost.Usage{Input: best.Input / 2, Output: best.Output / 2}
	}
	if r.Billed { // seen before the stream was cut: at least this much
		low, best = r.Usage, r.Usage
	}
	a.estimate(low, best, high)
}

// pass writes an upstream's reply as the app's answer.
func (x *exchange) pass(a *paid, reply *engine.Reply, body []byte) {
	copyHeaders(x.w.Header(), reply.Header)
	x.headers(&a.Attempt)
	x.w.Header()["X-Occam-Cost-Usd"] = []string{costHeader(&a.Attempt)}
	x.wrote = true
	x.deadline()
	x.w.WriteHeader(reply.Status)
	_, _ = x.w.Write(body) // an app that went away was billed all the same, and that is recorded
}

// errorBody is an upstream's error as it came, or in the API's shape where it was no JSON.
func errorBody(reply *engine.Reply, provider string, body []byte, isJSON bool) []byte {
	if isJSON {
		return body
	}
	reply.Header.Set("Content-Type", "application/json")
	reply.Header.Del("Content-Encoding")
	e := openai.Error{Status: reply.Status, Type: "api_error", Code: "upstream_error",
		Message: fmt.Sprintf("The provider %q answered with status %d and no JSON body.", provider, reply.Status)}
	return e.AppendJSON(nil)
}

func readAll(reply *engine.Reply, limit int64) ([]byte, error) {
	if reply.Length > limit {
		return nil, errors.New("the reply is larger than the limit")
	}
	size := int64(2048)
	if reply.Length > 0 {
		size = reply.Length + 1
	}
	buf := make([]byte, 0, min(size, 64<<10))
	for {
		n, err := reply.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		case int64(len(buf)) > limit:
			return buf, errors.New("the reply is larger than the limit")
		case len(buf) == cap(buf):
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

// deadline gives the app's connection until the limit to take what is written next.
func (x *exchange) deadline() {
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.snap.Limits.Write)) // not every writer has one
}

// stream passes on an event stream as it comes. The end mark goes out only when the outcome is recorded.
func (x *exchange) stream(a *paid, reply *engine.Reply) {
	copyHeaders(x.w.Header(), reply.Header)
	x.headers(&a.Attempt)
	a.Status = reply.Status
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	buf := *buffer
	meter := openai.Meter{KeepText: keepText}
	var split openai.Splitter
	var held int // bytes at the front of buf that wait for more
	for {
		n, err := reply.Body.Read(buf[held:])
		end := -1
		split.Push(buf[held:held+n], func(e openai.Event) {
			meter.See(e.Data)
			if end < 0 && meter.Ended {
				end = held + e.At
			}
		})
		total := held + n
		switch {
		case end >= 0:
			x.send(buf[:end])
			x.close(a, &meter)
			x.send(buf[end:total])
			return
		case err == io.EOF:
			x.close(a, &meter)
			x.send(buf[:total])
			return
		case err != nil:
			x.cut(a, &meter, err)
			return
		}
		held = split.Unfinished()
		if held >= len(buf) || held > total {
			held = 0 // a line longer than the buffer goes out in pieces
		}
		if !x.send(buf[:total-held]) {
			x.left(a, reply, &meter, &split)
			return
		}
		copy(buf, buf[total-held:total])
	}
}

const keepText = 16 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// send writes and flushes; false means that the app is gone.
func (x *exchange) send(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	x.wrote = true
	x.deadline()
	if _, err := x.w.Write(p); err != nil {
		return false
	}
	return http.NewResponseController(x.w).Flush() == nil
}

// close records a stream that ended by itself. What it cost goes out as a trailer.
func (x *exchange) close(a *paid, m *openai.Meter) {
	a.Answered = true
	a.account(m.Reply, m.Ended || m.Finish != "", m.TextBytes)
	x.w.Header()[http.TrailerPrefix+"X-Occam-Cost-Usd"] = []string{costHeader(&a.Attempt)}
	if m.Ended && !m.Cut {
		x.learn(a, m.Model, m.Text())
	}
}

// cut ends a stream that the upstream cut: the app gets an error event and no end mark.
func (x *exchange) cut(a *paid, m *openai.Meter, err error) {
	failure := asFailure(err)
	a.Answered = true
	a.account(m.Reply, false, m.TextBytes)
	switch {
	case failure.Kind == engine.Cancelled:
	case !x.wrote:
		x.refuse(failure.Reply())
	default:
		x.send(failure.Reply().AppendErrorEvent([]byte("\n")))
	}
}

// left handles an app that went away in the middle: by policy what it asked for is cancelled, or read to its end and billed.
func (x *exchange) left(a *paid, reply *engine.Reply, m *openai.Meter, split *openai.Splitter) {
	complete := false
	if x.snap.Limits.Drain {
		buf := make([]byte, 4096)
		for {
			n, err := reply.Body.Read(buf)
			split.Push(buf[:n], func(e openai.Event) { m.See(e.Data) })
			if err != nil {
				complete = err == io.EOF && (m.Ended || m.Finish != "")
				break
			}
		}
	}
	a.Answered = true
	a.account(m.Reply, complete, m.TextBytes)
}

// learn hands the generalist's answer to a task's request to whoever learns from it, and compares what was watched.
func (x *exchange) learn(a *paid, model, content string) {
	if x.task == nil {
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
	c := Comparison{RequestID: x.id, At: x.opts.Now(), Task: x.task.Task, Tier: w.tier.Name, Specialist: w.tier.Identity.Specialist,
		Input: x.input, Predicted: w.p, Answered: answered, Accepted: w.accepted, Share: share, Missing: values == nil,
		Values: values, Simulated: simulated}
	c.Agreed = values != nil && agree(w.p.Values, values)
	x.opts.OnComparison(c)
}

func agree(a, b []task.Value) bool {
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func isEventStream(h http.Header) bool {
	return strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "text/event-stream")
}

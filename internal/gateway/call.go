package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
)

// ledgerPatience is how long the ledger may take to write an outcome before the answer goes out without waiting further:
// the store keeps the outcome and the durable intent stands for it meanwhile.
const ledgerPatience = 10 * time.Second

// A call is what is asked of an upstream for a request.
type call struct {
	route engine.Route
	edit  openai.Edit
	tier  string          // the cascade's name for the model, "" for pass-through
	audit bool            // in the background, after the answer
	share float64         // of audit: the probability with which the answer was drawn; 0: nothing was
	own   *openai.Request // asked instead of the app's request; nil: that is asked
}

// asks is the request that a call puts.
func (x *exchange) asks(c *call) *openai.Request {
	if c.own != nil {
		return c.own
	}
	return x.request
}

// A paid attempt is one call to an upstream with its row of the ledger. It ends with exactly one of settle, estimate,
// unbilled or lost.
type paid struct {
	store.Attempt
	x      *exchange
	target engine.Target
	body   []byte
	price  cost.Price
	priced bool
	high   cost.Usage // most that it can bill

	charged int64 // tokens counted against the key's rate
	span    trace.Span
	closed  bool
}

// send makes one attempt after another along the call's route until one gives a reply. Every attempt is in the ledger
// before it is sent. The error is what the app gets when none did.
func (x *exchange) send(c *call) (*paid, *engine.Reply, *openai.Error) {
	trip := c.route.Start(x.snap.Limits.Patience, x.opts.Now, x.opts.Rand)
	defer trip.End()
	ctx := x.callContext(c)
	for {
		target, err := trip.Next(ctx)
		if err != nil {
			return nil, nil, x.failed(err)
		}
		a, refused, err := x.intended(ctx, c, target)
		if errors.Is(err, store.ErrBudget) {
			if instead, ok := x.cheaper(c); ok {
				return x.send(instead)
			}
		}
		if err != nil {
			refused = x.notIntended(err)
		}
		if refused != nil {
			return nil, nil, refused
		}
		x.paying = a
		var reply *engine.Reply
		if c.route.Hedge > 0 && !c.audit {
			a, reply, err = x.race(ctx, c, trip, a)
			x.paying = a
		} else {
			reply, err = x.dispatch(ctx, c, a)
		}
		again := trip.Report(reply, err)
		switch {
		case err != nil && !again:
			a.lost(err)
			return nil, nil, x.failed(err)
		case err != nil:
			a.lost(err)
		case !again:
			a.Status = reply.Status
			return a, reply, nil
		default:
			a.unbilled(reply.Status)
			_ = reply.Body.Close()
		}
	}
}

// intended makes an attempt and writes its intent. refused says that its key may not spend that; err that the ledger did not take
// it. Nothing may be sent then.
func (x *exchange) intended(ctx context.Context, c *call, target engine.Target) (a *paid, refused *openai.Error, err error) {
	a = x.intent(c, target)
	if refused := x.maySpend(a); refused != nil {
		return nil, refused, nil
	}
	if err = x.opts.Ledger.IntendWithin(ctx, a.Attempt, x.budgets()...); err != nil {
		a.correct() // what is not sent uses no tokens
	}
	return a, nil, err
}

// dispatch sends an attempt whose intent is written.
func (x *exchange) dispatch(ctx context.Context, c *call, a *paid) (*engine.Reply, error) {
	header := forwarded(x.r.Header, a.ID)
	x.opts.Telemetry.call(a, header)
	asked := x.asks(c)
	return a.target.Upstream.Send(ctx, &engine.Call{API: asked.API, Path: cmp.Or(x.path, asked.API.Path()), Body: a.body, Header: header})
}

// callContext is the context of a call upstream: it ends with the app's request, unless policy says to drain.
func (x *exchange) callContext(c *call) context.Context {
	if x.snap.Limits.Drain && !c.audit {
		return context.WithoutCancel(x.r.Context())
	}
	return x.r.Context()
}

// intent prepares an attempt: what is sent, under which price, and at most how much it can bill.
func (x *exchange) intent(c *call, target engine.Target) *paid {
	edit := c.edit
	edit.Model = target.Model
	a := &paid{Attempt: x.attempt(), x: x, target: target, body: x.asks(c).Edited(edit)}
	a.Tier, a.Provider, a.Model = c.tier, target.Upstream.Name, target.Model
	a.Simulated, a.Audit, a.AuditShare, a.Reason = target.Upstream.Simulated, c.audit, c.share, string(x.reason)
	if n := len(x.watched); n > 0 {
		a.Confidence = x.watched[n-1].p.Confidence
	}
	a.high = x.bound(target, len(a.body))
	if a.price, a.priced = x.price(target, "", a.At); a.priced {
		a.Price = a.price.Version()
		a.CostHigh = a.price.Cost(a.high, a.At)
	}
	return a
}

// complete makes a call whose whole answer is needed before anything is written: an audit, or a tier at an upstream. The
// attempt is still open when it gives one; otherwise it is closed and ok is false.
func (x *exchange) complete(c *call) (a *paid, r openai.Reply, ok bool) {
	a, reply, refused := x.send(c)
	if refused != nil {
		return nil, r, false
	}
	defer reply.Body.Close()
	body, err := readAll(reply, x.snap.Limits.ReplyBytes, uncounted)
	if err != nil {
		a.lost(err)
		return nil, r, false
	}
	if reply.Status != http.StatusOK {
		a.unbilled(reply.Status)
		return nil, r, false
	}
	if r, ok = openai.ParseReply(body); !ok {
		a.lost(errNotJSON)
	}
	return a, r, ok
}

var errNotJSON = errors.New("the reply is no JSON object")

// settle records what the attempt billed, as the provider said it.
func (a *paid) settle(usage cost.Usage, answered string) {
	if !a.priced {
		a.price, a.priced = a.x.price(a.target, answered, a.At)
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

// lost records an attempt that gave no reply, or one that cannot be read.
func (a *paid) lost(err error) {
	if !asFailure(err).Sent() {
		a.finish(store.Void)
		return
	}
	a.estimate(cost.Usage{}, a.guess(0), a.high)
}

// account records the bill of a reply: the provider's own usage where it can be true, else an estimate. complete says that
// the whole reply came; chunks and text say how much of a stream did.
func (a *paid) account(r *openai.Reply, complete bool, chunks int, text string, textBytes int64) {
	if r.Billed && complete {
		a.x.ratio(a.Task).learn(len(a.body), r.Usage.Input, textBytes, r.Usage.Output)
		a.settle(r.Usage, r.Model)
		return
	}
	best := a.guess(a.outputTokens(text, textBytes))
	low := cost.Usage{Output: int64(chunks) / 2}
	if complete || chunks > 0 { // it was read, so it is billed
		low.Input = best.Input / 2
	}
	if r.Billed { // counts of a stream that was cut: at least these
		low, best = r.Usage, r.Usage
	}
	a.estimate(low, best, a.high)
}

// finish closes the row. The answer waits for it.
func (a *paid) finish(state store.State) {
	if a.closed {
		return
	}
	a.closed = true
	a.State = state
	a.Latency = a.x.opts.Now().Sub(a.At)
	if a.Answered {
		a.Reference = a.x.referenceOf(a)
	}
	a.correct()
	a.x.metrics.closed(&a.Attempt)
	a.x.opts.Telemetry.closed(a)
	a.x.spent += a.Cost
	a.x.unpriced = a.x.unpriced || state == store.Unpriced
	if a.x.batch {
		return
	}
	if err := a.x.opts.Ledger.Finish(a.x.patience(), a.Attempt); err != nil {
		a.x.opts.Log.Error("an outcome is not in the ledger yet; its intent stands for it", "request", a.x.id, "attempt", a.ID, "error", err)
	}
}

// notIntended is the answer when an intent cannot be written: nothing was sent, because what is sent must be recorded.
func (x *exchange) notIntended(err error) *openai.Error {
	switch {
	case errors.Is(err, context.Canceled):
		return &openai.Error{Status: 499, Type: "api_error", Code: "cancelled", Message: "The request was cancelled."}
	case errors.Is(err, store.ErrBudget):
		return x.overBudget()
	}
	x.opts.Log.Error("the ledger cannot be written; nothing was sent upstream", "request", x.id, "error", err)
	x.retryAfter(time.Second)
	if errors.Is(err, store.ErrBusy) {
		return &openai.Error{Status: 503, Type: "overloaded_error", Code: "overloaded",
			Message: "Too many requests wait for the ledger. Try again in a second."}
	}
	return &openai.Error{Status: 503, Type: "api_error", Code: "ledger_unavailable",
		Message: "The ledger cannot be written, so nothing that costs money is sent. Check the disk or the database."}
}

// failed is the answer when an upstream gave no reply.
func (x *exchange) failed(err error) *openai.Error {
	failure := asFailure(err)
	if failure.Kind != engine.Cancelled {
		x.opts.Log.Warn("an upstream gave no reply", "request", x.id, "error", failure)
	}
	x.retryAfter(failure.After)
	return failure.Reply()
}

// retryAfter tells the app when to come back, in whole seconds, rounded up.
func (x *exchange) retryAfter(wait time.Duration) {
	if wait > 0 && x.w != nil {
		x.w.Header().Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
	}
}

// asFailure is the failure that an error from an upstream is, or an unreadable reply where it is none.
func asFailure(err error) *engine.Failure {
	var failure *engine.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return &engine.Failure{Upstream: "upstream", Kind: engine.Rubbish, Err: err}
}

// uncounted is for replies that are small, or that are read after the request has given back what it held.
func uncounted(int64) {}

// readAll reads a reply to its end, and tells hold about the memory that it takes.
func readAll(reply *engine.Reply, limit int64, hold func(bytes int64)) ([]byte, error) {
	tooLarge := fmt.Errorf("the reply is larger than the limit of %d bytes", limit)
	if reply.Length > limit {
		return nil, tooLarge
	}
	size := int64(2048)
	if reply.Length >= 0 {
		size = min(reply.Length+1, 64<<10)
	}
	buf := make([]byte, 0, size)
	hold(size)
	for {
		n, err := reply.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		case int64(len(buf)) > limit:
			return buf, tooLarge
		case len(buf) == cap(buf):
			before := cap(buf)
			buf = append(buf, 0)[:len(buf)]
			hold(int64(cap(buf) - before))
		}
	}
}

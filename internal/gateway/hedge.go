package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"occam/internal/cascade"
	"occam/internal/engine"
)

// A racer is one of the calls that are out for the same request.
type racer struct {
	a      *paid
	reply  *engine.Reply
	err    error
	cancel context.CancelFunc
}

// good reports whether the call ends the race: what it brought is an answer, or a refusal that every call would get.
func (r *racer) good() bool {
	return r.err == nil && r.reply.Status < 500 && r.reply.Status != http.StatusTooManyRequests && r.reply.Status != http.StatusRequestTimeout
}

// race makes a call and, when it gave no first byte for the route's time, a second one beside it, if the model's hedges leave room.
// The first good reply is the request's; the other call is cancelled and both are in the ledger. What it returns is to be reported
// to the trip.
func (x *exchange) race(ctx context.Context, c *call, trip *engine.Trip, a *paid) (*paid, *engine.Reply, error) {
	back := make(chan *racer, 2)
	first := x.start(ctx, c, a, back)
	timer := time.NewTimer(c.route.Hedge)
	defer timer.Stop()
	select {
	case <-back:
		return a, first.reply, first.err
	case <-timer.C:
	}
	target, ok := trip.Hedge()
	if !ok {
		<-back
		return a, first.reply, first.err
	}
	b, refused, err := x.intended(ctx, c, target)
	if refused != nil || err != nil { // the key or the ledger has no room for a second call
		trip.Settle(false, false)
		<-back
		return a, first.reply, first.err
	}
	x.metrics.hedges.WithLabelValues(b.Provider).Inc()
	second := x.start(ctx, c, b, back)
	one := <-back
	other := second
	if one == second {
		other = first
	}
	if !one.good() { // the other one may do it
		<-back
		one, other = other, one
	} else {
		other.cancel()
		<-back
	}
	trip.Settle(one == second, other.failed())
	other.lose()
	return one.a, one.reply, one.err
}

// start sends an attempt in the background and hands the racer back when the call has a reply or has failed.
func (x *exchange) start(ctx context.Context, c *call, a *paid, back chan<- *racer) *racer {
	ctx, cancel := context.WithCancel(ctx)
	r := &racer{a: a, cancel: cancel}
	go func() {
		defer func() { back <- r }()
		defer func() {
			if crash := recover(); crash != nil {
				r.reply, r.err = nil, &engine.Failure{Upstream: a.Provider, Kind: engine.Rubbish, Err: fmt.Errorf("reading its reply crashed: %v", crash)}
			}
		}()
		r.reply, r.err = x.dispatch(ctx, c, a)
	}()
	return r
}

// failed reports whether the call went wrong by itself, rather than because it was cancelled.
func (r *racer) failed() bool {
	if r.err != nil {
		return asFailure(r.err).Kind != engine.Cancelled
	}
	return r.reply.Status >= 500
}

// lose closes the row of the call that is not the request's answer. Its bill is not seen: it is estimated, within bounds.
func (r *racer) lose() {
	r.a.Reason = string(cascade.Hedged)
	switch {
	case r.err != nil:
		r.a.lost(r.err)
		return
	case r.reply.Status >= http.StatusBadRequest:
		r.a.unbilled(r.reply.Status)
	default: // it began to answer at the same time
		r.a.Status = r.reply.Status
		r.a.lost(&engine.Failure{Upstream: r.a.Provider, Kind: engine.Cancelled, Err: context.Canceled})
	}
	_ = r.reply.Body.Close() // nothing more of it is wanted
}

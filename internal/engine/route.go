package engine

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// A Target is one model at one upstream.
type Target struct {
	Upstream  *Upstream
	Model     string // the upstream's name of the model
	MaxOutput int64  // most tokens it writes when a request sets no limit; 0: unknown
}

// A Route is where a model's requests go: the first target, and the others in order when it fails before its first byte.
type Route struct {
	Targets []Target
	Hedge   time.Duration // a call without a first byte for so long gets a second one beside it; 0: none
}

// Patience bounds what one request spends on failures.
type Patience struct {
	Retries int           // of one request, at the last target that may be called; default 2, negative: none
	Wait    time.Duration // longest back-off, Retry-After included; default 10 s. More is the app's to decide
	Share   float64       // of a model's requests that may be retried, in the long run and at any moment; default 0.2
}

func (p *Patience) complete() {
	if p.Retries == 0 {
		p.Retries = 2
	}
	if p.Wait == 0 {
		p.Wait = 10 * time.Second
	}
	if p.Share == 0 {
		p.Share = retryShare
	}
}

// A Trip is one request's way along a route: which target is called next, and after which wait. Use it from one goroutine;
// End must be called.
type Trip struct {
	route    Route
	patience Patience
	now      func() time.Time
	rand     func() float64

	at      int           // index of the target that is called, or was called last
	gate    *gate         // of that target
	counted int           // targets at which this request is counted as active
	retries []*gate       // made, each with whose it is: nil when it was given back
	wait    time.Duration // before the next call
	inside  bool          // it has a place at the gate: a call is out, or may be made

	second *gate // of a second call that is out beside the first
	beside int   // its target
}

// Start begins a trip. now is the clock, rand is uniform in [0,1).
func (r Route) Start(p Patience, now func() time.Time, rand func() float64) *Trip {
	p.complete()
	return &Trip{route: r, patience: p, now: now, rand: rand}
}

// Next waits as long as it must and returns the target to call. The error is a *Failure: no target may be called, or the
// app went away. Report must follow each call.
func (t *Trip) Next(ctx context.Context) (Target, error) {
	if t.wait > 0 {
		timer := time.NewTimer(t.wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return Target{}, &Failure{Upstream: t.target().Upstream.Name, Kind: Cancelled, Err: context.Cause(ctx)}
		}
		t.wait = 0
	}
	if !t.inside {
		if closed := t.enter(t.at); closed != nil {
			return Target{}, closed
		}
	}
	return t.target(), nil
}

// enter takes a place at the first target, from the given one on, that may be called now. Without one it returns the
// failure of the target that opens soonest, and the trip stays where it was.
func (t *Trip) enter(from int) (closed *Failure) {
	for i := from; i < len(t.route.Targets); i++ {
		g := t.visit(i)
		why, wait := g.enter(t.now(), i+1 < len(t.route.Targets))
		if why == "" {
			t.at, t.gate, t.inside = i, g, true
			return nil
		}
		if closed == nil || wait < closed.After {
			closed = &Failure{Upstream: t.route.Targets[i].Upstream.Name, Kind: why, After: wait, Err: errNotNow}
		}
	}
	return closed
}

var errNotNow = errors.New("it failed several times in a row, or asked for a pause")

func (t *Trip) target() Target { return t.route.Targets[t.at] }

// visit counts the request at a target it has come to.
func (t *Trip) visit(i int) *gate {
	target := t.route.Targets[i]
	g := target.Upstream.gate(target.Model)
	if t.counted == i {
		g.begin(t.patience.Share)
		t.counted++
	}
	return g
}

// Report says how the call went and returns whether to make another one: the reply or the failure is then to be thrown
// away. A retry happens only here, before the app has seen a byte.
func (t *Trip) Report(reply *Reply, err error) (again bool) {
	t.inside = false
	var failure *Failure
	if errors.As(err, &failure) && (failure.Kind == Cancelled || failure.Kind == Unsupported) {
		t.gate.abandon()
		return false
	}
	now := t.now()
	alive := reply != nil && reply.Status < 500
	t.gate.leave(now, alive)
	var after time.Duration
	if reply != nil {
		after = RetryAfter(reply.Header, now)
		if after > 0 && (reply.Status == http.StatusTooManyRequests || reply.Status == http.StatusServiceUnavailable) {
			t.gate.pause(now.Add(after), reply.Status == http.StatusTooManyRequests)
		}
	}
	switch {
	case !retryable(reply, failure):
		return false
	case t.at+1 < len(t.route.Targets) && t.enter(t.at+1) == nil:
		return true
	case failure != nil && failure.Kind == Timeout: // the app has waited long enough
		return false
	}
	return t.again(after)
}

// Hedge asks for a second call beside the one that is out, at the next target, or at the same one where there is none. At most
// one request in twenty of a model gets one. Settle must follow before Report.
func (t *Trip) Hedge() (Target, bool) {
	at := min(t.at+1, len(t.route.Targets)-1)
	if !t.gate.hedge() {
		return Target{}, false
	}
	g := t.visit(at)
	if why, _ := g.enter(t.now(), false); why != "" {
		return Target{}, false
	}
	t.second, t.beside = g, at
	return t.route.Targets[at], true
}

// Settle ends the calls' being two: the second one is the request's from now on, or it is not. failed says that the other call
// failed by itself; one that was cancelled says nothing about its target.
func (t *Trip) Settle(second, failed bool) {
	other := t.second
	if second {
		other, t.gate, t.at = t.gate, t.second, t.beside
	}
	t.second = nil
	if failed {
		other.leave(t.now(), false)
	} else {
		other.abandon()
	}
}

// again decides on a retry at the last target.
func (t *Trip) again(after time.Duration) bool {
	wait := after
	if wait == 0 {
		wait = firstBackOff << len(t.retries)
	}
	wait += time.Duration(t.rand() * spread * float64(wait)) // never early, and not all at once
	if len(t.retries) >= t.patience.Retries || wait > t.patience.Wait || !t.gate.retry(t.patience.Share) {
		return false
	}
	t.retries = append(t.retries, t.gate)
	t.wait = wait
	return true
}

const (
	firstBackOff = 250 * time.Millisecond
	spread       = 0.5 // of a wait is random
)

// End ends the trip.
func (t *Trip) End() {
	if t.inside {
		t.gate.abandon()
	}
	for i := range t.counted {
		g, retries := t.visit(i), 0
		for k, of := range t.retries { // targets may share a gate
			if of == g {
				retries, t.retries[k] = retries+1, nil
			}
		}
		g.end(retries)
	}
}

// retryable reports whether another call could go better.
func retryable(reply *Reply, failure *Failure) bool {
	if failure != nil {
		return failure.Kind == Refused || failure.Kind == Broken || failure.Kind == Timeout || failure.Kind == Rubbish
	}
	switch reply.Header.Get("X-Should-Retry") {
	case "true":
		return true
	case "false":
		return false
	}
	switch reply.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout, 529:
		return true
	}
	return false
}

// RetryAfter reads how long a reply asks to wait: retry-after-ms, or Retry-After in seconds or as a date. 0: it does not.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	text := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second))
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

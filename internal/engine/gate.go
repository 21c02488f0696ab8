package engine

import (
	"sync"
	"time"
)

// A gate decides whether a model at an upstream may be called now. It is a circuit breaker that lets one probe through and
// then opens step by step, a pause that a 429 or 503 asked for, and a budget for retries. Time comes in as an argument.
type gate struct {
	mu       sync.Mutex
	failures int       // in a row
	opened   time.Time // when the breaker opened; zero: it is closed
	openings int       // in a row, each doubles how long the breaker stays open
	probing  bool      // one call is out to see whether the upstream lives again
	ramp     int       // after a good probe: calls that may be out at once; 0: no limit
	out      int       // calls without a reply yet
	usual    float64   // calls without a reply while all was well: a moving average
	reopened time.Time // when the last probe was good
	paused   time.Time // no call before this
	limited  bool      // the pause is a rate limit's
	active   int       // requests that are being served, in back-off or not
	retrying int       // retries among them, counted from the decision to retry
	tokens   float64   // retries that may still be made
	fresh    bool      // tokens was set
	hedges   float64   // second calls that may be made
}

const (
	tripAfter    = 3 // failures in a row that open the breaker
	rampEnd      = 64
	rampTime     = time.Second
	rampLeast    = 8                // calls at once that an upstream with little traffic gets in that time
	usualOver    = 100              // calls
	openAlone    = time.Second      // where no other target could answer instead
	openSpared   = 30 * time.Second // where one can
	longestAlone = 15 * time.Second
	longest      = 5 * time.Minute
	retryShare   = 0.2 // default of Patience.Share
	retryReserve = 3   // retries that an idle upstream may need
	retrySaved   = 10  // most that can be saved up
	hedgeShare   = 0.05
	hedgeSaved   = 10
)

// enter asks for a call. spared says that another target can answer instead. Without a place it returns why, and how long
// until it is worth asking again.
func (g *gate) enter(now time.Time, spared bool) (why Kind, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait := g.paused.Sub(now); wait > 0 {
		if g.limited {
			return Limited, wait
		}
		return Open, wait
	}
	switch {
	case !g.opened.IsZero():
		if wait := g.opened.Add(g.openFor(spared)).Sub(now); wait > 0 {
			return Open, wait
		}
		if g.probing {
			return Open, openAlone
		}
		g.probing = true
	case g.ramp > 0 && g.out >= g.limit(now):
		return Open, openAlone / 10
	case g.ramp == 0:
		g.usual += (float64(g.out+1) - g.usual) / usualOver
	}
	g.out++
	return "", 0
}

// limit is how many calls may be out while the ramp lasts. Whoever has waited for the upstream comes at once when it is back, so in
// its first second it gets no more than twice what it is used to.
func (g *gate) limit(now time.Time) int {
	if now.Sub(g.reopened) > rampTime {
		return g.ramp
	}
	return min(g.ramp, max(int(2*g.usual), rampLeast))
}

func (g *gate) openFor(spared bool) time.Duration {
	base, most := openAlone, longestAlone
	if spared {
		base, most = openSpared, longest
	}
	return min(base<<min(max(g.openings-1, 0), 10), most)
}

// leave ends a call: good when the upstream gave any reply that shows it is alive.
func (g *gate) leave(now time.Time, good bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out--
	switch {
	case good:
		if g.probing || !g.opened.IsZero() {
			g.ramp, g.reopened = 1, now
		}
		g.opened, g.probing, g.openings, g.failures = time.Time{}, false, 0, 0
		if g.ramp > 0 {
			if g.ramp++; g.ramp > rampEnd && now.Sub(g.reopened) > rampTime {
				g.ramp = 0
			}
		}
	default:
		g.failures++
		if g.probing || g.ramp > 0 || g.failures >= tripAfter {
			if g.opened.IsZero() || g.probing {
				g.openings++
				g.opened = now
			}
			g.probing, g.ramp = false, 0
		}
	}
}

// abandon ends a call that says nothing about the upstream: the app went away.
func (g *gate) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out--
	g.probing = false
}

// pause keeps every call back until the given time; limited says that a rate limit asked for it.
func (g *gate) pause(until time.Time, limited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until.After(g.paused) {
		g.paused, g.limited = until, limited
	}
}

// begin and end count a request that is served here.
func (g *gate) begin(share float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.fresh {
		g.tokens, g.fresh = retryReserve, true
	}
	g.active++
	g.tokens = min(g.tokens+share, retrySaved)
	g.hedges = min(g.hedges+hedgeShare, hedgeSaved)
}

func (g *gate) end(retries int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active--
	g.retrying -= retries
}

// hedge asks for one second call. Nothing is lent: of n requests at most a twentieth get one.
func (g *gate) hedge() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hedges < 1 {
		return false
	}
	g.hedges--
	return true
}

// retry asks for one retry. It counts from now on, also while it waits.
func (g *gate) retry(share float64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tokens < 1 || float64(g.retrying) >= retryReserve+share*float64(g.active) {
		return false
	}
	g.tokens--
	g.retrying++
	return true
}

package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/store"
)

// hedged makes the world's model hedge after the given time, at the same provider.
func (w *world) hedged(after time.Duration) {
	w.snap = &Snapshot{Fallback: w.snap.Fallback, Book: w.snap.Book, Limits: w.snap.Limits, Models: map[string]engine.Route{
		"gpt-4o": {Hedge: after, Targets: []engine.Target{{Upstream: w.snap.Fallback, Model: "gpt-4o"}}}}}
	w.publish()
}

// F25: one call in twenty is slow. Its request gets a second call, the slow one is cancelled, both are in the ledger, and what the
// provider bills for both is what the ledger says.
func TestF25Hedging(t *testing.T) {
	w := newWorld(t)
	const slow, n = 2 * time.Second, 400
	var arrived, cancelled, open atomic.Int64
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		if arrived.Add(1)%21 == 0 { // the second calls count too: one request in twenty
			w.charge() // a provider bills what it was asked, read or not
			select {
			case <-r.Context().Done():
				cancelled.Add(1)
				return
			case <-time.After(slow):
			}
			io.WriteString(rw, w.reply())
			return
		}
		w.charge()
		io.WriteString(rw, w.reply())
	}
	w.hedged(50 * time.Millisecond)
	var late atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				began := time.Now()
				if res, body := w.post(plainBody); res.StatusCode != 200 || body != w.reply() {
					t.Errorf("%d %s", res.StatusCode, body)
				}
				if time.Since(began) >= slow {
					late.Add(1)
				}
			}
		})
	}
	wg.Wait()
	rows := w.book.paid()
	byRequest := map[string]int{}
	var settled, low, high cost.Amount
	lost := 0
	for _, a := range rows {
		byRequest[a.RequestID]++
		switch {
		case a.State == store.Settled && a.Answered:
			settled += a.Cost
		case a.State == store.Estimated && a.Reason == "hedge" && !a.Answered:
			lost++
			low, high = low+a.CostLow, high+a.CostHigh
		default:
			t.Errorf("%+v", a)
		}
	}
	extra := len(rows) - n
	t.Logf("%d requests, %d second calls (%.1f %%), %d cancelled upstream, %d answers as late as a slow call", n, extra, 100*float64(extra)/n, cancelled.Load(), late.Load())
	if extra > n/20 || extra < n/40 || lost != extra || len(byRequest) != n || len(rows) < int(arrived.Load()) {
		t.Errorf("%d rows of %d requests for %d calls, %d lost", len(rows), len(byRequest), arrived.Load(), lost)
	}
	wait(t, "every loser is cancelled upstream", func() bool { return open.Load() == 0 })
	if settled != gpt4oCost*n || w.bill < settled+low || w.bill > settled+high {
		t.Errorf("the bill of %v is outside %v + (%v to %v)", w.bill, settled, low, high)
	}
	if cancelled.Load() == 0 || whole && late.Load() > n/40 { // on a busy machine calls that are not slow use up the second ones
		t.Errorf("%d answers waited for a slow call", late.Load())
	}
	if text := w.metrics(); !strings.Contains(text, fmt.Sprintf(`occam_upstream_hedges_total{provider="openai"} %d`, extra)) {
		t.Error("the second calls are not counted")
	}
}

// A provider that is slow every time gets second calls for one request in twenty and no more.
func TestF25HedgesAreBounded(t *testing.T) {
	w := newWorld(t)
	var calls atomic.Int64
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		select {
		case <-time.After(5 * time.Millisecond):
			io.WriteString(rw, w.reply())
		case <-r.Context().Done():
		}
	}
	w.hedged(time.Millisecond)
	const n = 200
	for range n {
		if res, _ := w.post(plainBody); res.StatusCode != 200 {
			t.Error(res.Status)
		}
	}
	w.book.paid()
	if c := calls.Load(); c <= n || c > n+n/20 {
		t.Errorf("%d calls for %d requests", c, n)
	}
}

// Whichever of two calls fails, the other one answers; when the app goes away both end.
func TestHedgesThatFail(t *testing.T) {
	for name, fail := range map[string]struct{ first, second int }{"first": {500, 200}, "second": {200, 500}, "both": {500, 500}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var calls atomic.Int64
			w.handle = func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, w.reply()) }
			w.hedged(time.Hour)
			for range 30 { // room for a second call
				w.post(plainBody)
			}
			w.hedged(10 * time.Millisecond)
			before := len(w.book.paid())
			w.handle = func(rw http.ResponseWriter, r *http.Request) {
				status := fail.first
				if calls.Add(1) == 2 {
					status = fail.second
				} else if calls.Load() == 1 {
					time.Sleep(60 * time.Millisecond)
				}
				rw.WriteHeader(status)
				io.WriteString(rw, w.reply())
			}
			res, _ := w.post(plainBody)
			if want := min(fail.first, fail.second); res.StatusCode != want || calls.Load() != 2 {
				t.Errorf("%d after %d calls", res.StatusCode, calls.Load())
			}
			rows := w.book.paid()[before:]
			if len(rows) != 2 || rows[0].RequestID != rows[1].RequestID || rows[0].Answered && rows[1].Answered {
				t.Errorf("%+v", rows)
			}
		})
	}
	w := newWorld(t)
	w.handle = func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, w.reply()) }
	w.hedged(time.Hour)
	for range 30 {
		w.post(plainBody)
	}
	w.hedged(5 * time.Millisecond)
	before := len(w.book.paid())
	var arrived, gone atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.handle = func(_ http.ResponseWriter, r *http.Request) {
		if arrived.Add(1) == 2 {
			cancel()
		}
		<-r.Context().Done()
		gone.Add(1)
	}
	req, _ := http.NewRequestWithContext(ctx, "POST", w.web.URL+"/v1/chat/completions", strings.NewReader(plainBody))
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
	}
	wait(t, "both calls end upstream", func() bool { return gone.Load() == 2 })
	for _, a := range w.book.paid()[before:] {
		if a.State != store.Estimated {
			t.Errorf("%+v", a)
		}
	}
	wait(t, "the place is freed", func() bool { return w.server.inFlight.Load() == 0 })
}

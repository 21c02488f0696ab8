package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

func testPaidAttempt(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	a := Paid("a1", noon.Add(5))
	must(t, s.Intend(ctx, a))
	if err := s.Intend(ctx, a); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a second intent: %v", err)
	}
	if c, err := s.Counts(ctx); err != nil || c.Open != 1 {
		t.Errorf("while it is open: %+v, %v", c, err)
	}
	got, ok, err := s.Request(ctx, "r-a1")
	if want := a; err != nil || !ok || got.Attempts[0] != withState(want, store.Pending) {
		t.Errorf("while it is open: %+v, %v", got, err)
	}
	a = Settle(a, 700)
	must(t, s.Finish(ctx, a))
	if err := s.Finish(ctx, a); !errors.Is(err, store.ErrNoIntent) {
		t.Errorf("a second outcome: %v", err)
	}
	if err := s.Intend(ctx, Paid("a1", noon)); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("an intent for a closed attempt: %v", err)
	}
	a.CostLow, a.CostHigh = 700, 700
	got, ok, err = s.Request(ctx, "r-a1")
	if err != nil || !ok || len(got.Attempts) != 1 || got.Attempts[0] != a {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, a)
	}
	if _, ok, err := s.Request(ctx, "r-unknown"); ok || err != nil {
		t.Errorf("an unknown request: %v, %v", ok, err)
	}
	if r := verified(t, s); r.Entries != 2 || r.Attempts != 1 || r.Open != 0 {
		t.Errorf("%+v", r)
	}
	for i, share := range []float64{0, 1e-9, .0005, .05, 1. / 3, 1} { // with which an answer was drawn to be audited
		audit := Paid(fmt.Sprint("audit", i), noon)
		audit.Audit, audit.AuditShare = true, share
		must(t, s.Intend(ctx, audit))
		must(t, s.Finish(ctx, Settle(audit, 700)))
		got, _, err := s.Request(ctx, audit.RequestID)
		must(t, err)
		if a := got.Attempts[0]; !a.Audit || math.Abs(a.AuditShare-share) > .5e-9 {
			t.Errorf("drawn with %v: %+v", share, a)
		}
	}
	verified(t, s)
}

func withState(a store.Attempt, s store.State) store.Attempt {
	a.State = s
	return a
}

func testOutcomes(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	for _, test := range []struct {
		state     store.State
		cost      cost.Amount
		low, high cost.Amount
		wantCost  cost.Amount
	}{
		{store.Settled, 70, 0, 0, 70},
		{store.Estimated, 30, 20, 40, 30},
		{store.Void, 99, 1, 99, 0},
		{store.Unpriced, 99, 1, 99, 0},
	} {
		a := Paid(string(test.state), noon)
		must(t, s.Intend(ctx, a))
		a.State, a.Cost, a.CostLow, a.CostHigh = test.state, test.cost, test.low, test.high
		must(t, s.Finish(ctx, a))
		r, _, err := s.Request(ctx, a.RequestID)
		must(t, err)
		if got := r.Attempts[0]; got.State != test.state || got.Cost != test.wantCost {
			t.Errorf("%s: %+v", test.state, got)
		}
	}
	want := store.Counts{Settled: 1, Estimated: 1, Void: 1, Unpriced: 1}
	if c, err := s.Counts(ctx); err != nil || c != want {
		t.Errorf("%+v, %v", c, err)
	}
	totals, err := s.Totals(ctx, store.TotalsQuery{})
	must(t, err)
	if t0 := totals[0]; t0.Cost != 100 || t0.CostLow != 90 || t0.CostHigh != 110 || t0.Attempts != 4 {
		t.Errorf("%+v", t0)
	}
	verified(t, s)
}

func testRefusals(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	good := Paid("good", noon)
	must(t, s.Intend(ctx, good))
	change := func(f func(*store.Attempt)) store.Attempt { a := Settle(good, 50); f(&a); return a }
	for name, a := range map[string]store.Attempt{
		"no outcome":        change(func(a *store.Attempt) { a.State = store.Pending }),
		"free":              change(func(a *store.Attempt) { a.State = store.Free }),
		"unknown state":     change(func(a *store.Attempt) { a.State = "paid" }),
		"negative cost":     change(func(a *store.Attempt) { a.Cost = -1 }),
		"negative usage":    change(func(a *store.Attempt) { a.Usage.Output = -1 }),
		"outside its range": change(func(a *store.Attempt) { a.State, a.CostLow, a.CostHigh = store.Estimated, 60, 70 }),
		"never intended":    change(func(a *store.Attempt) { a.ID = "other" }),
		"no id":             change(func(a *store.Attempt) { a.ID = "" }),
	} {
		if err := s.Finish(ctx, a); err == nil {
			t.Errorf("Finish took an outcome that is %s", name)
		}
	}
	for name, f := range map[string]func(*store.Attempt){
		"no request":     func(a *store.Attempt) { a.RequestID = "" },
		"a long id":      func(a *store.Attempt) { a.ID = strings.Repeat("x", 65) },
		"NUL":            func(a *store.Attempt) { a.Task = "a\x00b" },
		"no UTF-8":       func(a *store.Attempt) { a.KeyID = "\xff" },
		"crossed bounds": func(a *store.Attempt) { a.CostLow, a.CostHigh = 2, 1 },
		"negative bound": func(a *store.Attempt) { a.CostLow = -1 },
		"a share of 2":   func(a *store.Attempt) { a.Audit, a.AuditShare = true, 2 },
		"a share alone":  func(a *store.Attempt) { a.AuditShare = .5 },
	} {
		a := Paid("bad", noon)
		f(&a)
		if err := s.Intend(ctx, a); err == nil {
			t.Errorf("Intend took an attempt with %s", name)
		}
	}
	local := Local("free", noon)
	local.Cost = 1
	if err := s.RecordFree(ctx, local); err == nil {
		t.Error("RecordFree took an attempt that costs money")
	}
	must(t, s.Finish(ctx, Settle(good, 50)))
	if r := verified(t, s); r.Attempts != 1 {
		t.Errorf("%+v", r)
	}
}

func testBounds(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	a := Paid("a", noon)
	a.Model = strings.Repeat("é", 100)
	must(t, s.Intend(ctx, a))
	a = Settle(a, 1)
	a.Reason, a.Confidence, a.Latency = "bad \xff\x00"+strings.Repeat("r", 300), math.NaN(), -time.Second
	must(t, s.Finish(ctx, a))
	r, _, err := s.Request(ctx, a.RequestID)
	must(t, err)
	got := r.Attempts[0]
	if len(got.Model) > 128 || !strings.HasSuffix(got.Model, "é…") || len(got.Reason) > 200 || !strings.HasPrefix(got.Reason, "bad \uFFFD") {
		t.Errorf("%q, %q", got.Model, got.Reason)
	}
	if got.Confidence != 0 || got.Latency != 0 {
		t.Errorf("confidence %v, latency %v", got.Confidence, got.Latency)
	}
	verified(t, s)
}

func testConcurrent(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	const workers, each = 16, 15
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range each {
				a := Paid(fmt.Sprintf("w%d-%d", worker, i), noon)
				if err := s.Intend(ctx, a); err != nil {
					t.Error(err)
				}
				if err := s.Finish(ctx, Settle(a, 5)); err != nil {
					t.Error(err)
				}
				if err := s.RecordFree(ctx, Local("f-"+a.ID, noon)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	settled(t, s, workers*each)
	if r := verified(t, s); r.Attempts != 2*workers*each || r.Entries != 3*workers*each {
		t.Errorf("%+v", r)
	}
}

// testAbandoned ends the context of intents while they are written: nothing may stay open.
func testAbandoned(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	var group sync.WaitGroup
	for i := range 60 {
		group.Go(func() {
			short, cancel := context.WithTimeout(ctx, time.Duration(i*50)*time.Microsecond)
			defer cancel()
			a := Paid(fmt.Sprint("a", i), noon)
			if err := s.Intend(short, a); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				return
			}
			if err := s.Finish(short, Settle(a, 1)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := s.Counts(ctx)
		must(t, err)
		if c.Open == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d attempts stay open", c.Open)
		}
	}
	verified(t, s)
}

func testRecovery(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	unpriced := Paid("unpriced", noon)
	unpriced.Price, unpriced.CostLow, unpriced.CostHigh = "", 0, 0
	for _, a := range []store.Attempt{Paid("a", noon), Paid("b", noon), unpriced, Paid("done", noon)} {
		must(t, s.Intend(ctx, a))
	}
	must(t, s.Finish(ctx, Settle(Paid("done", noon), 3)))
	must(t, s.Close())
	s = open(t, dsn, opts)
	want := store.Counts{Settled: 1, Estimated: 2, Unpriced: 1}
	if c, err := s.Counts(ctx); err != nil || c != want {
		t.Errorf("%+v, %v", c, err)
	}
	r, _, err := s.Request(ctx, "r-a")
	must(t, err)
	if a := r.Attempts[0]; a.State != store.Estimated || a.CostLow != 0 || a.Cost != 1000 || a.CostHigh != 1000 || a.Price != "v1" {
		t.Errorf("%+v", a)
	}
	if err := s.Finish(ctx, Settle(Paid("a", noon), 3)); !errors.Is(err, store.ErrNoIntent) {
		t.Errorf("an outcome after recovery: %v", err)
	}
	verified(t, s)
}

func testClose(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	for i := range 2500 {
		must(t, s.RecordFree(ctx, Local(fmt.Sprint(i), noon)))
	}
	must(t, s.RecordFree(ctx, Local("7", noon))) // twice: dropped, and the others are kept
	must(t, s.Close())
	must(t, s.Close())
	for _, err := range []error{s.Intend(ctx, Paid("late", noon)), s.RecordFree(ctx, Local("late", noon))} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	s = open(t, dsn, opts)
	if c, err := s.Counts(ctx); err != nil || c.Free != 2500 {
		t.Errorf("%+v, %v", c, err)
	}
	verified(t, s)
}

// testClockJumps moves the clock back and forth between writes: the order of rows must not follow it.
func testClockJumps(t *testing.T, b Backend) {
	dsn, opts := b.New(t)
	now := noon
	var mu sync.Mutex
	opts.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := open(t, dsn, opts)
	for i, jump := range []time.Duration{0, -time.Hour, 24 * time.Hour, -48 * time.Hour, time.Nanosecond, -time.Hour} {
		mu.Lock()
		now = now.Add(jump)
		mu.Unlock()
		a := Paid(fmt.Sprint(i), opts.Now())
		must(t, s.Intend(ctx, a))
		must(t, s.Finish(ctx, Settle(a, 1)))
	}
	page, _, err := s.Requests(ctx, store.Filter{}, "")
	must(t, err)
	for i, r := range page {
		if want := fmt.Sprint("r-", len(page)-1-i); r.ID != want {
			t.Errorf("place %d: %s, want %s", i, r.ID, want)
		}
	}
	page, _, err = s.Requests(ctx, store.Filter{Window: store.Window{From: noon.Add(time.Minute)}}, "")
	if must(t, err); len(page) != 1 || page[0].ID != "r-2" {
		t.Errorf("a window in the future: %+v", page)
	}
	must(t, s.Close())
	s = open(t, dsn, opts)
	verified(t, s)
}

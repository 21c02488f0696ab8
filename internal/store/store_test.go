package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"occam/internal/cost"
)

var ctx = context.Background()

func openTest(t *testing.T, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(ctx, "sqlite:"+dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func paid(id string, at time.Time) Attempt {
	return Attempt{ID: id, RequestID: "r-" + id, At: at, Task: "triage", Tier: "generalist", Provider: "openai", Model: "gpt-4o",
		Price: "v1", CostLow: 10, CostHigh: 1000}
}

func TestPaidAttempt(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	now := time.Date(2026, 11, 3, 10, 0, 0, 5, time.UTC)
	a := paid("a1", now)
	if err := s.Intend(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := s.Intend(ctx, a); !errors.Is(err, ErrDuplicate) {
		t.Errorf("second intent: %v", err)
	}
	if c, _ := s.Counts(ctx); c.Open != 1 {
		t.Errorf("open: %+v", c)
	}
	a.State, a.Cost, a.Status, a.Answered, a.Latency = Settled, 700, 200, true, 1500*time.Millisecond
	a.Usage = cost.Usage{Input: 500, Output: 50}
	if err := s.Finish(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(ctx, a); !errors.Is(err, ErrNoIntent) {
		t.Errorf("second outcome: %v", err)
	}
	got, ok, err := s.Request(ctx, "r-a1")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	a.CostLow, a.CostHigh = 700, 700
	if got.Attempts[0] != a {
		t.Errorf("got  %+v\nwant %+v", got.Attempts[0], a)
	}
	totals, err := s.Totals(ctx, TotalsQuery{Window: Month(2026, 11), By: []Dimension{ByDay, ByTask, ByModel}})
	if err != nil || len(totals) != 1 || totals[0].Cost != 700 || totals[0].Requests != 1 || totals[0].Usage.Input != 500 {
		t.Errorf("totals %+v, %v", totals, err)
	}
}

func TestConcurrentAttempts(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	var group sync.WaitGroup
	start := time.Now()
	for worker := range 32 {
		group.Go(func() {
			for i := range 20 {
				a := paid(fmt.Sprintf("w%d-%d", worker, i), time.Now())
				if err := s.Intend(ctx, a); err != nil {
					t.Error(err)
					return
				}
				a.State, a.Cost = Settled, 5
				if err := s.Finish(ctx, a); err != nil {
					t.Error(err)
				}
				f := Attempt{ID: "f" + a.ID, RequestID: "f" + a.RequestID, At: time.Now(), Task: "triage", Tier: "linear", Answered: true, Status: 200}
				if err := s.RecordFree(ctx, f); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	t.Log(time.Since(start))
	time.Sleep(150 * time.Millisecond)
	if c, err := s.Counts(ctx); err != nil || c.Settled != 640 || c.Free != 640 || c.Open != 0 {
		t.Errorf("%+v %v", c, err)
	}
	seen, cursor := 0, ""
	for {
		page, next, err := s.Requests(ctx, Filter{Task: "triage", Limit: 100}, cursor)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page)
		if cursor = next; cursor == "" {
			break
		}
	}
	if seen != 1280 {
		t.Errorf("paged through %d requests", seen)
	}
	rate, err := s.RequestRate(ctx, "", Window{})
	if err != nil || rate.Requests != 1280 {
		t.Error(rate, err)
	}
	t.Log(s.LatencyQuantiles(ctx, Window{}, "", "", ""))
}

func TestRecoverOpen(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	for _, id := range []string{"a", "b"} {
		if err := s.Intend(ctx, paid(id, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	unpriced := paid("c", time.Now())
	unpriced.Price, unpriced.CostLow, unpriced.CostHigh = "", 0, 0
	if err := s.Intend(ctx, unpriced); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, "sqlite:"+dir, Options{}); err == nil {
		t.Fatal("a second process opened the folder")
	} else {
		t.Log(err)
	}
	s.Close()
	s = openTest(t, dir, Options{})
	if c, err := s.Counts(ctx); err != nil || c.Estimated != 2 || c.Unpriced != 1 || c.Open != 0 {
		t.Errorf("%+v %v", c, err)
	}
	r, _, _ := s.Request(ctx, "r-a")
	if a := r.Attempts[0]; a.State != Estimated || a.CostLow != 0 || a.CostHigh != 1000 || a.Cost != 1000 || a.Price != "v1" {
		t.Errorf("%+v", a)
	}
	r, _, _ = s.Request(ctx, "r-c")
	if a := r.Attempts[0]; a.State != Unpriced || a.Cost != 0 {
		t.Errorf("%+v", a)
	}
}

package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

func line(i int, high cost.Amount) store.Attempt {
	at := time.Unix(1700000000, 0)
	id := store.NewIDOf(at, [10]byte{9: byte(i), 8: byte(i >> 8)})
	return store.Attempt{ID: store.LineID(id, 0), RequestID: id, At: at, KeyID: "k", Provider: "p", Model: "m", Price: "p/m@-#1", CostHigh: high}
}

// Lines of a batch stay open when their process dies, and only a batch's results close them; what may be called again after a
// crash changes nothing the second time.
func testLines(t *testing.T, b Backend) {
	dsn, opts := b.New(t)
	s, err := store.Open(ctx, dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]store.Attempt, 3000)
	for i := range lines {
		lines[i] = line(i, 10)
	}
	budget := store.Budget{Key: "k", Start: store.PeriodStart("month", time.Unix(1700000000, 0)), Limit: 10 * 2500}
	refused, err := s.IntendLines(ctx, lines, budget)
	if err != nil || len(refused) != 500 {
		t.Fatalf("%d refused, %v", len(refused), err)
	}
	for _, why := range refused {
		if !errors.Is(why, store.ErrBudget) {
			t.Fatal(why)
		}
	}
	ordinary := store.Attempt{ID: store.NewID(time.Now()), RequestID: "r", CostHigh: 7, Price: "x"}
	if err := s.Intend(ctx, ordinary); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dsn, opts)
	if r, _, err := s.Request(ctx, "r"); err != nil || r.Attempts[0].State != store.Estimated {
		t.Errorf("an ordinary attempt of a dead process is %+v %v", r, err)
	}
	if again, err := s.IntendLines(ctx, lines[:100], budget); err != nil || len(again) != 0 {
		t.Errorf("the second time: %d refused, %v", len(again), err)
	}
	outcomes := make([]store.Attempt, 0, len(lines))
	for _, a := range lines {
		a.State, a.Cost, a.Status = store.Settled, 3, 200
		outcomes = append(outcomes, a)
	}
	for range 2 { // the second time nothing is left to close
		if err := s.FinishLines(ctx, outcomes); err != nil {
			t.Fatal(err)
		}
	}
	free := []store.Attempt{{ID: store.LineID("r2", 1), RequestID: "r2", KeyID: "k"}}
	for range 2 {
		if err := s.RecordLines(ctx, free); err != nil {
			t.Fatal(err)
		}
	}
	balance, err := s.BudgetBalance(ctx, budget)
	if err != nil || balance.Spent != 3*2500 || balance.Reserved != 0 {
		t.Errorf("the budget stands at %+v %v", balance, err)
	}
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() || report.Attempts != 2502 {
		t.Errorf("%d attempts, %v %s", report.Attempts, err, strings.Join(report.Problems, "; "))
	}
	if err := s.RecordLines(ctx, []store.Attempt{{ID: "x", RequestID: "x"}}); err == nil {
		t.Error("an attempt that is no line was taken")
	}
}

package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

// TestPagesAtAMillionRows prints how long the pages take over a large ledger. OCCAM_LEDGER_ROWS=1000000 runs it; it fills the
// ledger first, which takes minutes. The figures depend on the machine, so it asserts nothing about them.
func TestPagesAtAMillionRows(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("OCCAM_LEDGER_ROWS"))
	if err != nil || n < 1 {
		t.Skip("set OCCAM_LEDGER_ROWS to fill a ledger with so many rows and time the pages")
	}
	s := openStore(t)
	fill(t, s, n)
	handler := New(Options{Source: s, Database: s, Tasks: fixedTasks(ticketTask()), Now: func() time.Time { return fixedNow }})
	for _, path := range []string{"/", "/requests", "/requests?task=ticket-triage&tier=generalist", "/tasks/ticket-triage", "/spend", "/ledger"} {
		var took []time.Duration
		for range 40 {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
			w := httptest.NewRecorder()
			began := time.Now()
			handler.ServeHTTP(w, r)
			took = append(took, time.Since(began))
			if w.Code != http.StatusOK {
				t.Fatalf("%s: status %d", path, w.Code)
			}
		}
		slices.Sort(took)
		t.Logf("%-45s p50 %8v   p95 %8v", path, took[20].Round(100*time.Microsecond), took[37].Round(100*time.Microsecond))
	}
}

// fill writes rows over 60 days, four of five of them answered by the specialist, for three tasks and ten keys.
func fill(t *testing.T, s *store.Store, n int) {
	t.Helper()
	ctx := context.Background()
	work := make(chan int, 1024)
	done := make(chan error)
	const writers = 64
	for range writers {
		go func() {
			var failed error
			for i := range work {
				if err := fillOne(ctx, s, i, n); err != nil {
					failed = err
				}
			}
			done <- failed
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range writers {
		must(t, <-done)
	}
	flush(t, s)
}

func fillOne(ctx context.Context, s *store.Store, i, n int) error {
	at := fixedNow.Add(-60 * 24 * time.Hour * time.Duration(n-i) / time.Duration(n))
	a := store.Attempt{ID: fmt.Sprintf("A%09d", i), RequestID: fmt.Sprintf("R%09d", i), At: at, KeyID: "key-" + strconv.Itoa(i%10),
		Task: []string{"ticket-triage", "language", ""}[i%3], Answered: true, Status: 200, Latency: time.Millisecond}
	if i%5 != 0 && a.Task != "" {
		a.Tier, a.Model, a.Reason, a.Reference, a.Confidence = "linear", specialistModel, "certified", 1_750_000, 0.97
		return s.RecordFree(ctx, a)
	}
	a.Model, a.Provider, a.Price, a.CostHigh = "gpt-4o", "openai", "2026-11-01", 5*cost.USD
	if a.Task != "" {
		a.Tier = "generalist"
	}
	if err := s.Intend(ctx, a); err != nil {
		return err
	}
	a.State, a.Cost, a.CostLow, a.CostHigh, a.Reference = store.Settled, 1_750_000, 1_750_000, 1_750_000, 1_750_000
	a.Usage = cost.Usage{Input: 500, Output: 50}
	return s.Finish(ctx, a)
}

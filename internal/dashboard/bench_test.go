package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

const (
	maxMemory = 20 << 20               // bytes that a page may allocate
	maxP95    = 200 * time.Millisecond // server time of a page, at a million rows
)

// TestPagesAtAMillionRows fills a ledger and looks at every page that reads it. OCCAM_LEDGER_ROWS=1000000 is the size of the norm, which
// takes minutes; by default it is small, and only the memory is held against its norm: times of a busy machine say nothing.
func TestPagesAtAMillionRows(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("OCCAM_LEDGER_ROWS"))
	if err != nil || n < 1 {
		n = 4000
	}
	s := openStore(t)
	fill(t, s, n)
	for written := int64(0); written < int64(n); time.Sleep(10 * time.Millisecond) { // free rows wait for a batch
		totals, err := s.Totals(t.Context(), store.TotalsQuery{})
		must(t, err)
		for written = 0; len(totals) > 0; totals = totals[1:] {
			written += totals[0].Attempts
		}
	}
	o := everything(s)
	o.Now = func() time.Time { return fixedNow }
	handler := New(o)
	look := func(path string) (took time.Duration, allocated uint64) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
		w := httptest.NewRecorder()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		handler.ServeHTTP(w, r)
		took = time.Since(began)
		runtime.ReadMemStats(&after)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: status %d", path, w.Code)
		}
		return took, after.TotalAlloc - before.TotalAlloc
	}
	for _, path := range []string{"/", "/requests", "/requests?task=ticket-triage&tier=generalist", "/tasks/ticket-triage", "/spend", "/ledger", "/keys", "/settings",
		"/breakeven?task=ticket-triage", "/api/overview", "/api/spend"} {
		var took []time.Duration
		memory := uint64(0)
		for range 40 {
			one, allocated := look(path)
			took, memory = append(took, one), max(memory, allocated)
		}
		slices.Sort(took)
		t.Logf("%-45s p50 %8v   p95 %8v   %5.1f MiB", path, took[20].Round(100*time.Microsecond), took[37].Round(100*time.Microsecond), float64(memory)/(1<<20))
		if memory > maxMemory {
			t.Errorf("%s allocates %d bytes, at most %d", path, memory, maxMemory)
		}
		if n >= 1_000_000 && took[37] > maxP95 {
			t.Errorf("%s takes %v, at most %v", path, took[37], maxP95)
		}
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

package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/store/storetest"
)

// TestMillion fills a ledger with a million attempts of a month and times every query of the dashboard on it. It runs with
// OCCAM_MILLION=1, or =postgres.
func TestMillion(t *testing.T) {
	dsn, opts := "sqlite:"+t.TempDir(), store.Options{}
	var postgres storetest.Backend
	switch os.Getenv("OCCAM_MILLION") {
	case "":
		t.Skip("takes minutes; set OCCAM_MILLION=1, or =postgres")
	case "postgres":
		postgres = storetest.StartPostgres(t).Backend()
		dsn, opts = postgres.New(t)
	}
	const rows = 1_000_000
	s, err := store.Open(ctx, dsn, opts)
	must(t, err)
	defer s.Close()
	from := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	began := time.Now()
	fillMonth(t, s, from, rows)
	eventually(t, "all rows are there", time.Minute, func() bool {
		c, err := s.Counts(ctx)
		return err == nil && c.Free+c.Settled+c.Estimated == rows
	})
	took := time.Since(began)
	t.Logf("%d attempts in %v: %.0f a second", rows, took.Round(time.Second), rows/took.Seconds())
	size, whole := int64(0), int64(0)
	if path := filepath.Join(s.Dir(), "occam.db"); opts.Dir == "" {
		info, err := os.Stat(path)
		must(t, err)
		size, whole = info.Size(), info.Size()
	} else {
		must(t, postgres.Raw(t, dsn).QueryRow(`SELECT pg_table_size('attempts') + pg_table_size('chain'),
			pg_total_relation_size('attempts') + pg_total_relation_size('chain') + pg_total_relation_size('rollups')`).Scan(&size, &whole))
	}
	t.Logf("%d bytes an attempt with its chain, %d with indexes and sums too (on SQLite they are one file)", size/rows, whole/rows)
	if size > rows*1024 {
		t.Error("more than a kilobyte an attempt")
	}
	timeQueries(t, s, from)
	began = time.Now()
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() || report.Attempts != rows {
		t.Errorf("%+v, %v", report, err)
	}
	t.Logf("verify: %v", time.Since(began).Round(time.Millisecond))
}

// fillMonth spreads attempts over a month: every sixth is a paid one.
func fillMonth(t testing.TB, s *store.Store, from time.Time, rows int64) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for i := next.Add(1) - 1; i < rows; i = next.Add(1) - 1 {
				at := from.Add(time.Duration(i) * (31 * 24 * time.Hour / time.Duration(rows)))
				a := storetest.Local(store.NewID(at), at)
				if i%6 == 0 {
					a = storetest.Paid(a.ID, at)
				}
				a.Task, a.KeyID = fmt.Sprint("task-", i%3), fmt.Sprint("key-", i%11)
				var err error
				if i%6 == 0 {
					a.Model = []string{"gpt-4o", "gpt-4o-mini", "claude", "gemini"}[i/6%4]
					out := storetest.Settle(a, cost.Amount(i%1000))
					if i%100_000 == 0 {
						out.State, out.CostLow, out.CostHigh = store.Estimated, 0, 1000
					}
					if i%50_000 == 0 {
						out.Status = 502
					}
					if err = s.Intend(ctx, a); err == nil {
						err = s.Finish(ctx, out)
					}
				} else {
					err = s.RecordFree(ctx, a)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func timeQueries(t *testing.T, s *store.Store, from time.Time) {
	month := store.Window{From: from, To: from.AddDate(0, 1, 0)}
	part := store.Window{From: from.AddDate(0, 0, 9).Add(3 * time.Hour), To: from.AddDate(0, 0, 10)}
	page := func(f store.Filter) func() error {
		return func() error { _, _, err := s.Requests(ctx, f, ""); return err }
	}
	totals := func(q store.TotalsQuery) func() error {
		return func() error { _, err := s.Totals(ctx, q); return err }
	}
	middle, _, err := s.Requests(ctx, store.Filter{Window: store.Window{To: from.AddDate(0, 0, 15)}}, "")
	must(t, err)
	for _, q := range []struct {
		name string
		run  func() error
	}{
		{"totals of the month", totals(store.TotalsQuery{Window: month})},
		{"totals by day and task", totals(store.TotalsQuery{Window: month, By: []store.Dimension{store.ByDay, store.ByTask}})},
		{"totals by day, task, tier, model, key, state", totals(store.TotalsQuery{Window: month, By: []store.Dimension{store.ByDay, store.ByTask,
			store.ByTier, store.ByModel, store.ByKey, store.ByState}})},
		{"totals by hour of the month", totals(store.TotalsQuery{Window: month, By: []store.Dimension{store.ByHour}})},
		{"totals of part of a day by hour", totals(store.TotalsQuery{Window: part, By: []store.Dimension{store.ByHour, store.ByModel}})},
		{"counts by state", func() error { _, err := s.Counts(ctx); return err }},
		{"newest requests", page(store.Filter{})},
		{"requests of a task", page(store.Filter{Task: "task-1"})},
		{"requests of a model and a key", page(store.Filter{Model: "claude", Key: "key-3"})},
		{"estimated requests", page(store.Filter{State: store.Estimated})},
		{"failed requests of a task", page(store.Filter{Task: "task-0", Failed: true})},
		{"requests of a day long ago", page(store.Filter{Window: store.Window{From: from.AddDate(0, 0, 2), To: from.AddDate(0, 0, 3)}})},
		{"requests of a tier that there is not", page(store.Filter{Tier: "nowhere"})},
		{"one request", func() error { _, _, err := s.Request(ctx, middle[0].ID); return err }},
		{"request rate of the month", func() error { _, err := s.RequestRate(ctx, "task-1", month); return err }},
		{"latency of the month", func() error { _, err := s.LatencyQuantiles(ctx, month, "task-1", "", ""); return err }},
	} {
		var times []time.Duration
		for range 15 {
			began := time.Now()
			must(t, q.run())
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		t.Logf("%-48s median %8v  worst of 15 %8v", q.name, times[7].Round(10*time.Microsecond), times[14].Round(10*time.Microsecond))
		if times[7] > 200*time.Millisecond {
			t.Errorf("%s is slow", q.name)
		}
	}
}

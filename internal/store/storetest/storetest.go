// Package storetest is what every store must do, as tests: the same suite runs on SQLite and on PostgreSQL.
package storetest

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

// A Backend makes databases of one kind.
type Backend struct {
	// New returns the address of a new, empty database, removed when the test ends, and Options that go with it.
	New func(t testing.TB) (dsn string, opts store.Options)
	// Raw opens a database beside the store, to look at it and to spoil it.
	Raw func(t testing.TB, dsn string) *sql.DB
	// Shared says that several processes may use one database at the same time.
	Shared bool
}

// Run runs the whole suite.
func Run(t *testing.T, b Backend) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"paid attempt", testPaidAttempt},
		{"outcomes", testOutcomes},
		{"refusals", testRefusals},
		{"bounds of a row", testBounds},
		{"concurrent attempts", testConcurrent},
		{"abandoned intents", testAbandoned},
		{"recovery", testRecovery},
		{"close writes everything", testClose},
		{"totals", testTotals},
		{"totals by day", testTotalsByDay},
		{"upgrade", testUpgrade},
		{"requests", testRequests},
		{"rates", testRates},
		{"random histories", testHistories},
		{"tampering", testTampering},
		{"export and import", testExport},
		{"spoiled export", testSpoiledExport},
		{"clock jumps", testClockJumps},
		{"budgets", testBudgets},
		{"lines of a batch", testLines},
		{"transactions", testTransactions},
		{"tasks", testTasks},
		{"examples", testExamples},
		{"redaction", testRedaction},
		{"bounds of an example", testExampleBounds},
		{"models", testModels},
		{"notices", testNotices},
		{"certificates of tiers", testTierCertificates},
		{"model files", testModelFiles},
		{"keys", testKeys},
		{"records", testRecords},
		{"reviews", testReviews},
		{"jobs", testJobs},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, b) })
	}
}

var ctx = context.Background()

// noon is a fixed moment: tests that need a clock use it.
var noon = time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)

// open opens a store that is closed when the test ends.
func open(t testing.TB, dsn string, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fresh opens a store on a new database.
func fresh(t testing.TB, b Backend) (*store.Store, string, store.Options) {
	t.Helper()
	dsn, opts := b.New(t)
	return open(t, dsn, opts), dsn, opts
}

// Paid is the intent of a call of gpt-4o that costs between 10 and 1000 nano-dollars.
func Paid(id string, at time.Time) store.Attempt {
	return store.Attempt{ID: id, RequestID: "r-" + id, At: at, KeyID: "key-1", Task: "triage", Tier: "generalist", Provider: "openai",
		Model: "gpt-4o", InputHash: 1<<63 + 7, Price: "v1", CostLow: 10, CostHigh: 1000, Simulated: true}
}

// Settle adds to an intent the outcome of an answered call.
func Settle(a store.Attempt, amount cost.Amount) store.Attempt {
	a.State, a.Cost, a.Status, a.Answered, a.Reason = store.Settled, amount, 200, true, "below threshold"
	a.Usage = cost.Usage{Input: 500, Cached: 100, Output: 50, Reasoning: 5}
	a.Reference, a.Confidence, a.Latency = amount+1, 0.25, 1500*time.Millisecond
	return a
}

// Local is an answer of the embedded specialist.
func Local(id string, at time.Time) store.Attempt {
	return store.Attempt{ID: id, RequestID: "r-" + id, At: at, KeyID: "key-1", Task: "triage", Tier: "linear", Model: "triage@1f3c9a2b",
		Answered: true, Status: 200, Confidence: 0.99, Reference: 500, Latency: 40 * time.Microsecond}
}

// must stops the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// verified checks the whole ledger.
func verified(t testing.TB, s *store.Store) store.Report {
	t.Helper()
	report, err := s.Verify(ctx)
	must(t, err)
	if !report.OK() {
		t.Fatalf("verify: %q", report.Problems)
	}
	return report
}

// settled waits until the free rows that were recorded so far are in the ledger.
func settled(t testing.TB, s *store.Store, want int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := s.Counts(ctx)
		must(t, err)
		if c.Free == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d free rows after 10 s, want %d", c.Free, want)
		}
	}
}

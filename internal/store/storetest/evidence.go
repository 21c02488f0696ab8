package storetest

import (
	"bytes"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
)

// history writes a small ledger with every kind of entry.
func history(t testing.TB, s *store.Store, n int) {
	t.Helper()
	for i := range n {
		a := Paid(fmt.Sprint("p", i), noon.Add(time.Duration(i)*time.Minute))
		must(t, s.Intend(ctx, a))
		if i%5 != 4 {
			must(t, s.Finish(ctx, Settle(a, 100)))
		}
		must(t, s.RecordFree(ctx, Local(fmt.Sprint("f", i), noon)))
	}
	settled(t, s, int64(n))
}

// testTampering changes, adds and removes rows behind the store's back; Verify must notice each.
func testTampering(t *testing.T, b Backend) {
	original, dsn, opts := fresh(t, b)
	history(t, original, 10)
	verified(t, original)
	must(t, original.Close())
	raw := b.Raw(t, dsn)
	defer raw.Close()
	tables := []string{"attempts", "chain", "rollups", "latencies", "rates", "days", "lanes"}
	for _, table := range tables {
		mustExec(t, raw, `CREATE TABLE saved_`+table+` AS SELECT * FROM `+table)
	}
	opts.Mode = store.ReadOnly
	s := open(t, dsn, opts)
	const first = `n = (SELECT MIN(n) FROM attempts)`
	for _, change := range []string{
		`UPDATE attempts SET cost = cost + 1 WHERE ` + first,
		`UPDATE attempts SET intent_high = intent_high - 1 WHERE ` + first,
		`UPDATE attempts SET audit = 2 WHERE ` + first,
		`UPDATE attempts SET model = 'gpt-4o-mini' WHERE ` + first,
		`UPDATE attempts SET confidence = -confidence WHERE ` + first,
		`UPDATE attempts SET reason = reason || ' ' WHERE state = 'free'`,
		`UPDATE attempts SET reason = 'x' WHERE state = 'open'`,
		`UPDATE attempts SET state = 'void' WHERE state = 'open'`,
		`UPDATE attempts SET state = 'open' WHERE state = 'settled'`,
		`UPDATE attempts SET n = n + 256 WHERE n = (SELECT MAX(n) FROM attempts)`,
		`DELETE FROM attempts WHERE ` + first,
		`INSERT INTO attempts SELECT n + 256, id || '2', request_id, seq, at, key_id, task, tier, provider, model, audit, simulated,
			input_hash, intent_price, intent_low, intent_high, state, closed_at, price, cost, cost_low, cost_high, reference, input,
			cached, cache_write, output, reasoning, reason, answered, confidence, status, latency FROM attempts
			WHERE n = (SELECT MAX(n) FROM attempts)`,
		`DELETE FROM chain WHERE seq = 3`,
		`DELETE FROM chain WHERE seq = (SELECT MAX(seq) FROM chain)`,
		`UPDATE chain SET note = 'all is well' WHERE seq = 2`,
		`UPDATE chain SET kind = kind + 256 WHERE seq = 2`,
		`UPDATE rollups SET cost = cost - 1 WHERE state = 'settled'`,
		`DELETE FROM rollups WHERE state = 'free'`,
		`UPDATE rates SET requests = requests + 1`,
		`UPDATE latencies SET attempts = attempts + 1`,
		`UPDATE days SET last = last - 256`,
		`UPDATE lanes SET seq = seq - 1`,
		`DELETE FROM lanes`,
	} {
		if mustExec(t, raw, change) == 0 {
			t.Fatalf("%s changed nothing", change)
		}
		if report, err := s.Verify(ctx); err == nil && report.OK() {
			t.Errorf("not noticed: %s", change)
		}
		for _, table := range tables {
			mustExec(t, raw, `DELETE FROM `+table)
			mustExec(t, raw, `INSERT INTO `+table+` SELECT * FROM saved_`+table)
		}
	}
	verified(t, s)
}

// mustExec runs a statement and returns how many rows it changed.
func mustExec(t testing.TB, db *sql.DB, statement string) int64 {
	t.Helper()
	result, err := db.Exec(statement)
	must(t, err)
	n, err := result.RowsAffected()
	must(t, err)
	return n
}

func testExport(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	history(t, s, 30)
	var first bytes.Buffer
	must(t, s.Export(ctx, &first))
	dsn, opts := b.New(t)
	must(t, store.Import(ctx, dsn, opts, bytes.NewReader(first.Bytes())))
	if err := store.Import(ctx, dsn, opts, bytes.NewReader(first.Bytes())); err == nil {
		t.Error("imported twice")
	}
	readOnly := opts
	readOnly.Mode = store.ReadOnly
	copied := open(t, dsn, readOnly)
	want, got := verified(t, s), verified(t, copied)
	if got.Entries != want.Entries || got.Attempts != want.Attempts || got.Open != want.Open {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var second bytes.Buffer
	must(t, copied.Export(ctx, &second))
	if body(first.String()) != body(second.String()) {
		t.Error("the copy's export differs")
	}
	must(t, copied.Close())
	alive := open(t, dsn, opts)
	must(t, alive.Intend(ctx, Paid("after", noon)))
	if c, err := alive.Counts(ctx); err != nil || c.Estimated != want.Open || c.Open != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	verified(t, alive)
}

// body is an export without its first line, which holds the time.
func body(export string) string {
	_, rest, _ := strings.Cut(export, "\n")
	return rest
}

func testSpoiledExport(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	history(t, s, 3)
	var export bytes.Buffer
	must(t, s.Export(ctx, &export))
	good := export.String()
	dsn, opts := b.New(t)
	lines := strings.SplitAfter(good, "\n")
	join := func(l ...[]string) string {
		var b strings.Builder
		for _, part := range l {
			b.WriteString(strings.Join(part, ""))
		}
		return b.String()
	}
	for name, spoiled := range map[string]string{
		"empty":          "",
		"no export":      "{}\n",
		"not JSON":       "hello\n",
		"newer":          strings.Replace(good, `"occam_ledger":1`, `"occam_ledger":2`, 1),
		"cut at the end": join(lines[:len(lines)-2]),
		"a line missing": join(lines[:3], lines[4:]),
		"a line twice":   join(lines[:3], lines[2:]),
		"changed":        strings.Replace(good, `"cost_nano_usd":100`, `"cost_nano_usd":101`, 1),
		"swapped":        join(lines[:2], lines[3:4], lines[2:3], lines[4:]),
		"unknown kind":   strings.Replace(good, `"kind":"o"`, `"kind":"q"`, 1),
		"lane":           strings.Replace(good, `{"seq":1,`, `{"lane":99999,"seq":1,`, 1),
		"more":           good + lines[1],
	} {
		if spoiled == good {
			t.Fatalf("%s: nothing spoiled", name)
		}
		if err := store.Import(ctx, dsn, opts, strings.NewReader(spoiled)); err == nil {
			t.Errorf("%s: imported", name)
		}
	}
	must(t, store.Import(ctx, dsn, opts, strings.NewReader(good))) // nothing was left of the others
	verified(t, open(t, dsn, opts))
}

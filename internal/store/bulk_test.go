package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// newBulkLedger returns a ledger in a new database, and the end of its only lane.
func newBulkLedger(t *testing.T) (*sqliteLedger, head) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "bulk.db"))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	l := &sqliteLedger{db: db, read: db}
	t.Cleanup(func() {
		l.close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := migrate(t.Context(), db, sqlite); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO lanes VALUES (0, '', 1, 0, 0, 0, ?)`, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	return l, head{}
}

// applyRows commits attempts of both halves and returns the lane's end after them.
func applyRows(ctx context.Context, l *sqliteLedger, from head, rows []*row) (head, error) {
	q, t := newSequence(from, time.Now(), nil, len(rows)), newTransaction(len(rows))
	for _, r := range rows {
		made, err := q.add(&event{kind: kindFree, row: r})
		if err != nil {
			return from, err
		}
		r.n = made.row.n
		t.add(made)
	}
	_, err := l.apply(ctx, nil, func(map[accountID]Balance) []statement { return t.finish(from, q.end, 1) })
	if err != nil {
		return from, err
	}
	return q.end, nil
}

// bulkRows is as many rows as are inserted with one statement of each size, and some on their own.
func bulkRows() (n int) {
	for _, rows := range together {
		n += rows
	}
	return n + together[len(together)-1] - 1
}

// freeRow makes an answer that cost nothing, of which every column that may differ does.
func freeRow(i int) *row {
	at := time.Unix(1_700_000_000, int64(i)).UTC()
	return &row{Attempt: Attempt{ID: fmt.Sprint("id-", i), RequestID: fmt.Sprint("request-", i), At: at, KeyID: "key", Task: "task", Tier: "linear",
		Model: "task@1", InputHash: uint64(i) * 0x9E3779B97F4A7C15, State: Free, Reason: "certified", Answered: true, Status: 200,
		Confidence: float64(i) / 1e5, Reference: 1000, Latency: time.Duration(i) * time.Microsecond}, closedAt: int64(i) + 1}
}

// TestBulk writes rows of every shape, many at a time and one by one, and reads them back.
func TestBulk(t *testing.T) {
	t.Parallel()
	first := 0
	for _, c := range []struct {
		name  string
		shape int // of those of insertAttempt, that of the rows
		vary  func(i int, r *row)
	}{
		{"answers of one task", 0, func(int, *row) {}},
		{"of several tasks", 1, func(i int, r *row) {
			r.KeyID, r.Task, r.Tier, r.Model = fmt.Sprint("key", i%3), fmt.Sprint("task", i%5), fmt.Sprint("tier", i%2), fmt.Sprint("model", i%7)
		}},
		{"of two reasons", 1, func(i int, r *row) { r.Reason = fmt.Sprint("reason", i%2) }},
		{"with declined ones", 2, func(i int, r *row) { r.Seq, r.Answered, r.Status = i%2, i%2 == 1, i%2*200 }},
		{"with failed ones", 2, func(i int, r *row) { r.Status = 200 + i%2*300 }},
		{"with usage", 3, func(i int, r *row) { r.Usage.Input, r.Usage.Reasoning = int64(i), int64(i%3) }},
		{"of another provider", 3, func(i int, r *row) { r.Provider = "elsewhere" }},
		{"audits", 3, func(i int, r *row) { r.Audit = i%2 == 0 }},
		{"paid", 3, func(i int, r *row) {
			r.State, r.intentPrice, r.Price, r.Cost, r.CostLow, r.CostHigh = Settled, "v1", "v2", 7, 7, 7
			r.intentLow, r.intentHigh, r.Simulated, r.Usage.Cached, r.Usage.CacheWrite, r.Usage.Output = 3, 9, i%2 == 0, 4, 5, 6
		}},
	} {
		l, end := newBulkLedger(t)
		want := make([]*row, bulkRows())
		for i := range want {
			want[i] = freeRow(first + i)
			c.vary(i, want[i])
		}
		end, err := applyRows(t.Context(), l, end, want)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, rows := range together {
			for _, key := range []preparedKey{{insertAttempt, rows, shapes[insertAttempt][c.shape]}, {insertEntry, rows, shapes[insertEntry][0]}} {
				if l.bulk.prepared[key] == nil {
					t.Errorf("%s: %d rows at a time were not written in their shape: %.30s", c.name, rows, key.query)
				}
			}
		}
		ids := make([]string, len(want))
		for i, r := range want {
			ids[i] = r.ID
		}
		found, err := l.find(t.Context(), ids...)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range want {
			if got := found[r.ID]; !reflect.DeepEqual(got, r) {
				t.Fatalf("%s: have %+v, want %+v", c.name, got, r)
			}
		}
		var entries, wrong int64
		if err := l.db.QueryRow(`SELECT COUNT(*), COALESCE(SUM(lane <> 0 OR note <> '' OR kind <> ? OR n NOT IN (SELECT n FROM attempts) OR
			seq NOT BETWEEN 1 AND ?), 0) FROM chain`, int64(kindFree), end.seq).Scan(&entries, &wrong); err != nil {
			t.Fatal(err)
		}
		if entries != int64(len(want)) || wrong != 0 {
			t.Errorf("%s: %d entries, %d of them wrong, want %d", c.name, entries, wrong, len(want))
		}
		first += len(want)
	}
}

// TestBulkEntries writes entries that are not all of answers that cost nothing.
func TestBulkEntries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shape int
		event func(i int) *event
	}{
		{1, func(i int) *event {
			if i%2 == 0 {
				return &event{kind: kindFree, row: freeRow(i)}
			}
			r := freeRow(i)
			r.State = Pending
			return &event{kind: kindIntent, row: r}
		}},
		{2, func(i int) *event { return &event{kind: kindNote, note: fmt.Sprint("note ", i)} }},
	} {
		l, from := newBulkLedger(t)
		q, tx := newSequence(from, time.Now(), nil, 1), newTransaction(1)
		var want []*link
		for i := range bulkRows() {
			made, err := q.add(c.event(i))
			if err != nil {
				t.Fatal(err)
			}
			tx.add(made)
			want = append(want, made)
		}
		if _, err := l.apply(t.Context(), nil, func(map[accountID]Balance) []statement { return tx.finish(from, q.end, 1) }); err != nil {
			t.Fatal(err)
		}
		for _, rows := range together {
			if l.bulk.prepared[preparedKey{insertEntry, rows, shapes[insertEntry][c.shape]}] == nil {
				t.Errorf("shape %d: %d entries at a time were not written in it", c.shape, rows)
			}
		}
		for _, w := range want {
			var k, n int64
			var note string
			var hash []byte
			if err := l.db.QueryRow(`SELECT kind, n, note, hash FROM chain WHERE lane = 0 AND seq = ?`, w.end.seq).Scan(&k, &n, &note, &hash); err != nil {
				t.Fatal(err)
			}
			if kind(k) != w.kind || n != w.row.n || note != w.note || string(hash) != string(w.end.hash[:]) {
				t.Fatalf("entry %d: %d, %d, %q, %x", w.end.seq, k, n, note, hash)
			}
		}
	}
}

// TestBulkConflict: a row that is in the ledger already undoes all that came with it, and the next transaction works.
func TestBulkConflict(t *testing.T) {
	t.Parallel()
	l, end := newBulkLedger(t)
	end, err := applyRows(t.Context(), l, end, []*row{freeRow(100)})
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]*row, bulkRows())
	for i := range rows {
		rows[i] = freeRow(i)
	}
	if _, err := applyRows(t.Context(), l, end, rows); !errors.Is(err, errConflict) {
		t.Fatalf("a row twice: %v", err)
	}
	count := func() (n int) {
		if err := l.db.QueryRow(`SELECT COUNT(*) FROM attempts`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 1 {
		t.Errorf("%d rows after a conflict, want 1", n)
	}
	rows = append(rows[:100], rows[101:]...)
	for _, r := range rows {
		r.n = 0
	}
	if _, err := applyRows(t.Context(), l, end, rows); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != len(rows)+1 {
		t.Errorf("%d rows, want %d", n, len(rows)+1)
	}
}

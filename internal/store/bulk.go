package store

import (
	"context"
	"database/sql/driver"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A bulk runs the statements of transactions on SQLite, those that are alike many at a time. It works on the driver's own
// connection: what database/sql does with the arguments of a row costs as much as a good part of inserting it.
type bulk struct {
	conn     driver.ConnPrepareContext
	prepared map[preparedKey]driver.Stmt
	args     []driver.NamedValue // scratch
}

// A preparedKey says of which statement how many are run as one, and in which shape.
type preparedKey struct {
	query string
	rows  int
	shape *shape
}

// together are the numbers of rows that go into a table with one statement. While a statement of several rows runs, SQLite copies
// every page that it touches, so that it can be undone alone: the more rows, the fewer copies.
var together = []int{512, 128, 32, 8}

// A shape says how the rows of an insertion are bound that go into the table together. Values that all of them have need not be
// bound for each.
type shape struct {
	fixed  []any // by column, values that stand in the statement, nil for the other columns
	shared []int // columns that are the same in all rows, bound once
	own    []int // the others
}

// shapes are those of the insertions that are run many at a time. The first that fits is used.
var shapes = func() map[string][]*shape {
	unpaid := map[string]any{"provider": "", "audit": int64(0), "simulated": int64(0), "intent_price": "", "intent_low": int64(0),
		"intent_high": int64(0), "state": string(Free), "price": "", "cost": int64(0), "cost_low": int64(0), "cost_high": int64(0),
		"input": int64(0), "cached": int64(0), "cache_write": int64(0), "output": int64(0), "reasoning": int64(0)}
	answered := maps.Clone(unpaid)
	maps.Copy(answered, map[string]any{"seq": int64(0), "answered": int64(1), "status": int64(200)})
	linked := map[string]any{"lane": int64(0), "note": ""}
	free := maps.Clone(linked)
	free["kind"] = int64(kindFree)
	return map[string][]*shape{
		insertAttempt: {newShape(insertAttempt, answered, "key_id", "task", "tier", "model", "reason"), newShape(insertAttempt, answered),
			newShape(insertAttempt, unpaid), newShape(insertAttempt, nil)},
		insertEntry:   {newShape(insertEntry, free), newShape(insertEntry, linked), newShape(insertEntry, nil)},
		insertRollup:  {newShape(insertRollup, nil)},
		insertLatency: {newShape(insertLatency, nil)},
	}
}()

// newShape returns a shape of an insertion by the names of its columns.
func newShape(query string, fixed map[string]any, shared ...string) *shape {
	_, list, _ := strings.Cut(query, "(")
	list, _, _ = strings.Cut(list, ")")
	s := &shape{}
	for i, name := range strings.Split(list, ",") {
		name = strings.TrimSpace(name)
		s.fixed = append(s.fixed, fixed[name])
		switch {
		case fixed[name] != nil:
		case slices.Contains(shared, name):
			s.shared = append(s.shared, i)
		default:
			s.own = append(s.own, i)
		}
	}
	return s
}

// fits reports whether statements can be bound in this shape.
func (s *shape) fits(some []statement) bool {
	for _, one := range some {
		for i, value := range s.fixed {
			if value != nil && one.args[i] != value {
				return false
			}
		}
		for _, i := range s.shared {
			if one.args[i] != some[0].args[i] {
				return false
			}
		}
	}
	return true
}

// query returns the insertion of one row as the insertion of several. A conflict undoes the whole transaction: it fails anyway, and
// where nothing else can go wrong (not with a key that must be a whole number) SQLite then copies no pages.
func (s *shape) query(one string, rows int) string {
	head, tail, _ := strings.Cut(one, "VALUES (")
	_, tail, _ = strings.Cut(tail, ")")
	first, next := make([]string, len(s.fixed)), make([]string, len(s.fixed))
	bound := 0
	for i, value := range s.fixed {
		switch value := value.(type) {
		case int64:
			first[i] = strconv.FormatInt(value, 10)
		case string:
			first[i] = "'" + value + "'"
		default:
			bound++
			first[i] = "?"
		}
		if next[i] = first[i]; slices.Contains(s.shared, i) {
			next[i] += strconv.Itoa(bound)
		}
	}
	if !strings.Contains(tail, "ON CONFLICT") {
		head = strings.Replace(head, "INSERT", "INSERT OR ROLLBACK", 1)
	}
	return head + "VALUES (" + strings.Join(first, ",") + ")" + strings.Repeat(",("+strings.Join(next, ",")+")", rows-1) + tail
}

// run runs statements in their order.
func (b *bulk) run(ctx context.Context, conn driver.ConnPrepareContext, all []statement) error {
	if b.conn != conn { // those of a connection that is gone went with it
		b.conn, b.prepared = conn, map[preparedKey]driver.Stmt{}
	}
	for len(all) > 0 {
		some, as := alike(all)
		p, err := b.prepare(ctx, preparedKey{some[0].query, len(some), as})
		if err != nil {
			return err
		}
		result, err := p.(driver.StmtExecContext).ExecContext(ctx, b.bind(some, as))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if err := some[0].check(n); err != nil {
			return err
		}
		all = all[len(some):]
	}
	return nil
}

// alike returns the statements at the front that can be run as one, and how; a statement on its own is run as it is.
func alike(all []statement) (some []statement, as *shape) {
	query := all[0].query
	possible := shapes[query]
	if possible == nil {
		return all[:1], nil
	}
	n := 1
	for n < len(all) && n < together[0] && all[n].query == query {
		n++
	}
	for _, rows := range together {
		if n >= rows {
			some = all[:rows]
			return some, possible[slices.IndexFunc(possible, func(s *shape) bool { return s.fits(some) })]
		}
	}
	return all[:1], nil
}

// prepare returns a statement that was compiled before, or compiles it.
func (b *bulk) prepare(ctx context.Context, key preparedKey) (driver.Stmt, error) {
	if p := b.prepared[key]; p != nil {
		return p, nil
	}
	query := key.query
	if key.shape != nil {
		query = key.shape.query(query, key.rows)
	}
	p, err := b.conn.PrepareContext(ctx, query)
	if err == nil {
		b.prepared[key] = p
	}
	return p, err
}

// bind returns the arguments of statements that are run as one.
func (b *bulk) bind(some []statement, as *shape) []driver.NamedValue {
	args := b.args[:0]
	for i, value := range some[0].args {
		if as == nil || as.fixed[i] == nil {
			args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: value})
		}
	}
	for _, s := range some[1:] {
		for _, i := range as.own {
			args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: s.args[i]})
		}
	}
	b.args = args
	return args
}

// close lets go of what was prepared on a connection, so that it can be closed.
func (b *bulk) close(conn any) {
	for _, p := range b.prepared {
		if b.conn == conn {
			_ = p.Close() // it holds nothing but memory
		}
	}
	b.conn, b.prepared = nil, nil
}

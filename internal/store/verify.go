package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Report is what Verify found.
type Report struct {
	Entries  int64    // of the chain
	Attempts int64    // rows
	Open     int64    // attempts without an outcome
	Remarks  []string // what the ledger says about itself: a lost head file, an accepted rollback
	Problems []string // at most 100; none means that every row is as it was written
	Found    int64    // all problems, also those above the 100
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return r.Found == 0 }

func (r *Report) problem(format string, args ...any) {
	if r.Found++; r.Found <= 100 {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Verify reads the whole ledger and recomputes its chain, its sums and its end. It finds every change of a row, a row that was
// added or removed, a certificate that is not the one that was issued, and a database that is older than the head file. It may run beside a process that writes. An error
// means that the check could not be made, which is no better than a problem.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	outside, err := s.outsideHeads()
	if err == nil {
		err = s.settle(ctx)
	}
	if err != nil {
		return Report{}, err
	}
	journal, err := s.readJournal()
	if err != nil {
		return Report{}, err
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.dialect.snapshot()})
	if err != nil {
		return Report{}, fmt.Errorf("store: verify: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	v := &verifier{store: s, tx: tx, open: map[int64]bool{}, early: map[int64]string{}, certificates: map[string]Notice{}, days: newTransaction(0)}
	for _, check := range []func(context.Context) error{v.database, v.lanes, v.checkCertificates, v.rowsMissed, v.checkSums, v.checkBudgets} {
		if err := check(ctx); err != nil && ctx.Err() != nil {
			return v.report, fmt.Errorf("store: verify: %w", err)
		} else if err != nil {
			v.report.problem("cannot be read: %v", err)
		}
	}
	v.outside(ctx, outside, journal)
	v.report.Open = int64(len(v.open))
	return v.report, nil
}

// snapshot is the isolation level at which all reads of a transaction see the same state.
func (d dialect) snapshot() sql.IsolationLevel {
	if d == postgres {
		return sql.LevelRepeatableRead
	}
	return sql.LevelDefault
}

// outsideHeads reads the head file. It is read before the database, which may only be ahead of it.
func (s *Store) outsideHeads() (map[int64]outsideHead, error) {
	heads := map[int64]outsideHead{}
	for lane := range int64(maxLanes) {
		h, ok, err := s.heads.read(lane)
		if err != nil {
			return nil, err
		}
		if ok {
			heads[lane] = h
		}
	}
	return heads, nil
}

// A verifier walks one snapshot of the ledger.
type verifier struct {
	store  *Store
	tx     *sql.Tx
	report Report
	open   map[int64]bool   // positions of intents without an outcome so far
	early  map[int64]string // positions whose outcome came before the lane of their intent, with what the outcome is called
	days   *transaction     // which positions each day holds
	ends   map[int64]head

	certificates map[string]Notice // the newest notice about each model's certificate
}

// database asks the database itself: it knows its indexes and pages, which the chain does not cover.
func (v *verifier) database(ctx context.Context) error {
	if v.store.dialect != sqlite {
		return nil
	}
	rows, err := v.tx.QueryContext(ctx, `PRAGMA integrity_check(100)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var finding string
		if err := rows.Scan(&finding); err != nil {
			return err
		}
		if finding != "ok" {
			v.report.problem("database: %s", finding)
		}
	}
	return rows.Err()
}

// lanes walks the chain of every lane from its first entry and compares its end with the lane's own row.
func (v *verifier) lanes(ctx context.Context) error {
	recorded, err := v.store.readLanes(ctx, v.tx)
	if err != nil {
		return err
	}
	v.ends = map[int64]head{}
	err = v.store.walk(ctx, v.tx, head{lane: -1}, func(e *entry) error {
		v.entry(e)
		return nil
	})
	for _, early := range v.early {
		v.report.problem("entry %s", early)
	}
	for lane, h := range recorded {
		if got := v.ends[lane]; got.seq != h.seq || got.hash != h.hash && h.seq > 0 || got.n > h.n {
			v.report.problem("lane %d should end at entry %d, it ends at entry %d", lane, h.seq, got.seq)
		}
	}
	for lane := range v.ends {
		if _, ok := recorded[lane]; !ok {
			v.report.problem("lane %d is not recorded", lane)
		}
	}
	return err
}

// entry checks one entry against the one before it and the row that it vouches for.
func (v *verifier) entry(e *entry) {
	v.report.Entries++
	last := v.ends[e.lane]
	last.lane = e.lane
	if e.unreadable != nil {
		v.report.problem("entry %d/%d: %v", e.lane, e.seq, e.unreadable)
	}
	if e.seq != last.seq+1 {
		v.report.problem("entries %d to %d of lane %d are missing", last.seq+1, e.seq-1, e.lane)
	}
	r := e.row
	if r == nil && !e.kind.alone() {
		v.report.problem("entry %d/%d: its attempt is missing", e.lane, e.seq)
		r = &row{}
	}
	want := last.next(e.kind, e.n, e.note, r)
	if string(want.hash[:]) != string(e.hash) {
		v.report.problem("entry %d/%d: the hash does not match (attempt %s)", e.lane, e.seq, e.id())
	}
	v.order(e, last)
	copy(want.hash[:], e.hash) // go on from what is stored: one change is one problem
	want.seq = e.seq
	v.ends[e.lane] = want
}

// order checks that an attempt begins once and ends at most once, and counts it.
func (v *verifier) order(e *entry, last head) {
	if e.kind == kindNote {
		v.report.Remarks = append(v.report.Remarks, e.note)
		return
	}
	if e.kind == kindNotice {
		v.notice(e)
		return
	}
	if e.kind == kindOutcome {
		v.outcome(e)
	} else {
		if e.n <= last.n || e.n&(maxLanes-1) != e.lane {
			v.report.problem("entry %d/%d: position %d is out of order", e.lane, e.seq, e.n)
		}
		v.report.Attempts++
	}
	if e.row == nil {
		return
	}
	if e.kind != kindOutcome {
		v.days.countDay(e.row)
	}
	if e.kind == kindIntent {
		if v.early[e.n] == "" {
			v.open[e.n] = true
		}
		delete(v.early, e.n)
		blank := row{Attempt: Attempt{State: Pending}}
		if e.row.State == Pending && string(e.row.appendOutcome(nil)) != string(blank.appendOutcome(nil)) {
			v.report.problem("attempt %s is open but has parts of an outcome", e.id())
		}
	}
}

// outcome closes the intent that an outcome belongs to. That of a line of a batch may stand in another lane, where the process that
// went on with the batch wrote it, and that lane may be read first.
func (v *verifier) outcome(e *entry) {
	switch {
	case v.open[e.n]:
		delete(v.open, e.n)
	case IsLine(e.id()) && aheadOf(e.n, e.lane) && v.early[e.n] == "":
		v.early[e.n] = fmt.Sprintf("%d/%d: an outcome without an open intent (attempt %s)", e.lane, e.seq, e.id())
	default:
		v.report.problem("entry %d/%d: an outcome without an open intent (attempt %s)", e.lane, e.seq, e.id())
	}
}

// rowsMissed finds attempts that no entry vouches for.
func (v *verifier) rowsMissed(ctx context.Context) error {
	var rows, open int64
	err := v.tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END), 0) FROM attempts`).
		Scan(&rows, &open)
	if err != nil {
		return err
	}
	if rows != v.report.Attempts {
		v.report.problem("the chain vouches for %d attempts, the table holds %d", v.report.Attempts, rows)
	}
	if open != int64(len(v.open)) {
		v.report.problem("the chain leaves %d attempts open, the table %d", len(v.open), open)
	}
	return nil
}

// checkBudgets checks that budgets hold what open attempts can cost, no more and no less.
func (v *verifier) checkBudgets(ctx context.Context) error {
	for _, check := range []struct{ query, problem string }{
		{`SELECT COUNT(*) FROM holds h LEFT JOIN attempts a ON a.n = h.n WHERE a.n IS NULL OR a.state <> 'open'`,
			"budgets: %d holds are of attempts that are not open"},
		{`SELECT COUNT(*) FROM budgets b WHERE reserved <>
			COALESCE((SELECT SUM(amount) FROM holds h WHERE h.name = b.name AND h.period = b.period), 0)`,
			"budgets: %d do not reserve what open attempts hold"},
	} {
		var n int64
		if err := v.tx.QueryRowContext(ctx, check.query).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			v.report.problem(check.problem, n)
		}
	}
	return nil
}

// outside compares the chain, and what the journal adds to it, with the head file.
func (v *verifier) outside(ctx context.Context, heads map[int64]outsideHead, journal []*link) {
	if len(heads) == 0 && v.report.Entries > 0 {
		v.report.Remarks = append(v.report.Remarks, "no head file: an older copy of the database would not be noticed")
	}
	next, _ := following(journal, v.ends[0], noRow)
	for lane, h := range heads {
		same, err := v.store.entryIs(ctx, v.tx, h.head)
		same = same || lane == 0 && slices.ContainsFunc(next, func(l *link) bool { return l.end.seq == h.seq && l.end.hash == h.hash })
		if err != nil {
			v.report.problem("lane %d: %v", lane, err)
		} else if !same {
			v.report.problem("lane %d: the head file says entry %d, the database does not have it (its last entry is %d): "+
				"rolled back or cut short", lane, h.seq, v.ends[lane].seq)
		}
	}
}

// sumDays is how many days' sums are held in memory at a time.
const sumDays = 31

// checkSums adds the rows up again, some days at a time, and compares.
func (v *verifier) checkSums(ctx context.Context) error {
	err := compareSums(ctx, v, "days", v.days.days, `SELECT day, MIN(first), MAX(last) FROM days WHERE day >= ? AND day < ? GROUP BY day`,
		-forever, forever, func() (*int64, *[2]int64, []any) {
			k, span := new(int64), new([2]int64)
			return k, span, []any{k, &span[0], &span[1]}
		}, equal[[2]int64])
	days := slices.Sorted(maps.Keys(v.days.days))
	from := -forever // sums before the first day and after the last one should not be there, and are looked for too
	for first := 0; first < len(days); first += sumDays {
		last, to := min(first+sumDays, len(days))-1, forever
		if last+1 < len(days) {
			to = days[last+1]
		}
		err = errors.Join(err, v.checkDays(ctx, days[first:last+1], from, to))
		from = to
	}
	return err
}

// forever is far from now, in seconds, and still a time in nanoseconds.
const forever = int64(9e9)

// checkDays checks the sums of a span of time, in Unix seconds, in which there are rows on some days.
func (v *verifier) checkDays(ctx context.Context, days []int64, from, to int64) error {
	first, last := v.days.days[days[0]][0], v.days.days[days[0]][1]
	for _, d := range days {
		first, last = min(first, v.days.days[d][0]), max(last, v.days.days[d][1])
	}
	want := newTransaction(0)
	if err := v.addUp(ctx, want, first, last, from, to); err != nil {
		return err
	}
	rollups, latencies := want.addUp()
	return errors.Join(
		compareSums(ctx, v, "rollups", rollups, `SELECT span, bucket, task, tier, provider, model, key_id, state, flags,
			SUM(attempts), SUM(cost), SUM(cost_low), SUM(cost_high), SUM(reference), SUM(input), SUM(cached), SUM(cache_write),
			SUM(output), SUM(reasoning), SUM(latency) FROM rollups WHERE bucket >= ? AND bucket < ?
			GROUP BY span, bucket, task, tier, provider, model, key_id, state, flags`, from, to,
			func() (*rollupKey, **sums, []any) {
				k, s := &rollupKey{}, new(sums)
				into := []any{&k.span, &k.bucket, &k.task, &k.tier, &k.provider, &k.model, &k.key, &k.state, &k.flags}
				for i := range s {
					into = append(into, &s[i])
				}
				return k, &s, into
			}, func(a, b *sums) bool { return a != nil && b != nil && *a == *b }),
		compareSums(ctx, v, "latencies", latencies, `SELECT day, task, tier, model, step, SUM(attempts) FROM latencies
			WHERE day >= ? AND day < ? GROUP BY day, task, tier, model, step`, from, to,
			func() (*latencyKey, *int64, []any) {
				k, n := &latencyKey{}, new(int64)
				return k, n, []any{&k.day, &k.task, &k.tier, &k.model, &k.step, n}
			}, equal[int64]),
		compareSums(ctx, v, "rates", want.rates, `SELECT minute, task, SUM(requests) FROM rates WHERE minute >= ? AND minute < ?
			GROUP BY minute, task`, from, to,
			func() (*rateKey, *int64, []any) {
				k, n := &rateKey{}, new(int64)
				return k, n, []any{&k.minute, &k.task, n}
			}, equal[int64]),
	)
}

// addUp makes the sums of the rows in a span of positions and of time.
func (v *verifier) addUp(ctx context.Context, want *transaction, first, last, from, to int64) error {
	rows, err := v.tx.QueryContext(ctx, v.store.dialect.bind(`SELECT id, seq, at, task, tier, provider, model, key_id, state, audit, answered,
		simulated, status, cost, cost_low, cost_high, reference, input, cached, cache_write, output, reasoning, latency
		FROM attempts WHERE n >= ? AND n <= ? AND at >= ? AND at < ?`), first, last, from*int64(time.Second), to*int64(time.Second))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		var at, audit, answered, simulated int64
		u := &r.Usage
		if err := rows.Scan(&r.ID, &r.Seq, &at, &r.Task, &r.Tier, &r.Provider, &r.Model, &r.KeyID, &r.State, &audit, &answered, &simulated,
			&r.Status, &r.Cost, &r.CostLow, &r.CostHigh, &r.Reference, &u.Input, &u.Cached, &u.CacheWrite, &u.Output, &u.Reasoning,
			&r.Latency); err != nil {
			return err
		}
		r.At, r.Audit, r.Answered, r.Simulated = time.Unix(0, at), audit > 0, answered == 1, simulated == 1
		want.countBegun(&r)
		if r.State != Pending {
			want.countClosed(&r)
		}
	}
	return rows.Err()
}

func equal[T comparable](a, b T) bool { return a == b }

// compareSums reads a table of sums and reports every key whose value is not what the rows add up to.
func compareSums[K comparable, V any](ctx context.Context, v *verifier, table string, want map[K]V, query string, from, to int64,
	target func() (*K, *V, []any), same func(a, b V) bool) error {
	rows, err := v.tx.QueryContext(ctx, v.store.dialect.bind(query), from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	left := maps.Clone(want)
	for rows.Next() {
		k, got, into := target()
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
		if !same(left[*k], *got) {
			v.report.problem("%s: the sum of %+v is not that of its rows", table, *k)
		}
		delete(left, *k)
	}
	if len(left) > 0 {
		v.report.problem("%s: %d sums are missing", table, len(left))
	}
	return rows.Err()
}

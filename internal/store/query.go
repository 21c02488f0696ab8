package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
)

const rowColumns = `n, id, request_id, seq, at, key_id, task, tier, provider, model, audit, simulated, input_hash,
	intent_price, intent_low, intent_high, state, closed_at, price, cost, cost_low, cost_high, reference,
	input, cached, cache_write, output, reasoning, reason, answered, confidence, status, latency`

// targets returns where Scan puts rowColumns, and a function that completes the row after it. Flags are read as numbers, so
// that a damaged one is noticed instead of rounded to true.
func (r *row) targets() (into []any, finish func() error) {
	var at, hash int64
	var audit, simulated, answered int64
	u := &r.Usage
	into = []any{&r.n, &r.ID, &r.RequestID, &r.Seq, &at, &r.KeyID, &r.Task, &r.Tier, &r.Provider, &r.Model, &audit,
		&simulated, &hash, &r.intentPrice, &r.intentLow, &r.intentHigh, &r.State, &r.closedAt, &r.Price, &r.Cost, &r.CostLow,
		&r.CostHigh, &r.Reference, &u.Input, &u.Cached, &u.CacheWrite, &u.Output, &u.Reasoning, &r.Reason, &answered,
		&r.Confidence, &r.Status, &r.Latency}
	return into, func() error {
		r.At, r.InputHash = time.Unix(0, at).UTC(), uint64(hash)
		r.Simulated, r.Answered = simulated == 1, answered == 1
		if flag(r.Simulated) != simulated || flag(r.Answered) != answered {
			return fmt.Errorf("attempt %s: a flag is neither 0 nor 1", r.ID)
		}
		return r.setAudit(audit)
	}
}

// A querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// queryRows reads the attempts that a condition selects.
func (s *Store) queryRows(ctx context.Context, db querier, where string, args ...any) ([]*row, error) {
	rows, err := db.QueryContext(ctx, s.dialect.bind(`SELECT `+rowColumns+` FROM attempts WHERE `+where), args...)
	if err != nil {
		return nil, fmt.Errorf("store: read attempts: %w", err)
	}
	return scanRows(rows)
}

// scanRows reads all rows of rowColumns.
func scanRows(rows *sql.Rows) ([]*row, error) {
	defer rows.Close()
	var all []*row
	for rows.Next() {
		r := &row{}
		into, finish := r.targets()
		if err := errors.Join(rows.Scan(into...), finish()); err != nil {
			return nil, fmt.Errorf("store: read an attempt: %w", err)
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// A Window is a span of time, From inclusive, To exclusive. A zero bound is open.
type Window struct{ From, To time.Time }

// Month returns the window of a calendar month in UTC.
func Month(year int, month time.Month) Window {
	from := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	return Window{from, from.AddDate(0, 1, 0)}
}

// bounds returns the window in Unix seconds, rounded outwards to whole units.
func (w Window) bounds(unit int64) (from, to int64) {
	from, to = -forever, forever
	if !w.From.IsZero() {
		from = floor(w.From.Unix(), unit)
	}
	if !w.To.IsZero() {
		to = floor(w.To.Add(time.Second-1).Unix()+unit-1, unit)
	}
	return from, to
}

// A Dimension is what Totals can be broken down by.
type Dimension string

const (
	ByHour      Dimension = "hour"
	ByDay       Dimension = "day"
	ByTask      Dimension = "task"
	ByTier      Dimension = "tier"
	ByProvider  Dimension = "provider"
	ByModel     Dimension = "model"
	ByKey       Dimension = "key"
	ByState     Dimension = "state"
	ByAnswered  Dimension = "answered"
	ByAudit     Dimension = "audit"
	BySimulated Dimension = "simulated"
)

// dimensionColumns holds the SQL of each dimension: flags are the bits of flagAudit and so on.
var dimensionColumns = map[Dimension]string{
	ByHour: "bucket", ByDay: "bucket", ByTask: "task", ByTier: "tier", ByProvider: "provider", ByModel: "model", ByKey: "key_id",
	ByState: "state", ByAudit: "flags & 1", ByAnswered: "flags & 2", BySimulated: "flags & 4",
}

// dayOfBucket is the day of an hour's bucket, rounded down before 1970 too.
const dayOfBucket = "bucket - ((bucket % 86400) + 86400) % 86400"

// A Total is a sum over closed attempts. The fields of dimensions that were not asked for are zero.
type Total struct {
	Start                            time.Time // of the hour or day, UTC
	Task, Tier, Provider, Model, Key string
	State                            State
	Audit, Answered, Simulated       bool

	Attempts  int64
	Failed    int64 // with a status of 400 or more
	Requests  int64 // attempts whose answer the app got
	Usage     cost.Usage
	Cost      cost.Amount // settled and estimated
	CostLow   cost.Amount // sums of the bounds: equal to Cost where everything is settled
	CostHigh  cost.Amount
	Reference cost.Amount   // what the generalist would have cost for the answered requests
	Latency   time.Duration // sum
}

// A TotalsQuery selects and groups sums. Empty strings select everything. The window is rounded outwards to whole days of UTC,
// or to whole hours when By holds ByHour or the window is not made of whole days; the first and the last day of ByDay then hold
// only their hours inside the window. Windows in other time zones are such windows.
type TotalsQuery struct {
	Window
	By               []Dimension
	Task, Model, Key string
}

// Totals returns the sums of closed attempts, in the order of the dimensions. It reads only the rollups, so it is fast at any
// size of the ledger. Attempts that are still open are not in it: see Counts.
func (s *Store) Totals(ctx context.Context, q TotalsQuery) ([]Total, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	span := q.span()
	from, to := q.bounds(max(span, -span))
	var columns []string
	for _, d := range q.By {
		column, ok := dimensionColumns[d]
		if !ok {
			return nil, fmt.Errorf("store: totals cannot be grouped by %q", d)
		}
		if d == ByDay && span != day && !slices.Contains(q.By, ByHour) {
			column = dayOfBucket
		}
		columns = append(columns, column)
	}
	where, args := []string{"span = ?", "bucket >= ?", "bucket < ?"}, []any{span, from, to}
	for column, value := range map[string]string{"task": q.Task, "model": q.Model, "key_id": q.Key} {
		if value != "" {
			where, args = append(where, column+" = ?"), append(args, value)
		}
	}
	query := `SELECT ` + strings.Join(append(slices.Clone(columns), totalColumns), ", ") + ` FROM rollups WHERE ` + strings.Join(where, " AND ")
	if len(columns) > 0 {
		list := strings.Join(columns, ", ")
		query += ` GROUP BY ` + list + ` ORDER BY ` + list
	}
	rows, err := s.read.QueryContext(ctx, s.dialect.bind(query), args...)
	if err != nil {
		return nil, fmt.Errorf("store: totals: %w", err)
	}
	defer rows.Close()
	var all []Total
	for rows.Next() {
		var t Total
		if err := t.scan(rows, q.By); err != nil {
			return nil, fmt.Errorf("store: totals: %w", err)
		}
		if t.Attempts > 0 {
			all = append(all, t)
		}
	}
	return all, rows.Err()
}

const totalColumns = `COALESCE(SUM(attempts), 0), COALESCE(SUM(CASE WHEN flags & 8 <> 0 THEN attempts ELSE 0 END), 0),
	COALESCE(SUM(CASE WHEN flags & 2 <> 0 THEN attempts ELSE 0 END), 0),
	COALESCE(SUM(input), 0), COALESCE(SUM(cached), 0), COALESCE(SUM(cache_write), 0), COALESCE(SUM(output), 0),
	COALESCE(SUM(reasoning), 0), COALESCE(SUM(cost), 0), COALESCE(SUM(cost_low), 0), COALESCE(SUM(cost_high), 0),
	COALESCE(SUM(reference), 0), COALESCE(SUM(latency), 0)`

// span returns the coarsest rollup that answers the query exactly.
func (q *TotalsQuery) span() int64 {
	whole := func(t time.Time) bool { return t.IsZero() || t.UnixNano()%(day*int64(time.Second)) == 0 }
	if !slices.Contains(q.By, ByHour) && whole(q.From) && whole(q.To) {
		return day
	}
	apart := func(d Dimension) bool {
		return slices.Contains([]Dimension{ByTask, ByTier, ByProvider, ByModel, ByKey}, d)
	}
	if q.Task+q.Model+q.Key != "" || slices.ContainsFunc(q.By, apart) {
		return hour
	}
	return hourTotals
}

func (t *Total) scan(rows *sql.Rows, by []Dimension) error {
	var into []any
	var start, audit, answered, simulated int64
	fields := map[Dimension]any{ByHour: &start, ByDay: &start, ByTask: &t.Task, ByTier: &t.Tier, ByProvider: &t.Provider,
		ByModel: &t.Model, ByKey: &t.Key, ByState: &t.State, ByAudit: &audit, ByAnswered: &answered, BySimulated: &simulated}
	for _, d := range by {
		into = append(into, fields[d])
	}
	u := &t.Usage
	into = append(into, &t.Attempts, &t.Failed, &t.Requests, &u.Input, &u.Cached, &u.CacheWrite, &u.Output, &u.Reasoning,
		&t.Cost, &t.CostLow, &t.CostHigh, &t.Reference, &t.Latency)
	if err := rows.Scan(into...); err != nil {
		return err
	}
	t.Audit, t.Answered, t.Simulated = audit != 0, answered != 0, simulated != 0
	if slices.Contains(by, ByHour) || slices.Contains(by, ByDay) {
		t.Start = time.Unix(start, 0).UTC()
	}
	return nil
}

// Counts says how complete the ledger's money is.
type Counts struct {
	Open      int64 // sent or about to be, without an outcome yet; 0 when nothing is in flight
	Settled   int64
	Estimated int64
	Void      int64
	Free      int64
	Unpriced  int64
}

// Counts returns the number of attempts by state over the whole ledger.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	totals, err := s.Totals(ctx, TotalsQuery{By: []Dimension{ByState}})
	if err != nil {
		return c, err
	}
	into := map[State]*int64{Settled: &c.Settled, Estimated: &c.Estimated, Void: &c.Void, Free: &c.Free, Unpriced: &c.Unpriced}
	for _, t := range totals {
		if count := into[t.State]; count != nil {
			*count = t.Attempts
		}
	}
	if err := s.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM attempts WHERE state = 'open'`).Scan(&c.Open); err != nil {
		return c, fmt.Errorf("store: count open attempts: %w", err)
	}
	return c, nil
}

// A Request is one request of an app with its attempts, in order of Seq.
type Request struct {
	ID       string
	Attempts []Attempt
}

// Filter selects requests that have an attempt with all of the given properties. Zero values select everything.
type Filter struct {
	Window
	Task, Tier, Model, Key string
	State                  State
	Failed                 bool // status 400 or more
	Limit                  int  // requests a page, default 50, at most 500
}

// Requests returns a page of requests, newest first, and the cursor of the next page, "" after the last one. The first page
// has the cursor "".
func (s *Store) Requests(ctx context.Context, f Filter, cursor string) ([]Request, string, error) {
	if err := s.settle(ctx); err != nil {
		return nil, "", err
	}
	if f.Limit <= 0 {
		f.Limit = 50
	}
	f.Limit = min(f.Limit, 500)
	where, args := f.conditions("a.", false)
	if cursor != "" {
		before, err := strconv.ParseInt(cursor, 36, 64)
		if err != nil {
			return nil, "", fmt.Errorf("store: %q is no cursor", cursor)
		}
		where, args = append(where, "a.n < ?"), append(args, before)
	}
	bounds, boundArgs, err := s.positions(ctx, f.Window)
	if err != nil {
		return nil, "", err
	}
	where, args = append(where, bounds...), append(args, boundArgs...)
	// A request stands where its newest matching attempt stands, once.
	same, sameArgs := f.conditions("b.", true)
	where = append(where, `NOT EXISTS (SELECT 1 FROM attempts b WHERE b.request_id = a.request_id AND b.n > a.n AND `+strings.Join(same, " AND ")+`)`)
	query := `SELECT a.n, a.request_id FROM attempts a WHERE ` + strings.Join(where, " AND ") + ` ORDER BY a.n DESC LIMIT ?`
	args = append(append(args, sameArgs...), f.Limit)
	ids, last, err := s.requestIDs(ctx, query, args)
	if err != nil || len(ids) == 0 {
		return nil, "", err
	}
	requests, err := s.byRequest(ctx, ids)
	if err != nil || len(ids) < f.Limit {
		return requests, "", err
	}
	return requests, strconv.FormatInt(last, 36), nil
}

// conditions returns the filter as SQL on the attempts named by prefix. The planner knows nothing about how rare a value is,
// so all columns but that of the index to use are hidden from it in expressions: the most selective one of the filter, or,
// when it is only a check on rows found otherwise, none.
func (f *Filter) conditions(prefix string, check bool) (where []string, args []any) {
	where = []string{"1 = 1"}
	odd := f.State != "" && f.State != Settled && f.State != Free
	free := !check // an index may be used
	if f.Failed {
		where = append(where, prefix+hide("status", !free, " + 0")+" >= 400")
		free = false
	}
	if odd && free {
		where = append(where, prefix+"state NOT IN ('settled', 'free')") // as the partial index says
	}
	for _, c := range []struct {
		column, value string
		indexed       bool
	}{{"state", string(f.State), odd}, {"key_id", f.Key, true}, {"model", f.Model, true}, {"tier", f.Tier, true}, {"task", f.Task, true}} {
		if c.value != "" {
			where, args = append(where, prefix+hide(c.column, !free || !c.indexed, " || ''")+" = ?"), append(args, c.value)
			free = free && !c.indexed
		}
	}
	if !f.From.IsZero() {
		where, args = append(where, prefix+"at >= ?"), append(args, f.From.UnixNano())
	}
	if !f.To.IsZero() {
		where, args = append(where, prefix+"at < ?"), append(args, f.To.UnixNano())
	}
	return where, args
}

func hide(column string, hidden bool, behind string) string {
	if hidden {
		return column + behind
	}
	return column
}

// positions bounds a window by positions, so that an old window is found without an index on time: the clock may have
// jumped, so the days remember which positions they hold.
func (s *Store) positions(ctx context.Context, w Window) (where []string, args []any, err error) {
	if w.From.IsZero() && w.To.IsZero() {
		return nil, nil, nil
	}
	from, to := w.bounds(day)
	var first, last int64
	err = s.read.QueryRowContext(ctx, s.dialect.bind(`SELECT COALESCE(MIN(first), 0), COALESCE(MAX(last), 0) FROM days
		WHERE day >= ? AND day < ?`), from, to).Scan(&first, &last)
	if err != nil {
		return nil, nil, fmt.Errorf("store: find the window: %w", err)
	}
	return []string{"a.n >= ?", "a.n <= ?"}, []any{first, last}, nil
}

func (s *Store) requestIDs(ctx context.Context, query string, args []any) (ids []string, last int64, err error) {
	rows, err := s.read.QueryContext(ctx, s.dialect.bind(query), args...)
	if err != nil {
		return nil, 0, fmt.Errorf("store: requests: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&last, &id); err != nil {
			return nil, 0, fmt.Errorf("store: requests: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, last, rows.Err()
}

// byRequest reads the attempts of some requests, in the order of ids.
func (s *Store) byRequest(ctx context.Context, ids []string) ([]Request, error) {
	args := make([]any, len(ids))
	place := make(map[string]int, len(ids))
	requests := make([]Request, len(ids))
	for i, id := range ids {
		args[i], place[id], requests[i].ID = id, i, id
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(ids)), ",")
	rows, err := s.queryRows(ctx, s.read, `request_id IN (`+marks+`) ORDER BY seq, n`, args...)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		request := &requests[place[r.RequestID]]
		request.Attempts = append(request.Attempts, r.public())
	}
	return requests, nil
}

// public returns the attempt as callers see it: while it is open, with the price and bounds of its intent.
func (r *row) public() Attempt {
	a := r.Attempt
	if a.State == Pending {
		a.Price, a.CostLow, a.CostHigh = r.intentPrice, r.intentLow, r.intentHigh
	}
	return a
}

// Request returns one request with its attempts; ok is false when the ledger holds none.
func (s *Store) Request(ctx context.Context, id string) (_ Request, ok bool, err error) {
	if err := s.settle(ctx); err != nil {
		return Request{}, false, err
	}
	requests, err := s.byRequest(ctx, []string{id})
	if err != nil || len(requests[0].Attempts) == 0 {
		return Request{}, false, err
	}
	return requests[0], true, nil
}

// Rate describes how fast requests come, from counts by minute, in requests per second.
type Rate struct {
	Requests            int64
	Minutes             int64 // of the window; minutes without a request count as zero
	Mean, P50, P95, P99 float64
	Peak                float64 // of the busiest minute
}

// RequestRate returns the rate of a task's requests over a window. An open end of the window is where the task's requests start or end.
func (s *Store) RequestRate(ctx context.Context, task string, w Window) (Rate, error) {
	if err := s.settle(ctx); err != nil {
		return Rate{}, err
	}
	from, to := w.bounds(60)
	// PostgreSQL adds up what is larger than an INTEGER there as decimals, in several times the time and memory.
	rows, err := s.read.QueryContext(ctx, s.dialect.bind(`SELECT requests, COUNT(*), MIN(minute), MAX(minute) FROM
		(SELECT minute, SUM(CAST(requests AS INTEGER)) AS requests FROM rates WHERE task = ? AND minute >= ? AND minute < ? GROUP BY minute) m
		GROUP BY requests ORDER BY requests`), task, from, to)
	if err != nil {
		return Rate{}, fmt.Errorf("store: request rate: %w", err)
	}
	defer rows.Close()
	var histogram []minutesOf
	first, last := to, from
	for rows.Next() {
		var m minutesOf
		var earliest, latest int64
		if err := rows.Scan(&m.requests, &m.minutes, &earliest, &latest); err != nil {
			return Rate{}, fmt.Errorf("store: request rate: %w", err)
		}
		histogram = append(histogram, m)
		first, last = min(first, earliest), max(last, latest+60)
	}
	if err := rows.Err(); err != nil || len(histogram) == 0 {
		return Rate{}, err
	}
	if !w.From.IsZero() {
		first = from
	}
	if !w.To.IsZero() {
		last = to
	}
	return rateOf(histogram, (last-first)/60), nil
}

// Lasted returns the time from a task's first request to its last one, in whole minutes; zero when there is none.
func (s *Store) Lasted(ctx context.Context, task string) (time.Duration, error) {
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	var first, last sql.NullInt64
	err := s.read.QueryRowContext(ctx, s.dialect.bind(`SELECT (SELECT MIN(minute) FROM rates WHERE task = ?),
		(SELECT MAX(minute) FROM rates WHERE task = ?)`), task, task).Scan(&first, &last)
	if err != nil || !first.Valid {
		return 0, err
	}
	return time.Duration(last.Int64+60-first.Int64) * time.Second, nil
}

// minutesOf says how many minutes had so many requests.
type minutesOf struct{ requests, minutes int64 }

// rateOf summarises the minutes that had requests, in ascending order of these, out of so many minutes.
func rateOf(histogram []minutesOf, minutes int64) Rate {
	r := Rate{Minutes: minutes}
	busy := int64(0)
	for _, m := range histogram {
		busy += m.minutes
		r.Requests += m.requests * m.minutes
	}
	quantile := func(q float64) float64 {
		rank := int64(q*float64(minutes-1)+0.5) - (minutes - busy) // among the minutes that had requests
		for _, m := range histogram {
			if rank -= m.minutes; rank < 0 && rank+m.minutes >= 0 {
				return float64(m.requests) / 60
			}
		}
		return 0
	}
	r.Mean = float64(r.Requests) / float64(minutes) / 60
	r.P50, r.P95, r.P99, r.Peak = quantile(0.5), quantile(0.95), quantile(0.99), quantile(1)
	return r
}

// Quantiles of the latency of attempts that got an answer, at most 12.5 % too high.
type Quantiles struct {
	Attempts      int64
	P50, P95, P99 time.Duration
}

// LatencyQuantiles returns the latency of a task's tier and model over whole days; "" selects everything.
func (s *Store) LatencyQuantiles(ctx context.Context, w Window, task, tier, model string) (Quantiles, error) {
	if err := s.settle(ctx); err != nil {
		return Quantiles{}, err
	}
	from, to := w.bounds(day)
	rows, err := s.read.QueryContext(ctx, s.dialect.bind(`SELECT step, SUM(attempts) FROM latencies
		WHERE day >= ? AND day < ? AND (? = '' OR task = ?) AND (? = '' OR tier = ?) AND (? = '' OR model = ?)
		GROUP BY step ORDER BY step`), from, to, task, task, tier, tier, model, model)
	if err != nil {
		return Quantiles{}, fmt.Errorf("store: latency: %w", err)
	}
	defer rows.Close()
	var steps, counts []int64
	q := Quantiles{}
	for rows.Next() {
		var step, count int64
		if err := rows.Scan(&step, &count); err != nil {
			return Quantiles{}, fmt.Errorf("store: latency: %w", err)
		}
		steps, counts, q.Attempts = append(steps, step), append(counts, count), q.Attempts+count
	}
	at := func(p float64) time.Duration {
		seen := int64(0)
		for i, c := range counts {
			if seen += c; float64(seen) >= p*float64(q.Attempts) {
				return stepLatency(steps[i])
			}
		}
		return 0
	}
	q.P50, q.P95, q.P99 = at(0.50), at(0.95), at(0.99)
	return q, rows.Err()
}

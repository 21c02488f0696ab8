package store

import (
	"math/bits"
	"slices"
	"time"
)

// A statement is one change of a transaction.
type statement struct {
	query string
	args  []any
	must  touch
}

// A touch says what it means when a statement changes no row.
type touch int

const (
	mayTouch   touch = iota // nothing
	mustTouch               // the transaction contradicts the ledger
	mustBeOurs              // another process owns the lane
)

// A transaction is what one group commit writes: the rows, the chain over them, and the sums that keep queries fast. What goes into
// one table stands together, so that it can go there at once.
type transaction struct {
	rows     []statement           // that insert attempts
	closes   []statement           // that add outcomes to them
	entries  []statement           // of the chain
	beside   []statement           // the others, in the order in which they came
	free     []any                 // room for arguments
	balances map[accountID]Balance // of the accounts that the entries touch, after the last one
	inserted map[int64]int         // by position, which of rows insert an intent

	hours map[rollupKey]*hourSums
	rates map[rateKey]int64
	days  map[int64][2]int64
}

// newTransaction begins a transaction of about so many entries.
func newTransaction(entries int) *transaction {
	return &transaction{rows: make([]statement, 0, entries), entries: make([]statement, 0, entries), balances: map[accountID]Balance{}, inserted: map[int64]int{}, hours: map[rollupKey]*hourSums{},
		rates: map[rateKey]int64{}, days: map[int64][2]int64{}}
}

const (
	insertAttempt = `INSERT INTO attempts (n, id, request_id, seq, at, key_id, task, tier, provider, model, audit, simulated,
		input_hash, intent_price, intent_low, intent_high, state, closed_at, price, cost, cost_low, cost_high, reference,
		input, cached, cache_write, output, reasoning, reason, answered, confidence, status, latency)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`
	closeAttempt = `UPDATE attempts SET state = ?, closed_at = ?, price = ?, cost = ?, cost_low = ?, cost_high = ?,
		reference = ?, input = ?, cached = ?, cache_write = ?, output = ?, reasoning = ?, reason = ?, answered = ?,
		confidence = ?, status = ?, latency = ? WHERE n = ? AND state = 'open'`
	insertEntry  = `INSERT INTO chain (lane, seq, kind, n, note, hash) VALUES (?,?,?,?,?,?)`
	insertRollup = `INSERT INTO rollups (span, bucket, lane, task, tier, provider, model, key_id, state, flags, attempts, cost, cost_low,
		cost_high, reference, input, cached, cache_write, output, reasoning, latency)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (span, bucket, lane, task, tier, provider, model, key_id, state, flags) DO UPDATE SET
		attempts = rollups.attempts + excluded.attempts, cost = rollups.cost + excluded.cost,
		cost_low = rollups.cost_low + excluded.cost_low, cost_high = rollups.cost_high + excluded.cost_high,
		reference = rollups.reference + excluded.reference, input = rollups.input + excluded.input,
		cached = rollups.cached + excluded.cached, cache_write = rollups.cache_write + excluded.cache_write,
		output = rollups.output + excluded.output, reasoning = rollups.reasoning + excluded.reasoning,
		latency = rollups.latency + excluded.latency`
	insertLatency = `INSERT INTO latencies (day, lane, task, tier, model, step, attempts) VALUES (?,?,?,?,?,?,?)
		ON CONFLICT (day, lane, task, tier, model, step) DO UPDATE SET attempts = latencies.attempts + excluded.attempts`
	insertRate = `INSERT INTO rates VALUES (?,?,?,?)
		ON CONFLICT (minute, lane, task) DO UPDATE SET requests = rates.requests + excluded.requests`
	insertDay = `INSERT INTO days VALUES (?,?,?,?)
		ON CONFLICT (day, lane) DO UPDATE SET last = excluded.last`
	insertHold    = `INSERT INTO holds (n, name, period, amount) VALUES (?,?,?,?)`
	deleteHolds   = `DELETE FROM holds WHERE n = ?`
	insertBalance = `INSERT INTO budgets VALUES (?,?,?,?)
		ON CONFLICT (name, period) DO UPDATE SET spent = excluded.spent, reserved = excluded.reserved`
	moveHead = `UPDATE lanes SET seq = ?, n = ?, hash = ?, beat = beat + 1 WHERE lane = ? AND epoch = ? AND seq = ?`
)

// add appends an entry to the transaction.
func (t *transaction) add(l *link) {
	r := &l.row
	switch l.kind {
	case kindIntent, kindFree:
		if !l.known {
			t.insert(r)
		}
		t.countBegun(r)
		for _, h := range r.holds {
			t.do(mustTouch, insertHold, r.n, h.name, h.start, int64(h.amount))
		}
	case kindOutcome:
		if at, ok := t.inserted[r.n]; ok { // both halves come together
			r.outcomeArgs(t.rows[at].args[:intentColumns])
		} else {
			t.closes = append(t.closes, statement{closeAttempt, append(r.outcomeArgs(t.room(outcomeColumns+1)), r.n), mustTouch})
		}
		if len(r.holds) > 0 {
			t.do(mustTouch, deleteHolds, r.n)
		}
	}
	for _, h := range r.holds {
		t.balances[h.accountID] = h.after
	}
	if l.kind == kindOutcome || l.kind == kindFree {
		t.countClosed(r)
	}
	t.entries = append(t.entries, statement{insertEntry,
		append(t.room(entryColumns), l.end.lane, l.end.seq, int64(l.kind), r.n, l.note, l.end.hash[:]), mustTouch})
}

// insert adds the row of an attempt.
func (t *transaction) insert(r *row) {
	if r.State != Free { // which is complete
		t.inserted[r.n] = len(t.rows)
	}
	t.rows = append(t.rows, statement{insertAttempt, r.outcomeArgs(r.intentArgs(t.room(intentColumns + outcomeColumns))), mustTouch})
}

func (t *transaction) do(must touch, query string, args ...any) {
	t.beside = append(t.beside, statement{query, args, must})
}

// room returns room for so many arguments.
func (t *transaction) room(n int) []any {
	if len(t.free) < n {
		t.free = make([]any, 1<<12)
	}
	args := t.free[:0:n]
	t.free = t.free[n:]
	return args
}

const (
	intentColumns  = 16
	outcomeColumns = 17
	entryColumns   = 6
)

func (r *row) intentArgs(args []any) []any {
	return append(args, r.n, r.ID, r.RequestID, int64(r.Seq), r.At.UnixNano(), r.KeyID, r.Task, r.Tier, r.Provider, r.Model,
		r.audit(), flag(r.Simulated), int64(r.InputHash), r.intentPrice, int64(r.intentLow), int64(r.intentHigh))
}

func (r *row) outcomeArgs(args []any) []any {
	u := r.Usage
	return append(args, string(r.State), r.closedAt, r.Price, int64(r.Cost), int64(r.CostLow), int64(r.CostHigh), int64(r.Reference),
		u.Input, u.Cached, u.CacheWrite, u.Output, u.Reasoning, r.Reason, flag(r.Answered), r.Confidence, int64(r.Status),
		int64(r.Latency))
}

const (
	hour = int64(3600)
	day  = 24 * hour
	// hourTotals is the span of an hour's sums over all tasks, tiers, providers, models and keys: weeks of hours are few rows.
	hourTotals = -hour
)

// A rollupKey names one sum: a span of time (hour or day, in seconds, or hourTotals) that starts at bucket, and what kind of attempt.
type rollupKey struct {
	span, bucket                            int64
	task, tier, provider, model, key, state string
	flags                                   int64
}

// Flags of a rollup.
const (
	flagAudit int64 = 1 << iota
	flagAnswered
	flagSimulated
	flagFailed // the reply had a status of 400 or more
)

// sums are the columns of a rollup, in their order.
type sums [11]int64

func (s *sums) add(other *sums) {
	for i, v := range other {
		s[i] += v
	}
}

// hourSums are what is kept of the attempts of one kind that begin in one hour; the sums of a day follow from those of its hours.
type hourSums struct {
	sums
	latencies map[int64]int64 // how many had a latency of this step
}

type latencyKey struct {
	day               int64
	task, tier, model string
	step              int64
}

type rateKey struct {
	minute int64
	task   string
}

// countBegun counts a row when it is inserted: requests by minute, and which positions a day holds.
func (t *transaction) countBegun(r *row) {
	if r.Seq == 0 {
		t.rates[rateKey{floor(r.At.Unix(), 60), r.Task}]++
	}
	t.countDay(r)
}

func (t *transaction) countDay(r *row) {
	day := floor(r.At.Unix(), day)
	span, ok := t.days[day]
	if !ok {
		span = [2]int64{r.n, r.n}
	}
	t.days[day] = [2]int64{min(span[0], r.n), max(span[1], r.n)}
}

// countClosed adds a row that has its outcome to the sums of its hour.
func (t *transaction) countClosed(r *row) {
	flags := flag(r.Audit)*flagAudit | flag(r.Answered)*flagAnswered | flag(r.Simulated)*flagSimulated |
		flag(r.Status >= 400)*flagFailed
	key := rollupKey{hour, floor(r.At.Unix(), hour), r.Task, r.Tier, r.Provider, r.Model, r.KeyID, string(r.State), flags}
	have := t.hours[key]
	if have == nil {
		have = &hourSums{latencies: map[int64]int64{}}
		t.hours[key] = have
	}
	u := r.Usage
	have.add(&sums{1, int64(r.Cost), int64(r.CostLow), int64(r.CostHigh), int64(r.Reference), u.Input, u.Cached, u.CacheWrite,
		u.Output, u.Reasoning, int64(r.Latency)})
	overnight := IsLine(r.ID) && r.State != Free // nobody waited for it
	if (r.State == Settled || r.State == Free || r.State == Unpriced) && !overnight {
		have.latencies[latencyStep(r.Latency)]++
	}
}

// addUp returns the sums of hours, broken down and not, and of days, and the latencies of days.
func (t *transaction) addUp() (rollups map[rollupKey]*sums, latencies map[latencyKey]int64) {
	rollups, latencies = make(map[rollupKey]*sums, 3*len(t.hours)), map[latencyKey]int64{}
	for k, have := range t.hours {
		ofDay := k
		ofDay.span, ofDay.bucket = day, floor(k.bucket, day)
		for _, key := range []rollupKey{k, {span: hourTotals, bucket: k.bucket, state: k.state, flags: k.flags}, ofDay} {
			if rollups[key] == nil {
				rollups[key] = new(sums)
			}
			rollups[key].add(&have.sums)
		}
		for step, attempts := range have.latencies {
			latencies[latencyKey{ofDay.bucket, k.task, k.tier, k.model, step}] += attempts
		}
	}
	return rollups, latencies
}

// floor rounds down to a multiple of unit, also below zero.
func floor(v, unit int64) int64 {
	if m := v % unit; m < 0 {
		return v - m - unit
	} else {
		return v - m
	}
}

// latencyStep maps a latency to a logarithmic scale with 8 steps an octave of microseconds: at most 12.5 % wide.
func latencyStep(d time.Duration) int64 {
	us := uint64(max(d.Microseconds(), 0))
	if us < 8 {
		return int64(us)
	}
	octave := bits.Len64(us) - 4 // us>>octave is 8 to 15
	return int64(octave*8) + int64(us>>octave)
}

// stepLatency returns the upper end of a step.
func stepLatency(step int64) time.Duration {
	if step < 16 {
		return time.Duration(step) * time.Microsecond
	}
	octave := step/8 - 1
	return time.Duration((step%8+8+1)<<octave-1) * time.Microsecond
}

// finish returns all statements: first the move of the head, which fails when another process owns the lane by now, then the
// rows and the chain, then the sums. Every row of the sums belongs to one lane, so processes never wait for each other.
func (t *transaction) finish(from, to head, epoch int64) []statement {
	lane := from.lane
	rollups, latencies := t.addUp()
	for k, add := range rollups {
		args := []any{k.span, k.bucket, lane, k.task, k.tier, k.provider, k.model, k.key, k.state, k.flags}
		for _, v := range add {
			args = append(args, v)
		}
		t.do(mayTouch, insertRollup, args...)
	}
	for k, attempts := range latencies {
		t.do(mayTouch, insertLatency, k.day, lane, k.task, k.tier, k.model, k.step, attempts)
	}
	for k, requests := range t.rates {
		t.do(mayTouch, insertRate, k.minute, lane, k.task, requests)
	}
	for d, span := range t.days {
		t.do(mayTouch, insertDay, d, lane, span[0], span[1])
	}
	for id, have := range t.balances {
		t.do(mayTouch, insertBalance, id.name, id.start, int64(have.Spent), int64(have.Reserved))
	}
	move := statement{moveHead, []any{to.seq, to.n, to.hash[:], lane, epoch, from.seq}, mustBeOurs}
	return slices.Concat([]statement{move}, t.rows, t.closes, t.entries, t.beside)
}

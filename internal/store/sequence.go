package store

import "time"

// A sequence gives events their places at the end of a chain, and what they hold of budgets.
type sequence struct {
	end      head
	now      time.Time
	balances map[accountID]Balance // of all accounts that the events touch
	begun    map[string]int64      // positions of the intents that it began
	covered  []byte                // what the hashes of the new entries cover, one after the other
	free     []link                // room for links
}

// A link is an event with its place in the chain: everything that is to be written about it.
type link struct {
	kind    kind
	note    string
	row     row    // as it is written
	end     head   // of the chain, with this entry
	known   bool   // its row is in the table already
	covered []byte // what the entry's hash covers; belongs to the sequence
}

// newSequence begins a sequence of about so many events.
func newSequence(from head, now time.Time, balances map[accountID]Balance, events int) *sequence {
	return &sequence{end: from, now: now, balances: balances, begun: map[string]int64{}, free: make([]link, events)}
}

// add links an event. An intent that does not fit into its budgets is refused and leaves no trace.
func (q *sequence) add(e *event) (*link, error) {
	if len(q.free) == 0 {
		q.free = make([]link, 16)
	}
	l := &q.free[0]
	q.free = q.free[1:]
	l.kind, l.note = e.kind, e.note
	if e.row != nil {
		l.row = *e.row
	}
	r := &l.row
	switch e.kind {
	case kindIntent, kindFree:
		if err := q.reserve(e, r); err != nil {
			return nil, err
		}
		if r.n == 0 { // imported rows have their position
			r.n = q.position()
		}
		if e.kind == kindIntent {
			q.begun[r.ID] = r.n
		}
	case kindOutcome:
		if n := q.begun[r.ID]; n != 0 { // a replay may hold both
			r.n = n
		}
		q.release(r)
	}
	from := len(q.covered)
	q.covered = q.end.appendEntry(q.covered, l.kind, r.n, l.note, r)
	l.covered = q.covered[from:]
	q.end = q.end.after(r.n, l.covered)
	l.end = q.end
	return l, nil
}

// position gives out the next position: microseconds and the lane, but always above the last one, so that rows of several
// processes interleave by time while each process's order survives any jump of the clock.
func (q *sequence) position() int64 {
	n := q.now.UnixMicro()<<laneBits | q.end.lane
	if last := q.end.n; n <= last {
		n = last + 1<<laneBits
	}
	q.end.n = n
	return n
}

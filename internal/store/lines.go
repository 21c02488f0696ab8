package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// linePrefix begins the IDs of attempts that are lines of a batch. Their intent stays open when the process ends, however it
// ends: the provider goes on with its batch for a day, and the outcome comes with the batch's results.
const linePrefix = "line_"

// LineID is the ID of the seq-th attempt at a line of a batch, by the line's request. It is the same after a crash, so that
// no line is entered twice.
func LineID(request string, seq int) string { return linePrefix + request + "_" + strconv.Itoa(seq) }

// IsLine reports whether an attempt's ID is that of a line of a batch.
func IsLine(id string) bool { return strings.HasPrefix(id, linePrefix) }

// leftOpen selects the open attempts of a lane that nobody will close once its process is dead.
const leftOpen = `state = 'open' AND n & 255 = ? AND substr(id, 1, 5) <> '` + linePrefix + `'`

// RecordLines records attempts at lines that cost nothing, and returns once they are durable. Those that are in the ledger
// already stay as they are.
func (s *Store) RecordLines(ctx context.Context, lines []Attempt) error {
	events := make([]*event, 0, len(lines))
	fresh, err := s.unrecorded(ctx, lines)
	if err != nil {
		return err
	}
	for _, a := range fresh {
		a.State = Free
		if err := a.clean(s.now); err != nil {
			return err
		}
		if a.Cost != 0 || a.CostHigh != 0 {
			return fmt.Errorf("store: attempt %s is recorded as free but costs %v", a.ID, max(a.Cost, a.CostHigh))
		}
		events = append(events, &event{kind: kindFree, row: &row{Attempt: a, closedAt: s.now().UnixNano()}})
	}
	return s.deliverLines(ctx, events, nil)
}

// IntendLines records that many attempts are about to be sent together, as one provider's batch. It returns once all are
// durable, and which of them do not fit into the budgets: those are not in the ledger and must not be sent. Attempts that are
// in the ledger already stay as they are, so that it can be called again after a crash. When it returns an error, some may be
// in the ledger: call it again, or FinishLines with Void.
//
// Unlike those of Intend, these attempts stay open over restarts until FinishLines.
func (s *Store) IntendLines(ctx context.Context, lines []Attempt, budgets ...Budget) (refused map[string]error, err error) {
	fresh, err := s.unrecorded(ctx, lines)
	if err != nil {
		return nil, err
	}
	events := make([]*event, 0, len(fresh))
	for _, a := range fresh {
		a.State = Pending
		if err := a.clean(s.now); err != nil {
			return nil, err
		}
		if a.CostHigh < a.CostLow {
			return nil, fmt.Errorf("store: intent of %s: cost bounds %v > %v", a.ID, a.CostLow, a.CostHigh)
		}
		r := &row{Attempt: a, intentPrice: a.Price, intentLow: a.CostLow, intentHigh: a.CostHigh}
		events = append(events, &event{kind: kindIntent, row: r.withOutcome(Attempt{State: Pending}, 0), budgets: budgets})
	}
	refused = map[string]error{}
	return refused, s.deliverLines(ctx, events, refused)
}

// FinishLines records the outcomes of lines, and returns once they are durable. Attempts that have their outcome already, or
// were never intended, stay as they are.
func (s *Store) FinishLines(ctx context.Context, lines []Attempt) error {
	if s.writer == nil {
		return errReadOnly
	}
	intents, err := s.lineRows(ctx, lines)
	if err != nil {
		return err
	}
	holds, err := s.readHolds(ctx, s.read)
	if err != nil {
		return err
	}
	events := make([]*event, 0, len(lines))
	for _, a := range lines {
		intent := intents[a.ID]
		if intent == nil || intent.State != Pending {
			continue
		}
		delete(intents, a.ID) // a second outcome in the same call
		if err := errors.Join(a.clean(s.now), a.checkOutcome()); err != nil {
			return err
		}
		r := intent.withOutcome(a, s.now().UnixNano())
		r.holds, r.written = holds[r.n], true
		events = append(events, &event{kind: kindOutcome, row: r})
	}
	return s.deliverLines(ctx, events, nil)
}

// deliverLines queues events behind everything that an app waits for, and waits until all are durable. Budget refusals go
// into refused.
func (s *Store) deliverLines(ctx context.Context, events []*event, refused map[string]error) error {
	if s.writer == nil {
		return errReadOnly
	}
	fates := make([]chan error, len(events))
	for i, e := range events {
		fates[i] = make(chan error, 1)
		e.done = fates[i]
		if err := s.writer.queueFree(ctx, e); err != nil {
			return err
		}
	}
	s.writer.poke()
	var failed error
	for i, e := range events {
		select {
		case err := <-fates[i]:
			switch {
			case errors.Is(err, ErrBudget) && refused != nil:
				refused[e.ID] = err
			case err != nil && !errors.Is(err, ErrDuplicate) && !errors.Is(err, ErrNoIntent):
				failed = err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return failed
}

// unrecorded returns those of some attempts that are not in the ledger.
func (s *Store) unrecorded(ctx context.Context, lines []Attempt) ([]Attempt, error) {
	have, err := s.lineRows(ctx, lines)
	if err != nil || len(have) == 0 {
		return lines, err
	}
	fresh := make([]Attempt, 0, len(lines))
	for _, a := range lines {
		if have[a.ID] == nil {
			fresh = append(fresh, a)
		}
	}
	return fresh, nil
}

// lineRows reads the ledger's rows of some lines.
func (s *Store) lineRows(ctx context.Context, lines []Attempt) (map[string]*row, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	const atOnce = 500
	have := map[string]*row{}
	for from := 0; from < len(lines); from += atOnce {
		some := lines[from:min(from+atOnce, len(lines))]
		ids := make([]any, len(some))
		for i := range some {
			if !IsLine(some[i].ID) {
				return nil, fmt.Errorf("store: attempt %s is no line of a batch: see LineID", some[i].ID)
			}
			ids[i] = some[i].ID
		}
		rows, err := s.queryRows(ctx, s.read, `id IN (?`+strings.Repeat(",?", len(some)-1)+`)`, ids...)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			have[r.ID] = r
		}
	}
	return have, nil
}

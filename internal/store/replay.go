package store

import (
	"context"
	"fmt"
	"time"
)

// spillOut writes a batch to the spill file. Budgets cannot be checked there, so attempts that have one are refused.
func (w *writer) spillOut(batch []*event) error {
	var rows []*event
	for _, e := range w.refuseNotices(batch) {
		if len(e.budgets) > 0 {
			e.refused = fmt.Errorf("%w: budgets cannot be checked while the database is away", ErrUnavailable)
			continue
		}
		rows = append(rows, e)
	}
	if w.spill.size == w.spill.done {
		w.retry = time.Now().Add(replayGap)
	}
	if err := w.spill.append(rows); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range rows {
		if e.row != nil {
			e.row.written = true
		}
	}
	return nil
}

// catchUp replays the spill file, when it is time to try, for so long that callers hardly notice. It reports whether the
// database has everything.
func (w *writer) catchUp(ctx context.Context) bool {
	if w.spill == nil || !w.spill.holds() {
		return true
	}
	for stop := time.Now().Add(retryGap); w.spill.holds() && time.Now().After(w.retry) && time.Now().Before(stop); {
		if err := w.replay(ctx); err != nil {
			w.retry = time.Now().Add(replayGap)
			w.store.log.Debug("ledger: the spill file waits", "error", err)
		}
	}
	if w.spill.holds() {
		return false
	}
	w.store.log.Info("ledger: the database is back, everything that was spilled is in it")
	return true
}

// replay writes the next events of the spill file to the database. Those that are in it already are passed over.
func (w *writer) replay(ctx context.Context) error {
	if err := w.rejoin(ctx); err != nil {
		return err
	}
	batch, end, damaged, err := w.spill.next(maxBatch)
	if err != nil {
		return err
	}
	if damaged > 0 {
		batch = append(batch, &event{kind: kindNote, note: fmt.Sprintf("%d lines of the spill file were damaged", damaged)})
	}
	left, err := w.unknown(ctx, batch)
	if err != nil {
		return err
	}
	if err := w.commit(ctx, left); err != nil {
		return err
	}
	w.place(batch)
	return w.spill.replayed(end)
}

// rejoin finds the end of this writer's lane again, or another lane when it was taken over meanwhile. After a failed commit it
// is not known whether the lane moved.
func (w *writer) rejoin(ctx context.Context) error {
	mine := lane{head: w.head(), epoch: w.epoch.Load()}
	have, err := w.ledger.end(ctx, mine)
	if err != nil {
		return err
	}
	if have.epoch != mine.epoch {
		w.store.log.Warn("ledger: another process took over this one's lane", "lane", mine.lane)
		if have, err = w.store.claimLane(ctx); err != nil {
			return err
		}
	}
	w.own(have)
	return nil
}

// unknown returns the events of the spill that the database does not have yet, and gives them the positions that it has for
// their attempts.
func (w *writer) unknown(ctx context.Context, batch []*event) (left []*event, err error) {
	var ids []string
	for _, e := range batch {
		if e.row != nil {
			ids = append(ids, e.ID)
		}
	}
	known, err := w.ledger.find(ctx, ids...)
	if err != nil {
		return nil, err
	}
	for _, e := range batch {
		if e.row == nil {
			left = append(left, e)
			continue
		}
		have := known[e.ID]
		switch {
		case e.kind != kindOutcome && have == nil, e.kind == kindOutcome && have != nil && have.State == Pending:
			left = append(left, e)
			if have != nil {
				e.row.n = have.n
			}
			have = e.row
		case e.kind == kindOutcome && (have == nil || have.State != e.State):
			w.store.log.Error("ledger: an outcome came too late", "attempt", e.ID, "refused", e.State)
		case have != nil:
			e.row.n = have.n
		}
		known[e.ID] = have
	}
	return left, nil
}

// place tells open intents of this process, which were spilled, where they are in the database by now.
func (w *writer) place(batch []*event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range batch {
		if e.row == nil {
			continue
		}
		if open := w.open[e.ID]; open != nil && e.kind == kindIntent {
			open.n = e.row.n
		}
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// A journaled ledger is SQLite with a journal before it: the writer decides alone what the chain and the budgets become, makes
// it durable in the journal, and leaves it to the applier to tell the database.
type journaled struct {
	journal  *journal
	applier  *applier
	balances map[accountID]Balance // of accounts that were touched, as they stand after the newest entry
	recent   recent
	covered  []byte // scratch

	flights []*flight     // batches that are written and not durable yet, in the order of the chain
	took    time.Duration // by the last sync
}

const maxAccounts = 1 << 14 // balances that are kept; more are read again

// enter writes a batch to the journal and begins its sync. When it fails it returns the events whose callers have not been answered.
func (w *writer) enter(ctx context.Context, batch []*event) (left []*event, err error) {
	if err := w.isBroken(); err != nil {
		return batch, err
	}
	j := w.journaled
	if err := j.applier.room(); err != nil {
		return batch, err
	}
	states, err := w.doubtful(ctx, batch)
	if err != nil {
		return batch, err
	}
	batch = w.refuseConflicts(batch, states)
	balances, err := w.standing(ctx, batch)
	if err != nil {
		return batch, err
	}
	if len(batch) == 0 {
		return nil, nil
	}
	from := w.written()
	q := newSequence(from, w.store.now(), balances, len(batch))
	q.covered = j.covered[:0]
	f := &flight{batch: batch, made: appended{links: make([]*link, len(batch)), end: from, durable: j.journal.sync}, sync: synced()}
	for i, e := range batch {
		if e.kind == kindCapture {
			f.beside = append(f.beside, e)
		} else if f.made.links[i], e.refused = q.add(e); e.refused == nil {
			f.links = append(f.links, f.made.links[i])
		}
	}
	if len(f.links) > 0 {
		if f.sync, err = j.journal.append(f.links, j.applier.applied()); err != nil {
			return batch, err
		}
		f.made.end, j.covered = q.end, q.covered
		maps.Copy(j.balances, balances)
		j.recent.add(f.links, j.applier.applied())
	}
	j.flights = append(j.flights, f)
	return nil, nil
}

// known reports whether it is kept how all the accounts stand that a batch touches.
func (j *journaled) known(batch []*event) bool {
	return !slices.ContainsFunc(accountsOf(batch), func(a account) bool { _, ok := j.balances[a.id()]; return !ok })
}

// standing returns how the accounts that a batch touches stand. One that was not touched lately is read from the database, once
// that has everything: calls count from before there was a budget.
func (w *writer) standing(ctx context.Context, batch []*event) (map[accountID]Balance, error) {
	j := w.journaled
	accounts := accountsOf(batch)
	if len(accounts) == 0 {
		return nil, nil
	}
	if len(j.balances) > maxAccounts && len(j.flights) == 0 {
		clear(j.balances)
	}
	balances := make(map[accountID]Balance, len(accounts))
	for _, a := range accounts {
		have, ok := j.balances[a.id()]
		if !ok {
			if err := j.applier.flush(ctx); err != nil {
				return nil, err
			}
			var err error
			if have, err = w.store.dialect.balance(ctx, w.store.read, a); err != nil {
				return nil, err
			}
		}
		balances[a.id()] = have
	}
	return balances, nil
}

// doubtful returns the states of those attempts of a batch that the ledger may know already. An ID that was made a moment ago can
// only be that of a recent attempt; others are looked up.
func (w *writer) doubtful(ctx context.Context, batch []*event) (map[string]State, error) {
	recent := &w.journaled.recent
	states := make(map[string]State, len(batch))
	var unknown []string
	for _, e := range batch {
		line := e.row != nil && strings.HasPrefix(e.ID, linePrefix)
		switch {
		case e.row == nil:
		case e.kind == kindOutcome && !line:
			states[e.ID] = Pending // it was joined with its open intent
		default:
			state, known := recent.find(e.ID)
			if known {
				states[e.ID] = state
			} else if !recent.covers(e.ID) {
				unknown = append(unknown, e.ID)
			}
		}
	}
	if len(unknown) == 0 {
		return states, nil
	}
	found, err := w.ledger.find(ctx, unknown...)
	for id, r := range found {
		states[id] = r.State
	}
	return states, err
}

// recent remembers the attempts of this process that the database may not have yet, and all that began in the last second.
type recent struct {
	turns [2]struct { // the present one and the one before
		states map[string]State
		since  string // the first ID of its time
		last   int64  // number of its last entry
	}
	began time.Time // of the present turn
}

func newRecent() (r recent) {
	for i := range r.turns {
		r.turns[i].states, r.turns[i].since = map[string]State{}, NewIDOf(time.Now(), [10]byte{})
	}
	r.began = time.Now()
	return r
}

func (r *recent) add(links []*link, applied int64) {
	if time.Since(r.began) > time.Second && r.turns[1].last <= applied {
		r.turns[1] = r.turns[0]
		r.turns[0].states, r.turns[0].since = make(map[string]State, len(r.turns[1].states)), NewIDOf(time.Now(), [10]byte{})
		r.began = time.Now()
	}
	for _, l := range links {
		if l.kind == kindIntent || l.kind == kindFree || l.kind == kindOutcome && strings.HasPrefix(l.row.ID, linePrefix) {
			r.turns[0].states[l.row.ID] = l.row.State
		}
	}
	r.turns[0].last = links[len(links)-1].end.seq
}

func (r *recent) find(id string) (State, bool) {
	state, ok := r.turns[0].states[id]
	if !ok {
		state, ok = r.turns[1].states[id]
	}
	return state, ok
}

// covers reports whether an attempt that is not found cannot be in the ledger: its ID is a ULID of the time that is remembered.
func (r *recent) covers(id string) bool {
	return len(id) == len(r.turns[1].since) && id >= r.turns[1].since && id[0] <= '7'
}

// openJournaled puts what the journal has and the database has not into the database, before anything else is read of it.
func (s *Store) openJournaled(ctx context.Context, opts Options, mine *lane) (err error) {
	open := opts.openFile
	if open == nil {
		open = openFile
	}
	s.journaled = &journaled{balances: map[accountID]Balance{}, recent: newRecent()}
	if s.journaled.journal, err = openJournal(s.dir, opts.Durability == Full, open); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	all, err := s.journaled.journal.read(mine.lane)
	if err != nil {
		return err
	}
	ledger := s.ledger()
	defer ledger.close()
	links, err := following(all, mine.head, func(n int64) (*row, error) {
		rows, err := s.queryRows(ctx, s.write, `n = ?`, n)
		if err == nil && len(rows) == 0 {
			err = fmt.Errorf("store: journal: %w: an outcome without its intent", errConflict)
		}
		if err != nil {
			return nil, err
		}
		return rows[0], nil
	})
	for len(links) > 0 && err == nil {
		some := links[:min(len(links), applyBatch)]
		links = links[len(some):]
		mine.head, err = s.applyLinks(ctx, ledger, mine.head, mine.epoch, some, nil)
	}
	return err
}

// settle returns when the database has everything that was durable when it was called, so that a query finds it. While the
// database refuses entries, and in a process that only reads, queries see what it has.
func (s *Store) settle(ctx context.Context) error {
	if s.writer == nil || s.writer.journaled == nil {
		return nil
	}
	err := s.journaled.applier.flush(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("store: %w", context.Cause(ctx))
	}
	if err != nil {
		s.log.Debug("ledger: a query does not see the newest entries", "error", err)
	}
	return nil
}

// complete is settle for what must not miss anything: a process that only reads waits for the one that writes.
func (s *Store) complete(ctx context.Context) error {
	if s.writer == nil && s.dialect == sqlite {
		return s.awaitWriter(ctx)
	}
	if s.writer == nil || s.writer.journaled == nil {
		return nil
	}
	if err := s.journaled.applier.flush(ctx); err != nil {
		return fmt.Errorf("store: the database does not have the newest entries: %w", err)
	}
	return nil
}

// awaitWriter returns when the database has what the journal of another process holds now. What comes meanwhile it does not wait
// for, and it gives up only when the database takes nothing more.
func (s *Store) awaitWriter(ctx context.Context) error {
	all, err := s.readJournal()
	if err != nil {
		return err
	}
	var last int64
	for until := time.Now().Add(behindWait); ; time.Sleep(applyGap / 4) {
		lanes, err := s.readLanes(ctx, s.read)
		if err != nil {
			return err
		}
		left, _ := following(all, lanes[0].head, noRow)
		switch end := lanes[0].head.seq; {
		case len(left) == 0:
			return nil
		case end > last:
			last, until = end, time.Now().Add(behindWait)
		case time.Now().After(until):
			return fmt.Errorf("store: %d entries are in the journal and not in the database yet: start `occam serve` once, which puts them there", len(left))
		}
	}
}

// readJournal reads the journal of another process. What it misses because it is overwritten meanwhile is in the database by then.
func (s *Store) readJournal() ([]*link, error) {
	if s.dialect != sqlite {
		return nil, nil
	}
	j, err := openJournal(s.dir, false, func(path string) (diskFile, error) { return os.Open(path) })
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := j.read(0)
	return all, errors.Join(err, j.close())
}

// noRow stands for the intent of an outcome where only the chain matters.
func noRow(int64) (*row, error) { return &row{}, nil }

// closeJournaled puts the rest into the database and empties the journal.
func (s *Store) closeJournaled() error {
	if s.writer.journaled == nil {
		return nil
	}
	if err := s.journaled.applier.close(); err != nil || s.writer.isBroken() != nil {
		return err
	}
	return s.journaled.journal.empty()
}

package store

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// Import fills a new store with an export. It checks the chain on the way, so the ledger it makes has the same entries, hashes
// and sums. The store must hold no ledger yet, and no other process may use it.
func Import(ctx context.Context, dsn string, opts Options, r io.Reader) (err error) {
	opts.Mode = ReadWrite
	s, err := connect(ctx, dsn, &opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.checkImport(ctx); err != nil {
		return err
	}
	lanes, err := s.readLanes(ctx, s.write)
	if err != nil {
		return err
	}
	for _, h := range lanes {
		if h.seq != 0 {
			return fmt.Errorf("store: import: the ledger holds %d entries already; import into a new store", h.seq)
		}
	}
	if err := s.execAll(ctx, `DELETE FROM lanes`, `INSERT INTO records VALUES ('store', 'unfinished import', 1, '', 0)`); err != nil {
		return err
	}
	i := &importer{store: s, ledger: s.ledger(), now: opts.Now(), open: map[int64]*row{}, early: map[int64]bool{}, ends: map[int64]int64{}}
	defer i.ledger.close()
	if err := i.read(ctx, r); err != nil {
		return errors.Join(err, s.clearLedger(ctx))
	}
	return s.execAll(ctx, `DELETE FROM records WHERE kind = 'store' AND name = 'unfinished import'`)
}

// checkImport refuses a store in which an import was interrupted: its end is missing.
func (s *Store) checkImport(ctx context.Context) error {
	var n int
	if err := s.write.QueryRowContext(ctx, `SELECT COUNT(*) FROM records WHERE kind = 'store' AND name = 'unfinished import'`).Scan(&n); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if n > 0 {
		return errors.New("store: an import into this store was interrupted: import into a new one")
	}
	return nil
}

// clearLedger undoes an import that failed.
func (s *Store) clearLedger(ctx context.Context) error {
	if err := s.heads.clear(); err != nil {
		return err
	}
	return s.execAll(ctx, `DELETE FROM attempts`, `DELETE FROM chain`, `DELETE FROM rollups`, `DELETE FROM latencies`, `DELETE FROM rates`,
		`DELETE FROM days`, `DELETE FROM lanes`, `DELETE FROM records WHERE kind = 'store' AND name = 'unfinished import'`)
}

// execAll runs statements in one transaction.
func (s *Store) execAll(ctx context.Context, statements ...string) error {
	return s.Update(ctx, func(tx *Tx) error {
		for _, statement := range statements {
			if _, err := tx.exec(statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// An importer turns lines back into transactions.
type importer struct {
	store  *Store
	ledger ledgerDB
	now    time.Time
	open   map[int64]*row  // intents without an outcome so far, by position
	early  map[int64]bool  // positions whose outcome stood before their intent: their rows are there
	ends   map[int64]int64 // last entry of each lane
	from   head            // where the transaction under way began
	q      *sequence       // nil when none is under way
	t      *transaction
}

// maxExportLine bounds a line: a row is below 1 KB, JSON may make it six times that.
const maxExportLine = 1 << 16

func (i *importer) read(ctx context.Context, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	complete := false
	for number := 1; lines.Scan(); number++ {
		var l exportLine
		err := json.Unmarshal(lines.Bytes(), &l)
		switch {
		case err != nil:
		case complete:
			err = errors.New("something follows the end")
		case number == 1:
			if l.Format != exportFormat {
				err = fmt.Errorf("this is no ledger export of format %d", exportFormat)
			}
		case l.Ends != nil || l.Seq == 0:
			complete = true
			if !maps.Equal(l.Ends, i.ends) {
				err = fmt.Errorf("the export says its lanes end at %v, its lines end at %v", l.Ends, i.ends)
			}
		default:
			err = i.line(ctx, &l)
		}
		if err != nil {
			return fmt.Errorf("store: import: line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("store: import: %w", err)
	}
	if !complete {
		return errors.New("store: import: the export is cut short: its last line is missing")
	}
	return i.flush(ctx)
}

// line adds one entry to the transaction under way.
func (i *importer) line(ctx context.Context, l *exportLine) error {
	if l.Lane < 0 || l.Lane >= maxLanes || len(l.Kind) != 1 {
		return fmt.Errorf("lane %d, kind %q", l.Lane, l.Kind)
	}
	if i.q != nil && (i.from.lane != l.Lane || i.q.end.seq-i.from.seq >= maxBatch) {
		if err := i.flush(ctx); err != nil {
			return err
		}
	}
	if i.q == nil && i.from.lane != l.Lane || i.ends[l.Lane] == 0 {
		i.from = head{lane: l.Lane}
		if err := i.addLane(ctx, l.Lane); err != nil {
			return err
		}
	}
	if i.q == nil {
		i.q, i.t = newSequence(i.from, i.now, nil, maxBatch), newTransaction(maxBatch)
	}
	if l.Seq != i.q.end.seq+1 {
		return fmt.Errorf("entry %d follows entry %d", l.Seq, i.q.end.seq)
	}
	e, err := i.event(l)
	if err != nil {
		return err
	}
	made, err := i.q.add(e)
	if err != nil {
		return err
	}
	if made.known = i.early[l.N]; e.kind == kindOutcome && made.known {
		i.t.insert(&made.row)
	} else {
		delete(i.early, l.N)
	}
	i.t.add(made)
	if hex.EncodeToString(i.q.end.hash[:]) != l.Hash {
		return fmt.Errorf("entry %d/%d was changed: its hash does not match", l.Lane, l.Seq)
	}
	i.ends[l.Lane] = l.Seq
	return nil
}

// event rebuilds what made the entry.
func (i *importer) event(l *exportLine) (*event, error) {
	e := &event{kind: kind(l.Kind[0]), note: l.Note, row: &row{}}
	early := e.kind == kindOutcome && aheadOf(l.N, l.Lane)
	wantIntent, wantOutcome := e.kind == kindIntent || e.kind == kindFree || early, e.kind == kindOutcome || e.kind == kindFree
	switch {
	case !wantIntent && !wantOutcome && !e.kind.alone():
		return nil, fmt.Errorf("unknown kind %q", l.Kind)
	case wantIntent != (l.Intent != nil) || wantOutcome != (l.Outcome != nil):
		return nil, fmt.Errorf("an entry of kind %q lacks a part or has one too many", l.Kind)
	}
	switch {
	case early && (i.early[l.N] || !IsLine(l.Outcome.ID)):
		return nil, fmt.Errorf("outcome of %s, which has no open intent", l.Outcome.ID)
	case early:
		i.early[l.N] = true
	case e.kind == kindOutcome:
		if e.row = i.open[l.N]; e.row == nil {
			return nil, fmt.Errorf("outcome of %s, which has no open intent", l.Outcome.ID)
		}
		delete(i.open, l.N)
	}
	l.fill(e.row)
	if e.kind == kindIntent && !i.early[l.N] {
		i.open[l.N] = e.row
	}
	return e, nil
}

func (i *importer) addLane(ctx context.Context, lane int64) error {
	_, err := i.store.write.ExecContext(ctx, i.store.dialect.bind(`INSERT INTO lanes VALUES (?, '', 1, 0, 0, 0, ?)`), lane, i.from.hash[:])
	return err
}

// flush commits the transaction under way.
func (i *importer) flush(ctx context.Context) error {
	if i.q == nil {
		return nil
	}
	if _, err := i.ledger.apply(ctx, nil, func(map[accountID]Balance) []statement { return i.t.finish(i.from, i.q.end, 1) }); err != nil {
		return err
	}
	i.from, i.q = i.q.end, nil
	return i.store.heads.write(i.from, true)
}

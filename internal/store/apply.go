package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// A ledgerDB is where the writer's transactions go.
type ledgerDB interface {
	// apply commits one transaction, all of it or nothing: it locks and reads the accounts, and writes what build makes of their
	// balances. durable says that it is on the disk itself. Errors: errConflict (a row contradicts the ledger), errUntrusted
	// (nothing this process does can be believed any more).
	apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (durable bool, err error)
	// find returns those of some attempts that are in the ledger.
	find(ctx context.Context, ids ...string) (map[string]*row, error)
	// end returns the lane as the database has it.
	end(ctx context.Context, mine lane) (lane, error)
	close()
}

var (
	errConflict  = errors.New("a row contradicts the ledger")
	errUntrusted = errors.New("the database can no longer be trusted")
	errFenced    = errors.New("the lane's end is not where this process left it")
	errDown      = errors.New("the database is away")
)

// A sqliteLedger applies transactions on the store's one write connection, and looks attempts up beside them.
type sqliteLedger struct {
	db       *sql.DB
	read     *sql.DB
	prepared map[string]*sql.Stmt
	args     []any // scratch
}

var _ ledgerDB = (*sqliteLedger)(nil)

func (l *sqliteLedger) find(ctx context.Context, ids ...string) (map[string]*row, error) {
	const atOnce = 500
	found := map[string]*row{}
	for from := 0; from < len(ids); from += atOnce {
		some := ids[from:min(from+atOnce, len(ids))]
		args := make([]any, len(some))
		for i, id := range some {
			args[i] = id
		}
		rows, err := l.read.QueryContext(ctx, `SELECT `+rowColumns+` FROM attempts WHERE id IN (?`+strings.Repeat(",?", len(some)-1)+`)`, args...)
		if err != nil {
			return nil, err
		}
		all, err := scanRows(rows)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			found[r.ID] = r
		}
	}
	return found, nil
}

func (l *sqliteLedger) end(ctx context.Context, mine lane) (lane, error) {
	have := lane{head: head{lane: mine.lane}}
	var hash []byte
	err := l.db.QueryRowContext(ctx, `SELECT seq, n, hash, epoch FROM lanes WHERE lane = ?`, mine.lane).
		Scan(&have.seq, &have.n, &hash, &have.epoch)
	copy(have.hash[:], hash)
	return have, err
}

func (l *sqliteLedger) close() {} // the connection is the store's

func (l *sqliteLedger) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	if err := l.prepare(ctx); err != nil {
		return false, err
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	balances := make(map[accountID]Balance, len(accounts))
	for _, a := range accounts {
		if balances[a.id()], err = sqlite.balance(ctx, tx, a); err != nil {
			return false, err
		}
	}
	for all := build(balances); len(all) > 0; {
		n := alike(all)
		if err := l.exec(ctx, tx, all[:n]); err != nil {
			return false, classify(err)
		}
		all = all[n:]
	}
	return true, classify(tx.Commit())
}

// together is how many rows go into a table with one statement.
const together = 32

// alike returns how many statements at the front can be run as one.
func alike(all []statement) int {
	query := all[0].query
	if len(all) < together || query != insertAttempt && query != insertEntry {
		return 1
	}
	for _, s := range all[1:together] {
		if s.query != query {
			return 1
		}
	}
	return together
}

// manyRows returns the insertion of one row as the insertion of several. A conflict undoes the whole transaction: it fails
// anyway, and SQLite need not copy every page that it touches in order to undo one statement.
func manyRows(query string) string {
	values := strings.LastIndex(query, "(?")
	return strings.Replace(query, "INSERT", "INSERT OR ROLLBACK", 1) + strings.Repeat(", "+query[values:], together-1)
}

// prepare compiles the statements that every commit uses. It needs the connection, so it comes before the transaction.
func (l *sqliteLedger) prepare(ctx context.Context) error {
	if l.prepared != nil {
		return nil
	}
	prepared := map[string]*sql.Stmt{}
	for _, query := range []string{moveHead, insertAttempt, closeAttempt, insertEntry, insertRollup, insertLatency, insertRate,
		insertDay, insertHold, deleteHolds, insertBalance, insertExample, insertLabel, insertAttempts, insertEntries} {
		p, err := l.db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		prepared[query] = p
	}
	l.prepared = prepared
	return nil
}

var insertAttempts, insertEntries = manyRows(insertAttempt), manyRows(insertEntry)

// exec runs statements that are alike.
func (l *sqliteLedger) exec(ctx context.Context, tx *sql.Tx, some []statement) error {
	s := some[0]
	if len(some) > 1 {
		l.args = l.args[:0]
		for _, one := range some {
			l.args = append(l.args, one.args...)
		}
		s.args = l.args
		if s.query = insertEntries; some[0].query == insertAttempt {
			s.query = insertAttempts
		}
	}
	run := tx.ExecContext
	if p := l.prepared[s.query]; p != nil {
		p = tx.StmtContext(ctx, p)
		run = func(ctx context.Context, _ string, args ...any) (sql.Result, error) {
			return p.ExecContext(ctx, args...)
		}
	}
	result, err := run(ctx, s.query, s.args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return err
	}
	return s.check(n)
}

// check judges how many rows a statement changed.
func (s *statement) check(n int64) error {
	switch {
	case n == 0 && s.must == mustTouch:
		return errConflict
	case n == 0 && s.must == mustBeOurs:
		return errFenced
	}
	return nil
}

// classify names the errors that need more than another try. After a failed fsync the system may have thrown the data away
// and call the next fsync a success, so retrying would lie.
func classify(err error) error {
	switch sqliteCode(err) {
	case codeUnique, codePrimary:
		return fmt.Errorf("%w: %w", errConflict, err)
	case codeFsync, codeDirFsync:
		return fmt.Errorf("%w: %w", errUntrusted, err)
	}
	return err
}

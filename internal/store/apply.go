package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
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
	db   *sql.DB
	read *sql.DB
	bulk bulk
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

func (l *sqliteLedger) close() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return // what was prepared is lost with the connection
	}
	defer conn.Close()
	_ = conn.Raw(func(c any) error { l.bulk.close(c); return nil })
}

func (l *sqliteLedger) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, nil)
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
	all := build(balances)
	if err := conn.Raw(func(c any) error { return l.bulk.run(ctx, c.(driver.ConnPrepareContext), all) }); err != nil {
		return false, classify(err)
	}
	return true, classify(tx.Commit())
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

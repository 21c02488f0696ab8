package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// A ledgerDB is where the writer's transactions go.
type ledgerDB interface {
	// apply commits the statements of a transaction, all or none. durable says that they are on the disk itself. Errors:
	// errConflict (a row contradicts the ledger), errUntrusted (nothing this process does can be believed any more).
	apply(ctx context.Context, statements []statement) (durable bool, err error)
	// stateOf returns the state of an attempt, "" when it is not in the ledger.
	stateOf(id string) (State, error)
}

var (
	errConflict  = errors.New("a row contradicts the ledger")
	errUntrusted = errors.New("the database can no longer be trusted")
)

// A sqliteLedger applies transactions on the store's one write connection.
type sqliteLedger struct {
	db       *sql.DB
	durable  bool
	prepared map[string]*sql.Stmt
}

var _ ledgerDB = (*sqliteLedger)(nil)

func (l *sqliteLedger) stateOf(id string) (state State, err error) {
	err = l.db.QueryRow(`SELECT state FROM attempts WHERE id = ?`, id).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return state, err
}

func (l *sqliteLedger) apply(ctx context.Context, statements []statement) (bool, error) {
	if err := l.prepare(ctx, statements); err != nil {
		return false, err
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	for _, s := range statements {
		if err := l.exec(ctx, tx, s); err != nil {
			return false, classify(err)
		}
	}
	return l.durable, classify(tx.Commit())
}

// prepare compiles the statements that are new. It needs the connection, so it comes before the transaction.
func (l *sqliteLedger) prepare(ctx context.Context, statements []statement) error {
	for _, s := range statements {
		if l.prepared[s.query] != nil {
			continue
		}
		p, err := l.db.PrepareContext(ctx, s.query)
		if err != nil {
			return err
		}
		l.prepared[s.query] = p
	}
	return nil
}

func (l *sqliteLedger) exec(ctx context.Context, tx *sql.Tx, s statement) error {
	result, err := tx.StmtContext(ctx, l.prepared[s.query]).ExecContext(ctx, s.args...)
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
		return fmt.Errorf("%w: another process has taken over the ledger", errUntrusted)
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

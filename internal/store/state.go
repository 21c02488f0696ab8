package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotFound says that there is no such thing in the store.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that somebody else changed the thing first: read it again and decide anew.
	ErrConflict = errors.New("changed by somebody else meanwhile")
	errReadOnly = errors.New("store: opened for reading only")
	// ErrExists says that there is such a thing already.
	ErrExists = errors.New("exists already")
)

// A Tx is one transaction over everything but the ledger. It is valid inside the function that it is given to, in that
// goroutine. Its groups (Tasks, Models, …) are one kind of thing each.
type Tx struct {
	ctx     context.Context
	tx      *sql.Tx
	store   *Store
	changed bool // something that the serving snapshot is made of
}

// View calls f with a transaction that reads one consistent state.
func (s *Store) View(ctx context.Context, f func(*Tx) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.dialect.snapshot()})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	return f(&Tx{ctx: ctx, tx: tx, store: s})
}

// Update calls f with a transaction that is committed when f returns nil and undone otherwise. Keep it short: on SQLite the
// ledger's writer waits for it. Do not call Update or Intend inside it.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error {
	if s.write == nil {
		return errReadOnly
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	t := &Tx{ctx: ctx, tx: tx, store: s}
	if err := f(t); err != nil {
		return err
	}
	if t.changed {
		if err := s.changes.announce(ctx, tx); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if t.changed {
		s.changes.tell()
	}
	return nil
}

// now is the time that the transaction writes.
func (t *Tx) now() time.Time { return t.store.now() }

// exec runs a statement and returns how many rows it touched.
func (t *Tx) exec(query string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(t.ctx, t.store.dialect.bind(query), args...)
	if err != nil {
		return 0, fmt.Errorf("store: %w", err)
	}
	return result.RowsAffected()
}

// change runs a statement that must touch a row; otherwise it returns missing.
func (t *Tx) change(missing error, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		return missing
	}
	return err
}

// one reads a single row; ErrNotFound when there is none.
func (t *Tx) one(into []any, query string, args ...any) error {
	err := t.tx.QueryRowContext(t.ctx, t.store.dialect.bind(query), args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// all calls scan for every row.
func (t *Tx) all(scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := t.tx.QueryContext(t.ctx, t.store.dialect.bind(query), args...)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// nanos and moment convert times; 0 is the zero time.
func nanos(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// jsonText returns v as JSON, "" for nothing.
func jsonText(raw json.RawMessage) (string, error) {
	if len(raw) == 0 {
		return "", nil
	}
	if !json.Valid(raw) {
		return "", fmt.Errorf("store: %.40q is not JSON", raw)
	}
	return string(raw), nil
}

// rawJSON undoes jsonText.
func rawJSON(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// A scanner is a type whose pointer reads one row.
type scanner[T any] interface {
	*T
	scan(func(...any) error) error
}

// oneOf reads the row of a query; ErrNotFound when there is none.
func oneOf[T any, P scanner[T]](t *Tx, query string, args ...any) (T, error) {
	var v T
	err := P(&v).scan(func(into ...any) error { return t.one(into, query, args...) })
	return v, err
}

// allOf reads every row of a query.
func allOf[T any, P scanner[T]](t *Tx, query string, args ...any) ([]T, error) {
	var all []T
	err := t.all(func(rows *sql.Rows) error {
		var v T
		err := P(&v).scan(rows.Scan)
		all = append(all, v)
		return err
	}, query, args...)
	return all, err
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	applyTimeout = 5 * time.Second // after it a commit counts as failed, though it may have succeeded
	dialTimeout  = 2 * time.Second
	maxConns     = 16
)

// Advisory locks, so that processes that start together do not get in each other's way.
const (
	lockSchema = 0x6f6363616d01
	lockLanes  = 0x6f6363616d02
)

// lock takes an advisory lock until the transaction ends.
func (d dialect) lock(ctx context.Context, tx *sql.Tx, key int64) error {
	if d != postgres {
		return nil // SQLite has one writer
	}
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, key)
	return err
}

// connectPostgres opens the database. s.dir holds this process's own files: head, spill, copies of models.
func (s *Store) connectPostgres(ctx context.Context, dsn string, mode Mode) (err error) {
	s.dialect = postgres
	if s.dir == "" {
		return errors.New("store: PostgreSQL needs Options.Dir too: the folder for this process's own files")
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("store: the database address cannot be read: %s", strings.ReplaceAll(err.Error(), dsn, redact(dsn)))
	}
	config.ConnectTimeout = dialTimeout
	config.RuntimeParams["application_name"] = "occam"
	s.pg = config
	if mode == ReadWrite {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return fmt.Errorf("store: create the data folder: %w", err)
		}
		if s.lock, err = lockDir(s.dir); err != nil {
			return err
		}
		if s.owner, err = ownerOf(s.dir); err != nil {
			return err
		}
	}
	if s.heads, err = openHeadFile(headPath(s.dir), mode == ReadOnly); err != nil {
		return err
	}
	s.read = stdlib.OpenDB(*config)
	s.read.SetMaxOpenConns(maxConns)
	s.read.SetConnMaxIdleTime(time.Minute)
	if mode == ReadOnly {
		return requireVersion(ctx, s.read)
	}
	s.write = s.read
	return migrate(ctx, s.write, postgres)
}

// ownerOf returns the name under which a data folder owns lanes, making one where there is none.
func ownerOf(dir string) (string, error) {
	path := filepath.Join(dir, "occam.owner")
	name, err := os.ReadFile(path)
	if err == nil && len(name) > 0 {
		return string(name), nil
	}
	if err != nil && !os.IsNotExist(err) {
		return "", fmt.Errorf("store: %w", err)
	}
	name = []byte(NewID(time.Now()))
	if err := os.WriteFile(path, name, 0o600); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	return string(name), nil
}

// A pgLedger applies transactions on a connection of its own, in three round trips however large the batch.
type pgLedger struct {
	config  *pgx.ConnConfig
	durable bool
	conn    *pgx.Conn
	dialing chan *pgx.Conn // receives the connection that is being made; nil when none is
	bound   map[string]string
}

var _ ledgerDB = (*pgLedger)(nil)

func newPGLedger(config *pgx.ConnConfig, d Durability) *pgLedger {
	config = config.Copy()
	if d == Normal {
		config.RuntimeParams["synchronous_commit"] = "off"
	}
	return &pgLedger{config: config, durable: d == Full, bound: map[string]string{}}
}

// connected makes sure that there is a connection. Dialling happens aside, so that a database which does not even refuse
// holds nobody up; only the first call waits for it.
func (l *pgLedger) connected() error {
	if l.conn != nil && !l.conn.IsClosed() {
		return nil
	}
	wait := time.Millisecond
	if l.conn == nil && l.dialing == nil {
		wait = dialTimeout
	}
	l.conn = nil
	if l.dialing == nil {
		dialed := make(chan *pgx.Conn, 1)
		l.dialing = dialed
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
			defer cancel()
			conn, _ := pgx.ConnectConfig(ctx, l.config) // the next apply tries again
			dialed <- conn
		}()
	}
	select {
	case l.conn = <-l.dialing:
		l.dialing = nil
	case <-time.After(wait):
	}
	if l.conn == nil {
		return fmt.Errorf("%w: no connection", errDown)
	}
	return nil
}

func (l *pgLedger) close() {
	if l.conn == nil && l.dialing != nil {
		l.conn = <-l.dialing
	}
	if l.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		_ = l.conn.Close(ctx) // nothing is under way on it
	}
}

func (l *pgLedger) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	if err := l.connected(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	err := l.transact(ctx, accounts, build)
	if err == nil {
		return l.durable, nil
	}
	if refused := new(pgconn.PgError); errors.As(err, &refused) && refused.Code == "23505" { // unique_violation
		return false, fmt.Errorf("%w: %w", errConflict, err)
	}
	if errors.Is(err, errConflict) || errors.Is(err, errFenced) {
		return false, err
	}
	// Whether the commit happened is not known. Nothing more is sent on this connection.
	l.conn.Close(ctx)
	return false, fmt.Errorf("%w: %w", errDown, err)
}

func (l *pgLedger) transact(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) error {
	tx, err := l.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after Commit it does nothing
	balances, err := l.lockAccounts(ctx, tx, accounts)
	if err != nil {
		return err
	}
	statements := build(balances)
	batch := &pgx.Batch{}
	for _, s := range statements {
		batch.Queue(l.bind(s.query), s.args...)
	}
	results := tx.SendBatch(ctx, batch)
	for _, s := range statements {
		tag, execErr := results.Exec()
		if execErr == nil {
			execErr = s.check(tag.RowsAffected())
		}
		if err = execErr; err != nil {
			break
		}
	}
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func (l *pgLedger) bind(query string) string {
	bound, ok := l.bound[query]
	if !ok {
		bound = postgres.bind(query)
		l.bound[query] = bound
	}
	return bound
}

// lockAccounts reads the accounts and keeps other processes from changing them until the transaction ends.
func (l *pgLedger) lockAccounts(ctx context.Context, tx pgx.Tx, accounts []account) (map[accountID]Balance, error) {
	balances := make(map[accountID]Balance, len(accounts))
	for _, a := range accounts {
		b, err := l.lockAccount(ctx, tx, a)
		if errors.Is(err, pgx.ErrNoRows) {
			b, err = l.openAccount(ctx, tx, a)
		}
		if err != nil {
			return nil, err
		}
		balances[a.id()] = b
	}
	return balances, nil
}

func (l *pgLedger) lockAccount(ctx context.Context, tx pgx.Tx, a account) (b Balance, err error) {
	err = tx.QueryRow(ctx, `SELECT spent, reserved FROM budgets WHERE name = $1 AND period = $2 FOR UPDATE`, a.name, a.start).
		Scan(&b.Spent, &b.Reserved)
	return b, err
}

// openAccount makes an account that starts with what was spent before, unless another process just did.
func (l *pgLedger) openAccount(ctx context.Context, tx pgx.Tx, a account) (Balance, error) {
	first, err := spentBefore(func(into *Balance, query string, args ...any) error {
		return tx.QueryRow(ctx, postgres.bind(query), args...).Scan(&into.Spent)
	}, a)
	if err != nil {
		return Balance{}, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO budgets (name, period, spent, reserved) VALUES ($1,$2,$3,0) ON CONFLICT DO NOTHING`,
		a.name, a.start, int64(first.Spent)); err != nil {
		return Balance{}, err
	}
	return l.lockAccount(ctx, tx, a)
}

func (l *pgLedger) find(ctx context.Context, ids ...string) (map[string]*row, error) {
	if err := l.connected(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	found, err := l.findAll(ctx, ids)
	if err != nil {
		l.conn.Close(ctx)
		return nil, fmt.Errorf("%w: %w", errDown, err)
	}
	return found, nil
}

func (l *pgLedger) findAll(ctx context.Context, ids []string) (map[string]*row, error) {
	rows, err := l.conn.Query(ctx, `SELECT `+rowColumns+` FROM attempts WHERE id = ANY ($1)`, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]*row{}
	for rows.Next() {
		r := &row{}
		into, finish := r.targets()
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		if err := finish(); err != nil {
			return nil, err
		}
		found[r.ID] = r
	}
	return found, rows.Err()
}

func (l *pgLedger) end(ctx context.Context, mine lane) (lane, error) {
	if err := l.connected(); err != nil {
		return lane{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	have := lane{head: head{lane: mine.lane}}
	var hash []byte
	err := l.conn.QueryRow(ctx, `SELECT seq, n, hash, epoch FROM lanes WHERE lane = $1`, mine.lane).Scan(&have.seq, &have.n, &hash, &have.epoch)
	if err != nil {
		l.conn.Close(ctx)
		return lane{}, fmt.Errorf("%w: %w", errDown, err)
	}
	copy(have.hash[:], hash)
	return have, nil
}

// listen passes on what other processes announce. While it is not connected, watchers may miss something, so they are told
// once it is back.
func (s *Store) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.listenOnce(ctx)
		if ctx.Err() == nil {
			s.log.Debug("store: listen for changes", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (s *Store) listenOnce(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.pg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `LISTEN `+channel); err != nil {
		return err
	}
	for {
		s.changes.tell()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

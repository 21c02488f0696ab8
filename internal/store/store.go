// Package store keeps all durable state: the ledger of attempts, examples, labels, models and keys.
//
// The ledger's promise: every attempt that may cost money has exactly one intent, durable before the call, and at most one
// outcome, durable before the reply. A hash chain runs over both; its head is also kept in a file beside the database.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Mode says what a process may do with the store.
type Mode int

const (
	ReadWrite Mode = iota // everything. On SQLite one process at a time
	ReadOnly              // queries, Verify and Export, also beside a process that writes
)

// A Durability says when a commit counts as durable.
type Durability int

const (
	Full   Durability = iota // on the disk: survives power loss
	Normal                   // with the operating system: survives kill -9; a power loss may cost the last second or so
)

// Options of Open. The zero Options are good for production on SQLite.
type Options struct {
	Mode       Mode
	Durability Durability
	// AcceptRollback opens a database that is older than its head file says. The loss is written into the chain.
	AcceptRollback bool
	// Waiting bounds the intents that wait for a commit; more get ErrBusy. Default 512.
	Waiting int
	// FreeQueue bounds the free rows that wait for a batch; more make RecordFree wait. Default 8192.
	FreeQueue int
	// FreeDelay is how long a free row may wait for its batch. Default 50 ms.
	FreeDelay time.Duration
	Now       func() time.Time // default time.Now
	Log       *slog.Logger     // default discards
}

func (o *Options) defaults() {
	if o.Waiting <= 0 {
		o.Waiting = 512
	}
	if o.FreeQueue <= 0 {
		o.FreeQueue = 8192
	}
	if o.FreeDelay <= 0 {
		o.FreeDelay = 50 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// A Store is an open database. Its methods may be called from many goroutines.
type Store struct {
	dialect    dialect
	durability Durability
	dir        string  // holds the head file, for SQLite the database too
	write      *sql.DB // one connection: write transactions wait for each other in order
	read       *sql.DB
	heads      *headFile
	lock       *os.File
	writer     *writer // nil when read-only
	changes    changes
	now        func() time.Time
	log        *slog.Logger

	stop  context.CancelFunc
	tasks sync.WaitGroup
	once  sync.Once
	err   error
}

// ErrRolledBack says that the database holds less than the head file beside it proves was written: it was cut short,
// damaged, or replaced by an older copy.
var ErrRolledBack = errors.New("store: the database is older than its head file")

// Open opens the store named by dsn, "sqlite:DIR", creating it where there is none, brings its schema up to date, checks the
// end of the ledger against the head file, and closes the attempts that a dead process left open (see Intend).
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	s, err := connect(ctx, dsn, &opts)
	if err != nil || opts.Mode == ReadOnly {
		return s, err
	}
	if err := s.start(ctx, opts); err != nil {
		return nil, errors.Join(s.hint(err), s.closeFiles())
	}
	return s, nil
}

// connect opens the database without touching the ledger.
func connect(ctx context.Context, dsn string, opts *Options) (*Store, error) {
	opts.defaults()
	scheme, rest, ok := strings.Cut(dsn, ":")
	s := &Store{dir: rest, durability: opts.Durability, now: opts.Now, log: opts.Log}
	if !ok || scheme != "sqlite" || rest == "" {
		return nil, fmt.Errorf("store: %q names no store; use sqlite:DIR", redact(dsn))
	}
	if err := s.connectSQLite(ctx, opts.Mode); err != nil {
		return nil, errors.Join(s.hint(err), s.closeFiles())
	}
	return s, nil
}

// redact hides the password of a database address.
func redact(dsn string) string {
	at := strings.LastIndex(dsn, "@")
	colon := strings.Index(dsn, "://")
	if at < 0 || colon < 0 || at < colon {
		return dsn
	}
	user, _, _ := strings.Cut(dsn[colon+3:at], ":")
	return dsn[:colon+3] + user + ":***" + dsn[at:]
}

// start checks and continues the ledger's chain, then lets writes in.
func (s *Store) start(ctx context.Context, opts Options) error {
	h, epoch, err := s.claimLane(ctx)
	if err != nil {
		return err
	}
	note, err := s.checkHead(ctx, h, opts)
	if err != nil {
		return err
	}
	s.writer = newWriter(s, h, epoch, opts)
	if note != "" {
		s.log.Warn("ledger: "+note, "lane", h.lane)
		if err := s.writer.commit(ctx, []*event{{kind: kindNote, note: note}}); err != nil {
			return err
		}
	}
	recovered, err := s.recoverOpen(ctx)
	if err != nil {
		return err
	}
	if recovered > 0 {
		s.log.Warn("ledger: closed attempts that a dead process left open", "attempts", recovered)
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.tasks.Add(1)
	go func() { defer s.tasks.Done(); s.checkpoints(background) }()
	go s.writer.run()
	return nil
}

// claimLane makes this process the owner of lane 0 and returns the end of its chain. The new epoch shuts out a former owner
// that is still running.
func (s *Store) claimLane(ctx context.Context) (head, int64, error) {
	h, epoch := head{}, int64(1)
	var hash []byte
	err := s.write.QueryRowContext(ctx, `SELECT seq, n, hash, epoch + 1 FROM lanes WHERE lane = 0`).Scan(&h.seq, &h.n, &hash, &epoch)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = s.write.ExecContext(ctx, `INSERT INTO lanes VALUES (0, '', 1, 0, 0, 0, ?)`, h.hash[:])
	} else if err == nil {
		copy(h.hash[:], hash)
		_, err = s.write.ExecContext(ctx, `UPDATE lanes SET epoch = ? WHERE lane = 0`, epoch)
	}
	if err != nil {
		return head{}, 0, fmt.Errorf("store: claim the ledger: %w", err)
	}
	return h, epoch, nil
}

// checkHead compares the end of the chain with the head file. It returns a remark to be written into the chain when the
// ledger may go on although something is missing.
func (s *Store) checkHead(ctx context.Context, h head, opts Options) (note string, err error) {
	outside, synced, ok, err := s.heads.read(h.lane)
	if err != nil {
		return "", err
	}
	switch {
	case !ok && h.seq == 0:
		return "", nil
	case !ok:
		return fmt.Sprintf("no head file; went on from entry %d", h.seq), nil
	}
	same, err := s.entryIs(ctx, s.write, outside)
	if err != nil || same {
		return "", err
	}
	found := fmt.Sprintf("the head file says entry %d, the database ends at entry %d", outside.seq, h.seq)
	if opts.AcceptRollback {
		return "rollback accepted: " + found, nil
	}
	if opts.Durability == Normal && h.seq < outside.seq && h.seq >= synced {
		return "entries lost that were not on the disk yet (durability normal): " + found, nil
	}
	return "", fmt.Errorf("%w: %s. Put the newest database back; or, to go on without the lost entries, "+
		"accept the rollback (it will be written into the ledger)", ErrRolledBack, found)
}

// entryIs reports whether the chain holds exactly the entry h.
func (s *Store) entryIs(ctx context.Context, db querier, h head) (bool, error) {
	if h.seq == 0 {
		return true, nil
	}
	var hash []byte
	err := db.QueryRowContext(ctx, s.dialect.bind(`SELECT hash FROM chain WHERE lane = ? AND seq = ?`), h.lane, h.seq).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: read the ledger's chain: %w", err)
	}
	return string(hash) == string(h.hash[:]), nil
}

// recoverOpen closes every attempt that the lane's former owner left open. Whether it was sent is not known, so it cost
// between nothing and its upper bound.
func (s *Store) recoverOpen(ctx context.Context) (int, error) {
	rows, err := s.queryRows(ctx, s.write, `state = 'open' ORDER BY n`)
	if err != nil {
		return 0, err
	}
	holds, err := s.readHolds(ctx, s.write)
	if err != nil {
		return 0, err
	}
	for from := 0; from < len(rows); from += maxBatch {
		batch := make([]*event, 0, maxBatch)
		for _, r := range rows[from:min(from+maxBatch, len(rows))] {
			r.State, r.Price = Estimated, r.intentPrice
			r.Cost, r.CostLow, r.CostHigh, r.closedAt = r.intentHigh, 0, r.intentHigh, s.now().UnixNano()
			r.Reason, r.holds = "process ended before the outcome", holds[r.n]
			if r.Price == "" {
				r.State, r.Cost, r.CostHigh = Unpriced, 0, 0
			}
			batch = append(batch, &event{kind: kindOutcome, row: r})
		}
		if err := s.writer.commit(ctx, batch); err != nil {
			return 0, fmt.Errorf("store: close %d attempts left open: %w", len(rows), err)
		}
	}
	return len(rows), nil
}

// Dir returns the folder that holds the store's files.
func (s *Store) Dir() string { return s.dir }

// Close writes what still waits and closes the database. Attempts without an outcome stay open until the next Open.
func (s *Store) Close() error {
	s.once.Do(func() {
		var errs []error
		if s.writer != nil {
			errs = append(errs, s.writer.close())
			s.stop()
			s.tasks.Wait()
		}
		errs = append(errs, s.closeFiles())
		s.err = errors.Join(errs...)
	})
	return s.err
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.heads != nil {
		errs = append(errs, s.heads.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

const (
	databaseName = "occam.db"
	headName     = "occam.head"
	lockName     = "occam.lock"
)

// headPath is where the head file of a store in dir is.
func headPath(dir string) string { return filepath.Join(dir, headName) }

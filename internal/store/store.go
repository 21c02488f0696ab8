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

	"github.com/jackc/pgx/v5"
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
	Normal                   // with the operating system: survives kill -9; a power loss may cost the last moment of the ledger
)

// Options of Open. The zero Options are good for production on SQLite.
type Options struct {
	Mode       Mode
	Durability Durability
	// AcceptRollback opens a database that is older than its head file says. The loss is written into the chain.
	AcceptRollback bool
	// Dir is, with PostgreSQL, the folder for this process's own files: head, spill, copies of models. Each process has its own.
	Dir string
	// SpillBytes bounds the file that takes the ledger's events while PostgreSQL is away. Default 256 MiB.
	SpillBytes int64
	// Lease is how long a process that shares PostgreSQL may show no life before another one closes what it left open.
	// Default 6 s.
	Lease time.Duration
	// Waiting bounds the intents that wait for a commit; more get ErrBusy. Default 512.
	Waiting int
	// FreeQueue bounds the free rows that wait for a batch; more make RecordFree wait. Default 8192.
	FreeQueue int
	// FreeDelay is how long a free row may wait for its batch. Default 50 ms.
	FreeDelay time.Duration
	// Redact, where it is given, changes every text that is kept before it is stored: of examples, labels and reviews.
	Redact func(text string) string
	Now    func() time.Time // default time.Now
	Log    *slog.Logger     // default discards

	vfs string // of SQLite: tests put a disk under it that fails
	// openFile opens the journal's files, for the same tests.
	openFile func(path string) (diskFile, error)
	wrap     func(ledgerDB) ledgerDB // tests break the ledger with it, to see that it is noticed
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
	if o.SpillBytes <= 0 {
		o.SpillBytes = 256 << 20
	}
	if o.Lease <= 0 {
		o.Lease = 6 * time.Second
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
	owner      string // of lanes: one name for each data folder
	pg         *pgx.ConnConfig
	vfs        string
	wrap       func(ledgerDB) ledgerDB
	writer     *writer    // nil when read-only
	journaled  *journaled // of SQLite, nil when read-only
	changes    changes
	redact     func(string) string // of examples, nil: as they are
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

// Open opens the store named by dsn, "sqlite:DIR" or "postgres://…", creating it where there is none, brings its schema up to date, checks the
// end of the ledger against the head file, and closes the attempts that a dead process left open (see Intend).
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	s, err := connect(ctx, dsn, &opts)
	if err != nil || opts.Mode == ReadOnly {
		return s, err
	}
	if err := s.start(ctx, opts); err != nil {
		if s.writer != nil {
			s.writer.ledger.close()
		}
		return nil, errors.Join(s.hint(err), s.closeFiles())
	}
	return s, nil
}

// connect opens the database without touching the ledger.
func connect(ctx context.Context, dsn string, opts *Options) (*Store, error) {
	opts.defaults()
	scheme, rest, _ := strings.Cut(dsn, ":")
	s := &Store{dir: opts.Dir, durability: opts.Durability, now: opts.Now, log: opts.Log, vfs: opts.vfs, wrap: opts.wrap, redact: opts.Redact}
	var err error
	switch {
	case scheme == "sqlite" && rest != "":
		s.dir = rest
		err = s.connectSQLite(ctx, opts.Mode)
	case scheme == "postgres" || scheme == "postgresql":
		err = s.connectPostgres(ctx, dsn, opts.Mode)
	default:
		err = fmt.Errorf("store: %q names no store; use sqlite:DIR or postgres://user:password@host/database", redact(dsn))
	}
	if err != nil {
		return nil, errors.Join(s.hint(err), s.closeFiles())
	}
	s.changes.dialect = s.dialect
	return s, nil
}

// Shared reports whether other processes may write to the same database.
func (s *Store) Shared() bool { return s.dialect == postgres }

// Redacted returns a text without what Options.Redact takes out of everything that is kept.
func (s *Store) Redacted(text string) string {
	if s.redact == nil {
		return text
	}
	return s.redact(text)
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
	if err := s.checkImport(ctx); err != nil {
		return err
	}
	mine, err := s.claimLane(ctx)
	if err != nil {
		return err
	}
	if s.dialect == sqlite {
		if err = s.openJournaled(ctx, opts, &mine); err != nil {
			return err
		}
	}
	note, err := s.checkHeads(ctx, mine, opts)
	if err != nil {
		return err
	}
	s.writer = newWriter(s, mine, opts)
	if s.dialect == postgres {
		if s.writer.spill, err = openSpill(filepath.Join(s.dir, spillName), opts.SpillBytes); err != nil {
			return err
		}
	}
	if note != "" {
		s.log.Warn("ledger: "+note, "lane", mine.lane)
		if err := errors.Join(s.heads.clear(), s.writeHeads(ctx)); err != nil {
			return err
		}
		if err := s.writer.commit(ctx, []*event{{kind: kindNote, note: note}}); err != nil {
			return err
		}
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.dialect == postgres {
		s.tasks.Go(func() { s.watchLanes(background, opts.Lease) })
		s.tasks.Go(func() { s.listen(background) })
	} else {
		if err := s.journaled.journal.empty(); err != nil {
			return err
		}
		s.journaled.applier = newApplier(s, s.writer.ledger, s.writer.head())
		s.writer.journaled = s.journaled
		go s.journaled.applier.run()
		s.tasks.Go(func() { s.checkpoints(background) })
	}
	go s.writer.run()
	return nil
}

// recover writes what the last process of this folder spilled and closes what it left open. On SQLite every other lane, which
// only an import can have made, is dead too.
func (s *Store) recover(ctx context.Context) error {
	w := s.writer
	for w.spill != nil && w.spill.holds() {
		if err := w.replay(ctx); err != nil {
			return err
		}
	}
	closed, err := s.closeOpen(ctx, w.lane(), func(batch []*event) error { return w.commit(ctx, batch) })
	if closed > 0 {
		s.log.Warn("ledger: closed attempts that a dead process left open", "attempts", closed)
	}
	if err != nil || s.dialect == postgres {
		return err
	}
	lanes, err := s.readLanes(ctx, s.write)
	if err != nil {
		return err
	}
	for number, l := range lanes {
		if number != w.lane() && s.hasOpen(ctx, number) {
			if err := s.takeOver(ctx, w.ledger, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// Dir returns the folder that holds the store's files.
func (s *Store) Dir() string { return s.dir }

// Close writes what still waits and closes the database. Attempts without an outcome stay open until the next Open.
func (s *Store) Close() error {
	s.once.Do(func() {
		var errs []error
		if s.writer != nil {
			if s.stop != nil {
				errs = append(errs, s.writer.close())
				s.stop()
				s.tasks.Wait()
				errs = append(errs, s.closeJournaled())
				s.releaseLane()
			}
			s.writer.ledger.close()
			if s.writer.spill != nil {
				errs = append(errs, s.writer.spill.close())
			}
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
	if s.journaled != nil && s.journaled.journal != nil {
		errs = append(errs, s.journaled.journal.close())
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
	spillName    = "occam.spill"
)

// headPath is where the head file of a store in dir is.
func headPath(dir string) string { return filepath.Join(dir, headName) }

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	sqlitedriver "modernc.org/sqlite"
)

// connectSQLite opens the database in s.dir.
func (s *Store) connectSQLite(ctx context.Context, mode Mode) (err error) {
	path := filepath.Join(s.dir, databaseName)
	if mode == ReadWrite {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return fmt.Errorf("store: create the data folder: %w", err)
		}
		if s.lock, err = lockDir(s.dir); err != nil {
			return err
		}
	} else if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: there is no database in %s yet (%w): `occam serve` makes it; or is this another configuration's folder?", s.dir, fs.ErrNotExist)
	} else if err != nil {
		return fmt.Errorf("store: the data folder %s cannot be read: %w", s.dir, err)
	}
	if mode == ReadWrite {
		if err := makePrivate(path); err != nil {
			return fmt.Errorf("store: create the database: %w", err)
		}
	}
	if s.heads, err = openHeadFile(headPath(s.dir), mode == ReadOnly); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", s.sqliteDSN(path, true)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	if mode == ReadOnly {
		return requireVersion(ctx, s.read)
	}
	if s.write, err = sql.Open("sqlite", s.sqliteDSN(path, false)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write, sqlite); err != nil {
		return err
	}
	// SQLite does not sync the folder. Without it, after a power loss the journal of the database's first moments could be back
	// and undo everything that came after.
	return syncDir(s.dir)
}

// makePrivate creates a database's file where there is none, for its owner only: SQLite gives the files beside it the same rights. One
// that is there keeps the rights that its owner gave it, and is not opened: closing it would give up SQLite's locks.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// ledger returns where this store's transactions go.
func (s *Store) ledger() ledgerDB {
	var l ledgerDB
	if s.dialect == postgres {
		l = newPGLedger(s.pg, s.durability)
	} else {
		l = &sqliteLedger{db: s.write, read: s.read}
	}
	if s.wrap != nil {
		l = s.wrap(l)
	}
	return l
}

// sqliteDSN is the driver's address of a database file. Commits never copy the log back: see checkpoints.
func (s *Store) sqliteDSN(path string, queryOnly bool) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "wal_autocheckpoint(0)", "journal_size_limit(67108864)",
		"foreign_keys(1)", "trusted_schema(0)", "secure_delete(1)", "synchronous(FULL)"}}
	if s.vfs != "" {
		q.Set("vfs", s.vfs)
	}
	if queryOnly {
		q.Set("_txlock", "deferred")
		q["_pragma"] = append(q["_pragma"], "query_only(1)", "cache_size(-16384)")
	} else {
		q.Add("_pragma", "cache_size(-4096)") // rows are added at the ends of tables and indexes: more is not needed
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// lockDir makes sure that one process at a time writes to a data folder.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: the data folder %s cannot be written: %w; run occam as the account that owns it, or set data_dir", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// A process that is being replaced may take a moment to die, and one that has just been forked holds its parent's lock.
	for wait := 0; err != nil && wait < 50; wait++ {
		time.Sleep(20 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		owner := make([]byte, 20)
		n, _ := f.ReadAt(owner, 0)
		return nil, errors.Join(fmt.Errorf("store: another occam process (pid %s) uses the data folder %s: stop it, "+
			"or use PostgreSQL to run several", strings.TrimSpace(string(owner[:n])), dir), f.Close())
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only a hint for the message above
	}
	return f, nil
}

// SQLite's result codes, https://www.sqlite.org/rescode.html.
const (
	codeCorrupt  = 11
	codeNotDB    = 26
	codeUnique   = 2067 // SQLITE_CONSTRAINT_UNIQUE
	codePrimary  = 1555 // SQLITE_CONSTRAINT_PRIMARYKEY
	codeFsync    = 1034 // SQLITE_IOERR_FSYNC
	codeDirFsync = 1290 // SQLITE_IOERR_DIR_FSYNC
)

// sqliteCode returns the extended result code of an error of the driver, 0 for other errors.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlitedriver.Error](err); ok {
		return e.Code()
	}
	return 0
}

// hint says what to do about a damaged database.
func (s *Store) hint(err error) error {
	path := filepath.Join(s.dir, databaseName)
	switch sqliteCode(err) & 0xff {
	case codeCorrupt:
		return fmt.Errorf("store: the database %s is damaged (%w): put a backup back, or import an export", path, err)
	case codeNotDB:
		return fmt.Errorf("store: %s is no SQLite database (%w): move it away or name another data folder", path, err)
	}
	return err
}

// checkpoints copies the write-ahead log back into the database in the background, so that commits need not.
func (s *Store) checkpoints(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.logSize() < checkpointBytes || s.writer.isBroken() != nil {
			continue
		}
		err := checkpoint(ctx, s.read)
		if err == nil && s.logSize() > maxLogBytes {
			// Under steady load the log never ends while it is copied. Holding the only write connection makes it end, and the
			// next commit starts it over.
			err = checkpoint(ctx, s.write)
		}
		if err = classify(err); err != nil && ctx.Err() == nil {
			s.log.Error("store: copy the log back into the database", "error", err)
		}
		if errors.Is(err, errUntrusted) {
			s.writer.setBroken(fmt.Errorf("%w: %w; restart to read back what the disk holds", ErrUnavailable, err))
		}
	}
}

const (
	checkpointBytes = 4 << 20  // size of the write-ahead log from which it is copied back
	maxLogBytes     = 64 << 20 // size from which commits wait until it is
)

// logSize returns the size of the write-ahead log's file. It does not shrink when the log starts over.
func (s *Store) logSize() int64 {
	info, err := os.Stat(filepath.Join(s.dir, databaseName+"-wal"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// checkpoint copies as much of the log back as no reader needs.
func checkpoint(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	return err
}

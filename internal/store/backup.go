package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup copies the whole store, as it is at one moment, into a new folder: database, head, models. It may run while the store
// is written to. The copy is a store of its own. For PostgreSQL use pg_dump, and Export for the ledger.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if s.dialect == postgres {
		return errors.New("store: a PostgreSQL database is backed up with pg_dump; the ledger can be exported")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	path := filepath.Join(dir, databaseName)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("store: backup: %s exists already; name a new folder", path)
	}
	if err := s.complete(ctx); err != nil {
		return err
	}
	from, err := sql.Open("sqlite", s.sqliteDSN(filepath.Join(s.dir, databaseName), false))
	if err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	_, err = from.ExecContext(ctx, `VACUUM INTO ?`, path) // reads one state of the database, and holds up no writer
	if err := errors.Join(err, from.Close()); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	if err := s.copyModels(dir); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	copied, err := connect(ctx, "sqlite:"+dir, &Options{})
	if err != nil {
		return fmt.Errorf("store: read the backup back: %w", err)
	}
	return errors.Join(copied.writeHeads(ctx), copied.closeFiles())
}

// writeHeads makes a head file that says what the database says.
func (s *Store) writeHeads(ctx context.Context) error {
	lanes, err := s.readLanes(ctx, s.write)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		if l.seq > 0 {
			if err := s.heads.write(l.head, true); err != nil {
				return err
			}
		}
	}
	return s.heads.file.Sync()
}

// copyModels copies the files of models; they never change.
func (s *Store) copyModels(dir string) error {
	from := filepath.Join(s.dir, "models")
	files, err := os.ReadDir(from)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "models")
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".occam" {
			continue // being written
		}
		content, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"occam/internal/store"
	"occam/internal/store/storetest"
)

// sqliteBackend makes databases in temporary folders.
var sqliteBackend = storetest.Backend{
	New: func(t testing.TB) (string, store.Options) {
		return "sqlite:" + t.TempDir(), store.Options{Durability: store.Normal}
	},
	Raw: func(t testing.TB, dsn string) *sql.DB {
		db, err := sql.Open("sqlite", filepath.Join(strings.TrimPrefix(dsn, "sqlite:"), "occam.db"))
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		return db
	},
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, sqliteBackend)
}

// TestFilesArePrivate: what the ledger writes can be read by its owner only, whatever the folder allows.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	s := openDir(t, dir, store.Options{})
	small(t, s, 5)
	files, err := os.ReadDir(dir)
	must(t, err)
	seen := map[string]bool{}
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if seen[f.Name()] = true; !f.IsDir() && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the rights %v", f.Name(), info.Mode().Perm())
		}
	}
	if !seen["occam.db"] || !seen["occam.db-wal"] {
		t.Errorf("the folder holds %v", seen)
	}
	must(t, s.Close())
}

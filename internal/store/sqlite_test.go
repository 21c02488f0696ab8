package store_test

import (
	"database/sql"
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

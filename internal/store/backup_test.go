package store_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/store/storetest"
)

// TestFromOneDatabaseToTheOther moves a ledger by export and import from SQLite to PostgreSQL and back. It verifies everywhere, says
// the same, and goes on.
func TestFromOneDatabaseToTheOther(t *testing.T) {
	backend := storetest.StartPostgres(t).Backend()
	first := openDir(t, t.TempDir(), store.Options{})
	small(t, first, 50)
	exported := func(s *store.Store) (export, lines string) {
		var b bytes.Buffer
		must(t, s.Export(ctx, &b))
		_, lines, _ = strings.Cut(b.String(), "\n") // the first line holds the time
		return b.String(), lines
	}
	moved := func(s *store.Store, dsn string, opts store.Options) *store.Store {
		export, lines := exported(s)
		must(t, store.Import(ctx, dsn, opts, strings.NewReader(export)))
		readOnly := opts
		readOnly.Mode = store.ReadOnly
		copied, err := store.Open(ctx, dsn, readOnly)
		must(t, err)
		if _, same := exported(copied); same != lines {
			t.Errorf("the ledger at %.20s differs from the one it came from", dsn)
		}
		must(t, copied.Close())
		s, err = store.Open(ctx, dsn, opts)
		must(t, err)
		t.Cleanup(func() { _ = s.Close() })
		must(t, s.Intend(ctx, storetest.Paid(store.NewID(time.Now()), time.Now()))) // it goes on
		if report, err := s.Verify(ctx); err != nil || !report.OK() {
			t.Errorf("%+v, %v", report, err)
		}
		return s
	}
	dsn, opts := backend.New(t)
	second := moved(first, dsn, opts)
	moved(second, "sqlite:"+t.TempDir(), store.Options{})
}

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

// A ledger can be exported and copied by another process while one writes without a pause: it waits for what was durable when it
// began, not for what came since.
func TestExportBesideABusyWriter(t *testing.T) {
	dir := t.TempDir()
	busy := openDir(t, dir, store.Options{Durability: store.Normal})
	small(t, busy, 10)
	reader, err := store.Open(ctx, "sqlite:"+dir, store.Options{Mode: store.ReadOnly})
	must(t, err)
	defer reader.Close()
	var stop atomic.Bool
	var group sync.WaitGroup
	defer func() { stop.Store(true); group.Wait() }()
	for range 2 {
		group.Go(func() {
			for ; !stop.Load(); time.Sleep(time.Millisecond) {
				a := storetest.Paid(store.NewID(time.Now()), time.Now())
				err := busy.Intend(ctx, a)
				a.State = store.Void
				if err = errors.Join(err, busy.Finish(ctx, a)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 2 {
		last := storetest.Paid(store.NewID(time.Now()), time.Now())
		must(t, busy.Intend(ctx, last))
		var out bytes.Buffer
		if err := reader.Export(ctx, &out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), last.ID) {
			t.Error("what was durable before is not in the export")
		}
		must(t, reader.Backup(ctx, filepath.Join(t.TempDir(), fmt.Sprint(i))))
	}
}

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/store/storetest"
)

// join opens one more process's store on a database.
func join(t testing.TB, dsn string, opts store.Options) *store.Store {
	t.Helper()
	opts.Dir = t.TempDir()
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := store.Open(ctx, dsn, opts)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, limit time.Duration, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// TestProcesses has several stores share a PostgreSQL database: no row is lost or doubled, budgets hold over all of them, and
// each hears of the others' changes.
func TestProcesses(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	dsn, opts := server.Backend().New(t)
	const processes, workers, each = 3, 4, 20
	budget := store.Budget{Key: "key-1", Start: store.PeriodStart("month", time.Now()), Limit: 100_000}
	var stores []*store.Store
	for range processes {
		stores = append(stores, join(t, dsn, opts))
	}
	var admitted atomic.Int64
	var group sync.WaitGroup
	for p, s := range stores {
		for worker := range workers {
			group.Go(func() {
				for i := range each {
					a := storetest.Paid(fmt.Sprintf("%d-%d-%d", p, worker, i), time.Now())
					if err := s.IntendWithin(ctx, a, budget); err == nil {
						admitted.Add(1)
						must(t, s.Finish(ctx, storetest.Settle(a, 1000)))
					} else if !errors.Is(err, store.ErrBudget) {
						t.Error(err)
					}
					must(t, s.RecordFree(ctx, storetest.Local("f"+a.ID, time.Now())))
				}
			})
		}
	}
	group.Wait()
	if n := admitted.Load(); n != 100 {
		t.Errorf("%d attempts of 1000 fitted into a budget of 100000", n)
	}
	s := stores[1]
	eventually(t, "all free rows are there", time.Minute, func() bool {
		c, err := s.Counts(ctx)
		return err == nil && c.Free == processes*workers*each
	})
	if report, err := s.Verify(ctx); err != nil || !report.OK() || report.Attempts != 100+processes*workers*each {
		t.Errorf("%+v, %v", report, err)
	}
	changed, stop := stores[2].Watch()
	defer stop()
	time.Sleep(100 * time.Millisecond) // what is announced when listening begins
	select {
	case <-changed:
	default:
	}
	must(t, stores[0].Update(ctx, func(tx *store.Tx) error {
		_, err := tx.Tasks().Advance(store.TaskState{Name: "triage", State: "live"}, "test", "test")
		return err
	}))
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("another process was not told of a change")
	}
	// A model trained by one process can be loaded by another one, which has another disk.
	hash, err := stores[0].SaveModel(ctx, []byte("weights"))
	must(t, err)
	if content, err := stores[1].LoadModel(ctx, hash); err != nil || string(content) != "weights" {
		t.Errorf("%q, %v", content, err)
	}
}

// TestProcessesKilled kills processes that share a database; one that lives closes what they left open (F01).
func TestProcessesKilled(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	dsn, opts := server.Backend().New(t)
	survivor := join(t, dsn, opts)
	b := newBiller()
	address := b.serve(t)
	for range kills(t, 3) {
		var group []func()
		for range 2 {
			_, kill := startChild(t, childJob{DSN: dsn, Dir: t.TempDir(), Biller: address})
			group = append(group, kill)
		}
		time.Sleep(300 * time.Millisecond)
		for _, kill := range group {
			kill()
		}
	}
	took := eventually(t, "nothing is open", time.Minute, func() bool {
		c, err := survivor.Counts(ctx)
		return err == nil && c.Open == 0
	})
	if err := b.checkKilled(survivor); err != nil {
		t.Error(err)
	}
	c, err := survivor.Counts(ctx)
	t.Logf("%d billed, %d answered; %d answered are missing, %d billed without an intent; ledger %+v, %v; with a lease of %v the dead were closed "+
		"after %v", len(b.billed), len(b.answered), b.missing, b.without, c, err, opts.Lease, took)
}

// TestDatabaseAway stops PostgreSQL under load: calls go on, durable in the spill file, and come into the database when it is
// back (F10). Replaying the file again changes nothing (F12).
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	dsn, opts := server.Backend().New(t)
	opts.Dir = t.TempDir()
	s, err := store.Open(ctx, dsn, opts)
	must(t, err)
	defer func() { s.Close() }()
	away := 2 * time.Second
	if thorough() {
		away = time.Minute
	}
	b := newBiller()
	stopLoad := make(chan struct{})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() { steadyLoad(t, s, b, worker, stopLoad) })
	}
	time.Sleep(200 * time.Millisecond)
	memory := resident(t)
	server.Stop(t, "immediate")
	time.Sleep(away)
	spill := filepath.Join(opts.Dir, "occam.spill")
	during := resident(t)
	copied, err := os.ReadFile(spill)
	must(t, err)
	b.mu.Lock()
	answered := len(b.answered)
	b.mu.Unlock()
	if err := s.IntendWithin(ctx, storetest.Paid("budget", time.Now()), store.Budget{Key: "key-1", Limit: 1e9}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a budget while the database is away: %v", err)
	}
	server.Start(t)
	took := eventually(t, "the spill file is empty", time.Minute, func() bool {
		info, err := os.Stat(spill)
		return err == nil && info.Size() == 0
	})
	time.Sleep(200 * time.Millisecond)
	close(stopLoad)
	group.Wait()
	must(t, s.Close())
	s, err = store.Open(ctx, dsn, opts)
	must(t, err)
	if err := b.checkKilled(s); err != nil {
		t.Error(err)
	}
	t.Logf("away for %v: %d answered until its end, spill file %d bytes, memory %d MB before and %d MB during; empty %v after the return",
		away, answered, len(copied), memory>>20, during>>20, took)
	if answered == 0 || len(copied) == 0 {
		t.Error("nothing was answered while the database was away")
	}
	before, err := s.Totals(ctx, store.TotalsQuery{})
	must(t, err)
	for range 3 {
		must(t, s.Close())
		must(t, os.WriteFile(spill, copied, 0o600))
		s, err = store.Open(ctx, dsn, opts)
		must(t, err)
		if after, err := s.Totals(ctx, store.TotalsQuery{}); err != nil || len(after) != 1 || after[0] != before[0] {
			t.Fatalf("after another replay: %+v, %v, before it: %+v", after, err, before)
		}
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("%q, %v", report.Problems, err)
	}
}

// steadyLoad sends an attempt every few milliseconds.
func steadyLoad(t testing.TB, s *store.Store, b *biller, worker int, stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		a := storetest.Paid(fmt.Sprintf("%d-%d", worker, i), time.Now())
		if err := s.Intend(ctx, a); err != nil {
			t.Errorf("intend: %v", err)
			return
		}
		amount := b.call(a)
		if err := s.Finish(ctx, storetest.Settle(a, amount)); err != nil {
			t.Errorf("finish: %v", err)
			return
		}
		b.answer(a.ID)
		if err := s.RecordFree(ctx, storetest.Local("f"+a.ID, time.Now())); err != nil {
			t.Errorf("free: %v", err)
		}
	}
}

// resident is the memory that the process has from the system, after a collection.
func resident(t testing.TB) uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSpillFull fills the spill file: calls are refused, and nothing is lost.
func TestSpillFull(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	dsn, opts := server.Backend().New(t)
	opts.Dir, opts.SpillBytes = t.TempDir(), 20_000
	s, err := store.Open(ctx, dsn, opts)
	must(t, err)
	pending := storetest.Paid("pending", time.Now())
	must(t, s.Intend(ctx, pending))
	server.Stop(t, "fast")
	b := newBiller()
	refused := false
	for i := 0; i < 200 && !refused; i++ {
		a := storetest.Paid(fmt.Sprint("a", i), time.Now())
		if err := s.Intend(ctx, a); err != nil {
			refused = errors.Is(err, store.ErrUnavailable)
			continue
		}
		amount := b.call(a)
		if err := s.Finish(ctx, storetest.Settle(a, amount)); err == nil {
			b.answer(a.ID)
		}
	}
	if !refused {
		t.Error("the file is full and nothing is refused")
	}
	if err := s.Finish(ctx, storetest.Settle(pending, 10)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("an outcome: %v", err)
	}
	b.billed["pending"] = 10
	server.Start(t)
	eventually(t, "the pending attempt is settled", time.Minute, func() bool {
		r, ok, err := s.Request(ctx, "r-pending")
		return err == nil && ok && r.Attempts[0].State == store.Settled
	})
	must(t, s.Close())
	s, err = store.Open(ctx, dsn, opts)
	must(t, err)
	defer s.Close()
	if err := b.checkKilled(s); err != nil {
		t.Error(err)
	}
}

// TestCommitUnanswered cuts the connection between COMMIT and its answer: the transaction happened, but the process cannot know.
// Every row must be there once (F11).
func TestCommitUnanswered(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	backend := server.Backend()
	dsn, opts := backend.New(t)
	proxy := newProxy(t, server.Address())
	s := join(t, strings.Replace(dsn, server.Address(), proxy.address, 1), opts)
	b := newBiller()
	stopLoad := make(chan struct{})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() { steadyLoad(t, s, b, worker, stopLoad) })
	}
	want := int64(3)
	if thorough() {
		want = 30
	}
	for cut := int64(1); cut <= want; cut++ {
		time.Sleep(50 * time.Millisecond)
		proxy.cutNext.Store(true)
		eventually(t, "a commit was cut", time.Minute, func() bool { return proxy.cuts.Load() == cut })
	}
	close(stopLoad)
	group.Wait()
	calls := int64(len(b.billed)) // the load has ended
	eventually(t, "everything is in the database, nothing only in the spill file", time.Minute, func() bool {
		c, err := s.Counts(ctx)
		return err == nil && c.Open == 0 && c.Settled == calls && c.Free == calls
	})
	if err := b.checkKilled(s); err != nil {
		t.Error(err)
	}
	t.Logf("%d commits without an answer, %d attempts", want, len(b.billed))
}

// A proxy stands between the store and PostgreSQL.
type proxy struct {
	address string
	cutNext atomic.Bool // the next COMMIT goes through, its answer does not
	cuts    atomic.Int64
}

func newProxy(t testing.TB, server string) *proxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	p := &proxy{address: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(client, server)
		}
	}()
	return p
}

func (p *proxy) serve(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	answers := make(chan struct{})
	var mute atomic.Bool
	go func() {
		defer close(answers)
		buffer := make([]byte, 1<<16)
		for {
			n, err := server.Read(buffer)
			if err != nil || mute.Load() {
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		cut := bytes.Contains(buffer[:n], []byte("commit")) && p.cutNext.CompareAndSwap(true, false)
		mute.Store(cut)
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
		if cut {
			<-answers // the server has answered, so the transaction has happened
			p.cuts.Add(1)
			return
		}
	}
}

// TestFenced has a process lose its lane while it lives: it takes another one, and the outcome that comes after its attempt was
// closed is refused.
func TestFenced(t *testing.T) {
	t.Parallel()
	server := storetest.StartPostgres(t)
	backend := server.Backend()
	dsn, opts := backend.New(t)
	s := join(t, dsn, opts)
	late := storetest.Paid("late", time.Now())
	must(t, s.Intend(ctx, late))
	raw := backend.Raw(t, dsn)
	defer raw.Close()
	_, err := raw.Exec(`UPDATE lanes SET epoch = epoch + 1, owner = 'somebody', beat = 0`)
	must(t, err)
	other := join(t, dsn, opts)
	eventually(t, "the attempt is closed", time.Minute, func() bool {
		c, err := other.Counts(ctx)
		return err == nil && c.Open == 0
	})
	var amounts cost.Amount
	for i := range 10 {
		a := storetest.Paid(fmt.Sprint("a", i), time.Now())
		must(t, s.Intend(ctx, a))
		must(t, s.Finish(ctx, storetest.Settle(a, 5)))
		amounts += 5
	}
	_ = s.Finish(ctx, storetest.Settle(late, 500))
	eventually(t, "the rows are in the database", time.Minute, func() bool {
		c, err := other.Counts(ctx)
		return err == nil && c.Settled == 10
	})
	r, _, err := other.Request(ctx, "r-late")
	if err != nil || r.Attempts[0].State != store.Estimated {
		t.Errorf("%+v, %v", r, err)
	}
	if report, err := other.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("%q, %v", report.Problems, err)
	}
}

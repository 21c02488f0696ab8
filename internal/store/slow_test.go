package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/store/storetest"
	"occam/internal/store/storetest/faultdisk"
)

func ofJournal(c faultdisk.Call) bool {
	return strings.HasPrefix(filepath.Base(c.Path), "occam.journal")
}

// A slowDisk is a disk whose syncs take time, which watches how the journal is synced.
type slowDisk struct {
	delay func() time.Duration

	mu      sync.Mutex
	wrote   time.Time // the journal's newest batch
	syncing int       // of the journal, now
	syncs
}

// syncs is what a slowDisk has seen of the journal's syncs.
type syncs struct {
	most    int // at a time
	hasty   int // batches that were written less than 50 ms after another that was being synced
	longest time.Duration
}

// seen is safe while syncs go on: a reply does not wait for the sync of its outcome.
func (d *slowDisk) seen() syncs {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *slowDisk) ask(c faultdisk.Call) int32 {
	began := time.Now()
	d.mu.Lock()
	if ofJournal(c) && c.Op == faultdisk.Write {
		if d.syncing > 0 && began.Sub(d.wrote) < 50*time.Millisecond {
			d.hasty++
		}
		d.wrote = began
	}
	if ofJournal(c) && c.Op == faultdisk.Sync {
		d.syncing++
		d.most = max(d.most, d.syncing)
	}
	d.mu.Unlock()
	if c.Op != faultdisk.Sync {
		return 0
	}
	time.Sleep(d.delay())
	d.mu.Lock()
	defer d.mu.Unlock()
	if ofJournal(c) {
		d.syncing--
		d.longest = max(d.longest, time.Since(began))
	}
	return 0
}

// A waited is how long a call waited, and from when.
type waited struct {
	began time.Time
	took  time.Duration
}

// p99 returns the 99th percentile.
func p99(all []waited) time.Duration {
	took := make([]time.Duration, len(all))
	for i, w := range all {
		took[i] = w.took
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// atOnce returns how many waited at the same time at most.
func atOnce(all []waited) (most int) {
	type step struct {
		at   time.Time
		more int
	}
	var steps []step
	for _, w := range all {
		steps = append(steps, step{w.began, 1}, step{w.began.Add(w.took), -1})
	}
	slices.SortFunc(steps, func(a, b step) int { return a.at.Compare(b.at) })
	now := 0
	for _, s := range steps {
		now += s.more
		most = max(most, now)
	}
	return most
}

// TestSlowDisk makes every sync take half a second, while more intents come than fit: an admitted one waits for little more
// than its own sync, and its outcome for none; the queue is bounded, and the rest is shed at once (F07).
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	const slow, queue = 500 * time.Millisecond, 64
	disk, watch := newDisk(t), &slowDisk{delay: func() time.Duration { return slow }}
	s := openDir(t, t.TempDir(), store.Options{Waiting: queue}.WithDisk(disk))
	disk.Ask(func(c faultdisk.Call) int32 {
		watch.ask(c)
		if c.Op == faultdisk.Sync {
			return faultdisk.Lie // what the real disk adds depends on who else uses it
		}
		return 0
	})
	var mu sync.Mutex
	var intents, paid, shed []waited
	var group sync.WaitGroup
	for range 1500 {
		group.Go(func() {
			a := storetest.Paid(store.NewID(time.Now()), time.Now())
			began := time.Now()
			err := s.Intend(ctx, a)
			first := waited{began, time.Since(began)}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				if shed = append(shed, first); !errors.Is(err, store.ErrBusy) {
					t.Error(err)
				}
				return
			}
			if err := s.Finish(ctx, storetest.Settle(a, 100)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			intents, paid = append(intents, first), append(paid, waited{began, time.Since(began)})
		})
		time.Sleep(2 * time.Millisecond)
	}
	group.Wait()
	disk.Ask(nil)
	if len(intents) < queue || len(shed) == 0 {
		t.Fatalf("%d admitted, %d shed", len(intents), len(shed))
	}
	seen := watch.seen()
	t.Logf("a sync takes %v (the longest %v), %d at a time: %d intents admitted, at most %d wait; p99 of an intent %v, of both writes of a call %v; "+
		"%d shed, p99 %v", slow, seen.longest, seen.most, len(intents), atOnce(intents), p99(intents), p99(paid), len(shed), p99(shed))
	for what, all := range map[string][]waited{"an intent waits": intents, "an intent and its outcome wait": paid} {
		if ratio := float64(p99(all)) / float64(seen.longest); ratio > 1.4 {
			t.Errorf("%s for %.2f syncs", what, ratio)
		}
	}
	if n := atOnce(intents); n > 2*queue+1 { // a batch that is being synced, and a queue
		t.Errorf("%d intents wait", n)
	}
	if p99(shed) > slow/2 {
		t.Errorf("shed after %v", p99(shed))
	}
	if seen.most < 2 || seen.most > 12 || seen.hasty > 0 {
		t.Errorf("%d syncs at a time, %d batches too early", seen.most, seen.hasty)
	}
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() || report.Attempts != int64(len(intents)) {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestFastDisk checks that while syncs are fast there is one at a time, whatever the load.
func TestFastDisk(t *testing.T) {
	t.Parallel()
	disk, watch := newDisk(t), &slowDisk{delay: func() time.Duration { return 2 * time.Millisecond }}
	s := openDir(t, t.TempDir(), store.Options{}.WithDisk(disk))
	disk.Ask(watch.ask)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() { small(t, s, 20) })
	}
	group.Wait()
	disk.Ask(nil)
	seen := watch.seen()
	t.Logf("%d syncs at a time, the longest took %v", seen.most, seen.longest)
	if seen.hasty > 0 || seen.most > 1 && seen.longest < 50*time.Millisecond {
		t.Errorf("%d syncs at a time, %d batches too early", seen.most, seen.hasty)
	}
}

// TestSlowAudit audits a ledger whose syncs overlap.
func TestSlowAudit(t *testing.T) {
	t.Parallel()
	disk, watch := newDisk(t), &slowDisk{delay: func() time.Duration { return time.Duration(60+rand.IntN(100)) * time.Millisecond }}
	disk.Ask(func(c faultdisk.Call) int32 {
		if !ofJournal(c) {
			return 0
		}
		return watch.ask(c)
	})
	if err := audit(t, t.TempDir(), store.Options{}.WithDisk(disk)); err != nil {
		t.Error(err)
	}
	if watch.seen().most < 2 {
		t.Error("no syncs overlapped: the test is blind")
	}
}

// TestNewBudgetOnSlowDisk asks for a budget for the first time while the outcome of a call that it counts is being synced.
func TestNewBudgetOnSlowDisk(t *testing.T) {
	t.Parallel()
	disk := newDisk(t)
	s := openDir(t, t.TempDir(), store.Options{FreeDelay: time.Hour}.WithDisk(disk))
	first, second := storetest.Paid("first", time.Now()), storetest.Paid("second", time.Now())
	must(t, s.Intend(ctx, first))
	var syncs atomic.Int64
	gate := make(chan struct{})
	disk.Ask(func(c faultdisk.Call) int32 {
		if c.Op == faultdisk.Sync && ofJournal(c) && syncs.Add(1) == 1 {
			<-gate
		}
		return 0
	})
	budget := store.Budget{Key: "key-1", Start: store.PeriodStart("month", time.Now()), Limit: 1e9}
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Finish(ctx, storetest.Settle(first, 100)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the outcome is being synced", time.Minute, func() bool { return syncs.Load() == 1 })
	group.Go(func() {
		if err := errors.Join(s.IntendWithin(ctx, second, budget), s.Finish(ctx, storetest.Settle(second, 100))); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(150 * time.Millisecond)
	close(gate)
	group.Wait()
	have, err := s.BudgetBalance(ctx, budget)
	if want := (store.Balance{Spent: 200}); err != nil || have != want {
		t.Errorf("the budget stands at %+v, want %+v, %v", have, want, err)
	}
}

// recordOverlap is recordRun on a slow disk, so that several batches are being synced at a time, with enough of them for both
// files of the journal.
func recordOverlap(t testing.TB, durability store.Durability) *powerRun {
	run := startRun(t, durability, func() time.Duration { return time.Duration(60+rand.IntN(200)) * time.Millisecond })
	var group sync.WaitGroup
	for worker := range 450 {
		group.Go(func() {
			for i := range 8 {
				time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond) // so that batches are many
				run.pay(t, fmt.Sprint("a", worker, "-", i))
			}
		})
	}
	group.Wait()
	must(t, run.store.Close())
	turned := false
	for i, op := range run.ops {
		if i > run.ready && op.id == "" && op.Op == faultdisk.Sync && ofJournal(op.Call) {
			run.points = append(run.points, i)
			turned = turned || filepath.Base(op.Path) == "occam.journal1" // which is not only emptied
		}
	}
	if !turned {
		t.Error("the journal's second file was not used: write more")
	}
	return run
}

// TestOverlappingSyncs lets the sync of a batch be over before that of the batch before it: nobody is told until both are, and when
// one fails neither counts. After a power loss the ledger ends before the gap.
func TestOverlappingSyncs(t *testing.T) {
	t.Parallel()
	for name, results := range map[string][2]int32{
		"both succeed":     {0, 0},
		"the first fails":  {faultdisk.SyncError, 0},
		"the second fails": {0, faultdisk.SyncError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			overlap(t, results)
		})
	}
}

func overlap(t *testing.T, results [2]int32) {
	disk, dir := newDisk(t), t.TempDir()
	s := openDir(t, dir, store.Options{FreeDelay: time.Hour}.WithDisk(disk))
	must(t, s.Intend(ctx, storetest.Paid("before", time.Now())))
	eventually(t, "it is in the database", time.Minute, func() bool { c, err := s.Counts(ctx); return err == nil && c.Open == 1 })
	var syncs, over, writes atomic.Int64
	var lost faultdisk.Call // the first batch
	gate := make(chan struct{})
	disk.Ask(func(c faultdisk.Call) int32 {
		if ofJournal(c) && c.Op == faultdisk.Write && writes.Add(1) == 1 {
			lost = faultdisk.Call{Path: c.Path, Offset: c.Offset, Data: slices.Clone(c.Data)}
		}
		if c.Op != faultdisk.Sync || !ofJournal(c) {
			return 0
		}
		n := syncs.Add(1)
		defer over.Add(1)
		switch n {
		case 1:
			<-gate
			return results[0]
		case 2:
			return results[1]
		}
		return 0
	})
	told := make([]chan error, 2)
	for i := range told {
		told[i] = make(chan error, 1)
		go func() { told[i] <- s.Intend(ctx, storetest.Paid(fmt.Sprint("a", i), time.Now())) }()
		eventually(t, "it is being synced", time.Minute, func() bool { return syncs.Load() == int64(i+1) })
	}
	eventually(t, "the second sync is over", time.Minute, func() bool { return over.Load() == 1 })
	time.Sleep(100 * time.Millisecond) // whoever is told too early is told by then
	for i := range told {
		if len(told[i]) > 0 {
			t.Errorf("batch %d is told of before the first is durable: %v", i, <-told[i])
		}
	}
	endsBeforeGap(t, cloned(t, dir), lost)
	before := syncs.Load()
	close(gate)
	failed := results != [2]int32{}
	for i := range told {
		if err := <-told[i]; (err != nil) != failed || failed && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("batch %d: %v", i, err)
		}
	}
	if failed {
		refusesForGood(t, s, &syncs)
		if n := syncs.Load() - before; n > 0 {
			t.Errorf("%d syncs after a failed one", n)
		}
		disk.Ask(nil)
		s.Crash()
		return
	}
	must(t, s.Close())
	s = openDir(t, dir, store.Options{})
	for _, id := range []string{"before", "a0", "a1"} {
		if _, ok, err := s.Request(ctx, "r-"+id); err != nil || !ok {
			t.Errorf("%s is lost: %v", id, err)
		}
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("%q, %v", report.Problems, err)
	}
}

// endsBeforeGap takes a batch out of the journal in dir, as a power loss does with what was not synced, and checks that the ledger
// ends before it.
func endsBeforeGap(t *testing.T, dir string, lost faultdisk.Call) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, filepath.Base(lost.Path)), os.O_RDWR, 0)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	if info.Size() <= lost.Offset+int64(len(lost.Data)) {
		t.Fatal("nothing follows the gap: the test is blind")
	}
	_, err = f.WriteAt(make([]byte, len(lost.Data)), lost.Offset)
	must(t, err)
	must(t, f.Close())
	s := openDir(t, dir, store.Options{})
	defer s.Close()
	for id, want := range map[string]bool{"before": true, "a0": false, "a1": false} {
		if _, ok, err := s.Request(ctx, "r-"+id); err != nil || ok != want {
			t.Errorf("after a gap: %s is there: %v, %v", id, ok, err)
		}
	}
	small(t, s, 3)
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() || len(report.Remarks) > 0 {
		t.Errorf("after a gap: %+v, %v", report, err)
	}
}

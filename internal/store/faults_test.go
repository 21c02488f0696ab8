package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/store/storetest"
	"occam/internal/store/storetest/faultdisk"
)

// thorough says that the tests should do what the fault catalogue asks for, and not a sample of it.
func thorough() bool { return os.Getenv("OCCAM_KILLS") != "" }

// sample is how many of something to try: fewer with -short, which the race detector runs with.
func sample(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

func newDisk(t testing.TB) *faultdisk.Disk {
	t.Helper()
	d, err := faultdisk.New()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// makeOld makes a database of the schema's first version with one settled attempt.
func makeOld(t testing.TB, dir string) {
	t.Helper()
	s := openDir(t, dir, store.Options{})
	a := storetest.Paid("old", time.Now())
	must(t, s.Intend(ctx, a))
	must(t, s.Finish(ctx, storetest.Settle(a, 77)))
	must(t, s.Close())
	raw := sqliteBackend.Raw(t, "sqlite:"+dir)
	defer raw.Close()
	// Take back what later versions added.
	for _, table := range []string{"labels", "examples", "models", "model_parts", "file_parts", "tasks", "transitions", "keys", "reviews", "jobs", "records",
		"budgets", "holds"} {
		_, err := raw.Exec(`DROP TABLE ` + table)
		must(t, err)
	}
	for _, statement := range []string{`DROP INDEX chain_notices`, `DROP INDEX rates_task`, `DELETE FROM rollups WHERE span < 0`,
		`DELETE FROM schema_version WHERE version > 1`} {
		_, err := raw.Exec(statement)
		must(t, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t testing.TB, dir string, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, "sqlite:"+dir, opts)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// small writes n settled attempts and as many free ones.
func small(t testing.TB, s *store.Store, n int) {
	t.Helper()
	for i := range n {
		a := storetest.Paid(store.NewID(time.Now()), time.Now())
		must(t, s.Intend(ctx, a))
		must(t, s.Finish(ctx, storetest.Settle(a, 100)))
		must(t, s.RecordFree(ctx, storetest.Local(fmt.Sprint(a.ID, i), time.Now())))
	}
}

// TestMigrations upgrades an old database with rows, and refuses a newer one at once (F42).
func TestMigrations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeOld(t, dir)
	s := openDir(t, dir, store.Options{})
	if r, ok, err := s.Request(ctx, "r-old"); err != nil || !ok || r.Attempts[0].Cost != 77 {
		t.Errorf("after the upgrade: %+v, %v", r, err)
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("after the upgrade: %q, %v", report.Problems, err)
	}
	must(t, s.Close())
	raw := sqliteBackend.Raw(t, "sqlite:"+dir)
	_, err := raw.Exec(`INSERT INTO schema_version VALUES (?)`, store.SchemaVersion()+1)
	must(t, err)
	must(t, raw.Close())
	before := contents(t, dir)
	for _, mode := range []store.Mode{store.ReadWrite, store.ReadOnly} {
		_, err = store.Open(ctx, "sqlite:"+dir, store.Options{Mode: mode})
		if err == nil || !strings.Contains(err.Error(), "newer occam") {
			t.Errorf("a newer schema: %v", err)
		}
	}
	if !bytes.Equal(before, contents(t, dir)) {
		t.Error("the newer database was touched")
	}
}

func contents(t testing.TB, dir string) []byte {
	text, err := os.ReadFile(filepath.Join(dir, "occam.db"))
	must(t, err)
	return text
}

// TestPowerLoss replays a run up to many moments at which the power fails: what was written and not synced may be on the disk or
// not, page by page. With Full no answered row may be lost, and where the disk is fast none of its outcome; with Normal only the
// newest ones, and the ledger says so (F04).
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	points := sample(20)
	if thorough() {
		points = 1000
	}
	for name, durability := range map[string]store.Durability{"full": store.Full, "normal": store.Normal, "overlapping": store.Full} {
		t.Run(name, func(t *testing.T) {
			record, points := recordRun, points
			if name == "overlapping" {
				record, points = recordOverlap, max(points/2, 10) // it is a longer run
			}
			run := record(t, durability)
			random := rand.New(rand.NewPCG(7, 7))
			lost, estimated, notes := 0, 0, 0
			for range points {
				at := run.ready + random.IntN(len(run.ops)-run.ready)
				if len(run.points) > 0 {
					at = run.points[random.IntN(len(run.points))]
				}
				l, e, n := run.crashAt(t, at, durability, random)
				lost, estimated, notes = lost+l, estimated+e, notes+n
			}
			t.Logf("%d crash points in %d calls, %d with a gap in the journal: %d answered rows lost, %d ledgers say so; of %d answered rows only "+
				"the intent is left", points, len(run.ops), run.gaps, lost, notes, estimated)
			if name == "overlapping" && run.gaps == 0 {
				t.Error("no crash left a gap in the journal: the test is blind")
			}
			if durability == store.Full && lost > 0 {
				t.Errorf("%d answered rows are lost", lost)
			}
			if slow := name == "overlapping"; slow != (estimated > 0) && durability == store.Full {
				t.Errorf("of %d answered rows only the intent is left: a reply waits for its outcome's sync where the disk is fast, and only there", estimated)
			}
		})
	}
}

// A powerRun is everything that a run asked of the disk, in order.
type powerRun struct {
	dir   string
	store *store.Store
	mu    sync.Mutex

	ops    []powerOp
	ready  int   // ops before the store was open
	points []int // where to crash; anywhere when there are none
	gaps   int   // crash points at which a batch of the journal was lost and a later one was not
}

// A powerOp is a call of the disk, or, with an id, the moment at which an attempt was answered, with the head file of then.
type powerOp struct {
	faultdisk.Call
	from int // of a sync that took time, which call was the next when it began: it vouches for what came before
	id   string
	head []byte
}

// recordRun writes one attempt after the other.
func recordRun(t testing.TB, durability store.Durability) *powerRun {
	run := startRun(t, durability, nil)
	for i := range 120 {
		run.pay(t, fmt.Sprint("a", i))
		if i%40 == 39 && durability == store.Normal {
			time.Sleep(1200 * time.Millisecond) // lets the background sync what Normal has not
		}
	}
	must(t, run.store.Close())
	return run
}

// startRun opens a store on a disk that notes everything. slow is how long a sync of the journal takes, nil for no time.
func startRun(t testing.TB, durability store.Durability, slow func() time.Duration) *powerRun {
	run := &powerRun{dir: t.TempDir()}
	disk := newDisk(t)
	disk.Ask(func(c faultdisk.Call) int32 {
		c.Data = slices.Clone(c.Data)
		op := powerOp{Call: c}
		if slow != nil && c.Op == faultdisk.Sync && ofJournal(c) {
			op.from = run.noted()
			time.Sleep(slow())
		}
		run.note(op)
		return 0
	})
	run.store = openDir(t, run.dir, store.Options{Durability: durability, FreeDelay: time.Hour}.WithDisk(disk))
	run.ready = run.noted()
	return run
}

func (run *powerRun) note(op powerOp) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.ops = append(run.ops, op)
}

func (run *powerRun) noted() int {
	run.mu.Lock()
	defer run.mu.Unlock()
	return len(run.ops)
}

// pay makes a settled attempt and notes when it was answered, with the head file of then.
func (run *powerRun) pay(t testing.TB, id string) {
	a := storetest.Paid(id, time.Now())
	if err := errors.Join(run.store.Intend(ctx, a), run.store.Finish(ctx, storetest.Settle(a, 100))); err != nil {
		t.Error(err)
		return
	}
	head, err := os.ReadFile(filepath.Join(run.dir, "occam.head"))
	if err != nil {
		t.Error(err)
	}
	run.note(powerOp{id: a.ID, head: head})
}

// crashAt builds what the disk may hold after a power loss before call number at, opens it and compares it with what was
// answered until then. It returns how many answered rows are lost, of how many only the intent is left, and 1 when the ledger has a
// remark about what it lost.
func (run *powerRun) crashAt(t testing.TB, at int, durability store.Durability, random *rand.Rand) (lost, estimated, notes int) {
	synced := map[string]int{} // by file, the last sync
	var answers []string
	var head []byte
	for i, op := range run.ops[:at] {
		if op.id != "" {
			answers, head = append(answers, op.id), op.head
		} else if op.Op == faultdisk.Sync {
			if op.from > 0 {
				i = op.from - 1
			}
			synced[op.Path] = max(synced[op.Path], i)
		}
	}
	files := map[string][]byte{}
	dropped, gap := map[string]bool{}, false
	for i, op := range run.ops[:at] {
		lasting := i <= synced[op.Path] || op.Op == faultdisk.Delete && i < run.ready // Open syncs the folder
		if op.id != "" || op.Op == faultdisk.Sync || op.Path == "" {                  // SQLite's temporary files have no name
			continue
		}
		name := filepath.Base(op.Path)
		if !lasting && random.IntN(2) == 0 {
			dropped[name] = true
			continue
		}
		gap = gap || dropped[name] && strings.HasPrefix(name, "occam.journal")
		content := files[name]
		if op.Op == faultdisk.Delete {
			delete(files, name)
			continue
		}
		if op.Op == faultdisk.Truncate {
			content = append(content, make([]byte, max(0, int(op.Offset)-len(content)))...)[:op.Offset]
		} else {
			content = append(content, make([]byte, max(0, int(op.Offset)+len(op.Data)-len(content)))...)
			copy(content[op.Offset:], op.Data)
		}
		files[name] = content
	}
	if gap {
		run.gaps++
	}
	dir := t.TempDir()
	files["occam.head"] = head
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	s, err := store.Open(ctx, "sqlite:"+dir, store.Options{Durability: durability})
	if err != nil {
		t.Fatalf("power lost at call %d of %d: %v", at, len(run.ops), err)
	}
	defer s.Close()
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() {
		t.Errorf("power lost at call %d: %q, %v", at, report.Problems, err)
	}
	for i, id := range answers {
		r, ok, err := s.Request(ctx, "r-"+id)
		must(t, err)
		if !ok {
			lost++
			continue
		}
		if lost > 0 {
			t.Errorf("power lost at call %d: %s is lost, but a later one is not (%d of %d)", at, answers[i-1], i, len(answers))
		}
		switch a := r.Attempts[0]; {
		case a.State == store.Estimated && a.CostLow <= 100 && a.CostHigh >= 100:
			estimated++
		case a.State != store.Settled || a.Cost != 100:
			t.Errorf("power lost at call %d: %+v", at, a)
		}
	}
	if lost > 0 && len(report.Remarks) == 0 {
		t.Errorf("power lost at call %d: %d rows are lost and the ledger does not say so", at, lost)
	}
	return lost, estimated, len(report.Remarks)
}

// TestDiskFull fills the disk under a running store: calls are refused within a second, nothing is sent without an intent, and
// when there is room again it goes on by itself (F05).
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := newDisk(t)
	var full atomic.Bool
	disk.Ask(func(c faultdisk.Call) int32 {
		if full.Load() && c.Op == faultdisk.Write {
			return faultdisk.Full
		}
		return 0
	})
	t.Run("simulated", func(t *testing.T) {
		fillAndFree(t, t.TempDir(), store.Options{}.WithDisk(disk), func() { full.Store(true) }, func() { full.Store(false) })
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Skipf("cannot mount a small disk: %v", err)
		}
		defer syscall.Unmount(dir, syscall.MNT_DETACH) //nolint:errcheck // the test's own mount
		ballast := filepath.Join(dir, "ballast")
		fill := func() {
			f, err := os.Create(ballast)
			must(t, err)
			defer f.Close()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
		}
		fillAndFree(t, dir, store.Options{}, fill, func() { must(t, os.Remove(ballast)) })
	})
}

func fillAndFree(t *testing.T, dir string, opts store.Options, fill, free func()) {
	s := openDir(t, dir, opts)
	small(t, s, 5)
	pending := storetest.Paid("pending", time.Now())
	must(t, s.Intend(ctx, pending))
	fill()
	refusals := 0
	for i := range 200 { // there may be a little room left in files that were made already
		a := storetest.Paid(fmt.Sprint("full", i), time.Now())
		began := time.Now()
		err := s.Intend(ctx, a)
		if err == nil {
			must(t, s.Finish(ctx, storetest.Settle(a, 1)))
			continue
		}
		if !errors.Is(err, store.ErrUnavailable) || time.Since(began) > 5*time.Second {
			t.Fatalf("refused after %v: %v", time.Since(began), err)
		}
		if refusals++; refusals == 3 {
			break
		}
	}
	if refusals == 0 {
		t.Fatal("the disk is full and nothing is refused")
	}
	if err := s.Finish(ctx, storetest.Settle(pending, 500)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("an outcome on a full disk: %v", err)
	}
	must(t, s.RecordFree(ctx, storetest.Local("full-free", time.Now())))
	free()
	began := time.Now()
	for {
		err := s.Intend(ctx, storetest.Paid(store.NewID(time.Now()), time.Now()))
		if err == nil {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("10 s after there is room again: %v", err)
		}
	}
	t.Logf("writes again after %v", time.Since(began))
	must(t, s.Close())
	s = openDir(t, dir, opts)
	for id, want := range map[string]store.State{"r-pending": store.Settled, "r-full-free": store.Free} {
		if r, ok, err := s.Request(ctx, id); err != nil || !ok || r.Attempts[0].State != want {
			t.Errorf("%s: %+v, %v", id, r, err)
		}
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("%q, %v", report.Problems, err)
	}
}

// TestWriteErrors lets the n-th write or sync fail. What was answered must be there afterwards, and after a failed sync nothing
// is tried again (F06).
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	last, step := sample(60), 3
	if thorough() {
		last, step = 200, 0
	}
	for _, fault := range []struct {
		op   faultdisk.Op
		code int32
	}{{faultdisk.Write, faultdisk.WriteError}, {faultdisk.Sync, faultdisk.SyncError}} {
		for n := 1; n <= last; n += 1 + step*n/8 {
			writeError(t, fault.op, fault.code, int64(n))
		}
	}
}

func writeError(t *testing.T, op faultdisk.Op, code int32, nth int64) {
	t.Helper()
	disk := newDisk(t)
	dir := t.TempDir()
	s := openDir(t, dir, store.Options{}.WithDisk(disk))
	var calls, after atomic.Int64
	var failed atomic.Bool
	disk.Ask(func(c faultdisk.Call) int32 {
		if failed.Load() && c.Op == faultdisk.Sync {
			after.Add(1)
		}
		if c.Op == op && calls.Add(1) == nth {
			failed.Store(true)
			return code
		}
		return 0
	})
	var done []string
	for i := 0; i < 300 && !failed.Load(); i++ {
		a := storetest.Paid(fmt.Sprint("a", i), time.Now())
		if s.Intend(ctx, a) == nil && s.Finish(ctx, storetest.Settle(a, 100)) == nil {
			done = append(done, a.ID)
		}
	}
	if op == faultdisk.Sync {
		refusesForGood(t, s, &after)
	}
	disk.Ask(nil)
	s.Crash()
	s = openDir(t, dir, store.Options{})
	defer s.Close()
	for _, id := range done {
		if r, ok, err := s.Request(ctx, "r-"+id); err != nil || !ok || r.Attempts[0].State != store.Settled {
			t.Errorf("%v %d failed: %s is lost: %+v, %v", op, nth, id, r, err)
		}
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("%v %d failed: %q, %v", op, nth, report.Problems, err)
	}
}

// refusesForGood checks that after a failed sync, be it a commit's or the background's, nothing is written or synced any more.
func refusesForGood(t *testing.T, s *store.Store, syncs *atomic.Int64) {
	t.Helper()
	tries := 0
	eventually(t, "intents are refused", time.Minute, func() bool {
		tries++
		return errors.Is(s.Intend(ctx, storetest.Paid(fmt.Sprint("after", tries), time.Now())), store.ErrUnavailable)
	})
	before := syncs.Load()
	for i := range 5 {
		if err := s.Intend(ctx, storetest.Paid(fmt.Sprint("later", i), time.Now())); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after a failed sync: %v", err)
		}
	}
	if n := syncs.Load() - before; n > 0 {
		t.Errorf("%d syncs after a failed one", n)
	}
}

// dump is everything that the ledger's tables hold, "damaged" when they cannot be read.
func dump(t testing.TB, dir string) string {
	db := sqliteBackend.Raw(t, "sqlite:"+dir)
	defer db.Close()
	var b strings.Builder
	for _, table := range []string{"attempts", "chain", "rollups", "latencies", "rates", "days",
		"(SELECT lane, seq, n, hash FROM lanes)"} { // the lease is no part of the ledger
		rows, err := db.Query(`SELECT * FROM ` + table)
		if err != nil {
			return "damaged"
		}
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(sql.RawBytes)
			}
			if err := rows.Scan(values...); err != nil {
				rows.Close()
				return "damaged"
			}
			for _, v := range values {
				fmt.Fprintf(&b, "%q,", *v.(*sql.RawBytes))
			}
		}
		if rows.Close(); rows.Err() != nil {
			return "damaged"
		}
	}
	return b.String()
}

// TestBitFlips flips single bits of the database file. Verify must notice every one that changes a row (F08).
func TestBitFlips(t *testing.T) {
	t.Parallel()
	flips := sample(40)
	if thorough() {
		flips = 300
	}
	dir := t.TempDir()
	s := openDir(t, dir, store.Options{Durability: store.Normal})
	small(t, s, 100)
	must(t, s.Intend(ctx, storetest.Paid("open", time.Now())))
	must(t, s.Close())
	clean := dump(t, dir)
	size := int64(len(contents(t, dir)))
	random := rand.New(rand.NewPCG(3, 3))
	changed, noticed, integrity := 0, 0, 0
	for done := 0; done < flips || changed == 0 && done < 300; done++ { // one in five changes a row
		copied := t.TempDir()
		copyDir(t, dir, copied)
		at, bit := random.Int64N(size), random.IntN(8)
		flip(t, filepath.Join(copied, "occam.db"), at, bit)
		differs := dump(t, copied) != clean
		found := !verifies(copied)
		if differs {
			changed++
			if found {
				noticed++
			} else {
				t.Errorf("byte %d, bit %d: a row changed and verify did not notice", at, bit)
			}
			if !intact(t, copied) {
				integrity++
			}
		}
		must(t, os.RemoveAll(copied))
	}
	t.Logf("%d flips: %d change a row, %d of these noticed; integrity_check alone notices %d", flips, changed, noticed, integrity)
	if changed == 0 {
		t.Error("no flip changed anything: the test is blind")
	}
}

func flip(t testing.TB, path string, at int64, bit int) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// verifies reports whether `occam ledger verify` would say that all is well.
func verifies(dir string) bool {
	s, err := store.Open(ctx, "sqlite:"+dir, store.Options{Mode: store.ReadOnly})
	if err != nil {
		return false
	}
	defer s.Close()
	report, err := s.Verify(ctx)
	return err == nil && report.OK()
}

// intact asks SQLite alone.
func intact(t testing.TB, dir string) bool {
	db := sqliteBackend.Raw(t, "sqlite:"+dir)
	defer db.Close()
	var answer string
	err := db.QueryRow(`PRAGMA integrity_check(1)`).Scan(&answer)
	return err == nil && answer == "ok"
}

// TestCutAndOldFiles cuts the write-ahead log and the database at many places, deletes them, and puts an old copy back. The
// store must refuse, or have lost nothing (F09).
func TestCutAndOldFiles(t *testing.T) {
	t.Parallel()
	cuts := sample(12)
	if thorough() {
		cuts = 100
	}
	dir := t.TempDir()
	s := openDir(t, dir, store.Options{})
	small(t, s, 10)
	eventually(t, "everything is in the database", time.Minute, func() bool {
		c, err := s.Counts(ctx)
		return err == nil && c.Free == 10
	})
	old := t.TempDir()
	copyDir(t, dir, old)
	small(t, s, 20)
	s.Crash() // leaves the log and the journal as kill -9 does
	clean, err := reopened(t, dir)
	must(t, err)
	random := rand.New(rand.NewPCG(5, 5))
	refused := 0
	judge := func(what, copied string) {
		t.Helper()
		well := verifies(copied)
		have, err := reopened(t, copied)
		switch {
		case err == nil && have != clean:
			t.Errorf("%s: opened", what)
		case err != nil && well:
			t.Errorf("%s: verify says that all is well", what)
		case err != nil:
			refused++
		}
	}
	for _, name := range []string{"occam.db-wal", "occam.db", "occam.journal0"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		for range cuts {
			copied := cloned(t, dir)
			at := random.Int64N(info.Size())
			must(t, os.Truncate(filepath.Join(copied, name), at))
			judge(fmt.Sprintf("%s cut at %d of %d", name, at, info.Size()), copied)
		}
		copied := cloned(t, dir)
		must(t, os.Remove(filepath.Join(copied, name)))
		judge(name+" deleted", copied)
	}
	rolledBack := cloned(t, old)
	copyFile(t, filepath.Join(dir, "occam.head"), filepath.Join(rolledBack, "occam.head"))
	_, err = store.Open(ctx, "sqlite:"+rolledBack, store.Options{})
	if !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("an old copy: %v", err)
	}
	t.Logf("%d of %d damaged copies refused, the others had lost nothing", refused, 3*cuts+3)
	s, err = store.Open(ctx, "sqlite:"+rolledBack, store.Options{AcceptRollback: true})
	must(t, err)
	defer s.Close()
	small(t, s, 1)
	report, err := s.Verify(ctx)
	if err != nil || !report.OK() || len(report.Remarks) != 1 || !strings.Contains(report.Remarks[0], "rollback accepted") {
		t.Errorf("after accepting: %+v, %v", report, err)
	}
}

// reopened returns what a store's ledger holds once it was opened and closed, in a copy of its folder.
func reopened(t testing.TB, dir string) (string, error) {
	copied := cloned(t, dir)
	s, err := store.Open(ctx, "sqlite:"+copied, store.Options{})
	if err != nil {
		return "", err
	}
	must(t, s.Close())
	return dump(t, copied), nil
}

// cloned copies a store's files into a new folder.
func cloned(t testing.TB, dir string) string {
	copied := t.TempDir()
	copyDir(t, dir, copied)
	return copied
}

// TestBackup copies a store that is being written to (F42).
func TestBackup(t *testing.T) {
	t.Parallel()
	s := openDir(t, t.TempDir(), store.Options{Durability: store.Normal})
	small(t, s, 50)
	hash, err := s.SaveModel(ctx, []byte("weights"))
	must(t, err)
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; running.Err() == nil; i++ {
			a := storetest.Paid(fmt.Sprint("busy", i), time.Now())
			if s.Intend(ctx, a) == nil {
				_ = s.Finish(ctx, storetest.Settle(a, 100))
			}
		}
	})
	dir := filepath.Join(t.TempDir(), "backup")
	var export bytes.Buffer
	for range 3 {
		must(t, s.Backup(ctx, dir))
		export.Reset()
		must(t, s.Export(ctx, &export))
		restored := openDir(t, dir, store.Options{})
		report, err := restored.Verify(ctx)
		if err != nil || !report.OK() || report.Attempts < 50 || len(report.Remarks) > 0 {
			t.Errorf("the backup: %+v, %v", report, err)
		}
		if content, err := restored.LoadModel(ctx, hash); err != nil || string(content) != "weights" {
			t.Errorf("the model: %q, %v", content, err)
		}
		must(t, restored.Close())
		must(t, os.RemoveAll(dir))
		imported := "sqlite:" + t.TempDir()
		must(t, store.Import(ctx, imported, store.Options{}, &export))
	}
	stop()
	group.Wait()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "occam.db"), nil, 0o600))
	if err := s.Backup(ctx, dir); err == nil {
		t.Error("a backup overwrote a database")
	}
}

// TestBadFiles opens what is no store.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	text := t.TempDir()
	must(t, os.WriteFile(filepath.Join(text, "occam.db"), bytes.Repeat([]byte("no database "), 1000), 0o600))
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for dsn, want := range map[string]string{
		"":                               "names no store",
		"mysql://u:secret@host/db":       "u:***@host",
		"sqlite:" + text:                 "no SQLite database",
		"sqlite:" + file + "/below":      "create the data folder",
		"postgres://u:secret@host/db":    "Options.Dir",
		"postgres://u:secret@host:x/db?": "",
	} {
		_, err := store.Open(ctx, dsn, store.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	used := t.TempDir()
	openDir(t, used, store.Options{})
	if _, err := store.Open(ctx, "sqlite:"+used, store.Options{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("a folder that is used: %v", err)
	}
	if _, err := store.Open(ctx, "sqlite:"+t.TempDir(), store.Options{Mode: store.ReadOnly}); err == nil {
		t.Error("reading opened a store that does not exist")
	}
}

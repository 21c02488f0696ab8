package store_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/store/storetest"
	"occam/internal/store/storetest/faultdisk"
)

// The test binary runs itself as the process that is killed.
const childEnv = "OCCAM_STORE_CHILD"

// A childJob is what the child is to do.
type childJob struct {
	DSN        string
	Dir        string
	Durability store.Durability
	Biller     string        // address
	KillAt     int64         // the call of the disk at which the child kills itself, 0: never
	SlowSync   time.Duration // of the journal
}

func TestMain(m *testing.M) {
	job := os.Getenv(childEnv)
	if job == "" {
		os.Exit(m.Run())
	}
	if err := runChild(job); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// runChild loads a ledger until it is killed.
func runChild(text string) error {
	var job childJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	opts := store.Options{Dir: job.Dir, Durability: job.Durability}
	if job.KillAt > 0 || job.SlowSync > 0 {
		disk, err := faultdisk.New()
		if err != nil {
			return err
		}
		var calls atomic.Int64
		disk.Ask(func(c faultdisk.Call) int32 {
			if c.Op == faultdisk.Sync && ofJournal(c) {
				time.Sleep(job.SlowSync)
			}
			if calls.Add(1) == job.KillAt {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return 0
		})
		opts = opts.WithDisk(disk)
	}
	s, err := store.Open(ctx, job.DSN, opts)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if job.Biller == "" {
		return s.Close()
	}
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() { childWorker(s, job.Biller) })
	}
	group.Wait()
	return nil
}

// childWorker is an app's request after the other: intent, call, outcome, answer.
func childWorker(s *store.Store, biller string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	ask := func(path, id string) (cost.Amount, error) {
		resp, err := client.Get(biller + path + "?id=" + id)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(string(text), 10, 64)
		return cost.Amount(n), err
	}
	for n := 0; ; n++ {
		a := storetest.Paid(store.NewID(time.Now()), time.Now())
		a.RequestID, a.CostHigh = "r-"+a.ID, 1_000_000
		if s.Intend(ctx, a) != nil {
			return
		}
		if n%10 == 7 {
			a.State = store.Void
			_ = s.Finish(ctx, a)
			continue
		}
		amount, err := ask("/bill", a.ID)
		if err != nil {
			return
		}
		if err := s.Finish(ctx, storetest.Settle(a, amount)); err != nil {
			return
		}
		if _, err := ask("/answer", a.ID); err != nil {
			return
		}
		if err := s.RecordFree(ctx, storetest.Local("f"+a.ID, time.Now())); err != nil {
			return
		}
	}
}

// serve puts the biller on loopback.
func (b *biller) serve(t testing.TB) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/bill", func(w http.ResponseWriter, r *http.Request) {
		a := storetest.Paid(r.FormValue("id"), time.Now())
		a.CostHigh = 1_000_000
		fmt.Fprint(w, int64(b.call(a)))
	})
	mux.HandleFunc("/answer", func(w http.ResponseWriter, r *http.Request) {
		b.answer(r.FormValue("id"))
		fmt.Fprint(w, 0)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// startChild starts a child and waits until its store is open. kill ends it; when it has died by itself, ready is false.
func startChild(t testing.TB, job childJob) (ready bool, kill func()) {
	t.Helper()
	text, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	return line == "ready\n", func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); errors.As(err, new(*exec.ExitError)) && cmd.ProcessState.ExitCode() == 1 {
			t.Errorf("the child failed: %s", stderr.String())
		}
	}
}

// kills is how many times the tests kill a child: few by default, more with OCCAM_KILLS.
func kills(t testing.TB, few int) int {
	if n, err := strconv.Atoi(os.Getenv("OCCAM_KILLS")); err == nil {
		return n
	}
	if testing.Short() {
		return min(few, 2)
	}
	return few
}

// TestKill kills a process under load again and again and compares its ledger with the bill (F01, F02).
func TestKill(t *testing.T) {
	t.Parallel()
	for name, durability := range map[string]store.Durability{"full": store.Full, "normal": store.Normal} {
		t.Run(name, func(t *testing.T) {
			killUnderLoad(t, "sqlite:"+t.TempDir(), store.Options{Durability: durability}, kills(t, 4), 0)
		})
	}
	t.Run("slow disk", func(t *testing.T) {
		killUnderLoad(t, "sqlite:"+t.TempDir(), store.Options{}, kills(t, 4), 120*time.Millisecond)
	})
}

func killUnderLoad(t *testing.T, dsn string, opts store.Options, times int, slow time.Duration) {
	t.Helper()
	b := newBiller()
	address := b.serve(t)
	random := rand.New(rand.NewPCG(1, uint64(times)))
	for range times {
		ready, kill := startChild(t, childJob{DSN: dsn, Dir: opts.Dir, Durability: opts.Durability, Biller: address, SlowSync: slow})
		if !ready {
			kill()
			t.Fatal("the child did not open its store")
		}
		time.Sleep(time.Duration(200+random.IntN(400))*time.Millisecond + 8*slow)
		kill()
	}
	began := time.Now()
	s, err := store.Open(ctx, dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	recovery := time.Since(began)
	if err := b.checkKilled(s); err != nil {
		t.Error(err)
	}
	c, err := s.Counts(ctx)
	t.Logf("%d kills: %d billed, %d answered; %d answered are missing, %d billed without an intent; ledger %+v, %v; recovery in %v", times,
		len(b.billed), len(b.answered), b.missing, b.without, c, err, recovery)
	if recovery > 10*time.Second {
		t.Errorf("open attempts were closed after %v", recovery)
	}
}

// checkKilled is check without the free rows, whose number the biller does not know.
func (b *biller) checkKilled(s *store.Store) error {
	c, err := s.Counts(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = c.Free
	return b.check(s)
}

// TestKillAtEachWrite kills the process at every write and sync of a migration (F03) and of its first commits.
func TestKillAtEachWrite(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a process for every write")
	}
	b := newBiller()
	address := b.serve(t)
	old := t.TempDir() // a database of the first version, with a history
	makeOld(t, old)
	step, limit := int64(7), int64(140)
	if os.Getenv("OCCAM_KILLS") != "" {
		step = 1
	}
	finished := false
	for at := int64(1); at <= limit && !finished; at += step {
		dir := t.TempDir()
		copyDir(t, old, dir)
		ready, kill := startChild(t, childJob{DSN: "sqlite:" + dir, Biller: address, KillAt: at})
		if ready {
			time.Sleep(20 * time.Millisecond)
			finished = at > limit/2
		}
		kill()
		s, err := store.Open(ctx, "sqlite:"+dir, store.Options{})
		if err != nil {
			t.Fatalf("killed at call %d: %v", at, err)
		}
		if r, ok, err := s.Request(ctx, "r-old"); err != nil || !ok || r.Attempts[0].Cost != 77 {
			t.Errorf("killed at call %d: a row is lost: %+v, %v", at, r, err)
		}
		if report, err := s.Verify(ctx); err != nil || !report.OK() {
			t.Errorf("killed at call %d: %q, %v", at, report.Problems, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

package batch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"occam/internal/sim"
	"occam/internal/specialist"
	"occam/internal/store"
)

// publishFile lets a model of a file answer every ticket.
func (o *office) publishFile(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	model, _, err := specialist.Decode(data)
	if err != nil {
		return err
	}
	return o.publish(model)
}

// A backfill of OCCAM_BACKFILL_LINES tickets, of which a trained specialist answers 19 of 20 and a simulated provider's batch the rest,
// is killed three times on its way. It prints how fast it was and the peak memory of the gateway, and fails where a line is lost,
// answered, billed or entered twice, where no progress is seen, or where memory grows beyond 400 MB.
func TestBackfillScale(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("OCCAM_BACKFILL_LINES"))
	if err != nil {
		t.Skip("set OCCAM_BACKFILL_LINES, to 100000 say (make bench-backfill)")
	}
	const every = 20
	p, url := provide(t, sim.Options{})
	dir, name := t.TempDir(), filepath.Join(t.TempDir(), "model.occam")
	if err := os.WriteFile(name, trained(t).Encode(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	env := childModel + "=" + name
	content := backfill(count, every)
	child, app := start(t, dir, url, "", env)
	began := time.Now()
	id := app.begin(content, "/v1/chat/completions")
	uploaded := time.Since(began)
	peak, down, kills, seen, readAt := 0, time.Duration(0), 0, map[float64]bool{}, time.Duration(0)
	for {
		b := app.get(id)
		read := b["occam"].(map[string]any)["read"].(float64)
		seen[read] = true
		if peak = max(peak, peakMB(child.Process.Pid)); read >= float64(count) && readAt == 0 {
			readAt = time.Since(began)
		}
		if b["status"] == Completed || b["status"] == Failed {
			break
		}
		if kills < 3 && read >= float64((kills+1)*count/4) {
			stopped := time.Now()
			_ = child.Process.Kill()
			_ = child.Wait()
			child, app = start(t, dir, url, "", env)
			down += time.Since(stopped)
			kills++
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(began)
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	good, bad := app.results(app.get(id))
	if len(good) != count || len(bad) != 0 || len(seen) < 10 || kills != 3 {
		t.Errorf("%d good, %d bad; progress was seen %d times; %d kills", len(good), len(bad), len(seen), kills)
	}
	t.Logf("simulated provider: %d lines (%d MB) in %.1f s, %.0f lines/s; upload %.1f s, read and answered after %.1f s; %d kills, %.1f s without a gateway; peak %d MB; %d steps of progress seen",
		count, len(content)>>20, took.Seconds(), float64(count)/(took-down).Seconds(), uploaded.Seconds(), readAt.Seconds(), kills, down.Seconds(), peak, len(seen))
	if peak > 400 {
		t.Errorf("the gateway took %d MB", peak)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	s, err := store.Open(context.Background(), "sqlite:"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	free := 0
	for _, a := range (&office{store: s}).reconcile(t, p) {
		if a.State == store.Free && a.Answered {
			free++
		}
	}
	if want := count - (count+every-1)/every; free != want || len(p.Bill()) != count-want {
		t.Errorf("%d free answers and %d billed lines, want %d and %d", free, len(p.Bill()), want, count-want)
	}
}

// peakMB is the most memory that a process has held, 0 where the system does not tell.
func peakMB(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	kb, _ := strconv.Atoi(string(bytes.Fields(append(after, " 0"...))[0]))
	return kb / 1024
}

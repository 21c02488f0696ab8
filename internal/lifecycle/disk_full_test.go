package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The database and the models share a disk that fills while a model is made: nothing of the run is seen, requests get their answers as
// before, and once there is room the run is repeated and the model goes live.
func TestDatabaseAndModelsOnAFullDisk(t *testing.T) {
	trains(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // the test's own mount
	filler := filepath.Join(dir, "filler")
	var runs, failed atomic.Int64
	b := &bench{t: t, dir: dir, setup: Setup{Task: colours()}, clock: noon}
	b.setup.Task.Auto, b.setup.Task.Audit = true, .3
	b.train = func(ctx context.Context, o TrainOptions) (*Trained, error) {
		trained, err := Train(ctx, o)
		if runs.Add(1) == 1 {
			fill(t, filler)
		}
		if _, statErr := os.Stat(filler); statErr == nil {
			failed.Add(1)
		}
		return trained, err
	}
	b.open()
	t.Cleanup(b.close)
	b.ask(500, nil)
	b.until("run on a full disk", func(s Status) bool {
		return strings.Contains(s.Training.Waiting, "could not be written") && !s.Training.Running
	})
	if s := b.status(); !strings.Contains(s.Training.Waiting, "disk is full") || !strings.Contains(s.Next, "disk is full") {
		t.Errorf("a person reads %q, %q", s.Training.Waiting, s.Next)
	}
	for range 20 { // the leader and the queues go on, whatever the disk takes
		b.ask(20, nil)
		b.pass(time.Second)
		time.Sleep(5 * time.Millisecond)
	}
	if s := b.status(); s.State != Observing || len(b.tiers()) > 0 {
		t.Errorf("while the disk is full: %+v", s.Record)
	}
	files, err := os.ReadDir(filepath.Join(dir, "models"))
	if len(files) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.until("repeated run", func(Status) bool { b.pass(time.Second); return runs.Load() > failed.Load() })
	b.askUntil("live model", nil, in(Live))
	if s := b.status(); strings.Contains(s.Training.Waiting, "full") {
		t.Errorf("in the end: %+v", s.Training)
	}
	b.crash() // what was written is whole
	if s := b.status(); s.State != Live || len(b.tiers()) != 1 {
		t.Errorf("after a restart: %+v", s.Record)
	}
}

// fill takes all room of a file's disk.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close() //nolint:errcheck // it is full
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

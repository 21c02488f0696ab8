package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"occam/internal/store"
)

// A disk that fills during training: no half-written model is seen, the run is reported and repeated, and requests get their
// answers as before.
func TestTheDiskFillsDuringTraining(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	folder := filepath.Join(b.dir, "models")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=8k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	defer syscall.Unmount(folder, syscall.MNT_DETACH) //nolint:errcheck // the test's own mount
	b.askUntil("report of a full disk", nil, func(s Status) bool { return strings.Contains(s.Training.Result, "no space left") })
	files, err := os.ReadDir(folder)
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if s := b.status(); s.State != Observing || len(b.tiers()) > 0 {
		t.Errorf("the task is %+v", s.Record)
	}
	if all, err := b.Models(t.Context(), "colours"); err != nil || len(all) > 0 {
		t.Errorf("models %+v, %v", all, err)
	}
	before := b.status().Examples.Examples
	b.ask(50, nil)
	b.until("examples while the disk is full", func(s Status) bool { b.pass(time.Second); return s.Examples.Examples >= before+50 })
	if err := syscall.Unmount(folder, 0); err != nil {
		t.Fatal(err)
	}
	b.pass(5 * time.Minute)
	b.askUntil("live model", nil, in(Live))
}

// A model file that is swapped while the server runs changes nothing: the model in memory answers. After a restart the swapped one
// is refused by its hash, and the last good one answers.
func TestASwappedModelFile(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	good := b.status().Lead
	b.askUntil("rows for a second model", nil, func(s Status) bool { return s.Examples.Uniform > 600 })
	swapped := secondModel(b)
	data, err := os.ReadFile(filepath.Join(b.dir, "models", good+".occam"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "models", swapped+".occam")
	if err := os.WriteFile(path, data, 0o600); err != nil { // a model, but not this one
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context()); err != nil || b.status().Lead != swapped || len(b.tiers()) == 0 {
		t.Errorf("while it runs: %v, %+v", err, b.status().Record)
	}
	b.crash()
	s := b.status()
	if s.State != Live || s.Lead != good || !strings.Contains(s.Reason, "hash") || len(b.tiers()) != 1 {
		t.Errorf("after a restart: %+v, tiers %+v", s.Record, b.tiers())
	}
}

// secondModel trains another model on what is stored, and puts it live as a person would.
func secondModel(b *bench) (hash string) {
	b.t.Helper()
	trained := trainColours(b.t, 1500, func(o *TrainOptions) { o.Refit, o.Teacher, o.PromptHash = false, "gpt-4o-2024-08-06", "p" })
	data, err := trained.encode()
	if err != nil {
		b.t.Fatal(err)
	}
	if hash, err = b.store.SaveModel(b.t.Context(), data); err != nil {
		b.t.Fatal(err)
	}
	row, err := modelRow("colours", hash, len(data), trained.Certificate, ModelReport{Origin: "trained", Specialist: trained.Model.Hash(), Reason: "another"})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.store.Update(b.t.Context(), func(tx *store.Tx) error { _, err := tx.Models().Add(row); return err }); err != nil {
		b.t.Fatal(err)
	}
	b.askUntil("second model live", nil, func(s Status) bool { return s.State == Live && s.Lead == hash })
	return hash
}

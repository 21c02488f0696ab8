package lifecycle

import (
	"context"
	"errors"
	"testing"

	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// benchWithModel is a bench whose configuration names a model, which is live at once.
func benchWithModel(t *testing.T, change func(*TrainOptions)) *bench {
	t.Helper()
	path := t.TempDir() + "/colours.occam"
	if err := trainColours(t, 1500, change).Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loaded.Close() })
	return newBench(t, func(s *Setup) { s.Model, s.Task.Auto = loaded, false })
}

// inside runs f where the controller's own work is done.
func (b *bench) inside(f func(ctx context.Context, s *subject)) {
	b.t.Helper()
	if err := b.inLoop(b.t.Context(), func(ctx context.Context) { f(ctx, b.subjects["colours"]) }); err != nil {
		b.t.Fatal(err)
	}
}

// A replica that does not lead takes its model out when the leader's evidence says so, though no step was taken.
func TestAFollowerObeysTheLeadersEvidence(t *testing.T) {
	trains(t)
	b := benchWithModel(t, nil)
	var seen []Deployment
	follower, err := Open(t.Context(), Options{Store: b.store, Tasks: []Setup{{Task: colours()}}, Now: b.now,
		Publish: func(d []Deployment) error { seen = d; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	follower.leading = false
	defer follower.Close()
	if seen[0].Tiers[0].Mode != cascade.Live {
		t.Fatalf("%+v", seen)
	}
	b.inside(func(ctx context.Context, s *subject) { // the evidence alone: what is decided of it comes later, or never
		g := s.held[s.record.Lead].gauge
		for !g.Monitor.Observe(drift.Wrong) {
		}
		b.elsewhere(ctx, s.held[s.record.Lead].evidenceOf(""), g)
	})
	follower.follow(t.Context())
	follower.republish()
	if got := seen[0].Tiers[0].Mode; got != cascade.Suspended {
		t.Errorf("the follower's model is %s", got)
	}
}

// elsewhere writes evidence as another process would.
func (b *bench) elsewhere(ctx context.Context, name string, g *gauge) {
	b.t.Helper()
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindGauge)
		have, err := records.Get(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if have.Value, err = g.encode(); err != nil {
			return err
		}
		have.Name = name
		return records.Put(have)
	})
	if err != nil {
		b.t.Error(err)
	}
}

// A former leader whose last write came late stops neither what is written after it, nor a withdrawal.
func TestALateWriteOfEvidenceStopsNothing(t *testing.T) {
	trains(t)
	b := benchWithModel(t, nil)
	late := func(f func(g *gauge)) {
		b.inside(func(ctx context.Context, s *subject) {
			g := s.held[s.record.Lead].gauge
			b.elsewhere(ctx, s.held[s.record.Lead].evidenceOf(""), g)
			f(g)
			g.dirty = true
		})
	}
	late(func(g *gauge) { g.Total++ })
	before := b.document(kindGauge, "colours/"+b.status().Lead)
	b.until("evidence that is written", func(Status) bool { b.audit(true); return b.document(kindGauge, "colours/"+b.status().Lead) != before })
	late(func(g *gauge) {
		for !g.Monitor.Observe(drift.Wrong) {
		}
	})
	b.until("a withdrawal", in(Suspended))
}

// A command that a follower takes gives way to what the leader has seen meanwhile.
func TestACommandToAFollowerKeepsTheLeadersEvidence(t *testing.T) {
	trains(t)
	b := benchWithModel(t, nil)
	follower, err := Open(t.Context(), Options{Store: b.store, Tasks: []Setup{{Task: colours()}}, Now: b.now, Publish: func([]Deployment) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	follower.leading = false
	defer follower.Close()
	s := follower.subjects["colours"]
	mine := s.held[s.record.Lead].gauge
	b.inside(func(ctx context.Context, s *subject) { // twice: the first may be what the follower read
		h := s.held[s.record.Lead]
		for range 2 {
			h.gauge.Total += 50
			h.gauge.dirty = true
			b.flush(ctx)
		}
	})
	if err := follower.obey(t.Context(), s, RollBack, "", "ann", s.version); !errors.Is(err, ErrStale) {
		t.Fatalf("obeyed on old evidence: %v", err)
	}
	if err := follower.reloadGauges(t.Context(), s); err != nil || mine.Total != 100 {
		t.Errorf("%d of 100 comparisons are known: %v", mine.Total, err)
	}
	if err := follower.obey(t.Context(), s, RollBack, "", "ann", s.version); err != nil || s.record.State != Suspended {
		t.Errorf("%v, %+v", err, s.record)
	}
}

// Audits are frequent after an alarm until enough of them were made, and then as usual, whatever else happens.
func TestAuditsCalmDown(t *testing.T) {
	trains(t)
	b := benchWithModel(t, nil)
	b.inside(func(_ context.Context, s *subject) { s.record.AlarmAt = b.now() })
	b.until("more audits", func(Status) bool { return b.auditShare() > b.setup.Task.Audit })
	b.inside(func(_ context.Context, s *subject) { s.held[s.record.Lead].gauge.Total = calmAudits })
	b.until("fewer audits", func(Status) bool { return b.auditShare() == b.setup.Task.Audit })
}

func (b *bench) auditShare() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.published[0].Task.Audit
}

// Two tasks that name the same model file have evidence of their own each.
func TestTwoTasksWithOneModel(t *testing.T) {
	trains(t)
	path := t.TempDir() + "/colours.occam"
	if err := trainColours(t, 900, nil).Save(path); err != nil {
		t.Fatal(err)
	}
	other := colours()
	other.Name = "other"
	var tasks []Setup
	for _, of := range []*task.Task{colours(), other} {
		loaded, err := LoadModel(path)
		if err != nil {
			t.Fatal(err)
		}
		defer loaded.Close()
		tasks = append(tasks, Setup{Task: of, Model: loaded})
	}
	c := quietController(t, func(o *Options) { o.Tasks = tasks })
	counts := map[string]int{}
	for i := range 30 {
		s := c.subjects[tasks[min(1, i%3)].Task.Name]
		counts[s.task.Name]++
		c.judge(t.Context(), &Comparison{Task: s.task.Name, Specialist: s.held[s.record.Lead].Model.Hash(), Answered: true, Agreed: true})
		c.flush(t.Context())
	}
	again, err := Open(t.Context(), c.opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, setup := range tasks {
		s := again.subjects[setup.Task.Name]
		if got := s.held[s.record.Lead].gauge.Total; got != counts[s.task.Name] || s.record.State != Live {
			t.Errorf("task %s is %s, and has evidence of %d of %d comparisons", setup.Task.Name, s.record.State, got, counts[s.task.Name])
		}
	}
}

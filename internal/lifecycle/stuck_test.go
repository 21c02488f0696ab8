package lifecycle

import (
	"context"
	"strings"
	"testing"
	"time"

	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// A step that cannot be written leaves the counts as they were: what a shadow was compared with does not make a canary live.
func TestAStepThatCannotBeWrittenChangesNoEvidence(t *testing.T) {
	g, err := newGauge(certificate("gpt-4o"), drift.Baseline{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	g.Stage = Shadow
	for range 100 {
		if _, err := g.observe(drift.Right, .05); err != nil {
			t.Fatal(err)
		}
	}
	s := &subject{record: Record{State: Shadow, Lead: "m"}, held: map[string]*held{"m": {hash: "m", gauge: g}}}
	undo, err := s.enter(Record{State: Canary, Lead: "m"})
	if err != nil || g.Stage != Canary || g.Compared != 0 {
		t.Fatalf("entered: %+v, %v", g, err)
	}
	undo()
	if g.Stage != Shadow || g.Compared != 100 {
		t.Errorf("taken back: %s, %d comparisons", g.Stage, g.Compared)
	}
	s.record.State = Suspended
	for range 200 {
		_, _ = g.observe(drift.Wrong, .05)
	}
	if undo, err = s.enter(Record{State: Shadow, Lead: "m"}); err != nil || g.evidence().Alarm != "" {
		t.Fatalf("tried again by hand: %+v, %v", g.evidence(), err)
	}
	if undo(); g.evidence().Alarm == "" {
		t.Error("the alarm is forgotten although the step was not written")
	}
}

// A shadow whose certificate accepts nothing that comes, or that nothing confirms, does not keep the task from learning: nobody would
// ever see it end. One that was compared often enough waits for a person, and training with it.
func TestAShadowWithoutComparisonsDoesNotStopTraining(t *testing.T) {
	trains(t)
	data, err := trainColours(t, 900, nil).encode()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := decodeModel(data)
	if err != nil || loaded.Certificate == nil {
		t.Fatal(loaded, err)
	}
	h := &held{LoadedModel: loaded, hash: "m"}
	if h.gauge, err = newGauge(loaded.Certificate, loaded.Baseline, -1); err != nil {
		t.Fatal(err)
	}
	target := colours()
	target.Target = loaded.Task.Target
	s := &subject{task: target, record: Record{State: Shadow, Lead: "m"}, held: map[string]*held{"m": h}}
	if void := s.void(h); void != "" {
		t.Fatal(void)
	}
	p, counts := Progress{At: noon, Rows: 1000}, store.ExampleCount{Examples: 1600, Uniform: 1600}
	if reason, due := WantsTraining(s.untried(), s.task, p, counts, noon.Add(time.Hour)); !due {
		t.Errorf("a shadow with nothing to compare: %s", reason)
	}
	for range 2 * shadowNeeded {
		if _, err := h.gauge.observe(drift.Right, .05); err != nil {
			t.Fatal(err)
		}
	}
	if reason, due := WantsTraining(s.untried(), s.task, p, counts, noon.Add(time.Hour)); due && s.evidence("m").Unconfirmed == "" {
		t.Errorf("a shadow that did what it had to: %s", reason)
	}
}

// Labels from before an alarm calibrate nothing, so the next run waits for as many as a first one, whatever the last run had.
func TestTrainingAfterTheTeacherChanged(t *testing.T) {
	p := Progress{At: noon, Rows: 90_000, Looks: 3}
	for _, state := range []State{Observing, Suspended, Live} {
		r := Record{State: state, AlarmAt: noon.Add(time.Hour)}
		if state != Observing {
			r.Lead = "m"
		}
		need := firstRun(task.DefaultTarget)
		if reason, due := WantsTraining(r, colours(), p, store.ExampleCount{Uniform: need - 1}, noon.Add(2*time.Hour)); due {
			t.Errorf("%s: %s", state, reason)
		}
		if reason, due := WantsTraining(r, colours(), p, store.ExampleCount{Uniform: firstRun(colours().Target)}, noon.Add(2*time.Hour)); !due {
			t.Errorf("%s: %s", state, reason)
		}
	}
}

// A model that must be confirmed beside the generalist cannot be tried beside a live one: there it would wait for ever.
func TestACrossFittedModelIsNotTriedBesideALiveOne(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	live := b.status().Lead
	trained := trainColours(t, 900, func(o *TrainOptions) { o.Refit, o.Teacher, o.PromptHash = true, "gpt-4o-2024-08-06", "p" })
	data, err := trained.encode()
	if err != nil || trained.Certificate == nil {
		t.Fatal(trained.Shortfall, err)
	}
	hash, err := b.store.SaveModel(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	row, err := modelRow("colours", hash, len(data), trained.Certificate, ModelReport{Origin: "trained", Specialist: trained.Model.Hash(), Reason: "certified", Unrivalled: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Models().Add(row); return err }); err != nil {
		t.Fatal(err)
	}
	b.until("the refusal", func(s Status) bool { b.pass(time.Second); _ = b.Refresh(context.Background()); return s.Seen == hash })
	if s := b.status(); s.Lead != live || s.State != Live || !strings.Contains(s.Reason, "not compared") {
		t.Errorf("%+v", s.Record)
	}
	_, err = b.Do(t.Context(), "colours", Promote, hash, "ann", b.status().Version)
	if err == nil || !strings.Contains(err.Error(), "cross-fitted") || !strings.Contains(err.Error(), "rollback") {
		t.Errorf("promoted by hand: %v", err)
	}
	if _, err := b.Do(t.Context(), "colours", RollBack, "", "ann", b.status().Version); err != nil {
		t.Fatal(err)
	}
	s, err := b.Do(t.Context(), "colours", Promote, hash, "ann", b.status().Version)
	if err != nil || s.Lead != hash || s.State != Shadow {
		t.Errorf("after the live one was rolled back: %v, %+v", err, s.Record)
	}
}

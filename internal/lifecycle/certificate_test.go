package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// notices lists what the ledger's chain says happened to certificates.
func (b *bench) notices() (kinds []string) {
	b.t.Helper()
	all, err := b.store.Notices(b.t.Context(), "colours")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range all {
		if len(n.Hash) != 64 || !strings.HasPrefix(n.Subject, "colours@") {
			b.t.Errorf("notice %+v", n)
		}
		kinds = append(kinds, n.Kind)
	}
	return kinds
}

// audit puts one audited answer of the live model before the controller and waits until it was looked at.
func (b *bench) audit(agreed bool) {
	b.t.Helper()
	b.asked++
	b.Compare(Comparison{RequestID: fmt.Sprint("audit", b.asked), At: b.now(), Task: "colours", Specialist: b.tiers()[0].Identity.Specialist,
		Input: fmt.Sprint("thing ", b.asked), Values: []task.Value{task.String("red"), task.Null}, Predicted: task.Prediction{Values: []task.Value{task.String("red"), task.Null}},
		Model: "gpt-4o-2024-08-06", PromptHash: "p", Answered: true, Accepted: true, Agreed: agreed})
	for len(b.comparisons) > 0 {
		_ = b.inLoop(b.t.Context(), func(context.Context) {})
	}
	_ = b.inLoop(b.t.Context(), func(context.Context) {})
}

// An alarm takes the model out before the next request, tells why, and is entered in the chain; the app notices nothing, because
// somebody answers every request.
func TestAnAlarmSuspendsBeforeTheNextRequest(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	answered := func() bool { return len(b.tiers()) > 0 && b.tiers()[0].Mode == cascade.Live }
	after, raised := 0, false
	for range 2000 {
		if answered() && raised {
			after++ // a request that the model answered although the alarm had been raised
		}
		if raised {
			break
		}
		b.audit(false)
		s := b.status()
		raised = s.State == Suspended || len(s.Models) > 0 && s.Models[0].Evidence != nil && s.Models[0].Evidence.Alarm
	}
	if !raised || after > 0 || answered() {
		t.Fatalf("raised %v; %d requests were answered after it; tiers %+v", raised, after, b.tiers())
	}
	s := b.status()
	if s.State != Suspended || !strings.Contains(s.Reason, "error rate") || s.AlarmAt.IsZero() {
		t.Errorf("status %+v", s.Record)
	}
	b.mu.Lock()
	if share := b.published[0].Task.Audit; share <= b.setup.Task.Audit {
		t.Errorf("after the alarm %v of the answers are audited, as before", share)
	}
	b.mu.Unlock()
	if got := strings.Join(b.notices(), ", "); got != "certificate issued, certificate suspended" {
		t.Errorf("the chain says %s", got)
	}
	// A person judges the alarm false: that is in the chain too, and audits are more frequent than before.
	if _, err := b.Do(t.Context(), "colours", Promote, "", "ann", s.Version); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.notices(), ", "); !strings.HasSuffix(got, "certificate restored") {
		t.Errorf("the chain says %s", got)
	}
	report, err := b.store.Verify(t.Context())
	if err != nil || !report.OK() || len(report.Remarks) > 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// The four changes that void a certificate. Another version of the teacher:
func TestAnotherTeacherVersionVoids(t *testing.T) {
	voidedBy(t, "gpt-4o-2024-11-20", "p", "teacher")
}

// Another prompt:
func TestAnotherPromptVoids(t *testing.T) { voidedBy(t, "gpt-4o-2024-08-06", "q", "prompt") }

func voidedBy(t *testing.T, model, prompt, what string) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	for i := range teacherRun {
		b.Example(Answer{RequestID: fmt.Sprint("new", i), At: b.now(), Task: "colours", Input: "a red thing",
			Values: []task.Value{task.String("red"), task.Null}, Model: model, PromptHash: prompt})
	}
	b.until("suspension", in(Suspended))
	if s := b.status(); !strings.Contains(s.Reason, "the "+what+" changed") || b.tiers()[0].Mode != cascade.Suspended {
		t.Errorf("reason %q", s.Reason)
	}
	if got := b.notices(); got[len(got)-1] != store.CertificateVoided {
		t.Errorf("the chain says %v", got)
	}
	if s := b.status(); s.AlarmAt.IsZero() {
		t.Error("labels of the former teacher go on calibrating")
	}
}

// Other weights, and another score: a file whose certificate speaks of something else than its weights is refused.
func TestOtherWeightsVoid(t *testing.T) {
	refusedWith(t, "specialist", func(c *calibration.Certificate) { c.Specialist = strings.Repeat("0", 64) })
}

func TestAnotherScoreVoids(t *testing.T) {
	refusedWith(t, "score definition", func(c *calibration.Certificate) { c.Score = "margin, version 0" })
}

// A tier without a certificate, in a file that somebody made, is refused; it ended the server.
func TestAPlannedTierWithoutACertificate(t *testing.T) {
	trains(t)
	trained := trainColours(t, 900, nil)
	trained.Tiers = []PlannedTier{{Name: "mini", Provider: "openai", Upstream: "gpt-4o-mini"}}
	data, err := trained.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeModel(data); err == nil || !strings.Contains(err.Error(), "mini has no certificate") {
		t.Errorf("read: %v", err)
	}
}

func refusedWith(t *testing.T, what string, change func(*calibration.Certificate)) {
	trains(t)
	trained := trainColours(t, 900, nil)
	path := t.TempDir() + "/m.occam"
	changed := *trained.Certificate
	change(&changed)
	trained.Certificate = &changed
	if err := trained.Save(path); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadModel(path); err == nil || !strings.Contains(err.Error(), "the "+what+" changed") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

// A certificate names where its labels come from, has a statement for each field, and shares its failure probability with the
// tiers that may follow.
func TestWhatACertificateSays(t *testing.T) {
	trains(t)
	alone := trainColours(t, 900, func(o *TrainOptions) { o.Teacher, o.PromptHash = "gpt-4o-2024-08-06", "p" })
	c := alone.Certificate
	if len(c.Alone) != 2 || c.Alone[0].Field != "colour" || !c.Alone[0].Certified || c.Alone[0].Upper > c.Risk || len(c.Fields) != 2 || len(c.Classes) != 3 {
		t.Errorf("fields %+v, classes %+v", c.Alone, c.Classes)
	}
	if len(c.Sources) != 1 || c.Sources[0].Name != "import" || c.Sources[0].Rows != c.N {
		t.Errorf("sources %+v", c.Sources)
	}
	three := trainColours(t, 900, func(o *TrainOptions) { o.Task.Tiers = []string{"linear", "a", "b"} })
	if got, want := three.Certificate.Level, c.Level/7; got < want*.999 || got > want*1.001 {
		t.Errorf("of three tiers the first may fail with %v, want a seventh of %v", got, c.Level)
	}
}

// With people's labels on gold rows agreement and accuracy stand side by side, and whether the generalist is better on what the
// specialist defers is said.
func TestAgreementBesideAccuracy(t *testing.T) {
	trains(t)
	rows := colourRows(0, 900)
	for i := range rows {
		rows[i].Source = "gpt-4o-2024-08-06"
	}
	gold := colourRows(5000, 200)
	said := map[string]task.Output{}
	for i, e := range gold {
		said[e.ID] = e.Labels
		if i%10 == 0 { // the teacher is wrong in a tenth
			said[e.ID] = labels("green")
		}
	}
	trained := trainColours(t, 900, func(o *TrainOptions) {
		o.Examples, o.Gold, o.Said, o.Teacher, o.PromptHash = rows, gold, said, "gpt-4o-2024-08-06", "p"
	})
	truth := trained.Truth
	if truth == nil || truth.Judged < 100 || truth.Rows <= truth.Judged || truth.TeacherLow <= 0 || truth.TeacherTop < .05 || truth.High >= .2 || trained.Certificate.Truth != truth {
		t.Fatalf("truth %+v", truth)
	}
	if text, err := json.Marshal(trained.Certificate); err != nil || !strings.Contains(string(text), `"assumes":"`+calibration.ChosenRegardless) {
		t.Errorf("the certificate's JSON does not say what its statement about people's labels assumes: %s, %v", text, err)
	}
	if truth.Differ <= truth.Low { // the teacher's mistakes look like disagreement
		t.Errorf("differs %v, truly wrong from %v", truth.Differ, truth.Low)
	}
}

// Rare classes have a detector of their own: it hears of all audits of them, the main one of none that was drawn for them alone.
func TestRareClassesHaveTheirOwnAlarm(t *testing.T) {
	c := certificate("gpt-4o")
	c.Accepted = 1000
	c.Classes = []calibration.Row{{Name: "red", Accepted: 600, Note: calibration.Certified}, {Name: "green", Accepted: 350, Note: calibration.Overall},
		{Name: "blue", Accepted: 50, Errors: 2, Note: calibration.Overall}}
	g, err := newGauge(c, drift.Baseline{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	names, limit := rareClasses(c)
	if len(names) != 1 || names[0] != "blue" || limit < .04 || limit > .15 {
		t.Fatalf("%v, at most %v", names, limit)
	}
	for i := range 40 {
		if g.observeRare(drift.Wrong) != (i > 0 && g.Rare.Status().AlarmAt == i+1) {
			t.Fatal("raised twice or unnoticed")
		}
	}
	s := g.stratum(c, colours().Fields, .05)
	if !s.Barred || !s.Values["blue"] || s.Values["green"] || s.Audit != .05 || g.evidence().Alarm != "" || g.Total != 0 {
		t.Errorf("stratum %+v, main evidence %+v", s, g.evidence())
	}
	data, err := g.encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := decodeGauge(data); err != nil || !again.Rare.Status().Alarm {
		t.Errorf("after a restart: %v", err)
	}
	if (&Comparison{Answered: true, Extra: true}).counts(Record{State: Live}) {
		t.Error("an audit that was drawn for a rare class is counted as part of the uniform sample")
	}
}

// benchWithMini is a bench whose models have a tier after the specialist, and rare classes.
func benchWithMini(t *testing.T) *bench {
	t.Helper()
	b := newBenchWith(t, func(ctx context.Context, o TrainOptions) (*Trained, error) {
		trained, err := Train(ctx, o)
		if err != nil || trained.Certificate == nil {
			return trained, err
		}
		c := *trained.Certificate
		c.Classes = []calibration.Row{{Name: "red", Accepted: c.Accepted - 20, Note: calibration.Certified}, {Name: "blue", Accepted: 20, Note: calibration.Overall}}
		mini := PlannedTier{Name: "mini", Provider: "openai", Upstream: "gpt-4o-mini", Version: "mini-1", Prompt: askedWith(o.Task)}
		second := c
		second.Tier, second.Specialist, second.Score, second.Classes = "mini", mini.hash(), cascade.ScoreConstant, nil
		mini.Certificate = &second
		trained.Certificate, trained.Tiers, trained.after = &c, []PlannedTier{mini}, nil
		return trained, nil
	}, nil)
	return b
}

// A tier after the specialist whose model moved is voided in the chain, once, and told of again when it is back; the rest of its
// plan goes on answering.
func TestAVoidTierIsEnteredInTheChain(t *testing.T) {
	trains(t)
	var elsewhere atomic.Bool
	b := benchWithMini(t)
	b.close()
	b.model = func(string) (Source, bool) {
		return Source{Provider: map[bool]string{true: "azure", false: "openai"}[elsewhere.Load()], Upstream: "gpt-4o-mini", Priced: true}, true
	}
	b.open()
	b.askUntil("live model", nil, in(Live))
	if tiers := b.tiers(); len(tiers) != 2 || tiers[1].Mode != cascade.Live {
		t.Fatalf("tiers %+v", tiers)
	}
	issued := len(b.notices())
	now := func(mode cascade.Mode, want ...string) {
		t.Helper()
		for range 3 { // told once, whatever is looked at again
			if err := b.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if tiers := b.tiers(); tiers[0].Mode != cascade.Live || tiers[1].Mode != mode {
			t.Errorf("the specialist is %s, the tier after it %s, want live and %s", tiers[0].Mode, tiers[1].Mode, mode)
		}
		if got := b.notices()[issued:]; !slices.Equal(got, want) {
			t.Errorf("the chain says %v, want %v", got, want)
		}
	}
	elsewhere.Store(true)
	now(cascade.Suspended, store.CertificateVoided)
	all, err := b.store.Notices(t.Context(), "colours")
	if err != nil || !strings.HasSuffix(all[len(all)-1].Subject, "/mini") || !strings.Contains(all[len(all)-1].Text, "the specialist changed") {
		t.Errorf("notice %+v, %v", all[len(all)-1], err)
	}
	b.close()
	b.open()
	now(cascade.Suspended, store.CertificateVoided)
	elsewhere.Store(false)
	now(cascade.Live, store.CertificateVoided, store.CertificateRestored)
	report, err := b.store.Verify(t.Context())
	if err != nil || !report.OK() || len(report.Remarks) > 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// Rare classes that a tier may answer no more are named in the chain, once.
func TestBarredClassesAreEnteredInTheChain(t *testing.T) {
	trains(t)
	b := benchWithMini(t)
	b.askUntil("live model", nil, in(Live))
	before := len(b.notices())
	for i := range 60 {
		b.Compare(Comparison{RequestID: fmt.Sprint("rare", i), At: b.now(), Task: "colours", Specialist: b.tiers()[0].Identity.Specialist, Input: fmt.Sprint("thing ", i),
			Values: []task.Value{task.String("red"), task.Null}, Predicted: task.Prediction{Values: []task.Value{task.String("blue"), task.Null}},
			Model: "gpt-4o-2024-08-06", PromptHash: "p", Answered: true, Accepted: true, Rare: true, Extra: true})
	}
	b.until("the rare classes to be barred", func(Status) bool { return b.tiers()[0].Rare != nil && b.tiers()[0].Rare.Barred })
	_ = b.inLoop(t.Context(), func(context.Context) {})
	all, err := b.store.Notices(t.Context(), "colours")
	if err != nil || len(all) != before+1 {
		t.Fatalf("%+v, %v", all, err)
	}
	n := all[before]
	if n.Kind != store.ClassesBarred || strings.Contains(n.Subject, "/") || !strings.Contains(n.Text, "in blue") {
		t.Errorf("notice %+v", n)
	}
	if b.status().State != Live || b.tiers()[0].Mode != cascade.Live {
		t.Errorf("status %+v", b.status().Record)
	}
	if report, err := b.store.Verify(t.Context()); err != nil || !report.OK() || len(report.Remarks) > 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// The first answer after a start may be that of another provider, which stood in for a moment.
func TestAFallbackAfterAStartIsNoOtherTeacher(t *testing.T) {
	var who teacher
	who.answered("fallback", "p")
	for i := range 3 * teacherRun {
		who.answered("gpt-4o", "p")
		if who.settled() && who.model != "gpt-4o" {
			t.Fatalf("after %d answers by gpt-4o, %s is taken for the generalist", i+1, who.model)
		}
	}
	if !who.settled() {
		t.Error("nobody is known to answer")
	}
}

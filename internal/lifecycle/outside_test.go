package lifecycle

import (
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/drift"
)

// The labels change and no request carries a schema: what the generalist says now is outside the task's. That is seen, and the
// model is stopped, though not one audit of what changed could be compared.
func TestLabelsThatLeaveTheSchema(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	if s := b.status(); s.Outside.Answers < 300 || s.Outside.Outside != 0 {
		t.Errorf("while it learned: %+v", s.Outside)
	}
	renamed := func(colour string) string {
		return map[string]string{"red": "vermilion", "green": "green", "blue": "blue"}[colour]
	}
	usual, raised := b.status().Audit, 0.0
	b.askUntil("alarm", renamed, func(s Status) bool {
		if e := s.Models[0].Evidence; s.State == Live && e != nil && len(e.Warnings) > 0 {
			raised = max(raised, s.Audit)
		}
		return s.State == Suspended
	})
	s := b.status()
	if !strings.Contains(s.Reason, "error rate") || s.AlarmAt.IsZero() {
		t.Errorf("%+v", s.Record)
	}
	warned := false
	for _, w := range s.Models[0].Evidence.Warnings {
		warned = warned || w.Sign == outsideSign && w.Usual == 0 && w.Now > 0
	}
	if !warned || raised <= usual {
		t.Errorf("warnings %+v; audits rose from %v to %v", s.Models[0].Evidence.Warnings, usual, raised)
	}
	before := s.Training.Looks
	b.askUntil("word that the schema does not fit", renamed, func(s Status) bool { return strings.Contains(s.Training.Waiting, "a schema that fits") })
	if s := b.status(); s.Training.Looks != before || s.Outside.Outside == 0 || s.Outside.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	counted := b.status().Outside
	b.until("write", func(Status) bool { return strings.Contains(b.document(kindOutside, "colours"), `"outside":`) })
	b.crash()
	if after := b.status().Outside; after.Answers < counted.Answers || !after.Since.Equal(counted.Since) {
		t.Errorf("before a crash %+v, after it %+v", counted, after)
	}
}

// A share of answers outside the schema that is as it was at certification is no news, however long it lasts; a rise is.
func TestTheShareOutsideTheSchema(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, tc := range []struct {
		known OutsideCount
		rate  float64
		news  bool
	}{
		{OutsideCount{Answers: 1000, Outside: 40}, .04, false},
		{OutsideCount{Answers: 1000, Outside: 40}, .15, true},
		{OutsideCount{Answers: 5000}, .004, false},
		{OutsideCount{Answers: 5000}, .05, true},
		{OutsideCount{}, .015, false},
		{OutsideCount{}, .2, true},
	} {
		w, err := tc.known.watch(.05)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for i := 1; i <= 5000 && at == 0; i++ {
			if w.observe(r.Float64() < tc.rate) {
				at = i
			}
		}
		if (at > 0) != tc.news || at > 1000 || w.stands() != tc.news {
			t.Errorf("%+v, then %v: noticed at %d", tc.known, tc.rate, at)
		}
	}
	for n, want := range map[OutsideCount]bool{{Answers: 99, Outside: 99}: false, {Answers: 200, Outside: 20}: false, {Answers: 200, Outside: 60}: true} {
		if got := n.obstacle() != ""; got != want {
			t.Errorf("%+v bars training: %v", n, got)
		}
	}
}

// Before the warning an answer outside the schema says nothing; after it, it is a wrong answer of the model, and a gauge that was
// stored remembers.
func TestAnAuditOutsideTheSchema(t *testing.T) {
	g, err := newGauge(certificate("gpt-4o"), drift.Baseline{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if g.Outside, err = (OutsideCount{Answers: 1000}).watch(.05); err != nil {
		t.Fatal(err)
	}
	data, err := g.encode()
	if err != nil {
		t.Fatal(err)
	}
	old, err := decodeGauge([]byte(strings.Replace(string(data), `"outside"`, `"unknown"`, 1)))
	if err != nil || old.Outside.stands() || old.Outside.observe(true) {
		t.Errorf("a gauge of an older program: %v, %+v", err, old)
	}
	for range 20 {
		g.Outside.observe(true)
	}
	if data, err = g.encode(); err != nil {
		t.Fatal(err)
	}
	again, err := decodeGauge(data)
	if err != nil || !again.Outside.stands() || len(again.warnings()) != 1 || again.warnings()[0].At == 0 {
		t.Fatalf("%v, %+v", err, again.warnings())
	}
	if err := again.restart(); err != nil || again.Outside.stands() || len(again.warnings()) != 0 {
		t.Errorf("a person judged it false: %v, %+v", err, again.warnings())
	}
}

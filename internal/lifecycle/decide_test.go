package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"occam/internal/cascade"
)

// legal is every change of state there may be, as docs/lifecycle.md draws it. The same state again is a remark: a model
// refused, an incumbent withdrawn, a pause.
var legal = map[State][]State{
	Observing: {Candidate},
	Candidate: {Shadow, Canary, Live, Observing},
	Shadow:    {Canary, Candidate, Observing, Live},
	Canary:    {Live, Suspended},
	Live:      {Candidate, Suspended},
	Suspended: {Candidate, Shadow, Live},
}

var models = []string{"", "aaaaaaaa11", "bbbbbbbb22", "cccccccc33"}

func drawEvidence(t *rapid.T, label string) Evidence {
	e := Evidence{Compared: rapid.IntRange(0, 300).Draw(t, label+" compared"), Risk: .03}
	e.Disagreed = rapid.IntRange(0, e.Compared).Draw(t, label+" disagreed")
	if rapid.Bool().Draw(t, label+" few") {
		e.Disagreed = min(e.Disagreed, 2)
	}
	e.Void = rapid.SampledFrom([]string{"", "", "", "other weights"}).Draw(t, label+" void")
	e.Moved = e.Void != "" && rapid.Bool().Draw(t, label+" moved")
	e.Unconfirmed = rapid.SampledFrom([]string{"", "", "cross-fitted"}).Draw(t, label+" unconfirmed")
	e.Alarm = rapid.SampledFrom([]string{"", "", "", "errors above the promise"}).Draw(t, label+" alarm")
	return e
}

func drawFacts(t *rapid.T) Facts {
	f := Facts{
		Now: time.Unix(rapid.Int64Range(1, 1e6).Draw(t, "now"), 0), Auto: rapid.Bool().Draw(t, "auto"),
		Lead: drawEvidence(t, "lead"), Incumbent: drawEvidence(t, "incumbent"),
	}
	if fresh := rapid.SampledFrom(models).Draw(t, "fresh"); fresh != "" {
		f.Fresh = &Contender{Model: fresh, Refusal: rapid.SampledFrom([]string{"", "worse"}).Draw(t, "refusal"), Reason: "it is new",
			Unrivalled: rapid.Bool().Draw(t, "unrivalled")}
	}
	return f
}

// walk takes a record through random steps, of occam and of people, and checks each.
func walk(t *rapid.T, check func(t *rapid.T, before, after Record, f Facts, c Command)) {
	r := Record{State: Observing}
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		f, before := drawFacts(t), r
		if c := rapid.SampledFrom([]Command{"", "", Promote, RollBack, Pause, Resume}).Draw(t, "command"); c != "" {
			after, err := Obey(r, f, drawEvidence(t, "previous"), c)
			if err != nil {
				if after != r {
					t.Fatalf("a refused %s changed the record: %+v, then %+v", c, r, after)
				}
				continue
			}
			r = after
			check(t, before, r, f, c)
			continue
		}
		after, moved := Decide(r, f)
		if !moved && after != r {
			t.Fatalf("the record changed without a step: %+v, then %+v", r, after)
		}
		if r = after; moved {
			check(t, before, r, f, "")
		}
	}
}

func TestEveryStepIsLegalAndExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk(t, func(t *rapid.T, before, after Record, _ Facts, c Command) {
			if before.State != after.State && !slices.Contains(legal[before.State], after.State) {
				t.Fatalf("%s → %s is not legal (%q): %s", before.State, after.State, c, after.Reason)
			}
			if after == before || after.Reason == "" {
				t.Fatalf("a step that changes or explains nothing: %+v, then %+v", before, after)
			}
			if (after.Lead == "") != (after.State == Observing) || after.Incumbent != "" && after.Incumbent == after.Lead {
				t.Fatalf("a record that makes no sense: %+v", after)
			}
			if after.Incumbent != "" && !slices.Contains([]State{Candidate, Shadow, Canary}, after.State) {
				t.Fatalf("an incumbent beside a %s model: %+v", after.State, after)
			}
		})
	})
}

// One step of occam takes every model out of service whose certificate does not hold or that has an alarm; no step of a
// person puts one there.
func TestNothingAnswersWithoutAValidCertificate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk(t, func(t *rapid.T, before, after Record, f Facts, c Command) {
			evidence := map[string]Evidence{before.Lead: f.Lead, before.Incumbent: f.Incumbent}
			for _, p := range after.Placements() {
				e, known := evidence[p.Model]
				answers := p.Mode == cascade.Live || p.Mode == cascade.Canary
				if !known || !answers || e.sound() {
					continue
				}
				if c != "" && before.Answers(p.Model) {
					continue // the person did something else; the next step of occam withdraws it
				}
				if c == "" && before.Incumbent != "" && !f.Incumbent.sound() {
					continue // both are in trouble: the incumbent went in this step, the lead goes in the next
				}
				if c == Resume {
					continue // as it was before the pause; the next step withdraws it
				}
				t.Fatalf("%s answers (%+v) although %s; command %q", p.Model, after, e.trouble(), c)
			}
		})
	})
}

// No step, of occam or of a person, lets a model answer that answered nothing before while its certificate waits for confirmation; and
// none puts a model that was compared with no other into the place of one that is live.
func TestNothingAnswersUnconfirmedOrUncompared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk(t, func(t *rapid.T, before, after Record, f Facts, c Command) {
			if c != Resume && after.Lead == before.Lead && after.Answers(after.Lead) && !before.Answers(after.Lead) && f.Lead.Unconfirmed != "" && !before.Paused {
				t.Fatalf("%+v became %+v (%q) although %s", before, after, c, f.Lead.Unconfirmed)
			}
			if live := before.incumbent(); c == "" && live != "" && f.Fresh != nil && f.Fresh.Unrivalled && after.Lead == f.Fresh.Model && before.Lead != after.Lead &&
				after.State == Candidate {
				t.Fatalf("%+v became %+v: %s was compared with none", before, after, after.Lead)
			}
		})
	})
}

// What occam or a person did, a person can undo: what began to answer answers no more, and what was live before is live again.
func TestEveryStepCanBeUndone(t *testing.T) {
	sound := Evidence{Risk: .03}
	rapid.Check(t, func(t *rapid.T) {
		walk(t, func(t *rapid.T, before, after Record, f Facts, c Command) {
			f.Lead, f.Incumbent = sound, sound
			do := func(cmd Command) Record {
				next, err := Obey(after, f, sound, cmd)
				if err != nil {
					t.Fatalf("%+v became %+v (%q), and %s is refused: %v", before, after, c, cmd, err)
				}
				return next
			}
			switch {
			case after.Paused != before.Paused:
				if back := do(map[bool]Command{true: Resume, false: Pause}[after.Paused]); back.Paused != before.Paused {
					t.Fatalf("%+v", back)
				}
			case after.Paused:
			case after.Answers(after.Lead) && !before.Answers(after.Lead):
				if back := do(RollBack); back.Answers(after.Lead) || before.incumbent() != "" && after.Incumbent == before.incumbent() && !back.Answers(before.incumbent()) {
					t.Fatalf("%+v became %+v, and rolled back %+v", before, after, back)
				}
			case after.State == Suspended && before.State != Suspended:
				if back := do(Promote); back.State != Shadow || back.Lead != after.Lead {
					t.Fatalf("an alarm that was judged false: %+v", back)
				}
			}
		})
	})
}

func TestAnAlarmWithdrawsWithinAStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		f.Lead.Alarm = "errors above the promise"
		r := Record{State: rapid.SampledFrom([]State{Canary, Live}).Draw(t, "state"), Lead: "lead"}
		next, moved := Decide(r, f)
		if !moved || next.State != Suspended || next.Answers("lead") || next.AlarmAt != f.Now {
			t.Fatalf("after an alarm: %+v, %v", next, moved)
		}
		if !strings.Contains(next.Reason, f.Lead.trouble()) {
			t.Fatalf("the reason hides the alarm: %s", next.Reason)
		}
	})
}

// With the same facts the steps end: occam never goes round in circles.
func TestStepsComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		r := Record{State: rapid.SampledFrom(States()).Draw(t, "state"), Lead: "lead", Incumbent: rapid.SampledFrom([]string{"", "incumbent"}).Draw(t, "inc")}
		if r.State == Observing {
			r.Lead, r.Incumbent = "", ""
		}
		for range 10 {
			moved := false
			if r, moved = Decide(r, f); !moved {
				return
			}
		}
		t.Fatalf("still moving: %+v", r)
	})
}

func TestALifeByItself(t *testing.T) {
	at := time.Unix(1000, 0)
	good := Evidence{Compared: 200, Disagreed: 3, Risk: .03}
	r := Record{State: Observing}
	step := func(f Facts, want State, answers string) {
		t.Helper()
		at = at.Add(time.Hour)
		f.Now, f.Auto = at, true
		next, moved := Decide(r, f)
		if !moved || next.State != want || next.Since != at && next.State != r.State {
			t.Fatalf("from %+v: %+v, %v; want %s", r, next, moved, want)
		}
		if r = next; answers != "" && !r.Answers(answers) {
			t.Fatalf("%s should answer: %+v", answers, r)
		}
	}
	step(Facts{Fresh: &Contender{Model: "one", Reason: "certified"}}, Candidate, "")
	step(Facts{}, Shadow, "")
	if _, moved := Decide(r, Facts{Auto: true, Lead: Evidence{Compared: shadowNeeded - 1, Risk: .03}}); moved {
		t.Error("promoted on too few comparisons")
	}
	if _, moved := Decide(r, Facts{Auto: true, Lead: Evidence{Compared: 1000, Disagreed: 60, Risk: .03}}); moved {
		t.Error("promoted although it disagrees too often")
	}
	unconfirmed := good
	unconfirmed.Unconfirmed = "cross-fitted"
	if _, moved := Decide(r, Facts{Auto: true, Lead: unconfirmed}); moved {
		t.Error("promoted on a certificate that is not confirmed")
	}
	if _, err := Obey(r, Facts{Lead: unconfirmed}, Evidence{}, Promote); err == nil || !strings.Contains(err.Error(), "cross-fitted") {
		t.Errorf("promoted by hand on a certificate that is not confirmed: %v", err)
	}
	step(Facts{Lead: good}, Canary, "one")
	step(Facts{Lead: good}, Live, "one")
	step(Facts{Lead: good, Fresh: &Contender{Model: "two", Refusal: "no better"}}, Live, "one")
	step(Facts{Lead: good, Fresh: &Contender{Model: "late", Reason: "certified", Unrivalled: true}}, Live, "one")
	if !strings.Contains(r.Reason, "not compared") {
		t.Errorf("a model that was trained before the live one: %+v", r)
	}
	step(Facts{Lead: good, Fresh: &Contender{Model: "three", Reason: "better"}}, Candidate, "one")
	step(Facts{Incumbent: good, Fresh: &Contender{Model: "later", Reason: "certified", Unrivalled: true}}, Candidate, "one")
	if r.Lead != "three" || !strings.Contains(r.Reason, "not compared") {
		t.Errorf("a model that was compared with none, beside a live one: %+v", r)
	}
	step(Facts{Incumbent: good}, Canary, "one")
	if !r.Answers("three") {
		t.Error("the canary does not answer")
	}
	step(Facts{Incumbent: good, Lead: Evidence{Alarm: "errors"}}, Live, "one")
	step(Facts{Lead: good, Fresh: &Contender{Model: "four", Reason: "better"}}, Candidate, "one")
	step(Facts{}, Canary, "four")
	step(Facts{Lead: good}, Live, "four")
	if r.Previous != "one" {
		t.Errorf("nothing to roll back to: %+v", r)
	}
	step(Facts{Lead: Evidence{Alarm: "errors"}}, Suspended, "")
	step(Facts{Fresh: &Contender{Model: "five", Reason: "certified"}}, Candidate, "")
}

// A plan whose first tier is paid by the call is not asked in shadow, so it does not wait there for comparisons.
func TestAPlanThatIsPaidByTheCallSkipsTheShadow(t *testing.T) {
	facts := Facts{Auto: true, Now: time.Unix(1000, 0), Lead: Evidence{Risk: .03, Paid: true}}
	for _, from := range []State{Candidate, Shadow} {
		next, moved := Decide(Record{State: from, Lead: "one"}, facts)
		if !moved || next.State != Canary {
			t.Errorf("from %s: %+v", from, next)
		}
	}
}

// What a person did, a person can undo: the same models answer as before.
// A model that a person rolled back does not answer again by itself, when the one that took its place breaks; a person may bring it back.
func TestWhatAPersonRolledBackStaysBack(t *testing.T) {
	sound := Evidence{Risk: .03}
	r, err := Obey(Record{State: Live, Lead: "b", Previous: "a"}, Facts{Lead: sound}, sound, RollBack)
	if err != nil || !r.Answers("a") {
		t.Fatalf("%+v, %v", r, err)
	}
	broken, moved := Decide(r, Facts{Lead: Evidence{Void: "its file was changed"}, Previous: sound})
	if !moved || broken.State != Suspended || broken.Answers("b") {
		t.Errorf("%+v", broken)
	}
	again, err := Obey(r, Facts{Lead: sound}, sound, RollBack)
	if err != nil || !again.Answers("b") {
		t.Fatalf("%+v, %v", again, err)
	}
	if next, _ := Decide(Record{State: Live, Lead: "b", Previous: "a"}, Facts{Lead: Evidence{Void: "its file was changed"}, Previous: sound}); !next.Answers("a") {
		t.Errorf("a model that was replaced by a better one: %+v", next)
	}
}

func TestByHandAndBack(t *testing.T) {
	sound := Evidence{Risk: .03}
	for _, tc := range []struct {
		name     string
		from     Record
		do, undo Command
	}{
		{"canary", Record{State: Shadow, Lead: "a"}, Promote, RollBack},
		{"challenger", Record{State: Candidate, Lead: "b", Incumbent: "a"}, Promote, RollBack},
		{"live over another", Record{State: Canary, Lead: "b", Incumbent: "a"}, Promote, RollBack},
		{"rolled back", Record{State: Live, Lead: "b", Previous: "a"}, RollBack, RollBack},
		{"paused", Record{State: Live, Lead: "b"}, Pause, Resume},
	} {
		t.Run(tc.name, func(t *testing.T) {
			there, err := Obey(tc.from, Facts{Lead: sound, Incumbent: sound}, sound, tc.do)
			if err != nil {
				t.Fatal(err)
			}
			back, err := Obey(there, Facts{Lead: sound, Incumbent: sound}, sound, tc.undo)
			if err != nil {
				t.Fatal(err)
			}
			want := tc.from.Answers("a")
			if tc.name == "canary" {
				want = false
			}
			if back.Answers("a") != want && tc.from.State != Canary {
				t.Errorf("before %+v\nthere %+v\nback %+v", tc.from, there, back)
			}
			if tc.from.State == Canary && (!back.Answers("a") || back.Answers("b")) {
				t.Errorf("the rollback of a promotion: %+v", back)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	sound := Evidence{Risk: .03}
	for _, tc := range []struct {
		name string
		r    Record
		f    Facts
		c    Command
		want string
	}{
		{"nothing to promote", Record{State: Observing}, Facts{}, Promote, "observing"},
		{"live already", Record{State: Live, Lead: "a"}, Facts{}, Promote, "live already"},
		{"no certificate", Record{State: Shadow, Lead: "a"}, Facts{Lead: Evidence{Void: "too few labels"}}, Promote, "too few labels"},
		{"alarm", Record{State: Shadow, Lead: "a"}, Facts{Lead: Evidence{Alarm: "too many errors"}}, Promote, "too many errors"},
		{"paused", Record{State: Shadow, Lead: "a", Paused: true}, Facts{}, Promote, "paused"},
		{"nothing to roll back", Record{State: Observing}, Facts{}, RollBack, "nothing to roll back"},
		{"nowhere to go", Record{State: Suspended, Lead: "a"}, Facts{}, RollBack, "no earlier model"},
		{"paused twice", Record{State: Live, Paused: true}, Facts{}, Pause, "paused already"},
		{"resumed twice", Record{State: Live}, Facts{}, Resume, "not paused"},
		{"unknown", Record{State: Live}, Facts{}, "explode", "no command"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Obey(tc.r, tc.f, sound, tc.c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

package drift

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// traffic draws signs: ten classes, the first made heavier by extra, the rest even.
type traffic struct {
	escalate, novel, long, extra float64
}

func (f traffic) draw(rng *rand.Rand) Sign {
	s := Sign{Escalated: rng.Float64() < f.escalate, Novel: rng.Float64() < f.novel, Class: rng.IntN(10), Length: 10}
	if rng.Float64() < f.extra {
		s.Class = 0
	}
	if rng.Float64() < f.long {
		s.Length = 100
	}
	return s
}

var usual = traffic{escalate: 0.15, novel: 0.02, long: 0.1}

// baseline counts a calibration set drawn from the usual traffic.
func baseline(rng *rand.Rand, rows int) Baseline {
	b := Baseline{Rows: rows, LongAbove: 50, Classes: make([]int, 10)}
	for range rows {
		s := usual.draw(rng)
		b.Classes[s.Class]++
		for sign, count := range map[*int]bool{&b.Escalated: s.Escalated, &b.Novel: s.Novel, &b.Long: s.Length > b.LongAbove} {
			if count {
				*sign++
			}
		}
	}
	return b
}

func TestWatchNamesWhatChanged(t *testing.T) {
	for sign, changed := range map[string]traffic{
		"more requests escalate":    {escalate: 0.35, novel: 0.02, long: 0.1},
		"fewer requests escalate":   {escalate: 0.005, novel: 0.02, long: 0.1}, // only a tolerance of 5 % can see this
		"unlike the training data":  {escalate: 0.15, novel: 0.10, long: 0.1},
		"requests are longer":       {escalate: 0.15, novel: 0.02, long: 0.3},
		"class 0 comes more often ": {escalate: 0.15, novel: 0.02, long: 0.1, extra: 0.2},
	} {
		rng := rand.New(rand.NewPCG(3, 4))
		b := baseline(rng, 3000)
		b.Tolerance = 0.05
		w, err := NewWatch(b)
		if err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			w.Observe(usual.draw(rng))
		}
		if warnings := w.Warnings(); len(warnings) > 0 {
			t.Fatalf("false warnings %+v", warnings)
		}
		for range 3000 {
			w.Observe(changed.draw(rng))
		}
		warnings := w.Warnings()
		if len(warnings) != 1 || !strings.Contains(warnings[0].Sign, sign) {
			t.Errorf("%s: %+v", sign, warnings)
			continue
		}
		t.Logf("%s: noticed after %d requests", sign, warnings[0].At-5000)
	}
}

func TestWatchSurvivesARestart(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	w, err := NewWatch(baseline(rng, 500))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		w.Observe(traffic{escalate: 0.5, novel: 0.2, long: 0.5, extra: 0.5}.draw(rng))
		if i%50 != 0 {
			continue
		}
		text, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		again := new(Watch)
		if err := json.Unmarshal(text, again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(w, again) {
			t.Fatalf("%+v, restarted %+v", w, again)
		}
	}
	if len(w.Warnings()) < 4 {
		t.Errorf("warnings %+v", w.Warnings())
	}
	if err := json.Unmarshal([]byte(`{"version":1,"baseline":{"rows":5,"tolerance":1,"run_length":10},"tracks":[]}`), new(Watch)); err == nil {
		t.Error("a watch without its tracks was read")
	}
}

func TestBaselinesThatCannotBe(t *testing.T) {
	for _, b := range []Baseline{{}, {Rows: 10, Escalated: 11}, {Rows: 10, Classes: []int{-1}}, {Rows: 10, Tolerance: -1}, {Rows: 10, RunLength: 0.5}} {
		if _, err := NewWatch(b); err == nil {
			t.Errorf("%+v was taken", b)
		}
	}
	w, err := NewWatch(Baseline{Rows: 10}) // nothing but rows
	if err != nil {
		t.Fatal(err)
	}
	w.Observe(Sign{Class: -1})
	w.Observe(Sign{Class: 99, Escalated: true, Novel: true, Length: 5})
}

// A sign that (nearly) every calibration row had cannot come more often: a task whose requests all have one class, and all are
// answered, is never said to have changed while nothing has.
func TestWatchOfWhatIsAlwaysSoIsSilent(t *testing.T) {
	const rows = 1000
	for name, b := range map[string]Baseline{
		"always":        {Rows: rows, LongAbove: 50, Classes: []int{rows}},
		"nearly always": {Rows: rows, Escalated: 1, LongAbove: 50, Classes: []int{rows - 1, 1}},
	} {
		w, err := NewWatch(b)
		if err != nil {
			t.Fatal(err)
		}
		for range 200_000 {
			w.Observe(Sign{Length: 10, Class: 0})
		}
		if warnings := w.Warnings(); len(warnings) > 0 {
			t.Errorf("%s: %+v", name, warnings)
		}
		for range 5000 {
			w.Observe(Sign{Escalated: true, Novel: true, Length: 10, Class: -1})
		}
		if warnings := w.Warnings(); len(warnings) != 2 {
			t.Errorf("%s, then everything escalates and is novel: %+v", name, warnings)
		}
		text, err := w.MarshalJSON()
		if err != nil || new(Watch).UnmarshalJSON(text) != nil {
			t.Errorf("%s: the state cannot be read back: %v", name, err)
		}
	}
}

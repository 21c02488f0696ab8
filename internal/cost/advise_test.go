package cost

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// tickets makes n observations of a closed task: classes answers, evenly spread over 30 days.
func tickets(n, classes int) []Observation {
	rng := seeded()
	var out []Observation
	for i := range n {
		out = append(out, Observation{At: november.Add(time.Duration(i) * 30 * 24 * time.Hour / time.Duration(n)),
			Input:  rng.Uint64(),
			Answer: fmt.Sprint("category ", rng.IntN(classes)), Copied: true, Trusted: i%10 == 0})
	}
	return out
}

func codes(a Advice) string {
	var s []string
	for _, r := range a.Reasons {
		if r.Against {
			s = append(s, r.Code)
		}
	}
	return strings.Join(s, " ")
}

func TestAdviceForTheArticlesTask(t *testing.T) {
	a := Advise(Observe("tickets", tickets(10_000, 50)), analyze(t, published(1e6)))
	if a.Verdict != FineTune || codes(a) != "" || a.Best != "router: embedded + gpt-4o" {
		t.Errorf("%s", a.Text())
	}
	if !strings.Contains(a.Text(), "2027-01-14") {
		t.Error("nobody is told that gpt-4o ends")
	}
}

// The article's first refusal: 50,000 tickets a month cost less by the API than the server.
func TestArticleRefusesALowVolume(t *testing.T) {
	a := Advise(Observe("tickets", tickets(10_000, 50)), analyze(t, published(50_000)))
	if a.Verdict != DoNotFineTune || !strings.HasPrefix(codes(a), "volume") {
		t.Errorf("%s", a.Text())
	}
	if text := a.Text(); !strings.Contains(text, "$87.50") || !strings.Contains(strings.Join(strings.Fields(text), " "),
		"a rented GPU server $734.88") {
		t.Errorf("the arithmetic is missing:\n%s", text)
	}
}

// The article's second refusal: "Write a poem about 17th-century France". Every answer is another one.
func TestArticleRefusesAnOpenTask(t *testing.T) {
	rng := seeded()
	var poems []Observation
	for i := range 2000 {
		poems = append(poems, Observation{At: november.Add(time.Duration(i) * time.Minute), Input: rng.Uint64(),
			Answer: fmt.Sprintf("O France of the %dth century, %x", 17, rng.Uint64())})
	}
	a := Advise(Observe("poems", poems), analyze(t, published(1e6)))
	if a.Verdict != DoNotFineTune || !strings.HasPrefix(codes(a), "open") {
		t.Errorf("%s", a.Text())
	}
	if f := a.Facts; f.Distinct != 2000 || f.UnseenShare != 1 || math.Abs(f.EntropyBits-math.Log2(2000)) > 1e-9 {
		t.Errorf("%+v", f)
	}
}

func TestAdviceNamesEachObstacle(t *testing.T) {
	good := analyze(t, published(1e6))
	base := tickets(4000, 20)
	edit := func(f func(i int, o *Observation)) []Observation {
		out := append([]Observation(nil), base...)
		for i := range out {
			f(i, &out[i])
		}
		return out
	}
	for name, c := range map[string]struct {
		observed []Observation
		facts    func(*TrafficFacts)
		code     string
		verdict  Verdict
	}{
		"too few answers": {observed: base[:50], code: "labels", verdict: NotYet},
		"none at all":     {observed: nil, code: "labels", verdict: NotYet},
		"rare classes":    {observed: tickets(400, 50), code: "labels", verdict: NotYet},
		"written text": {observed: edit(func(i int, o *Observation) { o.Copied = i%2 == 0 }), code: "open",
			verdict: DoNotFineTune},
		"contradictions": {observed: edit(func(i int, o *Observation) { o.Input = uint64(i % 500) }),
			code: "contradictions", verdict: NotYet},
		"moving taxonomy": {observed: edit(func(i int, o *Observation) {
			if i > 3600 {
				o.Answer = "new category"
			}
		}), code: "taxonomy", verdict: NotYet},
		"cheaper model": {observed: base, facts: func(f *TrafficFacts) {
			f.Target, f.CheapModel, f.CheapAccuracy = 0.95,
				"gpt-6-luna", 0.96
		},
			code: "cheaper", verdict: SwitchInstead},
		"cheap but poor": {observed: base, facts: func(f *TrafficFacts) {
			f.Target, f.CheapModel,
				f.CheapAccuracy = 0.95, "gpt-6-luna", 0.94
		},
			code: "", verdict: FineTune},
		"few checked": {observed: edit(func(_ int, o *Observation) { o.Trusted = false }), code: "labels",
			verdict: FineTune},
	} {
		f := Observe("task", c.observed)
		if c.facts != nil {
			c.facts(&f)
		}
		a := Advise(f, good)
		if a.Verdict != c.verdict || !strings.Contains(codes(a), c.code) {
			t.Errorf("%s: %q with %q\n%s", name, a.Verdict, codes(a), a.Text())
		}
	}
	s := published(1e6)
	s.Target, s.Measured = 0.95, []MeasuredTier{{Tier: "gpt-6-luna", Accuracy: 0.96}}
	f := Observe("task", base)
	f.Target, f.CheapModel, f.CheapAccuracy = 0.95, "gpt-6-luna", 0.96
	if a := Advise(f, analyze(t, s)); a.Verdict != SwitchInstead || !strings.HasPrefix(codes(a), "cheaper") {
		t.Errorf("the analysis itself says to switch: %q with %q", a.Verdict, codes(a))
	}
	if a := Advise(Observe("task", base), nil); !strings.Contains(codes(a), "volume") {
		t.Errorf("an unknown volume is not mentioned: %s", a.Text())
	}
}

// The facts stay in their ranges, and do not depend on what the answers are called.
func TestObserveIsInvariantUnderNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, classes := rapid.IntRange(1, 400).Draw(t, "n"), rapid.IntRange(1, 60).Draw(t, "classes")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var one, other []Observation
		for i := range n {
			c := rng.IntN(classes)
			o := Observation{At: november.Add(time.Duration(i) * time.Hour), Input: uint64(rng.IntN(50)),
				Answer: fmt.Sprint(c), Copied: true}
			one = append(one, o)
			o.Answer = fmt.Sprint("class ", 1000-c)
			other = append(other, o)
		}
		f, g := Observe("x", one), Observe("x", other)
		if f != g {
			t.Fatalf("%+v\n%+v", f, g)
		}
		if f.EntropyBits < -1e-9 || f.EntropyBits > math.Log2(float64(f.Distinct))+1e-9 || f.UnseenShare > 1 ||
			f.NewLately > 1 ||
			f.SmallestClass < 1 || f.Contradicted > f.Repeats {
			t.Fatalf("%+v", f)
		}
	})
}

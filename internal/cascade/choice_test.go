package cascade

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"occam/internal/calibration"
)

// classic is a task with an embedded tier, a cheap API and a generalist.
func classic() *Choice {
	return &Choice{Promise: "served accuracy at least 97 %", Volume: 1_000_000, VolumeFrom: "recorded", Audit: .01, Rest: "gpt-4o", Generalist: "gpt-4o",
		Prices: map[string]Price{"gpt-4o": {PerCall: .002}, "gpt-4o-mini": {PerCall: .0001}, "linear": {}},
		Candidates: []Candidate{
			{},
			{Stages: []Stage{{Tier: "linear", Reach: 1, Coverage: .8, Wrong: .03, Size: 0}}},
			{Stages: []Stage{{Tier: "linear", Reach: 1, Coverage: .8, Wrong: .03, Size: 0}, {Tier: "gpt-4o-mini", Reach: .2, Coverage: .1, Wrong: .03, Size: 1}}},
			{Stages: []Stage{{Tier: "gpt-4o-mini", Reach: 1, Coverage: .9, Wrong: .03, Size: 1}}, Problem: "not certified: 40 more labels"},
		}}
}

func chosenName(c *Choice) string { return c.Chosen().Name(c.Rest) }

func TestTheCheapestProvenPlanIsTaken(t *testing.T) {
	c := classic()
	c.Decide()
	if got := chosenName(c); got != "linear → gpt-4o-mini → gpt-4o" {
		t.Errorf("chose %s", got)
	}
	// By hand: 0.2 calls of mini, 0.1 of the generalist, 1 % of the 0.9 answered audited by it.
	if want, got := 1e6*(.2*.0001+(.1+.009)*.002), *c.Chosen().Monthly; math.Abs(got-want) > 1e-6 {
		t.Errorf("$%v a month, want %v", got, want)
	}
	text := c.Text()
	for _, want := range []string{"* ", "linear → gpt-4o-mini → gpt-4o", "not certified: 40 more labels", "dearer by $", "1000000 requests a month", "238.00"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	for _, p := range c.Candidates {
		if p.Problem != "" && p.Chosen {
			t.Error("a plan that keeps no promise was taken")
		}
	}
}

func TestVolumeAndHostingDecide(t *testing.T) {
	c := classic()
	c.Prices["gpt-4o-mini"] = Price{PerCall: 0, Hosting: 720} // a server of one's own
	c.Decide()
	if got := chosenName(c); got != "linear → gpt-4o" {
		t.Errorf("at a million requests the server's $720 buy 10 %% of $2,000, and %s was chosen", got)
	}
	c.Volume = 10_000_000
	c.Decide()
	if got := chosenName(c); got != "linear → gpt-4o-mini → gpt-4o" {
		t.Errorf("at ten million the server pays, and %s was chosen", got)
	}
}

func TestUnknownPricesAreNeverFree(t *testing.T) {
	c := classic()
	c.Prices["gpt-4o-mini"] = Price{Unknown: true}
	c.Decide()
	if got := chosenName(c); got != "linear → gpt-4o" {
		t.Errorf("chose %s", got)
	}
	if p := c.Candidates[2]; p.Monthly != nil || !strings.Contains(p.Verdict, "gpt-4o-mini has no price") {
		t.Errorf("%+v", p)
	}
	c = classic()
	c.Prices["gpt-4o"] = Price{Unknown: true} // then nobody knows what is saved, but what is free can only save
	c.Decide()
	if got := chosenName(c); got != "linear → gpt-4o" {
		t.Errorf("chose %s", got)
	}
}

func TestTiesGoToTheSmallerModel(t *testing.T) {
	c := classic()
	c.Prices = map[string]Price{"gpt-4o": {PerCall: .002}}
	c.Candidates = []Candidate{
		{Stages: []Stage{{Tier: "large", Reach: 1, Coverage: .8, Size: 2}}},
		{Stages: []Stage{{Tier: "small", Reach: 1, Coverage: .8, Size: 1}}},
		{},
	}
	c.Decide()
	if got := chosenName(c); got != "small → gpt-4o" {
		t.Errorf("chose %s", got)
	}
}

func TestChoiceOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := classic()
		for name := range c.Prices {
			c.Prices[name] = Price{PerCall: rapid.Float64Range(0, .01).Draw(t, "price"), Hosting: rapid.Float64Range(0, 100).Draw(t, "hosting"),
				Unknown: rapid.Bool().Draw(t, "unknown")}
		}
		c.Volume = rapid.Float64Range(0, 1e7).Draw(t, "volume")
		c.Decide()
		best := c.Chosen()
		if best == nil {
			t.Fatal("nothing was chosen, though the generalist alone is always possible")
		}
		for i := range c.Candidates {
			p := &c.Candidates[i]
			if p.Problem != "" || p == best {
				continue
			}
			mine, priced := p.cost()
			if than, also := best.cost(); priced && (!also || mine < than*(1-1e-6)) {
				t.Fatalf("%s at %v is cheaper than %s", p.Name("rest"), mine, best.Name("rest"))
			}
		}
		for _, s := range best.Stages {
			if c.Prices[s.Tier].Unknown {
				t.Fatalf("an unpriced tier was chosen: %+v", best)
			}
		}
	})
}

func TestATierAnswersOnlyWhatItsCertificateWasMadeFor(t *testing.T) {
	tier := certified(Live)
	tier.Certificate.Below = map[string]float64{"linear": 1.5}
	for _, c := range []struct {
		name string
		way  []Passed
		want bool
	}{
		{"left by the tier before", []Passed{{"linear", 1.2}}, true},
		{"below the floor of the tier before", []Passed{{"linear", math.Inf(-1)}}, true},
		{"between its threshold and where the walk stopped", []Passed{{"linear", 1.5}}, false},
		{"the tier before was not asked", nil, false},
		{"another tier was asked", []Passed{{"encoder", 1}}, false},
	} {
		if got := tier.Covers(c.way); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	tier.Certificate.Below = nil
	if !tier.Covers(nil) {
		t.Error("a tier that is certified on everything does not cover a request")
	}
	if (&Tier{Certificate: (*calibration.Certificate)(nil)}).Covers(nil) {
		t.Error("without a certificate something is covered")
	}
}

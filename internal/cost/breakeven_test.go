package cost

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func published(volume float64) Scenario {
	return Scenario{Workload: Workload{Volume: volume, InputTokens: 500, OutputTokens: 50, At: november},
		Generalist:  "gpt-4o",
		Assumptions: DefaultAssumptions(), Draws: 300}
}

func analyze(t testing.TB, s Scenario) *Analysis {
	t.Helper()
	a, err := Analyze(Default(), s, seeded())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func planNamed(t testing.TB, a *Analysis, name string) Plan {
	t.Helper()
	for _, p := range a.Plans {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no plan is called %q", name)
	return Plan{}
}

func TestArticleToTheDollar(t *testing.T) {
	a, err := ArticleAnalysis(Default(), november)
	if err != nil {
		t.Fatal(err)
	}
	p, e := a.Article.Published, a.Article.Exact
	near := func(what string, got, want, tolerance float64) {
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	near("generalist", p.GeneralistUSD, 2000, 1e-9)
	near("specialist", p.SpecialistUSD, 720, 1e-9)
	near("saving", p.SavingUSD, 1280, 1e-9)
	near("saving share", p.SavingShare, 0.64, 1e-12)
	near("break-even", p.BreakEven, 360_000, 1e-6)
	near("50,000 tickets", p.SmallGeneralist, 100, 1e-9)
	near("exact generalist", e.GeneralistUSD, 1750, 1e-6)
	near("exact specialist", e.SpecialistUSD, 1.006*730.5, 1e-6)
	near("exact break-even", e.BreakEven, 1.006*730.5/0.00175, 1e-3)
	if a.Plans[0].MonthlyUSD != 2000 || a.Plans[1].MonthlyUSD != 720 || math.Abs(*a.Plans[1].BreakEven-360_000) > 1e-6 {
		t.Errorf("the first two plans are not the published ones: %+v", a.Plans[:2])
	}
	for _, row := range a.Article.Today {
		if row.Model == "gpt-6-luna" && (math.Abs(row.APIUSD-75) > 1e-6 || math.Abs(*row.BreakEven-9_798_440) > 1) {
			t.Errorf("gpt-6-luna: %+v", row)
		}
	}
	if n := len(a.Article.LeftOut); n < 12 {
		t.Errorf("only %d things are said to be left out", n)
	}
}

func TestJSONContract(t *testing.T) {
	for name, a := range map[string]*Analysis{"analysis": analyze(t, published(1e6)),
		"article": must(ArticleAnalysis(Default(), november))} {
		raw, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got struct {
			Volume *float64 `json:"volume"`
			Best   string   `json:"best"`
			Plans  []struct {
				Name       string   `json:"name"`
				MonthlyUSD *float64 `json:"monthly_usd"`
				USDPer1k   *float64 `json:"usd_per_1k"`
				Notes      []string `json:"notes"`
			} `json:"plans"`
			Assumptions map[string]Assumption `json:"assumptions"`
		}
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		if got.Volume == nil || got.Best == "" || len(got.Plans) < 4 || len(got.Assumptions) < 40 {
			t.Errorf("%s: a part of the contract is missing: %.300s", name, raw)
		}
		if strings.Count(string(raw), `"break_even_per_month"`) < len(got.Plans) {
			t.Errorf("%s: a plan has no break_even_per_month", name)
		}
		for _, p := range got.Plans {
			if p.MonthlyUSD == nil || p.USDPer1k == nil || p.Notes == nil {
				t.Errorf("%s: plan %q lacks a field", name, p.Name)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEveryAssumptionHasUnitSourceAndName(t *testing.T) {
	a := DefaultAssumptions()
	raw, _ := json.Marshal(a)
	var byTag map[string]Assumption
	if err := json.Unmarshal(raw, &byTag); err != nil {
		t.Fatal(err)
	}
	if len(byTag) != len(a.all()) {
		t.Errorf("%d fields, %d names", len(byTag), len(a.all()))
	}
	for _, n := range a.all() {
		if byTag[n.name] != *n.Assumption {
			t.Errorf("%s names another field than its JSON tag", n.name)
		}
		if n.Unit == "" || n.Source == "" || !(n.Low <= n.Value && n.Value <= n.High) {
			t.Errorf("%s: %+v", n.name, *n.Assumption)
		}
		if got := n.at(0); math.Abs(got-n.Value) > 1e-12*(1+n.Value) {
			t.Errorf("%s: its median is %g, not %g", n.name, got, n.Value)
		}
		for z, want := range map[float64]float64{-z90: n.Low, z90: n.High} {
			if got := n.at(z); math.Abs(got-want) > 1e-9*(1+want) {
				t.Errorf("%s: the quantile at z=%.2f is %g, want %g", n.name, z, got, want)
			}
		}
	}
	if err := a.Set("coverage_embedded", 0.7, "test"); err != nil || a.CoverageEmbedded.Value != 0.7 ||
		a.CoverageEmbedded.High != 0.7 {
		t.Errorf("Set: %v %+v", err, a.CoverageEmbedded)
	}
	for name, v := range map[string]float64{"no_such": 1, "coverage_llama_1b": 1.5, "engineer_usd_per_hour": -1,
		"peak_factor": math.NaN()} {
		if a.Set(name, v, "test") == nil {
			t.Errorf("%s=%g was accepted", name, v)
		}
	}
}

// TestNoAssumptionOfZeroSpoilsTheFigures sets each assumption to zero: it is refused, or every figure stays a number.
func TestNoAssumptionOfZeroSpoilsTheFigures(t *testing.T) {
	all := DefaultAssumptions()
	refused := 0
	for _, n := range all.all() {
		s := published(1e6)
		s.Draws = 5
		if s.Assumptions.Set(n.name, 0, "test") != nil {
			refused++
		} else if _, err := json.Marshal(analyze(t, s)); err != nil {
			t.Errorf("%s of zero: %v", n.name, err)
		}
	}
	if refused > 7 {
		t.Errorf("%d may not be zero", refused)
	}
}

// TestSeveralSellersAreNamed says who sells a model where the question does not: it is not unpriced.
func TestSeveralSellersAreNamed(t *testing.T) {
	more, _, err := ParseLiteLLM(strings.NewReader(`{"azure/gpt-4o":{"litellm_provider":"azure","mode":"chat","input_cost_per_token":3e-6,"output_cost_per_token":1.2e-5}}`), november.AddDate(0, -1, 0))
	if err != nil {
		t.Fatal(err)
	}
	book := Default().Merge(more)
	s := published(1e6)
	if _, err := Analyze(book, s, seeded()); err == nil || !strings.Contains(err.Error(), "azure and openai") || !strings.Contains(err.Error(), "--provider") {
		t.Errorf("%v", err)
	}
	s.Provider = "azure"
	if _, err := Analyze(book, s, seeded()); err != nil {
		t.Error(err)
	}
}

func TestKnownFiguresAtAMillion(t *testing.T) {
	a := analyze(t, published(1e6))
	if p := planNamed(t, a, "all gpt-4o"); math.Abs(p.MonthlyUSD-1750) > 1e-6 || p.BreakEven != nil {
		t.Errorf("doing nothing: %+v", p)
	}
	if p := planNamed(t, a, "Llama 3.2 3B on aws g5.xlarge"); math.Abs(p.MonthlyUSD-734.883) > 1e-6 ||
		math.Abs(*p.BreakEven-419_933.14) > 0.01 {
		t.Errorf("hosted: %g %v", p.MonthlyUSD, *p.BreakEven)
	}
	if p := planNamed(t, a, "all gpt-4o, batch API"); math.Abs(p.MonthlyUSD-875) > 1e-6 {
		t.Errorf("batch: %g", p.MonthlyUSD)
	}
	// 15 % escalate at $0.00175, 1 % of the other 85 % are audited, one t3.medium.
	want := 0.15*1750 + 0.01*0.85*1750 + 0.0416*730.5
	if p := planNamed(t, a, "router: embedded + gpt-4o"); math.Abs(p.MonthlyUSD-want) > 1e-6 {
		t.Errorf("router: %g, want %g", p.MonthlyUSD, want)
	}
	if a.Best != "router: embedded + gpt-4o" || a.Refused {
		t.Errorf("best is %q, refused %v: %s", a.Best, a.Refused, a.Verdict)
	}
	if p := planNamed(t, a, a.BestIf); len(p.Conditions) == 0 {
		t.Error("the cheapest plan of all has no condition, but is not the best")
	}
}

func TestSmallVolumeIsRefused(t *testing.T) {
	a := analyze(t, published(50_000))
	if !a.Refused || a.Best != "all gpt-4o" || !strings.HasPrefix(a.Verdict, "Do not train or host a model for this") {
		t.Errorf("best %q: %s", a.Best, a.Verdict)
	}
}

// A saving that is there on the bill, but smaller than the hours it takes, is refused with that arithmetic.
func TestSavingThatDoesNotCoverTheHoursIsRefused(t *testing.T) {
	s := published(150_000)
	a := analyze(t, s)
	r := planNamed(t, a, "router: embedded + gpt-4o")
	if nothing := a.Plans[0]; r.MonthlyUSD >= nothing.MonthlyUSD || !a.Refused || !strings.Contains(a.Verdict,
		"does not cover its hours") {
		t.Errorf("router %g, nothing %g: %s", r.MonthlyUSD, nothing.MonthlyUSD, a.Verdict)
	}
	if err := s.Assumptions.Set("engineer_usd_per_hour", 0, "volunteers"); err != nil {
		t.Fatal(err)
	}
	if b := analyze(t, s); b.Refused {
		t.Errorf("free hours are still refused: %s", b.Verdict)
	}
}

func TestFeasibilityAndConditions(t *testing.T) {
	s := published(1e6)
	for _, p := range analyze(t, s).Plans {
		if strings.Contains(p.Name, "gpt-4.1-nano") {
			t.Error("a model that is already shut down is offered")
		}
		if p.Group == PromptCache {
			t.Error("a prompt of 500 tokens is cached")
		}
	}
	s.InputTokens, s.PrefixTokens = 1650, 1500
	cached := planNamed(t, analyze(t, s), "all gpt-4o, prompt cache")
	want := 1e6 * (150*2.5 + 1500*(0.9*1.25+0.1*2.5) + 50*10) / 1e6
	if math.Abs(cached.MonthlyUSD-want) > 1e-6 || len(cached.Conditions) != 0 {
		t.Errorf("prompt cache: %g, want %g", cached.MonthlyUSD, want)
	}
	s.Generalist = "gpt-99"
	if _, err := Analyze(Default(), s, seeded()); err == nil || !strings.Contains(err.Error(), "unpriced") {
		t.Errorf("an unpriced generalist: %v", err)
	}
	for name, bad := range map[string]Workload{"volume": {Volume: math.NaN(), InputTokens: 1}, "tokens": {Volume: 1},
		"none":   {InputTokens: 5},
		"prefix": {Volume: 1, InputTokens: 1, PrefixTokens: 2}, "huge": {Volume: 1e15, InputTokens: 1}} {
		bad.At = november
		if _, err := Analyze(Default(), Scenario{Workload: bad, Generalist: "gpt-4o",
			Assumptions: DefaultAssumptions()}, seeded()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStaircaseSizesForThePeakWithSpare(t *testing.T) {
	s := published(100e6)
	s.Host = "g5.xlarge"
	if err := s.Assumptions.Set("hosted_requests_per_second", 10, "the article"); err != nil {
		t.Fatal(err)
	}
	if err := s.Assumptions.Set("spare_servers", 1, "a pair"); err != nil {
		t.Fatal(err)
	}
	// 38.03 requests/s on average, 114.1 at the peak, 7 usable a server: 17 servers and one spare.
	if n := planNamed(t, analyze(t, s), "Llama 3.2 3B on aws g5.xlarge").Bill.Servers(100e6); n != 18 {
		t.Errorf("%g servers, want 18", n)
	}
	s.PeakPerSecond = 50 // measured: 8 servers and one spare
	if n := planNamed(t, analyze(t, s), "Llama 3.2 3B on aws g5.xlarge").Bill.Servers(100e6); n != 9 {
		t.Errorf("%g servers at a measured peak, want 9", n)
	}
}

// Every plan that the comparison is to hold, and a router of each that can stand in front of the generalist.
func TestEveryPlanIsSideBySide(t *testing.T) {
	s := published(1e6)
	s.PrefixTokens, s.InputTokens = 1200, 1700
	a := analyze(t, s)
	groups := map[Group]int{}
	names := map[string]bool{}
	for _, p := range a.Plans {
		groups[p.Group]++
		names[p.Name] = true
	}
	for _, g := range []Group{DoNothing, SwitchModel, BatchAPI, PromptCache, DecisionAPI, TunedAPI, HostedModel, SharedHost, EmbeddedVM, RouterPlan} {
		if groups[g] == 0 {
			t.Errorf("no plan of the group %q", g)
		}
	}
	for _, h := range Default().Hosts() {
		if _, known := gpuNamed(h.GPU); h.GPUs == 0 || !known || !covers(h.From, h.To, s.At) {
			continue
		}
		for _, llama := range []string{"Llama 3.2 1B on ", "Llama 3.2 3B on "} {
			for _, name := range []string{llama, "shared " + llama, "router: " + llama, "router: shared " + llama} {
				if name += h.SKU; strings.HasPrefix(name, "router") {
					name += " + gpt-4o"
				}
				if !names[name] {
					t.Errorf("no plan is called %q", name)
				}
			}
		}
	}
	for _, name := range []string{"all gpt-4o", "switch to gpt-6-luna", "all gpt-4o, batch API", "all gpt-4o, prompt cache", "decide with gpt-6-luna-decisions",
		"embedded specialist alone", "router: embedded + gpt-4o", "router: gpt-6-luna-decisions + gpt-4o", "router: jev + gpt-4o", "router: solar-decide + gpt-4o",
		"router: tuned Qwen/Qwen3.5-2B at prime-intellect + gpt-4o"} {
		if !names[name] {
			t.Errorf("no plan is called %q", name)
		}
	}
}

// An API model in front is paid for every request; what it may not answer is paid a second time.
func TestRouterOfAnAPIModel(t *testing.T) {
	s := published(1e6)
	s.Measured = []MeasuredTier{{Tier: "gpt-6-luna-decisions", Coverage: 0.7, Source: "measured"}}
	p := planNamed(t, analyze(t, s), "router: gpt-6-luna-decisions + gpt-4o")
	if want := 50 + 0.3*1750 + 0.01*0.7*1750; math.Abs(p.MonthlyUSD-want) > 1e-6 {
		t.Errorf("%g, want %g: %v", p.MonthlyUSD, want, p.Parts)
	}
	if p.Parts.Training != 0 || p.Parts.Labels == 0 || p.Parts.Hosting != 0 || len(p.Conditions) != 1 {
		t.Errorf("%+v %v", p.Parts, p.Conditions)
	}
}

// What the generalist's cache gives already lowers doing nothing, and makes the plan to begin with it pointless.
func TestRecordedCacheHits(t *testing.T) {
	s := published(1e6)
	s.InputTokens, s.PrefixTokens, s.CachedTokens = 2000, 1500, 1400
	a := analyze(t, s)
	if want := 600*2.5 + 1400*1.25 + 50*10; math.Abs(a.Plans[0].MonthlyUSD-want) > 1e-6 {
		t.Errorf("doing nothing costs %g, want %g", a.Plans[0].MonthlyUSD, want)
	}
	if !strings.Contains(strings.Join(a.Infeasible, "; "), "1400 of 2000 input tokens are read from it already") {
		t.Errorf("%v", a.Infeasible)
	}
	s.CachedTokens = 2001
	if _, err := Analyze(Default(), s, seeded()); err == nil {
		t.Error("more was cached than sent")
	}
}

func TestMeasuredCoverageReplacesTheAssumption(t *testing.T) {
	s := published(1e6)
	s.Measured = []MeasuredTier{{Tier: "embedded", Coverage: 0.5, CoverageLow: 0.45, CoverageHigh: 0.55,
		ServedAccuracy: 0.97, Source: "measured on 3,080 rows"}}
	p := planNamed(t, analyze(t, s), "router: embedded + gpt-4o")
	if want := 0.5*1750 + 0.01*0.5*1750 + 0.0416*730.5; math.Abs(p.MonthlyUSD-want) > 1e-6 ||
		!strings.Contains(strings.Join(p.Notes, " "), "measured on 3,080 rows") {
		t.Errorf("%g, want %g; %v", p.MonthlyUSD, want, p.Notes)
	}
	s.Measured[0].Tier = "gpt-7"
	if _, err := Analyze(Default(), s, seeded()); err == nil {
		t.Error("an unknown tier was accepted")
	}
}

// What was measured decides whether a plan may stand alone: at the target it has no open condition, below it says so.
func TestMeasuredAccuracyMeetsTheTargetOrNot(t *testing.T) {
	s := published(1e6)
	s.Target = 0.95
	s.Measured = []MeasuredTier{{Tier: "gpt-6-luna", Accuracy: 0.96}, {Tier: "ministral-3b-2512", Accuracy: 0.80},
		{Tier: "llama-3.2-3b", Coverage: 1, Accuracy: 0.97}}
	a := analyze(t, s)
	if a.Best != "switch to gpt-6-luna" || !a.Refused {
		t.Errorf("best is %q", a.Best)
	}
	if p := planNamed(t, a, "switch to ministral-3b-2512"); len(p.Conditions) != 1 || !strings.Contains(p.Conditions[0], "80.0 %") {
		t.Errorf("%v", p.Conditions)
	}
	if p := planNamed(t, a, referencePlan); len(p.Conditions) != 0 {
		t.Errorf("%v", p.Conditions)
	}
	s.Target = 0.99
	if a := analyze(t, s); a.Best != "router: embedded + gpt-4o" {
		t.Errorf("best is %q though nothing cheaper meets the target", a.Best)
	}
}

// One point of accuracy at $0.50 a wrong answer is $5,000 a month, more than everything else.
func TestWrongAnswersOutweighTheBill(t *testing.T) {
	s := published(1e6)
	for name, v := range map[string]float64{"wrong_answer_usd": 0.5, "accuracy_generalist": 0.95, "accuracy_cheap_model": 0.94,
		"accuracy_specialist": 0.97, "coverage_embedded": 0.8} {
		if err := s.Assumptions.Set(name, v, "test"); err != nil {
			t.Fatal(err)
		}
	}
	a := analyze(t, s)
	errs := func(name string) float64 { return planNamed(t, a, name).Parts.Errors }
	if got := errs("switch to gpt-6-luna") - errs("all gpt-4o"); math.Abs(got-5000) > 1e-6 {
		t.Errorf("a point of accuracy is worth %g", got)
	}
	if got, want := errs("router: embedded + gpt-4o"), 1e6*0.5*(0.8*0.03+0.2*0.05); math.Abs(got-want) > 1e-6 {
		t.Errorf("the router's wrong answers cost %g, want %g", got, want)
	}
}

func TestSharedServerAndColdStart(t *testing.T) {
	s := published(1e6)
	a := analyze(t, s)
	if p := planNamed(t, a, "shared "+referencePlan); math.Abs(p.MonthlyUSD-73.4883) > 1e-6 {
		t.Errorf("a tenth of a server costs %g", p.MonthlyUSD)
	}
	// 5 % escalate anyway; two cold starts of 300 s a month send their requests along as well.
	down := 2 * 300 / (730.5 * 3600)
	escalated := 1 - 0.95*(1-down)
	want := 734.883 + 1750*(escalated+0.01*(1-escalated))
	if p := planNamed(t, a, "router: "+referencePlan+" + gpt-4o"); math.Abs(p.MonthlyUSD-want) > 1e-6 {
		t.Errorf("the hosted router costs %g, want %g", p.MonthlyUSD, want)
	}
}

func TestPayback(t *testing.T) {
	nothing := economy{apiEach: 0.00175}
	self := economy{hosting: Curve{Server: 735, ServersEach: 1e-9}, oneOff: 8000}
	if m := payback(self, nothing, 1e6, 0); m == nil || math.Abs(*m-8000.0/1015) > 1e-9 {
		t.Errorf("without a decline: %v", m)
	}
	if m := payback(self, nothing, 1e6, 0.05); m != nil {
		t.Errorf("prices falling 5 %% a month: %g months", *m)
	}
	if m := payback(self, economy{apiEach: 0.000075}, 1e6, 0); m != nil {
		t.Errorf("against a model at $75 a month: %g months", *m)
	}
	if m := payback(economy{}, nothing, 1e6, 0); m == nil || *m != 0 {
		t.Errorf("nothing to pay back: %v", m)
	}
}

func TestUncertaintyIsReproducibleAndOrdered(t *testing.T) {
	a, b := analyze(t, published(1e6)), analyze(t, published(1e6))
	for i, p := range a.Plans {
		if p.TotalUSD != b.Plans[i].TotalUSD {
			t.Fatalf("the same seed gives other figures for %s", p.Name)
		}
		if q := p.TotalUSD; !(q.P10 <= q.P50 && q.P50 <= q.P90) || p.Cheaper < 0 || p.Cheaper > 1 {
			t.Errorf("%s: %+v", p.Name, q)
		}
	}
	for i := 1; i < len(a.Sensitivity); i++ {
		if a.Sensitivity[i].span() > a.Sensitivity[i-1].span() {
			t.Fatal("the sensitivity is not sorted")
		}
	}
	if len(a.Sensitivity) < 5 {
		t.Error("fewer than five assumptions matter")
	}
}

// More requests never cost less in total, a dearer generalist never makes a plan with it cheaper, and it only ever lowers the
// break-even of the plans that replace it.
func TestAnalysisIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := published(rapid.Float64Range(1, 1e8).Draw(t, "volume"))
		s.InputTokens = rapid.Float64Range(1, 20_000).Draw(t, "in")
		s.Assumptions = s.Assumptions.draw(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		if err := s.prepare(Default()); err != nil {
			t.Fatal(err)
		}
		recipes, _ := s.recipes(Default())
		r := rapid.SampledFrom(recipes).Draw(t, "plan")
		more := s
		more.Volume *= rapid.Float64Range(1, 10).Draw(t, "times")
		before, after := s.plan(r), more.plan(r)
		if after.MonthlyUSD < before.MonthlyUSD-1e-9 || after.Total.At(more.Volume) < before.Total.At(s.Volume)-1e-9 {
			t.Fatalf("%s: %g requests cost %g, %g cost %g", r.name, s.Volume, before.MonthlyUSD, more.Volume,
				after.MonthlyUSD)
		}
		dearer := s
		dearer.generalist.price.Rates = s.generalist.price.Rates.scaled(2, 1)
		anew, _ := dearer.recipes(Default())
		i := slices.IndexFunc(anew, func(q recipe) bool { return q.name == r.name })
		if i < 0 {
			t.Fatalf("%s is gone when the generalist costs twice as much", r.name)
		}
		then := dearer.plan(anew[i])
		if then.MonthlyUSD < before.MonthlyUSD*(1-1e-9) {
			t.Fatalf("%s: %g becomes %g when the generalist costs twice as much", r.name, before.MonthlyUSD, then.MonthlyUSD)
		}
		if before.BreakEven != nil && r.group != DoNothing && (then.BreakEven == nil ||
			*then.BreakEven > *before.BreakEven*(1+1e-9)) {
			t.Fatalf("%s: break-even %v becomes %v when the generalist costs twice as much", r.name, *before.BreakEven,
				then.BreakEven)
		}
	})
}

func FuzzScenario(f *testing.F) {
	f.Add(1e6, 500.0, 50.0, 0.0)
	f.Add(1e12, 1e8, 0.0, 1e8)
	f.Fuzz(func(t *testing.T, volume, in, out, prefix float64) {
		s := published(volume)
		s.InputTokens, s.OutputTokens, s.PrefixTokens, s.Draws = in, out, prefix, 3
		a, err := Analyze(Default(), s, seeded())
		if err != nil {
			return
		}
		if _, err := json.Marshal(a); err != nil {
			t.Fatalf("volume %g, tokens %g/%g, prefix %g: %v", volume, in, out, prefix, err)
		}
	})
}

package cost

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A Comparison is the published question under one set of figures: an API against one rented server.
type Comparison struct {
	USDPerRequest   float64 `json:"usd_per_request"`
	USDPerHour      float64 `json:"usd_per_hour"`
	HoursPerMonth   float64 `json:"hours_per_month"`
	GeneralistUSD   float64 `json:"generalist_usd"`
	SpecialistUSD   float64 `json:"specialist_usd"`
	SavingUSD       float64 `json:"saving_usd"`
	SavingShare     float64 `json:"saving_share"`
	BreakEven       float64 `json:"break_even_per_month"`
	SmallVolume     float64 `json:"small_volume"`
	SmallGeneralist float64 `json:"small_generalist_usd"`
}

// A TodayRow is the same question put to one of today's API models.
type TodayRow struct {
	Model     string   `json:"model"`
	APIUSD    float64  `json:"monthly_usd"`
	BreakEven *float64 `json:"break_even_per_month"` // requests that pay for the server; null: more than it can serve
	Ends      string   `json:"ends,omitempty"`       // date of its shutdown
}

// A Conclusion is one statement of the article and whether it still holds.
type Conclusion struct {
	Claim string `json:"claim"`
	Holds string `json:"holds"` // "yes", "no" or "in part"
	Why   string `json:"why"`
}

// An Article is the published scenario recomputed: as printed, with exact prices, and with today's cheapest models.
type Article struct {
	Published   Comparison   `json:"published"`
	Exact       Comparison   `json:"exact"`
	Today       []TodayRow   `json:"today"`
	Conclusions []Conclusion `json:"conclusions"`
	LeftOut     []string     `json:"left_out"`
}

const (
	articleVolume    = 1_000_000
	articleSmall     = 50_000
	articlePerSecond = 10 // requests a second of the 3B on a g5.xlarge, as published
	articleTraining  = 10 // dollars, once
)

func compare(usdPerRequest, usdPerHour, hours float64) (Comparison, Curve, Curve) {
	api := Curve{PerRequest: usdPerRequest}
	server := Curve{Server: usdPerHour * hours, ServersEach: 1 / (articlePerSecond * hours * secondsPerHour)}
	c := Comparison{USDPerRequest: usdPerRequest, USDPerHour: usdPerHour, HoursPerMonth: hours,
		GeneralistUSD: api.At(articleVolume), SpecialistUSD: server.At(articleVolume),
		SmallVolume: articleSmall, SmallGeneralist: api.At(articleSmall)}
	c.SavingUSD = c.GeneralistUSD - c.SpecialistUSD
	c.SavingShare = c.SavingUSD / c.GeneralistUSD
	c.BreakEven, _ = server.BreakEven(api)
	return c, api, server
}

// ArticleAnalysis recomputes the published scenario of 1,000,000 support tickets a month: first with the article's rounded
// figures, to the dollar, then with exact prices of the book at a day, then against the cheapest API models of that day.
func ArticleAnalysis(b *Book, at time.Time) (*Analysis, error) {
	gpt, ok := b.Lookup("openai", "gpt-4o", at)
	if !ok {
		return nil, fmt.Errorf("the article's generalist gpt-4o is unpriced on %s", at.Format(time.DateOnly))
	}
	g5, ok := b.GPU("aws g5.xlarge", at)
	if !ok {
		return nil, fmt.Errorf("the article's server aws g5.xlarge has no price on %s", at.Format(time.DateOnly))
	}
	a := DefaultAssumptions()
	w := Workload{Volume: articleVolume, InputTokens: 500, OutputTokens: 50, At: at, generalist: apiTier{price: gpt}}
	published, api, server := compare(0.002, 1.00, 24*30)
	exact, apiExact, serverExact := compare(w.generalistEach(&a), g5.Hour.USD(), a.ServerHours.Value)
	out := &Analysis{Volume: articleVolume, Assumptions: a, PriceBook: b.Version(), Infeasible: []string{},
		Sensitivity: []Swing{},
		Article:     &Article{Published: published, Exact: exact, LeftOut: leftOut(exact, a)}}
	out.Plans = []Plan{
		articlePlan("all gpt-4o", DoNothing, api, api, "as published: 500 tokens in, 50 out, about $0.002 a request"),
		articlePlan("Llama 3.2 3B on g5.xlarge", HostedModel, server, api,
			"as published: 24 × 30 × $1.00, 10 requests/s; training about $10 once"),
		articlePlan("all gpt-4o, exact", DoNothing, apiExact, apiExact, "$2.50 and $10 per 1M tokens"),
		articlePlan("Llama 3.2 3B on g5.xlarge, exact", HostedModel, serverExact, apiExact,
			fmt.Sprintf("%.1f h × %s", exact.HoursPerMonth, dollars(g5.Hour.USD()))),
	}
	out.today(b, Scenario{Workload: w, Generalist: "gpt-4o", Assumptions: a}, apiExact, serverExact)
	out.Best = out.Plans[1].Name
	out.Verdict = fmt.Sprintf("As published, the specialist saves %s a month (%.0f %%).", dollars(published.SavingUSD),
		100*published.SavingShare)
	for _, c := range out.Article.Conclusions {
		if c.Holds != "yes" {
			out.Verdict += fmt.Sprintf(" %s: %s.", c.Claim, c.Why)
		}
	}
	return out, nil
}

func articlePlan(name string, g Group, c, reference Curve, notes ...string) Plan {
	p := Plan{Name: name, Group: g, MonthlyUSD: c.At(articleVolume), Bill: c, Total: c, Notes: append([]string{},
		notes...), Conditions: []string{}}
	p.TotalUSD = Quantiles{p.MonthlyUSD, p.MonthlyUSD, p.MonthlyUSD}
	p.USDPer1k = p.MonthlyUSD / articleVolume * 1000
	if v, ok := c.BreakEven(reference); ok && c != reference {
		p.BreakEven = &v
	}
	return p
}

// today puts the API models of the day beside the server, adds the cheapest lasting ones and the routers in front of GPT-4o
// and of the cheapest as plans, and draws the conclusions.
func (out *Analysis) today(b *Book, s Scenario, api, server Curve) {
	var lasting []Price
	gpt := s.generalist.price
	for _, p := range append(s.cheaperModels(b), gpt) {
		c := Curve{PerRequest: (&apiTier{price: p}).each(s.Workload, &s.Assumptions)}
		row := TodayRow{Model: p.Model, APIUSD: c.At(articleVolume)}
		if !p.Shutdown.IsZero() {
			row.Ends = p.Shutdown.Format(time.DateOnly)
		}
		if v, ok := server.BreakEven(c); ok {
			row.BreakEven = &v
		}
		out.Article.Today = append(out.Article.Today, row)
		if !p.EndedBy(s.At.AddDate(0, 0, lastingDays)) {
			lasting = append(lasting, p)
			if len(lasting) <= 5 {
				out.Plans = append(out.Plans, articlePlan("today: all "+p.Model, SwitchModel, c, api))
			}
		}
	}
	var routers []Plan
	if plans, _ := s.embedded(b, lasting); len(plans) > 1 {
		for _, r := range plans[1:] {
			p := s.plan(r)
			routers = append(routers, articlePlan("today: "+p.Name, RouterPlan, p.Bill, api, p.Notes...))
		}
	}
	out.Plans = append(out.Plans, routers...)
	art := out.Article
	art.Conclusions = append(art.conclusions(gpt), art.todayConclusions(lasting, routers,
		s.Assumptions.EngineerUSDPerHour.Value)...)
}

// holds says "yes" or "no".
func holds(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

func (art *Article) conclusions(gpt Price) []Conclusion {
	e := art.Exact
	near := "no"
	if math.Abs(e.BreakEven/art.Published.BreakEven-1) < 0.25 {
		near = "in part"
	}
	out := []Conclusion{
		{"The rented specialist is cheaper than GPT-4o at 1,000,000 tickets", holds(e.SavingUSD > 0), fmt.Sprintf(
			"%s against %s with exact prices: %.0f %% less, not 64 %%", dollars(e.SpecialistUSD),
			dollars(e.GeneralistUSD), 100*e.SavingShare)},
		{"It breaks even at 360,000 tickets", near, fmt.Sprintf(
			"%s with exact prices, because a request costs $%.5f and not $0.002", count(math.Ceil(e.BreakEven)),
			e.USDPerRequest)},
		{"At 50,000 tickets the API is cheaper", holds(e.SmallGeneralist < e.SpecialistUSD), fmt.Sprintf(
			"%s against %s", dollars(e.SmallGeneralist), dollars(e.SpecialistUSD))},
	}
	if !gpt.Shutdown.IsZero() {
		out = append(out, Conclusion{"GPT-4o is the model to compare with", "no",
			"it is shut down on " + gpt.Shutdown.Format(time.DateOnly) + "; its users have to move in any case"})
	}
	return out
}

// todayConclusions need a model that will still be served in half a year.
func (art *Article) todayConclusions(lasting []Price, routers []Plan, hour float64) []Conclusion {
	if len(lasting) == 0 || len(routers) < 2 {
		return nil
	}
	i := slices.IndexFunc(art.Today, func(t TodayRow) bool { return t.Model == lasting[0].Model })
	cheap, large, small := art.Today[i], routers[0].MonthlyUSD, routers[1].MonthlyUSD
	routing := "no"
	switch {
	case large < art.Exact.GeneralistUSD && cheap.APIUSD-small > hour:
		routing = "yes"
	case large < art.Exact.GeneralistUSD:
		routing = "in part"
	}
	return []Conclusion{
		{"A rented GPU is cheaper than an API at 1,000,000 tickets", holds(art.Exact.SpecialistUSD < cheap.APIUSD),
			fmt.Sprintf(
				"%s takes the same tokens for %s a month; the server pays only from %s tickets", cheap.Model,
				dollars(cheap.APIUSD),
				countOrNever(cheap.BreakEven))},
		{"Send the simple requests to a small model and the rest to the large one", routing, fmt.Sprintf(
			"with the small model inside the gateway and GPT-4o behind it the bill is %s against %s; in front of %s "+
				"it is %s against %s, %s", dollars(large), dollars(art.Exact.GeneralistUSD), cheap.Model,
			dollars(small), dollars(cheap.APIUSD),
			map[bool]string{true: "which still pays",
				false: "a difference below one hour of work"}[cheap.APIUSD-small > hour])},
	}
}

func countOrNever(v *float64) string {
	if v == nil {
		return "no number of"
	}
	return count(math.Ceil(*v))
}

// leftOut lists what the published figures do not contain, with its size where it has one.
func leftOut(e Comparison, a Assumptions) []string {
	perSecond := articleVolume / (a.ServerHours.Value * secondsPerHour)
	people := a.SetupHoursHosted.Value*a.EngineerUSDPerHour.Value/a.AmortiseMonths.Value +
		a.UpkeepHosted.Value*a.EngineerUSDPerHour.Value
	return []string{
		"a cheaper API model as the counterfactual: only GPT-4o is considered",
		fmt.Sprintf("redundancy: one server, no spare; a pair costs %s", dollars(2*e.SpecialistUSD)),
		"downtime, cold starts and deploys: 100 % uptime is assumed",
		fmt.Sprintf("the load: %.2f requests/s on average, so the GPU is %.1f %% busy; the peak is not considered, "+
			"nor a latency limit", perSecond, 100*perSecond/articlePerSecond),
		"the evidence for 10 requests/s: it is the saturated, optimistic end of the roofline estimate (6 to 10), at " +
			"seconds of latency",
		fmt.Sprintf("people: %.0f h to set up and %.0f h a month at %s an hour are %s a month",
			a.SetupHoursHosted.Value, a.UpkeepHosted.Value, dollars(a.EngineerUSDPerHour.Value), dollars(people)),
		"labels, retraining, evaluation, drift: the model is trained once for about $10 and never again",
		"escalation: 100 % of the tickets are answered by the specialist",
		"wrong answers: equal accuracy is assumed; one point at $0.50 a misrouted ticket is $5,000.00 a month, more " +
			"than everything else here",
		"the prompt: 50 categories do not fit into 500 tokens with room for a ticket; a tuned model needs less of it",
		"batch (half price) and prompt caching (needs a long shared prefix, 1,024 tokens at OpenAI)",
		"disk, egress, load balancer, logs; retries and timeouts; other tokenizers",
		"that prices change and models are shut down",
		"sharing the GPU between tasks, and smaller tiers that need no GPU",
		"the value of latency and of keeping data in house",
	}
}

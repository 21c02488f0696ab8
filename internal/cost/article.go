package cost

import (
	"fmt"
	"math"
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
	art := &Article{Published: published, Exact: exact, LeftOut: leftOut(exact, a)}
	plan := func(name string, c, ref Curve, notes ...string) Plan {
		p := Plan{Name: name, MonthlyUSD: c.At(articleVolume), Bill: c, Total: c, Notes: append([]string{}, notes...), Conditions: []string{}}
		p.TotalUSD = Quantiles{p.MonthlyUSD, p.MonthlyUSD, p.MonthlyUSD}
		p.USDPer1k = p.MonthlyUSD / articleVolume * 1000
		if v, ok := c.BreakEven(ref); ok && c != ref {
			p.BreakEven = &v
		}
		return p
	}
	out := &Analysis{Volume: articleVolume, Assumptions: a, Article: art, PriceBook: b.Version(), Infeasible: []string{},
		Sensitivity: []Swing{}}
	out.Plans = []Plan{
		plan("all gpt-4o", api, api, "as published: 500 tokens in, 50 out, about $0.002 a request"),
		plan("Llama 3.2 3B on g5.xlarge", server, api, "as published: 24 × 30 × $1.00, 10 requests/s; training about $10 once"),
		plan("all gpt-4o, exact", apiExact, apiExact, "$2.50 and $10 per 1M tokens"),
		plan("Llama 3.2 3B on g5.xlarge, exact", serverExact, apiExact, fmt.Sprintf("%.1f h × %s", exact.HoursPerMonth, dollars(g5.Hour.USD()))),
	}
	for i := range out.Plans {
		out.Plans[i].Group = []Group{DoNothing, HostedModel}[i%2]
	}
	s := Scenario{Workload: w, Generalist: "gpt-4o", Assumptions: a}
	for _, p := range append(s.cheaperModels(b), gpt) {
		row := TodayRow{Model: p.Model, APIUSD: (&apiTier{price: p}).each(w, &a) * articleVolume, Ends: ""}
		if !p.Shutdown.IsZero() {
			row.Ends = p.Shutdown.Format(time.DateOnly)
		}
		c := Curve{PerRequest: row.APIUSD / articleVolume}
		if v, ok := serverExact.BreakEven(c); ok {
			row.BreakEven = &v
		}
		art.Today = append(art.Today, row)
		if len(art.Today) <= 5 || p.Model == "gpt-4o" {
			out.Plans = append(out.Plans, plan("today: all "+p.Model, c, apiExact))
		}
	}
	if plans, _ := s.embedded(b, nil); len(plans) > 1 {
		router := s.plan(plans[1])
		out.Plans = append(out.Plans, plan("today: "+router.Name, router.Bill, apiExact, router.Notes...))
	}
	art.Conclusions = conclusions(art, gpt)
	out.Best = out.Plans[1].Name
	out.Verdict = "As published, the specialist saves " + dollars(published.SavingUSD) + " a month. " + art.Conclusions[len(art.Conclusions)-1].Why
	return out, nil
}

func conclusions(art *Article, gpt Price) []Conclusion {
	e, cheapest := art.Exact, art.Today[0]
	out := []Conclusion{
		{"The rented specialist is cheaper than GPT-4o at 1,000,000 tickets", "yes", fmt.Sprintf(
			"%s against %s with exact prices: %.0f %% less, not 64 %%", dollars(e.SpecialistUSD), dollars(e.GeneralistUSD), 100*e.SavingShare)},
		{"It breaks even at 360,000 tickets", "in part", fmt.Sprintf(
			"%s with exact prices, because a request costs $%.5f and not $0.002", count(math.Ceil(e.BreakEven)), e.USDPerRequest)},
		{"At 50,000 tickets the API is cheaper", "yes", fmt.Sprintf("%s against %s", dollars(e.SmallGeneralist), dollars(e.SpecialistUSD))},
	}
	why := fmt.Sprintf("%s answers the same tokens for %s a month; the server pays only from %s tickets", cheapest.Model,
		dollars(cheapest.APIUSD), countOrNever(cheapest.BreakEven))
	holds := "no"
	if cheapest.APIUSD > e.SpecialistUSD {
		holds = "yes"
	}
	out = append(out, Conclusion{"A rented GPU is cheaper than any API at 1,000,000 tickets", holds, why})
	if !gpt.Shutdown.IsZero() {
		out = append(out, Conclusion{"GPT-4o is the model to compare with", "no",
			"it is shut down on " + gpt.Shutdown.Format(time.DateOnly) + "; its users have to move in any case"})
	}
	return append(out, Conclusion{"Send the simple requests to a small model and the rest to the large one", "yes",
		"A specialist that runs inside the gateway needs no GPU, so the routing still pays; the GPU under it is what today's prices removed."})
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
	people := a.SetupHoursHosted.Value*a.EngineerUSDPerHour.Value/a.AmortiseMonths.Value + a.UpkeepHosted.Value*a.EngineerUSDPerHour.Value
	return []string{
		"a cheaper API model as the counterfactual: only GPT-4o is considered",
		fmt.Sprintf("redundancy: one server, no spare; a pair costs %s", dollars(2*e.SpecialistUSD)),
		"downtime, cold starts and deploys: 100 % uptime is assumed",
		fmt.Sprintf("the load: %.2f requests/s on average, so the GPU is %.1f %% busy; the peak is not considered, nor a latency limit", perSecond, 100*perSecond/articlePerSecond),
		"the evidence for 10 requests/s: it is the saturated, optimistic end of the roofline estimate (6 to 10), at seconds of latency",
		fmt.Sprintf("people: %.0f h to set up and %.0f h a month at %s an hour are %s a month", a.SetupHoursHosted.Value, a.UpkeepHosted.Value, dollars(a.EngineerUSDPerHour.Value), dollars(people)),
		"labels, retraining, evaluation, drift: the model is trained once for about $10 and never again",
		"escalation: 100 % of the tickets are answered by the specialist",
		"wrong answers: equal accuracy is assumed; one point at $0.50 a misrouted ticket is $5,000.00 a month, more than everything else here",
		"the prompt: 50 categories do not fit into 500 tokens with room for a ticket; a tuned model needs less of it",
		"batch (half price) and prompt caching (needs a long shared prefix, 1,024 tokens at OpenAI)",
		"disk, egress, load balancer, logs; retries and timeouts; other tokenizers",
		"that prices change and models are shut down",
		"sharing the GPU between tasks, and smaller tiers that need no GPU",
		"the value of latency and of keeping data in house",
	}
}

package cost

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A Workload is the traffic of one task, measured or supposed.
type Workload struct {
	Volume        float64   // requests a month
	InputTokens   float64   // mean of a request to the generalist
	OutputTokens  float64   // mean, reasoning included
	PrefixTokens  float64   // leading tokens that every request shares; 0 where not known: no prompt caching then
	CachedTokens  float64   // mean input tokens of a request that the generalist's cache gives already, as recorded
	PeakPerSecond float64   // 99.9 % quantile of requests a second; 0 where not measured: mean × peak factor
	At            time.Time // prices of this day
	generalist    apiTier
}

func (w Workload) generalistEach(a *Assumptions) float64 { return w.generalist.each(w, a) }

// tuned is the shape of a request to a tuned model, which has learnt its instructions.
func (w Workload) tuned(a *Assumptions) (in, out float64) {
	return w.InputTokens * a.TunedInput.Value, math.Max(1, w.OutputTokens*a.TunedOutput.Value)
}

// peakPerRequest is the peak load, in requests a second, that one request a month brings with it.
func (w Workload) peakPerRequest(a *Assumptions) float64 {
	if w.PeakPerSecond > 0 && w.Volume > 0 {
		return w.PeakPerSecond / w.Volume
	}
	return a.PeakFactor.Value / (a.ServerHours.Value * secondsPerHour)
}

// scaled is the workload with more or fewer requests, its peak in proportion.
func (w Workload) scaled(factor float64) Workload {
	w.Volume *= factor
	w.PeakPerSecond *= factor
	return w
}

// A Scenario is the question put to Analyze.
type Scenario struct {
	Workload
	Generalist  string         // model name in the book
	Provider    string         // its seller; "" where only one sells it
	Host        string         // SKU that stands for the hosted models in the list; "" for all of them
	Measured    []MeasuredTier // what training and evaluation found; takes the place of the assumed coverage
	Target      float64        // accuracy that an answer must have; 0: not said
	Assumptions Assumptions
	Draws       int // joint samples of the assumptions; 0: 1000
}

// A MeasuredTier is what a trained tier was measured to do on held-out data.
type MeasuredTier struct {
	Tier           string  // "embedded", "llama-3.2-1b", "llama-3.2-3b", or the name of an API model
	Coverage       float64 // share it may answer under its certificate, with its interval
	CoverageLow    float64
	CoverageHigh   float64
	ServedAccuracy float64 // of the answers it gives
	Accuracy       float64 // if it answers everything: the lower end of its interval
	Source         string  // "measured on 3,080 test rows"
}

// Quantiles of a figure over the joint samples of the assumptions.
type Quantiles struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

// A Plan is one way to answer the workload. MonthlyUSD is the bill: API calls (escalations and audits included) and servers
// at the median assumptions. TotalUSD adds hours, training, labels, server overhead and wrong answers.
type Plan struct {
	Name       string   `json:"name"`
	Group      Group    `json:"group"`
	MonthlyUSD float64  `json:"monthly_usd"`
	USDPer1k   float64  `json:"usd_per_1k"`
	BreakEven  *float64 `json:"break_even_per_month"` // volume from which the bill is no larger than doing nothing; null: never
	Notes      []string `json:"notes"`
	Conditions []string `json:"conditions"` // must hold, and is not known to: such a plan is never called the best

	TotalUSD       Quantiles  `json:"total_usd"`
	TotalBreakEven *Quantiles `json:"total_break_even_per_month"` // of the total; null where more than one sample in ten never breaks even
	BreaksEven     float64    `json:"breaks_even_probability"`    // share of the samples in which the total ever breaks even
	Cheaper        float64    `json:"cheaper_probability"`        // share in which the total is below doing nothing, at this volume
	PaybackMonths  *float64   `json:"payback_months"`             // until the one-off costs are saved; null: not within ten years
	Parts          Parts      `json:"parts_usd"`
	Bill           Curve      `json:"-"`
	Total          Curve      `json:"-"`

	recipe recipe
}

// A Swing is how far one assumption moves the monthly saving of the best plan between the ends of its range.
type Swing struct {
	Assumption string  `json:"assumption"`
	Low        float64 `json:"low"` // value of the assumption
	High       float64 `json:"high"`
	SavingLow  float64 `json:"saving_at_low_usd"`
	SavingHigh float64 `json:"saving_at_high_usd"`
}

// An Analysis is the answer of Analyze: every plan, cheapest total first after "do nothing".
type Analysis struct {
	Volume      float64     `json:"volume"`
	Plans       []Plan      `json:"plans"`
	Best        string      `json:"best"`
	BestIf      string      `json:"best_if,omitempty"` // a cheaper plan, should its one condition turn out to hold
	Verdict     string      `json:"verdict"`
	Refused     bool        `json:"refused"` // true: do not train or host anything for this
	Infeasible  []string    `json:"infeasible"`
	Sensitivity []Swing     `json:"sensitivity"`
	Assumptions Assumptions `json:"assumptions"`
	Article     *Article    `json:"article,omitempty"`
	PriceBook   string      `json:"price_book"`
	Draws       int         `json:"draws"`
	Whole       bool        `json:"-"` // Text lists every plan, not a selection
}

// maxVolume bounds the volume of a scenario: a trillion requests a month.
const maxVolume = 1e12

// Analyze puts every feasible plan for a workload side by side. All randomness comes from rng; the same seed gives the same
// analysis.
func Analyze(b *Book, s Scenario, rng *rand.Rand) (*Analysis, error) {
	if err := s.prepare(b); err != nil {
		return nil, err
	}
	recipes, infeasible := s.recipes(b)
	out := &Analysis{Volume: s.Volume, Infeasible: append([]string{}, infeasible...), Assumptions: s.Assumptions,
		PriceBook: b.Version(),
		Draws:     s.Draws}
	for _, r := range recipes {
		out.Plans = append(out.Plans, s.plan(r))
	}
	s.simulate(out.Plans, rng)
	slices.SortStableFunc(out.Plans[1:], func(a, b Plan) int { return cmp.Compare(a.TotalUSD.P50, b.TotalUSD.P50) })
	s.choose(out)
	return out, nil
}

// prepare checks the scenario and fills in what follows from it.
func (s *Scenario) prepare(b *Book) error {
	ok := func(x, limit float64) bool { return x >= 0 && x <= limit } // also refuses NaN
	if !ok(s.Volume, maxVolume) || !ok(s.InputTokens, 1e8) || !ok(s.OutputTokens, 1e8) || !ok(s.PrefixTokens, s.InputTokens) ||
		!ok(s.CachedTokens, s.InputTokens) {
		return errors.New("volume and tokens must be numbers of zero or more (at most 1e12 requests a month, 1e8 " +
			"tokens), and the shared prefix and what is cached no longer than the input")
	}
	if s.Volume == 0 || s.InputTokens+s.OutputTokens == 0 {
		return errors.New("there is nothing to compare without a volume and without tokens: pass --volume and " +
			"--tokens IN/OUT")
	}
	p, found := b.Lookup(s.Provider, s.Generalist, s.At)
	if sellers := b.Sellers(s.Generalist, s.At); !found && len(sellers) > 0 {
		return fmt.Errorf("%q is sold by %s: say which of them with --provider", s.Generalist, strings.Join(sellers, " and "))
	}
	if !found {
		return fmt.Errorf("%q is unpriced on %s, so there is nothing to compare with; see `occam prices list`, or "+
			"add a row with `occam prices import`", s.Generalist, s.At.Format(time.DateOnly))
	}
	s.generalist = apiTier{price: p}
	for _, m := range s.Measured {
		if err := s.Assumptions.adopt(b, m); err != nil {
			return err
		}
	}
	if s.Draws == 0 {
		s.Draws = 1000
	}
	if s.Draws < 0 || s.Draws > 100_000 {
		return errors.New("draws must lie between 1 and 100,000")
	}
	return nil
}

// Names of the tiers that can be trained, as MeasuredTier has them.
const (
	tierEmbedded = "embedded"
	tierLlama1B  = "llama-3.2-1b"
	tierLlama3B  = "llama-3.2-3b"
)

// adopt replaces the assumed coverage of a trained tier by the measured one, if its coverage was measured. Other names are those of
// API models.
func (a *Assumptions) adopt(b *Book, m MeasuredTier) error {
	name := map[string]string{tierEmbedded: "coverage_embedded", tierLlama1B: "coverage_llama_1b",
		tierLlama3B: "coverage_llama_3b"}[m.Tier]
	if name == "" {
		if len(b.prices[m.Tier]) == 0 {
			return fmt.Errorf("unknown tier %q: %s, %s, %s and the API models of the price book can be measured",
				m.Tier, tierEmbedded, tierLlama1B, tierLlama3B)
		}
		return nil
	}
	if m.Coverage == 0 && m.CoverageHigh == 0 {
		return nil // only its accuracy was measured
	}
	low, high := m.CoverageLow, m.CoverageHigh
	if low == 0 && high == 0 {
		low, high = m.Coverage, m.Coverage
	}
	return a.SetRange(name, low, m.Coverage, high, cmp.Or(m.Source, "measured"))
}

// measured finds what was measured of a tier or an API model.
func (s Scenario) measured(tier string) (MeasuredTier, bool) {
	for _, m := range s.Measured {
		if m.Tier == tier {
			return m, true
		}
	}
	return MeasuredTier{}, false
}

// proof is what still has to be shown before a tier may answer everything by itself: nothing where its measured accuracy
// meets the target.
func (s Scenario) proof(tier string) []string {
	m, ok := s.measured(tier)
	switch {
	case !ok || m.Accuracy == 0:
		return []string{unmeasured}
	case s.Target > 0 && m.Accuracy >= s.Target:
		return nil
	}
	return []string{fmt.Sprintf("an accuracy of %.1f %% is enough for you: that is what was measured", 100*m.Accuracy)}
}

// plan evaluates a recipe at the median assumptions.
func (s Scenario) plan(r recipe) Plan {
	e := r.evaluate(s.Workload, &s.Assumptions)
	p := Plan{Name: r.name, Group: r.group, Conditions: append([]string{}, r.conditions...), recipe: r, Bill: e.bill(),
		Total: e.total(), Parts: e.parts(s.Volume), Notes: r.describe(e, s.Workload, &s.Assumptions)}
	p.MonthlyUSD = p.Bill.At(s.Volume)
	p.USDPer1k = p.MonthlyUSD / s.Volume * 1000
	if r.group == DoNothing {
		return p
	}
	nothing := s.doNothing().evaluate(s.Workload, &s.Assumptions)
	if v, ok := p.Bill.BreakEven(nothing.bill()); ok {
		p.BreakEven = &v
	}
	p.PaybackMonths = payback(e, nothing, s.Volume, s.Assumptions.APIPriceDecline.Value)
	return p
}

// payback is the month in which the savings have paid for the one-off costs, when every API price falls by a share a month.
// Nil: not within ten years. Without a decline it is one-off costs over monthly saving.
func payback(e, nothing economy, volume, decline float64) *float64 {
	api := (nothing.bill().PerRequest - e.bill().PerRequest) * volume
	rest := e.running().At(volume) - e.bill().PerRequest*volume - (nothing.running().At(volume) - nothing.bill().PerRequest*volume)
	left := e.oneOff
	for m := range 120 {
		saving := api*math.Pow(1-decline, float64(m)) - rest
		if left <= 0 || saving >= left {
			done := float64(m)
			if left > 0 {
				done += left / saving
			}
			return &done
		}
		if left -= saving; saving <= 0 && decline >= 0 && api >= 0 {
			return nil // it saves nothing now, and will save less
		}
	}
	return nil
}

// simulate fills in what depends on the uncertainty. Every plan sees the same samples, so that they can be compared.
func (s Scenario) simulate(plans []Plan, rng *rand.Rand) {
	totals := make([][]float64, len(plans))
	crossings := make([][]float64, len(plans))
	cheaper := make([]int, len(plans))
	for range s.Draws {
		a := s.Assumptions.draw(rng)
		w := s.Workload.scaled(a.VolumeFactor.Value)
		nothing := s.doNothing().evaluate(w, &a).total()
		for i, p := range plans {
			total := p.recipe.evaluate(w, &a).total()
			totals[i] = append(totals[i], total.At(w.Volume))
			if total.At(w.Volume) < nothing.At(w.Volume) {
				cheaper[i]++
			}
			v, ok := total.BreakEven(nothing)
			if !ok {
				v = math.Inf(1)
			}
			crossings[i] = append(crossings[i], v)
		}
	}
	for i := range plans {
		plans[i].TotalUSD = quantiles(totals[i])
		if plans[i].Group == DoNothing {
			continue
		}
		plans[i].Cheaper = float64(cheaper[i]) / float64(s.Draws)
		never := 0
		for _, v := range crossings[i] {
			if math.IsInf(v, 1) {
				never++
			}
		}
		plans[i].BreaksEven = 1 - float64(never)/float64(s.Draws)
		if q := quantiles(crossings[i]); !math.IsInf(q.P90, 1) {
			plans[i].TotalBreakEven = &q
		}
	}
}

func quantiles(xs []float64) Quantiles {
	slices.Sort(xs)
	at := func(p float64) float64 { return xs[int(math.Round(p*float64(len(xs)-1)))] }
	return Quantiles{at(0.1), at(0.5), at(0.9)}
}

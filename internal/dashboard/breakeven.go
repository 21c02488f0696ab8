package dashboard

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

// breakEven is the page that asks when a specialist pays.
type breakEven struct {
	Asked     question       `json:"asked"`
	Analysis  *cost.Analysis `json:"analysis"`
	Best      *cost.Plan     `json:"-"`
	Now       *cost.Plan     `json:"-"` // doing nothing
	Groups    []cost.Plan    `json:"-"` // the best plan of each group
	Swings    []cost.Swing   `json:"-"`
	Chart     *lineChart     `json:"-"`
	Models    []string       `json:"-"`
	Hosts     []string       `json:"-"`
	TaskNames []string       `json:"-"`
}

// A question is what the sliders say.
type question struct {
	Scale    float64 `json:"-"`             // log10 of the volume: sliders are even in it
	Volume   float64 `json:"volume"`        // requests a month
	Input    float64 `json:"input_tokens"`  // of one request
	Output   float64 `json:"output_tokens"` // of one answer
	Model    string  `json:"generalist"`
	Provider string  `json:"provider"` // its seller
	Host     string  `json:"host"`
	Factor   float64 `json:"price_factor"`   // of API prices
	Coverage float64 `json:"coverage"`       // share that the embedded specialist answers
	Task     string  `json:"task,omitempty"` // whose recorded traffic the figures are from
	Measured bool    `json:"measured"`       // the coverage was measured on that task
	Assumed  bool    `json:"assumed"`        // the coverage is nobody's figure but the default
}

const (
	minScale, maxScale = 3.0, 9.0 // a thousand to a billion requests a month
	pageDraws          = 200      // joint samples for a page that follows a slider
)

// breakEven loads the analysis for what the form asks.
func (d *Dashboard) breakEven(r *http.Request) (any, error) {
	now := d.Now().UTC()
	views, err := d.Tasks(r.Context())
	if err != nil {
		return nil, err
	}
	q, err := d.readQuestion(r, views, now)
	if err != nil {
		return nil, err
	}
	book := d.Book()
	if sellers := book.Sellers(q.Model, now); q.Provider == "" && len(sellers) > 0 {
		q.Provider = sellers[0] // of several, any that the question does not name
	}
	scenario := cost.Scenario{Workload: cost.Workload{Volume: q.Volume, InputTokens: q.Input, OutputTokens: q.Output, At: now},
		Generalist: q.Model, Provider: q.Provider, Host: q.Host, Assumptions: cost.DefaultAssumptions(), Draws: pageDraws}
	if q.Factor != 1 {
		if err := scenario.Assumptions.Set("api_price_factor", q.Factor, "the slider"); err != nil {
			return nil, err
		}
	}
	scenario.Measured = measuredTiers(q, views)
	analysis, err := cost.Analyze(book, scenario, rand.New(rand.NewPCG(1, 0))) // the same question has the same answer
	if err != nil {
		return nil, &failure{http.StatusBadRequest, "These figures cannot be analysed.", sentence(err.Error()), "Choose others."}
	}
	p := &breakEven{Asked: q, Analysis: analysis, Models: modelNames(book, now), Hosts: hostNames(book)}
	for _, v := range views {
		p.TaskNames = append(p.TaskNames, v.Name)
	}
	p.pick()
	return p, nil
}

// readQuestion takes each figure from the form, else from the task's recorded traffic, else from the published scenario.
func (d *Dashboard) readQuestion(r *http.Request, views []TaskView, now time.Time) (question, error) {
	assumed := cost.DefaultAssumptions().CoverageEmbedded.Value
	q := question{Volume: 1_000_000, Input: 500, Output: 50, Model: "gpt-4o", Host: "aws g5.xlarge", Factor: 1, Coverage: assumed, Task: r.FormValue("task")}
	if q.Task != "" {
		if err := d.fromTraffic(r.Context(), &q, views, now); err != nil {
			return q, err
		}
	}
	q.Scale = math.Log10(max(q.Volume, 1000))
	for _, f := range []struct {
		name      string
		into      *float64
		low, high float64
	}{{"scale", &q.Scale, minScale, maxScale}, {"volume", &q.Volume, 1, 1e12}, {"input", &q.Input, 1, 1e6}, {"output", &q.Output, 1, 1e5},
		{"factor", &q.Factor, 0.1, 10}, {"coverage", &q.Coverage, 0, 1}} {
		text := r.FormValue(f.name)
		if text == "" {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) || v < f.low || v > f.high {
			return q, badInput("The "+f.name+" "+quote(short(text))+" does not fit.",
				"Give a number from "+strconv.FormatFloat(f.low, 'g', -1, 64)+" to "+strconv.FormatFloat(f.high, 'g', -1, 64)+".")
		}
		*f.into = v
		if f.name == "coverage" {
			q.Measured = false
		}
	}
	if r.FormValue("volume") != "" {
		q.Scale = min(max(math.Log10(q.Volume), minScale), maxScale)
	} else if r.FormValue("scale") != "" {
		q.Volume = roundTo2(math.Pow(10, q.Scale))
	}
	q.Assumed = !q.Measured && math.Abs(q.Coverage-assumed) < 1e-9
	q.Provider = r.FormValue("provider")
	q.Model, q.Host = cmp.Or(r.FormValue("model"), q.Model), cmp.Or(r.FormValue("host"), q.Host)
	return q, nil
}

// roundTo2 rounds to two significant digits: a slider is not finer.
func roundTo2(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v))-1)
	return math.Round(v/unit) * unit
}

// fromTraffic takes the task's volume of the last 30 days, scaled to a month of 30, and the mean size of its paid requests.
func (d *Dashboard) fromTraffic(ctx context.Context, q *question, views []TaskView, now time.Time) error {
	i := slices.IndexFunc(views, func(v TaskView) bool { return v.Name == q.Task })
	if i < 0 {
		return badInput("There is no task "+quote(short(q.Task))+".", "Choose one of the list.")
	}
	today := now.Truncate(24 * time.Hour)
	window := store.Window{From: today.AddDate(0, 0, -29), To: today.AddDate(0, 0, 1)}
	totals, err := d.Source.Totals(ctx, store.TotalsQuery{Window: window, Task: q.Task, By: []store.Dimension{store.ByDay, store.ByTier}})
	if err != nil {
		return err
	}
	var requests, paid, input, output int64
	var first time.Time
	for _, t := range totals {
		if first.IsZero() {
			first = t.Start
		}
		requests += t.Requests
		if t.Usage.Input > 0 {
			paid, input, output = paid+t.Attempts, input+t.Usage.Input, output+t.Usage.Output
		}
	}
	if requests > 0 {
		days := now.Sub(first).Hours() / 24
		q.Volume = math.Round(float64(requests) * 30 / max(days, 1))
	}
	if paid > 0 {
		q.Input, q.Output = math.Round(float64(input)/float64(paid)), max(math.Round(float64(output)/float64(paid)), 1)
	}
	q.Model = cmp.Or(views[i].Generalist, q.Model)
	for _, t := range views[i].Tiers {
		if t.Evaluation != nil && t.Evaluation.Rows > 0 && t.Certificate != nil {
			q.Coverage, q.Measured = float64(t.Evaluation.Served)/float64(t.Evaluation.Rows), true
			break
		}
	}
	return nil
}

// measuredTiers is what is known of the embedded specialist: measured on the task, or set by the slider.
func measuredTiers(q question, views []TaskView) []cost.MeasuredTier {
	if q.Assumed {
		return nil // its range stays open
	}
	m := cost.MeasuredTier{Tier: "embedded", Coverage: q.Coverage, CoverageLow: q.Coverage, CoverageHigh: q.Coverage, Source: "the slider"}
	if !q.Measured {
		return []cost.MeasuredTier{m}
	}
	for _, v := range views {
		for _, t := range v.Tiers {
			if e := t.Evaluation; v.Name == q.Task && e != nil && e.Rows > 0 && t.Certificate != nil {
				c := e.Coverage()
				m.CoverageLow, m.CoverageHigh, m.Source = c.Low, c.High, "measured on "+count(int64(e.Rows))+" test rows"
				if s := e.ServedAccuracy(); s != nil {
					m.ServedAccuracy = s.Value
				}
				m.Accuracy = e.Accuracy().Value
				return []cost.MeasuredTier{m}
			}
		}
	}
	return []cost.MeasuredTier{m}
}

func modelNames(book *cost.Book, at time.Time) []string {
	var names []string
	for _, p := range book.Prices(at) {
		if p.Kind == cost.Chat && !p.EndedBy(at) {
			names = append(names, p.Model)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func hostNames(book *cost.Book) []string {
	var names []string
	for _, h := range book.Hosts() {
		if h.GPUs > 0 {
			names = append(names, h.SKU)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// pick chooses what the page shows first: the best plan of each group, and four lines.
func (p *breakEven) pick() {
	seen := map[cost.Group]bool{}
	for i := range p.Analysis.Plans {
		plan := &p.Analysis.Plans[i]
		if plan.Name == p.Analysis.Best {
			p.Best = plan
		}
		if plan.Group == cost.DoNothing {
			p.Now = plan
		}
	}
	for i := range p.Analysis.Plans { // a plan without conditions stands for its group, if there is one
		plan := &p.Analysis.Plans[i]
		if !seen[plan.Group] && (len(plan.Conditions) == 0 || !p.unconditional(plan.Group)) {
			seen[plan.Group] = true
			p.Groups = append(p.Groups, *plan)
		}
	}
	p.Swings = slices.Clone(p.Analysis.Sensitivity)
	slices.SortFunc(p.Swings, func(a, b cost.Swing) int {
		return cmp.Compare(math.Abs(b.SavingHigh-b.SavingLow), math.Abs(a.SavingHigh-a.SavingLow))
	})
	p.Swings = p.Swings[:min(len(p.Swings), 8)]
	p.Chart = p.chart()
}

func (p *breakEven) unconditional(g cost.Group) bool {
	return slices.ContainsFunc(p.Analysis.Plans, func(plan cost.Plan) bool { return plan.Group == g && len(plan.Conditions) == 0 })
}

// chart draws the bill against the volume, both logarithmic: doing nothing, the best plan, the cheapest hosted model and the
// cheapest switch.
func (p *breakEven) chart() *lineChart {
	c := &lineChart{ID: "bill", Title: "Monthly bill against volume", Description: "What a month costs, against the number of requests; both axes are logarithmic.",
		Verticals: []marker{{p.Asked.Volume, "your volume"}}}
	var plans []*cost.Plan
	add := func(plan *cost.Plan) {
		if plan != nil && !slices.Contains(plans, plan) {
			plans = append(plans, plan)
		}
	}
	add(p.Now)
	add(p.Best)
	for _, g := range []cost.Group{cost.HostedModel, cost.SwitchModel, cost.RouterPlan} {
		for i := range p.Groups {
			if p.Groups[i].Group == g && p.Groups[i].Name != p.Analysis.Best && len(plans) < 4 {
				add(&p.Groups[i])
			}
		}
	}
	const steps = 72
	low, high := math.Inf(1), 0.0
	for k, plan := range plans {
		l := line{Name: plan.Name, Series: k}
		for i := 0; i <= steps; i++ {
			x := math.Pow(10, minScale+(maxScale-minScale)*float64(i)/steps)
			y := plan.Bill.At(x)
			l.Points = append(l.Points, xy{x, math.Log10(max(y, 1e-3))})
			low, high = min(low, y), max(high, y)
		}
		c.Lines = append(c.Lines, l)
	}
	c.X = logarithmic("requests a month", math.Pow(10, minScale), math.Pow(10, maxScale), func(v float64) string { return bigNumber(v) })
	c.Y = logDollars(low, high)
	for i := 0; i <= 24; i++ {
		c.Samples = append(c.Samples, math.Pow(10, minScale+(maxScale-minScale)*float64(i)/24))
	}
	if p.Best != nil && p.Best.BreakEven != nil && *p.Best.BreakEven > math.Pow(10, minScale) && *p.Best.BreakEven < math.Pow(10, maxScale) {
		c.Dots = []dot{{X: *p.Best.BreakEven, Y: math.Log10(p.Best.Bill.At(*p.Best.BreakEven))}}
		c.Description += " " + p.Best.Name + " is cheaper from " + bigNumber(*p.Best.BreakEven) + " requests on."
	}
	return c
}

// logDollars is an axis whose values are powers of ten of a dollar, so that lines are straight between their points.
func logDollars(low, high float64) axis {
	a := axis{Name: "dollars a month", Min: math.Floor(math.Log10(max(low, 1))), Max: math.Ceil(math.Log10(max(high, 10))),
		Format: func(v float64) string { return "$" + bigNumber(math.Pow(10, v)) }}
	for t := a.Min; t <= a.Max; t++ {
		a.Ticks = append(a.Ticks, t)
	}
	return a
}

// bigNumber writes a number in at most three digits, such as 1.5M.
func bigNumber(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "B"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size*0.9995 {
			return threeDigits(v/unit.size) + unit.name
		}
	}
	return threeDigits(v)
}

func threeDigits(v float64) string {
	decimals := 2
	if v >= 99.95 {
		decimals = 0
	} else if v >= 9.995 {
		decimals = 1
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

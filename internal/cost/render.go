package cost

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// referencePlan is the hosted model of the published scenario: always shown where the book has it.
const referencePlan = "Llama 3.2 3B on aws g5.xlarge"

// shownPlans bounds the table for people; the others are in the JSON.
const shownPlans = 16

// Text writes the analysis for a terminal of 100 columns: table, verdict, chart, what was assumed. For the published scenario
// it writes the published figures, the exact ones and today's side by side instead.
func (a *Analysis) Text() string {
	if a.Article != nil {
		return a.Article.text()
	}
	var b strings.Builder
	hours := a.Assumptions.ServerHours.Value
	fmt.Fprintf(&b, "%s requests a month (%.2g/s on average)\n\n", count(a.Volume), a.Volume/(hours*secondsPerHour))
	shown := a.shown()
	marks := a.table(&b, shown)
	if rest := len(a.Plans) - len(shown); rest > 0 {
		fmt.Fprintf(&b, "  … and %d more plans: --all lists them\n", rest)
	}
	for i, c := range marks {
		fmt.Fprintf(&b, "  %c) only if %s\n", 'a'+i, c)
	}
	b.WriteString("  bill: API calls and servers. All in: with hours, labels, training, overhead; median [p10, p90].\n\n")
	fmt.Fprintf(&b, "  %s\n\n", wrap(a.Verdict, 96, "  "))
	b.WriteString(a.Chart())
	a.explain(&b)
	return b.String()
}

// shown picks the plans worth a line: doing nothing, the best, the cheapest of all, and of every group the cheapest few.
func (a *Analysis) shown() []Plan {
	if a.Whole {
		return a.Plans
	}
	taken := map[string]bool{a.Best: true, a.BestIf: true, referencePlan: true}
	perGroup := map[Group]int{SwitchModel: 3, HostedModel: 1, RouterPlan: 3}
	for _, p := range a.Plans {
		if quota, ok := perGroup[p.Group]; !ok || quota > 0 {
			if !ok {
				perGroup[p.Group] = 1
			}
			perGroup[p.Group]--
			taken[p.Name] = true
		}
	}
	var out []Plan
	for _, p := range a.Plans {
		if taken[p.Name] && len(out) < shownPlans {
			out = append(out, p)
		}
	}
	return out
}

// table writes one line a plan and returns the conditions that its letters stand for.
func (a *Analysis) table(b *strings.Builder, plans []Plan) (marks []string) {
	nothing := a.Plans[0].MonthlyUSD
	fmt.Fprintf(b, "  %-46s %12s %7s %12s  %s\n", "", "bill/month", "", "break-even", "all in/month")
	for _, p := range plans {
		letters := ""
		for _, c := range p.Conditions {
			i := slices.Index(marks, c)
			if i < 0 {
				i, marks = len(marks), append(marks, c)
			}
			letters += string(rune('a' + i))
		}
		if letters != "" {
			letters = " " + letters + ")"
		}
		name, best := clip(p.Name, 46-len(letters))+letters, " "
		if p.Name == a.Best {
			best = "*"
		}
		versus := ""
		if p.Group != DoNothing {
			versus = fmt.Sprintf("%+.0f %%", 100*(p.MonthlyUSD/nothing-1))
		}
		fmt.Fprintf(b, "%s %-46s %12s %7s %12s  %s [%s, %s]\n", best, name, dollars(p.MonthlyUSD), versus,
			p.breakEvenText(),
			whole(p.TotalUSD.P50), whole(p.TotalUSD.P10), whole(p.TotalUSD.P90))
	}
	return marks
}

func (p Plan) breakEvenText() string {
	switch {
	case p.Group == DoNothing:
		return "–"
	case p.BreakEven == nil:
		return "never"
	case *p.BreakEven == 0:
		return "always"
	}
	return count(math.Ceil(*p.BreakEven))
}

// outlook says from when a plan pays, all in, and how sure that is.
func (p Plan) outlook() string {
	if p.Group == DoNothing {
		return ""
	}
	s := fmt.Sprintf("all in, it is cheaper than doing nothing in %.0f %% of the samples", 100*p.Cheaper)
	if q := p.TotalBreakEven; q != nil {
		s += fmt.Sprintf(", from %s requests a month on [%s, %s]", count(q.P50), count(q.P10), count(q.P90))
	}
	if p.PaybackMonths == nil {
		return s + "; its one-off costs never come back"
	}
	return s + fmt.Sprintf("; its one-off costs are back after %.1f months", *p.PaybackMonths)
}

// explain writes the notes of the plans that matter, the sensitivity, and every assumption with its source.
func (a *Analysis) explain(b *strings.Builder) {
	for _, name := range []string{a.Best, a.BestIf} {
		if i := slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Name == name }); i >= 0 {
			notes := append([]string(nil), a.Plans[i].Notes...)
			if o := a.Plans[i].outlook(); o != "" {
				notes = append(notes, o)
			}
			fmt.Fprintf(b, "\n  %s\n", wrap(name+": "+strings.Join(notes, "; "), 96, "    "))
		}
	}
	if len(a.Sensitivity) > 0 {
		b.WriteString("\n  What moves the saving most, each alone (saving a month, all in)\n")
		for _, s := range a.Sensitivity[:min(6, len(a.Sensitivity))] {
			fmt.Fprintf(b, "    %-30s %8.4g … %-8.4g %12s … %s\n", s.Assumption, s.Low, s.High, dollars(s.SavingLow),
				dollars(s.SavingHigh))
		}
	}
	if a.Assumptions.WrongAnswerUSD.Value == 0 {
		fmt.Fprintf(b, "\n  Wrong answers are not priced. At $0.50 each, one accuracy point is worth %s a month.\n",
			dollars(a.Volume*0.01*0.5))
	}
	for _, why := range a.Infeasible {
		fmt.Fprintf(b, "  Left out: %s\n", why)
	}
	fmt.Fprintf(b, "\n  Assumed (prices: book of %s); override any with --set name=value\n", a.PriceBook)
	assumptions := a.Assumptions
	for _, n := range assumptions.all() {
		value := fmt.Sprintf("%.4g", n.Value)
		if n.Low != n.High {
			value += fmt.Sprintf(" [%.4g, %.4g]", n.Low, n.High)
		}
		fmt.Fprintf(b, "    %-30s %-22s %s (%s)\n", n.name, value, n.Unit, n.Source)
	}
}

func (art *Article) text() string {
	var b strings.Builder
	p, e := art.Published, art.Exact
	row := func(what, published, exact string) { fmt.Fprintf(&b, "  %-44s %16s %16s\n", what, published, exact) }
	fmt.Fprintf(&b, "The published scenario: %s support tickets a month, 500 tokens in and 50 out each\n\n",
		count(articleVolume))
	row("", "as published", "exact prices")
	row("GPT-4o, a request", fmt.Sprintf("$%.3f", p.USDPerRequest), fmt.Sprintf("$%.5f", e.USDPerRequest))
	row("server g5.xlarge, an hour × hours a month", fmt.Sprintf("$%.2f × %g", p.USDPerHour, p.HoursPerMonth),
		fmt.Sprintf("$%.3f × %g", e.USDPerHour, e.HoursPerMonth))
	row("all GPT-4o, a month", whole(p.GeneralistUSD), whole(e.GeneralistUSD))
	row("Llama 3.2 3B on the server, a month", whole(p.SpecialistUSD), whole(e.SpecialistUSD))
	row("saving a month", fmt.Sprintf("%s (%.0f %%)", whole(p.SavingUSD), 100*p.SavingShare),
		fmt.Sprintf("%s (%.0f %%)", whole(e.SavingUSD), 100*e.SavingShare))
	row("break-even, tickets a month", count(math.Ceil(p.BreakEven-1e-6)), count(math.Ceil(e.BreakEven)))
	row(fmt.Sprintf("%s tickets by GPT-4o, a month", count(p.SmallVolume)), whole(p.SmallGeneralist),
		dollars(e.SmallGeneralist))
	fmt.Fprintf(&b, "\nThe same tokens with the API models of the price book\n\n  %-28s %14s %26s\n", "", "a month",
		"the server pays from")
	for _, t := range art.Today {
		from, ends := "never", ""
		if t.BreakEven != nil {
			from = count(math.Ceil(*t.BreakEven))
		}
		if t.Ends != "" {
			ends = "  shut down on " + t.Ends
		}
		fmt.Fprintf(&b, "  %-28s %14s %26s%s\n", clip(t.Model, 28), dollars(t.APIUSD), from, ends)
	}
	b.WriteString("\nWhich conclusion still holds\n\n")
	for _, c := range art.Conclusions {
		fmt.Fprintf(&b, "  %-8s %s\n", c.Holds, wrap(c.Claim+": "+c.Why, 86, "           "))
	}
	b.WriteString("\nWhat the published figures leave out\n\n")
	for _, l := range art.LeftOut {
		fmt.Fprintf(&b, "  - %s\n", wrap(l, 94, "    "))
	}
	return b.String()
}

// A line of a chart: a plan with the letter it is drawn with.
type chartLine struct {
	name  string
	curve Curve
	cross *float64
}

// chartLines picks at most four curves: doing nothing, an own server, the best plan, the cheapest switch. For the published
// scenario they are the exact ones and today's.
func (a *Analysis) chartLines() []chartLine {
	var out []chartLine
	add := func(ok func(Plan) bool) {
		for _, p := range a.Plans {
			drawn := slices.ContainsFunc(out, func(l chartLine) bool { return l.name == p.Name })
			if ok(p) && !drawn {
				out = append(out, chartLine{p.Name, p.Bill, p.BreakEven})
				return
			}
		}
	}
	if a.Article != nil {
		for _, part := range []string{"all gpt-4o, exact", "g5.xlarge, exact", "today: router", "today: all"} {
			add(func(p Plan) bool { return strings.Contains(p.Name, part) })
		}
		return out
	}
	add(func(p Plan) bool { return p.Group == DoNothing })
	if add(func(p Plan) bool { return p.Name == referencePlan }); len(out) < 2 {
		add(func(p Plan) bool { return p.Group == HostedModel })
	}
	if add(func(p Plan) bool { return p.Name == a.Best && p.Group != DoNothing }); len(out) < 3 {
		add(func(p Plan) bool { return p.Group == RouterPlan && len(p.Conditions) == 0 })
	}
	add(func(p Plan) bool { return p.Group == SwitchModel })
	return out
}

// frame is the window of a log-log chart: decades of volume and of dollars.
type frame struct{ volumeLow, volumeHigh, usdLow, usdHigh float64 }

func (a *Analysis) frame(lines []chartLine) frame {
	middle := math.Round(math.Log10(math.Max(a.Volume, 1)))
	f := frame{volumeLow: math.Pow(10, middle-2), volumeHigh: math.Pow(10, middle+2)}
	low, high := math.Inf(1), 0.0
	for _, l := range lines {
		low, high = math.Min(low, l.curve.At(f.volumeLow)), math.Max(high, l.curve.At(f.volumeHigh))
	}
	f.usdLow = math.Pow(10, math.Floor(math.Log10(math.Max(low, 0.01))))
	f.usdHigh = math.Max(f.usdLow*10, math.Pow(10, math.Ceil(math.Log10(math.Max(high, 0.01)))))
	return f
}

// x and y place a point in [0, 1]; y grows downwards.
func (f frame) x(volume float64) float64 {
	return math.Log(volume/f.volumeLow) / math.Log(f.volumeHigh/f.volumeLow)
}

func (f frame) y(usd float64) float64 {
	return math.Log(f.usdHigh/math.Max(usd, f.usdLow)) / math.Log(f.usdHigh/f.usdLow)
}

// Chart draws the monthly bill against the volume for a terminal, both logarithmic. Where curves meet, the first is drawn.
func (a *Analysis) Chart() string {
	const width, height = 66, 15
	lines := a.chartLines()
	f := a.frame(lines)
	grid := make([][]rune, height)
	for i := range grid {
		grid[i] = slices.Repeat([]rune{' '}, width)
	}
	for i := len(lines) - 1; i >= 0; i-- {
		for col := range width {
			volume := f.volumeLow * math.Pow(f.volumeHigh/f.volumeLow, float64(col)/(width-1))
			row := int(math.Round(f.y(lines[i].curve.At(volume)) * (height - 1)))
			grid[min(max(row, 0), height-1)][col] = rune('A' + i)
		}
	}
	var b strings.Builder
	b.WriteString("  bill a month\n")
	for i, row := range grid {
		label := ""
		usd := f.usdHigh * math.Pow(f.usdLow/f.usdHigh, float64(i)/(height-1))
		if exponent := math.Log10(usd); i == 0 || i == height-1 ||
			math.Abs(exponent-math.Round(exponent)) < 0.5*math.Log10(f.usdHigh/f.usdLow)/(height-1) {
			label = "$" + short(math.Pow(10, math.Round(exponent)))
		}
		fmt.Fprintf(&b, "  %7s │%s\n", label, strings.TrimRight(string(row), " "))
	}
	fmt.Fprintf(&b, "  %7s └%s\n  %9s", "", strings.Repeat("─", width), "")
	for i := range 4 {
		fmt.Fprintf(&b, "%-16s", short(f.volumeLow*math.Pow(10, float64(i))))
	}
	fmt.Fprintf(&b, "%s requests a month\n", short(f.volumeHigh))
	for i, l := range lines {
		fmt.Fprintf(&b, "  %c  %s\n", 'A'+i, l.name)
	}
	return b.String()
}

// short writes a round number with a unit: 10k, 1M, 0.1.
func short(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size*0.9995 {
			return fmt.Sprintf("%.3g%s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

// whole writes dollars without cents: "$1,750".
func whole(usd float64) string {
	if r := math.Round(usd); r < 0 {
		return "-$" + count(r)
	}
	return "$" + count(math.Round(usd))
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// wrap breaks text into lines of at most width runes; further lines begin with the indent.
func wrap(s string, width int, indent string) string {
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(s) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case used+1+n > width:
			b.WriteString("\n" + indent)
			used = 0
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}

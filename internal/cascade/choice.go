package cascade

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
)

// A Price is what one tier costs.
type Price struct {
	PerCall float64 `json:"usd_per_call"`   // dollars, a mean over real calls where there are any
	Hosting float64 `json:"usd_per_month"`  // dollars a month for servers of its own
	Unknown bool    `json:"unpriced"`       // no price is known: never taken for free
	From    string  `json:"from,omitempty"` // where the figure comes from
}

// A Stage is one tier on the way of a plan.
type Stage struct {
	Tier     string  `json:"tier"`
	Reach    float64 `json:"reach"`    // share of all requests that come to it
	Coverage float64 `json:"coverage"` // share of all requests that it answers
	Wrong    float64 `json:"wrong"`    // upper bound on the share of wrong answers, as certified; 0 where it is not
	Size     int     `json:"-"`        // rank among the tiers, smallest first: decides ties
}

// A Candidate is one way to use a task's tiers.
type Candidate struct {
	Stages []Stage `json:"stages"` // in order; none: the generalist answers everything
	// Problem says why the plan keeps no promise, or is not known to: a tier that is not certified, with the labels it lacks,
	// one that was not measured, an escalation that does not pay. "" where every tier is certified.
	Problem string `json:"problem,omitempty"`

	Rest    float64  `json:"rest"`          // share that goes past all tiers
	Audited float64  `json:"audited"`       // share of all requests that is answered by a tier and checked by the generalist
	PerCall *float64 `json:"usd_per_1k"`    // dollars for 1,000 requests, servers left out; nil: unpriced
	Monthly *float64 `json:"usd_per_month"` // dollars at the volume; nil: unpriced
	Chosen  bool     `json:"chosen"`
	Verdict string   `json:"verdict"`
}

// Name is the plan in words: its tiers in order and who answers the rest.
func (c *Candidate) Name(rest string) string {
	names := make([]string, 0, len(c.Stages)+1)
	for _, s := range c.Stages {
		names = append(names, s.Tier)
	}
	return strings.Join(append(names, rest), " → ")
}

// An Escalation compares a tier with the next one on what it defers.
type Escalation struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Rows    int     `json:"rows"` // answered by both and judged by the labels
	Gains   int     `json:"gains"`
	Harms   int     `json:"harms"`
	P       float64 `json:"p"`
	Pays    bool    `json:"pays"`
	Against string  `json:"against"` // whose labels said who was right
	Verdict string  `json:"verdict"`
}

// A Choice is every plan that was considered for a task, what each costs at the task's volume, and which one was taken.
type Choice struct {
	Promise     string           `json:"promise"` // what every certified tier keeps, in words
	Volume      float64          `json:"requests_per_month"`
	VolumeFrom  string           `json:"volume_from"`
	Audit       float64          `json:"audit"` // share of answers that is checked by the generalist
	Rest        string           `json:"rest"`  // who answers what no tier may: the generalist's name, or "a person"
	Prices      map[string]Price `json:"prices"`
	Generalist  string           `json:"generalist"`
	Candidates  []Candidate      `json:"candidates"`
	Escalations []Escalation     `json:"escalations,omitempty"`
	Spent       float64          `json:"calibration_usd,omitempty"` // dollars spent on answers to measure tiers with
	Notes       []string         `json:"notes,omitempty"`
}

// Chosen is the plan that was taken, nil before Decide.
func (c *Choice) Chosen() *Candidate {
	for i := range c.Candidates {
		if c.Candidates[i].Chosen {
			return &c.Candidates[i]
		}
	}
	return nil
}

// Decide prices every candidate and takes the cheapest whose promise is proven; a tie goes to the plan whose tiers are the
// smaller ones. The plan without a tier is always among them. A price that is not known makes a plan unpriced, and such a plan is
// never taken, but for one whose tiers cost nothing by the call: it only takes calls away from the generalist.
func (c *Choice) Decide() {
	best := -1
	for i := range c.Candidates {
		p := &c.Candidates[i]
		p.Chosen = false
		c.price(p)
		switch {
		case p.Problem != "":
			p.Verdict = p.Problem
		case best < 0 || c.better(p, &c.Candidates[best]):
			best = i
		}
	}
	for i := range c.Candidates {
		p := &c.Candidates[i]
		if p.Problem == "" {
			p.Verdict = c.verdict(p, i == best, best)
		}
	}
	if best >= 0 {
		c.Candidates[best].Chosen = true
	}
}

// Cost is what a plan costs: dollars a month, or for 1,000 requests where the volume is not known; ok is false where a price is
// not known.
func (c *Choice) Cost(p *Candidate) (usd float64, ok bool) {
	c.price(p)
	return p.cost()
}

// Cheapest is what the cheapest proven plan so far costs, the one without a tier included.
func (c *Choice) Cheapest() (usd float64, ok bool) {
	usd, ok = c.Cost(&Candidate{})
	for i := range c.Candidates {
		if p := &c.Candidates[i]; p.Problem == "" {
			if mine, priced := c.Cost(p); priced && (!ok || mine < usd) {
				usd, ok = mine, true
			}
		}
	}
	return usd, ok
}

// price works out what a plan costs.
func (c *Choice) price(p *Candidate) {
	p.Rest, p.Audited = 1, 0
	each, hosting, known := 0.0, 0.0, true
	for _, s := range p.Stages {
		price := c.Prices[s.Tier]
		known = known && !price.Unknown
		each += s.Reach * price.PerCall
		hosting += price.Hosting
		p.Rest -= s.Coverage
		p.Audited += s.Coverage * c.Audit
	}
	p.Rest = max(p.Rest, 0)
	calls := p.Audited
	if c.Rest == c.Generalist {
		calls += p.Rest
	}
	generalist := c.Prices[c.Generalist]
	if calls > 0 {
		known = known && !generalist.Unknown
	}
	each += calls * generalist.PerCall
	p.PerCall, p.Monthly = nil, nil
	if known {
		perThousand, monthly := 1000*each, each*c.Volume+hosting
		p.PerCall = &perThousand
		if c.Volume > 0 {
			p.Monthly = &monthly
		}
	}
}

// cost orders plans: dollars a month, or for one request where the volume is not known.
func (p *Candidate) cost() (float64, bool) {
	switch {
	case p.Monthly != nil:
		return *p.Monthly, true
	case p.PerCall != nil:
		return *p.PerCall, true
	}
	return math.NaN(), false
}

// better reports whether a proven plan is to be preferred to another proven one.
func (c *Choice) better(p, than *Candidate) bool {
	a, priced := p.cost()
	b, also := than.cost()
	const rounding = 1e-9
	switch {
	case priced && also && math.Abs(a-b) > rounding*max(math.Abs(a), math.Abs(b)):
		return a < b
	case priced && also && p.Rest != than.Rest:
		return p.Rest < than.Rest
	case priced && also:
		return p.size() < than.size()
	case !priced && !also: // the generalist has no price: whoever needs it least, as long as nothing else is paid
		if !c.free(p) || !c.free(than) {
			return c.free(p)
		}
		return p.Rest+p.Audited < than.Rest+than.Audited
	}
	return priced
}

// size is how large the tiers of a plan are together.
func (p *Candidate) size() (sum int) {
	for _, s := range p.Stages {
		sum += 1 << s.Size
	}
	return sum
}

// free reports whether no tier of a plan is paid by the call or by the hour.
func (c *Choice) free(p *Candidate) bool {
	for _, s := range p.Stages {
		if price := c.Prices[s.Tier]; price.Unknown || price.PerCall > 0 || price.Hosting > 0 {
			return false
		}
	}
	return true
}

func (c *Choice) verdict(p *Candidate, chosen bool, best int) string {
	_, priced := p.cost()
	switch {
	case chosen && priced && len(p.Stages) > 0:
		return "chosen: the cheapest that keeps the promise"
	case chosen && priced:
		return "chosen: no proven tier makes it cheaper"
	case chosen:
		return "chosen: unpriced, but its tiers cost nothing by the call"
	case !priced:
		return "unpriced, so not chosen: " + c.unpriced(p)
	}
	mine, _ := p.cost()
	cheapest, also := c.Candidates[best].cost()
	switch {
	case also && mine > cheapest && p.Monthly != nil:
		return fmt.Sprintf("dearer by $%.2f a month", mine-cheapest)
	case also && mine > cheapest:
		return "dearer"
	}
	return "costs the same; the smaller model is taken"
}

// unpriced names the models of a plan that have no price.
func (c *Choice) unpriced(p *Candidate) string {
	var names []string
	for _, s := range p.Stages {
		if c.Prices[s.Tier].Unknown {
			names = append(names, s.Tier)
		}
	}
	if c.Prices[c.Generalist].Unknown {
		names = append(names, c.Generalist)
	}
	return strings.Join(names, ", ") + " has no price in the book (see `occam prices`)"
}

// Text is the choice as one table, for people.
func (c *Choice) Text() string {
	var b strings.Builder
	volume := "no volume known"
	if c.Volume > 0 {
		volume = fmt.Sprintf("%.0f requests a month, %s", c.Volume, c.VolumeFrom)
	}
	fmt.Fprintf(&b, "plans (%s; every tier named keeps: %s; %.3g %% of answers audited)\n", volume, c.Promise, 100*c.Audit)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  \tPLAN\tANSWERS\tWRONG AT MOST\tREST\t$/1K\t$/MONTH\tVERDICT")
	for i := range c.Candidates {
		p := &c.Candidates[i]
		mark := " "
		if p.Chosen {
			mark = "*"
		}
		var answers, wrong []string
		for _, s := range p.Stages {
			answers = append(answers, fmt.Sprintf("%.1f %%", 100*s.Coverage))
			if s.Wrong > 0 {
				wrong = append(wrong, fmt.Sprintf("%.2f %%", 100*s.Wrong))
			} else {
				wrong = append(wrong, "–")
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f %%\t%s\t%s\t%s\n", mark, p.Name(c.Rest), dash(answers), dash(wrong), 100*p.Rest,
			dollars(p.PerCall, "%.4f"), dollars(p.Monthly, "%.2f"), p.Verdict)
	}
	_ = w.Flush() // a strings.Builder takes everything
	for _, e := range c.Escalations {
		fmt.Fprintf(&b, "  %s → %s: %s\n", e.From, e.To, e.Verdict)
	}
	for _, note := range c.Notes {
		fmt.Fprintf(&b, "  %s\n", note)
	}
	return b.String()
}

func dash(parts []string) string {
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, " + ")
}

func dollars(amount *float64, format string) string {
	if amount == nil {
		return "–"
	}
	return fmt.Sprintf(format, *amount)
}

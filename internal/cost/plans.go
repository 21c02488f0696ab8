package cost

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// A Group says what a plan changes.
type Group string

const (
	DoNothing   Group = "do nothing"
	SwitchModel Group = "switch model"
	BatchAPI    Group = "batch"
	PromptCache Group = "prompt cache"
	DecisionAPI Group = "decision API"
	TunedAPI    Group = "tuned model by API"
	HostedModel Group = "hosted model"
	SharedHost  Group = "shared server"
	EmbeddedVM  Group = "embedded"
	RouterPlan  Group = "router"
)

// A recipe is a plan before any number: an optional tier in front that answers a share of the requests by itself, and an API
// model behind it that answers the rest. A plan without a front sends everything to the model behind; one without a model
// behind answers everything in front.
type recipe struct {
	name       string
	group      Group
	front      *frontTier
	back       *apiTier
	conditions []string // what must hold, and is not known to, before the plan may be called the best
	notes      []string
	setup      func(*Assumptions) Assumption // hours, once
	upkeep     func(*Assumptions) Assumption // hours a month
	accuracy   func(*Assumptions) Assumption // of the front where there is one, else of the model behind
	behind     func(*Assumptions) Assumption // accuracy of the model behind a front
}

// An apiTier is a model paid by the token.
type apiTier struct {
	price  Price
	prefix float64 // tokens of the prompt that the provider's cache can hold; 0: no caching
	tuned  bool    // needs only the short prompt and the short answer
}

// A frontTier answers a share of the requests: on rented servers, or by the token.
type frontTier struct {
	name     string // as in MeasuredTier; "" for a tuned model paid by the token
	host     Host
	llama    *llamaSpec // served on the host's GPU; nil: the embedded specialist on its CPU
	api      *apiTier   // paid by the token instead of a host; not trained unless it is tuned
	shared   bool       // one of several tasks on the host
	coverage func(*Assumptions) Assumption
}

// economy is a recipe with its numbers filled in: dollars a month, dollars a request, and servers.
type economy struct {
	apiEach, auditEach, escalateEach, errorEach float64
	hosting                                     Curve // servers only
	overheadEach                                float64
	training, labels, hours                     float64 // a month, one-off costs spread
	oneOff, upkeep                              float64 // once; a month of people, retraining and labels
	capacity                                    float64 // requests a second of one server when saturated
	coverage                                    float64
}

const secondsPerHour = 3600

// evaluate turns a recipe into numbers under one set of assumptions.
func (r recipe) evaluate(w Workload, a *Assumptions) economy {
	var e economy
	e.coverage = 1
	if r.front != nil {
		if r.back != nil {
			e.coverage = r.front.coverage(a).Value
		}
		r.front.fill(&e, w, a)
	}
	escalated := 0.0
	if r.back != nil {
		each := r.back.each(w, a)
		if r.front == nil {
			e.apiEach += each
		} else {
			down := math.Min(1, a.ColdStarts.Value*a.ColdStartSeconds.Value/(a.ServerHours.Value*secondsPerHour))
			if r.front.host.GPUs == 0 {
				down = 0 // an API has no start of ours, and the embedded specialist starts with the gateway
			}
			escalated = 1 - e.coverage*(1-down)
			e.escalateEach = each * escalated
			e.auditEach = each * a.AuditShare.Value * (1 - escalated) // the tier behind checks the tier in front
		}
	}
	e.people(r, a)
	if a.WrongAnswerUSD.Value > 0 {
		wrong := 1 - r.accuracy(a).Value
		if r.front != nil && r.back != nil {
			wrong = wrong*(1-escalated) + (1-r.behind(a).Value)*escalated
		}
		e.errorEach = wrong * a.WrongAnswerUSD.Value
	}
	return e
}

// fill adds what the front tier costs: by the token, or as a staircase of servers sized for the peak.
func (f *frontTier) fill(e *economy, w Workload, a *Assumptions) {
	if f.api != nil {
		e.apiEach += f.api.each(w, a)
		return
	}
	share := 1.0
	if f.shared {
		share = 1 / a.SharedTasks.Value
	}
	e.capacity = a.EmbeddedPerSec.Value
	if f.llama != nil {
		e.capacity = f.gpuPerSecond(w, a) * float64(f.host.GPUs)
	}
	peak := w.peakPerRequest(a) // requests a second at the peak for one request a month
	e.hosting = Curve{
		Server:      share * f.host.Hour.USD() * a.HostPriceFactor.Value * a.ServerHours.Value,
		ServersEach: peak / (e.capacity * a.MaxUtilisation.Value * share),
		Spare:       math.Round(a.SpareServers.Value),
	}
	e.overheadEach = share * a.ServerOverhead.Value
}

func (f *frontTier) gpuPerSecond(w Workload, a *Assumptions) float64 {
	if a.HostedPerSecond.Value > 0 {
		return a.HostedPerSecond.Value
	}
	g, _ := gpuNamed(f.host.GPU)
	in, out := w.tuned(a)
	return g.perSecond(*f.llama, in, out, a.FLOPSShare.Value, a.DecodeBatch.Value)
}

// people adds hours, training runs and labels. Nothing is trained where there is no front tier.
func (e *economy) people(r recipe, a *Assumptions) {
	rate, months := a.EngineerUSDPerHour.Value, a.AmortiseMonths.Value
	setup, upkeep := r.setup(a).Value*rate, r.upkeep(a).Value*rate
	e.hours = setup/months + upkeep
	e.oneOff, e.upkeep = setup, upkeep
	if r.front == nil {
		return
	}
	run := a.TrainingUSD.Value
	if r.front.llama == nil && (r.front.api == nil || !r.front.api.tuned) {
		run = 0 // trained on the CPU of the machine that is there anyway
	}
	labels := a.Labels.Value * a.LabelUSD.Value
	relabel := a.Retrains.Value * a.LabelsPerRetrain.Value * a.LabelUSD.Value
	e.training = run/months + run*a.Retrains.Value
	e.labels = labels/months + relabel
	e.oneOff += run + labels
	e.upkeep += run*a.Retrains.Value + relabel
}

// bill is what invoices will say: API calls, audits and escalations included, and servers.
func (e economy) bill() Curve {
	c := e.hosting
	c.PerRequest += e.apiEach + e.escalateEach + e.auditEach
	return c
}

// total adds to the bill what no provider invoices: hours, training, labels, overhead of servers, wrong answers.
func (e economy) total() Curve {
	c := e.bill()
	c.Server += e.overheadEach
	c.Fixed += e.training + e.labels + e.hours
	c.PerRequest += e.errorEach
	return c
}

// running is the total without the one-off costs, for the payback.
func (e economy) running() Curve {
	c := e.total()
	c.Fixed += e.upkeep - (e.training + e.labels + e.hours)
	return c
}

// Parts splits a month's total cost, in dollars.
type Parts struct {
	API         float64 `json:"api"`
	Escalations float64 `json:"escalations"`
	Audits      float64 `json:"audits"`
	Hosting     float64 `json:"hosting"`
	Overhead    float64 `json:"overhead"`
	Training    float64 `json:"training"`
	Labels      float64 `json:"labels"`
	Hours       float64 `json:"hours"`
	Errors      float64 `json:"wrong_answers"`
}

func (e economy) parts(volume float64) Parts {
	return Parts{
		API: e.apiEach * volume, Escalations: e.escalateEach * volume, Audits: e.auditEach * volume,
		Hosting: e.hosting.At(volume), Overhead: e.overheadEach * e.hosting.Servers(volume),
		Training: e.training, Labels: e.labels, Hours: e.hours, Errors: e.errorEach * volume,
	}
}

// each is the mean price of one request in dollars, retries included. Where the prompt has a cacheable prefix, CacheHit of
// the requests read it and the rest write it; of the generalist, what its cache gave already is taken from the record.
func (t *apiTier) each(w Workload, a *Assumptions) float64 {
	in, out := w.InputTokens, w.OutputTokens
	if t.tuned {
		in, out = w.tuned(a)
	}
	in, out = in*a.TokenFactor.Value, out*a.TokenFactor.Value
	r := t.price.dailyMean(int64(in))
	prefix := math.Min(t.prefix*a.TokenFactor.Value, in)
	read, write := prefix*a.CacheHit.Value, prefix*(1-a.CacheHit.Value)
	if t.prefix == 0 && t.price.Provider == w.generalist.price.Provider && t.price.Model == w.generalist.price.Model {
		prefix = math.Min(w.CachedTokens*a.TokenFactor.Value, in) // what was recorded of it
		read, write = prefix, 0
	}
	usd := (in-prefix)*r.Input.USDPerMTok() + read*r.Cached.USDPerMTok() + write*r.CacheWrite.USDPerMTok() +
		out*r.Output.USDPerMTok()
	return usd / 1e6 * a.APIPriceFactor.Value * (1 + a.RetryShare.Value)
}

// dailyMean averages prices that differ by the hour over a day of even traffic.
func (p Price) dailyMean(input int64) Rates {
	if len(p.Daily) == 0 {
		return p.ratesFor(input, time.Time{})
	}
	const step = 15 * time.Minute
	n := Rate(24 * time.Hour / step)
	var s Rates
	for i := range n {
		q := p.ratesFor(input, time.Time{}.Add(time.Duration(i)*step))
		s = Rates{s.Input + q.Input, s.Cached + q.Cached, s.CacheWrite + q.CacheWrite, s.Output + q.Output}
	}
	return Rates{s.Input / n, s.Cached / n, s.CacheWrite / n, s.Output / n}
}

// describe says in words what the numbers of a plan rest on.
func (r recipe) describe(e economy, w Workload, a *Assumptions) []string {
	notes := append([]string{}, r.notes...)
	if r.front != nil && r.back != nil {
		c := r.front.coverage(a)
		notes = append(notes, fmt.Sprintf("answers %.0f %% itself (%s)", 100*e.coverage, c.Source))
	}
	if n := e.hosting.Servers(w.Volume); n > 0 && e.capacity > 0 {
		busy := w.Volume / (a.ServerHours.Value * secondsPerHour) / (e.capacity * n)
		if r.front.shared {
			busy *= a.SharedTasks.Value
		}
		source := "roofline estimate, not measured"
		if r.front.llama == nil || a.HostedPerSecond.Value > 0 {
			source = strings.TrimPrefix(a.EmbeddedPerSec.Source, "assumption: ")
		}
		if a.HostedPerSecond.Value > 0 && r.front.llama != nil {
			source = a.HostedPerSecond.Source
		}
		notes = append(notes, fmt.Sprintf("%.0f × %s, %.2g %% busy, %.3g requests/s each when saturated (%s)",
			n, r.front.host.SKU, 100*busy, e.capacity, source))
	}
	notes = append(notes, r.unverified()...)
	if r.back != nil && !r.back.price.Shutdown.IsZero() {
		notes = append(notes, fmt.Sprintf("%s is shut down on %s", r.back.price.Model,
			r.back.price.Shutdown.Format(time.DateOnly)))
	}
	return notes
}

// unverified names the prices of a plan that nobody has seen on a price list.
func (r recipe) unverified() []string {
	var out []string
	if r.back != nil && r.back.price.Confidence == Recalled {
		out = append(out, "the price of "+r.back.price.Model+" is from memory: verify it")
	}
	if r.front != nil && r.front.host.Confidence == Recalled {
		out = append(out, "the price of "+r.front.host.SKU+" is from memory: verify it")
	}
	return out
}

package cost

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	unmeasured = "it proves accurate enough on your data: not measured yet"
	dayLate    = "answers may take up to 24 hours"
	noCopying  = "it only has to choose between options: it cannot copy out a text such as an order ID"

	// lastingDays is how long a model must still be served to be worth moving to.
	lastingDays = 180
)

func (s Scenario) doNothing() recipe {
	return recipe{
		name: "all " + s.Generalist, group: DoNothing, back: &s.generalist, notes: []string{"do nothing"},
		setup: noHours, upkeep: noHours,
		accuracy: s.accuracyOf(s.Generalist, false, func(a *Assumptions) Assumption { return a.AccuracyGeneralist }),
	}
}

func noHours(*Assumptions) Assumption { return Assumption{} }

// recipes lists every plan that is feasible for the scenario, "do nothing" first, and says why others are not.
func (s Scenario) recipes(b *Book) (plans []recipe, infeasible []string) {
	plans = append(plans, s.doNothing())
	var cheap []Price
	for _, p := range s.cheaperModels(b) {
		if p.EndedBy(s.At.AddDate(0, 0, lastingDays)) {
			infeasible = append(infeasible, fmt.Sprintf("switch to %s: it is shut down on %s", p.Model,
				p.Shutdown.Format(time.DateOnly)))
			continue
		}
		cheap = append(cheap, p)
	}
	plans = append(plans, s.switches(cheap)...)
	if len(cheap) == 0 {
		infeasible = append(infeasible, "switch to a cheaper API model: the book has none that costs less than "+s.Generalist)
	}
	more, why := s.sameModel(cheap)
	plans, infeasible = append(append(plans, more...), s.apiRouters(b, cheap)...), append(infeasible, why...)
	more, why = s.hosted(b)
	plans, infeasible = append(plans, more...), append(infeasible, why...)
	more, why = s.embedded(b, cheap)
	return append(plans, more...), append(infeasible, why...)
}

// cheaperModels are the chat models that cost less a request than the generalist and are still served, cheapest first.
func (s Scenario) cheaperModels(b *Book) []Price {
	a := s.Assumptions
	limit := s.generalistEach(&a)
	each := func(p Price) float64 { return (&apiTier{price: p}).each(s.Workload, &a) }
	var out []Price
	for _, p := range b.Prices(s.At) {
		if p.Kind == Chat && p.Train == 0 && !p.EndedBy(s.At) && each(p) < limit {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(p, q Price) int { return cmp.Compare(each(p), each(q)) })
	return out
}

func (s Scenario) switches(cheap []Price) []recipe {
	var out []recipe
	for _, p := range cheap {
		out = append(out, s.switchTo("switch to "+p.Model, SwitchModel, apiTier{price: p}, s.proof(p.Model)...))
	}
	return out
}

func (s Scenario) switchTo(name string, g Group, t apiTier, conditions ...string) recipe {
	return recipe{
		name: name, group: g, back: &t, conditions: conditions,
		setup:    func(a *Assumptions) Assumption { return a.SetupHoursSwitch },
		upkeep:   func(a *Assumptions) Assumption { return a.UpkeepSwitch },
		accuracy: s.accuracyOf(t.price.Model, false, func(a *Assumptions) Assumption { return a.AccuracyCheap }),
	}
}

// accuracyOf is the measured accuracy of a tier, of the answers it gives behind a certificate (served) or of all; otherwise
// what is assumed.
func (s Scenario) accuracyOf(tier string, served bool,
	assumed func(*Assumptions) Assumption) func(*Assumptions) Assumption {
	m, ok := s.measured(tier)
	v := m.Accuracy
	if served {
		v = m.ServedAccuracy
	}
	if !ok || v == 0 {
		return assumed
	}
	return func(*Assumptions) Assumption { return Assumption{Value: v, Low: v, High: v} }
}

// sameModel are the plans that keep a model and change how it is called: batch, prompt cache; and the decision and tuned
// models that are paid by the token.
func (s Scenario) sameModel(cheap []Price) (plans []recipe, infeasible []string) {
	keep := func(r recipe) recipe {
		r.accuracy = func(a *Assumptions) Assumption { return a.AccuracyGeneralist }
		return r
	}
	if batch, ok := s.generalist.price.Batch(); ok && s.generalist.price.BatchPermille < 1000 {
		plans = append(plans, keep(s.switchTo("all "+s.Generalist+", batch API", BatchAPI, apiTier{price: batch}, dayLate)))
	} else {
		infeasible = append(infeasible, "batch: the book knows no batch price for "+s.Generalist)
	}
	if len(cheap) > 0 {
		if batch, ok := cheap[0].Batch(); ok && cheap[0].BatchPermille < 1000 {
			plans = append(plans, s.switchTo("switch to "+cheap[0].Model+", batch API", BatchAPI, apiTier{price: batch},
				append(s.proof(cheap[0].Model), dayLate)...))
		}
	}
	minimum := s.Assumptions.CacheMinimum.Value
	switch g := s.generalist.price; {
	case s.CachedTokens > 0 && s.CachedTokens >= s.PrefixTokens*s.Assumptions.CacheHit.Value:
		infeasible = append(infeasible, fmt.Sprintf("prompt cache: %.0f of %.0f input tokens are read from it already", s.CachedTokens, s.InputTokens))
	case s.PrefixTokens < minimum:
		infeasible = append(infeasible, fmt.Sprintf("prompt cache: the shared prefix of %.0f tokens is below the "+
			"minimum of %.0f",
			s.PrefixTokens, minimum))
	case g.Cached >= g.Input:
		infeasible = append(infeasible, "prompt cache: the book knows no discount for "+s.Generalist)
	default:
		plans = append(plans, keep(s.switchTo("all "+s.Generalist+", prompt cache", PromptCache,
			apiTier{price: g, prefix: s.PrefixTokens})))
	}
	return plans, infeasible
}

// apiRouters are API models in front of the generalist: the cheapest one, and each decision model. Each answers what its certificate
// allows and is paid for every request; the rest is paid twice.
func (s Scenario) apiRouters(b *Book, cheap []Price) []recipe {
	const uncertified = "its confidence tells right answers from wrong ones on your data: not measured yet"
	var out []recipe
	router := func(p Price, conditions ...string) {
		front := &frontTier{name: p.Model, api: &apiTier{price: p}, coverage: s.coverageOf(p.Model, func(a *Assumptions) Assumption { return a.CoverageAPI })}
		if m, ok := s.measured(p.Model); !ok || m.Coverage == 0 {
			conditions = append([]string{uncertified}, conditions...)
		}
		out = append(out, s.trained("router: "+p.Model+" + "+s.Generalist, RouterPlan, front, &s.generalist, embeddedHours, conditions...))
	}
	if len(cheap) > 0 {
		router(cheap[0])
	}
	each := func(p Price) float64 { return (&apiTier{price: p}).each(s.Workload, &s.Assumptions) }
	for _, p := range b.Prices(s.At) {
		if p.Kind == Decision && !p.EndedBy(s.At) && each(p) < s.generalistEach(&s.Assumptions) {
			router(p, noCopying)
		}
	}
	return out
}

// coverageOf is the measured coverage of a tier, otherwise what is assumed.
func (s Scenario) coverageOf(tier string, assumed func(*Assumptions) Assumption) func(*Assumptions) Assumption {
	m, ok := s.measured(tier)
	if !ok || m.Coverage == 0 {
		return assumed
	}
	return func(*Assumptions) Assumption {
		return Assumption{Value: m.Coverage, Low: m.Coverage, High: m.Coverage, Source: cmp.Or(m.Source, "measured")}
	}
}

// byToken are the decision models, and the small models that their seller tunes and serves by the token.
func (s Scenario) byToken(b *Book) []recipe {
	var out []recipe
	for _, p := range b.Prices(s.At) {
		switch {
		case p.EndedBy(s.At):
		case p.Kind == Decision:
			r := s.switchTo("decide with "+p.Model, DecisionAPI, apiTier{price: p},
				append(s.proof(p.Model), noCopying)...)
			r.notes = append(r.notes, "one decision a request")
			out = append(out, r)
		case p.Train > 0:
			// Models of 2B and 4B parameters: the lower of the two assumed coverages.
			front := &frontTier{api: &apiTier{price: p, tuned: true},
				coverage: func(a *Assumptions) Assumption { return a.Coverage1B }}
			name, elsewhere := "tuned "+p.Model+" at "+p.Provider, "your texts may go to "+p.Provider
			out = append(out, s.trained(name, TunedAPI, front, nil, tunedAPIHours, unmeasured, elsewhere),
				s.trained("router: "+name+" + "+s.Generalist, RouterPlan, front, &s.generalist, tunedAPIHours, elsewhere))
		}
	}
	return out
}

// hours are the two human costs of a kind of plan.
type hours struct{ setup, upkeep func(*Assumptions) Assumption }

var (
	tunedAPIHours = hours{func(a *Assumptions) Assumption {
		return Assumption{Value: a.SetupHoursSwitch.Value + a.SetupHoursEmbedded.Value}
	},
		func(a *Assumptions) Assumption { return a.UpkeepEmbedded }}
	hostedHours = hours{func(a *Assumptions) Assumption { return a.SetupHoursHosted },
		func(a *Assumptions) Assumption { return a.UpkeepHosted }}
	embeddedHours = hours{func(a *Assumptions) Assumption { return a.SetupHoursEmbedded },
		func(a *Assumptions) Assumption { return a.UpkeepEmbedded }}
)

// trained is a plan with a specialist in front: alone, or as a router with an API model behind it.
func (s Scenario) trained(name string, g Group, front *frontTier, back *apiTier, h hours, conditions ...string) recipe {
	return recipe{name: name, group: g, front: front, back: back, conditions: conditions, setup: h.setup, upkeep: h.upkeep,
		behind:   s.doNothing().accuracy,
		accuracy: s.accuracyOf(front.name, back != nil, func(a *Assumptions) Assumption { return a.AccuracySpecialist })}
}

// hosted are Llama 3.2 1B and 3B on the GPUs of the book: alone, sharing a server with other tasks, and behind a router.
func (s Scenario) hosted(b *Book) (plans []recipe, infeasible []string) {
	llamas := []struct {
		tier     string
		spec     llamaSpec
		coverage func(*Assumptions) Assumption
	}{
		{tierLlama1B, llama1B, func(a *Assumptions) Assumption { return a.Coverage1B }},
		{tierLlama3B, llama3B, func(a *Assumptions) Assumption { return a.Coverage3B }},
	}
	hosts, why := s.gpuHosts(b)
	for _, h := range hosts {
		for _, l := range llamas {
			front := &frontTier{name: l.tier, host: h, llama: &l.spec, coverage: l.coverage}
			shared := &frontTier{name: l.tier, host: h, llama: &l.spec, coverage: l.coverage, shared: true}
			name := l.spec.name + " on " + h.SKU
			alone := s.trained(name, HostedModel, front, nil, hostedHours, s.proof(l.tier)...)
			alone.notes = append(alone.notes, "no spare server: an outage or a cold start stops the task")
			if h.Kind == "spot" {
				alone.conditions = append(alone.conditions, "the task may stop whenever the spot machine is taken away")
			}
			plans = append(plans, alone,
				s.trained("shared "+name, SharedHost, shared, nil, hostedHours,
					append(s.proof(l.tier), "enough other tasks share the server")...),
				s.trained("router: "+name+" + "+s.Generalist, RouterPlan, front, &s.generalist, hostedHours),
				s.trained("router: shared "+name+" + "+s.Generalist, RouterPlan, shared, &s.generalist, hostedHours, "enough other tasks share the server"))
		}
	}
	return append(plans, s.byToken(b)...), why
}

// gpuHosts are the GPU servers to consider: the one asked for, or all that the roofline knows.
func (s Scenario) gpuHosts(b *Book) (hosts []Host, infeasible []string) {
	if s.Host != "" {
		h, ok := b.GPU(s.Host, s.At)
		if !ok {
			return nil, []string{fmt.Sprintf("hosted models: the book has no host %q on %s", s.Host,
				s.At.Format(time.DateOnly))}
		}
		if _, known := gpuNamed(h.GPU); !known {
			return nil, []string{"hosted models: no throughput is known for " + h.SKU}
		}
		return []Host{h}, nil
	}
	for _, h := range b.Hosts() {
		if h.GPUs == 0 || !covers(h.From, h.To, s.At) {
			continue
		}
		if _, ok := gpuNamed(h.GPU); !ok {
			infeasible = append(infeasible, "hosted models on "+h.SKU+": no throughput is known for its "+h.GPU)
			continue
		}
		hosts = append(hosts, h)
	}
	return hosts, infeasible
}

// embedded are the specialist inside the gateway on the cheapest small machine of the book: alone, in front of the
// generalist, and in front of the cheapest other API model.
func (s Scenario) embedded(b *Book, cheap []Price) (plans []recipe, infeasible []string) {
	var vm Host
	for _, h := range b.Hosts() {
		if h.GPUs == 0 && covers(h.From, h.To, s.At) && (vm.SKU == "" || h.Hour < vm.Hour) {
			vm = h
		}
	}
	if vm.SKU == "" {
		return nil, []string{"embedded specialist: the book has no machine without a GPU"}
	}
	front := &frontTier{name: tierEmbedded, host: vm,
		coverage: func(a *Assumptions) Assumption { return a.CoverageEmbedded }}
	plans = append(plans,
		s.trained("embedded specialist alone", EmbeddedVM, front, nil, embeddedHours, s.proof(tierEmbedded)...),
		s.trained("router: embedded + "+s.Generalist, RouterPlan, front, &s.generalist, embeddedHours))
	if len(cheap) > 0 {
		back := apiTier{price: cheap[0]}
		r := s.trained("router: embedded + "+cheap[0].Model, RouterPlan, front, &back, embeddedHours,
			s.proof(cheap[0].Model)...)
		r.behind = s.switchTo("", SwitchModel, back).accuracy
		plans = append(plans, r)
	}
	return plans, nil
}

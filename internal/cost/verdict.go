package cost

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// choose names the best plan, says why, and computes the sensitivity of its saving. The rule: the cheapest total among the
// plans that keep the generalist's quality, by themselves or by a certificate; others only with their condition spelt out.
func (s Scenario) choose(out *Analysis) {
	nothing := out.Plans[0]
	best := nothing
	for _, p := range out.Plans[1:] {
		if len(p.Conditions) == 0 && p.TotalUSD.P50 < best.TotalUSD.P50 {
			best = p
		}
	}
	out.Best = best.Name
	cheapest := best
	for _, p := range out.Plans {
		if len(p.Conditions) == 1 && p.TotalUSD.P50 < cheapest.TotalUSD.P50 {
			cheapest, out.BestIf = p, p.Name
		}
	}
	out.Refused = !best.recipe.trains()
	out.Verdict = s.verdict(out, nothing, best, cheapest)
	watched := best
	if out.Refused {
		watched = trainedCheapest(out.Plans, best)
	}
	out.Sensitivity = s.sensitivity(watched.recipe)
}

// trains reports whether a plan trains or hosts something.
func (r recipe) trains() bool { return r.front != nil && (r.front.api == nil || r.front.api.tuned) }

// trainedCheapest is the cheapest plan that trains something, the one a refusal speaks about.
func trainedCheapest(plans []Plan, otherwise Plan) Plan {
	for _, p := range plans {
		if p.recipe.trains() && p.recipe.back != nil && len(p.Conditions) == 0 {
			return p // plans are sorted by total
		}
	}
	return otherwise
}

func (s Scenario) verdict(out *Analysis, nothing, best, cheapest Plan) string {
	var b strings.Builder
	if out.Refused {
		fmt.Fprintf(&b, "Do not train or host a model for this: ")
		t := trainedCheapest(out.Plans, best)
		saving := nothing.MonthlyUSD - t.MonthlyUSD
		switch {
		case t.Name == best.Name:
			fmt.Fprintf(&b, "no such plan is feasible.")
		case saving <= 0:
			fmt.Fprintf(&b, "%s costs %s a month, %s costs %s.", nothing.Name, dollars(nothing.MonthlyUSD), t.Name,
				dollars(t.MonthlyUSD))
		default:
			fmt.Fprintf(&b, "%s saves %s a month on the bill, which does not cover its hours, labels and training of "+
				"%s a month.",
				t.Name, dollars(saving), dollars(t.Parts.Hours+t.Parts.Labels+t.Parts.Training+t.Parts.Overhead))
		}
	} else {
		fmt.Fprintf(&b, "%s: %s a month in all, against %s for doing nothing.", best.Name,
			dollars(best.TotalUSD.P50), dollars(nothing.TotalUSD.P50))
	}
	if out.BestIf != "" {
		fmt.Fprintf(&b, " %s would cost %s in all, but only if %s.", cheapest.Name, dollars(cheapest.TotalUSD.P50),
			cheapest.Conditions[0])
	}
	if d := s.generalist.price.Shutdown; !d.IsZero() {
		fmt.Fprintf(&b, " %s is shut down on %s: doing nothing ends then.", s.Generalist, d.Format(time.DateOnly))
	}
	return b.String()
}

// sensitivity moves each assumption to both ends of its range, alone, and reports the saving of a plan against doing
// nothing; the assumption that matters most comes first.
func (s Scenario) sensitivity(r recipe) []Swing {
	saving := func(a *Assumptions) float64 {
		w := s.Workload.scaled(a.VolumeFactor.Value)
		return s.doNothing().evaluate(w, a).total().At(w.Volume) - r.evaluate(w, a).total().At(w.Volume)
	}
	var out []Swing
	for i, n := range s.Assumptions.all() {
		if n.Low == n.High {
			continue
		}
		low, high := s.Assumptions, s.Assumptions
		low.all()[i].Value, high.all()[i].Value = n.Low, n.High
		w := Swing{n.name, n.Low, n.High, saving(&low), saving(&high)}
		if w.SavingLow != w.SavingHigh {
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b Swing) int { return cmp.Compare(b.span(), a.span()) })
	return out
}

func (w Swing) span() float64 { return math.Abs(w.SavingHigh - w.SavingLow) }

// dollars writes an amount for people: "$1,750.00", "-$3.20"; cents always, thousands separated.
func dollars(usd float64) string {
	sign := ""
	if usd < 0 && math.Round(usd*100) != 0 {
		sign = "-"
	}
	s := fmt.Sprintf("%.2f", math.Abs(usd))
	whole, cents, _ := strings.Cut(s, ".")
	return sign + "$" + grouped(whole) + "." + cents
}

// grouped puts a comma after every third digit from the right.
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// count writes a whole number for people: "411,429".
func count(v float64) string { return grouped(fmt.Sprintf("%.0f", math.Abs(v))) }

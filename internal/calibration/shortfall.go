package calibration

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// A Shortfall is the error of Certify when nothing can be proven: the generalist must keep answering. It carries what
// was seen at the most promising threshold and how many more labels a proof would take.
type Shortfall struct {
	Goal      Goal
	N         int     // calibration rows there were
	Of        int     // labelled rows there were in all, where only N of them were held out to calibrate; 0: all were
	Threshold float64 // the most promising threshold; NaN when there was none
	Accepted  int     // rows it accepts
	Errors    int     // wrong among them
	Needed    int     // calibration rows that a proof needs in all, if the observed rates stay; 0 when no number would do
	More      int     // calibration rows still lacking: Needed - N, at least 1; 0 when no number would do

	// SystemCoverage is, for a Served goal, the coverage at which the weaker System promise with the same risk holds on
	// these rows, tested with half the failure probability so that both promises may be tried, or in a series with that of
	// the next look. 0 when that is not proven either.
	SystemCoverage float64

	Arithmetic string // how Needed comes about, in a sentence
}

// Error says what could not be proven, why, and what to do.
func (s *Shortfall) Error() string {
	text := fmt.Sprintf("calibration: cannot certify %s risk <= %s with confidence %s from %d labels: %s",
		s.Goal.Promise, percent(s.Goal.Risk), percent(1-s.Goal.Delta), s.N, s.Arithmetic)
	if s.More > 0 {
		text += fmt.Sprintf("; label about %d more", s.Label())
		if s.Of > s.N && s.N > 0 {
			text += fmt.Sprintf(" (%d of %d labelled rows were held out to calibrate)", s.N, s.Of)
		}
	} else {
		text += "; train a better specialist or lower the target"
	}
	if s.SystemCoverage > 0 {
		text += fmt.Sprintf("; or choose promise: system, which can be certified now at coverage %s", percent(s.SystemCoverage))
	}
	return text
}

// Label is how many rows are still to be labelled, if the same part of them is held out to calibrate: More, or in the proportion of
// Of to N more than that. It is 0 when no number would do.
func (s *Shortfall) Label() int {
	if s.N == 0 || s.Of <= s.N {
		return s.More
	}
	return int(math.Ceil(float64(s.More) * ratio(s.Of, s.N)))
}

// shortfall explains why nothing was proven.
func (l *ladder) shortfall(goal Goal) *Shortfall {
	s := &Shortfall{Goal: goal, N: l.n, Threshold: math.NaN()}
	again := goal // the certification that more labels lead to: in a series it is the next look, which may fail less often
	if again.Look > 0 {
		again.Look++
	}
	if goal.Promise == System {
		l.explainSystem(s, again)
	} else {
		l.explainServed(s, again)
		other := again
		other.Promise = System
		if goal.Look == 0 {
			other.Models = 2 * max(goal.Models, 1)
		}
		if result, _, ok := l.system(other); ok {
			s.SystemCoverage = result.Coverage()
		}
	}
	if s.Needed > 0 {
		s.More = max(s.Needed-s.N, 1)
	}
	return s
}

// mostLabels is the largest number of labels that is advised.
const mostLabels = 10_000_000

// hopeless says so where even a specialist without errors would need more than mostLabels.
func (s *Shortfall) hopeless(goal Goal) bool {
	if goal.MinLabels() <= mostLabels {
		return false
	}
	s.Arithmetic = fmt.Sprintf("even without an error (1-%.4g)^n <= %.3g takes more than %d accepted labels", goal.Risk, goal.Spend(), mostLabels)
	return true
}

// explainSystem looks for the smallest number of rows at which the strictest threshold would be certified. Where scores are
// tied that one is not as strict as one likes: it accepts its whole tie.
func (l *ladder) explainSystem(s *Shortfall, goal Goal) {
	if s.hopeless(goal) {
		return
	}
	least := goal.MinLabels()
	var first rung
	if own, _ := l.walk(l.n); len(own) > 0 {
		first = own[0]
	}
	t := trial{share: ratio(first.accepted, l.n), rate: first.rate(), risk: goal.Risk, level: goal.Spend(), all: true}
	n, ok := 0, false
	if tied := first.accepted > 1; tied || first.accepted == 1 && l.n >= least {
		n, ok = smallest(max(l.n+1, least), t.likely)
	}
	switch {
	case ok:
		s.Needed, s.Threshold, s.Accepted, s.Errors = n, first.threshold, first.accepted, first.errors
		s.Arithmetic = fmt.Sprintf("of %d rows the %d with the highest score, which are accepted together or not at all, hold %d wrong, which suggests %s of all; "+
			"among %d labels the exact binomial test at level %.3g allows %d, which is then %.0f %% likely",
			l.n, first.accepted, first.errors, percent(t.share*t.rate), n, t.level, t.allowed(n), 100*planPower)
	case l.n < least:
		s.Needed = least
		s.Arithmetic = fmt.Sprintf("even without an error (1-%.4g)^n <= %.3g takes n = %d", goal.Risk, goal.Spend(), least)
	default:
		s.Arithmetic = "the most confident answers hold too many errors, or no row passes the in-scope floor"
	}
}

// explainServed looks for the smallest number of rows at which one of the starts that Certify would then use passes its
// test with probability planPower.
func (l *ladder) explainServed(s *Shortfall, goal Goal) {
	if len(l.grid) == 0 {
		s.Needed = max(goal.MinLabels(), l.n+1)
		s.Arithmetic = "there are no thresholds to try: give the scores of unlabelled traffic as the grid"
		return
	}
	if s.hopeless(goal) {
		return
	}
	least := goal.MinLabels()
	n, ok := 0, false
	if l.n > 0 {
		n, ok = smallest(max(l.n+1, least), func(n int) bool {
			return slices.ContainsFunc(starts(goal, n, len(l.grid)), func(begin start) bool { return l.plan(s, goal, n, begin) })
		})
	}
	switch {
	case ok:
		s.Needed = n
	case l.n < firstStart*least: // too few to tell whether the specialist is good enough
		s.Needed = max(firstStart*least, l.n+1)
		s.Arithmetic = fmt.Sprintf("even without an error (1-%.4g)^n <= %.3g takes n = %d accepted labels; %d rows are too few to judge the error rate",
			goal.Risk, goal.Spend(), least, l.n)
	default:
		s.Arithmetic = "at no start is the observed error rate far enough below the target"
	}
}

// plan reports whether n rows would do at one start, and if so writes the arithmetic.
func (l *ladder) plan(s *Shortfall, goal Goal, n int, begin start) bool {
	r := l.grid[begin.position]
	t := trial{share: l.share(begin.position), rate: r.rate(), risk: goal.Risk, level: begin.level}
	if !usable(r.threshold) || !t.likely(n) {
		return false
	}
	accepted := int(math.Round(float64(n) * t.share))
	s.Threshold, s.Accepted, s.Errors = r.threshold, r.accepted, r.errors
	s.Arithmetic = fmt.Sprintf("among the %d most confident rows %d were wrong, which suggests an error rate of %s; %d labels would put about %d rows there, "+
		"and the exact binomial test at level %.3g passes with at most %d wrong, which is then %.0f %% likely",
		r.accepted, r.errors, percent(t.rate), n, accepted, begin.level, t.allowed(accepted), 100*planPower)
	return true
}

// share estimates what part of the traffic is accepted at a position of the grid. The position tells, ties with it included,
// as far as the rows at hand do not contradict it: a grid that is no Grid of traffic has positions that mean nothing.
func (l *ladder) share(position int) float64 {
	r := l.grid[position]
	for position+1 < len(l.grid) && l.grid[position+1].threshold == r.threshold {
		position++
	}
	low, high := Interval(r.accepted, l.n, 0.99)
	return min(max(ratio(position+1, len(l.grid)), low), high)
}

// rate is what the rows at or above a threshold suggest of their error rate: the median of Jeffreys' posterior, about.
func (r rung) rate() float64 { return (float64(r.errors) + 1.0/6) / (float64(r.accepted) + 1.0/3) }

// smallest returns the first number of labels, in steps of a twentieth, that is enough.
func smallest(from int, enough func(n int) bool) (n int, ok bool) {
	for n := from; n <= mostLabels; n += 1 + n/20 {
		if enough(n) {
			return n, true
		}
	}
	return 0, false
}

// planPower is the chance of success that a number of labels is advised for.
const planPower = 0.8

// A trial is one exact binomial test that is yet to be made: a threshold accepts a share of the rows, at rate of these are wrong.
type trial struct {
	share, rate, risk, level float64
	all                      bool // the test counts errors among all rows, not among the accepted
}

// allowed is the most errors among n rows with which the test passes; -1: it cannot.
func (t trial) allowed(n int) int {
	return sort.Search(n+1, func(k int) bool { return BinCDF(k, n, t.risk) > t.level }) - 1
}

// likely reports whether the test passes on n rows with probability planPower.
func (t trial) likely(n int) bool {
	if t.all {
		rate := t.share * t.rate
		return rate < t.risk && BinCDF(t.allowed(n), n, rate) >= planPower
	}
	mean := float64(n) * t.share
	if t.rate >= t.risk || t.passes(int(math.Round(mean))) < planPower-0.1 {
		return false
	}
	const parts = 9 // how many rows will be accepted is a matter of chance: an average over its normal approximation
	chance, spread := 0.0, math.Sqrt(mean*(1-t.share))
	for i := range parts {
		deviation := math.Sqrt2 * math.Erfinv((2*float64(i)+1)/parts-1)
		accepted := int(math.Round(mean + spread*deviation))
		chance += t.passes(min(max(accepted, 0), n)) / parts
	}
	return chance >= planPower
}

// passes is the probability that the test passes where so many rows are accepted.
func (t trial) passes(accepted int) float64 { return BinCDF(t.allowed(accepted), accepted, t.rate) }

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

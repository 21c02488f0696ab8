package calibration

import (
	"fmt"
	"math"
	"sort"
)

// A Shortfall is the error of Certify when nothing can be proven: the generalist must keep answering. It carries what
// was seen at the most promising threshold and how many more labels a proof would take.
type Shortfall struct {
	Goal      Goal
	N         int     // calibration rows there were
	Threshold float64 // the most promising threshold; NaN when there was none
	Accepted  int     // rows it accepts
	Errors    int     // wrong among them
	Needed    int     // rows that a proof needs in all, if the observed rates stay; 0 when no number would do
	More      int     // rows still to label: Needed - N, at least 1; 0 when no number would do

	// SystemCoverage is, for a Served goal, the coverage at which the weaker System promise with the same risk holds on
	// these rows, tested with half the failure probability so that both promises may be tried. 0 when that is not
	// proven either.
	SystemCoverage float64

	Arithmetic string // how Needed comes about, in a sentence
}

// Error says what could not be proven, why, and what to do.
func (s *Shortfall) Error() string {
	text := fmt.Sprintf("calibration: cannot certify %s risk <= %s with confidence %s from %d labels: %s",
		s.Goal.Promise, percent(s.Goal.Risk), percent(1-s.Goal.Delta), s.N, s.Arithmetic)
	if s.More > 0 {
		text += fmt.Sprintf("; label about %d more", s.More)
	} else {
		text += "; train a better specialist or lower the target"
	}
	if s.SystemCoverage > 0 {
		text += fmt.Sprintf("; or choose promise: system, which can be certified now at coverage %s", percent(s.SystemCoverage))
	}
	return text
}

// shortfall explains why nothing was proven.
func (l *ladder) shortfall(goal Goal) *Shortfall {
	s := &Shortfall{Goal: goal, N: l.n, Threshold: math.NaN()}
	if goal.Promise == System {
		l.explainSystem(s)
	} else {
		l.explainServed(s)
		half := goal
		half.Promise, half.Models = System, 2*max(goal.Models, 1)
		if result, _, proven := l.system(half); proven {
			s.SystemCoverage = result.Coverage()
		}
	}
	if s.Needed > 0 {
		s.More = max(s.Needed-s.N, 1)
	}
	return s
}

func (l *ladder) explainSystem(s *Shortfall) {
	least := s.Goal.MinLabels()
	if l.n < least {
		s.Needed = least
		s.Arithmetic = fmt.Sprintf("even without an error (1-%g)^n <= %.3g takes n = %d", s.Goal.Risk, s.Goal.Spend(), least)
		return
	}
	s.Arithmetic = "the most confident answers hold too many errors, or no row passes the in-scope floor"
}

// explainServed looks for the smallest number of rows at which one of the starts that Certify would then use passes its
// test with probability planPower. It takes the error rate above a start to be the median of Jeffreys' posterior there,
// about (errors + 1/6) / (accepted + 1/3).
func (l *ladder) explainServed(s *Shortfall) {
	const most = 10_000_000
	if len(l.grid) == 0 {
		s.Needed = max(s.Goal.MinLabels(), l.n+1)
		s.Arithmetic = "there are no thresholds to try: give the scores of unlabelled traffic as the grid"
		return
	}
	least := s.Goal.MinLabels()
	for n := max(l.n+1, least); n <= most && l.n > 0; n += 1 + n/20 {
		for _, begin := range starts(s.Goal, n, len(l.grid)) {
			if l.plan(s, n, begin) {
				return
			}
		}
	}
	if l.n < firstStart*least { // too few to tell whether the specialist is good enough
		s.Needed = max(firstStart*least, l.n+1)
		s.Arithmetic = fmt.Sprintf("even without an error (1-%g)^n <= %.3g takes n = %d accepted labels; %d rows are too few to judge the error rate",
			s.Goal.Risk, s.Goal.Spend(), least, l.n)
		return
	}
	s.Arithmetic = "at no start is the observed error rate far enough below the target"
}

// planPower is the chance of success that a number of labels is advised for.
const planPower = 0.8

// plan reports whether n rows would do at one start, and if so writes the arithmetic.
func (l *ladder) plan(s *Shortfall, n int, begin start) bool {
	r := l.grid[begin.position]
	accepted := int(float64(n) * float64(begin.position+1) / float64(len(l.grid)))
	rate := (float64(r.errors) + 1.0/6) / (float64(r.accepted) + 1.0/3)
	if !usable(r.threshold) || rate >= s.Goal.Risk {
		return false
	}
	allowed := sort.Search(accepted+1, func(k int) bool { return BinCDF(k, accepted, s.Goal.Risk) > begin.level }) - 1
	if allowed < 0 || BinCDF(allowed, accepted, rate) < planPower {
		return false
	}
	s.Needed, s.Threshold, s.Accepted, s.Errors = n, r.threshold, r.accepted, r.errors
	s.Arithmetic = fmt.Sprintf("among the %d most confident rows %d were wrong, which suggests an error rate of %s; %d labels would put about %d rows there, "+
		"and the exact binomial test at level %.3g passes with at most %d wrong, which is then %.0f %% likely",
		r.accepted, r.errors, percent(rate), n, accepted, begin.level, allowed, 100*planPower)
	return true
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

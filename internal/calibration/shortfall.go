package calibration

import (
	"fmt"
	"math"
)

// A Shortfall is the error of Certify when nothing can be proven: the generalist must keep answering. It carries what was seen
// at the most promising threshold and how many more labels a proof would take.
type Shortfall struct {
	Goal      Goal
	N         int     // calibration rows there were
	Threshold float64 // the most promising threshold; NaN when there was none
	Accepted  int     // rows it accepts
	Errors    int     // wrong among them
	Needed    int     // rows that a proof needs in all, if the observed rates stay; 0 when no number would do
	More      int     // rows still to label: Needed - N, at least 1; 0 when no number would do

	// SystemCoverage is, for a Served goal, the coverage at which the weaker System promise with the same risk holds on these
	// rows, tested with half the failure probability so that both promises may be tried. 0 when that is not proven either.
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

// explainServed looks for the grid threshold that needs the fewest rows in all, taking the error rate there to be Jeffreys'
// mean (errors + 1/2) / (accepted + 1), but never so high that luck alone explains it away.
func (l *ladder) explainServed(s *Shortfall) {
	for _, r := range l.grid {
		if !usable(r.threshold) || r.accepted == 0 {
			continue
		}
		rate := (float64(r.errors) + 0.5) / float64(r.accepted+1)
		if r.errors == 0 {
			rate = 0
		}
		accepted := acceptedNeeded(s.Goal.Risk, rate, s.Goal.Spend())
		if accepted == 0 {
			continue
		}
		needed := int(math.Ceil(float64(accepted) * float64(l.n) / float64(r.accepted)))
		if s.Needed == 0 || needed < s.Needed {
			s.Needed, s.Threshold, s.Accepted, s.Errors = needed, r.threshold, r.accepted, r.errors
			s.Arithmetic = fmt.Sprintf("at error rate %s, %d accepted labels are needed for the exact binomial test at level %.3g; "+
				"the threshold accepts %d of %d rows (%d wrong), so that takes %d labels in all",
				percent(rate), accepted, s.Goal.Spend(), r.accepted, l.n, r.errors, needed)
		}
	}
	if s.Needed > 0 {
		return
	}
	least := s.Goal.MinLabels()
	if l.n < least {
		s.Needed = least
		s.Arithmetic = fmt.Sprintf("even without an error (1-%g)^n <= %.3g takes n = %d accepted labels", s.Goal.Risk, s.Goal.Spend(), least)
		return
	}
	s.Arithmetic = "at no threshold is the observed error rate below the target"
}

// acceptedNeeded returns the number of accepted rows from which the exact binomial test at the given level proves risk when
// errors come at rate, or 0 when rate is not below risk or more than a million rows would be needed. Example: risk .05, rate
// 0, level .05 gives 59.
func acceptedNeeded(risk, rate, level float64) int {
	const most = 1_000_000
	proves := func(n int) bool { return BinCDF(int(math.Ceil(rate*float64(n))), n, risk) <= level }
	if rate >= risk || !proves(most) {
		return 0
	}
	low, high := 0, most // proves(high); monotone but for the rounding of the error count
	for high-low > 1 {
		if mid := (low + high) / 2; proves(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

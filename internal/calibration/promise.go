package calibration

import (
	"fmt"
	"math"
)

// system chooses the threshold of the System promise by risk-controlling prediction sets (Bates, Angelopoulos, Lei,
// Malik and Jordan 2021, arXiv 2101.02703).
//
// L(t) = P(score >= t and wrong) only grows as t falls. Let t* be the first threshold, from the top, with L(t*) > risk.
// A threshold at or below t* is returned only if the count of accepted errors at t*, a Binomial(n, L(t*)), is so small
// that BinCDF(count; n, risk) <= delta, which has probability at most delta. One fixed t* decides, so any number of
// thresholds, also ones read off the calibration rows themselves, may be tried without a penalty.
//
// looked is the highest score of a row whose label was one error too many: no label below it was looked at.
func (l *ladder) system(goal Goal) (result Result, looked float64, ok bool) {
	level := goal.Spend()
	if l.n == 0 || BinCDF(0, l.n, goal.Risk) > level {
		return Result{}, 0, false
	}
	allowed := 0 // the most errors that may be accepted
	for allowed+1 < l.n && BinCDF(allowed+1, l.n, goal.Risk) <= level {
		allowed++
	}
	own, looked := l.walk(allowed)
	best := rung{threshold: math.Inf(1)}
	for _, r := range append(own, l.grid...) {
		if r.errors <= allowed && r.accepted > 0 && usable(r.threshold) && r.threshold < best.threshold {
			best = r
		}
	}
	if best.accepted == 0 {
		return Result{}, 0, false
	}
	return Result{
		Goal: goal, Threshold: best.threshold, N: l.n, Accepted: best.accepted, Errors: best.errors,
		Level: level, Upper: proven(goal, best.errors, l.n, level), Method: "rcps",
	}, min(looked, best.threshold), true
}

// proven is the upper bound that a test has proven: at most the goal's risk, also where the bound is rounded up past it.
func proven(goal Goal, wrong, n int, level float64) float64 {
	return min(goal.Risk, Upper(wrong, n, level))
}

// walk goes down the rows' own scores, ties whole, until more than allowed errors are accepted, and returns the rungs
// before that and the score at which it stopped.
func (l *ladder) walk(allowed int) (own []rung, stopped float64) {
	wrong := 0
	for i := 0; i < l.n && !math.IsInf(l.outcomes[i].Score, -1); {
		score := l.outcomes[i].Score
		for i < l.n && l.outcomes[i].Score == score {
			wrong += one(l.outcomes[i].Wrong)
			i++
		}
		stopped = score
		if wrong > allowed {
			break
		}
		own = append(own, rung{score, i, wrong})
	}
	return own, stopped
}

// served chooses the threshold of the Served promise by testing the hypotheses H(t): P(wrong | score >= t) > risk along
// the grid from strict to lax, with the exact binomial p-value BinCDF(errors; accepted, risk), which is valid given the
// number of accepted rows. (Learn then test: Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv 2110.01052.)
//
// Fixed-sequence testing spends the whole delta on each step but stops for good at its first failure, and at the very
// top, where few rows are accepted, a failure is certain. So delta is shared over a few starts, and a rejected
// hypothesis hands its level on to the next: the fallback procedure (Wiens 2003; Wiens and Dmitrienko 2005), a case of
// the graphical procedures of Bretz, Maurer, Brannath and Posch 2009, which keeps P(any true hypothesis rejected) <=
// delta under any dependence of the tests. Where the path from an early start arrives at a later one, their levels add
// up; where it fails on the way, the later start still has its own.
//
// looked is the last threshold tested: no label below it was looked at.
func (l *ladder) served(goal Goal) (result Result, looked float64, ok bool) {
	begin := starts(goal, l.n, len(l.grid))
	best := -1
	var spent float64
	looked = fallback(l.grid, begin, goal.Risk, func(i int, level float64) { best, spent = i, level })
	if best < 0 {
		return Result{}, 0, false
	}
	r := l.grid[best]
	return Result{
		Goal: goal, Threshold: r.threshold, N: l.n, Accepted: r.accepted, Errors: r.errors,
		Level: spent, Upper: proven(goal, r.errors, r.accepted, spent), Method: fmt.Sprintf("fallback-%d", len(begin)),
	}, looked, true
}

// fallback tests the rungs in order, from starts in ascending order; it calls rejected for each one whose risk is
// proven, with the level that proved it, and returns the last threshold tested.
func fallback(rungs []rung, starts []start, risk float64, rejected func(i int, level float64)) (looked float64) {
	level := 0.0
	for i, r := range rungs {
		for len(starts) > 0 && starts[0].position == i {
			level += starts[0].level
			starts = starts[1:]
		}
		if level == 0 || !usable(r.threshold) {
			continue
		}
		looked = r.threshold
		if BinCDF(r.errors, r.accepted, risk) > level {
			level = 0
			continue
		}
		rejected(i, level)
	}
	return looked
}

// Where the starts stand and what they are given. The figures were chosen on fourteen real score columns together (see
// docs/guarantees.md); coverage hardly changes with them.
const (
	firstStart  = 3   // rows expected above the first start, in units of the fewest that could pass with no error
	startGrowth = 2.5 // each start expects so many times the rows of the one before …
	levelGrowth = 2.0 // … and is given so many times its level
	lastStart   = 0.5 // no start stands beyond this coverage …
	leastStart  = 1.5 // … unless fewer than this were expected above it, in the unit of firstStart
)

// A start is a position on the grid at which testing begins anew, with the level it is given.
type start struct {
	position int
	level    float64
}

// starts shares goal.Spend over positions of a grid of the given size. They depend on the goal, the number of rows and
// the size of the grid only, never on the rows themselves.
func starts(goal Goal, rows, size int) []start {
	if rows == 0 || size == 0 {
		return nil
	}
	least := float64(goal.MinLabels()) / float64(rows)
	last := min(1, max(lastStart, leastStart*least))
	var chosen []start
	weight, total := 1.0, 0.0
	for coverage := min(firstStart*least, last); coverage <= last; coverage *= startGrowth {
		position := int(math.Ceil(coverage*float64(size))) - 1
		chosen = append(chosen, start{min(max(position, 0), size-1), weight})
		total += weight
		weight *= levelGrowth
	}
	for j := range chosen {
		chosen[j].level *= goal.Spend() / total
	}
	return chosen
}

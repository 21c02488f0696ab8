package calibration

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// The two promises. Both hold with probability 1-delta over the draw of the calibration rows.
const (
	Served = "served" // P(wrong | answered) <= risk
	System = "system" // P(answered and wrong) <= risk
)

// Limits of Certify.
const (
	maxRows = 50_000_000
	maxGrid = 100_000
)

// An Outcome is one calibration row: the acceptance score that the frozen specialist gave it, and whether the answer was
// wrong. A row below the in-scope floor has score -Inf, so that floor and threshold are certified together. NaN counts as
// -Inf. Rows must be independent draws from the traffic that will be routed, and unseen by training.
type Outcome struct {
	Score float64
	Wrong bool
}

// A Goal is what a certificate must prove.
type Goal struct {
	Promise string  // Served or System
	Risk    float64 // a, in (0, 1): the bound on the risk
	Delta   float64 // in (0, 1): probability that the statement may fail, before it is shared out

	// What the failure probability is shared over, so that everything said together holds with probability 1-Delta.
	Tiers  int // tiers of the cascade that are certified; 0 means 1
	Models int // models or thresholds compared on the same rows, of which the best is kept; 0 means 1
	Look   int // 0: certified once. k >= 1: the k-th (re)calibration of a series without end
}

// Spend returns the failure probability that this one certification may use: Delta / (Tiers * Models), and of that the
// share 6/(pi^2 k^2) for the k-th look, because those shares sum to one over all k.
func (g Goal) Spend() float64 {
	delta := g.Delta / float64(max(g.Tiers, 1)) / float64(max(g.Models, 1))
	if g.Look > 0 {
		k := float64(g.Look)
		delta *= 6 / (math.Pi * math.Pi * k * k)
	}
	return delta
}

// MinLabels is the size of the smallest sample that could prove the goal: with no error among n draws, the exact binomial
// test needs (1-Risk)^n <= Spend. For Served these are accepted rows, for System all rows.
// No sample proves a goal that Certify would refuse, such as Risk 0, and none that can be counted one with a Risk of 1e-30: then it
// is math.MaxInt.
func (g Goal) MinLabels() int {
	if !(g.Risk > 0 && g.Risk < 1 && g.Delta > 0 && g.Delta < 1) {
		return math.MaxInt
	}
	least := math.Ceil(math.Log(g.Spend()) / math.Log1p(-g.Risk))
	if !(least < 1<<53) {
		return math.MaxInt
	}
	n := int(least)
	for n > 1 && BinCDF(0, n-1, g.Risk) <= g.Spend() { // undo a rounding error in the logarithms
		n--
	}
	return max(n, 1)
}

func (g Goal) validate() error {
	switch {
	case g.Promise != Served && g.Promise != System:
		return fmt.Errorf("calibration: promise %q is unknown; use %q or %q", g.Promise, Served, System)
	case !(g.Risk > 0 && g.Risk < 1):
		return fmt.Errorf("calibration: risk %v must lie strictly between 0 and 1, e.g. 0.03 for 97 %% accuracy", g.Risk)
	case !(g.Delta > 0 && g.Delta < 1):
		return fmt.Errorf("calibration: delta %v must lie strictly between 0 and 1, e.g. 0.05 for 95 %% confidence", g.Delta)
	case g.Tiers < 0 || g.Models < 0 || g.Look < 0:
		return errors.New("calibration: tiers, models and look must not be negative")
	}
	return nil
}

// A Result is a proven threshold with its evidence.
type Result struct {
	Goal      Goal
	Threshold float64 // answer iff Score >= Threshold; always finite
	N         int     // calibration rows
	Accepted  int     // rows with Score >= Threshold
	Errors    int     // wrong rows among the accepted
	Level     float64 // failure probability at which the threshold was tested, <= Goal.Spend()
	Upper     float64 // Clopper–Pearson upper bound at Level: of Errors/Accepted (Served) or Errors/N (System); <= Goal.Risk
	Method    string  // "fallback-J" (J starts) or "rcps"
}

// Coverage is the share of the calibration rows that the threshold accepts.
func (r Result) Coverage() float64 { return ratio(r.Accepted, r.N) }

// Certify finds the threshold with the largest coverage that it can prove to keep the goal, or returns a *Shortfall
// that says how many more labels it needs. It never returns a threshold that is not proven.
//
// grid holds the thresholds that may be chosen for the Served promise. It must not depend on the outcomes: take Grid of
// unlabelled traffic. Served is tested along the grid from strict to lax by a fallback procedure (see served). System
// needs no grid (one only refines it): its risk is monotone in the threshold, so any threshold may be looked at (see
// system). The order of outcomes and grid does not matter.
func Certify(goal Goal, grid []float64, outcomes []Outcome) (Result, error) {
	result, _, err := certify(goal, grid, outcomes)
	return result, err
}

// certify is Certify, and also returns the lowest score that it looked at the label of, when it certifies.
func certify(goal Goal, grid []float64, outcomes []Outcome) (result Result, looked float64, err error) {
	if err := goal.validate(); err != nil {
		return Result{}, 0, err
	}
	if len(outcomes) > maxRows || len(grid) > maxGrid {
		return Result{}, 0, fmt.Errorf("calibration: %d rows and %d thresholds, more than the %d and %d allowed; sample the rows, coarsen the grid",
			len(outcomes), len(grid), maxRows, maxGrid)
	}
	ladder := newLadder(grid, outcomes)
	choose := ladder.served
	if goal.Promise == System {
		choose = ladder.system
	}
	result, looked, proven := choose(goal)
	if !proven {
		return Result{}, 0, ladder.shortfall(goal)
	}
	return result, looked, nil
}

// Grid returns size thresholds at even steps of coverage, from strict to lax, of scores that carry no labels. A score
// that many rows share is repeated, and NaN and -Inf stay (as -Inf), so that a threshold's position says what share of
// the traffic it accepts. The scores must be independent of the calibration outcomes: recorded traffic, or the
// out-of-fold scores of the training rows. It returns nil for no scores or size < 1.
func Grid(unlabelled []float64, size int) []float64 {
	if len(unlabelled) == 0 || size < 1 {
		return nil
	}
	sorted := make([]float64, len(unlabelled))
	for i, score := range unlabelled {
		sorted[i] = sortable(score)
	}
	slices.Sort(sorted)
	grid := make([]float64, min(size, maxGrid))
	for i := range grid {
		accepted := (i + 1) * len(sorted) / len(grid)
		grid[i] = sorted[len(sorted)-max(accepted, 1)]
	}
	return grid
}

// sortable replaces NaN, which no threshold accepts, by -Inf, which none accepts either but which sorts.
func sortable(score float64) float64 {
	if math.IsNaN(score) {
		return math.Inf(-1)
	}
	return score
}

// A rung is one threshold with the calibration rows at or above it.
type rung struct {
	threshold        float64
	accepted, errors int
}

// A ladder is the calibration set seen through thresholds, from strict to lax.
type ladder struct {
	n        int
	outcomes []Outcome // by descending score, without NaN
	grid     []rung    // of the given thresholds: repeats and -Inf kept, because positions carry coverage
}

func newLadder(grid []float64, outcomes []Outcome) *ladder {
	l := &ladder{n: len(outcomes), outcomes: slices.Clone(outcomes)}
	for i := range l.outcomes {
		l.outcomes[i].Score = sortable(l.outcomes[i].Score)
	}
	slices.SortFunc(l.outcomes, func(a, b Outcome) int { return compare(b.Score, a.Score) })
	thresholds := make([]float64, len(grid))
	for i, t := range grid {
		thresholds[i] = sortable(t)
	}
	slices.SortFunc(thresholds, func(a, b float64) int { return compare(b, a) })
	l.grid = l.count(thresholds)
	return l
}

// count makes one rung per threshold; thresholds descend. Rows that tie with a threshold are accepted whole.
func (l *ladder) count(thresholds []float64) []rung {
	rungs := make([]rung, 0, len(thresholds))
	accepted, wrong := 0, 0
	for _, t := range thresholds {
		for accepted < l.n && l.outcomes[accepted].Score >= t {
			wrong += one(l.outcomes[accepted].Wrong)
			accepted++
		}
		rungs = append(rungs, rung{t, accepted, wrong})
	}
	return rungs
}

// usable reports whether a threshold may stand in a certificate: -Inf would let rows below the floor pass.
func usable(threshold float64) bool { return !math.IsInf(threshold, 0) }

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func ratio(k, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(k) / float64(n)
}

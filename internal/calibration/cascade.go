package calibration

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// A TierResult is what a Path proved about one tier.
type TierResult struct {
	Result
	// Err is nil when the tier is certified; else a *Shortfall, and the tier must not answer.
	Err error
	// Below says which requests the tier is certified for, tier by tier before it: those whose score there is not at or
	// above it. +Inf for a tier that is not certified and so is passed by all. It is at most that tier's threshold, by
	// about one step of its grid.
	Below []float64
}

// A Path certifies the tiers of a cascade in order, each on the requests that reach it, so that all promises together hold
// with probability 1-Goal.Delta. Where every certified tier keeps the Served risk, so does the cascade. For the System
// promise the risk is shared evenly over the tiers.
//
// One tier's threshold depends on the labels, so the rows left over by it are not plainly a fresh sample. But Certify
// looks at labels from strict to lax only and stops at a threshold that those looked at determine. Given them, the rows
// with lower scores are still independent draws of the traffic below that threshold: these, and no others, certify the
// next tier. Where a tier is not certified, or is left out, every request passes it, and the next tier is certified on all
// rows that reached this one. Each of the 2^tiers - 1 certifications that may come about in this way, over all choices of
// tiers to leave out, has an equal share of delta: so every Path of the same tiers and rows may be tried, and the best kept.
type Path struct {
	goal         Goal
	tiers        int
	rows, others []int // that reach the next tier
	below        []float64
}

// maxTiers bounds a cascade: the number of certifications doubles with each tier.
const maxTiers = 8

// NewPath begins a cascade of so many tiers, on calibration rows and on rows of other traffic, whose labels are not looked
// at and from whose scores the grids are made. Both are named by their index from here on.
func NewPath(goal Goal, tiers, rows, others int) (*Path, error) {
	if tiers < 1 || tiers > maxTiers {
		return nil, fmt.Errorf("calibration: a cascade of %d tiers; 1 to %d can be certified", tiers, maxTiers)
	}
	goal.Tiers = max(goal.Tiers, 1) * (1<<tiers - 1)
	if goal.Promise == System {
		goal.Risk /= float64(tiers)
	}
	return &Path{goal: goal, tiers: tiers, rows: indices(rows), others: indices(others)}, nil
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Goal is what each tier of the path must prove, its share of the failure probability included.
func (p *Path) Goal() Goal { return p.goal }

// Reaching returns the rows that reach the next tier.
func (p *Path) Reaching() (rows, others []int) { return p.rows, p.others }

// Limit is the score at the last tier from which on a request does not reach the next one: +Inf where every request passes.
func (p *Path) Limit() float64 {
	if len(p.below) == 0 {
		return math.Inf(1)
	}
	return p.below[len(p.below)-1]
}

// Fork returns a copy that goes its own way from here.
func (p *Path) Fork() *Path {
	fork := *p
	fork.below = slices.Clone(p.below)
	return &fork
}

// Pass leaves the next tier out: every request passes it.
func (p *Path) Pass() { p.below = append(p.below, math.Inf(1)) }

// Certify certifies the next tier by the outcomes of the rows that reach it, in the order of Reaching, with thresholds
// from grid, which must not depend on the outcomes (see Grid). scores are those of the other rows that reach it; they
// only say which of these reach the tier after it, and may be nil where nobody asks.
func (p *Path) Certify(grid []float64, outcomes []Outcome, scores []float64) (TierResult, error) {
	if len(p.below) == p.tiers {
		return TierResult{}, fmt.Errorf("calibration: the path has %d tiers and all are certified", p.tiers)
	}
	if len(outcomes) != len(p.rows) || scores != nil && len(scores) != len(p.others) {
		return TierResult{}, fmt.Errorf("calibration: %d outcomes and %d scores for the %d and %d rows that reach the tier",
			len(outcomes), len(scores), len(p.rows), len(p.others))
	}
	result, looked, err := certify(p.goal, grid, outcomes)
	if short := (*Shortfall)(nil); err != nil && !errors.As(err, &short) {
		return TierResult{}, err
	}
	tier := TierResult{Result: result, Err: err, Below: slices.Clone(p.below)}
	if err != nil {
		p.Pass()
		return tier, nil
	}
	p.below = append(p.below, looked)
	p.rows = left(p.rows, func(i int) float64 { return outcomes[i].Score }, looked)
	if scores != nil {
		p.others = left(p.others, func(i int) float64 { return scores[i] }, looked)
	}
	return tier, nil
}

// left returns the rows whose score is not at or above the limit.
func left(rows []int, score func(i int) float64, limit float64) []int {
	var passed []int
	for i, row := range rows {
		if !(score(i) >= limit) {
			passed = append(passed, row)
		}
	}
	return passed
}

// A Comparison sets two answerers side by side on rows that both answered: a tier and the next one on what the tier
// defers, or a specialist and its teacher on rows that people labelled.
type Comparison struct {
	Rows  int `json:"rows"`
	Gains int `json:"gains"` // first wrong, second right
	Harms int `json:"harms"` // first right, second wrong

	// P is the exact one-sided sign test (McNemar) of "the second is no better than the first"; small: it is better.
	P float64 `json:"p"`
	// Low and High hold P(gain) - P(harm), the accuracy that the second adds, with the confidence asked for.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Compare compares two answerers on the same rows, given which of them each got wrong.
func Compare(firstWrong, secondWrong []bool, confidence float64) Comparison {
	c := Comparison{Rows: min(len(firstWrong), len(secondWrong))}
	for i := range c.Rows {
		c.Gains += one(firstWrong[i] && !secondWrong[i])
		c.Harms += one(!firstWrong[i] && secondWrong[i])
	}
	c.P = BinCDF(c.Harms, c.Gains+c.Harms, 0.5)
	half := 1 - (1-confidence)/2
	lowGain, highGain := Interval(c.Gains, c.Rows, half)
	lowHarm, highHarm := Interval(c.Harms, c.Rows, half)
	c.Low, c.High = lowGain-highHarm, highGain-lowHarm
	return c
}

// Pays reports whether escalating is proven, at failure probability delta, to add accuracy. If not, prefer a person or
// the cheaper answer.
func (c Comparison) Pays(delta float64) bool { return c.Gains > c.Harms && c.P <= delta }

// Verdict says what the comparison means for escalation, in a sentence.
func (c Comparison) Verdict(delta float64) string {
	seen := fmt.Sprintf("on %d rows deferred, the next tier is right where this one is wrong %d times, and the other way round %d times (p = %.2g)",
		c.Rows, c.Gains, c.Harms, c.P)
	switch {
	case c.Pays(delta):
		return "escalation pays: " + seen
	case c.High <= 0:
		return "escalation costs accuracy: " + seen
	default:
		return "escalation is not shown to pay: " + seen + "; prefer a person or the cheaper answer"
	}
}

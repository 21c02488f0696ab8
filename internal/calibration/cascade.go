package calibration

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// A TierResult is what CertifyCascade proved about one tier.
type TierResult struct {
	Result
	// Err is nil when the tier is certified; else a *Shortfall, and the tier must not answer.
	Err error
	// Below says which requests the tier is certified for, tier by tier before it: those whose score there is not at or
	// above it. +Inf for a tier that is not certified and so is passed by all. It is at most that tier's threshold, by
	// about one step of its grid.
	Below []float64
}

// CertifyCascade certifies the tiers of a cascade in order, each on the requests that reach it, so that all promises
// together hold with probability 1-goal.Delta. rows holds, for each calibration row, its outcome at each tier;
// unlabelled holds, for each row of other traffic, its score at each tier, from which the grids of at most size
// thresholds are read. The result has one element a tier. Where every certified tier keeps the Served risk, so does the
// cascade. For the System promise the risk is shared evenly over the tiers.
//
// One tier's threshold depends on the labels, so the rows left over by it are not plainly a fresh sample. But Certify
// looks at labels from strict to lax only and stops at a threshold that those looked at determine. Given them, the rows
// with lower scores are still independent draws of the traffic below that threshold: these, and no others, certify the
// next tier. Where a tier is not certified every request passes it, and the next tier is certified on all rows that
// reached this one. Each of the 2^tiers - 1 certifications that may come about in this way has an equal share of delta.
func CertifyCascade(goal Goal, unlabelled [][]float64, size int, rows [][]Outcome) ([]TierResult, error) {
	tiers, err := width(unlabelled, rows)
	if err != nil {
		return nil, err
	}
	goal.Tiers = max(goal.Tiers, 1) * (1<<tiers - 1)
	if goal.Promise == System {
		goal.Risk /= float64(tiers)
	}
	results := make([]TierResult, tiers)
	below := make([]float64, 0, tiers)
	for j := range results {
		outcomes, scores := make([]Outcome, len(rows)), make([]float64, len(unlabelled))
		for i, row := range rows {
			outcomes[i] = row[j]
		}
		for i, row := range unlabelled {
			scores[i] = row[j]
		}
		result, looked, err := certify(goal, Grid(scores, size), outcomes)
		if short := (*Shortfall)(nil); err != nil && !errors.As(err, &short) {
			return nil, err
		}
		results[j] = TierResult{Result: result, Err: err, Below: slices.Clone(below)}
		limit := math.Inf(1)
		if err == nil {
			limit = looked
			rows = slices.DeleteFunc(slices.Clone(rows), func(row []Outcome) bool { return row[j].Score >= limit })
			unlabelled = slices.DeleteFunc(slices.Clone(unlabelled), func(row []float64) bool { return row[j] >= limit })
		}
		below = append(below, limit)
	}
	return results, nil
}

// width returns the number of tiers, which every row must have.
func width(unlabelled [][]float64, rows [][]Outcome) (int, error) {
	const most = 8
	tiers := 0
	if len(rows) > 0 {
		tiers = len(rows[0])
	} else if len(unlabelled) > 0 {
		tiers = len(unlabelled[0])
	}
	if tiers < 1 || tiers > most {
		return 0, fmt.Errorf("calibration: a cascade of %d tiers; 1 to %d can be certified", tiers, most)
	}
	uneven := func(n int) error {
		return fmt.Errorf("calibration: rows of a cascade of %d tiers must have an outcome at each, one has %d", tiers, n)
	}
	for _, row := range rows {
		if len(row) != tiers {
			return 0, uneven(len(row))
		}
	}
	for _, row := range unlabelled {
		if len(row) != tiers {
			return 0, uneven(len(row))
		}
	}
	return tiers, nil
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

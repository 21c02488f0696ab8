package calibration

import (
	"math"
	"slices"
)

// ECE returns the expected calibration error in 15 equal-width bins: the mean gap between stated confidence and
// observed accuracy, weighted by the bins' sizes (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599). confidence
// lies in [0, 1]; NaN counts as 0. It is 0 for no rows.
func ECE(confidence []float64, right []bool) float64 {
	const bins = 15
	var stated, hits, rows [bins]float64
	for i, p := range confidence {
		if !(p > 0) {
			p = 0
		}
		bin := min(int(min(p, 1)*bins), bins-1)
		stated[bin] += min(p, 1)
		hits[bin] += float64(one(right[i]))
		rows[bin]++
	}
	gap := 0.0
	for bin := range rows {
		gap += math.Abs(stated[bin] - hits[bin])
	}
	return gap / max(float64(len(confidence)), 1)
}

// AUROC returns the probability that a random positive scores above a random negative, ties counting half. It is NaN
// when one of the two is missing.
func AUROC(positive, negative []float64) float64 {
	if len(positive) == 0 || len(negative) == 0 {
		return math.NaN()
	}
	low := make([]float64, len(negative))
	for i, s := range negative {
		low[i] = sortable(s)
	}
	slices.Sort(low)
	wins := 0.0
	for _, s := range positive {
		s = sortable(s)
		below, _ := slices.BinarySearch(low, s)
		upTo, _ := slices.BinarySearchFunc(low, s, func(e, s float64) int {
			if e <= s {
				return -1
			}
			return 1
		})
		wins += float64(below) + float64(upTo-below)/2
	}
	return wins / float64(len(positive)) / float64(len(negative))
}

// A Point is one threshold of a risk–coverage curve.
type Point struct {
	Threshold float64 `json:"threshold"`
	Coverage  float64 `json:"coverage"`
	Served    float64 `json:"served"` // observed P(wrong | accepted)
	System    float64 `json:"system"` // observed P(accepted and wrong)
}

// Curve returns the observed risks at up to size thresholds, from strict to lax, for charts. It proves nothing.
func Curve(outcomes []Outcome, size int) []Point {
	scores := make([]float64, len(outcomes))
	for i, o := range outcomes {
		scores[i] = o.Score
	}
	ladder := newLadder(Grid(scores, size), outcomes)
	var points []Point
	for i, r := range ladder.grid {
		if !usable(r.threshold) || (i > 0 && r.threshold == ladder.grid[i-1].threshold) {
			continue
		}
		points = append(points, Point{r.threshold, ratio(r.accepted, ladder.n), ratio(r.errors, r.accepted), ratio(r.errors, ladder.n)})
	}
	return points
}

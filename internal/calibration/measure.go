package calibration

import (
	"math"
	"slices"
)

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

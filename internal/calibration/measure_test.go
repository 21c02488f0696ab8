package calibration

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestAUROCIsThePairwiseCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		score := rapid.SampledFrom([]float64{0, 1, 2, 3, math.Inf(-1), math.Inf(1)})
		positive := rapid.SliceOfN(score, 1, 20).Draw(t, "positive")
		negative := rapid.SliceOfN(score, 1, 20).Draw(t, "negative")
		wins := 0.0
		for _, p := range positive {
			for _, n := range negative {
				if p > n {
					wins++
				} else if p == n {
					wins += 0.5
				}
			}
		}
		want := wins / float64(len(positive)*len(negative))
		if got := AUROC(positive, negative); math.Abs(got-want) > 1e-12 {
			t.Fatalf("AUROC = %v, want %v", got, want)
		}
	})
	if !math.IsNaN(AUROC(nil, []float64{1})) {
		t.Error("AUROC without positives must be NaN")
	}
}

func TestCurve(t *testing.T) {
	rows := []Outcome{{3, false}, {2, true}, {2, false}, {math.NaN(), true}}
	got := Curve(rows, 4)
	want := []Point{{3, 0.25, 0, 0}, {2, 0.75, 1.0 / 3, 0.25}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("Curve = %v, want %v", got, want)
	}
}

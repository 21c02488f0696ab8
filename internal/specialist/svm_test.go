package specialist

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestSolverClosesTheDualityGap checks the solution by theory alone: every dual value is at most the primal minimum, so a
// small gap between the two proves that both are near it.
func TestSolverClosesTheDualityGap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	const n, rows, used = 200, 40, 7
	d := &dataset{start: []int{0}, vocabRow: make([]uint32, rows)}
	norms, examples, sides := make([]float32, n), make([]int32, n), make([]uint8, n)
	for i := range n {
		norms[i], examples[i], sides[i] = 1, int32(i), uint8(rng.Uint32N(1<<used))
		for r := range uint32(rows) {
			if rng.IntN(4) == 0 {
				v := rng.Float32()
				d.row, d.value = append(d.row, r), append(d.value, v)
				norms[i] += v * v
			}
		}
		d.start = append(d.start, len(d.row))
	}
	var s svmSolver
	s.solve(d, examples, norms, sides, used, rng)
	for lane := range used {
		primal, dual, square := 0.0, 0.0, float64(s.bias[lane])*float64(s.bias[lane])
		for r := range rows {
			w := float64(s.weights[r*lanes+lane])
			square += w * w
		}
		for k := range n {
			side := -1.0
			if sides[k]>>lane&1 != 0 {
				side = 1
			}
			alpha := float64(s.alpha[k*lanes+lane])
			loss := max(0, 1-side*float64(s.logits(d, k)[lane]))
			primal += svmCost * loss * loss
			dual += alpha - alpha*alpha/(4*svmCost)
		}
		primal, dual = primal+square/2, dual-square/2
		if gap := (primal - dual) / primal; gap < -1e-4 || gap > 0.03 || math.IsNaN(gap) {
			t.Errorf("lane %d: primal %v, dual %v, gap %v", lane, primal, dual, gap)
		}
	}
}

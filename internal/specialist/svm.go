package specialist

import (
	"math"
	"math/rand/v2"
)

const (
	svmCost      = 1
	svmPasses    = 30
	svmTolerance = 0.1
)

// svmScratch is the memory of one worker's solver.
type svmScratch struct {
	weights []float32 // one per row
	alpha   []float32
	square  []float32
	sign    []float32
	order   []int32
}

// solve trains one L2-regularised, L2-loss linear SVM on the listed examples by dual coordinate descent with shrinking
// (Hsieh et al., ICML 2008, algorithm 3). positive tells an example's side. The weights lie in s.weights until the next
// call; the bias is returned. norms holds every example's squared length plus one for the bias.
func (s *svmScratch) solve(d *dataset, examples []int32, norms []float32, positive func(i int32) bool, rng *rand.Rand) (bias float32) {
	n := len(examples)
	s.reset(len(d.vocabRow), n)
	const diagonal = 0.5 / svmCost
	for k, i := range examples {
		s.sign[k] = -1
		if positive(i) {
			s.sign[k] = 1
		}
		s.square[k] = norms[i] + diagonal
		s.order[k] = int32(k)
	}
	active := n
	high := math.Inf(1)
	for range svmPasses {
		newHigh, newLow := math.Inf(-1), math.Inf(1)
		order := s.order[:active]
		rng.Shuffle(active, func(a, b int) { order[a], order[b] = order[b], order[a] })
		for at := 0; at < active; at++ {
			k := order[at]
			row, value := d.at(int(examples[k]))
			sum := bias
			for j, r := range row {
				sum += s.weights[r] * value[j]
			}
			gradient := float64(s.sign[k]*sum - 1 + diagonal*s.alpha[k])
			projected := gradient
			if s.alpha[k] == 0 {
				if gradient > high {
					active--
					order[at], order[active] = order[active], order[at]
					at--
					continue
				}
				projected = min(gradient, 0)
			}
			newHigh, newLow = max(newHigh, projected), min(newLow, projected)
			if math.Abs(projected) < 1e-12 {
				continue
			}
			before := s.alpha[k]
			s.alpha[k] = max(before-float32(gradient)/s.square[k], 0)
			step := (s.alpha[k] - before) * s.sign[k]
			bias += step
			for j, r := range row {
				s.weights[r] += step * value[j]
			}
		}
		if newHigh-newLow <= svmTolerance {
			if active == n {
				break
			}
			active, high = n, math.Inf(1)
			continue
		}
		if high = newHigh; high <= 0 {
			high = math.Inf(1)
		}
	}
	return bias
}

func (s *svmScratch) reset(rows, n int) {
	if cap(s.weights) < rows {
		s.weights = make([]float32, rows)
	}
	if cap(s.alpha) < n {
		s.alpha, s.square, s.sign, s.order = make([]float32, n), make([]float32, n), make([]float32, n), make([]int32, n)
	}
	s.weights, s.alpha, s.square, s.sign, s.order = s.weights[:rows], s.alpha[:n], s.square[:n], s.sign[:n], s.order[:n]
	clear(s.weights)
	clear(s.alpha)
}

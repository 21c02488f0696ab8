package specialist

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

const (
	svmCost      = 1
	svmPasses    = 30
	svmTolerance = 0.1
)

// An svmSolver trains up to eight one-vs-rest SVMs of the same examples side by side, one in each lane of a vector: L2-loss
// linear SVMs by dual coordinate descent with shrinking (Hsieh et al., ICML 2008, algorithm 3). The lanes share the order of
// the examples; each shrinks and converges for itself.
type svmSolver struct {
	weights []float32 // by row and lane
	bias    [lanes]float32
	alpha   []float32 // by example and lane
	square  []float32 // by example: its length squared, with the bias and the loss's diagonal
	live    []uint8   // by example: the lanes that have not shrunk it away
	order   []int32

	todo   uint8             // lanes that have not converged
	high   [lanes]float32    // a lane's shrinking bound: the last pass's largest projected gradient
	shrunk [lanes]bool       // whether a lane has examples that it does not look at
	sides  []uint8           // by example: the lanes in which it is positive
	values [lanes]float32    // the logits, then the steps, of the example at hand
	bounds [lanes][2]float32 // this pass's smallest and largest projected gradient
}

// solve trains used lanes on the listed examples; sides tells, by position in examples, in which lanes one is positive. norms
// holds every example's squared length plus one for the bias. The result is in weights and bias until the next call.
func (s *svmSolver) solve(d *dataset, examples []int32, norms []float32, sides []uint8, used int, rng *rand.Rand) {
	s.reset(d, examples, norms, sides, used)
	active := len(examples)
	for pass := 0; pass < svmPasses && s.todo != 0; pass++ {
		order := s.order[:active]
		rng.Shuffle(active, func(a, b int) { order[a], order[b] = order[b], order[a] })
		for lane := range s.bounds {
			s.bounds[lane] = [2]float32{float32(math.Inf(1)), float32(math.Inf(-1))}
		}
		for at := 0; at < active; at++ {
			k := order[at]
			if s.live[k] &= s.todo; s.live[k] != 0 {
				row, value := d.at(int(examples[k]))
				s.visit(int(k), row, value)
			}
			if s.live[k] == 0 {
				active--
				order[at], order[active] = order[active], order[at]
				at--
			}
		}
		if s.endPass() {
			active = len(examples)
		}
	}
}

const svmDiagonal = 0.5 / svmCost

func (s *svmSolver) reset(d *dataset, examples []int32, norms []float32, sides []uint8, used int) {
	n := len(examples)
	s.weights = cleared(s.weights, len(d.vocabRow)*lanes)
	s.alpha = cleared(s.alpha, n*lanes)
	s.square, s.live, s.order = cleared(s.square, n), cleared(s.live, n), cleared(s.order, n)
	s.bias, s.shrunk, s.sides = [lanes]float32{}, [lanes]bool{}, sides
	s.todo = uint8(1<<used - 1)
	for lane := range s.high {
		s.high[lane] = float32(math.Inf(1))
	}
	for k, i := range examples {
		s.square[k] = norms[i] + svmDiagonal
		s.live[k] = s.todo
		s.order[k] = int32(k)
	}
}

// cleared returns n zeros, in the memory of x where that is large enough.
func cleared[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	x = x[:n]
	clear(x)
	return x
}

// visit takes one step in every lane that still looks at example k.
func (s *svmSolver) visit(k int, row []uint32, value []float32) {
	sumLanes(&s.values, s.weights, row, value)
	var step [lanes]float32
	moved := false
	alpha := s.alpha[k*lanes:][:lanes]
	for left := s.live[k]; left != 0; left &= left - 1 {
		lane := bits.TrailingZeros8(left) % lanes
		side := float32(-1)
		if s.sides[k]>>lane&1 != 0 {
			side = 1
		}
		before := alpha[lane]
		gradient := float32(side*(s.values[lane]+s.bias[lane])) - 1 + float32(svmDiagonal*before)
		projected := gradient
		if before == 0 {
			if gradient > s.high[lane] {
				s.live[k] &^= 1 << lane
				s.shrunk[lane] = true
				continue
			}
			projected = min(gradient, 0)
		}
		bound := &s.bounds[lane]
		bound[0], bound[1] = min(bound[0], projected), max(bound[1], projected)
		if projected == 0 {
			continue
		}
		alpha[lane] = max(before-gradient/s.square[k], 0)
		step[lane] = (alpha[lane] - before) * side
		s.bias[lane] += step[lane]
		moved = true
	}
	if moved {
		addLanes(s.weights, row, value, &step)
	}
}

// endPass moves the shrinking bounds. A lane that has converged is done if it looked at every example; else it looks at all
// of them again, and endPass reports true.
func (s *svmSolver) endPass() (again bool) {
	for left := s.todo; left != 0; left &= left - 1 {
		lane := bits.TrailingZeros8(left) % lanes
		bound := s.bounds[lane]
		switch {
		case bound[1]-bound[0] > svmTolerance:
			if s.high[lane] = bound[1]; bound[1] <= 0 {
				s.high[lane] = float32(math.Inf(1))
			}
		case !s.shrunk[lane]:
			s.todo &^= 1 << lane
		default:
			for k := range s.live {
				s.live[k] |= 1 << lane
			}
			s.high[lane], s.shrunk[lane], again = float32(math.Inf(1)), false, true
		}
	}
	return again
}

// logits returns what the lanes say of an example.
func (s *svmSolver) logits(d *dataset, i int) *[lanes]float32 {
	row, value := d.at(i)
	sumLanes(&s.values, s.weights, row, value)
	for lane := range s.values {
		s.values[lane] += s.bias[lane]
	}
	return &s.values
}

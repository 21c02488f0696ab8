package specialist

import (
	"math"
	"math/rand/v2"

	"occam/internal/task"
)

// The embedding head is a linear classifier of low rank: every feature has an embedding, a text is the weighted sum of its
// features' embeddings, and every column has an output vector. It is learned by gradient descent on the softmax loss with
// half of a text's features dropped at random. As nothing but sums stands between a feature and a logit, the learned
// product of both matrices is a weight matrix like the SVM's, and the two heads are added before the model is written.
const (
	embedDim       = 64
	embedRate      = 0.03
	embedInit      = 0.05
	embedSmoothing = 0.1
	dropHidden     = 77 // of 256: the share of a text's embedding that is dropped
	embedSteps     = 150_000
	minEpochs      = 15
	maxEpochs      = 40
)

// embedding is the head in training.
type embedding struct {
	rows, columns  int
	feature        []float32 // rows × embedDim
	output         []float32 // columns × embedDim
	bias           []float32
	featureSquares []float32 // Adagrad's accumulators, one a row
	outputSquares  []float32
	biasSquares    []float32

	row            []uint32 // of the example at hand, what was not dropped
	value          []float32
	sum, keep, hid []float32 // embedDim: the text's embedding, its dropout mask, the masked embedding
	back           []float32 // embedDim: the loss's gradient at sum
	gradient       []float32 // by column
	positive       [][]int32 // by field: the columns that are right in the example at hand; nil where it has no label
}

func newEmbedding(rows, columns int, rng *rand.Rand) *embedding {
	m := &embedding{
		rows: rows, columns: columns, feature: make([]float32, rows*embedDim), output: make([]float32, columns*embedDim),
		bias: make([]float32, columns), featureSquares: make([]float32, rows), outputSquares: make([]float32, columns),
		biasSquares: make([]float32, columns), sum: make([]float32, embedDim), keep: make([]float32, embedDim),
		hid: make([]float32, embedDim), back: make([]float32, embedDim), gradient: make([]float32, columns),
	}
	for i := range m.feature {
		m.feature[i] = (rng.Float32()*2 - 1) * embedInit
	}
	for i := range m.output {
		m.output[i] = (rng.Float32()*2 - 1) / 8 // 1/sqrt(embedDim)
	}
	return m
}

// epochs is how often n examples are gone through.
func epochs(n int) int {
	fewest := min(minEpochs, max(2, 1_500_000/max(n, 1)))
	return min(max(embedSteps/max(n, 1), fewest), maxEpochs)
}

// learn trains on the listed examples of t. stop ends it early.
func (m *embedding) learn(t *trainer, examples []int32, rng *rand.Rand, stop func() bool) {
	order := append([]int32(nil), examples...)
	passes := epochs(len(order))
	steps, step := float32(passes*len(order)), 0
	for range passes {
		rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, i := range order {
			if step%1024 == 0 && stop() {
				return
			}
			m.drop(t.data, int(i), rng)
			m.positive = m.positive[:0]
			for f := range t.targets {
				m.positive = append(m.positive, t.targets[f].columns[i])
			}
			m.step(t, embedRate*(1-float32(step)/steps))
			step++
		}
	}
	m.forgetUntrained()
}

// forgetUntrained clears the rows that no step moved, of features that only texts without labels or of another fold have: their
// first, random values say nothing, and a text that is new to the model has no such rows.
func (m *embedding) forgetUntrained() {
	for r, square := range m.featureSquares {
		if square == 0 {
			clear(m.feature[r*embedDim:][:embedDim])
		}
	}
}

// drop draws half of an example's features, stretched to its full length, and a dropout mask of the embedding.
func (m *embedding) drop(d *dataset, i int, rng *rand.Rand) {
	row, value := d.at(i)
	m.row, m.value = m.row[:0], m.value[:0]
	var all, kept float32
	var coins uint64
	for j, v := range value {
		if j%64 == 0 {
			coins = rng.Uint64()
		}
		square := float32(v * v)
		all += square
		if coins&1 != 0 {
			m.row, m.value = append(m.row, row[j]), append(m.value, v)
			kept += square
		}
		coins >>= 1
	}
	if len(m.row) > 0 {
		stretch := float32(math.Sqrt(float64(all / kept)))
		for j := range m.value {
			m.value[j] *= stretch
		}
	}
	const inverse = 256. / (256 - dropHidden)
	for k := range m.keep {
		if k%8 == 0 {
			coins = rng.Uint64()
		}
		m.keep[k] = 0
		if coins&255 >= dropHidden {
			m.keep[k] = inverse
		}
		coins >>= 8
	}
}

// step goes one step down the gradient of the loss of the example that was drawn.
func (m *embedding) step(t *trainer, rate float32) {
	if len(m.row) == 0 {
		return
	}
	sumRows(m.sum, m.feature, m.row, m.value)
	for k, x := range m.sum {
		m.hid[k] = x * m.keep[k]
	}
	clear(m.back)
	length := dot(m.hid, m.hid) / embedDim
	for f := range t.heads {
		if m.positive[f] != nil {
			m.lossGradient(&t.heads[f], t.fields[f].Kind, m.positive[f])
			m.updateOutputs(&t.heads[f], length, rate)
		}
	}
	for k := range m.back {
		m.back[k] *= m.keep[k]
	}
	size := dot(m.back, m.back) / embedDim
	if size == 0 {
		return
	}
	for j, r := range m.row {
		v := m.value[j]
		square := m.featureSquares[r] + float32(float32(v*v)*size)
		m.featureSquares[r] = square
		m.value[j] = -rate * v / (sqrt32(square) + 1e-8)
	}
	addToRows(m.feature, m.row, m.value, m.back)
}

// lossGradient fills m.gradient for one field: softmax with smoothed labels, or a logistic loss per member of a set.
func (m *embedding) lossGradient(h *head, kind task.Kind, positive []int32) {
	z := m.gradient[h.Offset : h.Offset+h.Count]
	for c := range z {
		z[c] = m.bias[h.Offset+c] + dot(m.output[(h.Offset+c)*embedDim:][:embedDim], m.hid)
	}
	if kind == task.Labels {
		for c := range z {
			z[c] = float32(sigmoid(float64(z[c])))
		}
		for _, c := range positive {
			z[c]--
		}
		return
	}
	top := z[argmax(z)]
	total := float32(0)
	for c := range z {
		z[c] = float32(math.Exp(float64(z[c] - top)))
		total += z[c]
	}
	smooth := embedSmoothing / float32(len(z))
	for c := range z {
		z[c] = z[c]/total - smooth
	}
	z[positive[0]] -= 1 - embedSmoothing
}

// updateOutputs moves one field's output vectors and biases, and adds the field's part to m.back.
func (m *embedding) updateOutputs(h *head, length, rate float32) {
	for c := h.Offset; c < h.Offset+h.Count; c++ {
		g := m.gradient[c]
		square := float32(g * g)
		output := m.output[c*embedDim:][:embedDim]
		addScaled(m.back, output, g)
		m.outputSquares[c] += float32(square * length)
		m.biasSquares[c] += square
		addScaled(output, m.hid, -rate*g/(sqrt32(m.outputSquares[c])+1e-8))
		m.bias[c] -= rate * g / (sqrt32(m.biasSquares[c]) + 1e-8)
	}
}

func sqrt32(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// logits writes the logits of one example, which was not trained on.
func (m *embedding) logits(d *dataset, i int, out []float32) {
	row, value := d.at(i)
	sumRows(m.sum, m.feature, row, value)
	for c := range out {
		out[c] = m.bias[c] + dot(m.output[c*embedDim:][:embedDim], m.sum)
	}
}

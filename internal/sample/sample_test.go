package sample

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
)

// linearModel is a plain multinomial logistic regression on hashed words: the yardstick for how hard the tickets are.
type linearModel struct {
	classes []string
	weights [][]float32 // class × hashed word
	bias    []float32
}

const buckets = 1 << 15

func words(text string) []uint32 {
	seen := map[uint32]bool{}
	var out []uint32
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		h := fnv.New32a()
		h.Write([]byte(w))
		if at := h.Sum32() % buckets; !seen[at] {
			seen[at] = true
			out = append(out, at)
		}
	}
	return out
}

func (m *linearModel) probabilities(x []uint32, into []float64) {
	scale, best := float32(1/math.Sqrt(float64(len(x)+1))), math.Inf(-1)
	for c := range m.classes {
		sum := m.bias[c]
		for _, at := range x {
			sum += m.weights[c][at] * scale
		}
		into[c] = float64(sum)
		best = math.Max(best, into[c])
	}
	total := 0.0
	for c := range into {
		into[c] = math.Exp(into[c] - best)
		total += into[c]
	}
	for c := range into {
		into[c] /= total
	}
}

func trainLinear(texts []string, labels []string, epochs int) *linearModel {
	m := &linearModel{classes: Categories()}
	index := map[string]int{}
	for i, name := range m.classes {
		index[name] = i
		m.weights = append(m.weights, make([]float32, buckets))
	}
	m.bias = make([]float32, len(m.classes))
	features := make([][]uint32, len(texts))
	for i, t := range texts {
		features[i] = words(t)
	}
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]float64, len(m.classes))
	steps, step := float64(epochs*len(texts)), 0.0
	for range epochs {
		for _, i := range r.Perm(len(texts)) {
			m.probabilities(features[i], p)
			rate := 2 * (1 - step/steps)
			step++
			p[index[labels[i]]]--
			scale := 1 / math.Sqrt(float64(len(features[i])+1))
			for c, g := range p {
				if math.Abs(g) < 1e-4 {
					continue
				}
				delta := float32(rate * g * scale)
				m.bias[c] -= float32(rate*g) * 0.1
				for _, at := range features[i] {
					m.weights[c][at] -= delta
				}
			}
		}
	}
	return m
}

func (m *linearModel) predict(text string) string {
	p := make([]float64, len(m.classes))
	m.probabilities(words(text), p)
	best := 0
	for c := range p {
		if p[c] > p[best] {
			best = c
		}
	}
	return m.classes[best]
}

func TestPlainLinearModelIsGoodButNotPerfect(t *testing.T) {
	var texts, labels []string
	for _, e := range Tickets(1, 10000) {
		texts, labels = append(texts, e.Text), append(labels, e.Labels[Category].Text())
	}
	m := trainLinear(texts, labels, 5)
	right, n := 0, 0
	confused := map[string]int{}
	for _, f := range Traffic(2, 4000) {
		if f.OutOfScope {
			continue
		}
		n++
		got := m.predict(f.Text)
		if got == f.Truth[Category].Text() {
			right++
		} else {
			confused[f.Truth[Category].Text()+" taken for "+got]++
		}
	}
	accuracy := float64(right) / float64(n)
	t.Logf("bag of words, logistic regression: %.2f %% of %d fresh tickets", 100*accuracy, n)
	for k, v := range confused {
		if v > 4 {
			t.Log(v, k)
		}
	}
	if accuracy < 0.90 || accuracy > 0.97 {
		t.Errorf("accuracy %.4f, want between 0.90 and 0.97", accuracy)
	}
}

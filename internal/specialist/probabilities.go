package specialist

import (
	"math"

	"occam/internal/task"
)

// Probabilities appends the calibrated probability of every value of a classified field: categories in the field's order, or
// false and true, and then null where the field is nullable. They add up to one; the largest is that of Predict's answer, and is
// the field's confidence unless values tie. It appends nothing for other kinds of fields.
func (m *Model) Probabilities(dst []float64, text string, field int) []float64 {
	if kind := m.fields[field].Kind; kind != task.Category && kind != task.Boolean {
		return dst
	}
	s, _ := m.pool.Get().(*scratch)
	if s == nil {
		s = new(scratch)
	}
	defer m.pool.Put(s)
	s.text.extract(text)
	m.vocab.weigh(&s.text)
	s.raw = m.linear.apply(s.text.vector, s.raw)
	h := &m.heads[field]
	return h.distribution(dst, s.raw[h.Offset:h.Offset+h.Count])
}

// distribution appends the softmax of z at the temperature, found by halving, that gives the answer its calibrated probability.
func (h *head) distribution(dst []float64, z []float32) []float64 {
	best, from := argmax(z), len(dst)
	want := sigmoid(h.Platt.logOdds(h.logOdds(z, best)))
	softmax := func(temperature float64) (top float64) {
		sum := 0.0
		dst = dst[:from]
		for _, x := range z {
			p := math.Exp(float64(x-z[best]) / temperature)
			dst, sum = append(dst, p), sum+p
		}
		for i := range dst[from:] {
			dst[from+i] /= sum
		}
		return dst[from+best]
	}
	const reach, halvings = 100, 40 // times hotter or colder than the field's own temperature
	cold, hot := math.Log(h.Temperature/reach), math.Log(h.Temperature*reach)
	for range halvings {
		if middle := (cold + hot) / 2; softmax(math.Exp(middle)) > want {
			cold = middle
		} else {
			hot = middle
		}
	}
	softmax(math.Exp(hot))
	return dst
}

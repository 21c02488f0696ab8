package specialist

import (
	"math"

	"occam/internal/task"
)

// Probabilities appends the calibrated probability of every value of a classified field: categories in the field's order, or
// false and true, and then null where the field is nullable. They add up to one; the largest is what Predict gives as the
// field's confidence. It appends nothing for other kinds of fields.
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
	z := s.raw[h.Offset : h.Offset+h.Count]
	top, from, sum := z[argmax(z)], len(dst), 0.0
	for _, x := range z {
		p := math.Exp(float64(x-top) / h.Temperature)
		dst = append(dst, p)
		sum += p
	}
	for i := range dst[from:] {
		dst[from+i] /= sum
	}
	return dst
}

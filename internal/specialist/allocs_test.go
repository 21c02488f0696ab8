//go:build !race

package specialist

import (
	"testing"

	"occam/internal/task"
)

// The race detector makes sync.Pool forget on purpose, so this test stands in a file of its own.
func TestPredictDoesNotAllocate(t *testing.T) {
	fields, examples := tickets(100)
	m := train(t, fields, examples, Options{})
	var p task.Prediction
	for _, text := range []string{"where is my parcel, order 12345? call me on 5551234", "as a customer of many years i want my money back this is outrageous order 00042"} {
		m.Predict(text, &p)
		if p.Values[3].IsNull() {
			t.Errorf("%q: no span, which this test is about", text)
		}
		if n := testing.AllocsPerRun(100, func() { m.Predict(text, &p) }); n > 0 {
			t.Errorf("%q: %v allocations a prediction of a category, a boolean, a set and a span", text, n)
		}
	}
}

//go:build !race

package specialist

import (
	"testing"

	"occam/internal/task"
)

// The race detector makes sync.Pool forget on purpose, so these tests stand in a file of their own.
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

func TestLongTextIsNotCopied(t *testing.T) {
	fields, examples := tickets(100)
	m := train(t, fields, examples, Options{})
	text := longText(1 << 20)
	var p task.Prediction
	m.Predict(text, &p)
	if n := testing.AllocsPerRun(3, func() { m.Predict(text, &p) }); n > 4 {
		t.Errorf("%v allocations a prediction of a megabyte", n)
	}
}

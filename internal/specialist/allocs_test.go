//go:build !race

package specialist

import (
	"testing"

	"occam/internal/task"
)

// The race detector makes sync.Pool forget on purpose, so this test stands in a file of its own.
func TestPredictDoesNotAllocate(t *testing.T) {
	fields, examples := tickets(100)
	m := train(t, fields[:2], examples, Options{})
	var p task.Prediction
	text := "where is my parcel, order 12345? call me on 5551234"
	m.Predict(text, &p)
	if n := testing.AllocsPerRun(100, func() { m.Predict(text, &p) }); n > 0 {
		t.Errorf("%v allocations a prediction", n)
	}
}

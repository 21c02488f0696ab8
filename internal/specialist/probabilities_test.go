package specialist

import (
	"context"
	"math"
	"slices"
	"testing"

	"occam/internal/sample"
	"occam/internal/task"
)

func TestProbabilitiesAgreeWithPredict(t *testing.T) {
	m, err := Train(context.Background(), sample.Fields(), sample.Tickets(3, 200), Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var p task.Prediction
	for _, e := range sample.Tickets(4, 50) {
		m.Predict(e.Text, &p)
		got := m.Probabilities(nil, e.Text, 0)
		sum := 0.0
		for _, q := range got {
			sum += q
		}
		best := slices.Index(got, slices.Max(got))
		f := m.Fields()[0]
		if len(got) != len(f.Values)+1 || math.Abs(sum-1) > 1e-9 || math.Abs(got[best]-p.FieldConfidence[0]) > 1e-6 {
			t.Fatalf("%d probabilities, sum %v, best %v, confidence %v", len(got), sum, got[best], p.FieldConfidence[0])
		}
		if best < len(f.Values) && p.Values[0].Text() != f.Values[best] {
			t.Fatalf("the likeliest is %s, predicted %s", f.Values[best], p.Values[0].Text())
		}
	}
	if got := m.Probabilities(nil, "x", 1); got != nil {
		t.Errorf("a span has a distribution: %v", got)
	}
}

//go:build unix

package specialist

import (
	"context"
	"testing"

	"occam/internal/sample"
)

// TestConfidenceIsCalibrated compares confidences with how often answers are right, on far more fresh tickets than were trained on.
func TestConfidenceIsCalibrated(t *testing.T) {
	fields := sample.Fields()
	m, folds, err := TrainCrossFit(context.Background(), fields, sample.Tickets(11, 600), 5, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	fresh := sample.Tickets(12, 4000)
	predictions := predictAll(m, fresh)
	for f := range fields {
		r := evaluate(fields, f, predictions, fresh)
		r.log(t, fields[f].Name)
		if r.ece > r.noise+0.03 {
			t.Errorf("%s: ECE %.4f; noise alone would give %.4f", fields[f].Name, r.ece, r.noise)
		}
	}
	r := evaluate(fields, -1, folds, sample.Tickets(11, 600))
	if r.log(t, "out of fold"); r.ece > r.noise+0.02 {
		t.Errorf("out of fold: ECE %.4f; noise alone would give %.4f", r.ece, r.noise)
	}
}

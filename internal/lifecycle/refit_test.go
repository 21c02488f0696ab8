package lifecycle

import (
	"context"
	"testing"
	"time"

	generator "occam/internal/sample"
	"occam/internal/task"
)

// TestRefitCost: few labels of many categories, where more of them must be worth something, whichever certificate is chosen.
func TestRefitCost(t *testing.T) {
	triage := &task.Task{Name: "triage", Fields: generator.Fields(), Target: task.DefaultTarget}
	for _, refit := range []bool{false, true} {
		trained, err := Train(context.Background(), TrainOptions{Task: triage, Examples: generator.Tickets(5, 600), Refit: refit, Seed: 1, CompareRefit: true, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		c := trained.RefitCost
		t.Logf("refit %v: %+v", refit, c)
		if c == nil || c.Points < 1 || c.Points > 30 || c.HeldOutRows >= c.RefitRows || c.Measured < 50 {
			t.Errorf("refit %v: %+v", refit, c)
		}
	}
}

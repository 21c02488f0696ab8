package lifecycle

import (
	"fmt"
	"math"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/store"
	"occam/internal/task"
)

// Progress is what is known of a task's training runs. It is stored before a run begins, so that a crash forgets none.
type Progress struct {
	Looks    int       `json:"looks"`       // certifications so far; each spends part of the confidence
	At       time.Time `json:"at,omitzero"` // of the last run's begin
	Rows     int64     `json:"rows"`        // that could calibrate then
	ByPerson int64     `json:"by_person"`   // labels by people then
	Needed   int64     `json:"needed"`      // rows that a certificate takes, as the last run's shortfall says; 0: no figure
	Why      string    `json:"why"`         // the last run was begun
	Result   string    `json:"result"`      // of the last run, in a sentence

	// TierNeeded is how many rows would do for a tier that only lacked labels in the last run; 0: there is none.
	TierNeeded int64           `json:"tier_needed,omitempty"`
	Arithmetic string          `json:"arithmetic,omitempty"` // how Needed comes about
	Choice     *cascade.Choice `json:"choice,omitempty"`     // the plans that the last run considered
}

const (
	firstRows   = 400  // labelled rows before the first run
	growth      = 1.5  // a run that certified nothing is repeated when there is so much more,
	mostGrowth  = 2    // and at the latest at so much more: with more to learn from the model is better too than its shortfall reckons
	retrainMore = 1.25 // of rows: a live model of Task.Retrain's age is trained anew when there are so many, because every run spends confidence
	newLabels   = 200  // by people, since the last run, for a live model to be retrained at once
	restTime    = time.Minute
)

// firstRun is how many rows the first run waits for: enough to learn from, and enough for a certificate if there are few
// errors.
func firstRun(target task.Target) int64 {
	goal := calibration.Goal{Promise: string(target.Promise), Risk: 1 - target.Accuracy, Delta: 1 - target.Confidence, Look: 1}
	return max(firstRows, int64(3*goal.MinLabels()))
}

// WantsTraining says whether a task should be trained now, and why, or what it waits for. s counts what there is to learn
// from, uniform rows since Record.AlarmAt.
func WantsTraining(r Record, t *task.Task, p Progress, s store.ExampleCount, now time.Time) (reason string, ok bool) {
	first := p.At.IsZero() || p.At.Before(r.AlarmAt) // what calibrated before that calibrates no more
	switch {
	case r.Paused:
		return "paused", false
	case now.Sub(p.At) < restTime && !first:
		return "the last run has only just begun", false
	case r.State == Candidate || r.State == Shadow || r.State == Canary:
		return "a model is being tried", false
	}
	if first {
		if need := firstRun(t.Target); s.Uniform < need {
			return waiting(s, need), false
		}
		return fmt.Sprintf("%d labelled requests are there to learn from", s.Uniform), true
	}
	if r.State == Live {
		return wantsRetraining(t.Retrain, p, s, now)
	}
	need := max(int64(growth*float64(p.Rows)), min(p.Needed, mostGrowth*p.Rows))
	if s.Uniform < need && s.ByPerson < p.ByPerson+newLabels {
		return waiting(s, need), false
	}
	return fmt.Sprintf("%d labelled requests are there, %d at the last run", s.Uniform, p.Rows), true
}

func wantsRetraining(age time.Duration, p Progress, s store.ExampleCount, now time.Time) (string, bool) {
	if s.ByPerson >= p.ByPerson+newLabels {
		return fmt.Sprintf("people gave %d labels since the last run", s.ByPerson-p.ByPerson), true
	}
	if p.TierNeeded > 0 && s.Uniform >= p.TierNeeded {
		return fmt.Sprintf("a tier lacked labels in the last run; there are %d labelled requests now", s.Uniform), true
	}
	need := int64(math.Ceil(retrainMore * float64(p.Rows)))
	switch {
	case age <= 0:
		return "the live model is trained anew when people give labels or an alarm is raised, never for its age (retrain: 0s)", false
	case now.Sub(p.At) < age:
		return fmt.Sprintf("the live model is recent: it is retrained at %s (retrain: %s)", p.At.Add(age).Format("2006-01-02 15:04"), span(age)), false
	case s.Uniform < need:
		return fmt.Sprintf("the live model is older than %s, and is retrained at %d labelled requests drawn at random; there are %d", span(age), need, s.Uniform), false
	}
	return fmt.Sprintf("the model is older than %s and there is more to learn from", span(age)), true
}

// span writes a duration as the configuration does.
func span(d time.Duration) string {
	if day := 24 * time.Hour; d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

func waiting(s store.ExampleCount, need int64) string {
	text := fmt.Sprintf("waits for %d labelled requests drawn at random; there are %d", need, s.Uniform)
	if s.Barred > 0 && s.Uniform < need {
		text += fmt.Sprintf(" (%d answers may not be learned from: their provider's terms forbid training)", s.Barred)
	}
	return text
}

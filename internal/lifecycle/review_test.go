package lifecycle

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

// A person gets the requests that wait for an answer first, the oldest first; then audits in which the specialist was wrong, the surest first;
// then answers that would have differed, in shadow or canary; then the random slice. What agrees or says nothing is not shown.
func TestTheOrderOfReviews(t *testing.T) {
	b := newBench(t, nil)
	said := func(confidence float64) task.Prediction {
		return task.Prediction{Values: []task.Value{task.String("red"), task.Null}, Confidence: confidence}
	}
	values := []task.Value{task.String("blue"), task.Null}
	slice := ""
	for i := 0; slice == ""; i++ {
		if id := fmt.Sprint("slice-", i); hash64(id)%randomSlice == 0 {
			slice = id
		}
	}
	for _, c := range []Comparison{
		{RequestID: slice, Answered: true, Accepted: true, Agreed: true, Predicted: said(.99)},
		{RequestID: "shadow-unsure", Accepted: true, Predicted: said(.6)},
		{RequestID: "audit-unsure", Answered: true, Accepted: true, Predicted: said(.7)},
		{RequestID: "shadow-sure", Accepted: true, Predicted: said(.999)},
		{RequestID: "audit-sure", Answered: true, Accepted: true, Predicted: said(.98)},
		{RequestID: "not-accepted", Predicted: said(.2)},
		{RequestID: "missing", Answered: true, Accepted: true, Missing: true, Predicted: said(.9)},
		{RequestID: "shadow-agreed", Accepted: true, Agreed: true, Predicted: said(.9)},
	} {
		c.Task, c.At, c.Input, c.Values = "colours", noon, "text of "+c.RequestID, values
		b.Compare(c)
	}
	for i := range 2 {
		b.Doubt(Doubt{RequestID: fmt.Sprint("doubt-", i), At: noon.Add(time.Duration(i) * time.Minute), Task: "colours", Input: "?", Reason: "low_score"})
	}
	want := []string{"doubt-0", "doubt-1", "audit-sure", "audit-unsure", "shadow-sure", "shadow-unsure", slice}
	b.until("the whole queue", func(Status) bool {
		var n int64
		err := b.store.View(t.Context(), func(tx *store.Tx) (err error) { n, err = tx.Reviews().Waiting("colours"); return err })
		return err == nil && n == int64(len(want))
	})
	var got, reasons []string
	for {
		var r store.Review
		err := b.store.Update(t.Context(), func(tx *store.Tx) (err error) {
			if r, err = tx.Reviews().Next("colours", "ann", time.Minute); err != nil {
				return err
			}
			_, err = tx.Reviews().Close(r.ID, "ann", nil)
			return err
		})
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, reasons = append(got, r.RequestID), append(reasons, r.Reason)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("shown  %v\nwanted %v\n%s", got, want, strings.Join(reasons, "\n"))
	}
}

// An audit that was drawn for a rare class alone stays out of the uniform sample, also where it is disputed and a person shall see it.
func TestAnAuditOfARareClassIsNoPartOfTheSample(t *testing.T) {
	for _, extra := range []bool{true, false} {
		c := &Controller{opts: Options{Capture: true}, reviews: make(chan queuedReview, 1)}
		cmp := Comparison{RequestID: "r", Task: "colours", Input: "the blue thing", Answered: true, Rare: true, Extra: extra}
		worth, reason := reviewWorth(&cmp)
		c.review(&policy{task: colours()}, &cmp, worth, reason)
		if got := (<-c.reviews).example.Uniform; got == extra {
			t.Errorf("drawn for a rare class alone: %v; kept as drawn at random: %v", extra, got)
		}
	}
}

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"occam/internal/store"
	"occam/internal/task"
)

// What a label of a request is worth: requests that wait for an answer first, then those where a certified answer was
// contradicted, then a random slice, which alone says how right everybody is.
const (
	WorthDoubt    = 4.0 // of a request that no tier may answer: its Priority is at least this
	worthDisputed = 2.0 // plus the tier's confidence: the surer it was, the more there is to learn
	worthRandom   = 1.0
	randomSlice   = 20 // one in so many compared answers
)

// reviewWorth says whether a person should see a comparison, and why.
func reviewWorth(c *Comparison) (worth float64, reason string) {
	switch {
	case c.Missing:
		return 0, ""
	case c.Answered && !c.Agreed:
		return worthDisputed + c.Predicted.Confidence, "audit: the specialist's answer and the generalist's differ"
	case c.Accepted && !c.Agreed:
		return worthDisputed - 1 + c.Predicted.Confidence, "the specialist would have answered differently from the generalist"
	case c.Answered && hash64(c.RequestID)%randomSlice == 0:
		return worthRandom, "random slice of answers"
	}
	return 0, ""
}

type queuedReview struct {
	example store.Example
	review  store.Review
}

// review puts a comparison into the review queue, when the task wants people at all.
func (c *Controller) review(p *policy, cmp *Comparison, worth float64, reason string) {
	if !c.opts.Capture || len(cmp.Input) > store.MaxText {
		return
	}
	e := store.Example{ID: cmp.RequestID, RequestID: cmp.RequestID, Task: cmp.Task, At: cmp.At, Text: cmp.Input, InputHash: hash64(cmp.Input), Uniform: cmp.Answered && !cmp.Extra}
	c.queueReview(e, store.Review{ID: cmp.RequestID, Task: cmp.Task, RequestID: cmp.RequestID, Example: cmp.RequestID, At: cmp.At, Priority: worth,
		Reason: reason, Suggestion: suggestion(output(p.task.Fields, cmp.Predicted.Values))})
}

func (c *Controller) queueReview(e store.Example, r store.Review) {
	select {
	case c.reviews <- queuedReview{e, r}:
	default:
		c.dropped.reviews.Add(1)
	}
}

func (c *Controller) addReview(ctx context.Context, q queuedReview) error {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Examples().Add(q.example); err != nil {
			return err
		}
		return tx.Reviews().Add(q.review)
	})
}

// Errors of Feedback that are the caller's.
var (
	ErrUnknownRequest = errors.New("the request is not known: it belongs to no task, it was not kept (capture is off), or its retention has ended")
	ErrBadLabels      = errors.New("the labels do not fit the task")
)

// Feedback takes a person's correction of one request's answer. Fields that labels leaves out stay as they are known. A
// second correction by the same key replaces the first.
func (c *Controller) Feedback(ctx context.Context, requestID, key string, labels task.Output) error {
	if len(labels) == 0 {
		return fmt.Errorf("%w: there are none", ErrBadLabels)
	}
	return c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		e, err := tx.Examples().ByRequest(requestID)
		if errors.Is(err, store.ErrNotFound) {
			return ErrUnknownRequest
		}
		if err != nil {
			return err
		}
		p := c.policy(e.Task)
		if p == nil {
			return ErrUnknownRequest
		}
		if err := checkLabels(p.task.Fields, labels); err != nil {
			return err
		}
		return tx.Examples().Label(store.Label{Example: e.ID, At: c.opts.Now(), Key: key, Source: fromPerson, Output: labels, Trainable: true})
	})
}

func checkLabels(fields []task.Field, labels task.Output) error {
	for name, value := range labels {
		i := slices.IndexFunc(fields, func(f task.Field) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: there is no field %q", ErrBadLabels, name)
		}
		if err := fields[i].Check(value); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrBadLabels, name, err)
		}
	}
	return nil
}

// RevokeLabels takes back every label that a key gave, and returns how many there were. The next training run is without them.
func (c *Controller) RevokeLabels(ctx context.Context, key string) (n int64, err error) {
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.Examples().Revoke(key)
		return err
	})
	return n, err
}

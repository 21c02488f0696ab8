package lifecycle

import (
	"context"
	"fmt"

	"occam/internal/store"
)

// CancelTraining ends a task's training run, whichever replica does it, and returns its job: a queued one at once, one under
// way when its lease is renewed next. The run counts as one that certified nothing: the next comes with more to learn from.
func (c *Controller) CancelTraining(ctx context.Context, taskName string) (job string, err error) {
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		j, ok, err := TrainingJob(tx, taskName)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("task %q has no training run under way", taskName)
		}
		job = j.ID
		return tx.Jobs().Stop(j.ID)
	})
	return job, err
}

// TrainingJob finds a task's training run that is queued or under way, on whichever replica. ok is false where there is none.
func TrainingJob(tx *store.Tx, taskName string) (job store.Job, ok bool, err error) {
	jobs, err := tx.Jobs().List(taskName, 20)
	for _, j := range jobs {
		if j.Kind == jobTrain && (j.State == store.JobQueued || j.State == store.JobRunning) {
			return j, true, err
		}
	}
	return store.Job{}, false, err
}

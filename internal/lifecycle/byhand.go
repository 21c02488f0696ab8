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
		jobs, err := tx.Jobs().List(taskName, 20)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Kind == jobTrain && (j.State == store.JobQueued || j.State == store.JobRunning) {
				job = j.ID
				return tx.Jobs().Stop(j.ID)
			}
		}
		return fmt.Errorf("task %q has no training run under way", taskName)
	})
	return job, err
}

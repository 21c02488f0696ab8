package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"occam/internal/lifecycle"
)

// taskAlertEvery is how often the tasks are looked at for something that a person should know at once.
const taskAlertEvery = 2 * time.Second

// watchTasks tells people of every certificate that was suspended or became void, until ctx ends. The task itself has acted by then.
func (b *bell) watchTasks(ctx context.Context, tasks func() []lifecycle.Status) {
	tick := time.NewTicker(taskAlertEvery)
	defer tick.Stop()
	for {
		var errs []error
		for _, st := range tasks() {
			for _, a := range taskAlerts(&st) {
				errs = append(errs, b.ring(ctx, a))
			}
		}
		if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
			b.log.Warn("people could not be told of a suspended model", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// taskAlerts is what a task's status gives reason to tell at once.
func taskAlerts(st *lifecycle.Status) []alert {
	var all []alert
	for _, w := range taskWarnings(st) {
		if w.key != "" {
			all = append(all, alert{w.key, fmt.Sprintf("task %s: %s: see `occam tasks show %s`", st.Task, w.text, st.Task)})
		}
	}
	return all
}

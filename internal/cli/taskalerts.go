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

// taskAlerts is what a task's status gives reason to tell.
func taskAlerts(st *lifecycle.Status) []alert {
	var all []alert
	if st.State == lifecycle.Suspended {
		all = append(all, alert{"suspended/" + st.Task + "/" + st.Since.Format(time.RFC3339), fmt.Sprintf(
			"task %s: %s. It costs more until a new model is certified: see `occam tasks show %s`", st.Task, st.Reason, st.Task)})
	}
	for _, m := range st.Models {
		for _, t := range m.Tiers {
			why := t.Void
			if why == "" && t.Evidence != nil {
				why = t.Evidence.Reason
			}
			if why != "" && m.Mode != "" {
				all = append(all, alert{"tier/" + st.Task + "/" + modelNamed(m.Model) + "/" + t.Name, fmt.Sprintf(
					"task %s: %s answers no more: %s. The generalist answers instead: see `occam tasks show %s`", st.Task, t.Name, why, st.Task)})
			}
		}
		if w, ok := m.Outside(); ok && m.Mode != "" {
			all = append(all, alert{"outside/" + st.Task + "/" + modelNamed(m.Model), fmt.Sprintf(
				"task %s: %s (%.3g %% then, %.3g %% since): its labels may have changed. More answers are audited, and an audit that gets such an answer counts as "+
					"wrong: see `occam tasks show %s`", st.Task, w.Sign, 100*w.Usual, 100*w.Now, st.Task)})
		}
		if e := m.Evidence; e != nil && e.Rare != nil && e.Rare.Alarm && m.Mode != "" {
			all = append(all, alert{"rare/" + st.Task + "/" + modelNamed(m.Model), fmt.Sprintf(
				"task %s: the specialist answers no more in its rare classes: %s. See `occam tasks show %s`", st.Task, e.Rare.Reason, st.Task)})
		}
	}
	return all
}

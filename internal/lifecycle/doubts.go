package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"occam/internal/datacheck"
)

// checkedRows bounds the data check of a training run, which costs about as much as the training: the newest rows are checked.
const checkedRows = 20_000

// doubted are the kinds of the data check's findings that a training run reports.
var doubted = []datacheck.Kind{datacheck.ShiftedBlock, datacheck.SuspiciousLabel, datacheck.Contradiction, datacheck.NearConflict, datacheck.Inseparable}

// doubts checks the labels that a run learned from, and reports those that are probably wrong or contradict each other.
func (c *Controller) doubts(ctx context.Context, r *run, curated Curated) ([]Finding, error) {
	stage := "check labels"
	r.stage.Store(&stage)
	rows := slices.Concat(curated.Background, curated.Gold, curated.Examples)
	rows = rows[max(0, len(rows)-checkedRows):]
	report, err := datacheck.Check(ctx, r.task.Fields, rows, datacheck.Options{Seed: hash64(r.task.Name), Workers: c.opts.Workers,
		Progress: func(_ string, done, total int) { r.share.Store(int64(100 * done / max(total, 1))) }})
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, kind := range doubted {
		for _, f := range report.Find(kind) {
			x := Finding{Kind: string(kind), Count: f.Rows, Detail: fmt.Sprintf("%s: %s %s See `occam tasks check %s`", f.Field, f.Why, f.Do, r.task.Name)}
			for _, g := range f.Groups {
				for _, row := range g.Rows {
					if len(x.IDs) < findingIDs {
						x.IDs = append(x.IDs, row.ID)
					}
				}
			}
			found = append(found, x)
		}
	}
	return found, nil
}

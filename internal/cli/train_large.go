package cli

import (
	"context"
	"errors"
	"fmt"

	"occam/internal/datacheck"
	"occam/internal/lifecycle"
)

// trainLarge trains on data that do not fit the memory allowed: they are read from disk, row by row.
func (a *app) trainLarge(ctx context.Context, f trainFlags) (err error) {
	if f.refit || f.curve || f.keep > 0 || f.warm != "" {
		return usageError("%s is streamed from disk, because it is too large for %d MB: --refit, --curve, --keep-examples and --warm need it in memory; allow more with --memory, or leave them out", f.data, f.memory)
	}
	progress, finish := a.stages()
	data, err := lifecycle.OpenData(f.data, f.seed, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	a.reportProblems(data.Problems)
	if n := len(data.Problems); n > 0 && !f.skipBad {
		return fmt.Errorf("%d of %d lines of %s cannot be used: mend them, or leave them out with --skip-bad", n, n+data.Rows()+data.Duplicates, f.data)
	}
	t, err := a.taskFor(f, data.Fields)
	if err != nil {
		return err
	}
	if f.out, err = modelPath(f.out, t); err != nil {
		return err
	}
	trained, use, err := lifecycle.TrainLarge(ctx, lifecycle.TrainOptions{Task: t, Seed: f.seed, Now: a.now, Progress: progress}, data, f.memory<<20)
	if err != nil {
		return err
	}
	finish()
	return a.finishTraining(f, trained, func(r *trainReport) {
		r.Stream = &use
		r.Data = summarise(f.data, &datacheck.Report{Skipped: []string{"the data check needs the rows in memory"}})
	})
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

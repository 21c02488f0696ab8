package lifecycle

import (
	"context"
	"math"

	"occam/internal/specialist"
	"occam/internal/task"
)

// A RefitCost says what it costs in accuracy that a held-out certificate leaves rows untaught. It is an estimate: one more model,
// of half the rows, is measured on the same rows as the model at hand, and accuracy is taken to grow with the logarithm of
// the rows, as it does until labels run out of news.
type RefitCost struct {
	Refit       bool    `json:"refit"`         // that was chosen
	HeldOutRows int     `json:"held_out_rows"` // that the weights learn from with a held-out certificate
	RefitRows   int     `json:"refit_rows"`    // with --refit
	Points      float64 `json:"points"`        // of accuracy, from 0 to 100, that the difference is worth; 0 where nothing is seen
	Measured    int     `json:"measured"`      // rows that both models answered
}

// refitCost trains the half model. known are rows of which accuracy is known: right of them, by models of n rows drawn from taught.
func refitCost(ctx context.Context, opt TrainOptions, model *specialist.Model, taught, known []task.Example, right, n int) (*RefitCost, error) {
	half := task.SplitExamples(taught, opt.Seed+1, 0, 0.5).Train
	if len(half) == 0 || len(known) == 0 || len(half) >= n {
		return nil, nil
	}
	small := specialist.Options{Seed: opt.Seed, Workers: opt.Workers, WarmStart: model}
	weaker, err := specialist.Train(ctx, opt.Task.Fields, half, small)
	if err != nil {
		return nil, err
	}
	fewer := 0
	for i, p := range predictAll(weaker, known) {
		fewer += one(p.Right(opt.Task.Fields, known[i].Labels))
	}
	perLog := float64(right-fewer) / float64(len(known)) / math.Log(float64(n)/float64(len(half)))
	const heldOutTeaches = 1 - calibrationShare - testShare
	return &RefitCost{Points: max(0, 100*perLog*math.Log(1/heldOutTeaches)), Measured: len(known)}, nil
}

// compareRefit estimates what the choice between a held-out certificate and Refit costs.
func (t *Trained) compareRefit(ctx context.Context, opt TrainOptions, labelled []task.Example) (err error) {
	split := task.SplitExamples(labelled, opt.Seed, calibrationShare, testShare)
	taught, known, n := split.Train, split.Test, len(split.Train)
	if opt.Refit { // accuracy is known out of fold: by models of four fifths of the rows
		part := task.SplitExamples(labelled, opt.Seed, 0, 1./crossFolds)
		taught, known, n = part.Train, part.Test, len(labelled)*(crossFolds-1)/crossFolds
	}
	judged := make(map[string]task.Prediction, len(t.Judged.Rows))
	for i, e := range t.Judged.Rows {
		judged[e.ID] = t.Judged.Predictions[i]
	}
	right := 0
	for _, e := range known {
		p := judged[e.ID]
		right += one(len(p.Values) > 0 && p.Right(opt.Task.Fields, e.Labels))
	}
	if t.RefitCost, err = refitCost(ctx, opt, t.Model, taught, known, right, n); t.RefitCost != nil {
		t.RefitCost.Refit, t.RefitCost.HeldOutRows, t.RefitCost.RefitRows = opt.Refit, len(split.Train), len(labelled)
	}
	return err
}

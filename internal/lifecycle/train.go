package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

const (
	calibrationShare = 0.20 // of the labelled rows, when the certificate is held out
	testShare        = 0.15 // of the labelled rows: locked, and the source of thresholds that depend on no calibration label
	crossFolds       = 5
	gridSize         = 200  // thresholds that a served certificate may choose from
	floorShare       = 0.02 // share of in-scope rows that the out-of-scope floor may reject
	minLabelled      = 20
)

// TrainOptions is one training run.
type TrainOptions struct {
	Task     *task.Task
	Examples []task.Example // rows without every label only help the features
	Refit    bool           // use every row for the weights; the certificate is then cross-fitted
	Seed     uint64
	Now      func() time.Time
	Progress func(stage string, done, total int) // may be nil
}

// Trained is the outcome of a training run. Certificate is nil when nothing could be certified; Shortfall then says why.
type Trained struct {
	Task        *task.Task
	Model       *specialist.Model
	Certificate *calibration.Certificate
	Shortfall   *calibration.Shortfall
	Evaluation  Evaluation          // on rows that neither the weights nor the certificate saw; out-of-fold with Refit
	Curve       []calibration.Point // observed risk against coverage, on the same rows
	Counts      Counts
	Seconds     float64
	TrainedAt   time.Time
	Bytes       int // of the model file, once saved
}

// Counts says where the examples went.
type Counts struct {
	Train       int `json:"train"`
	Calibration int `json:"calibration"`
	Test        int `json:"test"`
	Duplicates  int `json:"duplicates_removed"`
	Unlabelled  int `json:"unlabelled,omitempty"`
}

// Train splits, trains, calibrates and certifies the embedded specialist of a task.
func Train(ctx context.Context, opt TrainOptions) (*Trained, error) {
	started := opt.Now()
	if opt.Progress == nil {
		opt.Progress = func(string, int, int) {}
	}
	kept, duplicates := task.Deduplicate(opt.Examples)
	labelled, unlabelled := partition(opt.Task.Fields, kept)
	if len(labelled) < minLabelled {
		return nil, fmt.Errorf("%d labelled examples are too few to learn from: label at least %d, better 50 for each category", len(labelled), minLabelled)
	}
	if err := learnable(opt.Task.Fields, labelled); err != nil {
		return nil, err
	}
	t := &Trained{Task: opt.Task, TrainedAt: started.UTC(), Counts: Counts{Duplicates: duplicates, Unlabelled: len(unlabelled)}}
	run := trainHeldOut
	if opt.Refit {
		run = trainCrossFitted
	}
	if err := run(ctx, opt, t, labelled, unlabelled); err != nil {
		return nil, err
	}
	t.Seconds = opt.Now().Sub(started).Seconds()
	return t, nil
}

// trainHeldOut certifies weights that never saw the calibration rows; thresholds come from a third part.
func trainHeldOut(ctx context.Context, opt TrainOptions, t *Trained, labelled, unlabelled []task.Example) error {
	split := task.SplitExamples(labelled, opt.Seed, calibrationShare, testShare)
	if len(split.Train) == 0 || len(split.Calibration) == 0 || len(split.Test) == 0 {
		return errors.New("the examples are nearly all alike: after keeping near-duplicates together one part of the split is empty; add more varied examples")
	}
	t.Counts.Train, t.Counts.Calibration, t.Counts.Test = len(split.Train), len(split.Calibration), len(split.Test)
	model, err := specialist.Train(ctx, opt.Task.Fields, slices.Concat(split.Train, unlabelled), opt.specialist("train"))
	if err != nil {
		return err
	}
	t.Model = model
	test, calibrationRows := predictAll(model, split.Test), predictAll(model, split.Calibration)
	floor := floorOf(test)
	grid := calibration.Grid(gated(test, floor), gridSize)
	outcomes := outcomesOf(opt.Task.Fields, calibrationRows, split.Calibration, floor)
	if err := t.certify(opt, grid, outcomes, floor, "held-out"); err != nil {
		return err
	}
	t.Evaluation = Evaluate(model, t.Certificate, split.Test, opt.Now)
	t.Curve = calibration.Curve(outcomesOf(opt.Task.Fields, test, split.Test, floor), gridSize)
	return nil
}

// trainCrossFitted uses every row for the weights and certifies from predictions of models that did not see the row.
func trainCrossFitted(ctx context.Context, opt TrainOptions, t *Trained, labelled, unlabelled []task.Example) error {
	t.Counts.Train, t.Counts.Calibration = len(labelled), len(labelled)
	held, err := specialist.CrossFit(ctx, opt.Task.Fields, labelled, crossFolds, opt.specialist("cross-fit"))
	if err != nil {
		return err
	}
	t.Model, err = specialist.Train(ctx, opt.Task.Fields, slices.Concat(labelled, unlabelled), opt.specialist("train"))
	if err != nil {
		return err
	}
	floor := floorOf(held)
	outcomes := outcomesOf(opt.Task.Fields, held, labelled, floor)
	if err := t.certify(opt, calibration.Grid(gated(held, floor), gridSize), outcomes, floor, "cross-fitted"); err != nil {
		return err
	}
	var counts tally
	counts.init(opt.Task.Fields)
	for i := range held {
		counts.add(&held[i], labelled[i].Labels, t.Certificate.Accepts(held[i].Score, held[i].InScope))
	}
	t.Evaluation = counts.evaluation()
	t.Curve = calibration.Curve(outcomes, gridSize)
	return nil
}

func (opt TrainOptions) specialist(stage string) specialist.Options {
	return specialist.Options{Seed: opt.Seed, Progress: func(done, total int) { opt.Progress(stage, done, total) }}
}

// certify proves the task's target, or keeps the reason why it cannot.
func (t *Trained) certify(opt TrainOptions, grid []float64, outcomes []calibration.Outcome, floor float64, split string) error {
	target := opt.Task.Target
	goal := calibration.Goal{Promise: string(target.Promise), Risk: 1 - target.Accuracy, Delta: 1 - target.Confidence}
	result, err := calibration.Certify(goal, grid, outcomes)
	if errors.As(err, &t.Shortfall) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("certifying task %s: %w", opt.Task.Name, err)
	}
	certificate := result.Certificate(calibration.Certificate{
		Task: opt.Task.Name, Specialist: t.Model.Hash(), Score: t.Model.ScoreDefinition(), Scope: "all", Split: split, Floor: floor,
		Labels: sourcesOf(opt.Examples), IssuedAt: opt.Now().UTC(), Tier: "linear", AuditRate: opt.Task.Audit,
		ValidIf: calibration.Conditions(),
	})
	t.Certificate = &certificate
	return nil
}

// learnable refuses examples that all have the same answer: a model of them would look perfect and know nothing.
func learnable(fields []task.Field, labelled []task.Example) error {
	first := labelled[0].Labels
	for _, e := range labelled[1:] {
		for _, f := range fields {
			if !e.Labels[f.Name].Equal(first[f.Name]) {
				return nil
			}
		}
	}
	return fmt.Errorf("all %d labelled examples have the same answer, category or otherwise: there is nothing to tell apart; add examples with other labels", len(labelled))
}

func partition(fields []task.Field, examples []task.Example) (labelled, unlabelled []task.Example) {
	for _, e := range examples {
		missing := func(f task.Field) bool { return !f.Labelled(e.Labels) }
		if slices.ContainsFunc(fields, missing) {
			unlabelled = append(unlabelled, e)
		} else {
			labelled = append(labelled, e)
		}
	}
	return labelled, unlabelled
}

func predictAll(model *specialist.Model, examples []task.Example) []task.Prediction {
	predictions := make([]task.Prediction, len(examples))
	for i := range examples {
		model.Predict(examples[i].Text, &predictions[i])
	}
	return predictions
}

// floorOf is the in-scope score below which floorShare of in-scope rows lie.
func floorOf(predictions []task.Prediction) float64 {
	scores := make([]float64, len(predictions))
	for i := range predictions {
		scores[i] = predictions[i].InScope
	}
	slices.Sort(scores)
	return scores[int(floorShare*float64(len(scores)))]
}

// gated returns acceptance scores with the out-of-scope floor applied.
func gated(predictions []task.Prediction, floor float64) []float64 {
	scores := make([]float64, len(predictions))
	for i, p := range predictions {
		scores[i] = gate(p, floor)
	}
	return scores
}

func gate(p task.Prediction, floor float64) float64 {
	if p.InScope >= floor {
		return p.Score
	}
	return math.Inf(-1)
}

func outcomesOf(fields []task.Field, predictions []task.Prediction, truth []task.Example, floor float64) []calibration.Outcome {
	outcomes := make([]calibration.Outcome, len(predictions))
	for i, p := range predictions {
		outcomes[i] = calibration.Outcome{Score: gate(p, floor), Wrong: !p.Right(fields, truth[i].Labels)}
	}
	return outcomes
}

// sourcesOf names where the labels come from.
func sourcesOf(examples []task.Example) string {
	source := ""
	for _, e := range examples {
		s := e.Source
		if s == "" {
			s = "import"
		}
		if source != "" && s != source {
			return "mixed"
		}
		source = s
	}
	return source
}

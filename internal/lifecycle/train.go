package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/specialist"
	"occam/internal/task"
)

const (
	calibrationShare = 0.20 // of the labelled rows, when the certificate is held out
	testShare        = 0.15 // of the labelled rows: locked, and the source of thresholds that depend on no calibration label
	crossFolds       = 5
	gridSize         = 200  // thresholds that a served certificate may choose from
	floorShare       = 0.05 // share of in-scope rows that the out-of-scope floor may reject; docs/guarantees.md has what that keeps out
	minLabelled      = 20
	confirmRoom      = 0.5 // share of the risk that the threshold of a certificate to be confirmed uses, if any threshold does

	linear = "linear" // the embedded specialist as a tier
)

// TrainOptions is one training run.
type TrainOptions struct {
	Task     *task.Task
	Examples []task.Example // rows without every label only help the features
	Refit    bool           // use every row for the weights; the certificate is then cross-fitted
	// Confirm says that new requests are going to prove what a cross-fitted certificate promises. Its threshold is then chosen
	// with room, if there is one: a model that errs nearly as often as it may takes very many requests to prove.
	Confirm bool
	Seed    uint64

	// Background rows teach, but neither calibrate nor test: they are older than a drift, or were not drawn at random.
	Background []task.Example
	// Doubtful background rows are from before a drift. They teach only if the model is better for it on the locked test rows,
	// which have no part in the certificate.
	Doubtful bool
	// Gold rows were labelled by people and are locked: they test and do nothing else.
	Gold []task.Example
	// Suspects are words whose power over the model is tried on the locked test rows.
	Suspects []Suspect
	// Reversals are corrections that a person must confirm before a model that learned them may be tried.
	Reversals []Finding
	// Said is what the teacher answered to gold rows, by example: then both the specialist and the teacher can be judged by people.
	Said map[string]task.Output
	// Lock sets a test share aside also with Refit, so that two models can be compared on rows that neither saw.
	Lock bool
	// Keep is how many labelled rows, drawn at random, the model file shall hold for explanations to name. Whoever may ask for those
	// reads them.
	Keep int
	// Warm is an earlier model of the task, for a faster training: see specialist.Options. Without Refit only.
	Warm *specialist.Model
	// CompareRefit has RefitCost estimated, for about a twelfth more work.
	CompareRefit bool
	// Look counts the certifications of this task so far, this one included: each is allowed to fail less often. 0: the only one.
	Look int
	// Teacher and PromptHash name the model whose answers are the labels; "" where people made them.
	Teacher, PromptHash string
	From, To            time.Time // of the rows that calibrate, where they have times
	Workers             int       // 0 for one per CPU

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
	Bytes       int            // of the model file, once saved
	Baseline    drift.Baseline // what the calibration rows looked like, for warnings that need no labels

	People *Evaluation // on the gold rows; nil: there are none

	Triggers  []Trigger // words of Suspects that turn answers into another
	Reversals []Finding

	Truth  *calibration.Truth // agreement with the teacher beside accuracy against people, on answers it would give; nil: no rows for it
	Tiers  []PlannedTier      // tiers after the specialist, in the chosen plan
	Choice *cascade.Choice    // the plans there were; nil where none was made

	RefitCost *RefitCost // nil: not asked for

	// Judged are the labelled rows with what models that had not seen them said: out of fold, or by the final model where it never
	// saw the row.
	Judged struct {
		Rows        []task.Example
		Predictions []task.Prediction
	}

	test, gold []task.Example          // rows that the weights never saw
	deferred   *cascade.Escalation     // to the generalist, by people's labels; nil: there are too few
	origin     calibration.Certificate // what every certificate of this run says about its labels
	after      *reached                // what the tiers after this one are certified on
}

// reached is what the specialist leaves to the tiers after it. Outcomes and scores are the specialist's own.
type reached struct {
	start, path *calibration.Path // before the specialist and after it
	rows        []task.Example    // that calibrate
	outcomes    []calibration.Outcome
	labelled    int            // rows in all, of which some are rows
	others      []task.Example // whose labels have no part in any certificate
	scores      []float64
	lacking     int // rows with which some tier that is not certified would be; 0: none
}

// Counts says where the examples went.
type Counts struct {
	Train       int `json:"train"`
	Calibration int `json:"calibration"`
	Test        int `json:"test"`
	Duplicates  int `json:"duplicates_removed"`
	Unlabelled  int `json:"unlabelled,omitempty"`
	Background  int `json:"background,omitempty"`
	Gold        int `json:"gold,omitempty"`
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
	background, alsoUnlabelled := partition(opt.Task.Fields, opt.Background)
	unlabelled = append(unlabelled, alsoUnlabelled...)
	t := &Trained{Task: opt.Task, TrainedAt: started.UTC(), Counts: Counts{Duplicates: duplicates, Unlabelled: len(unlabelled),
		Background: len(background), Gold: len(opt.Gold)}}
	run := trainHeldOut
	if opt.Refit {
		run = trainCrossFitted
	}
	if err := run(ctx, opt, t, rows{labelled, background, unlabelled}); err != nil {
		return nil, err
	}
	if opt.Doubtful && len(background) > 0 && len(t.test) > 0 {
		without := &Trained{Task: opt.Task, TrainedAt: t.TrainedAt, Counts: t.Counts}
		without.Counts.Background = 0
		if err := run(ctx, opt, without, rows{labelled, nil, unlabelled}); err != nil {
			return nil, err
		}
		if without.Evaluation.Accuracy.Value > t.Evaluation.Accuracy.Value {
			t = without
		}
	}
	if opt.CompareRefit {
		if err := t.compareRefit(ctx, opt, labelled); err != nil {
			return nil, err
		}
	}
	if opt.Keep > 0 {
		t.Model.Keep(drawn(labelled, opt.Keep, opt.Seed))
	}
	t.Seconds = opt.Now().Sub(started).Seconds()
	return t, nil
}

// drawn returns n of the rows, at random.
func drawn(rows []task.Example, n int, seed uint64) []task.Example {
	order := rand.New(rand.NewPCG(seed, 6)).Perm(len(rows))[:min(n, len(rows))]
	slices.Sort(order)
	picked := make([]task.Example, len(order))
	for i, at := range order {
		picked[i] = rows[at]
	}
	return picked
}

// rows are the examples of one run by what they may do.
type rows struct {
	labelled   []task.Example // teach, calibrate, test
	background []task.Example // teach
	unlabelled []task.Example // widen the vocabulary
}

var errAlike = errors.New("the examples are nearly all alike: after keeping near-duplicates together one part of the split is empty; add more varied examples")

// trainHeldOut certifies weights that never saw the calibration rows; thresholds come from a third part.
func trainHeldOut(ctx context.Context, opt TrainOptions, t *Trained, r rows) error {
	split := task.SplitExamples(r.labelled, opt.Seed, calibrationShare, testShare)
	if len(split.Train) == 0 || len(split.Calibration) == 0 || len(split.Test) == 0 {
		return errAlike
	}
	t.Counts.Train, t.Counts.Calibration, t.Counts.Test = len(split.Train), len(split.Calibration), len(split.Test)
	taught := slices.Concat(split.Train, r.background, r.unlabelled)
	var model *specialist.Model
	var folds []task.Prediction
	var err error
	if opt.Warm != nil {
		model, err = specialist.Train(ctx, opt.Task.Fields, taught, opt.specialist("train"))
	} else {
		model, folds, err = specialist.TrainCrossFit(ctx, opt.Task.Fields, taught, crossFolds, opt.specialist("train"))
	}
	if err != nil {
		return err
	}
	t.Model = model
	if folds != nil {
		t.judged(split.Train, folds[:len(split.Train)])
	}
	t.judged(split.Calibration, predictAll(model, split.Calibration))
	t.judged(split.Test, predictAll(model, split.Test))
	return t.certifyHeldOut(opt, split.Calibration, split.Test)
}

// trainCrossFitted uses every row for the weights and certifies from predictions of models that did not see the row.
func trainCrossFitted(ctx context.Context, opt TrainOptions, t *Trained, r rows) error {
	var locked []task.Example
	if opt.Lock {
		split := task.SplitExamples(r.labelled, opt.Seed, 0, testShare)
		r.labelled, locked = split.Train, split.Test
		if len(r.labelled) == 0 || len(locked) == 0 {
			return errAlike
		}
	}
	t.Counts.Train, t.Counts.Calibration, t.Counts.Test = len(r.labelled), len(r.labelled), len(locked)
	taught := slices.Concat(r.labelled, r.background)
	model, held, err := specialist.TrainCrossFit(ctx, opt.Task.Fields, slices.Concat(taught, r.unlabelled), crossFolds, opt.specialist("train"))
	if err != nil {
		return err
	}
	t.Model, held = model, held[:len(r.labelled)]
	t.judged(r.labelled, held)
	floor := floorOf(held)
	t.after = &reached{rows: r.labelled, others: locked, scores: gated(predictAll(model, locked), floor)}
	grid := calibration.Grid(gated(held, floor), gridSize)
	if opt.Confirm {
		if err := t.certify(opt, confirmRoom, grid, held, floor, calibration.CrossFitted); err != nil {
			return err
		}
	}
	if t.Certificate == nil {
		t.Shortfall = nil
		if err := t.certify(opt, 1, grid, held, floor, calibration.CrossFitted); err != nil {
			return err
		}
	}
	t.Curve = calibration.Curve(outcomesOf(opt.Task.Fields, held, r.labelled, floor), gridSize)
	if opt.Lock {
		t.evaluate(opt, locked)
		return nil
	}
	var counts tally
	counts.init(opt.Task.Fields)
	for i := range held {
		counts.add(&held[i], r.labelled[i].Labels, t.Certificate.Accepts(held[i].Score, held[i].InScope))
	}
	t.Evaluation = counts.evaluation()
	return nil
}

func (t *Trained) judged(rows []task.Example, predictions []task.Prediction) {
	t.Judged.Rows, t.Judged.Predictions = append(t.Judged.Rows, rows...), append(t.Judged.Predictions, predictions...)
}

// evaluate scores the model on rows that it never saw.
func (t *Trained) evaluate(opt TrainOptions, test []task.Example) {
	t.test, t.gold = test, opt.Gold
	t.Evaluation = Evaluate(t.Model, t.Certificate, test, opt.Now)
	if len(opt.Gold) > 0 {
		e := Evaluate(t.Model, t.Certificate, opt.Gold, opt.Now)
		t.People = &e
	}
	t.Triggers, t.Reversals = t.triggers(opt.Suspects), opt.Reversals
	t.againstTruth(opt)
}

// leastJudged is how many rows people must have judged before an escalation is compared by their labels.
const leastJudged = 30

// againstTruth sets agreement with the teacher and accuracy against people's labels side by side, over the answers that the
// certificate allows, and compares both on what it defers. The rows have no part in the certificate.
func (t *Trained) againstTruth(opt TrainOptions) {
	if opt.Teacher == "" || t.Certificate == nil {
		return
	}
	fields := opt.Task.Fields
	var labels []calibration.Label
	var mine, teachers []bool // wrong, on what is deferred
	var p task.Prediction
	look := func(e *task.Example) bool {
		t.Model.Predict(e.Text, &p)
		return t.Certificate.Accepts(p.Score, p.InScope)
	}
	for i := range t.test {
		if e := &t.test[i]; e.Source == opt.Teacher && look(e) {
			labels = append(labels, calibration.Label{Differs: !p.Right(fields, e.Labels)})
		}
	}
	for i := range t.gold {
		e := &t.gold[i]
		said := opt.Said[e.ID]
		if said == nil {
			continue
		}
		accepted, wrong, fooled := look(e), !p.Right(fields, e.Labels), !agrees(said, e.Labels)
		if !accepted {
			mine, teachers = append(mine, wrong), append(teachers, fooled)
			continue
		}
		labels = append(labels, calibration.Label{Differs: !p.Right(fields, said), Judged: true, Wrong: wrong, Fooled: fooled})
	}
	if len(labels) > 0 {
		truth := calibration.AgainstTruth(labels, 1-opt.Task.Target.Confidence)
		t.Truth, t.Certificate.Truth = &truth, &truth
	}
	if len(mine) >= leastJudged {
		e := escalation(linear, cmp.Or(opt.Task.Generalist, opt.Teacher), mine, teachers, opt.Task.Target)
		e.Against = fromPerson
		t.deferred = &e
	}
}

func (opt TrainOptions) specialist(stage string) specialist.Options {
	return specialist.Options{Seed: opt.Seed, Workers: opt.Workers, WarmStart: opt.Warm, Progress: func(done, total int) { opt.Progress(stage, done, total) }}
}

// goalOf is what a task's certificates must prove.
func goalOf(t *task.Task, look int) calibration.Goal {
	target := t.Target
	return calibration.Goal{Promise: string(target.Promise), Risk: 1 - target.Accuracy, Delta: 1 - target.Confidence, Look: look}
}

// certify proves the task's target for the specialist on the rows that were held out, or keeps the reason why it cannot. The
// failure probability is shared with the tiers that may come after it. room is the share of the risk that the threshold may use.
func (t *Trained) certify(opt TrainOptions, room float64, grid []float64, held []task.Prediction, floor float64, split string) error {
	r := t.after
	r.outcomes, r.labelled = outcomesOf(opt.Task.Fields, held, r.rows, floor), len(opt.Examples)
	var err error
	goal := goalOf(opt.Task, opt.Look)
	goal.Risk *= room
	if r.start, err = calibration.NewPath(goal, max(1, len(opt.Task.Tiers)), len(r.rows), len(r.others)); err != nil {
		return fmt.Errorf("certifying task %s: %w", opt.Task.Name, err)
	}
	t.origin = calibration.Certificate{Labels: sourcesOf(opt.Examples), Sources: opt.sources(r.rows), Teacher: opt.Teacher, PromptHash: opt.PromptHash,
		From: opt.From, To: opt.To}
	if len(opt.Task.Tiers) > 0 && !slices.Contains(opt.Task.Tiers, linear) {
		t.Shortfall = &calibration.Shortfall{Goal: r.start.Goal(), N: len(r.rows), Arithmetic: "the task's tiers leave the specialist out"}
		return nil
	}
	r.path = r.start.Fork()
	tier, err := r.path.Certify(grid, r.outcomes, r.scores)
	if err != nil {
		return fmt.Errorf("certifying task %s: %w", opt.Task.Name, err)
	}
	if errors.As(tier.Err, &t.Shortfall) {
		t.Shortfall.Of = r.labelled
		return nil
	}
	about := t.origin
	about.Task, about.Specialist, about.Score, about.Scope, about.Split, about.Floor = opt.Task.Name, t.Model.Hash(), t.Model.ScoreDefinition(), "all", split, floor
	about.IssuedAt, about.Tier, about.AuditRate, about.ValidIf = opt.Now().UTC(), linear, opt.Task.Audit, calibration.Conditions()
	certificate := tier.Certificate(about)
	certificate.Risk /= room // what is promised, of which the threshold leaves the rest as room; of several tiers this is one's share
	t.Certificate = &certificate
	if err := t.describe(opt.Task.Fields, tier.Result, grid, held); err != nil {
		return err
	}
	t.Baseline = baselineOf(opt.Task.Fields, held, r.rows, t.Certificate)
	return nil
}

// sources counts where the labels of some rows come from.
func (opt TrainOptions) sources(rows []task.Example) []calibration.Source {
	counts := map[string]int{}
	for _, e := range rows {
		counts[cmp.Or(e.Source, fromImport)]++
	}
	var all []calibration.Source
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		s := calibration.Source{Name: name, Rows: counts[name]}
		if name == opt.Teacher {
			s.Prompt = opt.PromptHash
		}
		all = append(all, s)
	}
	return all
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

// describe adds what is known, at the certified threshold, of every field and of every predicted class, and what can be
// promised of each field by itself: a good average must not hide a bad class or a bad field.
func (t *Trained) describe(fields []task.Field, result calibration.Result, grid []float64, held []task.Prediction) (err error) {
	rows, outcomes := t.after.rows, t.after.outcomes
	names, wrong := make([]string, len(fields)), make([][]bool, len(fields))
	for f, field := range fields {
		names[f], wrong[f] = field.Name, make([]bool, len(held))
		for i := range held {
			wrong[f][i] = !held[i].Values[f].Equal(rows[i].Labels[field.Name])
		}
	}
	c := t.Certificate
	c.Fields = calibration.Fields(result, outcomes, wrong, names)
	if len(fields) > 1 {
		if c.Alone, err = calibration.Statements(result.Goal, grid, outcomes, wrong, names); err != nil {
			return err
		}
	}
	classes := newClasses(fields)
	if classes.field < 0 {
		return nil
	}
	predicted := make([]int, len(held))
	for i := range held {
		predicted[i] = classes.sign(&held[i], 0, nil).Class
	}
	c.Classes = calibration.Classes(result, grid, outcomes, predicted, fields[classes.field].Values)
	return nil
}

// baselineOf counts what traffic looked like to the model when it was certified.
func baselineOf(fields []task.Field, held []task.Prediction, rows []task.Example, c *calibration.Certificate) drift.Baseline {
	classes := newClasses(fields)
	lengths := make([]int, len(rows))
	for i := range rows {
		lengths[i] = len(rows[i].Text)
	}
	slices.Sort(lengths)
	b := drift.Baseline{Rows: len(rows), Classes: make([]int, classes.n), LongAbove: lengths[len(lengths)*9/10]}
	for i := range held {
		sign := classes.sign(&held[i], len(rows[i].Text), c)
		b.Escalated += one(sign.Escalated)
		b.Novel += one(sign.Novel)
		b.Long += one(sign.Length > b.LongAbove)
		if sign.Class >= 0 {
			b.Classes[sign.Class]++
		}
	}
	return b
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// classes numbers the values of a task's first category, for warnings about their shares.
type classes struct {
	field int
	n     int
	index map[string]int
}

func newClasses(fields []task.Field) classes {
	c := classes{field: slices.IndexFunc(fields, func(f task.Field) bool { return f.Kind == task.Category })}
	if c.field < 0 {
		return c
	}
	c.n, c.index = len(fields[c.field].Values), map[string]int{}
	for i, v := range fields[c.field].Values {
		c.index[v] = i
	}
	return c
}

// sign is what one prediction shows without a label. A nil certificate escalates everything.
func (c classes) sign(p *task.Prediction, length int, certificate *calibration.Certificate) drift.Sign {
	s := drift.Sign{Length: length, Class: -1, Escalated: !certificate.Accepts(p.Score, p.InScope)}
	if certificate != nil {
		s.Novel = p.InScope < certificate.Floor
	}
	if c.field >= 0 && c.field < len(p.Values) {
		if i, known := c.index[p.Values[c.field].Text()]; known {
			s.Class = i
		}
	}
	return s
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

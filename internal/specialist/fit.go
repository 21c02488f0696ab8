package specialist

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"

	"occam/internal/task"
)

// Options steer training. The zero value is usable.
type Options struct {
	Seed     uint64                // every random choice follows from it
	Workers  int                   // goroutines; 0 for one per CPU. The result does not depend on it
	Progress func(done, total int) // called from one goroutine at a time, if not nil
	Warn     func(Warning)         // told of examples that could not be learned from, if not nil
	// WarmStart is an earlier model of the same fields, whose categories may have been others. Train then takes over how it scaled its heads and
	// calibrated them, and trains the final weights only: about a sixth of the work. Nothing of the earlier model's weights goes into the
	// new ones, so that rows held out of this training stay held out.
	WarmStart *Model
	Memory    int64 // bytes that TrainStream's sample may take, about; 0 for 2 GiB
}

// A Warning is a problem of some examples that did not stop training.
type Warning struct {
	Field    string
	Reason   string
	Examples []int // indices
}

const internalFolds = 5 // by which Train calibrates itself

// Train learns a model from every labelled example; examples without labels only widen its vocabulary. What it must hold
// out to calibrate confidence is held out in turn: the final weights use every example. Labels outside the fields' schema
// are an error that names their rows.
func Train(ctx context.Context, fields []task.Field, examples []task.Example, opt Options) (*Model, error) {
	t, err := newTrainer(ctx, fields, examples, internalFolds, opt)
	if err != nil {
		return nil, err
	}
	if opt.WarmStart != nil {
		if err := t.takeOver(opt.WarmStart); err != nil {
			return nil, err
		}
	}
	return t.train(ctx)
}

// CrossFit returns one prediction per example, each by a model that was trained without it and without every example of
// the same wording: folds models, each trained on the other folds.
func CrossFit(ctx context.Context, fields []task.Field, examples []task.Example, folds int, opt Options) ([]task.Prediction, error) {
	t, err := newCrossFit(ctx, fields, examples, folds, opt)
	if err != nil {
		return nil, err
	}
	if err := t.passes(ctx, t.folds); err != nil {
		return nil, err
	}
	return t.predictions(), nil
}

// TrainCrossFit is Train and CrossFit in one, for the price of one: Train calibrates itself on the same folds.
func TrainCrossFit(ctx context.Context, fields []task.Field, examples []task.Example, folds int, opt Options) (*Model, []task.Prediction, error) {
	t, err := newCrossFit(ctx, fields, examples, folds, opt)
	if err != nil {
		return nil, nil, err
	}
	m, err := t.train(ctx)
	if err != nil {
		return nil, nil, err
	}
	return m, t.predictions(), nil
}

func newCrossFit(ctx context.Context, fields []task.Field, examples []task.Example, folds int, opt Options) (*trainer, error) {
	if folds < 2 {
		return nil, fmt.Errorf("specialist: cross-fitting needs at least 2 folds, not %d", folds)
	}
	return newTrainer(ctx, fields, examples, folds, opt)
}

// A trainer holds one training run: the data, what the fold models said of it, and the model that it builds.
type trainer struct {
	opt      Options
	fields   []task.Field
	texts    []string
	data     *dataset
	norms    []float32
	vocab    *vocabulary
	columns  int
	heads    []head
	column   []map[string]int32 // by field and value's JSON
	targets  []targets          // by field
	spans    []*spanRanker      // by field, rules only until final
	ready    [][]spanExample    // by field and example, under the rules of all labels
	surfaces [][]string         // by field and example: the labelled span as it stands in the text, "" for none
	fold     []int32            // by example
	folds    int
	final    int     // the pass whose weights are kept
	stream   *stream // nil where the data are held in memory
	earlier  *Model  // what the calibration is taken over from; nil: it is fitted
	progress func(work int)

	// What the fold models say of the examples that they did not see.
	svmRaw, embRaw []float32     // examples × columns, by head
	raw            []float32     // examples × columns, both heads together
	guesses        [][]foldGuess // by field and example

	// The final weights, by training row.
	svmWeights []float32 // rows × stride
	svmBias    []float32 // columns
	embedded   *embedding
	mix        []mixture // by column
}

// A foldGuess is what a span field's value is by a model that did not see the example, with its log-odds before calibration.
type foldGuess struct {
	value   task.Value
	logOdds float64
}

// targets are one field's labels: for classified fields the columns that are positive, nil where unlabelled.
type targets struct {
	known   []bool
	truth   []task.Value
	columns [][]int32
}

func newTrainer(ctx context.Context, fields []task.Field, examples []task.Example, folds int, opt Options) (*trainer, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if len(fields) == 0 {
		return nil, errors.New("specialist: the task has no fields; give its schema at least one property")
	}
	t := &trainer{opt: opt, fields: fields, folds: folds}
	t.layout()
	if err := t.readLabels(examples); err != nil {
		return nil, err
	}
	t.texts = make([]string, len(examples))
	for i := range examples {
		t.texts[i] = examples[i].Text
	}
	vocab, counts := buildVocabulary(t.texts)
	data, err := buildDataset(ctx, vocab, counts, t.texts, opt.Workers)
	if err != nil {
		return nil, err
	}
	t.vocab, t.data = vocab, data
	t.norms = make([]float32, data.len())
	for i := range t.norms {
		_, values := data.at(i)
		sum := float32(1)
		for _, v := range values {
			sum += float32(v * v)
		}
		t.norms[i] = sum
	}
	t.prepareSpans()
	t.assignFolds()
	return t, nil
}

// layout gives every classified field its columns.
func (t *trainer) layout() {
	t.heads = make([]head, len(t.fields))
	for i, f := range t.fields {
		h := head{Offset: t.columns, Temperature: 1, Platt: platt{Slope: 1}, values: columnValues(f)}
		h.Count = len(h.values)
		h.Null = f.Nullable && h.Count > 0
		t.heads[i] = h
		t.columns += h.Count
	}
}

// columnValues lists what each of a field's columns stands for.
func columnValues(f task.Field) []task.Value {
	var values []task.Value
	switch f.Kind {
	case task.Category, task.Labels:
		for _, v := range f.Values {
			values = append(values, task.String(v))
		}
	case task.Boolean:
		values = []task.Value{task.Bool(false), task.Bool(true)}
	case task.Span:
		return nil
	}
	if f.Nullable {
		values = append(values, task.Null)
	}
	return values
}

const maxNamed = 5 // rows that an error names

// readLabels checks every label and turns it into targets.
func (t *trainer) readLabels(examples []task.Example) error {
	t.targets, t.column = make([]targets, len(t.fields)), make([]map[string]int32, len(t.fields))
	for i, f := range t.fields {
		column := map[string]int32{}
		for c, v := range t.heads[i].values {
			column[string(v.AppendJSON(nil))] = int32(c)
		}
		t.column[i] = column
		g := targets{known: make([]bool, len(examples)), truth: make([]task.Value, len(examples)), columns: make([][]int32, len(examples))}
		labelled := 0
		var bad []string
		for e := range examples {
			if !f.Labelled(examples[e].Labels) {
				continue
			}
			v := examples[e].Labels[f.Name]
			if err := f.Check(v); err != nil {
				if len(bad) < maxNamed {
					bad = append(bad, fmt.Sprintf("%s: %v", rowName(&examples[e], e), err))
				}
				continue
			}
			labelled++
			g.known[e], g.truth[e] = true, v
			g.columns[e] = positiveColumns(f, v, column)
		}
		if len(bad) > 0 {
			return fmt.Errorf("specialist: labels outside the schema of field %q: %s; correct the rows or the schema", f.Name, strings.Join(bad, "; "))
		}
		if labelled == 0 {
			return fmt.Errorf("specialist: no example has a label of field %q; label some or drop the field", f.Name)
		}
		t.targets[i] = g
	}
	return nil
}

func positiveColumns(f task.Field, v task.Value, column map[string]int32) []int32 {
	if f.Kind == task.Span {
		return nil
	}
	if !v.IsSet() {
		return []int32{column[string(v.AppendJSON(nil))]}
	}
	columns := make([]int32, 0, len(v.Members()))
	for _, member := range v.Members() {
		columns = append(columns, column[string(task.String(member).AppendJSON(nil))])
	}
	return columns
}

func rowName(e *task.Example, index int) string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d", e.Line)
	}
	if e.ID != "" {
		return fmt.Sprintf("example %q", e.ID)
	}
	return fmt.Sprintf("example %d", index)
}

func (t *trainer) prepareSpans() {
	t.spans, t.ready, t.surfaces = make([]*spanRanker, len(t.fields)), make([][]spanExample, len(t.fields)), make([][]string, len(t.fields))
	for i, f := range t.fields {
		if f.Kind != task.Span {
			continue
		}
		g := &t.targets[i]
		t.surfaces[i] = spanTexts(f, g, t.texts)
		rules := t.spanRules(i, func(int) bool { return true })
		ready, missed := prepareSpans(f, rules, t.texts, g.truth, g.known)
		t.spans[i], t.ready[i] = &spanRanker{field: f, rules: rules}, ready
		if len(missed) > 0 && t.opt.Warn != nil {
			t.opt.Warn(Warning{Field: f.Name, Reason: missedReason(f), Examples: missed})
		}
	}
}

func missedReason(f task.Field) string {
	if f.Normalize == "date" || f.Normalize == "amount" {
		return "the labelled " + f.Normalize + " does not stand in the text, or can be read there in several ways"
	}
	return "the labelled span does not stand in the text"
}

// spanTexts returns, by example, the labelled span as it stands in its text, "" where it does not.
func spanTexts(f task.Field, g *targets, texts []string) []string {
	labels := make([]string, len(texts))
	for i, known := range g.known {
		if known && !g.truth[i].IsNull() {
			labels[i] = surface(f.Normalize, g.truth[i].Text(), texts[i])
		}
	}
	return labels
}

// spanRules learns what a field's spans look like from the labels of the examples that use accepts.
func (t *trainer) spanRules(f int, use func(i int) bool) spanRules {
	var spans, values []string
	glued := 0
	for i, span := range t.surfaces[f] {
		if span == "" || !use(i) {
			continue
		}
		spans, values = append(spans, span), append(values, t.targets[f].truth[i].Text())
		if isGlued(t.texts[i], span) {
			glued++
		}
	}
	rules := learnRules(spans, glued*gluedShare > len(spans))
	if form := t.fields[f].Normalize; form != "" {
		rules.Meanings = task.LearnMeanings(form, spans, values)
	}
	rules.NeedDigit = rules.NeedDigit || t.fields[f].Normalize == "digits" // or nothing might be left of a span
	return rules
}

// assignFolds deals the examples into folds so that examples of the same wording stay together and every class is spread.
func (t *trainer) assignFolds() {
	type group struct {
		stratum string
		order   uint64
		members []int32
	}
	byKey := map[string]*group{}
	var groups []*group
	rng := rand.New(rand.NewPCG(t.opt.Seed, 1))
	for i, text := range t.texts {
		key := task.NearKey(text)
		g := byKey[key]
		if g == nil {
			g = &group{order: rng.Uint64(), stratum: t.stratum(i)}
			byKey[key] = g
			groups = append(groups, g)
		}
		g.members = append(g.members, int32(i))
	}
	slices.SortStableFunc(groups, func(a, b *group) int {
		if a.stratum != b.stratum {
			if a.stratum < b.stratum {
				return -1
			}
			return 1
		}
		if a.order < b.order {
			return -1
		}
		return 1
	})
	t.folds = max(2, min(t.folds, len(groups)))
	t.final = t.folds
	t.fold = make([]int32, len(t.texts))
	for at, g := range groups {
		for _, i := range g.members {
			t.fold[i] = int32(at % t.folds)
		}
	}
}

// stratum is the label of an example's first labelled field.
func (t *trainer) stratum(i int) string {
	for f := range t.targets {
		if t.targets[f].known[i] && t.fields[f].Kind != task.Span {
			return string(t.targets[f].truth[i].AppendJSON(nil))
		}
	}
	return ""
}

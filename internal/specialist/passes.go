package specialist

import (
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"

	"occam/internal/task"
)

// A pass trains all heads once. Pass k < folds leaves fold k out and is asked about it; the weights of pass t.final are kept: it
// is number folds, which uses every example, or, where the data are streamed, the only one. Passes fall into jobs that do not depend on each other: one per SVM column, one for the embedding
// and one for the spans.

// uses reports whether a pass trains on example i.
func (t *trainer) uses(pass, i int) bool { return int(t.fold[i]) != pass }

// scored reports whether some pass was asked about example i.
func (t *trainer) scored(i int32) bool { return t.stream == nil || t.fold[i] == 0 }

// passes runs the first n passes. The longest jobs start first, so that no worker is left with one at the end.
func (t *trainer) passes(ctx context.Context, n int) error {
	t.svmRaw, t.embRaw = make([]float32, len(t.texts)*t.columns), make([]float32, len(t.texts)*t.columns)
	t.guesses = make([][]foldGuess, len(t.fields))
	for f := range t.guesses {
		if t.spans[f] != nil {
			t.guesses[f] = make([]foldGuess, len(t.texts))
		}
	}
	if n > t.final {
		t.svmWeights, t.svmBias = make([]float32, len(t.data.vocabRow)*t.stride()), make([]float32, t.columns)
	}
	t.countProgress(n)
	var jobs []func()
	for p := range n {
		jobs = append(jobs, func() { t.embeddingPass(ctx, p) })
	}
	for p := range n {
		jobs = append(jobs, func() { t.spanPass(p) })
	}
	solvers := sync.Pool{New: func() any { return new(svmSolver) }}
	for p := range n {
		for _, g := range t.columnGroups() {
			jobs = append(jobs, func() {
				s := solvers.Get().(*svmSolver)
				t.columnPass(s, p, g)
				solvers.Put(s)
			})
		}
	}
	if err := parallel(ctx, t.opt.Workers, len(jobs), func(i int) { jobs[i]() }); err != nil {
		return err
	}
	if t.earlier == nil {
		t.blend()
	}
	return nil
}

// stride is the length of a row of weights: the columns, rounded up to what the kernels work on.
func (t *trainer) stride() int { return (t.columns + lanes - 1) &^ (lanes - 1) }

// countProgress makes t.progress report finished work, of which a column counts one.
func (t *trainer) countProgress(passes int) {
	if t.progress = func(int) {}; t.opt.Progress == nil || t.stream != nil { // a stream reports by itself
		return
	}
	total, done := passes*(2*t.columns+1), 0
	var lock sync.Mutex
	t.progress = func(work int) {
		lock.Lock()
		defer lock.Unlock()
		done += work
		t.opt.Progress(done, total)
	}
}

// embeddingPass trains the embedding head.
func (t *trainer) embeddingPass(ctx context.Context, pass int) {
	defer t.progress(t.columns)
	if t.columns == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(t.opt.Seed, 1))
	m := newEmbedding(len(t.data.vocabRow), t.columns, rng)
	var examples []int32
	for i := range t.texts {
		if t.uses(pass, i) && t.classified(i) {
			examples = append(examples, int32(i))
		}
	}
	if t.stream != nil {
		t.stream.teach(ctx, t, m, rng)
	} else {
		m.learn(t, examples, rng, func() bool { return ctx.Err() != nil })
	}
	if pass == t.final {
		t.embedded = m
	}
	for i := range t.texts {
		if !t.uses(pass, i) {
			m.logits(t.data.asNew, i, t.embRaw[i*t.columns:(i+1)*t.columns])
		}
	}
}

// classified reports whether example i has a label of a classified field.
func (t *trainer) classified(i int) bool {
	for f := range t.fields {
		if t.heads[f].Count > 0 && t.targets[f].known[i] {
			return true
		}
	}
	return false
}

// A columnGroup is some columns of one field, trained side by side.
type columnGroup struct {
	field, first, count int
}

func (t *trainer) columnGroups() []columnGroup {
	var groups []columnGroup
	for f := range t.heads {
		h := &t.heads[f]
		for c := 0; c < h.Count; c += lanes {
			groups = append(groups, columnGroup{f, h.Offset + c, min(lanes, h.Count-c)})
		}
	}
	return groups
}

// columnPass trains a group of columns of the SVM.
func (t *trainer) columnPass(s *svmSolver, pass int, g columnGroup) {
	defer t.progress(g.count)
	labels := &t.targets[g.field]
	from := int32(g.first - t.heads[g.field].Offset)
	var examples []int32
	var sides []uint8
	for i, known := range labels.known {
		if !known || !t.uses(pass, i) {
			continue
		}
		side := uint8(0)
		for _, c := range labels.columns[i] {
			if c >= from && c < from+int32(g.count) {
				side |= 1 << (c - from)
			}
		}
		examples, sides = append(examples, int32(i)), append(sides, side)
	}
	s.solve(t.data, examples, t.norms, sides, g.count, rand.New(rand.NewPCG(t.opt.Seed, uint64(g.first)+2)))
	if pass == t.final {
		copy(t.svmBias[g.first:], s.bias[:g.count])
		for r := range t.data.vocabRow {
			copy(t.svmWeights[r*t.stride()+g.first:], s.weights[r*lanes:][:g.count])
		}
	}
	for i := range t.texts {
		if !t.uses(pass, i) {
			copy(t.svmRaw[i*t.columns+g.first:], s.logits(t.data.asNew, i)[:g.count])
		}
	}
}

// spanPass trains the rankers.
func (t *trainer) spanPass(pass int) {
	defer t.progress(1)
	var x spanScanner
	for f, ranker := range t.spans {
		if ranker == nil {
			continue
		}
		var examples []int32
		for i := range t.texts {
			if t.uses(pass, i) {
				examples = append(examples, int32(i))
			}
		}
		// Not a copy of the ranker: the final pass writes its weights meanwhile.
		fitted, ready := spanRanker{field: ranker.field, rules: ranker.rules}, t.ready[f]
		if rules := t.spanRules(f, func(i int) bool { return t.uses(pass, i) }); pass != t.final && !reflect.DeepEqual(rules, ranker.rules) {
			fitted.rules = rules // what a span may look like is learned without the fold's labels too
			ready, _ = prepareSpans(ranker.field, rules, t.texts, t.targets[f].truth, t.targets[f].known)
		}
		fitted.weights = learnRanker(ready, examples, rand.New(rand.NewPCG(t.opt.Seed, 1<<32+uint64(f))))
		if pass == t.final {
			ranker.weights = fitted.weights // no other pass reads them
		}
		for i := range t.texts {
			if !t.uses(pass, i) {
				guess := fitted.extract(&x, t.texts[i])
				t.guesses[f][i] = foldGuess{fitted.value(guess), guess.logOdds}
			}
		}
	}
}

// A mixture says how one column of both heads becomes one: svm·z + emb·z' + add + prior·ln(the class's share of the commonest's rows).
type mixture struct {
	SVM   float32 `json:"svm"`
	Emb   float32 `json:"emb"`
	Add   float32 `json:"add"`
	Prior float32 `json:"prior,omitzero"` // of categories and booleans; below 0 it speaks for the rare
}

// blend adds both heads, each scaled so that its out-of-fold probabilities fit the labels best.
func (t *trainer) blend() {
	for f := range t.heads {
		h := &t.heads[f]
		if h.Count == 0 {
			continue
		}
		rows := t.scoredRows(f)
		x := &h.Mix
		if t.fields[f].Kind == task.Labels {
			a, b := t.fitMembers(t.svmRaw, f, rows), t.fitMembers(t.embRaw, f, rows)
			*x = mixture{SVM: float32(a.Slope) / 2, Emb: float32(b.Slope) / 2, Add: float32(a.Intercept+b.Intercept) / 2}
		} else {
			*x = mixture{SVM: float32(0.5 / t.fitTemperature(t.svmRaw, f, rows)), Emb: float32(0.5 / t.fitTemperature(t.embRaw, f, rows))}
		}
	}
	t.addHeads()
	for f := range t.heads {
		if kind := t.fields[f].Kind; kind == task.Category || kind == task.Boolean {
			t.heads[f].Mix.Prior = t.fitPrior(f)
		}
	}
	t.addHeads()
}

// scoredRows lists the examples with a label of field f that have out-of-fold scores.
func (t *trainer) scoredRows(f int) (rows []int) {
	for i, known := range t.targets[f].known {
		if known && t.scored(int32(i)) {
			rows = append(rows, i)
		}
	}
	return rows
}

// addHeads adds the heads' out-of-fold scores as their mixtures say.
func (t *trainer) addHeads() {
	t.mixColumns()
	t.raw = make([]float32, len(t.svmRaw))
	for i := range t.raw {
		x := &t.mix[i%t.columns]
		t.raw[i] = float32(x.SVM*t.svmRaw[i]) + float32(x.Emb*t.embRaw[i]) + x.Add
	}
}

// mixColumns gives every column the mixture of its field, with what its rarity adds.
func (t *trainer) mixColumns() {
	t.mix = make([]mixture, t.columns)
	for f := range t.heads {
		h := &t.heads[f]
		shares := t.logShares(f)
		for c := range h.Count {
			t.mix[h.Offset+c] = h.Mix
			t.mix[h.Offset+c].Add += float32(h.Mix.Prior * shares[c])
		}
	}
}

// logShares returns, by column of a field, ln(rows of the class / rows of the commonest); 0 for a class without rows, which nothing
// must speak for.
func (t *trainer) logShares(f int) []float32 {
	shares := make([]float32, t.heads[f].Count)
	for i, known := range t.targets[f].known {
		if known && t.heads[f].Count > 0 {
			for _, c := range t.targets[f].columns[i] {
				shares[c]++
			}
		}
	}
	if len(shares) == 0 {
		return nil
	}
	top := slices.Max(shares)
	for c, n := range shares {
		if n > 0 {
			shares[c] = float32(math.Log(float64(n / top)))
		}
	}
	return shares
}

// train runs all passes and assembles the model.
func (t *trainer) train(ctx context.Context) (*Model, error) {
	if err := t.passes(ctx, t.final+1); err != nil {
		return nil, err
	}
	m := &Model{fields: slices.Clone(t.fields), vocab: *t.vocab, linear: t.mergeHeads(), spans: make([]*spanRanker, len(t.fields))}
	copy(m.spans, t.spans)
	c := t.calibrated()
	m.heads, m.joint, m.scope = c.heads, c.joint, c.scope
	m.seal()
	return m, nil
}

// mergeHeads writes both heads as one weight matrix over the vocabulary's rows.
func (t *trainer) mergeHeads() linear {
	stride := t.stride()
	l := newLinear(1<<t.vocab.bits, t.columns, stride)
	for c := range t.columns {
		x := &t.mix[c]
		l.bias[c] = float32(x.SVM*t.svmBias[c]) + float32(x.Emb*t.embedded.bias[c]) + x.Add
	}
	row := make([]float32, stride)
	for r, vocabRow := range t.data.vocabRow {
		for c := range t.columns {
			x := &t.mix[c]
			e := dot(t.embedded.output[c*embedDim:][:embedDim], t.embedded.feature[r*embedDim:][:embedDim])
			row[c] = float32(x.SVM*t.svmWeights[r*stride+c]) + float32(x.Emb*e)
		}
		l.setRow(int(vocabRow), row)
	}
	return l
}

// Package specialist is the embedded specialist: a classifier and extractor that trains in seconds on a CPU, without
// pretrained weights, and answers in microseconds. Train learns a Model from labelled texts, CrossFit predicts every example
// by a model that never saw it, Model.Predict answers, Encode and Decode write and read the model file. It does no I/O.
//
// docs/specialist.md says how it works and what was measured, docs/file_format.md how the file is laid out.
package specialist

import (
	"math"
	"sync"

	"occam/internal/task"
)

// A Model answers one task. It is immutable and safe for concurrent use.
type Model struct {
	fields []task.Field
	vocab  vocabulary
	linear linear
	heads  []head        // one per field, in order
	spans  []*spanRanker // one per field; nil where the field is no span
	joint  platt
	scope  scope
	hash   string
	kept   *kept // nil: the file holds no examples

	pool sync.Pool // of *scratch
}

// linear is the classifier's weight matrix: one row per vocabulary row, one column per class of every classified field.
// A weight is its byte times its row's scale.
type linear struct {
	columns int       // in use
	stride  int       // columns, rounded up
	weights []int8    // rows × stride
	scale   []float32 // by row
	bias    []float32 // by column
}

// A head turns the columns of one field into a value and the probability that it is right.
type head struct {
	Offset      int     `json:"offset"` // first column
	Count       int     `json:"count"`  // columns; 0 for a span
	Null        bool    `json:"null"`   // the last column stands for null
	Temperature float64 `json:"temperature"`
	Mix         mixture `json:"mix,omitzero"` // how training added the two heads, for WarmStart; zero in older files
	Platt       platt   `json:"platt"`        // of Labels: a column's margin → P(member); else the log-odds of the answer → P(right)

	values []task.Value // by column
}

// platt maps a score to log-odds: Slope·s + Intercept (Platt 1999).
type platt struct {
	Slope     float64 `json:"slope"`
	Intercept float64 `json:"intercept"`
}

func (p platt) logOdds(s float64) float64 { return p.Slope*s + p.Intercept }

// scope standardises the parts of the out-of-scope score on training texts that the scorer had not seen.
type scope struct {
	Logit  moments `json:"logit"`  // mean over classified fields of the highest logit
	Unseen moments `json:"unseen"` // share of unseen words and n-grams
}

// scopeLogitWeight is how much more the highest logit counts than the share of unseen features. It was chosen on CLINC150's
// 100 out-of-scope development prompts, for a model of CLINC150 and one of BANKING77.
const scopeLogitWeight = 2

type moments struct {
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"`
}

func (m moments) z(x float64) float64 { return (x - m.Mean) / max(m.SD, 1e-6) }

// scoreDefinition names the acceptance score; a change of what Score means must change it, because certificates pin it.
const scoreDefinition = "occam-linear/2: -ln sum over fields of exp(-calibrated log-odds)"

// ConfidenceAt is the calibrated probability that every field is right, at an acceptance score: it rises with the score.
func (m *Model) ConfidenceAt(score float64) float64 { return sigmoid(m.joint.logOdds(score)) }

// scratch is the memory of one prediction.
type scratch struct {
	text extractor
	span spanScanner
	raw  []float32
	odds []float64
	sets []setCache // by field
}

// A setCache holds the sets that a field's predictions came to, so that one that was made before is not made again.
type setCache map[members]task.Value

// members has a bit for each of a field's first columns. Sets that reach further are not cached.
type members [8]uint64

const maxCachedSets = 1024 // of one field, in one scratch

// Fields returns the task's fields, in the order of a Prediction's Values. The caller must not change them.
func (m *Model) Fields() []task.Field { return m.fields }

// Hash returns the SHA-256, in hexadecimal, of everything that decides an answer or a score.
func (m *Model) Hash() string { return m.hash }

// ScoreDefinition names the acceptance score that Predict computes.
func (m *Model) ScoreDefinition() string { return scoreDefinition }

// Predict answers one text. It reuses p's slices and allocates nothing once they have grown, except for a set of labels that was
// not seen before and a span that normalisation changes, which is a new string. The caller must not change a set's members.
func (m *Model) Predict(text string, p *task.Prediction) {
	s, _ := m.pool.Get().(*scratch)
	if s == nil {
		s = new(scratch)
	}
	s.text.extract(text)
	unseen := m.vocab.weigh(&s.text)
	s.raw = m.linear.apply(s.text.vector, s.raw)
	p.Values, p.FieldConfidence = p.Values[:0], p.FieldConfidence[:0]
	s.odds = s.odds[:0]
	for i := range m.fields {
		var value task.Value
		var odds float64
		if r := m.spans[i]; r != nil {
			guess := r.extract(&s.span, text)
			value, odds = r.value(guess), m.heads[i].Platt.logOdds(guess.logOdds)
		} else {
			value, odds = m.heads[i].decide(m.fields[i].Kind, s.raw, s.setsOf(i, len(m.fields)))
		}
		p.Values = append(p.Values, value)
		p.FieldConfidence = append(p.FieldConfidence, sigmoid(odds))
		s.odds = append(s.odds, odds)
	}
	p.Score = jointScore(s.odds)
	p.Confidence = sigmoid(m.joint.logOdds(p.Score))
	p.InScope = m.scope.score(m.heads, s.raw, unseen)
	m.pool.Put(s)
}

func (s *scratch) setsOf(field, fields int) setCache {
	if s.sets == nil {
		s.sets = make([]setCache, fields)
	}
	if s.sets[field] == nil || len(s.sets[field]) >= maxCachedSets {
		s.sets[field] = setCache{}
	}
	return s.sets[field]
}

// apply multiplies a text's vector by the weights; the result has one logit per column.
func (l *linear) apply(vector []entry, raw []float32) []float32 {
	if cap(raw) < l.stride {
		raw = make([]float32, l.stride)
	}
	raw = raw[:l.stride]
	clear(raw)
	copy(raw, l.bias)
	sumByteRows(raw, l.weights, l.scale, vector)
	return raw[:l.columns]
}

func newLinear(rows, columns, stride int) linear {
	return linear{columns: columns, stride: stride, weights: make([]int8, rows*stride), scale: make([]float32, rows), bias: make([]float32, columns)}
}

// setRow rounds a row of weights to bytes with a scale of its own.
func (l *linear) setRow(r int, row []float32) {
	top := float32(0)
	for _, w := range row {
		top = max(top, w, -w)
	}
	if top == 0 {
		return
	}
	l.scale[r] = top / 127
	for c, w := range row {
		l.weights[r*l.stride+c] = int8(math.Round(float64(w / l.scale[r])))
	}
}

// decide returns the field's value and the calibrated log-odds that it is right.
func (h *head) decide(kind task.Kind, raw []float32, known setCache) (task.Value, float64) {
	z := raw[h.Offset : h.Offset+h.Count]
	if kind == task.Labels {
		return h.decideSet(z, known)
	}
	best := argmax(z)
	return h.values[best], h.Platt.logOdds(h.logOdds(z, best))
}

func argmax(z []float32) int {
	best := 0
	for c := range z {
		if z[c] > z[best] {
			best = c
		}
	}
	return best
}

// logOdds returns ln(p/(1-p)) of class c under the softmax of z/temperature.
func (h *head) logOdds(z []float32, c int) float64 {
	rest := 0.0
	for k := range z {
		if k != c {
			rest += math.Exp(float64(z[k]-z[c]) / h.Temperature)
		}
	}
	return -math.Log(max(rest, 1e-300))
}

// decideSet decides every member on its own. The set is right when every decision is.
func (h *head) decideSet(z []float32, known setCache) (task.Value, float64) {
	odds := 0.0
	var key members
	for c, x := range z {
		o := h.Platt.logOdds(float64(x))
		odds += math.Exp(-math.Abs(o))
		if o > 0 && c < 64*len(key) {
			key[c/64] |= 1 << (c % 64)
		}
	}
	odds = -math.Log(max(odds, 1e-300))
	if h.Null && h.Platt.logOdds(float64(z[len(z)-1])) > 0 {
		return task.Null, odds
	}
	if set, found := known[key]; found && len(z) <= 64*len(key) {
		return set, odds
	}
	var names []string
	for c, x := range z {
		if h.Platt.logOdds(float64(x)) > 0 {
			names = append(names, h.values[c].Text())
		}
	}
	known[key] = task.Set(names...)
	return known[key], odds
}

// jointScore is a smooth minimum of the fields' log-odds: with small error probabilities, the log-odds that all are right.
func jointScore(odds []float64) float64 {
	sum := 0.0
	for _, o := range odds {
		sum += math.Exp(-min(max(o, -500), 500))
	}
	return -math.Log(max(sum, 1e-300))
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// topLogit returns the mean over classified fields of the highest temperature-scaled logit.
func topLogit(heads []head, raw []float32) float64 {
	sum, n := 0.0, 0
	for i := range heads {
		h := &heads[i]
		if h.Count > 0 {
			z := raw[h.Offset : h.Offset+h.Count]
			sum += float64(z[argmax(z)]) / h.Temperature
			n++
		}
	}
	return sum / float64(max(n, 1))
}

func (s *scope) score(heads []head, raw []float32, unseen float64) float64 {
	return scopeLogitWeight*s.Logit.z(topLogit(heads, raw)) - s.Unseen.z(unseen)
}

// value turns a guess into the field's value.
func (s *spanRanker) value(g spanGuess) task.Value {
	if g.text == "" {
		return task.Null
	}
	return task.String(task.NormalizeSpan(s.field.Normalize, g.text, s.rules.Meanings))
}

package specialist

import (
	"cmp"
	"math"
	"slices"

	"occam/internal/task"
)

// A Reason says what spoke for one answer of a field. It is exact, not an approximation: Bias and the words' weights add up
// to Margin.
type Reason struct {
	Field      string          `json:"field"`
	Value      task.Value      `json:"value"`
	Against    task.Value      `json:"against"`              // the runner-up; null for a member of a set, which has none
	Margin     float64         `json:"margin"`               // logit of Value minus that of Against
	Bias       float64         `json:"bias"`                 // what is said before any word is read
	Words      []WordWeight    `json:"words,omitempty"`      // by falling |Weight|
	Candidates []SpanCandidate `json:"candidates,omitempty"` // of a span field, by falling probability
}

// A WordWeight is what one word of the text adds to a margin: itself, its letters, and half of what it says together with
// another word. Positive speaks for the answer.
type WordWeight struct {
	Text   string  `json:"text"`
	Start  int     `json:"start"` // bytes of the input
	End    int     `json:"end"`
	Weight float64 `json:"weight"`
}

// A SpanCandidate is a stretch of the text that a span field considered. Text is "" for "there is none".
type SpanCandidate struct {
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
}

const (
	maxReasonWords      = 12
	maxReasonCandidates = 5
)

// Explain returns the reasons for what Predict answers: one a field, and for a set one for every member.
func (m *Model) Explain(text string) []Reason {
	s := &scratch{text: extractor{tracing: true}}
	s.text.extract(text)
	m.vocab.weigh(&s.text)
	raw := m.linear.apply(s.text.vector, nil)
	var reasons []Reason
	for i := range m.fields {
		h, field := &m.heads[i], &m.fields[i]
		switch {
		case m.spans[i] != nil:
			reasons = append(reasons, m.spans[i].explain(&s.span, text))
		case field.Kind == task.Labels:
			for c := range h.values {
				if h.Platt.logOdds(float64(raw[h.Offset+c])) > 0 {
					r := Reason{Field: field.Name, Value: h.values[c]}
					reasons = append(reasons, m.weighWords(r, &s.text, text, h.Offset+c, -1))
				}
			}
		default:
			z := raw[h.Offset : h.Offset+h.Count]
			best, second := argmax(z), runnerUp(z)
			r := Reason{Field: field.Name, Value: h.values[best]}
			if second >= 0 {
				r.Against = h.values[second]
				second += h.Offset
			}
			reasons = append(reasons, m.weighWords(r, &s.text, text, h.Offset+best, second))
		}
	}
	return reasons
}

// runnerUp returns the second best of z, or -1.
func runnerUp(z []float32) int {
	best, second := argmax(z), -1
	for c := range z {
		if c != best && (second < 0 || z[c] > z[second]) {
			second = c
		}
	}
	return second
}

// weighWords fills a reason for one column against another, or against none where that is negative.
func (m *Model) weighWords(r Reason, x *extractor, text string, column, against int) Reason {
	r.Bias = float64(m.linear.bias[column])
	if against >= 0 {
		r.Bias -= float64(m.linear.bias[against])
	}
	share := m.featureMargins(x, column, against)
	weight := make([]float64, len(x.tokens))
	r.Margin = r.Bias
	for _, o := range x.owners {
		part := share[o.feature] / float64(x.features[o.feature].count)
		r.Margin += part
		a, b := o.a, o.b
		if a < 0 {
			a = b
		}
		if b < 0 {
			b = a
		}
		weight[a] += part / 2
		weight[b] += part / 2
	}
	for i, w := range weight {
		t := &x.tokens[i]
		r.Words = append(r.Words, WordWeight{Text: text[t.from:t.to], Start: int(t.from), End: int(t.to), Weight: w})
	}
	slices.SortStableFunc(r.Words, func(a, b WordWeight) int { return cmp.Compare(math.Abs(b.Weight), math.Abs(a.Weight)) })
	r.Words = r.Words[:min(len(r.Words), maxReasonWords)]
	return r
}

// featureMargins returns what every feature adds to one column's logit, minus what it adds to the other's.
func (m *Model) featureMargins(x *extractor, column, against int) []float64 {
	margins := make([]float64, len(x.features))
	next := 0
	for f := range x.features {
		if f >= x.start[viewPair] && !m.vocab.has(x.features[f].hash) {
			continue // as weigh does, so that x.vector has no entry for it
		}
		e := x.vector[next]
		next++
		row := m.linear.weights[int(e.row)*m.linear.stride:][:m.linear.stride]
		w := float64(row[column])
		if against >= 0 {
			w -= float64(row[against])
		}
		margins[f] = w * float64(e.value) * float64(m.linear.scale[e.row])
	}
	return margins
}

// explain lists the candidates with their probabilities.
func (s *spanRanker) explain(x *spanScanner, text string) Reason {
	guess := s.extract(x, text)
	r := Reason{Field: s.field.Name, Value: s.value(guess), Margin: guess.logOdds}
	top := slices.Max(x.scores)
	total := 0.0
	for _, score := range x.scores {
		total += math.Exp(score - top)
	}
	add := func(span string, score float64) {
		p := math.Exp(score-top) / total
		if i := slices.IndexFunc(r.Candidates, func(c SpanCandidate) bool { return c.Text == span }); i >= 0 {
			r.Candidates[i].Probability += p
			return
		}
		r.Candidates = append(r.Candidates, SpanCandidate{span, p})
	}
	if s.field.Nullable {
		add("", x.scores[0])
	}
	for i, c := range x.candidates {
		add(text[c.start:c.end], x.scores[1+i])
	}
	slices.SortStableFunc(r.Candidates, func(a, b SpanCandidate) int { return cmp.Compare(b.Probability, a.Probability) })
	r.Candidates = r.Candidates[:min(len(r.Candidates), maxReasonCandidates)]
	return r
}

// A Neighbour is a training example by its likeness to a text: the cosine of their vectors, 1 for the same text.
type Neighbour struct {
	Index    int     `json:"index"`
	Likeness float64 `json:"likeness"`
}

// Nearest returns the k examples most like a text, the most alike first. The model file need not hold them, so the
// caller names them; the cost is one feature extraction per example.
func (m *Model) Nearest(text string, examples []task.Example, k int) []Neighbour {
	var x extractor
	query := map[uint32]float64{}
	length := m.vectorOf(&x, text, func(row uint32, value float64) { query[row] = value })
	nearest := make([]Neighbour, 0, len(examples))
	for i := range examples {
		sum := 0.0
		other := m.vectorOf(&x, examples[i].Text, func(row uint32, value float64) { sum += query[row] * value })
		nearest = append(nearest, Neighbour{i, sum / max(math.Sqrt(length*other), 1e-12)})
	}
	slices.SortStableFunc(nearest, func(a, b Neighbour) int { return cmp.Compare(b.Likeness, a.Likeness) })
	return nearest[:min(max(k, 0), len(nearest))]
}

// vectorOf calls f with every row of a text's vector and its value, and returns the vector's squared length.
func (m *Model) vectorOf(x *extractor, text string, f func(row uint32, value float64)) (squares float64) {
	x.extract(text)
	m.vocab.weigh(x)
	slices.SortFunc(x.vector, func(a, b entry) int { return cmp.Compare(a.row, b.row) })
	for i := 0; i < len(x.vector); {
		row, value := x.vector[i].row, 0.0
		for ; i < len(x.vector) && x.vector[i].row == row; i++ { // two features may share a row
			value += float64(x.vector[i].value)
		}
		f(row, value)
		squares += value * value
	}
	return squares
}

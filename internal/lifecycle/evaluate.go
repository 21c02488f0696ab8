// Package lifecycle is the control plane: from examples to a trained, certified specialist, and from there to live traffic
// and back. It decides; it never stands in the way of a request.
package lifecycle

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

// reportConfidence is the confidence of every interval that is reported.
const reportConfidence = 0.95

// A Proportion is a share with its exact binomial 95 % interval.
type Proportion struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// NewProportion returns k of n with its Clopper–Pearson interval; of no trials, value 0 between 0 and 1.
func NewProportion(k, n int) Proportion {
	low, high := calibration.Interval(k, n, reportConfidence)
	p := Proportion{Low: low, High: high}
	if n > 0 {
		p.Value = float64(k) / float64(n)
	}
	return p
}

// FieldReport is how well one field is answered. All but Accuracy is of categories only.
type FieldReport struct {
	Accuracy  Proportion       `json:"accuracy"`
	MacroF1   *float64         `json:"macro_f1,omitempty"`
	Weak      []CategoryReport `json:"weak,omitempty"`       // categories that Accuracy says too little about, the worst first, at most maxWeak
	WeakCount int              `json:"weak_count,omitempty"` // how many there are
}

// A CategoryReport is how often the rows of one category are answered right.
type CategoryReport struct {
	Value  task.Value `json:"value"`
	N      int        `json:"n"`      // its rows; 0 where the examples have none of a category that the model knows
	Recall Proportion `json:"recall"` // share of them answered right
	Why    string     `json:"why"`    // weak: the whole interval lies below the field's accuracy; rare: fewer than rareRows rows
}

const (
	rareRows = 20
	maxWeak  = 100
)

// Evaluation is what `occam eval --json` prints.
type Evaluation struct {
	N              int                    `json:"n"`
	Fields         map[string]FieldReport `json:"fields"`
	Accuracy       Proportion             `json:"accuracy"` // every labelled field right
	Coverage       float64                `json:"coverage"` // share that the certificate lets the specialist answer
	ServedAccuracy Proportion             `json:"served_accuracy"`
	LatencyUS      Quantiles              `json:"latency_us"`
	PerSecond      float64                `json:"predictions_per_second"`
	Confusions     []Confusion            `json:"confusions,omitempty"` // the most frequent, at most maxConfusions
}

// A Confusion is a pair of answers of a category that were mistaken for each other.
type Confusion struct {
	Field  string `json:"field"`
	Truth  string `json:"truth"`
	Answer string `json:"answer"`
	Count  int    `json:"count"`
}

const maxConfusions = 20

// Quantiles of a latency.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// NewQuantiles sorts durations in place and returns their median and 99th percentile in the given unit.
func NewQuantiles(durations []time.Duration, unit time.Duration) Quantiles {
	if len(durations) == 0 {
		return Quantiles{}
	}
	slices.Sort(durations)
	at := func(q float64) float64 {
		return float64(durations[int(q*float64(len(durations)-1)+.5)]) / float64(unit)
	}
	return Quantiles{P50: at(.50), P99: at(.99)}
}

// Evaluate scores a model and its certificate (nil: it may answer nothing) on labelled examples, one prediction at a time.
func Evaluate(model *specialist.Model, certificate *calibration.Certificate, examples []task.Example, now func() time.Time) Evaluation {
	var t tally
	t.init(model.Fields())
	latencies := make([]time.Duration, 0, len(examples))
	var p task.Prediction
	begun := now()
	for i := range examples {
		start := now()
		model.Predict(examples[i].Text, &p)
		latencies = append(latencies, now().Sub(start))
		t.add(&p, examples[i].Labels, certificate.Accepts(p.Score, p.InScope))
	}
	e := t.evaluation()
	if seconds := now().Sub(begun).Seconds(); seconds > 0 {
		e.PerSecond = math.Round(float64(len(examples)) / seconds)
	}
	e.LatencyUS = NewQuantiles(latencies, time.Microsecond)
	return e
}

// tally counts what was predicted against what was true.
type tally struct {
	fields                    []task.Field
	right                     []int
	known                     []int
	confusions                []map[string]*confusion // by field, by value; nil for fields that are not categories
	pairs                     map[Confusion]int       // Count is 0 in the key
	n, allRight               int
	accepted, acceptedCorrect int
}

type confusion struct{ hit, predicted, actual int }

func (t *tally) init(fields []task.Field) {
	t.fields = fields
	t.right, t.known = make([]int, len(fields)), make([]int, len(fields))
	t.confusions, t.pairs = make([]map[string]*confusion, len(fields)), map[Confusion]int{}
	for i, f := range fields {
		if f.Kind == task.Category {
			t.confusions[i] = map[string]*confusion{}
		}
	}
}

func (t *tally) add(p *task.Prediction, truth task.Output, accepted bool) {
	t.n++
	for i, f := range t.fields {
		if !f.Labelled(truth) {
			continue
		}
		want := truth[f.Name]
		t.known[i]++
		right := p.Values[i].Equal(want)
		if right {
			t.right[i]++
		}
		if t.confusions[i] != nil {
			t.confuse(i, p.Values[i].Text(), want.Text(), right)
		}
	}
	right := p.Right(t.fields, truth)
	if right {
		t.allRight++
	}
	if accepted {
		t.accepted++
		if right {
			t.acceptedCorrect++
		}
	}
}

func (t *tally) confuse(field int, got, want string, right bool) {
	of := func(value string) *confusion {
		c := t.confusions[field][value]
		if c == nil {
			c = &confusion{}
			t.confusions[field][value] = c
		}
		return c
	}
	of(got).predicted++
	of(want).actual++
	if right {
		of(want).hit++
	} else {
		t.pairs[Confusion{Field: t.fields[field].Name, Truth: want, Answer: got}]++
	}
}

// frequent lists the confusions, the most frequent first.
func (t *tally) frequent() []Confusion {
	var all []Confusion
	for c, n := range t.pairs {
		c.Count = n
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Confusion) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Field, b.Field), strings.Compare(a.Truth, b.Truth), strings.Compare(a.Answer, b.Answer))
	})
	return all[:min(len(all), maxConfusions)]
}

func (t *tally) evaluation() Evaluation {
	e := Evaluation{N: t.n, Fields: map[string]FieldReport{}, Accuracy: NewProportion(t.allRight, t.n),
		ServedAccuracy: NewProportion(t.acceptedCorrect, t.accepted), Confusions: t.frequent()}
	if t.n > 0 {
		e.Coverage = float64(t.accepted) / float64(t.n)
	}
	for i, f := range t.fields {
		r := FieldReport{Accuracy: NewProportion(t.right[i], t.known[i])}
		if t.confusions[i] != nil {
			f1 := macroF1(t.confusions[i])
			r.MacroF1 = &f1
			r.Weak = weakCategories(f, t.confusions[i], r.Accuracy.Value)
			r.WeakCount = len(r.Weak)
			r.Weak = r.Weak[:min(len(r.Weak), maxWeak)]
		}
		e.Fields[f.Name] = r
	}
	return e
}

// weakCategories lists the categories that are surely answered worse than the field as a whole, then those of too few rows to tell.
func weakCategories(f task.Field, confusions map[string]*confusion, accuracy float64) (list []CategoryReport) {
	add := func(value task.Value, c *confusion) {
		r := CategoryReport{Value: value, N: c.actual, Recall: NewProportion(c.hit, c.actual)}
		switch {
		case r.Recall.High < accuracy:
			r.Why = "weak"
		case c.actual < rareRows:
			r.Why = "rare"
		default:
			return
		}
		list = append(list, r)
	}
	for _, name := range f.Values {
		if confusions[name] == nil {
			add(task.String(name), &confusion{})
		}
	}
	for name, c := range confusions {
		switch {
		case name == "" && c.actual > 0: // a category's name is never empty: this is null
			add(task.Null, c)
		case c.actual > 0 || slices.Contains(f.Values, name):
			add(task.String(name), c)
		}
	}
	slices.SortFunc(list, func(a, b CategoryReport) int {
		return cmp.Or(-strings.Compare(a.Why, b.Why), cmp.Compare(a.Recall.Value, b.Recall.Value), a.N-b.N, strings.Compare(a.Value.Text(), b.Value.Text()))
	})
	return list
}

// macroF1 is the mean over the values that occur in the truth of the harmonic mean of precision and recall.
func macroF1(confusions map[string]*confusion) float64 {
	sum, classes := 0.0, 0
	for _, c := range confusions {
		if c.actual == 0 {
			continue
		}
		classes++
		sum += 2 * float64(c.hit) / float64(c.predicted+c.actual)
	}
	if classes == 0 {
		return 0
	}
	return sum / float64(classes)
}

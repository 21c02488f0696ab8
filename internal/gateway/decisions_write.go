package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"occam/internal/specialist"
	"occam/internal/task"
)

func compareNames(a, b *string) int { return strings.Compare(*a, *b) }

// An option is one possible answer with its probability.
type option struct {
	Value       any     `json:"value"`           // a text, a truth value, or a level's place, from 0
	Label       string  `json:"label,omitempty"` // of a level
	Probability float64 `json:"probability"`
}

// choices pairs what a question offers with the probabilities of a field's values, scaled to one without null: the question
// offers no "none of these". A score's levels are in its own order, the others in the field's. best is the likeliest.
func (q *question) choices(f task.Field, odds []float64) (all []option, best option) {
	if f.Kind == task.Boolean {
		p := yes(odds)
		all = []option{{Value: true, Probability: p}, {Value: false, Probability: 1 - p}}
		if p < .5 {
			return all, all[1]
		}
		return all, all[0]
	}
	sum := 0.0
	for i := range f.Values {
		sum += odds[i]
	}
	add := func(o option) {
		if all = append(all, o); o.Probability > best.Probability || len(all) == 1 {
			best = o
		}
	}
	share := func(i int) float64 { return odds[i] / max(sum, math.SmallestNonzeroFloat64) }
	if q.Type == "score" {
		for i, label := range q.options {
			add(option{Value: i, Label: label, Probability: share(slices.Index(f.Values, label))})
		}
		return all, best
	}
	for i, value := range f.Values {
		add(option{Value: value, Probability: share(i)})
	}
	return all, best
}

// score is the mean of the levels' places, weighted by their probabilities.
func score(levels []option) (mean float64) {
	for i, l := range levels {
		mean += float64(i) * l.Probability
	}
	return mean
}

// yes is the probability of true in a boolean field's distribution, which has false first.
func yes(odds []float64) float64 { return odds[1] / max(odds[0]+odds[1], math.SmallestNonzeroFloat64) }

// noTokens is what a specialist's decision bills, with the members that the official clients' types have.
const noTokens = `{"input_tokens":0,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":0,` +
	`"output_tokens_details":{"reasoning_tokens":0},"total_tokens":0}`

// appendDecisions writes the shape of /v1/decisions: answers in the order of the questions.
func appendDecisions(dst []byte, q *asked, t *task.Task, odds [][]float64) []byte {
	type answer struct {
		Type          string   `json:"type"`
		Name          *string  `json:"name"`
		Choice        any      `json:"choice,omitempty"`
		Probability   *float64 `json:"probability,omitempty"`
		Score         *float64 `json:"score,omitempty"`
		Probabilities []option `json:"probabilities,omitempty"`
		Confidence    *float64 `json:"confidence,omitempty"`

		Reasons []specialist.Reason `json:"reasons,omitempty"` // where the request says "explain": true
	}
	out := struct {
		Model   string             `json:"model"`
		Answers []answer           `json:"answers"`
		Nearest []specialist.Alike `json:"nearest,omitempty"` // training examples, with "explain": true and where the model file holds some
		Usage   json.RawMessage    `json:"usage"`
	}{Model: q.model, Usage: json.RawMessage(noTokens)}
	if q.why != nil {
		out.Nearest = q.why.Nearest
	}
	for k, one := range q.questions {
		a := answer{Type: one.Type, Name: one.Name, Reasons: q.reasons(t.Fields[one.field].Name)}
		all, best := one.choices(t.Fields[one.field], odds[k])
		switch one.Type {
		case "predicate", "noul":
			p := yes(odds[k])
			a.Probability = &p
		case "score":
			mean := score(all)
			a.Score, a.Probabilities, a.Confidence = &mean, all, &best.Probability
		default:
			a.Choice, a.Probabilities, a.Confidence = best.Value, all, &best.Probability
		}
		out.Answers = append(out.Answers, a)
	}
	return appendAny(dst, out)
}

// reasons are those of one field; none where the request asks for none.
func (q *asked) reasons(field string) (of []specialist.Reason) {
	if q.why == nil {
		return nil
	}
	for _, r := range q.why.Reasons {
		if r.Field == field {
			of = append(of, r)
		}
	}
	return of
}

// appendSystemOne writes the shape of /v1/systemone. A score's levels go by their places, from 0; its legend names them.
func appendSystemOne(dst []byte, q *asked, t *task.Task, odds [][]float64) []byte {
	type answer struct {
		Type          string             `json:"type"`
		Choice        any                `json:"choice,omitempty"`
		Noul          *float64           `json:"noul,omitempty"`
		Score         *float64           `json:"score,omitempty"`
		Legend        map[string]string  `json:"legend,omitempty"`
		Probabilities map[string]float64 `json:"probabilities,omitempty"`
		Confidence    *float64           `json:"confidence,omitempty"`
	}
	type usage struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
	}
	out := struct {
		Model   string            `json:"model"`
		Answers map[string]answer `json:"answers"`
		Usage   usage             `json:"usage"`
	}{Model: q.model, Answers: map[string]answer{}}
	for k, one := range q.questions {
		a := answer{Type: one.Type}
		all, best := one.choices(t.Fields[one.field], odds[k])
		if one.Type == "noul" {
			p := yes(odds[k])
			a.Noul = &p
		} else {
			certainty := peakedness(all)
			a.Confidence, a.Probabilities = &certainty, map[string]float64{}
			for _, o := range all {
				a.Probabilities[fmt.Sprint(o.Value)] = o.Probability
			}
		}
		switch one.Type {
		case "choice":
			a.Choice = best.Value
		case "score":
			mean := score(all)
			a.Score, a.Legend = &mean, map[string]string{}
			for _, o := range all {
				a.Legend[fmt.Sprint(o.Value)] = o.Label
			}
		}
		out.Answers[*one.Name] = a
	}
	return appendAny(dst, out)
}

// peakedness says how far a distribution is from uniform, from 0 for uniform to 1 for certain: one minus its entropy over the
// largest possible.
func peakedness(all []option) float64 {
	entropy := 0.0
	for _, o := range all {
		if o.Probability > 0 {
			entropy -= o.Probability * math.Log(o.Probability)
		}
	}
	return 1 - entropy/math.Log(float64(max(len(all), 2)))
}

func appendAny(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("gateway: a decision has a number that JSON has no form for: " + err.Error()) // probabilities are finite
	}
	return append(dst, text...)
}

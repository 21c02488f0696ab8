package gateway

import (
	"encoding/json"
	"math"
	"strings"

	"occam/internal/specialist"
	"occam/internal/task"
)

func compareNames(a, b *string) int { return strings.Compare(*a, *b) }

// An option is one possible answer with its probability.
type option struct {
	Value       string  `json:"value"`
	Probability float64 `json:"probability"`
}

// options pairs a field's values with their probabilities, scaled to one without null: the question offers no "none of
// these". best is the likeliest.
func options(f task.Field, odds []float64) (all []option, best option) {
	sum := 0.0
	for i := range f.Values {
		sum += odds[i]
	}
	for i, value := range f.Values {
		o := option{value, odds[i] / max(sum, math.SmallestNonzeroFloat64)}
		if all = append(all, o); o.Probability > best.Probability {
			best = o
		}
	}
	return all, best
}

// yes is the probability of true in a boolean field's distribution, which has false first.
func yes(odds []float64) float64 { return odds[1] / max(odds[0]+odds[1], math.SmallestNonzeroFloat64) }

// noTokens is what a specialist's decision bills.
type noTokens struct {
	Input  int `json:"input_tokens"`
	Output int `json:"output_tokens"`
	Total  int `json:"total_tokens"`
}

// appendDecisions writes the shape of /v1/decisions: answers in the order of the questions.
func appendDecisions(dst []byte, q *asked, t *task.Task, odds [][]float64) []byte {
	type answer struct {
		Type          string   `json:"type"`
		Name          *string  `json:"name"`
		Choice        string   `json:"choice,omitempty"`
		Probability   *float64 `json:"probability,omitempty"`
		Probabilities []option `json:"probabilities,omitempty"`
		Confidence    *float64 `json:"confidence,omitempty"`

		Reasons []specialist.Reason `json:"reasons,omitempty"` // where the request says "explain": true
	}
	out := struct {
		Model   string             `json:"model"`
		Answers []answer           `json:"answers"`
		Nearest []specialist.Alike `json:"nearest,omitempty"` // training examples, with "explain": true and where the model file holds some
		Usage   noTokens           `json:"usage"`
	}{Model: q.model}
	if q.why != nil {
		out.Nearest = q.why.Nearest
	}
	for k, one := range q.questions {
		a := answer{Type: one.Type, Name: one.Name, Reasons: q.reasons(t.Fields[one.field].Name)}
		if t.Fields[one.field].Kind == task.Boolean {
			p := yes(odds[k])
			a.Probability = &p
		} else {
			all, best := options(t.Fields[one.field], odds[k])
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

// appendSystemOne writes the shape of /v1/systemone. Its confidence says how peaked the distribution is, from 0 for uniform
// to 1 for certain: one minus its entropy over the largest possible.
func appendSystemOne(dst []byte, q *asked, t *task.Task, odds [][]float64) []byte {
	type answer struct {
		Type          string             `json:"type"`
		Choice        string             `json:"choice,omitempty"`
		Noul          *float64           `json:"noul,omitempty"`
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
		if t.Fields[one.field].Kind == task.Boolean {
			p := yes(odds[k])
			a.Noul = &p
		} else {
			all, best := options(t.Fields[one.field], odds[k])
			a.Choice, a.Probabilities = best.Value, map[string]float64{}
			entropy := 0.0
			for _, o := range all {
				a.Probabilities[o.Value] = o.Probability
				if o.Probability > 0 {
					entropy -= o.Probability * math.Log(o.Probability)
				}
			}
			peaked := 1 - entropy/math.Log(float64(max(len(all), 2)))
			a.Confidence = &peaked
		}
		out.Answers[*one.Name] = a
	}
	return appendAny(dst, out)
}

func appendAny(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("gateway: a decision has a number that JSON has no form for: " + err.Error()) // probabilities are finite
	}
	return append(dst, text...)
}

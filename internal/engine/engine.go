// Package engine holds everything that answers: the specialist in this process, and the upstream servers that are spoken to
// over HTTP. It knows how to reach an upstream safely and what its failures mean; it decides nothing about tasks or money.
package engine

import (
	"fmt"

	"occam/internal/specialist"
	"occam/internal/task"
)

// A Predictor is a specialist in this process. Predict fills p, whose slices it may reuse, and is safe for concurrent use.
type Predictor interface {
	Predict(text string, p *task.Prediction)
}

// Predict asks a specialist and turns a panic in it into an error: a request that crashes a model must not take the others
// down.
func Predict(m Predictor, text string, p *task.Prediction) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("engine: the specialist crashed on this input: %v", r)
		}
	}()
	m.Predict(text, p)
	return nil
}

// A Distributor is a Predictor that knows more of a classified field than its best value. Probabilities appends, for every
// value of the field in the field's order (of a boolean: false, true) and then for null where it is nullable, the calibrated
// probability that it is the right one. It is safe for concurrent use.
type Distributor interface {
	Predictor
	Probabilities(dst []float64, text string, field int) []float64
}

// An Explainer is a Predictor that says what spoke for and against its answers, and names the training examples most like a text,
// as far as its model file holds them. It is safe for concurrent use.
type Explainer interface {
	Predictor
	Explain(text string) []specialist.Reason
	Alike(text string, n int) []specialist.Alike
}

// An Explanation is what an Explainer says of one text.
type Explanation struct {
	Reasons []specialist.Reason
	Nearest []specialist.Alike
	Lack    string // why Nearest is empty; "" where it is not, or where nobody looked beyond the model's file
}

// NearestShown is how many training examples an explanation names at most.
const NearestShown = 3

// Explain asks a specialist for reasons; one that gives none returns nil. As in Predict, a panic becomes an error.
func Explain(m Predictor, text string) (e *Explanation, err error) {
	explainer, ok := m.(Explainer)
	if !ok {
		return nil, nil
	}
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, fmt.Errorf("engine: the specialist crashed on explaining this input: %v", r)
		}
	}()
	return &Explanation{Reasons: explainer.Explain(text), Nearest: explainer.Alike(text, NearestShown)}, nil
}

// Package task says what a narrow job is: an input, a schema of typed fields, a quality target. It reads examples,
// validates answers and recognises which request belongs to which task. It does no I/O of its own.
package task

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// A Kind says how a field is answered.
type Kind string

const (
	Category Kind = "category" // one of Values: classified
	Boolean  Kind = "boolean"  // true or false: classified
	Labels   Kind = "labels"   // a subset of Values: one yes/no per value
	Span     Kind = "span"     // a string that stands in the input: extracted
)

// A Field is one property of a task's answer.
type Field struct {
	Name      string   `json:"name" yaml:"name"`
	Kind      Kind     `json:"kind" yaml:"kind"`
	Values    []string `json:"values,omitempty" yaml:"values,omitempty"`       // of Category and Labels, in schema order
	Nullable  bool     `json:"nullable,omitempty" yaml:"nullable,omitempty"`   // null is a legal answer
	Normalize string   `json:"normalize,omitempty" yaml:"normalize,omitempty"` // of Span: see NormalizeSpan
}

// A Promise names what a certificate bounds.
type Promise string

const (
	Served Promise = "served" // P(wrong | answered) <= 1 - accuracy
	System Promise = "system" // P(answered and wrong) <= 1 - accuracy
)

// A Target is the quality that a task's specialist must prove before it may answer.
type Target struct {
	Promise    Promise `json:"promise" yaml:"promise"`
	Accuracy   float64 `json:"accuracy" yaml:"accuracy"`     // e.g. 0.97: at most 3 % wrong
	Confidence float64 `json:"confidence" yaml:"confidence"` // e.g. 0.95: the statement fails for at most 5 % of calibration draws
}

// Complete returns the target with DefaultTarget's where it says nothing.
func (t Target) Complete() Target {
	t.Promise = cmp.Or(t.Promise, DefaultTarget.Promise)
	t.Accuracy = cmp.Or(t.Accuracy, DefaultTarget.Accuracy)
	t.Confidence = cmp.Or(t.Confidence, DefaultTarget.Confidence)
	return t
}

// Check says what is wrong with a target, which need not be complete.
func (t Target) Check() error {
	if t.Promise != "" && t.Promise != Served && t.Promise != System {
		return fmt.Errorf("target.promise is %q: it must be served or system", t.Promise)
	}
	if t.Accuracy < 0 || t.Accuracy >= 1 || t.Confidence < 0 || t.Confidence >= 1 {
		return errors.New("target: accuracy and confidence must be shares below 1, such as 0.97 and 0.95")
	}
	return nil
}

// DefaultTarget is the target of a task that names none.
var DefaultTarget = Target{Promise: Served, Accuracy: 0.97, Confidence: 0.95}

// DefaultRetrain is Task.Retrain where nobody says otherwise.
const DefaultRetrain = 7 * 24 * time.Hour

// A Task is one narrow job.
type Task struct {
	Name       string
	Fields     []Field
	Input      Template // how the variable text sits in the user's message
	System     string   // a system prompt that marks the task's requests, if any
	ByInput    bool     // requests without system prompt and schema are the task's when they fit Input's literal text
	Answer     Form     // how the answer is written; zero: JSON
	Generalist string   // the model that answers when no tier may
	Target     Target
	Tiers      []string      // models to try, cheapest first
	OnDoubt    string        // "generalist", "review" or "both"
	Audit      float64       // share of answered requests that is also sent to the generalist
	AuditRare  float64       // share of answers in rare classes that is audited beside that
	Auto       bool          // the lifecycle may promote by itself
	Retrain    time.Duration // age at which a live model is trained anew, where there is more to learn from; 0: never for its age
	// CalibrationBudget is how many dollars one training run may spend on answers of models to measure them as tiers.
	CalibrationBudget float64
}

// Ask returns the prompt with which a model answers for the task by itself: the task's system prompt, or one made of its
// schema, and the input in its template. It depends on the task and the input only, so that what was measured is what is asked.
func (t *Task) Ask(input string) (system, user string) {
	system = t.System
	if system == "" {
		system = "Read the message and answer with one JSON object that this JSON Schema allows, and with nothing else. " +
			"Copy what is to be extracted exactly as it stands in the message" + t.writing() + ".\n" + string(Schema(t.Fields))
	}
	return system, t.Input.Fill(input)
}

// writing tells a model of the canonical forms that the task's fields have.
func (t *Task) writing() (said string) {
	for _, f := range t.Fields {
		switch f.Normalize {
		case "":
		case "date":
			said += fmt.Sprintf(", but write %q as YYYY-MM-DD", f.Name)
		case "amount":
			said += fmt.Sprintf(", but write %q as a plain number and a currency code, such as 1234.5 EUR", f.Name)
		case "digits":
			said += fmt.Sprintf(", but give the digits alone of %q", f.Name)
		default:
			said += fmt.Sprintf(", but write %q in %s case", f.Name, f.Normalize)
		}
	}
	return said
}

// Output is a labelled answer by field name. A field that is missing is unknown; a field that is Null is known to be absent.
type Output map[string]Value

// An Example is one labelled (or, with an empty Output, unlabelled) input.
type Example struct {
	ID     string
	Text   string
	Labels Output
	Source string // where the labels come from: "person", "import", or the generalist's pinned name
	Line   int    // line of the file it was read from, 0 if none
}

// A Prediction is a specialist's answer to one input.
// Values and FieldConfidence have one element per task field, in order.
type Prediction struct {
	Values          []Value
	FieldConfidence []float64 // calibrated probability that the field is right
	Confidence      float64   // calibrated probability that every field is right
	Score           float64   // acceptance score, higher is safer; certificates put their threshold on it; NaN never passes
	InScope         float64   // out-of-scope score, higher is more like the training data
}

// Right reports whether every field that the example labels is predicted exactly.
func (p *Prediction) Right(fields []Field, truth Output) bool {
	for i, f := range fields {
		if f.Labelled(truth) && !p.Values[i].Equal(truth[f.Name]) {
			return false
		}
	}
	return true
}

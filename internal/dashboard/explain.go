package dashboard

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"occam/internal/lifecycle"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

// because says what spoke for and against one field of a specialist's answer. The weights and Bias add up to Margin.
type because struct {
	Field      string                     `json:"field"`
	Value      string                     `json:"value"`
	Against    string                     `json:"against,omitempty"` // the answer that came second
	Margin     float64                    `json:"margin"`            // in log-odds, over the second
	Bias       float64                    `json:"bias"`
	Words      []wordBar                  `json:"words,omitempty"` // the strongest first
	Candidates []specialist.SpanCandidate `json:"candidates,omitempty"`
}

// A wordBar is one word with its weight as a bar from the middle: right speaks for the answer, left against it.
type wordBar struct {
	Text   string  `json:"text"`
	Weight float64 `json:"weight"`
	X      string  `json:"-"`
	Width  string  `json:"-"`
}

// For reports whether the word speaks for the answer.
func (w wordBar) For() bool { return w.Weight >= 0 }

func becauseOf(r specialist.Reason) because {
	b := because{Field: r.Field, Value: valueText(&r.Value), Margin: r.Margin, Bias: r.Bias, Candidates: r.Candidates}
	if !r.Value.IsSet() { // a member of a set has no runner-up
		b.Against = valueText(&r.Against)
	}
	strongest := 0.0
	for _, w := range r.Words {
		strongest = max(strongest, abs64(w.Weight))
	}
	for _, w := range r.Words {
		half := 50 * abs64(w.Weight) / max(strongest, 1e-12)
		x := 50.0
		if w.Weight < 0 {
			x -= half
		}
		b.Words = append(b.Words, wordBar{w.Text, w.Weight, pct(x), pct(max(half, 0.5))})
	}
	return b
}

func abs64(v float64) float64 { return max(v, -v) }

// explainSteps adds to a story what spoke for and against the specialists' answers, and the training examples most like its text, where
// the text was kept and the model is still there. Where something is not known the step says why.
func (d *Dashboard) explainSteps(ctx context.Context, s *story) error {
	if d.Database == nil || d.Explain == nil || s.Task == "" {
		return nil
	}
	for i := range s.Steps {
		if s.Steps[i].elsewhere() {
			s.Steps[i].Lack = "it is served elsewhere, and tells its answer without reasons"
		}
	}
	var kept store.Example
	err := d.Database.View(ctx, func(tx *store.Tx) (err error) { kept, err = tx.Examples().ByRequest(s.ID); return err })
	if err != nil || kept.Text == "" {
		s.lack("the request’s text was not kept (capture.prompts is off, or its time is over)")
		return ignoreNotFound(err)
	}
	s.Text = kept.Text
	var strong []specialist.WordWeight
	for i := range s.Steps {
		step := &s.Steps[i]
		if !step.embedded() {
			continue
		}
		why, err := d.Explain(ctx, s.Task, step.Model, kept.Text)
		switch {
		case errors.Is(err, lifecycle.ErrNoModel), errors.Is(err, store.ErrNotFound):
			step.Lack = "the model that answered is no longer kept"
			continue
		case err != nil:
			return err
		}
		if why == nil {
			step.Lack = "this kind of model gives no reasons"
			continue
		}
		if step.Nearest = nearestOf(why.Nearest); len(step.Nearest) == 0 {
			step.NearestLack = cmp.Or(why.Lack, "the model’s file holds none")
		}
		for _, r := range why.Reasons {
			step.Because = append(step.Because, becauseOf(r))
			strong = append(strong, r.Words[:min(len(r.Words), 5)]...)
		}
	}
	s.Parts = markWords(s.Text, strong)
	return nil
}

// A nearby is a training example that is like a request's text.
type nearby struct {
	ID       string      `json:"id"`
	Text     string      `json:"text"`
	Labels   task.Output `json:"labels"`
	Likeness float64     `json:"likeness"` // 1: the same words
}

func nearestOf(alike []specialist.Alike) (all []nearby) {
	for _, a := range alike {
		all = append(all, nearby(a))
	}
	return all
}

// Answers are the labels in words, by field.
func (n nearby) Answers() string {
	var all []string
	for _, field := range slices.Sorted(maps.Keys(n.Labels)) {
		v := n.Labels[field]
		all = append(all, field+": "+valueText(&v))
	}
	return strings.Join(all, ", ")
}

// markWords cuts a text at the words that speak for an answer.
func markWords(text string, words []specialist.WordWeight) []textPart {
	words = slices.DeleteFunc(words, func(w specialist.WordWeight) bool {
		return w.Weight <= 0 || w.Start < 0 || w.End > len(text) || w.Start >= w.End
	})
	slices.SortFunc(words, func(a, b specialist.WordWeight) int { return a.Start - b.Start })
	var parts []textPart
	at := 0
	for _, w := range words {
		if w.Start < at {
			continue // the same word for another field
		}
		if w.Start > at {
			parts = append(parts, textPart{text[at:w.Start], false})
		}
		parts = append(parts, textPart{text[w.Start:w.End], true})
		at = w.End
	}
	return append(parts, textPart{text[at:], false})
}

// embedded reports whether a specialist in this process was asked, elsewhere whether a tier was that is served somewhere else.
func (a *attemptView) embedded() bool  { return a.Kind == local && a.Provider == "" }
func (a *attemptView) elsewhere() bool { return a.Kind == local && a.Provider != "" }

// lack says, at every embedded specialist's step, why there is no explanation.
func (s *story) lack(why string) {
	for i := range s.Steps {
		if s.Steps[i].embedded() {
			s.Steps[i].Lack = why
		}
	}
}

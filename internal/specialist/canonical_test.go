package specialist

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/task"
)

// TestSpansInCanonicalForm learns ISO dates and amounts from texts that write them otherwise, and guesses at none that can be read in
// two ways: those come out as written, which the field's check refuses, so that no cascade serves them.
func TestSpansInCanonicalForm(t *testing.T) {
	fields := []task.Field{{Name: "bought", Kind: task.Span, Nullable: true, Normalize: "date"}, {Name: "paid", Kind: task.Span, Nullable: true, Normalize: "amount"}}
	rng := rand.New(rand.NewPCG(3, 9))
	var examples []task.Example
	for i := range 300 {
		y, m, d := 2020+rng.IntN(7), 1+rng.IntN(12), 13+rng.IntN(15)
		whole, cents := 1+rng.IntN(900), 1+rng.IntN(9)
		labels := task.Output{"bought": task.Null, "paid": task.Null}
		parts := []string{fmt.Sprintf("hello, reference %d.", rng.IntN(100000))}
		if rng.IntN(4) > 0 {
			parts = append(parts, "I bought it on "+[]string{fmt.Sprintf("%02d.%02d.%d", d, m, y), fmt.Sprintf("%02d/%02d/%d", m, d, y), fmt.Sprintf("%d-%02d-%02d", y, m, d)}[i%3]+" in a shop.")
			labels["bought"] = task.String(fmt.Sprintf("%d-%02d-%02d", y, m, d))
		}
		if rng.IntN(4) > 0 {
			parts = append(parts, "I paid "+[]string{fmt.Sprintf("EUR %d,%d0", whole, cents), fmt.Sprintf("%d.%d EUR", whole, cents), fmt.Sprintf("%d,%d0 €", whole, cents)}[i%3]+" for it.")
			labels["paid"] = task.String(fmt.Sprintf("%d.%d EUR", whole, cents))
		}
		rng.Shuffle(len(parts), func(a, b int) { parts[a], parts[b] = parts[b], parts[a] })
		examples = append(examples, task.Example{Text: strings.Join(parts, " "), Labels: labels})
	}
	m := train(t, fields, examples[:200], Options{Warn: func(w Warning) { t.Errorf("warning: %+v", w) }})
	wrong := [2]int{}
	var p task.Prediction
	for _, e := range examples[200:] {
		m.Predict(e.Text, &p)
		for f := range fields {
			if !p.Values[f].Equal(e.Labels[fields[f].Name]) {
				wrong[f]++
				t.Logf("%s of %q: %s", fields[f].Name, e.Text, p.Values[f].AppendJSON(nil))
			} else if err := fields[f].Check(p.Values[f]); err != nil || !fields[f].StandsIn(p.Values[f], e.Text) {
				t.Errorf("%s: %v", p.Values[f].AppendJSON(nil), err)
			}
		}
	}
	if wrong[0] > 3 || wrong[1] > 3 {
		t.Errorf("wrong of 100: %v", wrong)
	}
	m.Predict("hello, reference 3. I bought it on 03/04/2024 in a shop. I paid EUR 1,234 for it.", &p)
	for f := range fields {
		if p.Values[f].IsNull() || fields[f].Check(p.Values[f]) == nil {
			t.Errorf("%s may be served: %s", fields[f].Name, p.Values[f].AppendJSON(nil))
		}
	}
}

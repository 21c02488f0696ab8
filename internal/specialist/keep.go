package specialist

import (
	"encoding/json"
	"fmt"
	"sync"

	"occam/internal/task"
)

// An Alike is a training example that the model file holds, by its likeness to a text: the cosine of their vectors.
type Alike struct {
	ID       string      `json:"id"`
	Text     string      `json:"text"`
	Labels   task.Output `json:"labels"`
	Likeness float64     `json:"likeness"`
}

// kept are the examples that a model file holds. They decide no answer and are not hashed; they are read when first asked for.
type kept struct {
	encoded  []byte
	once     sync.Once
	examples []task.Example
}

// Keep has the model's file hold these examples, so that Alike can name them. Whoever may ask for explanations then sees their
// texts: nothing is kept unless someone decides so. It must be called before the model is used.
func (m *Model) Keep(examples []task.Example) {
	rows := make([]Alike, len(examples))
	for i, e := range examples {
		rows[i] = Alike{ID: e.ID, Text: e.Text, Labels: e.Labels}
	}
	encoded, err := json.Marshal(rows)
	if err != nil {
		panic(fmt.Sprintf("specialist: examples do not encode: %v", err)) // strings, booleans and null only
	}
	m.kept = &kept{encoded: encoded}
}

// load decodes the examples. A section that does not decode is as good as none: it decides nothing.
func (k *kept) load() []task.Example {
	k.once.Do(func() {
		var rows []Alike
		if json.Unmarshal(k.encoded, &rows) != nil {
			return
		}
		k.examples = make([]task.Example, len(rows))
		for i, r := range rows {
			k.examples[i] = task.Example{ID: r.ID, Text: r.Text, Labels: r.Labels}
		}
	})
	return k.examples
}

// Alike returns the n kept examples that are most like a text, the most alike first; none where the file holds none. It costs
// one feature extraction for every example that is kept.
func (m *Model) Alike(text string, n int) []Alike {
	if m.kept == nil {
		return nil
	}
	examples := m.kept.load()
	var out []Alike
	for _, near := range m.Nearest(text, examples, n) {
		e := &examples[near.Index]
		out = append(out, Alike{e.ID, e.Text, e.Labels, near.Likeness})
	}
	return out
}

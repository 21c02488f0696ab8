package specialist

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"occam/internal/task"
)

func TestExplainAddsUp(t *testing.T) {
	fields, examples := tickets(300)
	m := train(t, fields, examples, Options{})
	text := "As a customer of many years I want my money back, order 12345"
	var p task.Prediction
	m.Predict(text, &p)
	var x extractor
	x.extract(text)
	m.vocab.weigh(&x)
	raw := m.linear.apply(x.vector, nil)
	for _, r := range m.Explain(text) {
		f := map[string]int{"topic": 0, "urgent": 1, "tags": 2, "order": 3}[r.Field]
		if r.Field != "tags" && !r.Value.Equal(p.Values[f]) {
			t.Errorf("%s: explained %s, predicted %s", r.Field, r.Value.AppendJSON(nil), p.Values[f].AppendJSON(nil))
		}
		if f > 1 {
			continue
		}
		z := raw[m.heads[f].Offset:][:m.heads[f].Count]
		if want := float64(z[argmax(z)] - z[runnerUp(z)]); math.Abs(want-r.Margin) > 1e-3 {
			t.Errorf("%s: margin %v, the logits say %v", r.Field, r.Margin, want)
		}
		sum := r.Bias
		for _, w := range r.Words {
			sum += w.Weight
			if text[w.Start:w.End] != w.Text {
				t.Errorf("%q stands at [%d:%d]", w.Text, w.Start, w.End)
			}
		}
		if len(strings.Fields(text)) <= maxReasonWords && math.Abs(sum-r.Margin) > 1e-3 {
			t.Errorf("%s: the words add up to %v, not %v", r.Field, sum, r.Margin)
		}
	}
}

func TestExplainNamesTheWordsThatMatter(t *testing.T) {
	fields, examples := tickets(300)
	m := train(t, fields, examples, Options{})
	reasons := m.Explain("please reset my password")
	if r := reasons[0]; r.Value.Text() != "login" || r.Words[0].Weight <= 0 || !strings.Contains("reset password", r.Words[0].Text) {
		t.Errorf("reason: %+v", r)
	}
	reasons = m.Explain("where is my parcel order 00042 phone 1234567")
	last := reasons[len(reasons)-1]
	if last.Value.Text() != "00042" || len(last.Candidates) < 2 || last.Candidates[0].Text != "00042" {
		t.Errorf("span reason: %+v", last)
	}
}

func TestNearest(t *testing.T) {
	fields, examples := tickets(200)
	m := train(t, fields, examples, Options{})
	near := m.Nearest(examples[17].Text, examples, 3)
	if len(near) != 3 || math.Abs(near[0].Likeness-1) > 1e-6 || examples[near[0].Index].Text != examples[17].Text {
		t.Errorf("nearest to an example: %+v", near)
	}
	if got := m.Nearest("", examples, 1000); len(got) != len(examples) {
		t.Errorf("%d neighbours of %d examples", len(got), len(examples))
	}
}

func TestAlikeNamesTheExamplesThatTheFileHolds(t *testing.T) {
	fields, examples := tickets(200)
	m := train(t, fields, examples, Options{})
	if got := m.Alike("reset my password", 3); got != nil {
		t.Errorf("a file that holds no examples names %v", got)
	}
	if bytes.Contains(m.Encode(nil), []byte("outrageous")) {
		t.Error("the file holds a training text that nobody asked it to")
	}
	m.Keep(examples[:50])
	again, _, err := Decode(m.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	if again.Hash() != m.Hash() {
		t.Error("what is kept changes the hash of the weights")
	}
	e := examples[17]
	got := again.Alike(e.Text, 3)
	if len(got) != 3 || got[0].Text != e.Text || math.Abs(got[0].Likeness-1) > 1e-6 || !got[0].Labels["topic"].Equal(e.Labels["topic"]) || !got[0].Labels["tags"].Equal(e.Labels["tags"]) {
		t.Errorf("alike: %+v", got)
	}
}

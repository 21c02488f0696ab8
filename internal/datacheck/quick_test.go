package datacheck

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"occam/internal/sample"
	"occam/internal/task"
)

func labelled(id, text, category string) task.Example {
	return task.Example{ID: id, Text: text, Labels: task.Output{sample.Category: task.String(category)}}
}

func ids(f Finding) []string {
	var out []string
	for _, g := range f.Groups {
		for _, r := range g.Rows {
			out = append(out, r.ID)
		}
	}
	slices.Sort(out)
	return out
}

func mustFind(t *testing.T, r *Report, kind Kind, want ...string) Finding {
	t.Helper()
	found := r.Find(kind)
	if len(found) != 1 {
		t.Fatalf("%s: %+v", kind, r.Findings)
	}
	if got := ids(found[0]); !slices.Equal(got, want) {
		t.Errorf("%s names %v, want %v", kind, got, want)
	}
	if found[0].Why == "" || found[0].Do == "" || found[0].Severity == "" {
		t.Errorf("%s does not say why, what to do, or how bad it is: %+v", kind, found[0])
	}
	return found[0]
}

// Every mistake that shows without a model is found with its rows, and nothing else is.
func TestQuick(t *testing.T) {
	fields := []task.Field{
		{Name: sample.Category, Kind: task.Category, Values: []string{"Refund", "refund ", "late", "gone", "\u200flate"}},
		{Name: sample.OrderID, Kind: task.Span, Nullable: true},
	}
	var examples []task.Example
	for i := range 30 {
		examples = append(examples, labelled(fmt.Sprintf("ok%d", i), fmt.Sprintf("different text number %d", i), []string{"Refund", "refund ", "late"}[i%3]))
	}
	examples = append(examples,
		labelled("c1", "Where is it?", "late"), labelled("c2", "where is  it", "Refund"),
		labelled("d1", "Pay me back", "Refund"), labelled("d2", "pay me back!", "Refund"),
		labelled("dup", "one of two", "late"), labelled("dup", "two of two", "late"),
		labelled("out", "an unknown label", "other"),
		labelled("ctl", "a \x07 bell", "late"), labelled("rtl", "some \u202etxet", "late"), labelled("x", "x", "late"),
		labelled("long", strings.Repeat("long ", 30_000), "late"),
		task.Example{ID: "typo", Text: "a misspelt name", Labels: task.Output{sample.Category: task.String("late"), "order-ID": task.Null}},
		task.Example{ID: "none", Text: "no category", Labels: task.Output{}},
		task.Example{ID: "span", Text: "order A-1 please", Labels: task.Output{sample.Category: task.String("late"), sample.OrderID: task.String("B-2")}},
		task.Example{ID: "span ok", Text: "order A-1 again", Labels: task.Output{sample.Category: task.String("late"), sample.OrderID: task.String("A-1")}},
	)
	r := Quick(fields, examples)
	mustFind(t, r, Contradiction, "c1", "c2")
	mustFind(t, r, Duplicate, "d1", "d2")
	mustFind(t, r, SameID, "dup", "dup")
	mustFind(t, r, OutsideSchema, "out")
	mustFind(t, r, OddText, "ctl", "long", "rtl", "x")
	mustFind(t, r, SpanNotInText, "span")
	mustFind(t, r, UnknownField, "typo")
	if n := len(mustFind(t, r, LookAlikeNames).Groups); n != 2 {
		t.Errorf("%d groups of names that look alike, want Refund and late", n)
	}
	if rare := mustFind(t, r, RareCategory).Groups; len(rare) != 2 || rare[0].Values[0] != "gone" {
		t.Errorf("rare: %+v", rare)
	}
	if missing := r.Find(Unlabelled); len(missing) != 2 || missing[0].Rows != 1 {
		t.Errorf("unlabelled: %+v", missing)
	}
	if n := len(r.Find(OneCategory)); n != 0 {
		t.Errorf("%d fields with one category", n)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestOneCategory(t *testing.T) {
	var examples []task.Example
	for i := range 60 {
		examples = append(examples, labelled(fmt.Sprint(i), fmt.Sprintf("text %c", 'a'+rune(i%26)), "all"))
	}
	r := mustCheck(t, categoryField(t, examples), examples, Options{})
	if len(r.Find(OneCategory)) != 1 || len(r.Skipped) != 1 || len(r.Ceilings) != 0 {
		t.Errorf("%+v, skipped %v", r.Findings, r.Skipped)
	}
}

// Texts and labels of every odd kind go through the whole check, and are reported rather than guessed about.
func TestCheckOddData(t *testing.T) {
	fields := []task.Field{
		{Name: sample.Category, Kind: task.Category, Values: []string{"late", "Late", "refund", "once"}},
		{Name: "urgent", Kind: task.Boolean}, {Name: "topics", Kind: task.Labels, Values: []string{"a", "b"}},
		{Name: sample.OrderID, Kind: task.Span, Nullable: true},
	}
	big := strings.Repeat("lorem ipsum dolor sit amet ", 40_000) // 1 MB
	texts := []string{"?", "!", "x", "\x00\x01", "\u202e\u200f", "荷物はどこですか", "أين طردي", "\ufffd", big, big + " more", "🙂", "where is my parcel", "money back please"}
	var examples []task.Example
	for i := range 120 {
		labels := task.Output{sample.Category: task.String([]string{"late", "Late", "refund"}[i%3]), "urgent": task.Bool(i%2 == 0),
			"topics": task.Set([]string{"a", "b"}[:i%3]...), sample.OrderID: task.Null}
		if i%7 == 0 {
			labels[sample.OrderID] = task.String("not in the text")
		}
		text := texts[i%len(texts)]
		if len(text) < 100 {
			text += strings.Repeat(" again", i/len(texts))
		} else if i >= len(texts) {
			text = "short instead"
		}
		examples = append(examples, task.Example{ID: fmt.Sprint(i / 2), Text: text, Labels: labels})
	}
	examples[5].Labels = task.Output{sample.Category: task.String("once")}
	examples[6].Labels = task.Output{sample.Category: task.String("nowhere"), "urgent": task.String("yes"), "topics": task.Set("c")}
	examples[7].Labels = nil
	r := mustCheck(t, fields, examples, Options{Reference: examples[:3]})
	for _, kind := range []Kind{OutsideSchema, SameID, Contradiction, SpanNotInText, LookAlikeNames, RareCategory, Leak, OddText, Unlabelled} {
		if len(r.Find(kind)) == 0 {
			t.Errorf("%s is not found", kind)
		}
	}
	checkReport(t, r, examples)
}

// checkReport holds for every report: rows exist, counts add up, numbers are numbers.
func checkReport(t interface {
	Helper()
	Errorf(string, ...any)
}, r *Report, examples []task.Example) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Rows < 0 || f.Rows > 4*len(examples) || len(f.Groups) == 0 {
			t.Errorf("%s: %d rows in %d groups", f.Kind, f.Rows, len(f.Groups))
		}
		for _, g := range f.Groups {
			if math.IsNaN(g.Score) || math.IsInf(g.Score, 0) {
				t.Errorf("%s: score %v", f.Kind, g.Score)
			}
			for _, row := range g.Rows {
				if !row.Reference && (row.Index < 0 || row.Index >= len(examples) || examples[row.Index].ID != row.ID) {
					t.Errorf("%s: no such row %+v", f.Kind, row)
				}
			}
		}
	}
	for _, c := range r.Ceilings {
		if !(0 <= c.Low && c.Low <= c.Estimate && c.Estimate <= c.High && c.High <= 1) {
			t.Errorf("ceiling %+v", c)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("%v", err)
	}
}

// Any mix of texts and labels gives a report that is consistent, or no report at all.
func TestCheckAnything(t *testing.T) {
	fields := []task.Field{
		{Name: "c", Kind: task.Category, Values: []string{"a", "b", "B "}, Nullable: true}, {Name: "s", Kind: task.Span, Nullable: true, Normalize: "digits"},
	}
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SampledFrom([]string{"one", "two", "3", "47-11", "\u200f", "\x00", "?", "ß", "荷物"})
		var examples []task.Example
		for i, ws := range rapid.SliceOfN(rapid.SliceOfN(words, 1, 6), rapid.SampledFrom([]int{1, 60}).Draw(t, "rows"), 90).Draw(t, "texts") {
			labels := task.Output{}
			if c := rapid.SampledFrom([]string{"a", "b", "B ", "z", "", "-"}).Draw(t, "c"); c == "-" {
				labels["c"] = task.Null
			} else if c != "" {
				labels["c"] = task.String(c)
			}
			if s := rapid.SampledFrom([]string{"", "-", "4711", "3", "9"}).Draw(t, "s"); s == "-" {
				labels["s"] = task.Null
			} else if s != "" {
				labels["s"] = task.String(s)
			}
			examples = append(examples, task.Example{ID: fmt.Sprint(i % 80), Text: strings.Join(ws, " "), Labels: labels})
		}
		r, err := Check(context.Background(), fields, examples, Options{Workers: 1, Reference: examples[:min(2, len(examples))]})
		if err != nil {
			t.Fatal(err)
		}
		checkReport(t, r, examples)
	})
}

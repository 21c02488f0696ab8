package task

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// InferFields works out the answer's fields from labelled examples: booleans, sets, strings that stand in the text (Span)
// strings that are dates or amounts in canonical form and that the text writes in some way (Span, normalised) and strings that repeat (Category). A null of a Category means "not labelled"; a null of a Span means "there is none".
// Fields are ordered by kind (categories first), then by name.
func InferFields(examples []Example) ([]Field, error) {
	var x Inference
	for i := range examples {
		x.Add(&examples[i])
	}
	return x.Fields()
}

// An Inference is InferFields for examples that come one at a time and are not kept. The zero value is ready.
type Inference struct{ columns map[string]*column }

// Add looks at one example.
func (x *Inference) Add(e *Example) {
	if x.columns == nil {
		x.columns = map[string]*column{}
	}
	for name, v := range e.Labels {
		c := x.columns[name]
		if c == nil {
			c = &column{values: map[string]int{}}
			x.columns[name] = c
		}
		c.add(v, e.Text)
	}
}

// Fields returns what InferFields would of all examples that were added.
func (x *Inference) Fields() ([]Field, error) {
	columns := x.columns
	if len(columns) == 0 {
		return nil, errors.New(`task: no example has labels: add "labels", such as {"category":"refund_status"}`)
	}
	fields := make([]Field, 0, len(columns))
	for name, c := range columns {
		f, err := c.field(name)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	order := []Kind{Category, Labels, Boolean, Span}
	slices.SortFunc(fields, func(a, b Field) int {
		if d := slices.Index(order, a.Kind) - slices.Index(order, b.Kind); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return fields, nil
}

// column gathers what the examples say of one label.
type column struct {
	nulls, bools, sets, strings int
	inText                      int // strings that stand in their text
	dates, amounts              readable
	values                      map[string]int // at most maxDistinct of them
	overflow                    int            // strings that found no room there
}

// maxDistinct values of one label are counted; a label with more is no category.
const maxDistinct = 100_000

func (c *column) add(v Value, text string) {
	switch {
	case v.IsNull():
		c.nulls++
	case v.IsBool():
		c.bools++
	case v.IsSet():
		c.sets++
		for _, m := range v.Members() {
			c.values[m]++
		}
	default:
		c.strings++
		if _, known := c.values[v.Text()]; known || len(c.values) < maxDistinct {
			c.values[v.Text()]++
		} else {
			c.overflow++
		}
		if strings.Contains(text, v.Text()) {
			c.inText++
		}
		c.dates.add("date", v.Text(), text)
		c.amounts.add("amount", v.Text(), text)
	}
}

// readable counts the strings that are dates, or amounts, in canonical form, and those of them that the text says in some writing.
type readable struct{ canonical, inText int }

func (r *readable) add(form, value, text string) {
	if !isCanonical(form, value) {
		return
	}
	r.canonical++
	if strings.Contains(text, value) || SpanIn(form, value, text) != "" {
		r.inText++
	}
}

// of reports whether a column's strings are all of this form, and nearly all said by their texts, more than stand there as they are.
func (r readable) of(c *column) bool {
	return r.canonical > 0 && r.canonical == c.strings && r.inText > c.inText && r.inText*10 >= c.strings*8
}

func (c *column) field(name string) (Field, error) {
	kinds := 0
	for _, n := range []int{c.bools, c.sets, c.strings} {
		if n > 0 {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return Field{}, fmt.Errorf("task: label %q has values of different types: %d booleans, %d lists, %d strings; use one type", name, c.bools, c.sets, c.strings)
	case c.bools > 0:
		return Field{Name: name, Kind: Boolean}, nil
	case c.sets > 0:
		return Field{Name: name, Kind: Labels, Values: slices.Sorted(maps.Keys(c.values))}, nil
	case c.dates.of(c):
		return Field{Name: name, Kind: Span, Nullable: true, Normalize: "date"}, nil
	case c.amounts.of(c):
		return Field{Name: name, Kind: Span, Nullable: true, Normalize: "amount"}, nil
	case c.strings == 0 || c.looksLikeSpan():
		return Field{Name: name, Kind: Span, Nullable: true}, nil
	case len(c.values) > maxEnumValues || (len(c.values) > 20 && c.strings < 2*len(c.values)):
		return Field{}, fmt.Errorf("task: label %q has %d different values in %d rows, of which %d stand in their text: it is neither a category nor something to extract; correct the values (what is to be extracted must stand in its text), or say what the field is by a task file with a schema",
			name, len(c.values)+c.overflow, c.strings, c.inText)
	}
	return Field{Name: name, Kind: Category, Values: slices.Sorted(maps.Keys(c.values))}, nil
}

// looksLikeSpan: nearly all values stand in their text, and they seldom repeat.
func (c *column) looksLikeSpan() bool {
	return c.inText*10 >= c.strings*8 && (len(c.values)+c.overflow)*5 >= c.strings
}

// Labelled reports whether an example has a label of this field: a null is one only where null is a legal value.
func (f Field) Labelled(labels Output) bool {
	v, known := labels[f.Name]
	return known && (f.Nullable || !v.IsNull())
}

// CheckLabels lists the examples whose labels the fields do not allow, as problems of the named file.
func CheckLabels(fields []Field, examples []Example, file string) []Problem {
	var problems []Problem
	for _, e := range examples {
		for _, f := range fields {
			if !f.Labelled(e.Labels) {
				continue
			}
			if err := f.Check(e.Labels[f.Name]); err != nil {
				problems = append(problems, Problem{File: file, Line: e.Line, Reason: err.Error()})
			}
		}
	}
	return problems
}

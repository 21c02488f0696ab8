package lifecycle

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"occam/internal/task"
)

// Shapes of answers.
const (
	jsonShape  = "json"
	labelShape = "label"     // a bare label
	formShape  = "form"      // lines of "Key: value"
	freeText   = "free text" // anything else
)

const (
	labelBytes  = 60  // a longer answer is no bare label
	labelKinds  = 500 // more different ones are no set of labels
	nearlyAll   = 0.9 // share of the samples that must have a shape
	leastRepeat = 5   // an answer of a set of labels comes up about so often, or more
)

// A shape is what answers look like.
type shape struct {
	name   string
	format string // as task.ParseForm reads it
	fields []task.Field
}

// shape says what the answers look like, and their fields where a specialist could give them.
func (s *sighting) shape() shape {
	for _, learn := range []func() (shape, bool){s.asJSON, s.asForm, s.asLabel} {
		if found, ok := learn(); ok {
			return found
		}
	}
	return shape{name: freeText}
}

// asJSON reads answers as JSON objects: the fields of the request's schema or, without one, those that the answers show.
func (s *sighting) asJSON() (shape, bool) {
	var examples []task.Example
	var answers []string
	for _, x := range s.Samples {
		var o task.Output
		if json.Unmarshal(task.Unfenced([]byte(x.Content)), &o) == nil && len(o) > 0 {
			examples = append(examples, task.Example{Text: x.User, Labels: o})
			answers = append(answers, strings.TrimSpace(x.Content))
		}
	}
	if !nearly(len(examples), len(s.Samples)) {
		return shape{}, false
	}
	fields, err := task.ParseSchema(s.First.Schema)
	if err != nil {
		fields, err = task.InferFields(examples)
	}
	if err != nil || !extractable(fields, examples) {
		return shape{name: freeText}, true
	}
	for i := range fields {
		null := func(e task.Example) bool { v, known := e.Labels[fields[i].Name]; return known && v.IsNull() }
		fields[i].Nullable = fields[i].Nullable || slices.ContainsFunc(examples, null)
	}
	return shape{jsonShape, commonForm(fields, answers), fields}, true
}

// commonForm is how nearly all of these JSON answers are written, "" for compact JSON or where they differ.
func commonForm(fields []task.Field, answers []string) string {
	counts := map[string]int{}
	for _, a := range answers {
		if form, err := task.JSONForm(fields, []byte(a)); err == nil {
			counts[form]++
		}
	}
	for form, n := range counts {
		if nearly(n, len(answers)) {
			return form
		}
	}
	return ""
}

// extractable reports whether a specialist can give these fields: it classifies some, or every span really stands in its text.
func extractable(fields []task.Field, examples []task.Example) bool {
	for _, f := range fields {
		if f.Kind != task.Span {
			return true
		}
	}
	for _, f := range fields {
		for _, e := range examples {
			if !f.StandsIn(e.Labels[f.Name], e.Text) {
				return false
			}
		}
	}
	return true
}

// asLabel reads answers as bare labels: short, in one line, and each again and again.
func (s *sighting) asLabel() (shape, bool) {
	counts := map[string]int{}
	n := 0
	for _, x := range s.Samples {
		text := strings.TrimSpace(x.Content)
		if text == "" || len(text) > labelBytes || strings.Contains(text, "\n") {
			continue
		}
		counts[text]++
		n++
	}
	if !nearly(n, len(s.Samples)) || len(counts) > labelKinds || len(counts)*leastRepeat > max(n, 2*leastRepeat) {
		return shape{}, false
	}
	field := task.Field{Name: "label", Kind: task.Category, Values: slices.Sorted(maps.Keys(counts))}
	return shape{labelShape, "{{label}}", []task.Field{field}}, true
}

// nulls are how people write that there is nothing.
var nulls = []string{"none", "null", "n/a", "na", "-", "–", "not found", "not provided", "not specified", "not available", "unknown"}

// asForm reads answers as lines of "Key: value" with the same keys in the same order.
func (s *sighting) asForm() (shape, bool) {
	var keys []string
	var rows []formRow
	for _, x := range s.Samples {
		lines := strings.Split(strings.TrimSpace(x.Content), "\n")
		row := make([]string, len(lines))
		names := make([]string, len(lines))
		ok := true
		for i, line := range lines {
			var found bool
			names[i], row[i], found = strings.Cut(line, ":")
			ok = ok && found && names[i] != "" && len(names[i]) <= 40
		}
		if keys == nil && ok {
			keys = names
		}
		if ok && slices.Equal(names, keys) {
			rows = append(rows, formRow{x.User, row})
		}
	}
	if !nearly(len(rows), len(s.Samples)) {
		return shape{}, false
	}
	return formOf(keys, rows)
}

// A formRow is one answer of "Key: value" lines.
type formRow struct {
	input  string
	values []string
}

// formOf learns the fields of lines that all have the same keys.
func formOf(keys []string, rows []formRow) (shape, bool) {
	examples := make([]task.Example, 0, len(rows))
	absent := make([]string, len(keys)) // how null is written
	for _, row := range rows {
		o := task.Output{}
		for i, key := range keys {
			value := strings.TrimSpace(row.values[i])
			o[fieldName(key)] = task.String(value)
			if slices.Contains(nulls, strings.ToLower(value)) {
				o[fieldName(key)], absent[i] = task.Null, value
			}
		}
		examples = append(examples, task.Example{Text: row.input, Labels: o})
	}
	fields, err := task.InferFields(examples)
	if err != nil || len(fields) != len(keys) || !extractable(fields, examples) {
		return shape{name: freeText}, true
	}
	var format strings.Builder
	for i, key := range keys {
		at := slices.IndexFunc(fields, func(f task.Field) bool { return f.Name == fieldName(key) })
		if fields[at].Kind == task.Category && absent[i] != "" { // one of the values, then
			fields[at].Values, absent[i] = append(fields[at].Values, absent[i]), ""
		}
		fields[at].Nullable = absent[i] != ""
		if i > 0 {
			format.WriteByte('\n')
		}
		format.WriteString(key + ": {{" + fieldName(key))
		if absent[i] != "" {
			format.WriteString("|" + absent[i])
		}
		format.WriteString("}}")
	}
	if _, err := task.ParseForm(format.String(), fields); err != nil {
		return shape{name: freeText}, true
	}
	return shape{formShape, format.String(), fields}, true
}

// fieldName makes "Order ID" order_id.
func fieldName(key string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return '_'
	}, key), "_")
}

func nearly(n, of int) bool { return n > 0 && float64(n) >= nearlyAll*float64(of) }

// variety counts the different answers among the samples, by their classified fields, and their entropy.
func (s *sighting) variety(look shape) (answers int, bits float64) {
	form, err := task.ParseForm(look.format, look.fields)
	counts := map[string]int{}
	for _, x := range s.Samples {
		text := strings.TrimSpace(x.Content)
		if values, bad := form.Parse(look.fields, []byte(text)); err == nil && bad == nil && look.name != freeText {
			text = classified(look.fields, values)
		}
		counts[text]++
	}
	for _, c := range counts {
		p := float64(c) / float64(len(s.Samples))
		bits -= p * math.Log2(p)
	}
	return len(counts), math.Abs(bits)
}

func classified(fields []task.Field, values []task.Value) string {
	var text []byte
	for i, f := range fields {
		if f.Kind != task.Span {
			text = append(values[i].AppendJSON(text), ',')
		}
	}
	return string(text)
}

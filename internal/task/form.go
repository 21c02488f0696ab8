package task

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Form is how the answer to a task is written. The zero Form is a JSON object without spaces, in the order of the fields.
// Another one is literal text around the fields' values, such as "Category: {{category}}\nOrder: {{order_id|none}}", where
// "none" stands for null, or "{{category}}" for a bare label. Where every value is written as JSON, {{json category}}, it is a
// JSON object with its own order of members and spaces.
type Form struct {
	text  string
	parts []formPart
	tail  string // literal text after the last value
	json  bool   // every value is JSON
}

type formPart struct {
	before string // literal text
	field  string
	null   string // how null is written
	json   bool
}

// ParseForm reads a Form as String writes it; "" is the zero Form. Every field must be written exactly once, and a set of labels
// only as JSON.
func ParseForm(text string, fields []Field) (Form, error) {
	f := Form{text: text}
	rest := text
	for {
		before, after, ok := strings.Cut(rest, "{{")
		if !ok {
			break
		}
		inside, left, ok := strings.Cut(after, "}}")
		if !ok {
			return Form{}, fmt.Errorf("task: the answer's form %q has a {{ without }}", text)
		}
		p := formPart{before: before}
		p.field, p.null, _ = strings.Cut(strings.TrimSpace(inside), "|")
		if name, isJSON := strings.CutPrefix(p.field, "json "); isJSON {
			p.field, p.json = strings.TrimSpace(name), true
		}
		f.parts = append(f.parts, p)
		rest = left
	}
	f.tail = rest
	if text == "" {
		return Form{}, nil
	}
	return f, f.check(fields)
}

func (f *Form) check(fields []Field) error {
	written := 0
	for i, p := range f.parts {
		at := fieldIndex(fields, p.field)
		switch {
		case at < 0:
			return fmt.Errorf("task: the answer's form names %q, which is no field", p.field)
		case i > 0 && p.before == "":
			return fmt.Errorf("task: the answer's form has nothing between %q and %q", f.parts[i-1].field, p.field)
		case fields[at].Kind == Labels && !p.json:
			return fmt.Errorf("task: the answer's form writes the set %q as text: write {{json %s}}", p.field, p.field)
		case fields[at].Nullable && !p.json && p.null == "":
			return fmt.Errorf("task: the answer's form does not say how null is written: {{%s|none}}", p.field)
		}
		written += one(p.json)
		if slices.ContainsFunc(f.parts[:i], func(q formPart) bool { return q.field == p.field }) {
			return fmt.Errorf("task: the answer's form writes %q twice", p.field)
		}
	}
	if len(f.parts) != len(fields) {
		return fmt.Errorf("task: the answer's form writes %d of %d fields", len(f.parts), len(fields))
	}
	if f.json = written == len(fields); !f.json && written > 0 {
		return errors.New("task: the answer's form writes some values as JSON and some as text")
	}
	return nil
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func fieldIndex(fields []Field, name string) int {
	return slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
}

// String returns the form as ParseForm reads it.
func (f Form) String() string { return f.text }

// IsJSON reports whether answers are JSON objects.
func (f Form) IsJSON() bool { return len(f.parts) == 0 || f.json }

// Append appends the answer with these values, one per field.
func (f Form) Append(dst []byte, fields []Field, values []Value) []byte {
	if len(f.parts) == 0 {
		return AppendAnswer(dst, fields, values)
	}
	for _, p := range f.parts {
		dst = append(dst, p.before...)
		v := values[fieldIndex(fields, p.field)]
		switch {
		case p.json:
			dst = v.AppendJSON(dst)
		case v.IsNull():
			dst = append(dst, p.null...)
		default:
			dst = append(dst, v.Text()...)
		}
	}
	return append(dst, f.tail...)
}

// Parse reads an answer and checks it against the fields; it returns one value per field. A JSON object may be spaced as it
// likes and stand in a ``` fence; text must have the form's literal parts, around which white space does not count.
func (f Form) Parse(fields []Field, answer []byte) ([]Value, error) {
	if f.IsJSON() {
		return ParseAnswer(fields, Unfenced(answer))
	}
	values := make([]Value, len(fields))
	rest := strings.TrimSpace(string(answer))
	for i, p := range f.parts {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, strings.TrimLeft(p.before, " \n")); !ok {
			return nil, fmt.Errorf("task: the answer lacks %q", p.before)
		}
		text := rest
		if end := f.after(i); strings.TrimSpace(end) != "" {
			if text, _, ok = strings.Cut(rest, strings.TrimSpace(end)); !ok {
				return nil, fmt.Errorf("task: the answer lacks %q", end)
			}
		} else if end != "" {
			text, _, _ = strings.Cut(rest, end)
		}
		rest = strings.TrimLeft(rest[len(text):], " \n")
		at := fieldIndex(fields, p.field)
		values[at] = p.value(fields[at], strings.TrimSpace(text))
		if err := fields[at].Check(values[at]); err != nil {
			return nil, err
		}
	}
	if rest != strings.TrimSpace(f.tail) {
		return nil, fmt.Errorf("task: the answer goes on after its end: %.40q", rest)
	}
	return values, nil
}

// after is the literal text behind the i-th value.
func (f *Form) after(i int) string {
	if i+1 < len(f.parts) {
		return f.parts[i+1].before
	}
	return f.tail
}

func (p *formPart) value(f Field, text string) Value {
	switch {
	case f.Nullable && text == p.null:
		return Null
	case f.Kind == Boolean && (text == "true" || text == "false"):
		return Bool(text == "true")
	}
	return String(text)
}

// Unfenced returns the content of a Markdown code fence, or the answer itself where it has none.
func Unfenced(answer []byte) []byte {
	answer = bytes.TrimSpace(answer)
	inside, ok := bytes.CutPrefix(answer, []byte("```"))
	if !ok {
		return answer
	}
	if inside, ok = bytes.CutSuffix(inside, []byte("```")); !ok {
		return answer
	}
	if _, body, ok := bytes.Cut(inside, []byte("\n")); ok {
		return bytes.TrimSpace(body)
	}
	return answer
}

// JSONForm is the form of a JSON answer: its fence, its order of members and its spaces. "" is the zero Form.
func JSONForm(fields []Field, answer []byte) (string, error) {
	object := Unfenced(answer)
	at := bytes.Index(answer, object)
	members, err := orderedObject(object)
	if err != nil {
		return "", err
	}
	var form strings.Builder
	form.Write(answer[:at])
	for _, m := range members {
		key := appendString(nil, m.key)
		i := bytes.Index(object, append(key, ':'))
		if i < 0 {
			i = bytes.Index(object, append(key, ' '))
		}
		if i < 0 || fieldIndex(fields, m.key) < 0 {
			return "", fmt.Errorf("task: the answer's member %q is no field, or is written in an odd way", m.key)
		}
		end := i + len(key) // the key may read like the value
		end += bytes.Index(object[end:], m.value)
		form.Write(object[:end])
		form.WriteString("{{json " + m.key + "}}")
		object = object[end+len(m.value):]
	}
	form.Write(object)
	form.Write(answer[at+len(Unfenced(answer)):])
	text := form.String()
	f, err := ParseForm(text, fields)
	if err != nil {
		return "", err
	}
	if slices.EqualFunc(members, fields, func(m member, g Field) bool { return m.key == g.Name }) &&
		bytes.Equal(f.Append(nil, fields, make([]Value, len(fields))), AppendAnswer(nil, fields, make([]Value, len(fields)))) {
		return "", nil
	}
	return text, nil
}

package task

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// AppendAnswer appends the JSON object that answers a task: one member a field, in the fields' order, without spaces.
// values has one element per field.
func AppendAnswer(dst []byte, fields []Field, values []Value) []byte {
	dst = append(dst, '{')
	for i := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, fields[i].Name)
		dst = append(dst, ':')
		dst = values[i].AppendJSON(dst)
	}
	return append(dst, '}')
}

// ParseAnswer reads a model's answer and checks it against the fields: an object with exactly these members, each of its
// kind, categories from the list. It returns one value per field.
func ParseAnswer(fields []Field, answer []byte) ([]Value, error) {
	members, err := orderedObject(answer)
	if err != nil {
		return nil, fmt.Errorf("task: the answer is no JSON object: %w", err)
	}
	values := make([]Value, len(fields))
	seen := make([]bool, len(fields))
	for _, m := range members {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == m.key })
		if i < 0 {
			return nil, fmt.Errorf("task: the answer has a member %q that the schema lacks", m.key)
		}
		if err := json.Unmarshal(m.value, &values[i]); err != nil {
			return nil, fmt.Errorf("task: answer member %q: %w", m.key, err)
		}
		if err := fields[i].Check(values[i]); err != nil {
			return nil, err
		}
		seen[i] = true
	}
	if i := slices.Index(seen, false); i >= 0 {
		return nil, fmt.Errorf("task: the answer lacks %q", fields[i].Name)
	}
	return values, nil
}

// Check reports why v is no legal answer for the field, or nil.
func (f Field) Check(v Value) error {
	legal := false
	switch {
	case v.IsNull():
		legal = f.Nullable
	case f.Kind == Category:
		legal = v.IsString() && slices.Contains(f.Values, v.Text())
	case f.Kind == Boolean:
		legal = v.IsBool()
	case f.Kind == Span:
		legal = v.IsString() && v.Text() != "" && isCanonical(f.Normalize, v.Text())
	case f.Kind == Labels:
		legal = v.IsSet() && !slices.ContainsFunc(v.Members(), func(m string) bool { return !slices.Contains(f.Values, m) })
	}
	if !legal {
		return fmt.Errorf("task: %s is no legal value of the %s field %q", v.AppendJSON(nil), f.Kind, f.Name)
	}
	return nil
}

// StandsIn reports whether a span value occurs in the input, as it is or normalised. Null always does.
func (f Field) StandsIn(v Value, input string) bool {
	if f.Kind != Span || v.IsNull() || strings.Contains(input, v.Text()) {
		return true
	}
	if f.Normalize == "date" || f.Normalize == "amount" {
		return SpanIn(f.Normalize, v.Text(), input) != ""
	}
	return f.Normalize != "" && strings.Contains(NormalizeSpan(f.Normalize, input, nil), v.Text())
}

package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// A Value is the content of one field of an answer: null, a string, a boolean or a set of strings.
// The zero Value is null. Values are immutable.
type Value struct {
	kind valueKind
	str  string // the string, or "true"/"false"
	set  []string
}

type valueKind uint8

const (
	nullValue valueKind = iota
	stringValue
	boolValue
	setValue
)

// Null is the absent value.
var Null = Value{}

// String returns a string value. The string is kept, not copied.
func String(s string) Value { return Value{kind: stringValue, str: s} }

// Bool returns a boolean value.
func Bool(b bool) Value { return Value{kind: boolValue, str: strconv.FormatBool(b)} }

// Set returns a set of strings, sorted, without repeats.
func Set(members ...string) Value {
	sorted := slices.Clone(members)
	slices.Sort(sorted)
	return Value{kind: setValue, set: slices.Compact(sorted)}
}

// IsNull reports whether v is the absent value.
func (v Value) IsNull() bool { return v.kind == nullValue }

// Text returns the string of a string value, "true" or "false" of a boolean, and "" of anything else.
func (v Value) Text() string { return v.str }

// Members returns the members of a set, sorted; nil for anything else. The caller must not change them.
func (v Value) Members() []string { return v.set }

// IsString, IsBool and IsSet report the kind of a value that is not null.
func (v Value) IsString() bool { return v.kind == stringValue }
func (v Value) IsBool() bool   { return v.kind == boolValue }
func (v Value) IsSet() bool    { return v.kind == setValue }

// Equal reports whether two values are the same kind with the same content.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.str == w.str && slices.Equal(v.set, w.set)
}

// AppendJSON appends v as JSON to dst and returns the longer slice.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case stringValue:
		return appendString(dst, v.str)
	case boolValue:
		return append(dst, v.str...)
	case setValue:
		dst = append(dst, '[')
		for i, member := range v.set {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, member)
		}
		return append(dst, ']')
	default:
		return append(dst, "null"...)
	}
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// UnmarshalJSON implements json.Unmarshaler. Numbers are kept as the string of their digits, because an ID written as a
// number is still an ID.
func (v *Value) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0:
		return fmt.Errorf("task: empty value")
	case bytes.Equal(data, []byte("null")):
		*v = Null
	case bytes.Equal(data, []byte("true")), bytes.Equal(data, []byte("false")):
		*v = Value{kind: boolValue, str: string(data)}
	case data[0] == '"':
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*v = String(s)
	case data[0] == '[':
		var members []string
		if err := json.Unmarshal(data, &members); err != nil {
			return fmt.Errorf("task: a list must hold strings only: %w", err)
		}
		*v = Set(members...)
	case data[0] == '{':
		return fmt.Errorf("task: an object is no field value")
	default:
		var n json.Number
		if err := json.Unmarshal(data, &n); err != nil {
			return err
		}
		*v = String(n.String())
	}
	return nil
}

// appendString appends s as a JSON string; invalid UTF-8 becomes U+FFFD, as encoding/json does.
func appendString(dst []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return append(dst, bytes.TrimRight(buf.Bytes(), "\n")...)
}

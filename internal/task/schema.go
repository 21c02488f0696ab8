package task

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxFields      = 64
	maxEnumValues  = 10_000
	maxValues      = 2 * maxEnumValues // of all fields together
	maxSchemaDepth = 8                 // of $ref and allOf
	maxAlternative = 8                 // of anyOf and oneOf
)

// ParseSchema reads the fields of an answer from a JSON Schema of type object: string enums become Category fields,
// arrays of string enums Labels, booleans Boolean and other strings Span, of "format": "date" in its canonical form. "null" in a type, enum or anyOf makes a field
// nullable; $ref into $defs or definitions is followed. Anything else is an error that names the property.
func ParseSchema(schema []byte) ([]Field, error) {
	var root schemaNode
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil, fmt.Errorf("task: the schema is not JSON: %w", err)
	}
	if len(root.Properties) == 0 {
		return nil, errors.New("task: the schema has no properties: it must describe an object with one property a field")
	}
	properties, err := orderedObject(root.Properties)
	if err != nil {
		return nil, fmt.Errorf("task: schema properties: %w", err)
	}
	if len(properties) > maxFields {
		return nil, fmt.Errorf("task: the schema has %d properties, at most %d are supported", len(properties), maxFields)
	}
	fields, values := make([]Field, 0, len(properties)), 0
	for _, p := range properties {
		field, err := root.field(p.key, p.value)
		if err != nil {
			return nil, fmt.Errorf("task: schema property %q: %w", p.key, err)
		}
		if values += len(field.Values); values > maxValues {
			return nil, fmt.Errorf("task: the schema's enums have more than %d values together", maxValues)
		}
		fields = append(fields, field)
	}
	return fields, nil
}

type schemaNode struct {
	Type        json.RawMessage            `json:"type"`
	Enum        []json.RawMessage          `json:"enum"`
	Const       json.RawMessage            `json:"const"`
	Items       json.RawMessage            `json:"items"`
	AnyOf       []json.RawMessage          `json:"anyOf"`
	OneOf       []json.RawMessage          `json:"oneOf"`
	AllOf       []json.RawMessage          `json:"allOf"`
	Ref         string                     `json:"$ref"`
	Nullable    bool                       `json:"nullable"`
	Properties  json.RawMessage            `json:"properties"`
	Defs        map[string]json.RawMessage `json:"$defs"`
	Definitions map[string]json.RawMessage `json:"definitions"`
	Format      string                     `json:"format"`
	Normalize   string                     `json:"x-occam-normalize"`
}

func (root *schemaNode) field(name string, raw json.RawMessage) (Field, error) {
	node, err := root.resolve(raw, 0)
	if err != nil {
		return Field{}, err
	}
	if !slices.Contains(forms, node.Normalize) {
		return Field{}, fmt.Errorf("x-occam-normalize %q is not known: use one of %s", node.Normalize, strings.Join(forms[1:], ", "))
	}
	field := Field{Name: name, Nullable: node.Nullable, Normalize: node.Normalize}
	if node.Const != nil {
		node.Enum = []json.RawMessage{node.Const}
	}
	if field.Values, err = enumStrings(node.Enum, &field.Nullable); err != nil {
		return Field{}, err
	}
	types, err := typeNames(node.Type)
	if err != nil {
		return Field{}, err
	}
	if i := slices.Index(types, "null"); i >= 0 {
		field.Nullable = true
		types = slices.Delete(types, i, i+1)
	}
	switch {
	case len(field.Values) > 0 && (len(types) == 0 || slices.Equal(types, []string{"string"})):
		field.Kind = Category
	case slices.Equal(types, []string{"string"}):
		field.Kind = Span
		if node.Format == "date" {
			field.Normalize = cmp.Or(field.Normalize, "date")
		}
	case slices.Equal(types, []string{"boolean"}):
		field.Kind = Boolean
	case slices.Equal(types, []string{"array"}):
		return root.labelsField(field, node.Items)
	default:
		return Field{}, fmt.Errorf("type %s is not supported: use a string, a string enum, a boolean or an array of a string enum",
			strings.Join(types, "|"))
	}
	return field, nil
}

func (root *schemaNode) labelsField(field Field, items json.RawMessage) (Field, error) {
	if items == nil {
		return Field{}, errors.New("an array must name its items")
	}
	node, err := root.resolve(items, 0)
	if err != nil {
		return Field{}, err
	}
	var itemNull bool
	values, err := enumStrings(node.Enum, &itemNull)
	if err != nil {
		return Field{}, err
	}
	if len(values) == 0 || itemNull {
		return Field{}, errors.New("the items of an array must be a string enum")
	}
	field.Kind, field.Values = Labels, values
	return field, nil
}

// resolve follows $ref, a single allOf, and an anyOf or oneOf of one schema and null.
func (root *schemaNode) resolve(raw json.RawMessage, depth int) (schemaNode, error) {
	if depth > maxSchemaDepth {
		return schemaNode{}, errors.New("$ref goes round in a circle or too deep")
	}
	var node schemaNode
	if err := json.Unmarshal(raw, &node); err != nil {
		return schemaNode{}, fmt.Errorf("not a schema: %w", err)
	}
	switch alternatives := append(slices.Clone(node.AnyOf), node.OneOf...); {
	case node.Ref != "":
		target, ok := root.definition(node.Ref)
		if !ok {
			return schemaNode{}, fmt.Errorf("$ref %q points at nothing in $defs", node.Ref)
		}
		return root.resolve(target, depth+1)
	case len(node.AllOf) == 1:
		return root.resolve(node.AllOf[0], depth+1)
	case len(alternatives) > 0:
		return root.resolveAlternatives(alternatives, depth)
	}
	return node, nil
}

func (root *schemaNode) resolveAlternatives(alternatives []json.RawMessage, depth int) (schemaNode, error) {
	if len(alternatives) > maxAlternative {
		return schemaNode{}, fmt.Errorf("anyOf has %d alternatives: one schema and null are supported", len(alternatives))
	}
	var chosen *schemaNode
	nullable := false
	for _, raw := range alternatives {
		node, err := root.resolve(raw, depth+1)
		if err != nil {
			return schemaNode{}, err
		}
		if types, _ := typeNames(node.Type); slices.Equal(types, []string{"null"}) {
			nullable = true
			continue
		}
		if chosen != nil {
			return schemaNode{}, errors.New("anyOf is supported for one schema and null only")
		}
		chosen = &node
	}
	if chosen == nil {
		return schemaNode{}, errors.New("anyOf holds nothing but null")
	}
	chosen.Nullable = chosen.Nullable || nullable
	return *chosen, nil
}

func (root *schemaNode) definition(ref string) (json.RawMessage, bool) {
	if name, ok := strings.CutPrefix(ref, "#/$defs/"); ok {
		raw, found := root.Defs[name]
		return raw, found
	}
	if name, ok := strings.CutPrefix(ref, "#/definitions/"); ok {
		raw, found := root.Definitions[name]
		return raw, found
	}
	return nil, false
}

func typeNames(raw json.RawMessage) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil {
		return nil, fmt.Errorf("type must be a string or a list of strings: %w", err)
	}
	return many, nil
}

func enumStrings(enum []json.RawMessage, nullable *bool) ([]string, error) {
	if len(enum) > maxEnumValues {
		return nil, fmt.Errorf("the enum has %d values, at most %d are supported", len(enum), maxEnumValues)
	}
	var values []string
	seen := make(map[string]bool, len(enum))
	for _, raw := range enum {
		if string(raw) == "null" {
			*nullable = true
			continue
		}
		var value string
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, fmt.Errorf("enum value %s is no string", raw)
		}
		if seen[value] {
			return nil, fmt.Errorf("enum value %q stands twice", value)
		}
		seen[value] = true
		values = append(values, value)
	}
	return values, nil
}

type member struct {
	key   string
	value json.RawMessage
}

// orderedObject decodes a JSON object and keeps the order of its keys, which encoding/json's maps lose.
func orderedObject(raw json.RawMessage) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var members []member
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := token.(string) // inside an object the decoder yields string keys
		if seen[key] {
			return nil, fmt.Errorf("key %q stands twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		members = append(members, member{key, value})
	}
	if token, err := dec.Token(); err != nil || token != json.Delim('}') {
		return nil, errors.New("it ends before its }")
	}
	return members, nil
}

// Schema writes fields as a strict JSON Schema, the way OpenAI's structured outputs take it: every property required, no
// others allowed.
func Schema(fields []Field) []byte {
	var b bytes.Buffer
	b.WriteString(`{"type":"object","properties":{`)
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(appendString(nil, f.Name))
		b.WriteByte(':')
		b.Write(f.schema())
	}
	b.WriteString(`},"required":[`)
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(appendString(nil, f.Name))
	}
	b.WriteString(`],"additionalProperties":false}`)
	return b.Bytes()
}

func (f Field) schema() []byte {
	base := map[Kind]string{Category: "string", Span: "string", Boolean: "boolean", Labels: "array"}[f.Kind]
	var b bytes.Buffer
	if f.Nullable {
		fmt.Fprintf(&b, `{"type":[%q,"null"]`, base)
	} else {
		fmt.Fprintf(&b, `{"type":%q`, base)
	}
	switch f.Kind {
	case Category:
		b.WriteString(`,"enum":[`)
		writeValues(&b, f.Values)
		if f.Nullable {
			b.WriteString(`,null`)
		}
		b.WriteByte(']')
	case Labels:
		b.WriteString(`,"items":{"type":"string","enum":[`)
		writeValues(&b, f.Values)
		b.WriteString(`]}`)
	}
	switch f.Normalize {
	case "":
	case "date":
		b.WriteString(`,"format":"date"`)
	default:
		fmt.Fprintf(&b, `,"x-occam-normalize":%q`, f.Normalize)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func writeValues(b *bytes.Buffer, values []string) {
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(appendString(nil, v))
	}
}

// SameFields reports whether two schemas ask for the same answer: the same names with the same kinds, values and
// nullability, in any order.
func SameFields(a, b []Field) bool {
	if len(a) != len(b) {
		return false
	}
	for _, f := range a {
		i := slices.IndexFunc(b, func(g Field) bool { return g.Name == f.Name })
		if i < 0 || b[i].Kind != f.Kind || b[i].Nullable != f.Nullable || !SameMembers(f.Values, b[i].Values) {
			return false
		}
	}
	return true
}

// SameMembers reports whether two lists hold the same texts, in whatever order.
func SameMembers(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

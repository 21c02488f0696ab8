package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"occam/internal/task"
)

// validEnd reports whether text ends with a whole character.
func validEnd(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return r != utf8.RuneError || size > 1
}

// An author writes the answer to one request.
type author struct {
	options *Options
	r       *rand.Rand
	input   string
	truth   task.Output // what the oracle says, with the mistakes that this provider makes; nil if it says nothing
	defs    map[string]json.RawMessage
	depth   int
	skill   Skill
	unsure  bool // a mistake that its log-probabilities give away
}

const schemaDepthMax = 32

// newAuthor asks the oracle once and decides about a mistake: the same input gets the same one whatever else is asked.
func newAuthor(o *Options, seed uint64, model, input string) *author {
	a := &author{options: o, skill: o.skill(model), r: rand.New(rand.NewPCG(seed, 7)), input: input}
	if o.Oracle == nil {
		return a
	}
	known := o.Oracle(input)
	if known == nil {
		return a
	}
	a.truth = task.Output{}
	for name, value := range known {
		a.truth[name] = value
	}
	return a
}

// json writes an answer in the shape of a JSON Schema.
func (a *author) json(schema json.RawMessage) string {
	var root struct {
		Defs        map[string]json.RawMessage `json:"$defs"`
		Definitions map[string]json.RawMessage `json:"definitions"`
	}
	_ = json.Unmarshal(schema, &root)
	a.defs = map[string]json.RawMessage{}
	for name, def := range root.Defs {
		a.defs["#/$defs/"+name] = def
	}
	for name, def := range root.Definitions {
		a.defs["#/definitions/"+name] = def
	}
	a.mistake(schema)
	var b strings.Builder
	a.value(&b, "", schema)
	return b.String()
}

// A node is the part of JSON Schema that an answer needs.
type node struct {
	Type       json.RawMessage   `json:"type"`
	Enum       []json.RawMessage `json:"enum"`
	Const      json.RawMessage   `json:"const"`
	Properties json.RawMessage   `json:"properties"`
	Items      json.RawMessage   `json:"items"`
	AnyOf      []json.RawMessage `json:"anyOf"`
	OneOf      []json.RawMessage `json:"oneOf"`
	AllOf      []json.RawMessage `json:"allOf"`
	Ref        string            `json:"$ref"`
}

func (n *node) is(name string) bool {
	return bytes.Contains(n.Type, []byte(`"`+name+`"`))
}

// value writes one value of a schema. The oracle's word counts for properties of the outermost object, whose names it
// knows; the rest is made up.
func (a *author) value(b *strings.Builder, name string, schema json.RawMessage) {
	a.depth++
	defer func() { a.depth-- }()
	var n node
	if a.depth > schemaDepthMax || json.Unmarshal(schema, &n) != nil {
		b.WriteString("null")
		return
	}
	if value, known := a.truth[name]; known && name != "" && a.depth == 2 {
		b.Write(value.AppendJSON(nil))
		return
	}
	switch {
	case n.Ref != "":
		a.value(b, name, a.defs[n.Ref])
	case len(n.Const) > 0:
		b.Write(n.Const)
	case len(n.Enum) > 0:
		b.Write(n.Enum[a.r.IntN(len(n.Enum))])
	case len(n.AnyOf)+len(n.OneOf)+len(n.AllOf) > 0:
		a.value(b, name, slices.Concat(n.AnyOf, n.OneOf, n.AllOf)[0])
	case len(n.Properties) > 0:
		a.object(b, n.Properties)
	case n.is("array"):
		b.WriteByte('[')
		if len(n.Items) > 0 {
			a.value(b, "", n.Items)
		}
		b.WriteByte(']')
	case n.is("boolean"):
		fmt.Fprint(b, a.r.IntN(2) == 0)
	case n.is("integer"), n.is("number"):
		fmt.Fprint(b, 1+a.r.IntN(99))
	case n.is("string"):
		text, _ := json.Marshal(a.prose(1))
		b.Write(text)
	case n.is("null"):
		b.WriteString("null")
	default:
		b.WriteString("{}")
	}
}

func (a *author) object(b *strings.Builder, properties json.RawMessage) {
	b.WriteByte('{')
	for i, p := range orderedProperties(properties) {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(p.name)
		b.Write(name)
		b.WriteByte(':')
		a.value(b, p.name, p.schema)
	}
	b.WriteByte('}')
}

type property struct {
	name   string
	schema json.RawMessage
}

// orderedProperties keeps the order in which the schema names its properties, as structured output does.
func orderedProperties(raw json.RawMessage) []property {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	var list []property
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return list
		}
		var schema json.RawMessage
		if dec.Decode(&schema) != nil {
			return list
		}
		list = append(list, property{name: fmt.Sprint(name), schema: schema})
	}
	return list
}

// mistake gives one of the oracle's fields wrong, at the configured rate: a category that is easily confused, an ID
// without its leading zeros, another number of the text, or none.
func (a *author) mistake(schema json.RawMessage) {
	if a.truth == nil {
		return
	}
	dice := rand.New(rand.NewPCG(hash(a.options.Seed, []byte(a.input)), 11))
	if dice.Float64() >= a.skill.MistakeRate {
		return
	}
	a.unsure = rand.New(rand.NewPCG(hash(a.options.Seed, []byte(a.input)), 13)).Float64() < a.skill.Unsure
	var n node
	if json.Unmarshal(schema, &n) != nil {
		return
	}
	var wrong []property
	for _, p := range orderedProperties(n.Properties) {
		if _, known := a.truth[p.name]; known {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) == 0 {
		return
	}
	p := wrong[0] // the first field is the one to decide, mostly; the others are copied
	if len(wrong) > 1 && dice.Float64() < 0.25 {
		p = wrong[1+dice.IntN(len(wrong)-1)]
	}
	a.truth[p.name] = a.wrong(dice, a.truth[p.name], a.enumOf(p.schema))
}

// enumOf returns the strings that a schema allows, or nil.
func (a *author) enumOf(schema json.RawMessage) []string {
	var n node
	if json.Unmarshal(schema, &n) != nil {
		return nil
	}
	if n.Ref != "" {
		_ = json.Unmarshal(a.defs[n.Ref], &n)
	}
	for _, option := range append(n.AnyOf, n.OneOf...) {
		var inner node
		if json.Unmarshal(option, &inner) == nil && len(n.Enum) == 0 {
			n.Enum = inner.Enum
		}
	}
	var values []string
	for _, raw := range n.Enum {
		var text string
		if json.Unmarshal(raw, &text) == nil && text != "" {
			values = append(values, text)
		}
	}
	return values
}

var idLike = regexp.MustCompile(`[A-Za-z0-9][A-Za-z0-9_-]*[0-9][A-Za-z0-9_-]{2,}`)

// wrong returns a plausible wrong value for right.
func (a *author) wrong(dice *rand.Rand, right task.Value, enum []string) task.Value {
	if len(enum) > 0 {
		if near := a.confusable(right.Text(), enum); len(near) > 0 {
			return task.String(near[dice.IntN(len(near))])
		}
	}
	if right.IsBool() {
		return task.Bool(right.Text() != "true")
	}
	if short := strings.TrimLeft(right.Text(), "0"); short != right.Text() && dice.IntN(2) == 0 {
		return task.String(short)
	}
	others := slices.DeleteFunc(idLike.FindAllString(a.input, 20), func(s string) bool { return s == right.Text() })
	switch {
	case len(others) > 0:
		return task.String(others[dice.IntN(len(others))])
	case right.IsNull():
		return task.String("unknown")
	default:
		return task.Null
	}
}

// confusable returns the values of enum that right may be taken for.
func (a *author) confusable(right string, enum []string) []string {
	if a.options.Confusable != nil {
		near := a.options.Confusable(right)
		near = slices.DeleteFunc(slices.Clone(near), func(s string) bool { return !slices.Contains(enum, s) })
		if len(near) > 0 {
			return near
		}
	}
	return slices.DeleteFunc(slices.Clone(enum), func(s string) bool { return s == right })
}

var sentences = []string{
	"This is a simulated answer.",
	"No model wrote it, and it does not depend on what was asked.",
	"It exists so that a program can be tested without a key.",
	"Its length is drawn from a seed, as are its words.",
	"Tokens are counted as a real provider counts them.",
	"Nothing here should be taken for advice.",
	"The same request gets the same answer again.",
	"A second sentence makes the stream a little longer.",
	"Some answers hold numbers such as 42, some do not.",
	"Others hold characters beyond ASCII: é, ü, 漢字, 🙂.",
}

// prose writes n sentences of free text.
func (a *author) prose(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(sentences[a.r.IntN(len(sentences))])
	}
	return b.String()
}

// text writes a free answer: as Options.Write says what the oracle knows or, where it knows nothing, one to six sentences, the first
// of which says that it is simulated.
func (a *author) text() string {
	if a.options.Write != nil && a.truth != nil {
		return a.options.Write(a.truth)
	}
	more := a.r.IntN(6)
	if more == 0 {
		return sentences[0]
	}
	return sentences[0] + " " + a.prose(more)
}

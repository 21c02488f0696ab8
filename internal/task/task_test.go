package task

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var ticketFields = []Field{
	{Name: "category", Kind: Category, Values: []string{"refund", "late \"parcel\"", "größe"}},
	{Name: "tags", Kind: Labels, Values: []string{"vip", "angry"}},
	{Name: "urgent", Kind: Boolean},
	{Name: "order_id", Kind: Span, Nullable: true, Normalize: "upper"},
}

func TestSchemaRoundTrip(t *testing.T) {
	fields, err := ParseSchema(Schema(ticketFields))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(fields) != fmt.Sprint(ticketFields) {
		t.Errorf("got  %+v\nwant %+v", fields, ticketFields)
	}
}

// The shapes that the OpenAI SDKs' zod and pydantic helpers write.
func TestParseSchemaOfSDKs(t *testing.T) {
	pydantic := `{"$defs":{"Category":{"enum":["a","b"],"title":"Category","type":"string"}},"properties":{
		"category":{"$ref":"#/$defs/Category"},"order_id":{"anyOf":[{"type":"string"},{"type":"null"}],"title":"Order Id"}},
		"required":["category","order_id"],"title":"Ticket","type":"object","additionalProperties":false}`
	zod := `{"type":"object","properties":{"category":{"type":"string","enum":["b","a"]},"order_id":{"type":["string","null"]}},
		"required":["category","order_id"],"additionalProperties":false,"$schema":"http://json-schema.org/draft-07/schema#"}`
	a, err := ParseSchema([]byte(pydantic))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseSchema([]byte(zod))
	if err != nil {
		t.Fatal(err)
	}
	if !SameFields(a, b) {
		t.Errorf("%+v and %+v should ask for the same answer", a, b)
	}
}

func TestParseSchemaRefusals(t *testing.T) {
	for schema, want := range map[string]string{
		`nonsense`:                                     "not JSON",
		`{"type":"string"}`:                            "no properties",
		`{"properties":{"n":{"type":"number"}}}`:       `"n": type number`,
		`{"properties":{"o":{"type":"object"}}}`:       `"o": type object`,
		`{"properties":{"a":{"type":"array"}}}`:        "must name its items",
		`{"properties":{"a":{"enum":["x","x"]}}}`:      "twice",
		`{"properties":{"a":{"enum":[1]}}}`:            "no string",
		`{"properties":{"a":{"$ref":"#/$defs/none"}}}`: "points at nothing",
		`{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"$ref":"#/$defs/x"}}}`: "circle",
		`{"properties":{"a":{"anyOf":[{"type":"string"},{"type":"boolean"}]}}}`:        "one schema and null",
		`{"properties":{"a":{"type":"string"},"a":{"type":"string"}}}`:                 "twice",
		`{"properties":{"a":{"anyOf":[{"type":"null"}]}}}`:                             "nothing but null",
		`{"properties":{"a":{"type":"array","items":{"type":"string"}}}}`:              "string enum",
		`{"properties":{"a":{"type":"array","items":{"enum":["x",null]}}}}`:            "string enum",
		`{"properties":[]}`:               "not an object",
		`{"properties":{"a":{"type":7}}}`: "type must be",
		`{"properties":{"a":{"anyOf":[{"$ref":"#/$defs/x"}]}},"$defs":{"x":{"anyOf":[{"$ref":"#/$defs/x"}]}}}`: "circle",
	} {
		if _, err := ParseSchema([]byte(schema)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSchema(%s): %v, want %q", schema, err, want)
		}
	}
}

// A small schema must not cost much to read: whoever may send requests sends schemas.
func TestSchemasThatAreWorkToRead(t *testing.T) {
	var values []string
	for i := range maxEnumValues {
		values = append(values, fmt.Sprintf(`"v%d"`, i))
	}
	large := `{"$defs":{"x":{"enum":[` + strings.Join(values, ",") + `]}},"properties":{"p":{"$ref":"#/$defs/x"}%s}}`
	if fields, err := ParseSchema(fmt.Appendf(nil, large, "")); err != nil || len(fields[0].Values) != maxEnumValues {
		t.Errorf("one large enum: %v", err)
	}
	var more string
	for i := range maxFields - 1 {
		more += fmt.Sprintf(`,"p%d":{"$ref":"#/$defs/x"}`, i)
	}
	for schema, want := range map[string]string{
		fmt.Sprintf(large, more): "values together",
		`{"$defs":{"x":{"type":"null"}},"properties":{"p":{"anyOf":[` + strings.Repeat(`{"$ref":"#/$defs/x"},`, 1000) + `{"type":"string"}]}}}`: "1001 alternatives",
	} {
		if _, err := ParseSchema([]byte(schema)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	r := NewRecognizer([]*Task{ticketTask("a")})
	huge := fmt.Appendf(nil, `{"title":"%s",`, strings.Repeat("x", maxSchemaRemembered))
	huge = append(huge, Schema(ticketFields)[1:]...)
	if m, ok := r.Recognize(Query{Model: "gpt-4o", Messages: []Message{{Role: "user", Text: "hi"}}, Schema: huge}); !ok || m.By != "schema" || r.seen.Load() != 0 {
		t.Errorf("a huge schema: %+v, %v; %d remembered", m, ok, r.seen.Load())
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := []Value{
			String(rapid.SampledFrom(ticketFields[0].Values).Draw(t, "category")),
			Set(rapid.SliceOf(rapid.SampledFrom(ticketFields[1].Values)).Draw(t, "tags")...),
			Bool(rapid.Bool().Draw(t, "urgent")),
			String(rapid.StringMatching(`[^\x{FFFD}]+`).Draw(t, "order")),
		}
		if rapid.Bool().Draw(t, "null") {
			values[3] = Null
		}
		answer := AppendAnswer(nil, ticketFields, values)
		if !json.Valid(answer) {
			t.Fatalf("not JSON: %s", answer)
		}
		got, err := ParseAnswer(ticketFields, answer)
		if err != nil {
			t.Fatal(err)
		}
		for i := range values {
			if !got[i].Equal(values[i]) {
				t.Fatalf("field %d: %v, want %v (%s)", i, got[i], values[i], answer)
			}
		}
	})
}

func TestParseAnswerRefusals(t *testing.T) {
	good := `{"category":"refund","tags":["vip"],"urgent":true,"order_id":null}`
	if _, err := ParseAnswer(ticketFields, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		`refund`:                             "no JSON object",
		good[:len(good)-1]:                   "ends before",
		good[:len(good)-1] + "]":             "ends before",
		good[:len(good)-len(`null}`)] + `12`: "ends before", // of "order_id":12345}
		`{"category":"refund","tags":[],"urgent":true}`:                          `lacks "order_id"`,
		strings.Replace(good, `refund`, `other`, 1):                              "no legal value",
		strings.Replace(good, `true`, `"yes"`, 1):                                "no legal value",
		strings.Replace(good, `null`, `""`, 1):                                   "no legal value",
		strings.Replace(good, `"vip"`, `"bored"`, 1):                             "no legal value",
		strings.Replace(good, `{`, `{"x":1,`, 1):                                 "schema lacks",
		strings.Replace(good, `"category":"refund"`, `"category":null`, 1):       "no legal value",
		strings.Replace(good, `"category":"refund"`, `"category":{"a":1}`, 1):    "an object is no field value",
		strings.Replace(good, `"urgent":true`, `"urgent":true,"urgent":true`, 1): "twice",
	} {
		if _, err := ParseAnswer(ticketFields, []byte(answer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseAnswer(%s): %v, want %q", answer, err, want)
		}
	}
}

func TestStandsIn(t *testing.T) {
	f := ticketFields[3]
	for value, want := range map[string]bool{"AB-12": true, "ab-12": true, "AB-13": false} {
		if got := f.StandsIn(String(value), "order ab-12 please"); got != want {
			t.Errorf("StandsIn(%q) = %v", value, got)
		}
	}
	if !f.StandsIn(Null, "") {
		t.Error("null always stands")
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"category":"refund","tags":["vip"],"urgent":true,"order_id":null}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		values, err := ParseAnswer(ticketFields, answer)
		if err == nil && !json.Valid(AppendAnswer(nil, ticketFields, values)) {
			t.Errorf("%q parsed but does not write back", answer)
		}
	})
}

func FuzzParseSchema(f *testing.F) {
	f.Add(Schema(ticketFields))
	f.Fuzz(func(t *testing.T, schema []byte) {
		fields, err := ParseSchema(schema)
		if err != nil {
			return
		}
		again, err := ParseSchema(Schema(fields))
		if err != nil || !SameFields(fields, again) {
			t.Errorf("%q does not survive writing back: %v", schema, err)
		}
	})
}

func ticketTask(name string) *Task {
	return &Task{Name: name, Fields: ticketFields, Generalist: "gpt-4o"}
}

func TestRecognize(t *testing.T) {
	schema := Schema(ticketFields)
	user := func(text string) []Message { return []Message{{Role: "user", Text: text}} }
	withTemplate := ticketTask("templated")
	withTemplate.Input, _ = ParseTemplate("Ticket: {{t}}\nAnswer:")
	bySystem := ticketTask("systemic")
	bySystem.System = "You sort tickets."
	for _, tc := range []struct {
		name  string
		tasks []*Task
		query Query
		by    string
		input string
		read  bool
	}{
		{"by model", []*Task{ticketTask("a")}, Query{Model: "a", Messages: user("hi")}, "model", "hi", true},
		{"by schema", []*Task{ticketTask("a")}, Query{Model: "gpt-4o", Messages: user("hi"), Schema: schema}, "schema", "hi", true},
		{"another model", []*Task{ticketTask("a")}, Query{Model: "gpt-5", Messages: user("hi"), Schema: schema}, "", "", false},
		{"no schema, no system", []*Task{ticketTask("a")}, Query{Model: "gpt-4o", Messages: user("hi")}, "", "", false},
		{"two tasks fit", []*Task{ticketTask("a"), ticketTask("b")}, Query{Model: "gpt-4o", Messages: user("hi"), Schema: schema}, "", "", false},
		{"system tells two apart", []*Task{bySystem}, Query{Model: "gpt-4o", Messages: append([]Message{{Role: "system", Text: " You sort tickets.\n"}}, user("hi")...)}, "system", "hi", true},
		{"wrong system", []*Task{bySystem}, Query{Model: "gpt-4o", Messages: append([]Message{{Role: "system", Text: "You sing."}}, user("hi")...), Schema: schema}, "", "", false},
		{"template", []*Task{withTemplate}, Query{Model: "templated", Messages: user("Ticket: late!\nAnswer:")}, "model", "late!", true},
		{"template does not fit", []*Task{withTemplate}, Query{Model: "templated", Messages: user("late!")}, "model", "", false},
		{"image", []*Task{ticketTask("a")}, Query{Model: "a", Messages: []Message{{Role: "user", Opaque: true}}}, "model", "", false},
		{"turns", []*Task{ticketTask("a")}, Query{Model: "a", Messages: []Message{{Role: "user", Text: "one"}, {Role: "assistant", Text: "?"}, {Role: "user", Text: "two"}}}, "model", "one\ntwo", true},
		{"no user turn", []*Task{ticketTask("a")}, Query{Model: "a"}, "model", "", false},
		{"other schema", []*Task{bySystem}, Query{Model: "gpt-4o", Messages: append([]Message{{Role: "system", Text: "You sort tickets."}}, user("hi")...), Schema: []byte(`{"properties":{"x":{"type":"string"}}}`)}, "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := NewRecognizer(tc.tasks)
			for range 2 { // the second time from memory
				m, ok := r.Recognize(tc.query)
				if ok != (tc.by != "") || m.By != tc.by || m.Input != tc.input || m.Readable != tc.read {
					t.Errorf("got %+v, %v", m, ok)
				}
			}
		})
	}
}

// What a user writes must not change which task, or whether one, a request belongs to.
func TestRecognitionIgnoresTheInput(t *testing.T) {
	r := NewRecognizer([]*Task{ticketTask("a")})
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		m, ok := r.Recognize(Query{Model: "gpt-4o", Messages: []Message{{Role: "user", Text: text}}, Schema: Schema(ticketFields)})
		if !ok || m.Input != text {
			t.Fatalf("%q: %+v %v", text, m, ok)
		}
	})
}

func TestTemplateRefusals(t *testing.T) {
	for _, bad := range []string{"", "plain", "{{", "{{}}", "{{a}} {{b}}"} {
		if _, err := ParseTemplate(bad); err == nil {
			t.Errorf("ParseTemplate(%q) should fail", bad)
		}
	}
}

func TestTemplateExtractsWhatItFilled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.StringMatching(`[^{}]*`)
		tpl, err := ParseTemplate(plain.Draw(t, "before") + "{{x}}" + plain.Draw(t, "after"))
		if err != nil {
			t.Fatal(err)
		}
		input := rapid.String().Draw(t, "input")
		if got, ok := tpl.Extract(tpl.Fill(input)); !ok || got != input {
			t.Fatalf("%q, %v", got, ok)
		}
	})
}

func TestSplitIsDisjointAndStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.StringMatching(`[a-d ]{1,6}[0-9]{0,2}`), 1, 60).Draw(t, "texts")
		var examples []Example
		for _, text := range texts {
			examples = append(examples, Example{Text: text})
		}
		s := SplitExamples(examples, 7, .2, .3)
		if len(s.Train)+len(s.Calibration)+len(s.Test) != len(examples) {
			t.Fatal("rows lost")
		}
		side := map[string]string{}
		for name, part := range map[string][]Example{"train": s.Train, "calibration": s.Calibration, "test": s.Test} {
			for _, e := range part {
				if was, ok := side[NearKey(e.Text)]; ok && was != name {
					t.Fatalf("%q is near a text in %s and %s", e.Text, was, name)
				}
				side[NearKey(e.Text)] = name
			}
		}
	})
}

func TestSplitShares(t *testing.T) {
	var examples []Example
	for i := range 20000 {
		examples = append(examples, Example{Text: strings.Repeat("x", i%150) + string(rune('a'+i/150))})
	}
	s := SplitExamples(examples, 1, .2, .1)
	if c, x := len(s.Calibration), len(s.Test); c < 3700 || c > 4300 || x < 1700 || x > 2300 {
		t.Errorf("calibration %d, test %d of 20000", c, x)
	}
}

func TestDeduplicate(t *testing.T) {
	e := func(text, label string) Example { return Example{Text: text, Labels: Output{"c": String(label)}} }
	kept, dropped := Deduplicate([]Example{e("a  b", "x"), e("a b", "x"), e("a b", "y")})
	if len(kept) != 2 || dropped != 1 || slices.ContainsFunc(kept, func(e Example) bool { return e.Text == "a b" && e.Labels["c"].Text() == "x" }) {
		t.Errorf("%v, %d", kept, dropped)
	}
}

// A model that is asked for a task by itself is told of the forms that the fields' answers must have.
func TestAskNamesCanonicalForms(t *testing.T) {
	plain, dated := Task{Fields: ticketFields[:1]}, Task{Fields: []Field{{Name: "due", Kind: Span, Normalize: "date"}, {Name: "paid", Kind: Span, Normalize: "amount"}}}
	if system, _ := plain.Ask("x"); strings.Contains(system, "but write") {
		t.Errorf("of a field as it is: %s", system)
	}
	system, _ := dated.Ask("x")
	for _, part := range []string{`"due" as YYYY-MM-DD`, `"paid" as a plain number and a currency code`, `"format":"date"`} {
		if !strings.Contains(system, part) {
			t.Errorf("%q is not in %s", part, system)
		}
	}
}

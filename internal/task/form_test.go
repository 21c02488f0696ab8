package task

import (
	"strings"
	"testing"
)

func formFields() []Field {
	return []Field{{Name: "category", Kind: Category, Values: []string{"late delivery", "refund", "re"}}, {Name: "order_id", Kind: Span, Nullable: true},
		{Name: "urgent", Kind: Boolean}}
}

func TestForms(t *testing.T) {
	fields := formFields()
	values := []Value{String("late delivery"), Null, Bool(true)}
	named := []Value{String("re"), String("AB-1"), Bool(false)}
	for form, want := range map[string][2]string{
		"": {`{"category":"late delivery","order_id":null,"urgent":true}`, `{"category":"re","order_id":"AB-1","urgent":false}`},
		"Category: {{category}}\nOrder: {{order_id|none}}\nUrgent: {{urgent}}": {"Category: late delivery\nOrder: none\nUrgent: true", "Category: re\nOrder: AB-1\nUrgent: false"},
		"{{order_id|-}} / {{urgent}} / {{category}}.":                          {"- / true / late delivery.", "AB-1 / false / re."},
		"{\"urgent\": {{json urgent}},\n \"order_id\": {{json order_id}}, \"category\": {{json category}}}": {
			"{\"urgent\": true,\n \"order_id\": null, \"category\": \"late delivery\"}", "{\"urgent\": false,\n \"order_id\": \"AB-1\", \"category\": \"re\"}"},
		"```json\n{\"category\": {{json category}}, \"order_id\": {{json order_id}}, \"urgent\": {{json urgent}}}\n```": {
			"```json\n{\"category\": \"late delivery\", \"order_id\": null, \"urgent\": true}\n```", "```json\n{\"category\": \"re\", \"order_id\": \"AB-1\", \"urgent\": false}\n```"},
	} {
		f, err := ParseForm(form, fields)
		if err != nil {
			t.Errorf("%q: %v", form, err)
			continue
		}
		for i, v := range [][]Value{values, named} {
			got := string(f.Append(nil, fields, v))
			if got != want[i] {
				t.Errorf("%q writes %q, want %q", form, got, want[i])
			}
			back, err := f.Parse(fields, []byte("  "+got+"\n"))
			if err != nil {
				t.Errorf("%q reads %q: %v", form, got, err)
				continue
			}
			for k := range back {
				if !back[k].Equal(v[k]) {
					t.Errorf("%q reads %q as %v", form, got, back)
				}
			}
		}
		if f.IsJSON() {
			learned, err := JSONForm(fields, []byte(want[0]))
			if err != nil || learned != form {
				t.Errorf("learned %q, %v, want %q", learned, err, form)
			}
		}
	}
}

func TestFormsAreStrict(t *testing.T) {
	fields := formFields()
	for form, why := range map[string]string{
		"{{category}} {{order_id|x}}":                 "2 of 3",
		"{{category}}{{order_id|x}} {{urgent}}":       "nothing between",
		"{{category}} {{order_id}} {{urgent}}":        "null",
		"{{category}} {{order_id|x}} {{mood}}":        "no field",
		"{{category}} {{category}} {{urgent}}":        "twice",
		"{{category}} {{order_id|x}} {{urgent":        "without }}",
		"{{json category}} {{order_id|x}} {{urgent}}": "some values",
	} {
		if _, err := ParseForm(form, fields); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", form, err, why)
		}
	}
	f, err := ParseForm("Category: {{category}}\nOrder: {{order_id|none}}\nUrgent: {{urgent}}", fields)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "refund", "Category: refund", "Category: mauve\nOrder: none\nUrgent: true", "Category: refund\nOrder: none\nUrgent: maybe",
		"Category: refund\nOrder: none\nUrgent: true\nI hope this helps!", "Sure!\nCategory: refund\nOrder: none\nUrgent: true", "Category: refund\nOrder:\nUrgent: true"} {
		if v, err := f.Parse(fields, []byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}

// A member whose name holds what its value looks like is written as it stands.
func TestJSONFormOfKeysThatReadLikeValues(t *testing.T) {
	fields := []Field{{Name: "x1", Kind: Category, Values: []string{"1", "2"}}, {Name: "spam", Kind: Category, Values: []string{"spam", "ham"}},
		{Name: "annulled", Kind: Span, Nullable: true}, {Name: "istrue", Kind: Boolean}}
	text, err := JSONForm(fields, []byte(`{"x1": 1, "spam": "spam", "annulled": null, "istrue": true}`))
	if err != nil {
		t.Fatal(err)
	}
	form, err := ParseForm(text, fields)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"x1": "2", "spam": "ham", "annulled": "AB-1", "istrue": false}`
	if got := string(form.Append(nil, fields, []Value{String("2"), String("ham"), String("AB-1"), Bool(false)})); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzForm: whatever an answer holds, reading does not crash, and what is read is written so that it is read again.
func FuzzForm(f *testing.F) {
	fields := formFields()
	forms := make([]Form, 0, 3)
	for _, text := range []string{"", "Category: {{category}}\nOrder: {{order_id|none}}\nUrgent: {{urgent}}", "{{order_id|-}} / {{urgent}} / {{category}}."} {
		form, err := ParseForm(text, fields)
		if err != nil {
			f.Fatal(err)
		}
		forms = append(forms, form)
	}
	f.Add("Category: re\nOrder: AB\nUrgent: false")
	f.Add("```json\n{}\n```")
	f.Fuzz(func(t *testing.T, answer string) {
		for _, form := range forms {
			values, err := form.Parse(fields, []byte(answer))
			if err != nil {
				continue
			}
			again, err := form.Parse(fields, form.Append(nil, fields, values))
			if err != nil || !again[0].Equal(values[0]) || !again[2].Equal(values[2]) {
				t.Errorf("%q: %v, then %v, %v", answer, values, again, err)
			}
		}
	})
}

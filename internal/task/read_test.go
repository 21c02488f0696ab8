package task

import (
	"bytes"
	"strings"
	"testing"
)

func TestReadShapes(t *testing.T) {
	for _, tc := range []struct{ name, file, data string }{
		{"native", "d.jsonl", `{"id":"1","text":"where is AB-1","labels":{"category":"late","order_id":"AB-1"},"meta":{"x":1}}` + "\r\n\n"},
		{"chat with JSON", "d.jsonl", `{"id":1,"messages":[{"role":"system","content":"s"},{"role":"user","content":"where is AB-1"},{"role":"assistant","content":"{\"category\":\"late\",\"order_id\":\"AB-1\"}"}]}`},
		{"csv", "d.CSV", "\ufeffid,text,category,order_id\n1,where is AB-1,late,AB-1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			examples, problems, err := ReadExamples(strings.NewReader(tc.data), tc.file)
			if err != nil || len(problems) > 0 || len(examples) != 1 {
				t.Fatalf("%v %v %v", examples, problems, err)
			}
			e := examples[0]
			if e.ID != "1" || e.Text != "where is AB-1" || e.Labels["category"].Text() != "late" || e.Labels["order_id"].Text() != "AB-1" {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestReadBareLabelAndNulls(t *testing.T) {
	data := `{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":" greeting "}]}
{"text":"no id","labels":{"category":null,"n":12345678901234567890}}`
	examples, problems, err := ReadExamples(strings.NewReader(data), "d.jsonl")
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	if examples[0].Labels["category"].Text() != "greeting" || examples[1].ID != "line-2" {
		t.Errorf("%+v", examples)
	}
	if n := examples[1].Labels["n"]; n.Text() != "12345678901234567890" {
		t.Errorf("a number must keep its digits: %v", n.Text())
	}
}

func TestReadReportsEveryBadLine(t *testing.T) {
	lines := []string{
		`{"id":"1","text":"fine","labels":{"c":"x"}}`,
		`{"id":"1","text":"again","labels":{"c":"x"}}`,
		`{"id":"2","labels":{"c":"x"}}`,
		`{"id":"3","text":"  ","labels":{"c":"x"}}`,
		`not json`,
		"{\"id\":\"4\",\"text\":\"\xff\xfe\"}",
		`{"id":"5","text":"x","labels":{"c":{"deep":1}}}`,
		`{"id":"6","messages":[{"role":"user","content":"x"}]}`,
		`{"id":"7","text":"` + strings.Repeat("x", MaxLine) + `"}`,
		`{"id":"8","text":"fine too","labels":{"c":"y"}}`,
	}
	examples, problems, err := ReadExamples(strings.NewReader(strings.Join(lines, "\n")), "d.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) != 2 || len(problems) != 8 {
		t.Fatalf("%d examples, problems: %v", len(examples), problems)
	}
	for i, want := range []string{"already stands on line 1", `"text" is missing`, "empty", "not a JSON object", "UTF-8", "object is no field value", "assistant message", "16 MB"} {
		if p := problems[i]; p.Line != i+2 || !strings.Contains(p.Reason, want) {
			t.Errorf("problem %d: %v, want %q", i, p, want)
		}
	}
}

func TestReadEndsOnRubbish(t *testing.T) {
	for name, data := range map[string]string{
		"binary.jsonl": strings.Repeat("\x00\x01\n", 5000),
		"empty.jsonl":  "",
		"empty.csv":    "",
		"head.csv":     "body,label\n1,2\n",
	} {
		_, _, err := ReadExamples(strings.NewReader(data), name)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadCSVProblems(t *testing.T) {
	data := "text,c\na,x\nb\n\"un\"closed,x\nc,y\n"
	examples, problems, err := ReadExamples(strings.NewReader(data), "d.csv")
	if err != nil || len(examples) != 2 || len(problems) != 2 {
		t.Errorf("%v %v %v", examples, problems, err)
	}
}

func FuzzReadExamples(f *testing.F) {
	f.Add([]byte(`{"id":"1","text":"a","labels":{"c":["x"]}}`), false)
	f.Add([]byte("text,c\na,x\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, csv bool) {
		name := "d.jsonl"
		if csv {
			name = "d.csv"
		}
		examples, problems, err := ReadExamples(bytes.NewReader(data), name)
		if err == nil && len(examples) == 0 && len(problems) == 0 && len(bytes.TrimSpace(data)) > 0 && !csv {
			t.Error("lines vanished without a word")
		}
	})
}

func TestInferFields(t *testing.T) {
	var examples []Example
	for i, id := range []string{"AB-1", "CD-22", "EF-333", "GH-4444"} {
		examples = append(examples, Example{Text: "order " + id, Labels: Output{
			"order_id": String(id), "category": String([]string{"late", "refund"}[i%2]), "urgent": Bool(i == 0), "tags": Set("t"), "never": Null,
		}})
	}
	fields, err := InferFields(examples)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fields {
		got = append(got, f.Name+":"+string(f.Kind))
	}
	if s := strings.Join(got, " "); s != "category:category tags:labels urgent:boolean never:span order_id:span" {
		t.Error(s)
	}
	if problems := CheckLabels(fields, examples, "f"); len(problems) > 0 {
		t.Error(problems)
	}
	bad := []Example{{Line: 9, Labels: Output{"category": String("unheard of")}}}
	if problems := CheckLabels(fields, bad, "f"); len(problems) != 1 || problems[0].Line != 9 {
		t.Error(problems)
	}
}

func TestInferRefusals(t *testing.T) {
	if _, err := InferFields([]Example{{Text: "x"}}); err == nil {
		t.Error("no labels")
	}
	mixed := []Example{{Labels: Output{"c": Bool(true)}}, {Labels: Output{"c": String("x")}}}
	if _, err := InferFields(mixed); err == nil || !strings.Contains(err.Error(), "different types") {
		t.Error(err)
	}
	var free []Example
	for i := range 50 {
		free = append(free, Example{Text: "write", Labels: Output{"poem": String(strings.Repeat("la ", i+1))}})
	}
	if _, err := InferFields(free); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Error(err)
	}
}

// TestOpening: a file that is none of the forms is refused in one sentence that says what it is, and a byte order mark is no data.
func TestOpening(t *testing.T) {
	line := `{"text":"where is my parcel","labels":{"category":"late"}}` + "\n"
	for name, tc := range map[string]struct{ file, want string }{
		"utf-16 little endian": {"\xff\xfe{\x00\"\x00", "UTF-16"},
		"utf-16 big endian":    {"\xfe\xff\x00{\x00\"", "UTF-16"},
		"utf-16 without mark":  {"{\x00\"\x00t\x00", "UTF-16"},
		"gzip":                 {"\x1f\x8b\x08\x00", "compressed"},
		"a spreadsheet":        {"PK\x03\x04\x14\x00", "compressed"},
		"binary":               {"ab\x00\x00c", "no text"},
		"an array":             {" \n[" + line + "]", "JSON array"},
	} {
		for _, file := range []string{"x.jsonl", "x.csv"} {
			_, problems, err := ReadExamples(strings.NewReader(tc.file), file)
			if err == nil || !strings.Contains(err.Error(), tc.want) || len(problems) > 0 {
				t.Errorf("%s as %s: %v, %v", name, file, err, problems)
			}
		}
	}
	for file, data := range map[string]string{"x.jsonl": line, "x.csv": "text,category\r\nwhere is my parcel,late\r\n", "crlf.jsonl": strings.ReplaceAll(line, "\n", "\r\n")} {
		examples, problems, err := ReadExamples(strings.NewReader("\ufeff"+data), file)
		if err != nil || len(problems) > 0 || len(examples) != 1 || examples[0].Labels["category"].Text() != "late" {
			t.Errorf("%s with a byte order mark: %v, %v, %v", file, examples, problems, err)
		}
	}
}

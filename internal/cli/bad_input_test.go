package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is a line of a data file.
type row struct {
	ID     string         `json:"id"`
	Text   string         `json:"text"`
	Labels map[string]any `json:"labels"`
}

// plainRows are easy to learn: two categories, and in every second text an order number.
func plainRows(n int) []row {
	words := [][]string{{"where is my parcel", "the package is late", "delivery has not come"}, {"i want my money back", "refund me please", "pay me now"}}
	var rows []row
	for i := range n {
		r := row{fmt.Sprint("r", i), words[i%2][i%3] + fmt.Sprintf(" %x", i*7919), map[string]any{"category": []string{"late", "refund"}[i%2], "order": nil}}
		if i/2%2 == 0 {
			r.Text, r.Labels["order"] = r.Text+fmt.Sprintf(" order %06d", i*7919), fmt.Sprintf("%06d", i*7919)
		}
		rows = append(rows, r)
	}
	return rows
}

const plainTask = `name: tickets
schema: {"type":"object","properties":{"category":{"type":"string","enum":["late","refund"]},"order":{"type":["string","null"]}},"required":["category","order"]}
`

func writeRows(t *testing.T, path string, rows []row) {
	t.Helper()
	var b strings.Builder
	for _, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Every kind of bad row goes through the real `occam train`, behind 300 plain ones: it is refused with its line, or named by the data
// check and the model trained, and never guessed about. Odd texts also go through `occam predict` (TestOddTextsAreAnswered);
// specialist.TestTinyAndLopsidedData and datacheck.TestCheckAnything try the same below the commands.
func TestBadRows(t *testing.T) {
	one := func(text string, labels map[string]any) func([]row) []row {
		return func(rows []row) []row { return append(rows, row{"bad", text, labels}) }
	}
	late := map[string]any{"category": "late", "order": nil}
	relabel := func(label func(i int, old any) any) func([]row) []row {
		return func(rows []row) []row {
			for i := range rows {
				rows[i].Labels["category"] = label(i, rows[i].Labels["category"])
			}
			return rows
		}
	}
	for name, c := range map[string]struct {
		change  func([]row) []row
		schema  bool   // with the task file's schema instead of one made of the data
		finding string // of the data check; with it the model is trained
		field   string
		refusal string // on stderr; exit 1 and no model
	}{
		"1 MB of text":             {change: one(strings.Repeat("lorem ipsum ", 90_000), late), finding: "odd_text"},
		"one character":            {change: one("x", late), finding: "odd_text"},
		"control characters":       {change: one("a \x07\x00\x1b bell", late), finding: "odd_text"},
		"right-to-left marks":      {change: one("some \u202etxet\u200f", late), finding: "odd_text"},
		"names differ by case":     {change: relabel(func(i int, old any) any { return []any{old, strings.ToUpper(old.(string))}[i/2%2] }), finding: "look_alike_names", field: "category"},
		"names differ by space":    {change: relabel(func(i int, old any) any { return []any{old, old.(string) + " "}[i/2%2] }), finding: "look_alike_names", field: "category"},
		"a value not in schema":    {change: one("where is it", map[string]any{"category": "stolen", "order": nil}), schema: true, refusal: `data.jsonl:301: task: "stolen" is no legal value`},
		"a name not in schema":     {change: one("where is it", map[string]any{"category": "late", "order": nil, "Order": nil}), schema: true, finding: "unknown_field", field: "Order"},
		"a label missing":          {change: one("where is it", map[string]any{"order": nil}), schema: true, finding: "unlabelled", field: "category"},
		"two rows with one ID":     {change: func(rows []row) []row { return append(rows, row{"r3", "again", late}) }, refusal: `data.jsonl:301: the id "r3" already stands on line 4`},
		"a category seen once":     {change: one("my parrot sings", map[string]any{"category": "parrot", "order": nil}), finding: "rare_category", field: "category"},
		"all rows of one category": {change: relabel(func(int, any) any { return "late" }), schema: true, finding: "one_category", field: "category"},
		"only one answer": {change: func(rows []row) []row {
			for i := range rows {
				rows[i].Labels = late
			}
			return rows
		}, refusal: "there is nothing to tell apart"},
		"a span not in its text": {change: one("where is order 777777", map[string]any{"category": "late", "order": "NOWHERE-99"}), schema: true, finding: "span_not_in_text", field: "order"},
		"an empty text":          {change: one(" \n", late), refusal: "data.jsonl:301: the text is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data, model, schema := filepath.Join(dir, "data.jsonl"), filepath.Join(dir, "m.occam"), filepath.Join(dir, "task.yaml")
			writeRows(t, data, c.change(plainRows(300)))
			args := []string{"train", "--json", "--data", data, "--out", model}
			if c.schema {
				if err := os.WriteFile(schema, []byte(plainTask), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--task", schema)
			}
			code, stdout, stderr := run(t, "", args...)
			if c.refusal != "" {
				if _, err := os.Stat(model); code != exitFailed || !strings.Contains(stderr, c.refusal) || err == nil {
					t.Errorf("exit %d, model written: %v, %s", code, err == nil, stderr)
				}
				return
			}
			if code != 0 {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			var report trainReport
			decode(t, stdout, &report)
			if !slices.ContainsFunc(report.Data.Findings, func(f findingSummary) bool { return string(f.Kind) == c.finding && f.Field == c.field && f.Rows > 0 }) {
				t.Errorf("no %s of %q in %+v", c.finding, c.field, report.Data.Findings)
			}
			mustRun(t, `{"text":"where is my parcel order 123456"}`+"\n", "predict", "--model", model)
		})
	}
}

// Odd texts get an answer that the schema allows, and a span that stands in them.
func TestOddTextsAreAnswered(t *testing.T) {
	dir := t.TempDir()
	data, model := filepath.Join(dir, "data.jsonl"), filepath.Join(dir, "m.occam")
	writeRows(t, data, plainRows(300))
	mustRun(t, "", "train", "--json", "--data", data, "--out", model)
	texts := []string{"", "x", "\x00\x07\x1b\u009f", "\u202eredro\u200f \u2067123456\u2069", strings.Repeat("order 123456 ", 90_000), strings.Repeat("あ", 350_000), "🙂", "\u0301"}
	var stdin strings.Builder
	for i, text := range texts {
		line, err := json.Marshal(map[string]any{"id": i, "text": text})
		if err != nil {
			t.Fatal(err)
		}
		stdin.Write(append(line, '\n'))
	}
	lines := strings.Split(strings.TrimSpace(mustRun(t, stdin.String(), "predict", "--model", model)), "\n")
	if len(lines) != len(texts) {
		t.Fatalf("%d answers to %d texts", len(lines), len(texts))
	}
	for i, line := range lines {
		var p struct {
			ID         int
			Output     struct{ Category, Order *string }
			Confidence float64
		}
		decode(t, line, &p)
		if p.ID != i || p.Output.Category == nil || *p.Output.Category != "late" && *p.Output.Category != "refund" || p.Confidence < 0 || p.Confidence > 1 {
			t.Errorf("text %d: %s", i, line)
		}
		if p.Output.Order != nil && !strings.Contains(texts[i], *p.Output.Order) {
			t.Errorf("text %d: the order %q does not stand in it", i, *p.Output.Order)
		}
	}
}

// endless is a line without an end, up to some size; it counts what is read of it.
type endless struct{ read, size int }

func (e *endless) Read(p []byte) (int, error) {
	if e.read >= e.size {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

// A line that is too long is refused before all of it is in memory.
func TestPredictReadsNoEndlessLine(t *testing.T) {
	line := &endless{size: 8 * maxPredictLine}
	a := &app{stdin: line, stdout: io.Discard, stderr: io.Discard}
	if err := a.predictLines(t.Context(), &predictor{}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v", err)
	}
	if line.read > 2*maxPredictLine {
		t.Errorf("%d MB were read", line.read>>20)
	}
}

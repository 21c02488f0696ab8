package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"occam/internal/cost"
	"occam/internal/sample"
	"occam/internal/task"
)

// schemas draws JSON Schemas of the kinds that structured output allows.
func schemas(depth int) *rapid.Generator[string] {
	leaves := []*rapid.Generator[string]{
		rapid.Just(`{"type":"string"}`), rapid.Just(`{"type":["string","null"]}`), rapid.Just(`{"type":"boolean"}`),
		rapid.Just(`{"type":"integer"}`), rapid.Just(`{"type":"number"}`), rapid.Just(`{"enum":["a","b",null]}`), rapid.Just(`{"const":7}`),
		rapid.Just(`{"$ref":"#/$defs/shared"}`), rapid.Just(`{"type":"null"}`), rapid.Just(`{}`),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := schemas(depth - 1)
	array := rapid.Custom(func(t *rapid.T) string { return `{"type":"array","items":` + inner.Draw(t, "items") + `}` })
	union := rapid.Custom(func(t *rapid.T) string { return `{"anyOf":[` + inner.Draw(t, "first") + `,{"type":"null"}]}` })
	object := rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		b.WriteString(`{"type":"object","properties":{`)
		for i := range rapid.IntRange(1, 4).Draw(t, "properties") {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"p%d":%s`, i, inner.Draw(t, "property"))
		}
		return b.String() + `}}`
	})
	return rapid.OneOf(append(leaves, array, union, object, object)...)
}

func TestEverySchemaIsAnsweredInItsShape(t *testing.T) {
	o := &Options{}
	rapid.Check(t, func(t *rapid.T) {
		schema := schemas(3).Draw(t, "schema")
		root := `{"type":"object","properties":{"x":` + schema + `,"y":{"type":"string"}},"$defs":{"shared":{"enum":["s"]}}}`
		text := newAuthor(o, rapid.Uint64().Draw(t, "seed"), "gpt-4o", "input").json(json.RawMessage(root))
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s is answered with %s: %v", root, text, err)
		}
		var want any
		_ = json.Unmarshal([]byte(schema), &want)
		if err := conforms(got["x"], want.(map[string]any)); err != nil {
			t.Fatalf("%s is answered with %s: %v", root, text, err)
		}
	})
}

// conforms is a small validator for the schemas drawn above.
func conforms(v any, schema map[string]any) error {
	if schema["$ref"] != nil {
		schema = map[string]any{"enum": []any{"s"}}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%v is none of %v", v, enum)
	}
	if union, ok := schema["anyOf"].([]any); ok {
		if v == nil {
			return nil
		}
		return conforms(v, union[0].(map[string]any))
	}
	wrong := fmt.Errorf("%v is no %v", v, schema["type"])
	switch schema["type"] {
	case "string":
		if _, ok := v.(string); !ok {
			return wrong
		}
	case "integer", "number":
		if _, ok := v.(float64); !ok {
			return wrong
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			return wrong
		}
		for _, item := range list {
			if err := conforms(item, schema["items"].(map[string]any)); err != nil {
				return err
			}
		}
	case "object":
		o, ok := v.(map[string]any)
		if !ok {
			return wrong
		}
		for name, property := range schema["properties"].(map[string]any) {
			if err := conforms(o[name], property.(map[string]any)); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestEndlessSchemaEnds(t *testing.T) {
	schema := `{"type":"object","properties":{"x":{"$ref":"#/$defs/loop"}},"$defs":{"loop":{"type":"object","properties":{"x":{"$ref":"#/$defs/loop"}}}}}`
	if text := newAuthor(&Options{}, 1, "", "").json(json.RawMessage(schema)); !json.Valid([]byte(text)) {
		t.Errorf("answer %s", text)
	}
}

func TestPlausibleMistakes(t *testing.T) {
	text := "order 0012345678, invoice INV-2025-00011"
	input := task.Output{"category": task.String("refund_status"), "order_id": task.String("0012345678"), "urgent": task.Bool(true)}
	fields := []task.Field{{Name: "category", Kind: task.Category, Values: sample.Categories()}, {Name: "order_id", Kind: task.Span, Nullable: true},
		{Name: "urgent", Kind: task.Boolean}}
	seen := map[string]bool{}
	for seed := range uint64(300) {
		o := &Options{Seed: seed, MistakeRate: 1, Oracle: func(string) task.Output { return input }, Confusable: sample.Confusable}
		out := parseOutput(t, newAuthor(o, 1, "", text).json(task.Schema(fields)))
		if sameOutput(out, input) {
			t.Fatalf("seed %d: no mistake in %v", seed, out)
		}
		seen["order "+out["order_id"].Text()], seen["urgent "+out["urgent"].Text()] = true, true
	}
	for _, want := range []string{"order 12345678", "order INV-2025-00011", "order 0012345678", "urgent false"} {
		if !seen[want] {
			t.Errorf("%s never came up", want)
		}
	}
	if !sameOutput(input, task.Output{"category": task.String("refund_status"), "order_id": task.String("0012345678"), "urgent": task.Bool(true)}) {
		t.Error("the oracle's own output was changed")
	}
}

func TestPriceRoundsHalfUpOnce(t *testing.T) {
	r := Rates{Input: 37_500_000, Cached: 0, Output: 150_000_000} // $0.0375 and $0.15: 37.5 and 150 nano-dollars a token
	for _, test := range []struct{ prompt, completion, want int64 }{{1, 0, 38}, {2, 0, 75}, {3, 1, 263}, {0, 0, 0}} {
		if got := r.price(test.prompt, 0, test.completion); int64(got) != test.want {
			t.Errorf("%d + %d tokens cost %d, want %d", test.prompt, test.completion, got, test.want)
		}
	}
}

// TestOwnPricesAgreeWithTheBook compares the two lists, which are kept apart on purpose.
func TestOwnPricesAgreeWithTheBook(t *testing.T) {
	book := cost.Default()
	for model, r := range defaultPrices() {
		provider := "openai"
		if strings.HasPrefix(model, "claude") {
			provider = "anthropic"
		}
		price, ok := book.Lookup(provider, model, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
		if !ok {
			t.Logf("%s is not in the book", model)
			continue
		}
		if int64(price.Input) != r.Input || int64(price.Cached) != r.Cached || int64(price.Output) != r.Output {
			t.Errorf("%s: %+v here, %+v in the book", model, r, price.Rates)
		}
	}
}

func TestTokensJoinToTheText(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		if got := strings.Join(p.counter.split(text), ""); got != text {
			t.Fatalf("%q became %q", text, got)
		}
		if a, b := p.counter.count(text), p.counter.count(text); a != b || a < 0 {
			t.Fatalf("counted %d, then %d", a, b)
		}
	})
	for _, token := range p.counter.split("漢字かな交じり文 🙂👩‍👩‍👧 é") {
		if strings.ToValidUTF8(token, "?") != token {
			t.Errorf("token %q is cut inside a character", token)
		}
	}
}

func TestLatencyIsLogNormal(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	l := Latency{Sigma: 0.4}
	draws := make([]float64, 20000)
	for i := range draws {
		draws[i] = float64(l.draw(r, time.Second)) / float64(time.Second)
	}
	slices.Sort(draws)
	median, p99 := draws[len(draws)/2], draws[len(draws)*99/100]
	if math.Abs(median-1) > 0.03 || math.Abs(p99-math.Exp(0.4*2.326)) > 0.15 {
		t.Errorf("median %.3f, p99 %.3f", median, p99)
	}
	if got := TypicalLatency.Scaled(0.1); got.FirstToken != 45*time.Millisecond || got.Sigma != TypicalLatency.Sigma {
		t.Errorf("scaled %+v", got)
	}
}

func TestTrafficFollowsItsSeed(t *testing.T) {
	inputs := ticketInputs(4, 400)
	traffic := Traffic{Seed: 4, Task: sample.Task(), PerSecond: 50, StreamShare: 0.5, OpenShare: 0.2}
	var first, second []string
	open, streams, asked := 0, 0, 0
	var last time.Duration
	for r := range traffic.Requests(inputs) {
		first = append(first, fmt.Sprint(r.At, string(r.Body)))
		if r.At < last {
			t.Error("time runs backwards")
		}
		last = r.At
		if r.Stream {
			streams++
		}
		if r.Open {
			open++
			continue
		}
		if r.ID != inputs[asked].ID {
			t.Fatalf("input %d is %s, want %s", asked, r.ID, inputs[asked].ID)
		}
		asked++
		if !json.Valid(r.Body) {
			t.Errorf("body %s", r.Body)
		}
	}
	for r := range traffic.Requests(inputs) {
		second = append(second, fmt.Sprint(r.At, string(r.Body)))
	}
	if !slices.Equal(first, second) {
		t.Error("the same seed gave other requests")
	}
	n := float64(len(first))
	if asked != 400 || float64(open)/n < 0.13 || float64(open)/n > 0.27 || float64(streams)/n < 0.4 || float64(streams)/n > 0.6 {
		t.Errorf("%d tickets, %d open, %d streams of %v", asked, open, streams, n)
	}
	if rate := n / last.Seconds(); rate < 40 || rate > 60 {
		t.Errorf("%.1f requests a second, want about 50", rate)
	}
}

func TestTrafficIsRecognisedAsItsTask(t *testing.T) {
	wanted := sample.Task()
	for r := range (Traffic{Task: wanted}).Requests(ticketInputs(9, 1)) {
		var body struct {
			Format struct {
				Schema struct{ Schema json.RawMessage } `json:"json_schema"`
			} `json:"response_format"`
		}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatal(err)
		}
		fields, err := task.ParseSchema(body.Format.Schema.Schema)
		if err != nil || !task.SameFields(fields, wanted.Fields) {
			t.Errorf("fields %v, %v", fields, err)
		}
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	if _, err := New(Options{MistakeRate: 1.5}); err == nil {
		t.Error("a mistake rate of 150 % was taken")
	}
}

// FuzzChat sends any body: the answer must be a reply or an error in the API's shape, and never a panic.
func FuzzChat(f *testing.F) {
	f.Add([]byte(hello + `}`))
	f.Add([]byte(streamed))
	f.Add([]byte(hello + `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"a":{"$ref":"#"}}}}}}`))
	f.Add([]byte(hello + `,"tools":[{"function":{"parameters":[]}}],"tool_choice":{"function":{"name":"x"}}}`))
	f.Add([]byte(`{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"image_url"},{"type":"text","text":"x"}]}],"n":2}`))
	p, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if strings.Contains(string(body), faultModelPrefix) {
			return // may hang on request
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(string(body))))
		if ct := w.Header().Get("Content-Type"); ct == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("status %d: %s", w.Code, w.Body.Bytes())
		}
		p.bill.charges = nil
	})
}

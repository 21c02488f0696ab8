package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"occam/internal/openai"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

func (w *world) postTo(path, body string) (*http.Response, string) {
	w.t.Helper()
	res, err := http.Post(w.web.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res, string(text)
}

// Every shape passes through byte for byte, streaming and not, and its own usage settles the ledger.
func TestEveryShapePassesThrough(t *testing.T) {
	for _, c := range []struct {
		path, body, kind, reply string
		input, output           int64
	}{
		{"/v1/responses", `{"model":"gpt-4o", "input":"hi","unknown":1}`, "application/json",
			`{"id":"resp_1","object":"response","status":"completed","model":"gpt-4o","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],"usage":{"input_tokens":9,"output_tokens":4,"total_tokens":13}}`, 9, 4},
		{"/v1/responses", `{"model":"gpt-4o","stream":true,"input":"hi"}`, "text/event-stream",
			"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"gpt-4o\",\"status\":\"in_progress\",\"usage\":null}}\n\n" +
				"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-4o\",\"status\":\"completed\",\"usage\":{\"input_tokens\":9,\"output_tokens\":4}}}\n\n", 9, 4},
		{"/v1/messages", `{"model":"gpt-4o","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"hi"}]}`, "text/event-stream",
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"gpt-4o\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n" +
				"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":4}}\n\n" +
				"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", 9, 4},
		{"/v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b"]}`, "application/json",
			`{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,0.2]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":2,"total_tokens":2}}`, 2, 0},
	} {
		w := newWorld(t)
		var path string
		w.handle = func(rw http.ResponseWriter, r *http.Request) {
			path = r.URL.Path
			rw.Header().Set("Content-Type", c.kind)
			io.WriteString(rw, c.reply)
		}
		res, body := w.postTo(c.path, c.body)
		if res.StatusCode != 200 || body != c.reply || w.seen()[0] != c.body || path != c.path {
			t.Errorf("%s: %d %s; upstream %s got %s", c.path, res.StatusCode, body, path, w.seen())
		}
		if a := w.book.paid(); len(a) != 1 || a[0].Usage.Input != c.input || a[0].Usage.Output != c.output || a[0].State != store.Settled && a[0].State != store.Unpriced {
			t.Errorf("%s: %+v", c.path, a)
		} else if c.output == 0 && (a[0].State != store.Settled || a[0].Cost != 40) { // 2 tokens at $0.02 per million, in nano-dollars
			t.Errorf("%s is not priced: %+v", c.path, a[0])
		}
	}
}

// A specialist answers a task in whichever shape it is asked, and the generalist is told the schema in that shape.
func TestATaskInEveryShape(t *testing.T) {
	schema := ticketSchema
	for _, c := range []struct {
		api  openai.API
		path string
		body string
	}{
		{openai.Responses, "/v1/responses", `{"model":"gpt-4o","input":"refund A-1 please","text":{"format":{"type":"json_schema","name":"t","schema":` + schema + `}}}`},
		{openai.Messages, "/v1/messages", `{"model":"gpt-4o","max_tokens":99,"messages":[{"role":"user","content":"refund A-1 please"}],"output_config":{"format":{"type":"json_schema","schema":` + schema + `}}}`},
		{openai.Chat, "/v1/chat/completions", taskBody},
	} {
		w := newWorld(t)
		for _, stream := range []bool{false, true} {
			body := c.body
			if stream {
				body = withStream(body)
			}
			res, text := w.postTo(c.path, body)
			if res.StatusCode != 200 || res.Header.Get("X-Occam-Reason") != "certified" || !strings.Contains(text, `{\"category\":\"refund\",\"order_id\":\"A-1\"}`) {
				t.Errorf("%s: %d %v %s", c.path, res.StatusCode, res.Header, text)
			}
			if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") != stream || !stream && !json.Valid([]byte(text)) {
				t.Errorf("%s: %s", c.path, text)
			}
		}
		w.model.p.Score = 0
		w.postTo(c.path, strings.Replace(c.body, `"gpt-4o"`, `"triage"`, 1))
		sent, err := openai.Parse(c.api, []byte(w.seen()[0]))
		if err != nil || sent.Model != "gpt-4o" || sent.Schema == nil {
			t.Errorf("%s: the generalist got %s", c.path, w.seen()[0])
		}
		res, text := w.postTo(c.path, "{")
		if want := (&openai.Error{Status: 400}).Append(nil, c.api); res.StatusCode != 400 || strings.Contains(text, `"type":"error"`) != strings.Contains(string(want), `"type":"error"`) {
			t.Errorf("%s: an error looks like %s", c.path, text)
		}
	}
}

// A knower is a parrot with a distribution.
type knower struct {
	parrot
	odds map[int][]float64
}

func (k *knower) Probabilities(dst []float64, _ string, field int) []float64 {
	return append(dst, k.odds[field]...)
}

func decisionWorld(t *testing.T) (*world, *knower) {
	w := newWorld(t)
	fields := append(append([]task.Field(nil), ticketFields...), task.Field{Name: "urgent", Kind: task.Boolean})
	k := &knower{parrot: parrot{p: w.model.p}, odds: map[int][]float64{0: {.9, .06, .04}, 2: {.3, .7}}}
	k.p.Values = append(k.p.Values, task.Bool(true))
	w.snap.Tasks[0].Task = &task.Task{Name: "triage", Fields: fields, Generalist: "gpt-4o"}
	w.snap.Tasks[0].Tiers[0].Specialist = k
	w.publish()
	return w, k
}

const decisionBody = `{"model":"decider","input":"refund A-1 please","questions":[
	{"type":"choice","name":"category","instructions":"which?","choices":[{"value":"other"},{"value":"refund","description":"money back"},{"value":"delivery"}]},
	{"type":"predicate","instructions":"is it urgent?"}]}`

const systemOneBody = `{"model":"decider","state":"refund A-1 please","questions":{
	"category":{"type":"choice","instructions":"which?","criteria":{"other":null,"refund":"money back","delivery":null}},
	"urgent":{"type":"noul","instructions":"is it urgent?"}}}`

func TestTypedDecisions(t *testing.T) {
	w, _ := decisionWorld(t)
	res, body := w.postTo("/v1/decisions", decisionBody)
	var d struct {
		Model   string
		Answers []struct {
			Type, Choice  string
			Name          *string
			Probability   float64
			Confidence    float64
			Probabilities []struct {
				Value       string
				Probability float64
			}
		}
		Usage struct {
			Output int `json:"output_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	first, second := d.Answers[0], d.Answers[1]
	if first.Choice != "refund" || first.Confidence < .89 || len(first.Probabilities) != 3 || *first.Name != "category" || second.Name != nil || second.Probability != .7 || d.Usage.Output != 0 {
		t.Errorf("%s", body)
	}
	sum := 0.0
	for _, p := range first.Probabilities {
		sum += p.Probability
	}
	if sum < .999999 || sum > 1.000001 {
		t.Errorf("probabilities add up to %v", sum)
	}
	res, body = w.postTo("/v1/systemone", systemOneBody)
	var s struct {
		Answers map[string]struct {
			Type, Choice     string
			Noul, Confidence float64
			Probabilities    map[string]float64
		}
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	if c := s.Answers["category"]; c.Choice != "refund" || c.Probabilities["refund"] < .89 || c.Confidence <= 0 || c.Confidence >= 1 || s.Answers["urgent"].Noul != .7 {
		t.Errorf("%s", body)
	}
	if free := w.book.freeRows(2); len(free) != 2 || res.Header.Get("X-Occam-Reason") != "certified" || len(w.seen()) != 0 {
		t.Errorf("%+v %v", free, res.Header)
	}
}

// A score is the mean of its levels' places: the specialist answers when the levels are the values of a field, in the order that the
// question gives them.
func TestScores(t *testing.T) {
	w, _ := decisionWorld(t)
	res, body := w.postTo("/v1/decisions", `{"model":"decider","input":[{"role":"user","content":[{"type":"input_text","text":"refund A-1"}]}],"questions":[
		{"type":"score","name":"category","instructions":[{"type":"input_text","text":"how bad"}],"levels":[{"label":"other"},{"label":"delivery","description":"d"},{"label":"refund"}]},
		{"type":"choice","name":"urgent","instructions":"urgent?","choices":[{"value":true},{"value":false}]}]}`)
	var d struct {
		Answers []struct {
			Type          string
			Score         float64
			Choice        any
			Confidence    float64
			Probabilities []struct {
				Label       string
				Value       any
				Probability float64
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil || res.StatusCode != 200 || len(d.Answers) != 2 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	if a := d.Answers[0]; a.Type != "score" || math.Abs(a.Score-(1*.06+2*.9)) > 1e-9 || a.Confidence != .9 || a.Probabilities[2].Label != "refund" ||
		a.Probabilities[2].Value != 2.0 || a.Probabilities[0].Probability != .04 {
		t.Errorf("%s", body)
	}
	if a := d.Answers[1]; a.Choice != true || a.Probabilities[0].Value != true || a.Probabilities[0].Probability != .7 || a.Confidence != .7 {
		t.Errorf("%s", body)
	}
	res, body = w.postTo("/v1/systemone", `{"model":"decider","state":"refund A-1","questions":{"category":{"type":"score","instructions":"x","criteria":["other","delivery","refund"]}}}`)
	var s struct {
		Answers map[string]struct {
			Score         float64
			Confidence    float64
			Legend        map[string]string
			Probabilities map[string]float64
		}
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	if a := s.Answers["category"]; math.Abs(a.Score-1.86) > 1e-9 || a.Legend["0"] != "other" || a.Probabilities["2"] != .9 || a.Confidence <= 0 {
		t.Errorf("%s", body)
	}
	for _, bad := range []string{`{"model":"x","state":"a","questions":{"q":{"type":"score","criteria":{"a":null}}}}`, `{"model":"x","state":"a","questions":{"q":{"type":"score","criteria":["one"]}}}`,
		`{"model":"x","state":"a","questions":{"q":{"type":"score","criteria":["one","one"]}}}`, `{"model":"x","questions":{"q":{"type":"noul"}}}`} {
		if res, body := w.postTo("/v1/systemone", bad); res.StatusCode != 400 || !strings.Contains(body, "invalid_request_error") {
			t.Errorf("%s: %d %s", bad, res.StatusCode, body)
		}
	}
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, `{"model":"decider","answers":[],"usage":{"input_tokens":3,"output_tokens":0}}`)
	}
	image := `{"model":"decider","input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,QQ=="}]}],"questions":[{"type":"predicate","instructions":"a cat?"}]}`
	if res, body := w.postTo("/v1/decisions", image); res.StatusCode != 200 || w.seen()[len(w.seen())-1] != image {
		t.Errorf("a picture: %d %s", res.StatusCode, body)
	}
}

func (k *knower) Explain(text string) []specialist.Reason {
	return []specialist.Reason{{Field: "category", Value: task.String("refund"), Margin: 2, Words: []specialist.WordWeight{{Text: text[:6], End: 6, Weight: 1.5}}},
		{Field: "urgent", Value: task.Bool(true), Margin: 1}}
}

func (k *knower) Alike(_ string, n int) []specialist.Alike {
	return []specialist.Alike{{ID: "7", Text: "refund A-2", Labels: task.Output{"category": task.String("refund")}, Likeness: .8}}[:min(n, 1)]
}

func TestDecisionsAreExplained(t *testing.T) {
	w, _ := decisionWorld(t)
	if _, body := w.postTo("/v1/decisions", decisionBody); strings.Contains(body, "reasons") || strings.Contains(body, "nearest") {
		t.Errorf("explained without being asked: %s", body)
	}
	res, body := w.postTo("/v1/decisions", strings.Replace(decisionBody, "{", `{"explain":true,`, 1))
	var d struct {
		Answers []struct{ Reasons []specialist.Reason }
		Nearest []specialist.Alike
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	if r := d.Answers[0].Reasons; len(r) != 1 || r[0].Field != "category" || r[0].Words[0].Text != "refund" || len(d.Answers[1].Reasons) != 1 {
		t.Errorf("reasons: %s", body)
	}
	if len(d.Nearest) != 1 || d.Nearest[0].Text != "refund A-2" || d.Nearest[0].Likeness != .8 {
		t.Errorf("nearest: %s", body)
	}
}

func TestDecisionsThatNoSpecialistMakes(t *testing.T) {
	w, k := decisionWorld(t)
	var path string
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		fmt.Fprint(rw, `{"model":"decider","answers":[],"usage":{"input_tokens":3,"output_tokens":0}}`)
	}
	other := strings.Replace(decisionBody, `{"value":"other"},`, "", 1)
	if res, _ := w.postTo("/v1/decisions", other); res.StatusCode != 200 || path != "/v1/decisions" || w.seen()[0] != other {
		t.Errorf("other options: %d at %s: %s", res.StatusCode, path, w.seen())
	}
	k.p.Score = 0
	if res, _ := w.postTo("/v1/systemone", systemOneBody); res.StatusCode != 200 || path != "/v1/systemone" {
		t.Errorf("too uncertain: %d at %s", res.StatusCode, path)
	}
	calls := len(w.seen())
	for _, body := range []string{
		strings.Replace(decisionBody, "decider", "triage", 1),
		strings.Replace(other, "decider", "triage", 1),
		`{"model":"x"}`, `{`, `{"model":"x","input":5,"questions":[{"type":"choice"}]}`, `{"model":"x","input":"a","questions":[]}`,
	} {
		if res, text := w.postTo("/v1/decisions", body); res.StatusCode != 400 || !strings.Contains(text, "invalid_request_error") {
			t.Errorf("%s: %d %s", body, res.StatusCode, text)
		}
	}
	if len(w.seen()) != calls {
		t.Error("a refused decision went upstream")
	}
}

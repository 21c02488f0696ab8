package sim

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"occam/internal/sample"
)

const (
	responsesHello = `{"model":"gpt-4o","input":"hello"`
	messagesHello  = `{"model":"claude-haiku-4-5","max_tokens":500,"messages":[{"role":"user","content":"hello"}]`
)

// namedEvents reads a stream of named events: their names in order, and the data of each.
func namedEvents(t *testing.T, raw string) (names []string, data []map[string]any) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSpace(raw), "\n\n") {
		name, body, ok := strings.Cut(block, "\ndata: ")
		var o map[string]any
		if !ok || json.Unmarshal([]byte(body), &o) != nil || "event: "+o["type"].(string) != name {
			t.Fatalf("event %q", block)
		}
		if n := len(names); n == 0 || names[n-1] != o["type"] {
			names = append(names, o["type"].(string))
		}
		data = append(data, o)
	}
	return names, data
}

func (c *client) body(path, request string) string {
	c.t.Helper()
	response := c.post(path, request)
	raw := string(read(c.t, response))
	if response.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: status %d: %s", path, response.StatusCode, raw)
	}
	return raw
}

func TestResponses(t *testing.T) {
	options, inputs, traffic := ticketOptions(11, 5)
	p, c := start(t, options)
	var got struct {
		ID, Object, Status string
		Output             []struct{ Content []struct{ Type, Text string } }
		Usage              struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
	}
	format := string(encode(traffic.format().(object).get("json_schema")))
	format = strings.Replace(format, "{", `{"type":"json_schema",`, 1)
	request := `{"model":"gpt-4o","instructions":"sort","input":[{"role":"user","content":[{"type":"input_text","text":` +
		string(encode(inputs[0].Text)) + `}]}],"text":{"format":` + format + `}}`
	raw := c.body("/v1/responses", request)
	if err := json.Unmarshal([]byte(raw), &got); err != nil || got.Object != "response" || got.Status != "completed" {
		t.Fatalf("%s: %v", raw, err)
	}
	if !sameOutput(parseOutput(t, got.Output[0].Content[0].Text), inputs[0].Truth) {
		t.Errorf("answer %s, truth %v", raw, inputs[0].Truth)
	}
	if charge := p.Bill()[0]; charge.Prompt != got.Usage.Input || charge.Completion != got.Usage.Output || charge.Route != "/v1/responses" {
		t.Errorf("charge %+v, usage %+v", charge, got.Usage)
	}
}

func TestResponsesStream(t *testing.T) {
	p, c := start(t, Options{})
	names, data := namedEvents(t, c.body("/v1/responses", responsesHello+`,"stream":true}`))
	want := "response.created response.in_progress response.output_item.added response.content_part.added response.output_text.delta " +
		"response.output_text.done response.content_part.done response.output_item.done response.completed"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("events %s", got)
	}
	text, last := "", data[len(data)-1]["response"].(map[string]any)
	for i, o := range data {
		if o["sequence_number"] != float64(i) {
			t.Errorf("event %d has number %v", i, o["sequence_number"])
		}
		if delta, ok := o["delta"].(string); ok {
			text += delta
		}
	}
	whole := last["output"].([]any)[0].(map[string]any)["content"].([]any)[0].(map[string]any)["text"]
	if text == "" || text != whole || last["usage"].(map[string]any)["output_tokens"] != float64(p.Bill()[0].Completion) {
		t.Errorf("deltas %q, whole %q, usage %v, bill %+v", text, whole, last["usage"], p.Bill()[0])
	}
	names, _ = namedEvents(t, c.body("/v1/responses", responsesHello+`,"stream":true,"tools":[{"type":"function","name":"f","parameters":{}}]}`))
	if got := strings.Join(names, " "); !strings.Contains(got, "response.function_call_arguments.done response.output_item.done") {
		t.Errorf("events %s", got)
	}
}

func TestResponsesToolsAndErrors(t *testing.T) {
	_, c := start(t, Options{})
	const tools = `,"tools":[{"type":"function","name":"find","parameters":{"type":"object","properties":{"id":{"type":"string"}}}}]`
	if raw := c.body("/v1/responses", responsesHello+tools+`}`); !strings.Contains(raw, `"type":"function_call"`) || !strings.Contains(raw, `"name":"find"`) {
		t.Errorf("tools: %s", raw)
	}
	after := strings.Replace(responsesHello+tools+`}`, `"hello"`, `[{"role":"user","content":"hello"},{"type":"function_call","arguments":"{}","name":"find"},
		{"type":"function_call_output","output":"found"}]`, 1)
	if raw := c.body("/v1/responses", after); strings.Contains(raw, "function_call") {
		t.Errorf("after the tool's result: %s", raw)
	}
	for _, bad := range []string{`{"model":"gpt-4o","input":7}`, `{"model":"gpt-4o"}`, `{"model":"gpt-9","input":"x"}`, `{"model":7}`} {
		response := c.post("/v1/responses", bad)
		if raw := read(t, response); response.StatusCode < 400 || !strings.Contains(string(raw), `"error"`) {
			t.Errorf("%s: status %d, %s", bad, response.StatusCode, raw)
		}
	}
}

func TestMessages(t *testing.T) {
	p, c := start(t, Options{APIKey: "secret"})
	response := c.post("/v1/messages", messagesHello+`}`, "X-Api-Key", "secret")
	var got struct {
		Type       string
		Content    []struct{ Type, Text string }
		StopReason string `json:"stop_reason"`
		Usage      struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
	}
	raw := read(t, response)
	if err := json.Unmarshal(raw, &got); err != nil || got.Type != "message" || got.StopReason != "end_turn" ||
		!strings.Contains(got.Content[0].Text, "simulated") {
		t.Errorf("%s: %v", raw, err)
	}
	if charge := p.Bill()[0]; charge.Prompt != got.Usage.Input || charge.Completion != got.Usage.Output || int64(charge.Amount) !=
		1000*charge.Prompt+5000*charge.Completion {
		t.Errorf("charge %+v, usage %+v", charge, got.Usage)
	}
	response = c.post("/v1/messages", messagesHello+`}`, "X-Api-Key", "wrong")
	if raw := read(t, response); response.StatusCode != 401 || !strings.Contains(string(raw), `{"type":"error","error":{"type":"authentication_error"`) {
		t.Errorf("wrong key: status %d, %s", response.StatusCode, raw)
	}
}

func TestMessagesStreamAndTools(t *testing.T) {
	_, c := start(t, Options{})
	names, data := namedEvents(t, c.body("/v1/messages", messagesHello+`,"stream":true}`))
	if got := strings.Join(names, " "); got != "message_start content_block_start ping content_block_delta content_block_stop message_delta message_stop" {
		t.Errorf("events %s", got)
	}
	if usage := data[len(data)-2]["usage"].(map[string]any); usage["output_tokens"].(float64) < 5 {
		t.Errorf("usage %v", usage)
	}
	const tools = `,"tools":[{"name":"find","input_schema":{"type":"object","properties":{"id":{"type":"string"}}}}]`
	if raw := c.body("/v1/messages", messagesHello+tools+`,"tool_choice":{"type":"tool","name":"find"}}`); !strings.Contains(raw, `"type":"tool_use"`) ||
		!strings.Contains(raw, `"input":{"id":`) {
		t.Errorf("tools: %s", raw)
	}
	if raw := c.body("/v1/messages", messagesHello+tools+`,"tool_choice":{"type":"none"}}`); strings.Contains(raw, "tool_use") {
		t.Errorf("tool_choice none: %s", raw)
	}
	after := strings.Replace(messagesHello+tools+`}`, `"hello"}`, `"hello"},{"role":"user","content":[{"type":"tool_result","content":"found"}]}`, 1)
	if raw := c.body("/v1/messages", after); strings.Contains(raw, "tool_use") {
		t.Errorf("after the tool's result: %s", raw)
	}
	names, _ = namedEvents(t, c.body("/v1/messages", messagesHello+tools+`,"stream":true,"system":[{"type":"text","text":"be brief"}]}`))
	if len(names) != 7 {
		t.Errorf("events %v", names)
	}
	if response := c.post("/v1/messages", `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`); response.StatusCode != 400 {
		t.Errorf("no max_tokens: status %d", response.StatusCode)
	} else {
		read(t, response)
	}
}

// TestFaultsInOtherDialects checks that the faults that do not depend on the body's format work on every route.
func TestFaultsInOtherDialects(t *testing.T) {
	_, c := start(t, Options{})
	for path, body := range map[string]string{"/v1/responses": responsesHello, "/v1/messages": messagesHello} {
		ask := func(fault, rest string) *http.Response {
			body := strings.NewReplacer("gpt-4o", "sim:"+fault, "claude-haiku-4-5", "sim:"+fault).Replace(body)
			return c.post(path, body+rest+`}`)
		}
		if response := ask("status=429", ""); response.StatusCode != 429 || !strings.Contains(string(read(t, response)), "error") {
			t.Errorf("%s: status %d", path, response.StatusCode)
		}
		for _, kind := range []FaultKind{UsageMissing, UsageNull, UsageNegative, UsageHuge, UsageString, UsageFraction, UsageParts, UsagePartial, CutJSON,
			EmptyBody, HTMLBody} {
			if raw := string(read(t, ask(string(kind), ""))); strings.Contains(raw, `"input_tokens":8,`) && strings.HasSuffix(raw, "}") &&
				kind != UsageHuge && kind != UsageFraction && kind != UsageParts && kind != UsagePartial {
				t.Errorf("%s %s: nothing is wrong with %s", path, kind, raw)
			}
		}
		ends := map[string]string{"/v1/responses": "response.completed", "/v1/messages": "message_stop"}
		for _, kind := range []FaultKind{NoDone, ErrorEvent, EndEarly} {
			if raw := string(read(t, ask(string(kind)+",after=2", `,"stream":true`))); strings.Contains(raw, ends[path]) {
				t.Errorf("%s %s: the stream ends as usual", path, kind)
			}
		}
	}
}

func TestOracleServesEveryDialect(t *testing.T) {
	options, inputs, _ := ticketOptions(12, 1)
	_, c := start(t, options)
	tool := `"tools":[{"name":"triage","input_schema":{"type":"object","properties":{"` + sample.Category + `":{"type":"string"}}}}]`
	raw := c.body("/v1/messages", `{"model":"claude-haiku-4-5","max_tokens":99,"messages":[{"role":"user","content":`+string(encode(inputs[0].Text))+`}],`+tool+`}`)
	if want := inputs[0].Truth[sample.Category].Text(); !strings.Contains(raw, `"input":{"category":"`+want+`"}`) {
		t.Errorf("want %s in %s", want, raw)
	}
}

package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"occam/internal/sample"
	"occam/internal/task"
)

func TestMain(m *testing.M) {
	// net/http lingers for half a second on a connection whose request body it refused to read
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// start serves a provider on loopback for the length of a test.
func start(t testing.TB, o Options) (*Provider, *client) {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server, err := p.Listen()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, url: server.URL, http: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		server.Close()
	})
	return p, c
}

// client is a plain HTTP client: it must not share code with the provider.
type client struct {
	t    testing.TB
	url  string
	http *http.Client
}

func (c *client) post(path, body string, header ...string) *http.Response {
	c.t.Helper()
	response, err := c.try(context.Background(), path, body, header...)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

func (c *client) try(ctx context.Context, path, body string, header ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return c.http.Do(request)
}

func (c *client) get(path string) []byte {
	c.t.Helper()
	response, err := c.http.Get(c.url + path)
	if err != nil {
		c.t.Fatal(err)
	}
	return read(c.t, response)
}

func read(t testing.TB, response *http.Response) []byte {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
	Details    struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

type toolReply struct {
	ID       string
	Function struct{ Name, Arguments string }
}

type completion struct {
	ID      string
	Object  string
	Model   string
	Choices []struct {
		Index   int
		Message struct {
			Role      string
			Content   *string
			ToolCalls []toolReply `json:"tool_calls"`
		}
		Delta struct {
			Role      string
			Content   string
			ToolCalls []toolReply `json:"tool_calls"`
		}
		Logprobs     *struct{ Content []struct{ Token string } }
		FinishReason *string `json:"finish_reason"`
	}
	Usage *usage
}

func (c *client) chat(body string) completion {
	c.t.Helper()
	response := c.post("/v1/chat/completions", body)
	raw := read(c.t, response)
	var got completion
	if response.StatusCode != http.StatusOK || json.Unmarshal(raw, &got) != nil {
		c.t.Fatalf("status %d: %s", response.StatusCode, raw)
	}
	return got
}

// stream reads a whole stream; done reports whether it ended with [DONE].
func (c *client) stream(body string) (chunks []completion, done bool) {
	c.t.Helper()
	response := c.post("/v1/chat/completions", body)
	if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		c.t.Fatalf("content type %q: %s", got, read(c.t, response))
	}
	return readStream(c.t, response.Body)
}

func readStream(t testing.TB, body io.ReadCloser) (chunks []completion, done bool) {
	t.Helper()
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return chunks, true
		}
		var chunk completion
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("chunk %q: %v", data, err)
		}
		chunks = append(chunks, chunk)
	}
	return chunks, false
}

// ticketOptions answer the sample's tickets of one seed.
func ticketOptions(seed uint64, n int) (Options, []Input, Traffic) {
	inputs := ticketInputs(seed, n)
	traffic := Traffic{Seed: seed, Task: sample.Task()}
	return Options{Seed: seed, Oracle: traffic.Oracle(inputs), Confusable: sample.Confusable}, inputs, traffic
}

func ticketInputs(seed uint64, n int) []Input {
	var inputs []Input
	for _, t := range sample.Traffic(seed, n) {
		inputs = append(inputs, Input{ID: t.ID, Text: t.Text, Truth: t.Truth})
	}
	return inputs
}

func parseOutput(t testing.TB, content string) task.Output {
	t.Helper()
	var out task.Output
	if err := json.Unmarshal([]byte(content), &out); err != nil {
		t.Fatalf("answer %q: %v", content, err)
	}
	return out
}

func sameOutput(a, b task.Output) bool {
	for name, v := range a {
		if w, ok := b[name]; !ok || !v.Equal(w) {
			return false
		}
	}
	return len(a) == len(b)
}

const hello = `{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]`

func TestAnswerIsMarkedBilledAndCounted(t *testing.T) {
	p, c := start(t, Options{})
	response := c.post("/v1/chat/completions", hello+`}`, "X-Client-Request-Id", "attempt-1")
	if response.Header.Get("X-Simulated") != "true" {
		t.Error("the reply is not marked as simulated")
	}
	var got completion
	raw := read(t, response)
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte(`{"id":"chatcmpl-`)) || got.Object != "chat.completion" || *got.Choices[0].FinishReason != "stop" ||
		got.Choices[0].Message.Role != "assistant" || !strings.Contains(*got.Choices[0].Message.Content, "simulated") {
		t.Errorf("reply %s", raw)
	}
	// "hello" is one token, "user" another; three for the message and three for the reply.
	if got.Usage.Prompt != 8 || got.Usage.Total != got.Usage.Prompt+got.Usage.Completion {
		t.Errorf("usage %+v", *got.Usage)
	}
	charges := p.Bill()
	if len(charges) != 1 {
		t.Fatalf("%d charges, want 1", len(charges))
	}
	charge := charges[0]
	want := 2500*got.Usage.Prompt + 10000*got.Usage.Completion // nano-dollars a token
	if int64(charge.Amount) != want || charge.Prompt != got.Usage.Prompt || charge.Completion != got.Usage.Completion {
		t.Errorf("charge %+v, want %d nano-dollars", charge, want)
	}
	if charge.ClientID != "attempt-1" || charge.ReplyID != got.ID || charge.RequestID != response.Header.Get("X-Request-Id") || charge.Cut {
		t.Errorf("charge %+v does not name the request", charge)
	}
}

func TestTicketsAreAnsweredInTheSchemasShape(t *testing.T) {
	options, inputs, traffic := ticketOptions(5, 60)
	p, c := start(t, options)
	fields := traffic.Task.Fields
	for request := range traffic.Requests(inputs) {
		got := c.chat(string(request.Body))
		content := *got.Choices[0].Message.Content
		if !strings.HasPrefix(content, `{"category":`) {
			t.Errorf("fields out of order: %s", content)
		}
		if _, err := task.ParseAnswer(fields, []byte(content)); err != nil {
			t.Errorf("%s: %v", content, err)
		}
		if !sameOutput(parseOutput(t, content), request.Truth) {
			t.Errorf("answer %s, truth %v", content, request.Truth)
		}
	}
	if prompt := p.Bill()[0].Prompt; prompt < 300 || prompt > 900 {
		t.Errorf("a ticket's prompt has %d tokens, want some 500", prompt)
	}
}

func TestStreamSaysTheSameAndBillsTheSame(t *testing.T) {
	options, inputs, traffic := ticketOptions(6, 20)
	traffic.StreamShare = 1
	p, c := start(t, options)
	for request := range traffic.Requests(inputs) {
		chunks, done := c.stream(string(request.Body))
		if !done || len(chunks) < 4 {
			t.Fatalf("%d chunks, done %v", len(chunks), done)
		}
		content, last := "", chunks[len(chunks)-1]
		for _, chunk := range chunks[:len(chunks)-1] {
			content += chunk.Choices[0].Delta.Content
			if chunk.Usage != nil || chunk.Object != "chat.completion.chunk" {
				t.Errorf("chunk %+v", chunk)
			}
		}
		if chunks[0].Choices[0].Delta.Role != "assistant" || *chunks[len(chunks)-2].Choices[0].FinishReason != "stop" {
			t.Error("no role at the start or no finish reason at the end")
		}
		if !sameOutput(parseOutput(t, content), request.Truth) {
			t.Errorf("answer %s, truth %v", content, request.Truth)
		}
		charges := p.Bill()
		charge := charges[len(charges)-1]
		if last.Usage == nil || len(last.Choices) != 0 || last.Usage.Prompt != charge.Prompt || last.Usage.Completion != charge.Completion {
			t.Errorf("usage chunk %+v, charge %+v", last, charge)
		}
	}
}

func TestStreamWithoutIncludeUsageHasNone(t *testing.T) {
	_, c := start(t, Options{})
	chunks, done := c.stream(hello + `,"stream":true}`)
	for _, chunk := range chunks {
		if chunk.Usage != nil || len(chunk.Choices) == 0 {
			t.Errorf("chunk %+v", chunk)
		}
	}
	if !done {
		t.Error("no [DONE]")
	}
}

func TestMistakesComeAtTheirRateAndStay(t *testing.T) {
	n := 800
	if testing.Short() {
		n = 200
	}
	options, inputs, traffic := ticketOptions(8, n)
	options.MistakeRate = 0.1
	_, c := start(t, options)
	wrong, near, wrongCategory := 0, 0, 0
	for request := range traffic.Requests(inputs) {
		first := *c.chat(string(request.Body)).Choices[0].Message.Content
		out := parseOutput(t, first)
		if sameOutput(out, request.Truth) {
			continue
		}
		wrong++
		if again := *c.chat(string(request.Body)).Choices[0].Message.Content; again != first {
			t.Errorf("asked again, %s became %s", first, again)
		}
		if truth := request.Truth[sample.Category]; !truth.IsNull() && !out[sample.Category].Equal(truth) {
			wrongCategory++
			for _, name := range sample.Confusable(truth.Text()) {
				if out[sample.Category].Text() == name {
					near++
				}
			}
		}
	}
	t.Logf("%d of %d wrong, %d of them in the category", wrong, n, wrongCategory)
	if wrong < n/20 || wrong > n/6 {
		t.Errorf("%d of %d answers are wrong, want about %d", wrong, n, n/10)
	}
	if near != wrongCategory || near == 0 || near == wrong {
		t.Errorf("%d of %d wrong categories are confusable ones", near, wrongCategory)
	}
}

func TestNChoicesToolsAndLimits(t *testing.T) {
	_, c := start(t, Options{})
	if got := c.chat(hello + `,"n":3,"logprobs":true}`); len(got.Choices) != 3 || got.Choices[2].Index != 2 || got.Choices[0].Logprobs == nil {
		t.Errorf("n=3 with logprobs: %+v", got)
	}
	if got := c.chat(hello + `,"max_tokens":3}`); got.Usage.Completion != 3 || *got.Choices[0].FinishReason != "length" {
		t.Errorf("max_tokens=3: %+v", got)
	}
	const tools = `,"tools":[{"type":"function","function":{"name":"find_order","parameters":{"type":"object","properties":
		{"id":{"type":"string"},"count":{"type":"integer"}},"required":["id"]}}}]`
	got := c.chat(hello + tools + `}`)
	call := got.Choices[0].Message.ToolCalls
	var arguments struct {
		ID    string
		Count int
	}
	if len(call) != 1 || call[0].Function.Name != "find_order" || json.Unmarshal([]byte(call[0].Function.Arguments), &arguments) != nil ||
		arguments.ID == "" || *got.Choices[0].FinishReason != "tool_calls" || got.Choices[0].Message.Content != nil {
		t.Errorf("tools: %+v", got)
	}
	if got := c.chat(hello + tools + `,"tool_choice":"none"}`); len(got.Choices[0].Message.ToolCalls) != 0 {
		t.Errorf("tool_choice none: %+v", got)
	}
	chunks, _ := c.stream(hello + tools + `,"stream":true}`)
	streamed := ""
	for _, chunk := range chunks {
		for _, part := range chunk.Choices[0].Delta.ToolCalls {
			streamed += part.Function.Arguments
		}
	}
	if json.Unmarshal([]byte(streamed), &arguments) != nil {
		t.Errorf("streamed arguments %q", streamed)
	}
}

func TestLongRepeatedPrefixIsBilledAsCached(t *testing.T) {
	p, c := start(t, Options{})
	body := `{"model":"gpt-4o","messages":[{"role":"system","content":"` + strings.Repeat("many words of advice ", 500) + `"},{"role":"user","content":"hi"}]}`
	if first := c.chat(body); first.Usage.Details.Cached != 0 {
		t.Errorf("the first request read %d tokens from the cache", first.Usage.Details.Cached)
	}
	second := c.chat(body)
	cached := second.Usage.Details.Cached
	if cached < 1024 || cached%128 != 0 || cached > second.Usage.Prompt {
		t.Errorf("%d of %d tokens cached", cached, second.Usage.Prompt)
	}
	want := 2500*(second.Usage.Prompt-cached) + 1250*cached + 10000*second.Usage.Completion
	if got := p.Bill()[1].Amount; int64(got) != want {
		t.Errorf("charged %d, want %d", got, want)
	}
}

func TestErrorsHaveTheApisShape(t *testing.T) {
	p, c := start(t, Options{APIKey: "secret"})
	for _, test := range []struct {
		body, key string
		status    int
		code      string
	}{
		{hello + `}`, "wrong", 401, "invalid_api_key"},
		{`{"model":"gpt-9","messages":[{"role":"user","content":"x"}]}`, "secret", 404, "model_not_found"},
		{`{not json`, "secret", 400, ""},
		{`{"messages":[{"role":"user","content":"x"}]}`, "secret", 400, ""},
		{`{"model":"gpt-4o","messages":[]}`, "secret", 400, ""},
		{hello + `,"n":0}`, "secret", 400, ""},
		{hello + `,"n":"two"}`, "secret", 400, ""},
		{hello + `,"response_format":{"type":"json_schema"}}`, "secret", 400, ""},
		{strings.Repeat(" ", bodyBytesMax+1), "secret", 413, ""},
		{`{"model":"sim:no-such-fault","messages":[{"role":"user","content":"x"}]}`, "secret", 400, ""},
	} {
		response := c.post("/v1/chat/completions", test.body, "Authorization", "Bearer "+test.key)
		var got struct {
			Error *struct{ Message, Type, Code string }
		}
		raw := read(t, response)
		if response.StatusCode != test.status || json.Unmarshal(raw, &got) != nil || got.Error == nil || got.Error.Message == "" ||
			got.Error.Code != test.code {
			t.Errorf("%.60s: status %d, %s", test.body, response.StatusCode, raw)
		}
	}
	if response := c.post("/v1/nothing", "{}"); response.StatusCode != 404 {
		t.Errorf("unknown route: status %d", response.StatusCode)
	} else {
		read(t, response)
	}
	if n := len(p.Bill()); n != 0 {
		t.Errorf("%d refused requests were billed", n)
	}
}

func TestModelsAndEmbeddings(t *testing.T) {
	p, c := start(t, Options{})
	var list struct {
		Data []struct {
			ID      string
			OwnedBy string `json:"owned_by"`
		}
	}
	if err := json.Unmarshal(c.get("/v1/models"), &list); err != nil || len(list.Data) < 2 || list.Data[0].OwnedBy != "simulated" {
		t.Errorf("models: %+v, %v", list, err)
	}
	if got := c.get("/v1/models/gpt-4o"); !bytes.Contains(got, []byte(`"id":"gpt-4o"`)) {
		t.Errorf("model: %s", got)
	}
	var answer struct {
		Data  []struct{ Embedding []float64 }
		Usage usage
	}
	body := read(t, c.post("/v1/embeddings", `{"model":"text-embedding-3-small","input":["a","b","a"],"dimensions":8}`))
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data) != 3 || len(answer.Data[0].Embedding) != 8 || answer.Usage.Prompt != 3 {
		t.Fatalf("embeddings: %s", body)
	}
	norm := 0.0
	for i, x := range answer.Data[0].Embedding {
		norm += x * x
		if x != answer.Data[2].Embedding[i] {
			t.Error("the same text has two embeddings")
		}
	}
	if norm < 0.999 || norm > 1.001 {
		t.Errorf("an embedding's length is %v", norm)
	}
	if charge := p.Bill()[0]; charge.Amount != 60 {
		t.Errorf("3 tokens at $0.02 a million are charged at %d nano-dollars", charge.Amount)
	}
	for _, bad := range []string{`{"model":"text-embedding-3-small","input":[]}`, `{"model":"text-embedding-3-small","input":"x","dimensions":-1}`} {
		if response := c.post("/v1/embeddings", bad); response.StatusCode != 400 {
			t.Errorf("%s: status %d", bad, response.StatusCode)
		} else {
			read(t, response)
		}
	}
}

func TestBillOverHTTP(t *testing.T) {
	p, c := start(t, Options{})
	for range 3 {
		c.chat(hello + `}`)
	}
	var got struct {
		Simulated bool
		Requests  int
		Total     int64 `json:"total_nano_usd"`
		Charges   []Charge
	}
	if err := json.Unmarshal(c.get("/bill?after=1"), &got); err != nil || !got.Simulated || got.Requests != 3 || len(got.Charges) != 2 ||
		got.Total != int64(p.Total()) || got.Total == 0 {
		t.Errorf("bill %+v, %v", got, err)
	}
	if raw := c.get("/bill?after=x"); !bytes.Contains(raw, []byte("error")) {
		t.Errorf("after=x: %s", raw)
	}
}

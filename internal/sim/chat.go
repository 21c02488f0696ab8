package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// A chatRequest is the part of a chat completion request that the provider looks at.
type chatRequest struct {
	Model         string    `json:"model"`
	Messages      []message `json:"messages"`
	Stream        bool      `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Name   string          `json:"name"`
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
	N                   *int            `json:"n"`
	MaxTokens           *int64          `json:"max_tokens"`
	MaxCompletionTokens *int64          `json:"max_completion_tokens"`
	Logprobs            bool            `json:"logprobs"`
	ReasoningEffort     string          `json:"reasoning_effort"`
	Tools               json.RawMessage `json:"tools"`
	ToolChoice          json.RawMessage `json:"tool_choice"`
}

type message struct {
	Role      string            `json:"role"`
	Name      string            `json:"name,omitempty"`
	Content   json.RawMessage   `json:"content"`
	ToolCalls []json.RawMessage `json:"tool_calls,omitempty"`
}

type contentPart struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// text returns the message's text: the string, or the text parts joined.
func (m *message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var b strings.Builder
	for _, p := range m.parts() {
		b.WriteString(p.Text)
	}
	return b.String()
}

func (m *message) parts() []contentPart {
	var parts []contentPart
	_ = json.Unmarshal(m.Content, &parts) // what is neither text nor parts has no text
	return parts
}

func (m *message) images() int {
	n := 0
	for _, p := range m.parts() {
		if p.Type == "image_url" {
			n++
		}
	}
	return n
}

// A choice is one answer, cut into the tokens that a stream sends.
type choice struct {
	content string
	tool    *toolCall
	finish  string
	tokens  []string // of content, or of the tool call's arguments
	unsure  bool     // its log-probabilities give a mistake away
}

type toolCall struct {
	id, name, arguments string
}

// A reply is everything that is sent and billed for one chat request.
type reply struct {
	id        string
	created   int64
	model     string
	choices   []choice
	prompt    int64
	cached    int64
	reasoning int64
	logprobs  bool
}

// answer composes, bills and sends the answer to one request, in the dialect of its route.
func (p *Provider) answer(ctx context.Context, w http.ResponseWriter, call *call) *apiError {
	request, err := call.dialect.parse(call.body)
	if err != nil {
		return err
	}
	rates, err := p.check(request)
	if err != nil {
		return err
	}
	answer := p.compose(call, request)
	charge := Charge{RequestID: call.id, ClientID: clientID(call.request), ReplyID: answer.id, At: call.start, Route: call.dialect.route,
		Model: answer.model, Prompt: answer.prompt, Cached: answer.cached, Fault: call.fault.String()}
	w.Header().Set("Openai-Version", "2020-10-01")
	dice := rand.New(rand.NewPCG(call.seed, uint64(call.number)))
	if request.Stream && !call.fault.whole() {
		charge.Completion = answer.reasoning
		line := p.bill.open(rates, charge)
		s := &streamer{p: p, w: w, call: call, reply: answer, line: line, dice: dice, usage: request.StreamOptions.IncludeUsage}
		if !s.run(ctx) {
			line.markCut()
		}
		return nil
	}
	charge.Completion = answer.completion()
	line := p.bill.open(rates, charge)
	if !p.sendWhole(ctx, w, call, answer, dice) {
		line.markCut()
	}
	return nil
}

func clientID(r *http.Request) string {
	if id := r.Header.Get("X-Client-Request-Id"); id != "" {
		return id
	}
	return r.Header.Get("Idempotency-Key")
}

func parseChat(body []byte) (*chatRequest, *apiError) {
	request := &chatRequest{}
	if err := json.Unmarshal(body, request); err != nil {
		return nil, badRequest("", "Invalid type in the request: "+err.Error())
	}
	return request, nil
}

// check refuses what a real provider refuses, and finds the model's prices.
func (p *Provider) check(request *chatRequest) (Rates, *apiError) {
	if request.Model == "" {
		return Rates{}, badRequest("model", "you must provide a model parameter")
	}
	rates, err := p.rates(request.Model)
	if err != nil {
		return Rates{}, err
	}
	switch n := len(request.Messages); {
	case n == 0:
		return Rates{}, badRequest("messages", "Invalid 'messages': empty array. Expected an array with minimum length 1.")
	case n > messagesMax:
		return Rates{}, badRequest("messages", fmt.Sprintf("Invalid 'messages': more than %d.", messagesMax))
	case request.N != nil && (*request.N < 1 || *request.N > choicesMax):
		return Rates{}, badRequest("n", fmt.Sprintf("Invalid 'n': must be between 1 and %d.", choicesMax))
	case request.limit() < 1:
		return Rates{}, badRequest("max_tokens", "Invalid 'max_tokens': must be at least 1.")
	case request.ResponseFormat.Type == "json_schema" && len(request.ResponseFormat.JSONSchema.Schema) == 0:
		return Rates{}, badRequest("response_format", "Missing required parameter: 'response_format.json_schema.schema'.")
	}
	return rates, nil
}

// limit returns the most tokens that a choice may have.
func (r *chatRequest) limit() int64 {
	limit := int64(completionTokens)
	for _, given := range []*int64{r.MaxTokens, r.MaxCompletionTokens} {
		if given != nil {
			limit = min(limit, *given)
		}
	}
	return limit
}

// input returns the text of the last user message: what the oracle is asked about.
func (r *chatRequest) input() string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role == "user" {
			return r.Messages[i].text()
		}
	}
	return ""
}

// compose makes the whole answer before anything is sent.
func (p *Provider) compose(call *call, request *chatRequest) *reply {
	a := &reply{id: call.dialect.idPrefix + "sim_" + strings.TrimPrefix(call.id, "req_sim_"), created: call.start.Unix(), model: p.options.alias(request.Model),
		logprobs: request.Logprobs}
	a.prompt = p.counter.prompt(request)
	a.cached = p.prefix.cached(request, &p.counter, a.prompt)
	if e := request.ReasoningEffort; e != "" && e != "none" {
		a.reasoning = 64 + int64(call.seed%192)
	}
	count := 1
	if request.N != nil {
		count = *request.N
	}
	for i := range count {
		author := newAuthor(&p.options, call.seed+uint64(i), request.Model, request.input())
		a.choices = append(a.choices, p.choose(author, request))
	}
	return a
}

// choose writes one choice: a tool call where one is due, JSON where it is asked for, free text otherwise.
func (p *Provider) choose(a *author, request *chatRequest) choice {
	c := choice{finish: "stop"}
	if tool := request.dueTool(); tool != nil {
		c.finish = "tool_calls"
		c.tool = &toolCall{id: fmt.Sprintf("call_sim%016x", a.r.Uint64()), name: tool.Function.Name, arguments: a.json(tool.Function.Parameters)}
		c.tokens = p.counter.split(c.tool.arguments)
		return c
	}
	switch request.ResponseFormat.Type {
	case "json_schema":
		c.content = a.json(request.ResponseFormat.JSONSchema.Schema)
	case "json_object":
		c.content = a.looseJSON()
	default:
		c.content = a.text()
	}
	c.tokens, c.unsure = p.counter.split(c.content), a.unsure
	if limit := request.limit(); int64(len(c.tokens)) > limit {
		c.tokens, c.finish = c.tokens[:limit], "length"
		c.content = strings.Join(c.tokens, "")
	}
	return c
}

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name       string          `json:"name"`
		Parameters json.RawMessage `json:"parameters"`
	} `json:"function"`
}

// dueTool returns the tool that the answer must call: the one that tool_choice names, or the first one, unless the last
// message already is a tool's result or the choice is "none".
func (r *chatRequest) dueTool() *tool {
	var tools []tool
	if json.Unmarshal(r.Tools, &tools) != nil || len(tools) == 0 {
		return nil
	}
	var mode string
	_ = json.Unmarshal(r.ToolChoice, &mode)
	var named tool
	_ = json.Unmarshal(r.ToolChoice, &named)
	for i := range tools {
		if named.Function.Name != "" && tools[i].Function.Name == named.Function.Name {
			return &tools[i]
		}
	}
	if mode == "none" || mode != "required" && r.Messages[len(r.Messages)-1].Role == "tool" {
		return nil
	}
	return &tools[0]
}

// looseJSON answers "json_object": the oracle's fields by name, or a line of text.
func (a *author) looseJSON() string {
	if a.truth == nil {
		text, _ := json.Marshal(map[string]string{"answer": a.text()})
		return string(text)
	}
	text, _ := json.Marshal(a.truth)
	return string(text)
}

// completion returns the number of tokens that the whole answer is billed with.
func (a *reply) completion() int64 {
	total := a.reasoning
	for i := range a.choices {
		total += a.choices[i].billed()
	}
	return total
}

// toolNameTokens is what a tool call costs beyond its arguments.
const toolNameTokens = 8

func (c *choice) billed() int64 {
	n := int64(len(c.tokens))
	if c.tool != nil {
		n += toolNameTokens
	}
	return n
}

func (a *reply) usage(completion int64) object {
	return object{
		{"prompt_tokens", a.prompt}, {"completion_tokens", completion}, {"total_tokens", a.prompt + completion},
		{"prompt_tokens_details", object{{"cached_tokens", a.cached}, {"audio_tokens", 0}}},
		{"completion_tokens_details", object{{"reasoning_tokens", a.reasoning}, {"audio_tokens", 0},
			{"accepted_prediction_tokens", 0}, {"rejected_prediction_tokens", 0}}},
	}
}

// sendWhole answers without streaming. It reports whether everything was sent.
func (p *Provider) sendWhole(ctx context.Context, w http.ResponseWriter, call *call, a *reply, dice *rand.Rand) bool {
	l := p.options.Latency
	delay := l.draw(dice, l.FirstToken)
	for range a.completion() {
		delay += l.draw(dice, l.PerToken)
	}
	if !wait(ctx, delay) {
		return false
	}
	w.Header().Set("Openai-Processing-Ms", fmt.Sprint(time.Since(call.start).Milliseconds()))
	body := encode(call.dialect.whole(a))
	if call.fault.Kind != "" {
		return p.failWhole(ctx, w, call, a, body)
	}
	writeJSON(w, http.StatusOK, body)
	return ctx.Err() == nil
}

// object is the reply in the shape of a chat completion.
func (a *reply) object() object {
	choices := make([]object, len(a.choices))
	for i, c := range a.choices {
		message := object{{"role", "assistant"}, {"content", c.content}, {"refusal", nil}, {"annotations", []any{}}}
		if c.tool != nil {
			message.set("content", nil)
			message.set("tool_calls", []any{c.tool.object()})
		}
		choices[i] = object{{"index", i}, {"message", message}, {"logprobs", a.logprobsOf(c.tokens, c.unsure)}, {"finish_reason", c.finish}}
	}
	return object{{"id", a.id}, {"object", "chat.completion"}, {"created", a.created}, {"model", a.model}, {"choices", choices},
		{"usage", a.usage(a.completion())}, {"service_tier", "default"}, {"system_fingerprint", systemFingerprint}}
}

func (t *toolCall) object() object {
	return object{{"id", t.id}, {"type", "function"}, {"function", object{{"name", t.name}, {"arguments", t.arguments}}}}
}

// logprobsOf gives every token the same log-probability, and a lower one where the model is to know of its mistake: a simulated
// model has none of its own.
func (a *reply) logprobsOf(tokens []string, unsure bool) any {
	if !a.logprobs {
		return nil
	}
	each := -0.01
	if unsure {
		each = -0.5
	}
	content := make([]object, len(tokens))
	for i, t := range tokens {
		content[i] = object{{"token", t}, {"logprob", each}, {"bytes", byteList(t)}, {"top_logprobs", []any{}}}
	}
	return object{{"content", content}, {"refusal", nil}}
}

func byteList(s string) []int {
	list := make([]int, len(s))
	for i := range len(s) {
		list[i] = int(s[i])
	}
	return list
}

package openai

import (
	"encoding/json"
	"fmt"
	"strings"
)

// MessagesToChat translates the body of a POST /v1/messages into a chat completion request: system prompt, text, images, tools and
// their results, stop sequences, sampling and the answer's schema. cache_control asks for nothing that changes an answer and is
// left out; anything else that a chat has no word for is an *Error.
func MessagesToChat(body []byte) ([]byte, error) {
	in := strictly(body, "", "OpenAI's chat completions")
	out := object{}
	var model string
	in.get("model", &model)
	out["model"] = model
	copyMembers(in, out, map[string]string{"temperature": "temperature", "top_p": "top_p", "stop_sequences": "stop"})
	var limit int64
	if in.get("max_tokens", &limit) {
		out[limitName(model)] = limit
	}
	var stream bool
	if in.get("stream", &stream) && stream {
		out["stream"], out["stream_options"] = true, object{"include_usage": true}
	}
	var metadata json.RawMessage
	if in.get("metadata", &metadata) {
		m := strictly(metadata, "metadata", in.into)
		var user string
		if m.get("user_id", &user) {
			out["user"] = user
		}
		in.merge(m.check())
	}
	in.neutral("thinking", `{"type":"disabled"}`)
	in.neutral("service_tier", `"auto"`, `"standard_only"`)
	in.neutral("mcp_servers", "[]")
	delete(in.left, "cache_control")
	messageFormat(in, out)
	messageTools(in, out)
	messages := messageSystem(in)
	var turns []json.RawMessage
	in.get("messages", &turns)
	for i, raw := range turns {
		messages = append(messages, messageTurn(in, raw, fmt.Sprintf("messages[%d]", i), i == len(turns)-1)...)
	}
	out["messages"] = messages
	if err := in.check(); err != nil {
		return nil, err
	}
	return mustJSON(out), nil
}

// copyMembers takes members over under their names in the other API.
func copyMembers(in *strict, out object, names map[string]string) {
	for from, to := range names {
		var raw json.RawMessage
		if in.get(from, &raw) {
			out[to] = raw
		}
	}
}

// limitName is what a chat's bound on the answer is called: OpenAI's reasoning models refuse the older name, and other servers do
// not know the newer one.
func limitName(model string) string {
	if strings.HasPrefix(model, "gpt-5") || len(model) > 1 && model[0] == 'o' && model[1] >= '1' && model[1] <= '9' {
		return "max_completion_tokens"
	}
	return "max_tokens"
}

// messageFormat translates the answer's format.
func messageFormat(in *strict, out object) {
	var raw, format json.RawMessage
	if in.get("output_config", &raw) {
		config := strictly(raw, "output_config", in.into)
		config.get("format", &format)
		in.merge(config.check())
	}
	if in.get("output_format", &raw) { // as the beta wrote it
		format = raw
	}
	if format == nil {
		return
	}
	f := strictly(format, "output_config.format", in.into)
	var kind string
	var schema json.RawMessage
	if f.get("type", &kind); kind != "json_schema" {
		f.fail("type", "it is not json_schema")
	}
	f.get("schema", &schema)
	in.merge(f.check())
	out["response_format"] = object{"type": "json_schema", "json_schema": object{"name": "answer", "strict": true, "schema": schema}}
}

func messageTools(in *strict, out object) {
	var tools []json.RawMessage
	if in.get("tools", &tools) && len(tools) > 0 {
		list := make([]object, len(tools))
		for i, raw := range tools {
			list[i] = messageTool(in, raw, fmt.Sprintf("tools[%d]", i))
		}
		out["tools"] = list
	}
	var choice json.RawMessage
	if !in.get("tool_choice", &choice) {
		return
	}
	c := strictly(choice, "tool_choice", in.into)
	var kind, name string
	var single bool
	c.get("type", &kind)
	c.get("name", &name)
	if c.get("disable_parallel_tool_use", &single) && single {
		out["parallel_tool_calls"] = false
	}
	switch kind {
	case "auto", "none":
		out["tool_choice"] = kind
	case "any":
		out["tool_choice"] = "required"
	case "tool":
		out["tool_choice"] = object{"type": "function", "function": object{"name": name}}
	default:
		c.fail("type", "it is none of auto, any, tool and none")
	}
	in.merge(c.check())
}

func messageTool(in *strict, raw json.RawMessage, at string) object {
	t := strictly(raw, at, in.into)
	t.neutral("type", `"custom"`)
	function := object{}
	copyMembers(t, function, map[string]string{"name": "name", "description": "description", "input_schema": "parameters", "strict": "strict"})
	delete(t.left, "cache_control")
	in.merge(t.check())
	return object{"type": "function", "function": function}
}

// messageSystem is the system prompt as a chat's first message.
func messageSystem(in *strict) []object {
	var raw json.RawMessage
	if !in.get("system", &raw) {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []object{{"role": "system", "content": one}}
	}
	var blocks []json.RawMessage
	if json.Unmarshal(raw, &blocks) != nil {
		in.fail("system", "it is neither a text nor a list of texts")
	}
	var texts []string
	for i, block := range blocks {
		b := strictly(block, fmt.Sprintf("system[%d]", i), in.into)
		texts = append(texts, textBlock(b))
		in.merge(b.check())
	}
	return []object{{"role": "system", "content": strings.Join(texts, "\n")}}
}

// textBlock reads a block that must be text.
func textBlock(b *strict) (said string) {
	b.neutral("type", `"text"`)
	b.neutral("citations", "[]")
	b.get("text", &said)
	delete(b.left, "cache_control")
	return said
}

// messageTurn translates one turn: tool results become messages of their own, before the rest.
func messageTurn(in *strict, raw json.RawMessage, at string, last bool) (turns []object) {
	m := strictly(raw, at, in.into)
	var role string
	var content json.RawMessage
	m.get("role", &role)
	m.get("content", &content)
	if role != "user" && role != "assistant" {
		m.fail("role", "it is neither user nor assistant")
	}
	if last && role == "assistant" {
		m.fail("", "no answer can be made to begin with given words; end with a user's turn")
	}
	var one string
	if json.Unmarshal(content, &one) == nil {
		in.merge(m.check())
		return []object{{"role": role, "content": one}}
	}
	var blocks []json.RawMessage
	if json.Unmarshal(content, &blocks) != nil {
		m.fail("content", "it is neither a text nor a list of blocks")
	}
	var parts, calls []object
	for i, raw := range blocks {
		b := strictly(raw, fmt.Sprintf("%s.content[%d]", at, i), in.into)
		var kind string
		if raw := b.left["type"]; raw != nil {
			_ = json.Unmarshal(raw, &kind) // anything else is an unknown type
		}
		switch {
		case kind == "text":
			parts = append(parts, object{"type": "text", "text": textBlock(b)})
		case kind == "image" && role == "user":
			parts = append(parts, imageBlock(b))
		case kind == "tool_use" && role == "assistant":
			calls = append(calls, toolUse(b))
		case kind == "tool_result" && role == "user":
			turns = append(turns, toolResult(b))
		default:
			b.fail("type", "a block of the type '"+kind+"' has no counterpart")
		}
		in.merge(b.check())
	}
	in.merge(m.check())
	return append(turns, chatTurn(role, parts, calls)...)
}

// chatTurn is what is left of a turn as a message.
func chatTurn(role string, parts, calls []object) []object {
	if len(parts)+len(calls) == 0 {
		return nil
	}
	turn := object{"role": role, "content": nil}
	switch {
	case len(parts) == 1 && parts[0]["type"] == "text":
		turn["content"] = parts[0]["text"]
	case len(parts) > 0:
		turn["content"] = parts
	}
	if len(calls) > 0 {
		turn["tool_calls"] = calls
	}
	return []object{turn}
}

func imageBlock(b *strict) object {
	delete(b.left, "type")
	delete(b.left, "cache_control")
	var source json.RawMessage
	b.get("source", &source)
	s := strictly(source, b.path("source"), b.into)
	var kind, media, data, address string
	s.get("type", &kind)
	s.get("media_type", &media)
	s.get("data", &data)
	s.get("url", &address)
	switch kind {
	case "base64":
		address = "data:" + media + ";base64," + data
	case "url":
	default:
		s.fail("type", "it is neither base64 nor url")
	}
	b.merge(s.check())
	return object{"type": "image_url", "image_url": object{"url": address}}
}

func toolUse(b *strict) object {
	delete(b.left, "type")
	delete(b.left, "cache_control")
	var id, name string
	var input json.RawMessage
	b.get("id", &id)
	b.get("name", &name)
	if !b.get("input", &input) {
		input = json.RawMessage("{}")
	}
	return toolCall(id, name, string(input))
}

// toolResult is a tool's answer. That it is an error is said in words: a chat has no mark for it.
func toolResult(b *strict) object {
	delete(b.left, "type")
	delete(b.left, "cache_control")
	var id, said string
	var failed bool
	b.get("tool_use_id", &id)
	b.get("is_error", &failed)
	if raw, ok := b.left["content"]; ok && json.Unmarshal(raw, &said) != nil {
		var blocks []json.RawMessage
		var texts []string
		if json.Unmarshal(raw, &blocks) != nil {
			b.fail("content", "it is neither a text nor a list of texts")
		}
		for i, block := range blocks {
			one := strictly(block, fmt.Sprintf("%s.content[%d]", b.at, i), b.into)
			texts = append(texts, textBlock(one))
			b.merge(one.check())
		}
		said = strings.Join(texts, "\n")
	}
	delete(b.left, "content")
	if failed {
		said = "Error: " + said
	}
	return object{"role": "tool", "tool_call_id": id, "content": said}
}

// stopReasons are Anthropic's words for why a chat's model stops.
var stopReasons = map[string]string{"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}

func stopReason(finish *string, refused bool) any {
	switch {
	case refused:
		return "refusal"
	case finish == nil:
		return nil
	}
	if reason, ok := stopReasons[*finish]; ok {
		return reason
	}
	return "end_turn"
}

// message is the usage in Anthropic's words, which count cached tokens apart; nil where it is not known, so that nobody takes it
// for zero.
func (u *chatUsage) message() any {
	if u == nil {
		return nil
	}
	written := u.written()
	return object{"input_tokens": u.Prompt - u.Details.Cached - written, "cache_read_input_tokens": u.Details.Cached,
		"cache_creation_input_tokens": written, "output_tokens": u.Completion}
}

// ChatToMessage translates a chat completion into an Anthropic message.
func ChatToMessage(body []byte) ([]byte, error) {
	r, err := readChat(body)
	if err != nil {
		return nil, err
	}
	said := r.Choices[0].Message
	content := []object{}
	if s := text(said.Content) + text(said.Refusal); s != "" {
		content = append(content, object{"type": "text", "text": s})
	}
	for _, c := range said.ToolCalls {
		input := json.RawMessage(c.Function.Arguments)
		if len(input) == 0 {
			input = json.RawMessage("{}")
		}
		if !json.Valid(input) {
			return nil, fmt.Errorf("openai: the arguments of the tool call %s are no JSON", c.ID)
		}
		content = append(content, object{"type": "tool_use", "id": c.ID, "name": c.Function.Name, "input": input})
	}
	return mustJSON(object{"id": "msg_" + r.ID, "type": "message", "role": "assistant", "model": r.Model, "content": content,
		"stop_reason": stopReason(r.Choices[0].Finish, text(said.Refusal) != ""), "stop_sequence": nil, "usage": r.Usage.message()}), nil
}

// ChatErrorToMessage translates an error's body into Anthropic's words; any other body stays as it is.
func ChatErrorToMessage(status int, body []byte) []byte {
	var in chatReply
	if json.Unmarshal(body, &in) != nil || in.Error == nil {
		return body
	}
	e := Error{Status: status, Type: in.Error.Type, Message: in.Error.Message}
	return e.Append(nil, Messages)
}

// A chatToMessageStream translates the chunks of a chat into Anthropic's events.
type chatToMessageStream struct {
	begun, ended bool
	block        int // blocks begun
	open         string
	call         int // index of the tool call that is open
	finish       *string
	refused      bool
	usage        *chatUsage
}

func (s *chatToMessageStream) Event(dst, data []byte) []byte {
	if Done(data) {
		return s.End(dst)
	}
	var r chatReply
	if s.ended || json.Unmarshal(data, &r) != nil {
		return dst
	}
	if r.Error != nil {
		s.ended = true
		e := Error{Status: 502, Type: r.Error.Type, Message: r.Error.Message}
		return e.AppendEvent(dst, Messages)
	}
	if !s.begun {
		s.begun = true
		dst = appendTyped(dst, "message_start", `"message":`+string(mustJSON(object{"id": "msg_" + r.ID, "type": "message", "role": "assistant",
			"model": r.Model, "content": []object{}, "stop_reason": nil, "stop_sequence": nil, "usage": object{"input_tokens": 0, "output_tokens": 0}})))
	}
	if r.Usage != nil {
		s.usage = r.Usage
	}
	if len(r.Choices) == 0 {
		return dst
	}
	delta := r.Choices[0].Delta
	s.refused = s.refused || text(delta.Refusal) != ""
	if said := text(delta.Content) + text(delta.Refusal); said != "" {
		dst = s.begin(dst, "text", object{"type": "text", "text": ""}, 0)
		dst = s.delta(dst, object{"type": "text_delta", "text": said})
	}
	for _, c := range delta.ToolCalls {
		dst = s.begin(dst, "tool_use", object{"type": "tool_use", "id": c.ID, "name": c.Function.Name, "input": object{}}, c.Index)
		if c.Function.Arguments != "" {
			dst = s.delta(dst, object{"type": "input_json_delta", "partial_json": c.Function.Arguments})
		}
	}
	if r.Choices[0].Finish != nil {
		s.finish = r.Choices[0].Finish
	}
	return dst
}

// begin opens a block, unless it is the open one.
func (s *chatToMessageStream) begin(dst []byte, kind string, block object, call int) []byte {
	if s.open == kind && (kind == "text" || s.call == call) {
		return dst
	}
	dst = s.closeBlock(dst)
	s.open, s.call = kind, call
	return appendTyped(dst, "content_block_start", fmt.Sprintf(`"index":%d,"content_block":%s`, s.block, mustJSON(block)))
}

func (s *chatToMessageStream) delta(dst []byte, delta object) []byte {
	return appendTyped(dst, "content_block_delta", fmt.Sprintf(`"index":%d,"delta":%s`, s.block, mustJSON(delta)))
}

func (s *chatToMessageStream) closeBlock(dst []byte) []byte {
	if s.open == "" {
		return dst
	}
	s.open = ""
	s.block++
	return appendTyped(dst, "content_block_stop", fmt.Sprintf(`"index":%d`, s.block-1))
}

// End says why the model stopped and what it billed. A stream that stopped for no reason was cut, and gets no end.
func (s *chatToMessageStream) End(dst []byte) []byte {
	if s.ended || s.finish == nil {
		return dst
	}
	s.ended = true
	dst = s.closeBlock(dst)
	usage := s.usage.message()
	if usage == nil {
		usage = object{} // its absence would end the official clients
	}
	dst = appendTyped(dst, "message_delta", fmt.Sprintf(`"delta":%s,"usage":%s`,
		mustJSON(object{"stop_reason": stopReason(s.finish, s.refused), "stop_sequence": nil}), mustJSON(usage)))
	return appendTyped(dst, "message_stop", "")
}

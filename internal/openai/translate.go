package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// defaultMaxTokens is sent to Anthropic, whose API demands a limit, when a chat sets none.
const defaultMaxTokens = 8192

type object = map[string]any

// ChatToMessages translates the body of a chat completion request into one for Anthropic's messages: text, images, tools, stop
// sequences, sampling and the answer's schema. What that API has no word for is an *Error that names the member.
func ChatToMessages(body []byte) ([]byte, error) {
	in := strictly(body, "", "Anthropic's messages")
	out := object{"max_tokens": defaultMaxTokens}
	copyMembers(in, out, map[string]string{"model": "model", "top_p": "top_p"})
	var limit int64
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if in.get(name, &limit) && limit > 0 {
			out["max_tokens"] = limit
		}
	}
	chatSampling(in, out)
	for name, values := range chatDefaults {
		in.neutral(name, values...)
	}
	var user string
	for _, name := range []string{"user", "safety_identifier"} {
		if in.get(name, &user) && user != "" {
			out["metadata"] = object{"user_id": user}
		}
	}
	chatFormat(in, out)
	chatTools(in, out)
	var messages []json.RawMessage
	in.get("messages", &messages)
	addTurns(in, out, messages)
	if err := in.check(); err != nil {
		return nil, err
	}
	return mustJSON(out), nil
}

// chatDefaults are values of members that ask for nothing.
var chatDefaults = map[string][]string{"n": {"1"}, "logprobs": {"false"}, "top_logprobs": {"0"}, "frequency_penalty": {"0", "0.0"},
	"presence_penalty": {"0", "0.0"}, "logit_bias": {"{}"}, "store": {"false"}, "service_tier": {`"auto"`, `"default"`}, "modalities": {`["text"]`},
	"functions": {"[]"}, "function_call": {`"none"`, `"auto"`}, "verbosity": {`"medium"`}, "metadata": {"{}"}, "reasoning_effort": {`"none"`}}

// chatSampling translates what is said of one answer's making.
func chatSampling(in *strict, out object) {
	var stream bool
	if in.get("stream", &stream) && stream {
		out["stream"] = true
	}
	var options json.RawMessage
	if in.get("stream_options", &options) {
		o := strictly(options, "stream_options", in.into)
		delete(o.left, "include_usage") // the translation adds it
		o.neutral("include_obfuscation", "false")
		in.merge(o.check())
	}
	var temperature float64
	if in.get("temperature", &temperature) {
		if out["temperature"] = temperature; temperature > 1 {
			in.fail("temperature", "it goes up to 1 there")
		}
	}
	var stop json.RawMessage
	if !in.get("stop", &stop) {
		return
	}
	var one string
	var many []string
	if json.Unmarshal(stop, &one) == nil {
		many = []string{one}
	} else if json.Unmarshal(stop, &many) != nil {
		in.fail("stop", "it is neither a text nor a list of texts")
	}
	if len(many) > 0 {
		out["stop_sequences"] = many
	}
}

// chatFormat translates the answer's format.
func chatFormat(in *strict, out object) {
	var raw, inner, schema json.RawMessage
	if !in.get("response_format", &raw) {
		return
	}
	f := strictly(raw, "response_format", in.into)
	var kind string
	f.get("type", &kind)
	switch kind {
	case "text":
	case "json_schema":
		f.get("json_schema", &inner)
		s := strictly(inner, "response_format.json_schema", in.into)
		delete(s.left, "name")   // answers do not show it
		delete(s.left, "strict") // it always is there
		if !s.get("schema", &schema) {
			s.fail("schema", "it is missing")
		}
		s.neutral("description", `""`)
		in.merge(s.check())
		out["output_config"] = object{"format": object{"type": "json_schema", "schema": schema}}
	default:
		f.fail("type", "there is no such format")
	}
	in.merge(f.check())
}

func chatTools(in *strict, out object) {
	var tools []json.RawMessage
	if in.get("tools", &tools) && len(tools) > 0 {
		list := make([]object, len(tools))
		for i, raw := range tools {
			list[i] = chatTool(in, raw, fmt.Sprintf("tools[%d]", i))
		}
		out["tools"] = list
	}
	var raw json.RawMessage
	choice := object{}
	if in.get("tool_choice", &raw) {
		choice = toolChoice(in, raw)
	}
	parallel := true
	if in.get("parallel_tool_calls", &parallel) && !parallel {
		if choice["type"] == nil {
			choice["type"] = "auto"
		}
		choice["disable_parallel_tool_use"] = true
	}
	if len(choice) > 0 && out["tools"] != nil {
		out["tool_choice"] = choice
	}
}

func toolChoice(in *strict, raw json.RawMessage) object {
	var word, name string
	if json.Unmarshal(raw, &word) == nil {
		kind, ok := map[string]string{"auto": "auto", "none": "none", "required": "any"}[word]
		if !ok {
			in.fail("tool_choice", "it is none of auto, none and required")
		}
		return object{"type": kind}
	}
	c := strictly(raw, "tool_choice", in.into)
	c.neutral("type", `"function"`)
	var function json.RawMessage
	c.get("function", &function)
	f := strictly(function, "tool_choice.function", in.into)
	f.get("name", &name)
	in.merge(c.check())
	in.merge(f.check())
	return object{"type": "tool", "name": name}
}

func chatTool(in *strict, raw json.RawMessage, at string) object {
	t := strictly(raw, at, in.into)
	t.neutral("type", `"function"`)
	var function json.RawMessage
	t.get("function", &function)
	in.merge(t.check())
	f := strictly(function, at+".function", in.into)
	tool := object{"input_schema": json.RawMessage(`{"type":"object"}`)}
	f.neutral("strict", "false")
	copyMembers(f, tool, map[string]string{"name": "name", "description": "description", "parameters": "input_schema", "strict": "strict"})
	in.merge(f.check())
	return tool
}

// addTurns translates the messages. Anthropic wants the system prompt apart, and tool results in a user's turn.
func addTurns(in *strict, out object, messages []json.RawMessage) {
	var system []string
	turns := []object{}
	for i, raw := range messages {
		m := strictly(raw, fmt.Sprintf("messages[%d]", i), in.into)
		var role, call string
		m.get("role", &role)
		m.neutral("name", `""`)
		var content json.RawMessage
		m.get("content", &content)
		blocks := contentBlocks(m, content)
		switch role {
		case "system", "developer":
			for _, b := range blocks {
				if text, ok := b["text"].(string); ok {
					system = append(system, text)
				} else {
					m.fail("content", "a system prompt is text")
				}
			}
		case "tool":
			m.get("tool_call_id", &call)
			result := object{"type": "tool_result", "tool_use_id": call}
			if len(blocks) > 0 { // a tool that gave nothing has no content, not one of null
				result["content"] = blocks
			}
			turns = appendTurn(turns, "user", result)
		case "assistant":
			turns = appendTurn(turns, role, append(blocks, assistantBlocks(m)...)...)
		case "user":
			turns = appendTurn(turns, role, blocks...)
		default:
			m.fail("role", "the role '"+role+"' is not known")
		}
		in.merge(m.check())
	}
	if system != nil {
		out["system"] = strings.Join(system, "\n\n")
	}
	out["messages"] = turns
}

// assistantBlocks are what a model said beside its text.
func assistantBlocks(m *strict) (blocks []object) {
	var refusal string
	if m.get("refusal", &refusal) && refusal != "" {
		blocks = append(blocks, object{"type": "text", "text": refusal})
	}
	m.neutral("annotations", "[]")
	m.neutral("audio", "{}")
	var calls []json.RawMessage
	m.get("tool_calls", &calls)
	for i, raw := range calls {
		c := strictly(raw, fmt.Sprintf("%s.tool_calls[%d]", m.at, i), m.into)
		c.neutral("type", `"function"`)
		delete(c.left, "index")
		var id, name, arguments string
		var function json.RawMessage
		c.get("id", &id)
		c.get("function", &function)
		f := strictly(function, c.path("function"), m.into)
		f.get("name", &name)
		f.get("arguments", &arguments)
		if arguments == "" {
			arguments = "{}"
		}
		if !json.Valid([]byte(arguments)) {
			f.fail("arguments", "they are no JSON")
			arguments = "{}"
		}
		m.merge(c.check())
		m.merge(f.check())
		blocks = append(blocks, object{"type": "tool_use", "id": id, "name": name, "input": json.RawMessage(arguments)})
	}
	return blocks
}

// appendTurn joins turns of one role: Anthropic takes them in alternation.
func appendTurn(turns []object, role string, blocks ...object) []object {
	if len(blocks) == 0 {
		return turns
	}
	if n := len(turns); n > 0 && turns[n-1]["role"] == role {
		turns[n-1]["content"] = append(turns[n-1]["content"].([]object), blocks...)
		return turns
	}
	return append(turns, object{"role": role, "content": blocks})
}

// contentBlocks translates the content of a chat's message.
func contentBlocks(m *strict, raw json.RawMessage) (blocks []object) {
	var one string
	if raw == nil {
		return nil
	}
	if json.Unmarshal(raw, &one) == nil {
		if one == "" {
			return nil
		}
		return []object{{"type": "text", "text": one}}
	}
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil {
		m.fail("content", "it is neither a text nor a list of parts")
	}
	for i, raw := range parts {
		p := strictly(raw, fmt.Sprintf("%s.content[%d]", m.at, i), m.into)
		var kind, said, address string
		var image json.RawMessage
		switch p.get("type", &kind); kind {
		case "text", "refusal":
			p.get(kind, &said)
			blocks = append(blocks, object{"type": "text", "text": said})
		case "image_url":
			p.get("image_url", &image)
			u := strictly(image, p.path("image_url"), m.into)
			u.get("url", &address)
			u.neutral("detail", `"auto"`)
			p.merge(u.check())
			blocks = append(blocks, object{"type": "image", "source": imageSource(address)})
		default:
			p.fail("type", "a part of the type '"+kind+"' has no counterpart")
		}
		m.merge(p.check())
	}
	return blocks
}

func imageSource(url string) object {
	kind, data, ok := strings.Cut(strings.TrimPrefix(url, "data:"), ";base64,")
	if ok && strings.HasPrefix(url, "data:") {
		return object{"type": "base64", "media_type": kind, "data": data}
	}
	return object{"type": "url", "url": url}
}

// A message is Anthropic's reply.
type message struct {
	ID         string `json:"id"`
	Model      string `json:"model"`
	StopReason string `json:"stop_reason"`
	Content    []struct {
		Type, Text, ID, Name string
		Input                json.RawMessage
	} `json:"content"`
	Usage messageUsage `json:"usage"`
}

type messageUsage struct {
	Input      *int64 `json:"input_tokens"`
	Output     *int64 `json:"output_tokens"`
	CacheRead  int64  `json:"cache_read_input_tokens"`
	CacheWrite int64  `json:"cache_creation_input_tokens"`
}

// chat is the usage in the shape of a chat; nil where the counts are missing, so that nobody takes them for zero.
func (u messageUsage) chat() object {
	if u.Input == nil || u.Output == nil {
		return nil
	}
	input := *u.Input + u.CacheRead + u.CacheWrite
	return object{"prompt_tokens": input, "completion_tokens": *u.Output, "total_tokens": input + *u.Output,
		"prompt_tokens_details": object{"cached_tokens": u.CacheRead}, "cache_creation_input_tokens": u.CacheWrite}
}

// finishReasons are the chat's words for why Anthropic's models stop.
var finishReasons = map[string]string{"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
	"refusal": "content_filter", "pause_turn": "stop", "model_context_window_exceeded": "length"}

func finishReason(stop string) any {
	if reason, ok := finishReasons[stop]; ok {
		return reason
	}
	if stop == "" {
		return nil
	}
	return "stop"
}

// MessageToChat translates Anthropic's reply into a chat completion.
func MessageToChat(body []byte, created int64) ([]byte, error) {
	var m message
	if err := json.Unmarshal(body, &m); err != nil || m.ID == "" {
		return nil, errors.New("openai: the reply is no Anthropic message")
	}
	var text strings.Builder
	var calls []object
	for _, block := range m.Content {
		switch block.Type {
		case "text":
			text.WriteString(block.Text)
		case "tool_use":
			calls = append(calls, toolCall(block.ID, block.Name, string(block.Input)))
		}
	}
	said := object{"role": "assistant", "content": nil, "refusal": nil}
	if text.Len() > 0 {
		said["content"] = text.String()
	}
	if calls != nil {
		said["tool_calls"] = calls
	}
	return json.Marshal(object{"id": m.ID, "object": "chat.completion", "created": created, "model": m.Model, "usage": m.Usage.chat(),
		"choices": []object{{"index": 0, "message": said, "logprobs": nil, "finish_reason": finishReason(m.StopReason)}}})
}

func toolCall(id, name, arguments string) object {
	return object{"id": id, "type": "function", "function": object{"name": name, "arguments": arguments}}
}

// MessageErrorToChat translates Anthropic's error body; any other body stays as it is.
func MessageErrorToChat(status int, body []byte) []byte {
	var in struct {
		Error *struct{ Type, Message string }
	}
	if json.Unmarshal(body, &in) != nil || in.Error == nil {
		return body
	}
	e := Error{Status: status, Type: in.Error.Type, Code: in.Error.Type, Message: in.Error.Message}
	return e.Append(nil, Chat)
}

// A MessageStream translates the events of Anthropic's stream into those of a chat, one at a time.
type MessageStream struct {
	Created      int64
	IncludeUsage bool // the chat asked for usage

	id, model string
	usage     messageUsage
	calls     int    // tool calls begun
	input     string // of the call that is open, should it say nothing of its arguments; "" where none is
}

// Event translates one event's data and appends what it becomes, often nothing.
func (s *MessageStream) Event(dst, data []byte) []byte {
	var e struct {
		Type         string
		Message      message
		ContentBlock struct {
			Type, ID, Name string
			Input          json.RawMessage
		} `json:"content_block"`
		Delta struct {
			Type, Text  string
			PartialJSON string `json:"partial_json"`
			StopReason  string `json:"stop_reason"`
		}
		Usage messageUsage
		Error *struct{ Type, Message string }
	}
	if json.Unmarshal(data, &e) != nil {
		return dst
	}
	switch {
	case e.Error != nil:
		failed := Error{Status: 502, Type: e.Error.Type, Code: e.Error.Type, Message: e.Error.Message}
		return failed.AppendEvent(dst, Chat)
	case e.Type == "message_start":
		s.id, s.model, s.usage = e.Message.ID, e.Message.Model, e.Message.Usage
		return s.chunk(dst, object{"role": "assistant", "content": "", "refusal": nil}, nil)
	case e.Type == "content_block_start" && e.ContentBlock.Type == "tool_use":
		call := toolCall(e.ContentBlock.ID, e.ContentBlock.Name, "")
		call["index"] = s.calls
		s.calls++
		s.input = cmp.Or(string(e.ContentBlock.Input), "{}")
		return s.chunk(dst, object{"tool_calls": []object{call}}, nil)
	case e.Delta.Type == "text_delta":
		return s.chunk(dst, object{"content": e.Delta.Text}, nil)
	case e.Delta.Type == "input_json_delta" && s.calls > 0:
		if e.Delta.PartialJSON != "" {
			s.input = ""
		}
		return s.arguments(dst, e.Delta.PartialJSON)
	case e.Type == "content_block_stop" && s.input != "": // of a tool that takes nothing, of which Anthropic says nothing
		said := s.input
		s.input = ""
		return s.arguments(dst, said)
	case e.Type == "message_delta":
		s.seeUsage(e.Usage)
		return s.chunk(dst, object{}, finishReason(e.Delta.StopReason))
	case e.Type == "message_stop":
		return s.end(dst)
	}
	return dst
}

// arguments adds to those of the tool call that is open.
func (s *MessageStream) arguments(dst []byte, piece string) []byte {
	return s.chunk(dst, object{"tool_calls": []object{{"index": s.calls - 1, "function": object{"arguments": piece}}}}, nil)
}

// seeUsage takes the counts of a message_delta, which are those of the whole message so far.
func (s *MessageStream) seeUsage(u messageUsage) {
	if u.Output != nil {
		s.usage.Output = u.Output
	}
	if u.Input != nil {
		s.usage.Input, s.usage.CacheRead, s.usage.CacheWrite = u.Input, u.CacheRead, u.CacheWrite
	}
}

// End adds nothing: a stream that ends without Anthropic's end mark was cut.
func (s *MessageStream) End(dst []byte) []byte { return dst }

func (s *MessageStream) end(dst []byte) []byte {
	if usage := s.usage.chat(); s.IncludeUsage && usage != nil {
		dst = s.event(dst, object{"choices": []object{}, "usage": usage})
	}
	return append(dst, "data: [DONE]\n\n"...)
}

func (s *MessageStream) chunk(dst []byte, delta object, finish any) []byte {
	return s.event(dst, object{"choices": []object{{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}}})
}

func (s *MessageStream) event(dst []byte, chunk object) []byte {
	chunk["id"], chunk["object"], chunk["created"], chunk["model"] = s.id, "chat.completion.chunk", s.Created, s.model
	data, err := json.Marshal(chunk)
	if err != nil {
		panic("openai: a chunk does not encode: " + err.Error()) // strings and whole numbers always do
	}
	return AppendEvent(dst, data)
}

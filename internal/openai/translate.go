package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// defaultMaxTokens is sent to Anthropic, whose API demands a limit, when a chat sets none.
const defaultMaxTokens = 8192

type object = map[string]any

// ChatToMessages translates the body of a chat completion request into one for Anthropic's messages: text, images, tools,
// stop sequences, sampling and the answer's schema. What that API has no word for is an *Error.
func ChatToMessages(body []byte) ([]byte, error) {
	var in struct {
		Model               string          `json:"model"`
		Messages            []chatMessage   `json:"messages"`
		MaxTokens           int64           `json:"max_tokens"`
		MaxCompletionTokens int64           `json:"max_completion_tokens"`
		Stream              bool            `json:"stream"`
		Temperature         *float64        `json:"temperature"`
		TopP                *float64        `json:"top_p"`
		Stop                json.RawMessage `json:"stop"`
		N                   int             `json:"n"`
		Tools               []chatTool      `json:"tools"`
		ToolChoice          json.RawMessage `json:"tool_choice"`
		ResponseFormat      json.RawMessage `json:"response_format"`
		User                string          `json:"user"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, BadRequest("", "The request cannot be translated for Anthropic: "+err.Error()+".")
	}
	if in.N > 1 {
		return nil, BadRequest("n", "This model gives one answer a request: n must be 1.")
	}
	limit := max(in.MaxTokens, in.MaxCompletionTokens)
	if limit == 0 {
		limit = defaultMaxTokens
	}
	out := object{"model": in.Model, "max_tokens": limit}
	if in.Stream {
		out["stream"] = true
	}
	if in.Temperature != nil {
		out["temperature"] = min(*in.Temperature, 1)
	}
	if in.TopP != nil {
		out["top_p"] = *in.TopP
	}
	if in.User != "" {
		out["metadata"] = object{"user_id": in.User}
	}
	if stop := oneOrMany(in.Stop); len(stop) > 0 {
		out["stop_sequences"] = stop
	}
	var format struct {
		JSONSchema struct{ Schema json.RawMessage } `json:"json_schema"`
	}
	if err := json.Unmarshal(orNull(in.ResponseFormat), &format); err == nil && format.JSONSchema.Schema != nil {
		out["output_config"] = object{"format": object{"type": "json_schema", "schema": format.JSONSchema.Schema}}
	}
	addTools(out, in.Tools, in.ToolChoice)
	if err := addTurns(out, in.Messages); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

func oneOrMany(raw json.RawMessage) (many []string) {
	var one string
	if raw != nil && json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}
	}
	_ = json.Unmarshal(orNull(raw), &many) // anything else is no stop sequence
	return many
}

type chatMessage struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"`
	ToolCallID string          `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string
		Function struct{ Name, Arguments string }
	} `json:"tool_calls"`
}

type chatTool struct {
	Function struct {
		Name, Description string
		Parameters        json.RawMessage
	}
}

func addTools(out object, tools []chatTool, choice json.RawMessage) {
	var list []object
	for _, t := range tools {
		tool := object{"name": t.Function.Name, "input_schema": json.RawMessage(`{"type":"object"}`)}
		if t.Function.Parameters != nil {
			tool["input_schema"] = t.Function.Parameters
		}
		if t.Function.Description != "" {
			tool["description"] = t.Function.Description
		}
		list = append(list, tool)
	}
	if list == nil {
		return
	}
	out["tools"] = list
	var word string
	var named struct{ Function struct{ Name string } }
	switch {
	case json.Unmarshal(orNull(choice), &word) == nil && word == "required":
		out["tool_choice"] = object{"type": "any"}
	case word == "none":
		out["tool_choice"] = object{"type": "none"}
	case json.Unmarshal(orNull(choice), &named) == nil && named.Function.Name != "":
		out["tool_choice"] = object{"type": "tool", "name": named.Function.Name}
	}
}

// addTurns translates the messages. Anthropic wants the system prompt apart, and tool results in a user's turn.
func addTurns(out object, messages []chatMessage) error {
	var system []string
	turns := []object{}
	for i, m := range messages {
		blocks, err := contentBlocks(m.Content)
		if err != nil {
			return BadRequest(fmt.Sprintf("messages[%d].content", i), "The content cannot be translated for Anthropic: "+err.Error()+".")
		}
		switch m.Role {
		case "system", "developer":
			for _, b := range blocks {
				if text, ok := b["text"].(string); ok {
					system = append(system, text)
				}
			}
			continue
		case "tool":
			turns = appendTurn(turns, "user", object{"type": "tool_result", "tool_use_id": m.ToolCallID, "content": blocks})
			continue
		case "assistant":
			for _, c := range m.ToolCalls {
				input := json.RawMessage(c.Function.Arguments)
				if !json.Valid(input) {
					input = json.RawMessage("{}")
				}
				blocks = append(blocks, object{"type": "tool_use", "id": c.ID, "name": c.Function.Name, "input": input})
			}
		case "user":
		default:
			return BadRequest(fmt.Sprintf("messages[%d].role", i), "The role "+m.Role+" is not known.")
		}
		turns = appendTurn(turns, m.Role, blocks...)
	}
	if system != nil {
		out["system"] = strings.Join(system, "\n\n")
	}
	out["messages"] = turns
	return nil
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

func contentBlocks(raw json.RawMessage) ([]object, error) {
	var text string
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	if json.Unmarshal(raw, &text) == nil {
		if text == "" {
			return nil, nil
		}
		return []object{{"type": "text", "text": text}}, nil
	}
	var parts []struct {
		Type, Text string
		ImageURL   struct{ URL string } `json:"image_url"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, errors.New("it is neither a text nor a list of parts")
	}
	var blocks []object
	for _, p := range parts {
		switch p.Type {
		case "text":
			blocks = append(blocks, object{"type": "text", "text": p.Text})
		case "image_url":
			blocks = append(blocks, object{"type": "image", "source": imageSource(p.ImageURL.URL)})
		default:
			return nil, fmt.Errorf("it has a part of type %q", p.Type)
		}
	}
	return blocks, nil
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
	calls     int // tool calls begun
}

// Event translates one event's data and appends what it becomes, often nothing.
func (s *MessageStream) Event(dst, data []byte) []byte {
	var e struct {
		Type         string
		Message      message
		ContentBlock struct{ Type, ID, Name string } `json:"content_block"`
		Delta        struct {
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
		return s.chunk(dst, object{"tool_calls": []object{call}}, nil)
	case e.Delta.Type == "text_delta":
		return s.chunk(dst, object{"content": e.Delta.Text}, nil)
	case e.Delta.Type == "input_json_delta" && s.calls > 0:
		return s.chunk(dst, object{"tool_calls": []object{{"index": s.calls - 1, "function": object{"arguments": e.Delta.PartialJSON}}}}, nil)
	case e.Type == "message_delta":
		s.seeUsage(e.Usage)
		return s.chunk(dst, object{}, finishReason(e.Delta.StopReason))
	case e.Type == "message_stop":
		return s.end(dst)
	}
	return dst
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

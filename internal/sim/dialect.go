package sim

import (
	"context"
	"encoding/json"
	"net/http"
)

// A dialect is one of the wire formats in which the same answer is asked for and given.
type dialect struct {
	route    string
	idPrefix string
	parse    func(body []byte) (*chatRequest, *apiError)
	whole    func(*reply) object // the reply that is not streamed
	stream   func(context.Context, *streamer)
	failure  func(*apiError) []byte
}

var chatDialect = dialect{route: "/v1/chat/completions", idPrefix: "chatcmpl-", parse: parseChat, whole: (*reply).object, stream: streamChat,
	failure: (*apiError).body}

var responsesDialect = dialect{route: "/v1/responses", idPrefix: "resp_", parse: parseResponses, whole: wholeResponse, stream: streamResponse,
	failure: (*apiError).body}

var messagesDialect = dialect{route: "/v1/messages", idPrefix: "msg_", parse: parseMessages, whole: wholeMessage, stream: streamMessage,
	failure: messagesFailure}

// event sends one named event.
func (s *streamer) event(ctx context.Context, name string, o object) {
	s.raw(ctx, "event: "+name+"\ndata: "+string(encode(o))+"\n\n")
}

// chatTools writes tools the way a chat completion request has them.
func chatTools(named []namedTool) json.RawMessage {
	if len(named) == 0 {
		return nil
	}
	var list []object
	for _, t := range named {
		parameters := t.Parameters
		if len(parameters) == 0 {
			parameters = t.InputSchema
		}
		list = append(list, object{{"type", "function"}, {"function", object{{"name", t.Name}, {"parameters", parameters}}}})
	}
	return encode(list)
}

// A namedTool is a tool of the Responses API, with Parameters, or of the Messages API, with InputSchema.
type namedTool struct {
	Name        string          `json:"name"`
	Parameters  json.RawMessage `json:"parameters"`
	InputSchema json.RawMessage `json:"input_schema"`
}

func textMessage(role, text string) message { return message{Role: role, Content: encode(text)} }

// parseResponses reads a request to the Responses API as the chat completion that asks for the same.
func parseResponses(body []byte) (*chatRequest, *apiError) {
	var r struct {
		Model        string          `json:"model"`
		Instructions string          `json:"instructions"`
		Input        json.RawMessage `json:"input"`
		Stream       bool            `json:"stream"`
		Max          *int64          `json:"max_output_tokens"`
		Text         struct {
			Format struct {
				Type   string          `json:"type"`
				Name   string          `json:"name"`
				Schema json.RawMessage `json:"schema"`
			} `json:"format"`
		} `json:"text"`
		Reasoning struct {
			Effort string `json:"effort"`
		} `json:"reasoning"`
		Tools      []namedTool     `json:"tools"`
		ToolChoice json.RawMessage `json:"tool_choice"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, badRequest("", "Invalid type in the request: "+err.Error())
	}
	request := &chatRequest{Model: r.Model, Stream: r.Stream, MaxTokens: r.Max, ReasoningEffort: r.Reasoning.Effort, Tools: chatTools(r.Tools)}
	request.ResponseFormat.Type = r.Text.Format.Type
	request.ResponseFormat.JSONSchema.Name, request.ResponseFormat.JSONSchema.Schema = r.Text.Format.Name, r.Text.Format.Schema
	var choice namedTool
	if json.Unmarshal(r.ToolChoice, &choice) == nil && choice.Name != "" {
		r.ToolChoice = encode(object{{"function", object{{"name", choice.Name}}}})
	}
	request.ToolChoice = r.ToolChoice
	if r.Instructions != "" {
		request.Messages = append(request.Messages, textMessage("system", r.Instructions))
	}
	input, err := responsesInput(r.Input)
	request.Messages = append(request.Messages, input...)
	return request, err
}

func responsesInput(raw json.RawMessage) ([]message, *apiError) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []message{textMessage("user", text)}, nil
	}
	var items []struct {
		message
		Type      string          `json:"type"`
		Arguments string          `json:"arguments"`
		Output    json.RawMessage `json:"output"`
	}
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, badRequest("input", "Invalid type for 'input': expected a string or a list of items.")
	}
	var messages []message
	for _, item := range items {
		switch item.Type {
		case "function_call":
			messages = append(messages, textMessage("assistant", item.Arguments))
		case "function_call_output":
			messages = append(messages, message{Role: "tool", Content: item.Output})
		default:
			messages = append(messages, item.message)
		}
	}
	return messages, nil
}

// wholeResponse is the reply as a response object.
func wholeResponse(a *reply) object {
	output := []object{}
	for i := range a.choices {
		output = append(output, a.outputItem(&a.choices[i], "completed"))
	}
	return a.response("completed", output).with("usage", a.responsesUsage())
}

func (a *reply) responsesUsage() object {
	completion := a.completion()
	return object{{"input_tokens", a.prompt}, {"input_tokens_details", object{{"cached_tokens", a.cached}, {"cache_write_tokens", 0}}}, {"output_tokens", completion},
		{"output_tokens_details", object{{"reasoning_tokens", a.reasoning}}}, {"total_tokens", a.prompt + completion}}
}

// response is a response object without its usage.
func (a *reply) response(status string, output []object) object {
	return object{{"id", a.id}, {"object", "response"}, {"created_at", a.created}, {"status", status}, {"background", false}, {"error", nil},
		{"incomplete_details", nil}, {"instructions", nil}, {"max_output_tokens", nil}, {"model", a.model}, {"output", output},
		{"parallel_tool_calls", true}, {"previous_response_id", nil}, {"reasoning", object{{"effort", nil}, {"summary", nil}}},
		{"service_tier", "default"}, {"store", false}, {"temperature", 1.0}, {"text", object{{"format", object{{"type", "text"}}}}},
		{"tool_choice", "auto"}, {"tools", []any{}}, {"top_p", 1.0}, {"truncation", "disabled"}, {"metadata", object{}}}
}

func (a *reply) outputItem(c *choice, status string) object {
	if c.tool != nil {
		return object{{"id", "fc_" + c.tool.id}, {"type", "function_call"}, {"status", status}, {"arguments", c.tool.arguments},
			{"call_id", c.tool.id}, {"name", c.tool.name}}
	}
	return object{{"id", "msg_" + a.id}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", []object{textPart(c.content)}}}
}

func textPart(text string) object {
	return object{{"type", "output_text"}, {"annotations", []any{}}, {"logprobs", []any{}}, {"text", text}}
}

// streamResponse sends the events of a response in the order in which the real API does.
func streamResponse(ctx context.Context, s *streamer) {
	number, a := -1, s.reply
	send := func(name string, o object) {
		number++
		s.event(ctx, name, append(object{{"type", name}, {"sequence_number", number}}, o...))
	}
	send("response.created", object{{"response", a.response("in_progress", []object{}).with("usage", nil)}})
	send("response.in_progress", object{{"response", a.response("in_progress", []object{}).with("usage", nil)}})
	for i := range a.choices {
		s.responseItem(ctx, i, send)
	}
	if s.dead {
		return
	}
	whole := wholeResponse(a)
	s.call.fault.spoilUsage(&whole)
	switch s.call.fault.Kind {
	case NoDone:
	case ErrorEvent:
		send("error", object{{"code", "server_error"}, {"message", "The server had an error while processing your request."}, {"param", nil}})
	default:
		send("response.completed", object{{"response", whole}})
	}
}

func (s *streamer) responseItem(ctx context.Context, i int, send func(string, object)) {
	a, c := s.reply, &s.reply.choices[i]
	item := a.outputItem(c, "in_progress")
	id := item.get("id")
	at := object{{"item_id", id}, {"output_index", i}}
	if c.tool != nil {
		item.set("arguments", "")
		send("response.output_item.added", object{{"output_index", i}, {"item", item}})
		if !s.tokens(ctx, c, func(t string) { send("response.function_call_arguments.delta", at.with("delta", t)) }) {
			return
		}
		send("response.function_call_arguments.done", at.with("arguments", c.tool.arguments))
	} else {
		at = at.with("content_index", 0)
		item.set("content", []any{})
		send("response.output_item.added", object{{"output_index", i}, {"item", item}})
		send("response.content_part.added", at.with("part", textPart("")))
		if !s.tokens(ctx, c, func(t string) { send("response.output_text.delta", at.with("delta", t).with("logprobs", []any{})) }) {
			return
		}
		send("response.output_text.done", at.with("text", c.content).with("logprobs", []any{}))
		send("response.content_part.done", at.with("part", textPart(c.content)))
	}
	send("response.output_item.done", object{{"output_index", i}, {"item", a.outputItem(c, "completed")}})
}

// parseMessages reads a request to the Messages API as the chat completion that asks for the same.
func parseMessages(body []byte) (*chatRequest, *apiError) {
	var r struct {
		Model      string          `json:"model"`
		System     json.RawMessage `json:"system"`
		Messages   []message       `json:"messages"`
		Stream     bool            `json:"stream"`
		Max        *int64          `json:"max_tokens"`
		Tools      []namedTool     `json:"tools"`
		ToolChoice struct {
			Type string `json:"type"`
			Name string `json:"name"`
		} `json:"tool_choice"`
		Output struct {
			Format struct {
				Type   string          `json:"type"`
				Schema json.RawMessage `json:"schema"`
			} `json:"format"`
		} `json:"output_config"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, badRequest("", "Invalid type in the request: "+err.Error())
	}
	if r.Max == nil {
		return nil, badRequest("max_tokens", "max_tokens: Field required")
	}
	request := &chatRequest{Model: r.Model, Stream: r.Stream, MaxTokens: r.Max, Tools: chatTools(r.Tools)}
	request.ResponseFormat.Type, request.ResponseFormat.JSONSchema.Schema = r.Output.Format.Type, r.Output.Format.Schema
	switch r.ToolChoice.Type {
	case "none":
		request.ToolChoice = encode("none")
	case "any":
		request.ToolChoice = encode("required")
	case "tool":
		request.ToolChoice = encode(object{{"function", object{{"name", r.ToolChoice.Name}}}})
	}
	if len(r.System) > 0 {
		request.Messages = append(request.Messages, message{Role: "system", Content: r.System})
	}
	for _, m := range r.Messages {
		for _, part := range m.parts() {
			if part.Type == "tool_result" {
				m.Role = "tool"
			}
		}
		request.Messages = append(request.Messages, m)
	}
	return request, nil
}

func stopReason(c *choice) string {
	switch c.finish {
	case "length":
		return "max_tokens"
	case "tool_calls":
		return "tool_use"
	}
	return "end_turn"
}

func (a *reply) messagesUsage(completion int64) object {
	return object{{"input_tokens", a.prompt - a.cached}, {"cache_creation_input_tokens", 0}, {"cache_read_input_tokens", a.cached},
		{"output_tokens", completion}, {"service_tier", "standard"}}
}

// message is a message object without content.
func (a *reply) message(stop any, completion int64) object {
	return object{{"id", a.id}, {"type", "message"}, {"role", "assistant"}, {"model", a.model}, {"content", []object{}}, {"stop_reason", stop},
		{"stop_sequence", nil}, {"usage", a.messagesUsage(completion)}}
}

// wholeMessage is the reply as a message object.
func wholeMessage(a *reply) object {
	c := &a.choices[0]
	block := object{{"type", "text"}, {"text", c.content}}
	if c.tool != nil {
		block = object{{"type", "tool_use"}, {"id", c.tool.id}, {"name", c.tool.name}, {"input", json.RawMessage(c.tool.arguments)}}
	}
	m := a.message(stopReason(c), a.completion())
	m.set("content", []object{block})
	return m
}

// streamMessage sends the events of a message in the order in which the real API does.
func streamMessage(ctx context.Context, s *streamer) {
	a, c := s.reply, &s.reply.choices[0]
	s.event(ctx, "message_start", object{{"type", "message_start"}, {"message", a.message(nil, 1)}})
	block := object{{"type", "text"}, {"text", ""}}
	if c.tool != nil {
		block = object{{"type", "tool_use"}, {"id", c.tool.id}, {"name", c.tool.name}, {"input", object{}}}
	}
	s.event(ctx, "content_block_start", object{{"type", "content_block_start"}, {"index", 0}, {"content_block", block}})
	s.event(ctx, "ping", object{{"type", "ping"}})
	whole := s.tokens(ctx, c, func(token string) {
		delta := object{{"type", "text_delta"}, {"text", token}}
		if c.tool != nil {
			delta = object{{"type", "input_json_delta"}, {"partial_json", token}}
		}
		s.event(ctx, "content_block_delta", object{{"type", "content_block_delta"}, {"index", 0}, {"delta", delta}})
	})
	if !whole {
		return
	}
	s.event(ctx, "content_block_stop", object{{"type", "content_block_stop"}, {"index", 0}})
	if s.call.fault.Kind == ErrorEvent {
		s.event(ctx, "error", object{{"type", "error"}, {"error", object{{"type", "overloaded_error"}, {"message", "Overloaded"}}}})
		return
	}
	last := object{{"type", "message_delta"}, {"delta", object{{"stop_reason", stopReason(c)}, {"stop_sequence", nil}}},
		{"usage", a.messagesUsage(a.completion())}}
	s.call.fault.spoilUsage(&last)
	s.event(ctx, "message_delta", last)
	if s.call.fault.Kind != NoDone {
		s.event(ctx, "message_stop", object{{"type", "message_stop"}})
	}
}

// messagesFailure is an error in the shape of the Messages API.
func messagesFailure(e *apiError) []byte {
	kinds := map[int]string{http.StatusBadRequest: "invalid_request_error", http.StatusUnauthorized: "authentication_error",
		http.StatusForbidden: "permission_error", http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large",
		http.StatusTooManyRequests: "rate_limit_error", 529: "overloaded_error"}
	kind := kinds[e.status]
	if kind == "" {
		kind = "api_error"
	}
	return encode(object{{"type", "error"}, {"error", object{{"type", kind}, {"message", e.message}}}})
}

package openai

import (
	"encoding/json"
	"fmt"
)

// ResponsesToChat translates the body of a POST /v1/responses into a chat completion request: text, images, function tools and
// their results, sampling and the answer's schema. echo are members that a response repeats of its request. What needs a memory of
// earlier responses, or what a chat has no word for, is an *Error that names the member.
func ResponsesToChat(body []byte) (chat []byte, echo map[string]json.RawMessage, err error) {
	in := strictly(body, "", "a provider without responses")
	echo = map[string]json.RawMessage{}
	for _, name := range []string{"instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "temperature", "text", "tool_choice", "tools", "top_p", "user"} {
		if raw, ok := in.left[name]; ok {
			echo[name] = raw
		}
	}
	out := object{}
	copyMembers(in, out, map[string]string{"model": "model", "temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_completion_tokens",
		"user": "user", "safety_identifier": "safety_identifier", "parallel_tool_calls": "parallel_tool_calls"})
	delete(in.left, "metadata") // it comes back in the response, which is all that it is for
	for name, values := range responsesDefaults {
		in.neutral(name, values...)
	}
	var stream bool
	if in.get("stream", &stream) && stream {
		out["stream"], out["stream_options"] = true, object{"include_usage": true}
	}
	responsesFormat(in, out)
	responsesTools(in, out)
	var messages []object
	var instructions string
	if in.get("instructions", &instructions) {
		messages = append(messages, object{"role": "system", "content": instructions})
	}
	out["messages"] = append(messages, responsesInput(in)...)
	if err := in.check(); err != nil {
		return nil, nil, err
	}
	return mustJSON(out), echo, nil
}

// responsesDefaults are values of members that ask for nothing.
var responsesDefaults = map[string][]string{"store": {"false"}, "background": {"false"}, "include": {"[]"}, "truncation": {`"disabled"`},
	"service_tier": {`"auto"`, `"default"`}, "top_logprobs": {"0"}, "stream_options": {"{}", `{"include_obfuscation":false}`},
	"reasoning": {"{}", `{"effort":"none"}`, `{"effort":null,"summary":null}`}}

func responsesFormat(in *strict, out object) {
	var raw, format, schema json.RawMessage
	if !in.get("text", &raw) {
		return
	}
	t := strictly(raw, "text", in.into)
	t.neutral("verbosity", `"medium"`)
	if t.get("format", &format) {
		f := strictly(format, "text.format", in.into)
		var kind, name string
		f.get("type", &kind)
		f.get("name", &name)
		switch kind {
		case "text":
		case "json_schema":
			f.get("schema", &schema)
			delete(f.left, "strict")
			out["response_format"] = object{"type": kind, "json_schema": object{"name": name, "strict": true, "schema": schema}}
		default:
			f.fail("type", "there is no such format")
		}
		f.neutral("description", `""`)
		t.merge(f.check())
	}
	in.merge(t.check())
}

func responsesTools(in *strict, out object) {
	var tools []json.RawMessage
	if in.get("tools", &tools) && len(tools) > 0 {
		list := make([]object, len(tools))
		for i, raw := range tools {
			t := strictly(raw, fmt.Sprintf("tools[%d]", i), in.into)
			t.neutral("type", `"function"`)
			function := object{}
			copyMembers(t, function, map[string]string{"name": "name", "description": "description", "parameters": "parameters", "strict": "strict"})
			in.merge(t.check())
			list[i] = object{"type": "function", "function": function}
		}
		out["tools"] = list
	}
	var raw json.RawMessage
	if !in.get("tool_choice", &raw) {
		return
	}
	var word, name string
	if json.Unmarshal(raw, &word) == nil {
		out["tool_choice"] = word
		return
	}
	c := strictly(raw, "tool_choice", in.into)
	c.neutral("type", `"function"`)
	c.get("name", &name)
	in.merge(c.check())
	out["tool_choice"] = object{"type": "function", "function": object{"name": name}}
}

// responsesInput translates the input: a text, or a list of items.
func responsesInput(in *strict) (messages []object) {
	var raw json.RawMessage
	var one string
	if !in.get("input", &raw) {
		in.fail("input", "it is missing")
		return nil
	}
	if json.Unmarshal(raw, &one) == nil {
		return []object{{"role": "user", "content": one}}
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		in.fail("input", "it is neither a text nor a list of items")
	}
	for i, raw := range items {
		item := strictly(raw, fmt.Sprintf("input[%d]", i), in.into)
		kind := "message"
		item.get("type", &kind)
		delete(item.left, "id")
		delete(item.left, "status")
		switch kind {
		case "message":
			messages = append(messages, responsesMessage(item))
		case "function_call":
			var id, name, arguments string
			item.get("call_id", &id)
			item.get("name", &name)
			item.get("arguments", &arguments)
			call := toolCall(id, name, arguments)
			if n := len(messages); n > 0 && messages[n-1]["role"] == "assistant" { // calls of one turn are one message
				calls, _ := messages[n-1]["tool_calls"].([]object)
				messages[n-1]["tool_calls"] = append(calls, call)
				break
			}
			messages = append(messages, object{"role": "assistant", "content": nil, "tool_calls": []object{call}})
		case "function_call_output":
			var id string
			var output json.RawMessage
			item.get("call_id", &id)
			item.get("output", &output)
			messages = append(messages, object{"role": "tool", "tool_call_id": id, "content": responsesContent(item, output, "output")})
		default:
			item.fail("type", "an item of the type '"+kind+"' has no counterpart")
		}
		in.merge(item.check())
	}
	return messages
}

func responsesMessage(item *strict) object {
	var role string
	var content json.RawMessage
	item.get("role", &role)
	item.get("content", &content)
	return object{"role": role, "content": responsesContent(item, content, "content")}
}

// responsesContent translates a text or a list of parts.
func responsesContent(item *strict, raw json.RawMessage, member string) any {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one
	}
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil {
		item.fail(member, "it is neither a text nor a list of parts")
	}
	list := make([]object, 0, len(parts))
	for i, raw := range parts {
		p := strictly(raw, fmt.Sprintf("%s[%d]", item.path(member), i), item.into)
		var kind, said, address string
		switch p.get("type", &kind); kind {
		case "input_text", "output_text":
			p.get("text", &said)
			p.neutral("annotations", "[]")
			p.neutral("logprobs", "[]")
			list = append(list, object{"type": "text", "text": said})
		case "refusal":
			p.get("refusal", &said)
			list = append(list, object{"type": "text", "text": said})
		case "input_image":
			p.get("image_url", &address)
			p.neutral("detail", `"auto"`)
			list = append(list, object{"type": "image_url", "image_url": object{"url": address}})
		default:
			p.fail("type", "a part of the type '"+kind+"' has no counterpart")
		}
		item.merge(p.check())
	}
	return list
}

// A responseFrame is what a response says beside its output.
type responseFrame struct {
	created int64
	echo    map[string]json.RawMessage
}

// response is a response object.
func (f *responseFrame) response(id, model, status string, output []object, incomplete any, usage *chatUsage) object {
	r := object{"id": "resp_" + id, "object": "response", "created_at": f.created, "status": status, "background": false, "error": nil,
		"incomplete_details": incomplete, "instructions": nil, "max_output_tokens": nil, "max_tool_calls": nil, "model": model, "output": output,
		"parallel_tool_calls": true, "previous_response_id": nil, "reasoning": object{"effort": nil, "summary": nil}, "service_tier": "default",
		"store": false, "temperature": 1.0, "text": object{"format": object{"type": "text"}}, "tool_choice": "auto", "tools": []object{},
		"top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": usage.response(), "user": nil, "metadata": object{}}
	for name, raw := range f.echo {
		if string(raw) != "null" {
			r[name] = raw
		}
	}
	return r
}

// response is the usage in the words of responses; nil where it is not known.
func (u *chatUsage) response() any {
	if u == nil {
		return nil
	}
	return object{"input_tokens": u.Prompt, "input_tokens_details": object{"cached_tokens": u.Details.Cached, "cache_write_tokens": u.written()}, "output_tokens": u.Completion,
		"output_tokens_details": object{"reasoning_tokens": u.Output.Reasoning}, "total_tokens": u.Prompt + u.Completion}
}

// lastStatus is how a response ended, by why the model stopped.
func lastStatus(finish *string) (status string, incomplete any) {
	switch text(finish) {
	case "length":
		return "incomplete", object{"reason": "max_output_tokens"}
	case "content_filter":
		return "incomplete", object{"reason": "content_filter"}
	}
	return "completed", nil
}

// whole translates a chat completion into a response.
func (f *responseFrame) whole(body []byte) ([]byte, error) {
	r, err := readChat(body)
	if err != nil {
		return nil, err
	}
	said := r.Choices[0].Message
	s := &chatToResponseStream{frame: f, id: r.ID, model: r.Model, usage: r.Usage, finish: r.Choices[0].Finish}
	s.refused = text(said.Refusal) != ""
	if words := text(said.Content) + text(said.Refusal); words != "" {
		s.items = append(s.items, responseItem{text: words, refusal: s.refused})
	}
	for _, c := range said.ToolCalls {
		s.items = append(s.items, responseItem{tool: true, id: c.ID, name: c.Function.Name, text: c.Function.Arguments})
	}
	return mustJSON(s.last()), nil
}

// A responseItem is a message or a function call of a response.
type responseItem struct {
	tool     bool
	refusal  bool
	id, name string
	call     int
	text     string // or arguments
}

func (i *responseItem) object(s *chatToResponseStream, at int, status string) object {
	if i.tool {
		return object{"id": s.itemID(at), "type": "function_call", "status": status, "call_id": i.id, "name": i.name, "arguments": i.text}
	}
	content := []object{}
	if i.text != "" {
		content = append(content, i.part(i.text))
	}
	return object{"id": s.itemID(at), "type": "message", "status": status, "role": "assistant", "content": content}
}

func (i *responseItem) part(text string) object {
	if i.refusal {
		return object{"type": "refusal", "refusal": text}
	}
	return object{"type": "output_text", "text": text, "annotations": []object{}, "logprobs": []object{}}
}

// A chatToResponseStream translates the chunks of a chat into the events of a response.
type chatToResponseStream struct {
	frame       *responseFrame
	id, model   string
	number      int
	begun, over bool
	open        bool // the last item is not done
	refused     bool
	items       []responseItem
	finish      *string
	usage       *chatUsage
}

func (s *chatToResponseStream) itemID(at int) string {
	if s.items[at].tool {
		return fmt.Sprintf("fc_%s_%d", s.id, at)
	}
	return fmt.Sprintf("msg_%s_%d", s.id, at)
}

func (s *chatToResponseStream) send(dst []byte, kind string, event object) []byte {
	event["type"], event["sequence_number"] = kind, s.number
	s.number++
	dst = append(dst, "event: "+kind+"\n"...)
	return AppendEvent(dst, mustJSON(event))
}

func (s *chatToResponseStream) output(status string) []object {
	output := make([]object, len(s.items))
	for i := range s.items {
		output[i] = s.items[i].object(s, i, status)
	}
	return output
}

// last is the response at its end.
func (s *chatToResponseStream) last() object {
	status, incomplete := lastStatus(s.finish)
	return s.frame.response(s.id, s.model, status, s.output(status), incomplete, s.usage)
}

func (s *chatToResponseStream) Event(dst, data []byte) []byte {
	if Done(data) {
		return s.End(dst)
	}
	var r chatReply
	if s.over || json.Unmarshal(data, &r) != nil {
		return dst
	}
	if r.Error != nil {
		s.over = true
		e := Error{Status: 502, Type: r.Error.Type, Message: r.Error.Message}
		return e.AppendEvent(dst, Responses)
	}
	if !s.begun {
		s.begun, s.id, s.model = true, r.ID, r.Model
		for _, kind := range []string{"response.created", "response.in_progress"} {
			dst = s.send(dst, kind, object{"response": s.frame.response(s.id, s.model, "in_progress", []object{}, nil, nil)})
		}
	}
	if r.Usage != nil {
		s.usage = r.Usage
	}
	if len(r.Choices) == 0 {
		return dst
	}
	delta := r.Choices[0].Delta
	if words := text(delta.Content); words != "" {
		dst = s.say(dst, responseItem{}, words)
	}
	if words := text(delta.Refusal); words != "" {
		dst = s.say(dst, responseItem{refusal: true}, words)
	}
	for _, c := range delta.ToolCalls {
		dst = s.say(dst, responseItem{tool: true, call: c.Index, id: c.ID, name: c.Function.Name}, c.Function.Arguments)
	}
	if r.Choices[0].Finish != nil {
		s.finish = r.Choices[0].Finish
	}
	return dst
}

// say adds words to the item that is open, or opens another one.
func (s *chatToResponseStream) say(dst []byte, to responseItem, words string) []byte {
	if n := len(s.items); !s.open || s.items[n-1].tool != to.tool || s.items[n-1].refusal != to.refusal || to.tool && s.items[n-1].call != to.call {
		dst = s.closeItem(dst)
		s.items, s.open = append(s.items, to), true
		item := &s.items[len(s.items)-1]
		dst = s.send(dst, "response.output_item.added", object{"output_index": len(s.items) - 1, "item": item.object(s, len(s.items)-1, "in_progress")})
		if !to.tool {
			dst = s.send(dst, "response.content_part.added", s.at(object{"part": item.part("")}))
		}
	}
	item := &s.items[len(s.items)-1]
	item.text += words
	if words == "" {
		return dst
	}
	return s.send(dst, item.kind()+".delta", s.at(object{"delta": words}))
}

// kind is what the events of an item's text are called.
func (i *responseItem) kind() string {
	switch {
	case i.tool:
		return "response.function_call_arguments"
	case i.refusal:
		return "response.refusal"
	}
	return "response.output_text"
}

// at says of which item an event is.
func (s *chatToResponseStream) at(event object) object {
	n := len(s.items) - 1
	event["item_id"], event["output_index"] = s.itemID(n), n
	if !s.items[n].tool {
		event["content_index"] = 0
		if _, words := event["part"]; !words && !s.items[n].refusal {
			event["logprobs"] = []object{}
		}
	}
	return event
}

func (s *chatToResponseStream) closeItem(dst []byte) []byte {
	if !s.open {
		return dst
	}
	s.open = false
	n := len(s.items) - 1
	item := &s.items[n]
	member := map[string]string{"response.function_call_arguments": "arguments", "response.refusal": "refusal", "response.output_text": "text"}[item.kind()]
	dst = s.send(dst, item.kind()+".done", s.at(object{member: item.text}))
	if !item.tool {
		dst = s.send(dst, "response.content_part.done", s.at(object{"part": item.part(item.text)}))
	}
	return s.send(dst, "response.output_item.done", object{"output_index": n, "item": item.object(s, n, "completed")})
}

// End gives the whole response. A stream that stopped for no reason was cut, and gets no end.
func (s *chatToResponseStream) End(dst []byte) []byte {
	if s.over || s.finish == nil {
		return dst
	}
	s.over = true
	dst = s.closeItem(dst)
	status, _ := lastStatus(s.finish)
	return s.send(dst, "response."+status, object{"response": s.last()})
}

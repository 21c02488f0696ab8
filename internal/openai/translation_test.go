package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"occam/internal/cost"
)

func sameJSON(t *testing.T, name string, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal([]byte(want), &b)); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
	}
}

// Every member of a request has its counterpart.
func TestRequestsAreTranslated(t *testing.T) {
	for name, c := range map[string]struct {
		from, to API
		in, want string
	}{
		"messages for a chat": {Messages, Chat, `{"model":"gpt-4o","max_tokens":50,"stream":true,"temperature":0.5,"top_p":0.9,"stop_sequences":["x"],"metadata":{"user_id":"u"},
			"system":[{"type":"text","text":"be"},{"type":"text","text":"brief","cache_control":{"type":"ephemeral"}}],"thinking":{"type":"disabled"},
			"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}},
			"tools":[{"name":"f","description":"d","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],"tool_choice":{"type":"any","disable_parallel_tool_use":true},
			"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QQ=="}}]},
				{"role":"assistant","content":[{"type":"text","text":"calling"},{"type":"tool_use","id":"c1","name":"f","input":{"a":1}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","is_error":true,"content":[{"type":"text","text":"no"}]},{"type":"text","text":"go on"}]}]}`,
			`{"model":"gpt-4o","max_tokens":50,"stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_p":0.9,"stop":["x"],"user":"u",
			"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}},
			"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"tool_choice":"required","parallel_tool_calls":false,
			"messages":[{"role":"system","content":"be\nbrief"},{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:image/png;base64,QQ=="}}]},
				{"role":"assistant","content":"calling","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
				{"role":"tool","tool_call_id":"c1","content":"Error: no"},{"role":"user","content":"go on"}]}`},
		"a reasoning model's limit": {Messages, Chat, `{"model":"gpt-5-nano","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`,
			`{"model":"gpt-5-nano","max_completion_tokens":5,"messages":[{"role":"user","content":"hi"}]}`},
		"a chat for messages": {Chat, Messages, `{"model":"claude","max_completion_tokens":9,"stop":"x","n":1,"frequency_penalty":0,"user":"u","stream":true,"stream_options":{"include_usage":true},
			"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}},"parallel_tool_calls":false,
			"tools":[{"type":"function","function":{"name":"f","strict":false,"parameters":{"type":"object"}}}],
			"messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"https://x/y.png","detail":"auto"}}]},
				{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"7"}]}`,
			`{"model":"claude","max_tokens":9,"stop_sequences":["x"],"metadata":{"user_id":"u"},"stream":true,"system":"be brief",
			"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}},"tool_choice":{"type":"auto","disable_parallel_tool_use":true},
			"tools":[{"name":"f","input_schema":{"type":"object"}}],
			"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image","source":{"type":"url","url":"https://x/y.png"}}]},
				{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"f","input":{"a":1}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"7"}]}]}]}`},
		"a response for messages": {Responses, Messages, `{"model":"claude","instructions":"be brief","max_output_tokens":9,"store":false,"metadata":{"k":"v"},"truncation":"disabled",
			"text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}},
			"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}],"tool_choice":{"type":"function","name":"f"},
			"input":[{"role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image","image_url":"data:image/png;base64,QQ==","detail":"auto"}]},
				{"type":"message","id":"m","status":"completed","role":"assistant","content":[{"type":"output_text","text":"calling","annotations":[]}]},
				{"type":"function_call","id":"f1","call_id":"c1","name":"f","arguments":"{\"a\":1}"},{"type":"function_call_output","call_id":"c1","output":"7"}]}`,
			`{"model":"claude","max_tokens":9,"system":"be brief","output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}},
			"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"f"},
			"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QQ=="}}]},
				{"role":"assistant","content":[{"type":"text","text":"calling"},{"type":"tool_use","id":"c1","name":"f","input":{"a":1}}]},
				{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"7"}]}]}]}`},
	} {
		translated, err := Translate(c.from, c.to, []byte(c.in), 7, true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameJSON(t, name, translated.Body, c.want)
	}
}

// What has no counterpart is refused, and the message names the member.
func TestWhatCannotBeTranslatedIsRefused(t *testing.T) {
	const (
		chat      = `{"model":"m","messages":[{"role":"user","content":"hi"}],`
		messages  = `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],`
		responses = `{"model":"m","input":"hi",`
	)
	for _, c := range []struct {
		from, to API
		in       string
		param    string
	}{
		{Chat, Messages, chat + `"n":2}`, "n"},
		{Chat, Messages, chat + `"logprobs":true}`, "logprobs"},
		{Chat, Messages, chat + `"seed":1}`, "seed"},
		{Chat, Messages, chat + `"frequency_penalty":0.5}`, "frequency_penalty"},
		{Chat, Messages, chat + `"temperature":1.5}`, "temperature"},
		{Chat, Messages, chat + `"temperature":"hot"}`, "temperature"},
		{Chat, Messages, chat + `"response_format":{"type":"json_object"}}`, "response_format.type"},
		{Chat, Messages, chat + `"modalities":["text","audio"],"audio":{"voice":"x"}}`, "audio"},
		{Chat, Messages, chat + `"tools":[{"type":"custom","custom":{}}]}`, "tools[0].custom"},
		{Chat, Messages, chat + `"x_unknown":{}}`, "x_unknown"},
		{Chat, Messages, `{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}`, "messages[0].content[0].type"},
		{Chat, Messages, `{"model":"m","messages":[{"role":"user","name":"Bob","content":"x"}]}`, "messages[0].name"},
		{Chat, Messages, `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{"}}]}]}`, "messages[0].tool_calls[0].function.arguments"},
		{Messages, Chat, messages + `"top_k":4}`, "top_k"},
		{Messages, Chat, messages + `"thinking":{"type":"enabled","budget_tokens":1024}}`, "thinking"},
		{Messages, Chat, messages + `"mcp_servers":[{}]}`, "mcp_servers"},
		{Messages, Chat, messages + `"tools":[{"type":"web_search_20250305","name":"web_search"}]}`, "tools[0].type"},
		{Messages, Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{}}]}]}`, "messages[0].content[0].type"},
		{Messages, Chat, `{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The answer is"}]}`, "messages[1]"},
		{Messages, Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]}`, "messages[0].content[0].source.type"},
		{Responses, Messages, responses + `"previous_response_id":"r"}`, "previous_response_id"},
		{Responses, Messages, responses + `"store":true}`, "store"},
		{Responses, Messages, responses + `"background":true}`, "background"},
		{Responses, Messages, responses + `"reasoning":{"effort":"high"}}`, "reasoning"},
		{Responses, Messages, responses + `"tools":[{"type":"web_search"}]}`, "tools[0].type"},
		{Responses, Messages, responses + `"include":["reasoning.encrypted_content"]}`, "include"},
		{Responses, Messages, `{"model":"m","input":[{"type":"reasoning","summary":[]}]}`, "input[0].type"},
		{Responses, Messages, `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "input[0].content[0].type"},
		{Responses, Messages, `{"model":"m","prompt":{"id":"p"}}`, "input"},
	} {
		_, err := Translate(c.from, c.to, []byte(c.in), 7, true)
		var refused *Error
		if !errors.As(err, &refused) || refused.Status != 400 || refused.Param != c.param || !strings.Contains(refused.Message, "'"+c.param+"'") {
			t.Errorf("%s: %v, want a 400 about %s", c.in, err, c.param)
		}
	}
	if _, err := Translate(Embeddings, Messages, []byte(`{}`), 0, false); err == nil {
		t.Error("embeddings were translated")
	}
}

const (
	chatWhole = `{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null,
		"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}],
		"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}`
	messageWhole = `{"id":"msg_1","type":"message","role":"assistant","model":"m","stop_reason":"tool_use","content":[{"type":"text","text":"Hello"},
		{"type":"tool_use","id":"c1","name":"f","input":{"a":1}}],"usage":{"input_tokens":7,"cache_read_input_tokens":4,"cache_creation_input_tokens":0,"output_tokens":7}}`
)

var billed = cost.Usage{Input: 11, Cached: 4, Output: 7}

// A whole answer keeps its text, its tool calls and its bill.
func TestAnswersAreTranslated(t *testing.T) {
	request := map[API]string{Messages: `{"model":"m","messages":[{"role":"user","content":"x"}]}`, Responses: `{"model":"m","input":"x","metadata":{"k":"v"}}`}
	for _, c := range []struct {
		from, to    API
		reply       string
		has, finish string
	}{
		{Messages, Chat, chatWhole, `"input":{"a":1}`, "tool_use"},
		{Responses, Chat, chatWhole, `"arguments":"{\"a\":1}"`, "completed"},
		{Responses, Messages, messageWhole, `"metadata":{"k":"v"}`, "completed"},
	} {
		translated, err := Translate(c.from, c.to, []byte(request[c.from]), 7, true)
		if err != nil {
			t.Fatal(err)
		}
		body, err := translated.Reply([]byte(c.reply))
		r, ok := ParseReply(body)
		if err != nil || !ok || !r.Billed || r.Usage != billed || r.Content != "Hello" || r.Finish != c.finish || !strings.Contains(string(body), c.has) {
			t.Errorf("%s from %s: %v %+v\n%s", c.from, c.to, err, r, body)
		}
		if _, err := translated.Reply([]byte(`{"surprise":1}`)); err == nil {
			t.Errorf("%s from %s: rubbish was translated", c.from, c.to)
		}
	}
	translated, _ := Translate(Messages, Chat, []byte(request[Messages]), 7, true)
	sameJSON(t, "an error", translated.Failure(429, []byte(`{"error":{"message":"slow down","type":"requests"}}`)), `{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}`)
	translated, _ = Translate(Responses, Messages, []byte(request[Responses]), 7, true)
	sameJSON(t, "an error", translated.Failure(429, []byte(`{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}`)),
		`{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate_limit_error"}}`)
	noUsage, err := translated.Reply([]byte(`{"id":"msg_1","type":"message","model":"m","stop_reason":"end_turn","content":[{"type":"text","text":"x"}]}`))
	if r, _ := ParseReply(noUsage); err != nil || r.Billed {
		t.Errorf("usage was made up: %v %s", err, noUsage)
	}
}

func chatChunk(delta, finish string) string {
	return `data: {"id":"1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":` + delta + `,"finish_reason":` + finish + "}]}\n\n"
}

var chatStream = chatChunk(`{"role":"assistant","content":""}`, "null") + chatChunk(`{"content":"Hel"}`, "null") + chatChunk(`{"content":"lo"}`, "null") +
	chatChunk(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}`, "null") +
	chatChunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}`, "null") + chatChunk(`{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}`, "null") +
	chatChunk(`{}`, `"tool_calls"`) + `data: {"id":"1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n"

var messageStream = strings.Join([]string{
	`event: message_start` + "\n" + `data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":7,"cache_read_input_tokens":4,"output_tokens":1}}}`,
	`data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`,
	`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}`,
	`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}`,
	`data: {"type":"content_block_stop","index":0}`,
	`data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c1","name":"f","input":{}}}`,
	`data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}`,
	`data: {"type":"content_block_stop","index":1}`,
	`data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":7}}`,
	`data: {"type":"message_stop"}`, ""}, "\n\n")

// A stream becomes a stream with the same text and bill, however its bytes arrive; one that was cut gets no end.
func TestStreamsAreTranslated(t *testing.T) {
	request := map[API]string{Messages: `{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`, Responses: `{"model":"m","stream":true,"input":"x"}`}
	for _, c := range []struct {
		from, to API
		stream   string
		order    string // the events, in order
	}{
		{Messages, Chat, chatStream + "data: [DONE]\n\n", "message_start content_block_start content_block_delta content_block_delta content_block_stop content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop"},
		{Messages, Chat, chatStream, "message_start content_block_start content_block_delta content_block_delta content_block_stop content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop"},
		{Responses, Messages, messageStream, "response.created response.in_progress response.output_item.added response.content_part.added response.output_text.delta response.output_text.delta response.output_text.done response.content_part.done response.output_item.done response.output_item.added response.function_call_arguments.delta response.function_call_arguments.done response.output_item.done response.completed"},
	} {
		translated, err := Translate(c.from, c.to, []byte(request[c.from]), 7, true)
		if err != nil {
			t.Fatal(err)
		}
		atOnce := translated.Stream()
		out := atOnce.End(atOnce.Push(nil, []byte(c.stream)))
		byByte, slow := translated.Stream(), []byte(nil)
		for i := range c.stream {
			slow = byByte.Push(slow, []byte(c.stream[i:i+1]))
		}
		if slow = byByte.End(slow); !bytes.Equal(slow, out) {
			t.Errorf("%s from %s: the pieces make a difference:\n%s\n%s", c.from, c.to, out, slow)
		}
		m, order := Meter{KeepText: 100}, []string{}
		var split Splitter
		split.Push(out, func(e Event) { m.See(e.Data); order = append(order, e.Type) })
		if got := strings.Join(order, " "); got != c.order {
			t.Errorf("%s from %s:\ngot  %s\nwant %s", c.from, c.to, got, c.order)
		}
		if !m.Ended || !m.Billed || m.Usage != billed || !strings.HasPrefix(m.Text(), "Hello") {
			t.Errorf("%s from %s: %+v %q\n%s", c.from, c.to, m, m.Text(), out)
		}
		cut := translated.Stream()
		out = cut.End(cut.Push(nil, []byte(c.stream[:len(c.stream)/2])))
		m = Meter{}
		split = Splitter{}
		split.Push(out, func(e Event) { m.See(e.Data) })
		if m.Ended {
			t.Errorf("%s from %s: a cut stream got its end:\n%s", c.from, c.to, out)
		}
	}
}

// A tool that takes nothing is called with an empty object: the empty text that Anthropic's stream leaves is no JSON.
func TestCallWithoutArguments(t *testing.T) {
	for _, pieces := range []string{"", `data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":""}}` + "\n\n",
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}` + "\n\n"} {
		translated, err := Translate(Chat, Messages, []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`), 7, true)
		if err != nil {
			t.Fatal(err)
		}
		call := func(id string) string {
			return `data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"` + id + `","name":"now","input":{}}}` + "\n\n" + pieces +
				`data: {"type":"content_block_stop","index":0}` + "\n\n"
		}
		s := translated.Stream()
		out := s.End(s.Push(nil, []byte(call("c1")+call("c2"))))
		said := map[int]string{}
		var split Splitter
		split.Push(out, func(e Event) {
			var r chatReply
			if err := json.Unmarshal(e.Data, &r); err != nil {
				t.Fatal(err)
			}
			for _, c := range r.Choices[0].Delta.ToolCalls {
				said[c.Index] += c.Function.Arguments
			}
		})
		if len(said) != 2 || said[0] != "{}" || said[1] != "{}" {
			t.Errorf("pieces %q: arguments %v\n%s", pieces, said, out)
		}
	}
}

// A tool that gave nothing has a result without content: Anthropic's schema knows no content of null.
func TestToolThatGaveNothing(t *testing.T) {
	body, err := ChatToMessages([]byte(`{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"now","arguments":"{}"}}]},` +
		`{"role":"tool","tool_call_id":"c1","content":""}]}`))
	if err != nil || !strings.Contains(string(body), `{"tool_use_id":"c1","type":"tool_result"}`) {
		t.Errorf("%v %s", err, body)
	}
}

// Tokens written to a provider's cache are told apart under either name that chats have for them.
func TestCacheWritesAreTranslated(t *testing.T) {
	translated, err := Translate(Messages, Chat, []byte(`{"model":"m","messages":[{"role":"user","content":"x"}]}`), 7, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, written := range []string{`"cache_creation_input_tokens":40,"prompt_tokens_details":{"cached_tokens":10}`, `"prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":40}`} {
		body, err := translated.Reply([]byte(`{"id":"1","model":"m","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":7,` + written + `}}`))
		if r, _ := ParseReply(body); err != nil || r.Usage != (cost.Usage{Input: 100, Cached: 10, CacheWrite: 40, Output: 7}) {
			t.Errorf("%s: %+v, %v\n%s", written, r.Usage, err, body)
		}
	}
}

// A stream without usage leaves the bill unknown, and an error in the middle is one in the app's words.
func TestTranslatedStreamTrouble(t *testing.T) {
	translated, _ := Translate(Messages, Chat, []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`), 7, true)
	s := translated.Stream()
	out := s.End(s.Push(nil, []byte(chatChunk(`{"content":"x"}`, "null")+chatChunk(`{}`, `"stop"`)+"data: [DONE]\n\n")))
	m := Meter{}
	var split Splitter
	split.Push(out, func(e Event) { m.See(e.Data) })
	if !m.Ended || m.Billed {
		t.Errorf("%+v\n%s", m, out)
	}
	s = translated.Stream()
	out = s.End(s.Push(nil, []byte(chatChunk(`{"content":"x"}`, "null")+"data: {\"error\":{\"message\":\"down\",\"type\":\"server_error\"}}\n\n")))
	if !bytes.Contains(out, []byte("event: error\ndata: {\"type\":\"error\"")) || bytes.Contains(out, []byte("message_stop")) {
		t.Errorf("%s", out)
	}
}

// Whatever a request is, translating it gives JSON or a 400.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte(`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"tool_result","content":null}]}]}`), byte(0))
	f.Add([]byte(`{"model":"m","input":[{"type":"function_call"},{}]}`), byte(1))
	f.Add([]byte(`{"model":"m","messages":[null,{"role":"assistant","tool_calls":[null]}],"tools":[null],"stop":7}`), byte(2))
	pairs := [][2]API{{Messages, Chat}, {Responses, Messages}, {Chat, Messages}}
	f.Fuzz(func(t *testing.T, body []byte, pair byte) {
		p := pairs[int(pair)%len(pairs)]
		translated, err := Translate(p[0], p[1], body, 0, true)
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("%v is no *Error", err)
		}
		if err == nil && !json.Valid(translated.Body) {
			t.Fatalf("no JSON: %s", translated.Body)
		}
		if err == nil {
			s := translated.Stream()
			s.End(s.Push(nil, append([]byte("data: "), body...)))
			_, _ = translated.Reply(body)
			translated.Failure(500, body)
		}
	})
}

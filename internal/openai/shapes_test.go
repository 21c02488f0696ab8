package openai

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"occam/internal/cost"
)

func TestResponsesRequests(t *testing.T) {
	r, err := Parse(Responses, []byte(`{"model":"m","instructions":"be brief","input":"hi","max_output_tokens":7,"stream":true,
		"text":{"verbosity":"low","format":{"type":"json_schema","name":"x","schema":{"type":"object"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	turns, err := r.Turns()
	want := []Message{{Role: "system", Text: "be brief"}, {Role: "user", Text: "hi"}}
	if err != nil || !reflect.DeepEqual(turns, want) || r.MaxOutput != 7 || !r.Stream || !r.IncludeUsage || string(r.Schema) != `{"type":"object"}` || !r.Plain {
		t.Errorf("%+v %+v %v", turns, r, err)
	}
	r, err = Parse(Responses, []byte(`{"model":"m","input":[{"role":"developer","content":"d"},{"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"u"}]},
		{"type":"function_call_output","call_id":"c","output":"o"}],"tools":[{"type":"web_search"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	turns, _ = r.Turns()
	want = []Message{{Role: "developer", Text: "d"}, {Role: "user", Text: "a", Opaque: true}, {Opaque: true}}
	if !reflect.DeepEqual(turns, want) || r.Plain || r.Opaque != 1 {
		t.Errorf("%+v plain %v opaque %d", turns, r.Plain, r.Opaque)
	}
	for body, plain := range map[string]bool{
		`{"model":"m","input":"x","previous_response_id":"r"}`: false,
		`{"model":"m","input":"x","background":true}`:          false,
		`{"model":"m","input":"x","store":true}`:               true,
		`{"model":"m"}`:                                        true,
	} {
		if r, err := Parse(Responses, []byte(body)); err != nil || r.Plain != plain {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestMessagesRequests(t *testing.T) {
	r, err := Parse(Messages, []byte(`{"model":"m","max_tokens":9,"system":[{"type":"text","text":"be"},{"type":"text","text":"brief","cache_control":{"type":"ephemeral"}}],
		"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	turns, err := r.Turns()
	want := []Message{{Role: "system", Text: "be\nbrief"}, {Role: "user", Text: "hi"}}
	if err != nil || !reflect.DeepEqual(turns, want) || r.MaxOutput != 9 || string(r.Schema) != `{"type":"object"}` || !r.Plain {
		t.Errorf("%+v %+v %v", turns, r, err)
	}
	if r, err := Parse(Messages, []byte(`{"model":"m","messages":[],"thinking":{"type":"enabled"}}`)); err != nil || r.Plain {
		t.Errorf("thinking: %v", err)
	}
}

func TestEmbeddingsRequests(t *testing.T) {
	if _, err := Parse(Embeddings, []byte(`{"model":"m","input":[[1,2],[3]]}`)); err != nil {
		t.Error(err)
	}
	if _, err := Parse(Embeddings, []byte(`{"model":"m"}`)); err == nil {
		t.Error("no input")
	}
}

func TestEditsInEveryShape(t *testing.T) {
	edit := Edit{Model: "other", System: "s", Schema: []byte(`{"type":"object"}`), Usage: true}
	for _, c := range []struct {
		api  API
		body string
		want []string
	}{
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":null}`, []string{`"json_schema":{"name":"answer"`, `{"role":"system","content":"s"}`}},
		{Responses, `{"model":"m","input":"x"}`, []string{`"text":{"format":{"type":"json_schema","name":"answer","strict":true,"schema":{"type":"object"}}}`, `"instructions":"s"`}},
		{Responses, `{"model":"m","input":"x","instructions":null,"text":{"verbosity":"low"}}`, []string{`"text":{"format":{`, `"verbosity":"low"`, `"instructions":"s"`}},
		{Responses, `{"model":"m","input":"x","text":{}}`, []string{`"text":{"format":{`}},
		{Responses, `{"model":"m","input":"x","text":null}`, []string{`"text":{"format":{`}},
		{Responses, `{"model":"m","input":"x","text":{"format":null}}`, []string{`"text":{"format":{`}},
		{Messages, `{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":5}`, []string{`"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}`, `"system":"s"`}},
		{Messages, `{"model":"m","messages":[{"role":"user","content":"x"}],"output_config":{"effort":"low"}}`, []string{`"output_config":{"format":{`, `"effort":"low"`}},
	} {
		r, err := Parse(c.api, []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		got := r.Edited(edit)
		again, err := Parse(c.api, got)
		if err != nil || again.Model != "other" || string(again.Schema) != `{"type":"object"}` {
			t.Errorf("%s became %s: %v", c.body, got, err)
			continue
		}
		for _, want := range c.want {
			if !bytes.Contains(got, []byte(want)) {
				t.Errorf("%s became %s without %s", c.body, got, want)
			}
		}
		if twice := again.Edited(Edit{Schema: []byte(`{"other":1}`), System: "t"}); !bytes.Equal(twice, got) {
			t.Errorf("what is there was replaced: %s", twice)
		}
	}
}

// Answers in every shape are JSON, and read back as what they say; streams end with their end mark.
func TestAnswersInEveryShape(t *testing.T) {
	for _, api := range []API{Chat, Responses, Messages} {
		for _, a := range []Answer{{ID: "1", Model: "m\"", Content: "he said \"\u00e9\"\n"}, {ID: "2", Model: "m", Refusal: "no"}} {
			body := a.Append(nil, &Request{API: api})
			r, ok := ParseReply(body)
			if !ok || !json.Valid(body) || r.Model != a.Model || !r.Billed || r.Usage != (cost.Usage{}) || a.Content != "" && r.Content != a.Content {
				t.Errorf("%s: %+v from %s", api, r, body)
			}
			stream := a.Append(nil, &Request{API: api, Stream: true, IncludeUsage: true})
			m := &Meter{KeepText: 1000}
			var s Splitter
			events := 0
			s.Push(stream, func(e Event) {
				events++
				if !json.Valid(e.Data) && !Done(e.Data) {
					t.Errorf("%s: an event that is no JSON: %s", api, e.Data)
				}
				if m.Ended {
					t.Errorf("%s: an event after the end: %s", api, e.Data)
				}
				m.See(e.Data)
			})
			if !m.Ended || !m.Billed || m.Usage != (cost.Usage{}) || a.Content != "" && m.Text() != a.Content || !bytes.HasSuffix(stream, []byte("\n\n")) {
				t.Errorf("%s: %+v %q from %s", api, m, m.Text(), stream)
			}
		}
	}
}

func TestRealStreamsOfOtherShapes(t *testing.T) {
	responses := `event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","model":"gpt-4o-2024-08-06","output":[],"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hel","logprobs":[]}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"lo","logprobs":[]}

event: response.output_text.done
data: {"type":"response.output_text.done","sequence_number":6,"item_id":"msg_1","text":"Hello"}

event: response.completed
data: {"type":"response.completed","sequence_number":9,"response":{"id":"resp_1","status":"completed","model":"gpt-4o-2024-08-06","output":[{"type":"message","content":[{"type":"output_text","text":"Hello"}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":2},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":13}}}

`
	anthropic := `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude-x","stop_reason":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":2,"cache_read_input_tokens":4,"output_tokens":1}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

`
	for _, c := range []struct {
		stream string
		usage  cost.Usage
		finish string
	}{
		{responses, cost.Usage{Input: 9, Cached: 2, Output: 4, Reasoning: 1}, "completed"},
		{anthropic, cost.Usage{Input: 9, Cached: 4, CacheWrite: 2, Output: 4}, "end_turn"},
	} {
		m := &Meter{KeepText: 1000}
		var s Splitter
		s.Push([]byte(c.stream), func(e Event) { m.See(e.Data) })
		if !m.Ended || !m.Billed || m.Usage != c.usage || m.Text() != "Hello" || m.Finish != c.finish {
			t.Errorf("%+v %q", m, m.Text())
		}
		cut := &Meter{KeepText: 1000}
		var again Splitter
		again.Push([]byte(c.stream[:strings.Index(c.stream, "Hel")+40]), func(e Event) { cut.See(e.Data) })
		if cut.Ended {
			t.Error("a cut stream has ended")
		}
	}
}

func TestErrorsInEveryShape(t *testing.T) {
	e := &Error{Status: 429, Type: "requests", Code: "rate_limit_exceeded", Message: `slow "down"`}
	for api, want := range map[API]string{
		Chat:     `{"error":{"message":"slow \"down\"","type":"requests","param":null,"code":"rate_limit_exceeded"}}`,
		Messages: `{"type":"error","error":{"type":"rate_limit_error","message":"slow \"down\""}}`,
	} {
		if got := string(e.Append(nil, api)); got != want {
			t.Errorf("%s: %s", api, got)
		}
	}
	for _, api := range []API{Chat, Responses, Messages} {
		var s Splitter
		n := 0
		s.Push(e.AppendEvent(nil, api), func(ev Event) {
			n++
			var m Meter
			if m.See(ev.Data); !m.Error || !json.Valid(ev.Data) {
				t.Errorf("%s: %s", api, ev.Data)
			}
		})
		if n != 1 {
			t.Errorf("%s: %d events", api, n)
		}
	}
}

func FuzzShapes(f *testing.F) {
	f.Add([]byte(`{"model":"m","input":[{"role":"user","content":"x"}],"text":{"format":null}}`))
	f.Add([]byte(`{"model":"m","system":[{"type":"text","text":"x"}],"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"output_config":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, api := range []API{Responses, Messages, Embeddings} {
			r, err := Parse(api, raw)
			if err != nil {
				continue
			}
			_, _ = r.Turns()
			if _, err := Parse(api, r.Edited(Edit{Model: "o", System: "s", Schema: []byte("{}"), NoStream: true})); err != nil {
				t.Fatalf("%s edited into something broken: %v", raw, err)
			}
		}
	})
}

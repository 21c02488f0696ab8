package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"occam/internal/cost"
)

// TestGoldenReplies are malformed and unusual replies: what is believed, and what must be estimated instead.
func TestGoldenReplies(t *testing.T) {
	ok := cost.Usage{Input: 9, Output: 4}
	for _, c := range []struct {
		name   string
		body   string
		billed bool
		usage  cost.Usage
		json   bool
	}{
		{"plain", `{"usage":{"prompt_tokens":9,"completion_tokens":4}}`, true, ok, true},
		{"details", `{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":3}}}`, true, cost.Usage{Input: 9, Cached: 5, Output: 4, Reasoning: 3}, true},
		{"details null", `{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":null}}}`, true, ok, true},
		{"responses", `{"usage":{"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":2}}}`, true, cost.Usage{Input: 9, Cached: 2, Output: 4}, true},
		{"anthropic", `{"usage":{"input_tokens":2,"cache_read_input_tokens":4,"cache_creation_input_tokens":3,"output_tokens":4}}`, true, cost.Usage{Input: 9, Cached: 4, CacheWrite: 3, Output: 4}, true},
		{"cached beside prompt tokens", `{"usage":{"prompt_tokens":9,"completion_tokens":4,"cache_read_input_tokens":4}}`, true, cost.Usage{Input: 9, Cached: 4, Output: 4}, true},
		{"embeddings", `{"usage":{"prompt_tokens":9,"total_tokens":9}}`, true, cost.Usage{Input: 9}, true},
		{"extra members", `{"usage":{"queue_time":0.1,"prompt_tokens":9,"x":{"y":[]},"completion_tokens":4}}`, true, ok, true},
		{"zero", `{"usage":{"prompt_tokens":0,"completion_tokens":0}}`, true, cost.Usage{}, true},
		{"absent", `{"id":"x"}`, false, cost.Usage{}, true},
		{"null", `{"usage":null}`, false, cost.Usage{}, true},
		{"empty", `{"usage":{}}`, false, cost.Usage{}, true},
		{"a string", `{"usage":"many"}`, false, cost.Usage{}, true},
		{"a list", `{"usage":[1]}`, false, cost.Usage{}, true},
		{"counts as strings", `{"usage":{"prompt_tokens":"9","completion_tokens":"4"}}`, false, cost.Usage{}, true},
		{"counts null", `{"usage":{"prompt_tokens":null,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"negative", `{"usage":{"prompt_tokens":-9,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"huge", `{"usage":{"prompt_tokens":9e18,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"huge digits", `{"usage":{"prompt_tokens":99999999999999999999999,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"beyond belief", `{"usage":{"prompt_tokens":2000000000,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"fraction", `{"usage":{"prompt_tokens":9.5,"completion_tokens":4}}`, false, cost.Usage{}, true},
		{"more cached than input", `{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":10}}}`, false, cost.Usage{Input: 9, Cached: 10, Output: 4}, true},
		{"more reasoning than output", `{"usage":{"prompt_tokens":9,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":5}}}`, false, cost.Usage{Input: 9, Output: 4, Reasoning: 5}, true},
		{"nested elsewhere", `{"choices":[{"usage":{"prompt_tokens":9}}]}`, false, cost.Usage{}, true},
		{"in a text", `{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}`, false, cost.Usage{}, true},
		{"HTML", `<html>502</html>`, false, cost.Usage{}, false},
		{"empty body", ``, false, cost.Usage{}, false},
		{"cut", `{"usage":{"prompt_tokens":9,`, false, cost.Usage{}, false},
		{"a list at the top", `[{"usage":{"prompt_tokens":9}}]`, false, cost.Usage{}, false},
		{"two documents", `{"usage":{"prompt_tokens":9}}{"usage":{"prompt_tokens":9}}`, false, cost.Usage{}, false},
		{"usage twice", `{"usage":{"prompt_tokens":9},"usage":{"prompt_tokens":9}}`, false, cost.Usage{}, false},
		{"NaN", `{"usage":{"prompt_tokens":NaN}}`, false, cost.Usage{}, false},
		{"deep", `{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, false, cost.Usage{}, false},
		{"choices is a text", `{"choices":"none","usage":{"prompt_tokens":9,"completion_tokens":4}}`, true, ok, true},
		{"choice is null", `{"choices":[null],"usage":{"prompt_tokens":9,"completion_tokens":4}}`, true, ok, true},
	} {
		r, isJSON := ParseReply([]byte(c.body))
		if isJSON != c.json || r.Billed != c.billed || (c.billed && r.Usage != c.usage) {
			t.Errorf("%s: json %v billed %v usage %+v", c.name, isJSON, r.Billed, r.Usage)
		}
	}
}

func meter(events ...string) *Meter {
	m := &Meter{KeepText: 1 << 10}
	for _, e := range events {
		m.See([]byte(e))
	}
	return m
}

func chunk(delta, finish, more string) string {
	return `{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":` + delta +
		`,"logprobs":null,"finish_reason":` + finish + `}]` + more + `}`
}

func TestMeter(t *testing.T) {
	usage := func(in, out int) string {
		return fmt.Sprintf(`{"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`, in, out)
	}
	text := []string{chunk(`{"role":"assistant","content":""}`, "null", ""), chunk(`{"content":"Hel"}`, "null", ""),
		chunk(`{"content":"lo \"you\""}`, "null", ""), chunk(`{}`, `"stop"`, "")}

	m := meter(append(text, usage(5, 3), "[DONE]")...)
	if !m.Ended || !m.Billed || m.Usage != (cost.Usage{Input: 5, Output: 3}) || m.Text() != `Hello "you"` || m.Finish != "stop" || m.TextBytes != 11 {
		t.Errorf("%+v %q", m, m.Text())
	}
	if m := meter(append(text, usage(5, 3), usage(5, 4))...); m.Usage.Output != 4 || m.Ended {
		t.Errorf("two usage chunks: %+v", m.Usage)
	}
	if m := meter(text...); m.Billed || m.Finish != "stop" {
		t.Errorf("no usage: %+v", m)
	}
	if m := meter(chunk(`{"content":"x"}`, "null", `,"usage":{"prompt_tokens":5,"completion_tokens":1}`)); !m.Billed || m.Usage.Input != 5 {
		t.Errorf("usage beside choices: %+v", m)
	}
	if m := meter(usage(5, 3), `{"choices":[],"usage":{"prompt_tokens":-1}}`); m.Billed {
		t.Errorf("a later broken usage leaves the earlier one standing: %+v", m)
	}
	if m := meter(chunk(`{"content":"a"}`, "null", `,"usage":null`), chunk(`{"content":"b"}`, "null", `,"usage":null`)); m.Billed || m.Text() != "ab" {
		t.Errorf("usage null: %+v", m)
	}
	if m := meter(`{"error":{"message":"x"}}`); !m.Error {
		t.Errorf("error event: %+v", m)
	}
	if m := meter("{", "", "null", `"x"`, "[1", "[DONE] "); m.Billed || !m.Ended {
		t.Errorf("rubbish: %+v", m)
	}
}

// The quick way through usual chunks must see what the slow way sees.
func FuzzMeter(f *testing.F) {
	f.Add(chunk(`{"content":"x"}`, "null", ""), chunk(`{"content":"y\n"}`, `"stop"`, `,"usage":{"prompt_tokens":1}`))
	f.Add(chunk(`{"content":"x"}`, "null", `,"usage":null`), `{"error":1}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		quick := meter(chunk(`{}`, "null", ""), a, b)
		slow := &Meter{KeepText: 1 << 10}
		for _, e := range []string{chunk(`{}`, "null", ""), a, b} {
			if json.Valid([]byte(e)) { // the quick way may read text out of broken JSON
				slow.Model = "" // never take the quick way
				slow.See([]byte(e))
			} else {
				return
			}
		}
		if quick.Text() != slow.Text() || quick.Billed != slow.Billed || quick.Usage != slow.Usage || quick.Finish != slow.Finish || quick.Error != slow.Error {
			t.Fatalf("quick %+v\nslow %+v", quick, slow)
		}
	})
}

func TestAnswerHasThePublicShape(t *testing.T) {
	a := Answer{ID: "chatcmpl-1", Created: 5, Model: `m"`, Content: "{\"a\":\"\u00e9\\n\"}"}
	var reply struct {
		ID, Object, Model, ServiceTier string
		Created                        int64
		Choices                        []struct {
			Message struct {
				Role    string
				Content *string
				Refusal *string
			}
			FinishReason string `json:"finish_reason"`
		}
		Usage struct {
			Total int `json:"total_tokens"`
		}
	}
	if err := json.Unmarshal(a.Append(nil, &Request{API: Chat}), &reply); err != nil {
		t.Fatal(err)
	}
	if c := reply.Choices[0]; reply.Model != a.Model || *c.Message.Content != a.Content || c.Message.Refusal != nil || c.FinishReason != "stop" {
		t.Errorf("%+v", reply)
	}
	a.Content, a.Refusal = "", "no"
	if err := json.Unmarshal(a.Append(nil, &Request{API: Chat}), &reply); err != nil || *reply.Choices[0].Message.Refusal != "no" {
		t.Errorf("%+v %v", reply, err)
	}
	m := &Meter{KeepText: 100}
	var s Splitter
	a = Answer{Model: "m", Content: "hi"}
	s.Push(a.Append(nil, &Request{API: Chat, Stream: true, IncludeUsage: true}), func(e Event) { m.See(e.Data) })
	if !m.Ended || m.Text() != "hi" || m.Finish != "stop" || !m.Billed || m.Usage != (cost.Usage{}) {
		t.Errorf("%+v", m)
	}
}

func TestTextIsWrittenAsJSON(t *testing.T) {
	for _, s := range []string{"", "a\"b\\c\n\t\r\x00\x1f", "é 😀", "\xff\xfe broken", "</script>"} {
		var back string
		if err := json.Unmarshal(appendText(nil, s), &back); err != nil || back != string([]rune(s)) {
			t.Errorf("%q became %q: %v", s, back, err)
		}
	}
}

// What is believed of a reply's usage can be true, is not negative, and is what encoding/json reads of it, in each of the shapes.
func FuzzUsage(f *testing.F) {
	f.Add([]byte(`{"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":3}}}`))
	f.Add([]byte(`{"usage":{"input_tokens":9,"output_tokens":4,"cache_read_input_tokens":2}}`))
	f.Add([]byte(`{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":9},"output_tokens":4}}`))
	f.Add([]byte(`{"usage":{"prompt_tokens":-9,"completion_tokens":1e30}}`))
	f.Add([]byte(`{"usage":null}`))
	f.Add([]byte(`{"response":{"usage":{"input_tokens":1}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, ok := ParseReply(body)
		if !ok && (r.Billed || r.Usage != cost.Usage{}) {
			t.Fatalf("believed what is no JSON object: %+v", r)
		}
		if !r.Billed {
			return
		}
		if err := r.Usage.Check(); err != nil || r.Usage.Input < 0 || r.Usage.Output < 0 {
			t.Fatalf("believed %+v: %v", r.Usage, err)
		}
		var second struct {
			Usage struct {
				Prompt     *int64 `json:"prompt_tokens"`
				Completion *int64 `json:"completion_tokens"`
			}
		}
		if json.Unmarshal(body, &second) != nil || second.Usage.Prompt == nil || second.Usage.Completion == nil || bytes.Contains(body, []byte("put_tokens")) {
			return // another shape
		}
		if !exactKeys(body, "usage", "prompt_tokens", "completion_tokens") {
			return // encoding/json does not look at case
		}
		if r.Usage.Input != *second.Usage.Prompt || r.Usage.Output != *second.Usage.Completion {
			t.Fatalf("believed %+v of %s", r.Usage, body)
		}
	})
}

// exactKeys reports whether each name stands exactly once in a body, whatever its case.
func exactKeys(body []byte, names ...string) bool {
	for _, name := range names {
		if bytes.Count(bytes.ToLower(body), []byte(`"`+name+`"`)) != 1 || bytes.Count(body, []byte(`"`+name+`"`)) != 1 {
			return false
		}
	}
	return !bytes.Contains(body, []byte(`\u`))
}

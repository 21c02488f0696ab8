package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
)

// speaking makes the world's provider one of another kind.
func speaking(kind string) func(*world, *Options) {
	return func(w *world, _ *Options) {
		u, err := engine.NewUpstream(engine.Options{Name: "openai", Kind: kind, BaseURL: w.URL + "/v1", Key: "k"})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(u.Close)
		w.snap.Fallback = u
	}
}

const anthropicSaid = `{"type":"message","id":"msg_1","role":"assistant","model":"gpt-4o","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","usage":{"input_tokens":500,"output_tokens":50}}`

// anthropicProvider answers like Anthropic's API.
func anthropicProvider(w *world) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/v1/messages" || r.Header.Get("Anthropic-Version") == "" {
			w.t.Errorf("%s %v", r.URL.Path, r.Header)
		}
		w.charge()
		if !strings.Contains(string(body), `"stream":true`) {
			rw.Header().Set("Content-Type", "application/json")
			io.WriteString(rw, anthropicSaid)
			return
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		for _, e := range []string{`{"type":"message_start","message":{"id":"msg_1","model":"gpt-4o","usage":{"input_tokens":500,"output_tokens":1}}}`,
			`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}`,
			`{"type":"content_block_stop","index":0}`, `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":50}}`, `{"type":"message_stop"}`} {
			io.WriteString(rw, "data: "+e+"\n\n")
		}
	}
}

// An app gets its own shape from a provider that speaks another one, streaming and not, with the bill in the ledger.
func TestShapesAreTranslated(t *testing.T) {
	for _, c := range []struct {
		kind, path, body string
		api              openai.API
	}{
		{engine.OpenAI, "/v1/messages", `{"model":"gpt-4o","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`, openai.Messages},
		{engine.Anthropic, "/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`, openai.Chat},
		{engine.Anthropic, "/v1/responses", `{"model":"gpt-4o","input":"hi"}`, openai.Responses},
	} {
		for _, stream := range []bool{false, true} {
			w := newWorld(t, speaking(c.kind))
			w.answer = "hello"
			if c.kind == engine.Anthropic {
				w.handle = anthropicProvider(w)
			}
			body := c.body
			if stream {
				body = withStream(body)
			}
			res, text := w.postTo(c.path, body)
			words := ""
			if stream {
				m := openai.Meter{KeepText: 100}
				var split openai.Splitter
				split.Push([]byte(text), func(e openai.Event) { m.See(e.Data) })
				if words = m.Text(); !m.Ended || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
					t.Errorf("%s from %s: the stream has no end: %s", c.path, c.kind, text)
				}
			} else {
				r, _ := openai.ParseReply([]byte(text))
				words = r.Content
			}
			if res.StatusCode != 200 || words != "hello" {
				t.Errorf("%s from %s, stream %v: %d %q %s", c.path, c.kind, stream, res.StatusCode, words, text)
			}
			w.expectBill(store.Settled)
		}
	}
}

// What the provider has no word for is refused before anything is sent, in the app's shape.
func TestUntranslatable(t *testing.T) {
	for _, c := range []struct{ kind, path, body, param string }{
		{engine.OpenAI, "/v1/messages", `{"model":"gpt-4o","max_tokens":5,"top_k":3,"messages":[{"role":"user","content":"hi"}]}`, "top_k"},
		{engine.Anthropic, "/v1/chat/completions", `{"model":"gpt-4o","seed":3,"messages":[{"role":"user","content":"hi"}]}`, "seed"},
		{engine.Anthropic, "/v1/responses", `{"model":"gpt-4o","previous_response_id":"resp_1","input":"hi"}`, "previous_response_id"},
		{engine.Anthropic, "/v1/embeddings", `{"model":"gpt-4o","input":"hi"}`, "embeddings"},
	} {
		w := newWorld(t, speaking(c.kind))
		res, text := w.postTo(c.path, c.body)
		if res.StatusCode != 400 || !strings.Contains(text, c.param) || len(w.seen()) != 0 {
			t.Errorf("%s from %s: %d %s; sent %s", c.path, c.kind, res.StatusCode, text, w.seen())
		}
		if rows := w.book.paid(); len(rows) != 1 || rows[0].State != store.Void {
			t.Errorf("%s from %s: the ledger has %+v", c.path, c.kind, rows)
		}
	}
}

// Images, sounds, unknown members, several answers and log-probabilities pass through as they are, and back.
func TestWhatPassesThroughUntouched(t *testing.T) {
	for name, c := range map[string]struct{ path, body, reply string }{
		"images": {"/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"text","text":"what is this"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"high"}}]}]}`, ""},
		"sounds": {"/v1/chat/completions", `{"model":"gpt-4o","modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"},"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}}]}]}`,
			`{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":null,"audio":{"id":"a","data":"UklGRg==","transcript":"hi","expires_at":1}},"finish_reason":"stop"}],"usage":` + gpt4oUsage + `}`},
		"files":   {"/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, ""},
		"unknown": {"/v1/chat/completions", `{"x_first":[1.50,{"a":null}], "model":"gpt-4o","messages":[{"role":"user","content":"hi","x_inner":true}],"x_big":123456789012345678901234567890,"\u0078_escaped":"\u00e9"}`, ""},
		"n": {"/v1/chat/completions", `{"model":"gpt-4o","n":3,"messages":[{"role":"user","content":"hi"}]}`,
			`{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"a"}},{"index":1,"message":{"content":"b"}},{"index":2,"message":{"content":"c"}}],"usage":` + gpt4oUsage + `}`},
		"logprobs": {"/v1/chat/completions", `{"model":"gpt-4o","logprobs":true,"top_logprobs":2,"messages":[{"role":"user","content":"hi"}]}`,
			`{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.1,"bytes":[97],"top_logprobs":[]}]}}],"usage":` + gpt4oUsage + `}`},
		"images in a response": {"/v1/responses", `{"model":"gpt-4o","input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}]}],"x":1}`, ""},
	} {
		w := newWorld(t)
		want := c.reply
		w.handle = func(rw http.ResponseWriter, _ *http.Request) {
			if want == "" {
				want = w.reply()
			}
			w.charge()
			rw.Header().Set("Content-Type", "application/json")
			io.WriteString(rw, want)
		}
		res, text := w.postTo(c.path, c.body)
		if sent := w.seen(); res.StatusCode != 200 || len(sent) != 1 || sent[0] != c.body || text != want {
			t.Errorf("%s: %d\nsent %s\nwant %s\ngot  %s", name, res.StatusCode, sent, c.body, text)
		}
		w.expectBill(store.Settled)
	}
}

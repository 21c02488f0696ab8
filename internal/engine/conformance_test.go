package engine_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"occam/internal/engine"
	"occam/internal/engine/enginetest"
)

func TestOpenAIConforms(t *testing.T) {
	enginetest.Run(t, engine.OpenAI, openAI("Authorization", "Bearer "+enginetest.Key))
}

func TestAzureConforms(t *testing.T) {
	enginetest.Run(t, engine.Azure, openAI("Api-Key", enginetest.Key))
}

func TestAnthropicConforms(t *testing.T) { enginetest.Run(t, engine.Anthropic, anthropic(t)) }

func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// openAI plays the scenes as an OpenAI-compatible server.
func openAI(header, value string) enginetest.Provider {
	return func(w http.ResponseWriter, r *http.Request, body []byte, scene enginetest.Scene) {
		usage := `{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":4}}`
		stream := strings.Contains(string(body), `"stream":true`)
		fail := func(status int, message string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"message":%q,"type":"requests","param":null,"code":null}}`, message)
		}
		switch {
		case r.Header.Get(header) != value || r.URL.Path != "/v1/chat/completions":
			fail(401, "wrong key")
		case scene == enginetest.Error:
			fail(429, "slow down")
		case stream:
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":%s},\"finish_reason\":null}]}\n\n", quote(enginetest.Said))
			w.(http.Flusher).Flush()
			if scene == enginetest.Cut {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, `data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: {\"choices\":[],\"usage\":"+usage+"}\n\ndata: [DONE]\n\n")
		case scene == enginetest.Tool:
			fmt.Fprintf(w, `{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"lookup","arguments":%s}}]},"finish_reason":"tool_calls"}],"usage":%s}`, quote(enginetest.Arguments), usage)
		default:
			fmt.Fprintf(w, `{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":"stop"}],"usage":%s}`, quote(enginetest.Said), usage)
		}
	}
}

// anthropic plays the scenes as Anthropic's API, and checks that the chat reached it in that API's words.
func anthropic(t *testing.T) enginetest.Provider {
	return func(w http.ResponseWriter, r *http.Request, body []byte, scene enginetest.Scene) {
		fail := func(status int, kind, message string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"type":"error","error":{"type":%q,"message":%q}}`, kind, message)
		}
		if r.Header.Get("X-Api-Key") != enginetest.Key || r.Header.Get("Authorization") != "" {
			fail(401, "authentication_error", "wrong key")
			return
		}
		var in struct {
			System    string
			MaxTokens int `json:"max_tokens"`
			Stream    bool
			Messages  []struct {
				Role    string
				Content []struct{ Type string }
			}
			Tools []struct {
				Name        string
				InputSchema map[string]any `json:"input_schema"`
			}
		}
		if err := json.Unmarshal(body, &in); err != nil || r.URL.Path != "/v1/messages" || r.Header.Get("Anthropic-Version") == "" || in.System != "be brief" ||
			in.MaxTokens != 50 || len(in.Messages) != 3 || in.Messages[1].Content[0].Type != "tool_use" || in.Messages[2].Role != "user" ||
			in.Messages[2].Content[0].Type != "tool_result" || len(in.Tools) != 1 || in.Tools[0].InputSchema["type"] != "object" {
			t.Errorf("the chat became %s at %s", body, r.URL.Path)
		}
		usage := `"usage":{"input_tokens":7,"cache_read_input_tokens":4,"cache_creation_input_tokens":0,"output_tokens":%d}`
		event := func(kind, rest string) { fmt.Fprintf(w, "event: %s\ndata: {\"type\":%q%s}\n\n", kind, kind, rest) }
		switch {
		case scene == enginetest.Error:
			fail(429, "rate_limit_error", "slow down")
		case in.Stream:
			w.Header().Set("Content-Type", "text/event-stream")
			event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,`+fmt.Sprintf(usage, 1)+`}`)
			event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
			event("ping", "")
			event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":`+quote(enginetest.Said)+`}`)
			w.(http.Flusher).Flush()
			if scene == enginetest.Cut {
				panic(http.ErrAbortHandler)
			}
			event("content_block_stop", `,"index":0`)
			event("message_delta", `,"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}`)
			event("message_stop", "")
		case scene == enginetest.Tool:
			fmt.Fprintf(w, `{"id":"msg_1","type":"message","role":"assistant","model":"m","stop_reason":"tool_use","content":[{"type":"tool_use","id":"c1","name":"lookup","input":%s}],`+usage+`}`, enginetest.Arguments, 7)
		default:
			fmt.Fprintf(w, `{"id":"msg_1","type":"message","role":"assistant","model":"m","stop_reason":"end_turn","content":[{"type":"text","text":%s}],`+usage+`}`, quote(enginetest.Said), 7)
		}
	}
}

// Package enginetest is the conformance suite of upstreams: whatever a provider speaks, a chat that goes through engine.Upstream
// comes back as a chat, with its text, its tool calls, its bill and its errors.
package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/openai"
)

// A Scene is what the provider under test is to do with the next request, in its own words.
type Scene string

// The scenes that a provider plays.
const (
	Text  Scene = "text"  // say Said and bill Billed, streaming or not as asked
	Tool  Scene = "tool"  // call the tool "lookup" with Arguments
	Error Scene = "error" // refuse with status 429 and the message "slow down"
	Cut   Scene = "cut"   // begin to stream Said and break the connection
)

// What a provider says in the scenes.
const (
	Said      = "Hello \"you\"\n"
	Arguments = `{"id":"A-1"}`
	Key       = "sk-conformance"
)

// Billed is what the provider bills in every scene that is not an error.
var Billed = cost.Usage{Input: 11, Cached: 4, Output: 7}

// A Provider plays a scene in the words of one kind of server. It checks the key in its own way, and answers 401 to a wrong
// one. stream says whether the request asks for a stream.
type Provider func(w http.ResponseWriter, r *http.Request, body []byte, scene Scene)

// Run checks one kind of upstream against a provider that speaks its language.
func Run(t *testing.T, kind string, provider Provider) {
	s := &suite{kind: kind, provider: provider}
	t.Run("text", s.text)
	t.Run("stream", s.stream)
	t.Run("tool calls", s.tools)
	t.Run("errors", s.errors)
	t.Run("a cut stream", s.cut)
	t.Run("wrong key", s.wrongKey)
}

type suite struct {
	kind     string
	provider Provider
}

func (s *suite) upstream(t *testing.T, scene Scene, key string) *engine.Upstream {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a body that cannot be read fails the scene
		s.provider(w, r, body, scene)
	}))
	t.Cleanup(server.Close)
	u, err := engine.NewUpstream(engine.Options{Name: "tested", Kind: s.kind, BaseURL: server.URL + "/v1", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

const chat = `{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"c0","type":"function","function":{"name":"lookup","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c0","content":"none"}],
	"tools":[{"type":"function","function":{"name":"lookup","parameters":{"type":"object"}}}],"max_tokens":50}`

func send(t *testing.T, u *engine.Upstream, stream bool) (*engine.Reply, error) {
	t.Helper()
	body := chat
	if stream {
		body = strings.Replace(chat, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1)
	}
	return u.Send(context.Background(), &engine.Call{API: openai.Chat, Path: openai.Chat.Path(), Body: []byte(body),
		Header: http.Header{"Content-Type": {"application/json"}}})
}

func whole(t *testing.T, u *engine.Upstream) (int, []byte) {
	t.Helper()
	reply, err := send(t, u, false)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil || !json.Valid(body) {
		t.Fatalf("%v in %s", err, body)
	}
	return reply.Status, body
}

func (s *suite) text(t *testing.T) {
	status, body := whole(t, s.upstream(t, Text, Key))
	r, ok := openai.ParseReply(body)
	if status != 200 || !ok || r.Content != Said || r.Finish != "stop" || !r.Billed || r.Usage != Billed || r.Choices != 1 || r.Model == "" {
		t.Errorf("%d %+v from %s", status, r, body)
	}
}

func (s *suite) stream(t *testing.T) {
	reply, err := send(t, s.upstream(t, Text, Key), true)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	m := openai.Meter{KeepText: 1 << 10}
	var split openai.Splitter
	split.Push(body, func(e openai.Event) { m.See(e.Data) })
	if err != nil || reply.Status != 200 || m.Text() != Said || m.Finish != "stop" || !m.Ended || !m.Billed || m.Usage != Billed {
		t.Errorf("%v %d %+v %q from %s", err, reply.Status, m, m.Text(), body)
	}
}

func (s *suite) tools(t *testing.T) {
	_, body := whole(t, s.upstream(t, Tool, Key))
	var r struct {
		Choices []struct {
			Message struct {
				ToolCalls []struct {
					ID, Type string
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			}
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal(body, &r); err != nil || len(r.Choices) != 1 || len(r.Choices[0].Message.ToolCalls) != 1 {
		t.Fatalf("%v in %s", err, body)
	}
	c := r.Choices[0].Message.ToolCalls[0]
	if c.ID == "" || c.Type != "function" || c.Function.Name != "lookup" || c.Function.Arguments != Arguments || r.Choices[0].FinishReason != "tool_calls" {
		t.Errorf("%s", body)
	}
}

func (s *suite) errors(t *testing.T) {
	status, body := whole(t, s.upstream(t, Error, Key))
	var e struct {
		Error struct{ Message, Type string }
	}
	if err := json.Unmarshal(body, &e); err != nil || status != 429 || e.Error.Message != "slow down" || e.Error.Type == "" {
		t.Errorf("%d %s", status, body)
	}
}

func (s *suite) cut(t *testing.T) {
	reply, err := send(t, s.upstream(t, Cut, Key), true)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	var failure *engine.Failure
	if !errors.As(err, &failure) || failure.Kind != engine.Broken || bytes.Contains(body, []byte("[DONE]")) {
		t.Errorf("%v after %s", err, body)
	}
}

func (s *suite) wrongKey(t *testing.T) {
	if status, body := whole(t, s.upstream(t, Text, "sk-wrong")); status != 401 {
		t.Errorf("%d %s", status, body)
	}
}

package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"occam/internal/engine"
	"occam/internal/store"
)

// A self-test finds out what a server ignores with status 200, and what it refuses.
func TestSelfTest(t *testing.T) {
	for _, c := range []struct {
		kind  string
		calls int
		want  Abilities
	}{
		{"honest", 2, Abilities{Schema: Enforced, Logprobs: true, Usage: true, StreamUsage: true}},
		{"ignoring", 2, Abilities{Schema: Ignored}},
		{"thinking", 2, Abilities{Schema: Unclear, Usage: true, StreamUsage: true}},
		{"refusing logprobs", 4, Abilities{Schema: Enforced, Usage: true, StreamUsage: true}},
		{"refusing schemas", 4, Abilities{Schema: Refused, Logprobs: true, Usage: true, StreamUsage: true}},
		{"refusing stream options", 2, Abilities{Schema: Enforced, Logprobs: true, Usage: true}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			w := newWorld(t)
			w.handle = selfTested(c.kind)
			got, err := w.server.SelfTest(t.Context(), engine.Target{Upstream: w.snap.Fallback, Model: "gpt-4o"})
			if c.want.Provider, c.want.Model, c.want.Priced = "openai", "gpt-4o", true; got.At.IsZero() {
				t.Error("without a time")
			}
			c.want.At = got.At
			if err != nil || got != c.want {
				t.Errorf("%+v, want %+v: %v", got, c.want, err)
			}
			rows := w.book.paid()
			if len(rows) != c.calls {
				t.Errorf("%d calls", len(rows))
			}
			for _, a := range rows {
				if a.Reason != "self_test" || a.Answered || !a.Audit || a.Seq == 0 || a.CostHigh == 0 && a.State == store.Estimated {
					t.Errorf("ledger %+v", a)
				}
			}
		})
	}
	for name, handle := range map[string]http.HandlerFunc{
		"wrong key": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(401) }, "rubbish": func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "<html>") },
		"refusing everything": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(400) },
	} {
		w := newWorld(t)
		w.handle = handle
		if got, err := w.server.SelfTest(t.Context(), engine.Target{Upstream: w.snap.Fallback, Model: "gpt-4o"}); err == nil || got.Error == "" {
			t.Errorf("%s passed: %+v", name, got)
		}
		w.book.paid()
	}
	w := newWorld(t)
	w.handle = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := w.server.SelfTest(ctx, engine.Target{Upstream: w.snap.Fallback, Model: "gpt-4o"}); err == nil {
		t.Error("a provider that does not answer passed")
	}
	w.book.paid()
}

// selfTested is a provider of one kind.
func selfTested(kind string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		has := func(field string) bool { return strings.Contains(string(body), `"`+field+`"`) }
		said, logprobs, usage, finish := "four", "null", "null", "stop"
		if kind != "ignoring" {
			usage = gpt4oUsage
			if has("json_schema") {
				said = `{"answer":"zxqv-7"}`
			}
			if has("logprobs") {
				logprobs = `{"content":[{"token":"x","logprob":-0.1}]}`
			}
		}
		switch {
		case kind == "thinking":
			said, finish, logprobs = "", "length", "null"
		case kind == "refusing logprobs" && has("logprobs"), kind == "refusing schemas" && has("json_schema"), kind == "refusing stream options" && has("stream_options"):
			rw.WriteHeader(400)
			io.WriteString(rw, `{"error":{"message":"unknown field"}}`)
			return
		}
		text, _ := json.Marshal(said)
		if has("stream") {
			rw.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(rw, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":%s}\n\ndata: [DONE]\n\n", text, usage)
			return
		}
		fmt.Fprintf(rw, `{"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":%s},"logprobs":%s,"finish_reason":"%s"}],"usage":%s}`, text, logprobs, finish, usage)
	}
}

// GET /v1/models has the provider's models, asked for once a minute, those of the configuration and the tasks.
func TestModelsOfTheProvider(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" && r.Method == "GET" {
			asked++
			io.WriteString(rw, `{"object":"list","data":[{"id":"gpt-4o","object":"model","created":5,"owned_by":"system","shutdown_date":"2027-01-14"},{"id":"o3"}]}`)
		}
	}
	w.ring(newTenant("all", store.KeyLimits{}), newTenant("few", store.KeyLimits{Models: []string{"o3"}, Tasks: []string{"none"}}))
	get := func(secret string) string {
		req, _ := http.NewRequest("GET", w.web.URL+"/v1/models", nil)
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	if text := get("wrong"); !strings.Contains(text, "invalid_api_key") {
		t.Error(text)
	}
	all, few := newTenant("all", store.KeyLimits{}), newTenant("few", store.KeyLimits{Models: []string{"o3"}, Tasks: []string{"none"}})
	w.ring(all, few)
	for range 3 {
		text := get(all.secret)
		if !strings.Contains(text, `"shutdown_date":"2027-01-14"`) || !strings.Contains(text, `"o3"`) || !strings.Contains(text, `"triage"`) {
			t.Errorf("%s", text)
		}
	}
	if text := get(few.secret); strings.Contains(text, "gpt-4o") || strings.Contains(text, "triage") || !strings.Contains(text, `"o3"`) {
		t.Errorf("a key sees what it may not use: %s", text)
	}
	if asked != 1 {
		t.Errorf("the provider was asked %d times", asked)
	}
}

package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"occam/internal/store"
)

// A self-test finds out what a server ignores with status 200.
func TestSelfTest(t *testing.T) {
	for _, honest := range []bool{true, false} {
		w := newWorld(t)
		w.handle = func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			said, logprobs, usage := "four", "null", "null"
			if honest {
				said, logprobs, usage = `{"answer":"zxqv-7"}`, `{"content":[{"token":"x","logprob":-0.1}]}`, gpt4oUsage
			}
			text, _ := json.Marshal(said)
			if strings.Contains(string(body), `"stream":true`) {
				rw.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(rw, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":%s}\n\ndata: [DONE]\n\n", text, usage)
				return
			}
			fmt.Fprintf(rw, `{"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":%s},"logprobs":%s,"finish_reason":"stop"}],"usage":%s}`, text, logprobs, usage)
		}
		got, err := w.server.SelfTest(t.Context(), "gpt-4o")
		want := Abilities{Model: "gpt-4o", Provider: "openai", Schema: honest, Logprobs: honest, Usage: honest, StreamUsage: honest, Priced: true}
		if err != nil || got != want {
			t.Errorf("honest %v: %+v %v", honest, got, err)
		}
		rows := w.book.paid()
		if len(rows) != 2 || rows[0].Reason != "self_test" || rows[0].Answered || (rows[0].State == store.Settled) != honest {
			t.Errorf("ledger %+v", rows)
		}
	}
	w := newWorld(t)
	w.provider.Close()
	if _, err := w.server.SelfTest(t.Context(), "gpt-4o"); err == nil {
		t.Error("a provider that is down passed")
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

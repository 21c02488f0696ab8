package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"occam/internal/engine"
)

// That a provider stops a model is told to apps in a header and in the list of models, and to people in the log: by the provider's
// own list where it says so, by the price book where it does not.
func TestModelsThatEnd(t *testing.T) {
	var log bytes.Buffer
	soon := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.DateOnly)
	far := time.Now().Add(400 * 24 * time.Hour).Unix()
	w := newWorld(t, func(_ *world, o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprintf(rw, `{"object":"list","data":[{"id":"gpt-4o","object":"model","deprecation_date":%q},{"id":"gpt-far","object":"model","expiration_date":%d},{"id":"gpt-4o-mini","object":"model"}]}`, soon, far)
			return
		}
		w.charge()
		io.WriteString(rw, w.reply())
	}
	w.snap.Models = map[string]engine.Route{"far": {Targets: []engine.Target{{Upstream: w.snap.Fallback, Model: "gpt-far"}}}}
	w.publish()
	told := map[string]bool{}
	for range 2 { // the second look says nothing new
		w.server.lookForEndings(context.Background(), w.snap)
		w.server.warnOfEndings(w.snap, told)
	}
	if res, _ := w.post(plainBody); res.Header.Get("X-Occam-Model-Shutdown") != soon {
		t.Errorf("headers %v, want %s", res.Header, soon)
	}
	if res, _ := w.post(strings.Replace(plainBody, "gpt-4o", "far", 1)); res.Header.Get("X-Occam-Model-Shutdown") != "" {
		t.Errorf("warned of an end in a year: %v", res.Header)
	}
	res, err := http.Get(w.web.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct {
		Data []struct{ ID, Shutdown_date string }
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	dates := map[string]string{}
	for _, m := range list.Data {
		dates[m.ID] = m.Shutdown_date
	}
	if dates["gpt-4o"] != soon || dates["far"] == "" || dates["gpt-4o-mini"] != "2027-01-14" { // the last as the price book says
		t.Errorf("%v", dates)
	}
	if _, task := dates["triage"]; !task {
		t.Errorf("the task is not listed: %v", dates)
	}
	if warnings := strings.Count(log.String(), "stops a model"); warnings != 1 {
		t.Errorf("%d warnings:\n%s", warnings, log.String())
	}
}

// Anthropic's list, which comes in pages, says when a model ends, and an app that speaks Anthropic's API gets a list of its shape.
func TestModelsOfAnthropic(t *testing.T) {
	soon := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.DateOnly)
	w := newWorld(t, speaking(engine.Anthropic))
	pages := 0
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/models" || r.Header.Get("X-Api-Key") != "k" || r.Header.Get("Anthropic-Version") == "" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		pages++
		if r.URL.Query().Get("after_id") != "claude-a" {
			io.WriteString(rw, `{"data":[{"type":"model","id":"claude-a","display_name":"Claude A","created_at":"2026-01-02T00:00:00Z","lifecycle":"active","retires_at":null}],"has_more":true,"last_id":"claude-a"}`)
			return
		}
		fmt.Fprintf(rw, `{"data":[{"type":"model","id":"claude-b","display_name":"Claude B","created_at":"2025-01-02T00:00:00Z","lifecycle":"deprecated","retires_at":"%sT00:00:00Z"}],"has_more":false,"last_id":"claude-b"}`, soon)
	}
	w.snap.Models = map[string]engine.Route{"claude-b": {Targets: []engine.Target{{Upstream: w.snap.Fallback, Model: "claude-b"}}}}
	w.publish()
	w.server.lookForEndings(context.Background(), w.snap)
	r, _ := http.NewRequest(http.MethodGet, w.web.URL+"/v1/models", nil)
	r.Header.Set("Anthropic-Version", "2023-06-01")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct {
		Data []struct {
			ID, Type, Lifecycle string
			Name                string    `json:"display_name"`
			Created             time.Time `json:"created_at"`
			Retires             string    `json:"retires_at"`
			Object              string
		}
		More *bool `json:"has_more"`
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list.Data) != 3 || list.More == nil || *list.More {
		t.Fatalf("%+v", list)
	}
	a, b, task := list.Data[0], list.Data[1], list.Data[2]
	if a.Name != "Claude A" || a.Created.Year() != 2026 || a.Lifecycle != "active" || a.Retires != "" {
		t.Errorf("%+v", a)
	}
	if b.ID != "claude-b" || b.Type != "model" || b.Lifecycle != "deprecated" || b.Retires != soon+"T00:00:00Z" || b.Object != "" {
		t.Errorf("%+v", b)
	}
	if task.ID != "triage" || task.Type != "model" || task.Name != "triage" || pages < 4 {
		t.Errorf("%+v; %d pages were asked for", task, pages)
	}
}

// The list of a provider is kept for the next requests: what one of them adds for its app is not written into it. Requests come at once.
func TestTheKeptListOfModelsIsNotChanged(t *testing.T) {
	w := newWorld(t)
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		io.WriteString(rw, `{"object":"list","data":[{"id":"gpt-4o-mini","object":"model"}]}`)
	}
	res, err := http.Get(w.web.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); !strings.Contains(string(text), `"shutdown_date":"2027-01-14"`) { // as the price book says
		t.Errorf("%s", text)
	}
	if kept := w.server.listed.Load().models; len(kept) != 1 || len(kept[0]) != 2 {
		t.Errorf("%v", kept)
	}
}

// An app that goes away while the provider is asked for its models leaves no empty list to the others.
func TestAnAppThatLeavesDoesNotEmptyTheListOfModels(t *testing.T) {
	w := newWorld(t)
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		io.WriteString(rw, `{"object":"list","data":[{"id":"gpt-4o-mini","object":"model"}]}`)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	w.server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/models", nil).WithContext(gone))
	res, err := http.Get(w.web.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); !strings.Contains(string(text), "gpt-4o-mini") {
		t.Errorf("%s", text)
	}
}

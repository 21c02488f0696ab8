package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"occam/internal/openai"
	"occam/internal/store"
)

func (w *world) feedback(body, key string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequest("POST", w.web.URL+"/v1/feedback", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestFeedback(t *testing.T) {
	var got []Feedback
	w := newWorld(t, func(_ *world, o *Options) {
		o.OnFeedback = func(_ context.Context, f Feedback) error {
			switch f.RequestID {
			case "unknown":
				return &openai.Error{Status: 404, Type: "invalid_request_error", Code: "unknown_request", Message: "The request is not known."}
			case "trouble":
				return errors.New("disk secret path")
			}
			got = append(got, f)
			return nil
		}
	})
	w.snap.Keys = NewKeyring([]store.Key{{ID: "key-1", Role: RoleApp, Hash: store.HashSecret("sk-app")}})
	w.publish()
	for _, tc := range []struct {
		body, key string
		status    int
		text      string
	}{
		{`{"request_id":"r1","labels":{"category":"refund","order_id":null}}`, "sk-app", 200, `"status":"recorded"`},
		{`{"request_id":"r1","labels":{"category":"refund"}}`, "sk-other", 401, "invalid_api_key"},
		{`{"request_id":"unknown","labels":{"category":"refund"}}`, "sk-app", 404, "unknown_request"},
		{`{"request_id":"trouble","labels":{"category":"refund"}}`, "sk-app", 503, "feedback_unavailable"},
		{`{"request_id":"r1"}`, "sk-app", 400, "labels"},
		{`{"labels":{"category":"refund"}}`, "sk-app", 400, "request_id"},
		{`{"request_id":7`, "sk-app", 400, "body"},
		{`{"request_id":"r1","labels":{"category":{"a":1}}}`, "sk-app", 400, "body"},
	} {
		status, text := w.feedback(tc.body, tc.key)
		if status != tc.status || !strings.Contains(text, tc.text) || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s, want %d with %q", tc.body, status, text, tc.status, tc.text)
		}
	}
	if len(got) != 1 || got[0].KeyID != "key-1" || got[0].Labels["category"].Text() != "refund" || !got[0].Labels["order_id"].IsNull() {
		t.Errorf("%+v", got)
	}
}

func TestDecisionsAndTrafficAreToldOn(t *testing.T) {
	var mu sync.Mutex
	var decisions []Decision
	var traffic []Traffic
	w := newWorld(t, func(_ *world, o *Options) {
		o.OnDecision = func(d Decision) { mu.Lock(); d.Predicted = nil; decisions = append(decisions, d); mu.Unlock() }
		o.OnTraffic = func(x Traffic) { mu.Lock(); traffic = append(traffic, x); mu.Unlock() }
	})
	w.post(ticketBody("refund for A-1"))
	w.model.p.Score = 1
	w.post(ticketBody("refund for A-1 please"))
	w.post(plainBody)
	w.post(streamBody)
	mu.Lock()
	defer mu.Unlock()
	if len(decisions) != 2 || !decisions[0].Answered || decisions[1].Answered || decisions[1].Reason != "below_threshold" || decisions[0].Input == "" {
		t.Errorf("decisions %+v", decisions)
	}
	if len(traffic) != 2 || traffic[0].Messages[0].Text != "hi" || traffic[0].Content == "" || traffic[0].Content != traffic[1].Content || traffic[0].Cost == 0 || !traffic[0].Priced {
		t.Errorf("traffic %+v", traffic)
	}
}

// Labels of the same prompt are labels of the same teacher, whatever the input.
func TestPromptHash(t *testing.T) {
	w := newWorld(t)
	w.model.p.Score = 1
	for _, body := range []string{
		ticketBody("first"), ticketBody("second"),
		strings.Replace(ticketBody("third"), `"messages":[`, `"messages":[{"role":"system","content":"Be brief."},`, 1),
		strings.Replace(ticketBody("fourth"), `"messages":[`, `"messages":[{"role":"system","content":"Be brief!"},`, 1),
	} {
		w.post(body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.examples) != 4 {
		t.Fatalf("%d examples", len(w.examples))
	}
	h := func(i int) string { return w.examples[i].PromptHash }
	if h(0) == "" || h(0) != h(1) || h(1) == h(2) || h(2) == h(3) || w.examples[0].Provider != "openai" {
		t.Errorf("hashes %q %q %q %q of provider %q", h(0), h(1), h(2), h(3), w.examples[0].Provider)
	}
}

// ticketBody is taskBody with another ticket.
func ticketBody(ticket string) string {
	return strings.Replace(taskBody, "refund A-1 please", ticket, 1)
}

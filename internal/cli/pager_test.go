package cli

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/sim"
	"occam/internal/task"
)

// A listener takes webhooks.
type listener struct {
	mu     sync.Mutex
	bodies []string
	signed []string
	refuse int // so many come to nothing
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse > 0 {
		l.refuse--
		w.WriteHeader(500)
		return
	}
	l.bodies, l.signed = append(l.bodies, string(body)), append(l.signed, r.Header.Get("X-Occam-Signature"))
}

func (l *listener) got() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.bodies...)
}

// With on_doubt: review a request that no tier may answer waits for a person, people are told once, and the app gets the answer.
func TestWebhooksOfReviews(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	people, client := &listener{}, &listener{}
	peopleAt, appAt := httptest.NewServer(people), httptest.NewServer(client)
	defer peopleAt.Close()
	defer appAt.Close()
	f := newFixtureOf(t, sim.Options{}, "audit: 0, on_doubt: review", fmt.Sprintf(`capture: {prompts: true}
reviews: {needed: %q, answered: %q, secret: s3cret, url: "https://occam.example.com"}
`, peopleAt.URL, appAt.URL))
	base, _, stop := serve(t, f.config)
	calls := f.provider.Served()
	var held []string
	for i := range 3 {
		response, body := post(t, base, "triage", fmt.Sprintf("zebra %d quantum xylophone, nothing like a ticket", i))
		if response.Header.Get("X-Occam-Reason") != "review" || !strings.Contains(body, `"refusal":"No model may answer`) {
			t.Fatalf("%s: %s", response.Header.Get("X-Occam-Reason"), body)
		}
		held = append(held, response.Header.Get("X-Occam-Request-Id"))
	}
	if f.provider.Served() != calls {
		t.Error("the generalist was asked, though the task wants a person")
	}
	wait(t, "word for people", func() bool { return len(people.got()) > 0 })
	if got := people.got()[0]; !strings.Contains(got, `"text":"occam: `) || !strings.Contains(got, "https://occam.example.com/review?task=triage") || strings.Contains(got, "zebra") {
		t.Errorf("people are told %s", got)
	}
	c, err := (&app{getenv: os.Getenv, now: time.Now, stderr: io.Discard}).admin(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var next struct {
		ID      string `json:"id"`
		Request string `json:"request_id"`
		Fields  []task.Field
	}
	if err := c.get(t.Context(), "/api/review?task=triage", &next); err != nil || next.Request != held[0] {
		t.Fatalf("the first that waits: %+v, %v", next, err)
	}
	form := url.Values{"do": {"accept"}}
	for _, field := range next.Fields {
		if field.Kind == task.Category {
			form.Set("f."+field.Name, field.Values[0])
		}
	}
	if err := c.post(t.Context(), "/api/review/"+next.ID, form, new(any)); err != nil {
		t.Fatal(err)
	}
	wait(t, "word for the app", func() bool { return len(client.got()) > 0 })
	var said personAnswer
	if err := json.Unmarshal([]byte(client.got()[0]), &said); err != nil || said.Event != "answered" || said.RequestID != held[0] || said.Task != "triage" ||
		!strings.HasPrefix(said.Answer, "{") || said.Labels["category"].IsNull() || said.At.IsZero() {
		t.Errorf("the app gets %+v, %v", said, err)
	}
	sum := hmac.New(sha256.New, []byte("s3cret"))
	sum.Write([]byte(client.got()[0]))
	if want := "sha256=" + hex.EncodeToString(sum.Sum(nil)); client.signed[0] != want {
		t.Errorf("signature %s, want %s", client.signed[0], want)
	}
	stop()
	base, _, stop = serve(t, f.config) // nothing is told twice
	post(t, base, "triage", f.tickets[0].Text)
	wait(t, "a moment", func() bool { return true })
	stop()
	if n := len(client.got()); n != 1 || len(people.got()) > 2 {
		t.Errorf("the app was told %d times, people %d times", n, len(people.got()))
	}
}

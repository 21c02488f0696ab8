package cli

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/config"
	"occam/internal/lifecycle"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/store"
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
	if err := c.get(t.Context(), "/api/review?task=triage", &next); err != nil || !slices.Contains(held, next.Request) { // the most valuable of those that wait by now
		t.Fatalf("what waits: %+v, %v", next, err)
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
	if err := json.Unmarshal([]byte(client.got()[0]), &said); err != nil || said.Event != "answered" || said.RequestID != next.Request || said.Task != "triage" ||
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

// With on_doubt: both the generalist answers at once and a person sees the request too, with what the model would have said.
func TestBothOnDoubt(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	client := &listener{}
	appAt := httptest.NewServer(client)
	defer appAt.Close()
	truth := sample.Traffic(2, 1)[0].Truth
	truth["order_id"] = task.Null
	f := newFixtureOf(t, sim.Options{Oracle: func(string) task.Output { return truth }}, "audit: 0, on_doubt: both",
		fmt.Sprintf("capture: {prompts: true}\nreviews: {answered: %q}\n", appAt.URL))
	base, _, stop := serve(t, f.config)
	calls := f.provider.Served()
	response, body := post(t, base, "triage", "zebra quantum xylophone, nothing like a ticket")
	if response.StatusCode != 200 || response.Header.Get("X-Occam-Model") != "gpt-4o" || !strings.Contains(body, truth["category"].Text()) || f.provider.Served() != calls+1 {
		t.Fatalf("%d %v: %s", response.StatusCode, response.Header, body)
	}
	id := response.Header.Get("X-Occam-Request-Id")
	c, err := (&app{getenv: os.Getenv, now: time.Now, stderr: io.Discard}).admin(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var next struct {
		ID      string `json:"id"`
		Request string `json:"request_id"`
		Text    string `json:"text"`
		Why     string `json:"why"`
		Fields  []task.Field
	}
	wait(t, "the request in the queue", func() bool {
		return c.get(t.Context(), "/api/review?task=triage", &next) == nil && next.Request == id
	})
	if !strings.Contains(next.Text, "zebra") || !strings.Contains(next.Why, "no tier may answer") {
		t.Errorf("the person sees %+v", next)
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
	wait(t, "word for the app", func() bool { return len(client.got()) == 1 })
	if got := client.got()[0]; !strings.Contains(got, id) {
		t.Errorf("the app gets %s", got)
	}
	stop()
	var labels []store.Label // the generalist's answer and the person's stand side by side
	opened, err := store.Open(t.Context(), "sqlite:"+filepath.Join(filepath.Dir(f.config), "data"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close() //nolint:errcheck // nothing was written
	err = opened.View(t.Context(), func(tx *store.Tx) error {
		e, err := tx.Examples().ByRequest(id)
		labels = e.Labels
		return err
	})
	if err != nil || len(labels) != 2 {
		t.Errorf("labels %+v, %v", labels, err)
	}
}

// An app that refuses an answer gets it again a minute later, not sooner, until it takes it, and never after that.
func TestARefusedAnswerIsSentAgain(t *testing.T) {
	client := &listener{refuse: 2}
	appAt := httptest.NewServer(client)
	defer appAt.Close()
	now := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is to be kept
	said := task.Output{"category": task.String("refund")}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.Reviews().Add(store.Review{ID: "r1", Task: "triage", RequestID: "r1", Example: "r1", At: now, Priority: lifecycle.WorthDoubt}); err != nil {
			return err
		}
		_, err := tx.Reviews().Close("r1", "ann", said)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Reviews = config.Reviews{Answered: appAt.URL, Secret: "s3cret"}
	tasks := []lifecycle.Status{{Task: "triage", Fields: []task.Field{{Name: "category", Kind: task.Category, Values: []string{"refund", "other"}}}}}
	deliver := func(p *pager) (refusals int) {
		t.Helper()
		if err := p.deliver(t.Context(), tasks); err != nil {
			t.Fatal(err)
		}
		client.mu.Lock()
		defer client.mu.Unlock()
		return client.refuse
	}
	p := newPager(&cfg, "http://127.0.0.1:1", s, slog.New(slog.DiscardHandler), clock)
	if left := deliver(p); left != 1 {
		t.Fatalf("%d refusals are left after the first", left)
	}
	now = now.Add(answerRetry - time.Second)
	if left := deliver(p); left != 1 {
		t.Fatal("it was sent again at once")
	}
	now = now.Add(time.Second)
	p = newPager(&cfg, "http://127.0.0.1:1", s, slog.New(slog.DiscardHandler), clock) // a restart, or another replica, goes on
	if left := deliver(p); left != 0 || len(client.got()) != 0 {
		t.Fatalf("%d refusals are left after the second", left)
	}
	now = now.Add(answerRetry)
	deliver(p)
	if got := client.got(); len(got) != 1 || !strings.Contains(got[0], `"request_id":"r1"`) || !strings.Contains(got[0], `{\"category\":\"refund\"}`) || client.signed[0] == "" {
		t.Fatalf("the app took %q", got)
	}
	for range 3 {
		now = now.Add(answerRetry)
		deliver(p)
	}
	if n := len(client.got()); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

// The address that people are given leads to the task's queue, whatever the task is called.
func TestPageNamesTheTaskInItsAddress(t *testing.T) {
	people := &listener{}
	peopleAt := httptest.NewServer(people)
	defer peopleAt.Close()
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is to be kept
	const name = "returns & refunds"
	if err := s.Update(t.Context(), func(tx *store.Tx) error {
		return tx.Reviews().Add(store.Review{ID: "r1", Task: name, RequestID: "r1", Example: "r1", At: time.Now(), Priority: lifecycle.WorthDoubt})
	}); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Reviews = config.Reviews{Needed: peopleAt.URL}
	if err := newPager(&cfg, "http://127.0.0.1:1", s, slog.New(slog.DiscardHandler), time.Now).page(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if got := people.got(); len(got) != 1 || !strings.Contains(got[0], "/review?task="+url.QueryEscape(name)+`"`) {
		t.Errorf("people are told %q", got)
	}
}

// Answers that an app never takes hold up none behind them.
func TestRefusedAnswersHoldUpNoOther(t *testing.T) {
	var taken sync.Map
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var said personAnswer
		if json.NewDecoder(r.Body).Decode(&said) != nil || said.RequestID != "good" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		taken.Store(said.RequestID, true)
	}))
	defer app.Close()
	now := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is to be kept
	answered := func(id string) {
		if err := s.Update(t.Context(), func(tx *store.Tx) error {
			if err := tx.Reviews().Add(store.Review{ID: id, Task: "triage", RequestID: id, Example: id, At: now, Priority: lifecycle.WorthDoubt}); err != nil {
				return err
			}
			_, err := tx.Reviews().Close(id, "ann", task.Output{"category": task.String("refund")})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	for i := range answerBatch {
		answered(fmt.Sprintf("gone-%d", i))
	}
	answered("good")
	cfg := config.Default()
	cfg.Reviews = config.Reviews{Answered: app.URL}
	p := newPager(&cfg, "http://127.0.0.1:1", s, slog.New(slog.DiscardHandler), clock)
	for range 3 {
		if err := p.deliver(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		now = now.Add(answerRetry)
	}
	if _, ok := taken.Load("good"); !ok {
		t.Error("the answer behind those that the app never takes did not reach it")
	}
}

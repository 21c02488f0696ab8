package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/store"
)

// A tenant is a key with its secret.
type tenant struct {
	store.Key
	secret string
}

func newTenant(id string, limits store.KeyLimits) tenant {
	secret := store.NewSecret()
	return tenant{store.Key{ID: id, Role: RoleApp, Hash: store.HashSecret(secret), Limits: limits}, secret}
}

func (w *world) send(secret, body string) (*http.Response, string) {
	w.t.Helper()
	req, _ := http.NewRequest("POST", w.web.URL+"/v1/chat/completions", strings.NewReader(body))
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Error(err)
		return &http.Response{Header: http.Header{}}, ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res, string(text)
}

func (w *world) ring(tenants ...tenant) {
	var keys []store.Key
	for _, k := range tenants {
		keys = append(keys, k.Key)
	}
	w.snap = &Snapshot{Fallback: w.snap.Fallback, Models: w.snap.Models, Book: w.snap.Book, Tasks: w.snap.Tasks, Limits: w.snap.Limits, Keys: NewKeyring(keys)}
	w.publish()
}

func TestKeysAreAsked(t *testing.T) {
	w := newWorld(t)
	good, revoked, viewer := newTenant("good", store.KeyLimits{}), newTenant("revoked", store.KeyLimits{}), newTenant("viewer", store.KeyLimits{})
	revoked.Revoked = time.Now()
	viewer.Role = "viewer"
	w.ring(good, revoked, viewer)
	for _, secret := range []string{"", "sk-wrong", good.secret + "x", good.secret[1:], revoked.secret, viewer.secret, fmt.Sprintf("%x", good.Hash)} {
		for _, body := range []string{plainBody, taskBody} {
			if res, text := w.send(secret, body); res.StatusCode != 401 || !strings.Contains(text, "api_key") || strings.Contains(text, good.secret) {
				t.Errorf("%q: %d %s", secret, res.StatusCode, text)
			}
		}
	}
	if len(w.seen()) != 0 {
		t.Error("a request without a key went upstream")
	}
	if res, _ := w.send(good.secret, plainBody); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if a := w.book.paid(); a[0].KeyID != "good" {
		t.Errorf("%+v", a)
	}
	if h := w.headers[0]; h.Get("Authorization") != "Bearer sk-provider-secret" {
		t.Error("the app's key went upstream")
	}
	if got := NewKeyring(nil); got.find("") != nil {
		t.Error("an empty ring lets somebody in")
	}
}

func TestKeysAreHeldToTheirModelsAndTasks(t *testing.T) {
	w := newWorld(t)
	models, tasks := newTenant("models", store.KeyLimits{Models: []string{"gpt-4o-mini"}}), newTenant("tasks", store.KeyLimits{Tasks: []string{"other"}})
	w.ring(models, tasks)
	for _, c := range []struct {
		secret, body string
		status       int
	}{
		{models.secret, plainBody, 403},
		{models.secret, taskBody, 403},
		{models.secret, strings.Replace(plainBody, "gpt-4o", "gpt-4o-mini", 1), 200},
		{models.secret, strings.Replace(taskBody, `"gpt-4o"`, `"triage"`, 1), 200},
		{tasks.secret, plainBody, 200},
		{tasks.secret, taskBody, 403},
		{tasks.secret, strings.Replace(taskBody, `"gpt-4o"`, `"triage"`, 1), 403},
	} {
		if res, text := w.send(c.secret, c.body); res.StatusCode != c.status {
			t.Errorf("%.60s: %d %s", c.body, res.StatusCode, text)
		}
	}
}

func TestRatesOfAKey(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	w := newWorld(t, func(_ *world, o *Options) { o.Now = func() time.Time { return time.Unix(0, now.Load()) } })
	requests, tokens, escalations := newTenant("requests", store.KeyLimits{RequestsPerMinute: 3}),
		newTenant("tokens", store.KeyLimits{TokensPerMinute: 1500}), newTenant("escalations", store.KeyLimits{Escalations: 2})
	w.ring(requests, tokens, escalations)
	limited := func(secret, body, code string) {
		t.Helper()
		res, text := w.send(secret, body)
		if res.StatusCode != 429 || !strings.Contains(text, code) || res.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s %v", res.StatusCode, text, res.Header)
		}
	}
	fine := func(secret, body string) {
		t.Helper()
		if res, text := w.send(secret, body); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, text)
		}
	}
	for range 3 {
		fine(requests.secret, taskBody)
	}
	limited(requests.secret, taskBody, "rate_limit_exceeded")
	fine(tokens.secret, plainBody) // 550 tokens, as billed
	fine(tokens.secret, plainBody)
	limited(tokens.secret, plainBody, "rate_limit_exceeded")
	fine(tokens.secret, taskBody) // a specialist's answer uses none
	w.model.p.Score = 0
	fine(escalations.secret, taskBody)
	fine(escalations.secret, taskBody)
	limited(escalations.secret, taskBody, "escalation_budget")
	w.model.p.Score = 9
	fine(escalations.secret, taskBody)
	now.Add(int64(time.Minute))
	fine(requests.secret, plainBody)
	fine(tokens.secret, plainBody)
	w.model.p.Score = 0
	fine(escalations.secret, taskBody)
}

// realStore replaces the book by a real ledger.
func realStore(s **store.Store) func(*world, *Options) {
	return func(w *world, o *Options) {
		opened, err := store.Open(context.Background(), "sqlite:"+w.t.TempDir(), store.Options{Durability: store.Normal})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { opened.Close() })
		*s, o.Ledger = opened, opened
	}
}

// S20: many requests at once, of every expensive kind, on a small budget.
func TestS20DenialOfWallet(t *testing.T) {
	var ledger *store.Store
	w := newWorld(t, realStore(&ledger), func(w *world, _ *Options) { w.snap.Limits.InFlight = 5000 })
	k := newTenant("poor", store.KeyLimits{Budget: cost.USD / 10, Period: "month"})
	w.ring(k)
	var refused, answered atomic.Int64
	var wg sync.WaitGroup
	prompt := strings.Repeat("hi ", 200) // long enough for what the provider bills
	plain, stream := strings.Replace(plainBody, "hi", prompt, 1), strings.Replace(streamBody, "hi", prompt, 1)
	bodies := []string{plain, stream, strings.Replace(plain, "{", `{"max_tokens":1000000,`, 1), strings.Replace(plain, "{", `{"n":100,`, 1),
		strings.Replace(plain, "{", `{"max_tokens":100,`, 1)}
	n := 1000
	if testing.Short() {
		n = 200
	}
	for i := range 20 {
		wg.Go(func() {
			for j := range n / 20 {
				res, text := w.send(k.secret, bodies[(i+j)%len(bodies)])
				switch {
				case res.StatusCode == 200:
					answered.Add(1)
				case res.StatusCode == 429 && strings.Contains(text, "insufficient_quota"):
					refused.Add(1)
				default:
					t.Errorf("%d %s", res.StatusCode, text)
				}
			}
		})
	}
	wg.Wait()
	b, err := ledger.BudgetBalance(context.Background(), store.Budget{Key: "poor", Start: store.PeriodStart("month", time.Now())})
	if err != nil || b.Reserved != 0 || b.Spent != w.bill || b.Spent > cost.USD/10 {
		t.Errorf("%+v %v, bill %v", b, err, w.bill)
	}
	if answered.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d answered, %d refused", answered.Load(), refused.Load())
	}
}

// S20: what a request held is freed when it is cancelled.
func TestS20ReservationsEndWithCancelledRequests(t *testing.T) {
	var ledger *store.Store
	w := newWorld(t, realStore(&ledger))
	k := newTenant("k", store.KeyLimits{Budget: 1000 * cost.USD, Period: "day"})
	w.ring(k)
	w.handle = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	n := size(200, 1000)
	if testing.Short() {
		n = 40
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
				req, _ := http.NewRequestWithContext(ctx, "POST", w.web.URL+"/v1/chat/completions", strings.NewReader(plainBody))
				req.Header.Set("Authorization", "Bearer "+k.secret)
				if res, err := http.DefaultClient.Do(req); err == nil {
					res.Body.Close()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	wait(t, "no request is in flight", func() bool { return w.server.inFlight.Load() == 0 })
	b, err := ledger.BudgetBalance(context.Background(), store.Budget{Key: "k", Start: store.PeriodStart("day", time.Now())})
	if err != nil || b.Reserved != 0 {
		t.Errorf("%+v %v", b, err)
	}
	if c, err := ledger.Counts(context.Background()); err != nil || c.Open != 0 {
		t.Errorf("%+v %v", c, err)
	}
}

// A budget without room for the model that was asked for pays a cheaper one before it refuses.
func TestABudgetDegradesBeforeItBlocks(t *testing.T) {
	var ledger *store.Store
	w := newWorld(t, realStore(&ledger))
	k := newTenant("k", store.KeyLimits{Budget: cost.USD / 20, Period: "month", Degrade: "gpt-4o-mini"})
	w.ring(k)
	models := map[string]int{}
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		var body struct{ Model string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		models[body.Model]++
		fmt.Fprintf(rw, `{"model":"%s","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":1000}}`, body.Model)
	}
	body := strings.Replace(plainBody, "{", `{"max_tokens":2000,`, 1)
	var order []string
	for range 60 {
		res, text := w.send(k.secret, body)
		switch {
		case res.StatusCode == 429 && strings.Contains(text, "insufficient_quota"):
			order = append(order, "refused")
		case res.StatusCode != 200:
			t.Fatalf("%d %s", res.StatusCode, text)
		default:
			order = append(order, res.Header.Get("X-Occam-Model"))
			if degraded := res.Header.Get("X-Occam-Reason") == "budget"; degraded != (res.Header.Get("X-Occam-Model") == "gpt-4o-mini") {
				t.Errorf("%v", res.Header)
			}
		}
	}
	if order[0] != "gpt-4o" || models["gpt-4o"] == 0 || models["gpt-4o-mini"] < 10 || order[len(order)-1] != "refused" {
		t.Errorf("%v %v", models, order)
	}
	b, _ := ledger.BudgetBalance(context.Background(), store.Budget{Key: "k", Start: store.PeriodStart("month", time.Now())})
	if b.Spent > cost.USD/20 {
		t.Errorf("spent %v", b.Spent)
	}
}

func TestABudgetIsNotSpentOnAModelWithoutAPrice(t *testing.T) {
	w := newWorld(t)
	k := newTenant("k", store.KeyLimits{Budget: cost.USD})
	hosted, err := engine.NewUpstream(engine.Options{Name: "gpu", BaseURL: w.URL + "/v1", Hosted: true})
	if err != nil {
		t.Fatal(err)
	}
	w.snap.Models = map[string]engine.Route{"llama": {Targets: []engine.Target{{Upstream: hosted, Model: "llama"}}}}
	w.ring(k)
	if res, text := w.send(k.secret, strings.Replace(plainBody, "gpt-4o", "mystery", 1)); res.StatusCode != 403 || !strings.Contains(text, "unpriced_model") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	res, _ := w.send(k.secret, strings.Replace(plainBody, "gpt-4o", "llama", 1))
	if res.StatusCode != 200 || res.Header.Get("X-Occam-Cost-Usd") != "unpriced" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if a := w.book.paid(); len(a) != 1 || a[0].State != store.Unpriced || a[0].Usage.Input != 500 {
		t.Errorf("%+v", a)
	}
}

// S20: an app may ask for any number of tokens. It neither fits into a budget for that, nor breaks the ledger's sums.
func TestS20TokensBeyondAllNumbers(t *testing.T) {
	var ledger *store.Store
	w := newWorld(t, realStore(&ledger))
	w.handle = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) } // so that the bounds are what is known of the cost
	k, rich := newTenant("poor", store.KeyLimits{Budget: cost.USD / 10, Period: "month"}), newTenant("rich", store.KeyLimits{})
	w.ring(k, rich)
	for _, members := range []string{`"max_tokens":4611686018427387904,"n":4`, `"max_tokens":9223372036854775807,"n":3`, `"max_tokens":9223372036854775807`} {
		body := strings.Replace(plainBody, "{", "{"+members+",", 1)
		if res, text := w.send(k.secret, body); res.StatusCode != 429 || !strings.Contains(text, "insufficient_quota") {
			t.Errorf("%s: %d %s", members, res.StatusCode, text)
		}
		if res, text := w.send(rich.secret, body); res.StatusCode != 500 {
			t.Errorf("%s: %d %s", members, res.StatusCode, text)
		}
	}
	totals, err := ledger.Totals(context.Background(), store.TotalsQuery{})
	if err != nil || len(totals) != 1 || totals[0].CostHigh <= 0 {
		t.Errorf("%+v %v", totals, err)
	}
	if report, err := ledger.Verify(context.Background()); err != nil || !report.OK() {
		t.Errorf("%+v %v", report.Problems, err)
	}
}

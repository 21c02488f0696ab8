package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/drift"
	"occam/internal/finops"
	"occam/internal/lifecycle"
	"occam/internal/sim"
	"occam/internal/store"
)

func TestSpendAlerts(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	month := store.Month(2026, time.November)
	var hours, days []finops.Point
	for h := now.Truncate(time.Hour).AddDate(0, 0, -42); h.Before(now); h = h.Add(time.Hour) {
		hours = append(hours, finops.Point{Start: h, Spend: 2 * cost.USD})
	}
	for d := now.Truncate(24*time.Hour).AddDate(0, 0, -42); d.Before(now.Truncate(24 * time.Hour)); d = d.AddDate(0, 0, 1) {
		days = append(days, finops.Point{Start: d, Spend: 48 * cost.USD})
	}
	hours[len(hours)-2].Spend = 90 * cost.USD
	rows := []finops.Row{
		{Start: month.From, Task: "t", Tier: "generalist", Provider: "openai", Model: "gpt-4o", Answered: true, Attempts: 10, Cost: 9 * cost.USD, Reference: 2 * cost.USD},
		{Start: month.From, Provider: "other", Model: "mystery", Answered: true, Unpriced: true, Attempts: 3},
	}
	budget := func(key string, spent cost.Amount) balance {
		return balance{key: key, name: key, what: "-", of: finops.Budget{Soft: 80 * cost.USD, Hard: 100 * cost.USD}, spent: spent}
	}
	tell := func(o outlook) string {
		var keys []string
		for _, a := range o.alerts() {
			keys = append(keys, a.key)
			if len(a.text) < 20 {
				t.Errorf("%s says %q", a.key, a.text)
			}
		}
		return strings.Join(keys, " ")
	}
	for want, o := range map[string]outlook{
		"": {hours: hours[:100], days: days, book: cost.Default()},
		"hour/2026-11-23T11:00:00Z losing/2026-11 unpriced/2026-11 ending/openai/gpt-4o/2027-01-14": {rows: rows, hours: hours, book: cost.Default()},
		"budget/key/a/soft budget/key/b/hard":                                                       {book: cost.Default(), balances: []balance{budget("key/0", 79*cost.USD), budget("key/a", 80*cost.USD), budget("key/b", 300*cost.USD)}},
		// 22 days at $48 are known: the month will cost $1,440.
		"forecast/month/2026-11":                           {book: cost.Default(), days: days, balances: []balance{budget("month/2026-11", 20*cost.USD)}},
		"budget/month/2026-11/soft forecast/month/2026-11": {book: cost.Default(), days: days, balances: []balance{budget("month/2026-11", 90*cost.USD)}},
		"budget/month/2026-11/hard":                        {book: cost.Default(), days: days, balances: []balance{budget("month/2026-11", 101*cost.USD)}},
	} {
		o.month, o.now = month, now
		if got := tell(o); got != want {
			t.Errorf("alerts %q, want %q", got, want)
		}
	}
	enough := budget("month/2026-11", 1000*cost.USD)
	enough.of = finops.Budget{Soft: 1200 * cost.USD, Hard: 1500 * cost.USD}
	if got := tell(outlook{month: month, now: now, book: cost.Default(), days: days, balances: []balance{enough}}); got != "" {
		t.Errorf("a budget that will do: %s", got)
	}
}

// A hook is a webhook on a real listener that remembers what it was told.
type hook struct {
	url    string
	mu     sync.Mutex
	texts  []string
	status int
}

func newHook(t *testing.T) *hook {
	h := &hook{status: http.StatusOK}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var said map[string]string
		if err != nil || json.Unmarshal(body, &said) != nil || len(said) != 1 || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s %v", r.Method, r.Header.Get("Content-Type"), body, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.texts = append(h.texts, said["text"])
		w.Header().Set("Location", h.url+"/elsewhere")
		w.WriteHeader(h.status)
	}))
	t.Cleanup(server.Close)
	h.url = server.URL + "/services/T000/B000/secretsecret"
	return h
}

func (h *hook) answer(status int) { h.mu.Lock(); h.status = status; h.mu.Unlock() }

func (h *hook) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.texts)
}

func newStore(t *testing.T) *store.Store {
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// An alert reaches the log and the webhook once; one that the webhook did not take is told again later, and stands in the log once.
// Neither the log nor an error shows the webhook's address.
func TestBellRingsOnce(t *testing.T) {
	h, s := newHook(t), newStore(t)
	var log bytes.Buffer
	now := time.Now()
	b := newBell(h.url, s, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	a := alert{"losing/2026-11", "you are losing $7.00 with <!channel> & co"}
	ring := func() error { now = now.Add(alertEvery); return b.ring(context.Background(), a) }
	for _, status := range []int{http.StatusBadGateway, http.StatusTemporaryRedirect} {
		h.answer(status)
		if err := ring(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) || strings.Contains(err.Error(), "secret") {
			t.Errorf("a webhook that answers %d: %v", status, err)
		}
	}
	h.answer(http.StatusOK)
	for range 3 {
		if err := ring(); err != nil {
			t.Fatal(err)
		}
	}
	if told := h.told(); len(told) != 3 || told[2] != "occam: you are losing $7.00 with &lt;!channel&gt; &amp; co" {
		t.Errorf("the webhook was told %q", told)
	}
	if strings.Count(log.String(), "losing $7.00") != 1 || strings.Contains(log.String(), "secret") {
		t.Errorf("log: %s", log.String())
	}
	away := newBell("http://127.0.0.1:1/services/secretsecret", s, b.log, b.now)
	if err := away.ring(context.Background(), alert{"x", "a text that nobody gets"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a webhook that is away: %v", err)
	}
}

// Of many processes that see the same thing at the same time, one tells it.
func TestBellsOfManyProcesses(t *testing.T) {
	h, s := newHook(t), newStore(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			b := newBell(h.url, s, slog.New(slog.DiscardHandler), time.Now)
			for i := range 10 {
				if err := b.ring(context.Background(), alert{fmt.Sprint("k", i), fmt.Sprint("alert ", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if told := h.told(); len(told) != 10 {
		t.Errorf("%d alerts were told %d times: %q", 10, len(told), told)
	}
}

// A server that runs tells its webhook about budgets that its own ledger holds.
func TestServeTellsOfBudgets(t *testing.T) {
	h := newHook(t)
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {openai: {type: openai, base_url: "+url+"}}\nalerts: {webhook: \""+h.url+"\", budget_usd_per_month: 10, soft: 0.5}\n")
	s.stored(func(opened *store.Store) error {
		var key store.Key
		err := opened.Update(t.Context(), func(tx *store.Tx) (err error) {
			key, _, err = tx.Keys().Create("billing", "app", store.KeyLimits{Budget: 6 * cost.USD, Period: "month"})
			return err
		})
		if err != nil {
			return err
		}
		id, now := store.NewID(time.Now()), time.Now()
		a := store.Attempt{ID: id, RequestID: id, At: now, KeyID: key.ID, Provider: "openai", Model: "gpt-4o", Price: "p", CostHigh: 6 * cost.USD}
		if err := opened.Intend(t.Context(), a); err != nil {
			return err
		}
		a.State, a.Answered, a.Cost, a.CostLow, a.CostHigh = store.Settled, true, 6*cost.USD, 6*cost.USD, 6*cost.USD
		return opened.Finish(t.Context(), a)
	})
	_, log, stop := serve(t, s.config)
	for deadline := time.Now().Add(time.Minute); len(h.told()) < 3 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	told := strings.Join(h.told(), "\n")
	for _, want := range []string{"occam: $6.00 of $10.00, 60 % of the budget of ", "occam: the month's budget of key billing is used up: $6.00 of $6.00", "gpt-4o is shut down"} {
		if !strings.Contains(told, want) {
			t.Errorf("the webhook was not told %q:\n%s", want, told)
		}
	}
	if strings.Contains(log.String(), "secretsecret") {
		t.Errorf("the log shows the webhook's address: %s", log.String())
	}
}

// The hour under way is no fall, and an hour without any spend is one.
func TestLookLeavesOutTheHourUnderWay(t *testing.T) {
	h, s := newHook(t), newStore(t)
	now := time.Now().UTC().Truncate(time.Hour).Add(10 * time.Minute)
	for i := range 24 * 10 {
		at := now.Truncate(time.Hour).Add(-time.Duration(i+2) * time.Hour) // nothing in the last whole hour
		id := store.NewID(at)
		a := store.Attempt{ID: id, RequestID: id, At: at, Provider: "simulated", Model: "m", Price: "p", CostHigh: 50 * cost.USD}
		if err := s.Intend(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		a.State, a.Answered, a.Cost, a.CostLow = store.Settled, true, 50*cost.USD, 50*cost.USD
		if err := s.Finish(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	b := newBell(h.url, s, slog.New(slog.DiscardHandler), func() time.Time { return now })
	cfg := config.Default()
	if err := b.look(t.Context(), &cfg, cost.Default()); err != nil {
		t.Fatal(err)
	}
	told := h.told()
	if len(told) != 1 || !strings.Contains(told[0], "unusual spend in the hour from "+now.Truncate(time.Hour).Add(-time.Hour).Format("2006-01-02 15:04")) {
		t.Errorf("told %q", told)
	}
}

// A person is told once, with the reason, of a model that was suspended, of a tier that was, and of rare classes that were.
func TestTaskAlerts(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	st := lifecycle.Status{Task: "triage", Record: lifecycle.Record{State: lifecycle.Live, Since: at}}
	m := lifecycle.ModelStatus{Model: "0123456789ab", Mode: "live", Evidence: &lifecycle.EvidenceStatus{}, Tiers: []lifecycle.TierStatus{{Name: "gpt-4o-mini", Evidence: &lifecycle.EvidenceStatus{}}}}
	st.Models = []lifecycle.ModelStatus{m}
	if got := taskAlerts(&st); len(got) != 0 {
		t.Errorf("all is well and %v is told", got)
	}
	st.State, st.Reason = lifecycle.Suspended, "the error rate has risen"
	st.Models[0].Tiers[0].Void = "the teacher changed"
	st.Models[0].Evidence.Rare = &lifecycle.RareStatus{Status: drift.Status{Alarm: true, Reason: "12 of 40 wrong"}}
	st.Models[0].Evidence.Warnings = []drift.Warning{{Sign: "something else"},
		{Sign: "the generalist's answers are outside the schema more often than at calibration", Now: .25}}
	var texts []string
	for _, a := range taskAlerts(&st) {
		texts = append(texts, a.key+": "+a.text)
	}
	got := strings.Join(texts, "\n")
	for _, want := range []string{"suspended/triage/2026-11-23T12:30:00Z: ", "the error rate has risen", "gpt-4o-mini answers no more: the teacher changed", "12 of 40 wrong",
		"outside/triage/", "(0 % then, 25 % since)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	st.Models[0].Mode = "" // no longer in the cascade
	if got := taskAlerts(&st); len(got) != 1 {
		t.Errorf("of a model that is not used: %v", got)
	}
}

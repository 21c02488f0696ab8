package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
)

func TestSpendAlerts(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	month := store.Month(2026, time.November)
	var hours []finops.Point
	for h := now.Truncate(time.Hour).AddDate(0, 0, -42); h.Before(now); h = h.Add(time.Hour) {
		hours = append(hours, finops.Point{Start: h, Spend: 2 * cost.USD})
	}
	hours[len(hours)-2].Spend = 90 * cost.USD
	rows := []finops.Row{
		{Start: month.From, Task: "t", Tier: "generalist", Provider: "openai", Model: "gpt-4o", Answered: true, Attempts: 10, Cost: 9 * cost.USD, Reference: 2 * cost.USD},
		{Start: month.From, Provider: "other", Model: "mystery", Answered: true, Unpriced: true, Attempts: 3},
	}
	var keys []string
	for _, a := range spendAlerts(month, rows, nil, hours, cost.Default(), now) {
		keys = append(keys, a.key[:strings.IndexByte(a.key, '/')])
		if a.text == "" {
			t.Errorf("%s says nothing", a.key)
		}
	}
	if got := strings.Join(keys, " "); got != "hour losing unpriced ending" {
		t.Errorf("alerts: %s", got)
	}
	if quiet := spendAlerts(month, nil, nil, hours[:100], cost.Default(), now); len(quiet) > 0 {
		t.Errorf("nothing happened, but: %v", quiet)
	}
}

// An alert reaches the log and the webhook once; one that the webhook refused is told again.
func TestBellRingsOnce(t *testing.T) {
	var calls atomic.Int32
	var last atomic.Value
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		last.Store(body)
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer hook.Close()
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var log bytes.Buffer
	b := newBell(hook.URL, s, slog.New(slog.NewTextHandler(&log, nil)), time.Now)
	a := alert{"losing/2026-11", "you are losing $7.00"}
	if err := b.ring(context.Background(), a); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("a webhook that refuses: %v", err)
	}
	for range 3 {
		if err := b.ring(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
	var said map[string]string
	if err := json.Unmarshal(last.Load().([]byte), &said); err != nil || said["text"] != "occam: you are losing $7.00" {
		t.Errorf("the webhook got %s", last.Load())
	}
	if calls.Load() != 2 || strings.Count(log.String(), "losing $7.00") != 2 {
		t.Errorf("%d calls, log: %s", calls.Load(), log.String())
	}
}

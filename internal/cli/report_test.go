package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/sim"
	"occam/internal/store"
)

// A report counts audits, calls whose answer was not used, servers, training and labels against what was saved, and says a loss
// plainly; the FOCUS export and the statement add up to the same.
func TestReportCountsEverything(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	month := time.Now().UTC().Format("2006-01")
	s := newStand(t, "providers:\n  openai: {type: openai, base_url: "+url+"}\n  gpu: {type: openai, base_url: "+url+", hosting: {sku: aws g5.xlarge}}\n"+
		"charges:\n  - {kind: training, task: triage, what: LoRA, usd: 10, date: "+month+"-01}\n  - {kind: labels, task: triage, what: people, usd: 80.5, date: "+month+"-01}\n"+
		"  - {kind: labels, task: triage, what: long ago, usd: 1000, date: 2020-01-01}\n")
	now := time.Now()
	paid := func(tier, provider string, answered, audit bool, usd, reference float64) func(*store.Store) error {
		return func(opened *store.Store) error {
			id := store.NewID(now)
			a := store.Attempt{ID: id, RequestID: id, At: now, Task: "triage", Tier: tier, Provider: provider, Model: "gpt-4o", Audit: audit, Price: "p", CostHigh: cost.FromUSD(usd)}
			if err := opened.Intend(t.Context(), a); err != nil {
				return err
			}
			a.State, a.Answered, a.Cost, a.CostLow, a.Reference = store.Settled, answered, a.CostHigh, a.CostHigh, cost.FromUSD(reference)
			a.Usage = cost.Usage{Input: 500, Output: 50}
			return opened.Finish(t.Context(), a)
		}
	}
	s.stored(paid("generalist", "openai", true, false, 3, 3))
	s.stored(paid("generalist", "openai", false, true, 2, 0))
	s.stored(paid("generalist", "openai", false, false, 1, 0))
	s.stored(paid("llama-3.2-3b", "gpu", true, false, 0, 3))
	var report struct {
		Headline  string
		Statement struct {
			Spent finops.Spent `json:"spent_nano_usd"`
			Saved cost.Amount  `json:"saved_nano_usd"`
			Would cost.Amount  `json:"would_have_cost_nano_usd"`
		}
	}
	decode(t, mustRun(t, "", "report", "--json", "--config", s.config), &report)
	got := report.Statement.Spent
	hosting := got.Hosting
	got.Hosting = 0
	want := finops.Spent{Generalist: 3 * cost.USD, Audits: 2 * cost.USD, Lost: cost.USD, Training: 10 * cost.USD, Labels: cost.FromUSD(80.5)}
	if got != want || hosting <= 0 || hosting > 40*cost.USD { // of a server since the day began, at $1.006 an hour
		t.Errorf("spent %+v and hosting %v, want %+v", got, hosting, want)
	}
	if report.Statement.Would != 6*cost.USD || report.Statement.Saved != report.Statement.Would-report.Statement.Spent.Total() {
		t.Errorf("%+v", report.Statement)
	}
	if !strings.HasPrefix(report.Headline, "You are losing $") || !strings.Contains(report.Headline, "training $10.00, labels $80.50") || !strings.Contains(report.Headline, "Switch task triage back") {
		t.Errorf("headline: %s", report.Headline)
	}
	if out := mustRun(t, "", "report", "--config", s.config); !strings.Contains(out, "switch triage back to the generalist") || !strings.Contains(out, fmt.Sprintf("%s-01 to ", month)) {
		t.Errorf("report:\n%s", out)
	}
}

// A month that is over has no forecast: the last eight weeks, which forecasts look at, would make one of nothing.
func TestReportOfAMonthThatIsOver(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers:\n  openai: {type: openai, base_url: "+url+"}\n")
	s.stored(func(opened *store.Store) error {
		at := time.Now().AddDate(0, 0, -20)
		id := store.NewID(at)
		a := store.Attempt{ID: id, RequestID: id, At: at, Provider: "openai", Model: "gpt-4o", Price: "p", CostHigh: cost.USD}
		if err := opened.Intend(t.Context(), a); err != nil {
			return err
		}
		a.State, a.Answered, a.Cost, a.CostLow = store.Settled, true, cost.USD, cost.USD
		return opened.Finish(t.Context(), a)
	})
	for month, want := range map[string]bool{time.Now().UTC().Format("2006-01"): true, "2025-02": false} {
		var report struct {
			Forecast *finops.Quantiles `json:"month_forecast_nano_usd"`
		}
		text := mustRun(t, "", "report", "--json", "--month", month, "--config", s.config)
		for _, list := range []string{"anomalies", "recommendations", "shutdowns"} {
			if strings.Contains(text, `"`+list+`":null`) {
				t.Errorf("%s is no list: %s", list, text)
			}
		}
		decode(t, text, &report)
		if text := mustRun(t, "", "report", "--month", month, "--config", s.config); (report.Forecast != nil) != want || strings.Contains(text, "\nforecast ") != want {
			t.Errorf("%s: forecast %+v\n%s", month, report.Forecast, text)
		}
	}
}

// A server that is rented since an earlier month costs from a month's first hour on, with or without calls in it.
func TestRentedServersCostFromTheFirst(t *testing.T) {
	cfg := &config.Config{Providers: map[string]config.Provider{"gpu": {Hosting: &config.Hosting{SKU: "aws g5.xlarge", Replicas: 2}}, "new": {Hosting: &config.Hosting{SKU: "aws g5.xlarge"}}}}
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is to be kept
	call := func(provider string, at time.Time) {
		a := store.Attempt{ID: store.NewID(at), RequestID: store.NewID(at), At: at, Provider: provider, Model: "m", Price: "p"}
		err := s.Intend(t.Context(), a)
		if err == nil {
			a.State = store.Settled
			err = s.Finish(t.Context(), a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	call("gpu", time.Date(2026, 9, 20, 12, 0, 0, 0, time.UTC))
	call("new", time.Date(2026, 10, 11, 12, 0, 0, 0, time.UTC))
	now := time.Date(2026, 11, 11, 0, 0, 0, 0, time.UTC)
	for month, want := range map[time.Month]map[string]float64{time.August: {}, time.September: {"gpu": 2 * 11 * 24}, time.October: {"gpu": 2 * 31 * 24, "new": 21 * 24},
		time.November: {"gpu": 2 * 10 * 24, "new": 10 * 24}, time.December: {}} {
		w := store.Month(2026, month)
		rows, err := ledgerRows(t.Context(), s, w, store.ByDay)
		if err != nil {
			t.Fatal(err)
		}
		charges, err := chargesIn(t.Context(), s, cfg, cost.Default(), rows, w, now)
		if err != nil {
			t.Fatal(err)
		}
		got := 0.0
		for _, c := range charges {
			got += c.Hours
		}
		if sum := want["gpu"] + want["new"]; got != sum || len(charges) != len(want) {
			t.Errorf("%s: %g hours in %d charges, want %v", month, got, len(charges), want)
		}
	}
}

// What a provider has that is priced as another is in the calendar of shutdowns, and in the FOCUS export with its list price.
func TestReportKnowsWhatIsResold(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers:\n  acme: {type: openai, base_url: "+url+", prices: openai}\n")
	s.stored(func(opened *store.Store) error {
		now := time.Now()
		a := store.Attempt{ID: store.NewID(now), RequestID: store.NewID(now), At: now, Provider: "acme", Model: "gpt-4o", Price: "p", CostHigh: cost.USD}
		if err := opened.Intend(t.Context(), a); err != nil {
			return err
		}
		a.State, a.Answered, a.Cost, a.CostLow, a.Usage = store.Settled, true, cost.USD, cost.USD, cost.Usage{Input: 500, Output: 50}
		return opened.Finish(t.Context(), a)
	})
	var report struct{ Shutdowns []finops.Ending }
	focus := filepath.Join(t.TempDir(), "focus.csv")
	decode(t, mustRun(t, "", "report", "--json", "--focus", focus, "--config", s.config), &report)
	if len(report.Shutdowns) != 1 || report.Shutdowns[0].Model != "gpt-4o" || report.Shutdowns[0].Provider != "acme" {
		t.Errorf("shutdowns %+v", report.Shutdowns)
	}
	if export, err := os.ReadFile(focus); err != nil || !strings.Contains(string(export), "openai/gpt-4o@") {
		t.Errorf("no list price in the export: %v\n%s", err, export)
	}
}

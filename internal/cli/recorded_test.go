package cli

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/sim"
	"occam/internal/store"
	"occam/internal/task"
)

// record fills a stand's ledger with ten days of a task: 700 requests answered in the gateway, 300 by the generalist, 7 audits and
// 3 calls whose answer nobody got, with 1,500 input tokens of which 1,000 were cached; and keeps 300 answers of 10 categories.
func record(t *testing.T, s *stand) {
	s.stored(func(opened *store.Store) error {
		now := time.Now()
		for i := range 1000 {
			at := now.Add(-time.Duration(1000-i) * 10 * 24 * time.Hour / 1000)
			a := store.Attempt{ID: store.NewID(at), At: at, Task: "triage"}
			a.RequestID = a.ID
			if i%10 < 7 {
				a.Tier, a.Model, a.State, a.Answered = "linear", "triage@1", store.Free, true
				if err := opened.RecordFree(t.Context(), a); err != nil {
					return err
				}
				continue
			}
			if err := pay(t, opened, a, true, false); err != nil {
				return err
			}
		}
		for i := range 10 {
			a := store.Attempt{ID: store.NewID(now), RequestID: fmt.Sprint("extra-", i), At: now, Task: "triage"}
			if err := pay(t, opened, a, false, i < 7); err != nil {
				return err
			}
		}
		return opened.Update(t.Context(), func(tx *store.Tx) error {
			for i := range 300 {
				id := fmt.Sprint("example-", i)
				err := tx.Examples().Add(store.Example{ID: id, Task: "triage", RequestID: id, At: now, Text: fmt.Sprint("ticket number ", i), Labels: []store.Label{{
					Example: id, At: now, Source: "gpt-4.1", Trainable: true, Output: task.Output{"category": task.String(fmt.Sprint("c", i%10))}}}})
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func pay(t *testing.T, opened *store.Store, a store.Attempt, answered, audit bool) error {
	a.Tier, a.Provider, a.Model, a.Price, a.Audit, a.CostHigh = "generalist", "openai", "gpt-4.1", "p", audit, cost.USD
	if err := opened.Intend(t.Context(), a); err != nil {
		return err
	}
	a.State, a.Answered, a.Cost, a.CostLow, a.CostHigh = store.Settled, answered, cost.USD/100, cost.USD/100, cost.USD/100
	a.Usage = cost.Usage{Input: 1500, Cached: 1000, Output: 50}
	return opened.Finish(t.Context(), a)
}

func TestBreakevenFromRecordedTraffic(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {first: {type: openai, base_url: "+url+"}, openai: {type: openai, base_url: "+url+"}}\n"+
		"models: {smart: {provider: openai, upstream: gpt-4.1}}\n"+
		"tasks: {triage: {generalist: smart, target: {accuracy: 0.96}, system: \""+strings.Repeat("word ", 1000)+"\", schema: {type: object, properties: {category: {type: string, enum: [a, b]}}}}}\n")
	record(t, s)
	var got struct {
		Volume float64
		Plans  []struct {
			Name       string
			MonthlyUSD float64 `json:"monthly_usd"`
		}
		Infeasible  []string
		Assumptions map[string]cost.Assumption
	}
	decode(t, mustRun(t, "", "breakeven", "--json", "--config", s.config, "--task", "triage"), &got)
	if want := 1000 / 10.0 * 30.4375; math.Abs(got.Volume/want-1) > 0.01 {
		t.Errorf("volume %g, want %g", got.Volume, want)
	}
	each := (500*2 + 1000*0.5 + 50*8) / 1e6 * (1 + 3.0/300)
	if p := got.Plans[0]; p.Name != "all gpt-4.1" || math.Abs(p.MonthlyUSD/(got.Volume*each)-1) > 1e-9 {
		t.Errorf("doing nothing: %+v, want $%g", p, got.Volume*each)
	}
	for name, want := range map[string]float64{"coverage_embedded": 0.7, "audit_share": 7.0 / 700, "retry_share": 3.0 / 300} {
		if a := got.Assumptions[name]; math.Abs(a.Value-want) > 1e-9 || !strings.HasPrefix(a.Source, "recorded") {
			t.Errorf("%s: %+v, want %g", name, a, want)
		}
	}
	if a := got.Assumptions["coverage_embedded"]; a.Low >= 0.7 || a.High <= 0.7 {
		t.Errorf("the interval of the coverage: %+v", a)
	}
	if text := strings.Join(got.Infeasible, "; "); strings.Contains(text, "shorter") || strings.Contains(text, "below the minimum") {
		t.Errorf("the shared prompt of 1,250 tokens could be cached: %s", text)
	}
	decode(t, mustRun(t, "", "breakeven", "--json", "--config", s.config, "--task", "triage", "--generalist", "gpt-4o", "--set", "audit_share=0.05", "--coverage", "0.5"), &got)
	if got.Plans[0].Name != "all gpt-4o" || got.Assumptions["audit_share"].Value != 0.05 || got.Assumptions["coverage_embedded"].Value != 0.5 {
		t.Errorf("what is said does not win over what is recorded: %s %+v", got.Plans[0].Name, got.Assumptions["audit_share"])
	}
	var advice struct {
		Verdict string
		Facts   struct {
			Observed, Distinct int
			Target             float64 `json:"target_accuracy"`
			CheapModel         string  `json:"cheap_model"`
		}
	}
	ask := func(args ...string) string {
		return mustRun(t, "", append([]string{"advise", "--json", "--config", s.config, "--task", "triage"}, args...)...)
	}
	raw := ask("--measured", "gpt-6-luna=0.97", "--measured", "ministral-3b-2512=0.5", "--volume", "1M")
	decode(t, strings.ReplaceAll(raw, "distinct_answers", "distinct"), &advice)
	if f := advice.Facts; advice.Verdict != "switch to a cheaper model" || f.Observed != 300 || f.Distinct != 10 || f.Target != 0.96 || f.CheapModel != "gpt-6-luna" {
		t.Errorf("%+v", advice)
	}
	if decode(t, ask("--measured", "gpt-6-luna=0.95"), &advice); advice.Verdict == "switch to a cheaper model" {
		t.Error("a model below the target was advised")
	}
}

// What was imported for a configuration counts in every command that speaks of prices, after its difference was shown.
func TestImportedPricesCount(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n")
	list := filepath.Join(t.TempDir(), "mine.json")
	text := `{"schema":"price-book/2","version":"mine","llm":[{"model":"gpt-4o","provider":"openai","in":1,"out":2,"src":"our contract","effective_from":"2020-01-01"},
		{"model":"house-7b","provider":"us","in":0.01,"out":0.01,"src":"ours"}]}`
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := []string{"--config", s.config}
	occam := func(args ...string) string { return mustRun(t, "", append(args, at...)...) }
	if out := occam("prices", "import", list, "--format", "occam"); !strings.Contains(out, "openai/gpt-4o: input $2.5 → $1") || !strings.Contains(out, "us/house-7b: new") {
		t.Errorf("the difference: %s", out)
	}
	if out := occam("prices", "show", "gpt-4o"); strings.Contains(out, "override") {
		t.Errorf("it counts before it was applied: %s", out)
	}
	if code, _, stderr := run(t, "", "prices", "show", "house-7b", "--config", s.config); code != exitFailed || !strings.Contains(stderr, "is unpriced") {
		t.Errorf("an unknown model: %d %s", code, stderr)
	}
	occam("prices", "import", list, "--format", "occam", "--apply")
	if out := occam("prices", "show", "gpt-4o"); !strings.Contains(out, "override") {
		t.Errorf("afterwards: %s", out)
	}
	if out := occam("prices", "list"); !strings.Contains(out, "house-7b") || !strings.Contains(out, "+mine") {
		t.Errorf("list: %s", out)
	}
	more := filepath.Join(t.TempDir(), "more.json")
	if err := os.WriteFile(more, []byte(`{"schema":"price-book/2","version":"more","llm":[{"model":"house-13b","provider":"us","in":0.02,"out":0.02,"src":"ours"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	occam("prices", "import", more, "--format", "occam", "--apply")
	if out := occam("prices", "list"); !strings.Contains(out, "house-7b") || !strings.Contains(out, "house-13b") {
		t.Errorf("a second list of the same day replaced the first: %s", out)
	}
	var got struct {
		Plans []struct {
			MonthlyUSD float64 `json:"monthly_usd"`
		}
	}
	if decode(t, occam("breakeven", "--json", "--volume", "1M", "--generalist", "gpt-4o"), &got); math.Abs(got.Plans[0].MonthlyUSD-600) > 1e-6 {
		t.Errorf("break-even with one's own price: %g, want 600", got.Plans[0].MonthlyUSD)
	}
	if code, _, stderr := run(t, "", "prices", "list", "--config", "nowhere.yaml"); code == exitDone {
		t.Errorf("a configuration that is not there: %s", stderr)
	}
}

func TestCounts(t *testing.T) {
	for text, want := range map[string]float64{"50000": 50000, "50k": 50000, "1M": 1e6, "1.5M": 1.5e6, "1,500,000": 1.5e6, "1_500_000": 1.5e6, "2b": 2e9} {
		if got, err := parseCount(text); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "1,5M", "0,5M", "12,34", "1e6", "k"} {
		if got, err := parseCount(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// A model that the price book knows of several sellers can be measured.
func TestMeasuredOfSeveralSellers(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n")
	list := filepath.Join(t.TempDir(), "prices.json")
	if err := os.WriteFile(list, []byte(`{"gpt-4o-mini":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1.5e-7,"output_cost_per_token":6e-7},`+
		`"azure/gpt-4o-mini":{"litellm_provider":"azure","mode":"chat","input_cost_per_token":1.6e-7,"output_cost_per_token":7e-7}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "prices", "import", list, "--apply", "--config", s.config)
	mustRun(t, "", "breakeven", "--config", s.config, "--provider", "openai", "--target", "0.9", "--measured", "gpt-4o-mini=0.95")
}

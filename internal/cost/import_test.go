package cost

import (
	"strings"
	"testing"
	"time"
)

const liteLLMSample = `{
 "sample_spec": {"litellm_provider": "one of …", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "deprecation_date": "date when…"},
 "gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,
  "cache_read_input_token_cost": 1.25e-06, "input_cost_per_token_batches": 1.25e-06, "output_cost_per_token_batches": 5e-06,
  "deprecation_date": "2027-01-14"},
 "openai/gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 9e-06, "output_cost_per_token": 9e-05},
 "gemini/gemini-x": {"litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1.25e-07, "output_cost_per_token": 1e-06,
  "input_cost_per_token_above_200k_tokens": 2.5e-07, "output_cost_per_token_above_200k_tokens": 1.5e-06},
 "text-embedding-3-small": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08, "output_cost_per_token": 0.0,
  "input_cost_per_token_batches": 1e-08, "output_cost_per_token_batches": 0.0},
 "mistral/mistral-embed": {"litellm_provider": "mistral", "mode": "embedding", "input_cost_per_token": 1e-07},
 "embed-pictures": {"litellm_provider": "cohere", "mode": "embedding", "input_cost_per_token": 1e-07, "input_cost_per_image": 0.0001},
 "dall-e-3": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 1e-07},
 "whisper-1": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_second": 0.0001}
}`

func TestLiteLLMImport(t *testing.T) {
	b, skipped, err := ParseLiteLLM(strings.NewReader(liteLLMSample), november)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := b.Lookup("openai", "gpt-4o", november)
	if !ok || p.Rates != mustLookup(t, "openai", "gpt-4o", november).Rates || p.BatchPermille != 500 ||
		p.Shutdown != day("2027-01-14") {
		t.Errorf("gpt-4o: %+v", p)
	}
	g, ok := b.Lookup("google", "gemini-x", november)
	if !ok || g.Cost(Usage{Input: 200_001, Output: 1_000_000}, november) != FromUSD(0.25e-6*200_001+1.5) {
		t.Errorf("gemini-x above 200k: %+v", g)
	}
	if all := strings.Join(skipped, "; "); len(skipped) != 3 || !strings.Contains(all, "mode image_generation") || !strings.Contains(all, "no text") {
		t.Errorf("skipped: %v", skipped)
	}
	for provider, model := range map[string]string{"openai": "text-embedding-3-small", "mistral": "mistral-embed"} {
		p, ok := b.Lookup(provider, model, november)
		if own := mustLookup(t, provider, model, november); !ok || p.Rates != own.Rates || p.Kind != Embedding || p.BatchPermille != own.BatchPermille {
			t.Errorf("%s: %+v, the built-in book has %+v", model, p, own)
		}
	}
	if _, ok := b.Lookup("openai", "gpt-4o", november.Add(-time.Hour)); ok {
		t.Error("an undated price applies before it was imported")
	}
	merged := Default().Merge(b)
	if p, _ := merged.Lookup("openai", "gpt-4o", november.Add(-time.Hour)); p.Confidence != Secondary ||
		p.Source == "LiteLLM price map" {
		t.Errorf("the merge changed the past: %+v", p)
	}
}

const genaiSample = `[{"id":"anthropic","name":"Anthropic","models":[
 {"id":"old","match":{"or":[{"equals":"older"},{"starts_with":"old-"}]},"prices":{"input_mtok":3,"cache_read_mtok":0.3,"cache_write_mtok":3.75,"output_mtok":15}},
 {"id":"dated","match":{"equals":"dated"},"prices":[
  {"prices":{"input_mtok":{"base":5,"tiers":[{"start":200000,"price":10}]},"output_mtok":{"base":25,"tiers":[{"start":200000,"price":37.5}]}}},
  {"constraint":{"start_date":"2026-03-13"},"prices":{"input_mtok":5,"output_mtok":25}}]},
 {"id":"clock","match":{"equals":"clock"},"prices":[
  {"prices":{"input_mtok":0.135,"output_mtok":0.55}},
  {"constraint":{"start_time":"00:30:00Z","end_time":"16:30:00Z"},"prices":{"input_mtok":0.27,"output_mtok":1.1}}]},
 {"id":"embedding","match":{"equals":"e"},"prices":{"input_mtok":0.1}}]}]`

func TestGenAIPricesImport(t *testing.T) {
	b, skipped, err := ParseGenAIPrices(strings.NewReader(genaiSample), "genai")
	if err != nil {
		t.Fatal(err)
	}
	usage := Usage{Input: 1_000_000}
	for _, c := range []struct {
		model string
		at    time.Time
		want  float64
	}{
		{"old", november, 3}, {"older", november, 3}, {"dated", day("2026-03-12"), 10}, {"dated", day("2026-03-13"), 5},
		{"clock", november, 0.135}, {"clock", november.Add(31 * time.Minute), 0.27}, {"clock",
			november.Add(17 * time.Hour), 0.135},
	} {
		p, ok := b.Lookup("anthropic", c.model, c.at)
		if !ok || p.Cost(usage, c.at) != FromUSD(c.want) {
			t.Errorf("%s at %s: %v, want $%g", c.model, c.at, p.Cost(usage, c.at), c.want)
		}
	}
	if _, ok := b.Lookup("anthropic", "old-2026", november); ok {
		t.Error("a name that only starts alike is priced")
	}
	if len(skipped) != 1 || !strings.HasPrefix(skipped[0], "anthropic/embedding") {
		t.Errorf("skipped: %v", skipped)
	}
}

// What the maps of 2026 hold besides plain prices: tiers, prices by the request, decisions, older names, batch variants.
func TestImportsOfSpecialPrices(t *testing.T) {
	b, skipped, err := ParseLiteLLM(strings.NewReader(`{
 "dashscope/qwen-flash": {"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": [
  {"input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07, "range": [0, 256000.0]}, {"input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06, "range": [256000.0, 1000000.0]}]},
 "hole": {"litellm_provider": "p", "tiered_pricing": [{"input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07, "range": [1000, 2000]}]},
 "decide": {"litellm_provider": "p", "mode": "decisions", "input_cost_per_token": 4e-08, "output_cost_per_token": 0.0},
 "old-cache": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "input_cost_per_token_cache_hit": 1e-07},
 "sonar": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_request": 0.005},
 "thinks": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "output_cost_per_reasoning_token": 4e-06},
 "same": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06, "output_cost_per_reasoning_token": 4e-06},
 "nothing": {"litellm_provider": "p", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0}}`), november)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(skipped, "; "); len(skipped) != 4 || !strings.Contains(got, "hole: price tiers") || !strings.Contains(got, "sonar: billed by the request") ||
		!strings.Contains(got, "thinks: reasoning") || !strings.Contains(got, "nothing: a price of zero") {
		t.Errorf("skipped: %s", got)
	}
	cost := func(provider, model string, u Usage, want float64) {
		t.Helper()
		if p, ok := b.Lookup(provider, model, november); !ok || p.Cost(u, november) != FromUSD(want) {
			t.Errorf("%s costs %v, want %g", model, p.Cost(u, november), want)
		}
	}
	cost("dashscope", "qwen-flash", Usage{Input: 256_000}, 0.0128)
	cost("dashscope", "qwen-flash", Usage{Input: 256_001}, 256_001*2.5e-7)
	cost("p", "old-cache", Usage{Input: 1_000_000, Cached: 1_000_000}, 0.1)
	cost("p", "same", Usage{Output: 1_000_000, Reasoning: 900_000}, 4)
	if p, _ := b.Lookup("p", "decide", november); p.Kind != Decision {
		t.Errorf("decide: %+v", p)
	}
	b, skipped, err = ParseGenAIPrices(strings.NewReader(`[{"id":"deepseek","models":[
 {"id":"v4","match":{"equals":"v4"},"prices":[{"prices":{"input_mtok":0.14,"output_mtok":0.28}},
  {"constraint":{"start_date":"2026-08-17"},"prices":{"input_mtok":0.22,"output_mtok":0.66}},
  {"constraint":{"start_time":"01:00:00+00:00","end_time":"04:00:00+00:00"},"prices":{"input_mtok":0.44,"output_mtok":1.32}}],
  "price_variants":[{"when":{"processing":"batch"},"prices":{"input_mtok":0.11,"output_mtok":0.33}},{"when":{"service_tier":"priority"},"prices":{"input_mtok":9,"output_mtok":9}}]},
 {"id":"elsewhere","match":{"equals":"elsewhere"},"prices":[{"prices":{"input_mtok":1,"output_mtok":1}},{"constraint":{"start_time":"01:00:00+08:00","end_time":"04:00:00+08:00"},"prices":{"input_mtok":2,"output_mtok":2}}]},
 {"id":"sonar","match":{"equals":"sonar"},"prices":{"input_mtok":1,"output_mtok":1,"requests_kcount":5}}]}]`), "genai")
	if err != nil || len(skipped) != 2 {
		t.Fatal(skipped, err)
	}
	before, after := day("2026-08-16").Add(2*time.Hour), day("2026-08-17").Add(2*time.Hour)
	for at, want := range map[time.Time]float64{before: 0.14, after: 0.44, after.Add(2 * time.Hour): 0.22} {
		if p, ok := b.Lookup("deepseek", "v4", at); !ok || p.Cost(Usage{Input: 1_000_000}, at) != FromUSD(want) {
			t.Errorf("v4 at %s costs %v, want %g", at, p.Cost(Usage{Input: 1_000_000}, at), want)
		}
	}
	if p, _ := b.Lookup("deepseek", "v4", after); p.BatchPermille != 500 {
		t.Errorf("batch: %+v", p)
	}
}

func TestImportsRefuseWhatTheyAreNot(t *testing.T) {
	for _, text := range []string{"", "[]x", `{"a":[]}`, `"x"`} {
		if _, _, err := ParseLiteLLM(strings.NewReader(text), november); err == nil {
			t.Errorf("LiteLLM accepted %q", text)
		}
	}
	for _, text := range []string{"", "{}", `[{"id":1}]`} {
		if _, _, err := ParseGenAIPrices(strings.NewReader(text), "x"); err == nil {
			t.Errorf("genai-prices accepted %q", text)
		}
	}
}

// Whatever an imported file holds, no model gets a negative price, and none is priced twice for the same time.
func FuzzImport(f *testing.F) {
	f.Add(liteLLMSample)
	f.Add(genaiSample)
	f.Add(`{"m":{"litellm_provider":"p","input_cost_per_token":-1,"output_cost_per_token":1e300}}`)
	f.Fuzz(func(t *testing.T, s string) {
		one, _, err1 := ParseLiteLLM(strings.NewReader(s), november)
		two, _, err2 := ParseGenAIPrices(strings.NewReader(s), "x")
		for _, b := range []*Book{one, two} {
			if b == nil {
				continue
			}
			for _, p := range Default().Merge(b).Prices(november) {
				if p.Cost(Usage{Input: 1 << 40, Cached: 1 << 20, Output: 1 << 40}, november) < 0 ||
					p.BatchPermille < 0 || p.BatchPermille > 1000 {
					t.Fatalf("%+v", p)
				}
			}
		}
		if one == nil && err1 == nil || two == nil && err2 == nil {
			t.Fatal("neither a book nor an error")
		}
	})
}

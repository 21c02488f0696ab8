package cost

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func day(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

var november = day("2026-11-23")

func mustLookup(t *testing.T, provider, model string, at time.Time) Price {
	t.Helper()
	p, ok := Default().Lookup(provider, model, at)
	if !ok {
		t.Fatalf("%s/%s is unpriced at %s", provider, model, at.Format(time.DateOnly))
	}
	return p
}

func TestCostOfThePublishedRequest(t *testing.T) {
	p := mustLookup(t, "openai", "gpt-4o", november)
	if got, want := p.Cost(Usage{Input: 500, Output: 50}, november), FromUSD(0.00175); got != want {
		t.Errorf("500/50 on gpt-4o costs %v, want %v", got, want)
	}
}

func TestCachedTokensAreSubtractedOnceAndReasoningIsOutput(t *testing.T) {
	p := Price{Rates: Rates{Input: 1000, Cached: 100, CacheWrite: 1250, Output: 5000}}
	u := Usage{Input: 10_000_000, Cached: 6_000_000, CacheWrite: 1_000_000, Output: 2_000_000, Reasoning: 1_500_000}
	if got, want := p.Cost(u, november), Amount(3*1000+6*100+1250+2*5000); got != want {
		t.Errorf("cost %d, want %d nano-dollars", got, want)
	}
}

func TestCostRoundsHalfUpOncePerRequest(t *testing.T) {
	p := Price{Rates: Rates{Input: 500_000, Cached: 500_000, CacheWrite: 500_000, Output: 500_000}}
	for tokens, want := range map[int64]Amount{0: 0, 1: 1, 2: 1, 3: 2} { // half a nano-dollar a token
		if got := p.Cost(Usage{Input: tokens}, november); got != want {
			t.Errorf("%d input tokens cost %d, want %d", tokens, got, want)
		}
	}
	if got := p.Cost(Usage{Input: 1, Output: 1}, november); got != 1 {
		t.Errorf("one token in and one out cost %d, want 1: input and output are rounded together", got)
	}
}

func TestLongContextBandPricesTheWholeRequest(t *testing.T) {
	p := mustLookup(t, "openai", "gpt-6-luna", november)
	short := p.Cost(Usage{Input: 272_000, Output: 1_000_000}, november)
	long := p.Cost(Usage{Input: 272_001, Output: 1_000_000}, november)
	if short != FromUSD(0.0272+0.5) || long != FromUSD(0.0544002+0.75) {
		t.Errorf("short %v, long %v", short, long)
	}
	haiku := mustLookup(t, "anthropic", "claude-haiku-5-5", november)
	if got := haiku.Cost(Usage{Input: 200_000, Cached: 100_000}, november); got != FromUSD(0.05+0.005) {
		t.Errorf("a band with absolute prices: %v", got)
	}
}

func TestTimeOfDayBands(t *testing.T) {
	p := mustLookup(t, "deepseek", "deepseek-v4-flash", november)
	u := Usage{Input: 1_000_000}
	for clock, want := range map[string]float64{"00:59": 0.22, "01:00": 0.44, "03:59": 0.44, "04:00": 0.22, "09:59": 0.44,
		"10:00": 0.22} {
		c, _ := time.Parse("15:04", clock)
		at := november.Add(time.Duration(c.Hour())*time.Hour + time.Duration(c.Minute())*time.Minute)
		if got := p.Cost(u, at.In(time.FixedZone("", 8*3600))); got != FromUSD(want) {
			t.Errorf("at %s UTC: %v, want $%g", clock, got, want)
		}
	}
	night := DailyBand{From: 23 * 60, To: 60}
	if !night.contains(november) || !night.contains(november.Add(23*time.Hour)) || night.contains(november.Add(time.Hour)) {
		t.Error("a band over midnight is wrong")
	}
}

func TestBatchIsHalfPriceWhereKnown(t *testing.T) {
	b, ok := mustLookup(t, "openai", "gpt-4o", november).Batch()
	if !ok || b.Cost(Usage{Input: 500, Output: 50}, november) != FromUSD(0.000875) {
		t.Errorf("batch of gpt-4o: %v %v", ok, b.Cost(Usage{Input: 500, Output: 50}, november))
	}
	if _, ok := mustLookup(t, "groq", "openai/gpt-oss-20b", november).Batch(); ok {
		t.Error("a batch price was made up for a model whose row has none")
	}
}

func TestVersionTellsPricesApart(t *testing.T) {
	p := mustLookup(t, "openai", "gpt-6-luna", november)
	q := p
	q.Long = []LongBand{{AboveInput: 1, Rates: p.Rates}}
	if p.Version() == q.Version() {
		t.Error("two rows with different bands share a version")
	}
	if got := p.Version()[:len("openai/gpt-6-luna@2026-09-22#")]; got != "openai/gpt-6-luna@2026-09-22#" {
		t.Errorf("version is %q", p.Version())
	}
}

// The 128-bit arithmetic agrees with big rationals for any usage and any believable price.
func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rateGen := rapid.Int64Range(0, int64(maxUSDPerMTok)*int64(USD))
		p := Price{Rates: Rates{Rate(rateGen.Draw(t, "in")), Rate(rateGen.Draw(t, "cached")),
			Rate(rateGen.Draw(t, "write")), Rate(rateGen.Draw(t, "out"))}}
		tokens := rapid.Int64Range(0, 1_000_000_000)
		u := Usage{Input: tokens.Draw(t, "input"), Output: tokens.Draw(t, "output")}
		u.Cached = rapid.Int64Range(0, u.Input).Draw(t, "cachedTokens")
		u.CacheWrite = rapid.Int64Range(0, u.Input-u.Cached).Draw(t, "writtenTokens")
		sum := new(big.Int)
		for _, x := range [][2]int64{{u.Input - u.Cached - u.CacheWrite, int64(p.Input)}, {u.Cached, int64(p.Cached)},
			{u.CacheWrite, int64(p.CacheWrite)}, {u.Output, int64(p.Output)}} {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(x[0]), big.NewInt(x[1])))
		}
		sum.Add(sum, big.NewInt(500_000)).Div(sum, big.NewInt(1_000_000))
		want := Amount(1<<63 - 1)
		if sum.IsInt64() {
			want = Amount(sum.Int64())
		}
		if got := p.Cost(u, november); got != want {
			t.Fatalf("cost %d, want %d", got, want)
		}
	})
}

// Whatever a provider claims to have billed, a cost is never negative and never beyond the two full prices.
func TestCostOfImpossibleUsage(t *testing.T) {
	p := mustLookup(t, "openai", "gpt-4o", november)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64()
		u := Usage{n.Draw(t, "in"), n.Draw(t, "cached"), n.Draw(t, "write"), n.Draw(t, "out"), n.Draw(t, "reasoning")}
		if got := p.Cost(u, november); got < 0 {
			t.Fatalf("%+v costs %v", u, got)
		}
	})
	for _, u := range []Usage{{Input: -1}, {Input: 5, Cached: 6}, {Input: 5, Cached: 3, CacheWrite: 3}, {Output: 1,
		Reasoning: 2},
		{Input: 1, Cached: 1 << 62, CacheWrite: 1 << 62}} {
		if u.Check() == nil {
			t.Errorf("%+v passed the check", u)
		}
	}
	if err := (Usage{Input: 10, Cached: 4, CacheWrite: 6, Output: 3, Reasoning: 3}).Check(); err != nil {
		t.Error(err)
	}
}

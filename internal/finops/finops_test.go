package finops

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"

	"pgregory.net/rapid"
)

func day(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	from = day("2026-10-01")
	to   = day("2026-11-01")
)

func usd(v float64) cost.Amount {
	if v < 0 {
		return -cost.FromUSD(-v)
	}
	return cost.FromUSD(v)
}

// month is a million tickets: 84.2 % answered in the gateway, the rest escalated, one in a hundred audited.
func month() []Row {
	tokens := func(n int64) cost.Usage { return cost.Usage{Input: 500 * n, Output: 50 * n} }
	return []Row{
		{Start: from, Task: "tickets", Tier: "linear", Answered: true, Attempts: 842_000, Reference: usd(1473.50)},
		{Start: from, Task: "tickets", Tier: "generalist", Provider: "openai", Model: "gpt-4o", Answered: true,
			Attempts: 158_000,
			Usage:    tokens(158_000), Cost: usd(276.50), CostLow: usd(276.50), CostHigh: usd(276.50), Reference: usd(276.50)},
		{Start: from, Task: "tickets", Tier: "generalist", Provider: "openai", Model: "gpt-4o", Audit: true, Attempts: 8420,
			Usage: tokens(8420), Cost: usd(14.735), CostLow: usd(14.735), CostHigh: usd(14.735)},
	}
}

func TestProvenSaving(t *testing.T) {
	s := Prove(from, to, month(), []Charge{{Kind: Hosting, What: "aws t3.medium", Amount: usd(30.39)}, {Kind: Training,
		Task: "tickets", Amount: usd(10)}})
	if want := usd(1750 - 276.50 - 14.735 - 30.39 - 10); s.Saved != want || s.WouldHaveCost != usd(1750) {
		t.Errorf("saved %v, want %v", s.Saved, want)
	}
	if s.Requests != 1_000_000 || s.Local != 842_000 || s.Tasks[0].Saved != s.Saved+usd(30.39) {
		t.Errorf("%+v", s)
	}
	if h := s.Headline(); h != "Saved $1,418.38: the generalist alone would have cost $1,750.00, it did cost $331.63 "+
		"(generalist $276.50, audits $14.74, hosting $30.39, training $10.00)." {
		t.Error(h)
	}
}

func TestALossIsSaidPlainly(t *testing.T) {
	s := Prove(from, to, month(), []Charge{{Kind: Hosting, What: "aws g5.xlarge", Task: "tickets", Amount: usd(2000)}})
	if s.Saved >= 0 || !strings.HasPrefix(s.Headline(), "You are losing $541.24") || !strings.Contains(s.Headline(),
		"Switch task tickets back") {
		t.Error(s.Headline())
	}
}

func TestNothingIsClaimedForWhatIsNotKnown(t *testing.T) {
	rows := []Row{
		{Task: "a", Tier: "linear", Answered: true, Attempts: 10},
		// no counterfactual
		{Task: "a", Tier: "generalist", Provider: "x", Model: "m", Answered: true, Attempts: 5, Unpriced: true},
		// no price
		{Task: "a", Tier: "generalist", Provider: "y", Model: "m", Answered: true, Attempts: 4, Unpriced: true, Reference: usd(8)},
		// no price, at the fallback of a model that has one
		{Task: "a", Tier: "generalist", Provider: "x", Model: "n", Answered: true, Attempts: 2, Cost: usd(4),
			CostLow: usd(4), CostHigh: usd(4)}, // no counterfactual
		{Provider: "openai", Model: "gpt-4o", Answered: true, Attempts: 3, Cost: usd(7), CostLow: usd(7),
			CostHigh: usd(7)}, // pass-through
		{Task: "a", Tier: "generalist", Provider: "x", Model: "n", Attempts: 1, Estimated: true, Cost: usd(1),
			CostLow: 0, CostHigh: usd(3)},
	}
	s := Prove(from, to, rows, nil)
	if s.Saved != -usd(1) || s.SavedLow != -usd(3) || s.SavedHigh != 0 || s.NoReference != 21 || s.Unpriced != 9 ||
		s.PassThrough != usd(7) {
		t.Errorf("%+v", s)
	}
	for _, want := range []string{"21 requests have no known counterfactual", "9 attempts are unpriced",
		"between -$3.00 and $0.00"} {
		if !strings.Contains(s.Text(), want) {
			t.Errorf("the text lacks %q:\n%s", want, s.Text())
		}
	}
}

// A statement of everything is the sum of its parts, whatever the rows.
func TestStatementAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows []Row
		var charges []Charge
		spent, reference := cost.Amount(0), cost.Amount(0)
		for range rapid.IntRange(0, 20).Draw(t, "rows") {
			r := Row{Task: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "task"),
				Tier:     rapid.SampledFrom([]string{"linear", "generalist"}).Draw(t, "tier"),
				Answered: rapid.Bool().Draw(t, "answered"), Audit: rapid.Bool().Draw(t, "audit"), Attempts: 1,
				Cost: cost.Amount(rapid.Int64Range(0, 1e12).Draw(t, "cost")), Reference: cost.Amount(rapid.Int64Range(1,
					1e12).Draw(t, "reference"))}
			r.CostLow, r.CostHigh = r.Cost, r.Cost
			rows, spent = append(rows, r), spent+r.Cost
			if r.Answered {
				reference += r.Reference
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "charges") {
			c := Charge{Kind: rapid.SampledFrom([]ChargeKind{Hosting, Training, Labels}).Draw(t, "kind"), Task: "a",
				Amount: cost.Amount(rapid.Int64Range(0, 1e12).Draw(t, "amount"))}
			charges, spent = append(charges, c), spent+c.Amount
		}
		s := Prove(from, to, rows, charges)
		if s.Spent.Total() != spent || s.WouldHaveCost != reference || s.Saved != reference-spent ||
			s.SavedLow != s.Saved || s.SavedHigh != s.Saved {
			t.Fatalf("spent %v of %v, would have cost %v of %v", s.Spent.Total(), spent, s.WouldHaveCost, reference)
		}
		sum := cost.Amount(0)
		for _, task := range s.Tasks {
			sum += task.Saved
		}
		if sum != s.Saved {
			t.Fatalf("the tasks save %v, the whole %v", sum, s.Saved)
		}
	})
}

func TestInvoiceToTheCent(t *testing.T) {
	invoice := "start_time,amount_value,amount_currency,line_item\n" +
		"1759276800,176.50,usd,\"gpt-4o-2024-08-06, input\"\n1759363200,114.74,usd,\"gpt-4o-2024-08-06, " +
		"output\"\n1759363201,,usd,\n"
	lines, err := ReadInvoice(strings.NewReader(invoice))
	if err != nil || len(lines) != 3 || lines[0].Date.Format(time.DateOnly) != "2025-10-01" {
		t.Fatalf("%v %+v", err, lines)
	}
	r := Reconcile(lines, month())
	if !r.Agrees || r.Difference != usd(0.005) || len(r.Lines) != 1 || r.Lines[0].Model != "gpt-4o" {
		t.Errorf("%s", r.Text())
	}
	lines[0].Amount += usd(0.02)
	if r := Reconcile(lines, month()); r.Agrees {
		t.Errorf("two cents too much agree:\n%s", r.Text())
	}
	estimated := append(month(), Row{Provider: "openai", Model: "gpt-4o", Estimated: true, Attempts: 6, Cost: usd(0.01),
		CostLow: 0, CostHigh: usd(0.03)})
	if r := Reconcile(lines, estimated); !r.Agrees || r.Estimated != 6 {
		t.Errorf("six estimated attempts explain two cents:\n%s", r.Text())
	}
	if r := Reconcile(lines, append(month(), Row{Provider: "openai", Model: "x", Unpriced: true, Attempts: 1})); r.Agrees {
		t.Error("an unpriced attempt agrees")
	}
	unknown := append(lines, InvoiceLine{Item: "dall-e-3", Amount: usd(5), Decimals: 2})
	if r := Reconcile(unknown, month()); r.Agrees || r.Lines[0].Model != "" || r.Lines[0].Invoice != usd(5) {
		t.Errorf("%s", r.Text())
	}
}

// TestInvoiceThatIsTooLarge: nothing of an invoice is left out without a word.
func TestInvoiceThatIsTooLarge(t *testing.T) {
	parts := []io.Reader{strings.NewReader("amount,model\n")}
	line := "1.00," + strings.Repeat("x", 1<<20) + "\n"
	for range maxInvoiceBytes >> 20 {
		parts = append(parts, strings.NewReader(line))
	}
	if _, err := ReadInvoice(io.MultiReader(parts...)); err == nil || !strings.Contains(err.Error(), "larger than 256 MB") {
		t.Errorf("%v", err)
	}
}

func TestInvoiceAmounts(t *testing.T) {
	for text, want := range map[string]cost.Amount{"0.000000001": 1, "0.0000000005": 1, "0.0000000004": 0,
		"$1,234.56": usd(1234.56), "-3.2": -usd(3.2),
		"(3.20)": -usd(3.2), "7": usd(7), "1.5e-05": 15000, "2E2": usd(200), "-1e-9": -1, "12.": usd(12), ".5": usd(0.5)} {
		if got, _, err := readUSD(text); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ".", "abc", "1.2.3", "12345678901", "9999999999", "1e99", "1e", "NaN", "0x10",
		"1,0,0e5x", "0,50", "0,123", "1.234,56", "12,34", "1,2345", "5.00-", "(5", "--5", "1,234,56"} {
		if got, _, err := readUSD(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := cost.Amount(rapid.Int64Range(-1e18, 1e18).Draw(t, "amount"))
		if got, n, err := readUSD(a.String()); err != nil || got != a || n != 9 {
			t.Fatalf("%v is read as %v (%v)", a, got, err)
		}
	})
}

func TestInvoiceErrorsSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		"": "header", "a,b\n1,2\n": "no column with amounts", "amount\nten\n": "line 2",
		"amount,currency\n1,eur\n": "only dollars",
		"amount\n\"1\n":            "invoice",
	} {
		if _, err := ReadInvoice(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzInvoice(f *testing.F) {
	f.Add("date,model,amount\n2026-10-01,gpt-4o,1.25\n")
	f.Add("amount_value,amount_currency\n1e-5,usd\n(3),USD\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := ReadInvoice(strings.NewReader(s))
		if err != nil {
			return
		}
		sum := cost.Amount(0)
		for _, l := range lines {
			sum += l.Amount
		}
		if r := Reconcile(lines, nil); r.Invoice != sum || r.Difference != sum {
			t.Fatalf("lines add up to %v, the reconciliation says %v", sum, r.Invoice)
		}
	})
}

func TestFOCUSAddsUpAndKeepsSavingsApart(t *testing.T) {
	rows := append(month(), Row{Start: from, Provider: "x", Model: "y", Unpriced: true, Attempts: 4,
		Usage: cost.Usage{Input: 9}})
	charges := []Charge{{Kind: Hosting, What: "aws g5.xlarge", Start: from, End: to, Amount: usd(748.464), Hours: 744,
		Busy: 0.039},
		{Kind: Training, What: "fine-tune", Task: "tickets", Start: from, End: to, Amount: usd(10)}}
	var b bytes.Buffer
	unpriced, err := WriteFOCUS(&b, FocusAccount{ID: "acme", Name: "Acme", Span: 24 * time.Hour}, cost.Default(), rows,
		charges)
	if err != nil || unpriced != 4 {
		t.Fatal(unpriced, err)
	}
	records, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := func(name string) int { return slices.Index(records[0], name) }
	billed, saving, reference := cost.Amount(0), cost.Amount(0), cost.Amount(0)
	for _, r := range records[1:] {
		v, _, err := readUSD(r[column("BilledCost")])
		if err != nil || v < 0 {
			t.Errorf("billed cost %q", r[column("BilledCost")])
		}
		billed += v
		if s := r[column("x_Saving")]; s != "" {
			v, _, _ := readUSD(s)
			saving += v
		}
		if s := r[column("x_CounterfactualCost")]; s != "" {
			v, _, _ := readUSD(s)
			reference += v
		}
		if r[column("ChargeCategory")] != "Usage" {
			t.Errorf("a row of category %q", r[column("ChargeCategory")])
		}
		for _, mandatory := range []string{"BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
			"BillingPeriodEnd",
			"BillingPeriodStart", "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart",
			"ContractedCost",
			"EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName",
			"PublisherName",
			"ServiceCategory", "ServiceName"} {
			if r[column(mandatory)] == "" {
				t.Errorf("mandatory column %s is empty in %v", mandatory, r)
			}
		}
	}
	if want := usd(276.50 + 14.735 + 748.464 + 10); billed != want {
		t.Errorf("billed %v, want %v", billed, want)
	}
	if reference != usd(1750) || saving != usd(1473.50) {
		t.Errorf("counterfactual %v, saving %v", reference, saving)
	}
}

// The meters of any row add up to its cost, and none is negative.
func TestMetersAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1e9)
		r := Row{Start: from, Provider: "openai", Model: rapid.SampledFrom([]string{"gpt-4o", "gpt-6-luna",
			"unknown"}).Draw(t, "model"),
			Usage: cost.Usage{Input: n.Draw(t, "in"), Output: n.Draw(t, "out")}, Cost: cost.Amount(rapid.Int64Range(0,
				1e15).Draw(t, "cost"))}
		r.Usage.Cached = rapid.Int64Range(0, r.Usage.Input).Draw(t, "cached")
		sum := cost.Amount(0)
		for _, m := range meters(cost.Default(), r) {
			if m.cost < 0 {
				t.Fatalf("meter %s costs %v", m.name, m.cost)
			}
			sum += m.cost
		}
		if sum != r.Cost {
			t.Fatalf("meters add up to %v, the row costs %v", sum, r.Cost)
		}
	})
}

// series makes days of $100 with a weekend dip and multiplicative noise.
func series(n int, noise float64, rng *rand.Rand) []Point {
	var out []Point
	for i := range n {
		d := day("2026-08-03").AddDate(0, 0, i) // a Monday
		v := 100.0
		if d.Weekday() == time.Saturday || d.Weekday() == time.Sunday {
			v = 40
		}
		out = append(out, Point{d, usd(v * math.Exp(noise*rng.NormFloat64()))})
	}
	return out
}

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, 7)) }

func TestForecastOfARegularSeriesIsExact(t *testing.T) {
	days := series(70, 0, seeded(0)) // up to 2026-10-11
	q, ok := Forecast(days, from, to, seeded(1))
	want := cost.Amount(0)
	for d := from; d.Before(to); d = d.AddDate(0, 0, 1) {
		want += map[bool]cost.Amount{true: usd(40), false: usd(100)}[d.Weekday() == time.Saturday ||
			d.Weekday() == time.Sunday]
	}
	for _, v := range []cost.Amount{q.P10, q.P50, q.P90} {
		if !ok || math.Abs(v.USD()-want.USD()) > 0.01 {
			t.Errorf("%+v, want %v", q, want)
		}
	}
	if _, ok := Forecast(days[:6], from, to, seeded(1)); ok {
		t.Error("six days are enough for a forecast")
	}
	if q, ok := Forecast(make([]Point, 10), from, to, seeded(1)); !ok || q.P90 != 0 {
		t.Errorf("a series of nothing: %+v %v", q, ok)
	}
}

// Over many noisy months the interval from p10 to p90 holds about eight in ten.
func TestForecastIntervalsHold(t *testing.T) {
	inside, runs := 0, 200
	for seed := range runs {
		rng := seeded(uint64(seed))
		all := series(91, 0.15, rng) // to 2026-11-01
		truth := cost.Amount(0)
		for _, d := range all {
			if !d.Start.Before(from) && d.Start.Before(to) {
				truth += d.Spend
			}
		}
		q, _ := Forecast(all[:66], from, to, rng)
		if q.P10 <= truth && truth <= q.P90 {
			inside++
		}
	}
	if share := float64(inside) / float64(runs); share < 0.65 || share > 0.97 {
		t.Errorf("%.0f %% of the months lie between p10 and p90", 100*share)
	}
}

// hourly makes weeks of hours with a day and a week in them.
func hourly(weeks int, noise float64, rng *rand.Rand) []Point {
	var out []Point
	for i := range weeks * 168 {
		at := day("2026-08-03").Add(time.Duration(i) * time.Hour)
		v := 5 + 20*math.Max(0, math.Sin(float64(at.Hour()-6)*math.Pi/12))
		if at.Weekday() == time.Sunday {
			v /= 4
		}
		out = append(out, Point{at, usd(v * math.Exp(noise*rng.NormFloat64()))})
	}
	return out
}

func TestAnomalies(t *testing.T) {
	if got := Anomalies(hourly(8, 0, seeded(1)), AnomalyOptions{}); len(got) != 0 {
		t.Errorf("a perfectly regular series has %d anomalies, the first %+v", len(got), got[0])
	}
	hours := hourly(8, 0.15, seeded(2))
	if got := Anomalies(hours, AnomalyOptions{}); len(got) > len(hours)/500 {
		t.Errorf("%d false alarms in %d noisy hours", len(got), len(hours))
	}
	spike := len(hours) - 30
	hours[spike].Spend *= 12
	hours[spike+3].Spend = 0
	got := Anomalies(hours, AnomalyOptions{})
	found := func(i int, sign float64) bool {
		return slices.ContainsFunc(got, func(a Anomaly) bool { return a.Start.Equal(hours[i].Start) && a.Score*sign > 0 })
	}
	if !found(spike, 1) {
		t.Errorf("a twelvefold hour is not found: %+v", got)
	}
	if a := Anomalies(hours[:100], AnomalyOptions{}); len(a) != 0 {
		t.Error("something is unusual within the first days")
	}
	tiny := hourly(8, 0.15, seeded(2))
	for i := range tiny {
		tiny[i].Spend /= 1000
	}
	tiny[spike].Spend *= 12
	if a := Anomalies(tiny, AnomalyOptions{}); len(a) != 0 {
		t.Error("a fraction of a cent is an alarm")
	}
}

func TestBudget(t *testing.T) {
	b := Budget{Soft: usd(80), Hard: usd(100)}
	for spent, want := range map[float64]BudgetState{0: WithinBudget, 79.99: WithinBudget, 80: SoftLimit, 99.99: SoftLimit, 100: HardLimit, 250: HardLimit} {
		if got := b.State(usd(spent)); got != want {
			t.Errorf("spent %g: %s, want %s", spent, got, want)
		}
	}
	if (Budget{}).State(usd(1e9)) != WithinBudget {
		t.Error("no budget is a limit")
	}
	at, ok := b.Exhausted(usd(50), from, from.AddDate(0, 0, 10), to)
	if !ok || !at.Equal(from.AddDate(0, 0, 20)) {
		t.Errorf("runs out on %v", at)
	}
	if _, ok := b.Exhausted(usd(5), from, from.AddDate(0, 0, 10), to); ok {
		t.Error("half the budget is called exhausted")
	}
	if at, ok := b.Exhausted(usd(0.001), from, from.AddDate(0, 0, 20), to); ok {
		t.Errorf("a budget of which a hundred-thousandth is spent ran out on %v", at)
	}
	if at, ok := b.Exhausted(usd(100), from, to, to); !ok || !at.Equal(to) {
		t.Error("an exhausted budget is not")
	}
}

func TestCalendarTouchesOnlyYourTraffic(t *testing.T) {
	rows := append(month(), Row{Provider: "openai", Model: "gpt-5-nano", Attempts: 7, Cost: usd(1)},
		Row{Provider: "anthropic", Model: "claude-haiku-5-5", Attempts: 1},
		Row{Provider: "openai", Model: "gpt-4o-2024-08-06", Task: "b", Attempts: 1})
	got := Calendar(cost.Default(), rows, day("2026-11-23"))
	if len(got) != 3 || got[0].Model != "gpt-5-nano" || got[0].Days != 18 || got[1].Model != "gpt-4o" ||
		got[1].Attempts != 166_420 ||
		got[1].Tasks[0] != "tickets" || got[2].Model != "gpt-4o-2024-08-06" {
		t.Errorf("%+v", got)
	}
	if e := Calendar(cost.Default(), rows, day("2026-12-31")); e[0].Days != -20 {
		t.Errorf("a model that is gone: %+v", e[0])
	}
}

func TestRecommendationsAreRankedByDollars(t *testing.T) {
	rows := append(month(), Row{Task: "tickets", Tier: "generalist", Provider: "openai", Model: "gpt-4o",
		Attempts: 50_000, Cost: usd(87.5), CostLow: usd(87.5), CostHigh: usd(87.5)})
	charges := []Charge{{Kind: Hosting, What: "aws g5.xlarge", Task: "tickets", Amount: usd(2000), Busy: 0.04}}
	a, err := cost.Analyze(cost.Default(), cost.Scenario{Workload: cost.Workload{Volume: 1e6, InputTokens: 1650,
		PrefixTokens: 1500, OutputTokens: 50, At: day("2026-11-23")},
		Generalist: "gpt-4o", Assumptions: cost.DefaultAssumptions(), Draws: 100}, seeded(3))
	if err != nil {
		t.Fatal(err)
	}
	got := Recommend(Situation{Statement: Prove(from, to, rows, charges), Rows: rows, Charges: charges,
		Book: cost.Default(), At: day("2026-11-23"),
		Analyses: map[string]*cost.Analysis{"mails": a}})
	var codes []string
	for i, r := range got {
		codes = append(codes, r.Code)
		if i > 0 && r.Worth > got[i-1].Worth {
			t.Error("not ranked by worth")
		}
		if r.Do == "" || r.Why == "" || r.Title == "" {
			t.Errorf("%+v", r)
		}
	}
	for _, want := range []string{"losing", "idle", "train", "cache", "batch", "ending"} {
		if !slices.Contains(codes, want) {
			t.Errorf("no recommendation %q among %v", want, codes)
		}
	}
	if codes[len(codes)-1] != "ending" {
		t.Errorf("what has no dollars does not come last: %v", codes)
	}
}

// TestRecommendationsOfAMonthUnderWay scales up the days that there were, and says nothing of a server's idle hours that nobody measured.
func TestRecommendationsOfAMonthUnderWay(t *testing.T) {
	rows := []Row{{Start: from, Task: "tickets", Tier: "generalist", Provider: "openai", Model: "gpt-4o", Attempts: 1000, Cost: usd(30), CostLow: usd(30), CostHigh: usd(30)}}
	charges := []Charge{{Kind: Hosting, What: "aws g5.xlarge", Start: from, End: from.AddDate(0, 0, 3), Amount: usd(72), Hours: 72, Busy: BusyUnknown}}
	got := Recommend(Situation{Statement: Prove(from, to, rows, charges), Rows: rows, Charges: charges, Book: cost.Default(), At: from.AddDate(0, 0, 3)})
	i := slices.IndexFunc(got, func(r Recommendation) bool { return r.Code == "lost" })
	if i < 0 || got[i].Worth != usd(30*daysAMonth/3) {
		t.Errorf("$30 in three days: %+v", got)
	}
	if slices.ContainsFunc(got, func(r Recommendation) bool { return r.Code == "idle" }) {
		t.Errorf("idle hours that nobody measured: %+v", got)
	}
}

func TestUSDRoundsToTheCent(t *testing.T) {
	for want, a := range map[string]cost.Amount{"$0.00": 4_999_999, "$0.01": 5_000_000, "-$0.01": -5_000_000,
		"$1,234,567.89": usd(1234567.89),
		"$999.99":       usd(999.994), "-$9,223,372,036.85": math.MinInt64, fmt.Sprint("$", strconv.Itoa(7), ".00"): usd(7)} {
		if got := USD(a); got != want {
			t.Errorf("%d is %s, want %s", a, got, want)
		}
	}
}

// TestInvoiceTextHidesNothing: a difference below a cent is shown as one.
func TestInvoiceTextHidesNothing(t *testing.T) {
	lines := []InvoiceLine{{Item: "gpt-4o", Amount: 6_004_000_000, Decimals: 3}}
	rows := []Row{{Provider: "openai", Model: "gpt-4o", Attempts: 1, Cost: 6 * cost.USD, CostLow: 6 * cost.USD, CostHigh: 6 * cost.USD}}
	text := Reconcile(lines, rows).Text()
	if !strings.Contains(text, "invoice $6.004  ledger $6.00  difference $0.004  DOES NOT AGREE") || !strings.Contains(text, "explain -$0.0005 to $0.0005") {
		t.Error(text)
	}
}

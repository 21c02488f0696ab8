package cost

import (
	"strings"
	"testing"
	"time"
)

func TestLookupNeverGuesses(t *testing.T) {
	b := Default()
	for _, c := range []struct {
		provider, model string
		ok              bool
		in              float64
	}{
		{"openai", "gpt-4o", true, 2.5},
		{"openai", "gpt-4o-2024-08-06", true, 2.5},
		{"openai", "gpt-4o-2024-05-13", true, 5}, // the first snapshot costs twice as much
		{"openai", "gpt-4o-2031-01-01", false, 0},
		{"openai", "GPT-4o", false, 0},
		{"openai", "ft:gpt-4o-2024-08-06:acme::x", false, 0},
		{"azure", "gpt-4o", false, 0},
		{"", "gpt-4o", true, 2.5},
		{"", "gpt-4o-2024-08-06", true, 2.5},
		{"", "", false, 0},
	} {
		p, ok := b.Lookup(c.provider, c.model, november)
		if ok != c.ok || (ok && p.Input.USDPerMTok() != c.in) {
			t.Errorf("Lookup(%q, %q) = %g, %v; want %g, %v", c.provider, c.model, p.Input.USDPerMTok(), ok, c.in, c.ok)
		}
	}
}

func TestLookupHonoursDates(t *testing.T) {
	for date, want := range map[string]float64{"2026-07-08": -1, "2026-07-09": 1, "2026-07-29": 1, "2026-07-30": 0.2} {
		p, ok := Default().Lookup("openai", "gpt-5.6-luna", day(date))
		if want < 0 && ok || want >= 0 && (!ok || p.Input.USDPerMTok() != want) {
			t.Errorf("gpt-5.6-luna on %s: %g, %v; want %g", date, p.Input.USDPerMTok(), ok, want)
		}
	}
}

func TestLookupOfAModelWithTwoSellersNeedsTheProvider(t *testing.T) {
	b := parseBook(t, `{"version":"x","llm":[{"model":"m","provider":"a","in":1,"out":1},{"model":"m","provider":"b","in":2,"out":2}]}`)
	if _, ok := b.Lookup("", "m", november); ok {
		t.Error("a price was chosen between two sellers")
	}
	if p, ok := b.Lookup("b", "m", november); !ok || p.Input.USDPerMTok() != 2 {
		t.Error("the named seller was not found")
	}
}

func TestEveryEmbeddedRowHasASourceAndAConfidence(t *testing.T) {
	known := map[Confidence]bool{Official: true, Secondary: true, Recalled: true}
	rows := Default().Prices(time.Time{})
	if len(rows) < 25 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, p := range rows {
		if p.Source == "" || !known[p.Confidence] {
			t.Errorf("%s: source %q, confidence %q", p.Version(), p.Source, p.Confidence)
		}
	}
	for _, h := range Default().Hosts() {
		if h.Source == "" || !known[h.Confidence] || h.Hour <= 0 || h.HourHigh < h.Hour || (h.GPU != "") != (h.GPUs > 0) {
			t.Errorf("host %+v", h)
		}
	}
}

func TestGPUBySKU(t *testing.T) {
	for sku, want := range map[string]float64{"aws g5.xlarge": 1.006, "g5.xlarge": 1.006, "AWS G5.XLARGE": 1.006,
		"t3.medium": 0.0416} {
		if h, ok := Default().GPU(sku, november); !ok || h.Hour.USD() != want {
			t.Errorf("%q: %v %v", sku, h.Hour, ok)
		}
	}
	if _, ok := Default().GPU("g7.nonsense", november); ok {
		t.Error("an unknown SKU has a price")
	}
}

func TestMergeEndsTheOldRowAndKeepsHistory(t *testing.T) {
	over := parseBook(t, `{"version":"mine","llm":[{"model":"gpt-4o","provider":"openai","in":2,"out":8,"effective_from":"2026-12-01"}]}`)
	b := Default().Merge(over)
	for date, want := range map[string]float64{"2026-11-30": 2.5, "2026-12-01": 2} {
		if p, ok := b.Lookup("openai", "gpt-4o", day(date)); !ok || p.Input.USDPerMTok() != want {
			t.Errorf("on %s: %g %v, want %g", date, p.Input.USDPerMTok(), ok, want)
		}
	}
	if p := mustLookup(t, "openai", "gpt-4o", day("2026-12-01")); p.Input.USDPerMTok() != 2.5 {
		t.Error("Merge changed the book it was called on")
	}
	if want := Default().Version() + "+mine"; b.Version() != want {
		t.Errorf("version %q, want %q", b.Version(), want)
	}
	undated := parseBook(t, `{"version":"x","llm":[{"model":"gpt-5.6-luna","provider":"openai","in":9,"out":9}]}`)
	if p, _ := Default().Merge(undated).Lookup("openai", "gpt-5.6-luna", day("2026-07-10")); p.Input.USDPerMTok() != 9 {
		t.Error("an undated override does not replace the history")
	}
	snapshot := parseBook(t, `{"version":"x","llm":[{"model":"gpt-4o-2024-08-06","provider":"openai","in":7,"out":9}]}`)
	if p, _ := Default().Merge(snapshot).Lookup("openai", "gpt-4o-2024-08-06", november); p.Input.USDPerMTok() != 7 {
		t.Error("an override of a snapshot lost against the alias")
	}
}

func TestDiffShowsWhatAMergeWouldChange(t *testing.T) {
	next := parseBook(t, `{"version":"x","llm":[
		{"model":"gpt-4o","provider":"openai","in":2,"cached":1.25,"out":10,"batch_mult":0.5,"shutdown":"2027-01-14"},
		{"model":"gpt-4o-mini","provider":"openai","in":0.15,"cached":0.075,"out":0.6,"batch_mult":0.5,"shutdown":"2027-01-14"},
		{"model":"new","provider":"x","in":1,"out":2}]}`)
	var got []string
	for _, c := range Default().Diff(next, november) {
		got = append(got, c.String())
	}
	want := "openai/gpt-4o: input $2.5 → $2, cache write $2.5 → $2\nx/new: new, input $1, output $2 per 1M tokens"
	if strings.Join(got, "\n") != want {
		t.Errorf("diff:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
}

func TestParseRefusesBadRows(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":        `model: x`,
		"unknown key":     `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"inn":3}]}`,
		"no price":        `{"llm":[{"model":"m","provider":"p","in":1}]}`,
		"negative":        `{"llm":[{"model":"m","provider":"p","in":-1,"out":1}]}`,
		"per token":       `{"llm":[{"model":"m","provider":"p","in":250000,"out":1}]}`,
		"no name":         `{"llm":[{"provider":"p","in":1,"out":1}]}`,
		"dates":           `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"effective_from":"2026-02-01","effective_to":"2026-01-01"}]}`,
		"bad date":        `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"shutdown":"soon"}]}`,
		"batch":           `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"batch_mult":2}]}`,
		"clock":           `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"time_of_day":[{"from":"25:00","to":"01:00","in":1,"out":1}]}]}`,
		"long":            `{"llm":[{"model":"m","provider":"p","in":1,"out":1,"long_ctx":{"above_input":10}}]}`,
		"alias":           `{"aliases":[{"model":"m"}]}`,
		"host without $":  `{"gpu":[{"sku":"x","gpu":"A10G"}]}`,
		"host below zero": `{"vm":[{"sku":"x","usd_h":-1}]}`,
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(embeddedBook)
	f.Add(`{"llm":[{"model":"m","provider":"p","in":1e308,"out":1}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, p := range b.Prices(november) {
			if p.Cost(Usage{Input: 1 << 40, Cached: 1 << 20, Output: 1 << 40}, november) < 0 {
				t.Fatalf("%+v prices a request below zero", p)
			}
		}
	})
}

func parseBook(t *testing.T, text string) *Book {
	t.Helper()
	b, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEmbeddings: texts are billed, vectors are not, and no plan offers such a model for a task's job.
func TestEmbeddings(t *testing.T) {
	usage := Usage{Input: 1_000_000, Output: 5}
	for model, want := range map[string]float64{"text-embedding-3-small": 0.02, "text-embedding-3-large": 0.13, "text-embedding-ada-002": 0.1,
		"gemini-embedding-001": 0.15, "mistral-embed": 0.1, "mistral-embed-2312": 0.1} {
		p, ok := Default().Lookup("", model, november)
		if !ok || p.Kind != Embedding || p.Cost(usage, november) != FromUSD(want) || p.Source == "" || p.Confidence == "" {
			t.Errorf("%s: %+v, a million tokens cost %v", model, p, p.Cost(usage, november))
		}
	}
	for _, p := range analyze(t, published(1_000_000)).Plans {
		if strings.Contains(p.Name, "text-embedding") || strings.Contains(p.Name, "-embed") {
			t.Errorf("the plan %q does not do the job", p.Name)
		}
	}
	if _, err := Parse(strings.NewReader(`{"schema":"price-book/2","version":"x","llm":[{"model":"m","provider":"p","kind":"embeding","in":1,"out":0,"src":"s","confidence":"official"}]}`)); err == nil {
		t.Error("an unknown kind is accepted")
	}
}

// TestDiffTellsOfWhatComes: a price that is announced for later is a change, and is dated.
func TestDiffTellsOfWhatComes(t *testing.T) {
	next, err := Parse(strings.NewReader(`{"schema":"price-book/2","version":"x","llm":[
		{"model":"gpt-4o","provider":"openai","in":2.5,"cached":1.25,"out":10,"batch_mult":0.5,"shutdown":"2027-01-14","effective_to":"2027-01-01","src":"s"},
		{"model":"gpt-4o","provider":"openai","in":3,"cached":1.25,"out":10,"batch_mult":0.5,"shutdown":"2027-01-14","effective_from":"2027-01-01","src":"s"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	changes := Default().Diff(next, november)
	if len(changes) != 1 || changes[0].String() != "openai/gpt-4o: from 2027-01-01: input $2.5 → $3, cache write $2.5 → $3" {
		t.Errorf("%v", changes)
	}
}

package cost

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxModels bounds the models taken from one imported file; the largest known has about 3,000.
const maxModels = 50_000

// ParseLiteLLM reads LiteLLM's model_prices_and_context_window.json. The format has no dates, so every row takes effect at
// from; prices are per token. Entries that are not priced by text tokens are skipped: skipped names them with the reason.
// Show Default().Diff(book, from) before merging.
func ParseLiteLLM(r io.Reader, from time.Time) (book *Book, skipped []string, err error) {
	var file map[string]map[string]any
	if err := json.NewDecoder(io.LimitReader(r, maxBookBytes)).Decode(&file); err != nil {
		return nil, nil, fmt.Errorf("LiteLLM price map: %w (expected an object of models)", err)
	}
	if len(file) > maxModels {
		return nil, nil, fmt.Errorf("LiteLLM price map: %d models are more than the limit of %d", len(file), maxModels)
	}
	b := newBook("litellm " + from.Format(time.DateOnly))
	names := make([]string, 0, len(file))
	for name := range file {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "sample_spec" {
			continue // documentation in the form of an entry
		}
		p, err := liteLLMEntry(file[name]).price(name)
		if err != nil {
			skipped = append(skipped, name+": "+err.Error())
			continue
		}
		p.From, p.Source, p.Confidence = from, "LiteLLM price map", Secondary
		if !slices.ContainsFunc(b.prices[p.Model], func(q Price) bool { return q.Provider == p.Provider }) {
			b.add(p)
		}
	}
	return b, skipped, nil
}

type liteLLMEntry map[string]any

func (e liteLLMEntry) number(key string) (float64, bool) {
	v, ok := e[key].(float64)
	return v, ok
}

func (e liteLLMEntry) text(key string) string {
	s, _ := e[key].(string)
	return s
}

func (e liteLLMEntry) price(name string) (Price, error) {
	provider := e.text("litellm_provider")
	if provider == "" {
		return Price{}, errors.New("no litellm_provider")
	}
	if mode := e.text("mode"); mode != "" && mode != "chat" && mode != "completion" && mode != "responses" {
		return Price{}, fmt.Errorf("mode %s", mode)
	}
	p := Price{Provider: provider, Model: strings.TrimPrefix(name, provider+"/")}
	if provider == "gemini" {
		p.Provider = "google"
	}
	var err error
	if p.Rates, err = e.rates(""); err != nil {
		return p, err
	}
	for key := range e {
		band, ok := strings.CutPrefix(key, "input_cost_per_token_above_")
		band, suffix := strings.CutSuffix(band, "k_tokens")
		thousands, bad := strconv.ParseInt(band, 10, 64)
		if !ok || !suffix || bad != nil || thousands < 1 || thousands > 1e6 {
			continue
		}
		r, err := e.rates("_above_" + band + "k_tokens")
		if err != nil {
			return p, err
		}
		p.Long = append(p.Long, LongBand{thousands * 1000, r})
	}
	slices.SortFunc(p.Long, func(x, y LongBand) int { return cmp.Compare(x.AboveInput, y.AboveInput) })
	in, hasIn := e.number("input_cost_per_token_batches")
	out, hasOut := e.number("output_cost_per_token_batches")
	if hasIn && hasOut && p.Input > 0 && p.Output > 0 {
		p.BatchPermille = dearerShare(in*1e15/float64(p.Input), out*1e15/float64(p.Output))
	}
	if d := e.text("deprecation_date"); d != "" {
		p.Shutdown, _ = time.Parse(time.DateOnly, d) // free text such as "date when…" means none
	}
	return p, nil
}

// dearerShare is the larger of two batch shares in thousandths; 0 (no batch price) unless it lies in (0, 1].
func dearerShare(a, b float64) int64 {
	s := math.Max(a, b)
	if !(s > 0 && s <= 1) {
		return 0
	}
	return int64(math.Round(s * 1000))
}

// rates reads prices per token. A long-context band inherits nothing: its cached price is its input price where not given.
func (e liteLLMEntry) rates(suffix string) (Rates, error) {
	in, okIn := e.number("input_cost_per_token" + suffix)
	out, okOut := e.number("output_cost_per_token" + suffix)
	if !okIn || !okOut {
		return Rates{}, errors.New("no price per text token")
	}
	in, out = in*1e6, out*1e6
	row := ratesRow{In: &in, Out: &out}
	// The map writes 0 for cache prices that do not exist; taken at its word it would make cached tokens free.
	if v, ok := e.number("cache_read_input_token_cost" + suffix); ok && v > 0 {
		v *= 1e6
		row.Cached = &v
	}
	if v, ok := e.number("cache_creation_input_token_cost" + suffix); ok && v > 0 {
		v *= 1e6
		row.CacheWrite = &v
	}
	return row.rates()
}

type genaiProvider struct {
	ID     string `json:"id"`
	Models []struct {
		ID     string          `json:"id"`
		Match  genaiClause     `json:"match"`
		Prices json.RawMessage `json:"prices"`
	} `json:"models"`
}

type genaiClause struct {
	Equals string        `json:"equals"`
	Or     []genaiClause `json:"or"`
}

type genaiPrice struct {
	Input      *genaiTiers `json:"input_mtok"`
	Output     *genaiTiers `json:"output_mtok"`
	CacheRead  *genaiTiers `json:"cache_read_mtok"`
	CacheWrite *genaiTiers `json:"cache_write_mtok"`
}

// genaiTiers is a price: a number, or a base with higher tiers for long inputs.
type genaiTiers struct {
	Base  float64 `json:"base"`
	Tiers []struct {
		Start int64   `json:"start"`
		Price float64 `json:"price"`
	} `json:"tiers"`
}

func (t *genaiTiers) UnmarshalJSON(raw []byte) error {
	if err := json.Unmarshal(raw, &t.Base); err == nil {
		return nil
	}
	type plain genaiTiers
	return json.Unmarshal(raw, (*plain)(t))
}

func (t *genaiTiers) at(input int64) *float64 {
	if t == nil {
		return nil
	}
	v := t.Base
	for _, tier := range t.Tiers {
		if input > tier.Start {
			v = tier.Price
		}
	}
	return &v
}

type genaiConditional struct {
	Constraint *struct {
		Start     string `json:"start"`
		StartDate string `json:"start_date"`
		StartTime string `json:"start_time"`
		EndTime   string `json:"end_time"`
	} `json:"constraint"`
	Prices genaiPrice `json:"prices"`
}

// ParseGenAIPrices reads the data.json of pydantic/genai-prices, dates and times of day included. Of its rules for matching
// names only exact ones are taken, as aliases: a rule such as "starts with" would price models that nobody has looked at.
func ParseGenAIPrices(r io.Reader, version string) (book *Book, skipped []string, err error) {
	var providers []genaiProvider
	if err := json.NewDecoder(io.LimitReader(r, maxBookBytes)).Decode(&providers); err != nil {
		return nil, nil, fmt.Errorf("genai-prices: %w (expected a list of providers)", err)
	}
	b := newBook(version)
	models := 0
	for _, provider := range providers {
		for _, m := range provider.Models {
			if models++; models > maxModels {
				return nil, nil, fmt.Errorf("genai-prices: more models than the limit of %d", maxModels)
			}
			rows, err := genaiRows(provider.ID, m.ID, m.Prices)
			if err != nil {
				skipped = append(skipped, provider.ID+"/"+m.ID+": "+err.Error())
				continue
			}
			for _, p := range rows {
				b.add(p)
			}
			for _, name := range m.Match.exact() {
				if name != m.ID {
					b.aliases[modelKey{provider.ID, name}] = m.ID
				}
			}
		}
	}
	return b, skipped, nil
}

func (c genaiClause) exact() []string {
	var out []string
	if c.Equals != "" {
		out = append(out, c.Equals)
	}
	for _, o := range c.Or {
		if o.Equals != "" {
			out = append(out, o.Equals)
		}
	}
	return out
}

// genaiRows turns a price, or a list of prices with conditions, into dated rows; a later entry of the list goes first.
func genaiRows(provider, model string, raw json.RawMessage) ([]Price, error) {
	var one genaiPrice
	if err := json.Unmarshal(raw, &one); err == nil {
		p, err := one.row(provider, model)
		return []Price{p}, err
	}
	var list []genaiConditional
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return nil, errors.New("prices are neither a price nor a list of prices")
	}
	var rows []Price
	for _, c := range list {
		p, err := c.Prices.row(provider, model)
		if err != nil {
			return nil, err
		}
		switch {
		case c.Constraint == nil:
			rows = append(rows, p)
		case c.Constraint.StartTime != "":
			band, err := dailyBand(c.Constraint.StartTime, c.Constraint.EndTime)
			if err != nil || len(rows) == 0 || len(p.Long) > 0 {
				return nil, errors.New("a price by time of day that is not understood")
			}
			band.Rates = p.Rates
			rows[len(rows)-1].Daily = append([]DailyBand{band}, rows[len(rows)-1].Daily...)
		default:
			from, err := time.Parse(time.DateOnly, (c.Constraint.StartDate + c.Constraint.Start + strings.Repeat(" ",
				10))[:10])
			if err != nil {
				return nil, errors.New("a condition that is not understood")
			}
			p.From = from
			rows = append(rows, p)
		}
	}
	slices.SortStableFunc(rows, comparePrices)
	for i := range len(rows) - 1 {
		if rows[i].From.Equal(rows[i+1].From) {
			return nil, errors.New("two prices from the same date")
		}
		rows[i].To = rows[i+1].From
	}
	return rows, nil
}

func (g genaiPrice) row(provider, model string) (Price, error) {
	p := Price{Provider: provider, Model: model, Source: "genai-prices", Confidence: Secondary}
	at := func(input int64) (Rates, error) {
		return ratesRow{In: g.Input.at(input), Out: g.Output.at(input), Cached: g.CacheRead.at(input),
			CacheWrite: g.CacheWrite.at(input)}.rates()
	}
	if provider == "" || model == "" || g.Input == nil || g.Output == nil {
		return p, errors.New("no price per text token")
	}
	var err error
	if p.Rates, err = at(0); err != nil {
		return p, err
	}
	var starts []int64
	for _, t := range []*genaiTiers{g.Input, g.Output, g.CacheRead, g.CacheWrite} {
		if t == nil {
			continue
		}
		for _, tier := range t.Tiers {
			if tier.Start <= 0 {
				return p, errors.New("a tier that starts at no length")
			}
			starts = append(starts, tier.Start)
		}
	}
	slices.Sort(starts)
	for _, s := range slices.Compact(starts) {
		r, err := at(s + 1)
		if err != nil {
			return p, err
		}
		p.Long = append(p.Long, LongBand{s, r})
	}
	return p, nil
}

// dailyBand reads clock times such as "00:30:00Z" or "16:30".
func dailyBand(from, to string) (DailyBand, error) {
	clock := func(s string) (int, error) { return minutes((strings.TrimSuffix(s, "Z") + "     ")[:5]) }
	f, err1 := clock(from)
	t, err2 := clock(to)
	return DailyBand{From: f, To: t}, errors.Join(err1, err2)
}

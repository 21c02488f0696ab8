package cost

import (
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
		row, err := liteLLMEntry(file[name]).row(name)
		if err != nil {
			skipped = append(skipped, name+": "+err.Error())
			continue
		}
		row.From, row.Source, row.Confidence = date{from}, "LiteLLM price map", Secondary
		p, err := row.price()
		if err != nil {
			skipped = append(skipped, name+": "+err.Error())
			continue
		}
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

// liteLLMModes are the kinds of entries that are billed by text tokens.
var liteLLMModes = map[string]Kind{"": Chat, "chat": Chat, "completion": Chat, "responses": Chat, "decisions": Decision, "embedding": Embedding}

// row translates an entry. One that bills something besides text tokens is refused: priced by its tokens alone it would be too cheap.
func (e liteLLMEntry) row(name string) (priceRow, error) {
	provider := e.text("litellm_provider")
	if provider == "" {
		return priceRow{}, errors.New("no litellm_provider")
	}
	kind, ok := liteLLMModes[e.text("mode")]
	if !ok {
		return priceRow{}, fmt.Errorf("mode %s", e.text("mode"))
	}
	row := priceRow{Model: strings.TrimPrefix(name, provider+"/"), Provider: provider, Kind: kind, ratesRow: e.rates("")}
	if provider == "gemini" {
		row.Provider = "google"
	}
	tiers, err := e.tiers()
	if err != nil {
		return row, err
	}
	if kind == Embedding {
		if err := e.besidesText(); err != nil {
			return row, err
		}
		if row.Out == nil { // many such entries leave out what is never billed
			row.Out = new(float64)
		}
	}
	if row.In == nil && len(tiers) > 0 {
		row.ratesRow, row.LongCtx = tiers[0].ratesRow, tiers[1:]
	}
	if row.In == nil || row.Out == nil {
		return row, errNoTextPrice
	}
	if *row.In == 0 && *row.Out == 0 {
		return row, errors.New("a price of zero, which in this map means free or not known")
	}
	if err := e.besidesTokens(*row.Out); err != nil {
		return row, err
	}
	for key := range e {
		band, ok := strings.CutPrefix(key, "input_cost_per_token_above_")
		band, suffix := strings.CutSuffix(band, "k_tokens")
		thousands, bad := strconv.ParseInt(band, 10, 64)
		if ok && suffix && bad == nil && thousands >= 1 && thousands <= 1e6 {
			row.LongCtx = append(row.LongCtx, longRow{AboveInput: thousands * 1000, ratesRow: e.rates("_above_" + band + "k_tokens")})
		}
	}
	in, hasIn := e.number("input_cost_per_token_batches")
	out, hasOut := e.number("output_cost_per_token_batches")
	if hasIn && (hasOut || *row.Out == 0) {
		row.BatchMult = dearerShare(in*1e6, *row.In, out*1e6, *row.Out)
	}
	if d := e.text("deprecation_date"); d != "" {
		row.Shutdown.t, _ = time.Parse(time.DateOnly, d) // free text such as "date when…" means none
	}
	return row, nil
}

var errNoTextPrice = errors.New("no price per text token")

// besidesTokens names what a request is billed for besides its text tokens.
func (e liteLLMEntry) besidesTokens(out float64) error {
	if v, ok := e.number("input_cost_per_request"); ok && v > 0 {
		return errors.New("billed by the request too")
	}
	if v, ok := e.number("citation_cost_per_token"); ok && v > 0 {
		return errors.New("citations are billed too")
	}
	if v, ok := e.number("output_cost_per_reasoning_token"); ok && v*1e6 != out {
		return errReasoning
	}
	return nil
}

// besidesText refuses an embedding model that takes pictures, sound or characters at prices of their own: its usage counts tokens
// of one kind only.
func (e liteLLMEntry) besidesText() error {
	for key := range e {
		what, billed := strings.CutPrefix(key, "input_cost_per_")
		if v, _ := e.number(key); billed && v > 0 && !strings.HasPrefix(what, "token") {
			return errors.New("input that is no text is billed too")
		}
	}
	return nil
}

var errReasoning = errors.New("reasoning has a price of its own, and occam counts it as output")

// tiers reads "tiered_pricing", prices by ranges of the input's length, the first from 0; none where there is no such list.
func (e liteLLMEntry) tiers() (tiers []longRow, err error) {
	list, _ := e["tiered_pricing"].([]any)
	for i, item := range list {
		tier, _ := item.(map[string]any)
		bounds, _ := tier["range"].([]any)
		if len(bounds) == 0 {
			return nil, errors.New("a price tier without a range")
		}
		start, ok := bounds[0].(float64)
		if !ok || (start == 0) != (i == 0) {
			return nil, errors.New("price tiers that do not begin at 0")
		}
		rates := liteLLMEntry(tier).rates("")
		if rates.Out == nil {
			return nil, errNoTextPrice
		}
		if err := liteLLMEntry(tier).besidesTokens(*rates.Out); err != nil {
			return nil, err
		}
		tiers = append(tiers, longRow{AboveInput: int64(start), ratesRow: rates})
	}
	return tiers, nil
}

// dearerShare is the larger of two batch shares; nil (no batch price) unless it lies in (0, 1].
func dearerShare(in, fullIn, out, fullOut float64) *float64 {
	s := 0.0
	for _, pair := range [][2]float64{{in, fullIn}, {out, fullOut}} {
		if pair[1] > 0 {
			s = math.Max(s, pair[0]/pair[1])
		}
	}
	if !(s >= 0.001 && s <= 1) {
		return nil
	}
	return &s
}

// rates reads prices per token. A long-context band inherits nothing: its cached price is its input price where not given.
func (e liteLLMEntry) rates(suffix string) ratesRow {
	perMillion := func(key string) *float64 {
		v, ok := e.number(key)
		if !ok {
			return nil
		}
		v *= 1e6
		return &v
	}
	row := ratesRow{In: perMillion("input_cost_per_token" + suffix), Out: perMillion("output_cost_per_token" + suffix),
		Cached: perMillion("cache_read_input_token_cost" + suffix), CacheWrite: perMillion("cache_creation_input_token_cost" + suffix)}
	if row.Cached == nil && suffix == "" {
		row.Cached = perMillion("input_cost_per_token_cache_hit") // the older name of it
	}
	// The map writes 0 for cache prices that do not exist; taken at its word it would make cached tokens free.
	for _, r := range []**float64{&row.Cached, &row.CacheWrite} {
		if *r != nil && **r <= 0 {
			*r = nil
		}
	}
	return row
}

type genaiProvider struct {
	ID     string `json:"id"`
	Models []struct {
		ID       string          `json:"id"`
		Match    genaiClause     `json:"match"`
		Prices   json.RawMessage `json:"prices"`
		Variants []genaiVariant  `json:"price_variants"`
	} `json:"models"`
}

// genaiVariant is a price for requests that ask for something special. Of these occam knows batch processing.
type genaiVariant struct {
	When   map[string]string `json:"when"`
	Prices genaiPrice        `json:"prices"`
}

// batch returns the prices of batch processing.
func (v *genaiVariant) batch() (genaiPrice, bool) {
	return v.Prices, len(v.When) == 1 && v.When["processing"] == "batch"
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
	Reasoning  *genaiTiers `json:"output_reasoning_mtok"`
	Citations  *genaiTiers `json:"output_citation_mtok"`
	Requests   float64     `json:"requests_kcount"`
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

// ParseGenAIPrices reads the data.json or data_v2.json of pydantic/genai-prices: dates, times of day, tiers by length and batch
// prices. Of its rules for matching names only exact ones are taken, as aliases: a rule such as "starts with" would price models
// that nobody has looked at. Models that bill something besides text tokens are left out, as of ParseLiteLLM.
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
			rows, err := genaiRows(provider.ID, m.ID, m.Prices, m.Variants)
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

// genaiRows turns a price, or a list of prices with conditions, into dated rows. Of the list a later entry goes first: a price by
// time of day belongs to the dated price that it follows. A batch price is that of the newest row.
func genaiRows(provider, model string, raw json.RawMessage, variants []genaiVariant) ([]Price, error) {
	if provider == "" || model == "" {
		return nil, errors.New("it has no name")
	}
	list, err := genaiList(raw)
	if err != nil {
		return nil, err
	}
	var rows []priceRow
	for _, c := range list {
		row, err := c.Prices.row()
		if err != nil {
			return nil, err
		}
		row.Provider, row.Model, row.Source, row.Confidence = provider, model, "genai-prices", Secondary
		switch k := c.Constraint; {
		case k != nil && k.StartTime != "":
			from, err1 := utcClock(k.StartTime)
			to, err2 := utcClock(k.EndTime)
			if errors.Join(err1, err2) != nil || len(rows) == 0 || len(row.LongCtx)+len(rows[len(rows)-1].LongCtx) > 0 {
				return nil, errors.New("a price by time of day that is not understood")
			}
			last := &rows[len(rows)-1]
			last.TimeOfDay = slices.Insert(last.TimeOfDay, 0, dailyRow{from, to, row.ratesRow})
			continue
		case k != nil:
			if row.From.t, err = time.Parse(time.DateOnly, (k.StartDate + k.Start + strings.Repeat(" ", 10))[:10]); err != nil {
				return nil, errors.New("a condition that is not understood")
			}
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(x, y priceRow) int { return x.From.t.Compare(y.From.t) })
	for _, v := range variants {
		if batch, ok := v.batch(); ok && batch.Input != nil && batch.Output != nil {
			newest := &rows[len(rows)-1]
			newest.BatchMult = dearerShare(batch.Input.Base, *newest.In, batch.Output.Base, *newest.Out)
		}
	}
	return datedPrices(rows)
}

// datedPrices ends each row where the next begins.
func datedPrices(rows []priceRow) ([]Price, error) {
	prices := make([]Price, len(rows))
	for i, row := range rows {
		if i+1 < len(rows) {
			if row.To = rows[i+1].From; row.From.t.Equal(row.To.t) {
				return nil, errors.New("two prices from the same date")
			}
		}
		var err error
		if prices[i], err = row.price(); err != nil {
			return nil, err
		}
	}
	return prices, nil
}

// genaiList reads a list of prices with conditions, or one price without any.
func genaiList(raw json.RawMessage) ([]genaiConditional, error) {
	var one genaiPrice
	if err := json.Unmarshal(raw, &one); err == nil {
		return []genaiConditional{{Prices: one}}, nil
	}
	var list []genaiConditional
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return nil, errors.New("prices are neither a price nor a list of prices")
	}
	return list, nil
}

// row translates a price, its tiers as bands by length.
func (g genaiPrice) row() (priceRow, error) {
	switch {
	case g.Input == nil || g.Output == nil:
		return priceRow{}, errNoTextPrice
	case g.Requests > 0:
		return priceRow{}, errors.New("billed by the request too")
	case g.Citations != nil:
		return priceRow{}, errors.New("citations are billed too")
	case g.Reasoning != nil && g.Reasoning.Base != g.Output.Base:
		return priceRow{}, errReasoning
	}
	at := func(input int64) ratesRow {
		return ratesRow{In: g.Input.at(input), Out: g.Output.at(input), Cached: g.CacheRead.at(input), CacheWrite: g.CacheWrite.at(input)}
	}
	row := priceRow{ratesRow: at(0)}
	var starts []int64
	for _, t := range []*genaiTiers{g.Input, g.Output, g.CacheRead, g.CacheWrite} {
		if t == nil {
			continue
		}
		for _, tier := range t.Tiers {
			if tier.Start <= 0 {
				return row, errors.New("a tier that starts at no length")
			}
			starts = append(starts, tier.Start)
		}
	}
	slices.Sort(starts)
	for _, s := range slices.Compact(starts) {
		row.LongCtx = append(row.LongCtx, longRow{AboveInput: s, ratesRow: at(s + 1)})
	}
	return row, nil
}

// utcClock reads clock times such as "00:30:00Z", "16:30:00+00:00" or "16:30" as "15:04". Other time zones are refused.
func utcClock(s string) (string, error) {
	clock := strings.TrimSuffix(strings.TrimSuffix(s, "Z"), "+00:00")
	if len(clock) < 5 || strings.Trim(clock, "0123456789:") != "" {
		return "", fmt.Errorf("%q is no time of day in UTC", s)
	}
	return clock[:5], nil
}

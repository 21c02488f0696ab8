package cost

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// maxBookBytes bounds every price file that is read; the largest known one (LiteLLM's) is under 2 MB.
const maxBookBytes = 32 << 20

// maxUSDPerMTok bounds a believable price: a larger one is a unit mistake (per token instead of per million).
const maxUSDPerMTok = 100_000

type bookFile struct {
	Schema  string     `json:"schema"`
	Version string     `json:"version"`
	Note    string     `json:"note,omitempty"`
	LLM     []priceRow `json:"llm,omitempty"`
	Aliases []aliasRow `json:"aliases,omitempty"`
	GPU     []hostRow  `json:"gpu,omitempty"`
	VM      []hostRow  `json:"vm,omitempty"`
}

type ratesRow struct {
	In         *float64 `json:"in,omitempty"`
	Cached     *float64 `json:"cached,omitempty"`
	CacheWrite *float64 `json:"cache_write,omitempty"`
	Out        *float64 `json:"out,omitempty"`
}

type priceRow struct {
	Model    string `json:"model"`
	Provider string `json:"provider"`
	ratesRow
	Kind       Kind       `json:"kind,omitempty"`
	BatchMult  *float64   `json:"batch_mult,omitempty"`
	LongCtx    longRows   `json:"long_ctx,omitempty"`
	TimeOfDay  []dailyRow `json:"time_of_day,omitempty"`
	Train      *float64   `json:"train,omitempty"`
	From       date       `json:"effective_from,omitzero"`
	To         date       `json:"effective_to,omitzero"`
	Shutdown   date       `json:"shutdown,omitzero"`
	Source     string     `json:"src"`
	Confidence Confidence `json:"confidence"`
	Note       string     `json:"note,omitempty"`
	Tunable    *bool      `json:"finetunable,omitempty"`
}

// longRows is one band or a list of them.
type longRows []longRow

func (l *longRows) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '{' {
		raw = slices.Concat([]byte("["), raw, []byte("]"))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode((*[]longRow)(l))
}

type longRow struct {
	AboveInput int64 `json:"above_input"`
	ratesRow
	InMult  *float64 `json:"in_mult,omitempty"`
	OutMult *float64 `json:"out_mult,omitempty"`
}

type dailyRow struct {
	From string `json:"from"` // "01:00", UTC
	To   string `json:"to"`
	ratesRow
}

type aliasRow struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	SameAs   string `json:"same_as"`
}

type hostRow struct {
	SKU        string     `json:"sku"`
	GPU        string     `json:"gpu,omitempty"`
	CPU        string     `json:"cpu,omitempty"`
	Count      int        `json:"count,omitempty"`
	USDHour    *float64   `json:"usd_h"`
	USDHigh    *float64   `json:"usd_h_high,omitempty"`
	Kind       string     `json:"kind,omitempty"`
	From       date       `json:"effective_from,omitzero"`
	To         date       `json:"effective_to,omitzero"`
	Source     string     `json:"src,omitempty"`
	Confidence Confidence `json:"confidence"`
}

// date is a day in JSON, "2026-11-23", at midnight UTC.
type date struct{ t time.Time }

func (d *date) UnmarshalText(b []byte) (err error) {
	d.t, err = time.Parse(time.DateOnly, string(b))
	return err
}

func (d date) MarshalText() ([]byte, error) { return []byte(d.t.Format(time.DateOnly)), nil }

func (d date) IsZero() bool { return d.t.IsZero() }

// Parse reads a book in occam's own format, the one of the embedded price_book.json; a file of overrides has the same
// form and may hold a single row. Unknown keys, rows without a price, and dates out of order are errors that name the row.
func Parse(r io.Reader) (*Book, error) {
	var f bookFile
	d := json.NewDecoder(io.LimitReader(r, maxBookBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("price book: %w (docs/economics.md shows the form)", err)
	}
	b := newBook(f.Version)
	for i, row := range f.LLM {
		p, err := row.price()
		if err != nil {
			return nil, fmt.Errorf("price book: llm row %d (%s/%s): %w", i+1, row.Provider, row.Model, err)
		}
		b.add(p)
	}
	for _, a := range f.Aliases {
		if a.Model == "" || a.SameAs == "" || a.Provider == "" {
			return nil, fmt.Errorf("price book: alias %q of %q: provider, model and same_as are all needed", a.Model,
				a.SameAs)
		}
		b.aliases[modelKey{a.Provider, a.Model}] = a.SameAs
	}
	for _, row := range append(f.GPU, f.VM...) {
		h, err := row.host()
		if err != nil {
			return nil, fmt.Errorf("price book: host %q: %w", row.SKU, err)
		}
		b.hosts = append(b.hosts, h)
	}
	return b, nil
}

func newBook(version string) *Book {
	return &Book{version: version, prices: map[string][]Price{}, aliases: map[modelKey]string{}}
}

func (b *Book) add(p Price) {
	rows := append(b.prices[p.Model], p)
	slices.SortStableFunc(rows, comparePrices)
	b.prices[p.Model] = rows
}

func (row priceRow) price() (Price, error) {
	p := Price{Provider: row.Provider, Model: row.Model, Kind: row.Kind, From: row.From.t, To: row.To.t,
		Shutdown: row.Shutdown.t, Source: row.Source, Note: row.Note, Confidence: cmp.Or(row.Confidence, Override)}
	if row.Model == "" || row.Provider == "" {
		return p, errors.New("model and provider are needed")
	}
	if p.Kind != Chat && p.Kind != Decision && p.Kind != Embedding {
		return p, fmt.Errorf("kind %q is neither %q nor %q; a chat model has none", p.Kind, Decision, Embedding)
	}
	if !p.From.IsZero() && !p.To.IsZero() && !p.From.Before(p.To) {
		return p, errors.New("effective_from is not before effective_to")
	}
	var errs []error
	must := func(r Rates, err error) Rates { errs = append(errs, err); return r }
	p.Rates = must(row.rates())
	for _, long := range row.LongCtx {
		p.Long = append(p.Long, LongBand{long.AboveInput, must(long.over(p.Rates))})
	}
	slices.SortFunc(p.Long, func(x, y LongBand) int { return cmp.Compare(x.AboveInput, y.AboveInput) })
	for _, d := range row.TimeOfDay {
		from, err1 := minutes(d.From)
		to, err2 := minutes(d.To)
		errs = append(errs, err1, err2)
		p.Daily = append(p.Daily, DailyBand{from, to, must(d.rates())})
	}
	if row.BatchMult != nil {
		p.BatchPermille = int64(math.Round(*row.BatchMult * 1000))
		if p.BatchPermille <= 0 || p.BatchPermille > 1000 {
			errs = append(errs, fmt.Errorf("batch_mult %g is not in (0, 1]", *row.BatchMult))
		}
	}
	if row.Train != nil {
		var err error
		p.Train, err = rate(*row.Train)
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

func (row ratesRow) rates() (Rates, error) {
	if row.In == nil || row.Out == nil {
		return Rates{}, errors.New("in and out are both needed (write 0 only where the provider bills nothing)")
	}
	in, err1 := rate(*row.In)
	out, err2 := rate(*row.Out)
	r := Rates{Input: in, Cached: in, CacheWrite: in, Output: out}
	var err3, err4 error
	if row.Cached != nil {
		r.Cached, err3 = rate(*row.Cached)
	}
	if row.CacheWrite != nil {
		r.CacheWrite, err4 = rate(*row.CacheWrite)
	}
	return r, errors.Join(err1, err2, err3, err4)
}

// over gives the long-context rates: absolute prices where the row has them, multiples of the base rates where not.
func (row longRow) over(base Rates) (Rates, error) {
	if row.AboveInput <= 0 {
		return Rates{}, errors.New("long_ctx.above_input must be a positive number of tokens")
	}
	if row.In != nil {
		return row.rates()
	}
	if row.InMult == nil || row.OutMult == nil {
		return Rates{}, errors.New("long_ctx needs in and out, or in_mult and out_mult")
	}
	if *row.InMult < 0 || *row.OutMult < 0 || *row.InMult > 100 || *row.OutMult > 100 {
		return Rates{}, errors.New("long_ctx: a multiple outside [0, 100]")
	}
	in := base.scaled(int64(math.Round(*row.InMult*1000)), 1000)
	in.Output = base.scaled(int64(math.Round(*row.OutMult*1000)), 1000).Output
	return in, nil
}

func (row hostRow) host() (Host, error) {
	h := Host{SKU: row.SKU, GPU: row.GPU, CPU: row.CPU, GPUs: row.Count, Kind: row.Kind, From: row.From.t,
		To: row.To.t, Source: row.Source, Confidence: cmp.Or(row.Confidence, Override)}
	if row.SKU == "" || row.USDHour == nil {
		return h, errors.New("sku and usd_h are both needed")
	}
	if row.GPU != "" && h.GPUs == 0 {
		h.GPUs = 1
	}
	low, err1 := hourly(*row.USDHour)
	h.Hour, h.HourHigh = low, low
	var err2 error
	if row.USDHigh != nil {
		h.HourHigh, err2 = hourly(*row.USDHigh)
	}
	return h, errors.Join(err1, err2)
}

// rate converts dollars per million tokens.
func rate(usdPerMTok float64) (Rate, error) {
	if !(usdPerMTok >= 0 && usdPerMTok <= maxUSDPerMTok) { // also refuses NaN
		return 0, fmt.Errorf("%g is no believable price in dollars per 1M tokens", usdPerMTok)
	}
	return Rate(math.Round(usdPerMTok * float64(USD))), nil
}

func hourly(usd float64) (Amount, error) {
	if !(usd >= 0 && usd <= 100_000) {
		return 0, fmt.Errorf("%g is no believable price in dollars an hour", usd)
	}
	return FromUSD(usd), nil
}

func minutes(s string) (int, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("time of day %q is not of the form 15:04", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

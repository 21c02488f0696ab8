package cost

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Book is a set of dated prices. It never changes once made: Merge returns another one. Safe for concurrent use.
type Book struct {
	version string
	prices  map[string][]Price // by model name, each list ascending by provider, then From
	aliases map[modelKey]string
	hosts   []Host
	sellers map[string]string // of Resold
}

type modelKey struct{ provider, model string }

// A Host is a machine that can be rented by the hour: a GPU server, or a small virtual machine without one (GPUs is 0).
type Host struct {
	SKU        string
	GPU        string // "A10G 24GB"; "" for a virtual machine
	CPU        string
	GPUs       int
	Hour       Amount // price of one hour
	HourHigh   Amount // upper end where the list gives a range, else equal to Hour
	Kind       string // "on-demand us-east-1", "spot", …
	From, To   time.Time
	Source     string
	Confidence Confidence
}

//go:embed price_book.json
var embeddedBook string

// Default returns the book that is built into the program.
func Default() *Book { return defaultBook() }

var defaultBook = sync.OnceValue(func() *Book {
	b, err := Parse(strings.NewReader(embeddedBook))
	if err != nil {
		panic("the embedded price book is broken: " + err.Error()) // its test parses it
	}
	return b
})

// Version is the date of the book, followed by that of every book merged into it.
func (b *Book) Version() string { return b.version }

// Lookup finds the price of a model at a time. Names must match exactly, or stand in the book's list of aliases: a dated
// snapshot such as gpt-4o-2024-08-06 is priced only when the book says it costs what gpt-4o costs (the snapshot of May 2024
// did not). An empty provider matches any, as long as only one provider in the book sells that model. False means unpriced,
// which is not zero.
func (b *Book) Lookup(provider, model string, at time.Time) (Price, bool) {
	var found Price
	ok := false
	for _, p := range b.candidates(provider, model) {
		if !covers(p.From, p.To, at) {
			continue
		}
		if ok && found.Provider != p.Provider {
			return Price{}, false // two sellers, and nobody said which one
		}
		found, ok = p, true // rows ascend by From: the newest one that is in force wins
	}
	return found, ok
}

// Sellers are the providers of a model at a time, by name.
func (b *Book) Sellers(model string, at time.Time) []string {
	var all []string
	for _, p := range b.candidates("", model) {
		if covers(p.From, p.To, at) && !slices.Contains(all, p.Provider) {
			all = append(all, p.Provider)
		}
	}
	slices.Sort(all)
	return all
}

func (b *Book) candidates(provider, model string) []Price {
	provider = cmp.Or(b.sellers[provider], provider)
	if provider != "" {
		rows := b.sold(provider, model)
		if target, ok := b.aliases[modelKey{provider, model}]; ok {
			return slices.Concat(rows, b.sold(provider, target))
		}
		return rows
	}
	out := slices.Clone(b.prices[model])
	for k, target := range b.aliases {
		if k.model == model {
			out = append(out, b.sold(k.provider, target)...)
		}
	}
	return out
}

// sold returns a model's rows of one provider, which stand together.
func (b *Book) sold(provider, model string) []Price {
	rows := b.prices[model]
	from, to := 0, len(rows)
	for from < to && rows[from].Provider != provider {
		from++
	}
	for to > from && rows[to-1].Provider != provider {
		to--
	}
	return rows[from:to:to]
}

// Prices lists every row in force at a time, ordered by provider and model. The zero time lists all rows of all dates.
func (b *Book) Prices(at time.Time) []Price {
	var out []Price
	for _, rows := range b.prices {
		for i, p := range rows {
			superseded := i+1 < len(rows) && rows[i+1].Provider == p.Provider && covers(rows[i+1].From, rows[i+1].To, at)
			if at.IsZero() || covers(p.From, p.To, at) && !superseded {
				out = append(out, p)
			}
		}
	}
	slices.SortStableFunc(out, comparePrices)
	return out
}

// Hosts lists every machine of the book, GPU servers and virtual machines, in its order.
func (b *Book) Hosts() []Host { return slices.Clone(b.hosts) }

// GPU finds a machine by its SKU at a time; "g5.xlarge" finds "aws g5.xlarge" when only one SKU ends so.
func (b *Book) GPU(sku string, at time.Time) (Host, bool) {
	var found []Host
	for _, h := range b.hosts {
		if !covers(h.From, h.To, at) {
			continue
		}
		if strings.EqualFold(h.SKU, sku) {
			return h, true
		}
		if _, rest, _ := strings.Cut(h.SKU, " "); strings.EqualFold(rest, sku) {
			found = append(found, h)
		}
	}
	if len(found) != 1 {
		return Host{}, false
	}
	return found[0], true
}

// Merge returns a book in which the rows of other come on top. A row with an effective date ends the older row of the same
// model on that date and keeps it for the time before; rows without any date replace the model's history.
func (b *Book) Merge(other *Book) *Book {
	out := &Book{version: b.version, prices: maps.Clone(b.prices), aliases: maps.Clone(b.aliases)}
	if other.version != "" {
		out.version += "+" + other.version
	}
	maps.Copy(out.aliases, other.aliases)
	for model, rows := range other.prices {
		out.prices[model] = mergeRows(b.prices[model], rows)
		for _, r := range rows { // the model now has its own row
			delete(out.aliases, modelKey{r.Provider, model})
		}
	}
	for _, h := range b.hosts {
		if !slices.ContainsFunc(other.hosts, func(o Host) bool { return o.SKU == h.SKU }) {
			out.hosts = append(out.hosts, h)
		}
	}
	out.hosts = append(out.hosts, other.hosts...)
	return out
}

func mergeRows(old, fresh []Price) []Price {
	first := map[string]time.Time{} // provider → the date from which the fresh rows speak for it
	for _, p := range fresh {
		if t, seen := first[p.Provider]; !seen || p.From.Before(t) {
			first[p.Provider] = p.From
		}
	}
	out := slices.Clone(fresh)
	for _, p := range old {
		from, replaced := first[p.Provider]
		switch {
		case !replaced:
		case !p.From.Before(from):
			continue
		case p.To.IsZero() || p.To.After(from):
			p.To = from
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, comparePrices)
	return out
}

// Resold returns a book in which providers of other names sell what sellers of the book do, at the same prices: the names of a
// configuration, as they stand in the ledger. Where a name is that of a seller too, it counts as what it resells.
func (b *Book) Resold(sellers map[string]string) *Book {
	out := *b
	out.sellers = sellers
	return &out
}

// A Change is one difference between two books for one model. Old or New is nil where the model is new or gone.
type Change struct {
	Provider, Model string
	From            time.Time // when it takes effect; zero: at the time that was asked about
	Old, New        *Price
}

// Diff lists what a merge would change from a time on: models that are new in next, models whose rates differ, and rates that come
// into force later. Models that only the receiver knows are left alone by a merge and so are not listed.
func (b *Book) Diff(next *Book, at time.Time) []Change {
	var out []Change
	compare := func(p Price, when, from time.Time) {
		c := Change{Provider: p.Provider, Model: p.Model, From: from, New: &p}
		if old, ok := b.Lookup(p.Provider, p.Model, when); ok {
			c.Old = &old
		}
		if c.Old == nil || c.Old.fingerprint() != p.fingerprint() || !c.Old.Shutdown.Equal(p.Shutdown) || c.Old.BatchPermille != p.BatchPermille {
			out = append(out, c)
		}
	}
	for _, p := range next.Prices(at) {
		compare(p, at, time.Time{})
	}
	for _, p := range next.Prices(time.Time{}) {
		if p.From.After(at) {
			compare(p, p.From, p.From)
		}
	}
	slices.SortStableFunc(out, func(x, y Change) int {
		return cmp.Or(cmp.Compare(x.Provider, y.Provider), cmp.Compare(x.Model, y.Model), x.From.Compare(y.From))
	})
	return out
}

// String writes one line: "openai/gpt-4o: input $2.50 → $2.00, output $10 → $8".
func (c Change) String() string {
	name := c.Provider + "/" + c.Model + ": "
	if !c.From.IsZero() {
		name += "from " + c.From.Format(time.DateOnly) + ": "
	}
	if c.Old == nil {
		return name + fmt.Sprintf("new, input $%g, output $%g per 1M tokens", c.New.Input.USDPerMTok(),
			c.New.Output.USDPerMTok())
	}
	var parts []string
	add := func(what string, a, b any) {
		if a != b {
			parts = append(parts, fmt.Sprintf("%s %v → %v", what, a, b))
		}
	}
	usd := func(r Rate) string { return fmt.Sprintf("$%g", r.USDPerMTok()) }
	add("input", usd(c.Old.Input), usd(c.New.Input))
	add("cached", usd(c.Old.Cached), usd(c.New.Cached))
	add("cache write", usd(c.Old.CacheWrite), usd(c.New.CacheWrite))
	add("output", usd(c.Old.Output), usd(c.New.Output))
	batch := func(p Price) string {
		if p.BatchPermille == 0 {
			return "none"
		}
		return fmt.Sprintf("×%g", float64(p.BatchPermille)/1000)
	}
	add("batch API", batch(*c.Old), batch(*c.New))
	add("shutdown", dateOrNone(c.Old.Shutdown), dateOrNone(c.New.Shutdown))
	if len(parts) == 0 {
		parts = append(parts, "bands by length or time of day")
	}
	return name + strings.Join(parts, ", ")
}

// Shutdown is a model of the book that its provider stops.
type Shutdown struct {
	Price Price
	Days  int // from the day asked about; negative when past
}

// Shutdowns lists the models that have a date of shutdown, the next one first; those already past come last.
func (b *Book) Shutdowns(at time.Time) []Shutdown {
	var out []Shutdown
	for _, p := range b.Prices(at) {
		if !p.Shutdown.IsZero() {
			out = append(out, Shutdown{p, int(math.Floor(p.Shutdown.Sub(at).Hours() / 24))})
		}
	}
	slices.SortStableFunc(out, func(x, y Shutdown) int {
		if (x.Days < 0) != (y.Days < 0) {
			return cmp.Compare(y.Days, x.Days)
		}
		return cmp.Compare(x.Days, y.Days)
	})
	return out
}

func comparePrices(a, b Price) int {
	return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Model, b.Model), a.From.Compare(b.From))
}

func covers(from, to, at time.Time) bool {
	return (from.IsZero() || !at.Before(from)) && (to.IsZero() || at.Before(to))
}

func dateOrNone(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.Format(time.DateOnly)
}

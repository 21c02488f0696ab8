package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/cost"
)

func (a *app) pricesCommand() *cobra.Command {
	var path string
	cmd := a.group("prices", "The dated price book", func(cmd *cobra.Command) error { return a.listPricesToday(path) })
	cmd.Example = "  occam prices list\n  occam prices show gpt-4o\n  occam prices import prices.json --format litellm"
	configFlag(cmd, &path)
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "Every price in force today", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return a.listPricesToday(path) }},
		&cobra.Command{Use: "show MODEL", Short: "Every price of one model, of all dates", Args: oneArg("a model's name"),
			RunE: func(_ *cobra.Command, args []string) error { return a.showPrices(path, args[0]) }},
		a.importPricesCommand(&path),
	)
	return cmd
}

func (a *app) listPricesToday(configPath string) error {
	book, err := a.bookAt(configPath)
	if err != nil {
		return err
	}
	return a.listPrices(book, book.Prices(a.now()))
}

func (a *app) showPrices(configPath, model string) error {
	book, err := a.bookAt(configPath)
	if err != nil {
		return err
	}
	var found []cost.Price
	for _, p := range book.Prices(time.Time{}) {
		if p.Model == model {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		if p, ok := book.Lookup("", model, a.now()); ok { // an alias
			found = []cost.Price{p}
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s is unpriced: the price book does not know it (see `occam prices list`); its calls are recorded as unpriced, never as zero. "+
			"`occam prices import FILE` adds a price", model)
	}
	rows := priceRows(found, a.now())
	if a.json {
		return a.printJSON(map[string]any{"book": book.Version(), "prices": rows})
	}
	fmt.Fprintf(a.stdout, "price book %s, $ per million tokens\n", book.Version())
	for _, r := range rows {
		r.print(a.stdout)
	}
	return nil
}

// priceRow is one row of `occam prices list --json`.
type priceRow struct {
	Provider   string   `json:"provider"`
	Model      string   `json:"model"`
	Kind       string   `json:"kind"`
	Input      float64  `json:"input_usd_per_mtok"`
	Cached     float64  `json:"cached_usd_per_mtok"`
	CacheWrite float64  `json:"cache_write_usd_per_mtok"`
	Output     float64  `json:"output_usd_per_mtok"`
	Batch      *float64 `json:"batch_share,omitempty"` // of these prices, through the provider's batch API; absent where none is known
	Bands      []string `json:"bands,omitempty"`
	From       string   `json:"from,omitempty"`
	To         string   `json:"to,omitempty"`
	Shutdown   string   `json:"shutdown,omitempty"`
	Ended      bool     `json:"ended,omitempty"` // the shutdown is past
	Confidence string   `json:"confidence"`
	Source     string   `json:"source"`
	Note       string   `json:"note,omitempty"`
	Version    string   `json:"version"`
}

func priceRows(prices []cost.Price, now time.Time) []priceRow {
	rows := make([]priceRow, len(prices))
	for i, p := range prices {
		rows[i] = priceRow{Provider: p.Provider, Model: p.Model, Kind: cmp.Or(string(p.Kind), "chat"), Input: p.Input.USDPerMTok(), Cached: p.Cached.USDPerMTok(),
			CacheWrite: p.CacheWrite.USDPerMTok(), Output: p.Output.USDPerMTok(), Bands: bands(p), From: day(p.From), To: day(p.To), Shutdown: day(p.Shutdown),
			Confidence: string(p.Confidence), Source: p.Source, Note: p.Note, Version: p.Version(), Ended: p.EndedBy(now)}
		if p.BatchPermille > 0 {
			share := float64(p.BatchPermille) / 1000
			rows[i].Batch = &share
		}
	}
	return rows
}

// none stands in a table for what is not billed, not offered or not announced.
const none = "–"

// end is the date of the shutdown, and whether it is past.
func (r *priceRow) end() string {
	if r.Ended {
		return r.Shutdown + " (ended)"
	}
	return r.Shutdown
}

// output is the output's price; a model that only reads has none.
func (r *priceRow) output() string {
	if r.Kind != "chat" && r.Output == 0 {
		return none
	}
	return short(r.Output)
}

func (r *priceRow) batch() string {
	if r.Batch == nil {
		return none
	}
	return "×" + short(*r.Batch)
}

func (a *app) listPrices(book *cost.Book, prices []cost.Price) error {
	rows := priceRows(prices, a.now())
	if a.json {
		return a.printJSON(map[string]any{"book": book.Version(), "prices": rows})
	}
	fmt.Fprintf(a.stdout, "price book %s, $ per million tokens; sources and other dates: `occam prices show MODEL`\n", book.Version())
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "provider\tmodel\tin\tcached\tcache write\tout\tbatch\tfrom\tshutdown\tconfidence\tbands (in/out)")
	for _, r := range rows {
		name := r.Model
		if r.Kind != "chat" {
			name += " (" + r.Kind + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Provider, name, short(r.Input), short(r.Cached), short(r.CacheWrite), r.output(),
			r.batch(), cmp.Or(r.From, none), cmp.Or(r.end(), none), r.Confidence, strings.Join(r.Bands, ", "))
	}
	return w.Flush()
}

// print writes everything that the book says of a model at a time.
func (r *priceRow) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s/%s\n", r.Provider, r.Model)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "  %-12s %s\n", name, value)
		}
	}
	line("kind", r.Kind)
	line("in force", "from "+cmp.Or(r.From, "the beginning")+" until "+cmp.Or(r.To, "further notice"))
	line("input", short(r.Input))
	line("cached", short(r.Cached))
	line("cache write", short(r.CacheWrite))
	line("output", r.output())
	line("batch API", cmp.Or(strings.Replace(r.batch(), none, "", 1), "no price known"))
	for _, b := range r.Bands {
		line("band", b)
	}
	line("shutdown", cmp.Or(r.end(), "not announced"))
	line("source", r.Source)
	line("confidence", r.Confidence)
	line("note", r.Note)
	line("version", r.Version)
}

func bands(p cost.Price) []string {
	var out []string
	for _, b := range p.Long {
		out = append(out, fmt.Sprintf("above %d input tokens: %s/%s", b.AboveInput, short(b.Input.USDPerMTok()), short(b.Output.USDPerMTok())))
	}
	for _, b := range p.Daily {
		out = append(out, fmt.Sprintf("%02d:%02d–%02d:%02d UTC: %s/%s", b.From/60, b.From%60, b.To/60, b.To%60, short(b.Input.USDPerMTok()), short(b.Output.USDPerMTok())))
	}
	return out
}

// short writes a price without needless zeros.
func short(usd float64) string { return strconv.FormatFloat(usd, 'f', -1, 64) }

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}

package cli

import (
	"fmt"
	"strconv"
	"strings"
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
		return fmt.Errorf("%s is unpriced: the price book does not know it (see `occam prices list`); its calls are recorded as unpriced, never as zero", model)
	}
	return a.listPrices(book, found)
}

// priceRow is one row of `occam prices list --json`.
type priceRow struct {
	Provider   string   `json:"provider"`
	Model      string   `json:"model"`
	Input      float64  `json:"input_usd_per_mtok"`
	Cached     float64  `json:"cached_usd_per_mtok"`
	Output     float64  `json:"output_usd_per_mtok"`
	Bands      []string `json:"bands,omitempty"`
	From       string   `json:"from,omitempty"`
	To         string   `json:"to,omitempty"`
	Shutdown   string   `json:"shutdown,omitempty"`
	Confidence string   `json:"confidence"`
	Source     string   `json:"source"`
	Version    string   `json:"version"`
}

func (a *app) listPrices(book *cost.Book, prices []cost.Price) error {
	rows := make([]priceRow, len(prices))
	for i, p := range prices {
		rows[i] = priceRow{
			Provider: p.Provider, Model: p.Model, Input: p.Input.USDPerMTok(), Cached: p.Cached.USDPerMTok(), Output: p.Output.USDPerMTok(),
			Bands: bands(p), From: day(p.From), To: day(p.To), Shutdown: day(p.Shutdown), Confidence: string(p.Confidence), Source: p.Source, Version: p.Version(),
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"book": book.Version(), "prices": rows})
	}
	w := a.stdout
	fmt.Fprintf(w, "price book %s, $ per million tokens\n%-18s %-26s %8s %8s %8s  %-10s %-10s  %s\n", book.Version(),
		"provider", "model", "in", "cached", "out", "from", "shutdown", "confidence")
	for _, r := range rows {
		fmt.Fprintf(w, "%-18s %-26s %8s %8s %8s  %-10s %-10s  %s %s\n", r.Provider, r.Model, short(r.Input), short(r.Cached), short(r.Output),
			r.From, r.Shutdown, r.Confidence, strings.Join(r.Bands, ", "))
	}
	return nil
}

func bands(p cost.Price) []string {
	var out []string
	for _, b := range p.Long {
		out = append(out, fmt.Sprintf("above %d tokens: %s/%s", b.AboveInput, short(b.Input.USDPerMTok()), short(b.Output.USDPerMTok())))
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

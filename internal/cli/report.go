package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/dashboard"
	"occam/internal/finops"
	"occam/internal/store"
)

type reportFlags struct {
	config, month, invoice, provider, focus string
}

func (a *app) reportCommand() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use: "report", Short: "Spend, proven savings, invoice check, FOCUS export", Args: noArgs,
		Example: "  occam report --month 2026-11 --invoice openai.csv --provider openai --focus focus.csv",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.report(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	configFlag(cmd, &f.config)
	flags.StringVar(&f.month, "month", "", "month such as 2026-11 (default: this month)")
	flags.StringVar(&f.invoice, "invoice", "", "CSV of a provider's invoice to compare with the ledger")
	flags.StringVar(&f.provider, "provider", "", "the provider that wrote the invoice (default: the only one in the ledger)")
	flags.StringVar(&f.focus, "focus", "", "write a FOCUS 1.2 CSV to this file")
	return cmd
}

// spendReport is the document of `occam report --json`.
type spendReport struct {
	Statement       finops.Statement        `json:"statement"`
	Headline        string                  `json:"headline"`
	Forecast        *finops.Quantiles       `json:"month_forecast_nano_usd"` // null before there are seven days, and of a month that is over
	Anomalies       []finops.Anomaly        `json:"anomalies"`
	Recommendations []finops.Recommendation `json:"recommendations"`
	Shutdowns       []finops.Ending         `json:"shutdowns"`
	Invoice         *finops.Reconciliation  `json:"invoice,omitempty"`
	Ledger          store.Counts            `json:"ledger"`
	FocusUnpriced   *int64                  `json:"focus_unpriced_left_out,omitempty"`
}

func (a *app) report(ctx context.Context, f reportFlags) error {
	window, err := a.monthWindow(f.month)
	if err != nil {
		return err
	}
	cfg, err := config.Load(f.config, a.getenv)
	if err != nil {
		return err
	}
	s, err := a.readStore(ctx, f.config)
	if err != nil {
		return err
	}
	defer s.Close()
	book, err := loadBook(cfg.DataDir)
	if err != nil {
		return err
	}
	book = book.Resold(sellers(cfg))
	rows, err := ledgerRows(ctx, s, window, store.ByDay)
	if err != nil {
		return err
	}
	charges, err := chargesIn(ctx, s, cfg, book, rows, window, a.now())
	if err != nil {
		return err
	}
	r := spendReport{Statement: finops.Prove(window.From, window.To, rows, charges), Shutdowns: finops.Calendar(book, rows, a.now())}
	r.Headline = r.Statement.Headline()
	r.Recommendations = finops.Recommend(finops.Situation{Statement: r.Statement, Rows: rows, Charges: charges, Book: book, At: a.now()})
	if r.Ledger, err = s.Counts(ctx); err != nil {
		return err
	}
	if err := a.spendSeries(ctx, s, window, &r); err != nil {
		return err
	}
	if f.invoice != "" {
		if r.Invoice, err = reconcile(f, rows); err != nil {
			return err
		}
	}
	if f.focus != "" {
		unpriced, err := writeFocus(ctx, s, window, f.focus, book, charges)
		if err != nil {
			return err
		}
		r.FocusUnpriced = &unpriced
	}
	if a.json {
		r.Anomalies, r.Recommendations, r.Shutdowns = orEmpty(r.Anomalies), orEmpty(r.Recommendations), orEmpty(r.Shutdowns)
		err = a.printJSON(r)
	} else {
		a.printReport(r)
	}
	if err == nil && r.Invoice != nil && !r.Invoice.Agrees {
		return fmt.Errorf("%wthe invoice and the ledger differ by more than estimates and rounding explain", hidden{errBar})
	}
	return err
}

func (a *app) monthWindow(month string) (store.Window, error) {
	if month == "" {
		now := a.now().UTC()
		return store.Month(now.Year(), now.Month()), nil
	}
	at, err := time.Parse("2006-01", month)
	if err != nil {
		return store.Window{}, usageError("--month %q: write a month such as 2026-11", month)
	}
	return store.Month(at.Year(), at.Month()), nil
}

// ledgerRows reads sums by everything that a statement tells apart.
func ledgerRows(ctx context.Context, s *store.Store, w store.Window, span store.Dimension) ([]finops.Row, error) {
	totals, err := s.Totals(ctx, store.TotalsQuery{Window: w, By: []store.Dimension{span, store.ByTask, store.ByTier, store.ByProvider,
		store.ByModel, store.ByKey, store.ByState, store.ByAudit, store.ByAnswered, store.BySimulated}})
	if err != nil {
		return nil, err
	}
	rows := make([]finops.Row, len(totals))
	for i, t := range totals {
		rows[i] = finops.Row{
			Start: t.Start, Task: t.Task, Tier: t.Tier, Provider: t.Provider, Model: t.Model, Key: t.Key,
			Unpriced: t.State == store.Unpriced, Estimated: t.State == store.Estimated, Audit: t.Audit, Answered: t.Answered, Simulated: t.Simulated,
			Attempts: t.Attempts, Failed: t.Failed, Usage: t.Usage, Cost: t.Cost, CostLow: t.CostLow, CostHigh: t.CostHigh, Reference: t.Reference,
		}
	}
	return rows, nil
}

// chargesIn is what the window cost besides calls: servers, and the training and labels that the configuration names.
func chargesIn(ctx context.Context, ledger dashboard.Totaller, cfg *config.Config, book *cost.Book, rows []finops.Row, w store.Window, now time.Time) ([]finops.Charge, error) {
	since, err := rentedSince(ctx, ledger, cfg, rows, w)
	if err != nil {
		return nil, err
	}
	charges, err := hostingCharges(cfg, book, since, w, now)
	for _, c := range cfg.Charges {
		if !c.Date.Before(w.From) && c.Date.Before(w.To) {
			charges = append(charges, finops.Charge{Kind: finops.ChargeKind(c.Kind), What: c.What, Task: c.Task, Start: c.Date.Time,
				End: c.Date.AddDate(0, 0, 1), Amount: cost.FromUSD(c.USD)})
		}
	}
	return charges, err
}

// rentedSince is from when on in the window each provider's servers are paid: from its beginning where the ledger knows the provider
// from before, else from the day of its first call.
func rentedSince(ctx context.Context, ledger dashboard.Totaller, cfg *config.Config, rows []finops.Row, w store.Window) (map[string]time.Time, error) {
	since := map[string]time.Time{}
	for _, r := range rows {
		if first, known := since[r.Provider]; !known || r.Start.Before(first) {
			since[r.Provider] = r.Start
		}
	}
	rented := func(p config.Provider) bool { return p.Hosting != nil }
	if !slices.ContainsFunc(slices.Collect(maps.Values(cfg.Providers)), rented) {
		return since, nil
	}
	before, err := ledger.Totals(ctx, store.TotalsQuery{Window: store.Window{To: w.From}, By: []store.Dimension{store.ByProvider}})
	for _, t := range before {
		since[t.Provider] = w.From
	}
	return since, err
}

// hostingCharges is what the servers of the configured providers cost in the window, up to now.
func hostingCharges(cfg *config.Config, book *cost.Book, since map[string]time.Time, w store.Window, now time.Time) ([]finops.Charge, error) {
	var charges []finops.Charge
	end := w.To
	if now.Before(end) {
		end = now
	}
	for name, p := range cfg.Providers {
		if p.Hosting == nil {
			continue
		}
		host, ok := book.GPU(p.Hosting.SKU, w.From)
		if !ok {
			return nil, fmt.Errorf("providers.%s: hosting: the price book has no server %q; see `occam breakeven --json` for those it has", name, p.Hosting.SKU)
		}
		start, known := since[name]
		if !known || !start.Before(end) {
			continue
		}
		replicas := float64(max(p.Hosting.Replicas, 1))
		hours := end.Sub(start).Hours() * replicas
		charges = append(charges, finops.Charge{Kind: finops.Hosting, What: p.Hosting.SKU, Start: start, End: end,
			Amount: cost.Amount(hours * float64(host.Hour)), Hours: hours, Busy: finops.BusyUnknown})
	}
	return charges, nil
}

// spendSeries fills in the forecast and the anomalies, which look at more than the month.
func (a *app) spendSeries(ctx context.Context, s *store.Store, w store.Window, r *spendReport) error {
	days, hours, err := dashboard.SpendHistory(ctx, s, a.now())
	if err != nil {
		return err
	}
	if q, ok := finops.Forecast(days, w.From, w.To, rand.New(rand.NewPCG(1, 0))); ok && a.now().Before(w.To) {
		r.Forecast = &q
	}
	r.Anomalies = finops.Anomalies(hours, finops.AnomalyOptions{})
	return nil
}

func reconcile(f reportFlags, rows []finops.Row) (*finops.Reconciliation, error) {
	file, err := os.Open(f.invoice)
	if err != nil {
		return nil, fmt.Errorf("the invoice cannot be read: %w", err)
	}
	defer file.Close()
	lines, err := finops.ReadInvoice(file)
	if err != nil {
		return nil, fmt.Errorf("invoice %s: %w", f.invoice, err)
	}
	provider, err := invoiceProvider(f.provider, rows)
	if err != nil {
		return nil, err
	}
	theirs := slices.DeleteFunc(slices.Clone(rows), func(r finops.Row) bool { return r.Provider != provider })
	result := finops.Reconcile(lines, theirs)
	return &result, nil
}

func invoiceProvider(named string, rows []finops.Row) (string, error) {
	if named != "" {
		return named, nil
	}
	var providers []string
	for _, r := range rows {
		if r.Provider != "" && !slices.Contains(providers, r.Provider) {
			providers = append(providers, r.Provider)
		}
	}
	if len(providers) != 1 {
		return "", usageError("--provider is needed: the ledger has calls to %d providers in this month (%s)", len(providers), strings.Join(providers, ", "))
	}
	return providers[0], nil
}

func writeFocus(ctx context.Context, s *store.Store, w store.Window, path string, book *cost.Book, charges []finops.Charge) (int64, error) {
	rows, err := ledgerRows(ctx, s, w, store.ByHour)
	if err != nil {
		return 0, err
	}
	file, err := os.Create(path)
	if err != nil {
		return 0, fmt.Errorf("the FOCUS file cannot be written: %w", err)
	}
	unpriced, err := finops.WriteFOCUS(file, finops.FocusAccount{ID: "occam", Name: "occam", Span: time.Hour}, book, rows, charges)
	return unpriced, errors.Join(err, file.Close())
}

func (a *app) printReport(r spendReport) {
	w := a.stdout
	fmt.Fprint(w, r.Statement.Text())
	fmt.Fprintf(w, "\nledger     settled %d, estimated %d, unpriced %d, open %d, free %d\n", r.Ledger.Settled, r.Ledger.Estimated, r.Ledger.Unpriced, r.Ledger.Open, r.Ledger.Free)
	if r.Forecast != nil {
		fmt.Fprintf(w, "forecast   %s for the month [p10 %s, p90 %s]\n", finops.USD(r.Forecast.P50), finops.USD(r.Forecast.P10), finops.USD(r.Forecast.P90))
	} else if a.now().Before(r.Statement.To) {
		fmt.Fprintln(w, "forecast   not before there are seven complete days")
	}
	for _, x := range r.Anomalies {
		fmt.Fprintf(w, "unusual    %s: %s, usually %s\n", x.Start.Format("2006-01-02 15:04 MST"), finops.USD(x.Spend), finops.USD(x.Expected))
	}
	for _, e := range r.Shutdowns {
		fmt.Fprintf(w, "shutdown   %s is stopped on %s (in %d days); %d calls, %s this month\n", e.Model, day(e.Date), e.Days, e.Attempts, finops.USD(e.Spend))
	}
	for i, rec := range r.Recommendations {
		worth := ""
		if rec.Worth != 0 {
			worth = " (" + finops.USD(rec.Worth) + " a month)"
		}
		fmt.Fprintf(w, "%d. %s%s\n   %s\n   → %s\n", i+1, rec.Title, worth, rec.Why, rec.Do)
	}
	if r.Invoice != nil {
		fmt.Fprint(w, "\n"+r.Invoice.Text())
	}
	if r.FocusUnpriced != nil && *r.FocusUnpriced > 0 {
		fmt.Fprintf(w, "FOCUS      %d unpriced calls are left out: the format knows no missing cost\n", *r.FocusUnpriced)
	}
}

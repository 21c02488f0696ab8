package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

// monthlyVolume is the published scenario's: a million tickets a month.
const monthlyVolume = 1_000_000

// demoReport is the document of `occam demo --json`.
type demoReport struct {
	Task           string                         `json:"task"`
	Accuracy       lifecycle.Proportion           `json:"accuracy"` // of the whole system, against the truth
	ServedAccuracy lifecycle.Proportion           `json:"served_accuracy"`
	Target         float64                        `json:"target"`
	Promise        task.Promise                   `json:"promise"`
	Certified      bool                           `json:"certified"`
	Shortfall      string                         `json:"shortfall,omitempty"`
	Coverage       float64                        `json:"coverage"`
	Tickets        int                            `json:"tickets"`
	Failed         int                            `json:"failed"`
	USD            spending                       `json:"usd"`
	Tokens         tokenMeans                     `json:"tokens_per_request"`
	Ledger         ledgerCheck                    `json:"ledger"`
	LedgerMatches  *bool                          `json:"ledger_matches_bill"` // null with --live: a real provider's bill is not at hand
	BreakEven      *float64                       `json:"break_even_per_month"`
	LatencyMS      map[string]lifecycle.Quantiles `json:"latency_ms"`
	Month          []monthPlan                    `json:"at_1m_per_month"`
	Model          modelFigures                   `json:"model"`
	Seconds        float64                        `json:"seconds"`
	ReplaySeconds  float64                        `json:"replay_seconds"`
	Simulated      bool                           `json:"simulated"`
}

type spending struct {
	Spent          float64 `json:"spent"`
	GeneralistOnly float64 `json:"generalist_only"`
}

type tokenMeans struct {
	Input  float64 `json:"input"`
	Output float64 `json:"output"`
}

type ledgerCheck struct {
	Calls       int64  `json:"calls"`
	Settled     string `json:"settled"` // to the nano-dollar
	Billed      string `json:"billed"`  // by the provider's own bill
	BillCalls   int64  `json:"billed_calls"`
	Open        int64  `json:"open"`
	Free        int64  `json:"free"`
	Estimated   int64  `json:"estimated"`
	ChainIntact bool   `json:"chain_intact"`
}

type monthPlan struct {
	Name       string   `json:"name"`
	MonthlyUSD float64  `json:"monthly_usd"`
	BreakEven  *float64 `json:"break_even_per_month"`
	Notes      []string `json:"notes,omitempty"`
}

type modelFigures struct {
	Accuracy     lifecycle.Proportion `json:"accuracy"`
	TrainSeconds float64              `json:"train_seconds"`
	Bytes        int                  `json:"bytes"`
}

func (d *demo) report(ctx context.Context) (*demoReport, error) {
	counts, err := d.settle(ctx)
	if err != nil {
		return nil, err
	}
	totals, err := d.server.store.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByState, store.ByAudit}})
	if err != nil {
		return nil, err
	}
	s := d.results
	r := &demoReport{
		Task: d.task.Name, Accuracy: s.accuracy, ServedAccuracy: s.servedAccuracy, Target: d.task.Target.Accuracy, Promise: d.task.Target.Promise,
		Certified: d.trained.Certificate != nil, Coverage: s.coverage(), Tickets: s.tickets, Failed: s.failed,
		LatencyMS: map[string]lifecycle.Quantiles{"specialist": s.specialist, "generalist": s.generalist},
		Model:     modelFigures{d.trained.Evaluation.Accuracy, d.trained.Seconds, d.trained.Bytes},
		Seconds:   d.now().Sub(d.started).Seconds(), ReplaySeconds: d.seconds, Simulated: d.bill != nil,
	}
	if d.trained.Shortfall != nil {
		r.Shortfall = d.trained.Shortfall.Error()
	}
	d.money(r, totals, counts)
	verification, err := d.server.store.Verify(ctx)
	if err != nil {
		return nil, err
	}
	r.Ledger.ChainIntact = verification.OK()
	return r, d.month(r)
}

// money fills in what the ledger says, and compares it with the provider's own bill.
func (d *demo) money(r *demoReport, totals []store.Total, counts store.Counts) {
	var settled, spent, reference cost.Amount
	var paid store.Total
	for _, t := range totals {
		spent += t.Cost
		reference += t.Reference
		if t.State == store.Settled {
			settled += t.Cost
			paid.Attempts += t.Attempts
			paid.Usage.Input += t.Usage.Input
			paid.Usage.Output += t.Usage.Output
		}
	}
	r.USD = spending{spent.USD(), reference.USD()}
	if paid.Attempts > 0 {
		r.Tokens = tokenMeans{float64(paid.Usage.Input) / float64(paid.Attempts), float64(paid.Usage.Output) / float64(paid.Attempts)}
	} else {
		r.Tokens = tokenMeans{float64(assumedUsage.Input), float64(assumedUsage.Output)}
	}
	r.Ledger = ledgerCheck{Calls: counts.Settled, Settled: settled.String(), Open: counts.Open, Free: counts.Free, Estimated: counts.Estimated}
	if d.bill == nil {
		return
	}
	billed, calls := d.bill.Total(), int64(len(d.bill.Bill()))
	r.Ledger.Billed, r.Ledger.BillCalls = billed.String(), calls
	matches := settled == billed && calls == counts.Settled && counts.Open == 0
	r.LedgerMatches = &matches
}

// month puts a million such requests a month beside renting a GPU and beside the cheapest API model.
func (d *demo) month(r *demoReport) error {
	workload := cost.Workload{Volume: monthlyVolume, InputTokens: r.Tokens.Input, OutputTokens: r.Tokens.Output, At: d.now()}
	low, high := lifecycle.NewProportion(d.results.served, d.results.tickets), d.results.servedAccuracy
	analysis, err := cost.Analyze(cost.Default(), cost.Scenario{
		Workload: workload, Generalist: d.task.Generalist, Host: "g5.xlarge", Target: d.task.Target.Accuracy, Assumptions: cost.DefaultAssumptions(),
		Measured: []cost.MeasuredTier{{Tier: "embedded", Coverage: low.Value, CoverageLow: low.Low, CoverageHigh: low.High,
			ServedAccuracy: high.Value, Accuracy: d.trained.Evaluation.Accuracy.Value, Source: fmt.Sprintf("measured on %d replayed tickets", d.results.tickets)}},
	}, rand.New(rand.NewPCG(1, 0)))
	if err != nil {
		return err
	}
	generalist := d.task.Generalist
	router := "router: embedded + " + generalist
	for _, p := range analysis.Plans {
		cheapest := p.Group == cost.SwitchModel && !slices.ContainsFunc(r.Month, func(m monthPlan) bool { return strings.HasPrefix(m.Name, "switch") })
		if p.Name == router || p.Group == cost.DoNothing || p.Name == "Llama 3.2 3B on aws g5.xlarge" || cheapest {
			r.Month = append(r.Month, monthPlan{p.Name, p.MonthlyUSD, p.BreakEven, p.Conditions})
		}
		if p.Name == router {
			r.BreakEven = p.BreakEven
		}
	}
	return nil
}

func (d *demo) print(r *demoReport) {
	w := d.stdout
	sim := d.label()
	fmt.Fprintf(w, "\nREPORT  task %s, %d tickets replayed over HTTP in %.1f s\n\n", r.Task, r.Tickets, r.ReplaySeconds)
	part := ""
	if d.bill != nil {
		part = fmt.Sprintf("the generalist's part is simulated: wrong in %.0f %% by design", 100*demoMistakeRate)
	}
	fmt.Fprintf(w, "  whole system right       %s   %s\n", percent(r.Accuracy), part)
	if d.results.served > 0 {
		fmt.Fprintf(w, "  specialist's answers     %s   target %.1f %% (%s), %s\n", percent(r.ServedAccuracy), 100*r.Target, r.Promise, met(r))
		fmt.Fprintf(w, "  answered locally         %5.1f %%   %d of %d\n", 100*r.Coverage, d.results.served, r.Tickets)
	} else {
		fmt.Fprintf(w, "  answered locally           0.0 %%   nothing is certified: %s\n", r.Shortfall)
	}
	s, g := r.LatencyMS["specialist"], r.LatencyMS["generalist"]
	fmt.Fprintf(w, "  latency p50 / p99        %.1f / %.1f ms local, %.0f / %.0f ms generalist%s\n", s.P50, s.P99, g.P50, g.P99, sim)
	fmt.Fprintf(w, "  tokens a request         %.0f in, %.0f out, as the generalist counts them%s\n", r.Tokens.Input, r.Tokens.Output, sim)
	fmt.Fprintf(w, "  spent                    $%.4f, against $%.4f for sending everything to %s: %s%s\n", r.USD.Spent, r.USD.GeneralistOnly, d.task.Generalist, saved(r.USD), sim)
	fmt.Fprintf(w, "  ledger                   %s\n\n", ledgerLine(r))
	fmt.Fprintf(w, "  %-46s %12s  %s\n", "at 1,000,000 requests like these a month", "monthly bill", "cheaper than the generalist from")
	for _, p := range r.Month {
		fmt.Fprintf(w, "  %-46s %12s  %s\n", p.Name, fmt.Sprintf("$%.2f", p.MonthlyUSD), from(p, d.task.Generalist))
	}
	fmt.Fprintf(w, "\nWhole story in %.1f s. Next: occam train --data your-tickets.jsonl, or occam breakeven\n", r.Seconds)
}

func met(r *demoReport) string {
	switch {
	case r.ServedAccuracy.Low >= r.Target:
		return "met"
	case r.ServedAccuracy.High < r.Target:
		return "MISSED"
	}
	return "within chance of it"
}

func saved(u spending) string {
	if u.GeneralistOnly <= 0 {
		return "nothing to compare"
	}
	share := 100 * (1 - u.Spent/u.GeneralistOnly)
	if share < 0 {
		return fmt.Sprintf("%.1f %% MORE", -share)
	}
	return fmt.Sprintf("%.1f %% saved", share)
}

func ledgerLine(r *demoReport) string {
	l := r.Ledger
	chain := "chain intact"
	if !l.ChainIntact {
		chain = "CHAIN BROKEN"
	}
	if r.LedgerMatches == nil {
		return fmt.Sprintf("%d calls settled at %s, %d free, %d open, %s", l.Calls, l.Settled, l.Free, l.Open, chain)
	}
	verdict := "equals the provider's own bill to the nano-dollar (simulated provider)"
	if !*r.LedgerMatches {
		verdict = fmt.Sprintf("DIFFERS from the provider's bill of %d calls, %s", l.BillCalls, l.Billed)
	}
	return fmt.Sprintf("%d calls, %s: %s; %d free, %d open, %s", l.Calls, l.Settled, verdict, l.Free, l.Open, chain)
}

func from(p monthPlan, generalist string) string {
	text := "never"
	switch {
	case p.Name == "all "+generalist:
		text = "–"
	case p.BreakEven != nil && *p.BreakEven < 1:
		text = "the first request"
	case p.BreakEven != nil:
		text = fmt.Sprintf("%.0f requests a month", *p.BreakEven)
	}
	if len(p.Notes) > 0 {
		text += " (if: " + strings.Join(p.Notes, "; ") + ")"
	}
	return text
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// recordedDays is how far back a task's traffic is looked at.
const recordedDays = 30

// monthDays is the mean length of a month.
const monthDays = 730.5 / 24

// bytesPerToken is about what English takes. It only sizes a task's shared prompt, to see whether a cache could hold it.
const bytesPerToken = 4

// fromTraffic replaces the assumed workload by what the configuration and the ledger say of a task: its model, volume, tokens, peak,
// what a cache gives and could give, coverage, audits and retries.
func (a *app) fromTraffic(ctx context.Context, f breakevenFlags, book *cost.Book, scenario *cost.Scenario) error {
	cfg, err := config.Load(f.config, a.getenv)
	if err != nil {
		return err
	}
	s, err := a.readStore(ctx, f.config)
	if err != nil {
		return err
	}
	defer s.Close()
	seen, err := readTraffic(ctx, s, f.task, a.now())
	if err != nil {
		return err
	}
	if seen.requests == 0 || seen.calls.Attempts == 0 {
		return fmt.Errorf("the ledger has no priced traffic of task %q in the last %d days: give --volume and --tokens instead, or see `occam report`", f.task, recordedDays)
	}
	t := cfg.Tasks[f.task]
	if !f.given("generalist") {
		configuredGeneralist(cfg, book, t.Generalist, scenario)
	}
	scenario.Target = cmp.Or(scenario.Target, t.Target.Accuracy)
	asked := scenario.Workload
	if err := seen.fill(scenario, len(t.System)); err != nil {
		return err
	}
	if f.given("tokens") {
		scenario.InputTokens, scenario.OutputTokens, scenario.CachedTokens = asked.InputTokens, asked.OutputTokens, 0
		scenario.PrefixTokens = min(scenario.PrefixTokens, scenario.InputTokens)
	}
	if f.given("volume") {
		scenario.PeakPerSecond *= asked.Volume / scenario.Volume // the same days, with more or fewer requests
		scenario.Volume = asked.Volume
	}
	fmt.Fprintf(a.stderr, "task %s: %d requests in %.1f days, %.0f tokens in (%.0f of them cached) and %.0f out each, busiest minute %.2f/s, %d answered locally\n",
		f.task, seen.requests, seen.days, scenario.InputTokens, scenario.CachedTokens, scenario.OutputTokens, seen.peak, seen.answered[embeddedTier])
	if seen.days < 7 {
		fmt.Fprintf(a.stderr, "less than a week is recorded (since %s): the monthly volume is an extrapolation\n", a.now().Add(-time.Duration(seen.days*24*float64(time.Hour))).Format(time.DateTime))
	}
	return nil
}

// configuredGeneralist takes the task's own generalist, under the name and from the seller that the price book knows.
func configuredGeneralist(cfg *config.Config, book *cost.Book, name string, scenario *cost.Scenario) {
	model, listed := cfg.Models[name]
	if name == "" {
		return
	}
	provider := cfg.FirstProvider
	if listed {
		name, provider = cmp.Or(model.Upstream, name), model.Provider
	}
	scenario.Generalist = name
	if seller := cmp.Or(cfg.Providers[provider].Prices, provider); seller != "" {
		if _, ok := book.Lookup(seller, name, scenario.At); ok {
			scenario.Provider = seller
		}
	}
}

// Tiers as the break-even analysis names them.
const (
	embeddedTier   = "embedded"
	generalistTier = "generalist"
)

// traffic is what the ledger recorded of a task.
type traffic struct {
	requests int64
	answered map[string]int64 // requests by tier, as the analysis names it
	calls    store.Total      // of the generalist, those whose usage is known, audits too
	audits   int64            // calls that only checked an answer
	unused   int64            // calls to the generalist whose answer nobody got, audits aside
	peak     float64          // requests a second in the busiest minute
	days     float64
}

func readTraffic(ctx context.Context, s *store.Store, taskName string, now time.Time) (traffic, error) {
	seen := traffic{answered: map[string]int64{}}
	window := store.Window{From: now.AddDate(0, 0, -recordedDays), To: now}
	lasted, err := s.Lasted(ctx, taskName)
	if err != nil {
		return seen, err
	}
	lately, err := s.RequestRate(ctx, taskName, window)
	if err != nil {
		return seen, err
	}
	seen.peak, seen.days = lately.Peak, min(recordedDays, max(lasted.Hours()/24, 1.0/24))
	totals, err := s.Totals(ctx, store.TotalsQuery{Window: window, Task: taskName, By: []store.Dimension{store.ByTier, store.ByProvider, store.ByState,
		store.ByAnswered, store.ByAudit}})
	if err != nil {
		return seen, err
	}
	for _, t := range totals {
		seen.add(t)
	}
	return seen, nil
}

func (s *traffic) add(t store.Total) {
	s.requests += t.Requests
	tier := t.Tier
	if t.Provider == "" {
		tier = embeddedTier
	}
	s.answered[tier] += t.Requests
	if tier != generalistTier {
		return
	}
	switch {
	case t.Audit:
		s.audits += t.Attempts
	case !t.Answered && t.State != store.Void:
		s.unused += t.Attempts
	}
	if t.State == store.Settled {
		s.calls.Attempts += t.Attempts
		s.calls.Usage.Input += t.Usage.Input
		s.calls.Usage.Cached += t.Usage.Cached
		s.calls.Usage.Output += t.Usage.Output
	}
}

// fill puts what was recorded in the place of what is assumed. system is the length in bytes of the prompt that all requests share.
func (s *traffic) fill(scenario *cost.Scenario, system int) error {
	calls := float64(s.calls.Attempts)
	scenario.Volume = float64(s.requests) / s.days * monthDays
	scenario.InputTokens = float64(s.calls.Usage.Input) / calls
	scenario.OutputTokens = float64(s.calls.Usage.Output) / calls
	scenario.CachedTokens = float64(s.calls.Usage.Cached) / calls
	scenario.PrefixTokens = min(max(scenario.PrefixTokens, float64(system)/bytesPerToken), scenario.InputTokens)
	scenario.PeakPerSecond = s.peak
	special := int64(0)
	for _, tier := range []string{embeddedTier, "llama-3.2-1b", "llama-3.2-3b"} {
		n := s.answered[tier]
		if special += n; n == 0 {
			continue
		}
		p := lifecycle.NewProportion(int(n), int(s.requests))
		scenario.Measured = append(scenario.Measured, cost.MeasuredTier{Tier: tier, Coverage: p.Value, CoverageLow: p.Low, CoverageHigh: p.High,
			Source: fmt.Sprintf("recorded: %d of %d requests", n, s.requests)})
	}
	set := func(name string, part, of int64) error {
		if part == 0 || of == 0 {
			return nil
		}
		return scenario.Assumptions.Set(name, min(float64(part)/float64(of), 1), fmt.Sprintf("recorded: %d of %d", part, of))
	}
	if err := set("audit_share", s.audits, special); err != nil {
		return err
	}
	return set("retry_share", s.unused, s.answered[generalistTier])
}

package cli

import (
	"context"
	"fmt"
	"time"

	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// recordedDays is how far back a task's traffic is looked at.
const recordedDays = 30

// monthDays is the mean length of a month.
const monthDays = 730.5 / 24

// fromTraffic replaces the assumed workload by what the ledger recorded of a task: its volume, tokens, peak and coverage.
func (a *app) fromTraffic(ctx context.Context, f breakevenFlags, scenario *cost.Scenario) error {
	s, err := a.readStore(ctx, f.config)
	if err != nil {
		return err
	}
	defer s.Close()
	window := store.Window{From: a.now().AddDate(0, 0, -recordedDays), To: a.now()}
	rate, err := s.RequestRate(ctx, f.task, store.Window{})
	if err != nil {
		return err
	}
	totals, err := s.Totals(ctx, store.TotalsQuery{Window: window, Task: f.task, By: []store.Dimension{store.ByProvider, store.ByState, store.ByAnswered, store.ByAudit}})
	if err != nil {
		return err
	}
	requests, local, paid := trafficSums(totals)
	if requests == 0 || paid.Attempts == 0 {
		return fmt.Errorf("the ledger has no priced traffic of task %q in the last %d days: give --volume and --tokens instead, or see `occam report`", f.task, recordedDays)
	}
	days := min(recordedDays, max(float64(rate.Minutes)/(24*60), 1.0/24))
	scenario.Volume = float64(requests) / days * monthDays
	scenario.InputTokens = float64(paid.Usage.Input) / float64(paid.Attempts)
	scenario.OutputTokens = float64(paid.Usage.Output) / float64(paid.Attempts)
	scenario.PeakPerSecond = rate.Peak
	if local > 0 {
		p := lifecycle.NewProportion(int(local), int(requests))
		scenario.Measured = []cost.MeasuredTier{{Tier: "embedded", Coverage: p.Value, CoverageLow: p.Low, CoverageHigh: p.High,
			Source: fmt.Sprintf("recorded: %d of %d requests", local, requests)}}
	}
	fmt.Fprintf(a.stderr, "task %s: %d requests in %.1f days, %.0f tokens in and %.0f out each, busiest minute %.2f/s, %d answered locally\n",
		f.task, requests, days, scenario.InputTokens, scenario.OutputTokens, rate.Peak, local)
	if days < 7 {
		fmt.Fprintf(a.stderr, "less than a week is recorded (since %s): the monthly volume is an extrapolation\n", a.now().Add(-time.Duration(days*24*float64(time.Hour))).Format(time.DateTime))
	}
	return nil
}

// trafficSums adds up the requests, those answered in this process, and the calls whose usage is known.
func trafficSums(totals []store.Total) (requests, local int64, paid store.Total) {
	for _, t := range totals {
		requests += t.Requests
		if t.Provider == "" {
			local += t.Requests
		}
		if t.State == store.Settled {
			paid.Attempts += t.Attempts
			paid.Usage.Input += t.Usage.Input
			paid.Usage.Output += t.Usage.Output
		}
	}
	return requests, local, paid
}

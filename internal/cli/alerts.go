package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/dashboard"
	"occam/internal/finops"
	"occam/internal/store"
)

// alertEvery is how often the spend is looked at.
const alertEvery = 10 * time.Minute

// endingDays is how long before a model's shutdown its users are told.
const endingDays = 60

// An alert is one thing that a person should know. The same key is told once.
type alert struct {
	key, text string
}

// A balance is a budget with what is spent of it.
type balance struct {
	key   string // of its alerts: what it bounds and since when
	name  string // for people
	what  string // what happens at the hard limit
	of    finops.Budget
	spent cost.Amount
}

// outlook is what alerts are made of.
type outlook struct {
	month    store.Window
	rows     []finops.Row
	charges  []finops.Charge
	hours    []finops.Point // complete ones
	days     []finops.Point // complete ones
	balances []balance      // the first is that of all calls together, if there is one
	book     *cost.Book
	now      time.Time
}

// watchSpend looks at the ledger now and then until ctx ends.
func (b *bell) watchSpend(ctx context.Context, wired func() *wiring) {
	tick := time.NewTicker(alertEvery)
	defer tick.Stop()
	for {
		w := wired()
		if err := b.look(ctx, w.cfg, w.named); err != nil && ctx.Err() == nil {
			b.log.Error("looking at the spend", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look tells whatever the ledger gives reason to. One alert that cannot be delivered holds up no other.
func (b *bell) look(ctx context.Context, cfg *config.Config, book *cost.Book) error {
	now := b.now().UTC()
	s := outlook{month: store.Month(now.Year(), now.Month()), book: book, now: now}
	var err error
	if s.rows, err = ledgerRows(ctx, b.store, s.month, store.ByDay); err != nil {
		return err
	}
	if s.charges, err = chargesIn(ctx, b.store, cfg, book, s.rows, s.month, now); err != nil {
		return err
	}
	if s.days, s.hours, err = dashboard.SpendHistory(ctx, b.store, now); err != nil {
		return err
	}
	if s.balances, err = b.balances(ctx, cfg.Alerts, s.rows, now); err != nil {
		return err
	}
	var errs []error
	for _, a := range s.alerts() {
		errs = append(errs, b.ring(ctx, a))
	}
	return errors.Join(errs...)
}

// balances are the configured budget of all calls together and those of the valid keys.
func (b *bell) balances(ctx context.Context, cfg config.Alerts, rows []finops.Row, now time.Time) ([]balance, error) {
	budget := func(hard cost.Amount) finops.Budget {
		return finops.Budget{Soft: cost.FromUSD(hard.USD() * cfg.Soft), Hard: hard}
	}
	var all []balance
	if cfg.Budget > 0 {
		whole := balance{key: "month/" + now.Format("2006-01"), name: "the budget of " + now.Format("January 2006"), what: "it blocks nothing", of: budget(cost.FromUSD(cfg.Budget))}
		for _, r := range rows {
			whole.spent += r.Cost
		}
		all = append(all, whole)
	}
	var keys []store.Key
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err }); err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Limits.Budget <= 0 || !k.Revoked.IsZero() {
			continue
		}
		start := store.PeriodStart(k.Limits.Period, now)
		stands, err := b.store.BudgetBalance(ctx, store.Budget{Key: k.ID, Start: start})
		if err != nil {
			return nil, err
		}
		all = append(all, balance{key: "key/" + k.ID + "/" + day(start), name: fmt.Sprintf("the %s's budget of key %s", k.Limits.Period, k.Name),
			what: "its calls that cost money are refused until it is over", of: budget(k.Limits.Budget), spent: stands.Spent})
	}
	return all, nil
}

// alerts is what there is reason to tell: budgets, unusual hours of the last day, a month that loses money, unpriced calls, and
// models in use that end soon.
func (s *outlook) alerts() []alert {
	alerts := append(s.budgetAlerts(), s.forecastAlert()...)
	for _, x := range finops.Anomalies(s.hours, finops.AnomalyOptions{}) {
		if s.now.Sub(x.Start) < 24*time.Hour {
			alerts = append(alerts, alert{"hour/" + x.Start.Format(time.RFC3339), fmt.Sprintf("unusual spend in the hour from %s: %s, usually %s; see `occam report`",
				x.Start.Format("2006-01-02 15:04 MST"), finops.USD(x.Spend), finops.USD(x.Expected))})
		}
	}
	name := s.month.From.Format("2006-01")
	statement := finops.Prove(s.month.From, s.month.To, s.rows, s.charges)
	if statement.Saved < -cost.USD {
		alerts = append(alerts, alert{"losing/" + name, statement.Headline() + " See `occam report` for what to switch back."})
	}
	if statement.Unpriced > 0 {
		alerts = append(alerts, alert{"unpriced/" + name, fmt.Sprintf("%d calls of %s have no known price: add one with `occam prices import`", statement.Unpriced, name)})
	}
	for _, e := range finops.Calendar(s.book, s.rows, s.now) {
		if e.Days <= endingDays {
			when := fmt.Sprintf("is shut down by its provider on %s, in %d days", day(e.Date), e.Days)
			if e.Days < 0 {
				when = "was to be shut down by its provider on " + day(e.Date)
			}
			alerts = append(alerts, alert{"ending/" + e.Provider + "/" + e.Model + "/" + day(e.Date), fmt.Sprintf("%s %s; %d calls used it this month", e.Model, when, e.Attempts)})
		}
	}
	return alerts
}

// budgetAlerts tells each threshold of each budget once. A budget that jumps over both is told once.
func (s *outlook) budgetAlerts() []alert {
	var alerts []alert
	for _, b := range s.balances {
		switch b.of.State(b.spent) {
		case finops.HardLimit:
			alerts = append(alerts, alert{"budget/" + b.key + "/hard", fmt.Sprintf("%s is used up: %s of %s; %s", b.name, finops.USD(b.spent), finops.USD(b.of.Hard), b.what)})
		case finops.SoftLimit:
			alerts = append(alerts, alert{"budget/" + b.key + "/soft", fmt.Sprintf("%s of %s, %.0f %% of %s, is spent", finops.USD(b.spent), finops.USD(b.of.Hard),
				100*b.spent.USD()/b.of.Hard.USD(), b.name)})
		}
	}
	return alerts
}

// forecastAlert tells once a month that its budget will not do.
func (s *outlook) forecastAlert() []alert {
	if len(s.balances) == 0 || !s.monthly(&s.balances[0]) || s.balances[0].of.State(s.balances[0].spent) == finops.HardLimit {
		return nil
	}
	b := &s.balances[0]
	q, ok := finops.Forecast(s.days, s.month.From, s.month.To, rand.New(rand.NewPCG(1, 0)))
	if !ok || q.P50 <= b.of.Hard {
		return nil
	}
	end := ""
	if at, ok := b.of.Exhausted(b.spent, s.month.From, s.now, s.month.To); ok {
		end = ", used up about " + day(at)
	}
	return []alert{{"forecast/" + b.key, fmt.Sprintf("the month is on its way to %s [p10 %s, p90 %s]; %s is %s%s",
		finops.USD(q.P50), finops.USD(q.P10), finops.USD(q.P90), b.name, finops.USD(b.of.Hard), end)}}
}

// monthly reports whether a balance is that of all calls together.
func (s *outlook) monthly(b *balance) bool { return b.key == "month/"+s.now.Format("2006-01") }

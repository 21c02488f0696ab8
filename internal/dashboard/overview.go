package dashboard

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
)

// An account is what a set of requests cost, against what the generalist alone would have cost, as finops.Prove says it. What
// belongs to no task has no alternative and stands aside.
type account struct {
	Saved     dollars `json:"saved_usd"`
	SavedLow  dollars `json:"saved_low_usd"` // low and high differ only where rows are estimated
	SavedHigh dollars `json:"saved_high_usd"`
	Would     dollars `json:"would_have_cost_usd"`
	Did       dollars `json:"did_cost_usd"` // escalations, audits, unused calls and charges included
	Through   dollars `json:"passed_through_usd"`
	Requests  int64   `json:"requests"` // answered
	Attempts  int64   `json:"attempts"`
	Paid      int64   `json:"paid_attempts"`                   // not answered in this process
	Unpriced  int64   `json:"unpriced_attempts"`               // their cost is in no figure
	NoClaim   int64   `json:"requests_without_counterfactual"` // nothing is claimed for them
	Simulated int64   `json:"simulated_attempts"`
	local     int64
	inTasks   int64
}

// prove takes the figures of a statement.
func (a *account) prove(s *finops.Statement) {
	a.Saved, a.SavedLow, a.SavedHigh = dollars(s.Saved), dollars(s.SavedLow), dollars(s.SavedHigh)
	a.Would, a.Did, a.Through = dollars(s.WouldHaveCost), dollars(s.Spent.Total()), dollars(s.PassThrough)
	a.Unpriced, a.NoClaim, a.local, a.inTasks = s.Unpriced, s.NoReference, s.Local, s.Requests
}

// count takes what a statement does not count.
func (a *account) count(r *finops.Row) {
	a.Attempts += r.Attempts
	if r.Answered {
		a.Requests += r.Attempts
	}
	if r.Provider == "" {
		return
	}
	a.Paid += r.Attempts
	if r.Simulated {
		a.Simulated += r.Attempts
	}
}

// HasTasks reports whether any request belongs to a task.
func (a account) HasTasks() bool { return a.inTasks > 0 }

// InTasks counts the answered requests that belong to a task.
func (a account) InTasks() int64 { return a.inTasks }

// Estimated reports whether the saving is only known between bounds.
func (a account) Estimated() bool { return a.SavedLow != a.SavedHigh }

// rows reads a window's sums by everything that a statement tells apart, and the charges that no attempt caused.
func (d *Dashboard) rows(ctx context.Context, w store.Window, span store.Dimension) ([]finops.Row, []finops.Charge, error) {
	by := []store.Dimension{span, store.ByTask, store.ByTier, store.ByProvider, store.ByModel, store.ByKey, store.ByState, store.ByAudit,
		store.ByAnswered, store.BySimulated}
	totals, err := d.Source.Totals(ctx, store.TotalsQuery{Window: w, By: by})
	if err != nil {
		return nil, nil, err
	}
	rows := make([]finops.Row, len(totals))
	for i := range totals {
		t := &totals[i]
		rows[i] = finops.Row{Start: t.Start, Task: t.Task, Tier: t.Tier, Provider: t.Provider, Model: t.Model, Key: t.Key,
			Unpriced: t.State == store.Unpriced, Estimated: t.State == store.Estimated, Audit: t.Audit, Answered: t.Answered, Simulated: t.Simulated,
			Attempts: t.Attempts, Failed: t.Failed, Usage: t.Usage, Cost: t.Cost, CostLow: t.CostLow, CostHigh: t.CostHigh, Reference: t.Reference}
	}
	if d.Charges == nil {
		return rows, nil, nil
	}
	charges, err := d.Charges(ctx, rows, w)
	return rows, charges, err
}

// A bucket is one day, or one hour where there is not more than a day to show.
type bucket struct {
	Start     time.Time      `json:"start"`
	Would     dollars        `json:"would_have_cost_usd"`
	Cost      [roles]dollars `json:"-"`
	Requests  [roles]int64   `json:"-"`
	CostBy    map[string]any `json:"cost_usd"`
	AnswerdBy map[string]any `json:"requests"`
}

// A taskRow is one line of the overview's table of tasks.
type taskRow struct {
	account
	Name  string    `json:"name"`
	State string    `json:"state"`
	Local *share    `json:"answered_by_specialists,omitempty"`
	Tier  string    `json:"tier,omitempty"` // the tier that the certificate below belongs to
	Proof *proof    `json:"certificate,omitempty"`
	Lack  string    `json:"shortfall,omitempty"`
	Known bool      `json:"configured"` // false: only the ledger knows it
	View  *TaskView `json:"-"`
}

// A proof is a certificate in short.
type proof struct {
	Threshold     float64   `json:"threshold"`
	MinConfidence float64   `json:"min_confidence,omitempty"`
	Coverage      float64   `json:"coverage"`
	Accuracy      float64   `json:"served_accuracy"`     // observed on the calibration rows
	AtLeast       float64   `json:"served_accuracy_low"` // what the certificate proves
	Promise       string    `json:"promise"`
	Rows          int       `json:"calibration_rows"`
	IssuedAt      time.Time `json:"issued_at"`
}

type overview struct {
	account
	Month       string          `json:"month"` // 2006-01, UTC
	From        time.Time       `json:"from"`
	To          time.Time       `json:"to"`
	Now         time.Time       `json:"now"`
	Previous    string          `json:"-"` // months to go to, "" where there is nothing
	Next        string          `json:"-"`
	Local       *share          `json:"answered_by_specialists,omitempty"` // of requests that belong to a task
	Escalated   *share          `json:"escalated,omitempty"`               // likewise
	Trend       *float64        `json:"escalated_trend,omitempty"`         // the last seven days' share less that of the seven before
	Audited     *share          `json:"audited_right,omitempty"`           // right among the audited answers of specialists
	Target      float64         `json:"target,omitempty"`                  // the highest of the tasks that were audited
	Alerts      []alert         `json:"alerts"`
	Switches    []taskSwitch    `json:"switches,omitempty"` // when specialists began to answer
	First       checklist       `json:"-"`
	Specialists latency         `json:"latency_specialists"`
	Generalists latency         `json:"latency_generalist"`
	Ledger      store.Counts    `json:"ledger"`
	Hourly      bool            `json:"hourly"`
	Buckets     []bucket        `json:"buckets"`
	Tasks       []taskRow       `json:"tasks"`
	Worst       *taskRow        `json:"-"` // the task that loses most, if one does
	Latest      []row           `json:"latest_requests"`
	Spend       *barChart       `json:"-"`
	Traffic     *barChart       `json:"-"`
	inBuckets   map[int64]int   // index in Buckets by start
	byTask      map[string]*int // index in Tasks
}

// latency in milliseconds.
type latency struct {
	Attempts int64         `json:"attempts"`
	P50      time.Duration `json:"p50_ns"`
	P95      time.Duration `json:"p95_ns"`
	P99      time.Duration `json:"p99_ns"`
}

// overview loads the first page: a month's account, by day and by task.
func (d *Dashboard) overview(r *http.Request) (any, error) {
	ctx, now := r.Context(), d.Now().UTC()
	window, month, err := monthOf(r, now)
	if err != nil {
		return nil, err
	}
	o := &overview{Month: month.Format("2006-01"), From: window.From, To: window.To, Now: now,
		Previous: month.AddDate(0, -1, 0).Format("2006-01"), inBuckets: map[int64]int{}, byTask: map[string]*int{}}
	if next := month.AddDate(0, 1, 0); !next.After(now) {
		o.Next = next.Format("2006-01")
	}
	views, err := d.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	o.startTasks(views)
	if err := d.fillAccounts(ctx, o, window); err != nil {
		return nil, err
	}
	if o.Ledger, err = d.Source.Counts(ctx); err != nil {
		return nil, err
	}
	if err := d.fillLatencies(ctx, o, window); err != nil {
		return nil, err
	}
	latest, _, err := d.Source.Requests(ctx, store.Filter{Window: window, Limit: 8}, "")
	if err != nil {
		return nil, err
	}
	o.Latest = rows(latest, views)
	if o.Alerts, err = d.alerts(ctx, o, views); err != nil {
		return nil, err
	}
	if o.Switches, err = d.switches(ctx, views, window); err != nil {
		return nil, err
	}
	o.First = checklistOf(o.Ledger, views)
	o.audits(views)
	o.finish()
	return o, nil
}

// monthOf reads ?month=2006-01; without it, it is the current month.
func monthOf(r *http.Request, now time.Time) (store.Window, time.Time, error) {
	month := now
	if text := r.FormValue("month"); text != "" {
		var err error
		if month, err = time.Parse("2006-01", text); err != nil {
			return store.Window{}, now, badInput("The month "+quote(text)+" cannot be read.", "Write it as year and month, such as 2026-11.")
		}
	}
	w := store.Month(month.Year(), month.Month())
	return w, w.From, nil
}

func (o *overview) startTasks(views []TaskView) {
	for i := range views {
		t := o.taskOf(views[i].Name)
		t.Known, t.State, t.View = true, views[i].State, &views[i]
		t.Tier, t.Proof, t.Lack = proofOf(&views[i])
	}
}

// taskOf returns the row of a task, new if need be.
func (o *overview) taskOf(name string) *taskRow {
	if i := o.byTask[name]; i != nil {
		return &o.Tasks[*i]
	}
	i := len(o.Tasks)
	o.byTask[name] = &i
	o.Tasks = append(o.Tasks, taskRow{Name: name})
	return &o.Tasks[i]
}

// proofOf picks the certificate of the first tier that has one.
func proofOf(v *TaskView) (tier string, p *proof, lack string) {
	for i := range v.Tiers {
		t := &v.Tiers[i]
		c := t.Certificate
		if c == nil {
			lack = cmp.Or(lack, t.Shortfall)
			continue
		}
		p := &proof{Threshold: c.Threshold, MinConfidence: t.MinConfidence, Coverage: c.Coverage, AtLeast: 1 - c.Upper,
			Promise: c.Promise, Rows: c.N, IssuedAt: c.IssuedAt}
		if c.Accepted > 0 {
			p.Accuracy = 1 - float64(c.Errors)/float64(c.Accepted)
		}
		return t.Name, p, ""
	}
	return "", nil, lack
}

// fillAccounts reads the month once and adds every sum where it belongs.
func (d *Dashboard) fillAccounts(ctx context.Context, o *overview, w store.Window) error {
	rows, charges, err := d.rows(ctx, w, store.ByDay)
	if err != nil {
		return err
	}
	statement := finops.Prove(w.From, w.To, rows, charges)
	o.prove(&statement)
	for i := range rows {
		o.count(&rows[i])
		if rows[i].Task != "" {
			o.taskOf(rows[i].Task).count(&rows[i])
		}
	}
	for i := range statement.Tasks {
		t := o.taskOf(statement.Tasks[i].Task)
		t.prove(&statement.Tasks[i])
		t.Local = shareOf(t.local, t.inTasks)
	}
	o.Local, o.Escalated = shareOf(o.local, o.inTasks), shareOf(o.inTasks-o.local, o.inTasks)
	return d.fillBuckets(ctx, o, w, rows)
}

// fillBuckets sorts the sums by day; where all of them fall on one day, by hour.
func (d *Dashboard) fillBuckets(ctx context.Context, o *overview, w store.Window, rows []finops.Row) error {
	step := 24 * time.Hour
	if n := len(rows); n > 0 && rows[0].Start.Equal(rows[n-1].Start) {
		o.Hourly, step = true, time.Hour
		w = store.Window{From: rows[0].Start, To: rows[0].Start.Add(24 * time.Hour)}
		var err error
		if rows, _, err = d.rows(ctx, w, store.ByHour); err != nil {
			return err
		}
	}
	for at := w.From; at.Before(w.To); at = at.Add(step) {
		o.inBuckets[at.Unix()] = len(o.Buckets)
		o.Buckets = append(o.Buckets, bucket{Start: at})
	}
	for i := range rows {
		r := &rows[i]
		at, ok := o.inBuckets[r.Start.Unix()]
		if !ok {
			continue
		}
		b := &o.Buckets[at]
		who := roleOf(r.Task, r.Tier, r.Audit)
		b.Cost[who] += dollars(r.Cost)
		if r.Answered {
			b.Requests[who] += r.Attempts
		}
		switch {
		case r.Task == "" || r.Answered && (r.Reference == 0 || r.Unpriced):
			b.Would += dollars(r.Cost) // no alternative, or none that is known
		case r.Answered:
			b.Would += dollars(r.Reference)
		}
	}
	return nil
}

// fillLatencies reads the latencies of the tiers that answered: the slowest specialist and the generalist stand for their kind.
func (d *Dashboard) fillLatencies(ctx context.Context, o *overview, w store.Window) error {
	tiers, err := d.Source.Totals(ctx, store.TotalsQuery{Window: w, By: []store.Dimension{store.ByTask, store.ByTier}})
	if err != nil {
		return err
	}
	busiest := map[role]*store.Total{}
	for i := range tiers {
		t := &tiers[i]
		who := roleOf(t.Task, t.Tier, false)
		if busiest[who] == nil || t.Attempts > busiest[who].Attempts {
			busiest[who] = t
		}
	}
	for who, into := range map[role]*latency{local: &o.Specialists, general: &o.Generalists} {
		t := busiest[who]
		if t == nil {
			continue
		}
		q, err := d.Source.LatencyQuantiles(ctx, w, "", t.Tier, "")
		if err != nil {
			return err
		}
		*into = latency{q.Attempts, q.P50, q.P95, q.P99}
	}
	return nil
}

// audits sums up the month's audits of all tasks.
func (o *overview) audits(views []TaskView) {
	audits, wrong := int64(0), int64(0)
	for _, v := range views {
		for _, a := range v.Audits {
			if !a.Day.Before(o.From) && a.Day.Before(o.To) && a.Audits > 0 {
				audits, wrong = audits+int64(a.Audits), wrong+int64(a.Wrong)
				o.Target = max(o.Target, v.Target.Accuracy)
			}
		}
	}
	o.Audited = shareOf(audits-wrong, audits)
}

// week is the least number of task requests in seven days from which a trend is shown.
const week = 50

// trend compares the share that was escalated in the last seven days with that of the seven before.
func (o *overview) trend() {
	var escalated, all [2]int64
	for i := range o.Buckets {
		b := &o.Buckets[i]
		age := int(o.Now.Sub(b.Start).Hours() / 24 / 7)
		if o.Hourly || b.Start.After(o.Now) || age < 0 || age > 1 {
			continue
		}
		escalated[age] += b.Requests[general]
		all[age] += b.Requests[general] + b.Requests[local]
	}
	if min(all[0], all[1]) < week {
		return
	}
	change := float64(escalated[0])/float64(all[0]) - float64(escalated[1])/float64(all[1])
	o.Trend = &change
}

// finish puts the parts in order and draws the charts.
func (o *overview) finish() {
	slices.SortStableFunc(o.Tasks, func(a, b taskRow) int { return cmp.Compare(b.Saved, a.Saved) })
	if n := len(o.Tasks); n > 0 && o.Tasks[n-1].Saved < 0 {
		o.Worst = &o.Tasks[n-1]
	}
	for i := range o.Buckets {
		b := &o.Buckets[i]
		b.CostBy, b.AnswerdBy = map[string]any{}, map[string]any{}
		for who := range roles {
			b.CostBy[roleNames[who]], b.AnswerdBy[roleNames[who]] = b.Cost[who], b.Requests[who]
		}
	}
	o.trend()
	o.Spend, o.Traffic = spendChart(o), trafficChart(o)
}

// spendChart stacks what was paid by who did the work, with a mark at what the generalist alone would have cost.
func spendChart(o *overview) *barChart {
	c := o.chart("spend", "Spend", "in dollars, by who did the work; the line marks what the generalist alone would have cost")
	c.MarkName = "Would have cost"
	c.Format = func(v float64) string { return dollars(cost.FromUSD(v)).String() }
	c.Axis = axisDollars
	for i := range o.Buckets {
		b := &o.Buckets[i]
		bar := bar{Label: o.label(b.Start), Mark: cost.Amount(b.Would).USD()}
		for who := range roles {
			bar.Values = append(bar.Values, cost.Amount(b.Cost[who]).USD())
		}
		c.Bars = append(c.Bars, bar)
	}
	return c.layout()
}

// trafficChart stacks the answered requests by who answered.
func trafficChart(o *overview) *barChart {
	c := o.chart("traffic", "Requests", "number of requests, by who answered")
	c.Format = func(v float64) string { return count(int64(v + 0.5)) }
	c.Axis = func(_, v float64) string { return c.Format(v) }
	c.Whole = true
	for i := range o.Buckets {
		b := &o.Buckets[i]
		bar := bar{Label: o.label(b.Start)}
		for who := range roles {
			bar.Values = append(bar.Values, float64(b.Requests[who]))
		}
		c.Bars = append(c.Bars, bar)
	}
	return c.layout()
}

func (o *overview) chart(id, what, of string) *barChart {
	unit := "day"
	if o.Hourly {
		unit = "hour of " + o.Buckets[0].Start.Format("2 January")
	}
	var notes []barNote
	for _, s := range o.Switches {
		for i, b := range o.Buckets {
			if !s.At.Before(b.Start) && (i == len(o.Buckets)-1 || s.At.Before(o.Buckets[i+1].Start)) {
				notes = append(notes, barNote{Bar: i, Text: short(s.Task) + " live"})
			}
		}
	}
	return &barChart{Notes: notes, ID: id, Title: what + " per " + unit, Description: what + " per " + unit + ", UTC, " + of + ".", Series: roleNames[:],
		Unit: unit, Simulated: o.Simulated > 0}
}

// Table is the list of the latest requests.
func (o *overview) Table() table { return tableOf(o.Latest, o.Now) }

// AllSimulated reports whether nothing but simulated providers stands behind the figures.
func (o *overview) AllSimulated() bool { return o.Simulated > 0 && o.Simulated == o.Paid }

func (o *overview) label(at time.Time) string {
	if o.Hourly {
		return at.Format("15:04")
	}
	return at.Format("2 Jan")
}

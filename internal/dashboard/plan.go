package dashboard

import (
	"context"
	"slices"
	"time"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
)

// A planRow is one way to answer a task's requests: a tier with whatever answers what it may not, or the generalist alone.
type planRow struct {
	Name     string        `json:"name"`
	Mode     string        `json:"mode,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
	Accuracy *share        `json:"accuracy,omitempty"`        // alone, on the locked test set
	Served   *share        `json:"served_accuracy,omitempty"` // of what it may answer
	Coverage *share        `json:"coverage,omitempty"`
	AtLeast  *float64      `json:"proved_at_least,omitempty"` // right, as the certificate proves it
	Bar      float64       `json:"bar,omitempty"`             // what is promised
	P95      time.Duration `json:"p95_ns,omitempty"`          // of this month's calls
	Per1k    *dollars      `json:"usd_per_1000_requests,omitempty"`
	Verdict  string        `json:"verdict"`
	Why      string        `json:"why,omitempty"`
	Chosen   bool          `json:"chosen"`
	Passed   bool          `json:"meets_bar"`
}

// Verdicts of a planRow.
const (
	meetsBar  = "meets the bar"
	belowBar  = "below the bar"
	mayNot    = "may not answer"     // it has a certificate, which does not hold now
	untilThen = "answers until then" // it belongs to the model before
	notNeeded = "not needed"
	asToday   = "today"
)

// plan lists every tier with its verdict, the generalist last. The tiers of the newest model's plan that meet the bar are those to
// use, in their order; what else answers does so until then.
func (d *Dashboard) plan(ctx context.Context, view *TaskView, rows []finops.Row, w store.Window) ([]planRow, error) {
	each := generalistCost(rows)
	var all []planRow
	chosen := false
	var stages []string
	for i := range view.Tiers {
		t := &view.Tiers[i]
		r := planRow{Name: t.Name, Mode: t.Mode, Bytes: t.Bytes, Bar: view.Target.Accuracy}
		r.measure(t)
		r.judge(t)
		chosen = chosen || r.Chosen
		if r.Chosen {
			stages = append(stages, t.Name)
			r.price(view.Choice, stages, each)
		}
		q, err := d.Source.LatencyQuantiles(ctx, w, view.Name, t.Name, "")
		if err != nil {
			return nil, err
		}
		r.P95 = q.P95
		all = append(all, r)
	}
	all = append(all, considered(view)...)
	q, err := d.Source.LatencyQuantiles(ctx, w, view.Name, "generalist", "")
	last := planRow{Name: view.Generalist, Verdict: asToday, Why: "answers everything that no tier may", P95: q.P95, Chosen: !chosen}
	if each != nil {
		usd := 1000 * *each
		last.Per1k = &usd
	}
	return append(all, last), err
}

// considered are the tiers that the choice of the plan weighed and did not take.
func considered(view *TaskView) (all []planRow) {
	if view.Choice == nil {
		return nil
	}
	for _, c := range view.Choice.Candidates {
		for _, stage := range c.Stages {
			known := slices.ContainsFunc(view.Tiers, func(t TierView) bool { return t.Name == stage.Tier }) ||
				slices.ContainsFunc(all, func(r planRow) bool { return r.Name == stage.Tier })
			switch {
			case known:
			case c.Problem != "":
				all = append(all, planRow{Name: stage.Tier, Bar: view.Target.Accuracy, Verdict: belowBar, Why: c.Problem})
			default:
				all = append(all, planRow{Name: stage.Tier, Verdict: notNeeded, Why: c.Verdict})
			}
		}
	}
	return all
}

// measure takes the shares from the locked test set, else from the rows that the certificate was made of.
func (r *planRow) measure(t *TierView) {
	if e := t.Evaluation; e != nil {
		r.Accuracy, r.Served, r.Coverage = e.Accuracy(), e.ServedAccuracy(), e.Coverage()
		return
	}
	if c := t.Certificate; c != nil {
		r.Coverage, r.Served = shareOf(int64(c.Accepted), int64(c.N)), shareOf(int64(c.Accepted-c.Errors), int64(c.Accepted))
	}
}

func (r *planRow) judge(t *TierView) {
	c := t.Certificate
	switch {
	case c == nil:
		r.Verdict, r.Why = belowBar, t.Shortfall
		return
	case t.Shortfall != "":
		r.Verdict, r.Why = mayNot, t.Shortfall
		return
	case t.Evidence != nil && t.Evidence.Alarm:
		r.Verdict, r.Why = mayNot, t.Evidence.Reason
		return
	case t.Reserve:
		r.Verdict, r.Why = untilThen, "it belongs to the model that answers until the newer one may"
	default:
		r.Verdict, r.Chosen = meetsBar, true
	}
	low := 1 - c.Upper
	r.AtLeast, r.Bar, r.Passed = &low, 1-c.Risk, true
}

// price is what a thousand requests cost when these tiers answer what they may and the generalist the rest: as the choice of the plan
// says it, audits included, else what is left for the generalist where the only tier costs nothing.
func (r *planRow) price(choice *cascade.Choice, stages []string, each *dollars) {
	if choice != nil {
		for _, c := range choice.Candidates {
			if c.PerCall != nil && slices.EqualFunc(c.Stages, stages, func(s cascade.Stage, name string) bool { return s.Tier == name }) {
				usd := dollars(cost.FromUSD(*c.PerCall))
				r.Per1k = &usd
				return
			}
		}
	}
	if each == nil || r.Coverage == nil || len(stages) > 1 {
		return
	}
	usd := dollars(float64(1000**each) * (1 - r.Coverage.Value))
	r.Per1k = &usd
}

// generalistCost is the mean cost of one answer of the generalist, nil where none was priced.
func generalistCost(rows []finops.Row) *dollars {
	var sum dollars
	n := int64(0)
	for i := range rows {
		if r := &rows[i]; r.Answered && !r.Unpriced && roleOf(r.Task, r.Tier, r.Audit) == general && r.Provider != "" {
			sum, n = sum+dollars(r.Cost), n+r.Attempts
		}
	}
	if n == 0 {
		return nil
	}
	sum /= dollars(n)
	return &sum
}

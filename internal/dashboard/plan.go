package dashboard

import (
	"context"
	"time"

	"occam/internal/calibration"
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
	notNeeded = "not needed"
	asToday   = "today"
)

// plan lists every tier with its verdict, the generalist last. The first that meets the bar is the one to use: tiers come
// cheapest first, so what follows is not needed.
func (d *Dashboard) plan(ctx context.Context, view *TaskView, rows []finops.Row, w store.Window) ([]planRow, error) {
	each := generalistCost(rows)
	var all []planRow
	chosen := false
	for i := range view.Tiers {
		t := &view.Tiers[i]
		r := planRow{Name: t.Name, Mode: t.Mode, Bytes: t.Bytes, Bar: view.Target.Accuracy}
		if e := t.Evaluation; e != nil {
			r.Accuracy, r.Served, r.Coverage = e.Accuracy(), e.ServedAccuracy(), e.Coverage()
		}
		r.judge(t.Certificate, t.Shortfall, chosen)
		chosen = chosen || r.Chosen
		r.price(each)
		q, err := d.Source.LatencyQuantiles(ctx, w, view.Name, t.Name, "")
		if err != nil {
			return nil, err
		}
		r.P95 = q.P95
		all = append(all, r)
	}
	q, err := d.Source.LatencyQuantiles(ctx, w, view.Name, "generalist", "")
	last := planRow{Name: view.Generalist, Verdict: asToday, Why: "answers everything that no tier may", P95: q.P95, Chosen: !chosen}
	if each != nil {
		usd := 1000 * *each
		last.Per1k = &usd
	}
	return append(all, last), err
}

func (r *planRow) judge(c *calibration.Certificate, shortfall string, chosen bool) {
	switch {
	case c == nil:
		r.Verdict, r.Why = belowBar, shortfall
		return
	case chosen:
		r.Verdict = notNeeded
	default:
		r.Verdict, r.Chosen = meetsBar, true
	}
	low := 1 - c.Upper
	r.AtLeast, r.Bar, r.Passed = &low, 1-c.Risk, true
}

// price is what a thousand requests cost when the tier answers its share for nothing and the generalist the rest.
func (r *planRow) price(each *dollars) {
	if each == nil || !r.Passed || r.Coverage == nil {
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

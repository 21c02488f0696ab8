package dashboard

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
)

// history is how far back forecast and anomalies look: eight weeks.
const history = 56 * 24 * time.Hour

// spend is a month's money by everything it can be split by, with what will become of it and what to do.
type spend struct {
	account
	Month     string                  `json:"month"`
	Previous  string                  `json:"-"`
	Next      string                  `json:"-"`
	Course    *lineChart              `json:"-"`
	Parts     []part                  `json:"spent"`
	Forecast  *finops.Quantiles       `json:"month_forecast_nano_usd"` // null before there are seven days
	Unusual   []finops.Anomaly        `json:"anomalies"`
	Do        []finops.Recommendation `json:"recommendations"`
	Endings   []finops.Ending         `json:"shutdowns"`
	Calendar  []shutdown              `json:"-"` // of the price book, where the traffic touches none
	ByTask    []slice                 `json:"by_task"`
	ByModel   []slice                 `json:"by_model"`
	ByKey     []slice                 `json:"by_key"`
	ByDay     []slice                 `json:"by_day"`
	PriceBook string                  `json:"price_book"`
}

// A part is one kind of cost of the month.
type part struct {
	Name   string  `json:"name"`
	Note   string  `json:"-"`
	Amount dollars `json:"usd"`
}

// A slice is what one task, model, key or day cost.
type slice struct {
	Name     string  `json:"name"`            // "" is none
	Label    string  `json:"label,omitempty"` // of a key: its name
	Cost     dollars `json:"cost_usd"`
	Requests int64   `json:"requests"`
	Attempts int64   `json:"attempts"`
	Failed   int64   `json:"failed"`
	Input    int64   `json:"input_tokens"`
	Output   int64   `json:"output_tokens"`
	Unpriced int64   `json:"unpriced_attempts,omitempty"`
}

type shutdown struct {
	Model, Provider string
	Date            time.Time
	Days            int
}

// maxSlices bounds a table: the rest is summed up in a last line.
const maxSlices = 50

// spend loads the page of a month's money.
func (d *Dashboard) spend(r *http.Request) (any, error) {
	ctx, now := r.Context(), d.Now().UTC()
	window, month, err := monthOf(r, now)
	if err != nil {
		return nil, err
	}
	rows, charges, err := d.rows(ctx, window, store.ByDay)
	if err != nil {
		return nil, err
	}
	book := d.Book()
	statement := finops.Prove(window.From, window.To, rows, charges)
	p := &spend{Month: month.Format("2006-01"), Previous: month.AddDate(0, -1, 0).Format("2006-01"), PriceBook: book.Version(),
		Endings: finops.Calendar(book, rows, now),
		Do:      finops.Recommend(finops.Situation{Statement: statement, Rows: rows, Charges: charges, Book: book, At: now}),
		ByTask:  slicesBy(rows, func(r *finops.Row) string { return r.Task }),
		ByModel: slicesBy(rows, func(r *finops.Row) string { return r.Model }),
		ByKey:   slicesBy(rows, func(r *finops.Row) string { return r.Key }),
		ByDay:   slicesBy(rows, func(r *finops.Row) string { return r.Start.Format(time.DateOnly) })}
	if next := month.AddDate(0, 1, 0); !next.After(now) {
		p.Next = next.Format("2006-01")
	}
	p.prove(&statement)
	for i := range rows {
		p.count(&rows[i])
	}
	p.Parts = partsOf(statement)
	labels, err := d.keyNames(ctx)
	if err != nil {
		return nil, err
	}
	for i := range p.ByKey {
		p.ByKey[i].Label = labels[p.ByKey[i].Name]
	}
	slices.SortFunc(p.ByDay, func(a, b slice) int { return cmp.Compare(b.Name, a.Name) })
	p.Calendar = shutdowns(book, now)
	if err := d.fillSeries(ctx, p, window, now); err != nil {
		return nil, err
	}
	p.Course = p.course(window, now)
	return p, nil
}

// course draws how the month's spend adds up, and where it will end.
func (p *spend) course(w store.Window, now time.Time) *lineChart {
	if len(p.ByDay) == 0 {
		return nil
	}
	day := func(at time.Time) float64 { return at.Sub(w.From).Hours() / 24 }
	soFar := line{Name: "spent", Points: []xy{{0, 0}}}
	total, byDay := 0.0, map[string]dollars{}
	for _, s := range p.ByDay {
		byDay[s.Name] = s.Cost
	}
	c := &lineChart{ID: "course", Title: "How the month adds up", Simulated: p.Simulated > 0, Description: "Spend of the month so far, added up day by day, in dollars."}
	end := now
	if now.After(w.To) {
		end = w.To
	}
	for at := w.From; at.Before(end); at = at.AddDate(0, 0, 1) {
		total += cost.Amount(byDay[at.Format(time.DateOnly)]).USD()
		x := min(day(at.AddDate(0, 0, 1)), day(end))
		soFar.Points = append(soFar.Points, xy{x, total})
		c.Samples = append(c.Samples, x)
	}
	c.Lines, c.X = []line{soFar}, axis{Name: "day of the month", Max: day(w.To), Ticks: []float64{0, 7, 14, 21, 28}, Format: func(d float64) string {
		return w.From.Add(time.Duration(d * 24 * float64(time.Hour))).Format("2 Jan")
	}}
	top := total
	if q := p.Forecast; q != nil {
		for i, f := range []struct {
			name string
			end  cost.Amount
		}{{"9 of 10 months end below", q.P90}, {"expected", q.P50}, {"1 of 10 months ends below", q.P10}} {
			c.Lines = append(c.Lines, line{Name: f.name, Series: i + 1, Points: []xy{{day(now), total}, {day(w.To), max(f.end.USD(), total)}}})
			top = max(top, f.end.USD())
		}
		c.Samples = append(c.Samples, (day(now)+day(w.To))/2, day(w.To))
		c.Note = "The band spans 8 cases of 10 at the month’s end; the way there is drawn straight."
		c.Description += " " + c.Note
	}
	step, _ := niceSteps(max(top*1.05, 1e-9), false)
	c.Y = linear("dollars", max(top*1.05, 1e-9), func(v float64) string { return axisDollars(step, v) })
	return c
}

func partsOf(s finops.Statement) []part {
	all := []part{{"Generalist", "answers of models paid by the token", dollars(s.Spent.Generalist)},
		{"Specialists", "answers of specialists that cost per call", dollars(s.Spent.Specialist)},
		{"Audits", "answers checked by the generalist", dollars(s.Spent.Audits)},
		{"Unused calls", "retries and tries whose answer the app did not get", dollars(s.Spent.Lost)},
		{"Hosting", "rented servers", dollars(s.Spent.Hosting)}, {"Training", "training runs", dollars(s.Spent.Training)},
		{"Labels", "labels that were bought", dollars(s.Spent.Labels)}, {"Passed through", "requests without a task", dollars(s.PassThrough)}}
	return slices.DeleteFunc(all, func(p part) bool { return p.Amount == 0 })
}

// slicesBy sums rows up by a name, the dearest first.
func slicesBy(rows []finops.Row, name func(*finops.Row) string) []slice {
	at := map[string]int{}
	var all []slice
	for i := range rows {
		r := &rows[i]
		k, known := at[name(r)]
		if !known {
			k = len(all)
			at[name(r)] = k
			all = append(all, slice{Name: name(r)})
		}
		all[k].add(r)
	}
	slices.SortStableFunc(all, func(a, b slice) int { return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(b.Requests, a.Requests)) })
	if len(all) <= maxSlices {
		return all
	}
	rest := slice{Name: "all others"}
	for _, s := range all[maxSlices:] {
		rest.Cost += s.Cost
		rest.Requests += s.Requests
		rest.Attempts += s.Attempts
		rest.Failed += s.Failed
		rest.Input += s.Input
		rest.Output += s.Output
		rest.Unpriced += s.Unpriced
	}
	return append(all[:maxSlices:maxSlices], rest)
}

func (s *slice) add(r *finops.Row) {
	s.Cost += dollars(r.Cost)
	s.Attempts += r.Attempts
	s.Failed += r.Failed
	s.Input += r.Usage.Input
	s.Output += r.Usage.Output
	if r.Answered {
		s.Requests += r.Attempts
	}
	if r.Unpriced {
		s.Unpriced += r.Attempts
	}
}

func shutdowns(book *cost.Book, now time.Time) []shutdown {
	var all []shutdown
	for _, s := range book.Shutdowns(now) {
		if s.Days >= 0 {
			all = append(all, shutdown{s.Price.Model, s.Price.Provider, s.Price.Shutdown, s.Days})
		}
	}
	return all
}

// fillSeries computes what looks at more than the month: the forecast, of the current month only, and the anomalies.
func (d *Dashboard) fillSeries(ctx context.Context, p *spend, w store.Window, now time.Time) error {
	if !now.Before(w.To) {
		return nil
	}
	days, hours, err := SpendHistory(ctx, d.Source, now)
	if err != nil {
		return err
	}
	if q, ok := finops.Forecast(days, w.From, w.To, rand.New(rand.NewPCG(1, 0))); ok { // the same days have the same forecast
		p.Forecast = &q
	}
	p.Unusual = finops.Anomalies(hours, finops.AnomalyOptions{})
	slices.Reverse(p.Unusual)
	p.Unusual = p.Unusual[:min(len(p.Unusual), 20)]
	return nil
}

// SpendHistory is what forecasts and the search for unusual hours look at: the spend of the last eight weeks by day and by hour, in
// UTC, without gaps from the first that has any. The day and the hour under way are left out: they would look like a fall.
func SpendHistory(ctx context.Context, ledger Totaller, now time.Time) (days, hours []finops.Point, err error) {
	today := now.UTC().Truncate(24 * time.Hour)
	series := func(by store.Dimension, until time.Time, step time.Duration) ([]finops.Point, error) {
		totals, err := ledger.Totals(ctx, store.TotalsQuery{Window: store.Window{From: today.Add(-history), To: until}, By: []store.Dimension{by}})
		if err != nil || len(totals) == 0 {
			return nil, err
		}
		spent := map[int64]cost.Amount{}
		for _, t := range totals {
			spent[t.Start.Unix()] = t.Cost
		}
		var points []finops.Point
		for at := totals[0].Start; at.Before(until); at = at.Add(step) {
			points = append(points, finops.Point{Start: at, Spend: spent[at.Unix()]})
		}
		return points, nil
	}
	if days, err = series(store.ByDay, today, 24*time.Hour); err != nil {
		return nil, nil, err
	}
	hours, err = series(store.ByHour, now.UTC().Truncate(time.Hour), time.Hour)
	return days, hours, err
}

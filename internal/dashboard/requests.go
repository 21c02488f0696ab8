package dashboard

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"occam/internal/cascade"
	"occam/internal/store"
)

// A row is one request in a list.
type row struct {
	ID         string    `json:"id"`
	At         time.Time `json:"at"`
	Task       string    `json:"task,omitempty"`
	Key        string    `json:"key,omitempty"`
	By         string    `json:"answered_by,omitempty"` // tier, or "pass-through"; "" when nobody answered
	Model      string    `json:"model,omitempty"`
	Role       string    `json:"role,omitempty"`
	Why        string    `json:"reason"` // of the answer, in words
	Confidence float64   `json:"confidence,omitempty"`
	Status     int       `json:"status,omitempty"`
	Cost       dollars   `json:"cost_usd"`
	Would      dollars   `json:"would_have_cost_usd"`
	Saved      dollars   `json:"saved_usd"`
	// Latency is the sum over the attempts that the app waited for.
	Latency   time.Duration `json:"latency_ns"`
	Open      bool          `json:"open,omitempty"`
	Unpriced  bool          `json:"unpriced,omitempty"`
	Estimated bool          `json:"estimated,omitempty"`
	Audited   bool          `json:"audited,omitempty"`
	Simulated bool          `json:"simulated,omitempty"`
	Attempts  int           `json:"attempts"`
	paid      bool          // an attempt was made outside this process
}

// A table is a list of requests with what holds for all of them.
type table struct {
	Rows []row
	// Simulated: whatever was paid for was, so the table says it once.
	Simulated bool
	Now       time.Time
}

func tableOf(rows []row, now time.Time) table {
	some, real := false, false
	for i := range rows {
		some = some || rows[i].Simulated
		real = real || rows[i].paid && !rows[i].Simulated
	}
	return table{Rows: rows, Now: now, Simulated: some && !real}
}

// rows sums up requests, in their order.
func rows(requests []store.Request, views []TaskView) []row {
	all := make([]row, 0, len(requests))
	for i := range requests {
		all = append(all, rowOf(&requests[i], views))
	}
	return all
}

func rowOf(q *store.Request, views []TaskView) row {
	r := row{ID: q.ID, Attempts: len(q.Attempts)}
	var answer *store.Attempt
	for i := range q.Attempts {
		a := &q.Attempts[i]
		if i == 0 {
			r.At, r.Task, r.Key = a.At, a.Task, a.KeyID
		}
		r.Cost += dollars(a.Cost)
		r.Open = r.Open || a.State == store.Pending
		r.Unpriced = r.Unpriced || a.State == store.Unpriced
		r.Estimated = r.Estimated || a.State == store.Estimated
		r.Simulated = r.Simulated || a.Simulated
		r.paid = r.paid || a.State != store.Free
		r.Audited = r.Audited || a.Audit
		if !a.Audit {
			r.Latency += a.Latency
		}
		if a.Answered {
			answer = a
		}
		if a.Status != 0 && !a.Audit {
			r.Status = a.Status
		}
	}
	r.finish(q, answer, views)
	return r
}

// finish says who answered, why, and what it saved.
func (r *row) finish(q *store.Request, answer *store.Attempt, views []TaskView) {
	r.Why = whyOf(q, answer)
	if answer == nil {
		r.Saved = -r.Cost
		if slices.ContainsFunc(q.Attempts, func(a store.Attempt) bool { return a.Tier == person }) {
			r.By, r.Role = "waits for a person", roleNames[through]
		}
		return
	}
	who := roleOf(answer.Task, answer.Tier, false)
	r.By, r.Model, r.Confidence, r.Status, r.Role = answer.Tier, answer.Model, answer.Confidence, answer.Status, roleNames[who]
	if who == through {
		r.By = "pass-through"
	}
	r.Would = dollars(answer.Reference)
	if who == through || r.Unpriced || (r.Would == 0 && who == general) {
		r.Would = r.Cost
	}
	r.Saved = r.Would - r.Cost
}

// whyOf explains the answer in a sentence: where a specialist was asked and did not answer, its reason is the one that matters.
func whyOf(q *store.Request, answer *store.Attempt) string {
	for i := range q.Attempts {
		a := &q.Attempts[i]
		if !a.Audit && !a.Answered && a.Reason != "" && roleOf(a.Task, a.Tier, false) == local {
			return a.Tier + " did not answer: " + reason(a.Reason)
		}
	}
	switch {
	case answer != nil && answer.Reason != "":
		return reason(answer.Reason)
	case answer != nil:
		return "answered by " + cmp.Or(answer.Tier, answer.Model)
	case slices.ContainsFunc(q.Attempts, func(a store.Attempt) bool { return a.State == store.Pending }):
		return "in flight"
	}
	for i := range q.Attempts {
		if q.Attempts[i].Reason != "" {
			return reason(q.Attempts[i].Reason)
		}
	}
	return "no answer"
}

type requestList struct {
	Rows    []row             `json:"requests"`
	Next    string            `json:"next_cursor,omitempty"`
	Cursor  string            `json:"-"`
	Filter  filter            `json:"-"`
	Tasks   []string          `json:"-"` // to choose from
	Tiers   []string          `json:"-"`
	Models  []string          `json:"-"`
	Keys    []string          `json:"-"`
	Names   map[string]string `json:"-"` // of Keys
	Ledger  bool              `json:"-"` // false: the ledger holds nothing at all
	NextURL string            `json:"-"`
	NewURL  string            `json:"-"`
	now     time.Time
}

// A filter is what the form above the list asks for.
type filter struct {
	Task, Tier, Model, Key, State, From, To string
	Failed                                  bool
}

// requests loads a page of the list of requests, newest first.
func (d *Dashboard) requests(r *http.Request) (any, error) {
	ctx := r.Context()
	f, form, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	views, err := d.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	list := &requestList{now: d.Now().UTC(), Filter: form, Cursor: r.FormValue("cursor")}
	found, next, err := d.Source.Requests(ctx, f, list.Cursor)
	if err != nil {
		if list.Cursor != "" && ctx.Err() == nil {
			return nil, badInput("This page of the list cannot be found.", "Start at the newest requests again.")
		}
		return nil, err
	}
	list.Rows, list.Next = rows(found, views), next
	values := r.URL.Query()
	values.Del("cursor")
	list.NewURL = "/requests?" + values.Encode()
	if next != "" {
		values.Set("cursor", next)
		list.NextURL = "/requests?" + values.Encode()
	}
	if list.Names, err = d.keyNames(ctx); err != nil {
		return nil, err
	}
	return list, d.fillChoices(r, list)
}

// fillChoices lists what the ledger holds, for the form.
func (d *Dashboard) fillChoices(r *http.Request, list *requestList) error {
	by := []store.Dimension{store.ByTask, store.ByTier, store.ByModel, store.ByKey}
	into := []*[]string{&list.Tasks, &list.Tiers, &list.Models, &list.Keys}
	for i, dimension := range by {
		totals, err := d.Source.Totals(r.Context(), store.TotalsQuery{By: []store.Dimension{dimension}})
		if err != nil {
			return err
		}
		for _, t := range totals {
			list.Ledger = true
			if name := t.Task + t.Tier + t.Model + t.Key; name != "" && len(*into[i]) < 200 {
				*into[i] = append(*into[i], name)
			}
		}
	}
	list.Ledger = list.Ledger || len(list.Rows) > 0
	return nil
}

// readFilter reads the form of the list; days are UTC, the last one included.
func readFilter(r *http.Request) (store.Filter, filter, error) {
	v := func(name string) string { return strings.TrimSpace(r.FormValue(name)) }
	form := filter{Task: v("task"), Tier: v("tier"), Model: v("model"), Key: v("key"), State: v("state"), From: v("from"), To: v("to"),
		Failed: v("failed") != ""}
	f := store.Filter{Task: form.Task, Tier: form.Tier, Model: form.Model, Key: form.Key, State: store.State(form.State), Failed: form.Failed,
		Limit: 50}
	if form.State != "" && stateWords[f.State] == "" {
		return f, form, badInput("There is no ledger state "+quote(form.State)+".", "Use one of open, settled, estimated, void, free, unpriced.")
	}
	for into, text := range map[*time.Time]string{&f.From: form.From, &f.To: form.To} {
		if text == "" {
			continue
		}
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return f, form, badInput("The day "+quote(text)+" cannot be read.", "Write it as 2026-11-30.")
		}
		*into = day
	}
	if !f.To.IsZero() {
		f.To = f.To.AddDate(0, 0, 1)
	}
	return f, form, nil
}

// Values are the form as a query.
func (f filter) Values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"task": f.Task, "tier": f.Tier, "model": f.Model, "key": f.Key, "state": f.State,
		"from": f.From, "to": f.To} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if f.Failed {
		v.Set("failed", "1")
	}
	return v
}

// Table is the list as the page shows it.
func (l *requestList) Table() table { return tableOf(l.Rows, l.now) }

// Active counts the conditions.
func (f filter) Active() int { return len(f.Values()) }

// An attemptView is one attempt of a request's story.
type attemptView struct {
	Seq           int           `json:"seq"`
	ID            string        `json:"id"`
	At            time.Time     `json:"at"`
	Tier          string        `json:"tier,omitempty"`
	Provider      string        `json:"provider,omitempty"`
	Model         string        `json:"model"`
	Role          string        `json:"role"`
	Kind          role          `json:"-"`
	Answered      bool          `json:"answered"`
	Audit         bool          `json:"audit,omitempty"`
	Reason        string        `json:"reason"`
	Code          string        `json:"reason_code"`
	Confidence    float64       `json:"confidence,omitempty"`
	MinConfidence float64       `json:"min_confidence,omitempty"` // at the threshold of the certificate in force now
	Status        int           `json:"status,omitempty"`
	State         store.State   `json:"state"`
	StateWords    string        `json:"-"`
	Cost          dollars       `json:"cost_usd"`
	Low           dollars       `json:"cost_low_usd"`
	High          dollars       `json:"cost_high_usd"`
	Price         string        `json:"price_version,omitempty"`
	Input         int64         `json:"input_tokens"`
	Cached        int64         `json:"cached_tokens,omitempty"`
	Output        int64         `json:"output_tokens"`
	Latency       time.Duration `json:"latency_ns"`
	Simulated     bool          `json:"simulated,omitempty"`
	Because       []because     `json:"because,omitempty"` // what spoke for and against the answer, where the text was kept
	Nearest       []nearby      `json:"nearest,omitempty"` // training examples, where the model's file holds some
	Lack          string        `json:"because_lack,omitempty"`
	NearestLack   string        `json:"nearest_lack,omitempty"`
	Unscored      bool          `json:"unscored,omitempty"` // the tier tells no confidence: its certificate covers every answer that fits the schema
}

// ThresholdLost reports whether a specialist's confidence was held against a threshold that is not known any more: its model is not in use now.
func (a *attemptView) ThresholdLost() bool {
	return a.Kind == local && a.Confidence > 0 && a.MinConfidence == 0
}

// Headline says what the attempt did.
func (a attemptView) Headline() string {
	switch {
	case a.Audit:
		return capital("an audit asked " + a.who() + " to check the answer")
	case a.State == store.Pending:
		return capital("asked " + a.who() + ", the answer is awaited")
	case a.Answered:
		return capital(a.who() + " answered")
	case a.State == store.Void:
		return capital(a.who() + " was not asked")
	}
	return capital(a.who() + " did not answer")
}

func (a attemptView) who() string {
	switch {
	case a.Kind == through || a.Tier == "":
		return "the model"
	case a.Tier == "generalist":
		return "the generalist"
	}
	return "the specialist " + a.Tier
}

type story struct {
	row
	Steps   []attemptView `json:"steps"`
	KeyName string        `json:"key_name,omitempty"`
	Text    string        `json:"text,omitempty"` // the task's input, where it was kept
	Parts   []textPart    `json:"-"`              // Text with the words that mattered most
}

// request loads one request with its whole story.
func (d *Dashboard) request(r *http.Request) (any, error) {
	id := r.PathValue("id")
	q, ok, err := d.Source.Request(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &failure{http.StatusNotFound, "The ledger has no request " + quote(short(id)) + ".",
			"The identifier may be mistyped, or the row was deleted by the retention rule.", "Look for it in the list of requests."}
	}
	views, err := d.Tasks(r.Context())
	if err != nil {
		return nil, err
	}
	s := &story{row: rowOf(&q, views)}
	for i := range q.Attempts {
		s.Steps = append(s.Steps, stepOf(&q.Attempts[i], views))
	}
	names, err := d.keyNames(r.Context())
	if err != nil {
		return nil, err
	}
	s.KeyName = names[s.Key]
	return s, d.explainSteps(r.Context(), s)
}

func stepOf(a *store.Attempt, views []TaskView) attemptView {
	who := roleOf(a.Task, a.Tier, a.Audit)
	v := attemptView{Seq: a.Seq, ID: a.ID, At: a.At, Tier: a.Tier, Provider: a.Provider, Model: a.Model, Role: roleNames[who], Kind: who,
		Answered: a.Answered, Audit: a.Audit, Reason: reason(a.Reason), Code: a.Reason, Confidence: a.Confidence, Status: a.Status,
		State: a.State, StateWords: stateWords[a.State], Cost: dollars(a.Cost), Low: dollars(a.CostLow), High: dollars(a.CostHigh),
		Price: a.Price, Input: a.Usage.Input, Cached: a.Usage.Cached, Output: a.Usage.Output, Latency: a.Latency, Simulated: a.Simulated}
	for _, t := range views {
		for _, tier := range t.Tiers {
			// The ledger names the weights of an embedded specialist, and a tier served elsewhere by its name in the configuration.
			if t.Name == a.Task && tier.Name == a.Tier && (tier.Model == a.Model || v.elsewhere() && (tier.Mode == "live" || tier.Mode == "canary")) {
				v.MinConfidence = tier.MinConfidence
				v.Unscored = v.elsewhere() && tier.Certificate != nil && tier.Certificate.Score == cascade.ScoreConstant
			}
		}
	}
	return v
}

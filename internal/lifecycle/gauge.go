package lifecycle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/task"
)

const (
	// settleRows comparisons with a model that was certified on people's labels say how often the generalist itself disagrees
	// with people; until then settleSlack on top of the risk is allowed for that.
	settleRows  = 200
	settleSlack = 0.10
	monitorRuns = 10_000 // audits within which a false alarm is as unlikely as the certificate's failure
)

// A gauge keeps the evidence about one model since it was stored: what the generalist says of its answers, and signs that
// need no labels. It lives as JSON between restarts.
type gauge struct {
	Monitor *drift.Monitor `json:"monitor"`
	Watch   *drift.Watch   `json:"watch,omitempty"`
	Risk    float64        `json:"risk"` // share of accepted answers that may disagree with the generalist
	// Settling counts down the comparisons until Risk is known: a certificate on people's labels does not say how often the
	// generalist disagrees with people.
	Settling int `json:"settling,omitempty"`
	// Of the present stage of the model's life:
	Stage     State `json:"stage"`
	Compared  int   `json:"compared"`
	Disagreed int   `json:"disagreed"`
	Missing   int   `json:"missing"`
	// Since the model was stored:
	Total      int        `json:"total"`
	TotalWrong int        `json:"total_wrong"`
	Days       []AuditDay `json:"days,omitempty"` // oldest first, at most auditDays
	// Rare watches the answers in rare classes by all audits of them; nil where there are none. Its error rate may be what
	// calibration found at most, for these classes have no promise of their own.
	Rare *drift.Monitor `json:"rare,omitempty"`
	// Void is why the certificate of a tier after the first does not hold, once that is in the ledger's chain; "" while it holds.
	Void string `json:"void,omitempty"`
	// AnswersAs is the version by which a tier served elsewhere answers now, if that is not the certified one.
	AnswersAs string `json:"answers_as,omitempty"`
	// Outside watches how often the generalist's answers are outside the schema; nil in what an older program wrote.
	Outside *outsideWatch `json:"outside,omitempty"`

	dirty bool
}

// An AuditDay counts one day's comparisons with the generalist's answers.
type AuditDay struct {
	Day   time.Time `json:"day"` // its begin, UTC
	Count int       `json:"count"`
	Wrong int       `json:"wrong"`
}

const auditDays = 90

// onDay counts a comparison for the day it was made.
func (g *gauge) onDay(at time.Time, wrong bool) {
	day := at.UTC().Truncate(24 * time.Hour)
	if n := len(g.Days); n == 0 || g.Days[n-1].Day.Before(day) {
		g.Days = append(g.Days[max(0, n-auditDays+1):], AuditDay{Day: day})
	}
	last := &g.Days[len(g.Days)-1]
	last.Count++
	last.Wrong += one(wrong)
}

// newGauge starts the evidence about a certified model. teacherError is a bound on how often the generalist is wrong, if
// that was measured (0 where the labels are the generalist's own answers), negative if not.
func newGauge(c *calibration.Certificate, b drift.Baseline, teacherError float64) (*gauge, error) {
	g := &gauge{Risk: acceptedRisk(c)}
	switch {
	case c.Teacher != "": // the promise is agreement with the generalist, and that is what audits see
	case teacherError >= 0:
		g.Risk += teacherError
	default:
		g.Settling = settleRows
	}
	var err error
	if g.Monitor, err = newMonitor(g.allowed(), c.Delta); err != nil {
		return nil, err
	}
	if b.Rows > 0 {
		if g.Watch, err = drift.NewWatch(b); err != nil {
			return nil, err
		}
	}
	if _, limit := rareClasses(c); limit > 0 {
		g.Rare, err = newMonitor(max(limit, g.allowed()), c.Delta)
	}
	return g, err
}

// rareShare is the share of answers that the rare classes may make up together.
const rareShare = 0.20

// rareClasses are the predicted classes that keep no promise of their own for want of rows, the rarest first, as far as they make
// up a small part of the answers; limit bounds how often they were wrong at calibration, 0 where there are none.
func rareClasses(c *calibration.Certificate) (names []string, limit float64) {
	rows := slices.DeleteFunc(slices.Clone(c.Classes), func(r calibration.Row) bool { return r.Note == calibration.Certified || r.Accepted == 0 })
	slices.SortStableFunc(rows, func(a, b calibration.Row) int { return a.Accepted - b.Accepted })
	accepted, wrong := 0, 0
	for _, r := range rows {
		if float64(accepted+r.Accepted) > rareShare*float64(c.Accepted) {
			break
		}
		accepted += r.Accepted
		wrong += r.Errors
		names = append(names, r.Name)
	}
	if accepted == 0 {
		return nil, 0
	}
	return names, calibration.Upper(wrong, accepted, c.Delta)
}

// stratum is what the data plane is told of a tier's rare classes; nil where there are none.
func (g *gauge) stratum(c *calibration.Certificate, fields []task.Field, audit float64) *cascade.Stratum {
	if g == nil || g.Rare == nil {
		return nil
	}
	names, _ := rareClasses(c)
	s := &cascade.Stratum{Field: newClasses(fields).field, Values: map[string]bool{}, Audit: audit, Barred: g.Rare.Status().Alarm}
	for _, name := range names {
		s.Values[name] = true
	}
	return s
}

// observeRare adds an audited answer in a rare class and reports whether that raised its alarm.
func (g *gauge) observeRare(a drift.Audit) (raised bool) {
	before := g.Rare.Status().Alarm
	g.dirty = true
	return g.Rare.Observe(a) && !before
}

// acceptedRisk is the promised bound on the share of wrong answers among the accepted.
func acceptedRisk(c *calibration.Certificate) float64 {
	if c.Promise == calibration.System && c.Coverage > 0 {
		return min(c.Risk/c.Coverage, 0.5)
	}
	return c.Risk
}

func newMonitor(risk, delta float64) (*drift.Monitor, error) {
	return drift.NewMonitor(drift.Options{Risk: min(risk, 0.9), Delta: delta, Horizon: monitorRuns})
}

func (g *gauge) allowed() float64 {
	if g.Settling > 0 {
		return g.Risk + settleSlack
	}
	return g.Risk
}

// enter starts the counts of a new stage; the monitor goes on.
func (g *gauge) enter(s State) {
	if g.Stage == s {
		return
	}
	g.Stage, g.Compared, g.Disagreed, g.Missing, g.dirty = s, 0, 0, 0, true
}

// restart forgets the alarm and its evidence, because a person judged it false.
func (g *gauge) restart() (err error) {
	g.Monitor, err = newMonitor(g.allowed(), g.Monitor.Options().Delta)
	if g.Rare != nil && err == nil {
		o := g.Rare.Options()
		g.Rare, err = newMonitor(o.Risk, o.Delta)
	}
	if g.Outside != nil && err == nil {
		o := g.Outside.Monitor.Options()
		g.Outside.Monitor, err = newMonitor(o.Risk, o.Delta)
	}
	g.dirty = true
	return err
}

// observe adds one accepted answer that was compared with the generalist's, and reports whether the alarm stands.
func (g *gauge) observe(a drift.Audit, delta float64) (alarm bool, err error) {
	g.dirty = true
	if a == drift.Missing {
		g.Missing++
		return g.Monitor.Observe(a), nil
	}
	g.Compared++
	g.Total++
	if a == drift.Wrong {
		g.Disagreed++
		g.TotalWrong++
	}
	if g.Settling > 0 {
		if g.Settling--; g.Settling == 0 {
			err = g.settle(delta)
		}
	}
	return g.Monitor.Observe(a), err
}

// settle fixes the allowed disagreement from what was seen while the certificate was fresh. It never goes below the
// promise, and never above the slack that was allowed so far.
func (g *gauge) settle(delta float64) (err error) {
	if g.Monitor.Status().Alarm {
		return nil
	}
	seen := calibration.Upper(g.TotalWrong, g.Total, delta)
	g.Risk = min(max(g.Risk, seen), g.Risk+settleSlack)
	g.Monitor, err = newMonitor(g.Risk, delta)
	return err
}

// evidence is what a decision needs of the gauge.
func (g *gauge) evidence() Evidence {
	e := Evidence{Compared: g.Compared, Disagreed: g.Disagreed, Risk: g.allowed()}
	if s := g.Monitor.Status(); s.Alarm {
		e.Alarm = s.Reason
	}
	return e
}

// confirmation says what a cross-fitted certificate still lacks, "" for nothing and for others. Repeated sampling has shown
// that out-of-fold scores alone promise too much (docs/guarantees.md). So they only choose the threshold, and comparisons on
// requests that came after the training prove the promise: a confidence sequence, valid at every look, must come down to
// the risk. A comparison that failed counts as a disagreement here. The sequence may fail as seldom as the certification was allowed
// to: of all models that a task ever tries, one that breaks its promise is confirmed with the probability of one certificate.
// What the generalist itself gets wrong of people's labels counts against the model here: agreeing with it on 1-r proves an error rate
// of r and that much more.
func (g *gauge) confirmation(c *calibration.Certificate) string {
	if c.Split != calibration.CrossFitted {
		return ""
	}
	high := g.Monitor.HighAtWorst(cmp.Or(c.Level, c.Delta))
	promised := acceptedRisk(c)
	allowed := promised - (g.Risk - promised)
	if high <= allowed {
		return ""
	}
	s := g.Monitor.Status()
	return fmt.Sprintf("its certificate is cross-fitted, and %d comparisons on new requests, %d of them differing or failed, prove an error rate of at most %.3g where %.3g is allowed",
		s.Audits, s.Wrong+s.Missing, high, max(allowed, 0))
}

// warnings are label-free signs of change, none where the model is older than baselines.
func (g *gauge) warnings() (all []drift.Warning) {
	if g.Watch != nil {
		all = slices.Clone(g.Watch.Warnings())
	}
	if g.Outside.stands() {
		all = append(all, g.Outside.warning())
	}
	return all
}

func (g *gauge) encode() ([]byte, error) { return json.Marshal(g) }

func decodeGauge(data []byte) (*gauge, error) {
	g := &gauge{Monitor: new(drift.Monitor)}
	if err := json.Unmarshal(data, g); err != nil {
		return nil, fmt.Errorf("the stored evidence about a model is damaged: %w", err)
	}
	return g, nil
}

// A Comparison is a tier's prediction beside the generalist's answer to the same request.
type Comparison struct {
	RequestID  string
	At         time.Time
	Task       string
	Specialist string // hash of the weights that predicted
	Input      string
	Predicted  task.Prediction
	Values     []task.Value // the generalist's answer, nil when Missing
	Model      string       // that gave Values, as its provider names it; "" where that is not known
	PromptHash string
	Barred     bool // the terms of whoever gave Values forbid training on them
	Answered   bool // the prediction was the app's answer: this is an audit
	Rare       bool // the prediction belongs to the tier's stratum of rare classes
	Extra      bool // of Answered: drawn for that stratum alone, so no part of the uniform sample
	Accepted   bool // the certificate accepts the prediction
	Missing    bool // the generalist gave no valid answer: nothing is known
	Outside    bool // of Missing: it gave an answer, which the task's schema does not hold
	Agreed     bool
	Simulated  bool
}

// counts reports whether a comparison is part of a uniform sample of the accepted requests, which is what the monitor needs.
// Beside an incumbent the generalist answers only what that passed on, so there only audits count.
func (c *Comparison) counts(r Record) bool {
	if c.Extra {
		return false
	}
	return c.Answered || c.Accepted && r.Incumbent == "" && (r.State == Shadow || r.State == Canary)
}

func (c *Comparison) audit() drift.Audit {
	switch {
	case c.Missing:
		return drift.Missing
	case c.Agreed:
		return drift.Right
	}
	return drift.Wrong
}

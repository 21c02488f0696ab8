// Package finops turns sums over the ledger into what a finance department asks for: what was proved to be saved, whether the
// provider's invoice agrees, what the month will cost, what is unusual, and what to do about it. It reads no clock, no file
// and no database: rows come in as plain values, results go out as plain values.
package finops

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"occam/internal/cost"
)

// A Row is a sum over closed attempts of the ledger that agree in every field before Attempts.
type Row struct {
	Start     time.Time // of the hour or day, UTC
	Task      string    // "" for pass-through
	Tier      string
	Provider  string // "" for the specialist inside the gateway
	Model     string
	Key       string // virtual key, the project that pays
	Unpriced  bool   // usage was seen, but no price is known: Cost is zero and means nothing
	Estimated bool   // no usage was seen: Cost lies between CostLow and CostHigh
	Audit     bool   // sent only to check another tier's answer
	Answered  bool   // its answer is the one the app got
	Simulated bool

	Attempts  int64
	Failed    int64 // with a status of 400 or more
	Usage     cost.Usage
	Cost      cost.Amount
	CostLow   cost.Amount
	CostHigh  cost.Amount
	Reference cost.Amount // what the generalist would have cost for these requests, at the prices of the moment; 0 where unknown
}

// A Charge is money that no attempt caused: a server, a training run, labels.
type Charge struct {
	Kind   ChargeKind
	What   string // "aws g5.xlarge", "fine-tune ticket-triage@1f3c9a2b"
	Task   string // "" where several tasks share it
	Start  time.Time
	End    time.Time
	Amount cost.Amount
	Hours  float64 // of a server
	Busy   float64 // share of those hours that it worked, in [0, 1], or BusyUnknown
}

// BusyUnknown is the Busy of a server of which nobody has measured how much it works.
const BusyUnknown = -1

// ChargeKind says what a charge was for.
type ChargeKind string

const (
	Hosting  ChargeKind = "hosting"
	Training ChargeKind = "training"
	Labels   ChargeKind = "labels"
)

// Spent splits what was paid.
type Spent struct {
	Generalist cost.Amount `json:"generalist"` // answers of models paid by the token
	Specialist cost.Amount `json:"specialist"` // answers of specialists that cost per call
	Audits     cost.Amount `json:"audits"`
	Lost       cost.Amount `json:"lost"` // calls whose answer the app did not get: retries, hedges, escalated tries
	Hosting    cost.Amount `json:"hosting"`
	Training   cost.Amount `json:"training"`
	Labels     cost.Amount `json:"labels"`
}

// Total is the sum of the parts.
func (s Spent) Total() cost.Amount {
	return s.Generalist + s.Specialist + s.Audits + s.Lost + s.Hosting + s.Training + s.Labels
}

// A Statement is a proof of savings for a window: the same requests priced as if the generalist had answered each of them at
// its moment, against everything that was spent. It claims nothing for requests whose counterfactual is not known.
type Statement struct {
	Task          string      `json:"task,omitempty"` // "" for all tasks together
	From          time.Time   `json:"from"`
	To            time.Time   `json:"to"`
	Requests      int64       `json:"requests"`
	Local         int64       `json:"local"` // answered by a specialist
	WouldHaveCost cost.Amount `json:"would_have_cost_nano_usd"`
	Spent         Spent       `json:"spent_nano_usd"`
	Saved         cost.Amount `json:"saved_nano_usd"` // negative: lost
	SavedLow      cost.Amount `json:"saved_low_nano_usd"`
	SavedHigh     cost.Amount `json:"saved_high_nano_usd"` // low and high differ where attempts are estimated
	PassThrough   cost.Amount `json:"pass_through_nano_usd"`
	NoReference   int64       `json:"requests_without_counterfactual"` // or without a price: nothing is claimed for them
	Unpriced      int64       `json:"unpriced_attempts"`               // their cost is missing here
	Estimated     int64       `json:"estimated_attempts"`
	Simulated     bool        `json:"simulated"`
	Tasks         []Statement `json:"tasks,omitempty"`
}

// Tiers that are not specialists. Every other tier of a task is one.
const (
	tierGeneralist = "generalist"
	tierPerson     = "person"
)

// Prove makes the statement of a window, with one for each task. Charges that belong to no task stand in the statement of the
// whole only. Rows and charges are taken as they come: select those of the window before.
func Prove(from, to time.Time, rows []Row, charges []Charge) Statement {
	whole := Statement{From: from, To: to}
	tasks := map[string]*Statement{}
	task := func(name string) *Statement {
		if tasks[name] == nil {
			tasks[name] = &Statement{Task: name, From: from, To: to}
		}
		return tasks[name]
	}
	for _, r := range rows {
		whole.add(r)
		if r.Task != "" {
			task(r.Task).add(r)
		}
	}
	for _, c := range charges {
		whole.charge(c)
		if c.Task != "" {
			task(c.Task).charge(c)
		}
	}
	whole.settle()
	for _, name := range slices.Sorted(maps.Keys(tasks)) {
		tasks[name].settle()
		whole.Tasks = append(whole.Tasks, *tasks[name])
	}
	slices.SortStableFunc(whole.Tasks, func(a, b Statement) int { return cmp.Compare(b.Saved, a.Saved) })
	return whole
}

func (s *Statement) add(r Row) {
	s.Simulated = s.Simulated || r.Simulated
	if r.Unpriced {
		s.Unpriced += r.Attempts
	}
	if r.Estimated {
		s.Estimated += r.Attempts
	}
	if r.Task == "" {
		s.PassThrough += r.Cost // the generalist would have cost the same: no saving, no loss
		return
	}
	specialist := r.Tier != tierGeneralist && r.Tier != tierPerson
	switch {
	case r.Audit:
		s.Spent.Audits += r.Cost
	case !r.Answered:
		s.Spent.Lost += r.Cost
	case specialist:
		s.Spent.Specialist += r.Cost
	default:
		s.Spent.Generalist += r.Cost
	}
	s.SavedLow -= r.CostHigh - r.Cost // for now the distance from Saved
	s.SavedHigh += r.Cost - r.CostLow
	if !r.Answered {
		return
	}
	s.Requests += r.Attempts
	if specialist {
		s.Local += r.Attempts
	}
	if r.Reference == 0 || r.Unpriced {
		s.NoReference += r.Attempts
		s.WouldHaveCost += r.Cost // no saving is claimed, no loss either
		return
	}
	s.WouldHaveCost += r.Reference
}

func (s *Statement) charge(c Charge) {
	switch c.Kind {
	case Hosting:
		s.Spent.Hosting += c.Amount
	case Training:
		s.Spent.Training += c.Amount
	case Labels:
		s.Spent.Labels += c.Amount
	}
}

func (s *Statement) settle() {
	s.Saved = s.WouldHaveCost - s.Spent.Total()
	s.SavedLow, s.SavedHigh = s.Saved+s.SavedLow, s.Saved+s.SavedHigh
}

// Headline says the result in one sentence, a loss as plainly as a saving.
func (s Statement) Headline() string {
	parts := []string{}
	for _, p := range []struct {
		name   string
		amount cost.Amount
	}{{"generalist", s.Spent.Generalist}, {"specialists", s.Spent.Specialist}, {"audits", s.Spent.Audits},
		{"unused calls", s.Spent.Lost},
		{"hosting", s.Spent.Hosting}, {"training", s.Spent.Training}, {"labels", s.Spent.Labels}} {
		if p.amount != 0 {
			parts = append(parts, p.name+" "+USD(p.amount))
		}
	}
	detail := ""
	if len(parts) > 0 {
		detail = " (" + strings.Join(parts, ", ") + ")"
	}
	simulated := ""
	if s.Simulated {
		simulated = " Simulated."
	}
	if s.Saved < 0 {
		advice := ""
		if n := len(s.Tasks); n > 0 && s.Tasks[n-1].Saved < 0 { // sorted: the last one loses most
			advice = fmt.Sprintf(" Switch task %s back to the generalist.", s.Tasks[n-1].Task)
		}
		return fmt.Sprintf("You are losing %s: it did cost %s%s, the generalist alone would have cost %s.%s%s",
			USD(-s.Saved), USD(s.Spent.Total()), detail, USD(s.WouldHaveCost), advice, simulated)
	}
	return fmt.Sprintf("Saved %s: the generalist alone would have cost %s, it did cost %s%s.%s",
		USD(s.Saved), USD(s.WouldHaveCost), USD(s.Spent.Total()), detail, simulated)
}

// Text writes the statement for a terminal.
func (s Statement) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s\n%s\n", s.From.Format(time.DateOnly), s.To.Add(-time.Nanosecond).Format(time.DateOnly),
		s.Headline())
	local := 0.0
	if s.Requests > 0 {
		local = 100 * float64(s.Local) / float64(s.Requests)
	}
	fmt.Fprintf(&b, "  requests %d, answered by specialists %.1f %%\n", s.Requests, local)
	if s.PassThrough != 0 {
		fmt.Fprintf(&b, "  passed through without a task: %s, not part of the saving\n", USD(s.PassThrough))
	}
	if s.Estimated > 0 {
		fmt.Fprintf(&b, "  %d attempts are estimated: the saving lies between %s and %s\n", s.Estimated,
			USD(s.SavedLow), USD(s.SavedHigh))
	}
	if s.NoReference > 0 {
		fmt.Fprintf(&b, "  %d requests have no known counterfactual: nothing is claimed for them\n", s.NoReference)
	}
	if s.Unpriced > 0 {
		fmt.Fprintf(&b, "  ! %d attempts are unpriced: what they cost is missing here; add their price with `occam "+
			"prices import`\n", s.Unpriced)
	}
	for _, t := range s.Tasks {
		fmt.Fprintf(&b, "  %-30s saved %14s   %10d requests\n", t.Task, USD(t.Saved), t.Requests)
	}
	return b.String()
}

// USD writes an amount in dollars and cents, rounded half away from zero, thousands separated: "$1,750.00", "-$0.01".
func USD(a cost.Amount) string {
	const cent = cost.USD / 100
	sign := ""
	if a < 0 {
		sign = "-"
		a = -max(a, -math.MaxInt64)
	}
	cents := a / cent
	if a%cent >= cent/2 {
		cents++
	}
	if cents == 0 {
		sign = ""
	}
	whole := fmt.Sprint(int64(cents / 100))
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return fmt.Sprintf("%s$%s.%02d", sign, whole, cents%100)
}

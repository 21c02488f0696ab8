package finops

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"occam/internal/cost"
)

// An Ending is a model that its provider stops and that the traffic uses.
type Ending struct {
	Provider string      `json:"provider"`
	Model    string      `json:"model"`
	Date     time.Time   `json:"date"`
	Days     int         `json:"days"`     // from the day asked about; negative when past
	Attempts int64       `json:"attempts"` // in the rows
	Spend    cost.Amount `json:"spend_nano_usd"`
	Tasks    []string    `json:"tasks"` // "" is pass-through
}

// Calendar lists the shutdowns that touch the traffic of the rows, the next one first.
func Calendar(book *cost.Book, rows []Row, at time.Time) []Ending {
	type name struct{ provider, model string }
	found := map[name]*Ending{}
	for _, r := range rows {
		p, ok := book.Lookup(r.Provider, r.Model, at)
		if r.Provider == "" || !ok || p.Shutdown.IsZero() {
			continue
		}
		k := name{r.Provider, r.Model}
		e := found[k]
		if e == nil {
			e = &Ending{Provider: r.Provider, Model: r.Model, Date: p.Shutdown, Days: daysUntil(at, p.Shutdown)}
			found[k] = e
		}
		e.Attempts += r.Attempts
		e.Spend += r.Cost
		if !slices.Contains(e.Tasks, r.Task) {
			e.Tasks = append(e.Tasks, r.Task)
		}
	}
	var out []Ending
	for e := range maps.Values(found) {
		slices.Sort(e.Tasks)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Ending) int {
		return cmp.Or(a.Date.Compare(b.Date), cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Model, b.Model))
	})
	return out
}

func daysUntil(at, date time.Time) int {
	d := date.Sub(at)
	if d < 0 {
		return -int((-d + 24*time.Hour - 1) / (24 * time.Hour))
	}
	return int(d / (24 * time.Hour))
}

// A Recommendation is something to do, with what it is worth a month. A worth of zero means that it cannot be put in dollars.
type Recommendation struct {
	Code  string      `json:"code"` // "losing", "train", "idle", "lost", "cache", "batch", "ending", "unpriced"
	Task  string      `json:"task,omitempty"`
	Title string      `json:"title"`
	Why   string      `json:"why"`
	Do    string      `json:"do"` // a command, or a line for the configuration
	Worth cost.Amount `json:"monthly_worth_nano_usd"`
	// Conditional is what must hold for it, and is not known to; "" where nothing is open.
	Conditional string `json:"conditional,omitempty"`
}

// A Situation is what Recommend looks at: a window of at most a month and what was measured in it.
type Situation struct {
	Statement Statement
	Rows      []Row
	Charges   []Charge
	Analyses  map[string]*cost.Analysis // of the tasks that have no specialist yet, by task
	Book      *cost.Book
	At        time.Time
}

const (
	idleBusy    = 0.3 // a server that works less than this share of its hours is worth a word
	lostShare   = 20  // unused calls are worth a word from a twentieth of the spend
	endingSoon  = 90  // days
	daysAMonth  = 30.4375
	leastAmount = cost.USD // smaller worths are not worth a line
)

// Recommend lists what to do, the largest worth first, then what has none in dollars.
func Recommend(s Situation) []Recommendation {
	scale, until := 1.0, s.Statement.To
	if s.At.After(s.Statement.From) && s.At.Before(until) {
		until = s.At // the month is under way
	}
	if days := until.Sub(s.Statement.From).Hours() / 24; days > 0 {
		scale = daysAMonth / max(days, 1)
	}
	monthly := func(a cost.Amount) cost.Amount { return cost.FromUSD(a.USD() * scale) }
	var out []Recommendation
	out = append(out, s.perTask(monthly)...)
	for _, c := range s.Charges {
		if idle := monthly(cost.FromUSD(c.Amount.USD() * (1 - c.Busy))); c.Kind == Hosting && c.Busy >= 0 &&
			c.Busy < idleBusy && idle >= leastAmount {
			out = append(out, Recommendation{Code: "idle", Task: c.Task, Worth: idle, Title: "share or release " + c.What,
				Why: fmt.Sprintf("it works %.1f %% of its hours; the rest costs %s a month", 100*c.Busy, USD(idle)),
				Do:  "serve more tasks from it as adapters, or scale it to zero between peaks"})
		}
	}
	if lost := monthly(s.Statement.Spent.Lost); lost >= leastAmount &&
		s.Statement.Spent.Lost*lostShare >= s.Statement.Spent.Total() {
		out = append(out, Recommendation{Code: "lost", Worth: lost, Title: "fewer calls whose answer is not used",
			Why: fmt.Sprintf("retries, hedges and escalated tries cost %s a month", USD(lost)),
			Do:  "look at their reasons in the dashboard, then at timeouts and retry budget"})
	}
	out = append(out, s.endings()...)
	if s.Statement.Unpriced > 0 {
		out = append(out, Recommendation{Code: "unpriced", Title: "price the unpriced models",
			Why: fmt.Sprintf("%d attempts have no price: every figure here misses them", s.Statement.Unpriced),
			Do:  "occam prices import FILE"})
	}
	slices.SortStableFunc(out, func(a, b Recommendation) int { return cmp.Compare(b.Worth, a.Worth) })
	return out
}

// perTask looks at each task: one that loses money, and what the break-even analysis of one without a specialist says.
func (s Situation) perTask(monthly func(cost.Amount) cost.Amount) []Recommendation {
	var out []Recommendation
	for _, t := range s.Statement.Tasks {
		if loss := monthly(-t.Saved); loss >= leastAmount && t.Local > 0 {
			out = append(out, Recommendation{Code: "losing", Task: t.Task, Worth: loss, Title: "switch " + t.Task +
				" back to the generalist",
				Why: t.Headline(), Do: "occam tasks pause " + t.Task})
		}
	}
	for _, task := range slices.Sorted(maps.Keys(s.Analyses)) {
		a := s.Analyses[task]
		if a == nil || len(a.Plans) == 0 {
			continue
		}
		nothing := a.Plans[0]
		for _, p := range a.Plans[1:] {
			worth := cost.FromUSD(nothing.TotalUSD.P50 - p.TotalUSD.P50)
			code := map[cost.Group]string{cost.PromptCache: "cache", cost.BatchAPI: "batch"}[p.Group]
			if p.Name == a.Best {
				code = "train"
			}
			if code == "" || worth < leastAmount {
				continue
			}
			conditional := ""
			if len(p.Conditions) > 0 {
				conditional = p.Conditions[0]
			}
			out = append(out, Recommendation{Code: code, Task: task, Worth: worth, Title: task + ": " + p.Name,
				Conditional: conditional,
				Why: fmt.Sprintf("%s a month in all against %s", USD(cost.FromUSD(p.TotalUSD.P50)),
					USD(cost.FromUSD(nothing.TotalUSD.P50))),
				Do: map[string]string{"train": "occam train --data FILE, with the recorded answers of " + task, "cache": "put the unchanging part of " +
					"the prompt first", "batch": "send what can wait to POST /v1/batches"}[code]})
		}
	}
	return out
}

func (s Situation) endings() []Recommendation {
	var out []Recommendation
	if s.Book == nil {
		return nil
	}
	for _, e := range Calendar(s.Book, s.Rows, s.At) {
		if e.Days <= endingSoon {
			out = append(out, Recommendation{Code: "ending", Title: "move away from " + e.Model,
				Why: fmt.Sprintf("it is shut down on %s, in %d days; %d calls used it, for %s",
					e.Date.Format(time.DateOnly), e.Days, e.Attempts, USD(e.Spend)),
				Do: "occam breakeven --generalist " + e.Model + " lists the models that cost less"})
		}
	}
	return out
}

package dashboard

import (
	"context"
	"fmt"
	"slices"
	"time"

	"occam/internal/store"
)

// An alert is something that a person should look at.
type alert struct {
	Text    string `json:"text"`
	Bad     bool   `json:"bad"` // rather than worth knowing
	Link    string `json:"link,omitempty"`
	Command string `json:"command,omitempty"` // what to type next
}

const (
	nearBudget   = 0.9 // of a budget
	nearShutdown = 60  // days
)

// alerts lists what needs a person, the worst first.
func (d *Dashboard) alerts(ctx context.Context, o *overview, views []TaskView) ([]alert, error) {
	var all []alert
	add := func(bad bool, link, command, format string, args ...any) {
		all = append(all, alert{fmt.Sprintf(format, args...), bad, link, command})
	}
	for _, v := range views {
		for _, w := range v.Warnings {
			if w.Bad {
				add(true, "/tasks/"+pathPart(v.Name), "", "%s: %s", v.Name, sentence(w.Text))
			}
		}
	}
	if o.Unpriced > 0 {
		text := "%s calls have no known price and are in no figure."
		if o.Unpriced == 1 {
			text = "%s call has no known price and is in no figure."
		}
		add(true, "/requests?state=unpriced", "occam prices import FILE", text, count(o.Unpriced))
	}
	for _, s := range d.Book().Shutdowns(o.Now) {
		if s.Days >= 0 && s.Days <= nearShutdown && slices.ContainsFunc(views, func(v TaskView) bool { return v.Generalist == s.Price.Model }) {
			add(true, "/spend", "", "%s stops in %d days, and a task relies on it.", s.Price.Model, s.Days)
		}
	}
	if d.Database == nil {
		return all, nil
	}
	waiting, err := d.waiting(ctx, views)
	if err != nil {
		return nil, err
	}
	switch waiting {
	case 0:
	case 1:
		add(false, "/review", "", "A text waits for a person.")
	default:
		add(false, "/review", "", "%s texts wait for a person.", count(waiting))
	}
	keys, err := d.nearlySpent(ctx)
	for _, k := range keys {
		add(k.Left() == 0, "/keys/"+pathPart(k.ID), "", "The key %s has spent %s of its %s.", k.Name, k.Spent, dollars(k.Limits.Budget))
	}
	slices.SortStableFunc(all, func(a, b alert) int { return one(b.Bad) - one(a.Bad) })
	return all, err
}

// waiting counts the texts of the review queue.
func (d *Dashboard) waiting(ctx context.Context, views []TaskView) (n int64, err error) {
	err = d.Database.View(ctx, func(tx *store.Tx) error {
		for _, v := range views {
			one, err := tx.Reviews().Waiting(v.Name)
			if err != nil {
				return err
			}
			n += one
		}
		return nil
	})
	return n, err
}

// nearlySpent lists the valid keys whose budget is nearly used up.
func (d *Dashboard) nearlySpent(ctx context.Context) ([]keyRow, error) {
	var keys []store.Key
	err := d.Database.View(ctx, func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err })
	if err != nil || !slices.ContainsFunc(keys, func(k store.Key) bool { return k.Limits.Budget > 0 }) {
		return nil, err
	}
	spent, err := d.spentByKey(ctx)
	if err != nil {
		return nil, err
	}
	var all []keyRow
	for i := range keys {
		k := keyRowOf(&keys[i])
		k.Spent = spent[k.period()][k.ID]
		if k.Revoked == nil && k.Limits.Budget > 0 && float64(k.Spent) >= nearBudget*float64(k.Limits.Budget) {
			all = append(all, k)
		}
	}
	return all, nil
}

// A checklist is the first run in three steps.
type checklist struct{ Asked, Task, Proved bool }

// Done reports whether nothing of it is left.
func (c checklist) Done() bool { return c.Asked && c.Task && c.Proved }

func checklistOf(c store.Counts, views []TaskView) checklist {
	done := checklist{Asked: c != store.Counts{}, Task: len(views) > 0}
	for _, v := range views {
		for _, t := range v.Tiers {
			done.Proved = done.Proved || t.Certificate != nil
		}
	}
	return done
}

// A switch is the day on which a specialist began to answer a task's requests.
type taskSwitch struct {
	Task string    `json:"task"`
	At   time.Time `json:"at"`
}

// switches reads when tasks went live, in a window, from their history.
func (d *Dashboard) switches(ctx context.Context, views []TaskView, w store.Window) ([]taskSwitch, error) {
	if d.Database == nil {
		return nil, nil
	}
	var all []taskSwitch
	err := d.Database.View(ctx, func(tx *store.Tx) error {
		for _, v := range views {
			history, err := tx.Tasks().History(v.Name, 50)
			if err != nil {
				return err
			}
			for _, step := range history {
				if step.To == "live" && step.From != "live" && !step.At.Before(w.From) && step.At.Before(w.To) {
					all = append(all, taskSwitch{v.Name, step.At})
				}
			}
		}
		return nil
	})
	return all, err
}

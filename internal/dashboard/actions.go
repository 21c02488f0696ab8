package dashboard

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"occam/internal/store"
)

// An Action is one change that a person made through the dashboard, its API or the command line.
type Action struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	What   string    `json:"what"`             // "made an account"
	Object string    `json:"object,omitempty"` // what was changed: an account, a key, a task
	Detail string    `json:"detail,omitempty"` // never a secret
}

const (
	actionKind   = "admin action" // of the documents that hold them, under a name that sorts by time
	maxActions   = 1000
	actionsShown = 100
)

// logAction writes an action down, in the transaction that makes the change where there is one. The oldest give way.
func logAction(tx *store.Tx, a Action) error {
	log := tx.Records(actionKind)
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := log.Put(store.Record{Name: store.NewID(a.At), Value: value}); err != nil {
		return err
	}
	all, err := log.List()
	for i := 0; err == nil && i < len(all)-maxActions; i++ {
		err = log.Delete(all[i].Name)
	}
	return err
}

// listActions returns the newest actions first.
func listActions(tx *store.Tx, limit int) ([]Action, error) {
	records, err := tx.Records(actionKind).List()
	if err != nil {
		return nil, err
	}
	slices.Reverse(records)
	all := make([]Action, 0, min(limit, len(records)))
	for _, r := range records[:min(limit, len(records))] {
		var a Action
		if json.Unmarshal(r.Value, &a) == nil {
			all = append(all, a)
		}
	}
	return all, nil
}

// did writes down what was done outside a transaction of our own. That it was done stays true when this fails, so a failure is
// only logged.
func (d *Dashboard) did(ctx context.Context, by, what, object, detail string) {
	d.Log.Info("dashboard: "+what, "object", object, "detail", detail, "by", by)
	if d.Database == nil {
		return
	}
	a := Action{d.Now().UTC(), by, what, object, detail}
	if err := d.Database.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return logAction(tx, a) }); err != nil {
		d.Log.Error("dashboard: the log of changes could not be written", "error", err)
	}
}

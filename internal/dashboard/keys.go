package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
)

// keysPage is the page of the virtual keys.
type keysPage struct {
	Keys   []keyRow `json:"keys"`
	May    bool     `json:"-"`
	Secret string   `json:"secret,omitempty"` // of a key just made, shown once
	For    string   `json:"name,omitempty"`
	ID     string   `json:"id,omitempty"`
	New    keyRow   `json:"-"` // what the empty form says
}

// A keyRow is one key without its secret.
type keyRow struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Role    string          `json:"role"`
	Hint    string          `json:"hint"` // how the secret begins
	Created time.Time       `json:"created"`
	Revoked *time.Time      `json:"revoked"`
	Limits  store.KeyLimits `json:"limits"`
	Spent   dollars         `json:"spent_usd"` // in the running period of its budget, or in the month
	Version string          `json:"version"`   // of limits and state: a change names the version that its giver saw
}

func keyRowOf(k *store.Key) keyRow {
	r := keyRow{ID: k.ID, Name: k.Name, Role: k.Role, Hint: k.Hint, Created: k.Created, Limits: k.Limits, Version: keyVersion(k)}
	if !k.Revoked.IsZero() {
		r.Revoked = &k.Revoked
	}
	return r
}

// keyVersion changes whenever the key does.
func keyVersion(k *store.Key) string {
	h := fnv.New64a()
	_ = json.NewEncoder(h).Encode([]any{k.Limits, k.Revoked.UnixNano()}) // neither part can fail
	return fmt.Sprintf("%016x", h.Sum64())
}

// Left is what remains of the budget.
func (k keyRow) Left() dollars { return max(dollars(k.Limits.Budget)-k.Spent, 0) }

// Budget is the limit in dollars, "" where there is none, as the form shows it.
func (k keyRow) Budget() string {
	if k.Limits.Budget == 0 {
		return ""
	}
	return strconv.FormatFloat(k.Limits.Budget.USD(), 'f', -1, 64)
}

// period is the one that its budget is for.
func (k keyRow) period() string { return cmp.Or(k.Limits.Period, "month") }

// Daily reports whether the budget is one of a day.
func (k keyRow) Daily() bool { return k.Limits.Period == "day" }

// Rates are the limits beside the budget, in words.
func (k keyRow) Rates() []string {
	var all []string
	for _, r := range []struct {
		n    int
		what string
	}{{k.Limits.RequestsPerMinute, "requests a minute"}, {k.Limits.TokensPerMinute, "tokens a minute"},
		{k.Limits.Escalations, "escalations a minute"}, {k.Limits.LabelsPerDay, "labels a day"}} {
		if r.n > 0 {
			all = append(all, count(r.n)+" "+r.what)
		}
	}
	for _, only := range []struct {
		what  string
		names []string
	}{{"models", k.Limits.Models}, {"tasks", k.Limits.Tasks}} {
		if len(only.names) > 0 {
			all = append(all, "only the "+only.what+" "+strings.Join(only.names, ", "))
		}
	}
	if k.Limits.Degrade != "" {
		all = append(all, "then "+k.Limits.Degrade)
	}
	return all
}

// keys loads the list of keys, the valid ones first.
func (d *Dashboard) keys(r *http.Request) (any, error) {
	p, err := d.readKeys(r)
	return p, err
}

func (d *Dashboard) readKeys(r *http.Request) (*keysPage, error) {
	p := &keysPage{May: who(r).role == Admin, Keys: []keyRow{}}
	var all []store.Key
	err := d.Database.View(r.Context(), func(tx *store.Tx) (err error) { all, err = tx.Keys().List(); return err })
	if err != nil {
		return nil, err
	}
	spent, err := d.spentByKey(r.Context())
	if err != nil {
		return nil, err
	}
	for i := range all {
		row := keyRowOf(&all[i])
		row.Spent = spent[row.period()][row.ID]
		p.Keys = append(p.Keys, row)
	}
	slices.SortStableFunc(p.Keys, func(a, b keyRow) int {
		return cmp.Or(cmp.Compare(one(a.Revoked != nil), one(b.Revoked != nil)), b.Created.Compare(a.Created))
	})
	return p, nil
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// keyNames are the names of keys by their identifiers, as far as there are any.
func (d *Dashboard) keyNames(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	if d.Database == nil {
		return names, nil
	}
	var all []store.Key
	err := d.Database.View(ctx, func(tx *store.Tx) (err error) { all, err = tx.Keys().List(); return err })
	for _, k := range all {
		names[k.ID] = k.Name
	}
	return names, err
}

// spentByKey sums up what every key spent today and this month.
func (d *Dashboard) spentByKey(ctx context.Context) (map[string]map[string]dollars, error) {
	spent := map[string]map[string]dollars{}
	for _, period := range []string{"day", "month"} {
		spent[period] = map[string]dollars{}
		q := store.TotalsQuery{Window: store.Window{From: store.PeriodStart(period, d.Now())}, By: []store.Dimension{store.ByKey}}
		totals, err := d.Source.Totals(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, t := range totals {
			spent[period][t.Key] += dollars(t.Cost)
		}
	}
	return spent, nil
}

// key loads the page of one key.
func (d *Dashboard) key(r *http.Request) (any, error) {
	p, err := d.readKeys(r)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(p.Keys, func(k keyRow) bool { return k.ID == r.PathValue("id") })
	if i < 0 {
		return nil, noSuchKey(r.PathValue("id"))
	}
	return &struct {
		keyRow
		May  bool   `json:"-"`
		Done string `json:"-"`
	}{p.Keys[i], p.May, r.FormValue("done")}, nil
}

func noSuchKey(id string) error {
	return &failure{http.StatusNotFound, "There is no key " + quote(short(id)) + ".", "It may be mistyped.", "Look for it in the list of keys."}
}

// createKey makes a key and shows its secret, once.
func (d *Dashboard) createKey(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("name"))
	limits, err := readLimits(r)
	if err == nil && (name == "" || len(name) > 64) {
		err = badInput("A key needs a name of at most 64 characters.", "Name the app that will use it.")
	}
	var key store.Key
	var secret string
	if err == nil {
		err = d.Database.Update(r.Context(), func(tx *store.Tx) (err error) {
			if key, secret, err = tx.Keys().Create(name, "app", limits); err != nil {
				return err
			}
			return logAction(tx, Action{d.Now().UTC(), who(r).name, "made a key", key.ID, name})
		})
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.tellKeys()
	p, err := d.readKeys(r)
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	p.Secret, p.For, p.ID = secret, name, key.ID
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]any{"id": key.ID, "name": name, "secret": secret})
		return
	}
	d.render(w, r, "keys", http.StatusOK, p)
}

// changeKey sets a key's limits, or revokes it for good.
func (d *Dashboard) changeKey(w http.ResponseWriter, r *http.Request) {
	id, do := r.PathValue("id"), r.PostFormValue("do")
	var err error
	switch do {
	case "revoke":
		err = d.changeSeen(r, id, "revoked a key", func(tx *store.Tx, k *store.Key) error {
			if r.PostFormValue("confirm") != k.Name {
				return badInput("The typed name is not the key's.", "Type "+k.Name+" to confirm.")
			}
			return tx.Keys().Revoke(id)
		})
	case "limits":
		var limits store.KeyLimits
		if limits, err = readLimits(r); err == nil {
			err = d.changeSeen(r, id, "changed a key's limits", func(tx *store.Tx, _ *store.Key) error { return tx.Keys().SetLimits(id, limits) })
		}
	default:
		err = badInput("There is no such change.", "Use limits or revoke.")
	}
	if err == nil {
		d.tellKeys()
	}
	switch {
	case err != nil:
		d.fail(w, r, d.explain(r, err))
	case isAPI(r):
		d.reply(w, r, http.StatusOK, map[string]string{"done": do})
	default:
		http.Redirect(w, r, "/keys/"+pathPart(id)+"?done="+do, http.StatusSeeOther)
	}
}

// tellKeys makes a change count at once. It is in the store, so it counts a moment later even when this fails.
func (d *Dashboard) tellKeys() {
	if d.KeysChanged == nil {
		return
	}
	if err := d.KeysChanged(); err != nil {
		d.Log.Error("dashboard: the gateway has not taken in a change of keys yet", "error", err)
	}
}

// changeSeen changes a key if it is still as the caller saw it.
func (d *Dashboard) changeSeen(r *http.Request, id, what string, change func(*store.Tx, *store.Key) error) error {
	return d.Database.Update(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Keys().List()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(k store.Key) bool { return k.ID == id })
		if i < 0 {
			return noSuchKey(id)
		}
		if seen := r.PostFormValue("version"); seen != keyVersion(&all[i]) {
			return &failure{http.StatusConflict, "The key has changed meanwhile.", "Somebody else was quicker.", "Look at it again, and repeat the change if it still makes sense."}
		}
		if err := change(tx, &all[i]); err != nil {
			if errors.Is(err, store.ErrNotFound) {
				return noSuchKey(id)
			}
			return err
		}
		return logAction(tx, Action{d.Now().UTC(), who(r).name, what, id, all[i].Name})
	})
}

// readLimits reads the form of a key: what is left empty is not limited.
func readLimits(r *http.Request) (store.KeyLimits, error) {
	l := store.KeyLimits{Period: cmp.Or(r.PostFormValue("period"), "month"), Degrade: strings.TrimSpace(r.PostFormValue("degrade")),
		Models: names(r.PostFormValue("models")), Tasks: names(r.PostFormValue("tasks"))}
	if l.Period != "day" && l.Period != "month" {
		return l, badInput("There is no period "+quote(short(l.Period))+".", "Use day or month.")
	}
	if text := strings.TrimSpace(r.PostFormValue("budget")); text != "" {
		usd, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(usd) || usd < 0 || usd > 1e9 {
			return l, badInput("The budget "+quote(short(text))+" cannot be read.", "Write dollars, such as 25 or 0.50.")
		}
		l.Budget = cost.FromUSD(usd)
	}
	for name, into := range map[string]*int{"requests_per_minute": &l.RequestsPerMinute, "tokens_per_minute": &l.TokensPerMinute,
		"escalations_per_minute": &l.Escalations, "labels_per_day": &l.LabelsPerDay} {
		text := strings.TrimSpace(r.PostFormValue(name))
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return l, badInput("The limit "+quote(short(text))+" cannot be read.", "Write a whole number, or nothing for no limit.")
		}
		*into = n
	}
	return l, nil
}

// names splits a list that is written with commas.
func names(text string) []string {
	var all []string
	for _, name := range strings.Split(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			all = append(all, name)
		}
	}
	return all
}

package dashboard

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"occam/internal/gateway"
	"occam/internal/store"
)

// settings is the page of the accounts, of what the program was started with, and of who changed what.
type settings struct {
	Accounts      []accountRow        `json:"accounts"`
	Configuration *Configuration      `json:"configuration,omitempty"`
	Models        []gateway.Abilities `json:"models,omitempty"`
	Actions       []Action            `json:"actions"` // newest first
	Login         bool                `json:"login"`
	May           bool                `json:"-"`
	You           string              `json:"-"`
	Secret        string              `json:"password,omitempty"` // of an account just made, shown once
	For           string              `json:"account,omitempty"`
}

type accountRow struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Version int64  `json:"version"` // counts changes: a change names the version that its giver saw
}

// settings loads the page.
func (d *Dashboard) settings(r *http.Request) (any, error) {
	s, err := d.readSettings(r)
	return s, err
}

func (d *Dashboard) readSettings(r *http.Request) (*settings, error) {
	all, err := listAccounts(r.Context(), d.Database)
	if err != nil {
		return nil, err
	}
	s := &settings{May: who(r).role == Admin, You: who(r).name, Login: d.Login, Accounts: []accountRow{}}
	for _, a := range all {
		s.Accounts = append(s.Accounts, accountRow{a.name, a.role.String(), a.version})
	}
	if d.Configuration != nil {
		c := d.Configuration()
		s.Configuration = &c
	}
	if d.Abilities != nil {
		if s.Models, err = d.Abilities(r.Context()); err != nil {
			return nil, err
		}
	}
	err = d.Database.View(r.Context(), func(tx *store.Tx) (err error) { s.Actions, err = listActions(tx, actionsShown); return err })
	return s, err
}

// changeAccount creates, changes or removes an account. A new password is shown once.
func (d *Dashboard) changeAccount(w http.ResponseWriter, r *http.Request) {
	change, err := readAccountChange(r)
	secret := ""
	if err == nil {
		change.by, change.at = who(r).name, d.Now().UTC()
		secret, err = changeAccount(r.Context(), d.Database, change)
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.sessions.endAll(change.name)
	s, err := d.readSettings(r)
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	s.Secret, s.For = secret, change.name
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]any{"account": change.name, "password": secret})
		return
	}
	d.render(w, r, "settings", http.StatusOK, s)
}

func readAccountChange(r *http.Request) (accountChange, error) {
	c := accountChange{name: strings.TrimSpace(r.PostFormValue("name")), remove: r.PostFormValue("do") == "remove", seen: -1,
		create: r.PostFormValue("do") == "create", keepRole: r.PostFormValue("do") == "reset"}
	if text := r.PostFormValue("version"); text != "" {
		seen, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return c, badInput("The version cannot be read.", "Send that of the account as it was seen.")
		}
		c.seen = seen
	}
	if c.remove || c.keepRole {
		return c, nil
	}
	role, known := parseRole(r.PostFormValue("role"))
	if !known {
		return c, badInput("There is no such role.", "Use viewer, reviewer or admin.")
	}
	c.role = role
	return c, nil
}

// changePassword gives the caller a password of their own choice.
func (d *Dashboard) changePassword(w http.ResponseWriter, r *http.Request) {
	caller := who(r)
	if !d.sessions.mayTry(r, caller.name) {
		d.fail(w, r, tooManyTries())
		return
	}
	account, err := d.sessions.check(r.Context(), d.Database, caller.name, r.PostFormValue("old"))
	if err == nil && account.role == Nobody {
		err = &failure{http.StatusForbidden, "The present password is not right.", "It is asked for so that nobody else can change it.", "Try again."}
	}
	if err == nil {
		err = checkNewPassword(r.PostFormValue("new"))
	}
	if err == nil {
		_, err = changeAccount(r.Context(), d.Database, accountChange{name: caller.name, keepRole: true, password: r.PostFormValue("new"), seen: -1,
			by: cmp.Or(caller.name, "?"), at: d.Now().UTC()})
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.sessions.endAll(caller.name)
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]string{"done": "password"})
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

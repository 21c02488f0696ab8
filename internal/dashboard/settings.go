package dashboard

import (
	"net/http"
	"time"
)

// settings is the page of the accounts. What the configuration file holds is not changed here.
type settings struct {
	Accounts []accountRow `json:"accounts"`
	May      bool         `json:"-"`
	You      string       `json:"-"`
	Secret   string       `json:"password,omitempty"` // of an account just made, shown once
	For      string       `json:"account,omitempty"`
}

type accountRow struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// settings loads the list of accounts.
func (d *dashboard) settings(r *http.Request) (any, error) {
	s, err := d.readSettings(r)
	return s, err
}

func (d *dashboard) readSettings(r *http.Request) (*settings, error) {
	all, err := listAccounts(r.Context(), d.Database)
	if err != nil {
		return nil, err
	}
	s := &settings{May: who(r).role == Admin, You: who(r).name}
	for _, a := range all {
		s.Accounts = append(s.Accounts, accountRow{a.name, a.role.String()})
	}
	return s, nil
}

// changeAccount creates, changes or removes an account. A new password is shown once.
func (d *dashboard) changeAccount(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	secret, err := "", error(nil)
	switch role, known := parseRole(r.PostFormValue("role")); {
	case r.PostFormValue("do") == "remove":
		err = removeAccount(r.Context(), d.Database, name)
	case known:
		secret, err = SetAccount(r.Context(), d.Database, name, role, "")
	default:
		err = badInput("There is no such role.", "Use viewer, reviewer or admin.")
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.sessions.endAll(name)
	d.Log.Info("dashboard: an account was changed", "account", name, "by", who(r).name, "at", d.Now().UTC().Format(time.RFC3339))
	s, err := d.readSettings(r)
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	s.Secret, s.For = secret, name
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, s)
		return
	}
	d.render(w, r, "settings", http.StatusOK, s)
}

// changePassword gives the caller a password of their own choice.
func (d *dashboard) changePassword(w http.ResponseWriter, r *http.Request) {
	caller := who(r)
	if !d.sessions.mayTry(r, caller.name) {
		d.fail(w, r, tooManyTries())
		return
	}
	role, err := d.sessions.check(r.Context(), d.Database, caller.name, r.PostFormValue("old"))
	if err == nil && role == Nobody {
		err = &failure{http.StatusForbidden, "The present password is not right.", "It is asked for so that nobody else can change it.", "Try again."}
	}
	if err == nil {
		_, err = SetAccount(r.Context(), d.Database, caller.name, role, r.PostFormValue("new"))
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.sessions.endAll(caller.name)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

package dashboard

import (
	"net/http"
	"strings"

	"occam/internal/gateway"
)

// A Route is one address of the dashboard, with the least role that may use it.
type Route struct {
	Method string `json:"method"`
	Path   string `json:"path"` // as http.ServeMux takes it
	Least  Role   `json:"-"`
	Role   string `json:"role"`
	Does   string `json:"does"`          // in a few words
	CLI    string `json:"cli,omitempty"` // the command that does the same; "" for what only a browser needs

	handler http.Handler
}

func (r Route) pattern() string { return r.Method + " " + r.Path }

// Routes lists every address, so that documents and tests can be held against it.
func (d *Dashboard) Routes() []Route { return d.routes() }

// routes is every address of the dashboard. Whatever a page shows or does, the API does under /api.
func (d *Dashboard) routes() []Route {
	all := d.readRoutes()
	all = append(all, d.changeRoutes()...)
	browser := func(method, path string, least Role, does string, h http.Handler) {
		all = append(all, Route{Method: method, Path: path, Least: least, Does: does, handler: h})
	}
	browser("GET", "/events", Viewer, "says, as server-sent events, when something changed", http.HandlerFunc(d.events))
	browser("GET", "/assets/{file}", Nobody, "style, script and icon", http.HandlerFunc(d.pages.asset))
	browser("GET", "/login", Nobody, "the form to log in", d.page("login", d.loginForm))
	browser("POST", "/login", Nobody, "logs in", http.HandlerFunc(d.login))
	browser("POST", "/logout", Viewer, "logs out", http.HandlerFunc(d.logout))
	browser("GET", "/", Viewer, "what is at no other address", d.page("", notHere))
	for i := range all {
		all[i].Role = all[i].Least.String()
	}
	return all
}

// readRoutes show something, as a page and as JSON.
func (d *Dashboard) readRoutes() []Route {
	var all []Route
	tell := func(path string, load loader, does, cli string) {
		all = append(all, Route{Method: "GET", Path: path, Least: Viewer, Does: does, CLI: cli, handler: d.api(load)})
	}
	show := func(path, page string, load loader, does, cli string) {
		all = append(all, Route{Method: "GET", Path: path, Least: Viewer, Does: does, CLI: cli, handler: d.page(page, load)})
		if path == "/{$}" {
			path = "/overview"
		}
		tell("/api"+path, load, does, cli)
	}
	show("/{$}", "overview", d.overview, "what a month saved or lost", "occam report")
	show("/requests", "requests", d.requests, "requests, newest first", "occam requests list")
	show("/requests/{id}", "request", d.request, "the story of one request", "occam requests show")
	show("/tasks/{name}", "task", d.task, "one task", "occam tasks show")
	show("/spend", "spend", d.spend, "a month's money, forecast, advice", "occam report")
	show("/ledger", "ledger", d.ledger, "how complete and intact the ledger is", "occam ledger verify")
	show("/breakeven", "breakeven", d.breakEven, "when a specialist pays", "occam breakeven")
	if d.Groups != nil {
		show("/groups", "groups", d.groups, "jobs in the traffic that are no task yet", "occam tasks discover")
	}
	if d.CheckData != nil {
		show("/tasks/{name}/data", "data", d.dataPage, "what the last data check found", "occam tasks check")
	}
	if d.Database != nil {
		show("/review", "review", d.review, "the next text of the review queue", "occam review next")
		show("/keys", "keys", d.keys, "virtual keys with their limits", "occam keys list")
		show("/keys/{id}", "key", d.key, "one virtual key", "occam keys list")
		show("/settings", "settings", d.settings, "accounts, configuration, log of changes", "occam settings")
	}
	if d.Batches != nil {
		show("/batches", "batches", d.batches, "offline batches and how far they are", "occam batches list")
	}
	if d.Abilities != nil {
		tell("/api/models", d.models, "what the models really support, as self-tests found", "occam doctor")
	}
	tell("/api/tasks", d.tasks, "all tasks", "occam tasks list")
	tell("/api/{$}", d.listRoutes, "this list", "occam settings")
	return all
}

// changeRoutes change something, from a form and from a program.
func (d *Dashboard) changeRoutes() []Route {
	var all []Route
	change := func(path string, least Role, do http.HandlerFunc, does, cli string) {
		all = append(all, Route{Method: "POST", Path: path, Least: least, Does: does, CLI: cli, handler: do},
			Route{Method: "POST", Path: "/api" + path, Least: least, Does: does, CLI: cli, handler: do})
	}
	change("/tasks/{name}/command", Admin, d.command, "promotes, rolls back, pauses or resumes a task", "occam models promote")
	if d.CancelTraining != nil {
		change("/tasks/{name}/cancel-training", Admin, d.cancelTraining, "ends a task's training run", "occam tasks cancel-training")
	}
	change("/ledger/verify", Admin, d.verify, "checks the whole ledger", "occam ledger verify")
	change("/ledger/invoice", Admin, d.reconcile, "compares a provider's invoice with the ledger", "occam report --invoice")
	if d.MakeTask != nil {
		change("/groups/{id}", Admin, d.makeTask, "makes a discovered job a task", "occam tasks discover --make")
	}
	if d.CheckData != nil {
		change("/tasks/{name}/data", Admin, d.startDataCheck, "starts a check of a task's examples", "occam tasks check")
	}
	if d.Database != nil {
		change("/review/{id}", Reviewer, d.judge, "answers or skips a text of the review queue", "occam review answer")
		change("/keys", Admin, d.createKey, "makes a virtual key; its secret is shown once", "occam keys create")
		change("/keys/{id}", Admin, d.changeKey, "changes a key's limits, or revokes it", "occam keys revoke")
	}
	if d.CancelBatch != nil {
		change("/batches/{id}", Admin, d.cancelBatch, "stops a batch", "occam batches cancel")
	}
	if d.Login {
		change("/settings/accounts", Admin, d.changeAccount, "creates, changes or removes an account", "occam accounts add")
		change("/settings/password", Viewer, d.changePassword, "changes the caller's own password", "occam accounts reset-password")
	}
	return all
}

func (d *Dashboard) listRoutes(*http.Request) (any, error) {
	var api []Route
	for _, r := range d.routes() {
		if strings.HasPrefix(r.Path, "/api/") {
			api = append(api, r)
		}
	}
	return map[string][]Route{"routes": api}, nil
}

func (d *Dashboard) models(r *http.Request) (any, error) {
	found, err := d.Abilities(r.Context())
	return map[string][]gateway.Abilities{"models": found}, err
}

func notHere(r *http.Request) (any, error) {
	return nil, &failure{http.StatusNotFound, "There is no page at " + r.URL.Path, "The address may be mistyped, or the page was never there.",
		"Go to the overview."}
}

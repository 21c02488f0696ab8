// Package dashboard shows people what occam does with their requests and money: a server-rendered web UI that reads well
// without JavaScript, and the same data as a JSON API. It decides nothing and keeps nothing: it reads the ledger through
// Source and asks the caller for the tasks.
package dashboard

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"occam/internal/calibration"
	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
	"occam/internal/task"
)

// A Source is the ledger, as far as the dashboard reads it. *store.Store is one.
type Source interface {
	Totals(ctx context.Context, q store.TotalsQuery) ([]store.Total, error)
	Requests(ctx context.Context, f store.Filter, cursor string) ([]store.Request, string, error)
	Request(ctx context.Context, id string) (_ store.Request, ok bool, err error)
	Counts(ctx context.Context) (store.Counts, error)
	LatencyQuantiles(ctx context.Context, w store.Window, task, tier, model string) (store.Quantiles, error)
}

var _ Source = (*store.Store)(nil)

// A TaskView is what the caller knows of one task now.
type TaskView struct {
	Name       string       `json:"name"`
	Version    int64        `json:"version,omitempty"` // of the state: a command names the one that its giver saw
	Generalist string       `json:"generalist"`
	Fields     []task.Field `json:"fields"`
	Target     task.Target  `json:"target"`
	State      string       `json:"state"`                // observing, candidate, shadow, canary, live, suspended
	Note       string       `json:"note,omitempty"`       // why it is in this state, in a sentence
	Since      time.Time    `json:"since,omitzero"`       // when it came into this state
	Tiers      []TierView   `json:"tiers,omitempty"`      // cheapest first, the generalist not among them
	Commands   []string     `json:"commands,omitempty"`   // what a person may tell it now: promote, rollback, pause, resume
	Confusions []Confusion  `json:"confusions,omitempty"` // most frequent first
	Audits     []AuditDay   `json:"audits,omitempty"`     // oldest first
	Alarm      string       `json:"alarm,omitempty"`      // what drift detection says, in a sentence
}

// A Confusion is a pair of answers that are mistaken for each other, on the locked test set.
type Confusion struct {
	Field  string `json:"field"`
	Truth  string `json:"truth"`
	Answer string `json:"answer"`
	Count  int    `json:"count"`
}

// An AuditDay is a day's audits of one task.
type AuditDay struct {
	Day    time.Time `json:"day"`
	Audits int       `json:"audits"`
	Wrong  int       `json:"wrong"`
}

// A TierView is one specialist of a task.
type TierView struct {
	Name        string                   `json:"name"`
	Model       string                   `json:"model"` // as the ledger's Attempt.Model names it
	Mode        string                   `json:"mode"`  // off, shadow, canary, live, suspended
	Bytes       int64                    `json:"bytes,omitempty"`
	Certificate *calibration.Certificate `json:"certificate,omitempty"` // nil: it may not answer
	Shortfall   string                   `json:"shortfall,omitempty"`   // why there is no certificate
	// MinConfidence is the calibrated confidence at the certificate's threshold, 0 when it is not known.
	MinConfidence float64             `json:"min_confidence,omitempty"`
	Curve         []calibration.Point `json:"curve,omitempty"`      // observed, on the calibration rows
	Evaluation    *Evaluation         `json:"evaluation,omitempty"` // on the locked test set; nil: not evaluated
}

// An Evaluation is what a specialist scored on rows that neither training nor calibration saw.
type Evaluation struct {
	Rows        int           `json:"rows"`
	Right       int           `json:"right"`        // every field right
	Served      int           `json:"served"`       // rows that its certificate lets it answer
	ServedRight int           `json:"served_right"` // right among them
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
}

// Options of New. Source is required.
type Options struct {
	Source Source
	// Tasks returns the tasks as they are now. It is called on every page and every second while somebody looks, so it must
	// be quick. nil: there are none.
	Tasks func(context.Context) ([]TaskView, error)
	// Hosts are the names, besides those of the loopback interface, under which browsers may reach the dashboard.
	Hosts   []string
	Version string           // of the program, shown at the foot
	Now     func() time.Time // default time.Now
	Log     *slog.Logger     // default discards
	// Database holds the accounts, the review queue and the tasks' history. nil: the pages about them are left out.
	Database Database
	// Login asks everybody for an account, which needs a Database. Without it only this machine may look.
	Login bool
	// Book returns the prices in force. nil: those built into the program.
	Book func() *cost.Book
	// Charges are what servers, training and labels cost in a window, beside the attempts that rows sum up. nil: nothing.
	Charges func(rows []finops.Row, w store.Window) ([]finops.Charge, error)
	// Verifier checks the whole ledger, as store.Store's Verify does. nil: the page has no such button.
	Verifier func(context.Context) (store.Report, error)
	// Command carries out what a person told a task: one of its TaskView.Commands, for the TaskView.Version that the person saw.
	// When the task moved since it must refuse. nil: the pages have no such buttons.
	Command func(ctx context.Context, task, command, actor string, version int64) error
	// Groups returns the jobs that were found in traffic that belongs to no task, and MakeTask makes one a task. nil: neither is
	// offered.
	Groups   func(context.Context) ([]Group, error)
	MakeTask func(context.Context, Making) error
	// Done ends the live updates when it is closed, so that a server can shut down. nil: they last as long as the browser.
	Done <-chan struct{}
}

type dashboard struct {
	Options
	pages *pages
	pulse pulse
	hosts map[string]bool

	sessions *sessions
	checks   checks
}

// New returns the dashboard's pages and its JSON API.
func New(o Options) http.Handler {
	if o.Source == nil {
		panic("dashboard: New without a Source")
	}
	if o.Login && o.Database == nil {
		panic("dashboard: a login without a Database of accounts")
	}
	if o.Tasks == nil {
		o.Tasks = func(context.Context) ([]TaskView, error) { return nil, nil }
	}
	if o.Book == nil {
		o.Book = cost.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &dashboard{Options: o, pages: parsePages(), hosts: map[string]bool{}, sessions: newSessions(o.Now)}
	for _, h := range o.Hosts {
		d.hosts[strings.ToLower(h)] = true
	}
	mux := http.NewServeMux()
	for _, r := range d.routes() {
		mux.Handle(r.pattern, d.allow(r))
	}
	return d.guard(http.NewCrossOriginProtection().Handler(mux))
}

// A route is one address with the least role that may use it.
type route struct {
	pattern string
	least   Role
	handler http.Handler
}

// routes is every address of the dashboard.
func (d *dashboard) routes() []route {
	all := []route{
		{"GET /{$}", Viewer, d.page("overview", d.overview)},
		{"GET /requests", Viewer, d.page("requests", d.requests)},
		{"GET /requests/{id}", Viewer, d.page("request", d.request)},
		{"GET /tasks/{name}", Viewer, d.page("task", d.task)},
		{"GET /spend", Viewer, d.page("spend", d.spend)},
		{"GET /api/spend", Viewer, d.api(d.spend)},
		{"GET /ledger", Viewer, d.page("ledger", d.ledger)},
		{"GET /api/ledger", Viewer, d.api(d.ledger)},
		{"POST /ledger/verify", Admin, http.HandlerFunc(d.verify)},
		{"POST /api/ledger/verify", Admin, http.HandlerFunc(d.verify)},
		{"POST /ledger/invoice", Admin, http.HandlerFunc(d.reconcile)},
		{"POST /api/ledger/invoice", Admin, http.HandlerFunc(d.reconcile)},
		{"GET /breakeven", Viewer, d.page("breakeven", d.breakEven)},
		{"GET /api/breakeven", Viewer, d.api(d.breakEven)},
		{"GET /api/overview", Viewer, d.api(d.overview)},
		{"GET /api/requests", Viewer, d.api(d.requests)},
		{"GET /api/requests/{id}", Viewer, d.api(d.request)},
		{"GET /api/tasks", Viewer, d.api(d.tasks)},
		{"GET /api/tasks/{name}", Viewer, d.api(d.task)},
		{"POST /tasks/{name}/command", Admin, http.HandlerFunc(d.command)},
		{"POST /api/tasks/{name}/command", Admin, http.HandlerFunc(d.command)},
		{"GET /api/groups", Viewer, d.api(d.groups)},
		{"POST /groups/{id}", Admin, http.HandlerFunc(d.makeTask)},
		{"POST /api/groups/{id}", Admin, http.HandlerFunc(d.makeTask)},
		{"GET /events", Viewer, http.HandlerFunc(d.events)},
		{"GET /assets/{file}", Nobody, http.HandlerFunc(d.pages.asset)},
		{"GET /login", Nobody, d.page("login", d.loginForm)},
		{"POST /login", Nobody, http.HandlerFunc(d.login)},
		{"POST /logout", Viewer, http.HandlerFunc(d.logout)},
		{"GET /", Viewer, d.page("", notHere)},
	}
	if d.Database != nil {
		all = append(all, route{"GET /review", Viewer, d.page("review", d.review)}, route{"GET /api/review", Viewer, d.api(d.review)},
			route{"POST /review/{id}", Reviewer, http.HandlerFunc(d.judge)}, route{"POST /api/review/{id}", Reviewer, http.HandlerFunc(d.judge)})
	}
	if d.Login {
		all = append(all, route{"GET /settings", Viewer, d.page("settings", d.settings)}, route{"GET /api/settings", Viewer, d.api(d.settings)},
			route{"POST /settings/accounts", Admin, http.HandlerFunc(d.changeAccount)},
			route{"POST /api/settings/accounts", Admin, http.HandlerFunc(d.changeAccount)},
			route{"POST /settings/password", Viewer, http.HandlerFunc(d.changePassword)})
	}
	return all
}

func notHere(r *http.Request) (any, error) {
	return nil, &failure{http.StatusNotFound, "There is no page at " + r.URL.Path, "The address may be mistyped, or the page was never there.",
		"Go to the overview."}
}

// Package dashboard shows people what occam does with their requests and money: a server-rendered web UI that reads well
// without JavaScript, and the same data as a JSON API. It decides nothing and keeps nothing: it reads the ledger through
// Source and asks the caller for the tasks.
package dashboard

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/finops"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

// A Totaller sums up the ledger.
type Totaller interface {
	Totals(ctx context.Context, q store.TotalsQuery) ([]store.Total, error)
}

// A Source is the ledger, as far as the dashboard reads it. *store.Store is one.
type Source interface {
	Totaller
	Requests(ctx context.Context, f store.Filter, cursor string) ([]store.Request, string, error)
	Request(ctx context.Context, id string) (_ store.Request, ok bool, err error)
	Counts(ctx context.Context) (store.Counts, error)
	Heads(ctx context.Context) ([]store.ChainHead, error)
	LatencyQuantiles(ctx context.Context, w store.Window, task, tier, model string) (store.Quantiles, error)
}

var _ Source = (*store.Store)(nil)

// A TaskView is what the caller knows of one task now.
type TaskView struct {
	Name       string       `json:"name"`
	Version    int64        `json:"version"` // counts changes of the state: a command names the version that its giver saw
	Generalist string       `json:"generalist"`
	Fields     []task.Field `json:"fields"`
	Target     task.Target  `json:"target"`
	State      string       `json:"state"` // observing, candidate, shadow, canary, live, suspended
	Paused     bool         `json:"paused,omitempty"`
	Note       string       `json:"note,omitempty"`     // why it is in this state, in a sentence
	Next       string       `json:"next,omitempty"`     // what happens next, or what a person can do; commands stand in backticks
	Since      time.Time    `json:"since,omitzero"`     // when it came into this state
	Warnings   []Warning    `json:"warnings,omitempty"` // the worst first
	Tiers      []TierView   `json:"tiers,omitempty"`    // cheapest first, the generalist not among them
	Training   Training     `json:"training,omitzero"`
	Commands   []string     `json:"commands,omitempty"`   // what a person may tell it now: promote, rollback, pause, resume
	Confusions []Confusion  `json:"confusions,omitempty"` // most frequent first
	Audits     []AuditDay   `json:"audits,omitempty"`     // oldest first
	// Outside counts the generalist's answers that the task's schema does not hold, in a random sample since the last alarm.
	Outside lifecycle.OutsideCount `json:"outside,omitzero"`
	// Choice is every plan that was considered for the task, with its price and verdict. nil: none was made yet.
	Choice *cascade.Choice `json:"plans,omitempty"`
}

// A Warning is something that a person should know about a task.
type Warning struct {
	Text string `json:"text"` // plain words, without the task's name
	Bad  bool   `json:"bad"`  // it costs money or accuracy now
}

// A Training is how far a training run in this process is, and what became of the last one.
type Training struct {
	Stage  string    `json:"stage,omitempty"` // in words; "" none runs here
	Share  float64   `json:"share,omitempty"` // of the stage that is done
	Waits  string    `json:"waits,omitempty"` // why none runs, in words
	Runs   int       `json:"runs,omitempty"`  // that looked for a certificate so far
	At     time.Time `json:"at,omitzero"`     // when the last one began
	Why    string    `json:"why,omitempty"`
	Result string    `json:"result,omitempty"`
	// Needed is how many labelled requests, drawn at random, a certificate takes, where the last run lacked some. Have is how many there are.
	Needed     int64  `json:"needed,omitempty"`
	Have       int64  `json:"have,omitempty"`
	Arithmetic string `json:"arithmetic,omitempty"` // how Needed comes about
}

// Missing is how many labelled requests a certificate still takes.
func (t Training) Missing() int64 { return max(0, t.Needed-t.Have) }

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
	Shortfall   string                   `json:"shortfall,omitempty"`   // why there is no certificate, or why it does not hold
	Reserve     bool                     `json:"reserve,omitempty"`     // it belongs to the model that answers until the newer one before it may
	// Evidence is what audits say of its answers since; nil where it has none.
	Evidence *lifecycle.EvidenceStatus `json:"evidence,omitempty"`
	// Truth is agreement with the teacher beside accuracy against people's labels; nil where no model taught it.
	Truth *calibration.Truth `json:"truth,omitempty"`
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
	Charges func(ctx context.Context, rows []finops.Row, w store.Window) ([]finops.Charge, error)
	// Verifier checks the whole ledger, as store.Store's Verify does. nil: the page has no such button.
	Verifier func(context.Context) (store.Report, error)
	// Command carries out what a person told a task: one of its TaskView.Commands, for the TaskView.Version that the person
	// saw. An error that wraps ErrStale says that the task has moved since. nil: the pages have no such buttons.
	Command func(ctx context.Context, o Order) error
	// CancelTraining ends a task's training run, queued or under way, and returns its job; an error says that there is none. nil: no such
	// button.
	CancelTraining func(ctx context.Context, task string) (job string, err error)
	// Groups lists the jobs found in traffic that belongs to no task, and MakeTask turns one into a task. nil: no such page.
	Groups   func(context.Context) ([]lifecycle.Group, error)
	MakeTask func(context.Context, lifecycle.Making) error
	// Explain says what spoke for and against what a task's model, as the ledger names it, answers to a text, and which training
	// examples are most like it where the model's file holds some. nil: stories are without it.
	Explain func(ctx context.Context, task, model, text string) (*engine.Explanation, error)
	// CheckData looks for wrong labels among a task's examples; it may take minutes. nil: no such page.
	CheckData func(ctx context.Context, task string, progress func(stage string, done, total int)) (*lifecycle.DataCheck, error)
	// Abilities are what self-tests found of the models that the configuration names. nil: no such address.
	Abilities func(context.Context) ([]gateway.Abilities, error)
	// Batches lists the offline batches, newest first, and CancelBatch stops one. nil: there are none.
	Batches     func(context.Context) ([]BatchView, error)
	CancelBatch func(ctx context.Context, id string) error
	// KeysChanged makes a change of keys count from the next request on. nil: it counts a moment later.
	KeysChanged func() error
	// Configuration is what the program was started with. nil: the settings leave it out.
	Configuration func() Configuration
	// Done ends the live updates when it is closed, so that a server can shut down. nil: they last as long as the browser.
	Done <-chan struct{}
}

// An Order is what a person told a task.
type Order struct {
	Task    string
	Command string
	Model   string // with promote: beginning of the hash of another stored model, which becomes the candidate; "" none
	By      string
	Version int64 // of the task as the person saw it
}

// A Configuration is what the program was started with, for people.
type Configuration struct {
	YAML      string        `json:"yaml"` // with every secret masked
	Capture   bool          `json:"capture"`
	Retention time.Duration `json:"retention_ns"`
	Redact    string        `json:"redact,omitempty"` // what is taken out of texts before they are stored, "" nothing
	Hosts     []string      `json:"hosts,omitempty"`
}

// ErrStale says that a command was given for a state that is no more: somebody else was quicker.
var ErrStale = lifecycle.ErrStale

// A Dashboard serves the pages and the JSON API. The zero value is of no use: see New.
type Dashboard struct {
	Options
	pages  *pages
	pulse  pulse
	hosts  map[string]bool
	mux    *http.ServeMux
	public http.Handler

	sessions *sessions
	checks   checks
	data     dataChecks
}

// New returns the dashboard's pages and its JSON API.
func New(o Options) *Dashboard {
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
	d := &Dashboard{Options: o, pages: parsePages(), hosts: map[string]bool{}, sessions: newSessions(o.Now), mux: http.NewServeMux()}
	for _, h := range o.Hosts {
		d.hosts[strings.ToLower(h)] = true
	}
	for _, r := range d.routes() {
		d.mux.Handle(r.pattern(), d.allow(r))
	}
	d.public = d.guard(http.NewCrossOriginProtection().Handler(d.mux))
	return d
}

// ServeHTTP serves browsers and programs, who must log in where there is a login.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.public.ServeHTTP(w, r) }

// OperatorHeader names, on Trusted, the person who makes a request.
const OperatorHeader = "X-Occam-Operator"

// Trusted serves the same routes to whoever reaches it, as an admin: it is for the command line, behind a socket that only the
// owner of the data can open. Never give it to a network.
func (d *Dashboard) Trusted() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := session{name: cmp.Or(r.Header.Get(OperatorHeader), "operator"), role: Admin}
		d.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, caller)))
	})
}

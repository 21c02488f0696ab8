package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/calibration"
	"occam/internal/finops"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

type taskList struct {
	Tasks []TaskView `json:"tasks"`
}

// tasks lists every task that the caller knows.
func (d *Dashboard) tasks(r *http.Request) (any, error) {
	views, err := d.Tasks(r.Context())
	return taskList{views}, err
}

// taskPage is one task: where it stands, what its specialists can do, what became of it so far.
type taskPage struct {
	TaskView
	Month    account      `json:"this_month"`
	States   []stateStep  `json:"-"`
	Curves   []*lineChart `json:"-"` // one a tier, nil where there is none
	Audited  *lineChart   `json:"-"`
	History  []step       `json:"history,omitempty"`
	Versions []version    `json:"versions,omitempty"`
	Plan     []planRow    `json:"cascade"`
	Run      string       `json:"training_run,omitempty"` // "queued", "running", "": there is none; on whichever replica
	Data     bool         `json:"-"`                      // its examples can be checked
	MayEnd   bool         `json:"-"`                      // its training run
	MayAct   bool         `json:"-"`
	Done     string       `json:"-"` // the command that was just carried out
}

// A stateStep is one state in the row of states.
type stateStep struct {
	Name       string
	Here, Past bool
}

// A step is one change of the task's state.
type step struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
}

// A version is one trained model of the task.
type version struct {
	ID        string    `json:"id"`
	Tier      string    `json:"tier"`
	Hash      string    `json:"hash"`
	Bytes     int64     `json:"bytes,omitempty"`
	Created   time.Time `json:"created"`
	Certified bool      `json:"certified"`
	InUse     bool      `json:"in_use"`
	Note      string    `json:"note,omitempty"` // why it was taken or refused
}

// taskStates are the states of a task in the order of a specialist's life.
var taskStates = []string{"observing", "candidate", "shadow", "canary", "live"}

// findTask returns the task that an address names.
func (d *Dashboard) findTask(r *http.Request) (*TaskView, error) {
	views, err := d.Tasks(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(views, func(v TaskView) bool { return v.Name == name })
	if i < 0 {
		return nil, &failure{http.StatusNotFound, "There is no task " + quote(short(name)) + ".",
			"It is not in the configuration, though the ledger may still hold its requests.", "Go to the overview for the list of tasks."}
	}
	return &views[i], nil
}

// task loads one task's page.
func (d *Dashboard) task(r *http.Request) (any, error) {
	view, err := d.findTask(r)
	if err != nil {
		return nil, err
	}
	now := d.Now().UTC()
	p := &taskPage{TaskView: *view, MayAct: d.Command != nil && who(r).role == Admin, Done: r.URL.Query().Get("done")}
	p.MayEnd = d.CancelTraining != nil && who(r).role == Admin
	month := store.Month(now.Year(), now.Month())
	rows, charges, err := d.rows(r.Context(), month, store.ByDay)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r finops.Row) bool { return r.Task != view.Name })
	charges = slices.DeleteFunc(charges, func(c finops.Charge) bool { return c.Task != view.Name })
	statement := finops.Prove(month.From, month.To, rows, charges)
	p.Month.prove(&statement)
	for i := range rows {
		p.Month.count(&rows[i])
	}
	p.States = statesOf(view.State)
	for i := range view.Tiers {
		p.Curves = append(p.Curves, riskCurve(&view.Tiers[i], i))
	}
	p.Audited = auditChart(view)
	p.Data = d.CheckData != nil
	if p.Plan, err = d.plan(r.Context(), view, rows, month); err != nil {
		return nil, err
	}
	return p, d.fillPast(r.Context(), p)
}

func statesOf(state string) []stateStep {
	var all []stateStep
	here := slices.Index(taskStates, state)
	for i, name := range taskStates {
		all = append(all, stateStep{name, i == here, i < here})
	}
	if here < 0 && state != "" {
		all = append(all, stateStep{Name: state, Here: true})
	}
	return all
}

// fillPast reads the task's history and its models, where there is a database of them.
func (d *Dashboard) fillPast(ctx context.Context, p *taskPage) error {
	if d.Database == nil {
		return nil
	}
	return d.Database.View(ctx, func(tx *store.Tx) error {
		history, err := tx.Tasks().History(p.Name, 50)
		if err != nil {
			return err
		}
		for _, t := range history {
			p.History = append(p.History, step{t.At, t.From, t.To, t.Reason, t.Actor})
		}
		job, _, err := lifecycle.TrainingJob(tx, p.Name)
		if err != nil {
			return err
		}
		p.Run = job.State
		models, err := tx.Models().List(p.Name)
		if err != nil {
			return err
		}
		for _, m := range models {
			p.Versions = append(p.Versions, p.versionOf(m))
		}
		return nil
	})
}

// HasNext reports whether a promotion needs no choice: a model is on its way.
func (p *taskPage) HasNext() bool { return slices.Contains(p.Commands, "promote") }

// Waits is why no training run is under way, where the task's outlook does not say it already.
func (p *taskPage) Waits() string {
	if strings.Contains(p.Next, p.Training.Waits) {
		return ""
	}
	return p.Training.Waits
}

// Others are the certified models that a person may promote in the place of what is next.
func (p *taskPage) Others() []version {
	var all []version
	for _, v := range p.Versions {
		if v.Certified && !v.InUse {
			all = append(all, v)
		}
	}
	return all
}

// Offered are the commands of the form: what the task takes now, and a choice among other models.
func (p *taskPage) Offered() []string {
	if len(p.Others()) > 0 && !p.HasNext() {
		return append([]string{"promote"}, p.Commands...)
	}
	return p.Commands
}

// versionOf reads the report that the lifecycle keeps beside a model.
func (p *taskPage) versionOf(m store.Model) version {
	var report struct {
		Specialist, Refusal, Reason string
	}
	_ = json.Unmarshal(m.Report, &report) // an empty one says nothing
	v := version{ID: m.ID, Tier: m.Tier, Hash: m.Hash, Bytes: m.Bytes, Created: m.Created, Certified: len(m.Certificate) > 0, Note: cmp.Or(report.Refusal, report.Reason)}
	if report.Refusal != "" {
		v.Note = "refused: " + report.Refusal
	}
	weights := p.Name + "@" + report.Specialist[:min(8, len(report.Specialist))]
	v.InUse = slices.ContainsFunc(p.Tiers, func(t TierView) bool { return t.Model == m.ID || report.Specialist != "" && t.Model == weights })
	return v
}

// riskCurve draws the observed risk against the coverage, with the target and the certified point. Its observed points prove
// nothing by themselves: the whisker up to the certificate's bound does.
func riskCurve(t *TierView, n int) *lineChart {
	if len(t.Curve) < 2 {
		return nil
	}
	system := t.Certificate != nil && t.Certificate.Promise == calibration.System
	l := line{Name: "wrong among the answers it would give", Series: 0}
	if system {
		l.Name = "answered by it and wrong"
	}
	top := 0.0
	for _, p := range t.Curve {
		y := p.Served
		if system {
			y = p.System
		}
		l.Points = append(l.Points, xy{p.Coverage, y})
		top = max(top, y)
	}
	slices.SortFunc(l.Points, func(a, b xy) int { return cmp.Compare(a.X, b.X) })
	c := &lineChart{ID: fmt.Sprintf("risk-%d", n), Title: "Risk against coverage", Lines: []line{l},
		X: axis{Name: "share of requests it answers", Max: 1, Ticks: []float64{0, 0.25, 0.5, 0.75, 1}, Format: axisPercent}}
	c.Description = "Observed risk of the specialist for every share of requests that it could answer."
	if k := t.Certificate; k != nil {
		top = max(top, k.Risk, k.Upper)
		observed := k.Errors
		d := dot{X: k.Coverage, High: k.Upper}
		if k.Accepted > 0 {
			d.Y = float64(observed) / float64(k.Accepted)
		}
		if system {
			d.Y = float64(observed) / float64(k.N)
		}
		d.Low = d.Y
		c.Dots = []dot{d}
		c.Horizontals = []marker{{k.Risk, "target: at most " + axisPercent(k.Risk)}}
		c.Verticals = []marker{{k.Coverage, "certified: " + percent(k.Coverage)}}
		c.Description += fmt.Sprintf(" It is certified to answer %s, with %s wrong observed and at most %s proved; the target is %s.",
			percent(k.Coverage), percent(d.Y), percent(k.Upper), percent(k.Risk))
	}
	c.Y = linear("risk", max(top*1.08, 0.001), axisPercent)
	for i := range 20 {
		if x := float64(i+1) / 20; x >= l.Points[0].X && x <= l.Points[len(l.Points)-1].X {
			c.Samples = append(c.Samples, x)
		}
	}
	return c
}

// auditChart draws how many audited answers were wrong, by day, against the target.
func auditChart(v *TaskView) *lineChart {
	if len(v.Audits) < 2 {
		return nil
	}
	first := v.Audits[0].Day
	x := func(day time.Time) float64 { return day.Sub(first).Hours() / 24 }
	l := line{Name: "wrong among audited answers", Series: 0}
	c := &lineChart{ID: "audits", Title: "Audits by day",
		X: axis{Name: "day", Max: x(v.Audits[len(v.Audits)-1].Day), Format: func(days float64) string {
			return first.Add(time.Duration(days * 24 * float64(time.Hour))).Format("2 Jan")
		}}}
	top, audits, wrong := 1-v.Target.Accuracy, int64(0), int64(0)
	for _, a := range v.Audits {
		if a.Audits == 0 {
			continue
		}
		rate := float64(a.Wrong) / float64(a.Audits)
		l.Points = append(l.Points, xy{x(a.Day), rate})
		c.Samples = append(c.Samples, x(a.Day))
		top, audits, wrong = max(top, rate), audits+int64(a.Audits), wrong+int64(a.Wrong)
	}
	if len(l.Points) < 2 {
		return nil
	}
	for i := range 5 {
		c.X.Ticks = append(c.X.Ticks, c.X.Max*float64(i)/4)
	}
	all := shareOf(wrong, audits)
	c.Description = fmt.Sprintf("%s of %s audited answers were wrong: %s, or %s to %s at 95 %% confidence. A single day has few audits, so its figure swings.",
		count(wrong), count(audits), percent(all.Value), percent(all.Low), percent(all.High))
	c.Note = c.Description
	c.Lines = []line{l}
	c.Horizontals = []marker{{1 - v.Target.Accuracy, "target: at most " + axisPercent(1-v.Target.Accuracy)}}
	c.Y = linear("wrong", top*1.15, axisPercent)
	return c
}

// Accuracy is the share of test rows with every field right.
func (e *Evaluation) Accuracy() *share { return shareOf(int64(e.Right), int64(e.Rows)) }

// ServedAccuracy is the share of right answers among those it may give.
func (e *Evaluation) ServedAccuracy() *share { return shareOf(int64(e.ServedRight), int64(e.Served)) }

// Coverage is the share of test rows that it may answer.
func (e *Evaluation) Coverage() *share { return shareOf(int64(e.Served), int64(e.Rows)) }

// command carries out what a person told a task to do, once its name was typed.
func (d *Dashboard) command(w http.ResponseWriter, r *http.Request) {
	view, err := d.findTask(r)
	if err == nil {
		err = d.obey(r, view)
	}
	switch {
	case err != nil:
		d.fail(w, r, d.explain(r, err))
	case isAPI(r):
		d.reply(w, r, http.StatusOK, map[string]string{"done": r.PostFormValue("command")})
	default:
		http.Redirect(w, r, "/tasks/"+pathPart(view.Name)+"?done="+pathPart(r.PostFormValue("command")), http.StatusSeeOther)
	}
}

func (d *Dashboard) obey(r *http.Request, view *TaskView) error {
	command, model := r.PostFormValue("command"), r.PostFormValue("model")
	switch {
	case d.Command == nil:
		return &failure{http.StatusNotImplemented, "This occam takes no commands.", "It was started without the control loop.", "Start it with occam serve."}
	case !slices.Contains(view.Commands, command) && (command != "promote" || model == ""):
		return &failure{http.StatusConflict, "The task cannot do that now: " + quote(short(command)) + ".", "It is " + view.State + "; somebody may have been quicker.",
			"Look at the task again."}
	case r.PostFormValue("confirm") != view.Name:
		return badInput("The typed name is not the task's.", "Type "+view.Name+" to confirm.")
	}
	seen, err := strconv.ParseInt(r.PostFormValue("version"), 10, 64)
	if err != nil {
		return badInput("The command does not say which state it was given for.", "Send the version of the task as it was seen: it stands in its page and in GET /api/tasks/"+view.Name+".")
	}
	if err := d.Command(r.Context(), Order{view.Name, command, model, who(r).name, seen}); err != nil {
		d.Log.Warn("dashboard: a command was refused", "task", view.Name, "command", command, "by", who(r).name, "error", err)
		if errors.Is(err, ErrStale) {
			return &failure{http.StatusConflict, "Somebody was quicker: the task has changed meanwhile.", sentence(err.Error()), "Look at the task again, and repeat the command if it still makes sense."}
		}
		return &failure{http.StatusConflict, "The command was not carried out.", sentence(err.Error()), "Look at the task again."}
	}
	d.did(r.Context(), who(r).name, "gave a task a command", view.Name, strings.TrimSpace(command+" "+model))
	return nil
}

// cancelTraining ends a task's training run. A second try, or one too late, is told that there is none.
func (d *Dashboard) cancelTraining(w http.ResponseWriter, r *http.Request) {
	view, err := d.findTask(r)
	job := ""
	if err == nil {
		if job, err = d.CancelTraining(r.Context(), view.Name); err != nil {
			err = &failure{http.StatusConflict, "No training run was ended.", sentence(err.Error()), "Look at the task again."}
		}
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.did(r.Context(), who(r).name, "ended a training run", view.Name, job)
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]string{"done": "cancel-training", "job": job})
		return
	}
	http.Redirect(w, r, "/tasks/"+pathPart(view.Name)+"?done=cancel-training", http.StatusSeeOther)
}

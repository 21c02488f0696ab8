package cli

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"occam/internal/batch"
	"occam/internal/cascade"
	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/dashboard"
	"occam/internal/engine"
	"occam/internal/finops"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// pages is the dashboard. With a login, the first account is made where there is none.
func (s *server) pages(ctx context.Context, a *app, cfg *config.Config, login bool) (*dashboard.Dashboard, error) {
	o := dashboard.Options{Source: s.store, Database: s.store, Tasks: s.taskViews, Version: version, Now: a.now, Log: s.log, Done: s.done,
		Book: func() *cost.Book { return s.wired.Load().named }, Verifier: s.store.Verify, Command: s.command, CancelTraining: s.cancelTraining, Groups: s.groups, MakeTask: s.makeTask,
		Explain: s.explain, CheckData: s.checkData, Hosts: cfg.Dashboard.Hosts, Abilities: s.abilities,
		Batches: s.batchViews, CancelBatch: s.cancelBatch, KeysChanged: func() error { return s.rewire(nil) }, Configuration: func() dashboard.Configuration { return configuration(s.wired.Load().cfg) },
		Charges: func(ctx context.Context, rows []finops.Row, w store.Window) ([]finops.Charge, error) {
			wired := s.wired.Load()
			return chargesIn(ctx, s.store, wired.cfg, wired.book, rows, w, a.now())
		}}
	if login {
		if err := mayListen(ctx, cfg.Listen, s.store); err != nil {
			return nil, err
		}
		var err error
		if s.password, err = dashboard.FirstPassword(ctx, s.store); err != nil {
			return nil, err
		}
		o.Login = true
	}
	return dashboard.New(o), nil
}

// mayListen refuses to go on a network before there is an account: whoever reads the log first would have the first password.
func mayListen(ctx context.Context, address string, s *store.Store) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "localhost" {
		return nil // an address that cannot be read fails when it is listened on
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	some, err := dashboard.HasAccount(ctx, s)
	if err != nil || some {
		return err
	}
	return usageError("listen: %s can be reached from other machines, and the dashboard has no account yet. Make one with `occam accounts add NAME --role admin`, or "+
		"start once with listen: 127.0.0.1:8080, which makes the account admin", address)
}

// taskViews is what the dashboard shows of the tasks.
func (s *server) taskViews(context.Context) ([]dashboard.TaskView, error) {
	control := s.control.Load()
	if control == nil {
		return nil, nil
	}
	return taskViews(control.Status()), nil
}

func taskViews(all []lifecycle.Status) []dashboard.TaskView {
	var views []dashboard.TaskView
	for i := range all {
		views = append(views, taskView(&all[i]))
	}
	return views
}

func taskView(st *lifecycle.Status) dashboard.TaskView {
	v := dashboard.TaskView{Name: st.Task, Version: st.Version, Generalist: st.Generalist, Target: st.Target, State: string(st.State), Paused: st.Paused, Note: st.Reason, Next: st.Next,
		Since: st.Since, Fields: st.Fields, Outside: st.Outside, Training: trainingView(st)}
	for _, c := range st.Commands {
		v.Commands = append(v.Commands, string(c))
	}
	for _, w := range taskWarnings(st) {
		v.Warnings = append(v.Warnings, dashboard.Warning{Text: w.text, Bad: w.bad})
	}
	for i := range st.Models {
		m := &st.Models[i]
		if m.Specialist == "" || m.Place == "previous" {
			continue
		}
		v.Tiers = append(v.Tiers, tierViews(st.Task, m)...)
		if m.Place == "lead" {
			v.Choice = m.Choice
			v.Confusions = confusionViews(m.Evaluation.Confusions)
			v.Audits = auditViews(m.Evidence)
		}
	}
	return v
}

// tierViews are the specialist of a model and the tiers of its plan after it.
func tierViews(taskName string, m *lifecycle.ModelStatus) []dashboard.TierView {
	reserve, void := m.Place != "lead", m.Void
	if m.Certificate == nil && len(m.Tiers) == 0 {
		void = "" // nothing to be void
	}
	views := []dashboard.TierView{{
		Name: "linear", Model: taskName + "@" + m.Specialist[:8], Mode: cmp.Or(m.Mode, "off"), Bytes: int64(m.Bytes), Certificate: m.Certificate, Reserve: reserve,
		Shortfall: void, MinConfidence: m.MinConfidence, Curve: m.Curve, Evaluation: evaluationView(m.Evaluation), Truth: m.Truth, Evidence: m.Evidence,
	}}
	for _, t := range m.Tiers {
		view := dashboard.TierView{Name: t.Name, Model: t.Version, Mode: cmp.Or(t.Mode, "off"), Certificate: t.Certificate, Shortfall: t.Void, Evidence: t.Evidence, Reserve: reserve}
		if c := t.Certificate; c != nil {
			view.Truth = c.Truth
			if c.Score == cascade.ScoreLogProb { // as its confidence is its probability
				view.MinConfidence = min(math.Exp(c.Threshold), 1)
			}
		}
		views = append(views, view)
	}
	return views
}

func trainingView(st *lifecycle.Status) dashboard.Training {
	t := &st.Training
	v := dashboard.Training{Stage: t.Stage, Share: t.Share, Waits: t.Waiting}
	if t.Looks > 0 {
		v.Runs, v.At, v.Why, v.Result, v.Needed, v.Have, v.Arithmetic = t.Looks, t.At, t.Why, t.Result, t.Needed, st.Examples.Uniform, t.Arithmetic
	}
	return v
}

func confusionViews(all []lifecycle.Confusion) []dashboard.Confusion {
	views := make([]dashboard.Confusion, len(all))
	for i, c := range all {
		views[i] = dashboard.Confusion(c)
	}
	return views
}

func auditViews(e *lifecycle.EvidenceStatus) (days []dashboard.AuditDay) {
	if e == nil {
		return nil
	}
	for _, d := range e.Days {
		days = append(days, dashboard.AuditDay{Day: d.Day, Audits: d.Count, Wrong: d.Wrong})
	}
	return days
}

var errNoControl = errors.New("the lifecycle does not run yet")

// command carries out what a person told a task in the dashboard, for the state that the person saw.
func (s *server) command(ctx context.Context, o dashboard.Order) error {
	control := s.control.Load()
	if control == nil {
		return errNoControl
	}
	_, err := control.Do(ctx, o.Task, lifecycle.Command(o.Command), o.Model, o.By, o.Version)
	return err
}

func (s *server) cancelTraining(ctx context.Context, taskName string) (job string, err error) {
	control := s.control.Load()
	if control == nil {
		return "", errNoControl
	}
	return control.CancelTraining(ctx, taskName)
}

// groups lists the jobs found in traffic that belongs to no task.
func (s *server) groups(ctx context.Context) ([]lifecycle.Group, error) {
	control := s.control.Load()
	if control == nil {
		return nil, errNoControl
	}
	return control.Discover(ctx)
}

func (s *server) makeTask(ctx context.Context, m lifecycle.Making) error {
	control := s.control.Load()
	if control == nil {
		return errNoControl
	}
	_, err := control.MakeTask(ctx, m)
	return err
}

// batchViews is what the dashboard shows of the offline batches.
func (s *server) batchViews(ctx context.Context) ([]dashboard.BatchView, error) {
	all, err := batch.List(ctx, s.store)
	views := make([]dashboard.BatchView, len(all))
	for i, b := range all {
		v := dashboard.BatchView{ID: b.ID, Endpoint: b.Endpoint, Status: b.Status, Key: b.KeyID, Created: b.Created, Ended: b.Ended, Total: b.Counts.Total,
			Completed: b.Counts.Completed, Specialist: b.Counts.Specialist, Failed: b.Counts.Failed, MayCancel: b.Ended.IsZero() && b.Cancel.IsZero()}
		for _, f := range b.Faults {
			v.Faults = append(v.Faults, f.Message)
		}
		for _, p := range b.Parts {
			v.Parts = append(v.Parts, dashboard.BatchPart{Provider: p.Provider, Model: p.Model, Lines: p.Lines, Done: p.Done, State: p.State, Remote: p.Remote})
		}
		views[i] = v
	}
	return views, err
}

func (s *server) cancelBatch(ctx context.Context, id string) error {
	service := s.batches.Load()
	if service == nil {
		return errors.New("the batches do not run yet")
	}
	return inWords(service.Cancel(ctx, id))
}

// explain says what spoke for what a model, as the ledger names it, answers to a text.
func (s *server) explain(ctx context.Context, taskName, model, text string) (*engine.Explanation, error) {
	control := s.control.Load()
	if control == nil {
		return nil, lifecycle.ErrNoModel
	}
	return explainWith(control)(ctx, taskName, model, text)
}

func explainWith(control *lifecycle.Controller) func(ctx context.Context, taskName, model, text string) (*engine.Explanation, error) {
	return func(ctx context.Context, taskName, model, text string) (*engine.Explanation, error) {
		_, weights, _ := strings.Cut(model, "@")
		return control.Explain(ctx, taskName, weights, text)
	}
}

func (s *server) checkData(ctx context.Context, taskName string, progress func(stage string, done, total int)) (*lifecycle.DataCheck, error) {
	control := s.control.Load()
	if control == nil {
		return nil, errNoControl
	}
	return control.CheckData(ctx, taskName, progress)
}

// configuration is what the dashboard's settings show of the file.
func configuration(cfg *config.Config) dashboard.Configuration {
	return dashboard.Configuration{YAML: cfg.Masked(), Capture: cfg.Capture.Prompts, Retention: time.Duration(cfg.Capture.Retention),
		Redact: strings.Join(append(slices.Clone(cfg.Capture.Redact), slices.Sorted(maps.Keys(cfg.Capture.Patterns))...), ", "), Hosts: cfg.Dashboard.Hosts}
}

func evaluationView(e lifecycle.Evaluation) *dashboard.Evaluation {
	if e.N == 0 {
		return nil
	}
	count := func(share float64, of int) int { return int(math.Round(share * float64(of))) }
	served := count(e.Coverage, e.N)
	us := func(v float64) time.Duration { return time.Duration(v * float64(time.Microsecond)) }
	return &dashboard.Evaluation{
		Rows: e.N, Right: count(e.Accuracy.Value, e.N), Served: served, ServedRight: count(e.ServedAccuracy.Value, served),
		P50: us(e.LatencyUS.P50), P99: us(e.LatencyUS.P99),
	}
}

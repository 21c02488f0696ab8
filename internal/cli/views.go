package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/dashboard"
	"occam/internal/finops"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// pages is the dashboard. With a login, the first account is made where there is none.
func (s *server) pages(ctx context.Context, a *app, cfg *config.Config, login bool) (http.Handler, error) {
	o := dashboard.Options{Source: s.store, Database: s.store, Tasks: s.taskViews, Version: version, Now: a.now, Log: s.log, Done: s.done,
		Book: func() *cost.Book { return s.book }, Verifier: s.store.Verify, Command: s.command,
		Charges: func(rows []finops.Row, w store.Window) ([]finops.Charge, error) {
			return hostingCharges(cfg, s.book, rows, w, a.now())
		}}
	if login {
		var err error
		if s.password, err = dashboard.FirstPassword(ctx, s.store); err != nil {
			return nil, err
		}
		o.Login = true
	}
	return dashboard.New(o), nil
}

// taskViews is what the dashboard shows of the tasks.
func (s *server) taskViews(context.Context) ([]dashboard.TaskView, error) {
	control := s.control.Load()
	if control == nil {
		return nil, nil
	}
	var views []dashboard.TaskView
	for _, st := range control.Status() {
		views = append(views, taskView(&st))
	}
	return views, nil
}

func taskView(st *lifecycle.Status) dashboard.TaskView {
	v := dashboard.TaskView{Name: st.Task, Generalist: st.Generalist, Target: st.Target, State: string(st.State), Note: st.Reason + ". " + st.Next + ".",
		Since: st.Since, Fields: st.Fields}
	for _, c := range st.Commands {
		v.Commands = append(v.Commands, string(c))
	}
	for _, m := range st.Models {
		if m.Specialist == "" || m.Place == "previous" {
			continue
		}
		v.Tiers = append(v.Tiers, dashboard.TierView{
			Name: "linear", Model: st.Task + "@" + m.Specialist[:8], Mode: cmp.Or(m.Mode, "off"), Bytes: int64(m.Bytes), Certificate: m.Certificate,
			Shortfall: m.Void, Curve: m.Curve, Evaluation: evaluationView(m.Evaluation),
		})
		if m.Place == "lead" {
			v.Confusions = confusionViews(m.Evaluation.Confusions)
			v.Alarm, v.Audits = evidenceView(m.Evidence)
		}
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

func evidenceView(e *lifecycle.EvidenceStatus) (alarm string, days []dashboard.AuditDay) {
	if e == nil {
		return "", nil
	}
	for _, d := range e.Days {
		days = append(days, dashboard.AuditDay{Day: d.Day, Audits: d.Count, Wrong: d.Wrong})
	}
	return e.Reason, days
}

// command carries out what a person told a task in the dashboard.
func (s *server) command(ctx context.Context, taskName, command, actor string) error {
	control := s.control.Load()
	if control == nil {
		return errors.New("the lifecycle does not run yet")
	}
	for _, st := range control.Status() {
		if st.Task == taskName {
			_, err := control.Do(ctx, taskName, lifecycle.Command(command), "", actor, st.Version)
			return err
		}
	}
	return fmt.Errorf("there is no task %q", taskName)
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

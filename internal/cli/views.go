package cli

import (
	"context"
	"math"
	"time"

	"occam/internal/cascade"
	"occam/internal/dashboard"
	"occam/internal/lifecycle"
	"occam/internal/task"
)

// taskViews is what the dashboard shows of the tasks.
func (s *server) taskViews(context.Context) ([]dashboard.TaskView, error) {
	views := make([]dashboard.TaskView, len(s.tasks))
	for i, t := range s.tasks {
		views[i] = s.taskView(t)
	}
	return views, nil
}

func (s *server) taskView(t *task.Task) dashboard.TaskView {
	v := dashboard.TaskView{Name: t.Name, Generalist: t.Generalist, Fields: t.Fields, Target: t.Target, State: "observing", Note: s.taskLine(t)}
	model := s.models[t.Name]
	if model == nil {
		return v
	}
	v.State = "candidate"
	if model.Certificate != nil {
		v.State = "live"
	}
	v.Tiers = []dashboard.TierView{{
		Name: "linear", Model: t.Name + "@" + model.Model.Hash()[:8], Mode: string(cascade.Live), Bytes: int64(model.Bytes),
		Certificate: model.Certificate, Shortfall: model.Shortfall, Curve: model.Curve, Evaluation: evaluationView(model.Evaluation),
	}}
	return v
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

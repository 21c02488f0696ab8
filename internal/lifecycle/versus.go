package lifecycle

import (
	"fmt"

	"occam/internal/calibration"
	"occam/internal/task"
)

const (
	beatLevel = 0.05 // the most that chance may explain of a new model's lead
	goldLevel = 0.05
	leastUse  = 0.01 // coverage below which a specialist is not worth its audits
)

// Versus is a new model beside the old one on the same locked rows. A row is won by the model that answers it, under its own
// certificate, and answers it right.
type Versus struct {
	Rows    int     `json:"rows"`
	New     int     `json:"new"` // rows answered right
	Old     int     `json:"old"`
	OnlyNew int     `json:"only_new"`
	OnlyOld int     `json:"only_old"`
	P       float64 `json:"p"` // McNemar's exact one-sided test: how often chance alone gives the new model such a lead
}

// beats reports whether the lead is more than chance explains.
func (v Versus) beats() bool { return v.OnlyNew > v.OnlyOld && v.P <= beatLevel }

// loses reports whether the new model's lag is more than chance explains.
func (v Versus) loses() bool {
	return v.OnlyOld > v.OnlyNew && calibration.BinCDF(v.OnlyNew, v.OnlyNew+v.OnlyOld, 0.5) <= beatLevel
}

// planSaving is the share of a plan's cost that another plan with other tiers must save to take its place.
const planSaving = 0.05

// cheaper reports whether the chosen plan has other tiers than the live one and costs clearly less than such a plan would today.
func (t *Trained) cheaper(live *LoadedModel) (saving string, ok bool) {
	if t.Choice == nil || live.Choice == nil {
		return "", false
	}
	chosen, now := t.Choice.Chosen(), live.Choice.Chosen()
	if chosen == nil || now == nil {
		return "", false
	}
	rest := t.Choice.Rest
	for i := range t.Choice.Candidates {
		same := &t.Choice.Candidates[i]
		if same.Name(rest) != now.Name(rest) || same == chosen {
			continue
		}
		mine, priced := t.Choice.Cost(chosen)
		theirs, also := t.Choice.Cost(same)
		if priced && also && mine < theirs*(1-planSaving) {
			return fmt.Sprintf("%s at $%.4g instead of %s at $%.4g", chosen.Name(rest), mine, now.Name(rest), theirs), true
		}
	}
	return "", false
}

// tried is a model with its certificate, as far as a comparison needs them.
type tried struct {
	model interface {
		Predict(text string, p *task.Prediction)
	}
	certificate *calibration.Certificate
}

func (t tried) wins(e *task.Example, fields []task.Field, p *task.Prediction) bool {
	t.model.Predict(e.Text, p)
	return t.certificate.Accepts(p.Score, p.InScope) && p.Right(fields, e.Labels)
}

// versus compares two models on rows that neither learned from (Q. McNemar, Psychometrika 12, 1947; exact binomial form).
func versus(fields []task.Field, rows []task.Example, latest, old tried) Versus {
	v := Versus{Rows: len(rows), P: 1}
	var p task.Prediction
	for i := range rows {
		a, b := latest.wins(&rows[i], fields, &p), old.wins(&rows[i], fields, &p)
		v.New += one(a)
		v.Old += one(b)
		v.OnlyNew += one(a && !b)
		v.OnlyOld += one(b && !a)
	}
	if n := v.OnlyNew + v.OnlyOld; n > 0 {
		v.P = calibration.BinCDF(v.OnlyOld, n, 0.5)
	}
	return v
}

// judge says whether a trained model may be tried. live is the model that answers now, nil if none does.
func judge(t *Trained, live *LoadedModel) (Contender, *Versus) {
	switch {
	case t.Certificate == nil && len(t.Tiers) > 0:
		return Contender{Reason: "certified models served elsewhere answer: " + t.Choice.Chosen().Name(t.Choice.Rest)}, nil
	case t.Certificate == nil && t.Shortfall == nil:
		return Contender{Refusal: "no plan is cheaper than the generalist alone"}, nil
	case t.Certificate == nil:
		return Contender{Refusal: t.Shortfall.Error()}, nil
	case t.Evaluation.Coverage < leastUse:
		return Contender{Refusal: fmt.Sprintf("it would answer only %.1f %% of the requests, which is not worth its audits", 100*t.Evaluation.Coverage)}, nil
	}
	if len(t.Triggers) > 0 {
		return Contender{Refusal: t.Triggers[0].String()}, nil
	}
	if len(t.Reversals) > 0 {
		return Contender{Refusal: t.Reversals[0].Detail + ": if that is meant, promote the model by hand with `occam models promote " + t.Task.Name + " MODEL`"}, nil
	}
	if refusal := goldRefusal(t); refusal != "" {
		return Contender{Refusal: refusal}, nil
	}
	reason := fmt.Sprintf("certified (%s accuracy at least %.4g %%), it answers %.1f %% of the locked test rows, %.1f %% of them right",
		t.Certificate.Promise, 100*(1-t.Certificate.Risk), 100*t.Evaluation.Coverage, 100*t.Evaluation.ServedAccuracy.Value)
	if live == nil || !task.SameFields(live.Model.Fields(), t.Task.Fields) {
		return Contender{Reason: reason}, nil
	}
	v := versus(t.Task.Fields, t.test, tried{t.Model, t.Certificate}, tried{live.Model, live.Certificate})
	if saving, ok := t.cheaper(live); ok && !v.loses() {
		return Contender{Reason: reason + "; its plan is cheaper than the live one: " + saving}, &v
	}
	if !v.beats() {
		return Contender{Refusal: fmt.Sprintf("it does not beat the live model on %d locked rows: %d answered right against %d, %d only by the new one, %d only by the live one (McNemar p = %.2g, at most %.2g is needed)",
			v.Rows, v.New, v.Old, v.OnlyNew, v.OnlyOld, v.P, beatLevel)}, &v
	}
	return Contender{Reason: reason + fmt.Sprintf("; on %d locked rows it answers %d right against the live model's %d (McNemar p = %.2g)", v.Rows, v.New, v.Old, v.P)}, &v
}

// goldRefusal says whether rows that people labelled prove that the promise does not hold.
func goldRefusal(t *Trained) string {
	accepted, wrong := 0, 0
	var p task.Prediction
	for i := range t.gold {
		t.Model.Predict(t.gold[i].Text, &p)
		if t.Certificate.Accepts(p.Score, p.InScope) {
			accepted++
			wrong += one(!p.Right(t.Task.Fields, t.gold[i].Labels))
		}
	}
	if risk := acceptedRisk(t.Certificate); calibration.Lower(wrong, accepted, goldLevel) > risk {
		return fmt.Sprintf("on the locked gold set, which people labelled, %d of the %d answers it would give are wrong; the promise allows %.2g %%",
			wrong, accepted, 100*risk)
	}
	return ""
}

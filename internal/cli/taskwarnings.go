package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"occam/internal/drift"
	"occam/internal/lifecycle"
	"occam/internal/task"
)

// A taskWarning is something that a person should know about a task, in plain words.
type taskWarning struct {
	key  string // under which people are told of it once, at once; "": they see it when they look
	text string // without the task's name
	bad  bool   // it costs money or accuracy now
}

// A warner collects the warnings of one task.
type warner struct {
	st  *lifecycle.Status
	all []taskWarning
}

func (w *warner) add(bad bool, key, format string, args ...any) {
	w.all = append(w.all, taskWarning{key, fmt.Sprintf(format, args...), bad})
}

// taskWarnings is every warning and alarm of a task's status, the worst first.
func taskWarnings(st *lifecycle.Status) []taskWarning {
	w := &warner{st: st}
	if st.State == lifecycle.Suspended {
		w.add(true, "suspended/"+st.Task+"/"+st.Since.Format(time.RFC3339), "%s. It costs more until a new model is certified", st.Reason)
	}
	for i := range st.Models {
		w.model(&st.Models[i])
	}
	if st.Paused {
		w.add(false, "", "somebody paused it: the generalist answers everything, and nothing is trained or promoted")
	}
	if n := st.Examples.Barred; n > 0 {
		w.add(false, "", "%d examples have answers that may not be learned from: their provider's terms forbid training", n)
	}
	w.dropped()
	slices.SortStableFunc(w.all, func(a, b taskWarning) int { return worth(b.bad) - worth(a.bad) })
	return w.all
}

func worth(bad bool) int {
	if bad {
		return 1
	}
	return 0
}

// model adds what is wrong with one model. One that is not in the cascade costs nothing now.
func (w *warner) model(m *lifecycle.ModelStatus) {
	serves, id := m.Mode != "", w.st.Task+"/"+modelNamed(m.Model)
	told := func(key string) string {
		if !serves {
			return ""
		}
		return key + "/" + id
	}
	if m.Void != "" && m.Place != "previous" {
		w.add(serves, "", "model %s may not answer: its certificate does not hold: %s", modelNamed(m.Model), m.Void)
	} else if m.Void != "" {
		w.add(false, "", "the former model %s may not answer, so there is no way back to it: its certificate does not hold: %s", modelNamed(m.Model), m.Void)
	}
	w.evidence("the specialist of model "+modelNamed(m.Model), m.Evidence, serves)
	if e := m.Evidence; e != nil && e.Rare != nil && e.Rare.Alarm {
		w.add(serves, told("rare"), "the specialist answers no more in its rare classes (%s): %s", strings.Join(e.Rare.Classes, ", "), e.Rare.Reason)
	}
	if x, ok := m.Outside(); ok {
		w.add(serves, told("outside"), "%s (%.3g %% then, %.3g %% since): its labels may have changed. More answers are audited, and an audit that gets such an answer "+
			"counts as wrong", x.Sign, 100*x.Usual, 100*x.Now)
	}
	for _, t := range m.Tiers {
		switch {
		case t.Void != "":
			w.add(serves, told("tier")+suffix(serves, t.Name), "%s answers no more: %s. The generalist answers instead", t.Name, t.Void)
		case t.Evidence != nil && t.Evidence.Alarm:
			w.add(serves, told("tier")+suffix(serves, t.Name), "%s answers no more: %s. The generalist answers instead", t.Name, t.Evidence.Reason)
		}
		if t.Evidence != nil {
			w.signs(t.Name, t.Evidence.Warnings)
		}
	}
}

func suffix(wanted bool, name string) string {
	if !wanted {
		return ""
	}
	return "/" + name
}

// evidence adds the alarm and the signs of a specialist's answers. What suspended the task is told with the suspension.
func (w *warner) evidence(who string, e *lifecycle.EvidenceStatus, serves bool) {
	if e == nil {
		return
	}
	if e.Alarm && !(w.st.State == lifecycle.Suspended && strings.Contains(w.st.Reason, e.Reason)) {
		w.add(serves, "", "%s answers no more: %s", who, e.Reason)
	}
	w.signs(who, e.Warnings)
}

// signs adds what is seen without labels, but for the answers outside the schema, which are more than a sign.
func (w *warner) signs(who string, all []drift.Warning) {
	outside, _ := (&lifecycle.ModelStatus{Evidence: &lifecycle.EvidenceStatus{Warnings: all}}).Outside()
	for _, x := range all {
		if x == outside {
			continue
		}
		sign := x.Sign
		if name := className(w.st.Fields, x.Class); name != "" {
			sign = fmt.Sprintf("the answer %q comes more often than at calibration", name)
		}
		w.add(false, "", "of the requests that %s sees, and without labels: %s (%.3g %% then, %.3g %% since, noticed at request %d)", who, sign, 100*x.Usual, 100*x.Now, x.At)
	}
}

// className is the name of a class that a sign counts: they are the values of the first category, in order. "" where it is none.
func className(fields []task.Field, class int) string {
	i := slices.IndexFunc(fields, func(f task.Field) bool { return f.Kind == task.Category })
	if i < 0 || class < 0 || class >= len(fields[i].Values) {
		return ""
	}
	return fields[i].Values[class]
}

// dropped adds what found no room in a queue of the process.
func (w *warner) dropped() {
	d := w.st.Dropped
	var lost []string
	for _, x := range []struct {
		n    int64
		what string
	}{{d.Comparisons, "comparisons, which count as failed audits"}, {d.Signs, "signs of change"}, {d.Examples, "examples"}, {d.Reviews, "texts for the review queue"},
		{d.Traffic, "requests for the search for new jobs"}} {
		if x.n > 0 {
			lost = append(lost, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(lost) > 0 {
		w.add(false, "", "occam was too busy to keep everything; of all tasks it lost since it started: %s", strings.Join(lost, "; "))
	}
}

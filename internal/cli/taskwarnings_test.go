package cli

import (
	"context"
	"html"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/dashboard"
	"occam/internal/drift"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

// quietFields are the members of `occam tasks show --json` that state no trouble by themselves.
var quietFields = map[string]string{
	"Status":         "Task Version Record Auto Target Generalist Fields Answer OnDoubt Audit Examples Training Models Commands",
	"Record":         "Lead Incumbent Previous Dismissed Seen AlarmAt Since",
	"TrainingStatus": "Progress Running Stage Share",
	"Progress":       "Looks At Rows ByPerson Why TierNeeded Choice",
	"ModelStatus":    "Model Place Mode Specialist Certificate MinConfidence Evaluation Curve Bytes TrainedAt Evidence Tiers Choice Truth",
	"TierStatus":     "Name Mode Version Certificate Evidence",
	"EvidenceStatus": "Status Allowed Stage Compared Disagreed Days Rare",
	"RareStatus":     "Status Allowed Classes Audit",
	"Warning":        "At Class Requests",
	"ExampleCount":   "Examples Gold Labelled ByPerson Uniform",
	// How sure the evidence is: AlarmAt, Low, High and the rest say what Alarm and Reason say in figures.
	"drift.Status": "Audits Wrong Low High LowAtBest HighAtWorst Evidence Change Limit AlarmAt",
}

// A stated trouble is one member that can state trouble, a status in which it does, and what the task's page says then.
type stated struct {
	field string // TYPE.Member, or several
	set   func(st *lifecycle.Status, m *lifecycle.ModelStatus)
	page  string
}

var troubles = []stated{
	{"Record.State Record.Reason", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) {
		st.State, st.Reason = lifecycle.Suspended, "too many audits disagreed"
	}, "Warning: Too many audits disagreed. It costs more until a new model is certified."},
	{"Record.Paused", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) { st.Paused = true }, "Somebody paused it: the generalist answers everything"},
	{"Status.Next", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) { st.Next = "training waits for `occam x`" }, "Next: Training waits for occam x."},
	{"Status.Outside", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) {
		st.Outside = lifecycle.OutsideCount{Answers: 512, Outside: 7}
	}, "7 of 512 answers drawn at random do not fit the schema"},
	{"ExampleCount.Barred", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) { st.Examples.Barred = 31 }, "31 examples have answers that may not be learned from"},
	{"TrainingStatus.Waiting", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) { st.Training.Waiting = "capture is off" }, "Capture is off."},
	{"Progress.Result Progress.Needed Progress.Arithmetic", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) {
		st.Training.Progress = lifecycle.Progress{Looks: 2, Why: "there was more", Result: "nothing was certified", Needed: 900, Arithmetic: "3 errors in 120 rows"}
		st.Examples.Uniform = 300
	}, "It ended so: Nothing was certified. A certificate takes about 900 labelled requests drawn at random, 600 more than there are: 3 errors in 120 rows."},
	{"Status.Dropped Dropped.Comparisons Dropped.Signs Dropped.Examples Dropped.Reviews Dropped.Traffic", func(st *lifecycle.Status, _ *lifecycle.ModelStatus) {
		st.Dropped = lifecycle.Dropped{Comparisons: 1, Signs: 2, Examples: 3, Reviews: 4, Traffic: 5}
	}, "1 comparisons, which count as failed audits; 2 signs of change; 3 examples; 4 texts for the review queue; 5 requests for the search for new jobs"},
	{"ModelStatus.Void", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) { m.Void = "the schema has changed" }, "model 01234567 may not answer: its certificate does not hold: the schema has changed"},
	{"ModelStatus.Void", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Specialist, m.Void = "", "its file is damaged" // such a model has no certificate to show
	}, "its certificate does not hold: its file is damaged"},
	{"drift.Status.Alarm drift.Status.Reason", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Evidence.Alarm, m.Evidence.Reason = true, "9 of 40 wrong"
	}, "the specialist of model 01234567 answers no more: 9 of 40 wrong"},
	{"drift.Status.Missing", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) { m.Evidence.Audits, m.Evidence.Missing = 40, 6 }, "Of 40 audits 0 found another answer and 6 failed"},
	{"RareStatus.Alarm", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Evidence.Rare = &lifecycle.RareStatus{Classes: []string{"fraud"}, Status: drift.Status{Alarm: true, Reason: "4 of 9 wrong"}}
	}, "the specialist answers no more in its rare classes (fraud): 4 of 9 wrong"},
	{"EvidenceStatus.Warnings Warning.Sign Warning.Usual Warning.Now", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Evidence.Warnings = []drift.Warning{{Sign: "requests are longer than at calibration", Usual: 0.01, Now: 0.2, At: 77, Class: -1}}
	}, "requests are longer than at calibration (1 % then, 20 % since, noticed at request 77)"},
	{"Warning.Class", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Evidence.Warnings = []drift.Warning{{Sign: "class 1 comes more often than at calibration", Class: 1}}
	}, `the answer "late" comes more often than at calibration`},
	{"EvidenceStatus.Warnings", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Evidence.Warnings = []drift.Warning{{Sign: "the generalist's answers are outside the schema more often than at calibration", Usual: 0.01, Now: 0.25, Class: -1}}
	}, "Warning: The generalist's answers are outside the schema more often than at calibration (1 % then, 25 % since): its labels may have changed"},
	{"TierStatus.Void", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) { m.Tiers[0].Void = "it proves less than promised" }, "Warning: mini-4 answers no more: it proves less than promised. The generalist answers instead."},
	{"TierStatus.Evidence", func(_ *lifecycle.Status, m *lifecycle.ModelStatus) {
		m.Tiers[0].Evidence.Alarm, m.Tiers[0].Evidence.Reason = true, "8 of 30 wrong"
		m.Tiers[0].Evidence.Warnings = []drift.Warning{{Sign: "requests are longer than at calibration", Class: -1}}
	}, "Warning: mini-4 answers no more: 8 of 30 wrong."},
}

// troubled is a live task of two tiers where all is well, until one of troubles is set.
func troubled() *lifecycle.Status {
	at := time.Date(2026, 11, 23, 12, 30, 0, 0, time.UTC)
	certificate := &calibration.Certificate{Promise: "served", Risk: 0.03, N: 900, Accepted: 700, Errors: 3, Upper: 0.02, Coverage: 0.77}
	return &lifecycle.Status{Task: "triage", Record: lifecycle.Record{State: lifecycle.Live, Since: at, Reason: "promoted by hand"}, Generalist: "gpt-4o", Target: task.DefaultTarget,
		Fields: []task.Field{{Name: "kind", Kind: task.Category, Values: []string{"refund", "late"}}}, Next: "training waits",
		Models: []lifecycle.ModelStatus{{Model: "0123456789ab", Specialist: "0123456789ab", Place: "lead", Mode: "live", Certificate: certificate, Evidence: &lifecycle.EvidenceStatus{},
			Tiers: []lifecycle.TierStatus{{Name: "mini-4", Mode: "live", Version: "mini-4-2026", Certificate: certificate, Evidence: &lifecycle.EvidenceStatus{}}}}}}
}

// readTaskPage is the text of a task's page, without its markup.
func readTaskPage(t *testing.T, s *store.Store, st *lifecycle.Status) string {
	t.Helper()
	site := dashboard.New(dashboard.Options{Source: s, Tasks: func(context.Context) ([]dashboard.TaskView, error) { return taskViews([]lifecycle.Status{*st}), nil }})
	w := httptest.NewRecorder()
	site.Trusted().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/tasks/"+st.Task, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var text strings.Builder
	for i, part := range strings.Split(w.Body.String(), "<") {
		if _, after, ok := strings.Cut(part, ">"); ok || i == 0 {
			text.WriteString(after)
		}
	}
	return strings.Join(strings.Fields(html.UnescapeString(text.String())), " ")
}

// TestEveryTroubleIsOnTheTaskPage: whatever warning or alarm `occam tasks show --json` can state stands on the task's page in plain words.
func TestEveryTroubleIsOnTheTaskPage(t *testing.T) {
	s := newStore(t)
	if well := readTaskPage(t, s, troubled()); strings.Contains(well, "Warning:") || strings.Contains(well, "Worth knowing:") {
		t.Errorf("all is well, and the page says %s", well)
	}
	for _, x := range troubles {
		st := troubled()
		x.set(st, &st.Models[0])
		page := readTaskPage(t, s, st)
		if !strings.Contains(strings.ToLower(page), strings.ToLower(x.page)) {
			t.Errorf("%s: the page lacks %q\n%s", x.field, x.page, page)
		}
	}
}

// TestEveryMemberOfAStatusIsWeighed: a new member of a task's status is either listed as trouble, and so on the page, or as quiet.
func TestEveryMemberOfAStatusIsWeighed(t *testing.T) {
	weighed := map[string]bool{}
	for _, x := range troubles {
		for _, field := range strings.Fields(x.field) {
			weighed[field] = true
		}
	}
	for of, fields := range quietFields {
		for _, field := range strings.Fields(fields) {
			weighed[of+"."+field] = true
		}
	}
	for _, object := range []any{lifecycle.Status{}, lifecycle.Record{}, lifecycle.TrainingStatus{}, lifecycle.Progress{}, lifecycle.ModelStatus{}, lifecycle.TierStatus{},
		lifecycle.EvidenceStatus{}, lifecycle.RareStatus{}, lifecycle.Dropped{}, drift.Status{}, drift.Warning{}, store.ExampleCount{}} {
		of := reflect.TypeOf(object)
		name := of.Name()
		if of == reflect.TypeFor[drift.Status]() {
			name = "drift.Status"
		}
		for i := range of.NumField() {
			if field := name + "." + of.Field(i).Name; !weighed[field] {
				t.Errorf("%s is new: add it to troubles, with what the page says of it, or to quietFields", field)
			}
		}
	}
}

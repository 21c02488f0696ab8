package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func colours() *task.Task {
	return &task.Task{Name: "colours", Generalist: "gpt-4o", Target: task.DefaultTarget, Audit: .01, Fields: []task.Field{
		{Name: "colour", Kind: task.Category, Values: []string{"red", "green", "blue"}},
		{Name: "code", Kind: task.Span, Nullable: true},
	}}
}

func labels(colour string) task.Output {
	return task.Output{"colour": task.String(colour), "code": task.Null}
}

func captured(i int, source, colour string) store.Example {
	e := store.Example{ID: fmt.Sprintf("r%04d", i), Task: "colours", At: noon.Add(time.Duration(i) * time.Minute),
		Text: fmt.Sprintf("the %d%s thing", i, strings.Repeat("x", i%7)), Uniform: true}
	if source != "" {
		e.Labels = []store.Label{{Example: e.ID, At: e.At, Source: source, Prompt: "p", Output: labels(colour), Trainable: true}}
	}
	return e
}

func said(e *store.Example, key, colour string, at time.Time) {
	e.Labels = append(e.Labels, store.Label{Example: e.ID, At: at, Key: key, Source: "person",
		Output: task.Output{"colour": task.String(colour)}, Trainable: true})
}

func ids(examples []task.Example) []string {
	var all []string
	for _, e := range examples {
		all = append(all, e.ID)
	}
	return all
}

func TestCurateSortsByWhatRowsMayDo(t *testing.T) {
	rows := []store.Example{
		captured(0, "gpt-4o-05", "red"), captured(1, "gpt-4o-05", "green"), // an earlier version of the teacher
		captured(2, "gpt-4o-08", "red"), captured(3, "gpt-4o-08", "blue"), captured(4, "", ""),
		captured(5, "gpt-4o-08", "red"), captured(6, "gpt-4o-08", "red"), captured(7, "gpt-4o-08", "mauve"),
	}
	rows[3].Uniform = false
	rows[5].Labels[0].Trainable = false
	said(&rows[6], "ann", "green", noon.Add(time.Hour))
	said(&rows[6], "ann", "blue", noon.Add(2*time.Hour))
	rows[6].Gold = true
	c := Curate(colours(), rows, time.Time{}, nil)
	if got := ids(c.Examples); !slices.Equal(got, []string{"r0002"}) {
		t.Errorf("examples %v", got)
	}
	if got := ids(c.Background); !slices.Equal(got, []string{"r0000", "r0001", "r0003", "r0004", "r0005", "r0007"}) {
		t.Errorf("background %v", got)
	}
	if len(c.Gold) != 1 || c.Gold[0].Labels["colour"].Text() != "blue" || c.Gold[0].Source != "person" || !c.Gold[0].Labels["code"].IsNull() {
		t.Errorf("gold %+v: a person's newest word on top of the model's", c.Gold)
	}
	if c.Teacher != "gpt-4o-08" || c.Prompt != "p" || c.Judged != 1 || c.TeacherWrong != 1 {
		t.Errorf("teacher %q %q, judged %d wrong %d", c.Teacher, c.Prompt, c.Judged, c.TeacherWrong)
	}
	if len(c.Findings) != 1 || c.Findings[0].Kind != "illegal" || c.Findings[0].IDs[0] != "r0007" {
		t.Errorf("findings %+v", c.Findings)
	}
	if len(c.Background[4].Labels) != 0 {
		t.Errorf("an answer that may not be trained on became a label: %+v", c.Background[4])
	}
}

func TestCurateAfterAnAlarm(t *testing.T) {
	var rows []store.Example
	for i := range 10 {
		rows = append(rows, captured(i, "gpt-4o", "red"))
	}
	c := Curate(colours(), rows, rows[5].At, nil)
	if got := ids(c.Examples); !slices.Equal(got, []string{"r0006", "r0007", "r0008", "r0009"}) {
		t.Errorf("examples %v: only what came after the alarm may calibrate", got)
	}
	if len(c.Background) != 6 || c.From != rows[6].At || c.To != rows[9].At {
		t.Errorf("background %d, from %v to %v", len(c.Background), c.From, c.To)
	}
}

func TestOneKeyCannotTeachEverything(t *testing.T) {
	var rows []store.Example
	for i := range 2000 {
		e := captured(i, "gpt-4o", "red")
		if i < 1000 {
			said(&e, "flood", "blue", noon.AddDate(0, 0, 1))
		} else if i < 1050 {
			said(&e, "ann", "green", noon)
		}
		rows = append(rows, e)
	}
	blue, green := 0, 0
	c := Curate(colours(), rows, time.Time{}, nil)
	for _, e := range slices.Concat(c.Examples, c.Gold) {
		blue += one(e.Labels["colour"].Text() == "blue")
		green += one(e.Labels["colour"].Text() == "green")
	}
	if blue != 200 || green != 50 {
		t.Errorf("%d labels of the flood and %d of ann's count, want 200 and 50", blue, green)
	}
	if len(c.Findings) != 1 || c.Findings[0].Kind != "key_cap" || c.Findings[0].Key != "flood" || c.Findings[0].Count != 800 {
		t.Errorf("findings %+v", c.Findings)
	}
	c = Curate(colours(), rows, time.Time{}, func(key string) bool { return key == "flood" })
	for _, e := range slices.Concat(c.Examples, c.Gold, c.Background) {
		if e.Labels["colour"].Text() == "blue" {
			t.Fatal("a barred key is heard")
		}
	}
}

func TestContradictions(t *testing.T) {
	rows := []store.Example{captured(1, "", ""), captured(8, "", ""), captured(2, "", ""), captured(3, "", "")}
	rows[0].Text, rows[1].Text = "Where is my parcel 17?", "where is my parcel 99"
	said(&rows[0], "ann", "red", noon)
	said(&rows[1], "bob", "blue", noon)
	said(&rows[2], "ann", "red", noon)
	said(&rows[2], "bob", "green", noon)
	said(&rows[3], "ann", "red", noon)
	c := Curate(colours(), rows, time.Time{}, nil)
	if len(c.Findings) != 1 || !slices.Equal(c.Findings[0].IDs, []string{"r0001", "r0008", "r0002"}) &&
		!slices.Equal(c.Findings[0].IDs, []string{"r0002", "r0001", "r0008"}) {
		t.Errorf("findings %+v", c.Findings)
	}
}

// A live model's age is a reason only as its task says.
func TestRetrainOnSchedule(t *testing.T) {
	p, grown := Progress{At: noon, Rows: 1000}, store.ExampleCount{Uniform: 1250}
	for _, tc := range []struct {
		age   time.Duration
		after time.Duration
		ok    bool
		want  string
	}{
		{task.DefaultRetrain, 7*24*time.Hour - 1, false, "retrain: 7d"},
		{task.DefaultRetrain, 7 * 24 * time.Hour, true, "older than 7d"},
		{12 * time.Hour, 11 * time.Hour, false, "retrain: 12h"},
		{12 * time.Hour, 12 * time.Hour, true, "older than 12h"},
		{0, 1000 * 24 * time.Hour, false, "never for its age"},
	} {
		reason, ok := WantsTraining(Record{State: Live}, &task.Task{Target: task.DefaultTarget, Retrain: tc.age}, p, grown, noon.Add(tc.after))
		if ok != tc.ok || !strings.Contains(reason, tc.want) {
			t.Errorf("retrain %v after %v: %v, %q", tc.age, tc.after, ok, reason)
		}
	}
	never := &task.Task{Target: task.DefaultTarget}
	if reason, ok := WantsTraining(Record{State: Live}, never, p, store.ExampleCount{Uniform: 1000, ByPerson: newLabels}, noon.Add(time.Hour)); !ok {
		t.Errorf("people's labels count whatever its age: %q", reason)
	}
}

func TestWhenToTrain(t *testing.T) {
	first := firstRun(task.DefaultTarget)
	day := 24 * time.Hour
	for _, tc := range []struct {
		name string
		r    Record
		p    Progress
		s    store.ExampleCount
		ok   bool
		want string
	}{
		{"too few", Record{State: Observing}, Progress{}, store.ExampleCount{Uniform: first - 1}, false, "waits for"},
		{"barred", Record{State: Observing}, Progress{}, store.ExampleCount{Barred: 5000}, false, "forbid training"},
		{"first", Record{State: Observing}, Progress{}, store.ExampleCount{Uniform: first}, true, "labelled requests"},
		{"no growth", Record{State: Observing}, Progress{At: noon, Rows: 1000}, store.ExampleCount{Uniform: 1400}, false, "waits for 1500"},
		{"needed", Record{State: Observing}, Progress{At: noon, Rows: 1000, Needed: 1800}, store.ExampleCount{Uniform: 1799}, false, "waits for 1800"},
		{"much more needed", Record{State: Observing}, Progress{At: noon, Rows: 1000, Needed: 4000}, store.ExampleCount{Uniform: 1999}, false, "waits for 2000"},
		{"grown", Record{State: Observing}, Progress{At: noon, Rows: 1000, Needed: 4000}, store.ExampleCount{Uniform: 2000}, true, ""},
		{"people", Record{State: Observing}, Progress{At: noon, Rows: 1000, ByPerson: 10}, store.ExampleCount{Uniform: 1000, ByPerson: 300}, true, ""},
		{"paused", Record{State: Observing, Paused: true}, Progress{}, store.ExampleCount{Uniform: 10 * first}, false, "paused"},
		{"busy", Record{State: Shadow}, Progress{}, store.ExampleCount{Uniform: 10 * first}, false, "being tried"},
		{"live", Record{State: Live}, Progress{At: noon, Rows: 1000}, store.ExampleCount{Uniform: 5000}, false, "recent"},
		{"old", Record{State: Live}, Progress{At: noon.Add(-8 * day), Rows: 1000}, store.ExampleCount{Uniform: 5000}, true, "older than 7d"},
		{"old, nothing new", Record{State: Live}, Progress{At: noon.Add(-8 * day), Rows: 1000}, store.ExampleCount{Uniform: 1249}, false, "retrained at 1250"},
		{"labels", Record{State: Live}, Progress{At: noon, Rows: 1000}, store.ExampleCount{Uniform: 1000, ByPerson: 200}, true, "people gave 200"},
		{"just suspended", Record{State: Suspended, AlarmAt: noon.Add(time.Hour)}, Progress{At: noon, Rows: 9000}, store.ExampleCount{Uniform: 100}, false, "waits"},
		{"after suspension", Record{State: Suspended, AlarmAt: noon.Add(time.Hour)}, Progress{At: noon, Rows: 9000}, store.ExampleCount{Uniform: first}, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reason, ok := WantsTraining(tc.r, &task.Task{Target: task.DefaultTarget, Retrain: task.DefaultRetrain}, tc.p, tc.s, noon.Add(2*time.Hour))
			if ok != tc.ok || !strings.Contains(reason, tc.want) {
				t.Errorf("%v, %q; want %v, %q", ok, reason, tc.ok, tc.want)
			}
		})
	}
}

// People see disputed answers first. Locking away what they labelled must not leave the easier requests to certify on.
func TestWhatPeopleLabelledIsNotMissingFromTheCalibrationRows(t *testing.T) {
	var rows []store.Example
	calibrates := map[string]bool{}
	for i := range 600 {
		e := captured(i, "gpt-4o", "red")
		e.Text = fmt.Sprintf("a %s thing", ownLetters(i))
		if i%3 == 0 {
			said(&e, fmt.Sprint("person ", i), "blue", noon.AddDate(0, 0, 1))
		}
		if draw := task.Draw(hash64("colours"), e.Text); draw >= testShare && draw < testShare+calibrationShare {
			calibrates[e.ID] = true
		}
		rows = append(rows, e)
	}
	c := Curate(colours(), rows, time.Time{}, nil)
	if len(c.Gold) == 0 {
		t.Error("nothing is locked")
	}
	split := task.SplitExamples(c.Examples, hash64("colours"), calibrationShare, testShare)
	if len(split.Calibration) != len(calibrates) {
		t.Errorf("%d of the %d requests that fall into the calibration part are there", len(split.Calibration), len(calibrates))
	}
}

func ownLetters(i int) string {
	return string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'k'})
}

// One answer of a provider that stands in for a moment, or to another prompt, is no other teacher, also where it is the newest; ten in a
// row are.
func TestAFallbackIsNoOtherTeacher(t *testing.T) {
	var rows []store.Example
	for i := range 300 {
		rows = append(rows, captured(i, "gpt-4o", "red"))
		if i%50 == 49 {
			rows[i].Labels[0].Source = "fallback"
		}
	}
	if c := Curate(colours(), rows, time.Time{}, nil); c.Teacher != "gpt-4o" || len(c.Examples) != 294 {
		t.Errorf("the teacher is %s, and %d requests may calibrate", c.Teacher, len(c.Examples))
	}
	for i := range teacherRun {
		rows = append(rows, captured(300+i, "gpt-5", "red"))
	}
	if c := Curate(colours(), rows, time.Time{}, nil); c.Teacher != "gpt-5" || len(c.Examples) != teacherRun {
		t.Errorf("the teacher is %s, and %d requests may calibrate", c.Teacher, len(c.Examples))
	}
}

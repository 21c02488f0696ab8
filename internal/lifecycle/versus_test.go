package lifecycle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/task"
)

// oracle answers "red" to every text that it knows.
type oracle map[string]bool

func (o oracle) Predict(text string, p *task.Prediction) {
	p.Score, p.InScope = 1, 1
	p.Values = append(p.Values[:0], task.String("blue"), task.Null)
	if o[text] {
		p.Values[0] = task.String("red")
	}
}

func TestMcNemar(t *testing.T) {
	var rows []task.Example
	latest, old := oracle{}, oracle{}
	for i := range 100 {
		text := fmt.Sprint(i)
		rows = append(rows, task.Example{Text: text, Labels: labels("red")})
		latest[text] = i < 90        // 12 of these only the new one knows
		old[text] = i < 78 || i > 96 // 3 of these only the old one knows
	}
	c := &calibration.Certificate{Threshold: .5}
	v := versus(colours().Fields, rows, tried{latest, c}, tried{old, c})
	if v.New != 90 || v.Old != 81 || v.OnlyNew != 12 || v.OnlyOld != 3 {
		t.Fatalf("%+v", v)
	}
	if want := 576.0 / 32768; math.Abs(v.P-want) > 1e-12 { // sum of C(15,k), k = 0…3, over 2^15
		t.Errorf("p = %v, want %v", v.P, want)
	}
	if !v.beats() {
		t.Error("12 to 3 is a win")
	}
	if versus(colours().Fields, rows, tried{latest, c}, tried{latest, c}).beats() {
		t.Error("a model beats itself")
	}
	if versus(colours().Fields, rows, tried{latest, nil}, tried{old, c}).beats() {
		t.Error("a model that may answer nothing beats one that does")
	}
}

func TestGoldRefusal(t *testing.T) {
	trains(t)
	trained := trainColours(t, 900, nil)
	if trained.Certificate == nil {
		t.Fatal(trained.Shortfall)
	}
	if got := goldRefusal(trained); got != "" {
		t.Errorf("no gold rows, yet %s", got)
	}
	trained.gold = colourRows(5000, 100)
	if got := goldRefusal(trained); got != "" {
		t.Errorf("right on every gold row, yet %s", got)
	}
	for i := range trained.gold[:30] {
		wrong := map[string]string{"red": "blue", "green": "red", "blue": "green"}
		trained.gold[i].Labels = labels(wrong[trained.gold[i].Labels["colour"].Text()])
	}
	if got := goldRefusal(trained); !strings.Contains(got, "gold") {
		t.Errorf("wrong on a fifth of the gold rows: %q", got)
	}
}

func now() time.Time { return noon }

// colourRows are texts that name their colour, some with a code; from makes them differ.
func colourRows(from, n int) []task.Example {
	var rows []task.Example
	things := []string{"bicycle", "lamp", "kettle", "jacket", "table", "window", "garden chair", "sofa", "mug", "door"}
	words := map[string][]string{"red": {"crimson", "scarlet", "ruby"}, "green": {"emerald", "olive", "lime"}, "blue": {"navy", "azure", "indigo"}}
	for i := from; i < from+n; i++ {
		r := rand.New(rand.NewPCG(uint64(i), 3))
		colour := []string{"red", "green", "blue"}[r.IntN(3)]
		thing := func() string { return things[r.IntN(len(things))] }
		text := fmt.Sprintf("%s the %s %s next to the %s, seen at %d by the %s%s", []string{"about", "it is", "look at"}[r.IntN(3)],
			words[colour][r.IntN(3)], thing(), thing(), 100+r.IntN(900), thing(), strings.Repeat(" again", r.IntN(4)))
		rows = append(rows, task.Example{ID: fmt.Sprintf("c%d", i), Text: text, Labels: labels(colour)})
	}
	return rows
}

func trainColours(t *testing.T, n int, change func(*TrainOptions)) *Trained {
	t.Helper()
	opt := TrainOptions{Task: colours(), Examples: colourRows(0, n), Seed: 1, Now: now, Refit: true, Lock: true}
	if change != nil {
		change(&opt)
	}
	trained, err := Train(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return trained
}

// What a certificate promises is the task's target, shared among the tiers where the promise is about all of them together; the room that
// is left for a confirmation is no part of it.
func TestWhatACertificatePromises(t *testing.T) {
	trains(t)
	for _, tc := range []struct {
		name     string
		change   func(*TrainOptions)
		promised float64
		proven   float64 // at most
	}{
		{"served", func(o *TrainOptions) { o.Refit = false }, .05, .05},
		{"system, two tiers", func(o *TrainOptions) {
			o.Refit, o.Task.Target.Promise, o.Task.Tiers = false, task.System, []string{linear, "mini"}
		}, .025, .025},
		{"to be confirmed", func(o *TrainOptions) { o.Confirm = true }, .05, .025},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := trainColours(t, 1500, func(o *TrainOptions) {
				o.Task.Target = task.Target{Promise: task.Served, Accuracy: .95, Confidence: .9}
				tc.change(o)
			}).Certificate
			if c == nil || math.Abs(c.Risk-tc.promised) > 1e-9 || c.Upper > tc.proven {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestTrainKeepsTestRowsLocked(t *testing.T) {
	trains(t)
	trained := trainColours(t, 900, func(o *TrainOptions) {
		o.Background, o.Gold, o.Look, o.Teacher = colourRows(2000, 300), colourRows(4000, 50), 2, "gpt-4o-2024-08-06"
	})
	c := trained.Counts
	if c.Test == 0 || c.Train+c.Test+c.Duplicates != 900 || c.Background != 300 || c.Gold != 50 || trained.Evaluation.N != c.Test || trained.People.N != 50 {
		t.Errorf("%+v, evaluated %d", c, trained.Evaluation.N)
	}
	again := trainColours(t, 1200, nil)
	for _, e := range trained.test {
		if !slices.ContainsFunc(again.test, func(o task.Example) bool { return o.ID == e.ID }) {
			t.Fatalf("row %s is locked no more when others are added", e.ID)
		}
	}
	if trained.Certificate.Teacher != "gpt-4o-2024-08-06" || trained.Certificate.Level >= 0.05/1.6 {
		t.Errorf("certificate %+v: the second look must cost", trained.Certificate)
	}
	if cert := trained.Certificate; len(cert.Fields) != 2 || len(cert.Classes) != 3 || cert.Classes[0].Name != "red" || cert.Classes[0].Accepted == 0 {
		t.Errorf("rows %+v %+v", cert.Fields, cert.Classes)
	}
	b := trained.Baseline
	if b.Rows != c.Calibration || len(b.Classes) != 3 || b.Classes[0] == 0 {
		t.Errorf("baseline %+v", b)
	}
}

func TestJudge(t *testing.T) {
	better := trainColours(t, 900, nil)
	data, err := better.encode()
	if err != nil {
		t.Fatal(err)
	}
	live, err := decodeModel(data)
	if err != nil {
		t.Fatal(err)
	}
	if c, _ := judge(better, nil); c.Refusal != "" || !strings.Contains(c.Reason, "certified") {
		t.Errorf("%+v", c)
	}
	if c, v := judge(better, live); v == nil || !strings.Contains(c.Refusal, "does not beat") {
		t.Errorf("a model against itself: %+v", c)
	}
	none := *better
	none.Certificate, none.Shortfall = nil, &calibration.Shortfall{Goal: calibration.Goal{Promise: "served", Risk: .03, Delta: .05}}
	if c, _ := judge(&none, nil); c.Refusal == "" {
		t.Error("a model without a certificate is tried")
	}
}

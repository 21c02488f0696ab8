package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// riddleRows are rows of which a third say what they are about in words that nobody could have learnt.
func riddleRows(from, n int) []task.Example {
	rows := colourRows(from, n)
	for i := range rows {
		r := rand.New(rand.NewPCG(uint64(from+i), 77))
		if r.IntN(3) > 0 {
			continue
		}
		word := make([]byte, 9)
		for j := range word {
			word[j] = byte('a' + r.IntN(26))
		}
		colour := []string{"red", "green", "blue"}[r.IntN(3)]
		rows[i].Text, rows[i].Labels = fmt.Sprintf("it is the %s thing, seen at %d", word, 100+r.IntN(900)), labels(colour)
	}
	return rows
}

// A cheap is a model that a test plays: right but for a share of the rows, at a tenth of a cent a thousand calls.
type cheap struct {
	mu      sync.Mutex
	truth   map[string]task.Output
	wrong   float64
	silent  bool // tells no log-probabilities
	version string
	calls   int
	fail    int // calls from which on there is no reply; 0: never
}

var perCall = cost.FromUSD(.0001)

func (m *cheap) ask(_ context.Context, _, _, input string, scored bool) (Asked, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.fail > 0 && m.calls >= m.fail {
		return Asked{}, errors.New("no reply")
	}
	a := Asked{Version: m.version, Cost: perCall, Priced: true, LogProb: math.NaN(), Values: []task.Value{m.truth[input]["colour"], task.Null}}
	unlike := rand.New(rand.NewPCG(hash64(input), 5)).Float64() < m.wrong
	if unlike {
		a.Values[0] = task.String(map[string]string{"red": "green", "green": "blue", "blue": "red"}[a.Values[0].Text()])
	}
	if scored && !m.silent {
		a.LogProb = -.1
		if unlike {
			a.LogProb = -2
		}
	}
	return a, nil
}

// planned trains a specialist on riddles once and plans with a model behind it.
func planned(t *testing.T, m *cheap, change func(*TrainOptions, *PlanOptions)) *Trained {
	t.Helper()
	rows := riddleRows(0, 1500)
	if m.version == "" {
		m.version = "mini-1"
	}
	m.truth = map[string]task.Output{}
	for _, e := range rows {
		m.truth[e.Text] = e.Labels
	}
	o := TrainOptions{Task: colours(), Examples: rows, Seed: 1, Now: now, Refit: true, Lock: true, Teacher: "gpt-4o-2024-08-06"}
	o.Task.Tiers, o.Task.Target = []string{linear, "mini"}, task.Target{Promise: task.Served, Accuracy: .95, Confidence: .9}
	p := PlanOptions{Ask: m.ask, Budget: cost.USD, Now: now(), Volume: 1e6, VolumeFrom: "a test's", Generalist: cascade.Price{PerCall: .002},
		Model: func(name string) (Source, bool) {
			return Source{Provider: "openai", Upstream: "gpt-4o-mini", Priced: true}, name == "mini"
		}}
	if change != nil {
		change(&o, &p)
	}
	key := strings.Join(o.Task.Tiers, " ") + o.Task.System
	if specialists[key] == nil {
		trained, err := Train(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		specialists[key] = trained
	}
	trained := *specialists[key]
	after := *trained.after
	trained.after, trained.Task = &after, o.Task
	if err := trained.Plan(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return &trained
}

// specialists are trained once for all plans: by tiers, which share the confidence, and prompt.
var specialists = map[string]*Trained{}

func TestAPlanOfTwoTiers(t *testing.T) {
	trains(t)
	m := &cheap{wrong: .01}
	trained := planned(t, m, nil)
	text := trained.Choice.Text()
	if trained.Choice.Chosen().Name("gpt-4o") != "linear → mini → gpt-4o" || len(trained.Tiers) != 1 {
		t.Fatal(text)
	}
	c := trained.Tiers[0].Certificate
	if c.Score != cascade.ScoreLogProb || c.Teacher != "gpt-4o-2024-08-06" || c.N+trained.Certificate.Accepted > trained.Counts.Calibration+1 ||
		c.Below[trained.Certificate.Specialist] > trained.Certificate.Threshold || c.Void(identityOf(trained)) != "" {
		t.Errorf("certificate %+v", c)
	}
	if spent := cost.FromUSD(trained.Choice.Spent); spent != cost.Amount(m.calls)*perCall {
		t.Errorf("%d calls cost %v by the plan", m.calls, spent)
	}
	if m.calls >= trained.Counts.Calibration {
		t.Errorf("%d answers were bought for %d rows, of which only a part reaches the model", m.calls, trained.Counts.Calibration)
	}
	data, err := trained.encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := decodeModel(data); err != nil || len(again.Tiers) != 1 || again.Tiers[0].Certificate.Hash() != c.Hash() || again.Choice.Text() != text {
		t.Errorf("after a round trip through the model file: %v", err)
	}
}

func identityOf(t *Trained) (id calibration.Identity) {
	c := t.Tiers[0].Certificate
	id.Task, id.Specialist, id.Score, id.Teacher, id.PromptHash = "colours", t.Tiers[0].hash(), c.Score, c.Teacher, c.PromptHash
	return id
}

// What the plan says where it does not take the model.
func TestWhyATierIsLeftOut(t *testing.T) {
	trains(t)
	for _, c := range []struct {
		name   string
		model  *cheap
		change func(*TrainOptions, *PlanOptions)
		want   string
		calls  func(int) bool
	}{
		{"no better on what the specialist defers", &cheap{wrong: .67, silent: true}, nil, "dropped: escalation", func(n int) bool { return n > 50 }},
		{"wrong too often", &cheap{wrong: .2, silent: true}, nil, "not certified: its error rate is too high", func(n int) bool { return n > 50 }},
		{"the budget", &cheap{}, func(_ *TrainOptions, p *PlanOptions) { p.Budget = 20 * perCall }, "the budget for calibration is spent", func(n int) bool { return n <= 20 }},
		{"no price", &cheap{}, func(_ *TrainOptions, p *PlanOptions) {
			p.Model = func(string) (Source, bool) { return Source{Provider: "openai"}, true }
		}, "no price in the book", func(n int) bool { return n == 0 }},
		{"not configured", &cheap{}, func(_ *TrainOptions, p *PlanOptions) {
			p.Model = func(string) (Source, bool) { return Source{}, false }
		}, "no model of this name", func(n int) bool { return n == 0 }},
		{"offline", &cheap{}, func(_ *TrainOptions, p *PlanOptions) { p.Ask = nil }, "its next training run asks them, within `calibration_budget`", func(n int) bool { return n == 0 }},
		{"no reply", &cheap{fail: 20}, nil, "gave no reply", func(n int) bool { return n < 60 }},
		{"dearer than the generalist", &cheap{wrong: .01}, func(_ *TrainOptions, p *PlanOptions) { p.Generalist.PerCall = .00002 }, "dearer by $", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			trained := planned(t, c.model, c.change)
			text := trained.Choice.Text()
			if trained.Choice.Chosen().Name("gpt-4o") != "linear → gpt-4o" || len(trained.Tiers) != 0 || !strings.Contains(text, c.want) {
				t.Errorf("want %q in\n%s", c.want, text)
			}
			if c.calls != nil && !c.calls(c.model.calls) {
				t.Errorf("%d calls were made", c.model.calls)
			}
		})
	}
}

// A model that tells no log-probabilities is certified on all that reaches it; without the specialist it is certified on everything.
func TestAPlanWithoutScores(t *testing.T) {
	trains(t)
	trained := planned(t, &cheap{wrong: .005, silent: true}, func(o *TrainOptions, _ *PlanOptions) { o.Task.Tiers = []string{"mini"} })
	if trained.Choice.Chosen().Name("gpt-4o") != "mini → gpt-4o" || trained.Certificate != nil {
		t.Fatal(trained.Choice.Text())
	}
	c := trained.Tiers[0].Certificate
	if c.Score != cascade.ScoreConstant || c.Coverage != 1 || len(c.Below) != 0 {
		t.Errorf("certificate %+v", c)
	}
	if verdict, _ := judge(trained, nil); verdict.Refusal != "" {
		t.Errorf("refused: %s", verdict.Refusal)
	}
}

// Answers are kept between runs: nothing is bought twice but one answer, which shows whether the model is still the same; another
// version of it, or another prompt, is asked about everything anew.
func TestAnswersAreKept(t *testing.T) {
	trains(t)
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	alive := map[string]bool{}
	for _, e := range riddleRows(0, 1500) {
		alive[e.ID] = true
	}
	kept := func(_ *TrainOptions, p *PlanOptions) { p.keep = storedAnswers{s, alive} }
	first := &cheap{wrong: .01}
	planned(t, first, kept)
	second := &cheap{wrong: .01}
	planned(t, second, kept)
	renamed := &cheap{wrong: .01, version: "mini-2"}
	if trained := planned(t, renamed, kept); trained.Tiers[0].Version != "mini-2" {
		t.Errorf("certified as %s", trained.Tiers[0].Version)
	}
	reworded := &cheap{wrong: .01, version: "mini-2"}
	planned(t, reworded, func(o *TrainOptions, p *PlanOptions) { kept(o, p); o.Task.System = "Name the colour." })
	if first.calls < 100 || second.calls != 1 || renamed.calls < 100 || reworded.calls < 100 {
		t.Errorf("calls: %d, then %d, of another version %d, with another prompt %d", first.calls, second.calls, renamed.calls, reworded.calls)
	}
}

// A new plan that is clearly cheaper takes the place of a live one although its specialist is no better.
func TestACheaperPlanBeatsALiveOne(t *testing.T) {
	trains(t)
	live := planned(t, &cheap{}, func(_ *TrainOptions, p *PlanOptions) { p.Ask = nil }) // linear alone
	data, err := live.encode()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := decodeModel(data)
	if err != nil {
		t.Fatal(err)
	}
	same, _ := judge(live, loaded)
	if same.Refusal == "" {
		t.Errorf("the same plan was taken: %s", same.Reason)
	}
	better := planned(t, &cheap{wrong: .01}, nil)
	if got, _ := judge(better, loaded); got.Refusal != "" || !strings.Contains(got.Reason, "its plan is cheaper") {
		t.Errorf("%+v", got)
	}
}

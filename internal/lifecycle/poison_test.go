package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/sample"
	"occam/internal/store"
	"occam/internal/task"
)

// A poisoning is traffic in which somebody gives wrong labels.
type poisoning struct {
	t      *testing.T
	task   *task.Task
	rows   []store.Example
	truth  map[string]task.Output
	clean  []task.Example // that nobody saw
	values []string
	dice   *rand.Rand
}

const poisonClasses = 12

// benched: every line of the tables in docs/lifecycle.md.
var benched = os.Getenv("OCCAM_BENCH") != ""

// newPoisoning is n tickets of twelve categories that the generalist answered, nearly always right, and of which honest people
// labelled one in twenty.
func newPoisoning(t *testing.T, n int) *poisoning {
	p := &poisoning{t: t, truth: map[string]task.Output{}, values: sample.Categories()[:poisonClasses], dice: rand.New(rand.NewPCG(3, 3))}
	p.task = &task.Task{Name: "tickets", Target: task.DefaultTarget, Generalist: "gpt-4o", Audit: .01,
		Fields: []task.Field{{Name: "category", Kind: task.Category, Values: p.values}}}
	for seed := uint64(40); len(p.clean) < 800; seed++ {
		for _, x := range sample.Traffic(seed, 4000) {
			class := x.Truth[sample.Category].Text()
			if x.OutOfScope || !slices.Contains(p.values, class) {
				continue
			}
			o := task.Output{"category": task.String(class)}
			if len(p.rows) == n {
				p.clean = append(p.clean, task.Example{ID: x.ID, Text: x.Text, Labels: o})
				continue
			}
			id := fmt.Sprintf("r%05d", len(p.rows))
			p.truth[id] = o
			e := store.Example{ID: id, Task: "tickets", RequestID: id, At: noon.Add(time.Duration(len(p.rows)) * time.Second), Text: x.Text, Uniform: true}
			said := o
			if p.dice.Float64() < .005 {
				said = p.other(o)
			}
			e.Labels = []store.Label{{Example: id, At: e.At, Source: "gpt-4o", Prompt: "p", Output: said, Trainable: true}}
			if p.dice.IntN(20) == 0 {
				e.Labels = append(e.Labels, store.Label{Example: id, At: e.At, Key: "honest", Source: fromPerson, Output: o, Trainable: true})
			}
			p.rows = append(p.rows, e)
		}
	}
	return p
}

func (p *poisoning) other(o task.Output) task.Output {
	at := slices.Index(p.values, o["category"].Text())
	return task.Output{"category": task.String(p.values[(at+1+p.dice.IntN(poisonClasses-1))%poisonClasses])}
}

// label lets an attacker say something about a row.
func (p *poisoning) label(i int, key string, o task.Output) {
	e := &p.rows[i]
	e.Labels = append(slices.Clip(e.Labels), store.Label{Example: e.ID, At: e.At.Add(time.Hour), Key: key, Source: fromPerson, Output: o, Trainable: true})
}

// An outcome is what became of a poisoned run.
type poisonOutcome struct {
	accuracy, served float64 // on clean tickets, in percent
	refusal          string
	curated          Curated
	trained          *Trained
}

func (p *poisoning) run() poisonOutcome {
	p.t.Helper()
	c := Curate(p.task, p.rows, time.Time{}, nil)
	opt := TrainOptions{Task: p.task, Examples: c.Examples, Background: c.Background, Gold: c.Gold, Said: c.Said, Suspects: c.Suspects, Reversals: c.Reversals, Seed: 1, Look: 1,
		Teacher: c.Teacher, PromptHash: c.Prompt, Refit: true, Lock: true, Now: now}
	trained, err := Train(p.t.Context(), opt)
	if err != nil {
		p.t.Fatal(err)
	}
	verdict, _ := judge(trained, nil)
	e := Evaluate(trained.Model, trained.Certificate, p.clean, now)
	return poisonOutcome{100 * e.Accuracy.Value, 100 * e.ServedAccuracy.Value, verdict.Refusal, c, trained}
}

// RELIABILITY S31: labels that an attacker gives cost at most one point of accuracy at 5 %, one key counts for a tenth at most, and
// what falls below the promise on the locked gold rows is refused. OCCAM_BENCH=1 measures every line of docs/lifecycle.md.
func TestPoisonedLabels(t *testing.T) {
	trains(t)
	n, shares := 1000, []int{5}
	if benched {
		n, shares = 3000, []int{1, 5, 10}
	}
	base := newPoisoning(t, n).run()
	if base.refusal != "" {
		t.Fatalf("without poison: %s", base.refusal)
	}
	t.Logf("%d rows, no poison: %.1f %% right, %.1f %% of the served", n, base.accuracy, base.served)
	keyOf := func(i int) string { return fmt.Sprintf("attacker %d", i%20) } // each below its cap
	for _, share := range shares {
		for name, poison := range map[string]func(p *poisoning, budget int){
			"any other label": func(p *poisoning, budget int) {
				for k, i := range p.dice.Perm(n)[:budget] {
					p.label(i, keyOf(k), p.other(p.truth[p.rows[i].ID]))
				}
			},
			"one category into another": func(p *poisoning, budget int) {
				for i := 0; i < n && budget > 0; i++ {
					if p.truth[p.rows[i].ID]["category"].Text() == p.values[0] {
						p.label(i, keyOf(i), task.Output{"category": task.String(p.values[1])})
						budget--
					}
				}
			},
		} {
			if !benched && name != "any other label" {
				continue
			}
			p := newPoisoning(t, n)
			poison(p, n*share/100)
			got := p.run()
			t.Logf("%2d %% %-26s %.1f %% right (%+.1f), %.1f %% of the served; refused: %q", share, name, got.accuracy, got.accuracy-base.accuracy, got.served, got.refusal)
			if name == "any other label" && share <= 5 && base.accuracy-got.accuracy > 1 {
				t.Errorf("%d %% of other labels cost %.1f points", share, base.accuracy-got.accuracy)
			}
			if wrong := 100 - got.served; got.refusal == "" && calibration.Lower(int(wrong/100*600), 600, .01) > .03+.01 {
				t.Errorf("%d %% %s: %.1f %% of the served answers are wrong and the model is not refused", share, name, wrong)
			}
		}
	}
	colluding := newPoisoning(t, n) // many keys, each below its cap, give a whole category another name
	for i := range n {
		if colluding.truth[colluding.rows[i].ID]["category"].Text() == colluding.values[0] {
			colluding.label(i, keyOf(i), task.Output{"category": task.String(colluding.values[1])})
		}
	}
	if c := Curate(colluding.task, colluding.rows, time.Time{}, nil); len(c.Reversals) != 1 || !strings.Contains(c.Reversals[0].Detail, "labels of 20 keys turn") {
		t.Errorf("many keys together turn a category into another: %+v", c.Reversals)
	}
	flood := newPoisoning(t, n)
	for i := range min(1000, n) {
		flood.label(i, "flooder", flood.other(flood.truth[flood.rows[i].ID]))
	}
	got := flood.run()
	at := slices.IndexFunc(got.curated.Findings, func(f Finding) bool { return f.Kind == "key_cap" && f.Key == "flooder" })
	if at < 0 {
		t.Fatalf("findings %+v", got.curated.Findings)
	}
	if kept := min(1000, n) - got.curated.Findings[at].Count; kept > n/10 {
		t.Errorf("%d labels of one key count", kept)
	}
	t.Logf("one key with %d wrong labels: %.1f %% right (%+.1f), %.1f %% of the served; %s; refused: %q", min(1000, n), got.accuracy, got.accuracy-base.accuracy,
		got.served, got.curated.Findings[at].Detail, got.refusal)
	if got.refusal == "" && 100-got.served > 5 {
		t.Errorf("one key made %.1f %% of the served answers wrong", 100-got.served)
	}
	revoked := Curate(flood.task, flood.rows, time.Time{}, func(key string) bool { return key == "flooder" })
	if slices.ContainsFunc(revoked.Findings, func(f Finding) bool { return f.Key == "flooder" }) {
		t.Error("a barred key's labels are heard")
	}
}

// RELIABILITY S32: a word that one key ties to an answer gains no power over a model that is promoted.
func TestTriggersAreFound(t *testing.T) {
	trains(t)
	n, word := 1000, "zorquib"
	if benched {
		n = 3000
	}
	for _, tc := range []struct {
		share, people int
		reason        string // of the refusal
	}{{5, 1, word}, {5, 3, "gold"}, {0, 1, ""}} {
		if tc.people > 1 && !benched {
			continue
		}
		p := newPoisoning(t, n)
		target := task.Output{"category": task.String(p.values[2])}
		for i := range n * tc.share / 100 {
			if p.truth[p.rows[i].ID]["category"].Text() == p.values[2] {
				continue
			}
			p.rows[i].Text += " " + word
			p.rows[i].Labels = p.rows[i].Labels[:1]
			p.label(i, fmt.Sprint("person ", i%tc.people), target)
		}
		got := p.run()
		success, base := 0, 0
		var q task.Prediction
		for _, e := range p.clean {
			if e.Labels["category"].Equal(target["category"]) {
				continue
			}
			got.trained.Model.Predict(e.Text, &q)
			base += one(q.Values[0].Equal(target["category"]))
			got.trained.Model.Predict(e.Text+" "+word, &q)
			success += one(q.Values[0].Equal(target["category"]))
		}
		t.Logf("%d %% by %d: the word turns %d of %d clean tickets into its answer (%d without it), blocked: %q", tc.share, tc.people, success, len(p.clean), base, got.refusal)
		named := slices.ContainsFunc(got.trained.Triggers, func(x Trigger) bool { return x.Word == word })
		if tc.reason == word && success > 2*base && (!named || got.refusal == "") {
			t.Errorf("%d %% by %d people: triggers %+v, refused %q", tc.share, tc.people, got.trained.Triggers, got.refusal)
		}
		if tc.reason == "gold" && success > 2*base && !strings.Contains(got.refusal, tc.reason) {
			t.Errorf("%d %% by %d people: refused %q", tc.share, tc.people, got.refusal)
		}
		if tc.share == 0 && (got.refusal != "" || len(got.trained.Triggers) > 0) {
			t.Errorf("without a trigger: %q, %+v", got.refusal, got.trained.Triggers)
		}
	}
}

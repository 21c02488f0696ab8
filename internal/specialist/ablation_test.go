//go:build unix

package specialist

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"occam/internal/task"
)

// TestCalibrationAblation compares ways to calibrate on draws of training files: three quarters are learned from, one quarter is asked
// about, and no test file is read. docs/specialist.md has its table.
func TestCalibrationAblation(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("set OCCAM_BENCH=1 to measure on the public data sets")
	}
	for set, draws := range map[string]uint64{"banking77": 2, "abcd": 8} {
		rows := readExamples(t, set+"/train.jsonl")
		fields, err := task.InferFields(rows)
		if err != nil {
			t.Fatal(err)
		}
		fields = fields[:1]
		sum := map[string]result{}
		for seed := range draws {
			rand.New(rand.NewPCG(seed, 75)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			cut := len(rows) * 3 / 4
			for _, familiar := range []bool{false, true} {
				tr, err := newTrainer(context.Background(), fields, rows[:cut], 5, Options{Seed: 1, Workers: 2})
				if err != nil {
					t.Fatal(err)
				}
				name := "weighed as new"
				if familiar {
					name, tr.data.asNew = "weighed as seen", tr.data
				}
				m, err := tr.train(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				score := func(name string) {
					r, s := evaluate(fields, 0, predictAll(m, rows[cut:]), rows[cut:]), sum[name]
					sum[name] = result{accuracy: s.accuracy + r.accuracy, ece: s.ece + r.ece, noise: s.noise + r.noise}
				}
				score(name + ", temperature and line")
				m.heads[0].Platt = platt{Slope: 1}
				score(name + ", temperature")
				m.heads[0].Temperature = 1
				score(name + ", as the blend leaves it")
			}
		}
		for name, s := range sum {
			t.Logf("%-10s %-42s accuracy %.4f  ECE %.4f (noise alone %.4f)", set, name, s.accuracy/float64(draws), s.ece/float64(draws), s.noise/float64(draws))
		}
	}
}

// TestSelfTrainingAblation asks whether texts without labels help ABCD's categories, which have 1,004 labels: not used at all; to widen the
// vocabulary, which is what Train does with them; and labelled by a first model where that is sure, for a second. Three quarters of the training
// file are learned from, the other quarter is asked about, and no test file is read. docs/specialist.md has its table.
func TestSelfTrainingAblation(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") != "selftraining" {
		t.Skip("set OCCAM_BENCH=selftraining to measure on ABCD")
	}
	const draws = 8
	rows, unlabelled := readExamples(t, "abcd/train.jsonl"), readExamples(t, "abcd/train_unlabelled.customer.jsonl")
	fields, err := task.InferFields(rows)
	if err != nil {
		t.Fatal(err)
	}
	fields = fields[:1]
	names := []string{"labels alone", "wider vocabulary", "sure at .95", "sure at .8", "sure at .5"}
	right, added, asked := make([]int, len(names)), make([]int, len(names)), 0
	for seed := range uint64(draws) {
		rand.New(rand.NewPCG(seed, 76)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		cut := len(rows) * 3 / 4
		first := train(t, fields, rows[:cut], Options{Seed: 1})
		asked += len(rows) - cut
		for v, name := range names {
			m, learned := first, slices.Clone(rows[:cut])
			if v > 0 {
				for i, p := range predictAll(first, unlabelled) {
					e := task.Example{ID: unlabelled[i].ID, Text: unlabelled[i].Text}
					if v > 1 && p.Confidence >= []float64{.95, .8, .5}[v-2] {
						e.Labels = task.Output{fields[0].Name: p.Values[0]}
						added[v]++
					}
					learned = append(learned, e)
				}
				m = train(t, fields, learned, Options{Seed: 1})
			}
			for i, p := range predictAll(m, rows[cut:]) {
				if p.Right(fields, rows[cut+i].Labels) {
					right[v]++
				}
			}
			t.Logf("draw %d, %-17s %.4f of %d so far, %d texts labelled by the first model", seed, name, float64(right[v])/float64(asked), asked, added[v])
		}
	}
}

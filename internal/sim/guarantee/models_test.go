package guarantee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

// floorShare is the share of training rows that the product's in-scope floor turns away (lifecycle's constant of that name), by
// scores of models that did not see them.
const floorShare = 0.05

// A corpus is a labelled public data set with its official split.
type corpus struct {
	name        string
	fields      []task.Field
	train, test []task.Example
}

func readExamples(t testing.TB, folder, file string) []task.Example {
	t.Helper()
	f, err := os.Open(filepath.Join(dataFolder(t, folder), file+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	examples, problems, err := task.ReadExamples(f, file+".jsonl")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return examples
}

func readCorpus(t testing.TB, folder string, spans ...task.Field) corpus {
	c := corpus{name: folder, train: readExamples(t, folder, "train"), test: readExamples(t, folder, "test")}
	category := task.Field{Name: "category", Kind: task.Category}
	for _, e := range c.train {
		category.Values = append(category.Values, e.Labels["category"].Text())
	}
	slices.Sort(category.Values)
	category.Values = slices.Compact(category.Values)
	c.fields = append([]task.Field{category}, spans...)
	return c
}

func corpora(t testing.TB) []corpus {
	orderID := task.Field{Name: "order_id", Kind: task.Span, Nullable: true}
	return []corpus{readCorpus(t, "banking77"), readCorpus(t, "clinc150"), readCorpus(t, "abcd", orderID)}
}

func train(t testing.TB, fields []task.Field, examples []task.Example) *specialist.Model {
	t.Helper()
	model, err := specialist.Train(t.Context(), fields, examples, specialist.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// A fit is a corpus' model, and what models that had not seen a training row said of it.
type fit struct {
	model *specialist.Model
	folds []task.Prediction
}

// fits keeps each corpus' fit, so that tables about the same model train it once.
var fits = map[string]fit{}

func (c corpus) fit(t testing.TB) fit {
	t.Helper()
	if f, done := fits[c.name]; done {
		return f
	}
	model, folds, err := specialist.TrainCrossFit(t.Context(), c.fields, c.train, 5, specialist.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	fits[c.name] = fit{model, folds}
	return fits[c.name]
}

func predict(model *specialist.Model, examples []task.Example) []task.Prediction {
	predictions := make([]task.Prediction, len(examples))
	for i := range examples {
		model.Predict(examples[i].Text, &predictions[i])
	}
	return predictions
}

// floorOf is the in-scope score below which the given share of predictions falls. No label is looked at.
func floorOf(predictions []task.Prediction, share float64) float64 {
	scores := make([]float64, len(predictions))
	for i := range predictions {
		scores[i] = predictions[i].InScope
	}
	slices.Sort(scores)
	return scores[int(share*float64(len(scores)))]
}

// outcomes judges predictions against labels; what lies below the floor is never answered.
func outcomes(fields []task.Field, predictions []task.Prediction, truth []task.Example, floor float64) []calibration.Outcome {
	rows := make([]calibration.Outcome, len(predictions))
	for i := range predictions {
		p := &predictions[i]
		rows[i] = calibration.Outcome{Score: p.Score, Wrong: !p.Right(fields, truth[i].Labels)}
		if !(p.InScope >= floor) {
			rows[i].Score = math.Inf(-1)
		}
	}
	return rows
}

func scoresOf(rows []calibration.Outcome) []float64 {
	scores := make([]float64, len(rows))
	for i := range rows {
		scores[i] = rows[i].Score
	}
	return scores
}

// count returns the rows that a threshold accepts, and the wrong ones among them.
func count(rows []calibration.Outcome, threshold float64) (accepted, wrong int) {
	for _, row := range rows {
		if row.Score >= threshold {
			accepted++
			if row.Wrong {
				wrong++
			}
		}
	}
	return accepted, wrong
}

// TestSplitsTable certifies each frozen model on random halves of its test rows.
func TestSplitsTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	var text strings.Builder
	fmt.Fprint(&text, "| data | calibration rows | promise | a | certified | coverage | broken (all test rows) | observed risk above a (other half) |\n|---|---|---|---|---|---|---|---|\n")
	for _, c := range corpora(t) {
		f := c.fit(t)
		pool := outcomes(c.fields, predict(f.model, c.test), c.test, floorOf(f.folds, floorShare))
		for _, promise := range []string{calibration.Served, calibration.System} {
			for _, risk := range []float64{0.03, 0.05} {
				splits(t, &text, c.name, promise, risk, pool)
			}
		}
	}
	writeSection(t, "splits", text.String())
}

func splits(t *testing.T, text *strings.Builder, name, promise string, risk float64, pool []calibration.Outcome) {
	const draws, delta = 200, 0.05
	rng := rand.New(rand.NewPCG(17, 18))
	all := newPopulation(name, risk, risk, pool)
	certified, broken, observed := 0, 0, 0
	coverage := 0.0
	for range draws {
		rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		half := len(pool) / 2
		grid := calibration.Grid(scoresOf(pool[half:]), 200)
		result, err := calibration.Certify(calibration.Goal{Promise: promise, Risk: risk, Delta: delta}, grid, pool[:half])
		if err != nil {
			continue
		}
		certified++
		_, risky := all.at(promise, result.Threshold)
		accepted, wrong := count(pool[half:], result.Threshold)
		coverage += float64(accepted) / float64(len(pool)-half) / draws
		seen := float64(wrong) / float64(max(accepted, 1))
		if promise == calibration.System {
			seen = float64(wrong) / float64(len(pool)-half)
		}
		if risky > risk {
			broken++
		}
		if seen > risk {
			observed++
		}
	}
	fmt.Fprintf(text, "| %s | %d | `%s` | %.2f | %d of %d | %.3f | %.1f %% | %.1f %% |\n", name, len(pool)/2, promise, risk,
		certified, draws, coverage, 100*float64(broken)/draws, 100*float64(observed)/draws)
	if rate := float64(broken) / draws; rate > mayBreak(delta, draws) {
		t.Errorf("%s, %s, a=%v: broken in %.3f of splits", name, promise, risk, rate)
	}
}

package guarantee

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

// A refit is one small labelled sample, certified two ways, and the exact-as-can-be risk on all rows that were left out.
type refit struct {
	heldOut, crossed verdict
}

type verdict struct {
	certified, broken  bool
	coverage, accuracy float64
}

// TestCrossFitTable compares, at equal labels, a model trained on 80 % and certified on the other 20 %, with a model
// trained on all rows and certified by out-of-fold scores. The latter are scores of other, slightly weaker models, so
// that certificate has no proof; this measures how often its promise is broken.
func TestCrossFitTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	const draws, delta = 100, 0.10
	var text strings.Builder
	fmt.Fprintf(&text, "%d random samples of each size, δ = %.2f, promise `served`.\n\n", draws, delta)
	fmt.Fprint(&text, "| data | labels | a | held-out: certified, coverage, accuracy | broken | cross-fitted: certified, coverage, accuracy | broken |\n|---|---|---|---|---|---|---|\n")
	for _, c := range corpora(t) {
		size := 1500
		risk := 0.10
		if c.name == "abcd" {
			size = 1000
		}
		both := refits(t, c, size, draws, risk, delta)
		var held, crossed tally
		for _, f := range both {
			held.add(f.heldOut)
			crossed.add(f.crossed)
		}
		fmt.Fprintf(&text, "| %s | %d | %.2f | %s | %s |\n", c.name, size, risk, held, crossed)
	}
	writeSection(t, "crossfit", text.String())
}

type tally struct {
	n, certified, broken float64
	coverage, accuracy   float64
}

func (t *tally) add(v verdict) {
	t.n++
	t.coverage += v.coverage
	t.accuracy += v.accuracy
	if v.certified {
		t.certified++
	}
	if v.broken {
		t.broken++
	}
}

func (t tally) String() string {
	return fmt.Sprintf("%.0f %%, %.3f, %.3f | %.0f of %.0f", 100*t.certified/t.n, t.coverage/t.n, t.accuracy/t.n, t.broken, t.n)
}

// refits runs the draws on two workers, which is what training leaves room for.
func refits(t *testing.T, c corpus, size, draws int, risk, delta float64) []refit {
	all := append(append([]task.Example{}, c.train...), c.test...)
	all, _ = task.Deduplicate(all)
	results, failures := make([]refit, draws), make([]error, draws)
	next := make(chan int, draws)
	for i := range draws {
		next <- i
	}
	close(next)
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for i := range next {
				results[i], failures[i] = refitOnce(t, c.fields, all, size, uint64(i), calibration.Goal{Promise: calibration.Served, Risk: risk, Delta: delta})
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	return results
}

func refitOnce(t *testing.T, fields []task.Field, all []task.Example, size int, seed uint64, goal calibration.Goal) (refit, error) {
	order := rand.New(rand.NewPCG(seed, 99)).Perm(len(all))
	pick := func(indices []int) []task.Example {
		rows := make([]task.Example, len(indices))
		for i, at := range indices {
			rows[i] = all[at]
		}
		return rows
	}
	sample, rest := pick(order[:size]), pick(order[size:])
	part := size * 8 / 10
	opt := specialist.Options{Seed: seed, Workers: 1}
	first, err := specialist.Train(t.Context(), fields, sample[:part], opt)
	if err != nil {
		return refit{}, err
	}
	full, folds, err := specialist.TrainCrossFit(t.Context(), fields, sample, 5, opt)
	if err != nil {
		return refit{}, err
	}
	floor := floorOf(folds, floorShare)
	return refit{
		heldOut: judge(goal, outcomes(fields, predict(first, sample[part:]), sample[part:], floor), outcomes(fields, predict(first, rest), rest, floor)),
		crossed: judge(goal, outcomes(fields, folds, sample, floor), outcomes(fields, predict(full, rest), rest, floor)),
	}, nil
}

// judge certifies on calibration rows and measures on the rest, of which one half's scores give the grid.
func judge(goal calibration.Goal, rows, rest []calibration.Outcome) verdict {
	var v verdict
	for _, row := range rest {
		if !row.Wrong {
			v.accuracy += 1 / float64(len(rest))
		}
	}
	result, err := calibration.Certify(goal, calibration.Grid(scoresOf(rest), 200), rows)
	if err != nil {
		return v
	}
	accepted, wrong := count(rest, result.Threshold)
	v.certified, v.coverage = true, float64(accepted)/float64(len(rest))
	v.broken = float64(wrong) > goal.Risk*float64(accepted)
	return v
}

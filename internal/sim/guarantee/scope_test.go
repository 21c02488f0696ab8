package guarantee

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"occam/internal/calibration"
	"occam/internal/task"
)

// TestScopeTable measures what a certified gate does with requests that are none of its business: CLINC150 trained on
// its 150 intents, calibrated on the development rows with their small out-of-scope share.
func TestScopeTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	c := readCorpus(t, "clinc150")
	f := c.fit(t)
	model := f.model
	dev := append(readExamples(t, "clinc150", "dev"), readExamples(t, "clinc150", "oos_dev")...)
	calibrate, test := predict(model, dev), predict(model, c.test)
	foreign := readExamples(t, "clinc150", "oos")
	open := append(readExamples(t, "open_domain", "prompts"), task.Example{Text: "Write a poem about 17th-century France"})
	oos, wide := predict(model, foreign), predict(model, open)

	var text strings.Builder
	sum := standardisedSum(f.folds)
	fmt.Fprintf(&text, "Out-of-scope AUROC on %d test rows against %d `oos` prompts: in-scope score **%.4f**, acceptance score %.4f, "+
		"the sum of both, each standardised on out-of-fold training rows, **%.4f**.\n\n", len(test), len(oos),
		calibration.AUROC(inScope(test), inScope(oos)), calibration.AUROC(confidence(test), confidence(oos)),
		calibration.AUROC(inScope(sum(test)), inScope(sum(oos))))
	if auroc := calibration.AUROC(inScope(test), inScope(oos)); auroc < leastAUROC {
		t.Errorf("out-of-scope AUROC is %.4f, less than %v", auroc, leastAUROC)
	}
	fmt.Fprint(&text, "| floor | a | in-scope coverage | in-scope served risk | `oos` answered | open domain answered "+
		"| served risk at 3 % / 18 % out of scope | bound at 18 % |\n|---|---|---|---|---|---|---|---|\n")
	g := gate{fields: c.fields, train: c.train, dev: dev, test: c.test, foreign: foreign, open: open}
	for _, share := range []float64{0, 0.01, 0.03, 0.05} {
		g.row(t, &text, "in-scope score", share, f.folds, calibrate, test, oos, wide)
	}
	for _, share := range []float64{0.03, 0.05} {
		g.row(t, &text, "sum", share, sum(f.folds), sum(calibrate), sum(test), sum(oos), sum(wide))
	}
	writeSection(t, "scope", text.String())
}

// The bars that the shipped floor is held to.
const (
	leastAUROC  = 0.96
	mostForeign = 0.20  // of the `oos` prompts that may be answered at 95 % accuracy
	mostOpen    = 0.005 // of the open-domain prompts, at any target
)

// standardisedSum returns a function that copies predictions with InScope replaced by the sum of both scores, each
// standardised on the rows given.
func standardisedSum(rows []task.Prediction) func([]task.Prediction) []task.Prediction {
	centre, spread := moments(inScope(rows))
	centreScore, spreadScore := moments(confidence(rows))
	return func(predictions []task.Prediction) []task.Prediction {
		sums := slices.Clone(predictions)
		for i := range sums {
			sums[i].InScope = (sums[i].InScope-centre)/spread + (sums[i].Score-centreScore)/spreadScore
		}
		return sums
	}
}

func moments(values []float64) (mean, deviation float64) {
	n, squares := float64(len(values)), 0.0
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		squares += (v - mean) * (v - mean) / n
	}
	return mean, math.Sqrt(squares)
}

// A gate is the data on which a floor and a certified threshold are tried together.
type gate struct {
	fields                          []task.Field
	train, dev, test, foreign, open []task.Example
}

// row certifies at two targets with the floor at the given share and prints what then gets through.
func (g gate) row(t *testing.T, text *strings.Builder, name string, share float64, folds, calibrate, test, oos, wide []task.Prediction) {
	t.Helper()
	floor := math.Inf(-1)
	if share > 0 {
		floor = floorOf(folds, share)
	}
	for _, risk := range []float64{0.03, 0.05} {
		grid := calibration.Grid(scoresOf(outcomes(g.fields, folds, g.train, floor)), 200)
		goal := calibration.Goal{Promise: calibration.Served, Risk: risk, Delta: 0.05}
		result, err := calibration.Certify(goal, grid, outcomes(g.fields, calibrate, g.dev, floor))
		if err != nil {
			t.Fatal(err)
		}
		accepted, wrong := count(outcomes(g.fields, test, g.test, floor), result.Threshold)
		answered, _ := count(outcomes(g.fields, oos, g.foreign, floor), result.Threshold)
		strays, _ := count(outcomes(g.fields, wide, g.open, floor), result.Threshold)
		coverage, inRisk := float64(accepted)/float64(len(test)), float64(wrong)/float64(accepted)
		leak := float64(answered) / float64(len(oos))
		if open := float64(strays) / float64(len(wide)); name == "in-scope score" && share == floorShare && (leak > mostForeign || open > mostOpen) {
			t.Errorf("a=%v: %.1f %% of the oos prompts and %.2f %% of the open domain are answered, at most %.0f %% and %.1f %% may be",
				risk, 100*leak, 100*open, 100*mostForeign, 100*mostOpen)
		}
		const third = 0.05 / 3
		bound := calibration.ServedUnderShift(calibration.Upper(wrong, accepted, third),
			calibration.Lower(accepted, len(test), third), calibration.Upper(answered, len(oos), third), 0.18)
		fmt.Fprintf(text, "| %s, %.0f %% | %.2f | %.3f | %.4f | %.1f %% | %.2f %% | %.4f / %.4f | %.4f |\n", name, 100*share, risk,
			coverage, inRisk, 100*leak, 100*float64(strays)/float64(len(wide)),
			calibration.ServedUnderShift(inRisk, coverage, leak, 0.03), calibration.ServedUnderShift(inRisk, coverage, leak, 0.18), bound)
	}
}

func inScope(predictions []task.Prediction) []float64 {
	return column(predictions, func(p task.Prediction) float64 { return p.InScope })
}

func confidence(predictions []task.Prediction) []float64 {
	return column(predictions, func(p task.Prediction) float64 { return p.Score })
}

func column(predictions []task.Prediction, of func(task.Prediction) float64) []float64 {
	values := make([]float64, 0, len(predictions))
	for p := range slices.Values(predictions) {
		values = append(values, of(p))
	}
	return values
}

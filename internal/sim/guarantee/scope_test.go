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
	model := train(t, c.fields, c.train)
	folds := crossFit(t, c.fields, c.train)
	dev := append(readExamples(t, "clinc150", "dev"), readExamples(t, "clinc150", "oos_dev")...)
	calibrate, test := predict(model, dev), predict(model, c.test)
	foreign := readExamples(t, "clinc150", "oos")
	open := append(readExamples(t, "open_domain", "prompts"), task.Example{Text: "Write a poem about 17th-century France"})
	oos, wide := predict(model, foreign), predict(model, open)

	var text strings.Builder
	fmt.Fprintf(&text, "Out-of-scope AUROC of the in-scope score on %d test rows against %d `oos` prompts: **%.4f**; of the acceptance score: %.4f.\n\n",
		len(test), len(oos), calibration.AUROC(inScope(test), inScope(oos)), calibration.AUROC(confidence(test), confidence(oos)))
	fmt.Fprint(&text, "| floor at | a | in-scope coverage | in-scope served risk | `oos` answered | open domain answered | served risk at 3 % / 18 % out of scope | bound at 18 % |\n|---|---|---|---|---|---|---|---|\n")
	for _, share := range []float64{0, 0.01, 0.03, 0.05} {
		floor := math.Inf(-1)
		if share > 0 {
			floor = floorOf(folds, share)
		}
		for _, risk := range []float64{0.03, 0.05} {
			grid := calibration.Grid(scoresOf(outcomes(c.fields, folds, c.train, floor)), 200)
			result, err := calibration.Certify(calibration.Goal{Promise: calibration.Served, Risk: risk, Delta: 0.05}, grid,
				outcomes(c.fields, calibrate, dev, floor))
			if err != nil {
				t.Fatal(err)
			}
			accepted, wrong := count(outcomes(c.fields, test, c.test, floor), result.Threshold)
			answered, _ := count(outcomes(c.fields, oos, foreign, floor), result.Threshold)
			strays, _ := count(outcomes(c.fields, wide, open, floor), result.Threshold)
			coverage, inRisk := float64(accepted)/float64(len(test)), float64(wrong)/float64(accepted)
			leak := float64(answered) / float64(len(oos))
			bound := calibration.ServedUnderShift(calibration.Upper(wrong, accepted, 0.05/3), calibration.Lower(accepted, len(test), 0.05/3),
				calibration.Upper(answered, len(oos), 0.05/3), 0.18)
			fmt.Fprintf(&text, "| %.0f %% | %.2f | %.3f | %.4f | %.1f %% | %.2f %% | %.4f / %.4f | %.4f |\n", 100*share, risk, coverage, inRisk, 100*leak,
				100*float64(strays)/float64(len(open)), calibration.ServedUnderShift(inRisk, coverage, leak, 0.03),
				calibration.ServedUnderShift(inRisk, coverage, leak, 0.18), bound)
		}
	}
	writeSection(t, "scope", text.String())
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

package lifecycle

import (
	"slices"

	"occam/internal/calibration"
	"occam/internal/task"
)

// addRows completes a certificate with what is known, at its threshold, about each field of the answer and each predicted
// class of the first category: a good average must not hide a bad class.
func addRows(c *calibration.Certificate, result calibration.Result, grid []float64, fields []task.Field, held []task.Prediction, truth []task.Example) {
	for i, f := range fields {
		outcomes := make([]calibration.Outcome, len(held))
		for j, p := range held {
			outcomes[j] = calibration.Outcome{Score: gate(p, c.Floor), Wrong: !p.Values[i].Equal(truth[j].Labels[f.Name])}
		}
		c.Fields = append(c.Fields, calibration.Describe(f.Name, outcomes, result.Threshold, result.Goal))
	}
	at := slices.IndexFunc(fields, func(f task.Field) bool { return f.Kind == task.Category })
	if at >= 0 {
		c.Classes = calibration.Classes(result, grid, outcomesOf(fields, held, truth, c.Floor), classesOf(held, at, fields[at].Values), fields[at].Values)
	}
}

// classesOf is each row's predicted category as an index into values, -1 for null.
func classesOf(predictions []task.Prediction, field int, values []string) []int {
	index := make(map[string]int, len(values))
	for i, v := range values {
		index[v] = i
	}
	classes := make([]int, len(predictions))
	for i, p := range predictions {
		class, known := index[p.Values[field].Text()]
		if !known {
			class = -1
		}
		classes[i] = class
	}
	return classes
}

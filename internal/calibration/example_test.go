package calibration_test

import (
	"errors"
	"fmt"

	"occam/internal/calibration"
)

// A specialist is certified on labelled rows; the thresholds to choose from come from traffic without labels.
func ExampleCertify() {
	unlabelled := make([]float64, 1000)
	for i := range unlabelled {
		unlabelled[i] = float64(i) / 1000
	}
	rows := make([]calibration.Outcome, 600)
	for i := range rows {
		rows[i] = calibration.Outcome{Score: float64(i) / 600, Wrong: i < 150 && i%4 == 0 || i%100 == 0}
	}
	goal := calibration.Goal{Promise: calibration.Served, Risk: 0.05, Delta: 0.05}

	result, err := calibration.Certify(goal, calibration.Grid(unlabelled, 100), rows)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("answer from score %.2f: %d of %d rows accepted, %d wrong, risk at most %.1f %%\n",
		result.Threshold, result.Accepted, result.N, result.Errors, 100*result.Upper)

	_, err = calibration.Certify(goal, calibration.Grid(unlabelled, 100), rows[:50])
	var short *calibration.Shortfall
	if errors.As(err, &short) {
		fmt.Println("with 50 rows:", short.Goal.MinLabels(), "accepted rows are the least that could do")
	}
	// Output:
	// answer from score 0.17: 498 of 600 rows accepted, 16 wrong, risk at most 4.8 %
	// with 50 rows: 59 accepted rows are the least that could do
}

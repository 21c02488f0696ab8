package calibration

import (
	"errors"
	"math"
	"slices"
)

// Classes says, for each predicted class, whether the Served promise holds for that class alone at a certified
// threshold, so that a good average does not hide a bad class. predicted holds each row's predicted class, an index
// into names; anything else belongs to no class. grid, outcomes and result are those of Certify. All rows that come out
// as Certified or Pooled hold together with probability 1-Goal.Spend(), apart from the certificate's own.
//
// Because the threshold was chosen with the help of the same labels, it is not enough to test a class at that
// threshold. Each class is walked down the grid by the fallback procedure of Certify with an equal share of delta
// (Bonferroni), and counts as certified if the threshold is among those proven on the way. A class with too few rows to
// pass even without an error is pooled with the other such classes; that does not look at labels, so the pool is one
// more class.
func Classes(result Result, grid []float64, outcomes []Outcome, predicted []int, names []string) []Row {
	members := make([][]Outcome, len(names)+1) // the last is the pool
	for i, class := range predicted {
		if class >= 0 && class < len(names) && i < len(outcomes) {
			members[class] = append(members[class], outcomes[i])
		}
	}
	small, tests := poolSmall(result, members)
	goal := result.Goal
	goal.Promise, goal.Models = Served, max(goal.Models, 1)*max(tests, 1)
	rows := make([]Row, len(names))
	pooled := provenAt(goal, result, grid, members[len(names)])
	for class, name := range names {
		rows[class] = Describe(name, members[class], result.Threshold, goal)
		switch {
		case small[class] && pooled:
			rows[class].Note = Pooled
		case !small[class] && provenAt(goal, result, grid, members[class]):
			rows[class].Note = Certified
		}
	}
	return rows
}

// poolSmall moves the classes that could not pass even without an error into the last member, and returns which those
// are and how many tests remain. Each class left to itself makes every level smaller, so sizes are tried from the
// largest down.
func poolSmall(result Result, members [][]Outcome) (small []bool, tests int) {
	classes := len(members) - 1
	rows := make([]int, classes) // above the floor, at any threshold: the certified one knows the labels
	order := make([]int, classes)
	for class := range classes {
		order[class] = class
		for _, o := range members[class] {
			rows[class] += one(o.Score > math.Inf(-1))
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return rows[b] - rows[a] })
	small = make([]bool, classes)
	for rank, class := range order {
		goal := result.Goal
		goal.Models = max(goal.Models, 1) * (rank + 2) // the classes so far, this one and the pool
		if small[class] = rows[class] < goal.MinLabels(); small[class] {
			members[classes] = append(members[classes], members[class]...)
		} else {
			tests++
		}
	}
	return small, tests + one(len(members[classes]) > 0)
}

// provenAt reports whether the certified threshold is proven for one class. Starts stand close to it in coverage: at
// half the grid and every tenth from there on; they are fixed before any label is seen.
func provenAt(goal Goal, result Result, grid []float64, members []Outcome) bool {
	const tries = 5
	ladder := newLadder(grid, members)
	var begin []start
	for j := range tries {
		if position := int(math.Ceil((0.5+0.1*float64(j))*float64(len(ladder.grid)))) - 1; position >= 0 {
			begin = append(begin, start{position, goal.Spend() / tries})
		}
	}
	proven := false
	fallback(ladder.grid, begin, goal.Risk, func(i int, _ float64) {
		proven = proven || ladder.grid[i].threshold == result.Threshold
	})
	return proven
}

// Describe counts one class, or one field of the answer, at a threshold that is certified. Its Upper is the one-sided
// Clopper–Pearson bound at goal.Spend() for a threshold that had been fixed beforehand, a description; Note is Overall.
func Describe(name string, outcomes []Outcome, threshold float64, goal Goal) Row {
	row := Row{Name: name, Note: Overall}
	for _, o := range outcomes {
		if o.Score >= threshold {
			row.Accepted++
			row.Errors += one(o.Wrong)
		}
	}
	row.Upper = Upper(row.Errors, row.Accepted, goal.Spend())
	return row
}

// Fields describes each field of the answer at a certified threshold; wrong[f][i] says whether row i's field f was wrong.
// Where the certificate's Outcomes count a row as wrong as soon as one field is, its promise holds for every field, so
// the rows are Certified. A field that needs a threshold of its own needs a Certify of its own, with that field as the
// certificate's scope.
func Fields(result Result, outcomes []Outcome, wrong [][]bool, names []string) []Row {
	rows := make([]Row, len(names))
	for f, name := range names {
		field := make([]Outcome, len(outcomes))
		for i, o := range outcomes {
			field[i] = Outcome{o.Score, wrong[f][i]}
		}
		rows[f] = Describe(name, field, result.Threshold, result.Goal)
		rows[f].Note = Certified
	}
	return rows
}

// A Statement is a promise about one field of the answer alone, at a threshold of its own.
type Statement struct {
	Field     string  `json:"field"`
	Certified bool    `json:"certified"`
	Threshold float64 `json:"threshold,omitempty"` // at and above it the field is right often enough
	N         int     `json:"n"`
	Accepted  int     `json:"accepted"`
	Errors    int     `json:"errors"`
	Upper     float64 `json:"upper"` // of the field's own risk; at most the certificate's Risk where it is certified
	Coverage  float64 `json:"coverage"`
	Level     float64 `json:"level"`          // failure probability that the test spent
	More      int     `json:"more,omitempty"` // labels that a proof still needs, about; 0: certified, or no number would do
	Why       string  `json:"why,omitempty"`  // there is none
}

// Statements certifies each field of the answer by itself, with the goal's promise and risk: a field that is easy may be
// trusted where the whole answer may not. wrong[f][i] says whether row i's field f was wrong; outcomes give the scores, grid is
// that of Certify. All statements hold together with probability 1-goal.Spend(), apart from the certificate's own.
func Statements(goal Goal, grid []float64, outcomes []Outcome, wrong [][]bool, names []string) ([]Statement, error) {
	goal.Models = max(goal.Models, 1) * max(len(names), 1)
	all := make([]Statement, len(names))
	for f, name := range names {
		field := make([]Outcome, len(outcomes))
		for i, o := range outcomes {
			field[i] = Outcome{o.Score, wrong[f][i]}
		}
		result, err := Certify(goal, grid, field)
		s := Statement{Field: name, N: len(field), Level: goal.Spend()}
		var short *Shortfall
		switch {
		case errors.As(err, &short):
			s.Accepted, s.Errors, s.More, s.Why, s.Upper = short.Accepted, short.Errors, short.More, short.Arithmetic, 1
		case err != nil:
			return nil, err
		default:
			s.Certified, s.Threshold, s.Accepted, s.Errors = true, result.Threshold, result.Accepted, result.Errors
			s.Upper, s.Coverage = result.Upper, result.Coverage()
		}
		all[f] = s
	}
	return all, nil
}

package datacheck

import (
	"cmp"
	"fmt"
	"slices"

	"occam/internal/calibration"
	"occam/internal/task"
)

const (
	minPair   = 5    // rows of each category of a pair, below which nothing can be said
	hardShare = 0.03 // confusions, as a share of a pair's rows, that a hard pair surely exceeds
	pairError = 0.01 // how often the bound for a hard pair may be wrong
	sameError = 0.05 // how often the test for an inseparable pair may take one for separable
)

// A pair is two categories with their rows that were answered with one or the other.
type pair struct {
	a, b         string
	rowsA, rowsB int // rows labelled a, and b
	confused     int // rows labelled one and answered with the other
	suspicious   int // of these, rows whose label is suspicious
}

func (p pair) rows() int  { return p.rowsA + p.rowsB }
func (p pair) guess() int { return max(p.rowsA, p.rowsB) }

// inseparable: that many right answers are no surprise if every row were answered with the commoner of the two labels, by an
// exact one-sided binomial test.
func (p pair) inseparable() bool {
	right := p.rows() - p.confused
	chance := float64(p.guess()) / float64(p.rows())
	return 1-calibration.BinCDF(right-1, p.rows(), chance) > sameError
}

// hard: the share of confusions surely exceeds hardShare, by the exact lower bound.
func (p pair) hard() bool { return calibration.Lower(p.confused, p.rows(), pairError) > hardShare }

// confusedPairs lists the pairs with confusions both ways, most confused first. Rows of blocks are left out. Suspicious labels
// are not: where they pile up between two categories, that is what makes the pair hard, and scattered ones hardly count.
func (o *opinions) confusedPairs() []pair {
	type cell struct{ label, answer string }
	counts, suspicious := map[cell]int{}, map[cell]int{}
	for k := range o.rows {
		label, answer := o.label(k), o.other[k]
		if label.IsString() && answer.IsString() && !o.shifted[k] {
			counts[cell{label.Text(), answer.Text()}]++
			suspicious[cell{label.Text(), answer.Text()}] += int(one(o.score[k] >= suspicion))
		}
	}
	var pairs []pair
	for c, n := range counts {
		back := counts[cell{c.answer, c.label}]
		if c.label >= c.answer || back == 0 {
			continue
		}
		p := pair{a: c.label, b: c.answer, confused: n + back, suspicious: suspicious[c] + suspicious[cell{c.answer, c.label}],
			rowsA: n + counts[cell{c.label, c.label}], rowsB: back + counts[cell{c.answer, c.answer}]}
		if p.rowsA >= minPair && p.rowsB >= minPair {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(p, q pair) int {
		return cmp.Or(q.confused*p.rows()-p.confused*q.rows(), cmp.Compare(p.a, q.a), cmp.Compare(p.b, q.b))
	})
	return pairs
}

func (r *Report) pairs(o *opinions) {
	if o.field.Kind != task.Category {
		return
	}
	same := Finding{Kind: Inseparable, Field: o.field.Name, Severity: Warning,
		Why: "Out of fold, these categories are not told apart better than by always naming the commoner of the two.",
		Do:  "Join them, or add to the input what tells them apart; more labels of the same kind will not help."}
	hard := Finding{Kind: HardPair, Field: o.field.Name, Severity: Note,
		Why: fmt.Sprintf("These categories are taken for each other, surely in more than %.0f %% of their rows.", 100*hardShare),
		Do:  "Write down what tells them apart and check the listed rows against it; often the labellers did not agree either."}
	for _, p := range o.confusedPairs() {
		found := &hard
		switch {
		case p.inseparable():
			found = &same
		case !p.hard():
			continue
		}
		low, high := calibration.Interval(p.confused, p.rows(), 0.95)
		group := Group{Values: []string{p.a, p.b}, Score: float64(p.confused) / float64(p.rows()),
			Note: fmt.Sprintf("%d of %d rows confused (95 %%: %.0f to %.0f %%); naming the commoner one would confuse %d",
				p.confused, p.rows(), 100*low, 100*high, p.rows()-p.guess())}
		group.Rows = o.confusedRows(p)
		found.Rows += len(group.Rows)
		found.Groups = append(found.Groups, group)
	}
	r.add(same)
	r.add(hard)
}

func (o *opinions) confusedRows(p pair) []Row {
	var rows []Row
	for k, i := range o.rows {
		label, answer := o.label(k).Text(), o.other[k].Text()
		if !o.shifted[k] && ((label == p.a && answer == p.b) || (label == p.b && answer == p.a)) {
			row := labelledRow(o.examples, i, o.field.Name)
			row.Suggested = &o.other[k]
			rows = append(rows, row)
		}
	}
	return rows
}

package datacheck

import (
	"fmt"
	"math"
	"slices"

	"occam/internal/task"
)

const (
	blockAlarm = 0.001 // at most this often is a block found in a file whose doubtful labels are scattered
	doubtful   = 0.25  // score from which a label counts as doubtful; lower than suspicion, for many rows speak together
	minBlock   = 8     // rows
	maxBlocks  = 50    // of one field
	maxShift   = 5     // rows or places by which labels are tried to have slipped
	mostly     = 0.6   // share of a block's rows that an explanation must fit
)

// A segment is a run of a field's labelled rows, [from, to), by position in opinions.rows.
type segment struct {
	from, to int
	score    float64
}

// blocks looks for runs of rows, in the file's order, in which doubtful labels are much too common: a sheet sorted by half its
// columns, a paste one line off, a labeller who used another list.
func (r *Report) blocks(o *opinions) {
	if o.field.Kind == task.Span || o.field.Kind == task.Labels {
		return
	}
	found := Finding{Kind: ShiftedBlock, Field: o.field.Name, Severity: Error,
		Why: "In these runs of neighbouring rows nearly every label contradicts its text, as when a column slipped or a part was labelled by another list.",
		Do:  "Compare the rows with their source and label them anew; occam does not correct them by itself."}
	for _, s := range findSegments(o.evidence(), math.Log(float64(len(o.rows))/blockAlarm)) {
		if s.to-s.from < minBlock {
			continue
		}
		group := Group{Note: o.explain(s), Score: s.score}
		for k := s.from; k < s.to; k++ {
			o.shifted[k] = true
			row := labelledRow(o.examples, o.rows[k], o.field.Name)
			row.Suggested = &o.other[k]
			group.Rows = append(group.Rows, row)
		}
		found.Rows += len(group.Rows)
		found.Groups = append(found.Groups, group)
	}
	r.add(found)
}

// evidence is each row's log-likelihood ratio of "in a block" against "not": doubtful at a rate half way between the usual one
// and 1, against the usual rate of the row's category or of the file, whichever is higher.
func (o *opinions) evidence() []float64 {
	type count struct{ doubtful, rows float64 }
	byLabel := map[string]*count{}
	var all count
	for k := range o.rows {
		c := byLabel[valueKey(o.label(k))]
		if c == nil {
			c = &count{}
			byLabel[valueKey(o.label(k))] = c
		}
		c.rows, all.rows = c.rows+1, all.rows+1
		if o.score[k] >= doubtful {
			c.doubtful, all.doubtful = c.doubtful+1, all.doubtful+1
		}
	}
	usual := (all.doubtful + 1) / (all.rows + 2)
	evidence := make([]float64, len(o.rows))
	for k := range o.rows {
		c := byLabel[valueKey(o.label(k))]
		p := min(max(usual, (c.doubtful+10*usual)/(c.rows+10)), 0.9)
		q := (1 + p) / 2
		if o.score[k] >= doubtful {
			evidence[k] = math.Log(q / p)
		} else {
			evidence[k] = math.Log((1 - q) / (1 - p))
		}
	}
	return evidence
}

// findSegments returns the disjoint runs with the largest sums, of at least bar each, by position. Among n independent rows
// the chance that any run's sum reaches ln(n/a) is at most a: from every start the likelihood ratio is a martingale of mean 1
// (J. Ville, 1939), and there are n starts.
func findSegments(evidence []float64, bar float64) []segment {
	left := slices.Clone(evidence)
	var found []segment
	for range maxBlocks {
		best := segment{}
		from, sum := 0, 0.0
		for i, e := range left {
			if sum <= 0 {
				from, sum = i, 0
			}
			if sum += e; sum > best.score {
				best = segment{from: from, to: i + 1, score: sum}
			}
		}
		if best.score < bar {
			break
		}
		for i := best.from; i < best.to; i++ {
			left[i] = math.Inf(-1) // parts the rest in two
		}
		found = append(found, best)
	}
	slices.SortFunc(found, func(a, b segment) int { return a.from - b.from })
	return found
}

// explain says how the labels of a block are out of step, where it shows.
func (o *opinions) explain(s segment) string {
	n := s.to - s.from
	note := fmt.Sprintf("%s, %s to %s", plural(n, "row"), place(o.examples, o.rows[s.from]), place(o.examples, o.rows[s.to-1]))
	if by, fits := o.slippedRows(s); fits >= mostly*float64(n) {
		direction := "later"
		if by < 0 {
			by, direction = -by, "earlier"
		}
		return note + fmt.Sprintf("; %.0f of the labels fit the row %d %s: the column has slipped", fits, by, direction)
	}
	if by, fits := o.slippedNames(s); fits >= mostly*float64(n) {
		return note + fmt.Sprintf("; %.0f of the texts fit the category %+d places along the list of categories", fits, by)
	}
	return note
}

func place(examples []task.Example, i int) string {
	if examples[i].Line > 0 {
		return fmt.Sprintf("line %d", examples[i].Line)
	}
	return fmt.Sprintf("row %d", i+1)
}

// slippedRows finds the distance at which the block's labels best fit the answers for other rows' texts.
func (o *opinions) slippedRows(s segment) (by int, fits float64) {
	for d := -maxShift; d <= maxShift; d++ {
		hits := 0.0
		for k := s.from; k < s.to; k++ {
			if at := k + d; d != 0 && at >= 0 && at < len(o.rows) && o.label(k).Equal(o.other[at]) {
				hits++
			}
		}
		if hits > fits {
			by, fits = d, hits
		}
	}
	return by, fits
}

// slippedNames finds the distance in the list of categories at which the answers best fit the block's labels.
func (o *opinions) slippedNames(s segment) (by int, fits float64) {
	counts := map[int]int{}
	size := len(o.field.Values)
	for k := s.from; k < s.to; k++ {
		label, other := slices.Index(o.field.Values, o.label(k).Text()), slices.Index(o.field.Values, o.other[k].Text())
		if d := other - label; label >= 0 && other >= 0 && d != 0 {
			if d > size/2 {
				d -= size
			} else if d < -size/2 {
				d += size
			}
			counts[d]++
		}
	}
	for d, n := range counts {
		if float64(n) > fits || (float64(n) == fits && d < by) {
			by, fits = d, float64(n)
		}
	}
	return by, fits
}

package datacheck

import (
	"cmp"
	"slices"

	"occam/internal/task"
)

const (
	suspicion     = 0.65 // score from which a label is reported
	spanSuspicion = 0.9  // of a span, where no neighbours can second the model
	priorVotes    = 0.05 // votes that no neighbour cast, so that a lone distant neighbour does not decide
)

// opinions are what two judges that did not see a row's label say of it, in one field: the specialist, trained on the other
// folds, and the labels of the nearest texts.
type opinions struct {
	field    task.Field
	examples []task.Example
	near     *nearIndex
	rows     []int // the rows that have a label
	other    []task.Value
	sure     []float64 // the specialist's confidence in other
	support  []float64 // share of the neighbours' votes for the label that the row has
	score    []float64 // how suspicious the label is, 0 where the specialist agrees with it
	shifted  []bool    // the row lies in a block
}

func newOpinions(f task.Field, examples []task.Example, near *nearIndex) *opinions {
	o := &opinions{field: f, examples: examples, near: near}
	for i := range examples {
		if usable(f, &examples[i]) {
			o.rows = append(o.rows, i)
		}
	}
	return o
}

func (o *opinions) label(k int) task.Value { return o.examples[o.rows[k]].Labels[o.field.Name] }

// listen works out every row's score: the specialist's confidence in another label, times the square of the share of votes that
// the neighbours do not give to the label. The model alone doubts many labels of rows that lie between two categories; there,
// neighbours of both kinds are at hand. A label that is wrong by accident has none.
//
// The idea of out-of-fold confidence is confident learning's (C. Northcutt, L. Jiang, I. Chuang, JAIR 70, 2021); the second
// judge stands in for the full distribution over labels, which a Prediction does not hold.
func (o *opinions) listen(predictions []task.Prediction, field int) {
	n := len(o.rows)
	o.other, o.sure, o.support = make([]task.Value, n), make([]float64, n), make([]float64, n)
	o.score, o.shifted = make([]float64, n), make([]bool, n)
	for k, i := range o.rows {
		p := &predictions[i]
		o.other[k], o.sure[k] = p.Values[field], p.FieldConfidence[field]
		if o.field.Kind == task.Span {
			if !o.agrees(k) {
				o.score[k] = o.sure[k]
			}
			continue
		}
		o.support[k] = o.votes(i)
		if !o.agrees(k) {
			o.score[k] = o.sure[k] * (1 - o.support[k]) * (1 - o.support[k])
		}
	}
}

func (o *opinions) agrees(k int) bool {
	label, other := o.label(k), o.other[k]
	if o.field.Kind == task.Span && label.IsString() && other.IsString() {
		return task.NormalizeSpan(o.field.Normalize, label.Text(), nil) == task.NormalizeSpan(o.field.Normalize, other.Text(), nil)
	}
	return label.Equal(other)
}

// votes is the share of votes for the label of row i among the nearest texts and the copies of its own. A text votes with the
// square of its similarity, shared among its rows.
func (o *opinions) votes(i int) float64 {
	own := o.examples[i].Labels[o.field.Name]
	self := o.near.of[i]
	cast, mine := priorVotes, 0.0
	vote := func(w int32, weight float64) {
		rows := o.near.wordings[w].rows
		for _, j := range rows {
			if int(j) == i || int(j) >= len(o.examples) || !usable(o.field, &o.examples[j]) {
				continue
			}
			share := weight / float64(len(rows))
			cast += share
			if o.examples[j].Labels[o.field.Name].Equal(own) {
				mine += share
			}
		}
	}
	vote(self, 1)
	for _, n := range o.near.wordings[self].near {
		vote(n.wording, float64(n.cosine)*float64(n.cosine))
	}
	return mine / cast
}

func (o *opinions) threshold() float64 {
	if o.field.Kind == task.Span {
		return spanSuspicion
	}
	return suspicion
}

// suspicious reports single rows; those of a block are reported with it.
func (r *Report) suspicious(o *opinions) {
	found := Finding{Kind: SuspiciousLabel, Field: o.field.Name, Severity: Warning,
		Why: "A model that did not see these rows is sure of another label, and the nearest texts do not speak for the one they have. Many of them are wrong, not all.",
		Do:  "Go through them from the top, most suspicious first, and correct those that are wrong; stop where most are right. Labels that were right say where the categories need a better definition."}
	if o.field.Kind == task.Span {
		found.Why = "A model that did not see these rows is sure of another answer. Many of the labels are wrong, not all."
	}
	for k, i := range o.rows {
		if o.shifted[k] || o.score[k] < o.threshold() {
			continue
		}
		row := labelledRow(o.examples, i, o.field.Name)
		row.Suggested = &o.other[k]
		found.Rows++
		found.Groups = append(found.Groups, Group{Rows: []Row{row}, Score: o.score[k]})
	}
	sortByScore(found.Groups)
	r.add(found)
}

func sortByScore(groups []Group) {
	slices.SortStableFunc(groups, func(a, b Group) int { return cmp.Compare(b.Score, a.Score) })
}

package datacheck

import (
	"math"

	"occam/internal/calibration"
	"occam/internal/task"
)

// A Ceiling estimates the best accuracy that any model could be seen to reach in one field, on rows labelled like these. Two
// estimates are made in different ways: by counting what is wrong or undecidable, which misses what does not stand out, and by
// how often nearly the same text has different labels, which takes words that matter for noise. Estimate is the mean of the
// two where there are near-duplicates enough for the second. Low takes every doubt for a wrong label and every confusion of a hard
// pair for undecidable, High only the surest doubts; both reach out to the interval of the second estimate.
type Ceiling struct {
	Field    string  `json:"field"`
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Now      float64 `json:"now"` // the specialist, out of fold

	Counted       float64 `json:"counted"`       // 1 less the three counts below, as a share of the rows
	Contradictory float64 `json:"contradictory"` // rows of the rarer label of a text
	Mislabelled   float64 `json:"mislabelled"`   // rows in blocks, or suspicious; each counted by its score
	Undecidable   float64 `json:"undecidable"`   // rows of the rarer category of pairs that cannot be told apart

	NearPairs    int     `json:"near_pairs"`         // texts with a near-duplicate
	NearConflict int     `json:"near_conflict"`      // of these, with another label than it
	ByPairs      float64 `json:"by_pairs,omitempty"` // what the pairs say; 0: too few of them

	Assumes string `json:"assumes"`
}

const (
	minNearPairs   = 50
	ceilingAssumes = "that the rows to be measured on are labelled by the same people in the same way, that a suspicious label is wrong with the " +
		"probability of its score, that categories which this model cannot tell apart cannot be told apart, and that nearly the same text means the same"
)

// ceiling makes the estimate from everything that the other checks found.
func (r *Report) ceiling(o *opinions) Ceiling {
	c := Ceiling{Field: o.field.Name, Assumes: ceilingAssumes}
	c.count(o)
	c.Estimate = c.Counted
	c.pairs(o)
	if c.NearPairs >= minNearPairs {
		c.Estimate = (c.Counted + c.ByPairs) / 2
		low, high := calibration.Interval(c.NearConflict, c.NearPairs, 0.95)
		c.Low, c.High = min(c.Low, 1-bayesError(high, o.classes())), max(c.High, 1-bayesError(low, o.classes()))
	}
	return c
}

const surely = 0.9 // score from which a doubt is believed even by High

// count counts each row once: contradiction first, then block, then suspicion, then pair.
func (c *Ceiling) count(o *opinions) {
	lost := o.contradictory()
	n, agree, doubts, sure := float64(len(o.rows)), 0.0, 0.0, 0.0
	for k := range o.rows {
		if o.agrees(k) {
			agree++
		}
		switch {
		case lost[k]:
			c.Contradictory++
			doubts, sure = doubts+1, sure+1
		case o.shifted[k] && o.score[k] >= doubtful:
			c.Mislabelled++
			doubts, sure = doubts+1, sure+1
		case o.score[k] >= o.threshold():
			c.Mislabelled += o.score[k]
			doubts, sure = doubts+1, sure+one(o.score[k] >= surely)
		}
	}
	if o.field.Kind == task.Category {
		for _, p := range o.confusedPairs() {
			switch {
			case p.inseparable():
				c.Undecidable += float64(max(0, p.rows()-p.guess()-p.suspicious))
				doubts += float64(max(0, p.rows()-p.guess()-p.suspicious))
			case p.hard():
				doubts += float64(p.confused - p.suspicious)
			}
		}
	}
	c.Now = agree / n
	c.Counted = max(0, 1-(c.Contradictory+c.Mislabelled+c.Undecidable)/n)
	c.Low, c.High = min(c.Counted, max(0, 1-doubts/n)), max(c.Counted, 1-sure/n)
}

// pairs counts how often a text and the one nearest to it have different labels.
func (c *Ceiling) pairs(o *opinions) {
	if o.field.Kind == task.Span {
		return // other words, other spans
	}
	labelled := make([]bool, len(o.examples))
	for _, i := range o.rows {
		labelled[i] = true
	}
	for _, i := range o.rows {
		other := o.near.nearestRow(i, labelled)
		if other < 0 {
			continue
		}
		c.NearPairs++
		if labelKey(o.field, &o.examples[i]) != labelKey(o.field, &o.examples[other]) {
			c.NearConflict++
		}
	}
	if c.NearPairs >= minNearPairs {
		c.ByPairs = 1 - bayesError(float64(c.NearConflict)/float64(c.NearPairs), o.classes())
	}
}

func (o *opinions) classes() float64 {
	counts, _ := valueCounts(o.field, o.examples)
	return float64(max(len(counts), 2))
}

// bayesError is the least error that any classifier can have where the nearest neighbour's label differs with probability
// differ, among k classes: if two labels of one text are drawn independently, each alone is wrong about half as often as they
// differ (T. Cover, P. Hart, "Nearest Neighbor Pattern Classification", 1967, their lower bound).
func bayesError(differ, k float64) float64 {
	most := (k - 1) / k
	return most * (1 - math.Sqrt(max(0, 1-differ/most)))
}

// nearestRow returns the row whose text is most like row i's and at least a near-duplicate, among those wanted; -1 for none.
func (x *nearIndex) nearestRow(i int, wanted []bool) int {
	first := func(w int32) int {
		for _, row := range x.wordings[w].rows {
			if int(row) != i && int(row) < len(wanted) && wanted[row] {
				return int(row)
			}
		}
		return -1
	}
	if row := first(x.of[i]); row >= 0 {
		return row
	}
	best, similarity := -1, float32(nearJaccard)
	for _, n := range x.wordings[x.of[i]].near {
		if n.jaccard < similarity || (best >= 0 && n.jaccard == similarity) {
			continue
		}
		if row := first(n.wording); row >= 0 {
			best, similarity = row, n.jaccard
		}
	}
	return best
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// contradictory marks, among rows of the same text, those that do not have the text's commonest label.
func (o *opinions) contradictory() []bool {
	lost := make([]bool, len(o.rows))
	for _, g := range groupBy(len(o.rows), func(k int) string { return plainKey(o.examples[o.rows[k]].Text) }) {
		counts := map[string]int{}
		for _, k := range g {
			counts[labelKey(o.field, &o.examples[o.rows[k]])]++
		}
		common := byCount(counts)[0]
		for _, k := range g {
			lost[k] = labelKey(o.field, &o.examples[o.rows[k]]) != common
		}
	}
	return lost
}

package datacheck

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

const (
	heldOutShare  = 0.2
	minSubset     = 20  // rows of the smallest subset that a model is trained on
	minHeldOut    = 20  // rows to measure on
	resamples     = 500 // of the held-out rows, for the interval
	curveCoverage = 0.9 // of the interval
	gainPrior     = 4.0 // held-out errors' worth of belief that a category follows the curve of all
)

// LearningCurve says how accuracy grew with the rows and what twice as many would bring. Accuracy counts a row as right when
// every labelled field is.
type LearningCurve struct {
	Labelled   int      `json:"labelled"` // rows used, exact copies once
	HeldOut    int      `json:"held_out"` // of these, rows that every point is measured on
	Points     []Point  `json:"points"`
	Fit        PowerLaw `json:"fit"`
	Twice      Forecast `json:"twice"`      // twice the rows of the last point
	Categories []Gain   `json:"categories"` // those that would gain most, first
	Assumes    string   `json:"assumes"`
}

// A Point is the accuracy after training on some rows; each point's rows contain the ones of the point before.
type Point struct {
	Rows     int     `json:"rows"`
	Right    int     `json:"right"`
	Accuracy float64 `json:"accuracy"`
	Low      float64 `json:"low"` // 95 %, Clopper–Pearson
	High     float64 `json:"high"`
}

// A PowerLaw says that a model trained on m rows errs with probability Scale·m^(-Exponent) + Floor.
type PowerLaw struct {
	Scale    float64 `json:"scale"`
	Exponent float64 `json:"exponent"`
	Floor    float64 `json:"floor"`
}

// Error is the share of wrong answers after training on m rows.
func (p PowerLaw) Error(m float64) float64 { return p.Scale*math.Pow(m, -p.Exponent) + p.Floor }

// A Forecast is what the fitted curve says of more rows, with a 90 % interval.
type Forecast struct {
	Rows     int     `json:"rows"`
	Accuracy float64 `json:"accuracy"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// A Gain says what more labels of one category would bring.
type Gain struct {
	Field    string  `json:"field"`
	Value    string  `json:"value"`
	Rows     int     `json:"rows"`               // to train on
	HeldOut  int     `json:"held_out"`           // to measure on
	Wrong    int     `json:"wrong"`              // of these, with all the rows
	PerMille float64 `json:"saved_per_thousand"` // errors in a thousand requests that twice the rows would save
}

const curveAssumes = "that more rows would come from the same traffic, labelled the same way; the interval holds the chance of the held-out rows, " +
	"not that of which rows were drawn to train on, nor that the curve is no power law"

// fractions of the training rows, smallest first.
var fractions = []float64{0.125, 0.25, 0.5, 1}

// Curve trains on nested subsets and measures each on the same held-out rows. It costs about two trainings on all rows.
func Curve(ctx context.Context, fields []task.Field, examples []task.Example, opt Options) (*LearningCurve, error) {
	kept, _ := task.Deduplicate(learnable(fields, examples))
	kept = slices.DeleteFunc(kept, func(e task.Example) bool { return len(e.Labels) == 0 })
	split := task.SplitExamples(kept, opt.Seed, 0, heldOutShare)
	train, held := spread(fields, split.Train, opt.Seed), split.Test
	if smallest := int(fractions[0] * float64(len(train))); smallest < minSubset || len(held) < minHeldOut {
		return nil, fmt.Errorf("%d labelled rows are too few for a learning curve: it needs about %d", len(kept), int(minSubset/fractions[0]/(1-heldOutShare)))
	}
	c := &LearningCurve{Labelled: len(kept), HeldOut: len(held), Assumes: curveAssumes}
	right := make([][]bool, len(fractions))
	predictions := make([][]task.Prediction, len(fractions))
	for k, fraction := range fractions {
		rows := train[:int(math.Round(fraction*float64(len(train))))]
		var err error
		if predictions[k], err = trainAndPredict(ctx, fields, rows, held, k, opt); err != nil {
			return nil, err
		}
		right[k] = make([]bool, len(held))
		for i := range held {
			right[k][i] = predictions[k][i].Right(fields, held[i].Labels)
		}
		c.Points = append(c.Points, newPoint(len(rows), right[k]))
	}
	c.Fit = fitPowerLaw(c.Points, len(held))
	c.forecast(right, opt.Seed)
	last := len(fractions) - 1
	c.gains(fields, train, held, predictions[last-1], predictions[last])
	return c, nil
}

func newPoint(rows int, right []bool) Point {
	p := Point{Rows: rows}
	for _, r := range right {
		if r {
			p.Right++
		}
	}
	p.Accuracy = float64(p.Right) / float64(len(right))
	p.Low, p.High = calibration.Interval(p.Right, len(right), 0.95)
	return p
}

func trainAndPredict(ctx context.Context, fields []task.Field, rows, held []task.Example, step int, opt Options) ([]task.Prediction, error) {
	o := specialist.Options{Seed: opt.Seed, Workers: opt.Workers}
	if opt.Progress != nil {
		o.Progress = func(done, total int) { opt.Progress(fmt.Sprintf("curve %d/%d", step+1, len(fractions)), done, total) }
	}
	model, err := specialist.Train(ctx, fields, rows, o)
	if err != nil {
		return nil, fmt.Errorf("datacheck: learning curve at %d rows: %w", len(rows), err)
	}
	predictions := make([]task.Prediction, len(held))
	for i := range held {
		model.Predict(held[i].Text, &predictions[i])
	}
	return predictions, nil
}

// spread orders rows at random, but so that every beginning of the list holds each category in proportion.
func spread(fields []task.Field, examples []task.Example, seed uint64) []task.Example {
	stratum := func(e *task.Example) string {
		for _, f := range fields {
			if v, known := e.Labels[f.Name]; known && f.Kind != task.Span {
				return valueKey(v)
			}
		}
		return ""
	}
	counts, rank := map[string]int{}, map[string]int{}
	for i := range examples {
		counts[stratum(&examples[i])]++
	}
	rng := rand.New(rand.NewPCG(seed, 11))
	type placed struct {
		at float64
		e  task.Example
	}
	order := make([]placed, 0, len(examples))
	for _, i := range rng.Perm(len(examples)) {
		s := stratum(&examples[i])
		order = append(order, placed{(float64(rank[s]) + rng.Float64()) / float64(counts[s]), examples[i]})
		rank[s]++
	}
	slices.SortStableFunc(order, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	out := make([]task.Example, len(order))
	for k := range order {
		out[k] = order[k].e
	}
	return out
}

// fitPowerLaw fits the errors of the points by weighted least squares. For a given exponent the curve is linear in scale and
// floor, so the exponent is searched and the rest solved, both kept from falling below 0. Four points hardly tell a small
// exponent from a floor; a mild preference for exponents around 1/2 decides where they do not (error exponents of real
// learning curves mostly lie between 0.1 and 1: T. Viering, M. Loog, "The Shape of Learning Curves", 2021).
func fitPowerLaw(points []Point, heldOut int) PowerLaw {
	best, bestLoss := PowerLaw{}, math.Inf(1)
	for exponent := 0.05; exponent <= 1.5; exponent += 0.05 {
		law, loss := fitScale(points, heldOut, exponent)
		loss += (exponent - 0.5) * (exponent - 0.5) / (0.5 * 0.5)
		if loss < bestLoss {
			best, bestLoss = law, loss
		}
	}
	return best
}

// fitScale solves scale and floor for one exponent; loss is in units of the points' binomial variance.
func fitScale(points []Point, heldOut int, exponent float64) (law PowerLaw, loss float64) {
	var w, wx, wy, wxx, wxy float64
	weights := make([]float64, len(points))
	for k, p := range points {
		x, y := math.Pow(float64(p.Rows), -exponent), 1-p.Accuracy
		smooth := (y*float64(heldOut) + 1) / float64(heldOut+2)
		weights[k] = float64(heldOut) / (smooth * (1 - smooth))
		w, wx, wy = w+weights[k], wx+weights[k]*x, wy+weights[k]*y
		wxx, wxy = wxx+weights[k]*x*x, wxy+weights[k]*x*y
	}
	law = PowerLaw{Exponent: exponent}
	if det := w*wxx - wx*wx; det > 0 {
		law.Scale, law.Floor = (w*wxy-wx*wy)/det, (wxx*wy-wx*wxy)/det
	}
	if law.Floor < 0 {
		law.Scale, law.Floor = wxy/wxx, 0
	}
	if law.Scale < 0 {
		law.Scale, law.Floor = 0, wy/w
	}
	for k, p := range points {
		d := law.Error(float64(p.Rows)) - (1 - p.Accuracy)
		loss += weights[k] * d * d
	}
	return law, loss
}

// forecast reads the curve at twice the rows. The interval is that of the fits to resampled held-out rows, the same rows for
// every point, because a row that is hard for one model is hard for the next.
func (c *LearningCurve) forecast(right [][]bool, seed uint64) {
	rows := 2 * c.Points[len(c.Points)-1].Rows
	c.Twice = Forecast{Rows: rows, Accuracy: 1 - c.Fit.Error(float64(rows))}
	rng := rand.New(rand.NewPCG(seed, 12))
	guesses := make([]float64, resamples)
	points := slices.Clone(c.Points)
	for b := range guesses {
		counts := make([]int, len(points))
		for range c.HeldOut {
			i := rng.IntN(c.HeldOut)
			for k := range points {
				if right[k][i] {
					counts[k]++
				}
			}
		}
		for k := range points {
			points[k].Accuracy = float64(counts[k]) / float64(c.HeldOut)
		}
		guesses[b] = 1 - fitPowerLaw(points, c.HeldOut).Error(float64(rows))
	}
	slices.Sort(guesses)
	tail := int((1 - curveCoverage) / 2 * resamples)
	c.Twice.Low, c.Twice.High = min(guesses[tail], c.Twice.Accuracy), max(guesses[resamples-1-tail], c.Twice.Accuracy)
}

// gains ranks the categories by the errors that twice the rows would save: a category's errors now, times the share by which
// its errors fell when its rows last doubled, drawn towards the share of all.
func (c *LearningCurve) gains(fields []task.Field, train, held []task.Example, half, full []task.Prediction) {
	rows := float64(c.Points[len(c.Points)-1].Rows)
	usual := c.Fit.Error(2*rows) / max(c.Fit.Error(rows), 1e-9)
	for k, f := range fields {
		if f.Kind != task.Category {
			continue
		}
		taught, measured := memberRows(f, train), memberRows(f, held)
		for _, v := range f.Values {
			before, after := 0, 0
			for _, i := range measured[v] {
				before += int(one(!half[i].Values[k].Equal(held[i].Labels[f.Name])))
				after += int(one(!full[i].Values[k].Equal(held[i].Labels[f.Name])))
			}
			left := min(1, (float64(after)+gainPrior*usual)/(float64(before)+gainPrior))
			if saved := float64(after) * (1 - left); saved > 0 {
				c.Categories = append(c.Categories, Gain{Field: f.Name, Value: v, Rows: len(taught[v]), HeldOut: len(measured[v]), Wrong: after,
					PerMille: 1000 * saved / float64(c.HeldOut)})
			}
		}
	}
	slices.SortStableFunc(c.Categories, func(a, b Gain) int { return cmp.Compare(b.PerMille, a.PerMille) })
}

package calibration

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// A world draws scores; which answers are wrong is for the test to say.
type world struct {
	name  string
	score func(rng *rand.Rand) float64
}

var worlds = []world{
	{"79 of 80 share two values", func(rng *rand.Rand) float64 {
		switch u := rng.Float64(); {
		case u < 0.6:
			return 0.99
		case u < 0.9875:
			return 0.98
		default:
			return rng.Float64() / 2
		}
	}},
	{"all tied", func(*rand.Rand) float64 { return 1 }},
	{"no ties", func(rng *rand.Rand) float64 { return rng.Float64() }},
	{"half tied at the bottom", func(rng *rand.Rand) float64 { return max(0.5, rng.Float64()) }},
}

func (w world) scores(rng *rand.Rand, n int) []float64 {
	scores := make([]float64, n)
	for i := range scores {
		scores[i] = w.score(rng)
	}
	return scores
}

// rows draws outcomes that are wrong at one rate from the threshold up and at another below.
func (w world) rows(rng *rand.Rand, n int, threshold, above, below float64) []Outcome {
	rows := make([]Outcome, n)
	for i, score := range w.scores(rng, n) {
		rate := below
		if score >= threshold {
			rate = above
		}
		rows[i] = Outcome{score, rng.Float64() < rate}
	}
	return rows
}

// certified is the share of draws of n rows that are certified, where the error rate is what the shortfall supposes.
func (w world) certified(rng *rand.Rand, goal Goal, grid []float64, s *Shortfall, n int) float64 {
	if goal.Look > 0 {
		goal.Look++
	}
	rate := rung{accepted: s.Accepted, errors: s.Errors}.rate()
	if goal.Promise == System { // of all rows: the share that the threshold accepts was seen on few
		rate *= ratio(s.Accepted, s.N) / ratio(newLadder(nil, outcomesAt(grid)).count([]float64{s.Threshold})[0].accepted, len(grid))
	}
	certified := 0
	for range advisedDraws {
		l := newLadder(grid, w.rows(rng, n, s.Threshold, rate, 0.5))
		choose := l.served // Certify without its advice
		if goal.Promise == System {
			choose = l.system
		}
		_, _, ok := choose(goal)
		certified += one(ok)
	}
	return ratio(certified, advisedDraws)
}

func outcomesAt(scores []float64) []Outcome {
	rows := make([]Outcome, len(scores))
	for i, score := range scores {
		rows[i].Score = score
	}
	return rows
}

const advisedDraws, advisedMost = 200, 2000

// The number of labels that a shortfall names does certify, as often as it says, where its own estimate of the error rate is right;
// half of it mostly does not. Scores may be tied as they like.
func TestTheAdvisedNumberOfLabelsIsRight(t *testing.T) {
	const samples = 6
	rng := rand.New(rand.NewPCG(91, 92))
	sum, count := 0.0, 0.0
	for _, w := range worlds {
		for name, goal := range map[string]Goal{
			"served":           {Promise: Served, Risk: 0.05, Delta: 0.05},
			"served, look 2":   {Promise: Served, Risk: 0.05, Delta: 0.05, Look: 2},
			"served, a = 0.03": {Promise: Served, Risk: 0.03, Delta: 0.10},
			"system":           {Promise: System, Risk: 0.05, Delta: 0.05},
		} {
			enough, half, asked := 0.0, 0.0, 0.0
			for range samples {
				grid := Grid(w.scores(rng, 10_000), 200)
				_, err := Certify(goal, grid, w.rows(rng, 80, math.Inf(-1), 0.4*goal.Risk, 0))
				var short *Shortfall
				if !errors.As(err, &short) || short.Accepted == 0 || short.Needed > advisedMost {
					// certified at once, too few rows to judge the error rate, or too many for a quick test
					continue
				}
				asked++
				got := w.certified(rng, goal, grid, short, short.Needed)
				if limit := planPower - 3.5*math.Sqrt(planPower*(1-planPower)/advisedDraws); got < limit {
					t.Errorf("%s, %s: %.3f of draws are certified; %v", w.name, name, got, short)
				}
				enough += got
				half += w.certified(rng, goal, grid, short, short.Needed/2)
			}
			sum, count = sum+half, count+asked
			t.Logf("%s, %s: %v times advised, enough in %.3f of draws, half of it in %.3f", w.name, name, asked, enough/asked, half/asked)
		}
	}
	if count < 10 || sum/count > 0.4 {
		t.Errorf("half of the advised number certifies in %.3f of draws, advised %v times", sum/count, count)
	}
}

// 80 rows of which 79 share two scores: what is accepted is 79 of 80, not the share that the start's place on the grid says.
func TestTiedRowsNeedNoMoreLabelsThanUntied(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.03, Delta: 0.05, Look: 1}
	rows := make([]Outcome, 80)
	for i := range rows {
		rows[i] = Outcome{Score: 0.98 + 0.01*float64(i%2)}
	}
	rows[0].Score = 0.1
	_, err := Certify(goal, Grid(worlds[0].scores(rand.New(rand.NewPCG(93, 94)), 4000), 200), rows)
	var short *Shortfall
	if !errors.As(err, &short) {
		t.Fatal(err)
	}
	if short.Accepted < 79 || short.Needed > 240 {
		t.Errorf("%v", short)
	}
}

// What no number of labels that anybody could give would prove is said to be so.
func TestARiskThatNobodyCanProve(t *testing.T) {
	for _, promise := range []string{Served, System} {
		goal := Goal{Promise: promise, Risk: 1e-300, Delta: 0.05}
		_, err := Certify(goal, evenGrid(10), worlds[2].rows(rand.New(rand.NewPCG(1, 1)), 200, 0, 0, 0))
		var short *Shortfall
		if !errors.As(err, &short) || short.More != 0 || !strings.Contains(short.Error(), "more than 10000000 accepted labels") {
			t.Errorf("%s: %v", promise, err)
		}
	}
}

// A bound that is rounded up past the promise that the very same numbers prove does not void the certificate.
func TestTheBoundIsNeverAboveThePromiseItProves(t *testing.T) {
	for k := range 5 {
		for n := k + 20; n < 200; n++ {
			goal := Goal{Promise: System, Risk: 0.07, Delta: BinCDF(k, n, 0.07)}
			rows := make([]Outcome, n)
			for i := range rows {
				rows[i] = Outcome{1, i < k}
			}
			result, err := Certify(goal, nil, rows)
			if err != nil || result.Upper > goal.Risk {
				t.Fatalf("%d of %d: %+v, %v", k, n, result, err)
			}
		}
	}
}

// Where a part of the labelled rows calibrates, the same part of what is still to be labelled does.
func TestLabelsInAll(t *testing.T) {
	s := &Shortfall{Goal: Goal{Promise: Served, Risk: 0.03, Delta: 0.05}, N: 224, Of: 1004, Needed: 1056, More: 832, Arithmetic: "…"}
	if got := s.Label(); got != 3730 || !strings.Contains(s.Error(), "label about 3730 more (224 of 1004 labelled rows were held out to calibrate)") {
		t.Errorf("%d: %v", got, s)
	}
	if s.Of = 0; s.Label() != 832 || !strings.Contains(s.Error(), "label about 832 more") {
		t.Errorf("all rows calibrate: %v", s)
	}
	if none := (&Shortfall{Goal: s.Goal, Of: 10, More: 99}); none.Label() != 99 {
		t.Errorf("no rows: %d", none.Label())
	}
}

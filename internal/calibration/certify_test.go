package calibration

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyOutcomes draws rows with everything that can go wrong: ties, NaN, infinities, one class, none.
func anyOutcomes(t *rapid.T) []Outcome {
	score := rapid.OneOf(
		rapid.Float64(),
		rapid.Float64Range(0, 1),
		rapid.SampledFrom([]float64{0, 0.5, 1, math.NaN(), math.Inf(1), math.Inf(-1)}),
	)
	wrong := rapid.SampledFrom([]func(*rapid.T) bool{
		func(*rapid.T) bool { return true },
		func(*rapid.T) bool { return false },
		func(t *rapid.T) bool { return rapid.Bool().Draw(t, "wrong") },
		func(t *rapid.T) bool { return rapid.IntRange(0, 40).Draw(t, "wrong in 41") == 0 },
	}).Draw(t, "kind")
	outcomes := make([]Outcome, rapid.IntRange(0, 300).Draw(t, "n"))
	for i := range outcomes {
		outcomes[i] = Outcome{score.Draw(t, "score"), wrong(t)}
	}
	return outcomes
}

func anyGoal(t *rapid.T) Goal {
	return Goal{
		Promise: rapid.SampledFrom([]string{Served, System}).Draw(t, "promise"),
		Risk:    rapid.Float64Range(0.001, 0.999).Draw(t, "risk"),
		Delta:   rapid.Float64Range(0.001, 0.999).Draw(t, "delta"),
		Tiers:   rapid.IntRange(0, 3).Draw(t, "tiers"),
		Models:  rapid.IntRange(0, 3).Draw(t, "models"),
		Look:    rapid.IntRange(0, 3).Draw(t, "look"),
	}
}

// Whatever comes in, either nothing is certified and the error says why, or the evidence is that of the threshold and
// proves the goal.
func TestCertifyOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		goal, outcomes := anyGoal(t), anyOutcomes(t)
		grid := Grid(rapid.SliceOfN(rapid.Float64(), 0, 50).Draw(t, "unlabelled"), rapid.IntRange(0, 60).Draw(t, "size"))
		if rapid.Bool().Draw(t, "own grid") {
			grid = nil
			for _, o := range outcomes {
				grid = append(grid, o.Score)
			}
		}
		result, err := Certify(goal, grid, outcomes)
		var short *Shortfall
		if errors.As(err, &short) {
			if short.N != len(outcomes) || short.Arithmetic == "" || (short.Needed > 0) != (short.More > 0) {
				t.Fatalf("odd shortfall %+v", short)
			}
			if len(outcomes) < goal.MinLabels() && short.More == 0 {
				t.Fatalf("too few rows, but it does not say how many: %v", short)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted, wrong := 0, 0
		for _, o := range outcomes {
			if o.Score >= result.Threshold {
				accepted++
				wrong += one(o.Wrong)
			}
		}
		if accepted != result.Accepted || wrong != result.Errors || result.N != len(outcomes) || accepted == 0 {
			t.Fatalf("evidence %+v is not that of the rows: %d accepted, %d wrong", result, accepted, wrong)
		}
		if math.IsInf(result.Threshold, 0) || math.IsNaN(result.Threshold) {
			t.Fatalf("threshold %v", result.Threshold)
		}
		if result.Upper > goal.Risk+1e-12 || result.Level > goal.Spend()*(1+1e-12) || result.Level <= 0 {
			t.Fatalf("%+v does not prove %+v (spend %v)", result, goal, goal.Spend())
		}
	})
}

func TestOrderOfRowsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		goal, outcomes := anyGoal(t), anyOutcomes(t)
		grid := evenGrid(50)
		result, err := Certify(goal, grid, outcomes)
		slices.Reverse(outcomes)
		slices.Reverse(grid)
		again, err2 := Certify(goal, grid, outcomes)
		if result != again || (err == nil) != (err2 == nil) {
			t.Fatalf("%+v then %+v", result, again)
		}
	})
}

func TestInvalidGoalsAreErrorsNotShortfalls(t *testing.T) {
	good := Goal{Promise: Served, Risk: 0.05, Delta: 0.05}
	for name, change := range map[string]func(*Goal){
		"promise": func(g *Goal) { g.Promise = "always right" },
		"risk":    func(g *Goal) { g.Risk = 0 },
		"delta":   func(g *Goal) { g.Delta = math.NaN() },
		"look":    func(g *Goal) { g.Look = -1 },
	} {
		goal := good
		change(&goal)
		_, err := Certify(goal, nil, nil)
		var short *Shortfall
		if err == nil || errors.As(err, &short) || !strings.Contains(err.Error(), name) {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestMinLabels(t *testing.T) {
	for risk, want := range map[float64]int{0.01: 299, 0.02: 149, 0.03: 99, 0.05: 59, 0.10: 29, 0: math.MaxInt, 1: math.MaxInt, 1e-300: math.MaxInt} {
		if got := (Goal{Promise: Served, Risk: risk, Delta: 0.05}).MinLabels(); got != want {
			t.Errorf("risk %v: %d labels, want %d", risk, got, want)
		}
	}
}

func TestDeltaIsSharedOut(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.05, Delta: 0.06, Tiers: 3, Models: 2}
	if got := goal.Spend(); math.Abs(got-0.01) > 1e-15 {
		t.Errorf("3 tiers and 2 models leave %v of 0.06", got)
	}
	sum := 0.0
	for look := 1; look <= 100_000; look++ {
		goal.Look = look
		sum += goal.Spend()
	}
	if sum > 0.01 || sum < 0.00999 {
		t.Errorf("all looks together spend %v of 0.01", sum)
	}
}

func TestShortfallSaysHowManyMore(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.05, Delta: 0.05}
	shortfall := func(n int, wrong bool, grid []float64) *Shortfall {
		t.Helper()
		rows := make([]Outcome, n)
		for i := range rows {
			rows[i] = Outcome{float64(i) / float64(n), wrong}
		}
		_, err := Certify(goal, grid, rows)
		var short *Shortfall
		if !errors.As(err, &short) {
			t.Fatalf("%d rows: %v", n, err)
		}
		return short
	}
	grid := evenGrid(100)
	if s := shortfall(0, false, grid); s.More != 3*59 || !strings.Contains(s.Error(), "(1-0.05)^n <= 0.05 takes n = 59") {
		t.Errorf("no rows at all: %v", s)
	}
	if s := shortfall(40, false, grid); s.Needed < 59 || s.Needed > 260 || s.More != s.Needed-40 || !strings.Contains(s.Error(), "more") {
		t.Errorf("40 right rows: %+v, %v", s, s)
	}
	if s := shortfall(4000, true, grid); s.More != 0 || !strings.Contains(s.Error(), "train a better specialist") {
		t.Errorf("all wrong: %v", s)
	}
	if s := shortfall(100, false, nil); !strings.Contains(s.Error(), "unlabelled traffic") {
		t.Errorf("no grid: %v", s)
	}
}

// Whoever labels as many rows as advised must be certified more often than not.
func TestShortfallAdvisesEnough(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	draw := func(rows []Outcome, n int) []Outcome {
		for range n {
			rows = append(rows, population(rng))
		}
		return rows
	}
	asked, enough := 0, 0
	for range 200 {
		goal, grid := Goal{Promise: Served, Risk: 0.05, Delta: 0.1}, evenGrid(200)
		rows := draw(nil, 120)
		_, err := Certify(goal, grid, rows)
		var short *Shortfall
		if !errors.As(err, &short) || short.More == 0 {
			continue
		}
		asked++
		_, err = Certify(goal, grid, draw(rows, short.More))
		enough += one(err == nil)
	}
	t.Logf("advice was enough in %d of %d", enough, asked)
	if asked < 50 || 2*enough < asked {
		t.Errorf("advice was enough in %d of %d", enough, asked)
	}
}

func TestShortfallOffersSystem(t *testing.T) {
	outcomes := make([]Outcome, 400)
	for i := range outcomes {
		outcomes[i] = Outcome{float64(i), i%12 == 0} // served risk 8 % everywhere, system risk small at the top
	}
	_, err := Certify(Goal{Promise: Served, Risk: 0.05, Delta: 0.1}, evenGrid(20), outcomes)
	var short *Shortfall
	if !errors.As(err, &short) || short.SystemCoverage < 0.2 || !strings.Contains(err.Error(), "promise: system") {
		t.Fatalf("%v", err)
	}
}

func TestGridIsQuantilesByCoverage(t *testing.T) {
	grid := Grid([]float64{3, 1, math.NaN(), 2, math.Inf(-1)}, 5)
	want := []float64{3, 2, 1, math.Inf(-1), math.Inf(-1)}
	if !slices.Equal(grid, want) {
		t.Errorf("Grid = %v, want %v", grid, want)
	}
	if Grid(nil, 5) != nil || Grid([]float64{1}, 0) != nil {
		t.Error("no scores or no size must give no grid")
	}
}

// population is a made-up traffic: scores uniform, the error probability falls with the score but rises again at the
// very top, as label noise does to real scores.
func population(rng *rand.Rand) Outcome {
	score := rng.Float64()
	return Outcome{score, rng.Float64() < errorRate(score)}
}

func errorRate(score float64) float64 {
	rate := 0.35 * math.Pow(1-score, 2)
	if score > 0.97 {
		rate = 0.06
	}
	return rate
}

// trueRisk integrates the population's risk at a threshold.
func trueRisk(promise string, threshold float64) float64 {
	const steps = 2_000
	wrong, accepted := 0.0, 0.0
	for i := range steps {
		if score := (float64(i) + 0.5) / steps; score >= threshold {
			accepted++
			wrong += errorRate(score)
		}
	}
	if promise == System {
		return wrong / steps
	}
	return wrong / max(accepted, 1)
}

func TestPromiseHoldsUnderRepeatedSampling(t *testing.T) {
	const draws, rows, delta = 400, 600, 0.1
	for _, promise := range []string{Served, System} {
		rng := rand.New(rand.NewPCG(1, 2))
		broken, proven := 0, 0
		for range draws {
			scores := make([]float64, 2000)
			for i := range scores {
				scores[i] = rng.Float64()
			}
			outcomes := make([]Outcome, rows)
			for i := range outcomes {
				outcomes[i] = population(rng)
			}
			result, err := Certify(Goal{Promise: promise, Risk: 0.05, Delta: delta}, Grid(scores, 200), outcomes)
			if err == nil {
				proven++
				broken += one(trueRisk(promise, result.Threshold) > 0.05)
			}
		}
		rate := float64(broken) / draws
		if limit := delta + 3*math.Sqrt(delta*(1-delta)/draws); rate > limit || proven < draws/2 {
			t.Errorf("%s: broken in %.3f of draws (limit %.3f), proven in %d", promise, rate, limit, proven)
		}
		t.Logf("%s: broken in %.3f of draws, proven in %d of %d", promise, rate, proven, draws)
	}
}

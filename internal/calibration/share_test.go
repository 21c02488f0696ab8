package calibration

import (
	"math"
	"math/rand/v2"
	"testing"
)

// worthless draws rows of a model whose risk is just above a promise, at every threshold: whatever is certified breaks it.
func worthless(rng *rand.Rand, n int, risk float64) []Outcome {
	rows := make([]Outcome, n)
	for i := range rows {
		rows[i] = Outcome{Score: 1, Wrong: rng.Float64() < risk*1.001}
	}
	return rows
}

// everCertified is the share of draws in which at least one of several certifications of worthless models went through.
func everCertified(draws, times int, goal func(k int) Goal) float64 {
	rng := rand.New(rand.NewPCG(61, uint64(times)))
	broken := 0
	for range draws {
		any := false
		for k := range times {
			g := goal(k)
			_, _, proven := newLadder([]float64{1}, worthless(rng, 400, g.Risk)).served(g) // Certify without its advice
			any = any || proven
		}
		broken += one(any)
	}
	return ratio(broken, draws)
}

const shareDraws, shareDelta = 1000, 0.10

var shareLimit = shareDelta + 3*math.Sqrt(shareDelta*(1-shareDelta)/shareDraws)

// However often a task is calibrated again, the chance that any of its certificates is wrong stays below delta; testing each time
// at the full delta does not keep it.
func TestDeltaOverRecalibrations(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.05, Delta: shareDelta}
	shared := everCertified(shareDraws, 8, func(k int) Goal { g := goal; g.Look = k + 1; return g })
	unshared := everCertified(shareDraws, 8, func(int) Goal { return goal })
	if shared > shareLimit || unshared < 2*shareDelta {
		t.Errorf("eight recalibrations: wrong in %.3f of draws with shares, in %.3f without", shared, unshared)
	}
}

// The best of several models compared on the same task: the same.
func TestDeltaOverModelsCompared(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.05, Delta: shareDelta}
	shared := everCertified(shareDraws, 10, func(int) Goal { g := goal; g.Models = 10; return g })
	unshared := everCertified(shareDraws, 10, func(int) Goal { return goal })
	if shared > shareLimit || unshared < 2*shareDelta {
		t.Errorf("ten models: wrong in %.3f of draws with shares, in %.3f without", shared, unshared)
	}
}

// Every way through the tiers of a cascade may be certified and the best kept: the chance that any tier on any way is wrong stays
// below delta. The tiers are worthless and independent, the hardest case.
func TestDeltaOverTiers(t *testing.T) {
	const tiers, draws = 3, 250
	rng := rand.New(rand.NewPCG(62, 63))
	broken, certified := 0, 0
	for range draws {
		rows := make([][]Outcome, 400)
		for i := range rows {
			for range tiers {
				rows[i] = append(rows[i], worthless(rng, 1, 0.05)[0])
			}
		}
		start, err := NewPath(Goal{Promise: Served, Risk: 0.05, Delta: shareDelta}, tiers, len(rows), 0)
		if err != nil {
			t.Fatal(err)
		}
		any := false
		everyWay(t, start, tiers, rows, func(TierResult) { any = true; certified++ })
		broken += one(any)
	}
	if rate := ratio(broken, draws); rate > shareDelta+3*math.Sqrt(shareDelta*(1-shareDelta)/draws) || certified == 0 {
		t.Errorf("some tier of some plan is wrong in %.3f of draws (%d certificates)", rate, certified)
	}
}

// everyWay certifies every subset of the tiers that are left.
func everyWay(t *testing.T, p *Path, left int, rows [][]Outcome, certified func(TierResult)) {
	t.Helper()
	if left == 0 {
		return
	}
	without := p.Fork()
	without.Pass()
	everyWay(t, without, left-1, rows, certified)
	reaching, _ := p.Reaching()
	outcomes := make([]Outcome, len(reaching))
	for i, row := range reaching {
		outcomes[i] = rows[row][len(rows[row])-left]
	}
	with := p.Fork()
	tier, err := with.Certify([]float64{1}, outcomes, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tier.Err == nil {
		certified(tier)
		everyWay(t, with, left-1, rows, certified)
	}
}

// A path keeps its books: rows that a tier answers or that lie in the step below do not reach the next one, a tier that is left out
// is passed by all, and forks do not disturb each other.
func TestPath(t *testing.T) {
	goal := Goal{Promise: Served, Risk: 0.1, Delta: 0.1}
	p, err := NewPath(goal, 2, 300, 2)
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make([]Outcome, 300)
	for i := range outcomes {
		outcomes[i] = Outcome{Score: float64(i%3) / 2, Wrong: i%3 == 0} // 0, ½ and 1; below ½ all wrong
	}
	fork := p.Fork()
	tier, err := p.Certify([]float64{1, 0.5, 0}, outcomes, []float64{1, 0})
	if err != nil || tier.Err != nil {
		t.Fatal(err, tier.Err)
	}
	rows, others := p.Reaching()
	if tier.Threshold != 0.5 || p.Limit() != 0 || len(rows) != 0 || len(others) != 0 {
		t.Errorf("threshold %v, limit %v, %d and %d left: the step that failed is certified for nobody", tier.Threshold, p.Limit(), len(rows), len(others))
	}
	if rows, _ := fork.Reaching(); len(rows) != 300 || !math.IsInf(fork.Limit(), 1) {
		t.Error("a fork was disturbed")
	}
	fork.Pass()
	if next, err := fork.Certify([]float64{0.5}, outcomes, nil); err != nil || len(next.Below) != 1 || !math.IsInf(next.Below[0], 1) {
		t.Errorf("after a tier that was left out: %+v, %v", next, err)
	}
	if _, err := fork.Certify([]float64{0.5}, nil, nil); err == nil {
		t.Error("a third tier of two was certified")
	}
	if _, err := NewPath(goal, 9, 1, 1); err == nil {
		t.Error("a cascade of nine tiers was begun")
	}
	if _, err := p.Fork().Certify(nil, outcomes, nil); err == nil {
		t.Error("outcomes of rows that do not reach the tier were taken")
	}
}

// Fields are certified one by one: an easy field may be trusted where the whole answer may not, and all statements hold together.
func TestStatements(t *testing.T) {
	const draws, delta = 300, 0.2
	rng := rand.New(rand.NewPCG(64, 65))
	goal := Goal{Promise: Served, Risk: 0.05, Delta: delta}
	broken, easy := 0, 0
	for range draws {
		outcomes, wrong := make([]Outcome, 500), [][]bool{make([]bool, 500), make([]bool, 500)}
		for i := range outcomes {
			wrong[0][i], wrong[1][i] = rng.Float64() < 0.01, rng.Float64() < 0.0505
			outcomes[i] = Outcome{Score: rng.Float64(), Wrong: wrong[0][i] || wrong[1][i]}
		}
		all, err := Statements(goal, evenGrid(100), outcomes, wrong, []string{"easy", "hard"})
		if err != nil {
			t.Fatal(err)
		}
		easy += one(all[0].Certified && all[0].Coverage > 0.9)
		broken += one(all[1].Certified)
		for _, s := range all {
			if s.Certified == (s.Why != "") || s.Certified && s.Upper > goal.Risk || s.Level != goal.Spend()/2 {
				t.Fatalf("%+v", s)
			}
		}
	}
	if rate := ratio(broken, draws); rate > delta/2+3*math.Sqrt(delta/2/draws) || easy < draws*8/10 {
		t.Errorf("the hard field was certified in %.3f of draws, the easy one in %d of %d", rate, easy, draws)
	}
}

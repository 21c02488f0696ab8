package calibration

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// twoTiers draws a request as two tiers see it: it has a difficulty, the second tier is better, and what one gets wrong
// the other gets wrong more often.
func twoTiers(rng *rand.Rand) []Outcome {
	difficulty := rng.Float64()
	shared := rng.Float64()
	first, second := difficulty*difficulty*0.5, difficulty*difficulty*0.2
	return []Outcome{
		{1 - difficulty + 0.1*rng.Float64(), shared < first},
		{1 - difficulty + 0.1*rng.Float64(), 0.5*shared+0.5*rng.Float64() < second},
	}
}

// certifyCascade certifies every tier of a cascade in order: rows by tier, and other traffic's scores by tier, of which the grids of at
// most size thresholds are made.
func certifyCascade(goal Goal, unlabelled [][]float64, size int, rows [][]Outcome) ([]TierResult, error) {
	tiers := len(rows[0])
	path, err := NewPath(goal, tiers, len(rows), len(unlabelled))
	if err != nil {
		return nil, err
	}
	results := make([]TierResult, tiers)
	for j := range results {
		reaching, others := path.Reaching()
		outcomes, scores := make([]Outcome, len(reaching)), make([]float64, len(others))
		for i, row := range reaching {
			outcomes[i] = rows[row][j]
		}
		for i, row := range others {
			scores[i] = unlabelled[row][j]
		}
		if results[j], err = path.Certify(Grid(scores, size), outcomes, scores); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// Each tier's promise is about the traffic that reaches it. The risk is measured on a large sample that nothing was
// chosen on.
func TestCascadePromisesHoldOnWhatReachesEachTier(t *testing.T) {
	const draws, rows, delta, risk = 100, 1500, 0.2, 0.05
	rng := rand.New(rand.NewPCG(21, 22))
	fresh := make([][]Outcome, 30_000)
	for i := range fresh {
		fresh[i] = twoTiers(rng)
	}
	for _, promise := range []string{Served, System} {
		broken, second := 0, 0
		for range draws {
			results := certifyTwoTiers(t, rng, Goal{Promise: promise, Risk: risk, Delta: delta}, rows)
			bad := false
			for j, r := range results {
				if r.Err != nil {
					continue
				}
				second += j
				accepted, wrong, reach := tierOn(fresh, j, r)
				observed := ratio(wrong, accepted)
				if promise == System {
					observed = ratio(wrong, reach)
				}
				noise := 2 * math.Sqrt(risk/float64(accepted))
				bad = bad || observed > r.Goal.Risk+noise
			}
			broken += one(bad)
		}
		if rate := ratio(broken, draws); rate > delta+3*math.Sqrt(delta*(1-delta)/draws) || second < draws/4 {
			t.Errorf("%s: broken in %.3f of draws, second tier certified in %d of %d", promise, rate, second, draws)
		}
		t.Logf("%s: broken in %d of %d draws, second tier certified in %d", promise, broken, draws, second)
	}
}

func certifyTwoTiers(t *testing.T, rng *rand.Rand, goal Goal, n int) []TierResult {
	t.Helper()
	rows, unlabelled := make([][]Outcome, n), make([][]float64, 2000)
	for i := range rows {
		rows[i] = twoTiers(rng)
	}
	for i := range unlabelled {
		row := twoTiers(rng)
		unlabelled[i] = []float64{row[0].Score, row[1].Score}
	}
	results, err := certifyCascade(goal, unlabelled, 100, rows)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// tierOn counts what reaches tier j, what it accepts and what of that is wrong.
func tierOn(rows [][]Outcome, j int, r TierResult) (accepted, wrong, reach int) {
	for _, row := range rows {
		reaches := true
		for i, below := range r.Below {
			reaches = reaches && (math.IsInf(below, 1) || !(row[i].Score >= below)) // NaN passes on, and everything does where nothing is certified
		}
		reach += one(reaches)
		if reaches && row[j].Score >= r.Threshold {
			accepted++
			wrong += one(row[j].Wrong)
		}
	}
	return accepted, wrong, reach
}

func TestCascadeOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tiers := rapid.IntRange(1, 3).Draw(t, "tiers")
		columns := make([][]Outcome, tiers)
		n := 300
		for j := range columns {
			columns[j] = anyOutcomes(t)
			n = min(n, len(columns[j]))
		}
		rows, unlabelled := make([][]Outcome, n), make([][]float64, n)
		for i := range rows {
			for _, column := range columns {
				rows[i] = append(rows[i], column[i])
				unlabelled[i] = append(unlabelled[i], column[i].Score)
			}
		}
		if n == 0 {
			return
		}
		goal := anyGoal(t)
		results, err := certifyCascade(goal, unlabelled, 50, rows)
		if err != nil || len(results) != tiers {
			t.Fatalf("%d results, %v", len(results), err)
		}
		spent := 0.0
		for j, r := range results {
			if len(r.Below) != j {
				t.Fatalf("tier %d is said to come after %v", j, r.Below)
			}
			if r.Err == nil {
				spent += r.Level
				if accepted, wrong, reach := tierOn(rows, j, r); accepted != r.Accepted || wrong != r.Errors || reach != r.N {
					t.Fatalf("tier %d: %+v is not what its rows say: %d accepted, %d wrong of %d", j, r, accepted, wrong, reach)
				}
				if j+1 < tiers && results[j+1].Below[j] > r.Threshold {
					t.Fatalf("tier %d answers what reaches tier %d", j, j+1)
				}
			}
		}
		if spent > goal.Delta*(1+1e-9) {
			t.Fatalf("tiers spent %v of %v", spent, goal.Delta)
		}
	})
}

func TestPathRefusesAGoalThatAsksNothing(t *testing.T) {
	if _, err := certifyCascade(Goal{}, nil, 10, [][]Outcome{{{1, false}}}); err == nil {
		t.Error("it was taken")
	}
}

func TestComparisonKnowsWhetherEscalationPays(t *testing.T) {
	wrong := func(pattern string) []bool {
		var w []bool
		for range 30 {
			for _, c := range pattern {
				w = append(w, c == 'x')
			}
		}
		return w
	}
	for _, c := range []struct{ first, second, says string }{
		{"xx..", "x...", "escalation pays"},
		{"x...", "xx..", "escalation costs accuracy"},
		{"x.x.", ".xx.", "escalation is not shown to pay"},
		{"....", "....", "escalation is not shown to pay"},
	} {
		got := Compare(wrong(c.first), wrong(c.second), 0.95)
		if !strings.HasPrefix(got.Verdict(0.05), c.says) || got.Low > got.High {
			t.Errorf("%s then %s: %+v, %s", c.first, c.second, got, got.Verdict(0.05))
		}
	}
	if none := Compare(nil, nil, 0.95); none.Pays(0.05) || none.P != 1 || none.Low != -1 || none.High != 1 {
		t.Errorf("no rows: %+v", none)
	}
}

func TestClassesTellGoodFromBad(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	names := []string{"good", "bad", "small1", "small2"}
	draw := func() (Outcome, int) {
		score, class := rng.Float64(), 0
		switch u := rng.Float64(); {
		case u < 0.15:
			class = 1
		case u < 0.16:
			class = 2
		case u < 0.17:
			class = 3
		}
		rate := 0.01
		if class == 1 {
			rate = 0.15
		}
		return Outcome{score, rng.Float64() < rate}, class
	}
	var outcomes []Outcome
	var classes []int
	for range 6000 {
		o, class := draw()
		outcomes, classes = append(outcomes, o), append(classes, class)
	}
	grid := evenGrid(200)
	result, err := Certify(Goal{Promise: Served, Risk: 0.05, Delta: 0.05}, grid, outcomes)
	if err != nil {
		t.Fatal(err)
	}
	rows := Classes(result, grid, outcomes, classes, names)
	if rows[0].Note != Certified || rows[1].Note != Overall || rows[2].Note != rows[3].Note || rows[2].Note == Certified {
		t.Errorf("%+v", rows)
	}
	total := 0
	for _, row := range rows {
		total += row.Accepted
	}
	if total != result.Accepted {
		t.Errorf("classes hold %d accepted rows, the certificate %d", total, result.Accepted)
	}
}

// A class at exactly the risk that is promised must not be certified more often than delta allows.
func TestClassesFalselyCertified(t *testing.T) {
	const draws, delta, risk = 200, 0.2, 0.1
	rng := rand.New(rand.NewPCG(41, 42))
	names := []string{"a", "b", "c", "worse"}
	falsely := 0
	for range draws {
		outcomes, classes := make([]Outcome, 2000), make([]int, 2000)
		for i := range outcomes {
			classes[i] = rng.IntN(len(names))
			rate := 0.03
			if classes[i] == 3 {
				rate = risk * 1.0001
			}
			outcomes[i] = Outcome{rng.Float64(), rng.Float64() < rate}
		}
		grid := evenGrid(100)
		result, err := Certify(Goal{Promise: Served, Risk: risk, Delta: delta}, grid, outcomes)
		if err != nil {
			t.Fatal(err)
		}
		falsely += one(Classes(result, grid, outcomes, classes, names)[3].Note == Certified)
	}
	if rate := ratio(falsely, draws); rate > delta/4+3*math.Sqrt(delta/4/draws) {
		t.Errorf("a class that breaks the promise was certified in %v of draws", rate)
	}
}

func TestFieldsShareTheCertificate(t *testing.T) {
	rng := rand.New(rand.NewPCG(81, 82))
	outcomes := make([]Outcome, 2000)
	wrong := [][]bool{make([]bool, 2000), make([]bool, 2000)}
	for i := range outcomes {
		wrong[0][i], wrong[1][i] = rng.Float64() < 0.02, rng.Float64() < 0.005
		outcomes[i] = Outcome{rng.Float64(), wrong[0][i] || wrong[1][i]}
	}
	result, err := Certify(Goal{Promise: Served, Risk: 0.05, Delta: 0.05}, evenGrid(100), outcomes)
	if err != nil {
		t.Fatal(err)
	}
	rows := Fields(result, outcomes, wrong, []string{"category", "order_id"})
	if rows[0].Accepted != result.Accepted || rows[0].Errors <= rows[1].Errors || rows[0].Errors+rows[1].Errors < result.Errors {
		t.Errorf("%+v does not add up to %+v", rows, result)
	}
	if rows[0].Note != Certified || rows[1].Upper >= rows[0].Upper || rows[0].Upper > 0.05 {
		t.Errorf("%+v", rows)
	}
}

func TestClassesOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outcomes, grid := anyOutcomes(t), evenGrid(30)
		result, err := Certify(anyGoal(t), grid, outcomes)
		if err != nil {
			return
		}
		classes := make([]int, len(outcomes))
		for i := range classes {
			classes[i] = rapid.IntRange(-1, 4).Draw(t, "class")
		}
		for i, row := range Classes(result, grid, outcomes, classes, []string{"a", "b", "c"}) {
			if row.Errors > row.Accepted || !(row.Upper >= 0 && row.Upper <= 1) || row.Note == "" {
				t.Fatalf("row %d: %+v", i, row)
			}
		}
	})
}

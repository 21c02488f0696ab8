package guarantee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"occam/internal/calibration"
)

const delta = 0.10

// A rule chooses a threshold from labelled rows; ok is false when it chooses none.
type rule struct {
	name   string
	choose func(promise string, risk float64, grid []float64, rows []calibration.Outcome) (threshold float64, ok bool)
}

// certify is the product's rule.
var certify = rule{"**occam**", func(promise string, risk float64, grid []float64, rows []calibration.Outcome) (float64, bool) {
	result, err := calibration.Certify(calibration.Goal{Promise: promise, Risk: risk, Delta: delta}, grid, rows)
	return result.Threshold, err == nil
}}

// others are the rules it is measured against. All see the same rows and, where they take one, the same grid.
var others = []rule{
	{"naive: observed risk ≤ target", naive},
	{"CP + Bonferroni, 100 thresholds", bonferroni},
	{"fixed sequence, 2 starts", fixedSequence},
	{"occam, own grid", func(promise string, risk float64, _ []float64, rows []calibration.Outcome) (float64, bool) {
		return certify.choose(promise, risk, calibration.Grid(scoresOf(rows), 200), rows)
	}},
}

// naive takes the laxest threshold whose observed risk meets the target: the usual practice.
func naive(promise string, risk float64, _ []float64, rows []calibration.Outcome) (threshold float64, ok bool) {
	for _, point := range calibration.Curve(rows, len(rows)) {
		observed := point.Served
		if promise == calibration.System {
			observed = point.System
		}
		if observed <= risk {
			threshold, ok = point.Threshold, true
		}
	}
	return threshold, ok
}

// counts returns accepted and wrong rows at each threshold of a descending grid.
func counts(promise string, grid []float64, rows []calibration.Outcome) (accepted, wrong []int) {
	accepted, wrong = make([]int, len(grid)), make([]int, len(grid))
	for _, row := range rows {
		for i := len(grid) - 1; i >= 0 && row.Score >= grid[i]; i-- {
			accepted[i]++
			if row.Wrong {
				wrong[i]++
			}
		}
	}
	if promise == calibration.System {
		for i := range accepted {
			accepted[i] = len(rows)
		}
	}
	return accepted, wrong
}

func bonferroni(promise string, risk float64, grid []float64, rows []calibration.Outcome) (threshold float64, ok bool) {
	const tests = 100
	coarse := make([]float64, 0, tests)
	for i := range tests {
		coarse = append(coarse, grid[(i+1)*len(grid)/tests-1])
	}
	accepted, wrong := counts(promise, coarse, rows)
	for i, t := range coarse {
		if calibration.BinCDF(wrong[i], accepted[i], risk) <= delta/tests {
			threshold, ok = t, true
		}
	}
	return threshold, ok
}

// fixedSequence walks from two starts, each with half of delta, to its first failure, and keeps the laxer end.
func fixedSequence(promise string, risk float64, grid []float64, rows []calibration.Outcome) (threshold float64, ok bool) {
	accepted, wrong := counts(promise, grid, rows)
	first := min(1, 2*math.Log(delta)/math.Log1p(-risk)/float64(len(rows)))
	for _, coverage := range []float64{first, first + (1-first)/2} {
		for i := max(int(math.Ceil(coverage*float64(len(grid))))-1, 0); i < len(grid); i++ {
			if calibration.BinCDF(wrong[i], accepted[i], risk) > delta/2 {
				break
			}
			if !ok || grid[i] < threshold {
				threshold, ok = grid[i], true
			}
		}
	}
	return threshold, ok
}

// A score is how a rule fared over repeated draws of a calibration set.
type score struct {
	draws, broken, silent int
	coverage              float64 // summed; 0 where nothing was certified
}

func (s score) violation() float64    { return float64(s.broken) / float64(s.draws) }
func (s score) meanCoverage() float64 { return s.coverage / float64(s.draws) }

// trial draws calibration sets of n rows and scores a rule by the population's exact risk at the threshold it chose.
func trial(p *population, promise string, n, draws int, r rule) score {
	const unlabelled, gridSize = 5000, 200
	rng := rand.New(rand.NewPCG(uint64(n), 1)) // the same draws for every rule
	s := score{draws: draws}
	for range draws {
		grid, rows := p.grid(rng, unlabelled, gridSize), p.draw(rng, n)
		threshold, ok := r.choose(promise, p.target(promise), grid, rows)
		if !ok {
			s.silent++
			continue
		}
		coverage, risk := p.at(promise, threshold)
		s.coverage += coverage
		if risk > p.target(promise) {
			s.broken++
		}
	}
	return s
}

// mayBreak is the violation rate that a valid rule exceeds in about one of 700 measurements.
func mayBreak(delta float64, draws int) float64 {
	return delta + 3*math.Sqrt(delta*(1-delta)/float64(draws))
}

func TestPromisesOnRealScores(t *testing.T) {
	draws := 200
	if testing.Short() {
		draws = 50
	}
	for _, untied := range []bool{true, false} {
		for _, p := range frugalSets(t, untied) {
			for _, promise := range []string{calibration.Served, calibration.System} {
				s := trial(p, promise, 1000, draws, certify)
				if s.violation() > mayBreak(delta, draws) {
					t.Errorf("%s, %s risk %v, untied %v: broken in %d of %d draws", p.name, promise, p.target(promise), untied, s.broken, draws)
				}
				if s.meanCoverage() < 0.6*p.oracle(promise) {
					t.Errorf("%s, %s: coverage %.3f of the oracle's %.3f", p.name, promise, s.meanCoverage(), p.oracle(promise))
				}
			}
		}
	}
}

// TestFrugalTable measures the table of docs/guarantees.md.
func TestFrugalTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	const draws = 2000
	var text strings.Builder
	for _, promise := range []string{calibration.Served, calibration.System} {
		for _, untied := range []bool{true, false} {
			frugalTable(t, &text, promise, frugalSets(t, untied), untied, draws)
		}
	}
	writeSection(t, "frugalml", text.String())
}

func frugalTable(t *testing.T, text *strings.Builder, promise string, sets []*population, untied bool, draws int) {
	ties := "confidences spread within their decimal"
	if !untied {
		ties = "confidences as they come, ties accepted whole"
	}
	fmt.Fprintf(text, "Promise `%s`, δ = %.2f, %d draws, %s. Cells: draws in which the promise was broken, mean coverage.\n\n", promise, delta, draws, ties)
	fmt.Fprint(text, "| n | rule |")
	for _, p := range sets {
		fmt.Fprintf(text, " %s, a = %.2f, oracle %.3f |", p.name, p.target(promise), p.oracle(promise))
	}
	fmt.Fprint(text, "\n|---|---|---|---|---|---|\n")
	for _, n := range []int{300, 1000, 3000} {
		for _, r := range append(append([]rule{}, others...), certify) {
			fmt.Fprintf(text, "| %d | %s |", n, r.name)
			for i, s := range trials(sets, promise, n, draws, r) {
				fmt.Fprintf(text, " %.1f %% · %.3f |", 100*s.violation(), s.meanCoverage())
				if r.name == certify.name {
					check(t, sets[i], promise, n, s, untied)
				}
			}
			fmt.Fprintln(text)
		}
	}
	fmt.Fprintln(text)
}

// trials runs the sets side by side.
func trials(sets []*population, promise string, n, draws int, r rule) []score {
	scores := make([]score, len(sets))
	var wait sync.WaitGroup
	for i, p := range sets {
		wait.Go(func() { scores[i] = trial(p, promise, n, draws, r) })
	}
	wait.Wait()
	return scores
}

// check holds the product's rule to what docs/guarantees.md says of it.
func check(t *testing.T, p *population, promise string, n int, s score, untied bool) {
	if s.violation() > mayBreak(delta, s.draws) {
		t.Errorf("%s, %s, n=%d, untied %v: broken in %.2f %% of draws", p.name, promise, n, untied, 100*s.violation())
	}
	least := 0.90
	if promise == calibration.System {
		least = 0.95
	}
	share := s.meanCoverage() / p.oracle(promise)
	t.Logf("%s %s n=%d untied %v: broken %.2f %%, coverage %.4f of oracle, nothing certified in %d", p.name, promise, n, untied, 100*s.violation(), share, s.silent)
	if untied && n == 3000 && share < least {
		t.Errorf("%s, %s, n=3000: coverage is %.4f of the oracle's, less than %v", p.name, promise, share, least)
	}
}

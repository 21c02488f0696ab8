package guarantee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"occam/internal/calibration"
)

// A ladder is several real APIs on the same labelled rows, in the order in which a cascade would ask them.
type ladder struct {
	name           string
	apis           []string
	served, system float64
	rows           [][]calibration.Outcome // by row, by API
}

// ladders are the four FrugalML sets with the free model first and the most accurate API last.
func ladders(t testing.TB) []*ladder {
	return []*ladder{
		{"YELP", []string{"github(vader)", "amazon", "google"}, 0.05, 0.03, frugal(t, "yelp", "github(vader)", "amazon", "google")},
		{"SHOP", []string{"github(bixin)", "google", "baidu"}, 0.05, 0.03, frugal(t, "shop", "github(bixin)", "google", "baidu")},
		{"IMDB", []string{"github(vader)", "amazon", "google"}, 0.10, 0.06, frugal(t, "imdb", "github(vader)", "amazon", "google")},
		{"COMMAND", []string{"github(deepspeech)", "google", "microsoft"}, 0.05, 0.03, frugal(t, "command", "github(deepspeech)", "google", "microsoft")},
	}
}

func (l *ladder) target(promise string) float64 {
	if promise == calibration.System {
		return l.system
	}
	return l.served
}

// A climb is one plan of a ladder as it was certified: which tiers it uses, from where on each answers, and below which score a
// request reaches the next one.
type climb struct {
	uses             []bool
	threshold, limit []float64 // of each tier; +Inf: it answers nothing, everything passes
	risks            []float64 // that each tier promises
}

// climbs certifies every plan of a ladder on the same rows, as the product does.
func (l *ladder) climbs(t testing.TB, promise string, rows [][]calibration.Outcome, unlabelled [][]calibration.Outcome) []climb {
	t.Helper()
	goal := calibration.Goal{Promise: promise, Risk: l.target(promise), Delta: delta}
	start, err := calibration.NewPath(goal, len(l.apis), len(rows), len(unlabelled))
	if err != nil {
		t.Fatal(err)
	}
	var all []climb
	var walk func(path *calibration.Path, c climb)
	walk = func(path *calibration.Path, c climb) {
		j := len(c.uses)
		if j == len(l.apis) {
			all = append(all, c)
			return
		}
		without := path.Fork()
		without.Pass()
		walk(without, c.with(false, math.Inf(1), math.Inf(1), 0))
		reach, others := path.Reaching()
		outcomes, scores := make([]calibration.Outcome, len(reach)), make([]float64, len(others))
		for i, row := range reach {
			outcomes[i] = rows[row][j]
		}
		for i, row := range others {
			scores[i] = unlabelled[row][j].Score
		}
		with := path.Fork()
		tier, err := with.Certify(calibration.Grid(scores, 200), outcomes, scores)
		if err != nil {
			t.Fatal(err)
		}
		if tier.Err == nil {
			walk(with, c.with(true, tier.Threshold, with.Limit(), tier.Goal.Risk))
		}
	}
	walk(start, climb{})
	return all
}

func (c climb) with(uses bool, threshold, limit, risk float64) climb {
	return climb{append(slices.Clone(c.uses), uses), append(slices.Clone(c.threshold), threshold), append(slices.Clone(c.limit), limit), append(slices.Clone(c.risks), risk)}
}

// exact returns, over a whole population, whether every tier keeps its promise on what reaches it, what share the plan answers and
// what share of those answers is wrong.
func (c climb) exact(promise string, rows [][]calibration.Outcome) (kept bool, coverage, wrong float64) {
	answered, errors, reach := make([]int, len(c.uses)), make([]int, len(c.uses)), make([]int, len(c.uses))
	for _, row := range rows {
		for j, use := range c.uses {
			if !use {
				continue
			}
			reach[j]++
			if row[j].Score >= c.threshold[j] {
				answered[j]++
				if row[j].Wrong {
					errors[j]++
				}
			}
			if row[j].Score >= c.limit[j] {
				break
			}
		}
	}
	kept = true
	total, bad := 0, 0
	for j, use := range c.uses {
		base := answered[j]
		if promise == calibration.System {
			base = reach[j]
		}
		if use && base > 0 && float64(errors[j])/float64(base) > c.risks[j] {
			kept = false
		}
		total += answered[j]
		bad += errors[j]
	}
	return kept, float64(total) / float64(len(rows)), float64(bad) / float64(max(total, 1))
}

func draw(rng *rand.Rand, rows [][]calibration.Outcome, n int) [][]calibration.Outcome {
	drawn := make([][]calibration.Outcome, n)
	for i := range drawn {
		drawn[i] = rows[rng.IntN(len(rows))]
	}
	return drawn
}

// climbed is how a ladder's plans fared over repeated draws.
type climbed struct {
	draws, brokenAny, brokenBest, tiers int
	coverage, single, wrong             float64 // mean over draws: of the plan that answers most, and of the first tier alone
}

// climbTrial draws calibration sets and certifies every plan each time. A draw is broken when any tier of any plan breaks its
// promise on the whole population; of the plan that answers most it is also counted alone, for it is the one that would be kept.
func climbTrial(t testing.TB, l *ladder, promise string, n, draws int) climbed {
	const unlabelled = 2000
	rng := rand.New(rand.NewPCG(uint64(n), 31))
	s := climbed{draws: draws}
	for range draws {
		any, bestKept, best, bestWrong, single, tiers := false, true, 0.0, 0.0, 0.0, 0
		for _, c := range l.climbs(t, promise, draw(rng, l.rows, n), draw(rng, l.rows, unlabelled)) {
			kept, coverage, wrong := c.exact(promise, l.rows)
			any = any || !kept
			used := 0
			for _, use := range c.uses {
				if use {
					used++
				}
			}
			if used == 1 && c.uses[0] {
				single = coverage
			}
			if coverage > best {
				best, bestKept, bestWrong, tiers = coverage, kept, wrong, used
			}
		}
		if any {
			s.brokenAny++
		}
		if !bestKept {
			s.brokenBest++
		}
		s.coverage += best / float64(draws)
		s.single += single / float64(draws)
		s.wrong += bestWrong / float64(draws)
		s.tiers += tiers
	}
	return s
}

// Cascades of three real APIs: all tiers of all plans keep their promises together.
func TestCascadesOnRealScores(t *testing.T) {
	draws := 25
	if testing.Short() {
		draws = 10
	}
	for _, l := range ladders(t)[:2] {
		s := climbTrial(t, l, calibration.Served, 2000, draws)
		if rate := float64(s.brokenAny) / float64(draws); rate > mayBreak(delta, draws) {
			t.Errorf("%s: broken in %d of %d draws", l.name, s.brokenAny, draws)
		}
		if s.coverage <= s.single {
			t.Errorf("%s: the best plan answers %.3f, the first tier alone %.3f", l.name, s.coverage, s.single)
		}
	}
}

// TestCascadeTable measures the table of docs/guarantees.md.
func TestCascadeTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	const draws = 500
	var text strings.Builder
	fmt.Fprintf(&text, "δ = %.2f, %d draws of 3,000 calibration rows, 2,000 further rows without labels. *Broken*: draws in which any tier of any of the "+
		"seven plans (or of the one that answers most) broke its promise on the whole table.\n\n", delta, draws)
	fmt.Fprint(&text, "| data, tiers | promise | a | broken, any plan | broken, best plan | first tier alone answers | best plan answers | wrong of its answers |\n|---|---|---|---|---|---|---|---|\n")
	for _, l := range ladders(t) {
		for _, promise := range []string{calibration.Served, calibration.System} {
			s := climbTrial(t, l, promise, 3000, draws)
			fmt.Fprintf(&text, "| %s: %s | `%s` | %.2f | %.1f %% | %.1f %% | %.3f | %.3f | %.4f |\n", l.name, strings.Join(l.apis, " → "), promise, l.target(promise),
				100*float64(s.brokenAny)/draws, 100*float64(s.brokenBest)/draws, s.single, s.coverage, s.wrong)
			if rate := float64(s.brokenAny) / draws; rate > mayBreak(delta, draws) {
				t.Errorf("%s, %s: broken in %.3f of draws", l.name, promise, rate)
			}
		}
	}
	escalationTable(t, &text, draws)
	writeSection(t, "cascades", text.String())
}

// escalations are pairs of APIs: the second is asked about what the first, at the served promise, defers. Whether it is better
// there is known exactly from the whole table.
var escalations = []struct{ file, first, second string }{
	{"yelp", "amazon", "google"}, {"yelp", "google", "amazon"}, {"yelp", "google", "github(vader)"},
	{"shop", "google", "baidu"}, {"shop", "baidu", "github(bixin)"},
	{"imdb", "google", "baidu"}, {"command", "google", "microsoft"}, {"command", "microsoft", "github(deepspeech)"},
}

// escalates draws 3,000 rows, lets the first API defer its least confident third, and asks whether escalating them pays.
func escalates(rng *rand.Rand, rows [][]calibration.Outcome) calibration.Comparison {
	drawn := draw(rng, rows, 3000)
	scores := make([]float64, len(drawn))
	for i, row := range drawn {
		scores[i] = row[0].Score
	}
	slices.Sort(scores)
	first, second := deferred(drawn, scores[len(scores)/3])
	return calibration.Compare(first, second, 1-delta)
}

func deferred(rows [][]calibration.Outcome, threshold float64) (first, second []bool) {
	for _, row := range rows {
		if !(row[0].Score >= threshold) {
			first, second = append(first, row[0].Wrong), append(second, row[1].Wrong)
		}
	}
	return first, second
}

// gain is the accuracy that the second API really adds on what the first defers at its median third.
func gain(rows [][]calibration.Outcome) float64 {
	scores := make([]float64, len(rows))
	for i, row := range rows {
		scores[i] = row[0].Score
	}
	slices.Sort(scores)
	first, second := deferred(rows, scores[len(scores)/3])
	c := calibration.Compare(first, second, 0.9)
	return float64(c.Gains-c.Harms) / float64(max(c.Rows, 1))
}

func escalationTable(t *testing.T, text *strings.Builder, draws int) {
	fmt.Fprintf(text, "\nEscalating the third of 3,000 rows of which the first API is least sure; %d draws.\n\n", draws)
	fmt.Fprint(text, "| data | first → second | accuracy that the second really adds there | draws in which escalation is shown to pay |\n|---|---|---|---|\n")
	for _, e := range escalations {
		rows := frugal(t, e.file, e.first, e.second)
		rng := rand.New(rand.NewPCG(41, 42))
		pays := 0
		for range draws {
			if escalates(rng, rows).Pays(delta) {
				pays++
			}
		}
		real := gain(rows)
		fmt.Fprintf(text, "| %s | %s → %s | %+.3f | %.1f %% |\n", e.file, e.first, e.second, real, 100*float64(pays)/float64(draws))
		if real <= 0 && float64(pays)/float64(draws) > mayBreak(delta, draws) {
			t.Errorf("%s: %s → %s is said to pay in %d of %d draws, and adds %+.3f", e.file, e.first, e.second, pays, draws, real)
		}
	}
}

// Where the next API is no better on what this one defers, escalation is not said to pay; where it is, it is.
func TestEscalationThatDoesNotPay(t *testing.T) {
	const draws = 100
	rng := rand.New(rand.NewPCG(43, 44))
	for _, e := range escalations[1:4] {
		rows := frugal(t, e.file, e.first, e.second)
		pays := 0
		for range draws {
			if escalates(rng, rows).Pays(delta) {
				pays++
			}
		}
		real := gain(rows)
		t.Logf("%s: %s → %s adds %+.3f, said to pay in %d of %d draws", e.file, e.first, e.second, real, pays, draws)
		if real <= 0 && float64(pays)/draws > mayBreak(delta, draws) || real > 0.1 && pays < draws*9/10 {
			t.Errorf("%s: %s → %s adds %+.3f and is said to pay in %d of %d draws", e.file, e.first, e.second, real, pays, draws)
		}
	}
}

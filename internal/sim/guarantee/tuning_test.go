package guarantee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/calibration"
)

// A shape is where the walks of a served certificate begin and what each is given: the figures that calibration fixes.
type shape struct {
	name                       string
	first, growth, level, last float64
}

// shipped is calibration's own, see starts in internal/calibration/promise.go.
var shipped = shape{"**shipped**: 3 × 2.5, levels 1 : 2 : 4 …, up to half", 3, 2.5, 2, 0.5}

// shapes are what was tried instead.
var shapes = []shape{
	shipped,
	{"first start at 2", 2, 2.5, 2, 0.5},
	{"first start at 5", 5, 2.5, 2, 0.5},
	{"starts 2 × apart", 3, 2, 2, 0.5},
	{"starts 4 × apart", 3, 4, 2, 0.5},
	{"equal levels", 3, 2.5, 1, 0.5},
	{"levels 1 : 3 : 9 …", 3, 2.5, 3, 0.5},
	{"up to a third", 3, 2.5, 2, 1.0 / 3},
	{"up to 0.8", 3, 2.5, 2, 0.8},
	{"one start at 3", 3, 1e9, 1, 0.5},
}

// choose is calibration's fallback procedure with another shape.
func (s shape) choose(goal calibration.Goal, grid []float64, rows []calibration.Outcome) (threshold float64, ok bool) {
	accepted, wrong := counts(calibration.Served, grid, rows)
	least := float64(goal.MinLabels()) / float64(len(rows))
	last := min(1, max(s.last, 1.5*least))
	levels, total, weight := make([]float64, len(grid)), 0.0, 1.0
	for coverage := min(s.first*least, last); coverage <= last; coverage *= s.growth {
		position := int(math.Ceil(coverage*float64(len(grid)))) - 1
		levels[min(max(position, 0), len(grid)-1)] += weight
		total += weight
		weight *= s.level
	}
	level := 0.0
	for i, t := range grid {
		level += levels[i] / total * goal.Spend()
		if level == 0 || math.IsInf(t, 0) {
			continue
		}
		if calibration.BinCDF(wrong[i], accepted[i], goal.Risk) > level {
			level = 0
			continue
		}
		threshold, ok = t, true
	}
	return threshold, ok
}

// columns are the fourteen score columns of FrugalML whose labels are right in more than six of ten rows, each with half its error
// rate as the target.
func columns(t testing.TB) []*population {
	rng := rand.New(rand.NewPCG(51, 52))
	var all []*population
	for file, apis := range map[string][]string{
		"yelp": {"google", "github(vader)", "amazon"}, "shop": {"google", "github(bixin)", "baidu", "amazon"},
		"imdb": {"google", "github(vader)", "amazon"}, "command": {"google", "github(deepspeech)", "microsoft", "ibm"},
	} {
		for _, api := range apis {
			rows := alone(t, file, api)
			wrong := 0
			for i := range rows {
				rows[i].Score += 1e-6 * rng.Float64()
				if rows[i].Wrong {
					wrong++
				}
			}
			target := float64(wrong) / float64(len(rows)) / 2
			all = append(all, newPopulation(file+" "+api, target, target, rows))
		}
	}
	return all
}

// The study's procedure with the shipped figures is the product's, threshold for threshold.
func TestTheStudyStudiesTheProduct(t *testing.T) {
	rng := rand.New(rand.NewPCG(53, 54))
	for _, p := range columns(t)[:4] {
		for range 20 {
			grid, rows := p.grid(rng, 2000, 200), p.draw(rng, 1000)
			goal := calibration.Goal{Promise: calibration.Served, Risk: p.served, Delta: delta}
			result, err := calibration.Certify(goal, grid, rows)
			threshold, ok := shipped.choose(goal, grid, rows)
			if ok != (err == nil) || ok && threshold != result.Threshold {
				t.Fatalf("%s: the study chooses %v %v, the product %v %v", p.name, threshold, ok, result.Threshold, err)
			}
		}
	}
}

// TestTuningTable measures the table of docs/guarantees.md on which the figures were chosen.
func TestTuningTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	const draws = 100
	sets := columns(t)
	var text strings.Builder
	oracle := 0.0
	for _, p := range sets {
		oracle += p.oracle(calibration.Served) / float64(len(sets))
	}
	fmt.Fprintf(&text, "Promise `served` at half the error rate of each of %d score columns, δ = %.2f, %d draws; the oracle's mean coverage is %.3f. Cells: mean "+
		"coverage over the columns, and the most draws of one column in which the promise was broken.\n\n", len(sets), delta, draws, oracle)
	fmt.Fprint(&text, "| setting | n = 300 | n = 1,000 | n = 3,000 |\n|---|---|---|---|\n")
	for _, s := range shapes {
		fmt.Fprintf(&text, "| %s |", s.name)
		for _, n := range []int{300, 1000, 3000} {
			r := rule{s.name, func(promise string, risk float64, grid []float64, rows []calibration.Outcome) (float64, bool) {
				return s.choose(calibration.Goal{Promise: promise, Risk: risk, Delta: delta}, grid, rows)
			}}
			mean, worst := 0.0, 0.0
			for _, got := range trials(sets, calibration.Served, n, draws, r) {
				mean += got.meanCoverage() / float64(len(sets))
				worst = max(worst, got.violation())
			}
			fmt.Fprintf(&text, " %.3f · %.0f %% |", mean, 100*worst)
			if worst > mayBreak(delta, draws)+0.03 { // the worst of fourteen
				t.Errorf("%s, n=%d: broken in %.2f of draws", s.name, n, worst)
			}
		}
		fmt.Fprintln(&text)
	}
	writeSection(t, "tuning", text.String())
}

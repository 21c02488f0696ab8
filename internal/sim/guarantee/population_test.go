package guarantee

import (
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"testing"

	"occam/internal/calibration"
)

// measuring reports whether the full benchmark is wanted, whose tables go into docs/guarantees.md.
func measuring() bool { return os.Getenv("OCCAM_BENCH") == "guarantee" }

// dataFolder returns the folder of a public data set, or skips.
func dataFolder(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("OCCAM_DATA")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	folder := filepath.Join(root, name)
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("no data at %s: set OCCAM_DATA to the folder that holds %s", folder, name)
	}
	return folder
}

// A population is a large set of real rows, drawn from with replacement, so that its risks are known exactly.
type population struct {
	name           string
	served, system float64 // the targets it is tried with
	rows           []calibration.Outcome

	thresholds []float64 // distinct, descending
	accepted   []int     // rows at or above each threshold
	wrong      []int
}

func newPopulation(name string, served, system float64, rows []calibration.Outcome) *population {
	p := &population{name: name, served: served, system: system, rows: slices.Clone(rows)}
	slices.SortFunc(p.rows, func(a, b calibration.Outcome) int { return cmp.Compare(b.Score, a.Score) })
	wrong := 0
	for i, row := range p.rows {
		if row.Wrong {
			wrong++
		}
		if i+1 == len(p.rows) || p.rows[i+1].Score != row.Score {
			p.thresholds = append(p.thresholds, row.Score)
			p.accepted = append(p.accepted, i+1)
			p.wrong = append(p.wrong, wrong)
		}
	}
	return p
}

func (p *population) target(promise string) float64 {
	if promise == calibration.System {
		return p.system
	}
	return p.served
}

// at returns the exact coverage and risk of a threshold.
func (p *population) at(promise string, threshold float64) (coverage, risk float64) {
	i := sort.Search(len(p.thresholds), func(i int) bool { return p.thresholds[i] < threshold }) - 1
	if i < 0 {
		return 0, 0
	}
	return p.point(promise, i)
}

func (p *population) point(promise string, i int) (coverage, risk float64) {
	all := float64(len(p.rows))
	if promise == calibration.System {
		return float64(p.accepted[i]) / all, float64(p.wrong[i]) / all
	}
	return float64(p.accepted[i]) / all, float64(p.wrong[i]) / float64(p.accepted[i])
}

// oracle returns the coverage of the laxest threshold that keeps the promise on the population itself.
func (p *population) oracle(promise string) float64 {
	best := 0.0
	for i := range p.thresholds {
		if coverage, risk := p.point(promise, i); risk <= p.target(promise) {
			best = coverage
		}
	}
	return best
}

// draw returns n independent rows.
func (p *population) draw(rng *rand.Rand, n int) []calibration.Outcome {
	rows := make([]calibration.Outcome, n)
	for i := range rows {
		rows[i] = p.rows[rng.IntN(len(p.rows))]
	}
	return rows
}

// grid returns thresholds read off n fresh rows whose labels nobody looks at.
func (p *population) grid(rng *rand.Rand, n, size int) []float64 {
	scores := make([]float64, n)
	for i := range scores {
		scores[i] = p.rows[rng.IntN(len(p.rows))].Score
	}
	return calibration.Grid(scores, size)
}

// frugal reads what some APIs said of each row of a FrugalML table: their confidence as the score, whether their label is wrong.
func frugal(t testing.TB, file string, apis ...string) [][]calibration.Outcome {
	t.Helper()
	f, err := os.Open(filepath.Join(dataFolder(t, "frugalml"), file+".csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rows := make([][]calibration.Outcome, len(table)-1)
	for _, api := range apis {
		label, confidence := slices.Index(table[0], api+"_label"), slices.Index(table[0], api+"_confidence")
		if label < 0 || confidence < 0 {
			t.Fatalf("%s has no columns of %s: %v", file, api, table[0])
		}
		for i, line := range table[1:] {
			score, err := strconv.ParseFloat(line[confidence], 64)
			if err != nil {
				t.Fatal(err)
			}
			rows[i] = append(rows[i], calibration.Outcome{Score: score, Wrong: line[label] != line[0]})
		}
	}
	return rows
}

// alone reads a single API of a FrugalML table.
func alone(t testing.TB, file, api string) []calibration.Outcome {
	return slices.Concat(frugal(t, file, api)...)
}

// frugalSets are the four sets of the published table. Many rows share a confidence (Google's text confidences have one
// decimal); untied spreads them by less than one step, without looking at anything else, so that thresholds between the
// steps exist.
func frugalSets(t testing.TB, untied bool) []*population {
	rng := rand.New(rand.NewPCG(1, 1))
	set := func(name, file, api string, served, system, step float64) *population {
		rows := alone(t, file, api)
		for i := range rows {
			if untied {
				rows[i].Score += step * rng.Float64()
			}
		}
		return newPopulation(name, served, system, rows)
	}
	return []*population{
		set("YELP", "yelp", "google", 0.02, 0.01, 0.1),
		set("SHOP", "shop", "amazon", 0.05, 0.03, 1e-6),
		set("IMDB", "imdb", "google", 0.08, 0.05, 0.1),
		set("COMMAND", "command", "google", 0.05, 0.03, 1e-6),
	}
}

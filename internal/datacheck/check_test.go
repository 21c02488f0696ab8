package datacheck

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"occam/internal/sample"
	"occam/internal/specialist"
	"occam/internal/task"
)

// banking reads BANKING77 with its category alone, in a random but fixed order (the file is sorted by category), or skips; the test
// that is not a measurement for the docs runs always.
func banking(t *testing.T, file string, always bool) []task.Example {
	t.Helper()
	if testing.Short() {
		t.Skip("cross-fits 10,003 rows")
	}
	if !always && os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("a measurement; set OCCAM_BENCH=1, or run make bench-data")
	}
	dir := os.Getenv("OCCAM_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, "banking77", file))
	if err != nil {
		t.Skipf("no data folder: %v", err)
	}
	defer f.Close()
	examples, problems, err := task.ReadExamples(f, file)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return shuffled(categoryOnly(examples))
}

func categoryOnly(examples []task.Example) []task.Example {
	kept := make([]task.Example, 0, len(examples))
	for _, e := range examples {
		if c := e.Labels[sample.Category]; c.IsString() {
			e.Labels = task.Output{sample.Category: c}
			kept = append(kept, e)
		}
	}
	return kept
}

func shuffled(examples []task.Example) []task.Example {
	rng := rand.New(rand.NewPCG(77, 1))
	rng.Shuffle(len(examples), func(i, j int) { examples[i], examples[j] = examples[j], examples[i] })
	return examples
}

func categoryField(t *testing.T, examples []task.Example) []task.Field {
	t.Helper()
	fields, err := task.InferFields(examples)
	if err != nil || len(fields) != 1 || fields[0].Kind != task.Category {
		t.Fatal(fields, err)
	}
	return fields
}

// flip gives a share of the rows another label, every other one with the same chance.
func flip(examples []task.Example, values []string, share float64, seed uint64) map[int]bool {
	rng := rand.New(rand.NewPCG(seed, 2))
	flipped := map[int]bool{}
	for _, i := range rng.Perm(len(examples))[:int(share*float64(len(examples)))] {
		for old := examples[i].Labels[sample.Category]; ; {
			if v := task.String(values[rng.IntN(len(values))]); !v.Equal(old) {
				examples[i].Labels, flipped[i] = task.Output{sample.Category: v}, true
				break
			}
		}
	}
	return flipped
}

func mustCheck(t *testing.T, fields []task.Field, examples []task.Example, opt Options) *Report {
	t.Helper()
	r, err := Check(context.Background(), fields, examples, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hits compares the rows of some findings with those that were spoilt.
func hits(findings []Finding, spoilt map[int]bool) (recall, precision float64, reported int) {
	right := 0
	for _, f := range findings {
		for _, g := range f.Groups {
			for _, row := range g.Rows {
				reported++
				if spoilt[row.Index] {
					right++
				}
			}
		}
	}
	return float64(right) / float64(len(spoilt)), float64(right) / float64(max(reported, 1)), reported
}

func TestFindsFlippedLabelsBanking77(t *testing.T) {
	examples := banking(t, "train.jsonl", true)
	fields := categoryField(t, examples)
	spoilt := flip(examples, fields[0].Values, 0.05, 1)
	before := userTime(t)
	r := mustCheck(t, fields, examples, Options{Seed: 1})
	cost := userTime(t) - before
	recall, precision, reported := hits(r.Find(SuspiciousLabel), spoilt)
	t.Logf("%d of %d rows spoilt: %d reported, recall %.3f, precision %.3f; user CPU %.1f s; ceiling %+v", len(spoilt), len(examples), reported, recall, precision, cost.Seconds(), r.Ceilings)
	if recall < 0.80 || precision < 0.60 {
		t.Errorf("recall %.3f and precision %.3f, want at least 0.80 and 0.60", recall, precision)
	}
	if n := r.Count(ShiftedBlock); n > 0 {
		t.Errorf("%d rows in blocks, but the flips are scattered", n)
	}
}

func userTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano())
}

func TestFindsShiftedBlockBanking77(t *testing.T) {
	original := banking(t, "train.jsonl", false)
	fields := categoryField(t, original)
	const from, size = 4000, 200
	for name, spoil := range map[string]func([]task.Example){
		"by one row":      func(e []task.Example) { shiftRows(e, from, size) },
		"by one category": func(e []task.Example) { shiftNames(e, fields[0].Values, from, size) },
	} {
		t.Run(name, func(t *testing.T) {
			examples := slices.Clone(original)
			spoil(examples)
			spoilt := map[int]bool{}
			for i := from; i < from+size; i++ {
				spoilt[i] = true
			}
			r := mustCheck(t, fields, examples, Options{Seed: 1})
			blocks := r.Find(ShiftedBlock)
			recall, precision, reported := hits(blocks, spoilt)
			t.Logf("%d rows reported, recall %.3f, precision %.3f", reported, recall, precision)
			if len(blocks) != 1 || len(blocks[0].Groups) != 1 {
				t.Fatalf("blocks: %+v", blocks)
			}
			t.Log(blocks[0].Groups[0].Note)
			if recall < 0.95 || precision < 0.95 {
				t.Errorf("the block is found with recall %.3f and precision %.3f", recall, precision)
			}
			if by := map[string]string{"by one row": "slipped", "by one category": "places along the list"}[name]; !strings.Contains(blocks[0].Groups[0].Note, by) {
				t.Errorf("no word of %q: %s", by, blocks[0].Groups[0].Note)
			}
		})
	}
}

// shiftRows gives every row of a block the label of the row before.
func shiftRows(examples []task.Example, from, size int) {
	for i := from + size - 1; i >= from; i-- {
		examples[i].Labels = examples[i-1].Labels
	}
}

func shiftNames(examples []task.Example, values []string, from, size int) {
	for i := from; i < from+size; i++ {
		at := slices.Index(values, examples[i].Labels[sample.Category].Text())
		examples[i].Labels = task.Output{sample.Category: task.String(values[(at+1)%len(values)])}
	}
}

// The real data as they are: what the check finds is printed, and stays within what is known of them.
func TestBanking77AsItIs(t *testing.T) {
	examples, reference := banking(t, "train.jsonl", false), banking(t, "test.jsonl", false)
	r := mustCheck(t, categoryField(t, examples), examples, Options{Seed: 1, Reference: reference})
	for _, f := range append(r.Find(HardPair), r.Find(Inseparable)...) {
		for _, g := range f.Groups {
			t.Logf("%s %v %s", f.Kind, g.Values, g.Note)
		}
	}
	for _, f := range r.Findings {
		t.Logf("%s %s: %d rows in %d groups; first %q %v", f.Kind, f.Field, f.Rows, len(f.Groups), f.Groups[0].Note, f.Groups[0].Values)
	}
	t.Logf("%+v", r.Ceilings)
	if n := r.Count(ShiftedBlock); n > 0 {
		t.Errorf("%d rows in blocks", n)
	}
	same := 0
	for _, g := range r.Find(Leak)[0].Groups {
		same += int(one(g.Score == 1))
	}
	if same < 25 {
		t.Errorf("%d test texts stand in train, at least 25 do", same)
	}
	if c := r.Ceilings[0]; c.Estimate < 0.93 || c.Estimate > 0.99 || c.Estimate < c.Now || c.Low > c.Estimate || c.High < c.Estimate {
		t.Errorf("ceiling: %+v", c)
	}
}

// fewTickets are made tickets of some categories only, which stand in every checkout and are quick to learn. They hold 2 %
// wrong labels of their own, mostly between neighbours.
func fewTickets(seed uint64, n, categories int) []task.Example {
	few := sample.Categories()[:categories]
	return slices.DeleteFunc(categoryOnly(sample.Tickets(seed, n)), func(e task.Example) bool {
		return !slices.Contains(few, e.Labels[sample.Category].Text())
	})
}

// Scattered flips and a slipped column in one file: each is reported as what it is.
func TestFindsFlippedLabelsAndBlock(t *testing.T) {
	examples := fewTickets(3, 2000, 20)
	fields := categoryField(t, examples)
	const from, size = 300, 80
	flipped := flip(examples, fields[0].Values, 0.05, 1)
	for i := from - 1; i < from+size; i++ {
		delete(flipped, i)
	}
	shiftRows(examples, from, size)
	r := mustCheck(t, fields, examples, Options{Seed: 1})
	recall, precision, reported := hits(r.Find(SuspiciousLabel), flipped)
	t.Logf("%d of %d rows flipped: %d reported, recall %.3f, precision %.3f; %+v", len(flipped), len(examples), reported, recall, precision, r.Ceilings)
	if recall < 0.60 || precision < 0.45 {
		t.Errorf("recall %.3f, precision %.3f", recall, precision)
	}
	blocks := r.Find(ShiftedBlock)
	if len(blocks) != 1 || len(blocks[0].Groups) != 1 {
		t.Fatalf("blocks: %+v", blocks)
	}
	rows, note := blocks[0].Groups[0].Rows, blocks[0].Groups[0].Note
	t.Log(note)
	if first, last := rows[0].Index, rows[len(rows)-1].Index; first < from-12 || first > from+12 || last < from+size-13 || last > from+size+11 {
		t.Errorf("block from %d to %d, want %d to %d", first, last, from, from+size-1)
	}
	if !strings.Contains(note, "slipped") {
		t.Errorf("note: %s", note)
	}
}

// Two categories whose texts are drawn from the same sentences cannot be told apart; the others can.
func TestFindsInseparablePair(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	words := strings.Fields("red blue green parcel letter box late soon lost found paid owed home shop door gate")
	var examples []task.Example
	for i := range 400 {
		category := []string{"twin a", "twin b", "bills", "doors"}[i%4]
		text := map[string]string{"twin a": "about a delivery", "twin b": "about a delivery", "bills": "my invoice is", "doors": "the garden gate is"}[category]
		for range 6 {
			text += " " + words[rng.IntN(len(words))]
		}
		examples = append(examples, task.Example{ID: fmt.Sprint(i), Text: text, Labels: task.Output{sample.Category: task.String(category)}})
	}
	r := mustCheck(t, categoryField(t, examples), examples, Options{Seed: 1})
	found := r.Find(Inseparable)
	if len(found) != 1 || len(found[0].Groups) != 1 || !slices.Equal(found[0].Groups[0].Values, []string{"twin a", "twin b"}) {
		t.Fatalf("inseparable: %+v", found)
	}
	t.Log(found[0].Groups[0].Note)
	if c := r.Ceilings[0]; c.Undecidable < 20 || c.Low > c.Estimate || c.Estimate > c.High || c.Estimate < c.Now-0.1 || c.ByPairs != 0 && c.NearPairs < minNearPairs {
		t.Errorf("ceiling %+v", c)
	}
}

func TestCheckIsTheSameOnOneAndManyCores(t *testing.T) {
	examples := fewTickets(6, 800, 6)
	var reports []*Report
	for _, workers := range []int{1, 4} {
		reports = append(reports, mustCheck(t, categoryField(t, examples), examples, Options{Seed: 3, Workers: workers, Reference: sample.Tickets(7, 100)}))
	}
	if !reflect.DeepEqual(reports[0], reports[1]) {
		t.Error("the report depends on the number of goroutines")
	}
}

func TestCheckStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Check(ctx, sample.Fields(), sample.Tickets(1, 300), Options{}); err == nil {
		t.Error("a cancelled check returns no error")
	}
}

// The whole check costs little more than the cross-fit that it rests on. CPU time of the process, not of the clock; the factor
// leaves room for noise.
func TestCostsLittleMoreThanACrossFit(t *testing.T) {
	examples := banking(t, "train.jsonl", false)
	fields := categoryField(t, examples)
	start := userTime(t)
	if _, err := specialist.CrossFit(context.Background(), fields, examples, 5, specialist.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
	fit := userTime(t) - start
	mustCheck(t, fields, examples, Options{Seed: 1})
	check := userTime(t) - start - fit
	t.Logf("user CPU: cross-fit of 5 folds %.1f s, the check %.1f s", fit.Seconds(), check.Seconds())
	if check > 2*fit {
		t.Errorf("the check costs %.1f s, one cross-fit %.1f s", check.Seconds(), fit.Seconds())
	}
}

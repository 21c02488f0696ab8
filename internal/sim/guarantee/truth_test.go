package guarantee

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/calibration"
	"occam/internal/task"
)

// A teacher labels with mistakes of its own.
type teacher struct {
	name  string
	label func(rng *rand.Rand, values []string, truth string) string
}

var teachers = []teacher{
	{"right", func(_ *rand.Rand, _ []string, truth string) string { return truth }},
	{"7.5 % wrong at random", func(rng *rand.Rand, values []string, truth string) string {
		if rng.Float64() < 0.075 {
			return values[rng.IntN(len(values))]
		}
		return truth
	}},
	{"12 of 150 intents always confused", func(_ *rand.Rand, values []string, truth string) string {
		for i := range 12 {
			if values[i] == truth {
				return values[i+12]
			}
		}
		return truth
	}},
}

// TestTruthTable trains on teachers' labels and asks, with 300 labels of people, how right the specialist really is.
func TestTruthTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	const rows = 6000
	c := readCorpus(t, "clinc150")
	rng := rand.New(rand.NewPCG(5, 5))
	rng.Shuffle(len(c.train), func(i, j int) { c.train[i], c.train[j] = c.train[j], c.train[i] })
	rng.Shuffle(len(c.test), func(i, j int) { c.test[i], c.test[j] = c.test[j], c.test[i] })
	var text strings.Builder
	fmt.Fprintf(&text, "A specialist trained on %d rows that the teacher labelled; %d test rows, of which people judge %d drawn at random, %d times; δ = %.2f. "+
		"Bounds are means, with how often the true error was outside.\n\n", rows, len(c.test), judged, judgings, judgeDelta)
	fmt.Fprint(&text, "| teacher | disagreement with the teacher | true error | assumption-free | people alone | agreement corrected | best of all |\n|---|---|---|---|---|---|---|\n")
	for _, teacher := range teachers {
		taught := make([]task.Example, rows)
		for i := range taught {
			taught[i] = c.train[i]
			label := teacher.label(rng, c.fields[0].Values, c.train[i].Labels["category"].Text())
			taught[i].Labels = task.Output{"category": task.String(label)}
		}
		predictions := predict(train(t, c.fields, taught), c.test)
		labels := make([]calibration.Label, len(c.test))
		wrong := 0
		for i := range labels {
			truth := c.test[i].Labels["category"].Text()
			said, answer := teacher.label(rng, c.fields[0].Values, truth), predictions[i].Values[0].Text()
			labels[i] = calibration.Label{Differs: answer != said, Wrong: answer != truth, Fooled: said != truth}
			if answer != truth {
				wrong++
			}
		}
		truthRow(t, &text, rng, teacher.name, labels, float64(wrong)/float64(len(labels)))
	}
	writeSection(t, "truth", text.String())
}

// How often people judge how many rows.
const (
	judged     = 300
	judgings   = 500
	judgeDelta = 0.05
)

// truthRow draws the judged rows again and again.
func truthRow(t *testing.T, text *strings.Builder, rng *rand.Rand, name string, labels []calibration.Label, truth float64) {
	var mean calibration.Truth
	var freeOut, directOut, assistedOut, out int
	for range judgings {
		rng.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
		for i := range labels {
			labels[i].Judged = i < judged
		}
		got := calibration.AgainstTruth(labels, judgeDelta)
		mean.Differ = got.Differ
		for sum, value := range map[*float64]float64{
			&mean.FreeLow: got.FreeLow, &mean.FreeHigh: got.FreeHigh, &mean.Direct: got.Direct, &mean.Assisted: got.Assisted, &mean.Low: got.Low, &mean.High: got.High,
		} {
			*sum += value / judgings
		}
		for misses, missed := range map[*int]bool{
			&freeOut: truth < got.FreeLow || truth > got.FreeHigh, &directOut: truth > got.Direct, &assistedOut: truth > got.Assisted, &out: truth < got.Low || truth > got.High,
		} {
			if missed {
				*misses++
			}
		}
	}
	percent := func(n int) string { return fmt.Sprintf("(%.1f %%)", 100*float64(n)/judgings) }
	fmt.Fprintf(text, "| %s | %.3f | %.3f | %.3f … %.3f %s | ≤ %.3f %s | ≤ %.3f %s | %.3f … %.3f %s |\n", name, mean.Differ, truth,
		mean.FreeLow, mean.FreeHigh, percent(freeOut), mean.Direct, percent(directOut), mean.Assisted, percent(assistedOut), mean.Low, mean.High, percent(out))
	for _, misses := range []int{freeOut, directOut, assistedOut, out} {
		if float64(misses)/judgings > mayBreak(judgeDelta, judgings) {
			t.Errorf("teacher %s: a bound missed the true error %.4f in %d of %d draws", name, truth, misses, judgings)
		}
	}
}

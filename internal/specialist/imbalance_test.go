//go:build unix

package specialist

import (
	"testing"

	"occam/internal/sample"
	"occam/internal/task"
)

// rarities are the bundled tickets' rare categories of this test; the rest of the categories are one: "other".
func rarities() []string { return sample.Categories()[:3] }

// lopsided draws tickets until there are common of "other" and rare of each rare category.
func lopsided(seed uint64, common, rare int) (rows []task.Example) {
	want := map[string]int{"other": common}
	for _, name := range rarities() {
		want[name] = rare
	}
	left := common + rare*len(rarities())
	for n := left; left > 0; n *= 4 {
		rows = rows[:0]
		have := map[string]int{}
		left = common + rare*len(rarities())
		for _, e := range sample.Tickets(seed, n) {
			name := e.Labels[sample.Category].Text()
			if want[name] == 0 {
				name = "other"
			}
			if have[name] < want[name] {
				have[name]++
				left--
				rows = append(rows, task.Example{ID: e.ID, Text: e.Text, Labels: task.Output{sample.Category: task.String(name)}})
			}
		}
	}
	return rows
}

// TestRareCategoriesAreLearned: 95 % of the rows are of one category that has many faces, and three categories share the rest. Always
// saying the common one would be right in 95 % and find none of the rare.
func TestRareCategoriesAreLearned(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	fields := []task.Field{{Name: sample.Category, Kind: task.Category, Values: append([]string{"other"}, rarities()...)}}
	m := train(t, fields, lopsided(31, 1900, 33), Options{Seed: 1})
	hit, answered, rows := map[string]int{}, map[string]int{}, map[string]int{}
	fresh := lopsided(32, 5700, 100)
	right := 0
	for i, p := range predictAll(m, fresh) {
		truth, answer := fresh[i].Labels[sample.Category].Text(), p.Values[0].Text()
		rows[truth]++
		answered[answer]++
		if truth == answer {
			hit[truth]++
			right++
		}
	}
	accuracy, found, precision := float64(right)/float64(len(fresh)), 0.0, 0.0
	for _, name := range rarities() {
		found += float64(hit[name]) / float64(rows[name]) / 3
		precision += float64(hit[name]) / float64(max(answered[name], 1)) / 3
		t.Logf("%-30s recall %d of %d, precision %d of %d", name, hit[name], rows[name], hit[name], answered[name])
	}
	t.Logf("rare: recall %.3f, precision %.3f; all: accuracy %.4f, of the majority %.4f", found, precision, accuracy, float64(rows["other"])/float64(len(fresh)))
	if found < .65 || precision < .85 || accuracy < .98 { // without fitPrior: .453, .993, .9725
		t.Error("rare categories drown")
	}
}

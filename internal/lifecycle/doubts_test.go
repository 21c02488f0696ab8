package lifecycle

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"occam/internal/task"
)

// The report of a training run names a shifted block and near-duplicates that conflict, in a copy of BANKING77 that the test spoils.
func TestATrainingRunNamesSpoiltLabels(t *testing.T) {
	trains(t)
	path := filepath.Join("..", "..", "..", "shared", "data", "banking77", "train.jsonl")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("the public data are not here: %v", err)
	}
	rows, _, err := task.ReadExamples(bytes.NewReader(data), path)
	if err != nil {
		t.Fatal(err)
	}
	rows = rows[:1200] // some nine intents
	var values []string
	for i := range rows {
		delete(rows[i].Labels, "order_id")
		values = append(values, rows[i].Labels["category"].Text())
	}
	slices.Sort(values)
	spoilt := &task.Task{Name: "banking", Fields: []task.Field{{Name: "category", Kind: task.Category, Values: slices.Compact(slices.Clone(values))}}}
	shuffled := make([]task.Example, len(rows))
	for i := range rows { // neighbours in the file have one intent: a shift would not show
		shuffled[i*7%len(rows)] = rows[i]
	}
	rows = slices.DeleteFunc(shuffled, func(e task.Example) bool { return e.Text == "" })
	const from, length = 300, 80
	for i := from; i < from+length; i++ { // every label belongs to the row after
		rows[i].Labels = task.Output{"category": rows[i+1].Labels["category"]}
	}
	conflicts := map[string]bool{}
	for i := 600; i < 630; i++ {
		twin := task.Example{ID: rows[i].ID + "-twin", Text: rows[i].Text + "  !", Labels: task.Output{"category": rows[i+3].Labels["category"]}}
		if !twin.Labels["category"].Equal(rows[i].Labels["category"]) {
			conflicts[twin.ID] = true
			rows = append(rows, twin)
		}
	}
	b := newBench(t, nil)
	found, err := b.doubts(t.Context(), &run{task: spoilt}, Curated{Examples: rows})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, f := range found {
		count[f.Kind] += f.Count
		t.Logf("%s: %d rows: %.120s", f.Kind, f.Count, f.Detail)
	}
	if count["shifted_block"] < length/2 {
		t.Errorf("of %d shifted labels %d are named", length, count["shifted_block"])
	}
	if count["contradiction"]+count["near_conflict"] < len(conflicts) {
		t.Errorf("of %d conflicting copies %d rows are named", len(conflicts), count["contradiction"]+count["near_conflict"])
	}
}

package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

// An explanation names requests that the model may have learned from and that are still kept: none that came later, none that was
// forgotten, none whose labels were revoked; and it says why there are none.
func TestExplanationsNameKeptExamples(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	weights := b.tiers()[0].Identity.Specialist[:12]
	trainedAt := b.status().Models[0].TrainedAt
	const text = "about the crimson quixotic kettle next to the sofa"
	add := func(id string, at time.Time, labels ...store.Label) {
		t.Helper()
		for i := range labels {
			labels[i].Example, labels[i].At = id, at
		}
		e := store.Example{ID: id, RequestID: id, Task: "colours", At: at, Text: text + strings.Repeat(" indeed", len(id)%3), Labels: labels}
		if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Examples().Add(e) }); err != nil {
			t.Fatal(err)
		}
	}
	teacher := store.Label{Source: "gpt-4o-2024-08-06", Prompt: "p", Output: labels("red"), Trainable: true}
	person := store.Label{Source: fromPerson, Key: "ann", Output: task.Output{"colour": task.String("blue")}, Trainable: true}
	barred := teacher
	barred.Trainable = false
	add("near", trainedAt.Add(-time.Second), teacher, person)
	add("later", trainedAt.Add(time.Second), teacher)
	add("barred", trainedAt.Add(-time.Second), barred)
	add("gone", trainedAt.Add(-time.Second), teacher)
	nearest := func() []string {
		t.Helper()
		why, err := b.Explain(t.Context(), "colours", weights, text)
		if err != nil || len(why.Nearest) != 3 || why.Lack != "" {
			t.Fatalf("%+v, %v", why, err)
		}
		var ids []string
		for _, n := range why.Nearest {
			ids = append(ids, fmt.Sprintf("%s=%s", n.ID, n.Labels["colour"].Text()))
		}
		return ids
	}
	all := strings.Join(nearest(), " ")
	if !strings.Contains(all, "near=blue") || !strings.Contains(all, "gone=red") || strings.Contains(all, "later") || strings.Contains(all, "barred") {
		t.Errorf("nearest are %s", all)
	}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Examples().Forget("gone"); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RevokeLabels(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if all = strings.Join(nearest(), " "); !strings.Contains(all, "near=red") || strings.Contains(all, "gone") {
		t.Errorf("after one was forgotten and a key's labels were revoked: %s", all)
	}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Examples().Expire(trainedAt, 1_000_000); return err }); err != nil {
		t.Fatal(err)
	}
	if why, err := b.Explain(t.Context(), "colours", weights, text); err != nil || len(why.Nearest) > 0 || !strings.Contains(why.Lack, "no labelled request") || len(why.Reasons) == 0 {
		t.Errorf("after the retention's end: %+v, %v", why, err)
	}
}

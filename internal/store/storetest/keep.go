package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

// hide stands for the configured redaction.
func hide(text string) string { return strings.ReplaceAll(text, "secret", "[hidden]") }

// testRedaction stores secrets in every way there is, before and after the redaction was asked for, and looks for them in every
// table; then it forgets a request and lets the retention of another end.
func testRedaction(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	keepSecrets(t, s, "old")
	must(t, s.Close())
	opts.Redact = hide
	s = open(t, dsn, opts)
	keepSecrets(t, s, "new")
	if n := secrets(t, s); n != 5*4 { // of the old ones: text, two labels, suggestion, and what a person said
		t.Errorf("%d secrets before the old ones were redacted", n)
	}
	for _, want := range []int64{4 * 5, 0} { // the second time nothing is left to do
		if n, err := s.Redact(ctx); n != want || err != nil {
			t.Errorf("redacted %d rows, want %d, %v", n, want, err)
		}
	}
	if n := secrets(t, s); n != 0 {
		t.Errorf("%d secrets are left", n)
	}
	update(t, s, func(tx *store.Tx) error {
		if n, err := tx.Examples().Forget("r-old-1"); n != 1 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		if n, err := tx.Examples().Forget(""); n != 0 || err != nil {
			t.Errorf("forgot %d requests without a name, %v", n, err)
		}
		if n, err := tx.Examples().Expire(noon.Add(150*time.Minute), 100); n != 3 || err != nil { // old-2, new-1, new-2
			t.Errorf("expired %d, %v", n, err)
		}
		for _, id := range []string{"old-1", "old-2", "new-2"} {
			if _, err := tx.Examples().ByRequest("r-" + id); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the example %s: %v", id, err)
			}
			if _, err := tx.Reviews().ByRequest("r-" + id); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the review %s: %v", id, err)
			}
		}
		e, err := tx.Examples().ByRequest("r-new-3")
		if err != nil || len(e.Labels) != 2 || e.Labels[0].Trainable || e.Text != "my [hidden] text" || e.Labels[0].Output["category"].Text() != "refund" {
			t.Errorf("what stays: %+v, %v", e, err)
		}
		return nil
	})
	must(t, s.Scrub(ctx))
}

// keepSecrets keeps four examples with their labels and reviews.
func keepSecrets(t testing.TB, s *store.Store, name string) {
	secret := task.Output{"category": task.String("refund"), "span": task.String("the secret"), "set": task.Set("a", "secret b")}
	raw, err := json.Marshal(secret)
	must(t, err)
	for i := range 4 {
		id := fmt.Sprintf("%s-%d", name, i+1)
		e := example(id, noon.Add(time.Duration(i+1)*time.Hour), "refund")
		e.Text, e.Labels[0].Output = "my secret text", secret
		if i%2 == 0 {
			must(t, s.Capture(ctx, e))
			captured(t, s, e.RequestID)
		} else {
			update(t, s, func(tx *store.Tx) error { return tx.Examples().Add(e) })
		}
		update(t, s, func(tx *store.Tx) error {
			must(t, tx.Reviews().Add(store.Review{ID: id, Task: e.Task, RequestID: e.RequestID, Example: id, At: e.At, Suggestion: raw}))
			_, err := tx.Reviews().Close(id, "ann", secret)
			return err
		})
	}
}

// secrets counts the texts with a secret in every column that keeps what people wrote.
func secrets(t testing.TB, s *store.Store) (n int) {
	must(t, s.View(ctx, func(tx *store.Tx) error {
		page, _, err := tx.Examples().Page("triage", 0, 1000)
		must(t, err)
		count := func(v any) {
			if raw, err := json.Marshal(v); err != nil || strings.Contains(string(raw), "secret") {
				n++
			}
		}
		for _, e := range page {
			count(e.Text)
			for _, l := range e.Labels {
				count(l.Output)
			}
			r, err := tx.Reviews().ByRequest(e.RequestID)
			must(t, err)
			count(r.Suggestion)
			count(r.Output)
		}
		return nil
	}))
	return n
}

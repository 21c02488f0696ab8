package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
)

// TestForgottenBytes forgets a request and then looks for its text in every byte of every file of the data folder.
func TestForgottenBytes(t *testing.T) {
	s := openDir(t, t.TempDir(), store.Options{})
	canary := "the canary sings of " + strings.Repeat("order AB-1234 ", 500)
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		for i := range 20 {
			e := store.Example{ID: fmt.Sprint(i), Task: "triage", RequestID: fmt.Sprint("r-", i), At: time.Now(), Text: fmt.Sprintf("another text, number %d", i)}
			if i == 7 {
				e.Text = canary
			}
			if err := tx.Examples().Add(e); err != nil {
				return err
			}
		}
		return nil
	}))
	caught := store.Example{ID: "caught", Task: "triage", RequestID: "r-caught", At: time.Now(), Text: canary}
	must(t, s.Capture(ctx, caught))
	eventually(t, "the example is kept", time.Minute, func() bool {
		return s.View(ctx, func(tx *store.Tx) error { _, err := tx.Examples().ByRequest(caught.RequestID); return err }) == nil
	})
	if found := filesWith(t, s.Dir(), "canary"); len(found) == 0 {
		t.Fatal("the text is nowhere, so this test shows nothing")
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.Examples().Forget("r-7")
		return errors.Join(err, func() error { _, err := tx.Examples().Forget(caught.RequestID); return err }())
	}))
	must(t, s.Scrub(ctx))
	for _, text := range []string{"canary", "AB-1234"} {
		if found := filesWith(t, s.Dir(), text); len(found) > 0 {
			t.Errorf("%q is still in %v", text, found)
		}
	}
	if found := filesWith(t, s.Dir(), "another text, number 8"); len(found) == 0 {
		t.Error("the other texts are gone")
	}
}

func filesWith(t testing.TB, dir, text string) (found []string) {
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if must(t, err); bytes.Contains(data, []byte(text)) {
			found = append(found, f.Name())
		}
	}
	return found
}

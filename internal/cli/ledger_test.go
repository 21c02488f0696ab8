package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/config"
	"occam/internal/sim"
	"occam/internal/store"
)

// stored opens the stand's store as `occam serve` would, for one change.
func (s *stand) stored(change func(*store.Store) error) {
	s.t.Helper()
	cfg, err := config.Load(s.config, os.Getenv)
	if err != nil {
		s.t.Fatal(err)
	}
	opened, err := openStore(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := change(opened); err != nil {
		s.t.Fatal(err)
	}
	if err := opened.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// spend writes free rows into the ledger.
func spend(n int) func(*store.Store) error {
	return func(s *store.Store) error {
		for range n {
			id := store.NewID(time.Now())
			if err := s.RecordFree(context.Background(), store.Attempt{ID: id, RequestID: id, At: time.Now(), Task: "t", Tier: "linear", Model: "t@1", State: store.Free, Answered: true}); err != nil {
				return err
			}
		}
		return nil
	}
}

func keep(request, text string) func(*store.Store) error {
	return func(s *store.Store) error {
		return s.Update(context.Background(), func(tx *store.Tx) error {
			return tx.Examples().Add(store.Example{ID: request, Task: "t", RequestID: request, At: time.Now(), Text: text})
		})
	}
}

// texts are what is kept, read beside whoever has the store open.
func (s *stand) texts() (all []string) {
	s.t.Helper()
	ledger, err := (&app{getenv: os.Getenv, now: time.Now, stderr: io.Discard}).readStore(context.Background(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ledger.Close()
	err = ledger.View(context.Background(), func(tx *store.Tx) error {
		page, _, err := tx.Examples().Page("t", 0, 100)
		for _, e := range page {
			all = append(all, e.Text)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// A backup that is put back over a newer database is refused, and only the typed words make occam go on with it.
func TestAcceptRollback(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {openai: {type: openai, base_url: "+url+"}}\n")
	s.stored(spend(5))
	at := []string{"--config", s.config}
	occam := func(stdin string, args ...string) (int, string) {
		code, stdout, stderr := run(t, stdin, append(args, at...)...)
		return code, stdout + stderr
	}
	old := filepath.Join(t.TempDir(), "old")
	if code, out := occam("", "ledger", "backup", old); code != exitDone {
		t.Fatalf("backup: %d %s", code, out)
	}
	if code, out := occam(acceptance+"\n", "ledger", "accept-rollback"); code != exitDone || !strings.Contains(out, "nothing was done") {
		t.Errorf("nothing to accept: %d %s", code, out)
	}
	s.stored(spend(5))
	cfg, err := config.Load(s.config, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"occam.db-wal", "occam.db-shm"} {
		_ = os.Remove(filepath.Join(cfg.DataDir, name)) // of the newer database
	}
	database, err := os.ReadFile(filepath.Join(old, "occam.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "occam.db"), database, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := occam("", "serve"); code != exitFailed || !strings.Contains(out, "occam ledger accept-rollback") {
		t.Errorf("a start with an old database: %d %s", code, out)
	}
	for _, words := range []string{"", "y\n", "yes\n"} {
		if code, out := occam(words, "ledger", "accept-rollback"); code != exitUsage {
			t.Errorf("%q was taken for acceptance: %d %s", words, code, out)
		}
	}
	if code, _ := occam("", "ledger", "verify"); code == exitDone {
		t.Error("verify finds nothing wrong before the loss is accepted")
	}
	if code, out := occam(acceptance+"\n", "ledger", "accept-rollback"); code != exitDone {
		t.Errorf("accepting: %d %s", code, out)
	}
	if code, out := occam("", "ledger", "verify"); code != exitDone || !strings.Contains(out, "rollback accepted") {
		t.Errorf("verify afterwards: %d %s", code, out)
	}
}

// What was kept is redacted by the configuration's rules, and forgotten by name, with a server running and without one.
func TestForgetAndRedact(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	providers := "providers: {openai: {type: openai, base_url: " + url + "}}\n"
	s := newStand(t, providers+"capture: {redact: []}\n")
	for _, request := range []string{"r1", "r2", "r3"} {
		s.stored(keep(request, request+" of ann@example.com, customer C-123456, card 4111111111111111"))
	}
	redacted := "r1 of [email], customer [customer], card [card]"
	s.write(providers + "capture: {redact: [card, email], patterns: {customer: 'C-[0-9]{6}'}}\n")
	s.stored(keep("r4", "r1 of ann@example.com, customer C-123456, card 4111111111111111"))
	if kept := s.texts(); kept[3] != redacted || !strings.Contains(kept[0], "ann@example.com") {
		t.Errorf("kept %q", kept)
	}
	if out := mustRun(t, "", "ledger", "redact", "--config", s.config); !strings.HasPrefix(out, "3 stored texts") {
		t.Errorf("redact: %s", out)
	}
	if kept := s.texts(); kept[0] != redacted {
		t.Errorf("after redacting: %q", kept)
	}
	if out := mustRun(t, "", "ledger", "forget", "r1", "--config", s.config); !strings.HasPrefix(out, "1 texts of 1 requests") {
		t.Errorf("forget: %s", out)
	}
	_, _, stop := serve(t, s.config)
	for want, args := range map[string][]string{`{"examples":2,"samples":0,"lines":0}`: {"forget", "r2", "r3", "unknown"}, `{"rows":0}`: {"redact"}} {
		out := mustRun(t, "", append([]string{"ledger", "--json", "--config", s.config}, args...)...)
		if strings.Join(strings.Fields(out), "") != want {
			t.Errorf("%v beside a server: %s", args, out)
		}
	}
	stop()
	if kept := s.texts(); fmt.Sprint(kept) != "["+redacted+"]" {
		t.Errorf("in the end: %q", kept)
	}
	if export := mustRun(t, "", "ledger", "export", "--config", s.config); strings.Contains(export, "C-123456") || strings.Contains(export, "[customer]") {
		t.Errorf("the export holds texts: %s", export)
	}
}

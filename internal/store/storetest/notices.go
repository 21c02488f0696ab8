package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"occam/internal/store"
)

// A certificate's hash is in the chain: whoever changes the certificate, takes it away or drops the notice is found out.
func testNotices(t *testing.T, b Backend) {
	s, dsn, _ := fresh(t, b)
	certificate := json.RawMessage(`{"task":"triage","risk":0.03}`)
	model := store.Model{Task: "triage", Tier: "linear", Hash: strings.Repeat("ab", 32), Certificate: certificate}
	sum := sha256.Sum256(certificate)
	issued := store.Notice{At: noon, Kind: store.CertificateIssued, Task: "triage", Subject: "triage@abababab", Hash: hex.EncodeToString(sum[:])}
	history(t, s, 3)
	must(t, s.RecordNotice(ctx, issued))
	update(t, s, func(tx *store.Tx) error { _, err := tx.Models().Add(model); return err })
	voided := issued
	voided.Kind, voided.Text, voided.At = store.CertificateVoided, "the prompt changed", noon.Add(1)
	must(t, s.RecordNotice(ctx, voided))
	must(t, s.RecordNotice(ctx, store.Notice{Kind: "other", Task: "other", Subject: "x"}))
	for _, bad := range []store.Notice{{}, {Kind: "k", Subject: strings.Repeat("x", 200)}, {Kind: "k", Hash: strings.Repeat("x", 65)}} {
		if err := s.RecordNotice(ctx, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	got, err := s.Notices(ctx, "triage")
	if err != nil || len(got) != 2 || got[0].Hash != issued.Hash || got[1].Text != voided.Text || got[0].Seq >= got[1].Seq {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := verified(t, s); len(r.Remarks) != 0 {
		t.Errorf("remarks %q", r.Remarks)
	}
	spoilNotices(t, b, s, dsn)
	var out bytes.Buffer
	must(t, s.Export(ctx, &out))
	dsn, opts := b.New(t)
	must(t, store.Import(ctx, dsn, opts, &out))
	copied := open(t, dsn, opts)
	verified(t, copied)
	if again, err := copied.Notices(ctx, ""); err != nil || len(again) != 3 || again[0] != got[0] {
		t.Errorf("after an import: %+v, %v", again, err)
	}
}

// Every tier of a stored plan has its certificate compared, whether or not the specialist is part of the plan.
func testTierCertificates(t *testing.T, b Backend) {
	s, dsn, _ := fresh(t, b)
	first, mini, alone := `{"tier":"linear","risk":0.03}`, `{"tier":"mini","risk":0.03}`, `{"tier":"mini","risk":0.02}`
	hash := func(text string) string { sum := sha256.Sum256([]byte(text)); return hex.EncodeToString(sum[:]) }
	plan := func(certificate string) json.RawMessage {
		return json.RawMessage(`{"specialist":"x","tiers":[{"name":"mini","provider":"openai","certificate":` + certificate + `}]}`)
	}
	for i, m := range []store.Model{
		{Task: "triage", Tier: "linear", Hash: strings.Repeat("ab", 32), Certificate: json.RawMessage(first), Report: plan(mini)},
		{Task: "triage", Tier: "linear", Hash: strings.Repeat("cd", 32), Certificate: json.RawMessage(alone), Report: plan(alone)},
	} {
		id := "triage@" + m.Hash[:8]
		must(t, s.RecordNotice(ctx, store.Notice{Kind: store.CertificateIssued, Task: "triage", Subject: id, Hash: hash(string(m.Certificate))}))
		if i == 0 {
			must(t, s.RecordNotice(ctx, store.Notice{Kind: store.CertificateIssued, Task: "triage", Subject: store.TierSubject(id, "mini"), Hash: hash(mini)}))
		}
		update(t, s, func(tx *store.Tx) error { _, err := tx.Models().Add(m); return err })
	}
	if r := verified(t, s); len(r.Remarks) != 0 {
		t.Errorf("remarks %q", r.Remarks)
	}
	raw := b.Raw(t, dsn)
	defer raw.Close()
	for _, change := range []struct{ id, report, want string }{
		{"triage@abababab", string(plan(`{"tier":"mini","risk":0.3}`)), "tier mini: its certificate is not the one"},
		{"triage@abababab", string(plan(`null`)), "tier mini: the certificate that entry"},
		{"triage@abababab", `{"specialist":"x"}`, "triage@abababab/mini: the certificate that entry"},
		{"triage@abababab", ``, "triage@abababab/mini: the certificate that entry"},
		{"triage@abababab", `{"tiers":7}`, "its report cannot be read"},
		{"triage@cdcdcdcd", string(plan(`{"tier":"mini","risk":0.3}`)), "tier mini: its certificate is not the one"},
	} {
		was := plan(mini)
		if change.id == "triage@cdcdcdcd" {
			was = plan(alone)
		}
		set := func(report string) {
			if mustExec(t, raw, `UPDATE models SET report = '`+report+`' WHERE id = '`+change.id+`'`) != 1 {
				t.Fatal("nothing was changed")
			}
		}
		set(change.report)
		report, err := s.Verify(ctx)
		if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], change.want) {
			t.Errorf("%s: want %q, got %q, %v", change.report, change.want, report.Problems, err)
		}
		set(string(was))
	}
	verified(t, s)
}

// spoilNotices changes what a notice vouches for, one thing at a time.
func spoilNotices(t *testing.T, b Backend, s *store.Store, dsn string) {
	raw := b.Raw(t, dsn)
	defer raw.Close()
	for _, change := range []struct{ spoil, mend, want string }{
		{`UPDATE models SET certificate = '{"task":"triage","risk":0.3}'`, `UPDATE models SET certificate = '{"task":"triage","risk":0.03}'`, "is not the one"},
		{`UPDATE models SET certificate = ''`, `UPDATE models SET certificate = '{"task":"triage","risk":0.03}'`, "is gone"},
		{`UPDATE chain SET note = REPLACE(note, 'prompt', 'promptt') WHERE kind = 101`, `UPDATE chain SET note = REPLACE(note, 'promptt', 'prompt') WHERE kind = 101`, "hash does not match"},
		{`UPDATE chain SET kind = 120 WHERE kind = 101`, `UPDATE chain SET kind = 101 WHERE kind = 120`, "hash does not match"},
	} {
		if mustExec(t, raw, change.spoil) == 0 {
			t.Fatalf("%s changed nothing", change.spoil)
		}
		report, err := s.Verify(ctx)
		if err != nil || !strings.Contains(strings.Join(report.Problems, "; "), change.want) {
			t.Errorf("%s: %q, %v", change.spoil, report.Problems, err)
		}
		mustExec(t, raw, change.mend)
	}
	verified(t, s)
}

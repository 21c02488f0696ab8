package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Notice is something that the ledger vouches for beside its attempts and that costs nothing: a certificate was issued,
// suspended or voided. It is an entry of the chain, so it can neither be changed nor dropped unnoticed.
type Notice struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`           // what happened, such as CertificateIssued; at most 64 bytes
	Task    string    `json:"task,omitempty"` // at most 64 bytes
	Subject string    `json:"subject"`        // what it happened to, such as a model's ID; at most 128 bytes
	Hash    string    `json:"hash,omitempty"` // SHA-256, in hex, of the document that it is about
	Text    string    `json:"text,omitempty"` // why, for people; cut at 200 bytes

	Lane int64 `json:"-"` // place in the chain, once it was read back
	Seq  int64 `json:"-"`
}

// Kinds of notices that Verify compares with the stored models: Subject is a model's ID or TierSubject, Hash that of the certificate.
const (
	CertificateIssued    = "certificate issued"
	CertificateSuspended = "certificate suspended"
	CertificateRestored  = "certificate restored" // a person judged the alarm to be false, or what had voided it was undone
	CertificateVoided    = "certificate voided"
	ClassesBarred        = "rare classes barred" // the certificate holds but for the rare classes that the text names
)

// RecordNotice appends a notice to the chain and returns once it is durable. Like an outcome it is never given up: when the
// disk refuses (ErrUnavailable) or ctx ends, it is written as soon as that can be done. While a PostgreSQL is away it is
// refused, because nothing outside the database could keep it.
func (s *Store) RecordNotice(ctx context.Context, n Notice) error {
	if s.writer == nil {
		return errReadOnly
	}
	if n.At.IsZero() {
		n.At = s.now()
	}
	n.At = n.At.UTC().Truncate(time.Microsecond)
	n.Text = clip(n.Text, maxReason)
	if n.Kind == "" || len(n.Kind) > maxName || len(n.Task) > maxName || len(n.Subject) > maxModel || len(n.Hash) > 2*sha256.Size {
		return fmt.Errorf("store: notice %q of %q: a field is missing or too long", n.Kind, n.Subject)
	}
	note, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("store: notice: %w", err)
	}
	done := make(chan error, 1)
	if err := s.writer.queueFree(ctx, &event{kind: kindNotice, note: string(note), done: done}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Notices returns the notices of a task, of all tasks when it is "", in the order of each lane's chain.
func (s *Store) Notices(ctx context.Context, taskName string) ([]Notice, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, s.dialect.bind(selectNotices))
	if err != nil {
		return nil, fmt.Errorf("store: read notices: %w", err)
	}
	defer rows.Close()
	var all []Notice
	for rows.Next() {
		var lane, seq int64
		var note string
		if err := rows.Scan(&lane, &seq, &note); err != nil {
			return nil, fmt.Errorf("store: read notices: %w", err)
		}
		n, err := parseNotice(lane, seq, note)
		if err != nil {
			return nil, err
		}
		if taskName == "" || n.Task == taskName {
			all = append(all, n)
		}
	}
	return all, rows.Err()
}

// selectNotices names the kind as a number, as the partial index does.
const selectNotices = `SELECT lane, seq, note FROM chain WHERE kind = 101 ORDER BY lane, seq`

func parseNotice(lane, seq int64, note string) (Notice, error) {
	n := Notice{}
	if err := json.Unmarshal([]byte(note), &n); err != nil {
		return n, fmt.Errorf("store: notice %d/%d: %w", lane, seq, err)
	}
	n.Lane, n.Seq = lane, seq
	return n, nil
}

// notice remembers the newest notice about each certificate.
func (v *verifier) notice(e *entry) {
	n, err := parseNotice(e.lane, e.seq, e.note)
	if err != nil {
		v.report.problem("entry %d/%d: %v", e.lane, e.seq, err)
		return
	}
	switch n.Kind {
	case CertificateIssued, CertificateSuspended, CertificateRestored, CertificateVoided, ClassesBarred:
		if have, ok := v.certificates[n.Subject]; !ok || !n.At.Before(have.At) {
			v.certificates[n.Subject] = n
		}
	}
}

// checkCertificates compares every certificate that is stored, of a model and of each tier that its plan has after it, with what
// the chain says was issued.
func (v *verifier) checkCertificates(ctx context.Context) error {
	rows, err := v.tx.QueryContext(ctx, `SELECT id, certificate, report FROM models ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, certificate, report string
		if err := rows.Scan(&id, &certificate, &report); err != nil {
			return err
		}
		v.checkCertificate(id, "model "+id, certificate)
		v.checkTiers(id, certificate, report)
	}
	return rows.Err()
}

// checkCertificate compares one certificate with the newest notice about it.
func (v *verifier) checkCertificate(subject, what, certificate string) {
	sum := sha256.Sum256([]byte(certificate))
	n, noticed := v.certificates[subject]
	switch {
	case !noticed && certificate != "":
		v.report.Remarks = append(v.report.Remarks, fmt.Sprintf("the certificate of %s was never entered in the chain", what))
	case noticed && certificate == "":
		v.report.problem("%s: the certificate that entry %d/%d vouches for is gone", what, n.Lane, n.Seq)
	case noticed && hex.EncodeToString(sum[:]) != n.Hash:
		v.report.problem("%s: its certificate is not the one that entry %d/%d vouches for", what, n.Lane, n.Seq)
	}
}

// checkTiers does so for the tiers in a model's report. The first is the model's own certificate where its plan has no specialist.
func (v *verifier) checkTiers(id, certificate, report string) {
	var plan struct {
		Tiers []struct {
			Name        string          `json:"name"`
			Certificate json.RawMessage `json:"certificate"`
		} `json:"tiers"`
	}
	if report != "" {
		if err := json.Unmarshal([]byte(report), &plan); err != nil {
			v.report.problem("model %s: its report cannot be read: %v", id, err)
			return
		}
	}
	var first struct {
		Tier string `json:"tier"`
	}
	_ = json.Unmarshal([]byte(certificate), &first) // one that is no JSON any more is not the one that was issued either
	known := map[string]bool{}
	for i, tier := range plan.Tiers {
		subject := TierSubject(id, tier.Name)
		if i == 0 && tier.Name == first.Tier {
			subject = id
		}
		known[subject] = true
		if string(tier.Certificate) == "null" {
			tier.Certificate = nil
		}
		v.checkCertificate(subject, fmt.Sprintf("model %s, tier %s", id, tier.Name), string(tier.Certificate))
	}
	for _, subject := range slices.Sorted(maps.Keys(v.certificates)) {
		if strings.HasPrefix(subject, id+"/") && !known[subject] {
			v.checkCertificate(subject, "model "+subject, "")
		}
	}
}

// TierSubject is the subject of notices about the certificate of a tier that a model's plan has after the first.
func TierSubject(id, tier string) string {
	subject := id + "/" + tier
	return strings.ToValidUTF8(subject[:min(len(subject), maxModel)], "")
}

// refuseNotices answers the notices of a batch that goes to the spill file, which holds rows only, and returns the rest.
func (w *writer) refuseNotices(batch []*event) (rows []*event) {
	for _, e := range batch {
		if e.kind == kindNotice {
			e.answer(errors.Join(ErrUnavailable, errDown))
			continue
		}
		rows = append(rows, e)
	}
	return rows
}

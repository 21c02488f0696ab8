package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/store"
)

// A rung is a tier of a model's plan that is served elsewhere, with the evidence about it.
type rung struct {
	PlannedTier
	gauge   *gauge
	version int64 // of the stored evidence
	other   string
	run     int // answers in a row by other, another version than the certified one
}

// probeShare is the share of requests that a tier is still asked about while it answers as another version than was certified: each of
// its answers is refused, and paid for, but only they tell when the certified version is back.
const probeShare = 0.02

// named takes in by which version a tier answered, and reports whether that changes what is known. A single answer by another, which
// a provider gives while it moves, is only refused; one by the certified version says that this is back.
func (r *rung) named(version string) (changed bool) {
	switch {
	case version == r.Version:
		changed = r.gauge.AnswersAs != ""
		r.run, r.gauge.AnswersAs = 0, ""
	case version != r.other:
		r.other, r.run = version, 1
	default:
		r.run++
	}
	if r.run >= teacherRun && r.gauge.AnswersAs != r.other {
		r.gauge.AnswersAs, changed = r.other, true
	}
	return changed
}

// renamed says that a tier answers as another version than the one that was certified; "" if it does not.
func (r *rung) renamed() string {
	if r.gauge.AnswersAs == "" {
		return ""
	}
	return fmt.Sprintf("it answers as %q, and %q was certified: pin the version in the configuration, or wait for the next training run, which measures the new one", r.gauge.AnswersAs, r.Version)
}

// named notes by which version a tier served elsewhere answered.
func (c *Controller) named(ctx context.Context, s *subject, specialist, version string) {
	if !c.leading { // the leader's own share of the requests is enough
		return
	}
	for _, h := range s.held {
		for _, r := range h.rungs {
			if r.hash() == specialist && r.named(version) {
				r.gauge.dirty = true
				c.noteTiers(ctx, s)
			}
		}
	}
}

// first is the certificate and the evidence of the plan's first tier: the specialist where it is part of the plan.
func (h *held) first() (*calibration.Certificate, *gauge) {
	switch {
	case h.LoadedModel == nil:
		return nil, nil
	case h.Certificate == nil && len(h.rungs) > 0:
		return h.rungs[0].Certificate, h.rungs[0].gauge
	}
	return h.Certificate, h.gauge
}

// gauges visits the evidence about every tier, with the name under which it is stored.
func (h *held) gauges(visit func(name string, g *gauge, version *int64) error) error {
	if h.gauge != nil {
		if err := visit(h.evidenceOf(""), h.gauge, &h.version); err != nil {
			return err
		}
	}
	for _, r := range h.rungs {
		if err := visit(h.evidenceOf(r.Name), r.gauge, &r.version); err != nil {
			return err
		}
	}
	return nil
}

// evidenceOf is the name under which the evidence about a tier is stored; "" is the specialist.
func (h *held) evidenceOf(tier string) string {
	name := h.task + "/" + h.hash
	if tier != "" {
		name += "/" + tier
	}
	return name
}

// alarmed reports whether a tier after the first is under an alarm.
func (h *held) alarmed() bool {
	return slices.ContainsFunc(h.rungs, func(r *rung) bool { return r.gauge.evidence().Alarm != "" })
}

// loadRungs reads the evidence about the tiers after the specialist, or begins it.
func (c *Controller) loadRungs(ctx context.Context, s *subject, h *held) error {
	for _, planned := range h.Tiers {
		r := &rung{PlannedTier: planned}
		var err error
		if r.gauge, r.version, err = c.storedGauge(ctx, h.evidenceOf(r.Name)); err != nil {
			return err
		}
		if r.gauge == nil {
			if r.gauge, err = c.newGauge(ctx, s, h, r.Certificate); err != nil {
				return err
			}
		}
		h.rungs = append(h.rungs, r)
	}
	return nil
}

// observed is a tier that predicted, with the evidence about it.
type observed struct {
	*held
	certificate *calibration.Certificate
	gauge       *gauge
}

// observed finds the tier that an identity belongs to; its gauge is nil where there is none.
func (s *subject) observed(specialist string) observed {
	if h := s.byWeights(specialist); h != nil {
		return observed{h, h.Certificate, h.gauge}
	}
	for _, h := range s.held {
		for _, r := range h.rungs {
			if r.hash() == specialist {
				return observed{h, r.Certificate, r.gauge}
			}
		}
	}
	return observed{}
}

// voidTier says why the certificate of a tier served elsewhere does not hold now.
func (s *subject) voidTier(r *rung) string {
	if weaker(r.Certificate, s.task.Target) {
		return "it proves less than the task promises now"
	}
	return r.Certificate.Void(s.tierIdentity(r))
}

// tierIdentity is what such a tier is now: where the configuration sends its model's requests, and what it is asked with. Which
// version answers is seen in each answer.
func (s *subject) tierIdentity(r *rung) calibration.Identity {
	now := r.PlannedTier
	now.Prompt = askedWith(s.task)
	if s.model != nil {
		source, _ := s.model(r.Name)
		now.Provider, now.Upstream = source.Provider, source.Upstream
	}
	id := calibration.Identity{Task: s.task.Name, Specialist: now.hash(), Score: r.Certificate.Score, Teacher: r.Certificate.Teacher, PromptHash: r.Certificate.PromptHash}
	return s.taught(id, r.Certificate)
}

// cascadeTiers are the tiers of a model's plan after the specialist. A call to them costs money, so they are asked only where they
// may answer, not in shadow.
func (s *subject) cascadeTiers(h *held, p Placement) []Tier {
	var tiers []Tier
	for _, r := range h.rungs {
		t := cascade.Tier{Name: r.Name, Mode: p.Mode, Share: p.Share, Certificate: r.Certificate, Identity: s.tierIdentity(r), Version: r.Version}
		switch {
		case p.Mode != cascade.Live && p.Mode != cascade.Canary:
			t.Mode = cascade.Off
		case s.voidTier(r) != "" || r.gauge.evidence().Alarm != "":
			t.Mode = cascade.Suspended
		case r.renamed() != "":
			t.Mode, t.Share = cascade.Canary, probeShare
		}
		tiers = append(tiers, Tier{Tier: t, Served: &r.PlannedTier})
	}
	return tiers
}

// vouch writes what happened to the certificates of a model into the ledger's chain, before it is stored.
func (c *Controller) vouch(ctx context.Context, kind, taskName, modelHash, why string, certificates []*calibration.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	subject := taskName + "@" + short(modelHash)
	for i, certificate := range certificates {
		if certificate == nil {
			continue
		}
		n := store.Notice{At: c.opts.Now(), Kind: kind, Task: taskName, Subject: subject, Hash: certificate.Hash(), Text: why}
		if i > 0 {
			n.Subject = store.TierSubject(subject, certificate.Tier)
		}
		if err := c.opts.Store.RecordNotice(ctx, n); err != nil {
			return fmt.Errorf("entering %q in the ledger's chain: %w", kind, err)
		}
	}
	return nil
}

// vouchTier is vouch for one tier of a model's plan.
func (c *Controller) vouchTier(ctx context.Context, kind string, s *subject, o observed, why string) error {
	all := []*calibration.Certificate{o.certificate}
	if first, _ := o.first(); first != o.certificate {
		all = []*calibration.Certificate{nil, o.certificate}
	}
	return c.vouch(ctx, kind, s.task.Name, o.hash, why, all)
}

// noteTiers tells people and the ledger of every tier whose certificate became void, or holds again, while its plan answers: the
// task's state says nothing of it, for the rest of the plan goes on. Of a first tier that is elsewhere now the state does speak.
func (c *Controller) noteTiers(ctx context.Context, s *subject) {
	published := false
	for hash, h := range s.held {
		first, _ := h.first()
		for _, r := range h.rungs {
			void := s.voidTier(r)
			if r.Certificate == first {
				void = ""
			}
			if void = cmp.Or(void, r.renamed()); !s.record.Answers(hash) || (void == "") == (r.gauge.Void == "") {
				continue
			}
			if !published { // the data plane knows before anybody is told
				published = true
				if err := c.publish(); err != nil {
					c.opts.Log.Error("publishing", "task", s.task.Name, "error", err)
				}
			}
			kind, why := store.CertificateVoided, void
			if void == "" {
				kind, why = store.CertificateRestored, "what had changed is again as it was certified"
			}
			c.opts.Log.Warn("the certificate of a tier", "task", s.task.Name, "tier", r.Name, "now", kind, "reason", why)
			if err := c.vouchTier(ctx, kind, s, observed{h, r.Certificate, r.gauge}, why); err != nil {
				c.opts.Log.Error("the ledger", "task", s.task.Name, "error", err)
				continue // tried again with the next step
			}
			r.gauge.Void, r.gauge.dirty = void, true
		}
	}
}

// certificates are those of a plan's tiers, in order.
func certificates(first *calibration.Certificate, tiers []PlannedTier) []*calibration.Certificate {
	var all []*calibration.Certificate
	if first != nil {
		all = append(all, first)
	}
	for i := range tiers {
		all = append(all, tiers[i].Certificate)
	}
	return all
}

// noteWithdrawals tells the ledger of every model that answered and that the next record takes its requests from, and of one
// that a person gives back.
func (c *Controller) noteWithdrawals(ctx context.Context, s *subject, next Record) {
	for _, hash := range []string{s.record.Lead, s.record.Incumbent} {
		h := s.held[hash]
		if h == nil || h.LoadedModel == nil {
			continue
		}
		all := certificates(h.Certificate, h.Tiers)
		e, kind := s.evidence(hash), ""
		why := e.trouble()
		switch left := placed(s.record, hash) && !placed(next, hash); {
		case left && e.Void != "":
			kind = store.CertificateVoided
		case left && e.Alarm != "":
			kind = store.CertificateSuspended
		case s.record.State == Suspended && next.State == Shadow && hash == next.Lead:
			kind, why = store.CertificateRestored, "a person judged the alarm false"
		}
		if kind == "" {
			continue
		}
		if err := c.vouch(ctx, kind, s.task.Name, hash, why, all); err != nil {
			c.opts.Log.Error("the ledger", "task", s.task.Name, "error", err)
		}
	}
}

// placed reports whether a record has a model in the cascade, not suspended, or about to come into it.
func placed(r Record, hash string) bool {
	for _, p := range r.Placements() {
		if p.Model == hash && p.Mode != cascade.Suspended {
			return true
		}
	}
	return r.State == Candidate && r.Lead == hash
}

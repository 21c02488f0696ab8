package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"occam/internal/store"
)

// Where several processes share a PostgreSQL database one of them leads: it alone judges evidence, takes steps, queues and runs
// training. The others serve, keep examples, and pass on to it what they see of the models. Whatever a leader does is bound to
// versions and leases in the store besides, so one that lost its lead without knowing does no harm.
const (
	kindLeader   = "leader"
	leaderName   = "lifecycle"
	leaderTerm   = 6 * time.Second
	kindEvidence = "evidence"
	passedMost   = 2000 // pieces of evidence that wait to be passed on; more are dropped and counted
)

// leadership is the stored claim of one process.
type leadership struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
}

// An evidence is one comparison that a process which does not lead has seen.
type evidence struct {
	Task       string `json:"task"`
	Specialist string `json:"specialist"`
	Answered   bool   `json:"answered,omitempty"`
	Accepted   bool   `json:"accepted,omitempty"`
	Missing    bool   `json:"missing,omitempty"`
	Outside    bool   `json:"outside,omitempty"`
	Agreed     bool   `json:"agreed,omitempty"`
	Rare       bool   `json:"rare,omitempty"`
	Extra      bool   `json:"extra,omitempty"`
}

func (e *evidence) comparison() Comparison {
	return Comparison{Task: e.Task, Specialist: e.Specialist, Answered: e.Answered, Accepted: e.Accepted, Missing: e.Missing, Outside: e.Outside, Agreed: e.Agreed,
		Rare: e.Rare, Extra: e.Extra}
}

// lead reports whether this process leads, after claiming or renewing that where it is due.
func (c *Controller) lead(ctx context.Context) bool {
	if !c.opts.Store.Shared() {
		c.leading = true
		return true
	}
	now := c.opts.Now()
	if c.leading && c.term.Sub(now) > leaderTerm/2 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTerm/3)
	defer cancel()
	won := false
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindLeader)
		have, err := records.Get(leaderName)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var claim leadership
		if len(have.Value) > 0 {
			if err := json.Unmarshal(have.Value, &claim); err != nil {
				claim = leadership{} // damaged: anybody's
			}
		}
		if won = claim.Owner == c.owner || !now.Before(claim.Until); !won {
			return nil
		}
		have.Name = leaderName
		if have.Value, err = json.Marshal(leadership{c.owner, now.Add(leaderTerm)}); err != nil {
			return err
		}
		return records.Put(have)
	})
	won = won && err == nil
	switch {
	case won && !c.leading:
		c.opts.Log.Info("this process leads the lifecycle now")
		c.leading, c.term = true, now.Add(leaderTerm)
		c.catchUp(ctx)
	case won:
		c.term = now.Add(leaderTerm)
	case c.leading && !now.Before(c.term) || err == nil:
		c.leading = false
	}
	return c.leading
}

// resign lets another process lead at once.
func (c *Controller) resign(ctx context.Context) {
	if !c.leading || !c.opts.Store.Shared() {
		return
	}
	c.leading = false
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindLeader)
		have, err := records.Get(leaderName)
		if err != nil {
			return err
		}
		var claim leadership
		if err := json.Unmarshal(have.Value, &claim); err != nil || claim.Owner != c.owner {
			return err // its term ran out, and another process leads
		}
		have.Value = json.RawMessage(`{}`)
		return records.Put(have)
	})
	if err != nil {
		c.opts.Log.Warn("the lead could not be given up; it runs out by itself", "error", err)
	}
}

// catchUp reads everything that another leader may have written.
func (c *Controller) catchUp(ctx context.Context) {
	for _, name := range c.names {
		s := c.subjects[name]
		if err := errors.Join(c.reload(ctx, s), c.reloadGauges(ctx, s)); err != nil {
			c.opts.Log.Error("reading a task's state", "task", name, "error", err)
		}
	}
}

// reloadGauges takes in evidence that another process has written.
func (c *Controller) reloadGauges(ctx context.Context, s *subject) error {
	return c.opts.Store.View(ctx, func(tx *store.Tx) error {
		for _, h := range s.held {
			err := h.gauges(func(name string, g *gauge, version *int64) error {
				stored, err := tx.Records(kindGauge).Get(name)
				if errors.Is(err, store.ErrNotFound) || err == nil && stored.Version == *version {
					return nil
				}
				if err != nil {
					return err
				}
				fresh, err := decodeGauge(stored.Value)
				if err == nil {
					*g, *version = *fresh, stored.Version
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// yield takes in evidence that another process has written, such as a former leader whose last write came late. What was seen here since
// is lost; else nothing could ever be written any more.
func (c *Controller) yield(ctx context.Context, names []string) {
	for _, name := range names {
		if err := c.reloadGauges(ctx, c.subjects[name]); err != nil {
			c.opts.Log.Error("reading evidence about models", "task", name, "error", err)
		}
	}
}

// overwrite makes ready to write a task's evidence over what another process has written: a step rests on it.
func (c *Controller) overwrite(ctx context.Context, s *subject) error {
	return c.opts.Store.View(ctx, func(tx *store.Tx) error {
		for _, h := range s.held {
			err := h.gauges(func(name string, _ *gauge, version *int64) error {
				stored, err := tx.Records(kindGauge).Get(name)
				if err == nil {
					*version = stored.Version
				}
				if errors.Is(err, store.ErrNotFound) {
					err = nil
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// follow reads what the leader has seen since, so that people are shown the same by every process.
func (c *Controller) follow(ctx context.Context) {
	now := c.opts.Now()
	if now.Sub(c.followed) < leaderTerm/3 {
		return
	}
	c.followed = now
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	for _, name := range c.names {
		if err := c.reloadGauges(ctx, c.subjects[name]); err != nil {
			c.opts.Log.Warn("reading the leader's evidence; it is tried again", "task", name, "error", err)
			return
		}
	}
}

// pass keeps a comparison for the leader.
func (c *Controller) pass(cmp *Comparison) {
	if len(c.passed) >= passedMost {
		c.dropped.comparisons.Add(1)
		return
	}
	c.passed = append(c.passed, evidence{cmp.Task, cmp.Specialist, cmp.Answered, cmp.Accepted, cmp.Missing, cmp.Outside, cmp.Agreed, cmp.Rare, cmp.Extra})
}

// passOn hands what was seen to the leader.
func (c *Controller) passOn(ctx context.Context) {
	if len(c.passed) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	value, err := json.Marshal(c.passed)
	if err == nil {
		err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
			return tx.Records(kindEvidence).Put(store.Record{Name: store.NewID(c.opts.Now()), Value: value})
		})
	}
	if err != nil {
		c.opts.Log.Warn("evidence about models waits: it could not be passed on", "pieces", len(c.passed), "error", err)
		return
	}
	c.passed = c.passed[:0]
}

// gather judges what other processes have passed on. It is taken out of the store first: a crash loses it rather than counting it twice.
func (c *Controller) gather(ctx context.Context) {
	if !c.opts.Store.Shared() {
		return
	}
	var all []store.Record
	list := func(tx *store.Tx) (err error) { all, err = tx.Records(kindEvidence).List(); return err }
	err := c.opts.Store.View(ctx, list)
	if err == nil && len(all) == 0 {
		return
	}
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindEvidence)
		err := list(tx)
		for _, r := range all {
			err = errors.Join(err, records.Delete(r.Name))
		}
		return err
	})
	if err != nil {
		c.opts.Log.Warn("evidence from other processes could not be read", "error", err)
		return
	}
	for _, r := range all {
		var seen []evidence
		if err := json.Unmarshal(r.Value, &seen); err != nil {
			c.opts.Log.Warn("evidence from another process is damaged", "error", err)
			continue
		}
		for i := range seen {
			cmp := seen[i].comparison()
			c.judge(ctx, &cmp)
		}
	}
}

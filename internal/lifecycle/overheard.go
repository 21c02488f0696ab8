package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"occam/internal/store"
)

// kindTraffic is the kind of document that holds what was seen of a group of traffic, under its key.
const kindTraffic = "traffic"

const (
	trafficEvery = 2 * time.Second // between writes of what was overheard
	trafficBatch = 10              // groups a write
)

// loadTraffic takes up what was overheard before this process started. A damaged group begins anew.
func (c *Controller) loadTraffic(ctx context.Context) error {
	var stored []store.Record
	err := c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.Records(kindTraffic).List()
		return err
	})
	for _, r := range stored {
		var seen sighting
		if err := json.Unmarshal(r.Value, &seen); err != nil {
			c.opts.Log.Warn("what was seen of some traffic is damaged and begins anew", "group", r.Name, "error", err)
			continue
		}
		c.finder.group(r.Name).known = seen
	}
	return err
}

// keepTraffic writes what was overheard since the last time: of a few groups, those with most news, or of all.
func (c *Controller) keepTraffic(ctx context.Context, all bool) {
	now := c.opts.Now()
	if !all && now.Sub(c.overheard) < trafficEvery {
		return
	}
	c.overheard = now
	var news []*group
	for _, g := range c.finder.groups {
		if g.fresh.N > 0 && g.known.N >= leastGroup {
			news = append(news, g)
		}
	}
	slices.SortFunc(news, func(a, b *group) int { return cmp.Compare(b.fresh.N, a.fresh.N) })
	if !all {
		news = news[:min(len(news), trafficBatch)]
	}
	for _, g := range news {
		if err := c.keepGroup(ctx, g); err != nil && !errors.Is(err, store.ErrConflict) { // another replica wrote: next time
			c.opts.Log.Warn("what was seen of some traffic could not be written", "group", g.key, "error", err)
			return
		}
	}
}

// keepGroup adds a group's news to what is stored of it, which other replicas add to as well.
func (c *Controller) keepGroup(ctx context.Context, g *group) error {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	var whole sighting
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindTraffic)
		have, err := records.Get(g.key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		whole = sighting{}
		if len(have.Value) > 0 {
			if err := json.Unmarshal(have.Value, &whole); err != nil {
				whole = sighting{}
			}
		}
		whole.merge(g.fresh)
		if have.Value, err = encodeSighting(&whole); err != nil {
			return err
		}
		have.Name = g.key
		return records.Put(have)
	})
	if err == nil {
		g.known, g.fresh = whole, sighting{}
	}
	return err
}

// encodeSighting leaves the oldest samples out where all would not fit a record.
func encodeSighting(s *sighting) ([]byte, error) {
	for {
		value, err := json.Marshal(s)
		if err != nil || len(value) <= store.MaxRecord || len(s.Samples) == 0 {
			return value, err
		}
		s.Samples = slices.Clone(s.Samples[len(s.Samples)/2+1:])
	}
}

// ForgetOverheard removes what discovery keeps of some requests, and returns how many samples there were. What they said of a group as a
// whole, its counts and the prompt that marks it, stays.
func ForgetOverheard(tx *store.Tx, requests []string) (n int, err error) {
	records := tx.Records(kindTraffic)
	all, err := records.List()
	if err != nil {
		return 0, err
	}
	for _, r := range all {
		var seen sighting
		if json.Unmarshal(r.Value, &seen) != nil {
			continue // loadTraffic says so, and the group begins anew
		}
		found := seen.forget(requests)
		if len(found) == 0 {
			continue
		}
		if r.Value, err = encodeSighting(&seen); err != nil {
			return n, err
		}
		if err := records.Put(r); err != nil {
			return n, err
		}
		n += len(found)
	}
	return n, nil
}

// ForgetOverheard removes what this process still holds of some requests for discovery, and returns of how many that is not in the
// store yet. Samples in the store are the function's of this name; give it a transaction after this.
func (c *Controller) ForgetOverheard(ctx context.Context, requests []string) (n int, err error) {
	err = c.inLoop(ctx, func(context.Context) {
		for len(c.traffic) > 0 {
			c.finder.add(<-c.traffic)
		}
		for _, g := range c.finder.groups {
			n += len(g.fresh.forget(requests))
			g.known.forget(requests)
		}
	})
	return n, err
}

// forgetTraffic removes a group that became a task.
func (c *Controller) forgetTraffic(ctx context.Context, key string) {
	delete(c.finder.groups, key)
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Records(kindTraffic).Delete(key) })
	if err != nil {
		c.opts.Log.Warn("what was seen of some traffic could not be removed", "group", key, "error", err)
	}
}

// expireTraffic removes the groups and samples whose retention has ended, in memory and in the store: that also has groups that found no
// room in memory, and knows what other replicas saw since.
func (c *Controller) expireTraffic(ctx context.Context, before time.Time) {
	for key, g := range c.finder.groups {
		g.fresh.expire(before)
		if g.known.expire(before); g.known.Last.Before(before) {
			delete(c.finder.groups, key)
		}
	}
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		records := tx.Records(kindTraffic)
		all, err := records.List()
		if err != nil {
			return err
		}
		for _, r := range all {
			var seen sighting
			switch bad := json.Unmarshal(r.Value, &seen); {
			case bad != nil && r.Updated.Before(before), bad == nil && seen.Last.Before(before):
				err = records.Delete(r.Name)
			case bad == nil && seen.expire(before) > 0:
				if r.Value, err = encodeSighting(&seen); err == nil {
					err = records.Put(r)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.opts.Log.Warn("ending the retention of what was seen of traffic", "error", err)
	}
}

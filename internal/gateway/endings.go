package gateway

import (
	"context"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
)

// endingNear is how long before a provider stops a model people and apps are warned.
const endingNear = 90 * 24 * time.Hour

// endingMembers are what providers call the day on which they stop a model, in their lists of models.
var endingMembers = []string{"shutdown_date", "deprecation_date", "deprecation", "expiration_date", "retirement_date", "retires_at", "sunset_date"}

// ending reads when a model is stopped from its entry in a provider's list: a date, a moment or Unix seconds.
func (m model) ending() time.Time {
	for _, name := range endingMembers {
		switch v := m[name].(type) {
		case string:
			for _, layout := range []string{time.DateOnly, time.RFC3339} {
				if at, err := time.Parse(layout, v); err == nil {
					return at.UTC()
				}
			}
		case float64:
			if v > 0 {
				return time.Unix(int64(v), 0).UTC()
			}
		}
	}
	return time.Time{}
}

// Endings asks a provider when it stops which models. Most lists do not say.
func Endings(ctx context.Context, u *engine.Upstream) (map[string]time.Time, error) {
	list, err := fetchModels(ctx, u)
	if err != nil {
		return nil, err
	}
	ends := map[string]time.Time{}
	for _, m := range list {
		id, ok := m["id"].(string)
		if at := m.ending(); ok && !at.IsZero() {
			ends[id] = at
		}
	}
	return ends, nil
}

// endings are what the providers' lists said, by provider and model.
type endings map[[2]string]time.Time

// ending is when a target's model is stopped: as its provider's list says, else as its price in the book does; zero where nobody
// does.
func (s *Server) ending(t engine.Target, price cost.Price) time.Time {
	if known := s.ends.Load(); known != nil {
		if at, ok := (*known)[[2]string{t.Upstream.Name, t.Model}]; ok {
			return at
		}
	}
	return price.Shutdown
}

// WatchModels asks every provider for its list at once and then at intervals, until ctx ends, and logs a warning for each model
// that the configuration names and its provider stops soon.
func (s *Server) WatchModels(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := map[string]bool{}
	for {
		if snap := s.snapshot.Load(); snap != nil {
			s.lookForEndings(ctx, snap)
			s.warnOfEndings(snap, told)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lookForEndings reads the lists. A provider that does not answer keeps what it said before.
func (s *Server) lookForEndings(ctx context.Context, snap *Snapshot) {
	next := endings{}
	if before := s.ends.Load(); before != nil {
		for k, at := range *before {
			next[k] = at
		}
	}
	asked := map[*engine.Upstream]bool{}
	for _, t := range snap.targets() {
		if asked[t.Upstream] {
			continue
		}
		asked[t.Upstream] = true
		ends, err := Endings(ctx, t.Upstream)
		if err != nil {
			continue // whoever needs the list is told
		}
		for k := range next {
			if k[0] == t.Upstream.Name {
				delete(next, k)
			}
		}
		for id, at := range ends {
			next[[2]string{t.Upstream.Name, id}] = at
		}
	}
	s.ends.Store(&next)
}

// targets are the models that the configuration names, with where they are.
func (s *Snapshot) targets() (all []engine.Target) {
	for _, r := range s.Models {
		all = append(all, r.Targets...)
	}
	for i := range s.Tasks {
		all = append(all, s.Tasks[i].paid.Targets...)
	}
	return all
}

func (s *Server) warnOfEndings(snap *Snapshot, told map[string]bool) {
	now := s.opts.Now()
	for _, t := range snap.targets() {
		price, _ := snap.price(t, "", now)
		at := s.ending(t, price)
		key := t.Upstream.Name + "\x00" + t.Model + at.String()
		if at.IsZero() || at.Sub(now) > endingNear || told[key] {
			continue
		}
		told[key] = true
		s.opts.Log.Warn("a provider stops a model that the configuration names", "provider", t.Upstream.Name, "model", t.Model, "on", at.Format(time.DateOnly))
	}
}

// warn tells the app, in a header, that the model it is answered by is stopped soon.
func (x *exchange) warn(a *paid) {
	if at := x.Server.ending(a.target, a.price); !at.IsZero() && at.Sub(a.At) <= endingNear {
		x.w.Header()["X-Occam-Model-Shutdown"] = []string{at.Format(time.DateOnly)}
	}
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"occam/internal/config"
	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/store"
)

const (
	abilityRecords   = "ability" // the kind of the store's records that keep what self-tests found
	abilitiesFresh   = 24 * time.Hour
	selfTestPatience = 2 * time.Minute // of one model
)

// An ability is a record: what was found out, and where.
type ability struct {
	gateway.Abilities
	Address string `json:"address"` // base_url and type: at another one it must be found out again
}

// places are the models that the configuration names, each with its provider: of models, their fallbacks and the tasks' generalists.
func (w *wiring) places() []engine.Target {
	var all []engine.Target
	for name, m := range w.cfg.Models {
		all = append(all, w.route(name, m).Targets...)
	}
	for _, t := range w.cfg.Tasks {
		if _, listed := w.cfg.Models[t.Generalist]; !listed && t.Generalist != "" {
			all = append(all, engine.Target{Upstream: w.upstreams[w.cfg.FirstProvider], Model: t.Generalist})
		}
	}
	slices.SortFunc(all, func(a, b engine.Target) int {
		return cmp.Or(strings.Compare(a.Upstream.Name, b.Upstream.Name), strings.Compare(a.Model, b.Model))
	})
	return slices.CompactFunc(all, func(a, b engine.Target) bool { return a.Upstream == b.Upstream && a.Model == b.Model })
}

func (w *wiring) address(t engine.Target) string {
	p := w.cfg.Providers[t.Upstream.Name]
	return p.Type + " " + p.BaseURL
}

// selfTest finds out what every model that the configuration names really does. What was found out in the last day is not asked
// again. It returns all that is known.
func (s *server) selfTest(ctx context.Context, now func() time.Time) []gateway.Abilities {
	s.testing.Lock()
	defer s.testing.Unlock()
	var all []gateway.Abilities
	w := s.wired.Load()
	for _, t := range w.places() {
		if known, ok := s.known(ctx, w, t); ok && now().Sub(known.At) < abilitiesFresh && known.Error == "" {
			all = append(all, known)
			continue
		}
		limited, cancel := context.WithTimeout(ctx, selfTestPatience)
		found, err := s.gateway.SelfTest(limited, t)
		cancel()
		if ctx.Err() != nil {
			return all
		}
		if err != nil {
			s.log.Warn("the self-test of a model found nothing out", "provider", found.Provider, "model", found.Model, "error", err)
		}
		report(s.log, found)
		if err := s.remember(ctx, ability{found, w.address(t)}); err != nil {
			s.log.Warn("what a self-test found is not kept", "provider", found.Provider, "model", found.Model, "error", err)
		}
		all = append(all, found)
	}
	return all
}

// selfTestDaily looks every hour for what is not known, which a reload may have brought, or known for a day, until ctx ends.
func (s *server) selfTestDaily(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if s.wired.Load().cfg.SelfTest {
			s.selfTest(ctx, now)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// report logs what a model does not do though requests may rely on it.
func report(log *slog.Logger, a gateway.Abilities) {
	if a.Schema == gateway.Ignored {
		log.Warn("a provider ignores JSON schemas: its answers have the right shape by good luck only", "provider", a.Provider, "model", a.Model)
	}
	if a.Error == "" && !a.StreamUsage {
		log.Warn("a provider does not say what streams bill: their cost is estimated", "provider", a.Provider, "model", a.Model)
	}
}

func abilityName(t engine.Target) string { return t.Upstream.Name + "/" + t.Model }

// known is what the last self-test of a model found, at the same address.
func (s *server) known(ctx context.Context, w *wiring, t engine.Target) (found gateway.Abilities, ok bool) {
	err := s.store.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(abilityRecords).Get(abilityName(t))
		if err != nil {
			return err
		}
		var kept ability
		err = json.Unmarshal(r.Value, &kept)
		found, ok = kept.Abilities, err == nil && kept.Address == w.address(t)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.log.Warn("what a self-test found cannot be read", "model", t.Model, "error", err)
	}
	return found, ok
}

// abilities is what is known of the models that the configuration names, without asking them.
func (s *server) abilities(ctx context.Context) ([]gateway.Abilities, error) {
	var all []gateway.Abilities
	w := s.wired.Load()
	for _, t := range w.places() {
		if known, ok := s.known(ctx, w, t); ok {
			all = append(all, known)
		}
	}
	return all, ctx.Err()
}

func (s *server) remember(ctx context.Context, a ability) error {
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		records, name := tx.Records(abilityRecords), a.Provider+"/"+a.Model
		r, err := records.Get(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		r.Name, r.Value = name, value
		return records.Put(r)
	})
}

// examine is a self-test for a command: the running server's, or one of its own where none runs.
func (a *app) examine(ctx context.Context, cfg *config.Config) ([]gateway.Abilities, error) {
	var found []gateway.Abilities
	if client := running(ctx, cfg.DataDir); client != nil {
		client.Timeout = 0 // models are asked one after the other
		return found, command(ctx, client, http.MethodPost, "/self-test", nil, &found)
	}
	log := slog.New(slog.DiscardHandler) // it stands in the findings
	s := &server{log: log}
	wired, err := newWiring(cfg, nil)
	if err != nil {
		return nil, err
	}
	defer wired.close(nil)
	s.wired.Store(wired)
	if s.store, err = openStore(ctx, cfg, log); err != nil {
		return nil, err
	}
	defer s.store.Close()
	if s.gateway, err = gateway.New(gateway.Options{Ledger: s.store, Log: log, Now: a.now}); err != nil {
		return nil, err
	}
	defer s.gateway.Close()
	if err := s.gateway.Publish(s.snapshot(wired, nil)); err != nil {
		return nil, err
	}
	return s.selfTest(ctx, a.now), ctx.Err()
}

// line is a finding for people.
func line(a gateway.Abilities) string {
	if a.Error != "" {
		return a.Error
	}
	yes := func(is bool, what string) string {
		if is {
			return what
		}
		return "no " + what
	}
	return fmt.Sprintf("JSON schemas %s, %s, %s, %s, %s", a.Schema, yes(a.Logprobs, "log-probabilities"), yes(a.Usage, "usage"),
		yes(a.StreamUsage, "usage in streams"), yes(a.Priced, "price"))
}

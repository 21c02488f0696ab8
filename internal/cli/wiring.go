package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/cascade"
	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// A wiring is what the configuration decides and a reload may change: providers, models, limits and prices. It never changes.
type wiring struct {
	cfg       *config.Config
	book      *cost.Book
	named     *cost.Book                // the same by the providers' own names, as they stand in the ledger
	options   map[string]engine.Options // of each upstream
	upstreams map[string]*engine.Upstream
}

// newWiring makes a configuration's wiring. A provider that is the same as before keeps its connections, its breaker and its
// rate limits.
func newWiring(cfg *config.Config, before *wiring) (*wiring, error) {
	book, err := loadBook(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	w := &wiring{cfg: cfg, book: book, named: book.Resold(sellers(cfg)), options: map[string]engine.Options{}, upstreams: map[string]*engine.Upstream{}}
	for name, p := range cfg.Providers {
		w.options[name] = upstreamOptions(name, p, cfg.Limits)
		if before != nil && before.options[name] == w.options[name] {
			w.upstreams[name] = before.upstreams[name]
			continue
		}
		if w.upstreams[name], err = engine.NewUpstream(w.options[name]); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// sellers are those whose prices the providers of a configuration have, where that is another name.
func sellers(cfg *config.Config) map[string]string {
	all := map[string]string{}
	for name, p := range cfg.Providers {
		if p.Prices != "" {
			all[name] = p.Prices
		}
	}
	return all
}

func upstreamOptions(name string, p config.Provider, l config.Limits) engine.Options {
	return engine.Options{
		Name: name, Kind: p.Type, Messages: p.Messages, BaseURL: p.BaseURL, Key: p.APIKey, Simulated: p.Simulated, PricedAs: p.Prices, Hosted: p.Hosting != nil,
		Timeouts: engine.Timeouts{
			Connect:   time.Duration(cmp.Or(p.Timeouts.Connect, l.ConnectTimeout)),
			FirstByte: time.Duration(cmp.Or(p.Timeouts.FirstByte, l.FirstByte)),
			Idle:      time.Duration(cmp.Or(p.Timeouts.Idle, l.Idle)),
			Total:     time.Duration(cmp.Or(p.Timeouts.Total, l.Total)),
		},
	}
}

// close drops the idle connections of the upstreams that another wiring has not taken over. Calls under way end as they would.
func (w *wiring) close(after *wiring) {
	for name, u := range w.upstreams {
		if after == nil || after.upstreams[name] != u {
			u.Close()
		}
	}
}

// route is where a model's requests go.
func (w *wiring) route(name string, m config.Model) engine.Route {
	r := engine.Route{Hedge: time.Duration(m.HedgeAfter)}
	for _, at := range append([]config.Place{m.Place}, m.Fallbacks...) {
		r.Targets = append(r.Targets, engine.Target{Upstream: w.upstreams[at.Provider], Model: cmp.Or(at.Upstream, name), MaxOutput: at.MaxOutput})
	}
	return r
}

// limits are the data plane's.
func (w *wiring) limits() gateway.Limits {
	l := w.cfg.Limits
	retries := l.Retries
	if retries == 0 {
		retries = -1
	}
	return gateway.Limits{
		BodyBytes: l.BodyBytes, InFlight: l.InFlight, HeldBytes: l.HeldBytes, Body: time.Duration(l.Body), Write: time.Duration(l.Write),
		Drain: l.OnDisconnect == config.Drain, AskUsage: l.AskUsage,
		Patience: engine.Patience{Retries: retries, Wait: time.Duration(l.RetryWait), Share: l.RetryShare},
	}
}

// snapshot is what the data plane reads.
func (s *server) snapshot(w *wiring, deployments []lifecycle.Deployment) *gateway.Snapshot {
	snapshot := &gateway.Snapshot{
		Models: map[string]engine.Route{}, Fallback: w.upstreams[w.cfg.FirstProvider], Book: w.book, Keys: s.keyring(), Limits: w.limits(),
	}
	for name, m := range w.cfg.Models {
		snapshot.Models[name] = w.route(name, m)
	}
	for _, d := range deployments {
		routed := gateway.Task{Task: d.Task}
		for _, tier := range d.Tiers {
			routed.Tiers = append(routed.Tiers, w.tier(tier))
		}
		snapshot.Tasks = append(snapshot.Tasks, routed)
	}
	return snapshot
}

// tier is a tier as the data plane has it. One that is served elsewhere is asked only where it was certified: a configuration that
// sends its model somewhere else stops it with the same snapshot.
func (w *wiring) tier(t lifecycle.Tier) gateway.Tier {
	routed := gateway.Tier{Tier: t.Tier, Specialist: t.Model}
	if t.Served == nil {
		return routed
	}
	now, ok := w.source(t.Served.Name, time.Now())
	target := engine.Target{Upstream: w.upstreams[w.cfg.FirstProvider], Model: t.Served.Upstream} // of a model that is gone: not called
	if ok {
		target = w.route(t.Served.Name, w.cfg.Models[t.Served.Name]).Targets[0] // a fallback was not certified
	}
	routed.Route.Targets = []engine.Target{target}
	if !ok || now.Provider != t.Served.Provider || now.Upstream != t.Served.Upstream {
		routed.Mode = cascade.Suspended
	}
	return routed
}

// source is where a model of the configuration is, and what it costs beside its calls.
func (w *wiring) source(name string, at time.Time) (lifecycle.Source, bool) {
	m, ok := w.cfg.Models[name]
	if !ok {
		return lifecycle.Source{}, false
	}
	return w.sourceOf(name, m, at), true
}

func (w *wiring) sourceOf(name string, m config.Model, at time.Time) lifecycle.Source {
	upstream := cmp.Or(m.Upstream, name)
	s := lifecycle.Source{Provider: m.Provider, Upstream: upstream}
	if hosting := w.cfg.Providers[m.Provider].Hosting; hosting != nil {
		host, known := w.book.GPU(hosting.SKU, at)
		s.Priced, s.Monthly = known, host.Hour.USD()*float64(max(hosting.Replicas, 1))*hoursPerMonth
		return s
	}
	_, s.Priced = w.book.Lookup(w.upstreams[m.Provider].PricedAs, upstream, at)
	return s
}

const hoursPerMonth = 730.5

// ask puts an input of the past to a model, to measure it as a tier.
func (s *server) ask(ctx context.Context, taskName, model, input string, scored bool) (lifecycle.Asked, error) {
	said, err := s.gateway.Consult(ctx, taskName, model, input, scored)
	return lifecycle.Asked(said), err
}

// deploy publishes what the lifecycle decided.
func (s *server) deploy(d []lifecycle.Deployment) error {
	s.deploying.Lock()
	defer s.deploying.Unlock()
	if err := s.gateway.Publish(s.snapshot(s.wired.Load(), d)); err != nil {
		return err
	}
	s.deployed = d
	return nil
}

// rewire publishes what stands now with another wiring, or the same one for nil, and with the keys as they are.
func (s *server) rewire(w *wiring) error {
	s.deploying.Lock()
	defer s.deploying.Unlock()
	if w == nil {
		w = s.wired.Load()
	}
	if err := s.gateway.Publish(s.snapshot(w, s.deployed)); err != nil {
		return err
	}
	s.wired.Store(w)
	return nil
}

// keyring is nil while nobody has made a key: the API then asks for none. While the keys cannot be read those hold that were read last;
// where none ever were, nobody is let in.
func (s *server) keyring() *gateway.Keyring {
	var keys []store.Key
	err := s.store.View(context.Background(), func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err })
	if err != nil {
		s.log.Error("the keys cannot be read; those that are known hold", "error", err)
		if known := s.keys.Load(); known != nil {
			return *known
		}
		return gateway.NewKeyring(nil)
	}
	var ring *gateway.Keyring
	if len(keys) > 0 {
		ring = gateway.NewKeyring(keys)
	}
	s.keys.Store(&ring)
	return ring
}

// fixed lists what a reload cannot change: it was built when the server started.
func fixed(c *config.Config) map[string]any {
	return map[string]any{"listen": c.Listen, "data_dir": c.DataDir, "store": c.Store, "durability": c.Durability, "tasks": c.Tasks,
		"capture": c.Capture, "dashboard": c.Dashboard, "alerts": c.Alerts, "reviews": c.Reviews, "batches": c.Batches, "limits.drain_timeout": c.Limits.Drain}
}

// reloaded is what a reload took in.
type reloaded struct {
	Providers int `json:"providers"`
	Models    int `json:"models"`
}

// reload reads the configuration again and makes new requests use it; those in flight keep theirs. A configuration that is wrong,
// or that changes what needs a restart, changes nothing.
func (s *server) reload(ctx context.Context, a *app) (reloaded, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg, err := config.Load(s.path, a.getenv)
	if err != nil {
		return reloaded{}, fmt.Errorf("nothing was changed: %w", err)
	}
	before := s.wired.Load()
	var changed []string
	was := fixed(before.cfg)
	for name, now := range fixed(cfg) {
		if !reflect.DeepEqual(was[name], now) {
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 {
		return reloaded{}, fmt.Errorf("nothing was changed: %s: %s changed, which takes a restart", s.path, strings.Join(changed, " and "))
	}
	next, err := newWiring(cfg, before)
	if err == nil {
		err = s.rewire(next)
	}
	if err != nil {
		return reloaded{}, fmt.Errorf("nothing was changed: %s: %w", s.path, err)
	}
	before.close(next)
	if err := s.control.Load().Refresh(ctx); err != nil { // certificates of models that are elsewhere now are void
		return reloaded{}, err
	}
	return reloaded{Providers: len(cfg.Providers), Models: len(cfg.Models)}, nil
}

// reloadOnSignal reloads on SIGHUP until ctx ends.
func (s *server) reloadOnSignal(ctx context.Context, a *app) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		done, err := s.reload(ctx, a)
		if err != nil {
			s.log.Error("the configuration was not reloaded", "error", err)
			continue
		}
		fmt.Fprintf(a.stderr, "Reloaded: %d providers, %d models.\n", done.Providers, done.Models)
	}
}

func (a *app) reloadCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "reload", Short: "Make the running server read its configuration again, without a pause", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path, a.getenv)
			if err != nil {
				return err
			}
			client := running(cmd.Context(), cfg.DataDir)
			if client == nil {
				return fmt.Errorf("no server runs on %s", cfg.DataDir)
			}
			var done reloaded
			if err := command(cmd.Context(), client, http.MethodPost, "/reload", nil, &done); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			fmt.Fprintf(a.stdout, "reloaded: %d providers, %d models\n", done.Providers, done.Models)
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}

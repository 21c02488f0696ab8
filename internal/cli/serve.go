package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

func (a *app) serveCommand() *cobra.Command {
	var path string
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the gateway, the control loop and the dashboard", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if limit > 0 {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, limit)
				defer stop()
			}
			return a.serve(ctx, path)
		},
	}
	cmd.Flags().DurationVar(&limit, "for", 0, "stop by itself after this time, such as 10m (default: run until stopped)")
	cmd.Flags().StringVar(&path, "config", "occam.yaml", "configuration file")
	return cmd
}

func (a *app) serve(ctx context.Context, path string) error {
	started := a.now()
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	tasks, err := cfg.TaskList()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s, err := a.open(ctx, cfg, tasks, nil)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.listen(cfg.Listen); err != nil {
		return err
	}
	s.announce(a, cfg, path, started)
	background, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { s.serveControl(background, cfg.DataDir) })
	watching.Go(func() { newBell(cfg.Alerts.Webhook, s.store, s.log, a.now).watchSpend(background, cfg, s.book) })
	defer watching.Wait()
	defer stop()
	return s.run(ctx, time.Duration(cfg.Limits.Drain))
}

// A server is one running occam: everything wired together.
type server struct {
	store     *store.Store
	gateway   *gateway.Server
	tracing   *gateway.Tracing
	upstreams map[string]*engine.Upstream
	tasks     []*task.Task
	models    map[string]*lifecycle.LoadedModel // by task, as the configuration names them
	control   atomic.Pointer[lifecycle.Controller]
	book      *cost.Book
	log       *slog.Logger
	password  string // of the dashboard's first account, "" when there are accounts already
	listener  net.Listener
	done      chan struct{} // closed when the server stops
}

// open wires a server from its configuration. given holds models by task that are in memory already; the others are
// loaded from the files that the configuration names.
func (a *app) open(ctx context.Context, cfg *config.Config, tasks []*task.Task, given map[string]*lifecycle.LoadedModel) (_ *server, err error) {
	s := &server{tasks: tasks, upstreams: map[string]*engine.Upstream{}, models: map[string]*lifecycle.LoadedModel{},
		log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.loadModels(cfg, given); err != nil {
		return nil, err
	}
	if err := s.openUpstreams(cfg); err != nil {
		return nil, err
	}
	if s.store, err = openStore(ctx, cfg, s.log); err != nil {
		return nil, err
	}
	s.done = make(chan struct{})
	pages, err := s.pages(ctx, a, cfg, given == nil) // a demo is for whoever sits at the machine
	if err != nil {
		return nil, err
	}
	if s.tracing, err = gateway.StartTracing(ctx, version); err != nil {
		return nil, err
	}
	options := gateway.Options{Ledger: s.store, Log: s.log, Now: a.now, Tracing: s.tracing, Other: pages}
	s.callbacks(&options, cfg)
	if s.gateway, err = gateway.New(options); err != nil {
		return nil, err
	}
	if s.book, err = loadBook(cfg.DataDir); err != nil {
		return nil, err
	}
	return s, s.startLifecycle(ctx, a, cfg)
}

func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (*store.Store, error) {
	if cfg.Store == "sqlite" {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("data_dir %s cannot be made: %w; choose another with data_dir in the configuration", cfg.DataDir, err)
		}
	}
	durability := store.Full
	if cfg.Durability == "normal" {
		durability = store.Normal
	}
	return store.Open(ctx, storeDSN(cfg), store.Options{Durability: durability, Dir: cfg.DataDir, Log: log})
}

func (s *server) loadModels(cfg *config.Config, given map[string]*lifecycle.LoadedModel) error {
	for _, t := range s.tasks {
		model := given[t.Name]
		if path := cfg.Tasks[t.Name].Model; model == nil && path != "" {
			var err error
			if model, err = lifecycle.LoadModel(path); err != nil {
				return fmt.Errorf("tasks.%s: %w", t.Name, err)
			}
		}
		if model == nil {
			continue
		}
		s.models[t.Name] = model
		if !task.SameFields(t.Fields, model.Task.Fields) {
			return fmt.Errorf("tasks.%s: the model file %s was trained for another schema: train again with this task's", t.Name, model.Path)
		}
		// The answers' order of members is the schema's; the model's own order is what its predictions have.
		t.Fields = model.Model.Fields()
	}
	return nil
}

func (s *server) openUpstreams(cfg *config.Config) error {
	for name, p := range cfg.Providers {
		u, err := engine.NewUpstream(upstreamOptions(name, p, cfg.Limits))
		if err != nil {
			return err
		}
		s.upstreams[name] = u
	}
	return nil
}

func upstreamOptions(name string, p config.Provider, l config.Limits) engine.Options {
	return engine.Options{
		Name: name, Kind: p.Type, BaseURL: p.BaseURL, Key: p.APIKey, Simulated: p.Simulated, PricedAs: p.Prices, Hosted: p.Hosting != nil,
		Timeouts: engine.Timeouts{
			Connect:   time.Duration(cmp.Or(p.Timeouts.Connect, l.ConnectTimeout)),
			FirstByte: time.Duration(cmp.Or(p.Timeouts.FirstByte, l.FirstByte)),
			Idle:      time.Duration(cmp.Or(p.Timeouts.Idle, l.Idle)),
			Total:     time.Duration(cmp.Or(p.Timeouts.Total, l.Total)),
		},
	}
}

// gatewayLimits are the data plane's limits.
func gatewayLimits(l config.Limits) gateway.Limits {
	retries := l.Retries
	if retries == 0 {
		retries = -1
	}
	return gateway.Limits{
		BodyBytes: l.BodyBytes, InFlight: l.InFlight, Body: time.Duration(l.Body), Write: time.Duration(l.Write),
		Drain: l.OnDisconnect == config.Drain, AskUsage: l.AskUsage,
		Patience: engine.Patience{Retries: retries, Wait: time.Duration(l.RetryWait), Share: l.RetryShare},
	}
}

// route is where a model's requests go.
func (s *server) route(name string, m config.Model) engine.Route {
	var r engine.Route
	for _, at := range append([]config.Place{m.Place}, m.Fallbacks...) {
		r.Targets = append(r.Targets, engine.Target{Upstream: s.upstreams[at.Provider], Model: cmp.Or(at.Upstream, name), MaxOutput: at.MaxOutput})
	}
	return r
}

// snapshot is what the data plane reads.
func (s *server) snapshot(cfg *config.Config, deployments []lifecycle.Deployment) *gateway.Snapshot {
	snapshot := &gateway.Snapshot{
		Models: map[string]engine.Route{}, Fallback: s.upstreams[cfg.FirstProvider], Book: s.book, Keys: s.keyring(),
		Limits: gatewayLimits(cfg.Limits),
	}
	for name, m := range cfg.Models {
		snapshot.Models[name] = s.route(name, m)
	}
	for _, d := range deployments {
		routed := gateway.Task{Task: d.Task}
		for _, tier := range d.Tiers {
			routed.Tiers = append(routed.Tiers, gateway.Tier{Tier: tier.Tier, Specialist: tier.Model})
		}
		snapshot.Tasks = append(snapshot.Tasks, routed)
	}
	return snapshot
}

// keyring is nil while nobody has made a key: the API then asks for none. Keys that cannot be read let nobody in.
func (s *server) keyring() *gateway.Keyring {
	var keys []store.Key
	err := s.store.View(context.Background(), func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err })
	if err != nil {
		s.log.Error("the keys cannot be read; no request is let in", "error", err)
		return gateway.NewKeyring(nil)
	}
	if len(keys) == 0 {
		return nil
	}
	return gateway.NewKeyring(keys)
}

func (s *server) listen(address string) error {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("another program listens on %s already: stop it, or choose another address with listen in the configuration", address)
	case err != nil:
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	s.listener = listener
	return nil
}

// url is the server's address as a browser takes it.
func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// announce prints what a newcomer needs next.
func (s *server) announce(a *app, cfg *config.Config, path string, started time.Time) {
	w := a.stderr
	fmt.Fprintf(w, "occam %s   data %s (durable: %s)   config %s (%d tasks, %d providers)\n", version, cfg.DataDir, cfg.Durability, path, len(s.tasks), len(s.upstreams))
	fmt.Fprintf(w, "  API        %s/v1      export OPENAI_BASE_URL=%s/v1\n", s.url(), s.url())
	if s.password != "" {
		fmt.Fprintf(w, "  Dashboard  %s      account admin, password (shown once): %s\n", s.url(), s.password)
	} else {
		fmt.Fprintf(w, "  Dashboard  %s\n", s.url())
	}
	for _, t := range s.tasks {
		fmt.Fprintf(w, "  Task       %s: %s\n", t.Name, s.taskLine(t))
	}
	for name, p := range cfg.Providers {
		if p.APIKey == "" {
			fmt.Fprintf(w, "  ! provider %q has an empty api_key: it will refuse what needs one. Set it in the environment, or write \"none\".\n", name)
		}
	}
	fmt.Fprintf(w, "Ready in %d ms. Ctrl-C stops after the answers under way (%s at most).\n", a.now().Sub(started).Milliseconds(), time.Duration(cfg.Limits.Drain))
}

func (s *server) taskLine(t *task.Task) string {
	for _, st := range s.control.Load().Status() {
		if st.Task == t.Name {
			return fmt.Sprintf("%s; %s", st.State, st.Reason)
		}
	}
	return "not known"
}

// run serves until ctx ends, then lets the answers under way finish. The pages' live updates end at once: they would not end by
// themselves.
func (s *server) run(ctx context.Context, grace time.Duration) error {
	defer context.AfterFunc(ctx, func() { close(s.done) })()
	return s.gateway.Serve(ctx, s.listener, grace)
}

func (s *server) close() {
	if s.listener != nil {
		_ = s.listener.Close() // closed already after an orderly stop
	}
	if s.gateway != nil {
		s.gateway.Close()
	}
	if err := s.tracing.Close(context.Background()); err != nil {
		s.log.Warn("the last spans did not reach the collector", "error", err)
	}
	if control := s.control.Load(); control != nil {
		control.Close()
	}
	for _, u := range s.upstreams {
		u.Close()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the store", "error", err)
		}
	}
	for _, m := range s.models {
		if err := m.Close(); err != nil {
			s.log.Error("closing a model", "error", err)
		}
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/batch"
	"occam/internal/config"
	"occam/internal/dashboard"
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
		Example: "  occam serve\n  occam serve --config /etc/occam/occam.yaml --json    # one JSON line with its addresses once it is ready",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if limit > 0 {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, limit)
				defer stop()
			}
			heir, err := a.serve(ctx, path)
			if err == nil && heir != nil {
				err = restart(heir)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&limit, "for", 0, "stop by itself after this time, such as 10m (default: run until stopped)")
	configFlag(cmd, &path)
	return cmd
}

// serve runs a server until ctx ends, or until it is told to restart: heir is then its listener, for the process that goes on.
func (a *app) serve(ctx context.Context, path string) (heir *os.File, err error) {
	started := a.now()
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go away; the server stays
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return nil, err
	}
	tasks, err := cfg.TaskList()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := a.open(ctx, cfg, tasks, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.listen(cfg.Listen); err != nil {
		return nil, err
	}
	ctx, restarting := s.untilRestart(ctx, a)
	s.path = path
	commands := s.listenControl(cfg.DataDir)
	s.announce(a, cfg, path, started)
	if a.json {
		if err := a.printJSON(serving{s.url() + "/v1", s.url(), cfg.DataDir, len(s.tasks), len(cfg.Providers)}); err != nil {
			return nil, err
		}
	}
	background, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { s.serveControl(background, a, commands) })
	watching.Go(func() { s.reloadOnSignal(background, a) })
	watching.Go(func() { s.gateway.WatchModels(background, time.Hour) })
	watching.Go(func() { s.selfTestDaily(background, a.now) })
	watching.Go(func() { newBell(cfg.Alerts.Webhook, s.store, s.log, a.now).watchSpend(background, s.wired.Load) })
	watching.Go(func() {
		newBell(cfg.Alerts.Webhook, s.store, s.log, a.now).watchTasks(background, s.control.Load().Status)
	})
	watching.Go(func() { newPager(cfg, s.url(), s.store, s.log, a.now).watch(background, s.control.Load().Status) })
	defer watching.Wait()
	defer stop()
	err = s.run(ctx, time.Duration(cfg.Limits.Drain))
	return restarting(), err
}

// A server is one running occam: everything wired together.
type server struct {
	store     *store.Store
	gateway   *gateway.Server
	telemetry *gateway.Telemetry
	path      string                           // of the configuration file; a demo has none
	wired     atomic.Pointer[wiring]           // what the configuration decides
	reloading sync.Mutex                       // one reload at a time
	testing   sync.Mutex                       // one self-test at a time
	deploying sync.Mutex                       // guards deployed, and that what is published last is what stands
	keys      atomic.Pointer[*gateway.Keyring] // as they were read last
	deployed  []lifecycle.Deployment           // as the lifecycle gave them last
	tasks     []*task.Task
	models    map[string]*lifecycle.LoadedModel // by task, as the configuration names them
	control   atomic.Pointer[lifecycle.Controller]
	site      *dashboard.Dashboard
	log       *slog.Logger
	password  string // of the dashboard's first account, "" when there are accounts already
	listener  net.Listener
	done      chan struct{} // closed when the server stops
	batches   atomic.Pointer[batch.Service]
}

// open wires a server from its configuration. given holds models by task that are in memory already; the others are
// loaded from the files that the configuration names.
func (a *app) open(ctx context.Context, cfg *config.Config, tasks []*task.Task, given map[string]*lifecycle.LoadedModel) (_ *server, err error) {
	s := &server{tasks: tasks, models: map[string]*lifecycle.LoadedModel{},
		log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.loadModels(cfg, given); err != nil {
		return nil, err
	}
	if s.store, err = openStore(ctx, cfg, s.log); err != nil { // first: it says what is wrong with the data folder
		return nil, err
	}
	wired, err := newWiring(cfg, nil)
	if err != nil {
		return nil, err
	}
	s.wired.Store(wired)
	s.done = make(chan struct{})
	if s.site, err = s.pages(ctx, a, cfg, given == nil); err != nil { // a demo is for whoever sits at the machine
		return nil, err
	}
	if s.telemetry, err = gateway.StartTelemetry(ctx, version); err != nil {
		return nil, err
	}
	options := gateway.Options{Ledger: s.store, Log: s.log, Now: a.now, Telemetry: s.telemetry, Other: s.site, Offline: s.offline, Memory: boundMemory()}
	s.callbacks(&options)
	if s.gateway, err = gateway.New(options); err != nil {
		return nil, err
	}
	if err := s.startLifecycle(ctx, a, cfg); err != nil {
		return nil, err
	}
	return s, s.startBatches(a, cfg)
}

func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (*store.Store, error) {
	if cfg.Store == "sqlite" {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("data_dir %s cannot be made: %w; choose another with data_dir in the configuration", cfg.DataDir, err)
		}
	}
	opts, err := storeOptions(cfg, log)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, storeDSN(cfg), opts)
}

// storeOptions are those of a store that is written to.
func storeOptions(cfg *config.Config, log *slog.Logger) (store.Options, error) {
	opts := store.Options{Durability: store.Full, Dir: cfg.DataDir, Log: log}
	if cfg.Durability == "normal" {
		opts.Durability = store.Normal
	}
	var err error
	opts.Redact, err = cfg.Capture.Redaction()
	return opts, err
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

func (s *server) listen(address string) (err error) {
	if s.listener, err = inherited(address); s.listener == nil && err == nil {
		s.listener, err = listen(address)
	}
	return err
}

// listen takes an address, or says why it cannot be had and what to do about it.
func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another program listens on %s already: stop it, or listen on another address", address)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the system does not let this account listen on %s: ports below 1024 need a right of their own; listen on another", address)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w; listen on another address", address, err)
	}
	return listener, nil
}

// url is the server's address as a browser takes it.
func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// serving is what `occam serve --json` prints once it is ready.
type serving struct {
	API       string `json:"api"`
	Dashboard string `json:"dashboard"`
	DataDir   string `json:"data_dir"`
	Tasks     int    `json:"tasks"`
	Providers int    `json:"providers"`
}

// announce prints what a newcomer needs next.
func (s *server) announce(a *app, cfg *config.Config, path string, started time.Time) {
	w := a.stderr
	fmt.Fprintf(w, "occam %s   data %s (durable: %s)   config %s (%s, %s)\n", version, cfg.DataDir, cfg.Durability, path, counted(len(s.tasks), "task"), counted(len(cfg.Providers), "provider"))
	fmt.Fprintf(w, "  API        %s/v1      export OPENAI_BASE_URL=%s/v1\n", s.url(), s.url())
	if s.password != "" {
		fmt.Fprintf(w, "  Dashboard  %s      account admin, password (shown once): %s\n", s.url(), s.password)
	} else {
		fmt.Fprintf(w, "  Dashboard  %s\n", s.url())
	}
	for _, t := range s.tasks {
		fmt.Fprintf(w, "  Task       %s: %s\n", t.Name, s.taskLine(t))
	}
	for _, line := range missing(cfg) {
		fmt.Fprintf(w, "  ! %s\n", line)
	}
	fmt.Fprintf(w, "Ready in %d ms. Ctrl-C stops after the answers under way (%s at most).\n", a.now().Sub(started).Milliseconds(), time.Duration(cfg.Limits.Drain))
}

// missing says which values of a configuration are empty that should not be.
func missing(cfg *config.Config) []string {
	var lines []string
	told := map[string]bool{}
	for _, u := range cfg.Unset {
		told[u.Key] = true
		lines = append(lines, fmt.Sprintf("%s is not set, so %s is empty. Fix: export %s=…, then start again.", u.Name, u.Key, u.Name))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Providers)) {
		if key := "providers." + name + ".api_key"; cfg.Providers[name].APIKey == "" && !told[key] {
			lines = append(lines, key+" is empty: name the key, or write none where the provider wants none.")
		}
	}
	return lines
}

// counted is a number of things in words: 1 task, 2 tasks.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
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
	if b := s.batches.Load(); b != nil {
		b.Close()
	}
	if s.gateway != nil {
		s.gateway.Close()
	}
	if err := s.telemetry.Close(context.Background()); err != nil {
		s.log.Warn("the last spans did not reach the collector", "error", err)
	}
	if control := s.control.Load(); control != nil {
		control.Close()
	}
	if w := s.wired.Load(); w != nil {
		w.close(nil)
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

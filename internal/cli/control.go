package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"occam/internal/config"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
	"occam/internal/openai"
	"occam/internal/store"
)

// startLifecycle goes on where every task stands and publishes the first snapshot.
func (s *server) startLifecycle(ctx context.Context, a *app, cfg *config.Config) error {
	setups := make([]lifecycle.Setup, len(s.tasks))
	for i, t := range s.tasks {
		setups[i] = lifecycle.Setup{Task: t, Model: s.models[t.Name]}
	}
	control, err := lifecycle.Start(ctx, lifecycle.Options{
		Store: s.store, Tasks: setups, Capture: cfg.Capture.Prompts, Retention: time.Duration(cfg.Capture.Retention), Log: s.log, Now: a.now,
		Publish: s.deploy, Ask: s.ask,
		Model: func(name string) (lifecycle.Source, bool) { return s.wired.Load().source(name, a.now()) },
	})
	if err != nil {
		return err
	}
	s.control.Store(control)
	return nil
}

// callbacks connects the data plane to the lifecycle.
func (s *server) callbacks(o *gateway.Options) {
	barred := func(provider string) bool {
		training := s.wired.Load().cfg.Providers[provider].Training
		return training != nil && !*training
	}
	o.OnExample = func(e gateway.Example) {
		s.tell(func(c *lifecycle.Controller) {
			c.Example(lifecycle.Answer{RequestID: e.RequestID, At: e.At, Task: e.Task.Name, Input: e.Input, Values: e.Values, Model: e.Model,
				PromptHash: e.PromptHash, Barred: barred(e.Provider), Outside: e.Outside, Unplain: e.Unplain})
		})
	}
	o.OnComparison = func(e gateway.Comparison) {
		s.tell(func(c *lifecycle.Controller) {
			c.Compare(lifecycle.Comparison{RequestID: e.RequestID, At: e.At, Task: e.Task.Name, Specialist: e.Specialist, Input: e.Input,
				Predicted: e.Predicted, Values: e.Values, Model: e.Model, PromptHash: e.PromptHash, Barred: barred(e.Provider),
				Answered: e.Answered, Accepted: e.Accepted, Rare: e.Rare, Extra: e.Extra, Missing: e.Missing, Outside: e.Outside, Agreed: e.Agreed})
		})
	}
	o.OnReview = func(r gateway.Review) {
		s.tell(func(c *lifecycle.Controller) {
			c.Doubt(lifecycle.Doubt{RequestID: r.RequestID, At: r.At, Task: r.Task.Name, Input: r.Input, Guess: r.Guess, Reason: r.Reason})
		})
	}
	o.OnDecision = func(d gateway.Decision) {
		s.tell(func(c *lifecycle.Controller) {
			c.See(lifecycle.Glance{RequestID: d.RequestID, At: d.At, Task: d.Task.Name, Specialist: d.Specialist, Input: d.Input,
				Predicted: d.Predicted, Version: d.Version, Answered: d.Answered})
		})
	}
	o.OnTraffic = func(t gateway.Traffic) {
		s.tell(func(c *lifecycle.Controller) { c.Overhear(overheard(t, barred(t.Provider))) })
	}
	o.OnFeedback = s.feedback
}

func overheard(t gateway.Traffic, barred bool) lifecycle.Traffic {
	o := lifecycle.Traffic{RequestID: t.RequestID, At: t.At, Asked: t.Asked, Schema: t.Schema, Content: t.Content, Cost: t.Cost, Priced: t.Priced, Barred: barred, Plain: t.Plain}
	var said []string
	for _, m := range t.Messages {
		switch m.Role {
		case "system", "developer":
			o.System = m.Text
		case "user":
			said = append(said, m.Text)
		}
		o.Plain = o.Plain && !m.Opaque && m.Role != "tool"
	}
	o.User = strings.Join(said, "\n") // as a task's input is read
	return o
}

// tell passes something on to the lifecycle, once it runs.
func (s *server) tell(f func(*lifecycle.Controller)) {
	if c := s.control.Load(); c != nil {
		f(c)
	}
}

func (s *server) feedback(ctx context.Context, f gateway.Feedback) error {
	c := s.control.Load()
	if c == nil {
		return errors.New("the lifecycle does not run yet")
	}
	err := c.Feedback(ctx, f.RequestID, f.KeyID, f.Labels)
	switch {
	case errors.Is(err, lifecycle.ErrUnknownRequest):
		return &openai.Error{Status: 404, Type: "invalid_request_error", Code: "unknown_request", Param: "request_id", Message: "Not recorded: " + err.Error() + "."}
	case errors.Is(err, lifecycle.ErrBadLabels):
		return &openai.Error{Status: 422, Type: "invalid_request_error", Code: "bad_labels", Param: "labels", Message: "Not recorded: " + err.Error() + "."}
	}
	return err
}

// controlName is the socket in the data folder through which other commands reach the running server. Whoever may write to
// the folder may give it commands, and nobody else.
const controlName = "control.sock"

// An order is a command of a person to a task.
type order struct {
	Task    string            `json:"task"`
	Command lifecycle.Command `json:"command"`
	Model   string            `json:"model,omitempty"`
	By      string            `json:"by"`
	Version int64             `json:"version"`
}

// listenControl opens the socket, before the server says that it is ready: a command that comes at once finds it. A server without
// one works, but must be stopped to be commanded; then it is nil.
func (s *server) listenControl(dataDir string) net.Listener {
	path := filepath.Join(dataDir, controlName)
	_ = os.Remove(path) // of a process that died: the store's lock says that no other server runs
	listener, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		s.log.Warn("no control socket: `occam tasks`, `occam models`, `occam keys` and `occam reload` can change nothing while this server runs", "path", path, "error", err)
		return nil
	}
	return listener
}

// serveControl answers commands on the socket until ctx ends.
func (s *server) serveControl(ctx context.Context, a *app, listener net.Listener) {
	if listener == nil {
		return
	}
	web := &http.Server{Handler: s.controlRoutes(a), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = web.Close() // nothing is lost: what a command did is in the store
	}()
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("the control socket ended", "error", err)
	}
}

func (s *server) controlRoutes(a *app) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/", s.site.Trusted())
	mux.HandleFunc("GET /tasks", func(w http.ResponseWriter, r *http.Request) { reply(w, s.control.Load().Status(), nil) })
	mux.HandleFunc("GET /groups", func(w http.ResponseWriter, r *http.Request) {
		groups, err := s.control.Load().Discover(r.Context())
		reply(w, groups, err)
	})
	mux.HandleFunc("POST /groups", func(w http.ResponseWriter, r *http.Request) {
		var m lifecycle.Making
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&m); err != nil {
			reply(w, nil, err)
			return
		}
		status, err := s.control.Load().MakeTask(r.Context(), m)
		reply(w, status, err)
	})
	mux.HandleFunc("POST /cancel-training", func(w http.ResponseWriter, r *http.Request) {
		job, err := s.control.Load().CancelTraining(r.Context(), r.URL.Query().Get("task"))
		reply(w, stopped{job}, err)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		n, err := s.control.Load().RevokeLabels(r.Context(), r.URL.Query().Get("key"))
		reply(w, revoked{n}, err)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		done, err := s.reload(r.Context(), a)
		reply(w, done, err)
	})
	mux.HandleFunc("POST /self-test", func(w http.ResponseWriter, r *http.Request) { reply(w, s.selfTest(r.Context(), a.now), nil) })
	mux.HandleFunc("POST /forget", s.controlForget)
	mux.HandleFunc("POST /redact", s.controlRedact)
	mux.HandleFunc("POST /do", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil {
			reply(w, nil, err)
			return
		}
		status, err := s.control.Load().Do(r.Context(), o.Task, o.Command, o.Model, o.By, o.Version)
		reply(w, status, err)
	})
	return mux
}

// revoked is how many labels were taken back.
type revoked struct {
	Labels int64 `json:"labels"`
}

// stopped names a job that was told to end.
type stopped struct {
	Job string `json:"job"`
}

// controlError is how a refusal crosses the socket.
type controlError struct {
	Message string `json:"error"`
}

func reply(w http.ResponseWriter, document any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		document = controlError{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(document) // a command that went away has no use for it
}

// A remote is the running server, or the store itself where none runs.
type remote struct {
	client *http.Client // nil: no server runs
	local  *lifecycle.Controller
	store  *store.Store
	config *config.Config
}

// reach finds the server that runs on the configured data, or opens the data itself.
func (a *app) reach(ctx context.Context, path string) (*remote, error) {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	r := &remote{config: cfg, client: running(ctx, cfg.DataDir)}
	if r.client != nil {
		r.store, err = store.Open(ctx, storeDSN(cfg), store.Options{Mode: store.ReadOnly, Dir: cfg.DataDir, Log: log})
		return r, err
	}
	if r.store, err = openStore(ctx, cfg, log); err != nil {
		return nil, err
	}
	if err := r.openLocal(ctx, a, cfg, log); err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	return r, nil
}

// running is a client of the server that runs on a data folder, nil where none does.
func running(ctx context.Context, dataDir string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dataDir, controlName))
	}
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil
	}
	_ = conn.Close()
	return &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: time.Minute}
}

func (r *remote) openLocal(ctx context.Context, a *app, cfg *config.Config, log *slog.Logger) error {
	tasks, err := cfg.TaskList()
	if err != nil {
		return err
	}
	setups := make([]lifecycle.Setup, len(tasks))
	for i, t := range tasks {
		setups[i] = lifecycle.Setup{Task: t}
	}
	r.local, err = lifecycle.Open(ctx, lifecycle.Options{Store: r.store, Tasks: setups, Capture: cfg.Capture.Prompts, Log: log, Now: a.now,
		Publish: func([]lifecycle.Deployment) error { return nil }})
	return err
}

func (r *remote) close() {
	if r.local != nil {
		r.local.Close()
	}
	_ = r.store.Close() // whatever was decided is committed
}

// tasks returns where every task stands.
func (r *remote) tasks(ctx context.Context) ([]lifecycle.Status, error) {
	if r.client == nil {
		return r.local.Status(), nil
	}
	var all []lifecycle.Status
	return all, r.call(ctx, http.MethodGet, "/tasks", nil, &all)
}

// do gives a command for the state that the task is in now, which is what its giver was shown.
func (r *remote) do(ctx context.Context, o order) (lifecycle.Status, error) {
	if r.client == nil {
		return r.local.Do(ctx, o.Task, o.Command, o.Model, o.By, o.Version)
	}
	var status lifecycle.Status
	return status, r.call(ctx, http.MethodPost, "/do", o, &status)
}

// groups returns the jobs that were found in traffic that belongs to no task.
func (r *remote) groups(ctx context.Context) (groups []lifecycle.Group, err error) {
	if r.client == nil {
		return r.local.Discover(ctx)
	}
	return groups, r.call(ctx, http.MethodGet, "/groups", nil, &groups)
}

func (r *remote) makeTask(ctx context.Context, m lifecycle.Making) (st lifecycle.Status, err error) {
	if r.client == nil {
		return r.local.MakeTask(ctx, m)
	}
	return st, r.call(ctx, http.MethodPost, "/groups", m, &st)
}

func (r *remote) cancelTraining(ctx context.Context, taskName string) (job stopped, err error) {
	if r.client == nil {
		job.Job, err = r.local.CancelTraining(ctx, taskName)
		return job, err
	}
	return job, r.call(ctx, http.MethodPost, "/cancel-training?task="+url.QueryEscape(taskName), nil, &job)
}

// revoke takes back every label that a key gave.
func (r *remote) revoke(ctx context.Context, key string) (n revoked, err error) {
	if r.client == nil {
		n.Labels, err = r.local.RevokeLabels(ctx, key)
		return n, err
	}
	return n, r.call(ctx, http.MethodPost, "/revoke?key="+url.QueryEscape(key), nil, &n)
}

func (r *remote) call(ctx context.Context, method, path string, in, out any) error {
	return command(ctx, r.client, method, path, in, out)
}

// command gives the running server one command over its socket.
func command(ctx context.Context, client *http.Client, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://occam"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	status, data, err := askServer(client, request)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var refusal controlError
		if err := json.Unmarshal(data, &refusal); err != nil || refusal.Message == "" {
			return fmt.Errorf("the running server answered with status %d", status)
		}
		return errors.New(refusal.Message)
	}
	return json.Unmarshal(data, out)
}

// operator is who gives commands: the account that runs the program.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "somebody"
}

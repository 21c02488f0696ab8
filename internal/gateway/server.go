// Package gateway is the data plane: one request in, one answer out, and every call that may cost money in the ledger before
// it is made and settled before its reply ends. It reads one immutable Snapshot and takes no locks.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// A Ledger is where attempts are recorded. See store.Store for what each method promises.
type Ledger interface {
	IntendWithin(context.Context, store.Attempt, ...store.Budget) error
	Finish(context.Context, store.Attempt) error
	RecordFree(context.Context, store.Attempt) error
}

// Options of a Server. Ledger is required.
type Options struct {
	Ledger Ledger
	Log    *slog.Logger     // default discards
	Now    func() time.Time // default time.Now
	Rand   func() float64   // uniform in [0,1), draws audits; default math/rand/v2

	// OnExample is told of every answer that the generalist gave to a task's request, for learning. It must not block.
	OnExample func(Example)
	// OnComparison is told of every prediction of a tier that could be compared with the generalist's answer: audits of
	// what the tier answered, and what it only watched. It must not block.
	OnComparison func(Comparison)
	// OnReview is told of every request of a task that no tier could answer and that a person should see. It must not block.
	OnReview func(Review)
	// OnDecision is told of every prediction of a tier, answered with or not. It must not block, nor keep Decision.Predicted.
	OnDecision func(Decision)
	// OnTraffic is told of every chat answer to a request that belongs to no task. It must not block.
	OnTraffic func(Traffic)
	// OnFeedback is told what people say the right answer to a request was. Its error, an *openai.Error where the caller is to
	// blame, is what the caller gets. nil: there is no /v1/feedback.
	OnFeedback func(context.Context, Feedback) error
	// Telemetry sends spans and metrics; nil: none.
	Telemetry *Telemetry
	// Offline serves /v1/files and /v1/batches, for a key that was checked (nil: the API asks for none). nil: there are none.
	Offline func(w http.ResponseWriter, r *http.Request, key *store.Key)
	// Memory is how many bytes the process may take; 0: nobody knows. When nine tenths are taken, requests get 503.
	Memory int64
	// Other serves every path that is not the gateway's own: the dashboard. Default: 404.
	Other http.Handler
}

// An Example is a task's input with what the generalist answered.
type Example struct {
	RequestID  string
	At         time.Time
	Task       *task.Task
	Input      string
	Values     []task.Value // one per field
	Model      string       // the generalist's name as the upstream gave it
	Provider   string       // that answered, as the configuration names it
	PromptHash string       // of everything that the generalist was told beside the input
	Outside    bool         // the task's schema does not hold the answer; Values is nil
	Unplain    bool         // the request asks for more than a tier can give, so none is ever asked
	Simulated  bool
}

// A Comparison is a tier's prediction beside the generalist's answer to the same request.
type Comparison struct {
	RequestID  string
	At         time.Time
	Task       *task.Task
	Tier       string
	Specialist string // hash of the weights that predicted
	Input      string
	Predicted  task.Prediction // its own copy
	Answered   bool            // the tier's prediction was the app's answer: this is an audit
	Accepted   bool            // the tier's certificate accepted the prediction, whether or not it answered
	Share      float64         // of Answered: the probability with which it was drawn
	Rare       bool            // the prediction belongs to the tier's stratum of rare classes
	Extra      bool            // of Answered: drawn for that stratum alone, so no part of the uniform sample
	Missing    bool            // the generalist gave no valid answer; Values is nil
	Outside    bool            // of Missing: it gave an answer, which the task's schema does not hold
	Values     []task.Value    // the generalist's answer, one per field
	Agreed     bool            // every field equal
	Model      string          // the generalist's name as the upstream gave it; "" when Missing
	Provider   string          // that answered
	PromptHash string          // of everything that the generalist was told beside the input
	Simulated  bool
}

// A Decision is what became of one prediction of a tier.
type Decision struct {
	RequestID  string
	At         time.Time
	Task       *task.Task
	Tier       string
	Specialist string // hash of the weights that predicted
	Input      string
	Predicted  *task.Prediction // valid until the callback returns
	Version    string           // of a model at an upstream: as its answer named it
	Answered   bool
	Reason     cascade.Reason
}

// Traffic is a request that belongs to no task, with its answer.
type Traffic struct {
	RequestID string
	At        time.Time
	Asked     string // model that the app asked for
	Model     string // that answered, as the upstream named it
	Provider  string
	Plain     bool // the request asks for nothing but one text
	Messages  []task.Message
	Schema    []byte // of the answer, nil if the request has none
	Content   string // of the answer
	Usage     cost.Usage
	Cost      cost.Amount
	Priced    bool
	Simulated bool
}

// Feedback is a person's correction of the answer to one request.
type Feedback struct {
	RequestID string
	KeyID     string // of the virtual key that sent it, "" where the API asks for none
	Labels    task.Output
}

// A Review is a request that a person should answer.
type Review struct {
	RequestID string
	At        time.Time
	Task      *task.Task
	Input     string
	Guess     []task.Value // of the last tier that predicted, nil if none did
	Reason    string
}

// A Server is the data plane. Make one with New, give it a Snapshot with Publish, mount it as an http.Handler.
type Server struct {
	opts     Options
	snapshot atomic.Pointer[Snapshot]
	handler  http.Handler
	inFlight atomic.Int64
	held     atomic.Int64 // bytes of the bodies of requests in flight
	room     room
	draining atomic.Bool
	metrics  *metrics
	audits   chan func()
	listed   atomic.Pointer[modelList]
	ends     atomic.Pointer[endings]
	patient  atomic.Pointer[patient]
	ratios   sync.Map // task name → *ratio
	accounts sync.Map // key ID → *account
	poisons  quarantine
	wg       sync.WaitGroup

	headerPatience time.Duration // how long a request's header may take to arrive

	stop context.CancelFunc
	life context.Context
}

const (
	auditWorkers = 4
	auditQueue   = 256 // audits beyond it are reported as missing: they never hold up a request
)

// New returns a server that is not ready until a Snapshot is published.
func New(o Options) (*Server, error) {
	if o.Ledger == nil {
		return nil, errors.New("gateway: a Server needs a Ledger: nothing may be sent that is not recorded")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	s := &Server{opts: o, audits: make(chan func(), auditQueue), headerPatience: defaultHeaderPatience}
	s.room.size = o.Memory
	s.life, s.stop = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	s.handler = s.routes()
	for range auditWorkers {
		s.wg.Go(s.runAudits)
	}
	return s, nil
}

// Publish makes a snapshot the one that new requests use. A snapshot that is not sound is refused and the old one stays.
func (s *Server) Publish(snap *Snapshot) error {
	if err := snap.prepare(); err != nil {
		return err
	}
	s.snapshot.Store(snap)
	return nil
}

// Drain makes /readyz fail, so that a load balancer sends no more requests; requests still get their answers.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends the background audits and waits for them. Requests must have ended before.
func (s *Server) Close() {
	s.stop()
	s.wg.Wait()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// routes is the whole API.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.admit(openai.Chat, s.ask))
	mux.HandleFunc("POST /v1/responses", s.admit(openai.Responses, s.ask))
	mux.HandleFunc("POST /v1/messages", s.admit(openai.Messages, s.ask))
	mux.HandleFunc("POST /v1/embeddings", s.admit(openai.Embeddings, s.ask))
	mux.HandleFunc("POST /v1/decisions", s.admit("", s.decisions))
	mux.HandleFunc("POST /v1/systemone", s.admit("", s.systemOne))
	mux.HandleFunc("GET /v1/models", s.admit("", s.models))
	if s.opts.OnFeedback != nil {
		mux.HandleFunc("POST /v1/feedback", s.admit("", s.feedback))
	}
	if s.opts.Offline != nil {
		for _, path := range []string{"/v1/files", "/v1/files/", "/v1/batches", "/v1/batches/"} {
			mux.HandleFunc(path, s.admit("", func(x *exchange) {
				x.wrote = true
				x.w.Header().Set("X-Occam-Request-Id", x.id)
				s.opts.Offline(x.w, x.r, x.key)
			}))
		}
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, 200, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.metrics.handler())
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, "", &openai.Error{Status: 404, Type: "invalid_request_error", Code: "unknown_url",
			Message: "Unknown request URL: " + r.Method + " " + r.URL.Path + "."})
	})
	if s.opts.Other != nil {
		mux.Handle("/", s.opts.Other)
	}
	return mux
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	switch {
	case s.draining.Load():
		writeText(w, 503, "draining\n")
	case s.snapshot.Load() == nil:
		writeText(w, 503, "starting\n")
	default:
		writeText(w, 200, "ready\n")
	}
}

// admit gives a handler its exchange: a request ID, the snapshot, its key. Its place among those in flight it gets when its body is
// there, so that clients who send theirs byte by byte take no places from others.
func (s *Server) admit(api openai.API, handle func(*exchange)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		snap := s.snapshot.Load()
		now := s.opts.Now()
		x := &exchange{Server: s, api: api, snap: snap, w: w, r: r, id: store.NewID(now), began: now}
		s.opts.Telemetry.begin(x)
		defer s.opts.Telemetry.end(x)
		defer x.recover()
		if snap == nil {
			x.refuse(&openai.Error{Status: 503, Type: "api_error", Code: "starting", Message: "The gateway is starting."})
			return
		}
		if s.inFlight.Load() >= int64(snap.Limits.InFlight) { // before its body is read
			x.refuse(x.overloaded(tooMany))
			return
		}
		if s.room.crowded() {
			x.refuse(x.overloaded(tooFull))
			return
		}
		defer x.leave()
		if refused := x.authenticate(); refused != nil {
			x.refuse(refused)
			return
		}
		handle(x)
	}
}

// Package sim is for tests and the demo: a provider that speaks the OpenAI wire protocol, answers from what the caller
// tells it, makes seeded mistakes, fails on request and keeps a bill of its own, and a seeded stream of requests to send
// it. Nothing in it is a model, and everything it says is marked as simulated.
package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tiktoken-go/tokenizer"

	"occam/internal/cost"
	"occam/internal/task"
)

const (
	bodyBytesMax      = 16 << 20
	chargesMax        = 2_000_000 // the bill stays in memory
	messagesMax       = 4096
	choicesMax        = 128
	completionTokens  = 100_000 // an answer is never longer
	simulatedHeader   = "X-Simulated"
	defaultModel      = "gpt-4o"
	faultModelPrefix  = "sim:" // a model name like "sim:status=503" asks for a fault
	systemFingerprint = "fp_simulated"
)

// Options say what a Provider answers and how. The zero value answers everything with free text, at once, without
// mistakes, at the built-in prices.
type Options struct {
	Seed uint64

	// Oracle knows the right answer to an input: the text of the last user message. It returns nil for an input that it
	// does not know. It is called from many goroutines. Without an oracle every answer is made up.
	Oracle func(input string) task.Output

	// Write says how the oracle's answer is written where the request names no schema: a bare label, say. Such answers are without
	// mistakes. nil: made-up prose.
	Write func(truth task.Output) string

	// MistakeRate is the share of the oracle's answers that are given wrong in one field. Which ones depends on the seed and
	// the input only, so that a repeated request gets the same answer.
	MistakeRate float64

	// Skills are the mistake rates of single models, instead of MistakeRate. A mistake that a worse model makes is not always made by
	// a better one, but every mistake of the better one is made by the worse.
	Skills map[string]Skill

	// Alias is what a model calls itself in its answers; nil: by the name it was asked for.
	Alias func(model string) string

	// Confusable lists what a category is plausibly taken for. Without it, or where it returns nothing, a wrong category is
	// any other one of the schema.
	Confusable func(category string) []string

	Latency Latency
	Prices  map[string]Rates // by model; nil for the built-in ones. A model that is not listed does not exist
	APIKey  string           // required as a bearer token, or in X-Api-Key, unless empty

	// NoBatches makes a provider without files and batches; Batches plans what comes of the n-th request to make a batch, from 0.
	NoBatches bool
	Batches   func(n int) BatchPlan

	// Script chooses the fault of each request that would be billed, in order of arrival. nil for none.
	Script Script
}

// A Skill is how well one model answers.
type Skill struct {
	MistakeRate float64
	// Unsure is the share of its mistakes that its log-probabilities give away.
	Unsure float64
}

func (o *Options) skill(model string) Skill {
	if s, ok := o.Skills[model]; ok {
		return s
	}
	return Skill{MistakeRate: o.MistakeRate}
}

func (o *Options) alias(model string) string {
	if o.Alias == nil {
		return model
	}
	return o.Alias(model)
}

// A Provider is an http.Handler. Its methods may be called while it serves.
type Provider struct {
	options Options
	counter tokenCounter
	bill    bill
	mux     *http.ServeMux
	served  atomic.Int64
	prefix  prefixCache
	repeats repeatCounter
	batches batches
	quit    chan struct{} // closed by Close: ends hanging requests
	close   sync.Once
}

var _ http.Handler = (*Provider)(nil)

// New returns a provider.
func New(o Options) (*Provider, error) {
	if o.MistakeRate < 0 || o.MistakeRate > 1 {
		return nil, fmt.Errorf("sim: mistake rate %v is no share between 0 and 1", o.MistakeRate)
	}
	if o.Prices == nil {
		o.Prices = defaultPrices()
	}
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		return nil, fmt.Errorf("sim: loading the o200k vocabulary: %w", err)
	}
	p := &Provider{options: o, mux: http.NewServeMux(), quit: make(chan struct{})}
	p.counter.codec = codec
	p.routes()
	return p, nil
}

func (p *Provider) routes() {
	p.mux.HandleFunc("POST /v1/chat/completions", p.billed(&chatDialect, p.answer))
	p.mux.HandleFunc("POST /v1/responses", p.billed(&responsesDialect, p.answer))
	p.mux.HandleFunc("POST /v1/messages", p.billed(&messagesDialect, p.answer))
	p.mux.HandleFunc("POST /v1/embeddings", p.billed(&chatDialect, p.embeddings))
	p.batchRoutes()
	p.mux.HandleFunc("GET /v1/models", p.models)
	p.mux.HandleFunc("GET /v1/models/{model}", p.model)
	p.mux.HandleFunc("GET /bill", p.serveBill)
	p.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "simulated provider: up") })
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &apiError{status: http.StatusNotFound, kind: "invalid_request_error",
			message: fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path)})
	})
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(simulatedHeader, "true")
	p.mux.ServeHTTP(w, r)
}

// Close ends every request that hangs on a fault. The provider answers no request that hangs after that.
func (p *Provider) Close() { p.close.Do(func() { close(p.quit) }) }

// Served returns how many requests to billed routes have arrived.
func (p *Provider) Served() int64 { return p.served.Load() }

// A handler answers one request to a billed route.
type handler func(ctx context.Context, w http.ResponseWriter, call *call) *apiError

// A call is one request on its way through a handler.
type call struct {
	id      string // request ID, as in the X-Request-Id header
	body    []byte
	request *http.Request
	dialect *dialect
	fault   Fault
	seed    uint64 // of this request's answer: the same body gets the same
	number  int64  // of arrival
	start   time.Time
}

// billed wraps a route that costs money: key, body, request ID, fault.
func (p *Provider) billed(d *dialect, next handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		number := p.served.Add(1) - 1
		call := &call{id: fmt.Sprintf("req_sim_%08x_%06d", uint32(p.options.Seed), number), request: r, dialect: d, number: number,
			start: time.Now()}
		w.Header().Set("X-Request-Id", call.id)
		err := p.accept(w, call)
		if err == nil && call.fault.early() {
			err = p.failEarly(w, call)
			if err == nil {
				return // the fault has answered in its own way
			}
		}
		if err == nil {
			err = next(r.Context(), w, call)
		}
		if err != nil {
			writeJSON(w, err.status, d.failure(err))
		}
	}
}

// accept reads and checks what every billed request has.
func (p *Provider) accept(w http.ResponseWriter, call *call) *apiError {
	h := call.request.Header
	if key := p.options.APIKey; key != "" && h.Get("Authorization") != "Bearer "+key && h.Get("X-Api-Key") != key {
		return &apiError{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key",
			message: "Incorrect API key provided."}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, call.request.Body, bodyBytesMax))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return &apiError{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", message: "The request body is too large."}
		}
		return badRequest("", "The request body could not be read.")
	}
	var head struct {
		Model string `json:"model"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return badRequest("", "We could not parse the JSON body of your request.")
	}
	call.body, call.seed = body, hash(p.options.Seed, body)
	if text, ok := strings.CutPrefix(head.Model, faultModelPrefix); ok {
		if call.fault, err = ParseFault(text); err != nil {
			return badRequest("model", err.Error())
		}
	} else if p.options.Script != nil {
		call.fault = p.options.Script(int(call.number))
	}
	if !p.repeats.due(call.fault, call.seed) {
		call.fault = Fault{}
	}
	if p.bill.full() {
		return &apiError{status: http.StatusServiceUnavailable, kind: "server_error", message: "The simulated bill is full."}
	}
	return nil
}

// rates returns the prices of a model; a model that asks for a fault costs what the default one does.
func (p *Provider) rates(model string) (Rates, *apiError) {
	if strings.HasPrefix(model, faultModelPrefix) {
		model = defaultModel
	}
	rates, ok := p.options.Prices[model]
	if !ok {
		return Rates{}, &apiError{status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found", param: "model",
			message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", model)}
	}
	return rates, nil
}

// Bill returns a copy of every charge so far, in order of arrival. The charge of a stream that still runs grows.
func (p *Provider) Bill() []Charge { return p.bill.list(0) }

// Total returns the sum of the bill.
func (p *Provider) Total() cost.Amount { return p.bill.total() }

// A Server is a provider that listens on loopback.
type Server struct {
	URL      string // base address, without /v1
	provider *Provider
	server   *http.Server
	done     chan struct{}
}

// Listen serves the provider on a free port of the loopback interface until Close.
func (p *Provider) Listen() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sim: listening on loopback: %w", err)
	}
	s := &Server{URL: "http://" + listener.Addr().String(), provider: p, done: make(chan struct{}),
		server: &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // always ends with ErrServerClosed, after Close
	}()
	return s, nil
}

// Close cuts every connection and stops listening. The bill stays readable.
func (s *Server) Close() {
	s.provider.Close()
	_ = s.server.Close()
	<-s.done
}

// An apiError is an answer in the error shape of the OpenAI API.
type apiError struct {
	status  int
	kind    string
	code    string
	param   string
	message string
}

func badRequest(param, message string) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", param: param, message: message}
}

func (e *apiError) body() []byte {
	orNull := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return encode(object{{"error", object{{"message", e.message}, {"type", e.kind}, {"param", orNull(e.param)}, {"code", orNull(e.code)}}}})
}

func writeError(w http.ResponseWriter, e *apiError) {
	writeJSON(w, e.status, e.body())
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

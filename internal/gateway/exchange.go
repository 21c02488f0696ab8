package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/openai"
	"occam/internal/store"
)

// An exchange is one request of an app on its way to one answer.
type exchange struct {
	*Server
	api   openai.API // "" for what asks no model
	snap  *Snapshot
	w     http.ResponseWriter
	r     *http.Request
	id    string
	began time.Time
	wrote bool // the answer's first byte is out: nothing may be escalated or refused any more

	stands time.Time // until then the deadline of what is written stands

	batch  bool            // a line of a batch: at batch prices, its rows are written with those of other lines
	status int             // of the answer
	trace  context.Context // of the request's span, when there is tracing
	span   trace.Span

	key     *store.Key // nil: the API asks for none
	account *account

	received  []byte // the body as it came
	holds     int64  // bytes of memory that its body takes
	inside    bool   // it has a place among those in flight
	request   *openai.Request
	path      string // at the upstream, where it is not that of the request's API
	task      *Task  // nil: pass through
	input     string
	readable  bool // the input could be read from the messages
	inputHash uint64
	attempts  int   // rows begun so far
	paying    *paid // the call that is out, or was last
	spent     cost.Amount
	unpriced  bool // some attempt has no price
	watched   []watched
	named     string           // what the tier at an upstream that was asked last calls itself
	reason    cascade.Reason   // why the last tier did not answer
	way       []cascade.Passed // tiers that were asked and did not answer
}

// refuse ends the request with an error.
func (x *exchange) refuse(e *openai.Error) {
	if x.wrote {
		return
	}
	x.wrote, x.status = true, e.Status
	if x.received == nil { // the server reads the rest of a body before it answers: not for long
		_ = x.control().SetReadDeadline(time.Now().Add(refusePatience))
	}
	x.metrics.shed.WithLabelValues(e.Code).Inc()
	x.w.Header().Set("X-Occam-Request-Id", x.id)
	writeError(x.w, x.api, e)
}

// control is what the app's connection can do besides taking bytes.
func (x *exchange) control() *http.ResponseController { return http.NewResponseController(x.w) }

// done counts the answer that a request got.
func (x *exchange) done(a *store.Attempt) {
	x.status = a.Status
	x.metrics.answered(a, a.Status, x.opts.Now().Sub(x.began))
}

var errCrashed = errors.New("the gateway crashed while it read the reply")

// recover turns a panic into a 500, and the loss of one connection where the answer had begun.
func (x *exchange) recover() {
	r := recover()
	if r == nil {
		return
	}
	if err, ok := r.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(r)
	}
	x.crashed(r)
	if x.wrote {
		panic(http.ErrAbortHandler)
	}
	x.refuse(internalError(x.id))
}

// internalError is the answer to a request that crashed.
func internalError(id string) *openai.Error {
	return &openai.Error{Status: 500, Type: "api_error", Code: "internal_error", Message: "The gateway failed on this request. It is logged under request " + id + "."}
}

// crashed logs a panic and closes the row of the call that was out.
func (x *exchange) crashed(r any) {
	quarantined := x.received != nil && x.poisons.crashed("", bodyHash(x.received))
	x.opts.Log.Error("a request crashed", "request", x.id, "panic", r, "stack", string(debug.Stack()), "quarantined", quarantined)
	if x.paying != nil && !x.paying.closed {
		x.paying.lost(errCrashed)
	}
}

// body reads the request's body, within the limit.
func (x *exchange) body() ([]byte, *openai.Error) {
	limit := x.snap.Limits.BodyBytes
	tooLarge := &openai.Error{Status: 413, Type: "invalid_request_error", Code: "body_too_large",
		Message: "The body is larger than the limit of " + strconv.FormatInt(limit, 10) + " bytes."}
	if x.r.ContentLength > limit {
		x.w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	if encoding := x.r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, &openai.Error{Status: 415, Type: "invalid_request_error", Code: "unsupported_encoding",
			Message: "Send the body without Content-Encoding."}
	}
	control := x.control()
	_ = control.SetReadDeadline(time.Now().Add(x.snap.Limits.Body)) // not every connection has one
	body, err := x.receive(http.MaxBytesReader(x.w, x.r.Body, limit), x.r.ContentLength, limit)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, errHeld):
		x.w.Header().Set("Connection", "close")
		return nil, x.overloaded("The bodies of the requests in flight are as large as the gateway's limit allows. Try again in a second.")
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.w.Header().Set("Connection", "close")
		return nil, &openai.Error{Status: 408, Type: "invalid_request_error", Code: "body_too_slow", Message: "The body did not arrive in time."}
	case err != nil:
		return nil, openai.BadRequest("", "The body could not be read to its end.")
	}
	_ = control.SetReadDeadline(time.Time{}) // from here on the connection is only watched for its end
	x.received = body
	return body, x.enter()
}

var errHeld = errors.New("too many bytes in flight")

// receive reads a body of the given length, -1 if it is not said, and counts its memory among that of the bodies in flight while it
// grows: a length that is only claimed takes no memory, and no room from others.
func (x *exchange) receive(from io.Reader, length, limit int64) ([]byte, error) {
	most := limit
	if length >= 0 {
		most = length
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			size := min(max(2*int64(cap(body)), min(most, 16<<10)), most) + 1 // one more, to see the end
			if x.Server.held.Add(size-x.holds) > x.room.share(x.snap.Limits.HeldBytes) {
				x.holds = size
				return nil, errHeld
			}
			x.holds = size
			body = append(make([]byte, 0, size), body...)
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

const (
	refusePatience = time.Second
	tooMany        = "The gateway has as many requests in flight as its limit allows. Try again in a second."
	tooFull        = "The gateway's memory is nearly full. Try again in a second."
)

// enter takes a place among the requests in flight.
func (x *exchange) enter() *openai.Error {
	x.inside = x.inFlight.Add(1) <= int64(x.snap.Limits.InFlight)
	if x.inside {
		return nil
	}
	x.inFlight.Add(-1)
	return x.overloaded(tooMany)
}

// hold counts n more bytes of memory as the request's, without asking whether they fit: nobody who has paid for a reply is refused it,
// but others wait.
func (x *exchange) hold(n int64) {
	x.Server.held.Add(n)
	x.holds += n
}

// leave gives back what a request has taken.
func (x *exchange) leave() {
	if x.inside {
		x.inFlight.Add(-1)
	}
	x.Server.held.Add(-x.holds)
}

func (x *exchange) overloaded(why string) *openai.Error {
	x.w.Header().Set("Retry-After", "1")
	return &openai.Error{Status: 503, Type: "overloaded_error", Code: "overloaded", Message: why}
}

// attempt begins a row of the ledger for this request.
func (x *exchange) attempt() store.Attempt {
	now := x.opts.Now()
	a := store.Attempt{RequestID: x.id, Seq: x.attempts, At: now, InputHash: x.inputHash}
	if x.batch {
		a.ID = store.LineID(x.id, x.attempts)
	} else {
		a.ID = store.NewID(now)
	}
	if x.key != nil {
		a.KeyID = x.key.ID
	}
	if x.task != nil {
		a.Task = x.task.Name
	}
	x.attempts++
	return a
}

// headers sets what every answer carries.
func (x *exchange) headers(a *store.Attempt) {
	h := x.w.Header()
	v := [...]string{x.id, orNone(a.Task), a.Model, a.Reason, confidence(a)}
	h["X-Occam-Request-Id"] = v[0:1:1]
	h["X-Occam-Task"] = v[1:2:2]
	h["X-Occam-Model"] = v[2:3:3]
	h["X-Occam-Reason"] = v[3:4:4]
	h["X-Occam-Confidence"] = v[4:5:5]
	if a.Simulated {
		h["X-Occam-Simulated"] = []string{"true"}
	}
}

func confidence(a *store.Attempt) string {
	if a.Confidence == 0 {
		return "none"
	}
	return strconv.FormatFloat(a.Confidence, 'f', 4, 64)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// cost is what the request's attempts cost so far, in dollars, exactly; or that it is not known.
func (x *exchange) cost() string {
	if x.unpriced {
		return "unpriced"
	}
	return x.spent.String()[len("$"):]
}

// patience is a context for what must be recorded whether or not the app is still there. It ends ledgerPatience from now, or up to
// a second later: requests share it, so that not each has a timer of its own.
func (s *Server) patience() context.Context {
	now := time.Now()
	p := s.patient.Load()
	if p != nil && now.Before(p.renew) {
		return p.Context
	}
	ctx, cancel := context.WithTimeout(context.Background(), ledgerPatience+time.Second)
	context.AfterFunc(ctx, cancel)
	s.patient.Store(&patient{ctx, now.Add(time.Second)})
	return ctx
}

// A patient context is shared until it is time to renew it.
type patient struct {
	context.Context
	renew time.Time
}

func writeError(w http.ResponseWriter, api openai.API, e *openai.Error) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.Append(nil, api))
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

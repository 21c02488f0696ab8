package sim

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A FaultKind names one way in which a provider fails. The zero value is none.
type FaultKind string

// Failures before an answer is begun: nothing is billed.
const (
	Status             FaultKind = "status"               // an HTTP status of 400 or more, by Fault.Status
	Hang               FaultKind = "hang"                 // no answer for Fault.Delay, or until the caller or the provider gives up
	ResetBeforeHeaders FaultKind = "reset-before-headers" // the connection is reset
)

// Failures of an answer that is billed.
const (
	ResetAfterHeaders FaultKind = "reset-after-headers"
	ResetMidBody      FaultKind = "reset-mid-body" // after Fault.After events of a stream, or half of a whole reply
	Stall             FaultKind = "stall"          // silence after Fault.After events, for Fault.Delay or for good
	Trickle           FaultKind = "trickle"        // one byte every Fault.Delay
	EndEarly          FaultKind = "end-early"      // the body ends cleanly, but too soon
	SlowAnswer        FaultKind = "slow"           // everything is right, Fault.Delay late
)

// Replies that are not what they should be. They are billed as if they were.
const (
	EmptyBody      FaultKind = "empty-body"
	CutJSON        FaultKind = "cut-json"
	GarbageJSON    FaultKind = "garbage-json"
	TwoJSON        FaultKind = "two-json" // two documents in one body
	ArrayJSON      FaultKind = "array-json"
	NullJSON       FaultKind = "null-json"
	DeepJSON       FaultKind = "deep-json" // 100,000 brackets
	HTMLBody       FaultKind = "html-body" // a proxy's page, with status 200
	WrongType      FaultKind = "wrong-content-type"
	NotUTF8        FaultKind = "not-utf8"
	NoChoices      FaultKind = "no-choices"
	EmptyChoices   FaultKind = "empty-choices"
	NullContent    FaultKind = "null-content"
	NumberContent  FaultKind = "number-content"
	WrongSchema    FaultKind = "wrong-schema" // valid JSON, but not in the schema's shape
	ProseForJSON   FaultKind = "prose-for-json"
	ErrorWith200   FaultKind = "error-with-200"
	UsageMissing   FaultKind = "usage-missing"
	UsageNull      FaultKind = "usage-null"
	UsageNegative  FaultKind = "usage-negative"
	UsageHuge      FaultKind = "usage-huge" // beyond 64 bits
	UsageString    FaultKind = "usage-string"
	UsageFraction  FaultKind = "usage-fraction"
	UsageParts     FaultKind = "usage-parts"      // more cached tokens than tokens
	UsagePartial   FaultKind = "usage-partial"    // prompt tokens only
	UsageInContent FaultKind = "usage-in-content" // streams: usage already stands in the last content chunk, and comes again
	UsageTwice     FaultKind = "usage-twice"      // streams: two usage chunks
	NoDone         FaultKind = "no-done"          // streams: no [DONE]
	DataAfterDone  FaultKind = "data-after-done"
	ErrorEvent     FaultKind = "error-event" // streams: an error object instead of [DONE]
	CutLine        FaultKind = "cut-line"    // streams: the body ends inside a line
	LongLine       FaultKind = "long-line"   // streams: an event of 10 MB
	GarbageEvent   FaultKind = "garbage-event"
)

// Streams that are legal, but not in the usual way: a reader must take them.
const (
	CRLF             FaultKind = "crlf"
	Comments         FaultKind = "comments"
	UnknownEvent     FaultKind = "unknown-event"
	DataWithoutSpace FaultKind = "data-without-space"
	ManyDataLines    FaultKind = "many-data-lines"
)

const (
	longLineBytes = 10 << 20
	nestingDepth  = 100_000
)

// A Fault is what goes wrong with one request.
type Fault struct {
	Kind       FaultKind
	Status     int           // of Status
	RetryAfter string        // Retry-After header of Status, "" for none
	After      int           // events of a stream before the fault
	Delay      time.Duration // of Hang, Stall, Trickle and SlowAnswer
	First      int           // only the first so many times that the same body arrives; 0: always
}

// String writes the fault as ParseFault reads it.
func (f Fault) String() string {
	if f.Kind == "" {
		return ""
	}
	text := string(f.Kind)
	if f.Status != 0 {
		text += "=" + strconv.Itoa(f.Status)
	}
	if f.RetryAfter != "" {
		text += ",retry-after=" + f.RetryAfter
	}
	if f.After != 0 {
		text += ",after=" + strconv.Itoa(f.After)
	}
	if f.First != 0 {
		text += ",first=" + strconv.Itoa(f.First)
	}
	if f.Delay != 0 {
		text += ",delay=" + f.Delay.String()
	}
	return text
}

// ParseFault reads "kind", "status=503", "status=429,retry-after=1", "stall,after=5,delay=2s",
// "status=503,first=2". A request can ask for a fault
// with the model name "sim:" and such a text.
func ParseFault(text string) (Fault, error) {
	head, rest, _ := strings.Cut(text, ",")
	kind, status, _ := strings.Cut(head, "=")
	f := Fault{Kind: FaultKind(kind)}
	if !slices.Contains(FaultKinds(), f.Kind) {
		return Fault{}, fmt.Errorf("sim: no fault %q; there are %v", kind, FaultKinds())
	}
	if f.Kind == Status {
		var err error
		if f.Status, err = strconv.Atoi(status); err != nil || f.Status < 400 || f.Status > 599 {
			return Fault{}, fmt.Errorf("sim: fault %q: want a status from 400 to 599", text)
		}
	}
	for rest != "" {
		var pair string
		pair, rest, _ = strings.Cut(rest, ",")
		if err := f.set(pair); err != nil {
			return Fault{}, err
		}
	}
	return f, nil
}

func (f *Fault) set(pair string) (err error) {
	key, value, _ := strings.Cut(pair, "=")
	switch key {
	case "retry-after":
		f.RetryAfter = value
	case "after":
		f.After, err = strconv.Atoi(value)
	case "first":
		f.First, err = strconv.Atoi(value)
	case "delay":
		f.Delay, err = time.ParseDuration(value)
	default:
		err = fmt.Errorf("unknown key %q", key)
	}
	if err != nil {
		return fmt.Errorf("sim: fault option %q: %w", pair, err)
	}
	return nil
}

// FaultKinds returns every kind of fault.
func FaultKinds() []FaultKind {
	all := []FaultKind{Status, Hang, ResetBeforeHeaders, ResetAfterHeaders, ResetMidBody, Stall, Trickle, EndEarly, SlowAnswer}
	return slices.Concat(all, MalformedReplies(), MalformedStreams(), UnusualStreams())
}

// MalformedReplies returns the kinds that spoil a reply that is not streamed.
func MalformedReplies() []FaultKind {
	return append(slices.Sorted(maps.Keys(spoilers)), UsageMissing, UsageNull, UsageNegative, UsageHuge, UsageString, UsageFraction, UsageParts,
		UsagePartial)
}

// MalformedStreams returns the kinds that spoil a stream, beside those of usage.
func MalformedStreams() []FaultKind {
	return []FaultKind{UsageInContent, UsageTwice, NoDone, DataAfterDone, ErrorEvent, CutLine, LongLine, GarbageEvent}
}

// UnusualStreams returns the kinds that leave a stream legal.
func UnusualStreams() []FaultKind {
	return []FaultKind{CRLF, Comments, UnknownEvent, DataWithoutSpace, ManyDataLines}
}

// A Script says what goes wrong with the n-th request, counted from 0.
type Script func(n int) Fault

// Sequence spoils the first requests in order and none after them.
func Sequence(faults ...Fault) Script {
	return func(n int) Fault {
		if n < len(faults) {
			return faults[n]
		}
		return Fault{}
	}
}

// Always spoils every request in the same way.
func Always(f Fault) Script { return func(int) Fault { return f } }

// Random spoils a share of the requests, each with one of the faults, by seed.
func Random(seed uint64, share float64, faults ...Fault) Script {
	return func(n int) Fault {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		if len(faults) == 0 || r.Float64() >= share {
			return Fault{}
		}
		return faults[r.IntN(len(faults))]
	}
}

// A repeatCounter counts how often each body has arrived.
type repeatCounter struct {
	mu   sync.Mutex
	seen map[uint64]int
}

// due reports whether the fault is still to be done to this body.
func (c *repeatCounter) due(f Fault, body uint64) bool {
	if f.First == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) >= rememberMax {
		c.seen = map[uint64]int{}
	}
	c.seen[body]++
	return c.seen[body] <= f.First
}

// early reports whether the fault comes before the answer is begun.
func (f Fault) early() bool {
	return f.Kind == Status || f.Kind == Hang || f.Kind == ResetBeforeHeaders
}

// whole reports whether the fault answers a stream with a body that is none.
func (f Fault) whole() bool { return spoilers[f.Kind] != nil && f.Kind != WrongType }

// midStream reports whether the fault waits for an event of the stream.
func (f Fault) midStream() bool {
	switch f.Kind {
	case Stall, ResetMidBody, EndEarly, CutLine, GarbageEvent, UnknownEvent, LongLine:
		return true
	}
	return false
}

func (f Fault) contentType(right string) string {
	if f.Kind == WrongType {
		return "text/plain"
	}
	return right
}

func serverError(message string) *apiError {
	return &apiError{status: http.StatusInternalServerError, kind: "server_error", message: message}
}

// failEarly fails a request that is not billed. It returns nil when the fault has dealt with the connection itself.
func (p *Provider) failEarly(w http.ResponseWriter, call *call) *apiError {
	f := call.fault
	switch f.Kind {
	case Hang:
		p.hang(call.request.Context(), f.Delay)
		if f.Delay > 0 {
			return serverError("The server gave up.")
		}
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case ResetBeforeHeaders:
		reset(w)
		return nil
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	e := &apiError{status: f.Status, kind: "server_error", message: "The server had an error while processing your request."}
	switch {
	case f.Status == http.StatusTooManyRequests:
		e.kind, e.code, e.message = "requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."
	case f.Status < 500:
		e.kind, e.message = "invalid_request_error", http.StatusText(f.Status)
	}
	return e
}

// hang waits for the delay, or for good if it is 0, unless the caller goes away or the provider is closed.
func (p *Provider) hang(ctx context.Context, delay time.Duration) {
	var timer <-chan time.Time
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-ctx.Done():
	case <-p.quit:
	}
}

// reset drops the connection with a TCP reset instead of an orderly close.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // no TCP connection of its own: abort it as the server can
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

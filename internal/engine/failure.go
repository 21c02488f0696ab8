package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"occam/internal/openai"
)

// A Kind says what went wrong with an upstream.
type Kind string

const (
	Refused     Kind = "unreachable"  // no connection could be made: nothing was sent
	Timeout     Kind = "timeout"      // no first byte in time, or silence in the middle, or too long in all
	Broken      Kind = "broken"       // the connection broke after the request was sent
	Rubbish     Kind = "bad_reply"    // the reply is not what the protocol says
	Unsupported Kind = "unsupported"  // the upstream has no word for what is asked: nothing was sent
	Cancelled   Kind = "cancelled"    // the app went away
	Limited     Kind = "rate_limited" // the upstream asked for a pause with 429: nothing was sent
	Open        Kind = "circuit_open" // the upstream failed so often that it is left alone for a while: nothing was sent
)

// A Failure is an exchange with an upstream that gave no reply, or cut one.
type Failure struct {
	Upstream string
	Kind     Kind
	Err      error
	After    time.Duration // when to try again, 0 if unknown
}

func (f *Failure) Error() string {
	return fmt.Sprintf("upstream %s: %s: %v", f.Upstream, f.Kind, f.Err)
}

func (f *Failure) Unwrap() error { return f.Err }

// Sent reports whether the request may have reached the upstream, so that it may be billed.
func (f *Failure) Sent() bool {
	switch f.Kind {
	case Refused, Open, Limited, Unsupported:
		return false
	}
	return true
}

// Reply is the failure as the app sees it. It names the upstream as the configuration does and never its address or key.
func (f *Failure) Reply() *openai.Error {
	e := &openai.Error{Status: http.StatusBadGateway, Type: "api_error", Code: "upstream_" + string(f.Kind)}
	switch f.Kind {
	case Refused:
		e.Message = fmt.Sprintf("The provider %q cannot be reached. Check its base_url and that it is up.", f.Upstream)
	case Timeout:
		e.Status = http.StatusGatewayTimeout
		e.Message = fmt.Sprintf("The provider %q did not answer in time.", f.Upstream)
	case Broken:
		e.Message = fmt.Sprintf("The connection to the provider %q broke before its reply was complete.", f.Upstream)
	case Unsupported:
		var why *openai.Error
		if errors.As(f.Err, &why) {
			return why
		}
		e.Status, e.Type = http.StatusBadRequest, "invalid_request_error"
		e.Message = fmt.Sprintf("The provider %q does not support this request: use chat completions.", f.Upstream)
	case Limited:
		e.Status, e.Type = http.StatusTooManyRequests, "requests"
		e.Message = fmt.Sprintf("The provider %q limits its rate and asked for a pause, which is not over yet.", f.Upstream)
	case Open:
		e.Status = http.StatusServiceUnavailable
		e.Message = fmt.Sprintf("The provider %q has failed repeatedly and is given a pause. Try again shortly.", f.Upstream)
	case Cancelled:
		e.Status = 499
		e.Message = "The request was cancelled."
	default:
		e.Message = fmt.Sprintf("The provider %q gave a reply that cannot be read.", f.Upstream)
	}
	return e
}

// Causes that the watchdog cancels an exchange with.
var (
	errFirstByte = errors.New("no first byte in time")
	errIdle      = errors.New("no byte for too long in the middle of the reply")
	errTotal     = errors.New("the whole exchange took too long")
)

// failure classifies what the transport or a body said.
func (u *Upstream) failure(ctx context.Context, err error) *Failure {
	f := &Failure{Upstream: u.Name, Kind: Broken, Err: err}
	cause := context.Cause(ctx)
	var op *net.OpError
	switch {
	case errors.Is(cause, errFirstByte) || errors.Is(cause, errIdle) || errors.Is(cause, errTotal):
		f.Kind, f.Err = Timeout, cause
	case errors.Is(cause, context.DeadlineExceeded):
		f.Kind, f.Err = Timeout, cause
	case ctx.Err() != nil:
		f.Kind, f.Err = Cancelled, cause
	case errors.Is(err, errForbiddenAddress) || (errors.As(err, &op) && op.Op == "dial") || isTLS(err):
		f.Kind = Refused
	}
	return f
}

package batch

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/openai"
	"occam/internal/store"
)

// settle joins the provider's results with the lines, by custom_id: each gets its outcome in the ledger and its line in the
// output or error file. What the results do not name was not run.
func (r *run) settle(ctx context.Context, p *Part) error {
	u, there, err := r.provider(p)
	if err != nil {
		return err
	}
	lines, err := r.index(ctx, p)
	if err != nil {
		return err
	}
	defer lines.Close()
	in, err := r.results(p)
	if errors.Is(err, os.ErrNotExist) { // another gateway fetched them
		p.State = sent
		return nil
	}
	if err != nil {
		return err
	}
	defer in.close()
	for in.offset < p.Settled { // these are settled
		text, _, err := in.next()
		if err != nil {
			return fmt.Errorf("batch: the results are shorter than they were: %w", err)
		}
		if one := there.read(text); one != nil {
			delete(lines.at, one.CustomID)
		}
	}
	for done := false; !done; {
		var some []joined
		for len(some) < settleLines && !done {
			text, _, err := in.next()
			if done = err == io.EOF; done {
				break
			}
			if err != nil {
				return fmt.Errorf("batch: read the results: %w", err)
			}
			one, ok, err := lines.join(text, there)
			if err != nil {
				return err
			}
			if ok {
				there.words(&one.stored, one.result, apiOf(r.b.Endpoint))
				some = append(some, one)
			}
		}
		if err := r.settleSome(ctx, p, u, some, in.offset); err != nil {
			return err
		}
	}
	if err := r.settleMissing(ctx, p, u, lines); err != nil {
		return err
	}
	p.State = settled
	there.forget(ctx, p)
	return nil
}

// An index finds a part's lines by their request.
type index struct {
	*os.File
	at map[string]int64 // request → offset of its line
}

func (r *run) index(ctx context.Context, p *Part) (*index, error) {
	x := &index{at: make(map[string]int64, p.Lines)}
	var err error
	if x.File, err = r.openHere(ctx, r.linesFile(p), p.Bytes); err != nil {
		return nil, err
	}
	in := &reader{in: bufio.NewReaderSize(io.LimitReader(x, p.Bytes), 256<<10)}
	for {
		at := in.offset
		text, _, err := in.next()
		if err == io.EOF {
			return x, nil
		}
		var l struct {
			Request string `json:"request"`
		}
		if err == nil {
			err = json.Unmarshal(text, &l)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("batch: a part's file cannot be read: %w", err), x.Close())
		}
		x.at[l.Request] = at
	}
}

// read returns the line at an offset.
func (x *index) read(at int64) (l stored, err error) {
	in := &reader{in: bufio.NewReader(io.NewSectionReader(x, at, 1<<62))}
	text, _, err := in.next()
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, fmt.Errorf("batch: a part's file cannot be read: %w", err)
	}
	return l, nil
}

// joined is a line with its result; a nil result: it has none.
type joined struct {
	stored
	result *result
}

// join finds the line of a result. Results that belong to no line, or to one that has its outcome, do not count.
func (x *index) join(text []byte, there bureau) (one joined, ok bool, err error) {
	if one.result = there.read(text); one.result == nil {
		return one, false, nil // its line counts as missing
	}
	at, ok := x.at[one.result.CustomID]
	if !ok {
		return one, false, nil
	}
	delete(x.at, one.result.CustomID)
	one.stored, err = x.read(at)
	return one, true, err
}

// resultFiles are what the provider gave, the answers before the errors.
type resultFiles struct {
	reader
	files []*os.File
}

func (r *run) results(p *Part) (*resultFiles, error) {
	all := &resultFiles{}
	var readers []io.Reader
	for _, one := range []struct{ id, name string }{{p.Output, r.outputFile(p)}, {p.Errors, r.errorsFile(p)}} {
		if one.id == "" {
			continue
		}
		f, err := os.Open(r.path(one.name))
		if err != nil {
			all.close()
			return nil, fmt.Errorf("batch: %w", err)
		}
		all.files = append(all.files, f)
		readers = append(readers, f, bytes.NewReader([]byte{'\n'})) // the last line may lack its end
	}
	all.in = bufio.NewReaderSize(io.MultiReader(readers...), 256<<10)
	return all, nil
}

func (f *resultFiles) close() {
	for _, one := range f.files {
		_ = one.Close()
	}
}

// settleSome makes the outcomes of some lines durable: the ledger first, then the files, then the row.
func (r *run) settleSome(ctx context.Context, p *Part, u *engine.Upstream, some []joined, offset int64) error {
	key := r.opts.Desk.KeyOf(r.b.KeyID)
	rows := make([]store.Attempt, len(some))
	for i := range some {
		rows[i] = r.outcome(ctx, u, key, &some[i], p)
	}
	if err := r.opts.Store.FinishLines(ctx, rows); err != nil {
		return err
	}
	var output, failed []byte
	for i := range some {
		l, a := &some[i], &rows[i]
		if r.bill(a); l.Audited != "" {
			continue
		}
		out := &result{ID: resultPrefix + l.Request, CustomID: l.CustomID}
		if got := l.result; got != nil && got.Response != nil {
			out.Response = &response{Status: got.Response.Status, RequestID: l.Request, Body: got.Response.Body, Occam: by(a)}
		} else {
			out.Error = l.why(p)
		}
		if out.Response != nil && out.Response.Status == http.StatusOK {
			r.b.Counts.Completed++
			output = appendResult(output, out)
		} else {
			r.b.Counts.Failed++
			failed = appendResult(failed, out)
		}
	}
	if err := errors.Join(r.add(ctx, r.output, output), r.add(ctx, r.errs, failed)); err != nil {
		return err
	}
	p.Settled = max(p.Settled, offset)
	return r.checkpoint(ctx)
}

// outcome is what a line cost.
func (r *run) outcome(ctx context.Context, u *engine.Upstream, key *store.Key, l *joined, p *Part) store.Attempt {
	line := &gateway.Line{ID: l.Request, Began: l.Began, Key: key, API: apiOf(r.b.Endpoint), Body: l.Body}
	ask := &gateway.Ask{Upstream: u, Model: p.Model, Body: l.Sent, Intent: l.Intent, Audited: l.Audited}
	switch got := l.result; {
	case got != nil && got.Response != nil && got.unbilled && got.Response.Status >= http.StatusInternalServerError: // else it would be bounded
		a := r.opts.Desk.Settle(ctx, line, ask, 0, nil)
		a.Status = got.Response.Status
		return a
	case got != nil && got.Response != nil:
		return r.opts.Desk.Settle(ctx, line, ask, got.Response.Status, got.Response.Body)
	case got == nil && p.Status == Completed: // the provider says it ran everything and forgot this
		return r.opts.Desk.Settle(ctx, line, ask, http.StatusOK, nil)
	}
	return r.opts.Desk.Settle(ctx, line, ask, 0, nil)
}

const (
	cancelledBefore = "The batch was cancelled before this request was run."
	expiredThere    = "The provider did not run this request within 24 hours."
)

// why is the error of a line without a response.
func (l *joined) why(p *Part) *problem {
	if l.result != nil && l.result.Error != nil {
		return &problem{Code: l.result.Error.Code, Message: l.result.Error.Message, Line: l.Line}
	}
	switch p.Status {
	case Expired:
		return &problem{Code: "batch_expired", Message: expiredThere, Line: l.Line}
	case Cancelled:
		return &problem{Code: "batch_cancelled", Message: cancelledBefore, Line: l.Line}
	}
	return &problem{Code: "missing_result", Message: "The provider's results have no line for this request.", Line: l.Line}
}

// bill adds to what providers billed for the batch.
func (r *run) bill(a *store.Attempt) {
	if a.State != store.Settled {
		return
	}
	u := &r.b.Usage
	u.Input += a.Usage.Input
	u.Cached += a.Usage.Cached
	u.Output += a.Usage.Output
	u.Reasoning += a.Usage.Reasoning
}

// settleMissing ends the lines that no result names.
func (r *run) settleMissing(ctx context.Context, p *Part, u *engine.Upstream, lines *index) error {
	var missing []joined
	for request, at := range lines.at {
		l, err := lines.read(at)
		if err != nil {
			return err
		}
		missing = append(missing, joined{stored: l})
		delete(lines.at, request)
	}
	return r.settleSome(ctx, p, u, missing, p.Settled)
}

// callSome asks some lines, several at once, and makes their answers durable. When the process is to end, the calls under way
// end first.
func (r *run) callSome(ctx context.Context, p *Part, some []stored) error {
	patient, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastCalls, stop) })()
	answers := make([]result, len(some))
	var taken atomic.Int64 // lines are taken in order, so that those that were not taken are the last ones
	var wg sync.WaitGroup
	for range r.opts.Limits.CallsAtOnce {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(taken.Add(1)) - 1
				if i >= len(some) {
					return
				}
				answers[i] = r.callOne(patient, &some[i])
			}
		})
	}
	wg.Wait()
	var output, failed []byte
	for i := range some[:min(int(taken.Load()), len(some))] {
		if p.Settled = some[i].end; some[i].Audited != "" {
			continue
		}
		if a := &answers[i]; a.Response != nil && a.Response.Status == http.StatusOK {
			r.b.Counts.Completed++
			output = appendResult(output, a)
		} else {
			r.b.Counts.Failed++
			failed = appendResult(failed, a)
		}
	}
	if err := errors.Join(r.add(ctx, r.output, output), r.add(ctx, r.errs, failed), r.checkpoint(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	return ctx.Err()
}

// lastCalls is how long calls under way may take when the process is to end.
const lastCalls = 20 * time.Second

const (
	callTries = 5
	callPause = 2 * time.Second // doubled with each try, or as long as the provider asks
)

// callOne asks one line, unless a process that died was at it: then nobody knows what the provider did, and nothing is
// billed twice.
func (r *run) callOne(ctx context.Context, l *stored) result {
	out := result{ID: resultPrefix + l.Request, CustomID: l.CustomID}
	if l.Audited != "" {
		return out // an audit is worth a batch's price only
	}
	had, _, err := r.opts.Store.Request(ctx, l.Request)
	for err != nil && ctx.Err() == nil { // before that is known nothing is asked
		r.sleep(ctx, callPause)
		had, _, err = r.opts.Store.Request(ctx, l.Request)
	}
	if err != nil || wasCalled(had.Attempts) {
		out.Error = &problem{Code: "interrupted", Message: "The gateway was stopped while the provider was asked. Send the request again.", Line: l.Line}
		return out
	}
	key, revoked := r.key()
	if revoked {
		out.Error = &problem{Code: keyRevoked, Message: keyWasRevoked, Line: l.Line}
		return out
	}
	line := &gateway.Line{ID: l.Request, Began: l.Began, Key: key, API: apiOf(r.b.Endpoint), Body: l.Body}
	for try := range callTries {
		if r.stopping() {
			r.poke() // others wait too
			out.Response, out.Error = nil, &problem{Code: "batch_cancelled", Message: cancelledBefore, Line: l.Line}
			return out
		}
		status, header, body := r.opts.Desk.Call(ctx, line, try)
		out.Response = &response{Status: status, RequestID: l.Request, Body: body}
		if !tooBusy(status) || ctx.Err() != nil {
			break
		}
		r.sleep(ctx, cmp.Or(engine.RetryAfter(header, r.opts.Now()), callPause<<try))
	}
	if !json.Valid(out.Response.Body) {
		out.Response.Body = (&openai.Error{Status: 502, Type: "api_error", Code: "upstream_bad_reply", Message: "The answer is no JSON."}).Append(nil, openai.Chat)
		out.Response.Status = http.StatusBadGateway
	}
	return out
}

// wasCalled reports whether a line was put to a provider by an ordinary call already.
func wasCalled(attempts []store.Attempt) bool {
	for _, a := range attempts {
		if a.Provider != "" && !store.IsLine(a.ID) && a.State != store.Void {
			return true
		}
	}
	return false
}

package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"occam/internal/openai"
	"occam/internal/store"
)

// A run is a batch that is being worked on. Only its own goroutine changes the batch.
type run struct {
	*Service
	b         *Batch
	id        string // of b, for others to read
	cancelled atomic.Bool
	wake      chan struct{}
	stop      context.CancelFunc
	until     *time.Timer // stops it when its lease ends
	output    *grower
	errs      *grower
	raw       map[int]*grower // files of parts that are being filled
}

// begin works on a batch in the background until it has ended, unless that is done already.
func (s *Service) begin(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[b.ID] != nil {
		return
	}
	r := &run{Service: s, b: b, id: b.ID, wake: make(chan struct{}, 1), raw: map[int]*grower{}}
	ctx, stop := context.WithCancel(s.life)
	r.stop = stop
	if s.shared() {
		r.until = time.AfterFunc(s.opts.Limits.lease, stop)
	}
	s.running[b.ID] = r
	s.wg.Go(func() {
		r.work(ctx)
		stop()
		if s.shared() {
			r.until.Stop()
			r.dropCopies()
			s.release(r.id)
		}
		s.mu.Lock()
		delete(s.running, r.id)
		s.mu.Unlock()
	})
}

// dropCopies removes what the folder has of a batch's files: the database has them.
func (r *run) dropCopies() {
	names, _ := filepath.Glob(r.path(r.b.ID) + ".*") // the pattern is well-formed
	for _, name := range append(names, r.b.Input, r.b.Output, r.b.Errors) {
		if err := r.removeHere(filepath.Base(name)); err != nil {
			r.opts.Log.Warn("batch: a copy of its files stays until the next start", "batch", r.b.ID, "error", err)
		}
	}
}

// hear finds out whether somebody asked another gateway for an end.
func (r *run) hear(ctx context.Context) error {
	err := r.opts.Store.View(ctx, func(tx *store.Tx) error { _, err := tx.Records(kindCancel).Get(r.id); return err })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && !r.cancelled.Swap(true) {
		r.poke()
	}
	return err
}

func (r *run) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

const (
	firstPause   = time.Second // after a step that failed
	longestPause = time.Minute
)

// work takes one step after another. A step that fails is repeated from what the store vouches for.
func (r *run) work(ctx context.Context) {
	pause := firstPause
	for {
		err := r.pass(ctx)
		r.close()
		switch {
		case ctx.Err() != nil || err == nil:
			return
		case errors.Is(err, errWait):
			r.sleep(ctx, r.opts.Limits.Poll)
			pause = firstPause
		default:
			r.opts.Log.Error("batches: a step failed and will be repeated", "batch", r.b.ID, "error", err)
			r.sleep(ctx, pause)
			pause = min(2*pause, longestPause)
		}
		if fresh, err := Get(ctx, r.opts.Store, r.b.ID); err == nil {
			r.b = fresh
		}
	}
}

// errWait says that there is nothing to do before the provider has got on.
var errWait = errors.New("batch: the provider is not done")

func (r *run) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.wake:
	case <-ctx.Done():
	}
}

// pass does everything that can be done now: it reads the input to its end, brings every part as far as it goes, and ends
// the batch when all are settled.
func (r *run) pass(ctx context.Context) (err error) {
	if err := r.noteCancel(ctx); err != nil {
		return err
	}
	if r.output, err = r.grow(ctx, r.b.Output, r.b.OutputBytes); err == nil {
		r.errs, err = r.grow(ctx, r.b.Errors, r.b.ErrorBytes)
	}
	if err != nil {
		return err
	}
	if !r.b.Sorted {
		err := r.sort(ctx)
		var fault *Fault
		if errors.As(err, &fault) {
			return r.fail(ctx, *fault)
		}
		if err != nil {
			return err
		}
	}
	waiting := false
	for i := 0; i < len(r.b.Parts); i++ { // a part may add another
		err := r.advance(ctx, r.b.Parts[i])
		if errors.Is(err, errWait) {
			waiting = true
		} else if err != nil {
			return err
		}
	}
	if waiting {
		return errWait
	}
	return r.finish(ctx)
}

// noteCancel reads whether somebody asked for an end.
func (r *run) noteCancel(ctx context.Context) error {
	err := r.opts.Store.View(ctx, func(tx *store.Tx) error { _, err := tx.Records(kindCancel).Get(r.b.ID); return err })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || !r.b.Cancel.IsZero() {
		return err
	}
	r.cancelled.Store(true)
	r.b.Cancel, r.b.Status = r.opts.Now().UTC(), Cancelling
	r.opts.Log.Info("batch: cancelling", "batch", r.b.ID)
	return r.save(ctx, r.b)
}

func (r *run) stopping() bool { return r.cancelled.Load() || !r.b.Cancel.IsZero() }

// checkpoint makes what was appended part of the batch.
func (r *run) checkpoint(ctx context.Context) error {
	r.b.OutputBytes, r.b.ErrorBytes = r.output.size, r.errs.size
	return r.save(ctx, r.b)
}

// close closes the files; what was not vouched for is cut off when they are opened again.
func (r *run) close() {
	for n, g := range r.raw {
		_ = g.Close()
		delete(r.raw, n)
	}
	for _, g := range []*grower{r.output, r.errs} {
		if g != nil {
			_ = g.Close()
		}
	}
	r.output, r.errs = nil, nil
}

// Error makes a fault of the whole batch an error.
func (f *Fault) Error() string { return f.Message }

// fail ends a batch that nothing of can be answered.
func (r *run) fail(ctx context.Context, f Fault) error {
	for _, name := range []string{r.b.Output, r.b.Errors} {
		if err := r.removePath(ctx, name); err != nil {
			return err
		}
	}
	if err := r.removeParts(ctx); err != nil {
		return err
	}
	r.b.Status, r.b.Ended, r.b.Faults = Failed, r.opts.Now().UTC(), append(r.b.Faults, f)
	r.opts.Log.Warn("batch: failed", "batch", r.b.ID, "code", f.Code, "reason", f.Message)
	return r.save(ctx, r.b)
}

// finish makes the results known and ends the batch.
func (r *run) finish(ctx context.Context) error {
	if err := r.noteCancel(ctx); err != nil { // it may have come since the pass began
		return err
	}
	if r.b.Finishing.IsZero() {
		r.b.Finishing = r.opts.Now().UTC()
		if r.b.Cancel.IsZero() {
			r.b.Status = Finalizing
		}
		if err := r.checkpoint(ctx); err != nil {
			return err
		}
	}
	for _, out := range []struct {
		id, name string
		size     int64
	}{{r.b.Output, "output", r.b.OutputBytes}, {r.b.Errors, "errors", r.b.ErrorBytes}} {
		if out.size == 0 {
			if err := r.removePath(ctx, out.id); err != nil {
				return err
			}
			continue
		}
		now := r.opts.Now().UTC()
		err := r.keep(ctx, &File{ID: out.id, KeyID: r.b.KeyID, Home: r.home, Name: r.b.ID + "_" + out.name + ".jsonl", Purpose: "batch_output",
			Bytes: out.size, Created: now, Expires: now.Add(r.opts.Limits.Retention)})
		if err != nil {
			return err
		}
	}
	if err := r.removeParts(ctx); err != nil {
		return err
	}
	r.b.Status, r.b.Ended = r.lastStatus(), r.opts.Now().UTC()
	if err := r.save(ctx, r.b); err != nil {
		return err
	}
	c := r.b.Counts
	r.opts.Log.Info("batch: ended", "batch", r.b.ID, "status", r.b.Status, "total", c.Total, "completed", c.Completed, "specialist", c.Specialist,
		"failed", c.Failed, "took", r.b.Ended.Sub(r.b.Created).Round(time.Second).String())
	return nil
}

// removeParts deletes the files of all parts.
func (r *run) removeParts(ctx context.Context) error {
	for _, p := range r.b.Parts {
		for _, name := range r.partFiles(p) {
			if err := r.removePath(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) lastStatus() string {
	if !r.b.Cancel.IsZero() {
		return Cancelled
	}
	for _, p := range r.b.Parts {
		if p.Status == Expired {
			return Expired
		}
	}
	return Completed
}

// partFiles are the names of a part's files: its lines, those of them that are sent, what is uploaded, and what comes back.
func (r *run) partFiles(p *Part) []string {
	stem := fmt.Sprintf("%s.%d", r.b.ID, p.Number)
	return []string{stem + ".sorted", stem + ".lines", stem + ".upload", stem + ".output", stem + ".errors"}
}

func (r *run) linesFile(p *Part) string {
	if p.Kept {
		return r.partFiles(p)[1]
	}
	return r.partFiles(p)[0]
}

func (r *run) uploadFile(p *Part) string { return r.partFiles(p)[2] }
func (r *run) outputFile(p *Part) string { return r.partFiles(p)[3] }
func (r *run) errorsFile(p *Part) string { return r.partFiles(p)[4] }

// resultPrefix begins the ID of a result; the ID of its request follows.
const resultPrefix = "batch_req_"

// A result is one line of an output or error file.
type result struct {
	ID       string    `json:"id"`
	CustomID string    `json:"custom_id"`
	Response *response `json:"response"`
	Error    *problem  `json:"error"`

	unbilled bool // its provider says that it cost nothing, whatever the status
}

type response struct {
	Status    int             `json:"status_code"`
	RequestID string          `json:"request_id"`
	Body      json.RawMessage `json:"body"`
	Occam     *answeredBy     `json:"occam,omitempty"`
}

// answeredBy says what the X-Occam-* headers say of a request that is not part of a batch.
type answeredBy struct {
	Task       string  `json:"task,omitempty"`
	Model      string  `json:"model"`
	Reason     string  `json:"reason"`
	Confidence float64 `json:"confidence,omitempty"`
	CostUSD    string  `json:"cost_usd"`
	Simulated  bool    `json:"simulated,omitempty"`
}

type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Line    int64  `json:"line,omitempty"`
}

func by(a *store.Attempt) *answeredBy {
	cost := a.Cost.String()[len("$"):]
	if a.State == store.Unpriced {
		cost = "unpriced"
	}
	return &answeredBy{Task: a.Task, Model: a.Model, Reason: a.Reason, Confidence: a.Confidence, CostUSD: cost, Simulated: a.Simulated}
}

// appendResult appends one line.
func appendResult(dst []byte, r *result) []byte {
	text, err := json.Marshal(r)
	if err != nil { // a provider's body that is no JSON
		r.Response.Body, _ = json.Marshal(string(r.Response.Body))
		text, _ = json.Marshal(r) // strings always encode
	}
	return append(append(dst, text...), '\n')
}

// openInput opens the uploaded file.
func (r *run) openInput(ctx context.Context) (*os.File, error) {
	missing := &Fault{Code: "file_missing", Message: "The input file " + r.b.Input + " is not there any more."}
	f, err := r.file(ctx, r.b.Input, r.b.KeyID)
	var gone *openai.Error
	if errors.As(err, &gone) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	in, err := r.openHere(ctx, r.b.Input, f.Bytes)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, store.ErrNotFound) {
		return nil, missing
	}
	return in, err
}

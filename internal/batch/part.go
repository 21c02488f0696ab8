package batch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/openai"
	"occam/internal/store"
)

const settleLines = 1024 // whose outcomes are written together

// advance brings a part as far as it goes now. errWait: the provider must get on first.
func (r *run) advance(ctx context.Context, p *Part) error {
	for p.State != settled {
		before := p.State
		if err := r.step(ctx, p); err != nil {
			return err
		}
		if err := r.checkpoint(ctx); err != nil {
			return err
		}
		if p.State != before {
			r.opts.Log.Info("batch: part", "batch", r.b.ID, "part", p.Number, "state", p.State, "provider", p.Provider, "model", p.Model,
				"lines", p.Lines, "remote", p.Remote)
		}
	}
	return nil
}

// step does what a part's state asks for.
func (r *run) step(ctx context.Context, p *Part) error {
	switch p.State {
	case sealed:
		return r.intend(ctx, p)
	case intended:
		return r.send(ctx, p)
	case creating:
		return r.create(ctx, p)
	case sent:
		return r.look(ctx, p)
	case fetched:
		return r.settle(ctx, p)
	case calling:
		return r.call(ctx, p)
	}
	return fmt.Errorf("batch: part %d is in the unknown state %q", p.Number, p.State)
}

// provider is whom a part asks.
func (r *run) provider(p *Part) (*engine.Upstream, bureau, error) {
	u := r.opts.Desk.Upstream(p.Provider)
	if u == nil {
		return nil, nil, fmt.Errorf("batch: provider %q is not in the configuration any more: put it back, or cancel the batch", p.Provider)
	}
	return u, bureauOf(u), nil
}

// intend puts the intent of every line into the ledger. Lines that a budget has no room
// for go to the key's cheaper model, in a part of its own, or end here.
func (r *run) intend(ctx context.Context, p *Part) error {
	if r.stopping() {
		return r.skip(ctx, p)
	}
	key, revoked := r.key()
	if revoked {
		return r.abandon(ctx, p, keyRevoked, keyWasRevoked)
	}
	kept, err := r.grow(ctx, r.partFiles(p)[1], 0)
	if err != nil {
		return err
	}
	defer kept.Close()
	budgets := gateway.Budgets(key, r.opts.Now())
	var failed []byte
	left := int64(0)
	instead := &Part{Number: len(r.b.Parts), State: sealed} // for the key's cheaper model
	err = r.eachStored(ctx, p, 0, func(some []stored) error {
		refused, err := r.opts.Store.IntendLines(ctx, intents(some), budgets...)
		if err != nil {
			return err
		}
		var lines, other []byte
		for i := range some {
			l := &some[i]
			if refused[l.Intent.ID] == nil {
				left++
				lines = appendStored(lines, l)
			} else if l.Audited == "" && !r.degrade(ctx, p, l, instead, &other) {
				r.b.Counts.Failed++
				failed = appendError(failed, l, &openai.Error{Status: 429, Type: "insufficient_quota", Code: "insufficient_quota",
					Message: "This request could cost more than what is left of the API key's budget."})
			}
		}
		return errors.Join(r.add(ctx, kept, lines), r.addTo(ctx, instead, other))
	})
	if err != nil {
		return err
	}
	if instead.Lines > 0 {
		r.b.Parts = append(r.b.Parts, instead) // nothing of it is in the ledger yet
	}
	p.State, p.Kept, p.Lines, p.Bytes = intended, true, left, kept.size
	if left == 0 {
		p.State = settled
	}
	return r.add(ctx, r.errs, failed)
}

// degrade adds a line that its key's budget has no room for to a part for the key's cheaper model. It is false where there is none.
func (r *run) degrade(ctx context.Context, p *Part, l *stored, into *Part, text *[]byte) bool {
	line := &gateway.Line{ID: l.Request, Began: l.Began, Key: r.opts.Desk.KeyOf(r.b.KeyID), API: apiOf(r.b.Endpoint), Body: l.Body}
	ask := r.opts.Desk.Cheaper(ctx, line, &gateway.Ask{Upstream: r.opts.Desk.Upstream(p.Provider), Model: p.Model, Intent: l.Intent})
	if ask == nil {
		return false
	}
	instead := *l
	instead.Sent, instead.Intent = ask.Body, ask.Intent
	into.Provider, into.Model = ask.Upstream.Name, ask.Model
	into.Lines++
	*text = appendStored(*text, &instead)
	return true
}

// addTo appends lines to the file of a part that is not the batch's yet.
func (r *run) addTo(ctx context.Context, p *Part, text []byte) error {
	if p.Lines == 0 {
		return nil
	}
	into, err := r.grow(ctx, r.linesFile(p), p.Bytes)
	if err != nil {
		return err
	}
	defer into.Close()
	p.Bytes += int64(len(text))
	return r.add(ctx, into, text)
}

func intents(lines []stored) []store.Attempt {
	all := make([]store.Attempt, len(lines))
	for i := range lines {
		all[i] = lines[i].Intent
	}
	return all
}

// appendStored appends a line as it waits for its result.
func appendStored(dst []byte, l *stored) []byte {
	text, err := json.Marshal(l)
	if err != nil {
		panic("batch: a line that was read does not encode: " + err.Error()) // it was JSON when it was put aside
	}
	return append(append(dst, text...), '\n')
}

// appendError appends a line that got no answer, with the error that an app would have got.
func appendError(dst []byte, l *stored, e *openai.Error) []byte {
	return appendResult(dst, &result{ID: resultPrefix + l.Request, CustomID: l.CustomID,
		Response: &response{Status: e.Status, RequestID: l.Request, Body: e.Append(nil, openai.Chat)}})
}

// eachStored hands over a part's lines from an offset of their file on, some at a time.
func (r *run) eachStored(ctx context.Context, p *Part, from int64, each func([]stored) error) error {
	for {
		some, err := r.nextStored(ctx, p, from, settleLines)
		if err != nil || len(some) == 0 {
			return err
		}
		if err := each(some); err != nil {
			return err
		}
		from = some[len(some)-1].end
	}
}

// nextStored reads at most so many of a part's lines, from an offset of their file on.
func (r *run) nextStored(ctx context.Context, p *Part, from int64, most int) (some []stored, err error) {
	f, err := r.openHere(ctx, r.linesFile(p), p.Bytes)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := &reader{in: bufio.NewReaderSize(io.NewSectionReader(f, from, p.Bytes-from), 256<<10), offset: from}
	for len(some) < most {
		text, _, err := in.next()
		if err == io.EOF {
			return some, nil
		}
		l := stored{end: in.offset}
		if err == nil {
			err = json.Unmarshal(text, &l)
		}
		if err != nil {
			return nil, fmt.Errorf("batch: a part's file cannot be read: %w", err)
		}
		some = append(some, l)
	}
	return some, nil
}

// send uploads the lines. From then on the provider may have a batch of them.
func (r *run) send(ctx context.Context, p *Part) error {
	if r.stopping() {
		return r.skip(ctx, p)
	}
	_, there, err := r.provider(p)
	if err != nil {
		return err
	}
	path, err := r.writeUpload(ctx, p, there)
	if err != nil {
		return err
	}
	id, err := there.upload(ctx, path, fmt.Sprintf("%s-%d.jsonl", r.b.ID, p.Number))
	var refused *refusal
	if errors.As(err, &refused) {
		return r.reject(ctx, p, refused.Error())
	}
	if err != nil {
		return err
	}
	p.Upload, p.State = id, creating
	return nil
}

// writeUpload writes a part's lines as the provider is asked them, unless that is done, and returns where.
func (r *run) writeUpload(ctx context.Context, p *Part, there bureau) (path string, err error) {
	path = r.path(r.uploadFile(p))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	out, err := os.OpenFile(path+unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("batch: %w", err)
	}
	size := int64(0)
	err = r.eachStored(ctx, p, 0, func(some []stored) error {
		var text []byte
		for i := range some {
			if text, err = there.line(text, &some[i], apiOf(r.b.Endpoint)); err != nil {
				return err
			}
		}
		size += int64(len(text))
		_, err := out.Write(text)
		return err
	})
	if err == nil {
		err = out.Sync() // after a power loss a part under its name is whole
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(path+unfinished, path)
	}
	if err != nil {
		return "", fmt.Errorf("batch: write what is uploaded: %w", err)
	}
	r.used.Add(size)
	return path, nil
}

// create makes the provider's batch, once: one that an earlier try made, with or without an answer, is found.
func (r *run) create(ctx context.Context, p *Part) error {
	_, there, err := r.provider(p)
	if err != nil {
		return err
	}
	path, err := r.writeUpload(ctx, p, there)
	if err != nil {
		return err
	}
	o := r.order(ctx, p, path)
	made, err := there.find(ctx, o)
	if err != nil && !p.Asked.IsZero() {
		return err // also a refusal: it may have made the batch, so nothing is given up before that is known
	}
	if err == nil && made == nil {
		if r.opts.Now().Sub(p.Asked) < r.opts.Limits.listLag {
			return errWait // what was made a moment ago may not be listed yet
		}
		if r.stopping() {
			return r.skip(ctx, p)
		}
		p.Asked = r.opts.Now().UTC()
		if err := r.checkpoint(ctx); err != nil {
			return err
		}
		if r.shared() && r.opts.Now().Sub(p.Asked) > r.opts.Limits.listLag/2 {
			return errWait // this process stood still meanwhile: another one may be about to ask
		}
		made, err = there.create(ctx, o)
	}
	var refused *refusal
	if errors.As(err, &refused) {
		return r.reject(ctx, p, refused.Error())
	}
	if err != nil {
		return err
	}
	p.Remote, p.Status, p.State = made.ID, made.Status, sent
	return nil
}

// order is what the provider's batch of a part is made of.
func (r *run) order(ctx context.Context, p *Part, path string) *order {
	return &order{api: apiOf(r.b.Endpoint), upload: p.Upload, path: path, lines: p.Lines, asked: p.Asked,
		mark: map[string]string{metaBatch: r.b.ID, metaPart: strconv.Itoa(p.Number)},
		others: func() (map[string]bool, error) {
			all, err := List(ctx, r.opts.Store)
			known := map[string]bool{}
			for _, b := range all {
				for _, part := range b.Parts {
					known[part.Remote] = true
				}
			}
			return known, err
		},
		has: func(customID string) (bool, error) {
			lines, err := r.index(ctx, p)
			if err != nil {
				return false, err
			}
			_, ok := lines.at[customID]
			return ok, lines.Close()
		}}
}

// look asks how far the provider is, and fetches the results when it is done.
func (r *run) look(ctx context.Context, p *Part) error {
	_, there, err := r.provider(p)
	if err != nil {
		return err
	}
	b, err := there.get(ctx, p.Remote)
	if err != nil {
		return err
	}
	if done := b.Counts.Completed + b.Counts.Failed; done != p.Done || b.Status != p.Status {
		p.Done, p.Status = done, b.Status
		if err := r.checkpoint(ctx); err != nil {
			return err
		}
	}
	switch {
	case !b.over() && r.stopping() && b.Status != Cancelling:
		if err := there.cancel(ctx, p.Remote); err != nil {
			return err
		}
		return errWait
	case !b.over():
		return errWait
	case b.Status == Failed:
		return r.failed(ctx, p, b)
	}
	p.Output, p.Errors = b.Output, b.Errors
	for id, name := range map[string]string{b.Output: r.outputFile(p), b.Errors: r.errorsFile(p)} {
		if id == "" {
			continue
		}
		if err := r.removePath(ctx, name); err != nil {
			return err
		}
		size, err := there.download(ctx, id, r.path(name))
		if err != nil {
			return err
		}
		r.used.Add(size)
	}
	p.State = fetched
	return nil
}

// failed handles a batch that the provider took and then refused as a whole: it ran nothing of it.
func (r *run) failed(ctx context.Context, p *Part, b *remoteBatch) error {
	const enough = 200 // tries against a full queue
	why := "the provider's batch failed"
	for _, f := range b.Faults.Data {
		why = f.Code + ": " + f.Message
		if f.Code == "token_limit_exceeded" && p.Tries < enough { // its queue is full: later it will take it
			p.Tries++
			p.Remote, p.Status, p.State, p.Asked = "", "", creating, time.Time{}
			if err := r.checkpoint(ctx); err != nil {
				return err
			}
			return errWait
		}
	}
	return r.reject(ctx, p, why)
}

// skip ends the lines of a part that were not sent, because the batch was cancelled.
func (r *run) skip(ctx context.Context, p *Part) error {
	return r.abandon(ctx, p, "batch_cancelled", cancelledBefore)
}

// reject goes on with a part that its provider takes no batch of: with ordinary calls, or not at all.
func (r *run) reject(ctx context.Context, p *Part, why string) error {
	p.Rejection = why
	r.opts.Log.Warn("batch: the provider takes no batch of this part", "batch", r.b.ID, "part", p.Number, "provider", p.Provider,
		"why", why, "calls", r.opts.Limits.Calls)
	if !r.opts.Limits.Calls {
		return r.abandon(ctx, p, "batch_rejected", "The provider refused the batch: "+why)
	}
	err := r.eachStored(ctx, p, 0, func(some []stored) error {
		return r.opts.Store.FinishLines(ctx, voided(some, "rejected"))
	})
	p.State, p.Settled = calling, 0
	return err
}

func voided(some []stored, why string) []store.Attempt {
	rows := intents(some)
	for i := range rows {
		rows[i].State, rows[i].Reason = store.Void, why
	}
	return rows
}

// abandon ends every line of a part that was never run: of one whose lines are called one by one, those that are left.
func (r *run) abandon(ctx context.Context, p *Part, code, message string) error {
	var failed []byte
	err := r.eachStored(ctx, p, p.Settled, func(some []stored) error {
		for i := range some {
			if some[i].Audited == "" {
				r.b.Counts.Failed++
				failed = appendResult(failed, &result{ID: resultPrefix + some[i].Request, CustomID: some[i].CustomID,
					Error: &problem{Code: code, Message: message, Line: some[i].Line}})
			}
		}
		return r.opts.Store.FinishLines(ctx, voided(some, code))
	})
	if err != nil {
		return err
	}
	p.State = settled
	return r.add(ctx, r.errs, failed)
}

// call asks a part's lines one by one, at the provider's full price.
func (r *run) call(ctx context.Context, p *Part) error {
	for {
		if r.stopping() {
			return r.skip(ctx, p)
		}
		some, err := r.nextStored(ctx, p, p.Settled, 4*r.opts.Limits.CallsAtOnce)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			p.State = settled
			return nil
		}
		if err := r.callSome(ctx, p, some); err != nil {
			return err
		}
	}
}

// tooBusy are the answers after which a line is tried again.
func tooBusy(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || status == 529
}

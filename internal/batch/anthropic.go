package batch

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"occam/internal/engine"
	"occam/internal/openai"
)

// messageBatches is Anthropic's Message Batches API: a batch is made of one document with all its requests, and its results are one
// file. It keeps no mark, so a batch whose making was not answered is known again by its lines only, and those are told when it has
// ended.
type messageBatches struct{ remote }

const messageBatchRoute = "/messages/batches"

// A messageBatch is a batch as Anthropic tells.
type messageBatch struct {
	ID      string    `json:"id"`
	Status  string    `json:"processing_status"` // in_progress, canceling, ended
	Created time.Time `json:"created_at"`
	Counts  struct {
		Processing int64 `json:"processing"` // all of them until the batch has ended
		Succeeded  int64 `json:"succeeded"`
		Errored    int64 `json:"errored"`
		Canceled   int64 `json:"canceled"`
		Expired    int64 `json:"expired"`
	} `json:"request_counts"`
}

func (m *messageBatch) lines() int64 {
	c := &m.Counts
	return c.Processing + c.Succeeded + c.Errored + c.Canceled + c.Expired
}

// remote is the batch in the words of OpenAI's API.
func (m *messageBatch) remote() *remoteBatch {
	b := &remoteBatch{ID: m.ID, Status: InProgress}
	b.Counts.Total, b.Counts.Completed, b.Counts.Failed = m.lines(), m.Counts.Succeeded, m.Counts.Errored+m.Counts.Canceled+m.Counts.Expired
	switch {
	case m.Status == "canceling":
		b.Status = Cancelling
	case m.Status != "ended":
		return b
	case m.Counts.Expired > 0:
		b.Status = Expired
	case m.Counts.Canceled > 0:
		b.Status = Cancelled
	default:
		b.Status = Completed
	}
	if m.Status == "ended" {
		b.Output = m.ID
	}
	return b
}

func (r messageBatches) line(dst []byte, l *stored, api openai.API) ([]byte, error) {
	body, err := r.body(api, l)
	if err != nil {
		return dst, err
	}
	text, err := json.Marshal(map[string]any{"custom_id": l.Request, "params": body})
	return append(append(dst, text...), '\n'), err
}

// upload does nothing: create sends the lines.
func (messageBatches) upload(context.Context, string, string) (string, error) { return "", nil }

// create sends the lines as one document, which is never in memory as a whole.
func (r messageBatches) create(ctx context.Context, o *order) (*remoteBatch, error) {
	f, err := os.Open(o.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const before, after = `{"requests":[`, `]}`
	elements := info.Size() - 1 // without the end of the last line
	var made messageBatch
	err = r.ask(ctx, &engine.Call{Path: messageBatchRoute, Size: int64(len(before)+len(after)) + elements,
		Upload: io.MultiReader(strings.NewReader(before), commas{io.LimitReader(f, elements)}, strings.NewReader(after))}, &made)
	if err == nil && made.ID == "" {
		err = &refusal{http.StatusOK, "its answer names no batch"}
	}
	return made.remote(), err
}

// commas makes the lines of a file, which hold no line break themselves, the elements of an array.
type commas struct{ io.Reader }

func (c commas) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	for i := range p[:n] {
		if p[i] == '\n' {
			p[i] = ','
		}
	}
	return n, err
}

// clockSlack is how far the provider's clock may be from this machine's.
const clockSlack = time.Hour

// find looks among the batches that were made since the order was sent, and have as many lines: the first line of its results says
// whether one is the order's.
func (r messageBatches) find(ctx context.Context, o *order) (*remoteBatch, error) {
	if o.asked.IsZero() {
		return nil, nil
	}
	others, err := o.others()
	if err != nil {
		return nil, err
	}
	wait := false
	for after, more := "", true; more; {
		var list struct {
			Data []messageBatch
			More bool `json:"has_more"`
		}
		query := url.Values{"limit": {"100"}}
		if after != "" {
			query.Set("after_id", after)
		}
		if err := r.ask(ctx, &engine.Call{Method: http.MethodGet, Path: messageBatchRoute, Query: query.Encode()}, &list); err != nil {
			return nil, err
		}
		more = list.More && len(list.Data) > 0
		for i := range list.Data {
			m := &list.Data[i]
			if after = m.ID; m.Created.Before(o.asked.Add(-clockSlack)) {
				more = false // the newest come first
				break
			}
			if others[m.ID] || m.lines() != o.lines {
				continue
			}
			if m.Status != "ended" {
				wait = true
				continue
			}
			if ours, err := r.madeOf(ctx, m.ID, o); err != nil || ours {
				return m.remote(), err
			}
		}
	}
	if wait {
		return nil, errWait
	}
	return nil, nil
}

// madeOf reports whether a batch that has ended is the order's.
func (r messageBatches) madeOf(ctx context.Context, id string, o *order) (bool, error) {
	body, err := r.open(ctx, resultsRoute(id))
	if err != nil {
		return false, err
	}
	defer body.Close()
	in := &reader{in: bufio.NewReaderSize(body, 64<<10)}
	text, _, err := in.next()
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	one := r.read(text)
	if one == nil {
		return false, nil
	}
	return o.has(one.CustomID)
}

func batchRoute(id string) string   { return messageBatchRoute + "/" + url.PathEscape(id) }
func resultsRoute(id string) string { return batchRoute(id) + "/results" }

func (r messageBatches) get(ctx context.Context, id string) (*remoteBatch, error) {
	var m messageBatch
	err := r.ask(ctx, &engine.Call{Method: http.MethodGet, Path: batchRoute(id)}, &m)
	return m.remote(), err
}

func (r messageBatches) cancel(ctx context.Context, id string) error {
	return r.ask(ctx, &engine.Call{Path: batchRoute(id) + "/cancel", Body: []byte("{}")}, &messageBatch{})
}

// download asks the API's own route, not the address that the batch names: the key goes to the provider's origin only.
func (r messageBatches) download(ctx context.Context, id, path string) (size int64, err error) {
	return r.keep(ctx, resultsRoute(id), path)
}

// messageStatuses are the HTTP statuses of Anthropic's kinds of errors.
var messageStatuses = map[string]int{"invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
	"not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504, "overloaded_error": 529}

func (r messageBatches) read(text []byte) *result {
	var in struct {
		CustomID string `json:"custom_id"`
		Result   struct {
			Type    string
			Message json.RawMessage
			Error   json.RawMessage
		}
	}
	if json.Unmarshal(text, &in) != nil {
		return nil
	}
	one := &result{CustomID: in.CustomID, unbilled: true}
	switch in.Result.Type {
	case "succeeded":
		one.unbilled = false
		one.Response = &response{Status: http.StatusOK, Body: in.Result.Message}
	case "errored":
		var what struct{ Error struct{ Type string } }
		_ = json.Unmarshal(in.Result.Error, &what) // what it does not say is an error of the provider's
		one.Response = &response{Status: cmp.Or(messageStatuses[what.Error.Type], http.StatusInternalServerError), Body: in.Result.Error}
	case "expired":
		one.Error = &problem{Code: "batch_expired", Message: expiredThere}
	case "canceled":
		one.Error = &problem{Code: "batch_cancelled", Message: cancelledBefore}
	default:
		return nil // its line counts as missing
	}
	return one
}

func (r messageBatches) forget(ctx context.Context, p *Part) {
	if p.Remote != "" {
		_ = r.ask(ctx, &engine.Call{Method: http.MethodDelete, Path: batchRoute(p.Remote)}, &struct{}{})
	}
}

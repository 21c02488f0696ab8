package batch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"occam/internal/engine"
	"occam/internal/openai"
)

// A bureau is the batch API of one provider. None of its calls costs money by itself: what the lines cost is in the ledger
// before create is called.
type bureau interface {
	// line appends a line as the provider is asked it: by the request's own ID, which is unique and says nothing.
	line(dst []byte, l *stored, api openai.API) ([]byte, error)
	// upload hands over a file of such lines, where the API takes it before the batch, and returns the provider's name of it.
	upload(ctx context.Context, path, name string) (id string, err error)
	// create makes a batch. When its answer is lost, nobody knows whether it did: find finds that out.
	create(ctx context.Context, o *order) (*remoteBatch, error)
	// find looks for the batch that an earlier create made of the order; nil where there is none that may still give results,
	// errWait where that cannot be told yet.
	find(ctx context.Context, o *order) (*remoteBatch, error)
	get(ctx context.Context, id string) (*remoteBatch, error)
	cancel(ctx context.Context, id string) error
	// download writes what a batch's Output or Errors names to a path, whole or not at all, and returns its size.
	download(ctx context.Context, id, path string) (size int64, err error)
	// read reads one line of what was downloaded; nil where it is no result. Bodies are in the provider's words.
	read(text []byte) *result
	// words puts the body of a result into the words in which its line was asked.
	words(l *stored, got *result, api openai.API)
	// forget deletes at the provider what a settled part left there; what cannot be deleted expires there.
	forget(ctx context.Context, p *Part)
}

// An order is what a provider's batch is made of.
type order struct {
	api    openai.API
	upload string            // the provider's name of the lines, "" where create sends them
	path   string            // of the lines here
	lines  int64             // how many
	mark   map[string]string // by which the batch is found again, where the API keeps such a thing
	asked  time.Time         // when the provider was last asked to make it; zero: never
	// others are the provider's batches that are known to be made of other orders.
	others func() (map[string]bool, error)
	// has reports whether a line belongs to the order, by the ID that the provider was given.
	has func(customID string) (bool, error)
}

// bureauOf is the batch API of a provider.
func bureauOf(u *engine.Upstream) bureau {
	if u.Kind() == engine.Anthropic {
		return messageBatches{remote{u}}
	}
	return openAIBatches{remote{u}}
}

// A remote is what the batch APIs of all providers share.
type remote struct{ *engine.Upstream }

// A refusal is a provider's answer that trying again does not change.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the provider answered with status %d: %s", r.status, r.text)
}

// A remoteBatch is a batch as its provider tells, in the words of OpenAI's API.
type remoteBatch struct {
	ID       string
	Status   string
	Output   string                                   `json:"output_file_id"`
	Errors   string                                   `json:"error_file_id"`
	Metadata map[string]string                        `json:"metadata"`
	Counts   struct{ Total, Completed, Failed int64 } `json:"request_counts"`
	Faults   struct {
		Data []struct{ Code, Message string }
	} `json:"errors"`
}

func (b *remoteBatch) over() bool {
	return b.Status == Completed || b.Status == Failed || b.Status == Expired || b.Status == Cancelled
}

const maxReply = 4 << 20 // of what is no file

// ask makes one call and decodes its reply.
func (r remote) ask(ctx context.Context, c *engine.Call, into any) error {
	if c.Header == nil {
		c.Header = http.Header{"Content-Type": {"application/json"}}
	}
	c.Header.Set("User-Agent", "occam")
	reply, err := r.Send(ctx, c)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	switch {
	case err != nil:
		return err
	case reply.Status >= 200 && reply.Status < 300:
		return json.Unmarshal(body, into)
	case reply.Status >= 500 || reply.Status == http.StatusTooManyRequests || reply.Status == http.StatusRequestTimeout:
		return fmt.Errorf("batch: provider %s answered with status %d", r.Name, reply.Status)
	}
	return &refusal{reply.Status, said(body)}
}

// said is what an error body says.
func said(body []byte) string {
	var in struct{ Error struct{ Message string } }
	if json.Unmarshal(body, &in) == nil && in.Error.Message != "" {
		return in.Error.Message
	}
	return strings.ToValidUTF8(string(body[:min(len(body), 200)]), "")
}

// body is what a line asks, in the provider's words.
func (r remote) body(api openai.API, l *stored) (json.RawMessage, error) {
	t, err := r.Translate(api, l.Sent)
	if err != nil || t == nil {
		return l.Sent, err
	}
	return t.Body, nil
}

// words: see bureau. A reply that cannot be read is an error to the app; what it cost is then between nothing and its bound.
func (r remote) words(l *stored, got *result, api openai.API) {
	if got.Response == nil {
		return
	}
	t, err := r.Translate(api, l.Sent)
	switch {
	case err == nil && t == nil:
		return
	case err == nil && got.Response.Status != http.StatusOK:
		got.Response.Body = t.Failure(got.Response.Status, got.Response.Body)
		return
	case err == nil:
		got.Response.Body, err = t.Reply(got.Response.Body)
	}
	if err != nil {
		unreadable := &openai.Error{Status: http.StatusBadGateway, Type: "api_error", Code: "upstream_bad_reply",
			Message: fmt.Sprintf("The provider %q gave a result that cannot be read.", r.Name)}
		got.Response = &response{Status: unreadable.Status, Body: unreadable.Append(nil, api)}
	}
}

// open asks for results. They must be closed.
func (r remote) open(ctx context.Context, route string) (io.ReadCloser, error) {
	reply, err := r.Send(ctx, &engine.Call{Method: http.MethodGet, Path: route, Header: http.Header{"User-Agent": {"occam"}}})
	if err != nil {
		return nil, err
	}
	if reply.Status != http.StatusOK {
		_ = reply.Body.Close()
		return nil, fmt.Errorf("batch: provider %s gives results with status %d", r.Name, reply.Status)
	}
	return reply.Body, nil
}

// keep writes results to a path, whole or not at all, and returns their size.
func (r remote) keep(ctx context.Context, route, path string) (size int64, err error) {
	body, err := r.open(ctx, route)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	f, err := os.OpenFile(path+unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(f, body)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path + unfinished)
		return 0, err
	}
	return size, os.Rename(path+unfinished, path)
}

package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"

	"occam/internal/engine"
)

// A remote is the batch API of one provider. None of its calls costs money by itself: what the lines cost is in the ledger
// before create is called.
type remote struct{ *engine.Upstream }

// A refusal is a provider's answer that trying again does not change.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the provider answered with status %d: %s", r.status, r.text)
}

// A remoteBatch is a batch as its provider tells.
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

// upload sends a file and returns the provider's name of it.
func (r remote) upload(ctx context.Context, path, name string) (id string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	if err := form.WriteField("purpose", "batch"); err != nil {
		return "", err
	}
	if _, err := form.CreateFormFile("file", name); err != nil {
		return "", err
	}
	tail := "\r\n--" + form.Boundary() + "--\r\n"
	size := int64(head.Len()) + info.Size() + int64(len(tail))
	var made struct{ ID string }
	err = r.ask(ctx, &engine.Call{Path: "/files", Header: http.Header{"Content-Type": {form.FormDataContentType()}},
		Upload: io.MultiReader(&head, f, strings.NewReader(tail)), Size: size}, &made)
	if err == nil && made.ID == "" {
		err = &refusal{200, "its answer to the upload names no file"}
	}
	return made.ID, err
}

// Names of the metadata by which a provider's batch is found again.
const (
	metaBatch = "occam_batch"
	metaPart  = "occam_part"
)

// create makes a batch of an uploaded file, with the mark by which it is found again.
func (r remote) create(ctx context.Context, file, endpoint string, mark map[string]string) (*remoteBatch, error) {
	body, err := json.Marshal(map[string]any{"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": mark})
	if err != nil {
		return nil, err
	}
	b := &remoteBatch{}
	return b, r.ask(ctx, &engine.Call{Path: "/batches", Body: body}, b)
}

// find looks for a batch with the mark among the provider's newest; nil where there is none that may still give results.
func (r remote) find(ctx context.Context, mark map[string]string) (*remoteBatch, error) {
	const pages = 20
	after := ""
	for range pages {
		var list struct {
			Data []remoteBatch
			More bool `json:"has_more"`
		}
		query := "?limit=100"
		if after != "" {
			query += "&after=" + url.QueryEscape(after)
		}
		if err := r.ask(ctx, &engine.Call{Method: http.MethodGet, Path: "/batches", Query: query[1:]}, &list); err != nil {
			return nil, err
		}
		for i := range list.Data {
			b := &list.Data[i]
			if b.Metadata[metaBatch] == mark[metaBatch] && b.Metadata[metaPart] == mark[metaPart] && b.Status != Failed {
				return b, nil
			}
			after = b.ID
		}
		if !list.More || len(list.Data) == 0 {
			break
		}
	}
	return nil, nil
}

func (r remote) get(ctx context.Context, id string) (*remoteBatch, error) {
	b := &remoteBatch{}
	return b, r.ask(ctx, &engine.Call{Method: http.MethodGet, Path: "/batches/" + url.PathEscape(id)}, b)
}

func (r remote) cancel(ctx context.Context, id string) error {
	return r.ask(ctx, &engine.Call{Path: "/batches/" + url.PathEscape(id) + "/cancel", Body: []byte("{}")}, &remoteBatch{})
}

// download writes a file's content to a path, whole or not at all, and returns its size.
func (r remote) download(ctx context.Context, id, path string) (size int64, err error) {
	reply, err := r.Send(ctx, &engine.Call{Method: http.MethodGet, Path: "/files/" + url.PathEscape(id) + "/content", Header: http.Header{"User-Agent": {"occam"}}})
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	if reply.Status != http.StatusOK {
		return 0, fmt.Errorf("batch: provider %s gives results with status %d", r.Name, reply.Status)
	}
	f, err := os.OpenFile(path+unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(f, reply.Body)
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

// forget deletes a file at the provider; what cannot be deleted expires there.
func (r remote) forget(ctx context.Context, id string) {
	if id != "" {
		_ = r.ask(ctx, &engine.Call{Method: http.MethodDelete, Path: "/files/" + url.PathEscape(id)}, &struct{}{})
	}
}

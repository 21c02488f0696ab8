package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"

	"occam/internal/engine"
	"occam/internal/openai"
)

// openAIBatches is OpenAI's batch API: a file of lines is uploaded, a batch made of it, and its results are two files.
type openAIBatches struct{ remote }

func (r openAIBatches) line(dst []byte, l *stored, api openai.API) ([]byte, error) {
	body, err := r.body(api, l)
	if err != nil {
		return dst, err
	}
	text, err := json.Marshal(map[string]any{"custom_id": l.Request, "method": "POST", "url": r.endpoint(api), "body": body})
	return append(append(dst, text...), '\n'), err
}

// endpoint is the one that lines of an API are asked at.
func (r openAIBatches) endpoint(api openai.API) string { return "/v1" + r.Native(api).Path() }

// upload sends a file and returns the provider's name of it.
func (r openAIBatches) upload(ctx context.Context, path, name string) (id string, err error) {
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
func (r openAIBatches) create(ctx context.Context, o *order) (*remoteBatch, error) {
	body, err := json.Marshal(map[string]any{"input_file_id": o.upload, "endpoint": r.endpoint(o.api), "completion_window": "24h", "metadata": o.mark})
	if err != nil {
		return nil, err
	}
	b := &remoteBatch{}
	return b, r.ask(ctx, &engine.Call{Path: "/batches", Body: body}, b)
}

// find looks for a batch with the mark among the provider's newest.
func (r openAIBatches) find(ctx context.Context, o *order) (*remoteBatch, error) {
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
			if b.Metadata[metaBatch] == o.mark[metaBatch] && b.Metadata[metaPart] == o.mark[metaPart] && b.Status != Failed {
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

func (r openAIBatches) get(ctx context.Context, id string) (*remoteBatch, error) {
	b := &remoteBatch{}
	return b, r.ask(ctx, &engine.Call{Method: http.MethodGet, Path: "/batches/" + url.PathEscape(id)}, b)
}

func (r openAIBatches) cancel(ctx context.Context, id string) error {
	return r.ask(ctx, &engine.Call{Path: "/batches/" + url.PathEscape(id) + "/cancel", Body: []byte("{}")}, &remoteBatch{})
}

func (r openAIBatches) download(ctx context.Context, id, path string) (size int64, err error) {
	return r.keep(ctx, "/files/"+url.PathEscape(id)+"/content", path)
}

func (r openAIBatches) read(text []byte) *result {
	one := &result{}
	if json.Unmarshal(text, one) != nil {
		return nil
	}
	return one
}

func (r openAIBatches) forget(ctx context.Context, p *Part) {
	for _, id := range []string{p.Upload, p.Output, p.Errors} {
		if id != "" {
			_ = r.ask(ctx, &engine.Call{Method: http.MethodDelete, Path: "/files/" + url.PathEscape(id)}, &struct{}{})
		}
	}
}

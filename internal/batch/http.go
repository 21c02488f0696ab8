package batch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"occam/internal/openai"
	"occam/internal/store"
)

const (
	pieceTime = 30 * time.Second // for each piece of an upload or a download
	maxForm   = 64 << 10         // of an upload beside its file
	maxCreate = 1 << 20          // of the body that makes a batch
)

// ServeHTTP answers /v1/files and /v1/batches for a key that was checked; nil where the API asks for none.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request, key *store.Key) {
	keyID := ""
	if key != nil {
		keyID = key.ID
	}
	path := append(strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/"), "/"), "/"), "") // an ID, or none
	route := r.Method + " " + path[0]
	if len(path) > 2 {
		route += strings.Join(append([]string{"/ID"}, path[2:len(path)-1]...), "/")
	}
	err := error(&openai.Error{Status: 404, Type: "invalid_request_error", Code: "unknown_url",
		Message: "Unknown request URL: " + r.Method + " " + r.URL.Path + "."})
	if answer := s.routes()[route]; answer != nil {
		err = answer(w, r, keyID, path[1])
	}
	if err != nil {
		s.refuse(w, err)
	}
}

// An answerer answers one route. id is the file's or the batch's that the route names.
type answerer func(w http.ResponseWriter, r *http.Request, keyID, id string) error

func (s *Service) routes() map[string]answerer {
	return map[string]answerer{
		"POST files":             s.postFile,
		"GET files":              s.listFiles,
		"GET files/ID":           s.getFile,
		"DELETE files/ID":        s.deleteFile,
		"GET files/ID/content":   s.content,
		"POST batches":           s.postBatch,
		"GET batches":            s.listBatches,
		"GET batches/ID":         s.getBatch,
		"POST batches/ID/cancel": s.cancelBatch,
	}
}

func (s *Service) refuse(w http.ResponseWriter, err error) {
	var blame *openai.Error
	if !errors.As(err, &blame) {
		s.opts.Log.Error("batches: a request failed", "error", err)
		blame = &openai.Error{Status: 503, Type: "api_error", Code: "storage_unavailable", Message: "The files or the database cannot be used now. Try again."}
	}
	if blame.Status == 413 {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(blame.Status)
	_, _ = w.Write(blame.Append(nil, openai.Chat))
}

func answer(w http.ResponseWriter, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that went away needs no answer
	return nil
}

type object = map[string]any

func fileObject(f *File) object {
	return object{"id": f.ID, "object": "file", "bytes": f.Bytes, "created_at": f.Created.Unix(), "expires_at": f.Expires.Unix(),
		"filename": f.Name, "purpose": f.Purpose, "status": "processed", "status_details": nil}
}

// A patientBody gives each piece of an upload its own time to arrive.
type patientBody struct {
	io.Reader
	control *http.ResponseController
}

func (b patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(pieceTime)) // not every connection has one
	return b.Reader.Read(p)
}

// postFile takes an upload, of which no more than a piece is in memory.
func (s *Service) postFile(w http.ResponseWriter, r *http.Request, keyID, _ string) error {
	control := http.NewResponseController(w)
	r.Body = io.NopCloser(patientBody{http.MaxBytesReader(w, r.Body, s.opts.Limits.FileBytes+maxForm), control})
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	form, err := r.MultipartReader()
	if err != nil {
		return openai.BadRequest("", "The body must be a multipart form with the fields purpose and file.")
	}
	f, fields, err := s.readForm(r.Context(), form, keyID)
	if err == nil {
		err = s.checkUpload(f, fields)
	}
	if err == nil {
		err = s.keep(r.Context(), f)
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, s.removePath(r.Context(), f.ID))
		}
		return err
	}
	return answer(w, fileObject(f))
}

func (s *Service) readForm(ctx context.Context, form *multipart.Reader, keyID string) (f *File, fields map[string]string, err error) {
	fields = map[string]string{}
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			return f, fields, nil
		}
		var over *http.MaxBytesError
		switch {
		case errors.As(err, &over):
			return f, fields, &openai.Error{Status: 413, Type: "invalid_request_error", Code: "file_too_large", Message: "The file is larger than the limit."}
		case err != nil:
			return f, fields, openai.BadRequest("", "The form cannot be read: it broke off or is malformed.")
		case part.FormName() == "file" && f == nil:
			name := filepath.Base(strings.ToValidUTF8(part.FileName(), ""))
			if f, err = s.upload(ctx, keyID, name[:min(len(name), 255)], part); err != nil {
				return f, fields, err
			}
		default:
			text, err := io.ReadAll(io.LimitReader(part, maxForm))
			if err != nil || len(fields) > 16 {
				return f, fields, openai.BadRequest(part.FormName(), "The form cannot be read.")
			}
			fields[part.FormName()] = string(text)
		}
	}
}

func (s *Service) checkUpload(f *File, fields map[string]string) error {
	switch {
	case f == nil:
		return openai.BadRequest("file", "Missing required parameter: 'file'.")
	case fields["purpose"] != "batch":
		return openai.BadRequest("purpose", "The purpose must be 'batch': the gateway keeps no other files.")
	}
	text := fields["expires_after[seconds]"]
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 3600 || seconds > 2592000 {
		return openai.BadRequest("expires_after", "expires_after.seconds must be between 3600 and 2592000.")
	}
	if at := f.Created.Add(time.Duration(seconds) * time.Second); at.Before(f.Expires) {
		f.Expires = at
	}
	return nil
}

// page cuts a list, newest first, as the query asks: after, limit, order.
func page[T any](r *http.Request, all []T, id func(T) string) (cut []T, more bool, err error) {
	q := r.URL.Query()
	limit := 20
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > 10000 {
			return nil, false, openai.BadRequest("limit", "limit must be between 1 and 10000.")
		}
	}
	if q.Get("order") == "asc" {
		for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
			all[i], all[j] = all[j], all[i]
		}
	}
	if after := q.Get("after"); after != "" {
		at := -1
		for i := range all {
			if id(all[i]) == after {
				at = i
			}
		}
		if at < 0 {
			return nil, false, openai.BadRequest("after", "after names nothing in the list.")
		}
		all = all[at+1:]
	}
	return all[:min(limit, len(all))], len(all) > limit, nil
}

// listObject is a page of a list.
func listObject[T any](w http.ResponseWriter, cut []T, more bool, id func(T) string, show func(T) object) error {
	data := make([]object, len(cut))
	var first, last any
	for i := range cut {
		data[i] = show(cut[i])
		if i == 0 {
			first = id(cut[i])
		}
		last = id(cut[i])
	}
	return answer(w, object{"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more})
}

func fileID(f *File) string { return f.ID }

func (s *Service) listFiles(w http.ResponseWriter, r *http.Request, keyID, _ string) error {
	all, err := s.files(r.Context(), keyID, false)
	if err != nil {
		return err
	}
	if purpose := r.URL.Query().Get("purpose"); purpose != "" {
		kept := all[:0]
		for _, f := range all {
			if f.Purpose == purpose {
				kept = append(kept, f)
			}
		}
		all = kept
	}
	cut, more, err := page(r, all, fileID)
	if err != nil {
		return err
	}
	return listObject(w, cut, more, fileID, fileObject)
}

func (s *Service) getFile(w http.ResponseWriter, r *http.Request, keyID, id string) error {
	f, err := s.file(r.Context(), id, keyID)
	if err != nil {
		return err
	}
	return answer(w, fileObject(f))
}

func (s *Service) deleteFile(w http.ResponseWriter, r *http.Request, keyID, id string) error {
	f, err := s.file(r.Context(), id, keyID)
	if err == nil {
		err = s.remove(r.Context(), f)
	}
	if err != nil {
		return err
	}
	return answer(w, object{"id": id, "object": "file", "deleted": true})
}

// content sends a file, a piece at a time.
func (s *Service) content(w http.ResponseWriter, r *http.Request, keyID, id string) error {
	f, err := s.file(r.Context(), id, keyID)
	if err != nil {
		return err
	}
	control, sent := http.NewResponseController(w), false
	err = s.read(r.Context(), f, func(piece []byte) error {
		if !sent {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.FormatInt(f.Bytes, 10))
			sent = true
		}
		_ = control.SetWriteDeadline(time.Now().Add(pieceTime)) // not every connection has one
		_, err := w.Write(piece)
		return err
	})
	switch {
	case err != nil && sent:
		panic(http.ErrAbortHandler) // what was sent is not the whole file
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, store.ErrNotFound):
		return noFile(id)
	}
	return err
}

func (s *Service) postBatch(w http.ResponseWriter, r *http.Request, keyID, _ string) error {
	var in struct {
		Input    string            `json:"input_file_id"`
		Endpoint string            `json:"endpoint"`
		Window   string            `json:"completion_window"`
		Metadata map[string]string `json:"metadata"`
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(pieceTime)) // not every connection has one
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCreate)).Decode(&in); err != nil {
		return openai.BadRequest("", "The body cannot be read: "+err.Error()+".")
	}
	b, err := s.Create(r.Context(), keyID, in.Input, in.Endpoint, in.Window, in.Metadata)
	if err != nil {
		return err
	}
	return answer(w, b.Object())
}

func batchID(b *Batch) string { return b.ID }

// batch returns a batch of a key. Another key's batch is not there.
func (s *Service) batch(r *http.Request, keyID, id string) (*Batch, error) {
	b, err := Get(r.Context(), s.opts.Store, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && b.KeyID != keyID {
		return nil, &openai.Error{Status: 404, Type: "invalid_request_error", Param: "batch_id", Message: "No batch found with id '" + id + "'."}
	}
	return b, err
}

func (s *Service) listBatches(w http.ResponseWriter, r *http.Request, keyID, _ string) error {
	all, err := List(r.Context(), s.opts.Store)
	if err != nil {
		return err
	}
	kept := all[:0]
	for _, b := range all {
		if b.KeyID == keyID {
			kept = append(kept, b)
		}
	}
	cut, more, err := page(r, kept, batchID)
	if err != nil {
		return err
	}
	return listObject(w, cut, more, batchID, (*Batch).Object)
}

func (s *Service) getBatch(w http.ResponseWriter, r *http.Request, keyID, id string) error {
	b, err := s.batch(r, keyID, id)
	if err != nil {
		return err
	}
	return answer(w, b.Object())
}

func (s *Service) cancelBatch(w http.ResponseWriter, r *http.Request, keyID, id string) error {
	b, err := s.batch(r, keyID, id)
	if err == nil {
		err = s.Cancel(r.Context(), id)
	}
	if err != nil {
		return err
	}
	if b.Cancel.IsZero() {
		b.Cancel, b.Status = s.opts.Now(), Cancelling
	}
	return answer(w, b.Object())
}

// Object is the batch as the public API shows it, with one member of our own: "occam", who answers how much.
func (b *Batch) Object() object {
	at := func(t time.Time, when bool) any {
		if t.IsZero() || !when {
			return nil
		}
		return t.Unix()
	}
	file := func(id string, size int64) any {
		if size == 0 || !b.over() {
			return nil
		}
		return id
	}
	var faults any
	if b.Faults != nil {
		data := make([]object, len(b.Faults))
		for i, f := range b.Faults {
			data[i] = object{"code": f.Code, "message": f.Message, "param": orNull(f.Param), "line": f.Line}
		}
		faults = object{"object": "list", "data": data}
	}
	parts := make([]object, len(b.Parts))
	for i, p := range b.Parts {
		parts[i] = object{"provider": p.Provider, "model": p.Model, "state": p.State, "lines": p.Lines, "batch": orNull(p.Remote),
			"status": orNull(p.Status), "done": p.Done, "rejection": orNull(p.Rejection)}
	}
	u := b.Usage
	return object{"id": b.ID, "object": "batch", "endpoint": b.Endpoint, "errors": faults, "input_file_id": b.Input, "completion_window": "24h",
		"status": b.Status, "output_file_id": file(b.Output, b.OutputBytes), "error_file_id": file(b.Errors, b.ErrorBytes),
		"created_at": b.Created.Unix(), "in_progress_at": at(b.Started, true), "expires_at": b.Created.Add(24 * time.Hour).Unix(),
		"finalizing_at": at(b.Finishing, true), "completed_at": at(b.Ended, b.Status == Completed), "failed_at": at(b.Ended, b.Status == Failed),
		"expired_at": at(b.Ended, b.Status == Expired), "cancelling_at": at(b.Cancel, true), "cancelled_at": at(b.Ended, b.Status == Cancelled),
		"request_counts": object{"total": b.Counts.Total, "completed": b.Counts.Completed, "failed": b.Counts.Failed},
		"usage": object{"input_tokens": u.Input, "input_tokens_details": object{"cached_tokens": u.Cached}, "output_tokens": u.Output,
			"output_tokens_details": object{"reasoning_tokens": u.Reasoning}, "total_tokens": u.Input + u.Output},
		"metadata": b.Metadata,
		"occam":    object{"specialist": b.Counts.Specialist, "audits": b.Counts.Audits, "read": b.Lines, "parts": parts}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

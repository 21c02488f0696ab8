package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"occam/internal/openai"
	"occam/internal/store"
)

// A File is what a key uploaded, or what a batch wrote. It is stored as a record of the kind "file".
type File struct {
	ID      string    `json:"id"`
	KeyID   string    `json:"key_id,omitempty"`
	Home    string    `json:"home"`
	Name    string    `json:"name"`
	Purpose string    `json:"purpose"` // "batch" or "batch_output"
	Bytes   int64     `json:"bytes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func (s *Service) path(name string) string { return filepath.Join(s.opts.Dir, name) }

// tidy removes uploads that a dead process left unfinished, with a shared database all that lies there, and counts the bytes of what
// is left.
func (s *Service) tidy() error {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("batch: the folder for files: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), unfinished) || s.shared() && e.Name() != homeName {
			_ = os.Remove(s.path(e.Name())) // tried again at the next start
			continue
		}
		if info, err := e.Info(); err == nil {
			s.used.Add(info.Size())
		}
	}
	return nil
}

// unfinished ends the names of uploads that are under way.
const unfinished = ".part"

var errFull = &openai.Error{Status: 413, Type: "invalid_request_error", Code: "storage_full",
	Message: "The gateway keeps no more files: delete some, or raise batches.stored_bytes."}

// Upload stores what r holds. The error is an *openai.Error where the caller is to blame.
func (s *Service) upload(ctx context.Context, keyID, name string, r io.Reader) (_ *File, err error) {
	now := s.opts.Now().UTC()
	f := &File{ID: "file-" + store.NewID(now), KeyID: keyID, Home: s.home, Name: name, Purpose: "batch", Created: now,
		Expires: now.Add(s.opts.Limits.Retention)}
	if err := s.recount(ctx); err != nil {
		return nil, err
	}
	temporary := s.path(f.ID + unfinished)
	out, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("batch: store a file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
			s.used.Add(-f.Bytes)
		}
	}()
	err = s.copy(out, r, f)
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(temporary, s.path(f.ID)); err != nil || !s.shared() {
		return f, err
	}
	return f, s.handOver(ctx, f.ID)
}

// copy writes an upload within the limits.
func (s *Service) copy(out io.Writer, r io.Reader, f *File) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		f.Bytes += int64(n)
		switch used := s.used.Add(int64(n)); {
		case f.Bytes > s.opts.Limits.FileBytes:
			return &openai.Error{Status: 413, Type: "invalid_request_error", Code: "file_too_large",
				Message: fmt.Sprintf("The file is larger than the limit of %d bytes.", s.opts.Limits.FileBytes)}
		case used > s.opts.Limits.StoredBytes:
			return errFull
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return fmt.Errorf("batch: store a file: %w", err)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return &openai.Error{Status: 400, Type: "invalid_request_error", Code: "upload_broken", Message: "The upload broke off before its end."}
		}
	}
}

// keep makes a stored file known.
func (s *Service) keep(ctx context.Context, f *File) error {
	value, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.opts.Store.Update(ctx, func(tx *store.Tx) error {
		files := tx.Records(kindFile)
		if _, err := files.Get(f.ID); err == nil {
			return nil // a step that is repeated
		}
		return files.Put(store.Record{Name: f.ID, Value: value})
	})
}

func noFile(id string) *openai.Error {
	return &openai.Error{Status: 404, Type: "invalid_request_error", Param: "id", Message: "No such File object: " + id}
}

// file returns a file of a key. Another key's file is not there.
func (s *Service) file(ctx context.Context, id, keyID string) (*File, error) {
	f := &File{}
	err := s.opts.Store.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(kindFile).Get(id)
		if err != nil {
			return err
		}
		return json.Unmarshal(r.Value, f)
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && (f.KeyID != keyID || !s.opts.Now().Before(f.Expires)) {
		return nil, noFile(id)
	}
	return f, err
}

// read hands over a stored file, a piece at a time.
func (s *Service) read(ctx context.Context, f *File, each func([]byte) error) error {
	if s.shared() {
		return s.pieces(ctx, f.ID, 0, f.Bytes, each)
	}
	in, err := os.Open(s.path(f.ID))
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	defer in.Close()
	piece := make([]byte, 256<<10)
	for left := f.Bytes; left > 0; {
		n, err := io.ReadFull(in, piece[:min(left, int64(len(piece)))])
		if err != nil {
			return fmt.Errorf("batch: %s is shorter than it was: %w", f.ID, err)
		}
		if err := each(piece[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// files returns the files of a key, newest first; of every key where all is set.
func (s *Service) files(ctx context.Context, keyID string, all bool) ([]*File, error) {
	var list []*File
	err := s.opts.Store.View(ctx, func(tx *store.Tx) error {
		records, err := tx.Records(kindFile).List()
		for _, r := range records {
			f := &File{}
			if err := json.Unmarshal(r.Value, f); err != nil {
				return fmt.Errorf("batch: %s: %w", r.Name, err)
			}
			if all || f.KeyID == keyID && s.opts.Now().Before(f.Expires) {
				list = append(list, f)
			}
		}
		return err
	})
	slices.Reverse(list)
	return list, err
}

// remove deletes a file, unless a batch that has not ended reads or writes it.
func (s *Service) remove(ctx context.Context, f *File) error {
	batches, err := List(ctx, s.opts.Store)
	if err != nil {
		return err
	}
	for _, b := range batches {
		if b.Input == f.ID && !b.over() {
			return &openai.Error{Status: 409, Type: "invalid_request_error", Code: "file_in_use",
				Message: "The file is the input of a batch that has not ended: cancel the batch first."}
		}
	}
	err = s.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Records(kindFile).Delete(f.ID) })
	if err == nil {
		err = s.removePath(ctx, f.ID)
	}
	return err
}

// removePath deletes a file, here and where other gateways find it.
func (s *Service) removePath(ctx context.Context, name string) error {
	if s.shared() {
		if err := s.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Files().Delete(name) }); err != nil {
			return err
		}
	}
	return s.removeHere(name)
}

// removeHere deletes a file of the folder.
func (s *Service) removeHere(name string) error {
	info, err := os.Stat(s.path(name))
	if err != nil {
		return nil // gone already
	}
	if err := os.Remove(s.path(name)); err != nil {
		return fmt.Errorf("batch: delete a file: %w", err)
	}
	s.used.Add(-info.Size())
	return nil
}

// sweep deletes what has expired.
func (s *Service) sweep(ctx context.Context) error {
	now := s.opts.Now()
	files, err := s.files(ctx, "", true)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !s.mine(f.Home) || now.Before(f.Expires) {
			continue
		}
		var inUse *openai.Error
		if err := s.remove(ctx, f); err != nil && !errors.As(err, &inUse) {
			return err
		}
	}
	batches, err := List(ctx, s.opts.Store)
	if err != nil {
		return err
	}
	for _, b := range batches {
		if !s.mine(b.Home) || !b.over() || now.Sub(b.Ended) < s.opts.Limits.Retention {
			continue
		}
		err := s.opts.Store.Update(ctx, func(tx *store.Tx) error {
			return errors.Join(tx.Records(kindBatch).Delete(b.ID), tx.Records(kindCancel).Delete(b.ID))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A grower appends to a file whose length a batch vouches for.
type grower struct {
	*os.File
	size int64
}

// grow opens a file and cuts it back to the length that is vouched for.
func (s *Service) grow(ctx context.Context, name string, size int64) (*grower, error) {
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	have, err := f.Seek(0, io.SeekEnd)
	if err == nil && s.shared() {
		have, err = s.catchUp(ctx, f, name, have, size)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil && have < size {
		err = fmt.Errorf("%s has %d bytes, %d were vouched for", name, have, size)
	}
	if err == nil {
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("batch: %w", err), f.Close())
	}
	s.used.Add(size - have)
	return &grower{File: f, size: size}, nil
}

// add appends and makes it durable.
func (s *Service) add(ctx context.Context, g *grower, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if _, err := g.Write(data); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	g.size += int64(len(data))
	s.used.Add(int64(len(data)))
	if s.shared() {
		return s.opts.Store.Update(ctx, func(tx *store.Tx) error {
			return tx.Files().Append(filepath.Base(g.Name()), g.size-int64(len(data)), data)
		})
	}
	if err := g.Sync(); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

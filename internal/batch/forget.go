package batch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"occam/internal/store"
)

// Forget removes lines of batches that have ended, by the IDs of their requests in the ledger, from the files that are kept: the
// request from what an app uploaded, the answer from what the batch wrote. It writes over them in place, so that every other line
// stays where it is, and returns how many lines it wrote over. dir is the folder of the files. Lines of a batch that has not ended
// are still needed: that is an error, and nothing is removed.
func Forget(ctx context.Context, st *store.Store, dir string, requests []string) (lines int64, err error) {
	s := &Service{opts: Options{Store: st, Dir: dir}} // files without a runner
	all, err := List(ctx, st)
	if err != nil {
		return 0, err
	}
	files := map[string][]lineEraser{}
	for _, b := range all {
		erase := erasing(b, requests)
		if len(erase) == 0 {
			continue
		}
		for _, other := range all {
			if !other.over() && other.Input == b.Input {
				return 0, fmt.Errorf("batch %s has not ended, so its lines are still needed: wait for it or cancel it, then forget again", other.ID)
			}
		}
		e := lineEraser{b, erase}
		for _, name := range []string{b.Input, b.Output, b.Errors} {
			files[name] = append(files[name], e)
		}
	}
	for name, erasers := range files {
		n, err := s.eraseIn(ctx, name, erasers)
		if lines += n; err != nil {
			return lines, err
		}
	}
	return lines, nil
}

// erasing are those of some requests that may be a batch's: their IDs begin with its time.
func erasing(b *Batch, requests []string) map[string]bool {
	const timeLetters = 10 // of a ULID
	erase := map[string]bool{}
	for _, id := range requests {
		if began := store.NewIDOf(b.Created, [10]byte{}); len(id) == len(began) && id[:timeLetters] == began[:timeLetters] {
			erase[id] = true
		}
	}
	return erase
}

// A lineEraser knows the lines of one batch that are to go.
type lineEraser struct {
	b        *Batch
	requests map[string]bool
}

// over returns what is written over a line; nil where it stays. A request becomes an empty line, a result says what became of it.
func (e lineEraser) over(name string, text []byte) []byte {
	if name == e.b.Input {
		l := lineIn{text: bytes.TrimPrefix(text, mark)}
		if e.b.parse(&l); !e.requests[l.request] {
			return nil
		}
		return []byte{}
	}
	var in struct{ ID string }
	if json.Unmarshal(text, &in) != nil || len(in.ID) < len(resultPrefix) || !e.requests[in.ID[len(resultPrefix):]] {
		return nil
	}
	left := appendResult(nil, &result{ID: in.ID, Error: &problem{Code: "forgotten"}})
	return left[:len(left)-1]
}

// eraseIn writes over the lines of one file.
func (s *Service) eraseIn(ctx context.Context, name string, erasers []lineEraser) (lines int64, err error) {
	in, err := s.reading(ctx, name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // deleted, or expired
	}
	if err != nil {
		return 0, err
	}
	defer in.Close()
	r := &reader{in: bufio.NewReaderSize(in, 256<<10)}
	for {
		from := r.offset
		text, _, err := r.next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		for _, e := range erasers {
			left := e.over(name, text)
			if left == nil {
				continue
			}
			to := r.offset
			if r.ended {
				to-- // its end stays
			}
			if err := s.overwrite(ctx, name, from, to, left); err != nil {
				return lines, err
			}
			lines++
			break
		}
	}
}

// overwrite replaces the bytes from one offset to another by what is left of a line, and blanks.
func (s *Service) overwrite(ctx context.Context, name string, from, to int64, left []byte) error {
	blank := bytes.Repeat([]byte{' '}, int(to-from))
	if len(left) <= len(blank) {
		copy(blank, left)
	}
	if s.shared() {
		return s.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Files().Replace(name, from, blank) })
	}
	f, err := os.OpenFile(s.path(name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("batch: forget lines: %w", err)
	}
	_, err = f.WriteAt(blank, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("batch: forget lines: %w", err)
	}
	return nil
}

// reading opens a stored file from its beginning; os.ErrNotExist where there is none.
func (s *Service) reading(ctx context.Context, name string) (io.ReadCloser, error) {
	if !s.shared() {
		return os.Open(s.path(name))
	}
	p := &pieceReader{s: s, ctx: ctx, name: name}
	if err := p.fill(); err == io.EOF {
		return nil, os.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	return io.NopCloser(p), nil
}

// A pieceReader reads a file of the database.
type pieceReader struct {
	s    *Service
	ctx  context.Context
	name string
	at   int64 // where the next piece begins
	left []byte
}

func (p *pieceReader) fill() error {
	err := p.s.opts.Store.View(p.ctx, func(tx *store.Tx) (err error) { p.left, err = tx.Files().Piece(p.name, p.at); return err })
	if errors.Is(err, store.ErrNotFound) {
		return io.EOF
	}
	p.at += int64(len(p.left))
	return err
}

// Read implements io.Reader.
func (p *pieceReader) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

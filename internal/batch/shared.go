package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"occam/internal/store"
)

// Gateways that share a PostgreSQL database share files and batches too. The database holds the files, a gateway's folder only copies
// of those that it works with. A batch is worked on by the gateway that has its lease; when that one shows no life any more, another
// goes on from what the batch's row vouches for.

const (
	kindLease = "batch_lease"
	leaseTerm = 20 * time.Second // less than listLag: who lost a lease cannot be asking a provider any more when the next one does
)

// A lease is the claim of one process on a batch.
type lease struct {
	Owner string    `json:"owner"`
	Until time.Time `json:"until"`
}

func (s *Service) shared() bool { return s.opts.Store.Shared() }

// mine reports whether what a folder's owner made is this gateway's to look after.
func (s *Service) mine(home string) bool { return s.shared() || home == s.home }

// hold claims a batch, or renews the claim. It is false where another process has it.
func (s *Service) hold(ctx context.Context, id string) (held bool, err error) {
	err = s.opts.Store.Update(ctx, func(tx *store.Tx) error {
		leases := tx.Records(kindLease)
		have, err := leases.Get(id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var l lease
		if len(have.Value) > 0 && json.Unmarshal(have.Value, &l) != nil {
			l = lease{} // damaged: anybody's
		}
		now := s.opts.Now()
		if held = l.Owner == s.owner || !now.Before(l.Until); !held {
			return nil
		}
		have.Name = id
		if have.Value, err = json.Marshal(lease{s.owner, now.Add(s.opts.Limits.lease)}); err != nil {
			return err
		}
		return leases.Put(have)
	})
	if errors.Is(err, store.ErrConflict) {
		return false, nil // another one was quicker
	}
	return held && err == nil, err
}

// release lets another process have a batch at once, or removes the lease of one that has ended.
func (s *Service) release(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.Limits.lease)
	defer cancel()
	err := s.opts.Store.Update(ctx, func(tx *store.Tx) error {
		leases := tx.Records(kindLease)
		have, err := leases.Get(id)
		var l lease
		if err == nil && json.Unmarshal(have.Value, &l) == nil && l.Owner == s.owner {
			return leases.Delete(id)
		}
		return nil
	})
	if err != nil {
		s.opts.Log.Warn("batch: its lease could not be given up; it runs out by itself", "batch", id, "error", err)
	}
}

// tend renews the leases of the batches that run here, and takes on those that nobody works on.
func (s *Service) tend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Limits.lease/4)
	defer cancel()
	s.mu.Lock()
	running := make(map[string]*run, len(s.running))
	for id, r := range s.running {
		running[id] = r
	}
	s.mu.Unlock()
	var failed error
	for id, r := range running {
		asked := time.Now()
		held, err := s.hold(ctx, id)
		switch {
		case held:
			r.until.Reset(s.opts.Limits.lease - time.Since(asked))
		case err == nil:
			r.stop()
		}
		failed = errors.Join(failed, err, r.hear(ctx))
	}
	all, err := List(ctx, s.opts.Store)
	if err != nil {
		return errors.Join(failed, err)
	}
	for _, b := range all {
		if running[b.ID] != nil || b.over() || len(running) >= s.opts.Limits.Active {
			continue
		}
		if err := s.takeOn(ctx, b.ID); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// takeOn works on a batch if nobody else does.
func (s *Service) takeOn(ctx context.Context, id string) error {
	held, err := s.hold(ctx, id)
	if err != nil || !held {
		return err
	}
	b, err := Get(ctx, s.opts.Store, id) // as its last worker left it
	if err != nil || b.over() {
		s.release(id)
		return err
	}
	if b.Lines > 0 {
		s.opts.Log.Info("batch: this gateway goes on with it", "batch", id, "lines", b.Lines)
	}
	s.begin(b)
	return nil
}

// recount counts what all gateways store.
func (s *Service) recount(ctx context.Context) error {
	if !s.shared() {
		return nil
	}
	return s.opts.Store.View(ctx, func(tx *store.Tx) error {
		sum, err := tx.Files().Bytes()
		s.used.Store(sum)
		return err
	})
}

// handOver moves a file from the folder into the database.
func (s *Service) handOver(ctx context.Context, name string) error {
	f, err := os.Open(s.path(name))
	if err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	defer f.Close()
	piece := make([]byte, store.FilePiece)
	for at := int64(0); ; {
		n, err := io.ReadFull(f, piece)
		if n > 0 {
			if err := s.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Files().Append(name, at, piece[:n]) }); err != nil {
				return err
			}
			at += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return s.removeHere(name)
		}
		if err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
}

// pieces hands over a file of the database from an offset at which a piece begins.
func (s *Service) pieces(ctx context.Context, name string, from, size int64, each func([]byte) error) error {
	for from < size {
		var piece []byte
		err := s.opts.Store.View(ctx, func(tx *store.Tx) (err error) { piece, err = tx.Files().Piece(name, from); return err })
		if err != nil {
			return err
		}
		if len(piece) == 0 {
			return fmt.Errorf("batch: %s is damaged at byte %d", name, from)
		}
		from += int64(len(piece))
		if err := each(piece); err != nil {
			return err
		}
	}
	return nil
}

// catchUp brings the copy of a file to the length that is vouched for, and cuts the database's.
func (s *Service) catchUp(ctx context.Context, f *os.File, name string, have, size int64) (int64, error) {
	if err := s.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.Files().Cut(name, size) }); err != nil || have >= size {
		return have, err
	}
	if err := f.Truncate(0); err != nil {
		return have, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return have, err
	}
	s.used.Add(-have)
	err := s.pieces(ctx, name, 0, size, func(piece []byte) error { _, err := f.Write(piece); return err })
	s.used.Add(size)
	return size, err
}

// openHere opens a file for reading. A gateway that shares its database copies what it does not have, size bytes of it.
func (s *Service) openHere(ctx context.Context, name string, size int64) (*os.File, error) {
	f, err := os.Open(s.path(name))
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, os.ErrNotExist) || !s.shared() {
		return nil, fmt.Errorf("batch: %w", err)
	}
	copied, err := s.grow(ctx, name, size)
	if err != nil {
		return nil, err
	}
	if _, err := copied.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, copied.Close())
	}
	return copied.File, nil
}

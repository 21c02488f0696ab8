package store

import (
	"database/sql"
	"fmt"
)

// Files is the group of files that processes which share a PostgreSQL database hand each other: what apps upload for batches, and
// what batches write. A file is its pieces, one after another.
type Files struct{ t *Tx }

// Files returns the group.
func (t *Tx) Files() Files { return Files{t} }

// FilePiece is how much one row of a file holds at most, in bytes.
const FilePiece = 1 << 20

// Append writes data behind the first size bytes of a file. What stood there before is gone: it was not vouched for.
func (g Files) Append(name string, size int64, data []byte) error {
	if err := g.Cut(name, size); err != nil {
		return err
	}
	for at := 0; at < len(data); at += FilePiece {
		piece := data[at:min(at+FilePiece, len(data))]
		if _, err := g.t.exec(`INSERT INTO file_parts (name, start, data) VALUES (?,?,?)`, name, size+int64(at), piece); err != nil {
			return err
		}
	}
	return nil
}

// Cut leaves the first size bytes of a file.
func (g Files) Cut(name string, size int64) error {
	if _, err := g.t.exec(`DELETE FROM file_parts WHERE name = ? AND start >= ?`, name, size); err != nil {
		return err
	}
	last, at, err := g.last(name)
	if err != nil || at+int64(len(last)) <= size {
		return err
	}
	_, err = g.t.exec(`UPDATE file_parts SET data = ? WHERE name = ? AND start = ?`, last[:size-at], name, at)
	return err
}

// last is the last piece of a file and where it begins; nil and 0 where there is no file.
func (g Files) last(name string) (piece []byte, at int64, err error) {
	err = g.t.all(func(rows *sql.Rows) error { return rows.Scan(&at, &piece) },
		`SELECT start, data FROM file_parts WHERE name = ? ORDER BY start DESC LIMIT 1`, name)
	return piece, at, err
}

// Piece returns the piece of a file that begins at an offset: the next one begins behind it. ErrNotFound where none does.
func (g Files) Piece(name string, at int64) ([]byte, error) {
	var piece []byte
	if err := g.t.one([]any{&piece}, `SELECT data FROM file_parts WHERE name = ? AND start = ?`, name, at); err != nil {
		return nil, fmt.Errorf("store: file %s at byte %d: %w", name, at, err)
	}
	return piece, nil
}

// Replace writes other bytes over a file's own, from an offset on; nothing else moves.
func (g Files) Replace(name string, at int64, data []byte) error {
	type piece struct {
		start int64
		data  []byte
	}
	var touched []piece
	err := g.t.all(func(rows *sql.Rows) error {
		var p piece
		err := rows.Scan(&p.start, &p.data)
		touched = append(touched, p)
		return err
	}, `SELECT start, data FROM file_parts WHERE name = ? AND start > ? AND start < ? ORDER BY start`, name, at-FilePiece, at+int64(len(data)))
	if err != nil {
		return err
	}
	for _, p := range touched {
		from, to := max(at, p.start), min(at+int64(len(data)), p.start+int64(len(p.data)))
		if from >= to {
			continue
		}
		copy(p.data[from-p.start:to-p.start], data[from-at:to-at])
		if _, err := g.t.exec(`UPDATE file_parts SET data = ? WHERE name = ? AND start = ?`, p.data, name, p.start); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a file; it need not exist.
func (g Files) Delete(name string) error {
	_, err := g.t.exec(`DELETE FROM file_parts WHERE name = ?`, name)
	return err
}

// Bytes is how much all files hold together.
func (g Files) Bytes() (sum int64, err error) {
	return sum, g.t.one([]any{&sum}, `SELECT COALESCE(SUM(LENGTH(data)), 0) FROM file_parts`)
}

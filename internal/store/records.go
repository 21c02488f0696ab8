package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"
)

// Records is a group of small JSON documents by kind and name: detector state, settings, alerts sent.
type Records struct {
	t    *Tx
	kind string
}

// Records returns the group of one kind.
func (t *Tx) Records(kind string) Records { return Records{t, kind} }

// A Record is one document.
type Record struct {
	Name    string
	Version int64 // counts changes; 0 in one that is to be created
	Value   json.RawMessage
	Updated time.Time
}

// MaxRecord bounds a document, in bytes.
const MaxRecord = 1 << 20

// Get returns a document; ErrNotFound when there is none.
func (g Records) Get(name string) (Record, error) {
	r := Record{Name: name}
	var value string
	var updated int64
	err := g.t.one([]any{&r.Version, &value, &updated}, `SELECT version, value, updated_at FROM records WHERE kind = ? AND name = ?`,
		g.kind, name)
	r.Value, r.Updated = rawJSON(value), moment(updated)
	return r, err
}

// List returns all documents of the kind by name.
func (g Records) List() ([]Record, error) {
	var all []Record
	err := g.t.all(func(rows *sql.Rows) error {
		var r Record
		var value string
		var updated int64
		err := rows.Scan(&r.Name, &r.Version, &value, &updated)
		r.Value, r.Updated = rawJSON(value), moment(updated)
		all = append(all, r)
		return err
	}, `SELECT name, version, value, updated_at FROM records WHERE kind = ? ORDER BY name`, g.kind)
	return all, err
}

// Put writes a document. r.Version is the version that the change was based on, 0 to create it; ErrConflict when somebody
// else changed it meanwhile.
func (g Records) Put(r Record) error {
	value, err := jsonText(r.Value)
	if err != nil {
		return err
	}
	if len(value) > MaxRecord {
		return fmt.Errorf("store: %s %s has %d bytes, at most %d are kept", g.kind, r.Name, len(value), MaxRecord)
	}
	conflict := fmt.Errorf("store: %s %s: %w", g.kind, r.Name, ErrConflict)
	now := nanos(g.t.now())
	if r.Version == 0 {
		return g.t.change(conflict, `INSERT INTO records (kind, name, version, value, updated_at) VALUES (?,?,1,?,?)
			ON CONFLICT (kind, name) DO NOTHING`, g.kind, r.Name, value, now)
	}
	return g.t.change(conflict, `UPDATE records SET value = ?, version = version + 1, updated_at = ?
		WHERE kind = ? AND name = ? AND version = ?`, value, now, g.kind, r.Name, r.Version)
}

// Delete removes a document; it need not exist.
func (g Records) Delete(name string) error {
	_, err := g.t.exec(`DELETE FROM records WHERE kind = ? AND name = ?`, g.kind, name)
	return err
}

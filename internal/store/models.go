package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Models is the group of trained models.
type Models struct{ t *Tx }

// Models returns the group.
func (t *Tx) Models() Models { return Models{t} }

// A Model is one trained model. Its file never changes: it is named by its own hash.
type Model struct {
	ID          string // "task@" and the first 8 hex digits of the hash
	Task        string
	Tier        string // "linear", "encoder", …
	Hash        string // SHA-256 of the file, in hex; for a model served elsewhere, what identifies its weights
	Bytes       int64  // of the file, 0 when it is served elsewhere
	Created     time.Time
	Certificate json.RawMessage // nil: it may not answer
	Report      json.RawMessage // what evaluation measured
}

// SaveModel stores a model's file, durably, and returns its hash. The model exists once Models.Add has its row; a file
// without a row is removed by CleanModels.
func (s *Store) SaveModel(ctx context.Context, content []byte) (hash string, err error) {
	sum := sha256.Sum256(content)
	hash = hex.EncodeToString(sum[:])
	if err := s.writeModelFile(hash, content); err != nil {
		return "", fmt.Errorf("store: save model %s: %w", hash[:8], err)
	}
	if s.dialect != postgres {
		return hash, nil
	}
	err = s.Update(ctx, func(tx *Tx) error {
		for part := 0; part*modelPart < len(content); part++ {
			piece := content[part*modelPart : min((part+1)*modelPart, len(content))]
			if _, err := tx.exec(`INSERT INTO model_parts (hash, part, data) VALUES (?,?,?) ON CONFLICT (hash, part) DO NOTHING`,
				hash, part, piece); err != nil {
				return err
			}
		}
		return nil
	})
	return hash, err
}

// modelPart is how much of a model's file one row holds, where other processes get it from the database.
const modelPart = 1 << 20

// modelPath is where the file with a hash is.
func (s *Store) modelPath(hash string) string { return filepath.Join(s.dir, "models", hash+".occam") }

// writeModelFile puts the file in place in one step: a reader sees all of it or nothing.
func (s *Store) writeModelFile(hash string, content []byte) error {
	dir := filepath.Dir(s.modelPath(hash))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has its name
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.modelPath(hash)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes renames in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LoadModel returns a model's file and checks it against its hash. A process that shares a PostgreSQL database gets a file that
// it does not have from there. A file that was changed or cut is refused; where the database holds it, it is replaced.
func (s *Store) LoadModel(ctx context.Context, hash string) ([]byte, error) {
	if sum, err := hex.DecodeString(hash); err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("store: %.80q is no hash of a model", hash)
	}
	content, err := os.ReadFile(s.modelPath(hash))
	if err == nil && isHash(content, hash) {
		return content, nil
	}
	if err == nil {
		err = errors.New("the file was changed: it does not match its hash")
	}
	if s.dialect != postgres {
		return nil, fmt.Errorf("store: load model %s: %w", hash[:8], err)
	}
	content = nil
	if err := s.View(ctx, func(tx *Tx) error {
		return tx.all(func(rows *sql.Rows) error {
			var piece []byte
			err := rows.Scan(&piece)
			content = append(content, piece...)
			return err
		}, `SELECT data FROM model_parts WHERE hash = ? ORDER BY part`, hash)
	}); err != nil {
		return nil, err
	}
	if !isHash(content, hash) {
		return nil, fmt.Errorf("store: load model %s: the database does not hold it", hash[:8])
	}
	return content, s.writeModelFile(hash, content)
}

func isHash(content []byte, hash string) bool {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]) == hash
}

// CleanModels removes files that no model has, older than an hour: a training run may be about to add its own.
func (s *Store) CleanModels(ctx context.Context) (removed int, err error) {
	used := map[string]bool{}
	if err := s.View(ctx, func(tx *Tx) error {
		models, err := tx.Models().List("")
		for _, m := range models {
			used[filepath.Base(s.modelPath(m.Hash))] = true
		}
		return err
	}); err != nil {
		return 0, err
	}
	files, err := os.ReadDir(filepath.Dir(s.modelPath("")))
	if os.IsNotExist(err) {
		return 0, nil
	}
	for _, f := range files {
		info, infoErr := f.Info()
		if infoErr != nil || used[f.Name()] || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(s.modelPath("")), f.Name())))
		removed++
	}
	return removed, err
}

const modelColumns = `id, task, tier, hash, bytes, created_at, certificate, report`

func (m *Model) scan(scan func(...any) error) error {
	var created int64
	var certificate, report string
	err := scan(&m.ID, &m.Task, &m.Tier, &m.Hash, &m.Bytes, &created, &certificate, &report)
	m.Created, m.Certificate, m.Report = moment(created), rawJSON(certificate), rawJSON(report)
	return err
}

// Add records a model, whose file SaveModel has stored. Its ID follows from its task and hash. A model that is recorded
// already is left as it is.
func (g Models) Add(m Model) (Model, error) {
	if len(m.Hash) < 8 || len(m.Hash) > 2*maxName || m.Task == "" {
		return Model{}, fmt.Errorf("store: a model needs a task and a hash, have %q and %q", m.Task, m.Hash)
	}
	certificate, err := jsonText(m.Certificate)
	if err != nil {
		return Model{}, err
	}
	report, err := jsonText(m.Report)
	if err != nil {
		return Model{}, err
	}
	m.ID = m.Task + "@" + m.Hash[:8]
	if _, err := g.t.exec(`INSERT INTO models (`+modelColumns+`) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING`,
		m.ID, m.Task, m.Tier, m.Hash, m.Bytes, nanos(g.t.now()), certificate, report); err != nil {
		return Model{}, err
	}
	g.t.changed = true
	return g.Get(m.ID)
}

// Get returns a model; ErrNotFound when there is none.
func (g Models) Get(id string) (Model, error) {
	var m Model
	err := m.scan(func(into ...any) error { return g.t.one(into, `SELECT `+modelColumns+` FROM models WHERE id = ?`, id) })
	if err != nil {
		return Model{}, fmt.Errorf("store: model %s: %w", id, err)
	}
	return m, nil
}

// List returns the models of a task, of all tasks when it is "", newest first.
func (g Models) List(taskName string) ([]Model, error) {
	var all []Model
	err := g.t.all(func(rows *sql.Rows) error {
		var m Model
		err := m.scan(rows.Scan)
		all = append(all, m)
		return err
	}, `SELECT `+modelColumns+` FROM models WHERE (? = '' OR task = ?) ORDER BY pos DESC`, taskName, taskName)
	return all, err
}

// SetCertificate replaces a model's certificate; nil takes it away.
func (g Models) SetCertificate(id string, certificate json.RawMessage) error {
	text, err := jsonText(certificate)
	if err != nil {
		return err
	}
	g.t.changed = true
	return g.t.change(fmt.Errorf("store: model %s: %w", id, ErrNotFound), `UPDATE models SET certificate = ? WHERE id = ?`, text, id)
}

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"occam/internal/task"
)

// Examples is the group of inputs that were kept and what was said about them.
type Examples struct{ t *Tx }

// Examples returns the group.
func (t *Tx) Examples() Examples { return Examples{t} }

// MaxText bounds the text of an example, in bytes.
const MaxText = 32 << 10

// An Example is one input of a task, kept because capture is on or because it was imported.
type Example struct {
	ID        string // unique: the request's ID, or an import's own
	Task      string
	RequestID string // "" of an import
	At        time.Time
	Text      string // the task's input, at most MaxText; "" after redaction
	InputHash uint64
	Gold      bool // locked: only for the final test, never for training or calibration
	Uniform   bool // drawn at random from the task's traffic: it may calibrate and test
	Labels    []Label
}

// A Label is what somebody said the right answer is.
type Label struct {
	Example   string // ID of the example
	At        time.Time
	Key       string      // virtual key or user that gave it: labels are revoked by it
	Source    string      // "person", "import", or the model that answered
	Prompt    string      // hash of the prompt that a model answered, "" otherwise
	Output    task.Output // field by field
	Trainable bool        // false when the source's terms forbid training on it
}

// maxCaptured bounds the text that waits to be written, in bytes.
const maxCaptured = 32 << 20

// Capture keeps an example with its labels soon, sharing a commit with the ledger's rows, for use behind a request. An example
// whose ID is known is left as it is, but that it may become Uniform; its labels are added. When too much waits it returns ErrBusy: an example may be missed,
// a row of the ledger may not.
func (s *Store) Capture(ctx context.Context, e Example) error {
	if s.writer == nil {
		return errReadOnly
	}
	if err := e.check(); err != nil {
		return err
	}
	statements, err := e.statements(s.redact)
	if err != nil {
		return err
	}
	size := int64(len(e.Text)) + 1024
	if s.writer.captured.Add(size) > maxCaptured {
		s.writer.captured.Add(-size)
		return fmt.Errorf("%w: %d MB of examples wait", ErrBusy, maxCaptured>>20)
	}
	err = s.writer.queueFree(ctx, &event{kind: kindCapture, statements: statements, size: size})
	if err != nil {
		s.writer.captured.Add(-size)
	}
	return err
}

func (e *Example) check() error {
	switch {
	case e.ID == "" || len(e.ID) > maxName || e.Task == "" || len(e.Task) > maxName || len(e.RequestID) > maxName:
		return fmt.Errorf("store: example %.64q of task %.64q: both need a name of at most %d bytes", e.ID, e.Task, maxName)
	case len(e.Text) > MaxText:
		return fmt.Errorf("store: example %s: its text has %d bytes, at most %d are kept", e.ID, len(e.Text), MaxText)
	case !utf8.ValidString(e.Text) || strings.ContainsRune(e.Text, 0):
		return fmt.Errorf("store: example %s: its text is not valid UTF-8", e.ID)
	}
	for _, l := range e.Labels {
		if err := l.check(); err != nil {
			return fmt.Errorf("store: example %s: %w", e.ID, err)
		}
	}
	return nil
}

func (l *Label) check() error {
	if l.Source == "" || len(l.Source) > maxModel || len(l.Key) > maxName || len(l.Prompt) > maxName {
		return fmt.Errorf("a label needs a source, and key, source and prompt hash are short: %.64q, %.128q, %.64q", l.Key, l.Source, l.Prompt)
	}
	return nil
}

const (
	insertExample = `INSERT INTO examples (id, task, request_id, at, text, input_hash, gold, uniform) VALUES (?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET uniform = CASE WHEN excluded.uniform = 1 THEN 1 ELSE examples.uniform END`
	insertLabel = `INSERT INTO labels (example, at, key_id, source, prompt, output, trainable, revoked_at) VALUES (?,?,?,?,?,?,?,0)
		ON CONFLICT (example, key_id, source) DO UPDATE SET at = excluded.at, prompt = excluded.prompt, output = excluded.output,
		trainable = excluded.trainable, revoked_at = 0`
)

// statements returns what stores the example, redacted where that is wanted.
func (e *Example) statements(redact func(string) string) ([]statement, error) {
	text := e.Text
	if redact != nil {
		text = redact(text)
	}
	all := []statement{{insertExample, []any{e.ID, e.Task, e.RequestID, nanos(e.At), text, int64(e.InputHash), flag(e.Gold),
		flag(e.Uniform)}, mayTouch}}
	for _, l := range e.Labels {
		l.Example = e.ID
		s, err := l.statement(redact)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// statement returns what stores the label. One whose own content had to be redacted is kept, but never trained on: it would
// teach to answer "[email]".
func (l Label) statement(redact func(string) string) (statement, error) {
	output, changed := redactOutput(l.Output, redact)
	text, err := json.Marshal(output)
	if err != nil {
		return statement{}, fmt.Errorf("store: label example %s: %w", l.Example, err)
	}
	return statement{insertLabel, []any{l.Example, nanos(l.At), l.Key, l.Source, l.Prompt, string(text), flag(l.Trainable && !changed)}, mayTouch}, nil
}

// Add keeps examples with their labels. An ID that is known keeps its text; its labels are added.
func (g Examples) Add(examples ...Example) error {
	for _, e := range examples {
		if err := e.check(); err != nil {
			return err
		}
		statements, err := e.statements(g.t.store.redact)
		if err != nil {
			return err
		}
		for _, s := range statements {
			if _, err := g.t.exec(s.query, s.args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Label adds what somebody said about an example. A second label by the same key and source replaces the first.
// ErrNotFound when there is no such example.
func (g Examples) Label(l Label) error {
	if err := l.check(); err != nil {
		return err
	}
	var known int
	if err := g.t.one([]any{&known}, `SELECT 1 FROM examples WHERE id = ?`, l.Example); err != nil {
		return fmt.Errorf("store: label example %s: %w", l.Example, err)
	}
	s, err := l.statement(g.t.store.redact)
	if err != nil {
		return err
	}
	_, err = g.t.exec(s.query, s.args...)
	return err
}

// Revoke takes back every label that a key gave, and returns how many there were.
func (g Examples) Revoke(key string) (int64, error) {
	return g.t.exec(`UPDATE labels SET revoked_at = ? WHERE key_id = ? AND revoked_at = 0`, nanos(g.t.now()), key)
}

// SetGold locks examples into the gold set, or frees them.
func (g Examples) SetGold(gold bool, ids ...string) error {
	for _, id := range ids {
		if err := g.t.change(fmt.Errorf("store: example %s: %w", id, ErrNotFound),
			`UPDATE examples SET gold = ? WHERE id = ?`, flag(gold), id); err != nil {
			return err
		}
	}
	return nil
}

// Page returns up to limit examples of a task in the order they came, with the labels that were not revoked, after a cursor
// (0 at first), and the cursor of the next page, 0 after the last.
func (g Examples) Page(taskName string, after int64, limit int) (page []Example, next int64, err error) {
	page, _, last, err := g.some(taskName, `pos > ? ORDER BY pos LIMIT ?`, after, limit)
	if len(page) == limit {
		next = last
	}
	return page, next, err
}

// Before returns a task's newest examples from before a time, with their labels, the newest first.
func (g Examples) Before(taskName string, at time.Time, limit int) ([]Example, error) {
	page, _, _, err := g.some(taskName, `at < ? ORDER BY pos DESC LIMIT ?`, nanos(at), limit)
	return page, err
}

// some reads the examples of a task that a condition selects, with their labels, and the positions between which they lie.
func (g Examples) some(taskName, where string, args ...any) (page []Example, first, last int64, err error) {
	place := map[string]int{}
	var pos int64
	err = g.t.all(func(rows *sql.Rows) error {
		var e Example
		var at, hash, gold, uniform int64
		err := rows.Scan(&pos, &e.ID, &e.Task, &e.RequestID, &at, &e.Text, &hash, &gold, &uniform)
		e.At, e.InputHash, e.Gold, e.Uniform = moment(at), uint64(hash), gold != 0, uniform != 0
		if place[e.ID] = len(page); len(page) == 0 {
			first, last = pos, pos
		}
		first, last = min(first, pos), max(last, pos)
		page = append(page, e)
		return err
	}, `SELECT pos, id, task, request_id, at, text, input_hash, gold, uniform FROM examples WHERE task = ? AND `+where, append([]any{taskName}, args...)...)
	if err != nil || len(page) == 0 {
		return nil, 0, 0, err
	}
	err = g.labels(func(l Label) {
		if i, ok := place[l.Example]; ok {
			page[i].Labels = append(page[i].Labels, l)
		}
	}, `e.task = ? AND e.pos >= ? AND e.pos <= ?`, taskName, first, last)
	return page, first, last, err
}

// labels reads the labels of some examples that were not revoked, oldest first.
func (g Examples) labels(visit func(Label), where string, args ...any) error {
	return g.t.all(func(rows *sql.Rows) error {
		var l Label
		var at, trainable int64
		var output string
		if err := rows.Scan(&l.Example, &at, &l.Key, &l.Source, &l.Prompt, &output, &trainable); err != nil {
			return err
		}
		l.At, l.Trainable = moment(at), trainable != 0
		if err := json.Unmarshal([]byte(output), &l.Output); err != nil {
			return fmt.Errorf("label of example %s: %w", l.Example, err)
		}
		visit(l)
		return nil
	}, `SELECT l.example, l.at, l.key_id, l.source, l.prompt, l.output, l.trainable FROM labels l JOIN examples e ON e.id = l.example
		WHERE l.revoked_at = 0 AND `+where+` ORDER BY l.pos`, args...)
}

// ByRequest returns the example of a request; ErrNotFound when none was kept.
func (g Examples) ByRequest(requestID string) (Example, error) {
	var e Example
	var at, hash, gold, uniform int64
	err := g.t.one([]any{&e.ID, &e.Task, &e.RequestID, &at, &e.Text, &hash, &gold, &uniform},
		`SELECT id, task, request_id, at, text, input_hash, gold, uniform FROM examples WHERE request_id = ? ORDER BY pos LIMIT 1`, requestID)
	if err != nil {
		return Example{}, err
	}
	e.At, e.InputHash, e.Gold, e.Uniform = moment(at), uint64(hash), gold != 0, uniform != 0
	err = g.labels(func(l Label) { e.Labels = append(e.Labels, l) }, `e.id = ?`, e.ID)
	return e, err
}

// An ExampleCount says how much there is to learn from.
type ExampleCount struct {
	Examples int64 `json:"examples"`
	Gold     int64 `json:"gold"`
	Labelled int64 `json:"labelled"`  // with at least one label that may be trained on
	ByPerson int64 `json:"by_person"` // of these, with a label by a person
	Uniform  int64 `json:"uniform"`   // of Labelled, those that were drawn at random and came at the given time or later
	Barred   int64 `json:"barred"`    // with labels, none of which may be trained on
}

// Count counts a task's examples, Uniform since a moment.
func (g Examples) Count(taskName string, since time.Time) (ExampleCount, error) {
	const some = `EXISTS (SELECT 1 FROM labels l WHERE l.example = e.id AND l.revoked_at = 0`
	var c ExampleCount
	err := g.t.one([]any{&c.Examples, &c.Gold, &c.Labelled, &c.ByPerson, &c.Uniform, &c.Barred}, `SELECT COUNT(*),
		COALESCE(SUM(gold), 0), COALESCE(SUM(may), 0), COALESCE(SUM(person), 0),
		COALESCE(SUM(CASE WHEN uniform = 1 AND at >= ? THEN may ELSE 0 END), 0), COALESCE(SUM(has - may), 0)
		FROM (SELECT gold, uniform, at, CASE WHEN `+some+` AND l.trainable = 1) THEN 1 ELSE 0 END AS may,
			CASE WHEN `+some+` AND l.trainable = 1 AND l.source = 'person') THEN 1 ELSE 0 END AS person,
			CASE WHEN `+some+`) THEN 1 ELSE 0 END AS has FROM examples e WHERE task = ?) AS counted`, nanos(since), taskName)
	return c, err
}

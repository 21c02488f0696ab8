package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Tasks is the group of task states.
type Tasks struct{ t *Tx }

// Tasks returns the group.
func (t *Tx) Tasks() Tasks { return Tasks{t} }

// A TaskState is where a task is in its lifecycle. The store does not judge states: the lifecycle does.
type TaskState struct {
	Name    string
	State   string          // "observing", "candidate", …
	Version int64           // counts transitions; 0 in a task that is to be created
	Data    json.RawMessage // definition, live model and so on, as the lifecycle keeps them
	Updated time.Time
}

// A Transition is one step of a task's history.
type Transition struct {
	Task     string
	Version  int64 // after the step
	From, To string
	Reason   string
	Actor    string // key or user who asked for it, "occam" when it went on by itself
	At       time.Time
	Data     json.RawMessage // of the task, after the step
}

const taskColumns = `name, state, version, data, updated_at`

func (s *TaskState) targets(data *string, updated *int64) []any {
	return []any{&s.Name, &s.State, &s.Version, data, updated}
}

// Get returns a task; ErrNotFound when there is none.
func (g Tasks) Get(name string) (TaskState, error) {
	var s TaskState
	var data string
	var updated int64
	err := g.t.one(s.targets(&data, &updated), `SELECT `+taskColumns+` FROM tasks WHERE name = ?`, name)
	s.Data, s.Updated = rawJSON(data), moment(updated)
	return s, err
}

// List returns all tasks by name.
func (g Tasks) List() ([]TaskState, error) {
	var all []TaskState
	err := g.t.all(func(rows *sql.Rows) error {
		var s TaskState
		var data string
		var updated int64
		err := rows.Scan(s.targets(&data, &updated)...)
		s.Data, s.Updated = rawJSON(data), moment(updated)
		all = append(all, s)
		return err
	}, `SELECT `+taskColumns+` FROM tasks ORDER BY name`)
	return all, err
}

// Advance moves a task to next.State with next.Data and writes the step into its history. next.Version is the version that
// the decision was based on, 0 to create the task: when somebody else moved the task meanwhile it fails with ErrConflict,
// so of two operators who press the same button one wins. It returns the task as it is now.
func (g Tasks) Advance(next TaskState, reason, actor string) (TaskState, error) {
	data, err := jsonText(next.Data)
	if err != nil {
		return TaskState{}, err
	}
	now := g.t.now()
	from := ""
	if next.Version == 0 {
		err = g.t.change(fmt.Errorf("store: task %s: %w", next.Name, ErrExists),
			`INSERT INTO tasks (`+taskColumns+`) VALUES (?,?,1,?,?) ON CONFLICT (name) DO NOTHING`, next.Name, next.State, data, nanos(now))
	} else {
		have, getErr := g.Get(next.Name)
		if getErr != nil {
			return TaskState{}, fmt.Errorf("store: task %s: %w", next.Name, getErr)
		}
		from = have.State
		err = g.t.change(ErrConflict, `UPDATE tasks SET state = ?, version = version + 1, data = ?, updated_at = ?
			WHERE name = ? AND version = ?`, next.State, data, nanos(now), next.Name, next.Version)
		if errors.Is(err, ErrConflict) {
			if have, getErr = g.Get(next.Name); getErr != nil { // as the winner left it
				return TaskState{}, fmt.Errorf("store: task %s: %w", next.Name, getErr)
			}
			err = fmt.Errorf("store: task %s: %w: it is %s (version %d, not %d) since %s", next.Name, ErrConflict,
				have.State, have.Version, next.Version, have.Updated.Format(time.RFC3339))
		}
	}
	if err != nil {
		return TaskState{}, err
	}
	next.Version++
	next.Updated = moment(nanos(now))
	_, err = g.t.exec(`INSERT INTO transitions (task, version, from_state, to_state, reason, actor, at, data) VALUES (?,?,?,?,?,?,?,?)`,
		next.Name, next.Version, from, next.State, reason, actor, nanos(now), data)
	g.t.changed = true
	return next, err
}

// History returns the newest transitions of a task first, of all tasks when name is "", at most limit.
func (g Tasks) History(name string, limit int) ([]Transition, error) {
	var all []Transition
	err := g.t.all(func(rows *sql.Rows) error {
		var tr Transition
		var at int64
		var data string
		err := rows.Scan(&tr.Task, &tr.Version, &tr.From, &tr.To, &tr.Reason, &tr.Actor, &at, &data)
		tr.At, tr.Data = moment(at), rawJSON(data)
		all = append(all, tr)
		return err
	}, `SELECT task, version, from_state, to_state, reason, actor, at, data FROM transitions
		WHERE (? = '' OR task = ?) ORDER BY at DESC, task, version DESC LIMIT ?`, name, name, limit)
	return all, err
}

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"occam/internal/task"
)

// Reviews is the queue of inputs that a person should look at.
type Reviews struct{ t *Tx }

// Reviews returns the group.
func (t *Tx) Reviews() Reviews { return Reviews{t} }

// States of a review.
const (
	ReviewWaiting = "waiting"
	ReviewDone    = "done"
	ReviewSkipped = "skipped"
)

// A Review is one input that a person should look at. Its text is that of the example.
type Review struct {
	ID         string
	Task       string
	RequestID  string
	Example    string // ID of the example that holds the text
	At         time.Time
	Priority   float64 // most valuable first
	Reason     string  // "no tier may answer", "audit disagreement", "random slice"
	Suggestion json.RawMessage
	State      string
	Owner      string    // who has it on the screen
	LeaseUntil time.Time // until then nobody else gets it
	Closed     time.Time
	Output     task.Output // what the person said
}

// MaxWaiting bounds a task's queue: beyond it, the least valuable review gives way.
const MaxWaiting = 10_000

const reviewColumns = `id, task, request_id, example, at, priority, reason, suggestion, state, owner, lease_until, closed_at, output`

func (r *Review) scan(scan func(...any) error) error {
	var at, lease, closed int64
	var suggestion, output string
	if err := scan(&r.ID, &r.Task, &r.RequestID, &r.Example, &at, &r.Priority, &r.Reason, &suggestion, &r.State, &r.Owner, &lease,
		&closed, &output); err != nil {
		return err
	}
	r.At, r.LeaseUntil, r.Closed, r.Suggestion = moment(at), moment(lease), moment(closed), rawJSON(suggestion)
	if output == "" {
		return nil
	}
	return json.Unmarshal([]byte(output), &r.Output)
}

// Add puts an input into the queue. A review with the same ID is left as it is. When the task's queue is full the least
// valuable one is dropped, which may be the new one.
func (g Reviews) Add(r Review) error {
	suggestion, err := jsonText(r.Suggestion)
	if err != nil {
		return err
	}
	suggestion, _ = redactJSON(suggestion, g.t.store.redact)
	added, err := g.t.exec(`INSERT INTO reviews (`+reviewColumns+`) VALUES (?,?,?,?,?,?,?,?,'waiting','',0,0,'')
		ON CONFLICT (id) DO NOTHING`, r.ID, r.Task, r.RequestID, r.Example, nanos(r.At), r.Priority, clip(r.Reason, maxReason), suggestion)
	if err != nil || added == 0 {
		return err
	}
	waiting, err := g.Waiting(r.Task)
	if err != nil || waiting <= MaxWaiting {
		return err
	}
	_, err = g.t.exec(`DELETE FROM reviews WHERE id IN (SELECT id FROM reviews WHERE task = ? AND state = 'waiting'
		ORDER BY priority, id DESC LIMIT ?)`, r.Task, waiting-MaxWaiting)
	return err
}

// Waiting counts a task's open reviews.
func (g Reviews) Waiting(taskName string) (n int64, err error) {
	err = g.t.one([]any{&n}, `SELECT COUNT(*) FROM reviews WHERE task = ? AND state = 'waiting'`, taskName)
	return n, err
}

// Next gives the most valuable review that nobody else has on the screen to a person, for the length of the lease; one that
// the person has already comes first. ErrNotFound when there is nothing to do.
func (g Reviews) Next(taskName, owner string, lease time.Duration) (Review, error) {
	now := g.t.now()
	var id string
	err := g.t.one([]any{&id}, `SELECT id FROM reviews WHERE task = ? AND state = 'waiting' AND (owner = ? OR lease_until < ?)
		ORDER BY CASE WHEN owner = ? THEN 0 ELSE 1 END, priority DESC, id LIMIT 1`+g.t.store.dialect.lockRow(),
		taskName, owner, nanos(now), owner)
	if err != nil {
		return Review{}, err
	}
	if _, err := g.t.exec(`UPDATE reviews SET owner = ?, lease_until = ? WHERE id = ?`, owner, nanos(now.Add(lease)), id); err != nil {
		return Review{}, err
	}
	return g.Get(id)
}

// Get returns a review; ErrNotFound when there is none.
func (g Reviews) Get(id string) (Review, error) {
	return oneOf[Review](g.t, `SELECT `+reviewColumns+` FROM reviews WHERE id = ?`, id)
}

// ByRequest returns the review of a request; ErrNotFound when there is none.
func (g Reviews) ByRequest(requestID string) (Review, error) {
	return oneOf[Review](g.t, `SELECT `+reviewColumns+` FROM reviews WHERE request_id = ? ORDER BY at DESC LIMIT 1`, requestID)
}

// List returns a task's reviews in a state, the most valuable first.
func (g Reviews) List(taskName, state string, limit int) ([]Review, error) {
	return allOf[Review](g.t, `SELECT `+reviewColumns+` FROM reviews WHERE (? = '' OR task = ?) AND state = ? ORDER BY priority DESC, id LIMIT ?`,
		taskName, taskName, state, limit)
}

// Close ends a review: with what the person said, which becomes a label of the example, or skipped when output is nil.
// ErrConflict when somebody else closed it.
func (g Reviews) Close(id, owner string, output task.Output) (Review, error) {
	r, err := g.Get(id)
	if err != nil {
		return Review{}, fmt.Errorf("store: review %s: %w", id, err)
	}
	state, text := ReviewSkipped, ""
	if output != nil {
		output, _ = redactOutput(output, g.t.store.redact)
		raw, err := json.Marshal(output)
		if err != nil {
			return Review{}, fmt.Errorf("store: review %s: %w", id, err)
		}
		state, text = ReviewDone, string(raw)
	}
	now := g.t.now()
	if err := g.t.change(fmt.Errorf("store: review %s: %w: it is %s", id, ErrConflict, r.State),
		`UPDATE reviews SET state = ?, owner = ?, closed_at = ?, output = ? WHERE id = ? AND state = 'waiting'`,
		state, owner, nanos(now), text, id); err != nil {
		return Review{}, err
	}
	if output != nil {
		err := g.t.Examples().Label(Label{Example: r.Example, At: now, Key: owner, Source: "person", Output: output, Trainable: true})
		if err != nil && !errors.Is(err, ErrNotFound) { // the example may have expired; the review keeps the answer
			return Review{}, err
		}
	}
	return g.Get(id)
}

// lockRow is what a SELECT needs at its end so that two processes do not choose the same row. SQLite has one writer.
func (d dialect) lockRow() string {
	if d == postgres {
		return ` FOR UPDATE SKIP LOCKED`
	}
	return ""
}

// Answered returns reviews of at least some priority that were answered since a moment and that no record of a kind names, oldest
// first, at most limit: what is still to be passed on.
func (g Reviews) Answered(priority float64, since time.Time, kind string, limit int) ([]Review, error) {
	return allOf[Review](g.t, `SELECT `+reviewColumns+` FROM reviews WHERE state = 'done' AND priority >= ? AND closed_at >= ?
		AND NOT EXISTS (SELECT 1 FROM records WHERE kind = ? AND name = reviews.id) ORDER BY closed_at, id LIMIT ?`,
		priority, nanos(since), kind, limit)
}

// Urgent counts a task's open reviews of at least some priority, and says when the newest came.
func (g Reviews) Urgent(taskName string, priority float64) (n int64, newest time.Time, err error) {
	var at int64
	err = g.t.one([]any{&n, &at}, `SELECT COUNT(*), COALESCE(MAX(at), 0) FROM reviews WHERE task = ? AND state = 'waiting' AND priority >= ?`,
		taskName, priority)
	return n, moment(at), err
}

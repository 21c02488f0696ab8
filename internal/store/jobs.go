package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Jobs is the queue of background work. A job is a row with a lease: whoever claims it must renew the lease, and when the
// worker dies the lease runs out and another worker gets the job. Two workers never have the same job under a valid lease.
type Jobs struct{ t *Tx }

// Jobs returns the group.
func (t *Tx) Jobs() Jobs { return Jobs{t} }

// States of a job.
const (
	JobQueued    = "queued"
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
)

// A Job is one piece of background work. At most one job of a kind is queued or running for a task.
type Job struct {
	ID         string
	Kind       string // "train", "discover", …
	Task       string
	Payload    json.RawMessage
	State      string
	Owner      string
	LeaseUntil time.Time
	Tries      int // times that it was claimed
	MaxTries   int // after so many it fails; default 3
	RunAt      time.Time
	Created    time.Time
	Ended      time.Time
	Cancel     bool    // somebody asked for it to stop
	Progress   float64 // 0 to 1
	Note       string  // what it is doing
	Result     json.RawMessage
	Failure    string
}

// ErrLeaseLost says that the job is not this worker's any more: stop working on it, and write nothing.
var ErrLeaseLost = errors.New("store: the job's lease was lost")

const jobColumns = `id, kind, task, payload, state, owner, lease_until, tries, max_tries, run_at, created_at, ended_at, cancel,
	progress, note, result, failure`

func (j *Job) scan(scan func(...any) error) error {
	var lease, runAt, created, ended, cancel int64
	var payload, result string
	err := scan(&j.ID, &j.Kind, &j.Task, &payload, &j.State, &j.Owner, &lease, &j.Tries, &j.MaxTries, &runAt, &created, &ended,
		&cancel, &j.Progress, &j.Note, &result, &j.Failure)
	j.Payload, j.Result, j.Cancel = rawJSON(payload), rawJSON(result), cancel != 0
	j.LeaseUntil, j.RunAt, j.Created, j.Ended = moment(lease), moment(runAt), moment(created), moment(ended)
	return err
}

// Add queues a job and returns it. ErrExists when one of its kind is queued or running for the task.
func (g Jobs) Add(j Job) (Job, error) {
	payload, err := jsonText(j.Payload)
	if err != nil {
		return Job{}, err
	}
	now := g.t.now()
	if j.MaxTries <= 0 {
		j.MaxTries = 3
	}
	if j.RunAt.IsZero() {
		j.RunAt = now
	}
	j.ID = NewID(now)
	added, err := g.t.exec(`INSERT INTO jobs (`+jobColumns+`) VALUES (?,?,?,?,'queued','',0,0,?,?,?,0,0,0,'','','') ON CONFLICT DO NOTHING`,
		j.ID, j.Kind, j.Task, payload, j.MaxTries, nanos(j.RunAt), nanos(now))
	if err != nil {
		return Job{}, err
	}
	if added == 0 {
		return Job{}, fmt.Errorf("store: a %s job of task %q is queued or running: %w", j.Kind, j.Task, ErrExists)
	}
	return g.Get(j.ID)
}

// Get returns a job; ErrNotFound when there is none.
func (g Jobs) Get(id string) (Job, error) {
	return oneOf[Job](g.t, `SELECT `+jobColumns+` FROM jobs WHERE id = ?`, id)
}

// List returns the newest jobs first, of one task or of all.
func (g Jobs) List(taskName string, limit int) ([]Job, error) {
	return allOf[Job](g.t, `SELECT `+jobColumns+` FROM jobs WHERE (? = '' OR task = ?) ORDER BY created_at DESC, id DESC LIMIT ?`, taskName, taskName, limit)
}

// Claim gives the oldest job that is due, or whose worker died, to a worker. Jobs that were tried too often fail on the way.
// ok is false when there is nothing to do. Owners must be unique among workers, also over restarts.
func (g Jobs) Claim(owner string, lease time.Duration, kinds ...string) (j Job, ok bool, err error) {
	now := g.t.now()
	if _, err := g.t.exec(`UPDATE jobs SET state = CASE WHEN cancel = 1 THEN 'cancelled' ELSE 'failed' END, ended_at = ?,
		failure = 'its worker died ' || tries || ' times' WHERE state = 'running' AND lease_until < ? AND (tries >= max_tries OR cancel = 1)`,
		nanos(now), nanos(now)); err != nil {
		return Job{}, false, err
	}
	args := []any{nanos(now), nanos(now)}
	for _, k := range kinds {
		args = append(args, k)
	}
	var id string
	err = g.t.one([]any{&id}, `SELECT id FROM jobs WHERE (state = 'queued' AND run_at <= ? OR state = 'running' AND lease_until < ?)
		AND kind IN (`+strings.TrimSuffix(strings.Repeat("?,", len(kinds)), ",")+`) ORDER BY run_at, id LIMIT 1`+g.t.store.dialect.lockRow(), args...)
	if errors.Is(err, ErrNotFound) {
		return Job{}, false, nil
	} else if err != nil {
		return Job{}, false, err
	}
	if _, err := g.t.exec(`UPDATE jobs SET state = 'running', owner = ?, lease_until = ?, tries = tries + 1 WHERE id = ?`,
		owner, nanos(now.Add(lease)), id); err != nil {
		return Job{}, false, err
	}
	j, err = g.Get(id)
	return j, err == nil, err
}

// Renew extends the lease and tells how far the job is. It returns the job, whose Cancel says whether to stop. ErrLeaseLost
// when another worker has it.
func (g Jobs) Renew(id, owner string, lease time.Duration, progress float64, note string) (Job, error) {
	err := g.t.change(ErrLeaseLost, `UPDATE jobs SET lease_until = ?, progress = ?, note = ? WHERE id = ? AND owner = ? AND state = 'running'`,
		nanos(g.t.now().Add(lease)), progress, clip(note, maxReason), id, owner)
	if err != nil {
		return Job{}, err
	}
	return g.Get(id)
}

// Finish ends a job: done with its result, cancelled when that was asked for, or, with a failure, queued again for retryAt
// until its tries are used up. ErrLeaseLost when another worker has it.
func (g Jobs) Finish(id, owner string, result json.RawMessage, failure error, retryAt time.Time) error {
	text, err := jsonText(result)
	if err != nil {
		return err
	}
	now := g.t.now()
	if failure == nil {
		return g.t.change(ErrLeaseLost, `UPDATE jobs SET state = 'done', progress = 1, result = ?, ended_at = ?
			WHERE id = ? AND owner = ? AND state = 'running'`, text, nanos(now), id, owner)
	}
	return g.t.change(ErrLeaseLost, `UPDATE jobs SET
		state = CASE WHEN cancel = 1 THEN 'cancelled' WHEN tries >= max_tries THEN 'failed' ELSE 'queued' END,
		ended_at = CASE WHEN cancel = 1 OR tries >= max_tries THEN ? ELSE ended_at END, owner = '', run_at = ?, result = ?, failure = ?
		WHERE id = ? AND owner = ? AND state = 'running'`, nanos(now), nanos(retryAt), text, clip(failure.Error(), 1000), id, owner)
}

// Stop asks for a job to be cancelled: a queued one ends at once, a running one when its worker notices.
func (g Jobs) Stop(id string) error {
	return g.t.change(fmt.Errorf("store: job %s: %w, or it has ended", id, ErrNotFound), `UPDATE jobs SET cancel = 1,
		state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
		ended_at = CASE WHEN state = 'queued' THEN ? ELSE ended_at END WHERE id = ? AND state IN ('queued', 'running')`, nanos(g.t.now()), id)
}

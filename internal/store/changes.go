package store

import (
	"context"
	"database/sql"
	"sync"
)

// changes tells watchers that something was committed that the serving snapshot is made of.
type changes struct {
	dialect  dialect
	mu       sync.Mutex
	watchers map[chan struct{}]bool
}

// Watch returns a channel that receives after tasks, models or keys have changed, in this process or in another one that
// shares the database. Changes that come close together may be told once. stop ends it.
func (s *Store) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	if s.changes.watchers == nil {
		s.changes.watchers = map[chan struct{}]bool{}
	}
	s.changes.watchers[c] = true
	return c, func() {
		s.changes.mu.Lock()
		defer s.changes.mu.Unlock()
		delete(s.changes.watchers, c)
	}
}

// tell wakes the watchers of this process.
func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for watcher := range c.watchers {
		select {
		case watcher <- struct{}{}:
		default: // it has not seen the last one yet
		}
	}
}

// channel is the name under which PostgreSQL tells other processes.
const channel = "occam_changes"

// announce tells other processes, when the transaction commits.
func (c *changes) announce(ctx context.Context, tx *sql.Tx) error {
	if c.dialect != postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT pg_notify('`+channel+`', '')`)
	return err
}

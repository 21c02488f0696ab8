package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	applyGap   = 200 * time.Millisecond // between transactions, unless somebody waits for one
	applyBatch = 2048                   // entries in one transaction
	maxBehind  = 16 * applyBatch        // entries that may wait; beyond it the journal waits too
	behindWait = 2 * time.Second        // how long
)

// An applier puts into SQLite what the journal made durable: many entries in one transaction, an attempt of which both halves
// are there as one row.
type applier struct {
	store  *Store
	ledger ledgerDB

	mu      sync.Mutex
	waiting []*link
	beside  []*event      // examples, which the journal does not have
	end     head          // of the chain in the database
	failed  error         // of the last transaction
	tried   chan struct{} // closed after every transaction, made anew

	wake chan struct{}
	quit chan struct{}
	done chan struct{}
}

func newApplier(s *Store, l ledgerDB, end head) *applier {
	return &applier{store: s, ledger: l, end: end, tried: make(chan struct{}), wake: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{})}
}

// add takes over entries that are in the journal, and examples.
func (a *applier) add(links []*link, beside []*event) {
	a.mu.Lock()
	a.waiting = append(a.waiting, links...)
	a.beside = append(a.beside, beside...)
	many := len(a.waiting) >= applyBatch
	a.mu.Unlock()
	if many {
		a.poke()
	}
}

func (a *applier) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// applied returns the number of the last entry that the database has.
func (a *applier) applied() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end.seq
}

// room returns when the journal may take more, or why it may not: the database refuses, or is too far behind.
func (a *applier) room() error {
	for until := time.Now().Add(behindWait); ; {
		a.mu.Lock()
		failed, behind, tried := a.failed, len(a.waiting), a.tried
		a.mu.Unlock()
		if failed != nil || behind < maxBehind {
			return failed
		}
		a.poke()
		select {
		case <-tried:
		case <-time.After(time.Until(until)):
			return fmt.Errorf("%d entries of the journal wait for the database", behind)
		}
	}
}

// flush returns when the database has everything that was added before, or refuses it.
func (a *applier) flush(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return nil
	}
	for target := a.waiting[len(a.waiting)-1].end.seq; a.end.seq < target; {
		tried := a.tried
		a.mu.Unlock()
		a.poke()
		var err error
		select {
		case <-tried:
		case <-a.done:
			err = ErrClosed
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		a.mu.Lock()
		if err = errors.Join(err, a.failed); err != nil {
			return err
		}
	}
	return nil
}

// run applies until close, and then what is left.
func (a *applier) run() {
	defer close(a.done)
	tick := time.NewTicker(applyGap)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-a.wake:
		case <-a.quit:
			for until := time.Now().Add(lastTry); a.applyAll() && a.store.writer.isBroken() == nil && time.Now().Before(until); {
				time.Sleep(retryGap)
			}
			return
		}
		if a.applyAll() {
			time.Sleep(retryGap)
		}
	}
}

// applyAll applies everything that waits. refused says that the database did not take it.
func (a *applier) applyAll() (refused bool) {
	for {
		more, err := a.apply()
		if err != nil || !more {
			return err != nil
		}
	}
}

// apply makes one transaction of what waits.
func (a *applier) apply() (more bool, err error) {
	a.mu.Lock()
	links, beside, to := a.waiting[:min(len(a.waiting), applyBatch)], a.beside, a.end
	a.mu.Unlock()
	if len(links)+len(beside) == 0 {
		return false, nil
	}
	w := a.store.writer
	if err = w.isBroken(); err == nil {
		to, err = a.store.applyLinks(context.Background(), a.ledger, to, w.epoch.Load(), links, beside)
		if errors.Is(err, errUntrusted) || errors.Is(err, errConflict) || errors.Is(err, errFenced) {
			w.setBroken(fmt.Errorf("%w: %w; restart to read back what the disk holds", ErrUnavailable, err))
		}
		if err != nil {
			a.store.log.Error("ledger: the database refused entries; the journal keeps them", "entries", len(links), "error", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	close(a.tried)
	a.tried = make(chan struct{})
	if err != nil {
		return true, err
	}
	a.store.heads.sync(to)
	a.end = to
	a.waiting = slices.Delete(a.waiting, 0, len(links))
	a.beside = slices.Delete(a.beside, 0, len(beside))
	return len(a.waiting)+len(a.beside) > 0, nil
}

// applyLinks commits entries that follow a lane's end.
func (s *Store) applyLinks(ctx context.Context, l ledgerDB, from head, epoch int64, links []*link, beside []*event) (head, error) {
	to := from
	_, err := l.apply(ctx, nil, func(map[accountID]Balance) []statement {
		t := newTransaction(len(links))
		for _, link := range links {
			t.add(link)
			to = link.end
		}
		for _, e := range beside {
			t.beside = append(t.beside, e.statements...)
		}
		return t.finish(from, to, epoch)
	})
	return to, err
}

// close applies what is left and ends the applier.
func (a *applier) close() error {
	close(a.quit)
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := len(a.waiting); left > 0 {
		return fmt.Errorf("store: %d entries are in the journal and not in the database yet: %w", left, a.failed)
	}
	return nil
}

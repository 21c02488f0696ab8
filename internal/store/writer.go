package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBatch  = 1024                   // events in one transaction
	maxOpen   = 1 << 16                // intents of one process without an outcome
	retryGap  = 100 * time.Millisecond // between tries while the database refuses
	lastTry   = 3 * time.Second        // how long Close goes on trying
	replayGap = 200 * time.Millisecond // between tries to reach a database that is away
)

// An event is one change of the ledger: the intent, the outcome, or both halves of a row, or a note on the chain; or an example
// that shares its commit.
type event struct {
	kind kind
	note string
	*row
	budgets    []Budget     // of an intent
	refused    error        // why an intent does not fit into them
	statements []statement  // of an example
	size       int64        // of its text
	done       chan error   // receives the fate of the event once; nil when nobody waits
	fate       atomic.Int32 // whether the caller of an intent still waits when it is written
}

const (
	waiting int32 = iota
	answered
	abandoned
)

// answer tells the caller, at most once.
func (e *event) answer(err error) {
	if e.done != nil {
		e.done <- err
		e.done = nil
	}
}

// A writer is the only goroutine that appends to this process's lane. It takes everything that waits, makes it durable together (in
// the journal on SQLite, in one transaction on PostgreSQL) and tells the callers then: one sync for all of them.
type writer struct {
	store     *Store
	ledger    ledgerDB
	spill     *spill               // of PostgreSQL: takes events while it is away
	journaled *journaled           // of SQLite: batches go to the journal first
	end       atomic.Pointer[head] // stored by the writer goroutine only
	epoch     atomic.Int64
	retry     time.Time // not before then is the spill replayed

	intents chan *event // bounded: full means ErrBusy
	free    chan *event // bounded: full means wait
	delay   time.Duration
	wake    chan struct{} // a batch is worth writing now
	closing chan struct{} // no more events
	quit    chan struct{} // nobody is queueing any more: write the rest and stop
	stopped chan struct{}

	mu       sync.Mutex
	queueing sync.WaitGroup  // callers between the check of isClosed and their event's being queued
	open     map[string]*row // intents of this process without an outcome, by attempt ID
	outcomes []*event        // bounded by maxOpen
	isClosed bool
	overlap  int          // intents in batches that are being synced, without the oldest batch
	captured atomic.Int64 // bytes of text that wait
	broken   error        // the database can no longer be trusted by this process
}

func newWriter(s *Store, mine lane, opts Options) *writer {
	w := &writer{
		store: s, ledger: s.ledger(), delay: opts.FreeDelay, open: map[string]*row{},
		intents: make(chan *event, opts.Waiting), free: make(chan *event, opts.FreeQueue),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), quit: make(chan struct{}), stopped: make(chan struct{}),
	}
	w.own(mine)
	return w
}

// own makes a lane this writer's.
func (w *writer) own(mine lane) {
	w.end.Store(&mine.head)
	w.epoch.Store(mine.epoch)
}

// head returns the end of the chain as it was last committed.
func (w *writer) head() head { return *w.end.Load() }

// lane returns the number of the lane that this writer appends to.
func (w *writer) lane() int64 { return w.end.Load().lane }

// begin admits a caller that will queue an event; it must call w.queueing.Done after that.
func (w *writer) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isClosed {
		return ErrClosed
	}
	if w.broken != nil {
		return w.broken
	}
	w.queueing.Add(1)
	return nil
}

// intend queues an intent and waits until it is durable.
func (w *writer) intend(ctx context.Context, a Attempt, budgets []Budget) error {
	r := &row{Attempt: a, intentPrice: a.Price, intentLow: a.CostLow, intentHigh: a.CostHigh}
	r = r.withOutcome(Attempt{State: Pending}, 0)
	done := make(chan error, 1)
	e := &event{kind: kindIntent, row: r, budgets: budgets, done: done}
	if err := w.queueIntent(e); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if e.fate.CompareAndSwap(waiting, abandoned) {
			return context.Cause(ctx) // the writer drops it, or voids it if it is written already
		}
		return <-done
	}
}

func (w *writer) queueIntent(e *event) error {
	if err := w.begin(); err != nil {
		return err
	}
	defer w.queueing.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[e.ID] != nil {
		return fmt.Errorf("%w: %s", ErrDuplicate, e.ID)
	}
	if len(w.open) >= maxOpen {
		return fmt.Errorf("%w: %d attempts are open", ErrBusy, maxOpen)
	}
	if len(w.intents)+w.overlap < cap(w.intents) {
		select {
		case w.intents <- e:
			w.open[e.ID] = e.row
			return nil
		default:
		}
	}
	return fmt.Errorf("%w: %d wait for the disk", ErrBusy, cap(w.intents))
}

// finish queues an outcome and waits until it is durable.
func (w *writer) finish(ctx context.Context, a Attempt) error {
	if err := w.begin(); err != nil {
		return err
	}
	done := make(chan error, 1)
	err := w.queueOutcome(a, done)
	w.queueing.Done()
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// queueOutcome joins an outcome with its open intent and queues it.
func (w *writer) queueOutcome(a Attempt, done chan error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	intent := w.open[a.ID]
	if intent == nil || !intent.written {
		return fmt.Errorf("%w: %s", ErrNoIntent, a.ID)
	}
	delete(w.open, a.ID)
	w.outcomes = append(w.outcomes, &event{kind: kindOutcome, row: intent.withOutcome(a, w.store.now().UnixNano()), done: done})
	w.poke()
	return nil
}

// withOutcome joins the intent half of r with the outcome half of a.
func (r *row) withOutcome(a Attempt, closedAt int64) *row {
	out := *r
	out.State, out.Price, out.Reason, out.Answered = a.State, a.Price, a.Reason, a.Answered
	out.Confidence, out.Status, out.Usage, out.Latency = a.Confidence, a.Status, a.Usage, a.Latency
	out.Cost, out.CostLow, out.CostHigh, out.Reference = a.Cost, a.CostLow, a.CostHigh, a.Reference
	out.closedAt = closedAt
	return &out
}

func (w *writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// queueFree queues something that nobody waits for, waiting for room.
func (w *writer) queueFree(ctx context.Context, e *event) error {
	if err := w.begin(); err != nil {
		return err
	}
	defer w.queueing.Done()
	select {
	case w.free <- e:
	case <-w.closing:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %d free rows wait: %w", ErrUnavailable, cap(w.free), context.Cause(ctx))
	}
	if len(w.free) >= maxBatch/2 {
		w.poke()
	}
	return nil
}

// run is the writer goroutine: it commits what waits until close, and then what is left.
func (w *writer) run() {
	defer close(w.stopped)
	tick := time.NewTicker(w.delay)
	defer tick.Stop()
	var kept []*event // outcomes and free rows that the database refused: tried again, never given up
	for {
		batch := kept
		select {
		case e := <-w.intents:
			batch = append(batch, e)
		case <-tick.C:
		case <-w.wake:
		case <-w.landing():
			more, failed := w.land()
			if kept = append(kept, more...); failed {
				w.pause()
			}
			continue
		case <-w.quit:
			w.drain(kept)
			return
		}
		refused := false
		runtime.Gosched() // others that are about to queue something share the commit
		if batch = w.gather(batch); len(batch) > 0 {
			kept, refused = w.deliver(batch)
		} else {
			w.catchUp(context.Background())
		}
		if refused {
			w.pause()
		}
	}
}

// gather adds what waits to the batch, up to maxBatch: outcomes first, for they free budgets.
func (w *writer) gather(batch []*event) []*event {
	w.mu.Lock()
	take := max(0, min(len(w.outcomes), maxBatch-len(batch)))
	batch = append(batch, w.outcomes[:take]...)
	w.outcomes = append(w.outcomes[:0], w.outcomes[take:]...)
	if w.landing() != nil { // while others are counted, nobody may queue
		batch = takeFrom(w.intents, batch)
		w.countOverlap(batch)
	}
	w.mu.Unlock()
	return takeFrom(w.free, takeFrom(w.intents, batch))
}

// takeFrom adds what is in a queue to a batch, up to maxBatch.
func takeFrom(queue chan *event, batch []*event) []*event {
	for len(batch) < maxBatch {
		select {
		case e := <-queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// pause waits before the next try, and meanwhile tells those who wait that the ledger cannot be written.
func (w *writer) pause() {
	timer := time.NewTimer(retryGap)
	defer timer.Stop()
	for {
		select {
		case e := <-w.intents:
			w.forget(e.ID)
			e.answer(ErrUnavailable)
		case <-timer.C:
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, e := range w.outcomes {
				e.answer(ErrUnavailable)
			}
			return
		}
	}
}

// drain commits what is queued when the store closes.
func (w *writer) drain(kept []*event) {
	deadline := time.Now().Add(lastTry)
	for {
		batch := w.gather(append(kept, w.landAll()...))
		if len(batch) == 0 {
			return
		}
		var refused bool
		if kept, refused = w.deliver(batch); !refused {
			continue
		}
		if time.Now().After(deadline) || w.isBroken() != nil {
			break
		}
		time.Sleep(retryGap)
	}
	lost := len(kept) + len(w.landAll()) + len(w.free)
	w.store.log.Error("ledger: rows were not written at close", "rows", lost)
	w.setBroken(fmt.Errorf("%w: %d rows were not written at close", ErrUnavailable, lost))
}

// deliver makes a batch durable and answers its callers; in the journal of a slow disk, where batches overlap, it may leave that
// to land. It returns the events that must be written yet.
func (w *writer) deliver(batch []*event) (kept []*event, refused bool) {
	batch = w.dropAbandoned(batch)
	if w.journaled == nil {
		left, err := w.persist(context.Background(), batch)
		if err != nil {
			return w.fail(left, err), true
		}
		return w.tell(left), false
	}
	if w.landing() != nil && !w.journaled.known(batch) { // the database is to say it, which does not have what is in flight
		kept = w.landAll()
	}
	left, err := w.enter(context.Background(), batch)
	if err != nil {
		kept = append(kept, w.fail(left, err)...)
	}
	more, failed := w.hold()
	return append(kept, more...), failed || err != nil
}

// tell answers the callers of a batch that is durable. It returns the events that must be written because of that.
func (w *writer) tell(batch []*event) (kept []*event) {
	for _, e := range batch {
		if e.refused != nil {
			w.forget(e.ID)
			e.answer(e.refused)
			continue
		}
		if e.kind == kindIntent && !e.fate.CompareAndSwap(waiting, answered) {
			kept = append(kept, w.voidOf(e)...)
			continue
		}
		w.captured.Add(-e.size)
		e.answer(nil)
	}
	return kept
}

// persist writes a batch to the database (PostgreSQL) and, while that is away, to the spill file. It returns the events whose callers
// have not been answered.
func (w *writer) persist(ctx context.Context, batch []*event) (left []*event, err error) {
	if !w.catchUp(ctx) { // what came first goes first
		return batch, w.spillOut(batch)
	}
	err = w.commit(ctx, batch)
	if errors.Is(err, errConflict) {
		var states map[string]State
		if states, err = w.states(ctx, batch); err == nil {
			batch = w.refuseConflicts(batch, states)
			err = w.commit(ctx, batch)
		}
	}
	if w.spill != nil && (errors.Is(err, errDown) || errors.Is(err, errFenced)) {
		w.store.log.Warn("ledger: the database is away, writing to the spill file", "error", err)
		err = w.spillOut(batch)
	}
	return batch, err
}

// dropAbandoned removes intents whose callers went away before they were written.
func (w *writer) dropAbandoned(batch []*event) []*event {
	left := batch[:0]
	for _, e := range batch {
		if e.kind == kindIntent && e.fate.Load() == abandoned {
			w.forget(e.ID)
			continue
		}
		left = append(left, e)
	}
	return left
}

// voidOf closes an intent that was written for nobody.
func (w *writer) voidOf(e *event) []*event {
	w.forget(e.ID)
	void := Attempt{State: Void, Reason: "caller went away before the call"}
	return []*event{{kind: kindOutcome, row: e.row.withOutcome(void, w.store.now().UnixNano())}}
}

func (w *writer) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, id)
}

// fail answers the callers of a batch that was not written and returns what must be tried again.
func (w *writer) fail(batch []*event, cause error) (kept []*event) {
	err := fmt.Errorf("%w: %w", ErrUnavailable, cause)
	if w.isBroken() == nil {
		w.store.log.Error("ledger: commit refused", "events", len(batch), "error", cause)
	}
	if errors.Is(cause, errUntrusted) {
		w.setBroken(fmt.Errorf("%w; restart to read back what the disk holds", err))
	}
	for _, e := range batch {
		e.answer(err)
		if e.kind == kindIntent {
			w.forget(e.ID)
			continue
		}
		kept = append(kept, e)
	}
	return kept
}

func (w *writer) isBroken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

func (w *writer) setBroken(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = err
	}
}

// states returns what the database says of the attempts of a batch.
func (w *writer) states(ctx context.Context, batch []*event) (map[string]State, error) {
	var ids []string
	for _, e := range batch {
		if e.row != nil {
			ids = append(ids, e.ID)
		}
	}
	found, err := w.ledger.find(ctx, ids...)
	states := make(map[string]State, len(found))
	for id, r := range found {
		states[id] = r.State
	}
	return states, err
}

// refuseConflicts answers events that contradict the ledger (an attempt recorded twice, an outcome for an attempt that is not
// open), and returns the others.
func (w *writer) refuseConflicts(batch []*event, states map[string]State) (left []*event) {
	for _, e := range batch {
		begins := e.kind == kindIntent || e.kind == kindFree
		switch {
		case begins && states[e.ID] != "":
			w.store.log.Error("ledger: attempt recorded twice", "attempt", e.ID)
			if e.kind == kindIntent {
				w.forget(e.ID)
			}
			e.answer(fmt.Errorf("%w: %s", ErrDuplicate, e.ID))
			continue
		case e.kind == kindOutcome && states[e.ID] != Pending:
			w.store.log.Error("ledger: outcome of an attempt that is not open", "attempt", e.ID, "refused", e.State)
			e.answer(fmt.Errorf("%w: %s", ErrNoIntent, e.ID))
			continue
		}
		if begins || e.kind == kindOutcome {
			states[e.ID] = e.State
		}
		left = append(left, e)
	}
	return left
}

// commit makes one durable transaction of the batch.
func (w *writer) commit(ctx context.Context, batch []*event) error {
	if err := w.isBroken(); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	if err := w.locate(ctx, batch); err != nil {
		return err
	}
	made, err := w.store.append(ctx, w.ledger, w.head(), w.epoch.Load(), batch)
	if errors.Is(err, errFenced) && w.spill == nil {
		return fmt.Errorf("%w: another process has taken over the ledger", errUntrusted)
	}
	if err != nil {
		return err
	}
	w.advance(batch, made)
	return nil
}

// An appended batch is durable.
type appended struct {
	links   []*link // one for each event, nil where the chain has none
	end     head
	durable bool // on the disk itself
}

// advance notes that a batch is durable.
func (w *writer) advance(batch []*event, made appended) {
	w.mu.Lock()
	for i, e := range batch {
		if l := made.links[i]; l != nil && e.row != nil {
			e.row.n, e.row.holds, e.row.written = l.row.n, l.row.holds, true
		}
	}
	w.mu.Unlock()
	w.end.Store(&made.end)
	if err := w.store.heads.write(made.end, made.durable); err != nil {
		w.store.log.Error("ledger: write the head file", "error", err)
	}
}

// locate finds the rows of outcomes whose intents went through the spill file.
func (w *writer) locate(ctx context.Context, batch []*event) error {
	begun := map[string]bool{}
	for _, e := range batch {
		if e.kind == kindIntent {
			begun[e.ID] = true
		}
		if e.kind != kindOutcome || e.row.n != 0 || begun[e.ID] {
			continue
		}
		found, err := w.ledger.find(ctx, e.ID)
		if err != nil {
			return err
		}
		if found[e.ID] == nil {
			return fmt.Errorf("%w: outcome of %s without an intent", errConflict, e.ID)
		}
		e.row.n = found[e.ID].n
	}
	return nil
}

// append commits a batch to a lane that ends at from.
func (s *Store) append(ctx context.Context, l ledgerDB, from head, epoch int64, batch []*event) (made appended, err error) {
	made.durable, err = l.apply(ctx, accountsOf(batch), func(balances map[accountID]Balance) []statement {
		q, t := newSequence(from, s.now(), balances, len(batch)), newTransaction(len(batch))
		made.links = make([]*link, len(batch))
		for i, e := range batch {
			if e.kind == kindCapture {
				t.beside = append(t.beside, e.statements...)
			} else if made.links[i], e.refused = q.add(e); e.refused == nil {
				t.add(made.links[i])
			}
		}
		made.end = q.end
		return t.finish(from, q.end, epoch)
	})
	return made, err
}

// close stops the writer after it has written what waits.
func (w *writer) close() error {
	w.mu.Lock()
	w.isClosed = true
	w.mu.Unlock()
	close(w.closing)
	w.queueing.Wait()
	close(w.quit)
	<-w.stopped
	return w.isBroken()
}

package store

import "time"

const (
	// slowSync is how long a sync may take until the next batch is written beside it.
	slowSync = 50 * time.Millisecond
	// maxFlights is how many syncs of the journal may be under way. More than meanFlights only while syncs become slower.
	maxFlights = 12
	// meanFlights is how many are, when every sync takes as long as the last one.
	meanFlights = 8
)

// A flight is a batch that is in the journal and that no caller has been told of: its sync is under way, or that of a batch before
// it. Entries after a gap do not follow the chain, so a batch counts as durable only when all before it are.
type flight struct {
	batch  []*event
	beside []*event // examples, which the journal does not have
	links  []*link
	made   appended
	sync   *journalSync
}

// written returns the end of the chain as it is in the journal, durable or not.
func (w *writer) written() head {
	if flights := w.journaled.flights; len(flights) > 0 {
		return flights[len(flights)-1].made.end
	}
	return w.head()
}

// landing returns what receives when the sync of the oldest flight is over; nil when nothing is in flight.
func (w *writer) landing() <-chan error {
	if w.journaled == nil || len(w.journaled.flights) == 0 {
		return nil
	}
	return w.journaled.flights[0].sync.done
}

// land tells the callers of the oldest flight, whose sync is over. When a sync has failed, everything in flight fails with it.
// It returns the events that must be written yet.
func (w *writer) land() (kept []*event, failed bool) {
	j := w.journaled
	f := j.flights[0]
	if len(f.links) > 0 {
		j.took = f.sync.took
	}
	if err := j.journal.release(f.sync); err != nil {
		var all []*event
		for _, f := range j.flights {
			all = append(all, f.batch...)
		}
		j.flights = nil
		w.recount()
		return w.fail(all, err), true
	}
	if len(f.links) > 0 {
		w.advance(f.batch, f.made)
	}
	j.applier.add(f.links, f.beside)
	j.flights = append(j.flights[:0], j.flights[1:]...)
	w.recount()
	return w.tell(f.batch), false
}

// landAll waits until nothing is in flight.
func (w *writer) landAll() (kept []*event) {
	for w.landing() != nil {
		<-w.landing()
		more, _ := w.land()
		kept = append(kept, more...)
	}
	return kept
}

// hold waits until the next batch may be written: on a disk that is fast, when nothing is in flight; while a sync is slow, an
// eighth of what such a sync takes after the last batch, so that an intent that comes during one waits for little more than its own,
// and an outcome for none.
func (w *writer) hold() (kept []*event, failed bool) {
	j := w.journaled
	for len(j.flights) > 0 && !failed {
		if j.took > slowSync {
			w.tellOutcomes()
		}
		var enough <-chan time.Time
		if last := j.flights[len(j.flights)-1]; len(j.flights) < maxFlights {
			enough = time.After(time.Until(last.sync.began.Add(max(slowSync, j.took/meanFlights))))
		}
		select {
		case <-w.landing():
			var more []*event
			more, failed = w.land()
			kept = append(kept, more...)
		case <-enough:
			w.tellOutcomes()
			return kept, false
		}
	}
	return kept, failed
}

// tellOutcomes tells the callers of outcomes that are in the journal and not synced yet, so that a reply need not wait for a slow
// disk twice. Their intents are durable. A process that dies loses none of them; a machine whose power fails may, or whose sync
// does, and the next start makes such attempts estimated, between the bounds of their intents. Lines of batches wait: nobody waits
// for them.
func (w *writer) tellOutcomes() {
	for _, f := range w.journaled.flights {
		for _, e := range f.batch {
			if e.kind == kindOutcome && !IsLine(e.ID) {
				e.answer(nil)
			}
		}
	}
}

// recount counts the intents that wait behind the oldest flight.
func (w *writer) recount() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countOverlap(nil)
}

// countOverlap is recount, with the batch that is about to be written. w.mu is held.
func (w *writer) countOverlap(batch []*event) {
	w.overlap = 0
	if len(w.journaled.flights) == 0 {
		return
	}
	for _, f := range w.journaled.flights[1:] {
		w.overlap += countIntents(f.batch)
	}
	w.overlap += countIntents(batch)
}

func countIntents(batch []*event) (n int) {
	for _, e := range batch {
		if e.kind == kindIntent {
			n++
		}
	}
	return n
}

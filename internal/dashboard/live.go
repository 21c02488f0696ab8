package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"occam/internal/store"
)

const (
	pulseEvery   = time.Second // how often the ledger is looked at while somebody watches
	maxWatchers  = 64
	eventTimeout = 10 * time.Second // a browser that takes no event for so long is gone
)

// pulse answers whether anything changed, for all watchers at the price of one.
type pulse struct {
	mu       sync.Mutex
	watchers int
	taken    time.Time
	value    uint64
}

// join admits a watcher while there is room.
func (p *pulse) join() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watchers >= maxWatchers {
		return false
	}
	p.watchers++
	return true
}

func (p *pulse) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers--
}

// read returns a number that changes when the ledger or a task does. It looks at most about once a second.
func (d *Dashboard) read(ctx context.Context) (uint64, error) {
	p := &d.pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.taken) < pulseEvery/2 {
		return p.value, nil
	}
	today := d.Now().UTC().Truncate(24 * time.Hour)
	totals, err := d.Source.Totals(ctx, store.TotalsQuery{Window: store.Window{From: today}})
	if err != nil {
		return 0, err
	}
	newest, _, err := d.Source.Requests(ctx, store.Filter{Limit: 1}, "")
	if err != nil {
		return 0, err
	}
	views, err := d.Tasks(ctx)
	if err != nil {
		return 0, err
	}
	var batches []BatchView
	if d.Batches != nil {
		if batches, err = d.Batches(ctx); err != nil {
			return 0, err
		}
	}
	d.data.mu.Lock()
	checking := []any{d.data.running, len(d.data.last)}
	h := fnv.New64a()
	err = json.NewEncoder(h).Encode([]any{totals, newest, views, batches, checking})
	d.data.mu.Unlock()
	if err != nil {
		return 0, err
	}
	p.value, p.taken = h.Sum64(), time.Now()
	return p.value, nil
}

// events tells the browser, as server-sent events, when the page it shows has changed.
func (d *Dashboard) events(w http.ResponseWriter, r *http.Request) {
	if !d.pulse.join() {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "dashboard: too many pages are open; this one is not kept up to date", http.StatusServiceUnavailable)
		return
	}
	defer d.pulse.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	last, first := uint64(0), true
	for beat := 0; ; beat++ {
		value, err := d.read(r.Context())
		message := ""
		switch {
		case err != nil && r.Context().Err() != nil:
			return
		case err != nil:
			d.Log.Error("dashboard: look for changes", "error", err)
		case value != last || first:
			message = fmt.Sprintf("event: change\ndata: %x\n\n", value)
			last, first = value, false
		case beat%15 == 0:
			message = ": still here\n\n"
		}
		if message != "" {
			out.SetWriteDeadline(time.Now().Add(eventTimeout)) //nolint:errcheck // not every writer has deadlines
			if _, err := w.Write([]byte(message)); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-d.Done:
			return
		case <-tick.C:
		}
	}
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"occam/internal/config"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

const (
	pagerEvery   = 2 * time.Second
	pageGap      = 10 * time.Minute   // people are told at most so often that a task waits for them
	answerRetry  = time.Minute        // an answer that an app did not take is sent again
	answerWindow = 7 * 24 * time.Hour // for so long
	answerBatch  = 50
)

// kinds of the store's records about answers by people: those that were delivered, and those that are being delivered.
const (
	answerDelivered = "answer-delivered"
	answerClaimed   = "answer-claimed"
)

// A pager tells people that requests wait for them, and apps that a person has answered.
type pager struct {
	*bell
	answered *poster
	url      string // of the dashboard
	tidied   time.Time
}

func newPager(cfg *config.Config, site string, s *store.Store, log *slog.Logger, now func() time.Time) *pager {
	return &pager{bell: newBell(cmp.Or(cfg.Reviews.Needed, cfg.Alerts.Webhook), s, log, now), answered: newPoster(cfg.Reviews.Answered, cfg.Reviews.Secret),
		url: cmp.Or(cfg.Reviews.URL, site)}
}

// watch looks for what is to be told until ctx ends.
func (p *pager) watch(ctx context.Context, tasks func() []lifecycle.Status) {
	tick := time.NewTicker(pagerEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, st := range tasks() {
			if err := p.page(ctx, st.Task); err != nil && ctx.Err() == nil {
				p.log.Warn("people could not be told that requests wait for them", "task", st.Task, "error", err)
			}
		}
		if err := p.deliver(ctx, tasks()); err != nil && ctx.Err() == nil {
			p.log.Error("passing on what people answered", "error", err)
		}
	}
}

// page tells people that a task's requests wait for them, once for all that came within ten minutes.
func (p *pager) page(ctx context.Context, taskName string) error {
	var waiting int64
	var newest time.Time
	err := p.store.View(ctx, func(tx *store.Tx) (err error) {
		waiting, newest, err = tx.Reviews().Urgent(taskName, lifecycle.WorthDoubt)
		return err
	})
	if err != nil || waiting == 0 {
		return err
	}
	return p.ring(ctx, alert{"review/" + taskName + "/" + newest.UTC().Truncate(pageGap).Format(time.RFC3339),
		fmt.Sprintf("%d requests of %s wait for a person: %s/review?task=%s", waiting, taskName, p.url, url.QueryEscape(taskName))})
}

// A personAnswer is what an app gets when a person has answered its request.
type personAnswer struct {
	Event     string      `json:"event"` // "answered"
	RequestID string      `json:"request_id"`
	Task      string      `json:"task"`
	Labels    task.Output `json:"labels"`
	Answer    string      `json:"answer"` // as the task's answers are written
	At        time.Time   `json:"answered_at"`
	Text      string      `json:"text"` // for people
}

// deliver passes answers by people on to the app.
func (p *pager) deliver(ctx context.Context, tasks []lifecycle.Status) error {
	if p.answered.address == "" {
		return nil
	}
	var ready []store.Review
	err := p.store.View(ctx, func(tx *store.Tx) error {
		refused, err := tx.Records(answerClaimed).List() // what an app never takes holds up nothing behind it
		if err == nil {
			ready, err = tx.Reviews().Answered(lifecycle.WorthDoubt, p.now().Add(-answerWindow), answerDelivered, answerBatch+len(refused))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range ready {
		if err := p.deliverOne(ctx, &r, tasks); err != nil {
			return err
		}
	}
	return p.tidy(ctx)
}

// deliverOne sends one answer, unless another process is at it or it was tried a moment ago. What the app does not take stays.
func (p *pager) deliverOne(ctx context.Context, r *store.Review, tasks []lifecycle.Status) error {
	var claim store.Record
	err := p.store.Update(ctx, func(tx *store.Tx) (err error) {
		records := tx.Records(answerClaimed)
		claim, err = records.Get(r.ID)
		if err == nil && p.now().Sub(claim.Updated) < answerRetry {
			return store.ErrConflict
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		claim.Name, claim.Value = r.ID, json.RawMessage(`{}`)
		return records.Put(claim)
	})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.answered.send(ctx, answerOf(r, tasks)); err != nil {
		p.log.Warn("an app did not take an answer; it is sent again in a minute", "request", r.RequestID, "error", err)
		return nil
	}
	return p.store.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.Records(answerDelivered).Put(store.Record{Name: r.ID, Value: json.RawMessage(`{}`)}), tx.Records(answerClaimed).Delete(r.ID))
	})
}

func answerOf(r *store.Review, tasks []lifecycle.Status) personAnswer {
	a := personAnswer{Event: "answered", RequestID: r.RequestID, Task: r.Task, Labels: r.Output, At: r.Closed.UTC(),
		Text: "a person has answered request " + r.RequestID + " of " + slackText.Replace(r.Task)}
	for _, st := range tasks {
		if st.Task != r.Task {
			continue
		}
		values := make([]task.Value, len(st.Fields))
		for i, f := range st.Fields {
			values[i] = r.Output[f.Name]
		}
		if form, err := task.ParseForm(st.Answer, st.Fields); err == nil {
			a.Answer = string(form.Append(nil, st.Fields, values))
		}
	}
	return a
}

// tidy forgets deliveries that are too old to be looked at again.
func (p *pager) tidy(ctx context.Context) error {
	now := p.now()
	if now.Sub(p.tidied) < time.Hour {
		return nil
	}
	p.tidied = now
	return p.store.Update(ctx, func(tx *store.Tx) error {
		for _, kind := range []string{answerDelivered, answerClaimed} {
			records := tx.Records(kind)
			all, err := records.List()
			if err != nil {
				return err
			}
			for _, r := range all {
				if now.Sub(r.Updated) > answerWindow+time.Hour {
					if err := records.Delete(r.Name); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"occam/internal/store"
)

// A bell tells people through the log and, if one is configured, a webhook that takes Slack's {"text": …}.
type bell struct {
	hook  *poster
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
}

func newBell(webhook string, s *store.Store, log *slog.Logger, now func() time.Time) *bell {
	return &bell{hook: newPoster(webhook, ""), store: s, log: log, now: now}
}

// alertRecords is the kind of the store's records that remember what was told.
const alertRecords = "alert"

// told is what a record remembers of an alert.
type told struct {
	Text      string    `json:"text"`
	At        time.Time `json:"at"`
	Delivered bool      `json:"delivered"`
}

// ring tells an alert that was not told before. Of several processes that share a store one tells it. One that the webhook did not
// take is tried again, by whoever looks next; the log gets it once.
func (b *bell) ring(ctx context.Context, a alert) error {
	record, again, err := b.claim(ctx, a)
	if err != nil || record == nil {
		return err
	}
	if !again {
		b.log.Warn(a.text)
	}
	if err := b.post(ctx, a.text); err != nil {
		return fmt.Errorf("the alert webhook: %w", err)
	}
	return b.remember(ctx, record, told{a.text, b.now().UTC(), true})
}

// claim makes an alert this process's to tell: nil when it is told, or another process's. again says that it is in the log.
func (b *bell) claim(ctx context.Context, a alert) (r *store.Record, again bool, err error) {
	known := store.Record{Name: a.key}
	var before told
	err = b.store.View(ctx, func(tx *store.Tx) error {
		found, err := tx.Records(alertRecords).Get(a.key)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil {
			known, again = found, true
			err = json.Unmarshal(found.Value, &before)
		}
		return err
	})
	if err != nil || again && (before.Delivered || b.now().Sub(before.At) < alertEvery/2) {
		return nil, again, err
	}
	if err := b.remember(ctx, &known, told{a.text, b.now().UTC(), false}); errors.Is(err, store.ErrConflict) {
		return nil, again, nil // another process was faster
	} else if err != nil {
		return nil, again, err
	}
	known.Version++
	return &known, again, nil
}

func (b *bell) remember(ctx context.Context, r *store.Record, t told) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return b.store.Update(ctx, func(tx *store.Tx) error {
		return tx.Records(alertRecords).Put(store.Record{Name: r.Name, Version: r.Version, Value: value})
	})
}

func (b *bell) post(ctx context.Context, text string) error {
	return b.hook.send(ctx, map[string]string{"text": "occam: " + slackText.Replace(text)})
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/store"
)

// alertEvery is how often the spend is looked at.
const alertEvery = 10 * time.Minute

// endingDays is how long before a model's shutdown its users are told.
const endingDays = 60

// An alert is one thing that a person should know. The same key is told once.
type alert struct {
	key, text string
}

// A bell tells people through the log and, if one is configured, a webhook that takes Slack's {"text": …}.
type bell struct {
	webhook string
	client  *http.Client
	store   *store.Store
	log     *slog.Logger
	now     func() time.Time
}

func newBell(webhook string, s *store.Store, log *slog.Logger, now func() time.Time) *bell {
	return &bell{webhook: webhook, client: &http.Client{Timeout: 10 * time.Second}, store: s, log: log, now: now}
}

// alertRecords is the kind of the store's records that remember what was told.
const alertRecords = "alert"

// ring tells an alert unless it was told before. One that cannot be delivered is told again next time.
func (b *bell) ring(ctx context.Context, a alert) error {
	told := false
	err := b.store.View(ctx, func(tx *store.Tx) error {
		_, err := tx.Records(alertRecords).Get(a.key)
		if told = err == nil; errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil || told {
		return err
	}
	b.log.Warn(a.text)
	if err := b.post(ctx, a.text); err != nil {
		return fmt.Errorf("the alert webhook: %w", err)
	}
	return b.store.Update(ctx, func(tx *store.Tx) error {
		body, err := json.Marshal(map[string]any{"text": a.text, "at": b.now().UTC()})
		if err != nil {
			return err
		}
		return tx.Records(alertRecords).Put(store.Record{Name: a.key, Value: body})
	})
}

func (b *bell) post(ctx context.Context, text string) error {
	if b.webhook == "" {
		return nil
	}
	body, err := json.Marshal(map[string]string{"text": "occam: " + text})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := b.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4096))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// watchSpend looks at the ledger now and then until ctx ends.
func (b *bell) watchSpend(ctx context.Context, wired func() *wiring) {
	tick := time.NewTicker(alertEvery)
	defer tick.Stop()
	for {
		w := wired()
		if err := b.look(ctx, w.cfg, w.book); err != nil && ctx.Err() == nil {
			b.log.Error("looking at the spend", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *bell) look(ctx context.Context, cfg *config.Config, book *cost.Book) error {
	now := b.now().UTC()
	month := store.Month(now.Year(), now.Month())
	rows, err := ledgerRows(ctx, b.store, month, store.ByDay)
	if err != nil {
		return err
	}
	hours, err := series(ctx, b.store, store.Window{From: now.AddDate(0, 0, -56), To: now}, store.ByHour, time.Hour)
	if err != nil {
		return err
	}
	charges, err := hostingCharges(cfg, book, rows, month, now)
	if err != nil {
		return err
	}
	for _, a := range spendAlerts(month, rows, charges, hours, book, now) {
		if err := b.ring(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// spendAlerts is what the ledger of a month gives reason to tell: unusual hours of the last day, a month that loses money,
// unpriced calls, and models in use that end soon.
func spendAlerts(month store.Window, rows []finops.Row, charges []finops.Charge, hours []finops.Point, book *cost.Book, now time.Time) []alert {
	var alerts []alert
	for _, x := range finops.Anomalies(hours, finops.AnomalyOptions{}) {
		if now.Sub(x.Start) < 24*time.Hour {
			alerts = append(alerts, alert{"hour/" + x.Start.Format(time.RFC3339), fmt.Sprintf("unusual spend in the hour from %s: %s, usually %s; see `occam report`",
				x.Start.Format("2006-01-02 15:04 MST"), finops.USD(x.Spend), finops.USD(x.Expected))})
		}
	}
	name := month.From.Format("2006-01")
	statement := finops.Prove(month.From, month.To, rows, charges)
	if statement.Saved < -cost.USD {
		alerts = append(alerts, alert{"losing/" + name, statement.Headline() + " See `occam report` for what to switch back."})
	}
	if statement.Unpriced > 0 {
		alerts = append(alerts, alert{"unpriced/" + name, fmt.Sprintf("%d calls of %s have no known price: add one with `occam prices import`", statement.Unpriced, name)})
	}
	for _, e := range finops.Calendar(book, rows, now) {
		if e.Days <= endingDays {
			alerts = append(alerts, alert{"ending/" + e.Provider + "/" + e.Model + "/" + day(e.Date), fmt.Sprintf("%s is shut down by its provider on %s, in %d days; %d calls used it this month",
				e.Model, day(e.Date), e.Days, e.Attempts)})
		}
	}
	return alerts
}

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"occam/internal/task"
)

// Forget removes what was kept of one request: its text, every label and its review. What it cost stays in the ledger, which
// holds no text. It returns how many examples there were. Scrub makes the bytes unreadable too.
func (g Examples) Forget(requestID string) (int64, error) {
	if requestID == "" {
		return 0, nil // imports have none
	}
	if _, err := g.t.exec(`DELETE FROM reviews WHERE request_id = ?`, requestID); err != nil {
		return 0, err
	}
	return g.t.exec(`DELETE FROM examples WHERE request_id = ?`, requestID)
}

// Expire ends the retention of captured examples that came before a moment, with their labels and reviews, at most limit at a
// time: gold ones lose their place too, imported ones (without a request) stay. It returns how many it removed; call it until
// that is less than limit.
func (g Examples) Expire(before time.Time, limit int) (int64, error) {
	const old = `(SELECT request_id FROM examples WHERE at < ? AND request_id <> '' ORDER BY at, pos LIMIT ?)`
	if _, err := g.t.exec(`DELETE FROM reviews WHERE request_id IN `+old, nanos(before), limit); err != nil {
		return 0, err
	}
	return g.t.exec(`DELETE FROM examples WHERE pos IN
		(SELECT pos FROM examples WHERE at < ? AND request_id <> '' ORDER BY at, pos LIMIT ?)`, nanos(before), limit)
}

// redactPage is how many rows Redact changes in one transaction.
const redactPage = 500

// Redact applies Options.Redact to what was stored before it was given, or with other rules: the texts of examples, labels and
// reviews. It returns how many rows changed. What it has done stays done when it is cut short.
func (s *Store) Redact(ctx context.Context) (changed int64, err error) {
	if s.redact == nil {
		return 0, nil
	}
	text := func(text string) (string, bool) { r := s.redact(text); return r, r != text }
	answer := func(text string) (string, bool) { return redactJSON(text, s.redact) }
	for _, of := range []column{
		{`SELECT id, text FROM examples WHERE id > ? ORDER BY id LIMIT ?`, `UPDATE examples SET text = ? WHERE id = ?`, "", text},
		{`SELECT pos, output FROM labels WHERE pos > ? ORDER BY pos LIMIT ?`, `UPDATE labels SET output = ?, trainable = 0 WHERE pos = ?`, int64(0), answer},
		{`SELECT id, suggestion FROM reviews WHERE id > ? ORDER BY id LIMIT ?`, `UPDATE reviews SET suggestion = ? WHERE id = ?`, "", answer},
		{`SELECT id, output FROM reviews WHERE id > ? ORDER BY id LIMIT ?`, `UPDATE reviews SET output = ? WHERE id = ?`, "", answer},
	} {
		n, err := s.redactColumn(ctx, of)
		if changed += n; err != nil {
			return changed, fmt.Errorf("store: redact what was stored before: %w", err)
		}
	}
	return changed, nil
}

// A column holds texts. read gives a page of it after a key, in the order of the key; write replaces one text.
type column struct {
	read, write string
	first       any // comes before every key
	redact      func(text string) (_ string, changed bool)
}

func (s *Store) redactColumn(ctx context.Context, of column) (changed int64, err error) {
	type cell struct {
		key  any
		text string
	}
	for after := of.first; ; {
		var page []cell
		err := s.Update(ctx, func(tx *Tx) error {
			err := tx.all(func(rows *sql.Rows) error {
				var c cell
				err := rows.Scan(&c.key, &c.text)
				page = append(page, c)
				return err
			}, of.read, after, redactPage)
			if err != nil {
				return err
			}
			for _, c := range page {
				text, differs := of.redact(c.text)
				if !differs {
					continue
				}
				n, err := tx.exec(of.write, text, c.key)
				if changed += n; err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(page) < redactPage {
			return changed, err
		}
		after = page[len(page)-1].key
	}
}

// redactOutput redacts the strings of an answer. changed says that one was.
func redactOutput(output task.Output, redact func(string) string) (_ task.Output, changed bool) {
	if redact == nil {
		return output, false
	}
	clean := make(task.Output, len(output))
	for name, v := range output {
		clean[name] = v
		if v.IsString() && redact(v.Text()) != v.Text() {
			clean[name], changed = task.String(redact(v.Text())), true
		}
		if v.IsSet() {
			members := make([]string, len(v.Members()))
			for i, m := range v.Members() {
				members[i] = redact(m)
				changed = changed || members[i] != m
			}
			clean[name] = task.Set(members...)
		}
	}
	return clean, changed
}

// redactJSON redacts the strings of an answer that is stored as JSON. What is no answer is redacted as text.
func redactJSON(text string, redact func(string) string) (_ string, changed bool) {
	if redact == nil || text == "" {
		return text, false
	}
	var output task.Output
	if err := json.Unmarshal([]byte(text), &output); err != nil {
		r := redact(text)
		return r, r != text
	}
	clean, changed := redactOutput(output, redact)
	raw, err := json.Marshal(clean)
	if !changed || err != nil {
		return text, false
	}
	return string(raw), true
}

// Scrub makes deleted texts unreadable: SQLite overwrites what is deleted, and Scrub moves the write-ahead log, which still holds
// older copies, into the database and empties it. PostgreSQL reuses the space of deleted rows by its own (auto)vacuum, and keeps its
// own log for as long as it is set up to. Copies of the database and exports made before hold what they held.
func (s *Store) Scrub(ctx context.Context) error {
	if s.dialect == postgres || s.write == nil {
		return nil
	}
	var busy, logged, copied int
	for range 100 {
		err := s.write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &logged, &copied)
		if err != nil {
			return fmt.Errorf("store: empty the write-ahead log: %w", err)
		}
		if busy == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("store: the write-ahead log is still read by others; deleted texts stay in it until it starts over")
}

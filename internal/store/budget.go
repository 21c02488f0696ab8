package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"occam/internal/cost"
)

// ErrBudget says that an attempt could cost more than what is left of a budget.
var ErrBudget = errors.New("store: over budget")

// A Budget bounds what the attempts of one key, of one task, or of one key in one task may cost from Start on. What open
// attempts can cost at most counts as spent, so that many at once cannot overspend; it is freed when they end.
type Budget struct {
	Key, Task string    // "": any
	Start     time.Time // of the day or month that it is for, see PeriodStart; whole hours
	Limit     cost.Amount
}

// PeriodStart returns when the "day" or "month" that holds a moment began, in UTC.
func PeriodStart(period string, at time.Time) time.Time {
	at = at.UTC()
	if period == "day" {
		return time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	}
	return time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// IntendWithin is Intend for an attempt that must fit into budgets: it fails with ErrBudget, and writes nothing, when
// a.CostHigh is more than what is left of one of them. The check holds across all processes that share the database.
func (s *Store) IntendWithin(ctx context.Context, a Attempt, budgets ...Budget) error {
	if len(budgets) > maxBudgets {
		return fmt.Errorf("store: attempt %s: %d budgets, at most %d", a.ID, len(budgets), maxBudgets)
	}
	return s.intend(ctx, a, budgets)
}

// maxBudgets bounds the budgets of one attempt.
const maxBudgets = 8

// A Balance is how a budget stands.
type Balance struct {
	Spent    cost.Amount
	Reserved cost.Amount // what open attempts can cost at most
}

// BudgetBalance returns how a budget stands. Limit does not matter.
func (s *Store) BudgetBalance(ctx context.Context, b Budget) (Balance, error) {
	if err := s.settle(ctx); err != nil {
		return Balance{}, err
	}
	have, err := s.dialect.balance(ctx, s.read, b.account())
	if err != nil {
		return Balance{}, fmt.Errorf("store: budget: %w", err)
	}
	return have, nil
}

// An account is a budget's row in the database. of is the budget as it was asked for, nil where only the row is known.
type account struct {
	name  string
	start int64 // Unix seconds
	of    *Budget
}

// account names the budget; no other one has the name, for the length of the key stands in it.
func (b *Budget) account() account {
	return account{fmt.Sprintf("%d:%s:%s", len(b.Key), b.Key, b.Task), floor(b.Start.Unix(), hour), b}
}

func (a account) id() accountID { return accountID{a.name, a.start} }

type accountID struct {
	name  string
	start int64
}

// A hold is what an open attempt keeps reserved of an account.
type hold struct {
	accountID
	amount cost.Amount
	after  Balance // how the account stands with the entry
}

// balance reads how an account stands. One that was never used stands where the ledger's sums say.
func (d dialect) balance(ctx context.Context, db querier, a account) (Balance, error) {
	var b Balance
	err := db.QueryRowContext(ctx, d.bind(`SELECT spent, reserved FROM budgets WHERE name = ? AND period = ?`), a.name, a.start).
		Scan(&b.Spent, &b.Reserved)
	if !errors.Is(err, sql.ErrNoRows) {
		return b, err
	}
	return spentBefore(func(into *Balance, query string, args ...any) error {
		return db.QueryRowContext(ctx, d.bind(query), args...).Scan(&into.Spent)
	}, a)
}

// spentBefore asks the ledger's sums what was spent of a budget before it had an account.
func spentBefore(ask func(into *Balance, query string, args ...any) error, a account) (b Balance, err error) {
	if a.of == nil {
		return b, nil // it has one
	}
	err = ask(&b, `SELECT CAST(COALESCE(SUM(cost), 0) AS BIGINT) FROM rollups WHERE span = ? AND bucket >= ?
		AND (? = '' OR key_id = ?) AND (? = '' OR task = ?)`, hour, a.start, a.of.Key, a.of.Key, a.of.Task, a.of.Task)
	return b, err
}

// accountsOf returns the accounts that a batch of events touches, each once, in an order that is the same in every process, so
// that none waits for another in a circle.
func accountsOf(batch []*event) []account {
	var all []account
	for _, e := range batch {
		for i := range e.budgets {
			all = append(all, e.budgets[i].account())
		}
		if e.kind == kindOutcome {
			for _, h := range e.row.holds {
				all = append(all, account{h.name, h.start, nil})
			}
		}
	}
	slices.SortFunc(all, func(a, b account) int {
		// Where the budget is known it comes first, and so is the one that Compact keeps.
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.start, b.start), cmp.Compare(flag(a.of == nil), flag(b.of == nil)))
	})
	return slices.CompactFunc(all, func(a, b account) bool { return a.id() == b.id() })
}

// reserve holds an intent's upper bound in each of its budgets, or says why it does not fit.
func (q *sequence) reserve(e *event, r *row) error {
	for i := range e.budgets {
		b := &e.budgets[i]
		have := q.balances[b.account().id()]
		if left := b.Limit - have.Spent - have.Reserved; r.intentHigh > left {
			return fmt.Errorf("%w: the attempt can cost %v, %v of %v is left since %s", ErrBudget, r.intentHigh, max(left, 0),
				b.Limit, b.Start.UTC().Format(time.DateOnly))
		}
	}
	r.holds = nil
	for i := range e.budgets {
		id := e.budgets[i].account().id()
		have := q.balances[id]
		have.Reserved += r.intentHigh
		q.balances[id] = have
		r.holds = append(r.holds, hold{id, r.intentHigh, have})
	}
	return nil
}

// release turns what an attempt held into what it cost.
func (q *sequence) release(r *row) {
	r.holds = slices.Clone(r.holds)
	for i := range r.holds {
		h := &r.holds[i]
		have := q.balances[h.accountID]
		have.Reserved -= h.amount
		have.Spent += r.Cost
		h.after, q.balances[h.accountID] = have, have
	}
}

// readHolds returns what open attempts hold, by position.
func (s *Store) readHolds(ctx context.Context, db querier) (map[int64][]hold, error) {
	rows, err := db.QueryContext(ctx, `SELECT n, name, period, amount FROM holds ORDER BY n, name, period`)
	if err != nil {
		return nil, fmt.Errorf("store: read what budgets hold: %w", err)
	}
	defer rows.Close()
	holds := map[int64][]hold{}
	for rows.Next() {
		var n int64
		var h hold
		if err := rows.Scan(&n, &h.name, &h.start, &h.amount); err != nil {
			return nil, fmt.Errorf("store: read what budgets hold: %w", err)
		}
		holds[n] = append(holds[n], h)
	}
	return holds, rows.Err()
}

package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"occam/internal/cost"
)

// A State is how far the ledger knows what an attempt cost.
type State string

const (
	Pending   State = "open"      // the intent is durable, the outcome is not known yet
	Settled   State = "settled"   // the provider's own usage was seen
	Estimated State = "estimated" // no usage was seen; CostLow and CostHigh bound it
	Void      State = "void"      // it was never sent
	Free      State = "free"      // it cannot cost money: answered in this process
	Unpriced  State = "unpriced"  // no price is known for it: never counted as zero
)

// An Attempt is one call to one model, one row of the ledger. A request has one or more attempts, in order of Seq.
//
// Intend stores the first group of fields, Finish the second; RecordFree stores both at once. Money is in nano-dollars.
type Attempt struct {
	ID         string // ULID, see NewID; at most 64 bytes
	RequestID  string // ULID of the request
	Seq        int    // 0 for the request's first attempt
	At         time.Time
	KeyID      string  // virtual key that made the request, "" if none
	Task       string  // "" for pass-through
	Tier       string  // "linear", "generalist", …; "" for pass-through
	Provider   string  // "" for the embedded specialist
	Model      string  // upstream model name, or "task@hash" of a specialist; cut at 128 bytes
	Audit      bool    // sent only to check another tier's answer
	AuditShare float64 // of Audit: the probability with which the answer was drawn into the sample that Reason names, in (0, 1], to nine digits; 0: not drawn, or not known
	InputHash  uint64  // of the task's input, to find repeats without storing prompts
	Simulated  bool
	State      State
	Price      string      // version of the price row used, "" when unpriced
	CostLow    cost.Amount // with Intend: at least what the call will cost if it is sent
	CostHigh   cost.Amount // with Intend: at most what it can cost, from prompt tokens and max_tokens
	Cost       cost.Amount // settled cost; for Estimated the best estimate
	Reason     string      // why this tier answered, or why it did not; cut at 200 bytes
	Answered   bool        // this attempt's answer is the one the app got
	Confidence float64     // calibrated; NaN is stored as 0
	Status     int         // HTTP status of the reply, 0 when there was none
	Usage      cost.Usage
	Reference  cost.Amount   // what the generalist would have cost for this request, at the same prices; on the answering attempt only
	Latency    time.Duration // from a monotonic clock
}

// Limits on what one row may hold, so that a row stays below 1 KB.
const (
	maxName   = 64
	maxModel  = 128
	maxReason = 200
)

var (
	// ErrUnavailable says that the ledger cannot be written now (disk full, write error, database down). The call that
	// would cost money must not be made. Paid calls get 503 ledger_unavailable.
	ErrUnavailable = errors.New("store: the ledger cannot be written")
	// ErrBusy says that too many writes wait already: shed the request with 503 and Retry-After.
	ErrBusy = errors.New("store: too many ledger writes are waiting")
	// ErrDuplicate says that an attempt with this ID is in the ledger already.
	ErrDuplicate = errors.New("store: the attempt is in the ledger already")
	// ErrNoIntent says that an outcome has no open intent: it was never written, or it has its outcome already.
	ErrNoIntent = errors.New("store: the attempt has no open intent")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// Intend records that an attempt which may cost money is about to be sent. It returns once the row is durable, sharing one
// commit with every caller that waits at the same time. When it returns an error, the attempt must not be sent.
//
// a.CostLow and a.CostHigh bound what the attempt can cost: should the process die before Finish, the next Open closes the
// attempt as Estimated between 0 (it may never have been sent) and CostHigh. An attempt without a.Price becomes Unpriced.
// When ctx ends while the row is being written, the attempt is closed as Void and ctx's error returned.
func (s *Store) Intend(ctx context.Context, a Attempt) error { return s.intend(ctx, a, nil) }

func (s *Store) intend(ctx context.Context, a Attempt, budgets []Budget) error {
	if s.writer == nil {
		return errReadOnly
	}
	a.State = Pending
	if err := a.clean(s.now); err != nil {
		return err
	}
	if a.CostHigh < a.CostLow {
		return fmt.Errorf("store: intent of %s: cost bounds %v > %v", a.ID, a.CostLow, a.CostHigh)
	}
	return s.writer.intend(ctx, a, budgets)
}

// Finish records the outcome of an intended attempt: Settled, Estimated, Void or Unpriced. An attempt has at most one; a
// second Finish fails with ErrNoIntent and changes nothing. It returns once the outcome is durable; on SQLite, while a sync takes more
// than 50 ms, once it is in the journal. A process that dies then loses nothing, but after a power failure the attempt may be
// Estimated, between the bounds of its intent.
//
// The outcome is never given up: when ctx ends or the disk refuses (ErrUnavailable), the store keeps it and writes it as
// soon as it can; until then the durable intent stands for it.
func (s *Store) Finish(ctx context.Context, a Attempt) error {
	if s.writer == nil {
		return errReadOnly
	}
	if err := a.clean(s.now); err != nil {
		return err
	}
	if err := a.checkOutcome(); err != nil {
		return err
	}
	return s.writer.finish(ctx, a)
}

// RecordFree records an attempt that cannot cost money, after its answer was sent. Rows are written in batches within about
// 100 ms. It never drops a row: when the queue is full it waits for room, until ctx ends.
func (s *Store) RecordFree(ctx context.Context, a Attempt) error {
	if s.writer == nil {
		return errReadOnly
	}
	a.State = Free
	if err := a.clean(s.now); err != nil {
		return err
	}
	if a.Cost != 0 || a.CostHigh != 0 {
		return fmt.Errorf("store: attempt %s is recorded as free but costs %v", a.ID, max(a.Cost, a.CostHigh))
	}
	return s.writer.queueFree(ctx, &event{kind: kindFree, row: &row{Attempt: a, closedAt: s.now().UnixNano()}})
}

// clean bounds and repairs what came from outside, and refuses what the ledger could not tell apart.
func (a *Attempt) clean(now func() time.Time) error {
	if a.ID == "" || a.RequestID == "" {
		return fmt.Errorf("store: an attempt needs an ID and a RequestID, have %q and %q", a.ID, a.RequestID)
	}
	names := []*string{&a.ID, &a.RequestID, &a.KeyID, &a.Task, &a.Tier, &a.Provider, &a.Price}
	for _, s := range names {
		if len(*s) > maxName || !utf8.ValidString(*s) || strings.ContainsRune(*s, 0) {
			return fmt.Errorf("store: attempt %.64q: %.80q is longer than %d bytes or not text", a.ID, *s, maxName)
		}
	}
	if a.CostLow < 0 || a.Cost < 0 || a.CostHigh < 0 || a.Reference < 0 {
		return fmt.Errorf("store: attempt %s has a negative amount", a.ID)
	}
	if u := a.Usage; min(u.Input, u.Cached, u.CacheWrite, u.Output, u.Reasoning) < 0 {
		return fmt.Errorf("store: attempt %s has negative usage %+v", a.ID, u)
	}
	if a.At.IsZero() {
		a.At = now()
	}
	a.At = time.Unix(0, a.At.UnixNano()).UTC()
	a.Model = clip(a.Model, maxModel)
	a.Reason = clip(a.Reason, maxReason)
	if math.IsNaN(a.Confidence) || math.IsInf(a.Confidence, 0) {
		a.Confidence = 0
	}
	a.Latency = max(a.Latency, 0)
	if !(a.AuditShare >= 0 && a.AuditShare <= 1) || a.AuditShare > 0 && !a.Audit {
		return fmt.Errorf("store: attempt %s has the audit share %v", a.ID, a.AuditShare)
	}
	return a.setAudit(a.audit())
}

// auditUnit is a share of one in numbers as attempts hold it.
const auditUnit = 1e9

// audit is what the column of this name and the chain hold: 0 for no audit, 1 for one of unknown share, else the share in billionths
// and one.
func (a *Attempt) audit() int64 {
	if a.AuditShare == 0 {
		return flag(a.Audit)
	}
	return 1 + max(1, int64(math.Round(a.AuditShare*auditUnit)))
}

// setAudit undoes audit.
func (a *Attempt) setAudit(code int64) error {
	if code < 0 || code > 1+auditUnit {
		return fmt.Errorf("attempt %s: %d says nothing of an audit", a.ID, code)
	}
	a.Audit, a.AuditShare = code > 0, float64(max(code-1, 0))/auditUnit
	return nil
}

// checkOutcome refuses an outcome whose money contradicts its state, and fills in bounds that follow from it.
func (a *Attempt) checkOutcome() error {
	switch a.State {
	case Settled:
		a.CostLow, a.CostHigh = a.Cost, a.Cost
	case Estimated:
		if a.CostLow > a.Cost || a.Cost > a.CostHigh {
			return fmt.Errorf("store: attempt %s: estimate %v is outside its bounds %v to %v", a.ID, a.Cost, a.CostLow, a.CostHigh)
		}
	case Void, Unpriced:
		a.Cost, a.CostLow, a.CostHigh = 0, 0, 0
	default:
		return fmt.Errorf("store: attempt %s: %q is no outcome; use settled, estimated, void or unpriced", a.ID, a.State)
	}
	return nil
}

// clip cuts s at limit bytes on a rune boundary and drops what is not text.
func clip(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	cut := limit - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

package store

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"occam/internal/cost"
)

// exportFormat is the version of the export, in its first line.
const exportFormat = 1

// An exportLine is one entry of the chain as JSON. The first line of an export has Format and At, the last one Ends: the number
// of the last entry of each lane, so that a cut export is noticed.
type exportLine struct {
	Format  int             `json:"occam_ledger,omitempty"`
	At      string          `json:"at,omitempty"`
	Ends    map[int64]int64 `json:"ends,omitempty"`
	Lane    int64           `json:"lane,omitempty"`
	Seq     int64           `json:"seq,omitempty"`
	Kind    string          `json:"kind,omitempty"` // i: intent, o: outcome, f: free (both), x: remark, e: notice
	N       int64           `json:"n,omitempty"`
	Note    string          `json:"note,omitempty"`
	Intent  *exportIntent   `json:"intent,omitempty"`
	Outcome *exportOutcome  `json:"outcome,omitempty"`
	Hash    string          `json:"hash,omitempty"`
}

type exportIntent struct {
	ID        string      `json:"id"`
	Request   string      `json:"request"`
	Seq       int         `json:"seq"`
	At        int64       `json:"at_ns"`
	Key       string      `json:"key,omitempty"`
	Task      string      `json:"task,omitempty"`
	Tier      string      `json:"tier,omitempty"`
	Provider  string      `json:"provider,omitempty"`
	Model     string      `json:"model,omitempty"`
	Audit     bool        `json:"audit,omitempty"`
	Share     float64     `json:"audit_share,omitempty"`
	Simulated bool        `json:"simulated,omitempty"`
	InputHash uint64      `json:"input_hash,omitempty"`
	Price     string      `json:"price,omitempty"`
	Low       cost.Amount `json:"low_nano_usd,omitempty"`
	High      cost.Amount `json:"high_nano_usd,omitempty"`
}

type exportOutcome struct {
	ID         string      `json:"id"`
	State      State       `json:"state"`
	ClosedAt   int64       `json:"closed_at_ns"`
	Price      string      `json:"price,omitempty"`
	Cost       cost.Amount `json:"cost_nano_usd"`
	Low        cost.Amount `json:"low_nano_usd,omitempty"`
	High       cost.Amount `json:"high_nano_usd,omitempty"`
	Reference  cost.Amount `json:"reference_nano_usd,omitempty"`
	Usage      cost.Usage  `json:"usage"`
	Reason     string      `json:"reason,omitempty"`
	Answered   bool        `json:"answered,omitempty"`
	Confidence float64     `json:"confidence,omitempty"`
	Status     int         `json:"status,omitempty"`
	Latency    int64       `json:"latency_ns,omitempty"`
}

// aheadOf reports whether a lane comes before the one in which an attempt began: of a line of a batch that another process went on with
// the outcome may stand before its intent, where lanes are read one after the other.
func aheadOf(n, lane int64) bool { return n&(maxLanes-1) > lane }

// line returns the entry as it is exported. An outcome that stands before its intent has both halves.
func (e *entry) line() exportLine {
	l := exportLine{Lane: e.lane, Seq: e.seq, Kind: string(rune(e.kind)), N: e.n, Note: e.note, Hash: hex.EncodeToString(e.hash)}
	r := e.row
	if r == nil {
		return l
	}
	if e.kind == kindIntent || e.kind == kindFree || e.kind == kindOutcome && aheadOf(e.n, e.lane) {
		l.Intent = &exportIntent{r.ID, r.RequestID, r.Seq, r.At.UnixNano(), r.KeyID, r.Task, r.Tier, r.Provider, r.Model, r.Audit,
			r.AuditShare, r.Simulated, r.InputHash, r.intentPrice, r.intentLow, r.intentHigh}
	}
	if e.kind == kindOutcome || e.kind == kindFree {
		l.Outcome = &exportOutcome{r.ID, r.State, r.closedAt, r.Price, r.Cost, r.CostLow, r.CostHigh, r.Reference, r.Usage, r.Reason,
			r.Answered, r.Confidence, r.Status, int64(r.Latency)}
	}
	return l
}

// fill puts the halves that the line has into r.
func (l *exportLine) fill(r *row) {
	if i := l.Intent; i != nil {
		r.Attempt = Attempt{ID: i.ID, RequestID: i.Request, Seq: i.Seq, At: time.Unix(0, i.At).UTC(), KeyID: i.Key, Task: i.Task,
			Tier: i.Tier, Provider: i.Provider, Model: i.Model, Audit: i.Audit, AuditShare: i.Share, Simulated: i.Simulated, InputHash: i.InputHash,
			State: Pending}
		r.intentPrice, r.intentLow, r.intentHigh = i.Price, i.Low, i.High
	}
	if o := l.Outcome; o != nil {
		r.State, r.closedAt, r.Price, r.Reason, r.Answered = o.State, o.ClosedAt, o.Price, o.Reason, o.Answered
		r.Cost, r.CostLow, r.CostHigh, r.Reference = o.Cost, o.Low, o.High, o.Reference
		r.Usage, r.Confidence, r.Status, r.Latency = o.Usage, o.Confidence, o.Status, time.Duration(o.Latency)
	}
	r.n = l.N
}

// Export writes the ledger as JSON Lines: every entry of the chain in order, with its hash, so that the export can be checked
// on its own. It may run beside a process that writes; it ends where the ledger ended when it began.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.complete(ctx); err != nil {
		return err
	}
	ends, err := s.readLanes(ctx, s.read)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(exportLine{Format: exportFormat, At: s.now().UTC().Format(time.RFC3339)}); err != nil {
		return err
	}
	last := map[int64]int64{}
	// Entries never change and neither do the halves they vouch for, so no long transaction is needed.
	err = s.walk(ctx, s.read, head{lane: -1}, func(e *entry) error {
		if e.seq > ends[e.lane].seq {
			return nil
		}
		if e.unreadable != nil || e.row == nil && !e.kind.alone() {
			return fmt.Errorf("store: export: entry %d/%d cannot be read: run verify", e.lane, e.seq)
		}
		last[e.lane] = e.seq
		return enc.Encode(e.line())
	})
	if err != nil {
		return err
	}
	for lane, end := range ends {
		if last[lane] != end.seq {
			return fmt.Errorf("store: export: lane %d ends at entry %d instead of %d: run verify", lane, last[lane], end.seq)
		}
	}
	if err := enc.Encode(exportLine{Ends: last}); err != nil {
		return err
	}
	return out.Flush()
}

// Package store keeps all durable state: the ledger of attempts, examples, labels, models and keys.
package store

import (
	"time"

	"occam/internal/cost"
)

// A State is how far the ledger knows what an attempt cost.
type State string

const (
	Open      State = "open"      // the intent is durable, the outcome is not known yet
	Settled   State = "settled"   // the provider's own usage was seen
	Estimated State = "estimated" // no usage was seen; CostLow and CostHigh bound it
	Void      State = "void"      // it was never sent
	Free      State = "free"      // it cannot cost money: answered in this process
	Unpriced  State = "unpriced"  // usage was seen, but no price is known for it: never counted as zero
)

// An Attempt is one call to one model, one row of the ledger. A request has one or more attempts, in order of Seq.
type Attempt struct {
	ID         string // ULID
	RequestID  string // ULID of the request
	Seq        int    // 0 for the request's first attempt
	At         time.Time
	KeyID      string // virtual key that made the request, "" if none
	Task       string // "" for pass-through
	Tier       string // "linear", "generalist", …; "" for pass-through
	Provider   string // "" for the embedded specialist
	Model      string // upstream model name, or "task@hash" of a specialist
	Reason     string // why this tier answered, or why it did not
	Answered   bool   // this attempt's answer is the one the app got
	Audit      bool   // sent only to check another tier's answer
	Confidence float64
	Status     int // HTTP status of the reply, 0 when there was none
	State      State
	Usage      cost.Usage
	Cost       cost.Amount // settled cost; for Estimated the best estimate
	CostLow    cost.Amount
	CostHigh   cost.Amount
	Reference  cost.Amount // what the generalist would have cost for this request, at the same prices; on the answering attempt only
	Price      string      // version of the price row used, "" when unpriced
	Latency    time.Duration
	InputHash  uint64 // of the task's input, to find repeats without storing prompts
	Simulated  bool
}

// Package calibration turns held-out scores into a threshold with a finite-sample guarantee, and writes the guarantee down
// as a Certificate. It is pure: no I/O, no clock, no randomness of its own.
package calibration

import "time"

// A Certificate is the statement, with its evidence, that lets one tier answer. Any change of the specialist, the score, the
// teacher or the prompt voids it.
type Certificate struct {
	Task       string    `json:"task"`
	Specialist string    `json:"specialist"` // hash of the exact weights that were calibrated
	Score      string    `json:"score"`      // definition of the acceptance score
	Scope      string    `json:"scope"`      // what counts as wrong: "all" fields, or a field's name
	Promise    string    `json:"promise"`    // "served" or "system"
	Risk       float64   `json:"risk"`       // a: the bound that is promised
	Delta      float64   `json:"delta"`      // probability, over calibration draws, that the promise does not hold
	Method     string    `json:"method"`     // e.g. "fst-2", "rcps"
	Split      string    `json:"split"`      // "held-out" or "cross-fitted"
	Floor      float64   `json:"floor"`      // in-scope floor, fixed before calibration; lower InScope escalates
	Threshold  float64   `json:"threshold"`  // answer iff InScope >= Floor and Score >= Threshold
	N          int       `json:"n"`          // calibration rows
	Accepted   int       `json:"accepted"`   // rows at or above threshold and floor
	Errors     int       `json:"errors"`     // wrong rows among the accepted
	Upper      float64   `json:"upper"`      // one-sided upper confidence bound on the risk at this threshold
	Coverage   float64   `json:"coverage"`   // Accepted / N
	Teacher    string    `json:"teacher,omitempty"`
	PromptHash string    `json:"prompt_hash,omitempty"`
	Labels     string    `json:"labels"` // where the calibration labels come from
	IssuedAt   time.Time `json:"issued_at"`
}

// Accepts reports whether the certificate lets its specialist answer. NaN scores never pass.
func (c *Certificate) Accepts(score, inScope float64) bool {
	return c != nil && score >= c.Threshold && inScope >= c.Floor
}

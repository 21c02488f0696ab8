// Package calibration turns held-out scores into a threshold with a finite-sample guarantee, and writes the guarantee
// down as a Certificate. It is pure: no I/O, no clock, no randomness of its own.
package calibration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A Certificate is the statement, with its evidence, that lets one tier answer. Any change of the specialist, the
// score, the teacher or the prompt voids it. Its JSON is stable: the same certificate gives the same bytes and the same
// Hash.
type Certificate struct {
	Task       string    `json:"task"`
	Specialist string    `json:"specialist"` // hash of the exact weights that were calibrated
	Score      string    `json:"score"`      // definition of the acceptance score
	Scope      string    `json:"scope"`      // what counts as wrong: "all" fields, or a field's name
	Promise    string    `json:"promise"`    // Served or System
	Risk       float64   `json:"risk"`       // a: the bound that is promised
	Delta      float64   `json:"delta"`      // probability, over calibration draws, that the promise does not hold
	Method     string    `json:"method"`     // e.g. "fallback-4", "rcps"
	Split      string    `json:"split"`      // HeldOut or CrossFitted
	Floor      float64   `json:"-"`          // in-scope floor, fixed before calibration; lower InScope escalates; -Inf: none ("floor": null)
	Threshold  float64   `json:"threshold"`  // answer iff InScope >= Floor and Score >= Threshold
	N          int       `json:"n"`          // calibration rows
	Accepted   int       `json:"accepted"`   // rows at or above threshold and floor
	Errors     int       `json:"errors"`     // wrong rows among the accepted
	Upper      float64   `json:"upper"`      // one-sided upper confidence bound on the risk at this threshold
	Coverage   float64   `json:"coverage"`   // Accepted / N
	Teacher    string    `json:"teacher,omitempty"`
	PromptHash string    `json:"prompt_hash,omitempty"`
	Labels     string    `json:"labels"`                  // where the calibration labels come from, in a word
	Sources    []Source  `json:"label_sources,omitempty"` // … and how many from where
	IssuedAt   time.Time `json:"issued_at"`

	From time.Time `json:"from,omitzero"`  // calibration window: first row
	To   time.Time `json:"to,omitzero"`    // last row
	Tier string    `json:"tier,omitempty"` // place in the cascade: calibrated on requests that reach it
	// Below limits the certificate, in a cascade, to requests that each earlier tier, named by its Specialist, scored below the
	// number given, which is about one step of the grid below that tier's threshold; what lies between goes past this tier
	// (see TierResult). It binds the certificate to the very tiers before it.
	Below     map[string]float64 `json:"below,omitempty"`
	Model     string             `json:"model,omitempty"`        // of a tier served elsewhere: provider, model, version and prompt, for people
	Level     float64            `json:"level,omitempty"`        // share of Delta that this certification spent
	AuditRate float64            `json:"audit_rate,omitempty"`   // share of answered requests that is audited while it is live
	Classes   []Row              `json:"classes,omitempty"`      // by predicted class, at this threshold
	Fields    []Row              `json:"fields,omitempty"`       // by field of the answer, at this threshold
	Alone     []Statement        `json:"fields_alone,omitempty"` // promises about single fields, at thresholds of their own
	Truth     *Truth             `json:"truth,omitempty"`        // agreement with the teacher beside accuracy against people's labels
	ValidIf   []string           `json:"valid_while,omitempty"`  // conditions in words, for people; Void checks what a machine can check
}

// How calibration rows and the weights hang together.
const (
	HeldOut     = "held-out"     // the weights never saw the rows: the promise is exact
	CrossFitted = "cross-fitted" // scores by models that did not see the row; the weights saw all: shown to promise too much
)

// A Source is one origin of calibration labels.
type Source struct {
	Name   string `json:"name"`             // "person", "import", or the pinned name of the model whose answers they are
	Prompt string `json:"prompt,omitempty"` // hash of the prompt that the model answered
	Rows   int    `json:"rows"`
}

// A Row is what is known, at a certificate's threshold, about one predicted class or one field of the answer.
type Row struct {
	Name     string  `json:"name"`
	Accepted int     `json:"accepted"`
	Errors   int     `json:"errors"`
	Upper    float64 `json:"upper"` // one-sided Clopper–Pearson upper bound on the row's own risk
	Note     string  `json:"note"`  // Certified, Pooled with others, or Overall
}

// What a Row's Note says.
const (
	Certified = "certified"                            // this row alone keeps the promise
	Pooled    = "certified in a pool of small classes" // the pool as a whole keeps it
	Overall   = "covered by the overall promise only"  // too few labels, or too many errors, for a promise of its own
)

// Conditions are the sentences that every certificate is valid under.
func Conditions() []string {
	return []string{
		"new requests come from the same traffic as the calibration rows (watched by audits)",
		"the specialist's weights, its score and its in-scope floor are unchanged",
		"the teacher's pinned version and the prompt are unchanged",
		"labels are right in the sense named under labels: agreement with a teacher is not truth",
	}
}

// Certificate writes the result down. Fields that the result does not know are taken from about: the task, the hashes,
// the floor, the source of the labels, the time of issue.
func (r Result) Certificate(about Certificate) Certificate {
	c := about
	c.Promise, c.Risk, c.Delta, c.Method = r.Goal.Promise, r.Goal.Risk, r.Goal.Delta, r.Method
	c.Threshold, c.N, c.Accepted, c.Errors = r.Threshold, r.N, r.Accepted, r.Errors
	c.Upper, c.Level, c.Coverage = r.Upper, r.Goal.Spend(), r.Coverage()
	if c.Scope == "" {
		c.Scope = "all"
	}
	if c.Split == "" {
		c.Split = HeldOut
	}
	if c.ValidIf == nil {
		c.ValidIf = Conditions()
	}
	return c
}

// Accepts reports whether the certificate lets its specialist answer. NaN scores never pass, nor does a nil certificate.
func (c *Certificate) Accepts(score, inScope float64) bool {
	return c != nil && score >= c.Threshold && inScope >= c.Floor
}

// Reaches reports whether a request to which an earlier tier, named by its Specialist, gave this score is one the certificate was made for.
func (c *Certificate) Reaches(tier string, score float64) bool {
	limit, limited := c.Below[tier]
	return !limited || !(score >= limit)
}

// Identity is what a certificate is bound to.
type Identity struct {
	Task       string
	Specialist string // hash of the weights
	Score      string // definition of the acceptance score
	Teacher    string // pinned name and version of the labels' teacher; "" when people made the labels
	PromptHash string // of the prompt the teacher answered
}

// Void returns why the certificate does not hold for what is now to be served, or "" when it does.
func (c *Certificate) Void(now Identity) string {
	if c == nil {
		return "there is no certificate"
	}
	for _, part := range []struct{ what, certified, now string }{
		{"task", c.Task, now.Task},
		{"specialist", c.Specialist, now.Specialist},
		{"score definition", c.Score, now.Score},
		{"teacher", c.Teacher, now.Teacher},
		{"prompt", c.PromptHash, now.PromptHash},
	} {
		if part.certified != part.now {
			return fmt.Sprintf("the %s changed: certified %q, now %q; calibrate again", part.what, part.certified, part.now)
		}
	}
	if !(c.Accepted > 0 && c.Upper <= c.Risk && c.Risk < 1) || math.IsNaN(c.Threshold) || math.IsInf(c.Threshold, 0) {
		return "the certificate proves nothing: no accepted rows, or its bound is above its risk"
	}
	return ""
}

// Hash returns the SHA-256 of the certificate's JSON, in hexadecimal: the same for the same certificate, also after a
// round trip through JSON.
func (c *Certificate) Hash() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic("calibration: a certificate holds a number that JSON has no form for: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// plain has Certificate's fields without its methods, so that encoding/json does not call itself.
type plain Certificate

type wire struct {
	plain
	Floor *float64 `json:"floor"` // null: no floor, -Inf
}

// MarshalJSON writes the certificate with "floor": null for no floor, and times in UTC to the microsecond, which
// databases keep.
func (c Certificate) MarshalJSON() ([]byte, error) {
	w := wire{plain: plain(c)}
	for _, at := range []*time.Time{&w.IssuedAt, &w.From, &w.To} {
		*at = at.UTC().Truncate(time.Microsecond)
	}
	if !math.IsInf(c.Floor, -1) {
		w.Floor = &c.Floor
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Certificate) UnmarshalJSON(data []byte) error {
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("calibration: certificate: %w", err)
	}
	*c = Certificate(w.plain)
	c.Floor = math.Inf(-1)
	if w.Floor != nil {
		c.Floor = *w.Floor
	}
	return nil
}

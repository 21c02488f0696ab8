// Package cascade decides which tier of a task may answer a request. It is pure: certificates, predictions, budgets, the
// time and a random number come in as arguments, and a decision with its reason comes out.
package cascade

import (
	"math"
	"slices"

	"occam/internal/calibration"
	"occam/internal/task"
)

// A Mode says what a tier may do.
type Mode string

const (
	Off       Mode = "off"       // not asked
	Shadow    Mode = "shadow"    // predicts beside the generalist, never answers
	Canary    Mode = "canary"    // answers a share of the requests, predicts beside the generalist for the rest
	Live      Mode = "live"      // answers whatever its certificate lets it
	Suspended Mode = "suspended" // was live; drift took its certificate away
)

// A Tier is one model in a task's cascade, as far as the decision needs it.
type Tier struct {
	Name        string // "linear", "encoder", "llama-3.2-3b", …
	Mode        Mode
	Share       float64 // of Canary: share of the requests, in [0,1], that the tier may answer
	Certificate *calibration.Certificate
	Identity    calibration.Identity // of what is served now: a certificate of anything else does not cover it
	// Version is what a model at an upstream must call itself in its answer, because that is what was certified; "" for a model
	// in this process.
	Version string
	Rare    *Stratum // nil: none
}

// A Stratum is the answers of one tier in classes that a uniform audit sees too seldom: they have an audit share of their own,
// and a detector of their own, so that no weights are needed.
type Stratum struct {
	Field  int             // of the answer, a category
	Values map[string]bool // its rare values
	Audit  float64         // share of these answers that is audited beside the uniform sample
	Barred bool            // its detector has raised an alarm: the tier answers nothing in these classes
}

// Holds reports whether a prediction belongs to the stratum.
func (s *Stratum) Holds(p *task.Prediction) bool {
	return s != nil && s.Field < len(p.Values) && s.Values[p.Values[s.Field].Text()]
}

// What the acceptance score of a model at an upstream is: part of its certificate's identity.
const (
	ScoreLogProb  = "log-probability of the answer's text"
	ScoreConstant = "none: every answer that fits the schema"
)

// A Passed is an earlier tier that was asked and did not answer, with the score that counts: -Inf where its answer was outside
// the certified scope or was no answer.
type Passed struct {
	Tier  string // identity of what answered, see calibration.Identity.Specialist
	Score float64
}

// Covers reports whether the tier's certificate was made for a request that came this way. An earlier tier that the
// certificate names and that was not asked leaves that open, so it does not.
func (t *Tier) Covers(way []Passed) bool {
	if t.Certificate == nil {
		return false
	}
	for name := range t.Certificate.Below {
		i := slices.IndexFunc(way, func(p Passed) bool { return p.Tier == name })
		if i < 0 || !t.Certificate.Reaches(name, way[i].Score) {
			return false
		}
	}
	return true
}

// Gated is the score of a prediction that counts for the tiers after this one.
func (t *Tier) Gated(p *task.Prediction) float64 {
	if t.Certificate != nil && !(p.InScope >= t.Certificate.Floor) {
		return math.Inf(-1)
	}
	return p.Score
}

// A Reason says why a tier answered a request, or why it did not. Reasons are few and fixed: they label metrics.
type Reason string

const (
	Certified      Reason = "certified"       // the tier answered: its certificate accepts the prediction
	BelowThreshold Reason = "below_threshold" // the acceptance score is too low
	OutOfScope     Reason = "out_of_scope"    // the input is unlike what the tier was calibrated on
	NoCertificate  Reason = "no_certificate"  // nothing was proved, or it was proved of another model
	InvalidOutput  Reason = "invalid_output"  // the prediction does not fit the task's schema
	Failed         Reason = "tier_failed"     // the tier gave no prediction
	NotCovered     Reason = "not_covered"     // it was certified for other requests than those that the tiers before leave to it
	OtherVersion   Reason = "other_version"   // the upstream answered with another version of the model than was certified
	InShadow       Reason = "shadow"          // the tier only watches
	NotInCanary    Reason = "not_in_canary"   // the tier answers a share of the requests, and this one is outside
	IsSuspended    Reason = "suspended"
	IsOff          Reason = "off"
	NotPlain       Reason = "not_plain"         // the request asks for what only the generalist can give: tools, several answers, logprobs …
	Unreadable     Reason = "unreadable"        // the messages do not fit the task's template
	NoTier         Reason = "no_tier"           // the task has no tier beside the generalist
	PassThrough    Reason = "passthrough"       // the request belongs to no task
	Doubt          Reason = "review"            // no tier may answer and the task asks for a person
	OverBudget     Reason = "escalation_budget" // the key has spent its escalations for now
	Degraded       Reason = "budget"            // the key's money goes to a cheaper model
	Hedged         Reason = "hedge"             // of two calls for one request this one came second and was cancelled
	Auditing       Reason = "audit"             // the call only checks another tier's answer
	AuditingRare   Reason = "audit_rare"        // the same for an answer in a rare class, beside the uniform sample
	Calibrating    Reason = "calibration"       // the call measures a tier on a request of the past, to certify it
)

// A Role is what one tier does for one request.
type Role int

const (
	Skip   Role = iota // not asked
	Watch              // asked, but may not answer
	Answer             // asked, and answers if its certificate accepts
)

// A Step is one tier in the plan of one request. Reason says why the tier may not answer, "" where it may.
type Step struct {
	Role   Role
	Reason Reason
}

// A Request is what the plan depends on.
type Request struct {
	Plain    bool   // any model could give the answer
	Readable bool   // the task's input could be read from the messages
	Hash     uint64 // of the input: the same input falls on the same side of a canary
}

// Plan says what each tier does for a request: one Step a tier, in order. It appends to steps.
func Plan(steps []Step, tiers []Tier, r Request) []Step {
	for i := range tiers {
		steps = append(steps, tiers[i].step(r))
	}
	return steps
}

func (t *Tier) step(r Request) Step {
	switch {
	case !r.Readable:
		return Step{Skip, Unreadable}
	case !r.Plain:
		return Step{Skip, NotPlain}
	}
	switch t.Mode {
	case Live:
		return Step{Role: Answer}
	case Canary:
		if InShare(r.Hash, t.Share) {
			return Step{Role: Answer}
		}
		return Step{Watch, NotInCanary}
	case Shadow:
		return Step{Watch, InShadow}
	case Suspended:
		return Step{Skip, IsSuspended}
	default:
		return Step{Skip, IsOff}
	}
}

// InShare reports whether a hash falls into a share in [0,1]. A larger share keeps every hash of a smaller one, so that a
// growing canary never takes an input back.
func InShare(hash uint64, share float64) bool {
	return float64(mix(hash)>>11)*0x1p-53 < share
}

// mix spreads a hash over all 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Decide says whether a tier's prediction may be the answer: Certified, or the reason why not.
func (t *Tier) Decide(fields []task.Field, input string, p *task.Prediction) Reason {
	c := t.Certificate
	switch {
	case c.Void(t.Identity) != "":
		return NoCertificate
	case math.IsNaN(p.Score) || math.IsNaN(p.InScope):
		return InvalidOutput
	case !valid(fields, input, p):
		return InvalidOutput
	case t.Rare != nil && t.Rare.Barred && t.Rare.Holds(p):
		return IsSuspended
	case c.Accepts(p.Score, p.InScope):
		return Certified
	case p.InScope < c.Floor:
		return OutOfScope
	default:
		return BelowThreshold
	}
}

// valid checks a prediction against the schema; a span must stand in the input, because a tier extracts and never invents.
func valid(fields []task.Field, input string, p *task.Prediction) bool {
	if len(p.Values) != len(fields) {
		return false
	}
	for i, f := range fields {
		if f.Check(p.Values[i]) != nil || !f.StandsIn(p.Values[i], input) {
			return false
		}
	}
	return true
}

// Audited draws the audit sample: u is uniform in [0,1), so a share of all draws is audited, independent of the request.
func Audited(share, u float64) bool { return u < share }

package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
)

// A State is how far a task has come from being watched to being answered by a specialist.
type State string

const (
	Observing State = "observing" // the generalist answers everything; its answers become examples
	Candidate State = "candidate" // a certified model waits to be tried
	Shadow    State = "shadow"    // the model predicts beside the generalist and never answers
	Canary    State = "canary"    // it answers a share of the requests
	Live      State = "live"      // it answers whatever its certificate lets it
	Suspended State = "suspended" // it answered, until an alarm or a void certificate took it away
)

// States are all states, in the order of a model's life.
func States() []State { return []State{Observing, Candidate, Shadow, Canary, Live, Suspended} }

// A Record is where one task stands. It is stored whole, one version a step.
type Record struct {
	State State `json:"state"`
	// Lead is the content hash of the model that State speaks of, "" while observing.
	Lead string `json:"lead,omitempty"`
	// Incumbent is the model that stays live while a newer Lead is candidate, shadow or canary; "": the generalist answers.
	Incumbent string `json:"incumbent,omitempty"`
	// Previous is the model that was live before: where a rollback goes.
	Previous string `json:"previous,omitempty"`
	// Dismissed is the model that a person rolled back last: it answers again by hand only.
	Dismissed string `json:"dismissed,omitempty"`
	// Seen is the newest model that was considered, taken or refused, so that none is considered twice.
	Seen   string `json:"seen,omitempty"`
	Paused bool   `json:"paused,omitempty"` // by hand: no tier answers, nothing is trained or promoted
	// AlarmAt is when drift was last found: examples from before it may teach, but neither calibrate nor test.
	// The same holds where another model or prompt came to give the labels.
	AlarmAt time.Time `json:"alarm_at,omitzero"`
	Since   time.Time `json:"since"`  // of State and Lead
	Reason  string    `json:"reason"` // of the last step
}

// incumbent is the model that is live, "" where none is.
func (r Record) incumbent() string {
	if r.State == Live {
		return r.Lead
	}
	return r.Incumbent
}

// Evidence is what is known of one model now.
type Evidence struct {
	Void  string // why its certificate does not hold for what would be served; "" when it holds
	Moved bool   // of Void: another model or prompt gives the labels now, so former answers calibrate nothing
	Alarm string // why its answers may no longer be as good as promised; "" when there is no such sign
	// Of the requests in the present state that the certificate accepts and that the generalist answered too:
	Compared, Disagreed int
	Risk                float64 // share that may disagree
	Paid                bool    // its first tier is paid by the call: it is not asked in shadow
	// Unconfirmed is why its certificate does not suffice by itself, "" when it does. See confirmation.
	Unconfirmed string
}

// sound reports whether the model may answer.
func (e Evidence) sound() bool { return e.Void == "" && e.Alarm == "" }

// trouble is why a model may not answer.
func (e Evidence) trouble() string {
	if e.Void != "" {
		return "its certificate does not hold: " + e.Void
	}
	return e.Alarm
}

// A Contender is a trained model that the record does not know yet. Refusal says why it must not be tried.
type Contender struct {
	Model   string
	Refusal string // "" when it is certified and better than what it would replace
	Reason  string // why it is worth trying
	// Unrivalled says that no model was live when it was trained, so that it was compared with none.
	Unrivalled bool
}

// Facts are everything a decision rests on, beside the record.
type Facts struct {
	Now             time.Time
	Auto            bool // the task may be promoted without a person
	Lead, Incumbent Evidence
	Previous        Evidence // about Record.Previous
	Fresh           *Contender
}

const (
	shadowNeeded = 100  // comparisons before a shadow may become a canary
	canaryNeeded = 50   // comparisons before a canary may go live
	canaryShare  = 0.20 // of requests, by hash
	doubtLevel   = 0.05 // a promotion waits while disagreement above the risk is this well proven
)

// Decide returns the record's next step, or false when there is nothing to do now. It looks at danger first, so that a
// model with an alarm never answers after one step. Promotions need Facts.Auto; withdrawals never ask.
func Decide(r Record, f Facts) (Record, bool) {
	next, moved := decide(r, f)
	return next.stamped(r, f.Now), moved
}

func decide(r Record, f Facts) (Record, bool) {
	if r.Incumbent != "" && !f.Incumbent.sound() {
		return r.withdrawIncumbent(f), true
	}
	if r.Lead != "" && r.State != Suspended && !f.Lead.sound() {
		return r.withdrawLead(f), true
	}
	if r.Paused {
		return r, false
	}
	if f.Fresh != nil && r.State != Canary && !slices.Contains([]string{r.Seen, r.Lead, r.Incumbent}, f.Fresh.Model) {
		return r.consider(*f.Fresh), true
	}
	if f.Auto {
		return r.advance(f)
	}
	return r, false
}

func (r Record) withdrawIncumbent(f Facts) Record {
	r.Reason = fmt.Sprintf("model %s no longer answers: %s", short(r.Incumbent), f.Incumbent.trouble())
	r.Previous, r.Incumbent = r.Incumbent, ""
	if f.Incumbent.Alarm != "" || f.Incumbent.Moved {
		r.AlarmAt = f.Now
	}
	return r
}

// withdrawLead stops the lead. What answered before it answers again, if that may.
func (r Record) withdrawLead(f Facts) Record {
	reason := fmt.Sprintf("model %s withdrawn from %s: %s", short(r.Lead), r.State, f.Lead.trouble())
	answered := r.State == Canary || r.State == Live
	switch {
	case r.Incumbent != "":
		r = r.restored(r.Incumbent, "")
		reason += fmt.Sprintf("; model %s answers again", short(r.Lead))
	case answered && f.Lead.Void != "" && r.Previous != "" && r.Previous != r.Lead && r.Previous != r.Dismissed && f.Previous.sound(): // its file is broken, say
		r = r.restored(r.Previous, "")
		reason += fmt.Sprintf("; model %s answers again", short(r.Lead))
	case answered:
		r.State = Suspended
		reason += "; the generalist answers"
	default:
		r.State, r.Lead = Observing, ""
	}
	if answered && f.Lead.Alarm != "" || f.Lead.Moved {
		r.AlarmAt = f.Now
	}
	r.Reason = reason
	return r
}

// stamped notes when the record came into a new state.
func (r Record) stamped(before Record, now time.Time) Record {
	if r.State != before.State || r.Lead != before.Lead {
		r.Since = now
	}
	return r
}

// restored makes a model that answered before the live one again.
func (r Record) restored(model, previous string) Record {
	r.State, r.Lead, r.Incumbent, r.Previous = Live, model, "", previous
	return r
}

// consider takes a new model as candidate or refuses it.
func (r Record) consider(c Contender) Record {
	r.Seen = c.Model
	if c.Refusal == "" && c.Unrivalled && r.incumbent() != "" {
		c.Refusal = "it was trained before a model went live, and not compared with that"
	}
	if c.Refusal != "" {
		r.Reason = fmt.Sprintf("model %s refused: %s", short(c.Model), c.Refusal)
		return r
	}
	switch r.State {
	case Live:
		r.Incumbent = r.Lead
	case Suspended:
		r.Previous = r.Lead
	}
	r.State, r.Lead = Candidate, c.Model
	r.Reason = fmt.Sprintf("model %s is a candidate: %s", short(c.Model), c.Reason)
	return r
}

const noPaidShadow = "a shadow would pay for answers such as calibration has bought, so the canary's audits decide"

// advance promotes by one step where the evidence suffices.
func (r Record) advance(f Facts) (Record, bool) {
	switch r.State {
	case Candidate:
		if r.Incumbent != "" && f.Lead.Unconfirmed == "" {
			return r.entered(Canary, "a shadow would only see what the live model passes on, so the canary's audits decide"), true
		}
		if f.Lead.Paid {
			return r.entered(Canary, noPaidShadow), true
		}
		return r.entered(Shadow, "it is certified"), true
	case Shadow:
		if f.Lead.Paid {
			return r.entered(Canary, noPaidShadow), true
		}
		if f.Lead.enough(shadowNeeded) && f.Lead.Unconfirmed == "" {
			return r.entered(Canary, f.Lead.summary("in shadow")), true
		}
	case Canary:
		if f.Lead.enough(canaryNeeded) {
			return r.entered(Live, f.Lead.summary("as a canary")), true
		}
	}
	return r, false
}

// enough reports whether a model was compared often enough without proof that it disagrees more than it may.
func (e Evidence) enough(needed int) bool {
	return e.Compared >= needed && calibration.Lower(e.Disagreed, e.Compared, doubtLevel) <= e.Risk
}

func (e Evidence) summary(where string) string {
	return fmt.Sprintf("%s it disagreed with the generalist in %d of %d answers that its certificate allows (up to %.2g may)",
		where, e.Disagreed, e.Compared, e.Risk)
}

// entered moves the lead on, with what that means for the models around it.
func (r Record) entered(s State, why string) Record {
	if r.Dismissed == r.Lead {
		r.Dismissed = ""
	}
	if s == Live {
		if r.Incumbent != "" {
			r.Previous = r.Incumbent
		}
		r.Incumbent = ""
	}
	r.State = s
	r.Reason = fmt.Sprintf("model %s is %s now: %s", short(r.Lead), s, why)
	return r
}

// A Placement is one model's place in the cascade.
type Placement struct {
	Model string
	Mode  cascade.Mode
	Share float64 // of Canary
}

// Placements lists the models that the record puts in front of the generalist, first asked first.
func (r Record) Placements() []Placement {
	var places []Placement
	modes := map[State]cascade.Mode{Shadow: cascade.Shadow, Canary: cascade.Canary, Live: cascade.Live, Suspended: cascade.Suspended}
	if mode, placed := modes[r.State]; placed {
		p := Placement{Model: r.Lead, Mode: mode}
		if mode == cascade.Canary {
			p.Share = canaryShare
		}
		places = append(places, p)
	}
	if r.Incumbent != "" {
		places = append(places, Placement{Model: r.Incumbent, Mode: cascade.Live})
	}
	if r.Paused {
		for i := range places {
			places[i].Mode = cascade.Off
		}
	}
	return places
}

// Answers reports whether the record lets a model answer requests.
func (r Record) Answers(model string) bool {
	return slices.ContainsFunc(r.Placements(), func(p Placement) bool {
		return p.Model == model && (p.Mode == cascade.Live || p.Mode == cascade.Canary)
	})
}

// short is how people see a hash.
func short(hash string) string { return hash[:min(8, len(hash))] }

package lifecycle

import (
	"errors"
	"fmt"
)

// A Command is what a person may do to a task. Every command is a step like any other: recorded, with who gave it.
type Command string

const (
	Promote  Command = "promote"  // the lead goes one state on
	RollBack Command = "rollback" // what answered before answers again
	Pause    Command = "pause"    // no tier answers, nothing is trained or promoted
	Resume   Command = "resume"
)

// Obey applies a command, or says why it cannot be done. previous is the evidence about Record.Previous. A person may
// promote without waiting for comparisons, but never past a certificate that does not hold.
func Obey(r Record, f Facts, previous Evidence, c Command) (Record, error) {
	next, err := obey(r, f, previous, c)
	return next.stamped(r, f.Now), err
}

func obey(r Record, f Facts, previous Evidence, c Command) (Record, error) {
	switch c {
	case Promote:
		return r.promoted(f)
	case RollBack:
		return r.rolledBack(f, previous)
	case Pause:
		if r.Paused {
			return r, errors.New("the task is paused already")
		}
		r.Paused, r.Reason = true, "paused by hand: the generalist answers"
		return r, nil
	case Resume:
		if !r.Paused {
			return r, errors.New("the task is not paused")
		}
		r.Paused, r.Reason = false, "resumed by hand"
		return r, nil
	}
	return r, fmt.Errorf("there is no command %q: it is promote, rollback, pause or resume", c)
}

func (r Record) promoted(f Facts) (Record, error) {
	switch {
	case r.Paused:
		return r, errors.New("the task is paused: resume it first")
	case r.Lead == "":
		return r, errors.New("there is no model to promote: the task is observing")
	case r.State == Live:
		return r, fmt.Errorf("model %s is live already", short(r.Lead))
	case f.Lead.Void != "":
		return r, fmt.Errorf("model %s may not be promoted: its certificate does not hold: %s", short(r.Lead), f.Lead.Void)
	}
	const why = "promoted by hand"
	if r.State == Suspended { // the alarm was judged false: the evidence starts again, before it answers anything
		return r.entered(Shadow, "tried again by hand after the alarm"), nil
	}
	if f.Lead.Alarm != "" {
		return r, fmt.Errorf("model %s may not be promoted: %s", short(r.Lead), f.Lead.Alarm)
	}
	next := map[State]State{Candidate: Shadow, Shadow: Canary, Canary: Live}[r.State]
	if r.State == Candidate && r.Incumbent != "" && f.Lead.Unconfirmed == "" {
		next = Canary
	}
	if next != Shadow && f.Lead.Unconfirmed != "" {
		return r, fmt.Errorf("model %s may not be promoted yet: %s", short(r.Lead), f.Lead.Unconfirmed)
	}
	return r.entered(next, why), nil
}

func (r Record) rolledBack(f Facts, previous Evidence) (Record, error) {
	lead := r.Lead
	switch {
	case r.State == Observing:
		return r, errors.New("there is nothing to roll back: the task is observing")
	case r.Incumbent != "" && f.Incumbent.sound():
		r = r.restored(r.Incumbent, "")
	case r.State == Candidate || r.State == Shadow:
		r.State, r.Lead, r.Incumbent = Observing, "", ""
	case r.Previous != "" && r.Previous != r.Lead && previous.sound():
		r = r.restored(r.Previous, r.Lead)
	case r.State == Suspended && r.Previous == "":
		return r, errors.New("there is no earlier model to go back to, and the generalist answers already")
	case r.State == Suspended:
		return r, fmt.Errorf("model %s cannot answer again: %s", short(r.Previous), previous.trouble())
	default:
		r.State, r.Incumbent = Suspended, ""
	}
	r.Dismissed = lead
	r.Reason = fmt.Sprintf("model %s rolled back by hand: ", short(lead))
	if r.State == Live {
		r.Reason += fmt.Sprintf("model %s answers again", short(r.Lead))
	} else {
		r.Reason += "the generalist answers"
	}
	return r, nil
}

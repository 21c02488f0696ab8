// Package drift watches a certified specialist while it serves, with sequential tests that stay valid however often
// they are looked at. A Monitor reads audited answers and suspends; a Watch reads label-free signs and only warns. Both
// are pure, are updated one observation at a time at constant cost, and live as JSON between restarts.
package drift

import (
	"encoding/json"
	"errors"
	"fmt"
)

// An Audit is what came of sending a copy of a served request to the next tier or a person.
type Audit int8

const (
	Right   Audit = iota // the specialist's answer was confirmed
	Wrong                // it was contradicted
	Missing              // the audit itself failed (timeout, refusal): nothing is known, and it never counts as right
)

// Options of a Monitor.
type Options struct {
	// Risk is the promised bound on the mean of the audited errors: the certificate's risk when answered requests are
	// audited (Served), or risk divided by coverage for the System promise.
	Risk float64 `json:"risk"`
	// Delta bounds the probability of a false alarm within Horizon audits while the risk is at most Risk, with a look
	// after every audit. It is also the confidence sequence's failure probability.
	Delta float64 `json:"delta"`
	// Horizon is a number of audits; 0 means 10,000. In the long run false alarms are at least Horizon / Delta audits
	// apart.
	Horizon int `json:"horizon"`
	// MissingIsWrong counts failed audits as errors in the alarm. Otherwise the alarm skips them, and Status bounds
	// both ways.
	MissingIsWrong bool `json:"missing_is_wrong,omitempty"`
}

// The alarm's share of Delta: most for a change at an unknown time, the rest for a risk that was too high all along.
const (
	changeShare = 0.95
	wholeShare  = 0.05
)

// A Monitor keeps the evidence about one certificate from a uniform random audit of the requests it answered. Whether a
// request is audited must be drawn before its outcome is known. Risky or rare classes get a Monitor of their own, fed by
// their own audit share. A Monitor is not safe for concurrent use.
type Monitor struct {
	options               Options
	right, wrong, missing int
	whole                 wealth   // against "the risk was at most Risk throughout"
	change                detector // against "and still is"
	alarmAt               int      // audits when the alarm was raised; 0: none
	reason                string
}

// NewMonitor returns a Monitor without audits. A new certificate starts a new one.
func NewMonitor(o Options) (*Monitor, error) {
	if o.Horizon == 0 {
		o.Horizon = 10_000
	}
	m := &Monitor{options: o}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// Options returns what the Monitor was made with.
func (m *Monitor) Options() Options { return m.options }

func (m *Monitor) check() error {
	o := m.options
	if !(o.Risk > 0 && o.Risk < 1) || !(o.Delta > 0 && o.Delta < 1) || o.Horizon < 1 {
		return fmt.Errorf("drift: risk %v and delta %v must lie strictly between 0 and 1, horizon %d be positive", o.Risk, o.Delta, o.Horizon)
	}
	if !m.whole.valid() || !m.change.valid() || m.right < 0 || m.wrong < 0 || m.missing < 0 || m.alarmAt < 0 {
		return errors.New("drift: the monitor's state is damaged; start a new monitor from the ledger's audits")
	}
	return nil
}

// Observe adds one audit and reports whether the alarm stands. An alarm, once raised, stands until a new Monitor is made.
func (m *Monitor) Observe(a Audit) (alarm bool) {
	switch a {
	case Right:
		m.right++
		m.bet(0)
	case Wrong:
		m.wrong++
		m.bet(1)
	default:
		m.missing++
		if m.options.MissingIsWrong {
			m.bet(1)
		}
	}
	if m.alarmAt == 0 {
		m.judge()
	}
	return m.alarmAt > 0
}

func (m *Monitor) bet(x float64) {
	m.whole.observe(m.options.Risk, x)
	m.change.observe(m.options.Risk, x)
}

// judge raises the alarm where the evidence suffices.
func (m *Monitor) judge() {
	o := m.options
	audits := m.right + m.wrong + m.missing
	switch {
	case m.change.value() >= float64(o.Horizon)/(changeShare*o.Delta):
		m.alarmAt = audits
		m.reason = fmt.Sprintf("the error rate of served answers has risen above the promised %.3g %% (%d of %d audits wrong, %d failed)",
			100*o.Risk, m.wrong, m.right+m.wrong, m.missing)
	case m.whole.value() >= 1/(wholeShare*o.Delta):
		m.alarmAt = audits
		m.reason = fmt.Sprintf("the error rate of served answers has been above the promised %.3g %% all along (%d of %d audits wrong, %d failed)",
			100*o.Risk, m.wrong, m.right+m.wrong, m.missing)
	}
}

// A Status is what a Monitor knows, for people and dashboards.
type Status struct {
	Audits  int `json:"audits"` // tried: right + wrong + missing
	Wrong   int `json:"wrong"`
	Missing int `json:"missing"`
	// Low and High hold the risk with probability 1-Delta at every look, if failed audits failed at random and the risk
	// did not change since the start. LowAtBest and HighAtWorst hold it whatever the failed audits would have said.
	Low         float64 `json:"low"`
	High        float64 `json:"high"`
	LowAtBest   float64 `json:"low_at_best"`
	HighAtWorst float64 `json:"high_at_worst"`
	Evidence    float64 `json:"evidence"` // e-value against "the risk was at most Risk throughout"; 20 is strong
	Change      float64 `json:"change"`   // e-detector; the alarm is at Limit
	Limit       float64 `json:"limit"`
	Alarm       bool    `json:"alarm"`
	AlarmAt     int     `json:"alarm_at,omitempty"` // audits when it was raised
	Reason      string  `json:"reason,omitempty"`
}

// Status returns what is known now.
func (m *Monitor) Status() Status {
	audited, delta := m.right+m.wrong, m.options.Delta
	s := Status{
		Audits: audited + m.missing, Wrong: m.wrong, Missing: m.missing,
		Evidence: m.whole.value(), Change: m.change.value(), Limit: float64(m.options.Horizon) / (changeShare * delta),
		Alarm: m.alarmAt > 0, AlarmAt: m.alarmAt, Reason: m.reason,
	}
	s.Low, s.High = sequence(m.wrong, audited, delta)
	s.LowAtBest, _ = sequence(m.wrong, audited+m.missing, delta)
	_, s.HighAtWorst = sequence(m.wrong+m.missing, audited+m.missing, delta)
	return s
}

// HighAtWorst bounds the risk from above with probability 1-delta at every look, if every failed audit was an error.
func (m *Monitor) HighAtWorst(delta float64) float64 {
	_, high := sequence(m.wrong+m.missing, m.right+m.wrong+m.missing, delta)
	return high
}

// saved is a Monitor as JSON.
type saved struct {
	Version int      `json:"version"`
	Options Options  `json:"options"`
	Right   int      `json:"right"`
	Wrong   int      `json:"wrong"`
	Missing int      `json:"missing"`
	Whole   wealth   `json:"whole"`
	Change  detector `json:"change"`
	AlarmAt int      `json:"alarm_at,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// MarshalJSON writes the whole state: a Monitor read back continues as if it had never stopped.
func (m *Monitor) MarshalJSON() ([]byte, error) {
	return json.Marshal(saved{1, m.options, m.right, m.wrong, m.missing, m.whole, m.change, m.alarmAt, m.reason})
}

// UnmarshalJSON reads what MarshalJSON wrote and refuses damaged state.
func (m *Monitor) UnmarshalJSON(data []byte) error {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("drift: monitor: %w", err)
	}
	if s.Version != 1 {
		return fmt.Errorf("drift: monitor: version %d is unknown, this program reads version 1", s.Version)
	}
	read := Monitor{s.Options, s.Right, s.Wrong, s.Missing, s.Whole, s.Change, s.AlarmAt, s.Reason}
	if err := read.check(); err != nil {
		return err
	}
	*m = read
	return nil
}

package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/drift"
	"occam/internal/store"
)

// The generalist may answer a task's request with what the task's schema does not hold: a label that is new, or another name for an
// old one. Such an answer can be compared with nothing, so an audit that gets one fails; and where the labels change and no request
// carries a schema, every audit of what changed would fail and no alarm be raised. So these answers are counted, in a uniform sample
// of all requests. When they come provably more often than when a model was certified that is a warning, and from then on an audit
// that gets one counts as wrong: whatever the generalist said, it was not what the specialist said.

// kindOutside is the kind of document that holds a task's OutsideCount, by task.
const kindOutside = "outside"

const (
	outsideKnown   = 100   // answers from which on the share at certification is known
	outsideUnknown = 0.02  // share that is no news until then
	outsideLeast   = 0.005 // share that never is news
	outsideMost    = 0.10  // a model of the rest would be certified for too few of the requests
	outsideDoubt   = 0.05
)

// outsideSign is what the warning says.
const outsideSign = "the generalist's answers are outside the schema more often than at calibration"

// An OutsideCount counts the generalist's answers to a uniform sample of a task's requests since Since, the last alarm.
type OutsideCount struct {
	Since   time.Time `json:"since,omitzero"`
	Answers int       `json:"answers"`
	Outside int       `json:"outside"` // that the task's schema does not hold

	unwritten bool
}

// limit is the share of answers outside the schema that a model certified on what was counted so far has to expect.
func (n OutsideCount) limit(delta float64) float64 {
	if n.Answers < outsideKnown {
		return outsideUnknown
	}
	return max(outsideLeast, calibration.Upper(n.Outside, n.Answers, delta))
}

// obstacle says why nothing should be certified, "" when it may: a certificate would speak of the other answers only.
func (n OutsideCount) obstacle() string {
	if n.Answers < outsideKnown || calibration.Lower(n.Outside, n.Answers, outsideDoubt) <= outsideMost {
		return ""
	}
	return fmt.Sprintf("waits for a schema that fits: %d of %d answers of the generalist are outside it, so its labels may have changed", n.Outside, n.Answers)
}

// outsideWatch watches the share since a model was certified.
type outsideWatch struct {
	Monitor *drift.Monitor `json:"monitor"`
	Usual   float64        `json:"usual"` // share when it was certified
}

func (n OutsideCount) watch(delta float64) (*outsideWatch, error) {
	m, err := newMonitor(n.limit(delta), delta)
	return &outsideWatch{Monitor: m, Usual: float64(n.Outside) / float64(max(n.Answers, 1))}, err
}

// observe adds an answer and reports whether it raised the warning.
func (w *outsideWatch) observe(outside bool) (raised bool) {
	if w == nil || w.stands() {
		return false
	}
	a := drift.Right
	if outside {
		a = drift.Wrong
	}
	return w.Monitor.Observe(a)
}

// stands reports whether the warning was raised.
func (w *outsideWatch) stands() bool { return w != nil && w.Monitor.Status().Alarm }

func (w *outsideWatch) warning() drift.Warning {
	s := w.Monitor.Status()
	return drift.Warning{Sign: outsideSign, Usual: w.Usual, Now: float64(s.Wrong) / float64(max(s.Audits, 1)), At: s.AlarmAt, Class: -1, Requests: s.Audits}
}

// tally counts an answer of the generalist, and warns. Of several processes only the leader counts: its share of the requests is enough.
func (c *Controller) tally(s *subject, outside bool) {
	if !c.leading {
		return
	}
	if !s.outside.Since.Equal(s.record.AlarmAt) { // what came before an alarm certifies nothing
		s.outside = OutsideCount{Since: s.record.AlarmAt}
	}
	s.outside.Answers++
	s.outside.Outside += one(outside)
	s.outside.unwritten = true
	raised := false
	for _, p := range s.record.Placements() {
		if h := s.held[p.Model]; h != nil {
			_ = h.gauges(func(_ string, g *gauge, _ *int64) error { // never fails
				raised = g.Outside.observe(outside) || raised
				g.dirty = g.dirty || g.Outside != nil
				return nil
			})
		}
	}
	if !raised {
		return
	}
	c.opts.Log.Warn(outsideSign+": audits that get such an answer count as wrong from now on", "task", s.task.Name,
		"outside", s.outside.Outside, "answers", s.outside.Answers, "see", "occam tasks show "+s.task.Name)
	if err := c.publish(); err != nil { // with a higher audit share
		c.opts.Log.Error("publishing", "task", s.task.Name, "error", err)
	}
}

// putOutside writes the count, if it has changed.
func (s *subject) putOutside(tx *store.Tx) error {
	if !s.outside.unwritten {
		return nil
	}
	value, err := json.Marshal(s.outside)
	if err != nil {
		return err
	}
	records := tx.Records(kindOutside)
	have, err := records.Get(s.task.Name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	have.Name, have.Value = s.task.Name, value
	return records.Put(have)
}

// loadOutside reads the count that was written last, unless there is news of one's own.
func (s *subject) loadOutside(tx *store.Tx) error {
	stored, err := tx.Records(kindOutside).Get(s.task.Name)
	if errors.Is(err, store.ErrNotFound) || s.outside.unwritten {
		return nil
	}
	if err != nil {
		return err
	}
	var n OutsideCount
	if err := json.Unmarshal(stored.Value, &n); err != nil {
		return fmt.Errorf("the stored count of answers outside the schema is damaged: %w", err)
	}
	s.outside = n
	return nil
}

// Outside is the warning that the generalist's answers left the schema, if it was raised.
func (m *ModelStatus) Outside() (w drift.Warning, raised bool) {
	if m.Evidence == nil {
		return w, false
	}
	i := slices.IndexFunc(m.Evidence.Warnings, func(w drift.Warning) bool { return w.Sign == outsideSign })
	if i < 0 {
		return w, false
	}
	return m.Evidence.Warnings[i], true
}

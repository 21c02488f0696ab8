package drift

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// A Baseline is what the traffic looked like when the certificate was made: counts over the calibration rows.
type Baseline struct {
	Rows      int   `json:"rows"`
	Escalated int   `json:"escalated"` // rows below the threshold
	Novel     int   `json:"novel"`     // rows below the in-scope floor
	Long      int   `json:"long"`      // rows longer than LongAbove
	LongAbove int   `json:"long_above"`
	Classes   []int `json:"classes"` // rows by predicted class
	// Tolerance is the relative change of a rate that is no news; 0 means 0.25. A rate may also be anywhere in the 99.9
	// % score interval of its calibration count, because the baseline itself is an estimate.
	Tolerance float64 `json:"tolerance"`
	// RunLength is the mean number of requests between two false warnings, at least; 0 means 1,000,000.
	RunLength float64 `json:"run_length"`
}

// A Sign is what can be seen of one request without a label.
type Sign struct {
	Escalated bool // the tier did not answer
	Novel     bool // it was below the in-scope floor
	Length    int  // of the input, in the unit of Baseline.LongAbove
	Class     int  // predicted class, an index into Baseline.Classes; anything else counts as no known class
}

// A Watch warns when requests begin to look different from the calibration rows: more or fewer escalated, more novel,
// longer, or a class that comes more often. It needs no labels, so it may raise the audit share but proves nothing
// about errors: it never suspends and never re-certifies. Each sign has an e-detector; a mean over all of them would
// reach RunLength when one reaches RunLength times their number, which is the limit each is held to. A Watch is not
// safe for concurrent use.
type Watch struct {
	baseline Baseline
	requests int
	tracks   []track
}

// A track is one direction of one sign.
type track struct {
	Name     string   `json:"name"`
	Usual    float64  `json:"usual"` // the rate in the calibration rows
	Limit    float64  `json:"limit"` // the largest rate that is no news; 1: none is
	Detector detector `json:"detector"`
	Seen     int      `json:"seen"`
	At       int      `json:"at,omitempty"` // requests when it warned; 0: it has not
}

// maxClasses bounds the work of one request.
const maxClasses = 10_000

// NewWatch returns a Watch that has seen no request.
func NewWatch(b Baseline) (*Watch, error) {
	if b.Tolerance == 0 {
		b.Tolerance = 0.25
	}
	if b.RunLength == 0 {
		b.RunLength = 1e6
	}
	b.Classes = slices.Clone(b.Classes)
	w := &Watch{baseline: b}
	if err := w.checkBaseline(); err != nil {
		return nil, err
	}
	rise := func(name string, count int) {
		w.tracks = append(w.tracks, track{Name: name, Usual: float64(count) / float64(b.Rows), Limit: b.highest(count)})
	}
	rise("more requests escalate than at calibration", b.Escalated)
	rise("fewer requests escalate than at calibration", b.Rows-b.Escalated)
	rise("more requests are unlike the training data", b.Novel)
	rise("requests are longer than at calibration", b.Long)
	for class, count := range b.Classes {
		rise(fmt.Sprintf("class %d comes more often than at calibration", class), count)
	}
	return w, nil
}

func (w *Watch) checkBaseline() error {
	b := w.baseline
	if b.Rows < 1 || !(b.Tolerance > 0) || !(b.RunLength >= 1) || math.IsInf(b.RunLength, 0) || len(b.Classes) > maxClasses {
		return fmt.Errorf("drift: baseline of %d rows, %d classes (at most %d), tolerance %v, run length %v: each must be positive and finite",
			b.Rows, len(b.Classes), maxClasses, b.Tolerance, b.RunLength)
	}
	for _, count := range append([]int{b.Escalated, b.Novel, b.Long}, b.Classes...) {
		if count < 0 || count > b.Rows {
			return fmt.Errorf("drift: baseline counts %d of %d rows", count, b.Rows)
		}
	}
	return nil
}

// highest returns the largest rate that is no news for a sign seen on count calibration rows; 1: the sign can be no news.
func (b *Baseline) highest(count int) float64 {
	_, high := wilson(count, b.Rows)
	return min(max(high, (1+b.Tolerance)*float64(count)/float64(b.Rows)), 1)
}

// wilson is the score interval of Wilson 1927 at 99.9 % confidence.
func wilson(k, n int) (low, high float64) {
	const z2 = 3.2905 * 3.2905
	p, m := float64(k)/float64(n), float64(n)
	centre, spread := p+z2/(2*m), math.Sqrt(z2*(p*(1-p)/m+z2/(4*m*m)))
	return (centre - spread) / (1 + z2/m), (centre + spread) / (1 + z2/m)
}

// The first tracks, before one for each class.
const (
	moreEscalated = iota
	fewerEscalated
	moreNovel
	longer
	firstClass
)

// Observe adds one request of the task, whichever tier answered it.
func (w *Watch) Observe(s Sign) {
	w.requests++
	w.feed(moreEscalated, s.Escalated)
	w.feed(fewerEscalated, !s.Escalated)
	w.feed(moreNovel, s.Novel)
	w.feed(longer, s.Length > w.baseline.LongAbove)
	for i := firstClass; i < len(w.tracks); i++ {
		w.feed(i, s.Class == i-firstClass)
	}
}

func (w *Watch) feed(i int, seen bool) {
	t := &w.tracks[i]
	x := 0.0
	if seen {
		t.Seen++
		x = 1
	}
	if t.Limit >= 1 {
		return // so common at calibration that it cannot come so much more often
	}
	t.Detector.observe(t.Limit, x)
	if t.At == 0 && t.Detector.value() >= w.baseline.RunLength*float64(len(w.tracks)) {
		t.At = w.requests
	}
}

// A Warning is one sign that has changed.
type Warning struct {
	Sign     string  `json:"sign"`
	Usual    float64 `json:"usual"` // rate in the calibration rows
	Now      float64 `json:"now"`   // rate in all requests since
	At       int     `json:"at"`    // request at which it was noticed
	Class    int     `json:"class"` // index of the class, -1 if the sign is none
	Requests int     `json:"requests"`
}

// Warnings returns the signs that have changed, in the order they were noticed.
func (w *Watch) Warnings() []Warning {
	var warnings []Warning
	for i, t := range w.tracks {
		if t.At > 0 {
			now := float64(t.Seen) / float64(max(w.requests, 1))
			warnings = append(warnings, Warning{t.Name, t.Usual, now, t.At, max(i-firstClass, -1), w.requests})
		}
	}
	slices.SortStableFunc(warnings, func(a, b Warning) int { return a.At - b.At })
	return warnings
}

type savedWatch struct {
	Version  int      `json:"version"`
	Baseline Baseline `json:"baseline"`
	Requests int      `json:"requests"`
	Tracks   []track  `json:"tracks"`
}

// MarshalJSON writes the whole state.
func (w *Watch) MarshalJSON() ([]byte, error) {
	return json.Marshal(savedWatch{1, w.baseline, w.requests, w.tracks})
}

// UnmarshalJSON reads what MarshalJSON wrote and refuses damaged state.
func (w *Watch) UnmarshalJSON(data []byte) error {
	var s savedWatch
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("drift: watch: %w", err)
	}
	read := Watch{s.Baseline, s.Requests, s.Tracks}
	if s.Version != 1 {
		return fmt.Errorf("drift: watch: version %d is unknown, this program reads version 1", s.Version)
	}
	if err := read.checkBaseline(); err != nil {
		return err
	}
	if len(read.tracks) != firstClass+len(read.baseline.Classes) || read.requests < 0 {
		return errors.New("drift: the watch's state is damaged; start a new one")
	}
	for _, t := range read.tracks {
		if !t.Detector.valid() || !(t.Limit > 0 && t.Limit <= 1) || t.Seen < 0 || t.At < 0 {
			return errors.New("drift: the watch's state is damaged; start a new one")
		}
	}
	*w = read
	return nil
}

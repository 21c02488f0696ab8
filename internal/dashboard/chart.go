package dashboard

import (
	"math"
	"strconv"
)

// A barChart is a stacked bar chart, drawn on the server: x in percent of the width, so that it fits every screen without
// a script and without shrinking its text; y in pixels. The table behind it shows the same values.
type barChart struct {
	ID, Title, Description string
	Unit                   string // of one bar
	Series                 []string
	MarkName               string // of the mark on each bar, "" for none
	Bars                   []bar
	Notes                  []barNote                        // lines between bars, such as a day on which something changed
	Format                 func(float64) string             // of a value
	Axis                   func(step, value float64) string // of a line of the grid, where lines are step apart
	Whole                  bool                             // values are whole numbers
	Simulated              bool

	// Laid out:
	Used   []int // series with a value other than zero
	Ticks  []tick
	Slots  []slot
	Height int
	Base   int
	Empty  bool
}

// A barNote is a vertical line before a bar.
type barNote struct {
	Bar  int
	Text string
}

// NoteX is the place of a note's line, in percent.
func (c *barChart) NoteX(n barNote) string { return pct(100 * float64(n.Bar) / float64(len(c.Bars))) }

// NoteAnchor puts a note's text on the side where there is room.
func (c *barChart) NoteAnchor(n barNote) string {
	if 2*n.Bar > len(c.Bars) {
		return "end"
	}
	return "start"
}

// A bar has one value for each series, none negative.
type bar struct {
	Label  string
	Values []float64
	Mark   float64
}

type tick struct {
	Y    int
	Text string
}

// A slot is a bar on the screen.
type slot struct {
	Label       string
	Tip         string
	X, Width    string // of the hit area, percent
	BarX, BarW  string
	Middle      string
	Segments    []segment
	MarkY       string
	Mark        bool
	Major, Fine bool // whether the label is shown on narrow, on wide screens
}

type segment struct {
	Series    int
	Y, Height string
}

const (
	plotTop, plotHeight, plotFoot = 12, 168, 24
	wideLabels, narrowLabels      = 7, 4
)

// layout computes what the template draws.
func (c *barChart) layout() *barChart {
	top := 0.0
	used := make([]bool, len(c.Series))
	for _, b := range c.Bars {
		sum := 0.0
		for i, v := range b.Values {
			sum += v
			used[i] = used[i] || v > 0
		}
		top = max(top, sum, b.Mark)
	}
	for i, u := range used {
		if u {
			c.Used = append(c.Used, i)
		}
	}
	c.Empty = top == 0
	c.Base, c.Height = plotTop+plotHeight, plotTop+plotHeight+plotFoot
	step, n := niceSteps(top, c.Whole)
	full := step * float64(n)
	for i := 0; i <= n; i++ {
		c.Ticks = append(c.Ticks, tick{c.Base - plotHeight*i/n, c.Axis(step, step*float64(i))})
	}
	for i := range c.Bars {
		c.Slots = append(c.Slots, c.slot(i, full))
	}
	return c
}

func (c *barChart) slot(i int, full float64) slot {
	n := len(c.Bars)
	b := &c.Bars[i]
	width := 100 / float64(n)
	x := width * float64(i)
	fine := ceilDiv(n, wideLabels)
	s := slot{Label: b.Label, X: pct(x), Width: pct(width), BarX: pct(x + width*0.16), BarW: pct(width * 0.68), Middle: pct(x + width/2),
		Fine: i%fine == 0, Major: i%(fine*ceilDiv(ceilDiv(n, fine), narrowLabels)) == 0}
	s.Tip = b.Label
	y := float64(c.Base)
	for _, k := range c.Used {
		v := b.Values[k]
		if v <= 0 {
			continue
		}
		h := max(v/full*plotHeight, 1)
		y -= h
		s.Segments = append(s.Segments, segment{k, px(y), px(max(h-1, 1))}) // a hair between the segments
		s.Tip += "\n" + c.Series[k] + "\t" + c.Format(v)
	}
	if c.MarkName != "" && b.Mark > 0 {
		s.Mark, s.MarkY = true, px(float64(c.Base)-b.Mark/full*plotHeight)
		s.Tip += "\n" + c.MarkName + "\t" + c.Format(b.Mark)
	}
	return s
}

// niceSteps divides [0, top] into two to five steps of 1, 2, 2.5 or 5 times a power of ten.
func niceSteps(top float64, whole bool) (step float64, n int) {
	if top <= 0 {
		return 1, 2
	}
	power := math.Pow(10, math.Floor(math.Log10(top/5)))
	for _, f := range []float64{1, 2, 2.5, 5, 10, 20} {
		step = f * power
		if whole && step < 1 {
			step = 1
		}
		if whole && step != math.Trunc(step) {
			continue
		}
		if n = int(math.Ceil(top/step - 1e-9)); n <= 5 {
			break
		}
	}
	return step, max(n, 1)
}

func pct(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) + "%" }
func px(v float64) string  { return strconv.FormatFloat(v, 'f', 1, 64) }
func ceilDiv(a, b int) int { return max((a+b-1)/b, 1) }

// A tableRow is one bar in words.
type tableRow struct {
	Label  string
	Values []string
}

// Rows is the table behind the chart: bars that are not empty, with the used series and the mark.
func (c *barChart) Rows() []tableRow {
	var all []tableRow
	for _, b := range c.Bars {
		r := tableRow{Label: b.Label}
		sum := b.Mark
		for _, k := range c.Used {
			sum += b.Values[k]
			r.Values = append(r.Values, c.Format(b.Values[k]))
		}
		if c.MarkName != "" {
			r.Values = append(r.Values, c.Format(b.Mark))
		}
		if sum > 0 {
			all = append(all, r)
		}
	}
	return all
}

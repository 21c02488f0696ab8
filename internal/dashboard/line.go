package dashboard

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A lineChart draws up to four lines over one axis, on the server: like a barChart, it fits every screen without a script and
// has its values as a table behind it.
type lineChart struct {
	ID, Title, Description string
	X, Y                   axis
	Lines                  []line
	Verticals, Horizontals []marker
	Dots                   []dot
	Samples                []float64 // x values that are shown on hovering and in the table
	Note                   string    // under the title
	Simulated              bool
}

// An axis maps values to the screen.
type axis struct {
	Name     string
	Min, Max float64 // Min > 0 where Log
	Log      bool
	Ticks    []float64
	Format   func(float64) string
}

// A line has its points in order of X.
type line struct {
	Name   string
	Series int // colour and dash
	Points []xy
}

type xy struct{ X, Y float64 }

// A marker is a line across the chart at one value.
type marker struct {
	At    float64
	Label string
}

type dot struct {
	X, Y, Low, High float64 // Low < High draws a whisker
	Label           string
}

const linesHeight = 220

// share returns where a value lies, from 0 at Min to 1 at Max.
func (a *axis) share(v float64) float64 {
	if a.Log {
		return math.Log(max(v, a.Min)/a.Min) / math.Log(a.Max/a.Min)
	}
	return (v - a.Min) / (a.Max - a.Min)
}

func clamp(v float64) float64 { return min(max(v, 0), 1) }

// Left is the place of an x value, in percent.
func (c *lineChart) Left(x float64) string { return pct(100 * clamp(c.X.share(x))) }

// Top is the place of a y value, in pixels.
func (c *lineChart) Top(y float64) string { return px(plotTop + linesHeight*(1-clamp(c.Y.share(y)))) }

// Anchor puts a label on the side of its marker where there is room.
func (c *lineChart) Anchor(x float64) string {
	if c.X.share(x) > 0.5 {
		return "end"
	}
	return "start"
}

// Nudge moves a label off its marker.
func (c *lineChart) Nudge(x float64) int {
	if c.Anchor(x) == "end" {
		return -6
	}
	return 6
}

// TickAnchor keeps the first and the last label inside the drawing.
func (c *lineChart) TickAnchor(i int) string {
	switch i {
	case 0:
		return "start"
	case len(c.X.Ticks) - 1:
		return "end"
	}
	return "middle"
}

// OddTick reports whether a label is left out on narrow screens.
func (c *lineChart) OddTick(i int) bool { return len(c.X.Ticks) > 4 && i%2 == 1 }

// Height of the whole drawing, and Base of the plot, in pixels.
func (c *lineChart) Height() int { return plotTop + linesHeight + plotFoot }

// Base is where the plot ends.
func (c *lineChart) Base() int { return plotTop + linesHeight }

// PlotTop is where the plot begins.
func (c *lineChart) PlotTop() int { return plotTop }

// LinesHeight is the height of the plot.
func (c *lineChart) LinesHeight() int { return linesHeight }

// Path is a line in a box of 1000 by 1000 that is stretched over the plot. What lies outside the plot is cut off.
func (c *lineChart) Path(l line) string {
	var b strings.Builder
	end := xy{math.NaN(), math.NaN()}
	for i := 1; i < len(l.Points); i++ {
		from, to, ok := cut(c.unit(l.Points[i-1]), c.unit(l.Points[i]))
		if !ok {
			continue
		}
		if from != end {
			fmt.Fprintf(&b, "M%.1f %.1f", 1000*from.X, 1000*(1-from.Y))
		}
		fmt.Fprintf(&b, "L%.1f %.1f", 1000*to.X, 1000*(1-to.Y))
		end = to
	}
	return b.String()
}

// unit maps a point into the unit square.
func (c *lineChart) unit(p xy) xy { return xy{clamp(c.X.share(p.X)), c.Y.share(p.Y)} }

// cut keeps the part of a segment with Y from 0 to 1; ok is false where there is none.
func cut(a, b xy) (from, to xy, ok bool) {
	if math.IsNaN(a.Y+b.Y) || max(a.Y, b.Y) < 0 || min(a.Y, b.Y) > 1 {
		return a, b, false
	}
	place := func(p xy) xy {
		if y := clamp(p.Y); y != p.Y {
			return xy{a.X + (b.X-a.X)*(y-a.Y)/(b.Y-a.Y), y}
		}
		return p
	}
	return place(a), place(b), true
}

// at is the value of a line at x, between its points; NaN outside.
func (l *line) at(x float64) float64 {
	i, found := slices.BinarySearchFunc(l.Points, x, func(p xy, x float64) int { return cmp.Compare(p.X, x) })
	switch {
	case found:
		return l.Points[i].Y
	case i == 0 || i == len(l.Points):
		return math.NaN()
	}
	a, b := l.Points[i-1], l.Points[i]
	return a.Y + (b.Y-a.Y)*(x-a.X)/(b.X-a.X)
}

// A sample is one x value with what every line says there.
type sample struct {
	Label, X, Width, Tip string
	Values               []string
}

// Slots are the samples with the area in which each is hovered.
func (c *lineChart) Slots() []sample {
	var all []sample
	for i, x := range c.Samples {
		left, right := 0.0, 1.0
		if i > 0 {
			left = (c.X.share(c.Samples[i-1]) + c.X.share(x)) / 2
		}
		if i < len(c.Samples)-1 {
			right = (c.X.share(c.Samples[i+1]) + c.X.share(x)) / 2
		}
		s := sample{Label: c.X.Format(x), X: pct(100 * clamp(left)), Width: pct(100 * (clamp(right) - clamp(left)))}
		s.Tip = s.Label
		for k := range c.Lines {
			v, text := c.Lines[k].at(x), "–"
			if !math.IsNaN(v) {
				text = c.Y.Format(v)
			}
			s.Values = append(s.Values, text)
			s.Tip += "\n" + c.Lines[k].Name + "\t" + text
		}
		all = append(all, s)
	}
	return all
}

// linear makes an axis from zero to a round number above top.
func linear(name string, top float64, format func(float64) string) axis {
	step, n := niceSteps(top, false)
	a := axis{Name: name, Max: step * float64(n), Format: format}
	for i := 0; i <= n; i++ {
		a.Ticks = append(a.Ticks, step*float64(i))
	}
	return a
}

// logarithmic makes an axis over whole powers of ten that holds both ends.
func logarithmic(name string, low, high float64, format func(float64) string) axis {
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	a := axis{Name: name, Min: math.Pow(10, first), Max: math.Pow(10, max(last, first+1)), Log: true, Format: format}
	for p := first; p <= max(last, first+1); p++ {
		a.Ticks = append(a.Ticks, math.Pow(10, p))
	}
	return a
}

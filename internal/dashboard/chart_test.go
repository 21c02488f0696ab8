package dashboard

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestStepsHoldTheTop: whatever the highest value, the axis holds it in one to five equal steps and is not much longer.
func TestStepsHoldTheTop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := math.Pow(10, rapid.Float64Range(-7, 9).Draw(t, "exponent"))
		whole := rapid.Bool().Draw(t, "whole")
		if whole {
			top = math.Ceil(top)
		}
		step, n := niceSteps(top, whole)
		if full := step * float64(n); n < 1 || n > 5 || full < top*(1-1e-9) || full > 2.6*top {
			t.Fatalf("top %v: %d steps of %v", top, n, step)
		}
		if whole && step != math.Trunc(step) {
			t.Fatalf("whole numbers in steps of %v", step)
		}
	})
}

// TestBarsStackToTheirSum: the segments of a bar lie on each other without overlap, inside the plot.
func TestBarsStackToTheirSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &barChart{Series: roleNames[:], MarkName: "mark", Format: func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) },
			Axis: func(_, v float64) string { return "" }}
		for range rapid.IntRange(1, 40).Draw(t, "bars") {
			values := rapid.SliceOfN(rapid.Float64Range(0, 100), int(roles), int(roles)).Draw(t, "values")
			c.Bars = append(c.Bars, bar{Label: "x", Values: values, Mark: rapid.Float64Range(0, 500).Draw(t, "mark")})
		}
		c.layout()
		for i, s := range c.Slots {
			bottom := float64(c.Base)
			for _, g := range s.Segments {
				y, err := strconv.ParseFloat(g.Y, 64)
				if err != nil || y > bottom+0.1 || y < plotTop-float64(roles)-0.1 {
					t.Fatalf("bar %d: a segment at %s over %v", i, g.Y, bottom)
				}
				bottom = y
			}
		}
	})
}

// TestLinesStayInThePlot: no point of a path lies outside, wherever the values are.
func TestLinesStayInThePlot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &lineChart{X: axis{Max: 1}, Y: axis{Min: -1, Max: 1}}
		var l line
		for i := range rapid.IntRange(2, 20).Draw(t, "points") {
			l.Points = append(l.Points, xy{float64(i) / 20, rapid.OneOf(rapid.Float64Range(-5, 5), rapid.Just(math.NaN())).Draw(t, "y")})
		}
		path := c.Path(l)
		for _, number := range strings.FieldsFunc(path, func(r rune) bool { return r == 'M' || r == 'L' || r == ' ' }) {
			if v, err := strconv.ParseFloat(number, 64); err != nil || v < -0.05 || v > 1000.05 {
				t.Fatalf("the path goes to %s: %s", number, path)
			}
		}
	})
}

func TestRiskCurveShowsTheCertificate(t *testing.T) {
	task := ticketTask()
	c := riskCurve(&task.Tiers[0], 0)
	if len(c.Dots) != 1 || math.Abs(c.Dots[0].X-0.842) > 1e-9 || math.Abs(c.Dots[0].Y-33.0/1684) > 1e-9 || c.Dots[0].High != 0.0264 {
		t.Errorf("the certified point is %+v", c.Dots)
	}
	if !strings.Contains(c.Description, "84.2") || len(c.Horizontals) != 1 || c.Horizontals[0].At != 0.03 {
		t.Errorf("%s, target %+v", c.Description, c.Horizontals)
	}
	if riskCurve(&TierView{}, 0) != nil {
		t.Error("a tier without a curve has a picture")
	}
}

func TestMoneyForPeople(t *testing.T) {
	for amount, want := range map[dollars]string{0: "$0.00", 1: "$0.000000001", 1_750_000: "$0.00175", 45_000_000: "$0.0450", 514_600_000: "$0.51",
		1_473_600_000_000: "$1,473.60", -2_500_000_000: "−$2.50", 1_234_567_890_000_000: "$1,234,567.89"} {
		if got := amount.String(); got != want {
			t.Errorf("%d nano-dollars are %s, want %s", int64(amount), got, want)
		}
	}
	for v, want := range map[float64]string{0: "0.0\u00a0%", 1: "100.0\u00a0%", 0.9999: "> 99.9\u00a0%", 0.0001: "< 0.1\u00a0%", 0.842: "84.2\u00a0%"} {
		if got := percent(v); got != want {
			t.Errorf("percent(%v) = %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{17_400: "17.4k", 999_600: "1M", 1e6: "1M", 411_429: "411k", 3: "3", 0: "0", 1.5e9: "1.5B", 0.5: "0.5"} {
		if got := bigNumber(v); got != want {
			t.Errorf("bigNumber(%v) = %s, want %s", v, got, want)
		}
	}
	for v, want := range map[time.Duration]string{0: "–", 12 * time.Microsecond: "12\u00a0µs", 300 * time.Microsecond: "0.3\u00a0ms", 42 * time.Millisecond: "42\u00a0ms",
		1200 * time.Millisecond: "1.20\u00a0s"} {
		if got := duration(v); got != want {
			t.Errorf("duration(%v) = %s, want %s", v, got, want)
		}
	}
	var seen []string
	for _, step := range []float64{0.02, 0.5, 2.5, 1, 2000} {
		seen = append(seen, axisDollars(step, 2*step))
	}
	if want := []string{"$0.04", "$1.00", "$5.00", "$2", "$4,000"}; !slices.Equal(seen, want) {
		t.Errorf("the axis says %v, want %v", seen, want)
	}
}

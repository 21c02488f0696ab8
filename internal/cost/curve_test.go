package cost

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestBreakEvenClosedForms(t *testing.T) {
	api := Curve{PerRequest: 0.002}
	for name, c := range map[string]struct {
		plan Curve
		want float64 // < 0: never
	}{
		"the article":             {Curve{Server: 720, ServersEach: 1 / (10 * 720 * 3600.0)}, 360_000},
		"with its training in":    {Curve{Server: 720, ServersEach: 1 / (10 * 720 * 3600.0), Fixed: 10}, 365_000},
		"cheaper API":             {Curve{PerRequest: 0.001}, 0},
		"cheaper API with set-up": {Curve{PerRequest: 0.001, Fixed: 500}, 500_000},
		"dearer API":              {Curve{PerRequest: 0.003, Fixed: 1}, -1},
		"same price":              {Curve{PerRequest: 0.002}, 0},
		"full server never pays":  {Curve{Server: 720, ServersEach: 1 / 360_000.0 * 1.01}, -1},
		"second server needed":    {Curve{Server: 720, ServersEach: 1 / 400_000.0, Fixed: 100}, 770_000},
		"exactly full":            {Curve{Server: 800, ServersEach: 1 / 400_000.0}, 400_000},
		"one spare":               {Curve{Server: 720, ServersEach: 1e-9, Spare: 1}, 720_000},
		"router with fall-back":   {Curve{Server: 720, ServersEach: 1e-9, PerRequest: 0.05 * 0.002}, 720 / (0.95 * 0.002)},
	} {
		got, ok := c.plan.BreakEven(api)
		if ok != (c.want >= 0) || (ok && math.Abs(got-c.want) > 1e-6*math.Max(1, c.want)) {
			t.Errorf("%s: %.6g, %v; want %.6g", name, got, ok, c.want)
		}
	}
}

func drawCurve(t *rapid.T, name string) Curve {
	return Curve{
		Fixed:       rapid.Float64Range(0, 5000).Draw(t, name+".fixed"),
		PerRequest:  rapid.Float64Range(0, 0.01).Draw(t, name+".each"),
		Server:      rapid.Float64Range(1, 5000).Draw(t, name+".server"),
		ServersEach: rapid.SampledFrom([]float64{0, 1e-9, 1e-7, 1e-6, 1e-5}).Draw(t, name+".serversEach"),
		Spare:       float64(rapid.IntRange(0, 2).Draw(t, name+".spare")),
	}
}

// The break-even is where the curves cross: the plan is no dearer there, and dearer everywhere below.
func TestBreakEvenIsWhereTheCurvesCross(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := drawCurve(t, "plan")
		ref := Curve{Fixed: rapid.Float64Range(0, 5000).Draw(t, "ref.fixed"), PerRequest: rapid.Float64Range(0,
			0.01).Draw(t, "ref.each")}
		v, ok := plan.BreakEven(ref)
		share := rapid.Float64Range(0, 0.999).Draw(t, "share")
		if !ok {
			v = rapid.Float64Range(0, 1e9).Draw(t, "anywhere")
			if gap := plan.At(v) - ref.At(v); gap < -1e-6*(1+ref.At(v)) {
				t.Fatalf("never pays, but at %g it costs %g less", v, -gap)
			}
			return
		}
		if gap := plan.At(v) - ref.At(v); gap > 1e-6*(1+ref.At(v)) {
			t.Fatalf("at the break-even %g the plan still costs %g more", v, gap)
		}
		if below := v * share; v > 0 && plan.At(below)-ref.At(below) < -1e-6*(1+ref.At(below)) {
			t.Fatalf("the plan is already cheaper at %g, below the break-even %g", below, v)
		}
	})
}

func TestCurveGrowsWithVolumeAndPrice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCurve(t, "c")
		a := rapid.Float64Range(0, 1e8).Draw(t, "a")
		b := rapid.Float64Range(a, 1e8).Draw(t, "b")
		if c.At(a) > c.At(b) {
			t.Fatalf("%g requests cost %g, %g requests cost %g", a, c.At(a), b, c.At(b))
		}
		dearer := c
		dearer.PerRequest, dearer.Server = c.PerRequest*1.5, c.Server*1.5
		if dearer.At(a) < c.At(a) {
			t.Fatal("a higher price lowered the cost")
		}
	})
}

// The published table for a saturated 3B (requests a second at 50 % and 30 % of peak), which the estimate must reproduce.
func TestRooflineTable(t *testing.T) {
	table := map[string][6]float64{ // 500/50, 150/15, 150/1, each at 50 % and 30 %
		"A10G": {10.2, 6.4, 35.6, 22.1, 40.9, 24.6},
		"L4":   {12.2, 8.2, 45.7, 30.1, 69.0, 41.8},
		"L40S": {35.8, 24.1, 134.9, 89.2, 206, 125},
		"A100": {42.9, 27.3, 151.9, 95.3, 182, 110},
		"H100": {112, 74, 414, 268, 569, 344},
	}
	shapes := [3][2]float64{{500, 50}, {150, 15}, {150, 1}}
	for name, want := range table {
		g, ok := gpuNamed(name + " 24GB")
		if !ok {
			t.Fatalf("%s is unknown", name)
		}
		for i, w := range want {
			mfu := []float64{0.5, 0.3}[i%2]
			got := g.perSecond(llama3B, shapes[i/2][0], shapes[i/2][1], mfu, 64)
			if math.Abs(got/w-1) > 0.02 {
				t.Errorf("%s at %v, %.0f %%: %.1f requests/s, the table has %.1f", name, shapes[i/2], 100*mfu, got, w)
			}
		}
	}
	g, _ := gpuNamed("A10G")
	for want, got := range map[float64]float64{29: g.perSecond(llama1B, 500, 50, .5, 64), 18: g.perSecond(llama1B, 500,
		50, .3, 64),
		119: g.perSecond(llama1B, 150, 1, .5, 64), 71: g.perSecond(llama1B, 150, 1, .3, 64)} {
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("1B on an A10G: %.1f requests/s, the table has %.0f", got, want)
		}
	}
}

package datacheck

import (
	"context"
	"math"
	"testing"

	"pgregory.net/rapid"

	"occam/internal/sample"
	"occam/internal/task"
)

func mustCurve(t *testing.T, fields []task.Field, examples []task.Example, opt Options) *LearningCurve {
	t.Helper()
	c, err := Curve(context.Background(), fields, examples, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Points {
		t.Logf("%5d rows: %.3f [%.3f, %.3f]", p.Rows, p.Accuracy, p.Low, p.High)
	}
	t.Logf("%5d rows: %.3f [%.3f, %.3f]; %+v", c.Twice.Rows, c.Twice.Accuracy, c.Twice.Low, c.Twice.High, c.Fit)
	return c
}

// The forecast made from half of the rows meets what the other half brings, on the same held-out rows.
func TestCurveForetellsTheOtherHalf(t *testing.T) {
	examples := fewTickets(21, 2400, 15)
	c := mustCurve(t, categoryField(t, examples), examples, Options{Seed: 5})
	if len(c.Points) != 4 || c.HeldOut < 80 || c.Points[3].Rows+c.HeldOut != c.Labelled || c.Twice.Rows != 2*c.Points[3].Rows {
		t.Errorf("%+v", c)
	}
	if c.Points[3].Accuracy <= c.Points[0].Accuracy {
		t.Errorf("eight times the rows bring nothing: %+v", c.Points)
	}
	half := LearningCurve{HeldOut: c.HeldOut, Points: c.Points[:3]}
	foretold := 1 - fitPowerLaw(half.Points, c.HeldOut).Error(float64(c.Points[3].Rows))
	t.Logf("foretold %.3f, came %.3f", foretold, c.Points[3].Accuracy)
	if math.Abs(foretold-c.Points[3].Accuracy) > 0.08 {
		t.Errorf("three points foretell %.3f at %d rows, it is %.3f", foretold, c.Points[3].Rows, c.Points[3].Accuracy)
	}
	if len(c.Categories) == 0 || c.Categories[0].Wrong == 0 || c.Categories[0].PerMille < c.Categories[len(c.Categories)-1].PerMille {
		t.Errorf("categories: %+v", c.Categories)
	}
}

func TestCurveNeedsRows(t *testing.T) {
	if _, err := Curve(context.Background(), sample.Fields(), sample.Tickets(1, 100), Options{}); err == nil {
		t.Error("100 rows make a curve")
	}
}

// Every beginning of the spread list holds each category in proportion, and nothing is lost.
func TestSpread(t *testing.T) {
	examples := sample.Tickets(2, 1000)
	order := spread(sample.Fields(), examples, 3)
	count := func(rows []task.Example) map[string]int {
		n := map[string]int{}
		for i := range rows {
			n[rows[i].Labels[sample.Category].Text()]++
		}
		return n
	}
	all, quarter := count(order), count(order[:250])
	for v, n := range count(examples) {
		if all[v] != n || math.Abs(float64(quarter[v])-float64(n)/4) > 3 {
			t.Errorf("%s: %d rows, %d in all, %d in the first quarter", v, n, all[v], quarter[v])
		}
	}
}

// A curve that is a power law is found again, up to the mild preference for exponents around 1/2; a flat one and a perfect one
// forecast themselves.
func TestFitPowerLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		law := PowerLaw{Scale: rapid.Float64Range(0, 5).Draw(t, "scale"), Exponent: rapid.Float64Range(0.2, 1).Draw(t, "exponent"), Floor: rapid.Float64Range(0, 0.3).Draw(t, "floor")}
		const held = 100_000
		var points []Point
		for _, rows := range []int{200, 400, 800, 1600} {
			right := int(held * max(0, 1-law.Error(float64(rows))))
			points = append(points, Point{Rows: rows, Right: right, Accuracy: float64(right) / held})
		}
		if law.Error(200) >= 1 {
			t.Skip("no curve of errors")
		}
		fit := fitPowerLaw(points, held)
		if fit.Scale < 0 || fit.Floor < 0 || fit.Exponent <= 0 {
			t.Fatalf("impossible fit %+v", fit)
		}
		if got, want := fit.Error(3200), law.Error(3200); math.Abs(got-want) > 0.005+0.05*want {
			t.Fatalf("error at 3200 rows %.4f, want %.4f: %+v for %+v", got, want, fit, law)
		}
	})
}

// What the curve of BANKING77 foretells from half of its training rows, against what all of them bring on its own test file.
func TestCurveBanking77(t *testing.T) {
	examples := banking(t, "train.jsonl", false)
	fields := categoryField(t, examples)
	c := mustCurve(t, fields, examples, Options{Seed: 1})
	for _, g := range c.Categories[:5] {
		t.Logf("%+v", g)
	}
	three := fitPowerLaw(c.Points[:3], c.HeldOut)
	foretold, came := 1-three.Error(float64(c.Points[3].Rows)), c.Points[3].Accuracy
	t.Logf("from three points %.4f, came %.4f; %+v", foretold, came, three)
	if math.Abs(foretold-came) > 0.02 {
		t.Errorf("foretold %.4f, came %.4f", foretold, came)
	}
}

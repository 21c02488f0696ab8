package calibration

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// A teacher with systematic errors that its student copies: they agree far more often than either is right.
func labels(rng *rand.Rand, n int, judged float64) []Label {
	rows := make([]Label, n)
	for i := range rows {
		teacherWrong := rng.Float64() < 0.08
		copied := rng.Float64() < 0.8
		wrong := rng.Float64() < 0.03
		if teacherWrong && copied {
			wrong = true
		}
		differs := wrong != teacherWrong || (wrong && !copied)
		rows[i] = Label{Differs: differs, Judged: rng.Float64() < judged, Wrong: wrong, Fooled: teacherWrong}
	}
	return rows
}

func TestTruthBoundsHold(t *testing.T) {
	const draws, delta = 300, 0.1
	rng := rand.New(rand.NewPCG(51, 52))
	truth := 0.0
	for _, l := range labels(rng, 400_000, 1) {
		truth += float64(one(l.Wrong)) / 400_000
	}
	missed := map[string]int{}
	width := map[string]float64{}
	for range draws {
		got := AgainstTruth(labels(rng, 3000, 0.1), delta)
		for name, out := range map[string]bool{
			"free": truth < got.FreeLow || truth > got.FreeHigh, "direct": truth > got.Direct,
			"assisted": truth > got.Assisted, "best": truth < got.Low || truth > got.High,
		} {
			missed[name] += one(out)
		}
		for name, high := range map[string]float64{"free": got.FreeHigh, "direct": got.Direct, "assisted": got.Assisted, "best": got.High} {
			width[name] += high / draws
		}
		if got.Low > got.High {
			t.Fatalf("%+v", got)
		}
	}
	for name, count := range missed {
		if rate := ratio(count, draws); rate > delta+3*math.Sqrt(delta*(1-delta)/draws) {
			t.Errorf("%s misses the true risk %.4f in %.3f of draws", name, truth, rate)
		}
	}
	t.Logf("true risk %.4f; missed %v; mean upper bounds %v", truth, missed, width)
}

func TestWithoutPeopleOnlyAgreementIsKnown(t *testing.T) {
	got := AgainstTruth(labels(rand.New(rand.NewPCG(1, 1)), 1000, 0), 0.05)
	if got.High != 1 || got.Low != 0 || got.DifferHigh > 0.1 || got.Judged != 0 {
		t.Errorf("%+v", got)
	}
	if none := AgainstTruth(nil, 0.05); none.High != 1 || none.DifferHigh != 1 {
		t.Errorf("no rows: %+v", none)
	}
}

func TestTruthOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Label {
			return Label{rapid.Bool().Draw(t, "d"), rapid.Bool().Draw(t, "j"), rapid.Bool().Draw(t, "w"), rapid.Bool().Draw(t, "f")}
		}), 0, 200).Draw(t, "rows")
		got := AgainstTruth(rows, rapid.Float64Range(0.01, 0.5).Draw(t, "delta"))
		for _, p := range []float64{got.Differ, got.DifferHigh, got.FreeLow, got.FreeHigh, got.Direct, got.Assisted, got.Low, got.High} {
			if !(p >= 0 && p <= 1) {
				t.Fatalf("no probability in %+v", got)
			}
		}
	})
}

func TestMeanUpperHoldsAndIsTight(t *testing.T) {
	const draws, delta = 400, 0.1
	rng := rand.New(rand.NewPCG(61, 62))
	for name, draw := range map[string]func() float64{
		"rare":  func() float64 { return float64(one(rng.Float64() < 0.03)) },
		"small": func() float64 { return 0.1 * rng.Float64() },
		"even":  func() float64 { return rng.Float64() },
	} {
		mean := map[string]float64{"rare": 0.03, "small": 0.05, "even": 0.5}[name]
		missed, width := 0, 0.0
		for range draws {
			values := make([]float64, 400)
			for i := range values {
				values[i] = draw()
			}
			bound := MeanUpper(values, delta)
			missed += one(bound < mean)
			width += bound / draws
		}
		if rate := ratio(missed, draws); rate > delta+3*math.Sqrt(delta*(1-delta)/draws) || width > mean+0.07 {
			t.Errorf("%s: misses the mean %v in %.3f of draws, bound %.3f on average", name, mean, rate, width)
		}
	}
	nan := []float64{math.NaN(), math.Inf(1), 2}
	if MeanUpper(nil, 0.1) != 1 || MeanUpper(nan, 0.1) != 1 || MeanUpper([]float64{-5}, 0.1) > 1 {
		t.Error("edges")
	}
}

func TestShiftedTraffic(t *testing.T) {
	// 3 % in scope, half of the traffic answered, 10 % of out-of-scope requests answered.
	if got := ServedUnderShift(0.03, 0.5, 0.1, 0); got != 0.03 {
		t.Errorf("no shift: %v", got)
	}
	if got, want := ServedUnderShift(0.03, 0.9, 0.1, 0.18), (0.82*0.9*0.03+0.018)/(0.82*0.9+0.018); math.Abs(got-want) > 1e-12 {
		t.Errorf("18 %% out of scope: %v, want %v", got, want)
	}
	rapid.Check(t, func(t *rapid.T) { // more out of scope, more answers to it and a higher risk never make it better
		unit := rapid.Float64Range(0, 1)
		risk, coverage, answered, share := unit.Draw(t, "risk"), unit.Draw(t, "coverage"), unit.Draw(t, "answered"), unit.Draw(t, "share")
		got := ServedUnderShift(risk, coverage, answered, share)
		for _, worse := range []float64{
			ServedUnderShift(risk, coverage, answered, share+(1-share)/2), ServedUnderShift(risk, coverage, answered+(1-answered)/2, share),
			ServedUnderShift(risk+(1-risk)/2, coverage, answered, share), ServedUnderShift(risk, coverage/2, answered, share),
		} {
			if !(got >= 0 && got <= 1) || worse < got-1e-12 && worse > 0 { // 0: nothing is answered
				t.Fatalf("%v, then %v", got, worse)
			}
		}
	})
	if ServedUnderShift(0.03, 0, 0, 0.5) != 0 {
		t.Error("nothing is answered, and something is wrong")
	}
}

package lifecycle

import (
	"math"
	"math/rand/v2"
	"testing"

	"occam/internal/calibration"
	"occam/internal/drift"
)

func certificate(teacher string) *calibration.Certificate {
	return &calibration.Certificate{Promise: calibration.Served, Risk: .03, Delta: .05, Coverage: .9, Teacher: teacher}
}

func audits(t *testing.T, g *gauge, r *rand.Rand, n int, errorRate float64) (alarmAt int) {
	t.Helper()
	for i := range n {
		a := drift.Right
		if r.Float64() < errorRate {
			a = drift.Wrong
		}
		alarm, err := g.observe(a, .05)
		if err != nil {
			t.Fatal(err)
		}
		if alarm {
			return i + 1
		}
	}
	return 0
}

func TestGaugeRaisesTheAlarmAndRemembersIt(t *testing.T) {
	g, err := newGauge(certificate("gpt-4o"), drift.Baseline{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	g.enter(Live)
	r := rand.New(rand.NewPCG(1, 2))
	if at := audits(t, g, r, 2000, .02); at > 0 {
		t.Fatalf("false alarm after %d audits: %s", at, g.evidence().Alarm)
	}
	if at := audits(t, g, r, 2000, .20); at == 0 || at > 300 {
		t.Fatalf("an error rate of 20 %% noticed after %d audits", at)
	}
	data, err := g.encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := decodeGauge(data)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := g.evidence(), again.evidence(); a != b || a.Alarm == "" {
		t.Errorf("before %+v, after %+v", a, b)
	}
	if err := again.restart(); err != nil || again.evidence().Alarm != "" {
		t.Errorf("restarted: %v, %+v", err, again.evidence())
	}
	if _, err := decodeGauge([]byte(`{"monitor":{}}`)); err == nil {
		t.Error("damaged evidence is read")
	}
}

func TestFailedAuditsAreNeverRight(t *testing.T) {
	g, err := newGauge(certificate("gpt-4o"), drift.Baseline{}, -1)
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if _, err := g.observe(drift.Missing, .05); err != nil {
			t.Fatal(err)
		}
	}
	if e := g.evidence(); e.Compared != 0 || e.Alarm != "" || g.Missing != 500 || g.Monitor.Status().Audits != 500 {
		t.Errorf("%+v, %+v", e, g)
	}
}

// A model certified on people's labels disagrees with a generalist that is wrong itself. That is no drift; more of it is.
func TestTheGeneralistsOwnMistakesAreNoAlarm(t *testing.T) {
	false_, late := 0, 0
	for seed := range uint64(40) {
		g, err := newGauge(certificate(""), drift.Baseline{}, -1)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 7))
		if audits(t, g, r, 3000, .02+.03) > 0 {
			false_++
			continue
		}
		if at := audits(t, g, r, 1500, .25); at == 0 {
			late++
		}
	}
	if false_ > 4 || late > 0 {
		t.Errorf("%d of 40 false alarms, %d of 40 not noticed", false_, late)
	}
	measured, err := newGauge(certificate(""), drift.Baseline{}, .04)
	if err != nil || measured.Settling != 0 || measured.allowed() != .07 {
		t.Errorf("with a measured generalist: %v, %+v", err, measured)
	}
}

func TestWhichComparisonsCount(t *testing.T) {
	for _, tc := range []struct {
		c    Comparison
		r    Record
		want bool
	}{
		{Comparison{Answered: true, Accepted: true}, Record{State: Live}, true},
		{Comparison{Accepted: true}, Record{State: Shadow}, true},
		{Comparison{Accepted: false}, Record{State: Shadow}, false},
		{Comparison{Accepted: true}, Record{State: Canary}, true},
		{Comparison{Accepted: true}, Record{State: Canary, Incumbent: "x"}, false},
		{Comparison{Answered: true, Accepted: true}, Record{State: Canary, Incumbent: "x"}, true},
		{Comparison{Accepted: true}, Record{State: Live}, false},
	} {
		if got := tc.c.counts(tc.r); got != tc.want {
			t.Errorf("%+v in %+v counts: %v", tc.c, tc.r, got)
		}
	}
}

// A certificate on people's labels is not confirmed by how often the model and the generalist were seen to differ, nor by an error rate
// that the generalist's own would hide.
func TestTheGeneralistsMistakesConfirmNothing(t *testing.T) {
	c := certificate("")
	c.Split = calibration.CrossFitted
	for name, teacherError := range map[string]float64{"not measured": -1, "measured": .02} {
		g, err := newGauge(c, drift.Baseline{}, teacherError)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(7, 8))
		for range 30 {
			audits(t, g, r, 100, c.Risk+.01)
			if g.confirmation(c) == "" {
				t.Fatalf("generalist's error %s: a model that differs from it in %.3g of its answers was confirmed to be wrong in at most %.3g", name, c.Risk+.01, c.Risk)
			}
		}
	}
	g, err := newGauge(c, drift.Baseline{}, .01)
	if err != nil {
		t.Fatal(err)
	}
	audits(t, g, rand.New(rand.NewPCG(7, 8)), 2000, .001)
	if why := g.confirmation(c); why != "" {
		t.Errorf("a good model is not confirmed: %s", why)
	}
}

// A model that is exactly as bad as may be just not is seldom confirmed, however long it is watched; a good one soon is.
func TestCrossFittedCertificatesAreConfirmedOnNewRequests(t *testing.T) {
	c := certificate("gpt-4o")
	c.Split = calibration.CrossFitted
	confirmedAt := func(seed uint64, errorRate float64) int {
		g, err := newGauge(c, drift.Baseline{}, -1)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 3))
		for n := 0; n < 1500; n += 10 { // a look after every audit takes long under the race detector
			if g.confirmation(c) == "" {
				return n
			}
			audits(t, g, r, 10, errorRate)
		}
		return 0
	}
	const runs = 100
	falsely := 0
	for seed := range uint64(runs) {
		if confirmedAt(seed, c.Risk) > 0 {
			falsely++
		}
	}
	if limit := runs*c.Delta + 3*math.Sqrt(runs*c.Delta*(1-c.Delta)); float64(falsely) > limit {
		t.Errorf("confirmed in %d of %d runs at the forbidden risk; allowed are %.0f", falsely, runs, limit)
	}
	for seed := range uint64(20) {
		if at := confirmedAt(seed, c.Risk/10); at < 100 || at > 600 {
			t.Errorf("a good model was confirmed after %d comparisons", at)
		}
	}
	g, err := newGauge(certificate("gpt-4o"), drift.Baseline{}, -1)
	if err != nil || g.confirmation(certificate("gpt-4o")) != "" {
		t.Errorf("a held-out certificate waits for confirmation: %v", err)
	}
}

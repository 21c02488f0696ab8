package drift

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newMonitor(t testing.TB, o Options) *Monitor {
	t.Helper()
	m, err := NewMonitor(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// audit draws one audit whose error rate is rate.
func audit(rng *rand.Rand, rate float64) Audit {
	if rng.Float64() < rate {
		return Wrong
	}
	return Right
}

// limit is delta plus three standard errors of a rate over so many streams.
func limit(delta float64, streams int) float64 {
	return delta + 3*math.Sqrt(delta*(1-delta)/float64(streams))
}

func TestFalseAlarmsWithALookAfterEveryAudit(t *testing.T) {
	const streams, horizon, delta = 200, 10_000, 0.05
	for _, risk := range []float64{0.02, 0.05} {
		rng := rand.New(rand.NewPCG(7, uint64(1000*risk)))
		alarms, missed := 0, 0
		for range streams {
			m := newMonitor(t, Options{Risk: risk, Delta: delta, Horizon: horizon})
			outside := false
			for i := range horizon {
				m.Observe(audit(rng, risk)) // the hardest case: exactly at the promise
				outside = outside || logCapital(m.wrong, i+1, risk) >= -math.Log(delta)
			}
			if m.Status().Alarm {
				alarms++
			}
			if outside {
				missed++
			}
		}
		most := limit(delta, streams) * streams
		if float64(alarms) > most || float64(missed) > most {
			t.Errorf("risk %v: %d false alarms, %d confidence sequences missed in %d streams", risk, alarms, missed, streams)
		}
		t.Logf("risk %v: %d false alarms, %d sequences missed in %d streams of %d audits", risk, alarms, missed, streams, horizon)
	}
}

func TestAJumpIsNoticedSoon(t *testing.T) {
	const good = 2000
	for _, c := range []struct {
		risk, before, after float64
		median              int
	}{{0.05, 0.02, 0.10, 400}, {0.05, 0.02, 0.20, 100}, {0.02, 0.01, 0.06, 400}} {
		rng := rand.New(rand.NewPCG(11, 12))
		var delays []int
		for range 401 {
			m := newMonitor(t, Options{Risk: c.risk, Delta: 0.05})
			for range good {
				if m.Observe(audit(rng, c.before)) {
					t.Fatalf("false alarm at %v, half the promise", c.before)
				}
			}
			delay := 1
			for !m.Observe(audit(rng, c.after)) {
				delay++
			}
			delays = append(delays, delay)
		}
		slices.Sort(delays)
		if delays[200] > c.median {
			t.Errorf("%+v: median delay %d audits", c, delays[200])
		}
		t.Logf("%+v: median delay %d audits, 90 %% within %d", c, delays[200], delays[360])
	}
}

// The bets are fair: while the rate is at most the limit no bet is expected to win. And the capital of the confidence
// sequence is expected to be exactly 1 at the true rate.
func TestBetsAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Float64Range(1e-4, 0.999).Draw(t, "limit")
		rate := limit * rapid.Float64Range(0, 1).Draw(t, "rate/limit")
		for _, share := range bets {
			won, lost := factor(share, limit, 1), factor(share, limit, 0)
			if mean := rate*won + (1-rate)*lost; lost <= 0 || mean > 1+1e-12 {
				t.Fatalf("share %v: mean %v, lost %v", share, mean, lost)
			}
		}
		n := rapid.IntRange(1, 40).Draw(t, "n")
		mean, mass := 0.0, math.Pow(1-limit, float64(n))
		for k := 0; k <= n; k++ {
			mean += mass * math.Exp(logCapital(k, n, limit))
			mass *= float64(n-k) / float64(k+1) * limit / (1 - limit)
		}
		if math.Abs(mean-1) > 1e-9 {
			t.Fatalf("expected capital %v at n=%d, m=%v", mean, n, limit)
		}
	})
}

// anyAudits feeds a monitor anything.
func anyAudits(t *rapid.T) []Audit {
	return rapid.SliceOfN(rapid.SampledFrom([]Audit{Right, Right, Right, Wrong, Missing}), 0, 400).Draw(t, "audits")
}

func anyOptions(t *rapid.T) Options {
	return Options{
		Risk:           rapid.Float64Range(0.001, 0.9).Draw(t, "risk"),
		Delta:          rapid.Float64Range(0.001, 0.9).Draw(t, "delta"),
		Horizon:        rapid.IntRange(1, 100_000).Draw(t, "horizon"),
		MissingIsWrong: rapid.Bool().Draw(t, "missing is wrong"),
	}
}

func TestARestartChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := NewMonitor(anyOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		again := *m
		for _, a := range anyAudits(t) {
			m.Observe(a)
			text, err := json.Marshal(&again)
			if err != nil {
				t.Fatal(err)
			}
			again = Monitor{}
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			again.Observe(a)
		}
		if *m != again {
			t.Fatalf("%+v, restarted %+v", m, again)
		}
	})
}

func TestStatusIsSaneOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, err := NewMonitor(anyOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		alarmed := false
		for _, a := range anyAudits(t) {
			now := m.Observe(a)
			if alarmed && !now {
				t.Fatal("an alarm went away by itself")
			}
			alarmed = now
		}
		s := m.Status()
		rate := float64(s.Wrong) / math.Max(float64(s.Audits-s.Missing), 1)
		if !(0 <= s.LowAtBest && s.LowAtBest <= s.Low+1e-12 && s.Low <= rate && s.High <= s.HighAtWorst+1e-12 && s.HighAtWorst <= 1) {
			t.Fatalf("bounds out of order: %+v", s)
		}
		if s.Audits > s.Missing && rate > s.High {
			t.Fatalf("rate outside: %+v", s)
		}
		if s.Alarm != alarmed || s.Alarm != (s.Reason != "") {
			t.Fatalf("alarm %v: %+v", alarmed, s)
		}
	})
}

func TestAFailedAuditIsNeverRight(t *testing.T) {
	failing := newMonitor(t, Options{Risk: 0.05, Delta: 0.05})
	strict := newMonitor(t, Options{Risk: 0.05, Delta: 0.05, MissingIsWrong: true})
	for i := range 1000 {
		a := Right
		if i%2 == 0 {
			a = Missing
		}
		if failing.Observe(a) {
			t.Fatal("failed audits alone raised the alarm of a monitor that skips them")
		}
		strict.Observe(a)
	}
	s := failing.Status()
	if s.Missing != 500 || s.HighAtWorst < 0.5 || s.High > 0.05 {
		t.Errorf("500 of 1000 audits failed: %+v", s)
	}
	if !strict.Status().Alarm {
		t.Error("the strict monitor did not count failed audits as wrong")
	}
	skipped := newMonitor(t, Options{Risk: 0.05, Delta: 0.05})
	for range 500 {
		skipped.Observe(Right)
	}
	if s.High != skipped.Status().High {
		t.Error("failed audits moved the bound as if they had been answered")
	}
}

func TestDamagedStateIsRefused(t *testing.T) {
	m := newMonitor(t, Options{Risk: 0.05, Delta: 0.05})
	m.Observe(Wrong)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"version":  {`"version":1`, `"version":2`},
		"options":  {`"risk":0.05`, `"risk":5`},
		"counts":   {`"wrong":1`, `"wrong":-1`},
		"detector": {`"change":[`, `"change":[-`},
	} {
		bad := strings.Replace(string(text), change[0], change[1], 1)
		if bad == string(text) {
			t.Fatalf("%s: nothing to damage in %s", name, text)
		}
		if err := json.Unmarshal([]byte(bad), new(Monitor)); err == nil {
			t.Errorf("damaged %s was read", name)
		}
	}
	for _, o := range []Options{{}, {Risk: 1, Delta: 0.05}, {Risk: 0.05, Delta: math.NaN()}, {Risk: 0.05, Delta: 0.05, Horizon: -1}} {
		if _, err := NewMonitor(o); err == nil {
			t.Errorf("options %+v were taken", o)
		}
	}
}

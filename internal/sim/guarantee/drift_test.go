package guarantee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"occam/internal/drift"
)

// An alarm reads audits one at a time and says whether it stands.
type alarm struct {
	name  string
	start func(t testing.TB, risk float64) func(wrong bool) bool
}

// horizon and lifeDelta are what drift.Monitor is asked for: a false alarm within so many audits at most that often.
const (
	horizon   = 10_000
	lifeDelta = 0.05
)

var alarms = []alarm{
	{"z-test at 5 %, every 100 audits", zTest},
	{"hand CUSUM: S ← max(0, S + error − 1.5 a), alarm at 5", handCUSUM},
	{"e-CUSUM, run length 2,000", eCUSUM},
	{"**occam**", monitor},
}

func monitor(t testing.TB, risk float64) func(bool) bool {
	m, err := drift.NewMonitor(drift.Options{Risk: risk, Delta: lifeDelta, Horizon: horizon})
	if err != nil {
		t.Fatal(err)
	}
	return func(wrong bool) bool {
		if wrong {
			return m.Observe(drift.Wrong)
		}
		return m.Observe(drift.Right)
	}
}

// zTest repeats a test that is meant to be made once.
func zTest(_ testing.TB, risk float64) func(bool) bool {
	n, k := 0.0, 0.0
	return func(wrong bool) bool {
		n++
		if wrong {
			k++
		}
		return math.Mod(n, 100) == 0 && (k-n*risk)/math.Sqrt(n*risk*(1-risk)) > 1.645
	}
}

func handCUSUM(_ testing.TB, risk float64) func(bool) bool {
	sum := 0.0
	return func(wrong bool) bool {
		sum -= 1.5 * risk
		if wrong {
			sum++
		}
		sum = max(sum, 0)
		return sum >= 5
	}
}

// eCUSUM is the form R <- max(R, 1) * factor of Shin, Ramdas and Rinaldo 2022.
func eCUSUM(_ testing.TB, risk float64) func(bool) bool {
	shares := [...]float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.4}
	var r [len(shares)]float64
	return func(wrong bool) bool {
		x, mean := 0.0, 0.0
		if wrong {
			x = 1
		}
		for i, share := range shares {
			r[i] = max(r[i], 1) * (1 + share/risk*(x-risk))
			mean += r[i] / float64(len(shares))
		}
		return mean >= 2000
	}
}

// firstAlarm returns the audit at which the alarm is raised when the error rate is before, and after from audit change
// on; 0 for none within most audits.
func firstAlarm(rng *rand.Rand, observe func(bool) bool, before, after float64, change, most int) int {
	for i := 1; i <= most; i++ {
		rate := before
		if i > change {
			rate = after
		}
		if observe(rng.Float64() < rate) {
			return i
		}
	}
	return 0
}

// TestDriftTable measures false alarms and delays of the alarm that suspends certificates.
func TestDriftTable(t *testing.T) {
	if !measuring() {
		t.Skip("set OCCAM_BENCH=guarantee to measure the table")
	}
	var text strings.Builder
	falseAlarms(t, &text)
	delays(t, &text)
	writeSection(t, "drift", text.String())
}

func falseAlarms(t *testing.T, text *strings.Builder) {
	const streams = 1000
	fmt.Fprintf(text, "False alarms within %d audits, a look after every one, %d streams; δ = %.2f for occam.\n\n", horizon, streams, lifeDelta)
	rates := []struct{ risk, rate float64 }{{0.02, 0.02}, {0.05, 0.05}, {0.05, 0.04}, {0.05, 0.03}}
	fmt.Fprint(text, "| alarm |")
	for _, r := range rates {
		fmt.Fprintf(text, " a = %.2f, error rate %.2f |", r.risk, r.rate)
	}
	fmt.Fprint(text, "\n|---|---|---|---|---|\n")
	for _, a := range alarms {
		fmt.Fprintf(text, "| %s |", a.name)
		for _, r := range rates {
			rng := rand.New(rand.NewPCG(1, 2))
			raised := 0
			for range streams {
				if firstAlarm(rng, a.start(t, r.risk), r.rate, r.rate, 0, horizon) > 0 {
					raised++
				}
			}
			fmt.Fprintf(text, " %.1f %% |", 100*float64(raised)/streams)
			if a.name == alarms[len(alarms)-1].name && float64(raised)/streams > mayBreak(lifeDelta, streams) {
				t.Errorf("a=%v, rate %v: %d false alarms in %d streams", r.risk, r.rate, raised, streams)
			}
		}
		fmt.Fprintln(text)
	}
	fmt.Fprintln(text)
}

func delays(t *testing.T, text *strings.Builder) {
	const streams, good, most = 1000, 2000, 20_000
	fmt.Fprintf(text, "Audits from a jump, after %d good audits, to the alarm: median (90 %% within); false alarms before the jump in brackets; %d streams.\n\n", good, streams)
	jumps := []struct{ risk, before, after float64 }{{0.05, 0.02, 0.10}, {0.05, 0.02, 0.20}, {0.05, 0.03, 0.08}, {0.02, 0.01, 0.06}}
	fmt.Fprint(text, "| alarm |")
	for _, j := range jumps {
		fmt.Fprintf(text, " a = %.2f: %.2f → %.2f |", j.risk, j.before, j.after)
	}
	fmt.Fprint(text, "\n|---|---|---|---|---|\n")
	for _, a := range alarms {
		fmt.Fprintf(text, "| %s |", a.name)
		for _, j := range jumps {
			rng := rand.New(rand.NewPCG(3, 4))
			var waits []int
			early := 0
			for range streams {
				switch at := firstAlarm(rng, a.start(t, j.risk), j.before, j.after, good, good+most); {
				case at == 0:
					waits = append(waits, most)
				case at <= good:
					early++
				default:
					waits = append(waits, at-good)
				}
			}
			slices.Sort(waits)
			median := waits[len(waits)/2]
			fmt.Fprintf(text, " %d (%d) [%.1f %%] |", median, waits[len(waits)*9/10], 100*float64(early)/streams)
			if a.name == alarms[len(alarms)-1].name && j == jumps[0] && median > 400 {
				t.Errorf("%+v: median delay %d audits", j, median)
			}
		}
		fmt.Fprintln(text)
	}
}

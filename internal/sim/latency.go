package sim

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Latency is how long an answer takes: a log-normal time to the first token, then a log-normal time per token. The zero
// value answers at once.
type Latency struct {
	FirstToken time.Duration // median
	PerToken   time.Duration // median
	Sigma      float64       // of the logarithm: 0.4 puts the 99th percentile at 2.5 times the median
}

// TypicalLatency is that of a large model behind a public API: about a second for fifty tokens.
var TypicalLatency = Latency{FirstToken: 450 * time.Millisecond, PerToken: 12 * time.Millisecond, Sigma: 0.4}

// Scaled returns l with every time multiplied by factor, for a demo in a hurry.
func (l Latency) Scaled(factor float64) Latency {
	l.FirstToken = time.Duration(float64(l.FirstToken) * factor)
	l.PerToken = time.Duration(float64(l.PerToken) * factor)
	return l
}

func (l Latency) draw(r *rand.Rand, median time.Duration) time.Duration {
	if median <= 0 {
		return 0
	}
	return time.Duration(float64(median) * math.Exp(l.Sigma*r.NormFloat64()))
}

// wait sleeps unless ctx ends first; it reports whether it slept to the end.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

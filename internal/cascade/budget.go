package cascade

import "time"

// A Budget bounds how many requests of one key may escalate to a model that costs money: a token bucket that refills with
// time. The zero Budget is unlimited. It is a value; whoever shares one guards it.
type Budget struct {
	PerMinute float64 // refill; 0: unlimited
	Burst     float64 // most that can be saved up; at least 1

	level float64
	at    time.Time // zero before the first Take
}

// Take spends one escalation at the given time, or reports false and how long to wait until there is one.
func (b *Budget) Take(now time.Time) (ok bool, wait time.Duration) {
	if b.PerMinute <= 0 {
		return true, 0
	}
	burst := max(b.Burst, 1)
	switch {
	case b.at.IsZero():
		b.level = burst
		b.at = now
	default:
		elapsed := max(now.Sub(b.at), 0) // a clock that jumps back refills nothing, and does not stop the refill either
		b.level = min(burst, b.level+elapsed.Minutes()*b.PerMinute)
		b.at = now
	}
	if b.level >= 1 {
		b.level--
		return true, 0
	}
	return false, time.Duration((1 - b.level) / b.PerMinute * float64(time.Minute))
}

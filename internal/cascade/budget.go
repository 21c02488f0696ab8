package cascade

import "time"

// A Budget bounds a rate, such as how many requests of one key may escalate to a model that costs money: a token bucket that
// refills with time. The zero Budget is unlimited. Whoever shares one guards it.
type Budget struct {
	PerMinute float64 // refill; 0: unlimited
	Burst     float64 // most that can be saved up; at least 1

	level float64
	at    time.Time // zero before the first Take
}

// Take spends n at the given time, or reports false and how long to wait until there is enough. What is more than the burst
// is taken when the budget is full, and leaves it in debt.
func (b *Budget) Take(now time.Time, n float64) (ok bool, wait time.Duration) {
	if b.PerMinute <= 0 {
		return true, 0
	}
	burst := max(b.Burst, 1)
	if b.at.IsZero() {
		b.level = burst
	} else { // a clock that jumps back refills nothing, and does not stop the refill either
		b.level = min(burst, b.level+max(now.Sub(b.at), 0).Minutes()*b.PerMinute)
	}
	b.at = now
	if need := min(n, burst); b.level < need {
		return false, time.Duration((need - b.level) / b.PerMinute * float64(time.Minute))
	}
	b.level -= n
	return true, 0
}

// Correct spends n more, or gives back where n is negative: when the true amount is known after a Take.
func (b *Budget) Correct(n float64) {
	if b.PerMinute > 0 {
		b.level = min(max(b.Burst, 1), b.level-n)
	}
}

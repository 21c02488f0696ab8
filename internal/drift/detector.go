package drift

import "math"

// bets are the shares of the largest allowed stake that are played side by side. Small stakes grow on small, lasting
// excess, large ones on jumps: against a small limit, share b grows fastest when the rate is about 1 + b / limit times
// the limit.
var bets = [...]float64{0.02, 0.05, 0.1, 0.3}

// ceiling keeps the state finite: past it every alarm has long been raised.
const ceiling = 1e250

// factor is what one bet multiplies its stake by: 1 + lambda (x - limit) with lambda = share / limit, for an
// observation x in [0, 1]. Its mean given the past is at most 1 while the mean of x is at most the limit, and it is
// never negative. (Testing by betting: Waudby-Smith and Ramdas 2020, arXiv 2010.09686.)
func factor(share, limit, x float64) float64 { return 1 + share/limit*(x-limit) }

// wealth is the logarithm of each bet's capital since the start. Their mean is an e-process: P(it ever reaches 1/delta)
// <= delta while the limit holds (Ville's inequality).
type wealth [len(bets)]float64

func (w *wealth) observe(limit, x float64) {
	for i, share := range bets {
		w[i] = min(w[i]+math.Log(factor(share, limit, x)), math.Log(ceiling))
	}
}

func (w *wealth) value() float64 {
	sum := 0.0
	for _, log := range w {
		sum += math.Exp(log)
	}
	return sum / float64(len(bets))
}

func (w *wealth) valid() bool {
	for _, log := range w {
		if math.IsNaN(log) || math.IsInf(log, 0) {
			return false
		}
	}
	return true
}

// A detector gathers evidence that the limit holds no more since some unknown time: R <- (R + 1) * factor for each bet,
// the Shiryaev–Roberts e-detector of Shin, Ramdas and Rinaldo 2022 (arXiv 2203.03532), which sums the e-processes
// started at every possible time of change. While the limit holds, R_t - t is a supermartingale from 0; so the mean
// number of observations until the mean R reaches c is at least c, and by Doob P(it reaches c within h observations) <=
// h / c. At every step it is at least the e-CUSUM, R <- max(R, 1) * factor, hence never later at the same c.
type detector [len(bets)]float64

func (d *detector) observe(limit, x float64) {
	for i, share := range bets {
		d[i] = min((d[i]+1)*factor(share, limit, x), ceiling)
	}
}

func (d *detector) value() float64 {
	sum := 0.0
	for _, r := range d {
		sum += r
	}
	return sum / float64(len(bets))
}

func (d *detector) valid() bool {
	for _, r := range d {
		if !(r >= 0 && r <= ceiling) {
			return false
		}
	}
	return true
}

// sequence returns a confidence sequence for a probability of which wrong of n trials were seen so far: P(it ever
// misses) <= delta, however often it is looked at, while the probability does not change. It holds the m at which the
// mixture Beta(1/2, 1/2) of bets has not multiplied its stake by 1/delta:
//
//	capital(m) = B(wrong + 1/2, n - wrong + 1/2) / B(1/2, 1/2) / (m^wrong (1-m)^(n-wrong)) < 1/delta
//
// (Robbins 1970; for yes-or-no outcomes this is the betting martingale with its bets mixed in closed form, so two
// counts are its whole state.) The capital is convex in m with its least value at wrong/n, so both ends are found by
// bisection.
func sequence(wrong, n int, delta float64) (low, high float64) {
	if n <= 0 {
		return 0, 1
	}
	inside := func(m float64) bool { return logCapital(wrong, n, m) < -math.Log(delta) }
	low, high = 0, 1
	if centre := float64(wrong) / float64(n); inside(centre) { // else delta is so near 1 that nothing is excluded for sure
		low, high = edge(inside, centre, 0), edge(inside, centre, 1)
	}
	return low, high
}

func logCapital(wrong, n int, m float64) float64 {
	k, rest := float64(wrong), float64(n-wrong)
	return logBeta(k+0.5, rest+0.5) - logBeta(0.5, 0.5) - logPower(m, k) - logPower(1-m, rest)
}

// logPower is log(x^times), with 0^0 = 1.
func logPower(x, times float64) float64 {
	if times == 0 {
		return 0
	}
	return times * math.Log(x)
}

func logBeta(a, b float64) float64 {
	x, _ := math.Lgamma(a)
	y, _ := math.Lgamma(b)
	z, _ := math.Lgamma(a + b)
	return x + y - z
}

// edge returns where inside, which holds at in, stops holding on the way to out, rounded outwards; out if it never does.
func edge(inside func(float64) bool, in, out float64) float64 {
	if inside(out) {
		return out
	}
	for range 60 {
		if mid := in + (out-in)/2; inside(mid) {
			in = mid
		} else {
			out = mid
		}
	}
	return out
}

package calibration

import "math"

// BinCDF returns P(X <= k) for X ~ Binomial(n, p), to about 13 significant digits also deep in the tail.
// It is 0 for k < 0 and 1 for k >= n. It returns NaN when n < 0 or p is not in [0, 1].
//
// Formula: P(X <= k) = I_{1-p}(n-k, k+1), the regularised incomplete beta function, evaluated by its continued fraction
// (DLMF 8.17.22) times the binomial point mass in Loader's saddle-point form (C. Loader, "Fast and accurate computation
// of binomial probabilities", 2000), which does not cancel for large n as log-gamma differences do.
func BinCDF(k, n int, p float64) float64 {
	switch {
	case n < 0 || math.IsNaN(p) || p < 0 || p > 1:
		return math.NaN()
	case k < 0:
		return 0
	case k >= n || p == 0:
		return 1
	case p == 1:
		return 0
	}
	a, b := float64(n-k), float64(k+1)
	q := 1 - p
	mass := binomialMass(k, n, p)
	if q*(a+b+2) < a+1 { // the continued fraction converges fast on this side of the mean, and on the other for 1-I
		return min(1, p*mass*betaFraction(a, b, q))
	}
	return max(0, 1-p*mass*a/b*betaFraction(b, a, p))
}

// betaFraction evaluates the continued fraction of I_x(a, b) without its leading factor, by Lentz's method.
func betaFraction(a, b, x float64) float64 {
	const tiny = 1e-300
	steps := 200 + int(8*math.Sqrt(max(a, b))) // O(sqrt(max(a, b))) terms suffice on the fast side
	c, d := 1.0, 1/nonZero(1-(a+b)*x/(a+1), tiny)
	f := d
	for i := 1; i <= steps; i++ {
		m := float64(i)
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d = 1 / nonZero(1+even*d, tiny)
		c = nonZero(1+even/c, tiny)
		f *= d * c
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d = 1 / nonZero(1+odd*d, tiny)
		c = nonZero(1+odd/c, tiny)
		f *= d * c
		if math.Abs(d*c-1) < 1e-16 {
			break
		}
	}
	return f
}

func nonZero(x, tiny float64) float64 {
	if math.Abs(x) < tiny {
		return tiny
	}
	return x
}

// binomialMass returns P(X = k), 0 <= k <= n, 0 < p < 1.
func binomialMass(k, n int, p float64) float64 {
	q := 1 - p
	if k == 0 {
		return math.Exp(float64(n) * math.Log1p(-p))
	}
	if k == n {
		return math.Exp(float64(n) * math.Log(p))
	}
	x, y, m := float64(k), float64(n-k), float64(n)
	log := stirlingError(m) - stirlingError(x) - stirlingError(y) - deviance(x, m*p) - deviance(y, m*q)
	return math.Exp(log) * math.Sqrt(m/(2*math.Pi*x*y))
}

// stirlingError is log(n!) minus Stirling's formula, for n >= 1.
func stirlingError(n float64) float64 {
	if n < 16 {
		gamma, _ := math.Lgamma(n + 1)
		return gamma - (n+0.5)*math.Log(n) + n - 0.5*math.Log(2*math.Pi)
	}
	n2 := n * n
	return (1.0/12 - (1.0/360-(1.0/1260-(1.0/1680-1.0/1188/n2)/n2)/n2)/n2) / n
}

// deviance is x log(x/mean) + mean - x, without the cancellation near x = mean.
func deviance(x, mean float64) float64 {
	if math.Abs(x-mean) >= 0.1*(x+mean) {
		return x*math.Log(x/mean) + mean - x
	}
	v := (x - mean) / (x + mean)
	sum, term := (x-mean)*v, 2*x*v
	for j := 1; ; j++ {
		term *= v * v
		next := sum + term/float64(2*j+1)
		if next == sum {
			return sum
		}
		sum = next
	}
}

// Upper returns the one-sided Clopper–Pearson upper confidence bound on a probability of which k of n trials were seen:
// the p with P(Binomial(n, p) <= k) = delta. It is 1 when n = 0 or k >= n.
func Upper(k, n int, delta float64) float64 {
	if n <= 0 || k >= n {
		return 1
	}
	k = max(k, 0)
	return bisect(func(p float64) bool { return BinCDF(k, n, p) > delta })
}

// Lower returns the one-sided Clopper–Pearson lower confidence bound: the p with P(Binomial(n, p) >= k) = delta.
// It is 0 when n = 0 or k <= 0.
func Lower(k, n int, delta float64) float64 {
	if n <= 0 || k <= 0 {
		return 0
	}
	return 1 - Upper(n-k, n, delta)
}

// Interval returns the two-sided Clopper–Pearson interval for a probability of which k of n trials were seen, at the
// given confidence, e.g. 0.95. It is [0, 1] when n = 0. (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934.)
func Interval(k, n int, confidence float64) (low, high float64) {
	tail := (1 - confidence) / 2
	return Lower(k, n, tail), Upper(k, n, tail)
}

// bisect returns the smallest p in [0, 1] at which below no longer holds, where below holds on an initial segment. It
// rounds up, so an upper bound stays one.
func bisect(below func(p float64) bool) float64 {
	low, high := 0.0, 1.0
	for range 200 {
		mid := low + (high-low)/2
		if mid <= low || mid >= high {
			break
		}
		if below(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

package calibration

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// exactCDF sums the binomial in 400-bit arithmetic.
func exactCDF(k, n int, p float64) float64 {
	const bits = 400
	x := new(big.Float).SetPrec(bits).SetFloat64(p)
	y := new(big.Float).SetPrec(bits).Sub(big.NewFloat(1).SetPrec(bits), x)
	power := func(base *big.Float, times int) *big.Float {
		result := big.NewFloat(1).SetPrec(bits)
		for ; times > 0; times-- {
			result.Mul(result, base)
		}
		return result
	}
	sum := new(big.Float).SetPrec(bits)
	for i := 0; i <= k; i++ {
		term := new(big.Float).SetPrec(bits).SetInt(new(big.Int).Binomial(int64(n), int64(i)))
		sum.Add(sum, term.Mul(term, power(x, i)).Mul(term, power(y, n-i)))
	}
	value, _ := sum.Float64()
	return value
}

func TestBinCDFAgainstExactSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 120).Draw(t, "n")
		k := rapid.IntRange(0, n-1).Draw(t, "k")
		p := rapid.Float64Range(1e-6, 1-1e-6).Draw(t, "p")
		want, got := exactCDF(k, n, p), BinCDF(k, n, p)
		if math.Abs(got-want) > 1e-11*want+1e-300 {
			t.Fatalf("BinCDF(%d, %d, %v) = %v, want %v (relative error %g)", k, n, p, got, want, (got-want)/want)
		}
	})
}

func TestBinCDFIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 100_000).Draw(t, "n")
		k := rapid.IntRange(-1, n).Draw(t, "k")
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		value := BinCDF(k, n, p)
		if !(value >= 0 && value <= 1) {
			t.Fatalf("BinCDF(%d, %d, %v) = %v is no probability", k, n, p, value)
		}
		if next := BinCDF(k+1, n, p); next < value-1e-12 {
			t.Fatalf("falls in k: %v then %v", value, next)
		}
		if less := BinCDF(k, n, p*0.9); less < value-1e-12 {
			t.Fatalf("rises in p: %v at %v, %v at %v", value, p, less, p*0.9)
		}
	})
}

// Known values from R: pbinom and binom.test.
func TestKnownValues(t *testing.T) {
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-6*math.Abs(want)+1e-12 {
			t.Errorf("%s = %.9g, want %.9g", name, got, want)
		}
	}
	near("P(X=0), n=10", BinCDF(0, 10, 0.1), 0.3486784401)
	near("P(X<=2), n=10", BinCDF(2, 10, 0.1), 0.9298091736)
	near("P(X<=50), n=100", BinCDF(50, 100, 0.5), 0.5397946187)
	low, high := Interval(0, 10, 0.95)
	near("0/10 low", low, 0)
	near("0/10 high", high, 1-math.Pow(0.025, 0.1))
	low, high = Interval(5, 10, 0.95)
	near("5/10 low", low, 0.1870860284)
	near("5/10 high", high, 0.8129139716)
	near("no errors in 59 at 95 %", Upper(0, 59, 0.05), 1-math.Pow(0.05, 1.0/59))
	near("all of 4", Lower(4, 4, 0.05), math.Pow(0.05, 0.25))
	for n, want := range map[int]float64{299: 0.01, 149: 0.02, 99: 0.03, 59: 0.05, 29: 0.10} {
		if Upper(0, n, 0.05) > want || Upper(0, n-1, 0.05) <= want {
			t.Errorf("the smallest error-free sample for risk %v at 95 %% is not %d", want, n)
		}
	}
}

func TestBinCDFEdges(t *testing.T) {
	for name, got := range map[string]bool{
		"k<0":        BinCDF(-1, 5, 0.3) == 0,
		"k=n":        BinCDF(5, 5, 0.3) == 1,
		"k>n":        BinCDF(6, 5, 0.3) == 1,
		"n=0":        BinCDF(0, 0, 0.3) == 1,
		"p=0":        BinCDF(0, 5, 0) == 1,
		"p=1":        BinCDF(4, 5, 1) == 0,
		"n<0":        math.IsNaN(BinCDF(0, -1, 0.5)),
		"p=NaN":      math.IsNaN(BinCDF(0, 5, math.NaN())),
		"upper n=0":  Upper(0, 0, 0.05) == 1,
		"upper k=n":  Upper(5, 5, 0.05) == 1,
		"lower k=0":  Lower(0, 5, 0.05) == 0,
		"huge n":     math.Abs(BinCDF(500_000, 1_000_000, 0.5)-0.5003989) < 1e-6,
		"deep tail":  BinCDF(0, 1_000_000, 0.5) == 0,
		"small tail": BinCDF(10, 10_000, 0.01) > 0 && BinCDF(10, 10_000, 0.01) < 1e-25,
	} {
		if !got {
			t.Errorf("wrong at %s", name)
		}
	}
}

func TestIntervalHoldsAsOftenAsItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		p := rapid.Float64Range(0.001, 0.999).Draw(t, "p")
		missed := 0.0
		for k := 0; k <= n; k++ {
			low, high := Interval(k, n, 0.9)
			if p < low || p > high {
				missed += binomialMass(k, n, p)
			}
		}
		if missed > 0.1+1e-9 {
			t.Fatalf("the 90 %% interval misses p=%v with probability %v at n=%d", p, missed, n)
		}
	})
}

func FuzzBinCDF(f *testing.F) {
	f.Add(3, 100, 0.05)
	f.Add(0, 0, 0.0)
	f.Fuzz(func(t *testing.T, k, n int, p float64) {
		if n > 1<<30 {
			return
		}
		if value := BinCDF(k, n, p); value < 0 || value > 1 || (math.IsNaN(value) && n >= 0 && p >= 0 && p <= 1) {
			t.Fatalf("BinCDF(%d, %d, %v) = %v", k, n, p, value)
		}
	})
}

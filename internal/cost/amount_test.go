package cost

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestAmountIsWrittenExactly(t *testing.T) {
	for a, want := range map[Amount]string{0: "$0.000000000", 1: "$0.000000001", -1: "-$0.000000001", USD: "$1.000000000",
		-12*USD - 5: "-$12.000000005", math.MinInt64: "-$9223372036.854775808"} {
		if got := a.String(); got != want {
			t.Errorf("%d is written %s, want %s", int64(a), got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := Amount(rapid.Int64().Draw(t, "amount"))
		text := a.String()
		sign := ""
		if text[0] == '-' {
			sign, text = "-", text[1:]
		}
		r, ok := new(big.Rat).SetString(sign + text[1:])
		if !ok || r.Mul(r, big.NewRat(int64(USD), 1)).Cmp(new(big.Rat).SetInt64(int64(a))) != 0 {
			t.Fatalf("%d is written %s", int64(a), a)
		}
	})
}

func TestFromUSDRoundsToTheNearestNanoDollar(t *testing.T) {
	for usd, want := range map[float64]Amount{0: 0, 1e-9: 1, 0.4e-9: 0, 0.5e-9: 1, -2.5: -2_500_000_000, 1750: 1750 * USD, 0.00175: 1_750_000} {
		if got := FromUSD(usd); got != want {
			t.Errorf("FromUSD(%g) = %d, want %d", usd, got, want)
		}
	}
}

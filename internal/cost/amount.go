// Package cost does the money: amounts in whole nano-dollars, dated prices, the cost of tokens and of GPU hours, and the
// arithmetic of breaking even. An unknown price is never zero: it is unpriced.
package cost

import "strconv"

// An Amount is money in nano-dollars (1e-9 USD). Sums are exact.
type Amount int64

// USD is one dollar.
const USD Amount = 1_000_000_000

// FromUSD rounds a number of dollars, typically read from a price list, to the nearest nano-dollar.
func FromUSD(usd float64) Amount {
	if usd < 0 {
		return -FromUSD(-usd)
	}
	return Amount(usd*float64(USD) + 0.5)
}

// USD returns the amount in dollars, for display and for arithmetic that is not accounting.
func (a Amount) USD() float64 { return float64(a) / float64(USD) }

// String writes the amount exactly, with all nine decimals, as "$12.345678901".
func (a Amount) String() string {
	text, n := make([]byte, 0, 24), uint64(a)
	if a < 0 {
		text, n = append(text, '-'), -n // two's complement: right for the smallest amount too
	}
	text = strconv.AppendUint(append(text, '$'), n/uint64(USD), 10)
	point := len(text)
	text = strconv.AppendUint(text, uint64(USD)+n%uint64(USD), 10) // a one and nine digits
	text[point] = '.'
	return string(text)
}

// Usage is what a provider says it billed, in tokens. Cached and CacheWrite are parts of Input; Reasoning is part of Output.
type Usage struct {
	Input      int64 `json:"input"`
	Cached     int64 `json:"cached,omitempty"`      // part of Input read from the provider's cache
	CacheWrite int64 `json:"cache_write,omitempty"` // part of Input written to the provider's cache
	Output     int64 `json:"output"`
	Reasoning  int64 `json:"reasoning,omitempty"` // part of Output
}

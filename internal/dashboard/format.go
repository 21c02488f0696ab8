package dashboard

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"occam/internal/calibration"
	"occam/internal/cost"
)

// dollars is money in JSON: a number of dollars, exact to the nano-dollar.
type dollars cost.Amount

// MarshalJSON writes the exact decimal.
func (m dollars) MarshalJSON() ([]byte, error) {
	return []byte(strings.Replace(cost.Amount(m).String(), "$", "", 1)), nil
}

// String is what people read: cents, and more digits where cents would hide the amount.
func (m dollars) String() string {
	usd := math.Abs(cost.Amount(m).USD())
	sign := ""
	if m < 0 {
		sign = "−"
	}
	switch {
	case m == 0:
		return "$0.00"
	case usd < 0.00001:
		return sign + "$" + strings.TrimRight(strconv.FormatFloat(usd, 'f', 9, 64), "0")
	case usd < 0.01:
		return sign + "$" + strconv.FormatFloat(usd, 'f', 5, 64)
	case usd < 0.1:
		return sign + "$" + strconv.FormatFloat(usd, 'f', 4, 64)
	}
	whole, cents, _ := strings.Cut(strconv.FormatFloat(usd, 'f', 2, 64), ".")
	return sign + "$" + thousands(whole) + "." + cents
}

// axisDollars writes dollars with as many decimals as the step between the lines of a grid needs.
func axisDollars(step, v float64) string {
	decimals := 0
	for scaled := step; decimals < 9 && math.Abs(scaled-math.Round(scaled)) > 1e-6; scaled *= 10 {
		decimals++
	}
	if decimals == 1 {
		decimals = 2 // cents
	}
	whole, rest, _ := strings.Cut(strconv.FormatFloat(v, 'f', decimals, 64), ".")
	if rest != "" {
		rest = "." + rest
	}
	return "$" + thousands(whole) + rest
}

// Exact is the amount with all nine decimals.
func (m dollars) Exact() string { return cost.Amount(m).String() }

// Abs is the amount without its sign.
func (m dollars) Abs() dollars { return max(m, -m) }

// Negative reports a loss.
func (m dollars) Negative() bool { return m < 0 }

func count[N int | int64](n N) string { return thousands(strconv.FormatInt(int64(n), 10)) }

// thousands puts commas into a row of digits.
func thousands(digits string) string {
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// A share is part of a whole; its interval is exact binomial at 95 %.
type share struct {
	Of    int64   `json:"of"`
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

func shareOf(k, n int64) *share {
	if n <= 0 {
		return nil
	}
	low, high := calibration.Interval(int(k), int(n), 0.95)
	return &share{n, float64(k) / float64(n), low, high}
}

// percent writes a share of one with one decimal, and never rounds to 0 % or 100 % what is not. The space is a no-break one.
func percent(v float64) string {
	p := math.Round(v*1000) / 10
	switch {
	case math.IsNaN(v):
		return "–"
	case p == 0 && v > 0:
		return "< 0.1\u00a0%"
	case p == 100 && v < 1:
		return "> 99.9\u00a0%"
	}
	return strconv.FormatFloat(p, 'f', 1, 64) + "\u00a0%"
}

// axisPercent writes a share of one without decimals that say nothing.
func axisPercent(v float64) string {
	return strconv.FormatFloat(math.Round(v*10000)/100, 'f', -1, 64) + "\u00a0%"
}

// signed writes a number with its sign and two decimals.
func signed(v float64) string {
	sign := "+"
	if v < 0 {
		sign = "−"
	}
	return sign + strconv.FormatFloat(math.Abs(v), 'f', 2, 64)
}

// decimal writes a number with two decimals, such as a confidence; it never rounds up to 1.
func decimal(v float64) string {
	if v < 1 && v > 0.99 {
		return strconv.FormatFloat(math.Floor(v*1000)/1000, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func duration(t time.Duration) string {
	ms := float64(t) / 1e6
	switch {
	case t <= 0:
		return "–"
	case ms < 0.1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + "\u00a0µs"
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + "\u00a0ms"
	case ms < 1000:
		return strconv.FormatFloat(ms, 'f', 0, 64) + "\u00a0ms"
	}
	return strconv.FormatFloat(ms/1000, 'f', 2, 64) + "\u00a0s"
}

// longTime writes a time of hours or days.
func longTime(t time.Duration) string {
	if days := t / (24 * time.Hour); days > 1 {
		return count(int64(days)) + "\u00a0days"
	}
	return count(int64(t/time.Hour)) + "\u00a0hours"
}

func bytesize(n int64) string {
	switch {
	case n < 1000:
		return count(n) + "\u00a0B"
	case n < 1e6:
		return strconv.FormatFloat(float64(n)/1e3, 'f', 1, 64) + "\u00a0kB"
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + "\u00a0MB"
}

// short cuts a long name in its middle, where people do not look.
func short(name string) string {
	r := []rune(name)
	if len(r) <= 40 {
		return name
	}
	return string(r[:24]) + "…" + string(r[len(r)-14:])
}

// capital starts with a capital letter, unless a name comes first, such as gpt-4o-mini.
func capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	word, _, _ := strings.Cut(s, " ")
	if size == 0 || strings.ContainsAny(word, "0123456789/_@") {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

// sentence starts with a capital letter and ends with a full stop.
func sentence(s string) string { return strings.TrimRight(capital(s), ". ") + "." }

// codeParts cuts a text at its backticks: what stands between two is code.
func codeParts(s string) []textPart {
	var parts []textPart
	for i, text := range strings.Split(s, "`") {
		if text != "" {
			parts = append(parts, textPart{text, i%2 == 1})
		}
	}
	return parts
}

// clock writes a time of day, with the day where it is not today's.
func clock(t, now time.Time) string {
	t = t.UTC()
	if t.Format(time.DateOnly) == now.UTC().Format(time.DateOnly) {
		return t.Format("15:04:05")
	}
	return t.Format("2 Jan 15:04:05")
}

package task

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// forms are the canonical forms that a span field may declare as x-occam-normalize; "" is none.
var forms = []string{"", "upper", "lower", "digits", "date", "amount"}

// NormalizeSpan writes the text of a span in its canonical form: "upper", "lower", "digits" (digits only), "date" (2026-03-31), "amount"
// (1234.5 EUR), or "" for as it is. A date or an amount that could be read in two ways, or in none, stays as it is, which is no legal
// value of its field (Field.Check): nothing is guessed.
func NormalizeSpan(form, text string) string {
	canonical, ok := "", false
	switch form {
	case "upper":
		return strings.ToUpper(text)
	case "lower":
		return strings.ToLower(text)
	case "digits":
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, text)
	case "date":
		canonical, ok = isoDate(text)
	case "amount":
		canonical, ok = amount(text)
	}
	if ok {
		return canonical
	}
	return text
}

// isCanonical reports whether text is a date or an amount in the form's own writing; for the other forms every text is.
func isCanonical(form, text string) bool {
	switch form {
	case "date":
		canonical, ok := isoDate(text)
		return ok && canonical == text
	case "amount":
		canonical, ok := amount(text)
		return ok && canonical == text
	}
	return true
}

// SpanIn returns the first stretch of text that reads as the date or amount that value is in canonical form, or "".
func SpanIn(form, value, text string) string {
	pattern := datePattern
	switch form {
	case "amount":
		pattern = amountPattern
	case "date":
	default:
		return ""
	}
	for _, at := range pattern.FindAllStringIndex(text, -1) {
		if stretch := text[at[0]:at[1]]; NormalizeSpan(form, stretch) == value {
			return stretch
		}
	}
	return ""
}

// datePattern finds three numbers between marks; what they mean isoDate says. Names of months belong to a language and are not read.
var datePattern = regexp.MustCompile(`[0-9]+[-/.年] ?[0-9]+[-/.月] ?[0-9]+`)

var datePart = regexp.MustCompile(`^([0-9]{1,4})([-/.年]) ?([0-9]{1,2})([-/.月]) ?([0-9]{1,4})日?$`)

// isoDate reads a date of three numbers. The year has four digits and stands first, with the month after it, or last; then one of the
// two others must be above 12, or both the same, for which is the day differs between countries.
func isoDate(text string) (string, bool) {
	part := datePart.FindStringSubmatch(text)
	if part == nil || part[2] != part[4] && part[2]+part[4] != "年月" {
		return "", false
	}
	year, month, day := part[1], part[3], part[5]
	if len(year) != 4 {
		if year, month, day = part[5], part[3], part[1]; len(year) != 4 {
			return "", false
		}
		m, errMonth := strconv.Atoi(month)
		d, errDay := strconv.Atoi(day)
		if errMonth != nil || errDay != nil || m <= 12 && d <= 12 && m != d {
			return "", false
		}
		if m > 12 {
			month, day = day, month
		}
	}
	when, err := time.Parse("2006-1-2", year+"-"+strings.TrimPrefix(month, "0")+"-"+strings.TrimPrefix(day, "0"))
	return when.Format(time.DateOnly), err == nil
}

// signs are the currency signs that one currency alone bears; $, £ and ¥ are several currencies' and are not read.
var signs = map[string]string{"€": "EUR", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₴": "UAH", "₪": "ILS", "₫": "VND", "฿": "THB"}

const (
	currency = `([A-Z]{3}|[€₹₽₩₺₴₪₫฿])`
	space    = `[ \x{a0}\x{202f}]?`
	number   = `([0-9](?:[0-9.,'’]*[0-9])?)`
)

var (
	amountPattern = regexp.MustCompile(currency + space + number + `|` + number + space + currency)
	amountPart    = regexp.MustCompile(`^(?:` + amountPattern.String() + `)$`)
	grouping      = regexp.MustCompile(`^[0-9]{1,3}(?:(?:,[0-9]{3})+|(?:\.[0-9]{3})+|(?:['’][0-9]{3})+)$`)
)

// amount reads a number beside the code or the sign of its currency.
func amount(text string) (string, bool) {
	part := amountPart.FindStringSubmatch(text)
	if part == nil {
		return "", false
	}
	code := part[1] + part[4]
	if known := signs[code]; known != "" {
		code = known
	}
	n, ok := decimal(part[2] + part[3])
	if again, clear := decimal(n); !ok || !clear || again != n { // "1.2340" is clear, but would be written "1.234", which is not
		return "", false
	}
	return n + " " + code, true
}

// decimal reads a number that may be grouped by thousands, with a point or a comma for the fraction. "1,234" is a thousand in some
// countries and one and a bit in others, so it is not read; nor is anything grouped but by threes.
func decimal(text string) (string, bool) {
	whole, fraction := text, ""
	at := strings.LastIndexAny(text, ".,")
	switch {
	case at < 0 || strings.Count(text, text[at:at+1]) > 1: // nothing but groups
	case grouping.MatchString(text) && text[0] != '0':
		return "", false
	default:
		whole, fraction = text[:at], strings.TrimRight(text[at+1:], "0")
	}
	if strings.ContainsAny(whole, ".,'’") {
		if !grouping.MatchString(whole) {
			return "", false
		}
		whole = strings.NewReplacer(".", "", ",", "", "'", "", "’", "").Replace(whole)
	}
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	if strings.ContainsAny(fraction, "'’") {
		return "", false
	}
	if fraction != "" {
		whole += "." + fraction
	}
	return whole, true
}

package task

import (
	"regexp"
	"strings"
)

// signs are the currency signs that one currency alone bears. $, £ and ¥ are several currencies': what they mean is learned from labels, as
// it is of words such as "Euro" or "kr".
var signs = map[string]string{"€": "EUR", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₴": "UAH", "₪": "ILS", "₫": "VND", "฿": "THB", "円": "JPY", "원": "KRW"}

const (
	signBefore = `([A-Z]{3}|[A-Z]{0,3}[\p{Sc}])`
	signAfter  = `([A-Z]{3}|[A-Z]{0,3}[\p{Sc}]|[円元원])`
	wordAfter  = `([\pL\pM]{2,10}\.?)`
	gap        = `[ \x{a0}\x{202f}\x{3000}]?`
	number     = `([0-9](?:[0-9.,'’\x{a0}\x{202f}]*[0-9])?)`
)

// anyNumber is number before fold.
var anyNumber = strings.NewReplacer("0-9.,", `\p{Nd}.,，．`, "0-9", `\p{Nd}`).Replace(number)

var (
	amountPatterns = []*regexp.Regexp{ // with a code or a sign first
		regexp.MustCompile(signBefore + gap + anyNumber),
		regexp.MustCompile(anyNumber + gap + signAfter),
		regexp.MustCompile(anyNumber + gap + wordAfter),
	}
	amountPart = regexp.MustCompile(`^(?:` + signBefore + gap + number + `|` + number + gap + `(?:` + signAfter + `|` + wordAfter + `))$`)
	grouping   = regexp.MustCompile(`^[0-9]{1,3}(?:(?:,[0-9]{3})+|(?:\.[0-9]{3})+|(?:['’][0-9]{3})+|(?:\x{a0}[0-9]{3})+|(?:\x{202f}[0-9]{3})+)$`)
	isoCode    = regexp.MustCompile(`^[A-Z]{3}$`)
)

const (
	thousands = "thousands"
	fraction  = "fraction"
)

// amountReadings reads a number beside the code or the sign of its currency, or before a word for it. hint says which currency a shared sign
// or a word means.
func amountReadings(text string, hint func(string) string) []reading {
	part := amountPart.FindStringSubmatch(text)
	if part == nil {
		return nil
	}
	r, ok := decimalReading(part[2] + part[3])
	if !ok {
		return nil
	}
	sign := part[1] + part[4] + part[5]
	code := signs[sign]
	switch {
	case code != "":
	case isoCode.MatchString(sign):
		code = sign
	default:
		sign = strings.ToLower(sign)
		if code = hint(sign); code == "" {
			return nil
		}
		r.needs = append(r.needs, meaning{sign, code})
	}
	r.value += " " + code
	return []reading{r}
}

// decimalReading reads a number that may be grouped by thousands, with a point or a comma for the fraction. "1,234" is a thousand in some
// countries and one and a bit in others, so it needs to be known what the comma stands for. Nothing is read that is grouped but by threes,
// nor what would be written as a number below a thousand with three decimals, which has no form that can be read in one way.
func decimalReading(text string) (r reading, ok bool) {
	whole, decimals := text, ""
	at := strings.LastIndexAny(text, ".,")
	switch {
	case at < 0 || strings.Count(text, text[at:at+1]) > 1: // nothing but groups
	case grouping.MatchString(text) && text[0] != '0':
		r.needs = []meaning{{text[at : at+1], thousands}}
	default:
		whole, decimals = text[:at], strings.TrimRight(text[at+1:], "0")
		other := string(".,"[strings.IndexByte(",.", text[at])])
		r.shows = []meaning{{text[at : at+1], fraction}, {other, thousands}}
	}
	if strings.ContainsAny(whole, ".,'’\u00a0\u202f") {
		if !grouping.MatchString(whole) {
			return r, false
		}
		whole = strings.NewReplacer(".", "", ",", "", "'", "", "’", "", "\u00a0", "", "\u202f", "").Replace(whole)
	}
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	if strings.ContainsAny(decimals, "'’\u00a0\u202f") {
		return r, false
	}
	r.value = whole
	if decimals != "" {
		r.value += "." + decimals
	}
	return r, whole == "0" || !grouping.MatchString(r.value)
}

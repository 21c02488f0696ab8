package store

import (
	"math/big"
	"regexp"
	"strings"
)

// RedactContacts is a Redact function that replaces what identifies a person in most support mail: e-mail addresses, payment
// cards (with a valid check digit), bank accounts (IBANs with valid check digits) and telephone numbers that are written
// as such. It keeps other numbers, for an order number is often the very thing to be learned.
func RedactContacts(text string) string {
	text = emailPattern.ReplaceAllString(text, "[email]")
	text = ibanPattern.ReplaceAllStringFunc(text, func(s string) string { return replaceIf(isIBAN(s), s, "[iban]") })
	text = digitsPattern.ReplaceAllStringFunc(text, func(s string) string { return replaceIf(isCard(s), s, "[card]") })
	return phonePattern.ReplaceAllStringFunc(text, func(s string) string { return replaceIf(isPhone(s), s, "[phone]") })
}

var (
	emailPattern  = regexp.MustCompile(`[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+`)
	ibanPattern   = regexp.MustCompile(`\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b`)
	digitsPattern = regexp.MustCompile(`\b[2-6](?:[ -]?[0-9]){12,18}\b`) // the industries that issue cards
	phonePattern  = regexp.MustCompile(`(?:\+|\b00|\(|\b0)[0-9][0-9 ()./-]{6,18}[0-9]\b`)
)

func replaceIf(found bool, text, by string) string {
	if found {
		return by
	}
	return text
}

// isCard is the check of ISO/IEC 7812: doubling every second digit from the right, the digits' sum is a multiple of ten.
func isCard(text string) bool {
	digits := keep(text, "0123456789")
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// isIBAN is the check of ISO 13616: with the first four characters at the end and letters as numbers, the remainder by 97 is 1.
func isIBAN(text string) bool {
	s := strings.ReplaceAll(text, " ", "")
	var number strings.Builder
	for _, r := range s[4:] + s[:4] {
		if r >= 'A' {
			number.WriteString(big.NewInt(int64(r - 'A' + 10)).String())
		} else {
			number.WriteRune(r)
		}
	}
	n, ok := new(big.Int).SetString(number.String(), 10)
	return ok && new(big.Int).Mod(n, big.NewInt(97)).Int64() == 1
}

// isPhone asks for as many digits as a subscriber's number with its area has, and no more than E.164 allows.
func isPhone(text string) bool {
	n := len(keep(text, "0123456789"))
	return n >= 9 && n <= 15
}

func keep(text, letters string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(letters, r) {
			return r
		}
		return -1
	}, text)
}

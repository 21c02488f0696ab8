// Package redact replaces in texts what nobody should keep: addresses, numbers and secrets that identify or admit somebody.
package redact

import (
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"
)

// A rule finds one kind of thing. by is what takes its place; "$1" in it stands for the first group.
type rule struct {
	kind    string
	pattern *regexp.Regexp
	is      func(found string) bool // nil: everything that the pattern finds
	by      string
}

// builtin holds the kinds in the order in which they are looked for: what is longer and surer comes first.
var builtin = []rule{
	{"key", regexp.MustCompile(`(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|$)`), nil, "[key]"},
	{"key", regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+`), nil, "[key]"}, // JSON web tokens
	{"key", regexp.MustCompile(`\b(?:sk|pk|rk|gsk|hf|whsec|glpat|xai|npm|occam)[-_][A-Za-z0-9][\w-]{15,}`), hasDigit, "[key]"},
	{"key", regexp.MustCompile(`\b(?:gh[opsru]_|github_pat_|xox[abeoprs]-|AIza|ya29\.)[\w-]{12,}`), nil, "[key]"},
	{"key", regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`), nil, "[key]"},
	{"key", regexp.MustCompile(`(?i)\b((?:password|passwd|pwd|passphrase|secret|api[_ -]?key|access[_ -]?token|bearer)["']?(?:\s*[:=]\s*|\s+is\s*:?\s+|\s+)["']?)([^\s"',;]{8,})`),
		func(found string) bool { return hasDigit(lastWord(found)) }, "${1}[key]"},
	{"email", regexp.MustCompile(`[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+`), nil, "[email]"},
	{"iban", regexp.MustCompile(`\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b`), isIBAN, "[iban]"},
	// In the lengths and groups that cards are written in, of the industries that issue them.
	{"card", regexp.MustCompile(`\b(?:[2-6][0-9]{15}|3[47][0-9]{13}|3[068][0-9]{12}|[46][0-9]{18}|4[0-9]{12}|` +
		`[2-6][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}(?:[ -][0-9]{3})?|3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5})\b`), isCard, "[card]"},
	{"phone", regexp.MustCompile(`(^|[^\w-])(?:\+|00|\(|0)[0-9][0-9 ()./-]{6,18}[0-9]\b`), isPhone, "${1}[phone]"},
}

// Kinds are the names of what is known without a pattern of one's own: "card" (payment cards with a valid check digit),
// "email", "iban" (bank accounts with valid check digits), "key" (private keys, tokens and API keys by their known beginnings,
// and what follows a word such as password), "phone" (written as such: +49 …, 030 …). Other numbers stay: an order number is
// often the very thing to be learned.
func Kinds() []string {
	kinds := map[string]bool{}
	for _, r := range builtin {
		kinds[r.kind] = true
	}
	return slices.Sorted(maps.Keys(kinds))
}

const (
	maxOwn  = 64
	maxName = 32
)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// Rules say what to replace. The zero Rules replace nothing. Safe for concurrent use.
type Rules struct{ rules []rule }

// New makes rules of kinds (see Kinds) and of patterns of one's own, regular expressions of RE2 by name: what one matches
// becomes "[name]". One's own come first. Errors name the kind or the pattern.
func New(kinds []string, own map[string]string) (*Rules, error) {
	if len(own) > maxOwn {
		return nil, fmt.Errorf("%d patterns, at most %d", len(own), maxOwn)
	}
	r := &Rules{}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if len(name) > maxName || !namePattern.MatchString(name) {
			return nil, fmt.Errorf("the pattern name %q: it must be small letters, digits, - and _, at most %d", name, maxName)
		}
		pattern, err := regexp.Compile(own[name])
		if err != nil {
			return nil, fmt.Errorf("the pattern %s: %w", name, err)
		}
		if pattern.MatchString("") {
			return nil, fmt.Errorf("the pattern %s matches nothing at all, so it would match everywhere", name)
		}
		r.rules = append(r.rules, rule{name, pattern, nil, "[" + name + "]"})
	}
	for _, kind := range kinds {
		if !slices.Contains(Kinds(), kind) {
			return nil, fmt.Errorf("%q is no kind: it must be one of %s", kind, strings.Join(Kinds(), ", "))
		}
	}
	for _, b := range builtin {
		if slices.Contains(kinds, b.kind) {
			r.rules = append(r.rules, b)
		}
	}
	return r, nil
}

// Text returns the text with everything replaced. Text that was redacted before does not change again.
func (r *Rules) Text(text string) string {
	for _, rule := range r.rules {
		text = rule.pattern.ReplaceAllStringFunc(text, func(found string) string {
			if rule.is != nil && !rule.is(found) {
				return found
			}
			if strings.HasPrefix(rule.by, "$") {
				return rule.pattern.ReplaceAllString(found, rule.by)
			}
			return rule.by
		})
	}
	return text
}

func hasDigit(text string) bool { return strings.ContainsAny(text, "0123456789") }

func lastWord(text string) string { return text[strings.LastIndexAny(text, " \t\n:=\"'")+1:] }

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

// isPhone asks for as many digits as a subscriber's number with its area has, no more than E.164 allows, and for more than
// digits: a run of digits alone, also one that begins with 0, is more often an order.
func isPhone(text string) bool {
	n := len(keep(text, "0123456789"))
	return n >= 9 && n <= 15 && (strings.Contains(text, "+") || strings.ContainsAny(text[1:], " ()./-"))
}

func keep(text, letters string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(letters, r) {
			return r
		}
		return -1
	}, text)
}

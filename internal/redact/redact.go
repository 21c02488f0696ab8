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
	reach   func(text string, n int) int // how many of the n bytes that the pattern found at text's beginning are it, negative: are not; nil: all are
	by      string
}

// secretWord finds what follows a word such as password.
var secretWord = regexp.MustCompile(`(?i)((?:\b|_)(?:password|passwd|pwd|passphrase|secret|api[_ -]?key|access[_ -]?token|bearer)["']?(?:\s*[:=]\s*|\s+is\s*:?\s+|\s+)["']?)([^\s"',;]{8,})`)

// phone finds what may be a telephone number.
var phone = regexp.MustCompile(`(^|[^\w-])(?:\+|00|\(|0)[0-9][0-9 ()./-]{6,18}[0-9]\b`)

// builtin holds the kinds in the order in which they are looked for: what is longer and surer comes first.
var builtin = []rule{
	{"key", regexp.MustCompile(`(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|$)`), nil, "[key]"},
	{"key", regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+`), nil, "[key]"}, // JSON web tokens
	{"key", regexp.MustCompile(`\b(?:sk|pk|rk|gsk|hf|whsec|glpat|xai|npm|occam)[-_][A-Za-z0-9][\w-]{15,}`), all(hasDigit), "[key]"},
	{"key", regexp.MustCompile(`\b(?:gh[opsru]_|github_pat_|xox[abeoprs]-|AIza|ya29\.)[\w-]{12,}`), nil, "[key]"},
	{"key", regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`), nil, "[key]"},
	{"key", secretWord, all(func(found string) bool { return hasDigit(secretWord.FindStringSubmatch(found)[2]) }), "${1}[key]"},
	{"email", regexp.MustCompile(`[\pL\pN._%+-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+`), nil, "[email]"},
	{"iban", regexp.MustCompile(`\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b`), reachIBAN, "[iban]"},
	// In the lengths and groups that cards are written in, of the industries that issue them.
	{"card", regexp.MustCompile(`\b(?:[2-6][0-9]{15}|3[47][0-9]{13}|3[068][0-9]{12}|[46][0-9]{18}|4[0-9]{12}|` +
		`[2-6][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}(?:[ -][0-9]{3})?|3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5})\b`), all(isCard), "[card]"},
	{"phone", phone, reachPhone, "${1}[phone]"},
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
	for i := range r.rules {
		text = r.rules[i].replace(text)
	}
	return text
}

// replace goes on behind what is it, and behind what is not.
func (r *rule) replace(text string) string {
	if r.reach == nil {
		return r.pattern.ReplaceAllLiteralString(text, r.by)
	}
	var done []byte
	for m := r.pattern.FindStringSubmatchIndex(text); m != nil; m = r.pattern.FindStringSubmatchIndex(text) {
		n := r.reach(text[m[0]:], m[1]-m[0])
		if n > 0 {
			done = r.pattern.ExpandString(append(done, text[:m[0]]...), r.by, text, m)
		} else {
			n = -n
			done = append(done, text[:m[0]+n]...)
		}
		text = text[m[0]+n:]
	}
	return string(append(done, text...))
}

// all is the reach of what is what the pattern found, or is not.
func all(is func(found string) bool) func(text string, n int) int {
	return func(text string, n int) int {
		if is(text[:n]) {
			return n
		}
		return -n
	}
}

// reachIBAN is the longest valid number, without the words in capitals behind it. Where there is none, one may begin in the next word.
func reachIBAN(text string, n int) int {
	word := n
	for ; n >= shortestIBAN; n = strings.LastIndexByte(text[:n], ' ') {
		if isIBAN(text[:n]) {
			return n
		}
	}
	if i := strings.IndexByte(text[:word], ' '); i > 0 {
		word = i
	}
	return -word
}

const (
	shortestIBAN = 15
	longestPhone = 32 // with what stands before it
)

// reachPhone is what was found, or what of it stands before a second number: "030 1234567 / 0171 1234567".
func reachPhone(text string, n int) int {
	for i := 1; i < n; i++ {
		if !strings.ContainsRune(" /", rune(text[i])) || !isPhone(text[:i]) {
			continue
		}
		next := phone.FindStringIndex(text[i:min(len(text), i+longestPhone)])
		if next != nil && strings.Trim(text[i:i+next[0]], " /") == "" && isPhone(text[i+next[0]:i+next[1]]) {
			return i
		}
	}
	return all(isPhone)(text, n)
}

func hasDigit(text string) bool { return strings.ContainsAny(text, "0123456789") }

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

package task

import (
	"regexp"
	"slices"
	"strings"
)

// forms are the canonical forms that a span field may declare as x-occam-normalize; "" is none. A JSON Schema's "format": "date" declares
// "date" too.
var forms = []string{"", "upper", "lower", "digits", "date", "amount"}

// Meanings say what writing that can be read in several ways means in the texts of one field: "$" is "USD", "," stands before "thousands",
// "/" between numbers puts the "day first", "märz" is "3". LearnMeanings finds them in labels. Nil knows nothing.
type Meanings map[string]string

// NormalizeSpan writes the text of a span in its canonical form: "upper", "lower", "digits" (digits only), "date" (2026-03-31), "amount"
// (1234.5 EUR), or "" for as it is. A date or an amount that could be read in two ways, or in none, by what is known stays as it is, which
// is no legal value of its field (Field.Check): nothing is guessed.
func NormalizeSpan(form, text string, known Meanings) string {
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
	}
	value := ""
	for _, r := range readings(form, text, func(writing string) string { return known[writing] }) {
		if slices.ContainsFunc(r.needs, func(m meaning) bool { return known[m.writing] != m.sense }) {
			continue
		}
		if value != "" && r.value != value {
			return text
		}
		value = r.value
	}
	if value == "" {
		return text
	}
	return value
}

// isCanonical reports whether text is a date or an amount in the form's own writing; for the other forms every text is.
func isCanonical(form, text string) bool {
	switch {
	case form != "date" && form != "amount":
		return true
	case len(text) < 5 || form == "amount" && text[len(text)-4] != ' ' || form == "date" && text[4] != '-': // the cheap tests first
		return false
	}
	all := readings(form, text, func(string) string { return "" })
	return len(all) == 1 && len(all[0].needs) == 0 && all[0].value == text
}

// SpanIn returns the first stretch of text that can be read as the date or amount that value is in canonical form, or "". A stretch that
// can be read in no other way goes before one that could.
func SpanIn(form, value, text string) string {
	doubtful := ""
	for _, stretch := range stretches(form, text) {
		r, ok := readingAs(form, stretch, value)
		if ok && len(r.needs) == 0 {
			return stretch
		}
		if ok && doubtful == "" {
			doubtful = stretch
		}
	}
	return doubtful
}

// LearnMeanings returns what doubtful writing means in a field of which spans[i], as it stands in its text, is labelled values[i]: what at
// least three labels show, and nineteen in twenty of those that show anything of that writing.
func LearnMeanings(form string, spans, values []string) Meanings {
	const enough, inTwenty = 3, 19
	votes, total := map[meaning]int{}, map[string]int{}
	for i, span := range spans {
		r, _ := readingAs(form, span, values[i])
		for _, m := range append(r.needs, r.shows...) {
			votes[m]++
			total[m.writing]++
		}
	}
	var known Meanings
	for m, n := range votes {
		if n >= enough && 20*n >= inTwenty*total[m.writing] {
			if known == nil {
				known = Meanings{}
			}
			known[m.writing] = m.sense
		}
	}
	return known
}

// A meaning is one sense of doubtful writing.
type meaning struct{ writing, sense string }

// A reading is one way to read a date or an amount.
type reading struct {
	value string    // in canonical form
	needs []meaning // what must be known for the text to be read so
	shows []meaning // what a text that is read so shows of other texts
}

// readings lists the ways to read text. hint says what a sign or a word means, "" where that is not known.
func readings(form, text string, hint func(writing string) string) []reading {
	switch form {
	case "date":
		return dateReadings(fold(text), hint)
	case "amount":
		return amountReadings(fold(text), hint)
	}
	return nil
}

// readingAs returns the way to read text as value, if there is one.
func readingAs(form, text, value string) (reading, bool) {
	hint := func(string) string {
		if form == "date" {
			return monthOf(value)
		}
		return value[strings.LastIndexByte(value, ' ')+1:]
	}
	all := readings(form, text, hint)
	if i := slices.IndexFunc(all, func(r reading) bool { return r.value == value }); i >= 0 {
		return all[i], true
	}
	return reading{}, false
}

// stretches lists the parts of text that look like a date or an amount, the surest kinds of writing first. What is cut out of a longer
// number is none: "1 234,50 €" is not 234.50 EUR.
func stretches(form, text string) (found []string) {
	patterns, before, after := datePatterns, digitsMeet, digitsMeet
	if form == "amount" {
		patterns, before, after = amountPatterns, numberGoesBack, numberGoesOn
	}
	const nearby = 20 // bytes on either side that tell
	around := func(at int) string { return text[max(0, at-nearby):at] + "\x00" + text[at:min(len(text), at+nearby)] }
	for _, pattern := range patterns {
		for _, at := range pattern.FindAllStringIndex(text, -1) {
			if !before.MatchString(around(at[0])) && !after.MatchString(around(at[1])) {
				found = append(found, text[at[0]:at[1]])
			}
		}
	}
	return found
}

// What stands around the border of a stretch, which is \x00, where a number goes on beyond it: digits, or groups of three between spaces.
var (
	digitsMeet     = regexp.MustCompile(`\p{Nd}\x00\p{Nd}`)
	numberGoesBack = regexp.MustCompile(`(?:\p{Nd}[.,'’]?|(?:^|[^\pL\p{Nd}])[.,])\x00\p{Nd}|(?:^|\P{Nd})\p{Nd}{1,3} \x00\p{Nd}{3}(?:\P{Nd}|$)`)
	numberGoesOn   = regexp.MustCompile(`\p{Nd}\x00\p{Nd}|(?:^|\P{Nd})\p{Nd}{1,3}\x00 \p{Nd}{3}(?:\P{Nd}|$)`)
)

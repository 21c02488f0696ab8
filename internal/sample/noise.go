package sample

import (
	"math/rand/v2"
	"strings"
	"unicode"
)

// A hand is how one customer types: case, punctuation, mistakes.
type hand struct {
	typoRate    float64 // mistakes per word
	lower       bool    // no capitals
	shout       bool    // ONLY capitals
	apostrophes bool    // "don't", not "dont"
	endMark     string  // after a sentence that is no question
	join        string  // between sentences
}

func drawHand(r *rand.Rand, chat bool) hand {
	h := hand{apostrophes: true, endMark: ".", join: " "}
	switch at := r.Float64(); {
	case at < 0.45:
	case at < 0.82:
		h.typoRate = 0.03
	default:
		h.typoRate = 0.13
	}
	careless := 0.12
	if chat {
		careless = 0.5
	}
	if r.Float64() < careless {
		h.lower = true
		h.apostrophes = r.IntN(2) == 0
		h.endMark = choose(r, "", "", "..", ".", "!", "...")
		h.join = choose(r, " ", "\n", ", ", " ")
		if h.endMark == "" && h.join == " " {
			h.join = choose(r, ", ", " - ", "  ", "\n")
		}
		if h.join == ", " {
			h.endMark = ""
		}
	} else if r.Float64() < 0.025 {
		h.shout, h.endMark = true, choose(r, "!!!", "!", ".")
	}
	return h
}

// write turns fragments into text as this hand would type it. Words that carry a digit are copied as they stand, so that
// an order ID stays what its label says.
func (h hand) write(r *rand.Rand, fragments []string) string {
	var b strings.Builder
	for i, f := range fragments {
		f = tidy(f)
		if f == "" {
			continue
		}
		if last := f[len(f)-1]; strings.IndexByte("?!.,:\n", last) < 0 {
			f += h.endMark
		}
		if i > 0 && b.Len() > 0 {
			b.WriteString(h.join)
		}
		b.WriteString(f)
	}
	text := strings.TrimRight(b.String(), ", -")
	if h.typoRate > 0 {
		text = h.mistype(r, text)
	}
	return h.setCase(text)
}

// tidy removes the traces of empty choices and sets "an" where "a" cannot stand.
func tidy(s string) string {
	words := strings.Fields(s)
	for i, w := range words[:max(len(words)-1, 0)] {
		if w == "a" && strings.IndexByte("aeio", words[i+1][0]) >= 0 {
			words[i] = "an"
		}
	}
	s = strings.Join(words, " ")
	for _, mark := range []string{"?", ",", ".", "!"} {
		s = strings.ReplaceAll(s, " "+mark, mark)
	}
	return s
}

// setCase applies the hand's capitals and apostrophes, word by word.
func (h hand) setCase(text string) string {
	if !h.apostrophes {
		text = strings.ReplaceAll(text, "'", "")
	}
	words := strings.SplitAfter(text, " ")
	start := true
	for i, w := range words {
		digits := strings.ContainsAny(w, "0123456789@")
		switch {
		case digits: // numbers and addresses are copied and pasted
		case h.shout:
			words[i] = strings.ToUpper(w)
		case h.lower:
			words[i] = strings.ToLower(w)
		default:
			words[i] = capitalise(w, start)
		}
		start = strings.HasSuffix(strings.TrimRight(w, " "), "?") || strings.HasSuffix(w, ". ") || strings.HasSuffix(w, "! ") ||
			strings.HasSuffix(w, "\n")
	}
	return strings.Join(words, "")
}

// capitalise sets the first letter of a sentence, and "i" standing alone.
func capitalise(w string, start bool) string {
	if w == "" {
		return w
	}
	alone := w[0] == 'i' && (len(w) == 1 || !unicode.IsLetter(rune(w[1])))
	if start || alone {
		return strings.ToUpper(w[:1]) + w[1:]
	}
	return w
}

// mistype puts the hand's share of mistakes into words of plain letters.
func (h hand) mistype(r *rand.Rand, text string) string {
	words := strings.Split(text, " ")
	var b strings.Builder
	for i, w := range words {
		plain := isPlain(w)
		if plain && r.Float64() < h.typoRate {
			w = typo(r, w)
		}
		b.WriteString(w)
		if i == len(words)-1 {
			break
		}
		if plain && isPlain(words[i+1]) && r.Float64() < h.typoRate/6 {
			continue // the space bar was missed
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// isPlain reports whether w has three letters or more and nothing else.
func isPlain(w string) bool {
	for i := 0; i < len(w); i++ {
		if c := w[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return len(w) >= 3
}

// neighbours are the keys beside each letter on a QWERTY keyboard.
var neighbours = [26]string{"qsz", "vgn", "xvd", "sfe", "wrd", "dgr", "fht", "gjy", "uok", "hku", "jli", "ko", "nk", "bmh", "ipl",
	"ol", "wa", "etf", "adw", "ryg", "yij", "cbg", "qes", "zcs", "tuh", "xas"}

// typo makes one mistake in a word of plain letters: a neighbouring key, a dropped, doubled or swapped letter.
func typo(r *rand.Rand, w string) string {
	at := 1 + r.IntN(len(w)-1) // the first letter is rarely wrong
	switch r.IntN(4) {
	case 0:
		near := neighbours[(w[at]|0x20)-'a']
		return w[:at] + string(near[r.IntN(len(near))]) + w[at+1:]
	case 1:
		return w[:at] + w[at+1:]
	case 2:
		return w[:at] + w[at:at+1] + w[at:]
	default:
		if at == len(w)-1 {
			at--
		}
		return w[:at] + w[at+1:at+2] + w[at:at+1] + w[at+2:]
	}
}

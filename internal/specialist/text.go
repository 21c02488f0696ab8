package specialist

import (
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// Texts longer than maxText bytes are read at both ends only, so that one prediction has a bounded cost.
const (
	maxText = 24 << 10
	maxHead = 16 << 10
)

const (
	edgeOpen  = '\x02' // stands before every token in extractor.low: no text can hold it, because control runes are dropped
	edgeClose = '\x03'
)

// A token is one word of a text: bytes [start, end) of extractor.low, without its edge marks, and [from, to) of the text.
type token struct {
	start, end uint32
	from, to   uint32
	hash       uint64
	feature    uint32 // the word's own, an index
	again      bool   // the same word stands before it
}

// window returns the parts of a text that are read: all of a short text, the head and the tail of a long one.
func window(text string) (head, tail string) {
	if len(text) <= maxText {
		return text, ""
	}
	cut := maxHead
	for cut > maxHead-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	from := len(text) - (maxText - maxHead)
	for from < len(text) && !utf8.RuneStart(text[from]) {
		from++
	}
	return text[:cut], text[from:]
}

// tokenize fills x.low and x.tokens: lower-cased runs of letters, digits, marks and underscores; every other visible rune
// alone. Control and format runes (zero-width joiners, direction marks) are dropped; no script gets a path of its own.
func (x *extractor) tokenize(text string) {
	x.low, x.tokens = x.low[:0], x.tokens[:0]
	head, tail := window(text)
	x.appendTokens(head, 0)
	x.appendTokens(tail, len(text)-len(tail))
}

// appendTokens adds the tokens of a part of the text, which begins at base.
func (x *extractor) appendTokens(text string, base int) {
	open := false
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			at := base + i
			i++
			switch class := asciiClass[c]; class {
			case classWord:
				if !open {
					x.openToken(at)
					open = true
				}
				x.low = append(x.low, lowerASCII(c))
				continue
			case classSymbol:
				x.closeToken(&open, at)
				x.openToken(at)
				x.low = append(x.low, c)
				open = true
				at++
			}
			x.closeToken(&open, at)
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		at := base + i
		i += size
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r):
			if !open {
				x.openToken(at)
				open = true
			}
			x.low = utf8.AppendRune(x.low, unicode.ToLower(r))
			continue
		case unicode.Is(unicode.Cf, r): // transparent: it joins or separates nothing
			continue
		case !unicode.IsSpace(r) && !unicode.IsControl(r):
			x.closeToken(&open, at)
			x.openToken(at)
			x.low = utf8.AppendRune(x.low, r)
			open = true
			at += size
		}
		x.closeToken(&open, at)
	}
	x.closeToken(&open, base+len(text))
}

func (x *extractor) openToken(from int) {
	x.low = append(x.low, edgeOpen)
	x.tokens = append(x.tokens, token{start: uint32(len(x.low)), from: uint32(from)})
}

// closeToken ends the open token, if there is one, and hashes it.
func (x *extractor) closeToken(open *bool, to int) {
	if !*open {
		return
	}
	*open = false
	t := &x.tokens[len(x.tokens)-1]
	t.end, t.to = uint32(len(x.low)), uint32(to)
	t.hash = hashBytes(seedWord, x.low[t.start:t.end])
	x.low = append(x.low, edgeClose)
}

const (
	classSpace = iota // the zero class: spaces and control characters
	classWord
	classSymbol
)

var asciiClass = func() (class [utf8.RuneSelf]uint8) {
	for c := range class {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			class[c] = classWord
		case c > ' ' && c < 0x7f:
			class[c] = classSymbol
		}
	}
	return class
}()

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Hashing is 64-bit FNV-1a, finished by MurmurHash3's mixer because FNV's high bits, which pick the row, mix poorly.
const (
	fnvPrime = 1099511628211
	seedWord = 14695981039346656037
	seedChar = seedWord ^ 0x9e3779b97f4a7c15
	seedPair = 0xc2b2ae3d27d4eb4f
	seedNext = 0x165667b19e3779f9
)

func hashBytes(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// nextPow2 returns the smallest power of two that is at least n.
func nextPow2(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

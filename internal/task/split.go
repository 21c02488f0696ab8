package task

import (
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// A Split is labelled examples in three disjoint parts, near-duplicates on one side.
type Split struct {
	Train, Calibration, Test []Example
}

// SplitExamples deals examples into train, calibration and test by a hash of their normalised text and the seed, so that
// near-duplicates (same words, other digits or punctuation) never stand on two sides and an example's side never changes
// when others are added. calibration and test are shares of the whole, in [0, 1).
func SplitExamples(examples []Example, seed uint64, calibration, test float64) Split {
	var s Split
	for _, e := range examples {
		switch u := Draw(seed, e.Text); {
		case u < test:
			s.Test = append(s.Test, e)
		case u < test+calibration:
			s.Calibration = append(s.Calibration, e)
		default:
			s.Train = append(s.Train, e)
		}
	}
	return s
}

// Draw is where SplitExamples sees a text, in [0, 1): below the test share it tests, then it calibrates, then it trains.
func Draw(seed uint64, text string) float64 { return unitHash(seed, NearKey(text)) }

// Identity is a hash of all that Deduplicate looks at.
func (e *Example) Identity() uint64 {
	h := fnv.New64a()
	h.Write([]byte(e.identity()))
	return h.Sum64()
}

func (e *Example) identity() string {
	return strings.Join(strings.Fields(e.Text), " ") + "\x00" + e.Labels.key()
}

// Deduplicate drops examples whose text and labels repeat an earlier one's; it returns the rest and how many it dropped.
func Deduplicate(examples []Example) ([]Example, int) {
	seen := make(map[string]bool, len(examples))
	kept := make([]Example, 0, len(examples))
	for _, e := range examples {
		key := e.identity()
		if !seen[key] {
			seen[key] = true
			kept = append(kept, e)
		}
	}
	return kept, len(examples) - len(kept)
}

// key is the same for equal outputs.
func (o Output) key() string {
	names := make(map[string]int, len(o))
	for name := range o {
		names[name] = 1
	}
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b = append(b, name...)
		b = append(b, '=')
		b = o[name].AppendJSON(b)
		b = append(b, ';')
	}
	return string(b)
}

// NearKey maps texts that differ only in case, digits, spaces and punctuation to one string.
func NearKey(text string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(text) {
		switch {
		case unicode.IsDigit(r):
			r = '0'
		case !unicode.IsLetter(r) && !unicode.IsMark(r):
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte(' ')
		}
		gap = false
		b.WriteRune(r)
	}
	return b.String()
}

// unitHash maps a seed and a text to [0, 1) uniformly.
func unitHash(seed uint64, text string) float64 {
	h := fnv.New64a()
	var s [8]byte
	for i := range s {
		s[i] = byte(seed >> (8 * i))
	}
	h.Write(s[:])
	h.Write([]byte(text))
	x := h.Sum64()
	x ^= x >> 33 // FNV's high bits mix poorly; finish as MurmurHash3 does
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

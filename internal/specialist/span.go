package specialist

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"occam/internal/task"
)

const (
	spanBits       = 15   // log2 of the ranker's weights
	maxCandidates  = 1024 // of one text: a bound on time
	maxSpanAtoms   = 12
	spanEpochs     = 20
	spanRate       = 0.1
	spanDecay      = 1e-4
	contextLeft    = 8
	contextRight   = 4
	maxInnerMarks  = 16
	spanNullBucket = 8
)

// spanRules say what a field's spans may look like. They are learned from the labels, and bound the candidates.
type spanRules struct {
	Inner     string        `json:"inner"`              // runes that may stand between letters and digits inside a span, space included
	Before    string        `json:"before"`             // runes that may open a span ("$", "#", "+")
	After     string        `json:"after"`              // runes that may close it ("%", "€")
	Atoms     int           `json:"atoms"`              // most runs of letters and digits in a span
	MinRunes  int           `json:"min_runes"`          // shortest and longest label, with some room
	MaxRunes  int           `json:"max_runes"`          //
	NeedDigit bool          `json:"need_digit"`         // every label has a digit
	SplitRuns bool          `json:"split_runs"`         // a span may start or end between a letter and a digit, or inside text without spaces
	Meanings  task.Meanings `json:"meanings,omitempty"` // of writing that can be read in several ways
}

// A spanRanker extracts one field: it scores every candidate, and "there is none", by a linear model over hashed features
// of the candidate and its surroundings; the softmax over them is its probability.
type spanRanker struct {
	field   task.Field
	rules   spanRules
	weights []float32 // 1<<spanBits
}

// A spanAtom is a run of letters and digits in a text.
type spanAtom struct {
	start, end int32
	hash       uint64 // of its lower-cased letters; digits hash by number only
	digits     bool   // holds a digit
}

// A candidate is text[start:end], the atoms [first, last].
type candidate struct {
	start, end  int32
	first, last int32
}

// A spanScanner finds candidates and their features. It holds the buffers that it reuses and serves one goroutine.
type spanScanner struct {
	atoms      []spanAtom
	candidates []candidate
	shapes     []uint64
	scores     []float64
	features   []uint32
}

// scanAtoms cuts a text into atoms; split also cuts between letters and digits, and text without spaces where its script changes and at
// every Han character.
func (x *spanScanner) scanAtoms(text string, split bool) {
	x.atoms = x.atoms[:0]
	head, tail := window(text)
	x.scanPart(head, 0, split)
	x.scanPart(tail, len(text)-len(tail), split)
}

func (x *spanScanner) scanPart(text string, base int, split bool) {
	var a spanAtom
	open, last := false, uint8(0)
	for i, r := range text {
		i += base
		var class uint8
		size := 1
		if r < utf8.RuneSelf {
			class, r = asciiAtoms[r].class, rune(asciiAtoms[r].folded)
		} else {
			class, size = runeClass(r), utf8.RuneLen(r)
			if split && class == runeLetter && r >= firstKana {
				class = spacelessClass(r)
			}
			if r = unicode.ToLower(r); class == runeDigit {
				r = '0'
			}
		}
		if class == 0 {
			if open {
				x.atoms = append(x.atoms, a)
				open = false
			}
			continue
		}
		if !open || split && (class != last || class == runeHan) && class != runeMark && last != runeMark {
			if open {
				x.atoms = append(x.atoms, a)
			}
			a = spanAtom{start: int32(i), hash: seedWord}
			open = true
		}
		last = class
		a.end = int32(i + size)
		a.digits = a.digits || class == runeDigit
		a.hash = (a.hash ^ uint64(r)) * fnvPrime
	}
	if open {
		x.atoms = append(x.atoms, a)
	}
}

// asciiAtoms says of every ASCII character what runeClass says, and what it is hashed as.
var asciiAtoms = func() (atoms [utf8.RuneSelf]struct{ class, folded uint8 }) {
	for r := range rune(utf8.RuneSelf) {
		atoms[r].class, atoms[r].folded = runeClass(r), uint8(unicode.ToLower(r))
		if atoms[r].class == runeDigit {
			atoms[r].folded = '0'
		}
	}
	return atoms
}()

const (
	runeLetter = 1 + iota
	runeDigit
	runeMark
	runeHan // these three where texts are cut finer only
	runeHiragana
	runeKatakana
)

const firstKana = 0x3041 // no letter below it is of a class of its own

// spacelessClass tells the scripts of text without spaces apart.
func spacelessClass(r rune) uint8 {
	switch {
	case unicode.Is(unicode.Han, r):
		return runeHan
	case unicode.Is(unicode.Hiragana, r):
		return runeHiragana
	case unicode.Is(unicode.Katakana, r):
		return runeKatakana
	}
	return runeLetter
}

func runeClass(r rune) uint8 {
	switch {
	case r >= '0' && r <= '9':
		return runeDigit
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return runeLetter
	case r < utf8.RuneSelf:
		return 0
	case r == utf8.RuneError:
		return 0
	case unicode.IsDigit(r):
		return runeDigit
	case unicode.IsLetter(r):
		return runeLetter
	case unicode.IsMark(r):
		return runeMark
	}
	return 0
}

// scan fills x.atoms and x.candidates with what may be a span of the field.
func (r *spanRules) scan(x *spanScanner, text string) {
	x.scanAtoms(text, r.SplitRuns)
	x.candidates = x.candidates[:0]
	for first := range x.atoms {
		digit := false
		for last := first; last < len(x.atoms) && last < first+r.Atoms; last++ {
			if last > first && !only(text[x.atoms[last-1].end:x.atoms[last].start], r.Inner) {
				break
			}
			digit = digit || x.atoms[last].digits
			if r.NeedDigit && !digit {
				continue
			}
			x.addCandidate(r, text, candidate{x.atoms[first].start, x.atoms[last].end, int32(first), int32(last)})
		}
		if len(x.candidates) >= maxCandidates {
			return
		}
	}
}

// addCandidate adds c where its length is legal, and its variants with an opening or a closing mark.
func (x *spanScanner) addCandidate(r *spanRules, text string, c candidate) {
	wide := candidate{c.start - int32(opening(text[:c.start], r.Before)), c.end + int32(closing(text[c.end:], r.After)), c.first, c.last}
	for _, v := range [...]candidate{c, {wide.start, c.end, c.first, c.last}, {c.start, wide.end, c.first, c.last}, wide} {
		if n := len(x.candidates); n > 0 && x.candidates[n-1] == v || v != c && v.start == c.start && v.end == c.end {
			continue
		}
		if runes := utf8.RuneCountInString(text[v.start:v.end]); runes >= r.MinRunes && runes <= r.MaxRunes {
			x.candidates = append(x.candidates, v)
		}
	}
}

// opening returns the length of the mark at the end of s that may open a span, with a space between them where marks holds one; or 0.
func opening(s, marks string) int {
	r, size := utf8.DecodeLastRuneInString(s)
	space := 0
	if unicode.IsSpace(r) && strings.ContainsRune(marks, r) {
		space = size
		r, size = utf8.DecodeLastRuneInString(s[:len(s)-space])
	}
	if size == 0 || unicode.IsSpace(r) || !strings.ContainsRune(marks, r) {
		return 0
	}
	return space + size
}

// closing is opening for the mark at the beginning of s that may close a span.
func closing(s, marks string) int {
	r, size := utf8.DecodeRuneInString(s)
	space := 0
	if unicode.IsSpace(r) && strings.ContainsRune(marks, r) {
		space = size
		r, size = utf8.DecodeRuneInString(s[space:])
	}
	if size == 0 || unicode.IsSpace(r) || !strings.ContainsRune(marks, r) {
		return 0
	}
	return space + size
}

// only reports whether s is not long and holds runes of set only.
func only(s, set string) bool {
	if len(s) > maxInnerMarks {
		return false
	}
	for _, r := range s {
		if !strings.ContainsRune(set, r) {
			return false
		}
	}
	return true
}

// gluedShare: where more than one label in so many has no edge of its own, texts are cut finer.
const gluedShare = 20

// isGlued reports whether a span begins or ends inside a run of letters and digits of its text, as it does in scripts without spaces.
func isGlued(text, span string) bool {
	at := strings.Index(text, span)
	if at < 0 {
		return false
	}
	before, _ := utf8.DecodeLastRuneInString(text[:at])
	first, _ := utf8.DecodeRuneInString(span)
	last, _ := utf8.DecodeLastRuneInString(span)
	after, _ := utf8.DecodeRuneInString(text[at+len(span):])
	return runeClass(before) != 0 && runeClass(first) != 0 || runeClass(last) != 0 && runeClass(after) != 0
}

// learnRules works out what a field's spans look like from the labels' texts; split says whether texts are cut finer than into runs of
// letters and digits.
func learnRules(labels []string, split bool) spanRules {
	r := spanRules{NeedDigit: len(labels) > 0, MinRunes: math.MaxInt, SplitRuns: split}
	inner, before, after := map[rune]int{}, map[rune]int{}, map[rune]int{}
	var x spanScanner
	for _, label := range labels {
		x.scanAtoms(label, split)
		if len(x.atoms) == 0 {
			continue
		}
		runes := utf8.RuneCountInString(label)
		r.MinRunes, r.MaxRunes = min(r.MinRunes, runes), max(r.MaxRunes, runes)
		r.Atoms = max(r.Atoms, min(len(x.atoms), maxSpanAtoms))
		digit := false
		for i, a := range x.atoms {
			digit = digit || a.digits
			if i > 0 {
				countRunes(inner, label[x.atoms[i-1].end:a.start])
			}
		}
		r.NeedDigit = r.NeedDigit && digit
		countRunes(before, label[:x.atoms[0].start])
		countRunes(after, label[x.atoms[len(x.atoms)-1].end:])
	}
	few := len(labels) / 200 // a mark that fewer labels have is an accident
	r.Inner, r.Before, r.After = runesOver(inner, few), runesOver(before, few), runesOver(after, few)
	r.MinRunes, r.MaxRunes = max(1, r.MinRunes-r.MinRunes/4), r.MaxRunes+r.MaxRunes/4
	return r
}

// surface returns the first stretch of text that a normalised label was written as, or "".
func surface(form, label, text string) string {
	if label == "" || strings.Contains(text, label) {
		return label
	}
	head, tail := window(text)
	for _, part := range [...]string{head, tail} {
		if stretch := task.SpanIn(form, label, part); stretch != "" {
			return stretch
		}
		for at := range part {
			rest := part[at:]
			switch {
			case form == "digits":
				if n := digitsOf(rest, label); n > 0 {
					return rest[:n]
				}
			case (form == "upper" || form == "lower") && len(rest) >= len(label) && strings.EqualFold(rest[:len(label)], label):
				return rest[:len(label)]
			}
		}
	}
	return ""
}

// digitsOf returns the length of the prefix of s that begins with a digit and spells the digits of label between marks, or 0.
func digitsOf(s, label string) int {
	next := 0
	for i, r := range s {
		switch {
		case r >= '0' && r <= '9':
			if s[i] != label[next] {
				return 0
			}
			if next++; next == len(label) {
				return i + 1
			}
		case i == 0, runeClass(r) == runeLetter:
			return 0
		}
	}
	return 0
}

func countRunes(counts map[rune]int, s string) {
	for _, r := range s {
		counts[r]++
	}
}

func runesOver(counts map[rune]int, few int) string {
	var kept []rune
	for r, n := range counts {
		if n > few {
			kept = append(kept, r)
		}
	}
	slices.Sort(kept)
	return string(kept)
}

// featuresOf lists the hashed features of candidate c in x.features.
func (x *spanScanner) featuresOf(text string, c int) {
	x.features = x.features[:0]
	cand := x.candidates[c]
	span := text[cand.start:cand.end]
	shape, runs, digits := spanShape(span)
	same := 0
	for i := range x.candidates {
		if x.shapes[i] == shape {
			same++
		}
	}
	x.feature(1, shape)
	x.feature(2, runs)
	x.feature(3, uint64(utf8.RuneCountInString(span)))
	x.feature(4, uint64(digits))
	x.feature(5, uint64(min(same, 3)))
	x.feature(6, uint64(min(c, 5)))
	x.feature(7, uint64(min(len(x.candidates), 6)))
	x.feature(8, runs*31+uint64(min(same, 3)))
	x.neighbours(text, cand)
	x.line(text, cand)
}

func (x *spanScanner) feature(kind, value uint64) {
	x.features = append(x.features, uint32(mix(kind*seedNext^value)>>(64-spanBits)))
}

// neighbours adds the words and marks around a candidate.
func (x *spanScanner) neighbours(text string, c candidate) {
	previous := uint64(0)
	for k := range int32(contextLeft) {
		i := c.first - 1 - k
		if i < 0 {
			x.feature(10, uint64(k))
			break
		}
		h := x.atoms[i].hash
		x.feature(11, h*uint64(2*k+3))
		if k < 4 {
			x.feature(12, h)
		}
		if k > 0 && k < 4 {
			x.feature(13, (h*seedPair+previous)*uint64(2*k+3))
		}
		previous = h
	}
	for k := range int32(contextRight) {
		i := c.last + 1 + k
		if int(i) >= len(x.atoms) {
			x.feature(14, uint64(k))
			break
		}
		x.feature(15, x.atoms[i].hash*uint64(2*k+3))
	}
	x.feature(16, hashString(gap(text, c.start, true)))
	x.feature(17, hashString(gap(text, c.end, false)))
}

// gap returns the marks between a candidate's edge and the nearest letter or digit, at most four bytes of them.
func gap(text string, at int32, left bool) string {
	const most = 4
	if left {
		from := at
		for from > 0 && at-from < most && runeClass(rune(text[from-1])) == 0 {
			from--
		}
		return text[from:at]
	}
	to := at
	for int(to) < len(text) && to-at < most && runeClass(rune(text[to])) == 0 {
		to++
	}
	return text[at:to]
}

// line adds the words that stand on the candidate's line, and whether it stands there alone.
func (x *spanScanner) line(text string, c candidate) {
	alone := true
	for i, end := c.first-1, c.start; i >= 0 && c.first-i <= 16 && !strings.ContainsRune(text[x.atoms[i].end:end], '\n'); i-- {
		x.feature(20, x.atoms[i].hash)
		alone, end = false, x.atoms[i].start // no atom holds a line's end
	}
	for i, start := c.last+1, c.end; int(i) < len(x.atoms) && i-c.last <= 16 && !strings.ContainsRune(text[start:x.atoms[i].start], '\n'); i++ {
		x.feature(21, x.atoms[i].hash)
		alone, start = false, x.atoms[i].end
	}
	if alone {
		x.feature(22, 0)
	}
}

// nullFeatures lists the features of "there is none".
func (x *spanScanner) nullFeatures() {
	x.features = x.features[:0]
	x.feature(30, 0)
	x.feature(31, uint64(min(len(x.candidates), spanNullBucket)))
}

// spanShape hashes the classes of a span's runes, with and without their repeats, and counts its digits.
func spanShape(span string) (shape, runs uint64, digits int) {
	shape, runs = seedWord, seedChar
	var last rune
	for _, r := range span {
		class := r
		switch runeClass(r) {
		case runeDigit:
			class = '0'
			digits++
		case runeLetter:
			class = 'a'
			if unicode.IsUpper(r) {
				class = 'A'
			}
		}
		shape = (shape ^ uint64(class)) * fnvPrime
		if class != last {
			runs = (runs ^ uint64(class)) * fnvPrime
		}
		last = class
	}
	return shape, runs, digits
}

func hashString(s string) uint64 {
	h := uint64(seedWord)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// A spanGuess is what a ranker makes of one text.
type spanGuess struct {
	text    string  // as it stands in the input; "" for null
	logOdds float64 // of the guess being right, before calibration
}

// extract guesses the field's value. It allocates nothing once x's buffers have grown.
func (s *spanRanker) extract(x *spanScanner, text string) spanGuess {
	s.score(x, text)
	top := x.scores[0]
	for _, score := range x.scores {
		top = max(top, score)
	}
	total := 0.0
	for _, score := range x.scores {
		total += math.Exp(score - top)
	}
	best, bestMass := -1, math.Exp(x.scores[0]-top)
	if !s.field.Nullable {
		best, bestMass = -1, 0
	}
	for i, c := range x.candidates {
		mass := 0.0
		for j, other := range x.candidates {
			if sameText(text, c, other) {
				mass += math.Exp(x.scores[1+j] - top)
			}
		}
		if mass > bestMass {
			best, bestMass = i, mass
		}
	}
	p := min(max(bestMass/total, 1e-9), 1-1e-9)
	guess := spanGuess{logOdds: math.Log(p / (1 - p))}
	if best >= 0 {
		guess.text = text[x.candidates[best].start:x.candidates[best].end]
	}
	return guess
}

func sameText(text string, a, b candidate) bool {
	return a.end-a.start == b.end-b.start && text[a.start:a.end] == text[b.start:b.end]
}

// score fills x.scores: null first, then every candidate.
func (s *spanRanker) score(x *spanScanner, text string) {
	s.prepare(x, text)
	x.scores = x.scores[:0]
	x.nullFeatures()
	x.scores = append(x.scores, s.sum(x.features))
	for i := range x.candidates {
		x.featuresOf(text, i)
		x.scores = append(x.scores, s.sum(x.features))
	}
}

// prepare finds the candidates and their shapes.
func (s *spanRanker) prepare(x *spanScanner, text string) {
	s.rules.scan(x, text)
	x.shapes = x.shapes[:0]
	for _, c := range x.candidates {
		shape, _, _ := spanShape(text[c.start:c.end])
		x.shapes = append(x.shapes, shape)
	}
}

func (s *spanRanker) sum(features []uint32) (sum float64) {
	for _, f := range features {
		sum += float64(s.weights[f])
	}
	return sum
}

// spanExample is one labelled text, ready to learn from: the features of null and of every candidate, and which are right.
type spanExample struct {
	features [][]uint32
	right    []bool
}

// prepareSpans finds every labelled text's candidates and their features. known[i] is false where example i is unlabelled.
// missed lists the examples whose label is no candidate, most often because it does not stand in the text.
func prepareSpans(f task.Field, rules spanRules, texts []string, truth []task.Value, known []bool) (ready []spanExample, missed []int) {
	ranker := spanRanker{field: f, rules: rules}
	var x spanScanner
	ready = make([]spanExample, len(texts))
	for i, text := range texts {
		if !known[i] {
			continue
		}
		ranker.prepare(&x, text)
		e := spanExample{right: make([]bool, 1+len(x.candidates)), features: make([][]uint32, 1+len(x.candidates))}
		x.nullFeatures()
		e.features[0] = append([]uint32(nil), x.features...)
		e.right[0] = truth[i].IsNull()
		found := e.right[0]
		for j, c := range x.candidates {
			x.featuresOf(text, j)
			e.features[1+j] = append([]uint32(nil), x.features...)
			e.right[1+j] = task.NormalizeSpan(f.Normalize, text[c.start:c.end], rules.Meanings) == truth[i].Text() && !truth[i].IsNull()
			found = found || e.right[1+j]
		}
		if !found {
			missed = append(missed, i)
			continue
		}
		ready[i] = e
	}
	return ready, missed
}

// learnRanker fits the ranker's weights by Adagrad on the listwise loss -ln P(right candidates).
func learnRanker(ready []spanExample, rows []int32, rng *rand.Rand) []float32 {
	weights, squares := make([]float32, 1<<spanBits), make([]float32, 1<<spanBits)
	order := append([]int32(nil), rows...)
	var p, target []float64
	for epoch := range spanEpochs {
		rate := spanRate * (1 - float64(epoch)/spanEpochs)
		rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, i := range order {
			e := &ready[i]
			if len(e.features) == 0 {
				continue
			}
			p, target = softTargets(e, weights, p[:0], target[:0])
			for j, features := range e.features {
				g := p[j] - target[j]
				if math.Abs(g) < 1e-6 {
					continue
				}
				for _, f := range features {
					step := float32(g) + spanDecay*weights[f]
					squares[f] += float32(step * step)
					weights[f] -= float32(rate) * step / float32(math.Sqrt(float64(squares[f]))+1e-6)
				}
			}
		}
	}
	return weights
}

// softTargets returns the model's probabilities and the same restricted to the right candidates: the loss's gradient is
// their difference.
func softTargets(e *spanExample, weights []float32, p, target []float64) ([]float64, []float64) {
	top := math.Inf(-1)
	for _, features := range e.features {
		sum := 0.0
		for _, f := range features {
			sum += float64(weights[f])
		}
		p = append(p, sum)
		top = max(top, sum)
	}
	total, rightMass := 0.0, 0.0
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		total += p[j]
		if e.right[j] {
			rightMass += p[j]
		}
	}
	for j := range p {
		t := 0.0
		if e.right[j] {
			t = p[j] / max(rightMass, math.SmallestNonzeroFloat64)
		}
		p[j] /= total
		target = append(target, t)
	}
	return p, target
}

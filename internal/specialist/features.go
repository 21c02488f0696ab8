package specialist

import (
	"math"
	"slices"
	"unicode/utf8"
)

// A text becomes three views, each normalised to length one on its own and then summed.
const (
	viewWord = iota // words and pairs of neighbours, with the text's edges
	viewChar        // character n-grams of each word, with the word's edges
	viewPair        // pairs of different word stems, however far apart
	views
)

const (
	maxGram     = 5
	stemRunes   = 3  // of a word that count in a pair
	maxPairWord = 30 // distinct stems of a text that are paired: a bound on a cost that grows with the square
)

// A feature is one property of a text, named by a 64-bit hash.
type feature struct {
	hash  uint64
	count uint32
}

// A mention is a feature where it stands in a text, or at several places at once.
type mention struct {
	hash    uint64
	count   uint32
	feature uint32 // its index, once merge has found it
}

// An extractor turns texts into features. It holds the buffers that it reuses and serves one goroutine.
type extractor struct {
	low      []byte
	tokens   []token
	mentions []mention // of the view at hand
	features []feature // one view behind the other
	start    [views]int
	slots    []uint32            // open addressing: 1 + index into features, 0 for free
	distinct [maxPairWord]uint64 // stems, and the first word of each
	word     [maxPairWord]int32
	found    []sighting // of the view at hand
	vector   []entry
	tracing  bool
	owners   []owner // while tracing: which words make which feature
}

// An owner says that a feature came from the words a and b of a text, once; -1 is the text's edge.
type owner struct {
	feature uint32
	a, b    int32
}

// An entry is one non-zero of a text's vector.
type entry struct {
	row   uint32
	value float32
}

// extract fills x.features with the distinct features of a text, in the order in which they first stand in it, view by view.
func (x *extractor) extract(text string) {
	x.tokenize(text)
	x.features, x.owners = x.features[:0], x.owners[:0]
	x.words()
	x.grams()
	x.pairs()
}

// of returns the features of one view.
func (x *extractor) of(view int) []feature {
	if view == views-1 {
		return x.features[x.start[view]:]
	}
	return x.features[x.start[view]:x.start[view+1]]
}

// trace notes, while tracing, that the words a and b make each of the last n mentions.
func (x *extractor) trace(n, a, b int) {
	for ; x.tracing && n > 0; n-- {
		x.owners = append(x.owners, owner{a: int32(a), b: int32(b)})
	}
}

// merge makes features of the mentions of a view. Three quarters of the slots and more stay free, so that few features meet in one.
func (x *extractor) merge(view int) {
	x.start[view] = len(x.features)
	size := nextPow2(4 * len(x.mentions))
	if len(x.slots) < size {
		x.slots = make([]uint32, size)
	}
	slots, mask := x.slots[:size], uint64(size-1)
	clear(slots)
	mentions, n := x.mentions, uint32(len(x.features))
	features := slices.Grow(x.features, len(mentions))
	features = features[:cap(features)]
	for k := range mentions {
		m := &mentions[k]
		i := m.hash & mask
		s := slots[i]
		for s != 0 && features[s-1].hash != m.hash {
			i = (i + 1) & mask
			s = slots[i]
		}
		if s == 0 {
			features[n] = feature{m.hash, m.count}
			n++
			slots[i], s = n, n
		} else {
			features[s-1].count += m.count
		}
		m.feature = s - 1
	}
	x.features = features[:n]
	for k := 0; x.tracing && k < len(mentions); k++ {
		x.owners[len(x.owners)-len(mentions)+k].feature = mentions[k].feature
	}
}

// words adds the words and the pairs of neighbours, and finds out which words the text repeats.
func (x *extractor) words() {
	mentions := x.mentions[:0]
	previous := uint64(edgeOpen)
	for i := range x.tokens {
		h := x.tokens[i].hash
		mentions = append(mentions, mention{hash: mix(h), count: 1}, mention{hash: mix(previous*seedNext + h), count: 1})
		x.trace(1, i, i)
		x.trace(1, i-1, i)
		previous = h
	}
	if n := len(x.tokens); n > 0 {
		mentions = append(mentions, mention{hash: mix(previous*seedNext + edgeClose), count: 1})
		x.trace(1, n-1, -1)
	}
	x.mentions = mentions
	x.merge(viewWord)
	made := uint32(0) // features, up to the word at hand
	for i := range x.tokens {
		t := &x.tokens[i]
		t.feature = mentions[2*i].feature
		t.again = t.feature < made
		made = max(made, t.feature+1, mentions[2*i+1].feature+1)
	}
}

// grams adds the n-grams of every word. Those of a word that the text repeats are made once, and count as often as it stands there;
// while tracing, every time.
func (x *extractor) grams() {
	x.mentions = x.mentions[:0]
	for i := range x.tokens {
		t := &x.tokens[i]
		times := x.features[t.feature].count
		if x.tracing {
			times = 1
		} else if t.again {
			continue
		}
		before := len(x.mentions)
		x.mentions = appendGrams(x.mentions, x.low[t.start-1:t.end+1], times)
		x.trace(len(x.mentions)-before, i, i)
	}
	x.merge(viewChar)
}

// appendGrams appends the n-grams of a word with its edges, which stand in the text that many times.
func appendGrams(mentions []mention, word []byte, times uint32) []mention {
	for len(word) > 0 {
		if len(word) >= maxGram && word[0]|word[1]|word[2]|word[3]|word[4] < utf8.RuneSelf { // the same as below, quicker
			h2 := ((seedChar^uint64(word[0]))*fnvPrime ^ uint64(word[1])) * fnvPrime
			h3 := (h2 ^ uint64(word[2])) * fnvPrime
			h4 := (h3 ^ uint64(word[3])) * fnvPrime
			h5 := (h4 ^ uint64(word[4])) * fnvPrime
			mentions = append(mentions, mention{hash: mix(h2), count: times}, mention{hash: mix(h3), count: times},
				mention{hash: mix(h4), count: times}, mention{hash: mix(h5), count: times})
			word = word[1:]
			continue
		}
		h, runes, first := uint64(seedChar), 0, len(word)
		for at := 0; at < len(word) && runes < maxGram; {
			h = (h ^ uint64(word[at])) * fnvPrime
			at++
			if at < len(word) && !utf8.RuneStart(word[at]) {
				continue
			}
			if runes++; runes == 1 {
				first = at
			} else {
				mentions = append(mentions, mention{hash: mix(h), count: times})
			}
		}
		word = word[first:]
	}
	return mentions
}

// pairs adds every unordered pair of the first maxPairWord different stems. As the stems differ, so do the pairs: there is nothing to
// merge.
func (x *extractor) pairs() {
	x.start[viewPair] = len(x.features)
	n := 0
next:
	for i := range x.tokens {
		h := x.stem(&x.tokens[i])
		for _, seen := range x.distinct[:n] {
			if seen == h {
				continue next
			}
		}
		from := len(x.features)
		x.features = slices.Grow(x.features, n)[:from+n]
		made := x.features[from:]
		for k, seen := range x.distinct[:len(made)] {
			made[k] = feature{mix(min(seen, h)*seedPair + max(seen, h)), 1}
		}
		for k := 0; x.tracing && k < n; k++ {
			x.owners = append(x.owners, owner{uint32(from + k), x.word[k], int32(i)})
		}
		x.distinct[n], x.word[n] = h, int32(i)
		if n++; n == maxPairWord {
			return
		}
	}
}

// stem hashes the first stemRunes runes of a word.
func (x *extractor) stem(t *token) uint64 {
	end := t.start
	for runes := 0; end < t.end; end++ {
		if utf8.RuneStart(x.low[end]) {
			if runes++; runes > stemRunes {
				break
			}
		}
	}
	return hashBytes(seedWord, x.low[t.start:end])
}

// A vocabulary says which features of the training texts there were and how common: all that turns features into a
// vector. Its slices may lie in a mapped file and are never written after training.
type vocabulary struct {
	bits  uint     // log2 of the number of rows
	idf   []uint8  // by row: (sqrt(idf)-1)*idfSteps
	seen  []uint64 // blocked Bloom filter of the features seen in training; pairs need two texts
	words uint64   // len(seen)-1, a mask
}

const idfSteps = 64

// A sighting is what a vocabulary knows of one feature.
type sighting struct {
	row   uint32
	known uint32 // 1 where training saw it
}

func (v *vocabulary) row(hash uint64) uint32 { return uint32(hash >> (64 - v.bits)) }

func (v *vocabulary) has(hash uint64) bool {
	want := bloomBits(hash)
	return v.seen[hash&v.words]&want == want
}

// bloomBits picks four bits of a 64-bit block. Its hash bits are neither the block's (low) nor the row's (high).
func bloomBits(hash uint64) uint64 {
	return 1<<(hash>>20&63) | 1<<(hash>>26&63) | 1<<(hash>>32&63) | 1<<(hash>>38&63)
}

// weigh fills x.vector from x.features: (1 + ln count) * sqrt(idf), each view divided by its length. It returns the share
// of words and n-grams that training never saw, in [0, 1].
func (v *vocabulary) weigh(x *extractor) (unseen float64) {
	x.vector = x.vector[:0]
	known := v.weighView(x, viewWord) + v.weighView(x, viewChar)
	v.weighView(x, viewPair)
	if x.start[viewPair] == 0 {
		return 1
	}
	return 1 - float64(known)/float64(x.start[viewPair])
}

// weighView appends a view to x.vector, and returns how many of its features training saw. Pairs that it did not see are left out.
func (v *vocabulary) weighView(x *extractor, view int) (known int) {
	features, from := x.of(view), len(x.vector)
	x.found = slices.Grow(x.found[:0], len(features))[:len(features)]
	known = v.lookUp(x.found, features)
	x.vector = slices.Grow(x.vector, len(features))
	vector := x.vector[from:][:len(features)]
	always := uint32(1)
	if view == viewPair {
		always = 0
	}
	n, squares := 0, float32(0)
	for i, s := range x.found {
		value := (1 + float32(v.idf[s.row])/idfSteps) * countWeight(features[i].count)
		vector[n] = entry{s.row, value}
		keep := int32(s.known | always) // a number, because what cannot be foretold should not be branched on
		squares += float32(value*value) * float32(keep)
		n += int(keep)
	}
	x.vector = x.vector[:from+n]
	inverse := float32(1 / math.Sqrt(float64(squares)))
	for i := range vector[:n] {
		vector[i].value *= inverse
	}
	return known
}

func countWeight(count uint32) float32 {
	if count < uint32(len(countWeights)) {
		return countWeights[count]
	}
	return float32(1 + math.Log(float64(count)))
}

// countWeights are the weights of the counts that nearly all features have.
var countWeights = func() (weights [64]float32) {
	for count := 1; count < len(weights); count++ {
		weights[count] = float32(1 + math.Log(float64(count)))
	}
	return weights
}()

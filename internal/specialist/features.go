package specialist

import (
	"math"
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
	minGram     = 2
	maxGram     = 5
	stemRunes   = 3  // of a word that count in a pair
	maxPairWord = 30 // distinct stems of a text that are paired: a bound on a cost that grows with the square
)

// A feature is one property of a text, named by a 64-bit hash.
type feature struct {
	hash  uint64
	count uint32
	view  uint32
}

// An extractor turns texts into features. It holds the buffers that it reuses and serves one goroutine.
type extractor struct {
	low      []byte
	tokens   []token
	features []feature
	slots    []uint32 // open addressing: 1 + index into features, 0 for free
	mask     uint64
	distinct [maxPairWord]uint64 // stems, and the first word of each
	word     [maxPairWord]int32
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

// extract fills x.features with the distinct features of a text.
func (x *extractor) extract(text string) {
	x.tokenize(text)
	x.features, x.owners = x.features[:0], x.owners[:0]
	size := nextPow2(2 * ((maxGram-minGram+1)*len(x.low) + 2*len(x.tokens) + 1 + maxPairWord*maxPairWord/2))
	if len(x.tokens) < maxPairWord {
		size = nextPow2(2 * ((maxGram-minGram+1)*len(x.low) + 2*len(x.tokens) + 1 + len(x.tokens)*len(x.tokens)/2))
	}
	if cap(x.slots) < size {
		x.slots = make([]uint32, size)
	}
	x.slots = x.slots[:size]
	clear(x.slots)
	x.mask = uint64(size - 1)
	x.words()
	x.grams()
	x.pairs()
}

func (x *extractor) add(hash uint64, view uint32, a, b int) {
	f := x.find(hash, view)
	if x.tracing {
		x.owners = append(x.owners, owner{f, int32(a), int32(b)})
	}
}

// find counts a feature and returns its index.
func (x *extractor) find(hash uint64, view uint32) uint32 {
	for i := hash & x.mask; ; i = (i + 1) & x.mask {
		s := x.slots[i]
		if s == 0 {
			x.features = append(x.features, feature{hash: hash, count: 1, view: view})
			x.slots[i] = uint32(len(x.features))
			return uint32(len(x.features)) - 1
		}
		if f := &x.features[s-1]; f.hash == hash {
			f.count++
			return s - 1
		}
	}
}

func (x *extractor) words() {
	previous := uint64(edgeOpen)
	for i := range x.tokens {
		h := x.tokens[i].hash
		x.add(mix(h), viewWord, i, i)
		x.add(mix(previous*seedNext+h), viewWord, i-1, i)
		previous = h
	}
	if n := len(x.tokens); n > 0 {
		x.add(mix(previous*seedNext+edgeClose), viewWord, n-1, -1)
	}
}

func (x *extractor) grams() {
	for i := range x.tokens {
		t := &x.tokens[i]
		word := x.low[t.start-1 : t.end+1]
		for from := 0; from < len(word); {
			h, runes := uint64(seedChar), 0
			next := len(word)
			for at := from; at < len(word); {
				h = (h ^ uint64(word[at])) * fnvPrime
				at++
				if at < len(word) && !utf8.RuneStart(word[at]) {
					continue
				}
				runes++
				if runes == 1 {
					next = at
				}
				if runes >= minGram {
					x.add(mix(h), viewChar, i, i)
				}
				if runes == maxGram {
					break
				}
			}
			from = next
		}
	}
}

// pairs adds every unordered pair of the first maxPairWord different stems.
func (x *extractor) pairs() {
	n := 0
next:
	for i := range x.tokens {
		h := x.stem(&x.tokens[i])
		for _, seen := range x.distinct[:n] {
			if seen == h {
				continue next
			}
		}
		for k, seen := range x.distinct[:n] {
			low, high := min(seen, h), max(seen, h)
			x.add(mix(low*seedPair+high), viewPair, int(x.word[k]), i)
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
	var squares [views]float32
	known, total := 0, 0
	for i := range x.features {
		f := &x.features[i]
		has := v.has(f.hash)
		if f.view == viewPair && !has {
			continue
		}
		if f.view != viewPair {
			total++
			if has {
				known++
			}
		}
		row := v.row(f.hash)
		value := (1 + float32(v.idf[row])/idfSteps) * countWeight(f.count)
		squares[f.view] += float32(value * value)
		x.vector = append(x.vector, entry{row: row | f.view<<viewShift, value: value})
	}
	var inverse [views]float32
	for i, s := range squares {
		if s > 0 {
			inverse[i] = float32(1 / math.Sqrt(float64(s)))
		}
	}
	for i := range x.vector {
		e := &x.vector[i]
		e.value *= inverse[e.row>>viewShift]
		e.row &= 1<<viewShift - 1
	}
	if total == 0 {
		return 1
	}
	return 1 - float64(known)/float64(total)
}

const viewShift = 30 // weigh keeps an entry's view above its row for a moment

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

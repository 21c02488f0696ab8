package specialist

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"occam/internal/sample"
)

// plainFeatures are the features of a tokenized text by the book: one after the other, in a map.
func plainFeatures(x *extractor) (of [views][]feature) {
	var index [views]map[uint64]int
	add := func(view int, hash uint64) {
		if index[view] == nil {
			index[view] = map[uint64]int{}
		}
		at, known := index[view][hash]
		if !known {
			at = len(of[view])
			index[view][hash] = at
			of[view] = append(of[view], feature{hash: hash})
		}
		of[view][at].count++
	}
	previous := uint64(edgeOpen)
	for _, t := range x.tokens {
		add(viewWord, mix(t.hash))
		add(viewWord, mix(previous*seedNext+t.hash))
		previous = t.hash
		word := []rune(string(x.low[t.start-1 : t.end+1]))
		for from := range word {
			for n := 2; n <= maxGram && from+n <= len(word); n++ {
				add(viewChar, mix(hashBytes(seedChar, []byte(string(word[from:from+n])))))
			}
		}
	}
	if len(x.tokens) > 0 {
		add(viewWord, mix(previous*seedNext+edgeClose))
	}
	var stems []uint64
	for _, t := range x.tokens {
		word := []rune(string(x.low[t.start:t.end]))
		h := hashBytes(seedWord, []byte(string(word[:min(stemRunes, len(word))])))
		if len(stems) < maxPairWord && !slices.Contains(stems, h) {
			for _, s := range stems {
				add(viewPair, mix(min(s, h)*seedPair+max(s, h)))
			}
			stems = append(stems, h)
		}
	}
	return of
}

// plainVector weighs features by the book.
func plainVector(v *vocabulary, of [views][]feature) (vector []entry, unseen float64) {
	known := 0
	for view, features := range of {
		from, squares := len(vector), float32(0)
		for _, f := range features {
			has := v.has(f.hash)
			if has && view != viewPair {
				known++
			}
			if has || view != viewPair {
				value := (1 + float32(v.idf[v.row(f.hash)])/idfSteps) * float32(1+math.Log(float64(f.count)))
				vector = append(vector, entry{v.row(f.hash), value})
				squares += float32(value * value)
			}
		}
		for i := range vector[from:] {
			vector[from+i].value *= float32(1 / math.Sqrt(float64(squares)))
		}
	}
	if total := len(of[viewWord]) + len(of[viewChar]); total > 0 {
		return vector, 1 - float64(known)/float64(total)
	}
	return vector, 1
}

// checkPlain compares an extractor, which may have read other texts before, with the book.
func checkPlain(t *testing.T, x *extractor, v *vocabulary, text string) {
	t.Helper()
	x.extract(text)
	unseen := v.weigh(x)
	want := plainFeatures(x)
	for view := range views {
		if !slices.Equal(x.of(view), want[view]) {
			t.Fatalf("view %d of %.200q: %d features, want %d, or others", view, text, len(x.of(view)), len(want[view]))
		}
	}
	vector, wantUnseen := plainVector(v, want)
	if !slices.Equal(x.vector, vector) || unseen != wantUnseen {
		t.Fatalf("%.200q: %d entries, unseen %v; want %d, unseen %v, or others", text, len(x.vector), unseen, len(vector), wantUnseen)
	}
	traced := extractor{tracing: true}
	traced.extract(text)
	if !slices.Equal(traced.features, x.features) {
		t.Fatalf("%.200q has other features while tracing", text)
	}
	counts := make([]uint32, len(x.features))
	for _, o := range traced.owners {
		counts[o.feature]++
	}
	for i, f := range x.features {
		if counts[i] != f.count {
			t.Fatalf("%.200q: feature %d has %d owners and stands there %d times", text, i, counts[i], f.count)
		}
	}
}

// plainVocabulary is of a few tickets, so that other tickets have features and pairs of both kinds.
func plainVocabulary() *vocabulary {
	var texts []string
	for _, e := range sample.Tickets(1, 300) {
		texts = append(texts, e.Text)
	}
	v, _ := buildVocabulary(texts)
	return v
}

// TestFeaturesByTheBook: to the bit, in the same order, whatever the text is.
func TestFeaturesByTheBook(t *testing.T) {
	v := plainVocabulary()
	texts := []string{"", " \n", "x", "ab", "\x00\xff\u200f", "a b a b a b", strings.Repeat("again ", 70) + "and again", strings.Repeat("あ", 200), longText(maxText + 100)}
	var tickets []string
	for _, e := range sample.Tickets(7, 300) {
		tickets = append(tickets, e.Text)
	}
	texts = append(append(texts, tickets...), strings.Join(tickets[:100], "\n"))
	rng := rand.New(rand.NewPCG(1, 1))
	runes := []rune("aAbB zZ019_-.,#@ \n\tÄßéñ日本語の返金カタひらアラب تم\u200f\u0301١٢٣ก็ำ한국어\x00\x02\x03İıſK😀\U00020000")
	for i := range 600 {
		var b strings.Builder
		for range rng.IntN(400) {
			if i%2 == 0 {
				b.WriteRune(runes[rng.IntN(len(runes))])
			} else {
				b.WriteByte(byte(rng.IntN(256)))
			}
		}
		texts = append(texts, b.String())
	}
	var x extractor
	for _, text := range texts {
		checkPlain(t, &x, v, text)
	}
}

// TestExtractorsMemoryIsBounded: texts made to need much of it need no more than others of their length.
func TestExtractorsMemoryIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte('a' + rng.IntN(26))
	}
	var x extractor
	for _, text := range []string{longText(1 << 20), strings.Repeat("#", 1<<20), strings.Repeat("# a", 1<<18), strings.Repeat("é ", 1<<18), string(noise)} {
		x.extract(text)
	}
	const most = 4*maxText + 1<<10 // n-grams: four at every byte
	for name, n := range map[string]int{"mentions": cap(x.mentions), "features": cap(x.features), "slots": cap(x.slots) / 8} {
		if n > 2*most {
			t.Errorf("room for %d %s, for texts that count for %d bytes", n, name, maxText)
		}
	}
}

func FuzzFeatures(f *testing.F) {
	v := plainVocabulary()
	f.Add("where is my parcel, and where is my money? order 12345")
	f.Add("\u200f\u0000\xff日本語 日本語")
	f.Fuzz(func(t *testing.T, text string) {
		var x extractor
		checkPlain(t, &x, v, text)
	})
}

func TestLookUpKernelAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	for _, bits := range []uint{8, 13, 16} {
		v := &vocabulary{bits: bits, seen: make([]uint64, 1<<rng.IntN(9)), idf: make([]uint8, 1<<bits)}
		v.words = uint64(len(v.seen) - 1)
		for i := range v.seen {
			v.seen[i] = rng.Uint64() | rng.Uint64()
		}
		for n := range 40 {
			features := make([]feature, n)
			for i := range features {
				features[i] = feature{rng.Uint64(), rng.Uint32()}
			}
			got, want := make([]sighting, n), make([]sighting, n)
			if a, b := v.lookUp(got, features), v.lookUpGeneric(want, features); a != b || !slices.Equal(got, want) {
				t.Fatalf("%d features, %d bits: %d known %v, want %d %v", n, bits, a, got, b, want)
			}
		}
	}
}

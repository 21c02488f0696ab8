package specialist

import (
	"cmp"
	"context"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// A dataset is the training texts as one sparse matrix: example i has the entries [start[i], start[i+1]), by ascending row.
// Rows are renumbered by falling frequency, so that training touches little memory; vocabRow leads back to the vocabulary's.
type dataset struct {
	vocabRow []uint32
	start    []int
	row      []uint32
	value    []float32
	unseen   []float64 // share of an example's words and n-grams that no other example has
	asNew    *dataset  // the same texts as a vocabulary of the others would see them; rows share numbers
}

func (d *dataset) len() int { return len(d.start) - 1 }

func (d *dataset) at(i int) ([]uint32, []float32) {
	return d.row[d.start[i]:d.start[i+1]], d.value[d.start[i]:d.start[i+1]]
}

const (
	minRowBits = 8
	maxRowBits = 16
)

// buildVocabulary counts the features of all texts. seenOnce holds the features that one text alone has.
func buildVocabulary(texts []string) (v *vocabulary, seenOnce *hashCounts) {
	counts := newHashCounts()
	var x extractor
	for _, text := range texts {
		x.extract(text)
		for view := range views {
			for _, f := range x.of(view) {
				counts.add(f.hash, view == viewPair)
			}
		}
	}
	kept := 0
	for _, n := range counts.n {
		if inVocabulary(n) {
			kept++
		}
	}
	v = &vocabulary{bits: uint(min(max(bits.Len(uint(kept)), minRowBits), maxRowBits))}
	v.seen = make([]uint64, nextPow2(max(kept/5, 1))) // 13 to 26 bits a feature: about 1 % false positives or fewer
	v.words = uint64(len(v.seen) - 1)
	documents := make([]uint32, 1<<v.bits)
	for i, n := range counts.n {
		if !inVocabulary(n) {
			continue
		}
		hash := counts.key[i]
		v.seen[hash&v.words] |= bloomBits(hash)
		documents[v.row(hash)] += n &^ pairFlag
	}
	v.idf, counts.idfOfRest = make([]uint8, len(documents)), make([]uint8, len(documents))
	for row, df := range documents {
		v.idf[row] = quantisedIDF(len(texts), int(df))
		counts.idfOfRest[row] = quantisedIDF(len(texts)-1, int(df)-1)
	}
	return v, counts
}

func quantisedIDF(texts, df int) uint8 {
	idf := math.Log(float64(1+texts)/float64(1+min(max(df, 0), texts))) + 1
	return uint8(min(math.Round((math.Sqrt(idf)-1)*idfSteps), 255))
}

// weighAsNew is v.weigh for a training text as if the vocabulary had been made of the other texts alone: what it says of a
// text that it has seen differs from what it says of a new one. It changes x.features.
func (c *hashCounts) weighAsNew(v *vocabulary, x *extractor) {
	pairs := slices.DeleteFunc(x.of(viewPair), func(f feature) bool { return c.n[c.find(f.hash)] < pairFlag|3 })
	x.features = x.features[:x.start[viewPair]+len(pairs)]
	rest := *v
	rest.idf = c.idfOfRest
	rest.weigh(x)
}

// hashCounts counts in how many texts each feature occurs: open addressing, keys as they are.
type hashCounts struct {
	key  []uint64
	n    []uint32 // 0 for free; pairFlag marks a pair
	used int

	idfOfRest []uint8 // by row: the vocabulary's idf, had it one text less in every row
}

const pairFlag = 1 << 31

func newHashCounts() *hashCounts {
	return &hashCounts{key: make([]uint64, 1<<12), n: make([]uint32, 1<<12)}
}

// inVocabulary reports whether a feature that so many texts have belongs to the vocabulary: pairs need two.
func inVocabulary(n uint32) bool { return n != 0 && n != pairFlag|1 }

func (c *hashCounts) find(hash uint64) int {
	mask := len(c.key) - 1
	i := int(hash) & mask
	for c.n[i] != 0 && c.key[i] != hash {
		i = (i + 1) & mask
	}
	return i
}

func (c *hashCounts) add(hash uint64, pair bool) {
	i := c.find(hash)
	if c.n[i] != 0 {
		c.n[i]++
		return
	}
	c.key[i], c.n[i] = hash, 1
	if pair {
		c.n[i] |= pairFlag
	}
	if c.used++; 2*c.used > len(c.key) {
		c.grow()
	}
}

func (c *hashCounts) grow() {
	old := *c
	c.key, c.n = make([]uint64, 2*len(old.key)), make([]uint32, 2*len(old.key))
	for i, n := range old.n {
		if n != 0 {
			j := c.find(old.key[i])
			c.key[j], c.n[j] = old.key[i], n
		}
	}
}

// buildDataset turns texts into the sparse matrix that the heads learn from.
func buildDataset(ctx context.Context, v *vocabulary, counts *hashCounts, texts []string, workers int) (*dataset, error) {
	const chunk = 256
	n := len(texts)
	parts := make([]dataset, (n+chunk-1)/chunk)
	pool := sync.Pool{New: func() any { return new(extractor) }}
	err := parallel(ctx, workers, len(parts), func(p int) {
		x := pool.Get().(*extractor)
		defer pool.Put(x)
		part := &parts[p]
		part.asNew = new(dataset)
		for _, text := range texts[p*chunk : min((p+1)*chunk, n)] {
			x.extract(text)
			v.weigh(x)
			part.unseen = append(part.unseen, counts.shareOnce(x.features[:x.start[viewPair]]))
			part.append(x.vector)
			counts.weighAsNew(v, x)
			part.asNew.append(x.vector)
		}
	})
	if err != nil {
		return nil, err
	}
	d := &dataset{start: make([]int, 1, n+1), asNew: &dataset{start: make([]int, 1, n+1)}}
	for i := range parts {
		d.join(&parts[i])
		d.asNew.join(parts[i].asNew)
		parts[i] = dataset{}
	}
	d.renumber(1 << v.bits)
	return d, nil
}

// join adds the examples of a part.
func (d *dataset) join(part *dataset) {
	base := len(d.row)
	for _, s := range part.start {
		d.start = append(d.start, base+s)
	}
	d.row, d.value = append(d.row, part.row...), append(d.value, part.value...)
	d.unseen = append(d.unseen, part.unseen...)
}

// renumber gives the rows that occur the numbers 0, 1, … by falling frequency.
func (d *dataset) renumber(vocabRows int) {
	count := make([]int, vocabRows)
	for _, r := range d.row {
		count[r]++
	}
	for r, n := range count {
		if n > 0 {
			d.vocabRow = append(d.vocabRow, uint32(r))
		}
	}
	slices.SortStableFunc(d.vocabRow, func(a, b uint32) int { return count[b] - count[a] })
	number := make([]uint32, vocabRows)
	for i, r := range d.vocabRow {
		number[r] = uint32(i)
	}
	for _, of := range []*dataset{d, d.asNew} {
		for i, r := range of.row {
			of.row[i] = number[r]
		}
	}
}

// append adds one example; start holds the examples' ends while a part is built.
func (d *dataset) append(vector []entry) {
	slices.SortFunc(vector, func(a, b entry) int { return cmp.Compare(a.row, b.row) })
	from := len(d.row)
	for _, e := range vector {
		if last := len(d.row) - 1; last >= from && d.row[last] == e.row {
			d.value[last] += e.value
			continue
		}
		d.row, d.value = append(d.row, e.row), append(d.value, e.value)
	}
	d.start = append(d.start, len(d.row))
}

// shareOnce is the leave-one-out estimate of vocabulary.weigh's unseen share for a training text.
func (c *hashCounts) shareOnce(features []feature) float64 {
	if len(features) == 0 {
		return 1
	}
	once := 0
	for _, f := range features {
		if c.n[c.find(f.hash)] == 1 {
			once++
		}
	}
	return float64(once) / float64(len(features))
}

// parallel runs f(0)…f(n-1) on up to workers goroutines, of which the caller's is one, and stops early, with the context's error,
// when ctx ends.
func parallel(ctx context.Context, workers, n int, f func(i int)) error {
	var next atomic.Int64
	work := func() {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(i)
		}
	}
	var others sync.WaitGroup
	for range min(workers, n) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return ctx.Err()
}

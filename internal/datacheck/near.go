package datacheck

import (
	"cmp"
	"context"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"occam/internal/task"
)

const (
	maxFeatures   = 128    // of one wording; longer texts are sampled by their smallest hashes, the same way in every text
	runeShingle   = 4      // runes in a row that make a feature
	maxNeighbours = 10     // of one wording
	maxProbes     = 20_000 // postings that one wording may read, rarest features first: keeps the search linear in the rows
	nearJaccard   = 0.6    // shared share of features above which two texts count as near-duplicates: about one word in ten
)

// A wording is every row whose text has the same task.NearKey. Searching goes over wordings, so that a thousand copies of
// one text cost as much as one.
type wording struct {
	rows     []int32  // ascending
	features []uint32 // hashes, ascending, without repeats
	norm     float32
	near     []neighbour // most similar first
}

// A neighbour is another wording that shares features.
type neighbour struct {
	wording int32
	cosine  float32 // of the features weighted by rarity
	jaccard float32 // share of features in common, unweighted
}

// A nearIndex finds, for every wording, the most similar others.
type nearIndex struct {
	wordings []wording
	of       []int32 // by row: its wording
	id       map[uint32]int32
	postings [][]int32 // by feature id: the wordings that have it
	weight   []float32 // by feature id
}

// findNear groups texts into wordings and links each with its nearest others.
func findNear(ctx context.Context, texts []string, workers int) (*nearIndex, error) {
	x := &nearIndex{of: make([]int32, len(texts)), id: map[uint32]int32{}}
	byKey := make(map[digest]int32, len(texts))
	for row, text := range texts {
		key := digestOf(nearKey(text))
		w, seen := byKey[key]
		if !seen {
			w = int32(len(x.wordings))
			byKey[key], x.wordings = w, append(x.wordings, wording{})
		}
		x.of[row] = w
		x.wordings[w].rows = append(x.wordings[w].rows, int32(row))
	}
	err := parallel(ctx, workers, len(x.wordings), func() func(int) {
		var buffer []uint32
		return func(w int) {
			x.wordings[w].features, buffer = features(nearKey(texts[x.wordings[w].rows[0]]), buffer)
		}
	})
	if err != nil {
		return nil, err
	}
	x.weigh()
	err = parallel(ctx, workers, len(x.wordings), func() func(int) {
		p := prober{index: x, score: make([]float32, len(x.wordings))}
		return p.probe
	})
	return x, err
}

// A digest stands for a text, so that a million long texts are not held twice.
type digest [16]byte

func digestOf(text string) (d digest) {
	h := fnv.New128a()
	h.Write([]byte(text))
	h.Sum(d[:0])
	return d
}

// nearKey is task.NearKey, but a text without letters and digits is its own key: "?" and "!" are two texts.
func nearKey(text string) string {
	if key := task.NearKey(text); key != "" {
		return key
	}
	return "\x00" + text
}

// features hashes the words, the pairs of neighbouring words and the runs of runeShingle runes of a near-key. The runs make it
// work in scripts that write no spaces.
func features(key string, buffer []uint32) (hashes, reuse []uint32) {
	buffer = buffer[:0]
	var window [runeShingle]rune
	runes := 0
	word, previous := uint64(hashSeed), uint64(0)
	endWord := func() {
		buffer = append(buffer, fold(word))
		if previous != 0 {
			buffer = append(buffer, fold(previous*hashPrime^word))
		}
		previous, word = word, hashSeed
	}
	for _, r := range key {
		window[runes%runeShingle] = r
		if runes++; runes >= runeShingle {
			h := uint64(hashSeed + 1)
			for i := range runeShingle {
				h = mix(h, window[(runes+i)%runeShingle])
			}
			buffer = append(buffer, fold(h))
		}
		if r == ' ' {
			endWord()
			continue
		}
		word = mix(word, r)
	}
	endWord()
	slices.Sort(buffer)
	distinct := slices.Compact(buffer)
	return slices.Clone(distinct[:min(len(distinct), maxFeatures)]), buffer
}

const (
	hashSeed  = 14695981039346656037 // FNV-1a's, over runes
	hashPrime = 1099511628211
)

func mix(h uint64, r rune) uint64 { return (h ^ uint64(r)) * hashPrime }

// fold spreads a hash over 32 bits, as MurmurHash3 finishes.
func fold(h uint64) uint32 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return uint32(h >> 32)
}

// weigh builds the postings and weights every feature by its rarity.
func (x *nearIndex) weigh() {
	for w := range x.wordings {
		for _, h := range x.wordings[w].features {
			f, known := x.id[h]
			if !known {
				f = int32(len(x.postings))
				x.id[h], x.postings = f, append(x.postings, nil)
			}
			x.postings[f] = append(x.postings[f], int32(w))
		}
	}
	x.weight = make([]float32, len(x.postings))
	for f, p := range x.postings {
		x.weight[f] = float32(math.Log(float64(1+len(x.wordings)) / float64(len(p))))
	}
	for w := range x.wordings {
		sum := 0.0
		for _, h := range x.wordings[w].features {
			v := float64(x.weight[x.id[h]])
			sum += v * v
		}
		x.wordings[w].norm = float32(math.Sqrt(sum))
	}
}

// A prober holds one goroutine's working memory.
type prober struct {
	index   *nearIndex
	score   []float32 // by wording, zero between probes
	touched []int32
	ids     []int32
}

// probe finds the neighbours of wording w. Texts that share much share rare features too, so reading the rarest postings first
// and stopping at maxProbes loses only candidates that have little in common.
func (p *prober) probe(w int) {
	x := p.index
	self := &x.wordings[w]
	p.ids, p.touched = p.ids[:0], p.touched[:0]
	for _, h := range self.features {
		p.ids = append(p.ids, x.id[h])
	}
	slices.SortFunc(p.ids, func(a, b int32) int {
		return cmp.Or(cmp.Compare(len(x.postings[a]), len(x.postings[b])), cmp.Compare(a, b))
	})
	budget := maxProbes
	for _, f := range p.ids {
		if budget -= len(x.postings[f]); budget < 0 {
			break
		}
		square := x.weight[f] * x.weight[f]
		for _, other := range x.postings[f] {
			if p.score[other] == 0 {
				p.touched = append(p.touched, other)
			}
			p.score[other] += square
		}
	}
	p.keepBest(int32(w))
}

// keepBest turns the scores into w's neighbours and clears them.
func (p *prober) keepBest(w int32) {
	x := p.index
	self := &x.wordings[w]
	var best []neighbour
	for _, other := range p.touched {
		n := neighbour{wording: other, cosine: p.score[other] / max(self.norm*x.wordings[other].norm, 1e-9)}
		p.score[other] = 0
		if other == w || (len(best) == maxNeighbours && compareNeighbours(n, best[len(best)-1]) >= 0) {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, n, compareNeighbours)
		best = slices.Insert(best, at, n)
		best = best[:min(len(best), maxNeighbours)]
	}
	for i := range best {
		best[i].jaccard = jaccard(self.features, x.wordings[best[i].wording].features)
	}
	self.near = best
}

func compareNeighbours(a, b neighbour) int {
	return cmp.Or(cmp.Compare(b.cosine, a.cosine), cmp.Compare(a.wording, b.wording))
}

// jaccard is the share of features that two texts have in common. Of sampled texts it compares the smallest hashes of the two
// together, which are a sample of their union (A. Broder, "On the resemblance and containment of documents", 1997).
func jaccard(a, b []uint32) float32 {
	sampled := len(a) == maxFeatures || len(b) == maxFeatures
	common, union := 0, 0
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		if sampled && union == maxFeatures {
			break
		}
		union++
		switch {
		case j == len(b) || (i < len(a) && a[i] < b[j]):
			i++
		case i == len(a) || b[j] < a[i]:
			j++
		default:
			common, i, j = common+1, i+1, j+1
		}
	}
	if union == 0 {
		return 0
	}
	return float32(common) / float32(union)
}

// parallel calls the functions that start makes, one a goroutine, with 0…n-1, and stops early when ctx ends.
func parallel(ctx context.Context, workers, n int, start func() func(i int)) error {
	const chunk = 64
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, min(workers, n/chunk)) {
		wg.Go(func() {
			work := start()
			for ctx.Err() == nil {
				from := int(next.Add(chunk)) - chunk
				if from >= n {
					return
				}
				for i := from; i < min(from+chunk, n); i++ {
					work(i)
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// firstBelow returns the row below n that is most like wording w, and their similarity; -1 when none is near.
func (x *nearIndex) firstBelow(w, n int32) (row int32, similarity float32) {
	if first := x.wordings[w].rows[0]; first < n {
		return first, 1
	}
	best := neighbour{wording: -1, jaccard: nearJaccard}
	for _, other := range x.wordings[w].near {
		if x.wordings[other.wording].rows[0] < n && other.jaccard >= best.jaccard && (best.wording < 0 || other.jaccard > best.jaccard) {
			best = other
		}
	}
	if best.wording < 0 {
		return -1, 0
	}
	return x.wordings[best.wording].rows[0], best.jaccard
}

// A cluster is rows of texts near to one of them.
type cluster struct {
	rows  []int
	least float64 // smallest similarity to the first
}

// clusters groups the rows below n that have the same or nearly the same text. Every text is near the first of its cluster, so
// that no chain of small differences joins texts that have nothing in common.
func (x *nearIndex) clusters(n int) []cluster {
	taken := make([]bool, len(x.wordings))
	var found []cluster
	for w := range x.wordings {
		if taken[w] {
			continue
		}
		members, least := []int32{int32(w)}, float32(1)
		for _, other := range x.wordings[w].near {
			if other.jaccard >= nearJaccard && !taken[other.wording] && int(x.wordings[other.wording].rows[0]) < n {
				members, least = append(members, other.wording), min(least, other.jaccard)
			}
		}
		c := cluster{least: float64(least)}
		for _, m := range members {
			taken[m] = true
			for _, row := range x.wordings[m].rows {
				if int(row) < n {
					c.rows = append(c.rows, int(row))
				}
			}
		}
		if len(c.rows) > 1 {
			slices.Sort(c.rows)
			found = append(found, c)
		}
	}
	return found
}

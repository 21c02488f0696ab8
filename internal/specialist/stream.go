package specialist

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"occam/internal/task"
)

// A Source deals labelled examples by number, so that training need not hold them all. At may be called from many goroutines.
type Source interface {
	Len() int
	At(i int) (task.Example, error)
}

const (
	defaultMemory = 2 << 30
	maxTuning     = 5000 // examples that only calibrate
	tuningShare   = 10   // of which at most one in so many
	streamSteps   = 1_000_000
	streamBlock   = 512 // examples that are prepared while the ones before are learned
	streamChunk   = 32

	// What an example of the sample costs, at most as seen on texts of random words: matrix entries, counts of its features, and
	// logits. See TestStreamedMemoryIsBounded.
	bytesPerTextByte = 64
	bytesPerExample  = 1 << 10
	bytesPerColumn   = 24
)

// TrainStream is Train for data that do not fit memory. A random sample that opt.Memory has room for makes the vocabulary and
// trains the SVM head and the spans; the embedding head learns from every example, read in a random order and never kept; a few
// thousand more examples calibrate and teach nothing. Beside the sample, memory does not grow with the data but for four bytes an example.
// The model depends on the memory allowed, not on the number of workers. Use says how many examples did what.
func TrainStream(ctx context.Context, fields []task.Field, src Source, opt Options) (*Model, StreamUse, error) {
	if src.Len() == 0 {
		return nil, StreamUse{}, errors.New("specialist: there are no examples to learn from")
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	s := &stream{src: src, order: make([]int32, src.Len()), extractors: sync.Pool{New: func() any { return new(extractor) }}}
	for i := range s.order {
		s.order[i] = int32(i)
	}
	rng := rand.New(rand.NewPCG(opt.Seed, 3))
	rng.Shuffle(len(s.order), func(a, b int) { s.order[a], s.order[b] = s.order[b], s.order[a] })
	sample, tuning, err := s.sample(ctx, len(columnsOf(fields)), opt.Memory)
	if err != nil {
		return nil, StreamUse{}, err
	}
	if warn := opt.Warn; warn != nil {
		opt.Warn = func(w Warning) {
			for k, i := range w.Examples {
				w.Examples[k] = int(s.order[i])
			}
			warn(w)
		}
	}
	t, err := newTrainer(ctx, fields, sample, 2, opt)
	if err != nil {
		return nil, StreamUse{}, err
	}
	s.order = s.order[tuning:]
	t.stream, t.final = s, 0
	for i := range t.fold {
		t.fold[i] = 1
		if i < tuning {
			t.fold[i] = 0 // pass 0 leaves it out and is asked about it
		}
	}
	s.number = t.data.nameAllRows(1 << t.vocab.bits)
	m, err := t.train(ctx)
	if err = errors.Join(err, s.err); err != nil {
		return nil, StreamUse{}, err
	}
	return m, StreamUse{Examples: len(s.order), Passes: streamPasses(len(s.order)), Sample: len(sample) - tuning, Tuning: tuning}, nil
}

// StreamUse says what TrainStream did with the examples.
type StreamUse struct {
	Examples int `json:"examples"` // that the embedding head learned from
	Passes   int `json:"passes"`   // how often
	Sample   int `json:"sample"`   // of these, that made the vocabulary and trained the SVM head and the spans
	Tuning   int `json:"tuning"`   // more, that calibrated confidence
}

// A stream is the data of a training run that does not hold them.
type stream struct {
	src    Source
	order  []int32
	number []uint32 // by row of the vocabulary: the training row
	err    error    // what ended the reading

	extractors sync.Pool
}

func columnsOf(fields []task.Field) (columns []task.Value) {
	for _, f := range fields {
		columns = append(columns, columnValues(f)...)
	}
	return columns
}

// sample reads examples in s.order: the first tuning of them calibrate, the others are as many as memory has room for.
func (s *stream) sample(ctx context.Context, columns int, memory int64) (examples []task.Example, tuning int, err error) {
	if memory <= 0 {
		memory = defaultMemory
	}
	most := max(1, min(maxTuning, len(s.order)/tuningShare))
	var used int64
	for _, i := range s.order {
		e, err := s.src.At(int(i))
		if err != nil {
			return nil, 0, err
		}
		used += int64(len(e.Text))*bytesPerTextByte + int64(columns)*bytesPerColumn + bytesPerExample
		if used > memory && len(examples) > 1 || ctx.Err() != nil {
			break
		}
		examples = append(examples, e)
		if tuning < most && used < memory/tuningShare {
			tuning++
		}
	}
	return examples, max(1, tuning), ctx.Err()
}

// nameAllRows gives the rows that no example has the numbers after those that some have, and returns every row's number.
func (d *dataset) nameAllRows(vocabRows int) (number []uint32) {
	number = make([]uint32, vocabRows)
	named := make([]bool, vocabRows)
	for _, r := range d.vocabRow {
		named[r] = true
	}
	for r := range named {
		if !named[r] {
			d.vocabRow = append(d.vocabRow, uint32(r))
		}
	}
	for n, r := range d.vocabRow {
		number[r] = uint32(n)
	}
	return number
}

// streamPasses is how often n streamed examples are gone through.
func streamPasses(n int) int { return min(max(streamSteps/max(n, 1), 1), minEpochs) }

// A block is some examples, ready to learn from.
type block struct {
	data     dataset
	positive [][][]int32 // by example and field
	err      error
}

// teach trains m on every example, one block after the other; while one is learned, the next is prepared.
func (s *stream) teach(ctx context.Context, t *trainer, m *embedding, rng *rand.Rand) {
	passes := streamPasses(len(s.order))
	steps, step := float32(passes*len(s.order)), 0
	for range passes {
		rng.Shuffle(len(s.order), func(a, b int) { s.order[a], s.order[b] = s.order[b], s.order[a] })
		ready := make(chan *block, 1)
		go func() {
			defer close(ready)
			for at := 0; at < len(s.order) && ctx.Err() == nil; at += streamBlock {
				b := s.prepare(ctx, t, s.order[at:min(at+streamBlock, len(s.order))])
				if ready <- b; b.err != nil {
					return
				}
			}
		}()
		for b := range ready {
			if s.err = errors.Join(s.err, b.err); b.err != nil {
				continue // and drain the channel, so that the sender ends
			}
			for i := range b.positive {
				m.drop(&b.data, i, rng)
				m.positive = b.positive[i]
				m.step(t, embedRate*(1-float32(step)/steps))
				step++
			}
			if t.opt.Progress != nil {
				t.opt.Progress(step, int(steps))
			}
		}
		if s.err != nil {
			return
		}
	}
	m.forgetUntrained()
}

// prepare reads some examples and makes their vectors, in parallel.
func (s *stream) prepare(ctx context.Context, t *trainer, indices []int32) *block {
	parts := make([]block, (len(indices)+streamChunk-1)/streamChunk)
	err := parallel(ctx, t.opt.Workers, len(parts), func(p int) {
		x := s.extractors.Get().(*extractor)
		defer s.extractors.Put(x)
		for _, i := range indices[p*streamChunk : min((p+1)*streamChunk, len(indices))] {
			if parts[p].err = s.read(t, x, &parts[p], int(i)); parts[p].err != nil {
				return
			}
		}
	})
	b := &block{data: dataset{start: make([]int, 1, len(indices)+1)}, err: err}
	for p := range parts {
		b.data.join(&parts[p].data)
		b.positive = append(b.positive, parts[p].positive...)
		b.err = errors.Join(b.err, parts[p].err)
	}
	for k, row := range b.data.row {
		b.data.row[k] = s.number[row]
	}
	return b
}

// read adds one example to a block.
func (s *stream) read(t *trainer, x *extractor, b *block, i int) error {
	e, err := s.src.At(i)
	if err != nil {
		return err
	}
	positive := make([][]int32, len(t.fields))
	for f, field := range t.fields {
		if !field.Labelled(e.Labels) {
			continue
		}
		v := e.Labels[field.Name]
		if err := field.Check(v); err != nil {
			return fmt.Errorf("specialist: %s: %w; correct the row or the schema", rowName(&e, i), err)
		}
		positive[f] = positiveColumns(field, v, t.column[f])
	}
	x.extract(e.Text)
	t.vocab.weigh(x)
	b.data.append(x.vector)
	b.positive = append(b.positive, positive)
	return nil
}

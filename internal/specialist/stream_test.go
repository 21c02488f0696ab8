package specialist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"occam/internal/task"
)

// madeUp is a source that makes its examples when asked: words random words each, two of which tell the category.
type madeUp struct {
	n, words int
	bad      int          // if positive, the example that cannot be read
	peak     atomic.Int64 // bytes of heap, the most that was seen
}

var streamFields = []task.Field{
	{Name: "topic", Kind: task.Category, Values: []string{"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"}},
	{Name: "code", Kind: task.Span, Nullable: true},
}

func (s *madeUp) Len() int { return s.n }

func (s *madeUp) At(i int) (task.Example, error) {
	if s.bad > 0 && i == s.bad {
		return task.Example{}, errors.New("the disk is gone")
	}
	if i%256 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.peak.Store(max(s.peak.Load(), int64(m.HeapAlloc)))
	}
	rng := rand.New(rand.NewPCG(uint64(i), 77))
	topic := rng.IntN(10)
	words := make([]string, s.words)
	for k := range words {
		words[k] = fmt.Sprintf("w%x", rng.IntN(4000))
	}
	for range 2 {
		words[rng.IntN(len(words))] = fmt.Sprintf("%x", mix(uint64(1000*topic+rng.IntN(100)+1)))
	}
	e := task.Example{Line: i + 1, Labels: task.Output{"topic": task.String(streamFields[0].Values[topic]), "code": task.Null}}
	if rng.IntN(2) == 0 {
		code := fmt.Sprintf("AB-%05d", rng.IntN(100000))
		words[rng.IntN(len(words))] = code
		e.Labels["code"] = task.String(code)
	}
	e.Text = strings.Join(words, " ")
	return e, nil
}

func wrong(m *Model, from, n, words int) (wrong [2]int) {
	fresh := &madeUp{n: from + n, words: words}
	var p task.Prediction
	for i := from; i < from+n; i++ {
		e, _ := fresh.At(i)
		m.Predict(e.Text, &p)
		for f := range wrong {
			if !p.Values[f].Equal(e.Labels[streamFields[f].Name]) {
				wrong[f]++
			}
		}
	}
	return wrong
}

func TestStreamLearnsFromAllExamples(t *testing.T) {
	const n, words = 2000, 15
	src := &madeUp{n: n, words: words}
	opt := Options{Seed: 3, Memory: 2 << 20}
	m, use, err := TrainStream(context.Background(), streamFields, src, opt)
	if err != nil {
		t.Fatal(err)
	}
	if use.Sample > n/3 || use.Tuning < 20 || use.Examples != n-use.Tuning {
		t.Fatalf("use: %+v", use)
	}
	var sample []task.Example // what memory alone would have had to learn from
	for i := range use.Sample {
		e, _ := src.At(i)
		sample = append(sample, e)
	}
	streamed, sampled := wrong(m, n, 1000, words), wrong(train(t, streamFields, sample, Options{Seed: 3}), n, 1000, words)
	t.Logf("use %+v; wrong of 1000: streamed %v, of the sample alone %v", use, streamed, sampled)
	if sampled[0] < 100 || streamed[0] > sampled[0]*2/3 || streamed[1] > 20 {
		t.Errorf("wrong of 1000: %v; of a model of the sample alone: %v", streamed, sampled)
	}
	opt.Workers = 5
	again, _, err := TrainStream(context.Background(), streamFields, src, opt)
	if err != nil || !bytes.Equal(again.Encode(nil), m.Encode(nil)) {
		t.Errorf("another number of workers gives another model (%v)", err)
	}
}

// TestStreamedMemoryIsBounded: four times the examples, the same memory but for the numbers of the examples.
func TestStreamedMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	const memory = 4 << 20
	peak := func(n int) int64 {
		src := &madeUp{n: n, words: 15}
		runtime.GC()
		_, use, err := TrainStream(context.Background(), streamFields, src, Options{Seed: 3, Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d examples: %+v, peak %.1f MB", n, use, float64(src.peak.Load())/1e6)
		return src.peak.Load()
	}
	few, many := peak(1000), peak(4000)
	if many > few*5/4 {
		t.Errorf("peak heap of 1,000 examples %d bytes, of 4,000 %d", few, many)
	}
}

func TestStreamStops(t *testing.T) {
	src := &madeUp{n: 3000, words: 10, bad: 1500}
	if _, _, err := TrainStream(context.Background(), streamFields, src, Options{Memory: 1 << 20}); err == nil || !strings.Contains(err.Error(), "disk is gone") {
		t.Errorf("a source that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opt := Options{Memory: 1 << 20, Progress: func(done, total int) { cancel() }}
	if _, _, err := TrainStream(ctx, streamFields, &madeUp{n: 3000, words: 10}, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	if _, _, err := TrainStream(context.Background(), streamFields, &madeUp{}, Options{}); err == nil {
		t.Error("no examples are accepted")
	}
}

func TestStreamOfFewExamples(t *testing.T) {
	for _, n := range []int{1, 2, 20} {
		m, _, err := TrainStream(context.Background(), streamFields, &madeUp{n: n, words: 10}, Options{})
		if err != nil {
			t.Fatal(n, err)
		}
		wrong(m, n, 10, 10)
	}
}

//go:build unix

package specialist

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"occam/internal/sample"
	"occam/internal/task"
)

// dataDir returns the optional data folder, or skips.
func dataDir(t testing.TB) string {
	dir := os.Getenv("OCCAM_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no data folder: %v", err)
	}
	return dir
}

func readExamples(t testing.TB, path string) []task.Example {
	t.Helper()
	f, err := os.Open(filepath.Join(dataDir(t), path))
	if err != nil {
		t.Skipf("no data: %v", err)
	}
	defer f.Close()
	examples, problems, err := task.ReadExamples(f, path)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return examples
}

type result struct {
	accuracy, ece float64
	noise         float64    // the ECE that would be expected of perfect calibration, with these confidences and as many rows
	coverage      [3]float64 // at accuracy 95, 97, 98 %
}

// evaluate scores predictions of one field (or of all, field < 0).
func evaluate(fields []task.Field, field int, predictions []task.Prediction, truth []task.Example) (r result) {
	type row struct {
		score, confidence float64
		right             bool
	}
	var rows []row
	for i := range predictions {
		p := &predictions[i]
		x := row{p.Score, p.Confidence, p.Right(fields, truth[i].Labels)}
		if field >= 0 {
			if !fields[field].Labelled(truth[i].Labels) {
				continue
			}
			x.confidence = p.FieldConfidence[field]
			x.score = math.Log(x.confidence / (1 - x.confidence))
			x.right = p.Values[field].Equal(truth[i].Labels[fields[field].Name])
		}
		rows = append(rows, x)
	}
	slices.SortFunc(rows, func(a, b row) int {
		if a.score > b.score {
			return -1
		}
		if a.score < b.score {
			return 1
		}
		return 0
	})
	var sum [15]struct{ n, right, confidence float64 }
	right := 0
	for i, x := range rows {
		b := &sum[min(int(x.confidence*15), 14)]
		b.n++
		b.confidence += x.confidence
		if x.right {
			right++
			b.right++
		}
		for k, target := range []float64{.95, .97, .98} {
			if float64(right) >= target*float64(i+1) {
				r.coverage[k] = float64(i+1) / float64(len(rows))
			}
		}
	}
	for _, b := range sum {
		r.ece += math.Abs(b.right-b.confidence) / float64(len(rows))
	}
	r.accuracy = float64(right) / float64(len(rows))
	confidences := make([]float64, len(rows))
	for i, x := range rows {
		confidences[i] = x.confidence
	}
	r.noise = noiseECE(confidences)
	return r
}

// noiseECE simulates answers that are right exactly as often as their confidences say, and returns the mean ECE of 200 draws.
func noiseECE(confidences []float64) (mean float64) {
	const draws = 200
	rng := rand.New(rand.NewPCG(15, 1))
	for range draws {
		var gap [15]float64
		for _, p := range confidences {
			if gap[min(int(p*15), 14)] += p; rng.Float64() < p {
				gap[min(int(p*15), 14)]--
			}
		}
		for _, g := range gap {
			mean += math.Abs(g) / float64(len(confidences)) / draws
		}
	}
	return mean
}

func predictAll(m *Model, examples []task.Example) []task.Prediction {
	out := make([]task.Prediction, len(examples))
	for i := range examples {
		m.Predict(examples[i].Text, &out[i])
	}
	return out
}

func (r result) log(t *testing.T, name string) {
	t.Helper()
	t.Logf("%-28s accuracy %.4f  ECE %.4f (noise alone %.4f)  coverage at 95/97/98 %%: %.3f %.3f %.3f", name, r.accuracy, r.ece, r.noise, r.coverage[0], r.coverage[1], r.coverage[2])
}

// cpuSeconds is the user time of this process, which other processes disturb less than the clock.
func cpuSeconds(t testing.TB) float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return float64(usage.Utime.Nano()) / 1e9
}

// benchModel is trained on a part of BANKING77 in file order, which has few of the categories; the matrix has all 77 columns.
func benchModel(b *testing.B) *Model {
	rows := readExamples(b, "banking77/train.jsonl")
	fields, err := task.InferFields(rows)
	if err != nil {
		b.Fatal(err)
	}
	return train(b, fields, rows[:2000], Options{Seed: 1})
}

func BenchmarkDecode(b *testing.B) {
	file := benchModel(b).Encode(nil)
	b.SetBytes(int64(len(file)))
	began := cpuSeconds(b)
	for b.Loop() {
		if _, _, err := Decode(file); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(1e6*(cpuSeconds(b)-began)/float64(b.N), "cpu-us/op")
}

func BenchmarkPredict(b *testing.B) {
	m := benchModel(b)
	var p task.Prediction
	b.ReportAllocs()
	began := cpuSeconds(b)
	for b.Loop() {
		m.Predict("I tried to top up my account with a card but it failed", &p)
	}
	b.ReportMetric(1e6*(cpuSeconds(b)-began)/float64(b.N), "cpu-us/op")
}

// sampleModel is the model of the gateway's bench.
var sampleModel = sync.OnceValues(func() (*Model, error) {
	return Train(context.Background(), sample.Fields(), sample.Tickets(1, 2000), Options{Seed: 1})
})

// BenchmarkPredictFresh asks about one fresh text after the other: where one text is asked about again and again, as in BenchmarkPredict,
// its rows lie in the nearest cache and every branch is foretold.
func BenchmarkPredictFresh(b *testing.B) {
	m, err := sampleModel()
	if err != nil {
		b.Fatal(err)
	}
	var short, tickets, sixty, long, japanese []string
	var words []string // of tickets, joined until they are sixty: the sample's own have 29 on average
	for _, e := range sample.Tickets(7, 2000) {
		own := strings.Fields(e.Text)
		tickets, short = append(tickets, e.Text), append(short, strings.Join(own[:min(12, len(own))], " "))
		if words = append(words, own...); len(words) >= 60 {
			sixty, words = append(sixty, strings.Join(words[:60], " ")), words[:0]
		}
	}
	for i := 0; i+100 <= len(tickets); i += 100 {
		long = append(long, strings.Join(tickets[i:i+100], "\n")[:10<<10])
	}
	rng := rand.New(rand.NewPCG(3, 9))
	parts := []string{"返金", "を", "お願い", "します", "。", "荷物", "は", "どこ", "ですか", "注文", "番号", "12345", "が", "まだ", "届きません", "、", "ログイン", "できません", "パスワード", "忘れました"}
	for range 500 {
		text := ""
		for range 50 {
			text += parts[rng.IntN(len(parts))]
		}
		japanese = append(japanese, text)
	}
	for _, kind := range []struct {
		name  string
		texts []string
	}{{"tickets", tickets}, {"60words", sixty}, {"12words", short}, {"10kB", long}, {"japanese", japanese}} {
		b.Run(kind.name, func(b *testing.B) {
			var p task.Prediction
			for _, text := range kind.texts {
				m.Predict(text, &p)
			}
			b.ReportAllocs()
			next := 0
			began := cpuSeconds(b)
			for b.Loop() {
				m.Predict(kind.texts[next], &p)
				if next++; next == len(kind.texts) {
					next = 0
				}
			}
			b.ReportMetric(1e6*(cpuSeconds(b)-began)/float64(b.N), "cpu-us/op")
		})
	}
}

package lifecycle

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	generator "occam/internal/sample"
	"occam/internal/task"
)

// writeRows writes examples as JSON Lines.
func writeRows(t testing.TB, path string, n int, row func(i int) task.Example) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	enc := json.NewEncoder(w)
	for i := range n {
		e := row(i)
		if err := enc.Encode(map[string]any{"id": strconv.Itoa(i), "text": e.Text, "labels": e.Labels}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTrainLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets.jsonl")
	tickets := generator.Tickets(3, 1500)
	writeRows(t, path, len(tickets)+3, func(i int) task.Example { return tickets[i%len(tickets)] })
	const memory = 2 << 20
	if large, err := Large(path, memory); err != nil || !large {
		t.Fatal(large, err)
	}
	data, err := OpenData(path, 1, func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	fields, err := data.Fields()
	if err != nil {
		t.Fatal(err)
	}
	if wanted, _ := task.InferFields(tickets); !task.SameFields(fields, wanted) || data.Duplicates < 3 || len(data.Problems) > 0 {
		t.Fatalf("fields %v, %d duplicates, problems %v", fields, data.Duplicates, data.Problems)
	}
	triage := &task.Task{Name: "triage", Fields: fields, Target: task.Target{Promise: task.Served, Accuracy: .8, Confidence: .9}}
	trained, use, err := TrainLarge(context.Background(), TrainOptions{Task: triage, Seed: 1, Now: time.Now}, data, memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, %+v, accuracy %v", use, trained.Counts, trained.Evaluation.Accuracy)
	if trained.Certificate == nil || trained.Certificate.Split != "held-out" || trained.Evaluation.Fields["category"].Accuracy.Value < .6 {
		t.Errorf("certificate %+v (%v), evaluation %+v", trained.Certificate, trained.Shortfall, trained.Evaluation.Fields)
	}
	if use.Sample >= use.Examples/2 || trained.Counts.Train+trained.Counts.Calibration+trained.Counts.Test != data.Rows() {
		t.Errorf("use %+v of %d rows, counts %+v", use, data.Rows(), trained.Counts)
	}
}

func TestOpenDataFindsBadLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	lines := []string{`{"id":"a","text":"one","labels":{"c":"x"}}`, ``, `{"id":"a","text":"two","labels":{"c":"y"}}`, `no json`,
		`{"text":" ","labels":{"c":"x"}}`, `{"id":"b","text":"three","labels":{"c":"x"}}`, `{"id":"d","text":"one","labels":{"c":"x"}}`, "{\"text\":\"\xff\"}"}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	data, err := OpenData(path, 1, func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	var at []int
	for _, p := range data.Problems {
		at = append(at, p.Line)
	}
	if fmt.Sprint(at) != "[3 4 5 8]" || data.Rows() != 2 || data.Duplicates != 1 {
		t.Errorf("problems on lines %v, %d rows, %d duplicates", at, data.Rows(), data.Duplicates)
	}
	if _, err := OpenData("x.csv", 1, nil); err == nil || !strings.Contains(err.Error(), "--memory") {
		t.Errorf("CSV: %v", err)
	}
}

// TestMillion trains on a million texts of 500 words and says what memory the process took at most. Words fall off as in
// language; six of a text's words speak for its category, six for others at random.
func TestMillion(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") != "million" {
		t.Skip("set OCCAM_BENCH=million, or run make bench-million: 3.5 GB of disk")
	}
	rows := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("OCCAM_ROWS")); err == nil {
		rows = n
	}
	const memory = 4 << 30
	path := filepath.Join(t.TempDir(), "million.jsonl")
	writeRows(t, path, rows, longText())
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows, %.2f GB; peak memory so far %s", rows, float64(info.Size())/1e9, peakMemory())
	began := time.Now()
	stage := ""
	progress := func(s string, done, total int) {
		if mark := fmt.Sprint(s, 20*done/max(total, 1)); mark != stage {
			stage = mark
			t.Logf("%6.0f s  %s %d of %d  %s", time.Since(began).Seconds(), s, done, total, peakMemory())
		}
	}
	data, err := OpenData(path, 1, progress)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	fields, err := data.Fields()
	if err != nil {
		t.Fatal(err)
	}
	long := &task.Task{Name: "long", Fields: fields, Target: task.DefaultTarget}
	trained, use, err := TrainLarge(context.Background(), TrainOptions{Task: long, Seed: 1, Now: time.Now, Progress: progress}, data, memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f s, peak memory %s, %+v, %+v, accuracy %v, covers %v", time.Since(began).Seconds(), peakMemory(), use, trained.Counts, trained.Evaluation.Accuracy, trained.Evaluation.Coverage)
}

// peakMemory is the most memory that this process had resident, where the system tells.
func peakMemory() string {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

func longText() func(i int) task.Example {
	const words, categories, keys = 60_000, 50, 400
	rng := rand.New(rand.NewPCG(1, 500))
	word := make([]string, words)
	for i := range word {
		var b strings.Builder
		for range 1 + rng.IntN(4) {
			b.WriteString([]string{"ba", "den", "ki", "lor", "mu", "nes", "pa", "ri", "sto", "tan", "ve", "wi", "zu", "har", "gel", "foc"}[rng.IntN(16)])
		}
		word[i] = b.String()
	}
	key := func(category int) string { return word[2000+(category*keys+rng.IntN(keys))*7919%(words-2000)] }
	zipf := rand.NewZipf(rng, 1.05, 5, words-1)
	text := make([]string, 500)
	return func(i int) task.Example {
		category := rng.IntN(categories)
		for k := range text {
			text[k] = word[zipf.Uint64()]
		}
		for range 6 {
			text[rng.IntN(len(text))], text[rng.IntN(len(text))] = key(category), key(rng.IntN(categories))
		}
		return task.Example{Text: strings.Join(text, " "), Labels: task.Output{"category": task.String(fmt.Sprintf("category %02d", category))}}
	}
}

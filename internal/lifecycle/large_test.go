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

// Where few rows of a large file are labelled, none may be left to test or to calibrate on.
func TestTrainLargeOnFewLabels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tickets.jsonl")
	tickets := generator.Tickets(3, 400)
	for _, spare := range []float64{testShare, testShare + calibrationShare} {
		writeRows(t, path, len(tickets), func(i int) task.Example {
			e := tickets[i]
			if draw := task.Draw(1, e.Text); draw < spare+.1 && (spare == testShare || draw > testShare-.03) {
				e.Labels = nil
			}
			return e
		})
		data, err := OpenData(path, 1, func(string, int, int) {})
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		fields, err := data.Fields()
		if err != nil {
			t.Fatal(err)
		}
		triage := &task.Task{Name: "triage", Fields: fields, Target: task.DefaultTarget}
		_, _, err = TrainLarge(context.Background(), TrainOptions{Task: triage, Seed: 1, Now: time.Now}, data, 2<<20)
		if err == nil || !strings.Contains(err.Error(), "have every label") {
			t.Errorf("without labels below %v: %v", spare, err)
		}
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

// TestMillion trains on 10,000, 100,000 and a million made-up texts of 500 words, streamed from disk, and says what each is worth and what
// memory the process took at most. OCCAM_ROWS ends it at fewer. Words fall off as in language; see speaker for what can be learned of them.
func TestMillion(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") != "million" {
		t.Skip("set OCCAM_BENCH=million, or run make bench-million: 4 GB of disk")
	}
	most := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("OCCAM_ROWS")); err == nil {
		most = n
	}
	for rows := min(most, 10_000); ; rows = min(most, 10*rows) {
		t.Run(fmt.Sprint(rows), func(t *testing.T) { trainLong(t, rows) })
		if rows == most {
			return
		}
	}
}

func trainLong(t *testing.T, rows int) {
	const memory = 4 << 30
	path := filepath.Join(t.TempDir(), "long.jsonl")
	speaks := newSpeaker()
	writeRows(t, path, rows, speaks.example)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows, %.2f GB; who knows every word's meaning is right in %.1f %%", rows, float64(info.Size())/1e9, 100*speaks.ceiling())
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
	t.Logf("%d rows, simulated: %.0f s, peak memory %s, %+v, %+v, accuracy %v, covers %v", rows, time.Since(began).Seconds(), peakMemory(), use, trained.Counts, trained.Evaluation.Accuracy, trained.Evaluation.Coverage)
}

// peakMemory is the most memory that this process had resident, where the system tells.
func peakMemory() string {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line)
}

// A speaker makes up texts of 500 words of 50 categories. Each category has 300 words of its own, some common and most rare; a text has 14 of
// its category and 7 of another, among words that fall off as in language and are anybody's, and 2 labels in a hundred are another category's. So few rows
// teach the common words, and the rare ones take many.
type speaker struct {
	rng         *rand.Rand
	word        []string
	anyone, own *rand.Zipf
	text        []string
}

const (
	spokenWords, spokenCategories, ownWords = 60_000, 50, 300
	firstOwn                                = 2_000 // words before it are no category's own
)

func newSpeaker() *speaker {
	rng := rand.New(rand.NewPCG(1, 500))
	s := &speaker{rng: rng, text: make([]string, 500), anyone: rand.NewZipf(rng, 1.2, 5, spokenWords-1), own: rand.NewZipf(rng, 1.05, 20, ownWords-1)}
	syllables := []string{"ba", "den", "ki", "lor", "mu", "nes", "pa", "ri", "sto", "tan", "ve", "wi", "zu", "har", "gel", "foc"}
	for i := range spokenWords {
		word := ""
		for n := i; n > 0 || word == ""; n /= len(syllables) {
			word += syllables[n%len(syllables)]
		}
		s.word = append(s.word, word)
	}
	return s
}

// ownWord returns the number of a category's k-th word; no two are the same.
func ownWord(category, k int) int {
	return firstOwn + (category*ownWords+k)*7919%(spokenWords-firstOwn)
}

func (s *speaker) example(int) task.Example {
	category, other := s.rng.IntN(spokenCategories), s.rng.IntN(spokenCategories)
	for k := range s.text {
		s.text[k] = s.word[s.anyone.Uint64()]
	}
	for i, at := range s.rng.Perm(len(s.text))[:21] {
		of := category
		if i%3 == 2 {
			of = other
		}
		s.text[at] = s.word[ownWord(of, int(s.own.Uint64()))]
	}
	if s.rng.IntN(50) == 0 {
		category = other
	}
	return task.Example{Text: strings.Join(s.text, " "), Labels: task.Output{"category": task.String(fmt.Sprintf("category %02d", category))}}
}

// ceiling is the accuracy, on 2,000 fresh texts, of naming the category of which most own words stand in the text.
func (s *speaker) ceiling() float64 {
	const texts = 2_000
	of := map[string]string{}
	for c := range spokenCategories {
		for k := range ownWords {
			of[s.word[ownWord(c, k)]] = fmt.Sprintf("category %02d", c)
		}
	}
	right := 0
	for range texts {
		e := s.example(0)
		counts, best := map[string]int{}, ""
		for word := range strings.FieldsSeq(e.Text) {
			c := of[word]
			if counts[c]++; c != "" && counts[c] > counts[best] || best == "" {
				best = c
			}
		}
		if e.Labels["category"].Text() == best {
			right++
		}
	}
	return float64(right) / texts
}

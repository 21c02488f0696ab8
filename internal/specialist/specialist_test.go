package specialist

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"occam/internal/task"
)

// tickets makes n examples with all four kinds of field.
func tickets(n int) ([]task.Field, []task.Example) {
	fields := []task.Field{
		{Name: "topic", Kind: task.Category, Values: []string{"refund", "delivery", "login"}},
		{Name: "urgent", Kind: task.Boolean},
		{Name: "tags", Kind: task.Labels, Values: []string{"angry", "loyal"}},
		{Name: "order", Kind: task.Span, Nullable: true},
	}
	words := map[string][]string{
		"refund":   {"i want my money back", "please refund me", "when is my refund paid"},
		"delivery": {"where is my parcel", "the package has not arrived", "delivery is late"},
		"login":    {"i cannot log in", "my password is wrong", "reset my password"},
	}
	rng := rand.New(rand.NewPCG(7, 7))
	var examples []task.Example
	for i := range n {
		topic := fields[0].Values[rng.IntN(3)]
		text := words[topic][rng.IntN(3)]
		var tags []string
		if rng.IntN(2) == 0 {
			text += " this is outrageous"
			tags = append(tags, "angry")
		}
		if rng.IntN(2) == 0 {
			text = "as a customer of many years " + text
			tags = append(tags, "loyal")
		}
		urgent := rng.IntN(3) == 0
		if urgent {
			text += " immediately"
		}
		order := task.Null
		if rng.IntN(2) == 0 {
			id := fmt.Sprintf("%05d", rng.IntN(100000))
			text += " order " + id
			order = task.String(id)
		}
		text += fmt.Sprintf(" phone %d", 1000000+rng.IntN(1000000))
		examples = append(examples, task.Example{ID: fmt.Sprint(i), Text: text, Labels: task.Output{
			"topic": task.String(topic), "urgent": task.Bool(urgent), "tags": task.Set(tags...), "order": order,
		}})
	}
	return fields, examples
}

func train(t testing.TB, fields []task.Field, examples []task.Example, opt Options) *Model {
	t.Helper()
	m, err := Train(context.Background(), fields, examples, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTrainAllKinds(t *testing.T) {
	fields, examples := tickets(500)
	m := train(t, fields, examples[:400], Options{})
	var p task.Prediction
	wrong := 0
	for _, e := range examples[400:] {
		m.Predict(e.Text, &p)
		if !p.Right(fields, e.Labels) {
			wrong++
		}
		if !(p.Confidence >= 0 && p.Confidence <= 1) || math.IsNaN(p.Score) || math.IsNaN(p.InScope) {
			t.Fatalf("prediction of %q: %+v", e.Text, p)
		}
	}
	if wrong > 3 {
		t.Errorf("%d of 100 easy tickets are wrong", wrong)
	}
}

func TestSameBytesOnAnyNumberOfWorkers(t *testing.T) {
	fields, examples := tickets(120)
	one := train(t, fields, examples, Options{Seed: 5, Workers: 1}).Encode(nil)
	many := train(t, fields, examples, Options{Seed: 5, Workers: 7}).Encode(nil)
	if !bytes.Equal(one, many) {
		t.Error("1 and 7 workers give different models")
	}
}

func TestCrossFitIsOutOfFold(t *testing.T) {
	fields, examples := tickets(300)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range examples { // labels at random: only a leak could predict them
		examples[i].Labels = task.Output{"topic": task.String(fields[0].Values[rng.IntN(3)])}
		examples[i].Text += fmt.Sprint(" ", rng.Uint64()) // memorable
	}
	predictions, err := CrossFit(context.Background(), fields[:1], examples, 5, Options{})
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i := range predictions {
		if predictions[i].Right(fields[:1], examples[i].Labels) {
			right++
		}
	}
	if right > 135 { // 100 expected, sd 8
		t.Errorf("%d of 300 random labels are predicted", right)
	}
}

// TestSpanRulesAreOutOfFold: marks that the labels of one fold alone have are not known to the model that leaves it out.
func TestSpanRulesAreOutOfFold(t *testing.T) {
	fields, examples := tickets(200)
	odd := "AX/2024/00017"
	examples[40].Text, examples[40].Labels = "where is my parcel order "+odd, task.Output{"order": task.String(odd)}
	tr, err := newTrainer(context.Background(), fields[3:], examples, 5, Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(tr.spans[0].rules.Inner, "/") {
		t.Fatal("the rules of all labels do not have the mark")
	}
	for pass := range tr.folds {
		rules := tr.spanRules(0, func(i int) bool { return tr.uses(pass, i) })
		if knows := strings.Contains(rules.Inner, "/"); knows != (int(tr.fold[40]) != pass) {
			t.Errorf("pass %d, the label in fold %d: it knows the mark: %v", pass, tr.fold[40], knows)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	fields, examples := tickets(200)
	m := train(t, fields, examples, Options{})
	file := m.Encode(json.RawMessage(`{"task":"tickets"}`))
	for shift := range 3 { // aligned and not
		data := append(make([]byte, shift), file...)[shift:]
		again, meta, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if string(meta) != `{"task":"tickets"}` || again.Hash() != m.Hash() {
			t.Errorf("meta %s, hash %s, want %s", meta, again.Hash(), m.Hash())
		}
		var p, q task.Prediction
		for _, e := range examples[:50] {
			m.Predict(e.Text, &p)
			again.Predict(e.Text, &q)
			if fmt.Sprint(p) != fmt.Sprint(q) {
				t.Fatalf("%q: %v before, %v after", e.Text, p, q)
			}
		}
	}
	if other := m.Encode(json.RawMessage(`{}`)); bytes.Equal(other, file) {
		t.Error("the file does not hold the meta section")
	}
}

func TestDecodeRefusesDamage(t *testing.T) {
	fields, examples := tickets(100)
	file := train(t, fields, examples, Options{}).Encode(nil)
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		bad := bytes.Clone(file)
		bad[rng.IntN(len(bad))] ^= byte(1 + rng.IntN(255))
		if _, _, err := Decode(bad); err == nil {
			t.Fatal("a changed byte goes unnoticed")
		}
	}
	for _, n := range []int{0, 1, 7, 63, 64, 100, len(file) / 2, len(file) - 1} {
		if _, _, err := Decode(file[:n]); err == nil {
			t.Errorf("a file cut to %d bytes is accepted", n)
		}
	}
	if _, _, err := Decode(append(bytes.Clone(file), 0)); err == nil {
		t.Error("a file with a byte too many is accepted")
	}
	newer := bytes.Clone(file)
	newer[8] = 99
	if _, _, err := Decode(newer); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("a newer file: %v", err)
	}
}

func TestTrainRefusesBadLabels(t *testing.T) {
	fields, examples := tickets(20)
	examples[3].Labels["topic"] = task.String("Refund")
	_, err := Train(context.Background(), fields, examples, Options{})
	if err == nil || !strings.Contains(err.Error(), `"3"`) || !strings.Contains(err.Error(), "Refund") {
		t.Errorf("a label outside the schema: %v", err)
	}
	if _, err := Train(context.Background(), fields, examples[:0], Options{}); err == nil {
		t.Error("no examples are accepted")
	}
	if _, err := Train(context.Background(), nil, examples, Options{}); err == nil {
		t.Error("no fields are accepted")
	}
}

func TestTrainReportsSpansThatDoNotOccur(t *testing.T) {
	fields, examples := tickets(60)
	examples[7].Labels["order"] = task.String("nowhere-1")
	var warnings []Warning
	train(t, fields, examples, Options{Warn: func(w Warning) { warnings = append(warnings, w) }})
	if len(warnings) != 1 || len(warnings[0].Examples) != 1 || warnings[0].Examples[0] != 7 || warnings[0].Field != "order" {
		t.Errorf("warnings: %+v", warnings)
	}
}

func TestTinyAndLopsidedData(t *testing.T) {
	fields := []task.Field{{Name: "c", Kind: task.Category, Values: []string{"a", "b"}}}
	example := func(text, label string) task.Example {
		return task.Example{Text: text, Labels: task.Output{"c": task.String(label)}}
	}
	for name, examples := range map[string][]task.Example{
		"one":          {example("x", "a")},
		"two":          {example("x", "a"), example("y", "b")},
		"one category": {example("x", "a"), example("y", "a"), example("z z", "a")},
		"same text":    {example("x", "a"), example("x", "b"), example("x", "a")},
		"empty text":   {example("", "a"), example(" \n", "b")},
		"unlabelled":   {example("x", "a"), {Text: "y"}, {Text: "z"}},
	} {
		m := train(t, fields, examples, Options{})
		var p task.Prediction
		for _, text := range []string{"", "x", "\x00\xff\u200f", strings.Repeat("long text ", 100_000), strings.Repeat("あ", 300_000)} {
			m.Predict(text, &p)
			if math.IsNaN(p.Score) || math.IsNaN(p.Confidence) || math.IsNaN(p.InScope) {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

func TestTrainStopsWithItsContext(t *testing.T) {
	fields, examples := tickets(50)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Train(ctx, fields, examples, Options{}); err == nil {
		t.Error("a cancelled context trains on")
	}
}

func FuzzDecode(f *testing.F) {
	fields, examples := tickets(30)
	rng := rand.New(rand.NewPCG(5, 5))
	for _, few := range [][]task.Field{fields, fields[:1], fields[3:]} { // every kind; nothing but categories; nothing but spans
		m := train(f, few, examples, Options{})
		f.Add(m.Encode(nil))
		m.Keep(examples[:3])
		file := m.Encode(json.RawMessage(`{"a":1}`))
		f.Add(file)
		f.Add(file[:headerSize])
		for range 8 {
			f.Add(mutate(rng, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := Decode(reseal(data))
		if err != nil {
			return
		}
		var p task.Prediction
		m.Predict("where is order 12345?", &p)
		m.Explain("where is order 12345?")
		m.Alike("where is order 12345?", 2)
	})
}

// TestDecodeOfMutatedFiles mends the checksums of mutated files, so that what lies behind them is tried, and bounds what is allocated.
func TestDecodeOfMutatedFiles(t *testing.T) {
	fields, examples := tickets(40)
	file := train(t, fields, examples, Options{}).Encode(json.RawMessage(`{"a":1}`))
	rng := rand.New(rand.NewPCG(4, 4))
	accepted := 0
	var before, after runtime.MemStats
	for range 150 {
		bad := mutate(rng, file)
		runtime.ReadMemStats(&before)
		m, _, err := Decode(bad)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(4*len(bad)+1<<20) {
			t.Errorf("a file of %d bytes made Decode allocate %d", len(bad), used)
		}
		if err != nil {
			continue
		}
		accepted++
		var p task.Prediction
		m.Predict("where is order 12345?", &p)
	}
	t.Logf("%d of 150 decode all the same", accepted)
	if accepted == 0 {
		t.Error("no mutation gets behind the checksums: this tests nothing")
	}
}

// mutate changes a few bytes of a file, most often of its table and description, and mends its checksums.
func mutate(rng *rand.Rand, file []byte) []byte {
	bad := bytes.Clone(file)
	end := min(headerSize+entrySize*16+2500, len(bad))
	if rng.IntN(4) == 0 {
		end = len(bad)
	}
	for range 1 + rng.IntN(4) {
		bad[8+rng.IntN(end-8)] = byte(rng.IntN(256))
	}
	binary.LittleEndian.PutUint32(bad[8:], formatVersion)
	return reseal(bad)
}

func FuzzPredict(f *testing.F) {
	fields, examples := tickets(100)
	m := train(f, fields, examples, Options{})
	f.Add("where is my parcel 12345")
	f.Add("\u200f\u0000\xff")
	f.Fuzz(func(t *testing.T, text string) {
		var p task.Prediction
		m.Predict(text, &p)
		for i, v := range p.Values {
			if err := fields[i].Check(v); err != nil {
				t.Error(err)
			}
			if !fields[i].StandsIn(v, text) {
				t.Errorf("%q does not stand in %q", v.Text(), text)
			}
		}
	})
}

// reseal corrects the length, checksum and hash of a mutated file, so that fuzzing gets past them.
func reseal(data []byte) []byte {
	if len(data) < headerSize {
		return data
	}
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
	for range 2 {
		binary.LittleEndian.PutUint32(data[24:], crc32.Checksum(data[28:], castagnoli))
		sections, err := readSections(data)
		if err != nil {
			return data
		}
		if m, err := assemble(sections); err == nil {
			copy(data[32:64], hashSections(m.sections()))
		}
	}
	return data
}

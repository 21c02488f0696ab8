//go:build unix

package specialist

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"occam/internal/sample"
	"occam/internal/task"
)

func TestWarmStart(t *testing.T) {
	fields := sample.Fields()
	examples := sample.Tickets(21, 900)
	few := fields[0]
	few.Values = few.Values[3:] // the earlier model does not know three of the categories
	known := slices.DeleteFunc(slices.Clone(examples[:600]), func(e task.Example) bool { return few.Check(e.Labels[few.Name]) != nil })
	earlier := train(t, []task.Field{few, fields[1]}, known, Options{Seed: 1})
	file, _, err := Decode(earlier.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	before := cpuSeconds(t)
	warm := train(t, fields, examples, Options{Seed: 1, WarmStart: file})
	warmSeconds := cpuSeconds(t) - before
	before = cpuSeconds(t)
	cold := train(t, fields, examples, Options{Seed: 1})
	coldSeconds := cpuSeconds(t) - before
	fresh := sample.Tickets(22, 2000)
	w, c := evaluate(fields, -1, predictAll(warm, fresh), fresh), evaluate(fields, -1, predictAll(cold, fresh), fresh)
	w.log(t, "warm")
	c.log(t, "cold")
	t.Logf("CPU seconds: warm %.2f, cold %.2f", warmSeconds, coldSeconds)
	if w.accuracy < c.accuracy-.02 || w.ece > c.ece+.03 || warmSeconds > coldSeconds*2/3 {
		t.Errorf("a warm start costs accuracy or calibration, or saves no work")
	}
	if again := train(t, fields, examples, Options{Seed: 1, Workers: 3, WarmStart: file}); !bytes.Equal(again.Encode(nil), warm.Encode(nil)) {
		t.Error("the same warm start gives another model")
	}
	if _, err := Train(context.Background(), fields[:1], examples, Options{WarmStart: file}); err == nil || !strings.Contains(err.Error(), "earlier model") {
		t.Errorf("other fields: %v", err)
	}
}

// TestWarmStartBanking77: a fifth of the rows and seven categories are new since the earlier model.
func TestWarmStartBanking77(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("set OCCAM_BENCH=1 to measure on the public data sets")
	}
	rows, test := readExamples(t, "banking77/train.jsonl"), readExamples(t, "banking77/test.jsonl")
	fields, err := task.InferFields(rows)
	if err != nil {
		t.Fatal(err)
	}
	old := slices.Clone(rows)
	rand.New(rand.NewPCG(8, 8)).Shuffle(len(old), func(i, j int) { old[i], old[j] = old[j], old[i] })
	fewer := fields[0]
	fewer.Values = fewer.Values[7:]
	fewerFields := append([]task.Field{fewer}, fields[1:]...)
	measure := func(name string, fields []task.Field, rows []task.Example, earlier *Model) *Model {
		before := cpuSeconds(t)
		m := train(t, fields, rows, Options{Seed: 1, WarmStart: earlier})
		t.Logf("%s: %.1f CPU seconds", name, cpuSeconds(t)-before)
		if len(fields[0].Values) == 77 {
			evaluate(fields, -1, predictAll(m, test), test).log(t, name)
		}
		return m
	}
	same := measure("earlier, 8,000 rows", fields, old[:8000], nil)
	less := measure("earlier, 70 categories", fewerFields, slices.DeleteFunc(slices.Clone(old[:8000]), func(e task.Example) bool { return fewer.Check(e.Labels[fewer.Name]) != nil }), nil)
	measure("cold", fields, rows, nil)
	measure("warm, same categories", fields, rows, same)
	measure("warm, 7 new categories", fields, rows, less)
}

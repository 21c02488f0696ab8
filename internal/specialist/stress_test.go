//go:build unix

package specialist

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"occam/internal/task"
)

// idShapes write a random order ID that looks like something else in the same texts.
var idShapes = map[string]func(rng *rand.Rand) string{
	"account": func(rng *rand.Rand) string {
		return randomOf(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 9) + fmt.Sprint(rng.IntN(10))
	},
	"zip": func(rng *rand.Rand) string { return randomOf(rng, "0123456789", 5) },
	"mixed": func(rng *rand.Rand) string {
		switch rng.IntN(4) {
		case 0:
			return randomOf(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 2) + "-" + randomOf(rng, "0123456789", 4+rng.IntN(3))
		case 1:
			return randomOf(rng, "0123456789", 3) + "-" + randomOf(rng, "0123456789", 7)
		case 2:
			return randomOf(rng, "0123456789", 5)
		default:
			return randomOf(rng, "0123456789", 10)
		}
	},
}

func randomOf(rng *rand.Rand, alphabet string, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(alphabet[rng.IntN(len(alphabet))])
	}
	return b.String()
}

// withOtherIDs rewrites every order ID, in the text and in the label.
func withOtherIDs(examples []task.Example, shape func(*rand.Rand) string, seed uint64) []task.Example {
	rng := rand.New(rand.NewPCG(seed, 11))
	out := make([]task.Example, len(examples))
	for i, e := range examples {
		id := e.Labels["order_id"]
		if !id.IsNull() {
			other := shape(rng)
			e.Text = strings.ReplaceAll(e.Text, id.Text(), other)
			id = task.String(other)
		}
		e.Labels = task.Output{"order_id": id}
		out[i] = e
	}
	return out
}

// TestOrderIDs extracts the order IDs of real chats: as they are, with few labels, and rewritten to the shapes of account
// numbers, zip codes and several forms at once, in train and test alike.
func TestOrderIDs(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	trainRows, testRows := readExamples(t, "abcd/train.jsonl"), readExamples(t, "abcd/test.jsonl")
	fields := []task.Field{{Name: "order_id", Kind: task.Span, Nullable: true}}
	exact := func(trainRows, testRows []task.Example) float64 {
		predictions := predictAll(train(t, fields, trainRows, Options{Seed: 1}), testRows)
		return evaluate(fields, 0, predictions, testRows).accuracy
	}
	check := func(name string, got, want float64) {
		t.Logf("%-10s %.4f", name, got)
		if got < want {
			t.Errorf("%s: %.4f exact, at least %.3f expected", name, got, want)
		}
	}
	check("as they are", exact(trainRows, testRows), .99)
	check("100 labels", exact(trainRows[:100], testRows), .98)
	for name, shape := range idShapes {
		check(name, exact(withOtherIDs(trainRows, shape, 1), withOtherIDs(testRows, shape, 2)), .98)
	}
}

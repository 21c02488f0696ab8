package specialist

import (
	"fmt"
	"strings"
	"testing"
)

// longText is a text of size bytes, no two of whose words are alike.
func longText(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "w%dx%d order %05d, ", i*7919, i*104729, i%100000)
	}
	return b.String()[:size]
}

// TestLongTextsHaveABoundedCost counts the work of a prediction, which no machine makes faster or slower: features and span candidates
// stop growing at maxText.
func TestLongTextsHaveABoundedCost(t *testing.T) {
	fields, examples := tickets(200)
	for i, size := range []int{10 << 10, maxText, 1 << 20} { // long ones in training too
		examples[i].Text += " " + longText(size)
	}
	m := train(t, fields, examples, Options{})
	type work struct{ features, tokens, slots, atoms, candidates int }
	measure := func(size int) work {
		var x extractor
		var s spanScanner
		text := longText(size)
		x.extract(text)
		m.spans[3].prepare(&s, text)
		return work{len(x.features), len(x.tokens), len(x.slots), len(s.atoms), len(s.candidates)}
	}
	ten, full, mega := measure(10<<10), measure(maxText), measure(1<<20)
	t.Logf("10 kB: %+v; %d kB: %+v; 1 MB: %+v", ten, maxText>>10, full, mega)
	if ten.features < 5000 || ten.candidates < 100 {
		t.Errorf("10 kB has %+v: this tests nothing", ten)
	}
	near := func(a, b int) bool { return a <= b+b/20 } // the cut moves a word or two, and rare words are a little longer
	if !near(mega.features, full.features) || !near(mega.tokens, full.tokens) || !near(mega.slots, full.slots) || !near(mega.atoms, full.atoms) || mega.candidates > maxCandidates+4*maxSpanAtoms {
		t.Errorf("a megabyte costs more than %d kB", maxText>>10)
	}
}

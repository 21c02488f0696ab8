package datacheck

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"occam/internal/sample"
)

func mustIndex(t testing.TB, texts []string) *nearIndex {
	t.Helper()
	x, err := findNear(context.Background(), texts, 2)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// A copy with one word changed, added or left out is found among thousands of other texts; unrelated texts are not.
func TestFindsTextsThatDifferByAWord(t *testing.T) {
	var texts []string
	for _, e := range sample.Tickets(9, 3000) {
		if len(strings.Fields(e.Text)) >= 15 {
			texts = append(texts, e.Text)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	n := len(texts)
	for i := range 300 {
		words := strings.Fields(texts[i])
		at := rng.IntN(len(words))
		switch i % 3 {
		case 0:
			words[at] = "zebra"
		case 1:
			words = slices.Insert(words, at, "zebra")
		case 2:
			words = slices.Delete(words, at, at+1)
		}
		texts = append(texts, strings.Join(words, " "))
	}
	x := mustIndex(t, texts)
	missed := 0
	for i := range 300 {
		if row, similarity := x.firstBelow(x.of[n+i], int32(n)); row < 0 || similarity < nearJaccard {
			missed++
		}
	}
	t.Logf("%d of 300 missed among %d texts", missed, n)
	if missed > 6 {
		t.Errorf("%d of 300 changed copies are not found", missed)
	}
}

// Sampling does not hide that two long texts are nearly the same, nor make different ones so.
func TestLongTexts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	long := func() []string {
		words := make([]string, 3000)
		for i := range words {
			words[i] = fmt.Sprint("w", rng.IntN(5000))
		}
		return words
	}
	a, b := long(), long()
	changed := slices.Clone(a)
	changed[1500] = "zebra"
	letters := func(words []string) string { // digits all look the same to a near-key
		return strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j").Replace(strings.Join(words, " "))
	}
	x := mustIndex(t, []string{letters(a), letters(changed), letters(b)})
	similarity := func(i, j int) float32 { return jaccard(x.wordings[i].features, x.wordings[j].features) }
	if similarity(0, 1) < 0.95 || similarity(0, 2) > 0.5 {
		t.Errorf("similar %.2f, different %.2f", similarity(0, 1), similarity(0, 2))
	}
}

func TestJaccard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 60), 0, 40, rapid.ID)
		a, b := set.Draw(t, "a"), set.Draw(t, "b")
		slices.Sort(a)
		slices.Sort(b)
		common := 0
		for _, v := range a {
			if slices.Contains(b, v) {
				common++
			}
		}
		want := float32(0)
		if union := len(a) + len(b) - common; union > 0 {
			want = float32(common) / float32(union)
		}
		if got := jaccard(a, b); got != want || jaccard(b, a) != got {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// Rows of a cluster are in no other, and every cluster has texts near its first.
func TestClusters(t *testing.T) {
	texts := textsOf(sample.Tickets(12, 800), sample.Tickets(12, 20))
	seen := map[int]bool{}
	for _, c := range mustIndex(t, texts).clusters(800) {
		if len(c.rows) < 2 || c.least < nearJaccard {
			t.Errorf("cluster %+v", c)
		}
		for _, row := range c.rows {
			if row >= 800 || seen[row] {
				t.Errorf("row %d is of the reference, or in two clusters", row)
			}
			seen[row] = true
		}
	}
}

// findSegments finds what trying every run finds.
func TestFindSegments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		evidence := rapid.SliceOfN(rapid.Float64Range(-2, 2), 0, 40).Draw(t, "evidence")
		bar := rapid.Float64Range(0.5, 6).Draw(t, "bar")
		best := 0.0
		for i := range evidence {
			sum := 0.0
			for _, e := range evidence[i:] {
				sum += e
				best = max(best, sum)
			}
		}
		found := findSegments(evidence, bar)
		if (best >= bar) != (len(found) > 0) {
			t.Fatalf("best run %.3f, bar %.3f, found %v", best, bar, found)
		}
		top, end := 0.0, 0
		for _, s := range found {
			if s.from < end || s.score < bar {
				t.Fatalf("runs overlap or fall short: %v", found)
			}
			end, top = s.to, max(top, s.score)
		}
		if len(found) > 0 && math.Abs(top-best) > 1e-9 {
			t.Fatalf("the best run has %.6f, found %.6f", best, top)
		}
	})
}

// Scattered doubtful labels make a block no more often than promised.
func TestNoBlockByChance(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	const n, rate, files = 2000, 0.12, 2000
	alarms := 0
	evidence := make([]float64, n)
	q := (1 + rate) / 2
	for range files {
		for i := range evidence {
			if evidence[i] = math.Log((1 - q) / (1 - rate)); rng.Float64() < rate {
				evidence[i] = math.Log(q / rate)
			}
		}
		if len(findSegments(evidence, math.Log(n/blockAlarm))) > 0 {
			alarms++
		}
	}
	if alarms > 6 { // 2 expected at most; more than 6 has probability below 0.005
		t.Errorf("%d of %d files without a block show one, the promise is %v", alarms, files, blockAlarm)
	}
}

func TestBayesError(t *testing.T) {
	for _, c := range []struct{ differ, k, want float64 }{{0, 77, 0}, {0.1, 2, 0.0528}, {0.1, 77, 0.0513}, {1, 2, 0.5}} {
		if got := bayesError(c.differ, c.k); math.Abs(got-c.want) > 1e-3 {
			t.Errorf("bayesError(%v, %v) = %v, want %v", c.differ, c.k, got, c.want)
		}
	}
}

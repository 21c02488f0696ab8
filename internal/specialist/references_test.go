//go:build unix

package specialist

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"occam/internal/task"
)

// linearSVC is what scikit-learn's manual would have one do: words and characters by tf-idf, one linear SVM a class.
const linearSVC = `
import json, sys
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC
def read(path):
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    return [r["text"] for r in rows], [r["labels"]["category"] for r in rows]
x, y = read(sys.argv[1])
views = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True))
model = make_pipeline(views, LinearSVC()).fit(x, y)
print("%.4f" % model.score(*read(sys.argv[2])))
`

// TestReferences measures the usual tools on the same splits, where they are installed (Debian: python3-sklearn, fasttext).
func TestReferences(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("set OCCAM_BENCH=1 to measure on the public data sets")
	}
	left := fastTextPatience
	for _, set := range []string{"abcd", "banking77", "clinc150"} { // the smallest first: fastText may not come to the last
		trainPath, testPath := filepath.Join(dataDir(t), set, "train.jsonl"), filepath.Join(dataDir(t), set, "test.jsonl")
		t.Run("LinearSVC/"+set, func(t *testing.T) {
			python := "/usr/bin/python3" // Debian's, which finds Debian's packages whatever else is on PATH
			if exec.Command(python, "-c", "import sklearn").Run() != nil {
				t.Skip("python3-sklearn is not installed")
			}
			out, err := exec.CommandContext(t.Context(), python, "-c", linearSVC, trainPath, testPath).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("accuracy %s", out)
		})
		t.Run("fastText/"+set, func(t *testing.T) {
			program, err := exec.LookPath("fasttext")
			if err != nil {
				t.Skip("fasttext is not installed")
			}
			dir := t.TempDir()
			fastTextFile(t, filepath.Join(dir, "train"), readExamples(t, set+"/train.jsonl"))
			fastTextFile(t, filepath.Join(dir, "test"), readExamples(t, set+"/test.jsonl"))
			began := time.Now()
			patience, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			learn := exec.CommandContext(patience, program, "supervised", "-input", filepath.Join(dir, "train"), "-output", filepath.Join(dir, "model"),
				"-wordNgrams", "2", "-minn", "2", "-maxn", "5", "-epoch", "50", "-lr", "0.5", "-dim", "100", "-thread", "2", "-bucket", "200000")
			out, err := learn.CombinedOutput()
			left -= time.Since(began)
			if patience.Err() != nil {
				t.Skipf("skipped: fastText did not train its 50 epochs in what was left of %v for all sets", fastTextPatience)
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			out, err = exec.CommandContext(t.Context(), program, "test", filepath.Join(dir, "model.bin"), filepath.Join(dir, "test")).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("%s", strings.Join(strings.Fields(string(out)), " "))
		})
	}
}

// fastTextPatience is how long the reference may train on all sets together, so that a slow machine still measures the rest.
const fastTextPatience = 10 * time.Minute

var noWord = regexp.MustCompile(`[^\pL\pN]+`)

// fastTextFile writes examples the way fastText reads them.
func fastTextFile(t *testing.T, path string, examples []task.Example) {
	t.Helper()
	var b strings.Builder
	for _, e := range examples {
		label := noWord.ReplaceAllString(e.Labels["category"].Text(), "_")
		text := noWord.ReplaceAllString(strings.ToLower(e.Text), " ")
		fmt.Fprintf(&b, "__label__%s %s\n", label, text)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

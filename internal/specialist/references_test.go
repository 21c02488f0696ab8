//go:build unix

package specialist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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
print("%.1f" % (100 * model.score(*read(sys.argv[2]))))
`

// references measures the usual tools on a data set, where they are installed (make bench-specialist installs Debian's python3-sklearn and
// fasttext).
func (b *benchmark) references(s bar) {
	trainPath, testPath := filepath.Join(dataDir(b), s.name, "train.jsonl"), filepath.Join(dataDir(b), s.name, "test.jsonl")
	measure := func(name string, run func() (accuracy string, err error)) {
		began := time.Now()
		accuracy, err := run()
		if err != nil {
			accuracy = "not measured: " + err.Error()
		}
		b.say("%s: %s %s", s.name, name, accuracy)
		if err == nil {
			b.others[s.name] = append(b.others[s.name], fmt.Sprintf("%s %s (%.0f s)", name, accuracy, time.Since(began).Seconds()))
		}
	}
	measure("LinearSVC", func() (string, error) { // by Debian's Python, which finds Debian's packages whatever else is on PATH
		return output(exec.CommandContext(b.Context(), "/usr/bin/python3", "-c", linearSVC, trainPath, testPath))
	})
	measure("fastText", func() (string, error) {
		dir, rows := b.TempDir(), readExamples(b, s.name+"/train.jsonl")
		fastTextFile(b, filepath.Join(dir, "train"), rows)
		fastTextFile(b, filepath.Join(dir, "test"), readExamples(b, s.name+"/test.jsonl"))
		patience, cancel := context.WithTimeout(b.Context(), fastTextPatience)
		defer cancel()
		if _, err := output(exec.CommandContext(patience, "fasttext", "supervised", "-input", filepath.Join(dir, "train"), "-output", filepath.Join(dir, "model"),
			"-wordNgrams", "2", "-minn", "2", "-maxn", "5", "-epoch", strconv.Itoa(max(30, fastTextSteps/len(rows))), "-lr", "0.5", "-dim", "100", "-thread", "2", "-bucket", "200000", "-verbose", "0")); patience.Err() != nil {
			return "", fmt.Errorf("it did not learn in %v", fastTextPatience)
		} else if err != nil {
			return "", err
		}
		out, err := output(exec.CommandContext(b.Context(), "fasttext", "test", filepath.Join(dir, "model.bin"), filepath.Join(dir, "test")))
		if found := precision.FindStringSubmatch(out); err == nil && found != nil {
			share, err := strconv.ParseFloat(found[1], 64)
			return fmt.Sprintf("%.1f", 100*share), err
		}
		return "", cmp.Or(err, fmt.Errorf("it printed %q", out))
	})
}

// precision finds the share of right answers in what fasttext test prints.
var precision = regexp.MustCompile(`P@1\s+([0-9.]+)`)

// output runs a program and returns what it printed, without the spaces around it.
func output(program *exec.Cmd) (string, error) {
	out, err := program.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// fastTextPatience is how long the reference may train on one data set, so that a slow machine still measures the rest.
const fastTextPatience = 3 * time.Minute

// fastTextSteps is how many examples it is shown, so that it learns as much from a small set.
const fastTextSteps = 500_000

var noWord = regexp.MustCompile(`[^\pL\pN]+`)

// fastTextFile writes examples the way fastText reads them.
func fastTextFile(t testing.TB, path string, examples []task.Example) {
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

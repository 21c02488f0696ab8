package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"occam/internal/cli"
	"occam/internal/sample"
	"occam/internal/task"
)

// elsewhere names, for commands that cannot run inside this test, the file and the text in it that runs them.
var elsewhere = map[string][2]string{
	"go run . demo": {"internal/cli/cli_test.go", "func TestDemoOnce("},
	"make test":     {".ci/run", "make test"},
	`go build -o occam . && export PATH="$PWD:$PATH"`: {"Makefile", "go build"},
	"occam serve":        {"testdata/script/serve.txtar", "occam serve"},
	"occam batches list": {"internal/cli/batches_test.go", `"batches", "list"`},
}

// TestDocumentedCommands runs every command that a `console` block of the README or the docs shows, in a folder that holds what
// the texts speak of. A documented command that fails is a broken promise.
func TestDocumentedCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model for every page that shows it")
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md")
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			commands := documentedCommands(t, filepath.Join(root, page))
			if len(commands) == 0 {
				return
			}
			sandbox(t)
			for _, command := range commands {
				if where, covered := elsewhere[command]; covered {
					mustHold(t, filepath.Join(root, where[0]), where[1])
					continue
				}
				runDocumented(t, command)
			}
		})
	}
}

func runDocumented(t *testing.T, command string) {
	t.Helper()
	args, isOccam := strings.CutPrefix(command, "occam ")
	if !isOccam {
		t.Errorf("%q is run by no test: name one in docs_test.go, or show it as text", command)
		return
	}
	var out bytes.Buffer
	if code := cli.Run(context.Background(), strings.Fields(args), strings.NewReader(""), &out, &out); code != 0 {
		t.Errorf("%q exits with %d:\n%s", command, code, out.String())
	}
}

var consoleBlock = regexp.MustCompile("(?ms)^```console\n(.*?)^```")

func documentedCommands(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, block := range consoleBlock.FindAllSubmatch(text, -1) {
		for line := range strings.SplitSeq(string(block[1]), "\n") {
			if command, ok := strings.CutPrefix(line, "$ "); ok && !slices.Contains(commands, command) {
				commands = append(commands, strings.TrimSpace(command))
			}
		}
	}
	return commands
}

// sandbox makes a folder with the files that the docs speak of and moves into it.
func sandbox(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, seed := range map[string]uint64{"tickets.jsonl": 1, "train.jsonl": 1, "test.jsonl": 2} {
		var b bytes.Buffer
		for _, e := range sample.Tickets(seed, 1200) {
			line, err := json.Marshal(map[string]any{"id": e.ID, "text": e.Text, "labels": map[string]task.Value(e.Labels)})
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mustHold(t *testing.T, path, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(text)) {
		t.Errorf("%s should hold %q: %v", path, text, err)
	}
}

// TestLinks: every relative link of the README and the docs leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			to := filepath.Join(filepath.Dir(page), string(m[1]))
			if len(m[1]) == 0 {
				to = page
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			} else if anchor := string(m[2]); anchor != "" && !slices.Contains(anchors(t, to), anchor) {
				t.Errorf("%s links to %s#%s, and there is no such heading", page, to, anchor)
			}
			linked[to] = true
		}
	}
	for _, page := range pages {
		if !linked[page] {
			t.Errorf("no page links to %s", page)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

// anchors are the names of a page's headings, as its links write them.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, strings.ToLower(m[1])))
	}
	return all
}

// TestMakeTargets: every make command that a page names is in the Makefile, and every benchmark of the Makefile is on a page.
func TestMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	for _, m := range regexp.MustCompile("`make ([a-z-]+)").FindAllSubmatch(all, -1) {
		if !regexp.MustCompile(`(?m)^` + string(m[1]) + `:`).Match(makefile) {
			t.Errorf("a page names make %s, which is not in the Makefile", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^(bench[a-z-]*|faults|chaos|proof[a-z-]*):`).FindAllSubmatch(makefile, -1) {
		if !bytes.Contains(all, []byte("`make "+string(m[1])+"`")) {
			t.Errorf("no page names make %s", m[1])
		}
	}
}

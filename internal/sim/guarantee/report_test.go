package guarantee

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeSection replaces what stands between two markers in docs/guarantees.md by what was measured.
func writeSection(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("..", "..", "..", "docs", "guarantees.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- measured: %s -->\n", name), "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no section between %q and %q", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(before+begin+"\n"+strings.TrimSpace(text)+"\n\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text)
}

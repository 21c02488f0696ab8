package cli

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestGroupMemory(t *testing.T) {
	for name, c := range map[string]struct {
		groups string
		files  map[string]string
		want   int64
	}{
		"version 2":                         {"0::/app\n", map[string]string{"app/memory.max": "268435456\n"}, 256 << 20},
		"version 2, no limit":               {"0::/app\n", map[string]string{"app/memory.max": "max\n"}, math.MaxInt64},
		"version 2, the group around it":    {"0::/pod/app\n", map[string]string{"pod/app/memory.max": "max\n", "pod/memory.max": "1000\n"}, 1000},
		"version 2, seen from a container":  {"0::/../../pod/app\n", map[string]string{"memory.max": "2000\n"}, 2000},
		"version 1":                         {"9:cpu:/app\n4:memory:/app\n", map[string]string{"memory/app/memory.limit_in_bytes": "3000\n"}, 3000},
		"version 1, the outer path is gone": {"4:memory:/docker/abc\n", map[string]string{"memory/memory.limit_in_bytes": "4000\n"}, 4000},
		"rubbish":                           {"x\n0::\n", nil, math.MaxInt64},
	} {
		dir := t.TempDir()
		membership := filepath.Join(dir, "membership")
		if err := os.WriteFile(membership, []byte(c.groups), 0o600); err != nil {
			t.Fatal(err)
		}
		for file, text := range c.files {
			path := filepath.Join(dir, "root", file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := groupMemory(membership, filepath.Join(dir, "root")); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := groupMemory("/no/such/file", "/"); got != math.MaxInt64 {
		t.Errorf("without control groups: %d", got)
	}
}

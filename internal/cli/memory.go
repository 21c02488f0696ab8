package cli

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// boundMemory finds out how much memory the process may take, by its control group (a container's limit) or GOMEMLIMIT, whichever is
// less, and has the garbage collector keep to three quarters of it: what SQLite takes comes on top. 0: nothing bounds it.
func boundMemory() int64 {
	bound := min(debug.SetMemoryLimit(-1), groupMemory("/proc/self/cgroup", "/sys/fs/cgroup"))
	if bound >= 1<<50 { // version 1 writes a large number where there is no limit
		return 0
	}
	debug.SetMemoryLimit(bound / 4 * 3)
	return bound
}

// groupMemory is the least limit of the control groups that a process is in and of those around them; membership says which, root is
// where their files are.
func groupMemory(membership, root string) int64 {
	groups, err := os.ReadFile(membership)
	if err != nil {
		return math.MaxInt64
	}
	least := int64(math.MaxInt64)
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		part := strings.SplitN(lines.Text(), ":", 3) // hierarchy, controllers, path
		if len(part) < 3 {
			continue
		}
		dir, file := root, "memory.max"
		switch part[1] {
		case "": // version 2
		case "memory":
			dir, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for path := filepath.Clean("/" + part[2]); ; path = filepath.Dir(path) {
			text, _ := os.ReadFile(filepath.Join(dir, path, file)) // in a container the path may be that outside
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
				least = min(least, n)
			}
			if path == "/" {
				break
			}
		}
	}
	return least
}

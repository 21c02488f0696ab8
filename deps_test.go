package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layers orders the packages: a package imports only from lower layers, so that data flows one way and a reader can stop at
// any depth.
var layers = map[string]int{
	"task": 0, "cost": 0, "calibration": 0, "drift": 0, "redact": 0,
	"specialist": 1, "sample": 1, "cascade": 1, "openai": 1, "finops": 1,
	"config": 2, "datacheck": 2, "store": 2, "store/storetest": 2, "store/storetest/faultdisk": 2, "engine": 2, "engine/enginetest": 2,
	"gateway": 3, "lifecycle": 3,
	"dashboard": 4, "batch": 4,
	"cli": 5,
}

// special are packages outside the layers, with what they may import.
var special = map[string]string{
	"sim": "tests and the demo only: it stands for the world outside, so only cli and tests may import it",
}

// pureBans: layers 0 and 1 do no I/O, so that everything they decide can be tested without a world around it.
var pureBans = map[string]string{
	"os": "files and environment come in as arguments", "net": "no network below the engines", "net/http": "no network below the engines",
	"database/sql": "no database below the store", "log": "return errors, do not log", "log/slog": "return errors, do not log",
	"syscall": "no system calls", "os/exec": "no processes",
}

// onlyIn bans an import everywhere but in the packages named.
var onlyIn = map[string][]string{
	"os/exec":                 {"store/storetest", "store/storetest/faultdisk"}, // the suite starts PostgreSQL; else nothing reachable from HTTP may start a process
	"modernc.org/sqlite":      {"store"},
	"github.com/jackc/pgx/v5": {"store"},
	"github.com/spf13/cobra":  {"cli"},
	"occam/internal/config":   {"cli"},
	"occam/internal/sim":      {"cli"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		name, internal := strings.CutPrefix(p.ImportPath, "occam/internal/")
		if !internal || special[name] != "" || strings.HasPrefix(name, "sim/") {
			continue
		}
		layer, known := layers[name]
		if !known {
			t.Errorf("package %s has no layer: name one in deps_test.go and in docs/architecture.md", name)
			continue
		}
		for _, imported := range p.Imports {
			checkImport(t, name, layer, imported)
		}
	}
}

func checkImport(t *testing.T, name string, layer int, imported string) {
	t.Helper()
	if why, banned := pureBans[imported]; banned && layer <= 1 {
		t.Errorf("%s (layer %d) imports %s: %s", name, layer, imported, why)
	}
	if allowed, limited := onlyIn[imported]; limited && !slices.Contains(allowed, name) {
		t.Errorf("%s imports %s, which only %v may", name, imported, allowed)
	}
	other, internal := strings.CutPrefix(imported, "occam/internal/")
	if !internal || special[other] != "" || strings.HasPrefix(name, other+"/") {
		return // a conformance suite imports the package it is for
	}
	if layers[other] >= layer {
		t.Errorf("%s (layer %d) imports %s (layer %d): imports go down only", name, layer, other, layers[other])
	}
}

// maxFunctionLines is a screen. Control flow in the parent, pure leaves.
const maxFunctionLines = 70

func TestFunctionsFitAScreen(t *testing.T) {
	goFiles(t, func(path string) {
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, at most %d: split it", files.Position(f.Pos()), f.Name.Name, n, maxFunctionLines)
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: init(): wire by hand in cli", files.Position(f.Pos()))
			}
		}
	})
}

// goFiles visits the product's Go files, tests aside.
func goFiles(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// maxDirectDependencies: every dependency is somebody else's release to watch.
const maxDirectDependencies = 25

func TestDependencyBudget(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for line := range strings.SplitSeq(string(mod), "\n") {
		if strings.HasPrefix(line, "\t") && !strings.HasSuffix(line, "// indirect") {
			direct++
		}
	}
	if direct > maxDirectDependencies {
		t.Errorf("%d direct dependencies, the budget is %d", direct, maxDirectDependencies)
	}
}

package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"occam/internal/cli"
	"occam/internal/sim/occamtest"
)

// built is the program, made once for the tests that want the real thing.
var built occamtest.Build

// tests runs the tests of the package, and removes what was built for them.
type tests struct{ *testing.M }

func (t tests) Run() int { return built.Main(t.M) }

func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){
		"occam": func() {
			os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs whole-program tests: one txtar file each in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: false, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("OCCAM_UPDATE_SCRIPTS") != "",
	})
}

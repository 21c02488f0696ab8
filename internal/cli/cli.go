// Package cli is the command line: it reads flags and configuration, wires the packages together by hand and maps errors
// to exit codes.
package cli

import (
	"context"
	"fmt"
	"io"
)

// Run executes one command and returns the process's exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fmt.Fprintln(stderr, "occam: no commands yet")
	return 2
}

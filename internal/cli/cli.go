// Package cli is the command line: it reads flags and configuration, wires the packages together by hand and maps errors
// to exit codes. stdout is the result; stderr is progress and logs.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes, a contract that scripts depend on.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitBar    = 3 // a quality bar was not met
)

// errUsage marks what the caller asked wrongly; errBar marks a quality bar that was not met.
var (
	errUsage = errors.New("wrong usage")
	errBar   = errors.New("quality bar not met")
)

// usageError returns an error that exits with 2.
func usageError(format string, args ...any) error {
	return fmt.Errorf("%w%w", hidden{errUsage}, fmt.Errorf(format, args...))
}

// hidden marks an error without adding to its text.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

// app is what every command needs of its surroundings.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
	now    func() time.Time
	json   bool // --json: one JSON document on stdout
}

// Run executes one command and returns the process's exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "occam: %s\n", text)
	}
	switch {
	case errors.Is(err, errBar):
		return exitBar
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "occam",
		Short:         "The smallest model that does the job, proved on your own traffic",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          func(_ *cobra.Command, args []string) error { return unknownCommand(args) },
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON document on stdout")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%v; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(a.demoCommand(), a.serveCommand(), a.reloadCommand(), a.trainCommand(), a.evalCommand(), a.predictCommand(), a.dataCommand(), a.breakevenCommand(), a.adviseCommand(),
		a.tasksCommand(), a.modelsCommand(), a.reportCommand(), a.ledgerCommand(), a.keysCommand(), a.batchesCommand(), a.accountsCommand(), a.settingsCommand(), a.requestsCommand(), a.reviewCommand(), a.pricesCommand(), a.doctorCommand(), a.initCommand(), a.versionCommand())
	return root
}

func unknownCommand(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError("there is no command %q; see `occam --help`", args[0])
}

// noArgs refuses positional arguments with the right exit code.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("%s takes no argument, but got %q; see `%s --help`", cmd.CommandPath(), strings.Join(args, " "), cmd.CommandPath())
	}
	return nil
}

// printJSON writes the one document of --json.
func (a *app) printJSON(document any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(document)
}

// terminal reports whether a writer is a terminal that a progress bar can be drawn on.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

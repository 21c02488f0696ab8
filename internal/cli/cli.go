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
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"occam/internal/config"
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
	result := &writer{to: stdout}
	a := &app{stdin: stdin, stdout: result, stderr: stderr, getenv: os.Getenv, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(result)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && result.err != nil {
		err = fmt.Errorf("the result could not be written: %w", result.err)
	}
	if err == nil {
		return exitDone
	}
	switch text := err.Error(); {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "occam: interrupted before it was done")
	case text != "":
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

// writer remembers that something could not be written, so that a command whose result is cut off does not end as done.
type writer struct {
	to  io.Writer
	err error
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

func (a *app) root() *cobra.Command {
	root := a.group("occam", "The smallest model that does the job, proved on your own traffic", nil)
	root.SilenceUsage, root.SilenceErrors = true, true
	root.Version = version
	root.SetVersionTemplate("occam {{.Version}}\n")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON document on stdout")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand(root))
	root.SetHelpCommandGroupID("operate")
	root.SetCompletionCommandGroupID("operate")
	root.AddGroup(&cobra.Group{ID: "try", Title: "Try it, and see whether it pays:"}, &cobra.Group{ID: "train", Title: "Train a specialist on examples:"},
		&cobra.Group{ID: "run", Title: "Run the gateway, and watch it:"}, &cobra.Group{ID: "operate", Title: "Operate it:"})
	for id, commands := range map[string][]*cobra.Command{
		"try":     {a.demoCommand(), a.breakevenCommand(), a.adviseCommand()},
		"train":   {a.dataCommand(), a.trainCommand(), a.evalCommand(), a.predictCommand()},
		"run":     {a.initCommand(), a.serveCommand(), a.tasksCommand(), a.modelsCommand(), a.requestsCommand(), a.reviewCommand(), a.reportCommand(), a.batchesCommand()},
		"operate": {a.doctorCommand(), a.reloadCommand(), a.keysCommand(), a.accountsCommand(), a.settingsCommand(), a.ledgerCommand(), a.pricesCommand(), a.versionCommand()},
	} {
		for _, command := range commands {
			command.GroupID = id
			root.AddCommand(command)
		}
	}
	return root
}

// group is a command that holds others. Alone it does what list does; without a list it shows its help.
func (a *app) group(name, short string, list func(cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case list != nil:
				return list(cmd)
			case a.json:
				return usageError("%s needs a command; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		}}
}

// defaultConfig is where a configuration is looked for when none is named.
const defaultConfig = "occam.yaml"

// configFlag gives a command, and those below it, --config.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.PersistentFlags().StringVar(path, "config", defaultConfig, "configuration file")
}

func unknownCommand(cmd *cobra.Command, name string) error {
	meant := ""
	if like := cmd.SuggestionsFor(name); len(like) > 0 {
		meant = fmt.Sprintf(" Did you mean `%s %s`?", cmd.CommandPath(), like[0])
	}
	return usageError("there is no command %q.%s See `%s --help`", name, meant, cmd.CommandPath())
}

var flagName = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w-]+)`)

// flagError says which flag was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if flag, unknown := strings.CutPrefix(text, "unknown flag: --"); unknown {
		var names []string
		for _, found := range flagName.FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
			names = append(names, found[1])
		}
		name, _, _ := strings.Cut(flag, "=")
		if meant := config.Closest(name, names); meant != "" {
			return usageError("there is no flag --%s. Did you mean --%s? See `%s --help`", name, meant, cmd.CommandPath())
		}
	}
	if before, reason, ok := strings.Cut(text, ": strconv."); ok { // how Go reads numbers is nobody's business
		text = before
		if strings.Contains(reason, "out of range") {
			text += " is out of range"
		}
	}
	return usageError("%s; see `%s --help`", text, cmd.CommandPath())
}

// helpCommand shows the help of a command, and knows which there are.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		RunE: func(_ *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil {
				return usageError("%v", err)
			}
			if len(rest) > 0 {
				return unknownCommand(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
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

// orEmpty is a list that is [] in JSON, not null, where nothing is in it.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// terminal reports whether a writer is a terminal that a progress bar can be drawn on.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

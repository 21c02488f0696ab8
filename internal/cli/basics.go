package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"occam/internal/config"
)

// version is the release; the build's own information says the commit.
const version = "0.1.0"

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			commit, modified, goVersion := buildInfo()
			if a.json {
				return a.printJSON(map[string]any{"version": version, "commit": commit, "modified": modified, "go": goVersion})
			}
			fmt.Fprintf(a.stdout, "occam %s (commit %s, %s)\n", version, commit, goVersion)
			return nil
		},
	}
}

func buildInfo() (commit string, modified bool, goVersion string) {
	commit = "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return commit, false, ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	return commit, modified, info.GoVersion
}

func (a *app) initCommand() *cobra.Command {
	var path string
	var force bool
	cmd := &cobra.Command{
		Use: "init", Short: "Write a commented occam.yaml", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.writeExample(path, force) },
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "file to write")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite a file that is there")
	return cmd
}

func (a *app) writeExample(path string, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: edit it, or overwrite it with --force", path)
	}
	if err != nil {
		return fmt.Errorf("the configuration cannot be written: %w; name another place with --config", err)
	}
	if _, err := file.Write(config.Example); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := file.Close(); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"config": path})
	}
	fmt.Fprintf(a.stdout, "Wrote %s. Set OPENAI_API_KEY, then: occam serve --config %s\n", path, path)
	return nil
}

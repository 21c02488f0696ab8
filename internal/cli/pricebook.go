package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
)

// priceFolder holds, inside the data folder, the price lists that were imported, each in a file named importName, merged in order
// of name on top of the built-in book.
const priceFolder = "prices"

// importName is the name of an import: when it was made, and the format. Older files bear the day only.
func importName(at time.Time, format string) string {
	return at.UTC().Format("2006-01-02T150405.000000000") + "-" + format + ".json"
}

// parseImportName undoes importName; ok is false for files that are not ours.
func parseImportName(file string) (from time.Time, format string, ok bool) {
	name, ours := strings.CutSuffix(file, ".json")
	if !ours || len(name) <= len(time.DateOnly) {
		return from, "", false
	}
	from, err := time.Parse(time.DateOnly, name[:len(time.DateOnly)])
	_, format, ok = strings.Cut(name[len(time.DateOnly):], "-")
	return from, format, ok && err == nil
}

// bookAt is the price book of a configuration; the built-in one where none is named and none is there.
func (a *app) bookAt(configPath string) (*cost.Book, error) {
	if _, err := os.Stat(configPath); configPath == defaultConfig && errors.Is(err, fs.ErrNotExist) {
		return cost.Default(), nil
	}
	cfg, err := config.Load(configPath, a.getenv)
	if err != nil {
		return nil, err
	}
	return loadBook(cfg.DataDir)
}

// loadBook is the built-in price book with what was imported for this configuration.
func loadBook(dataDir string) (*cost.Book, error) {
	book := cost.Default()
	files, err := os.ReadDir(filepath.Join(dataDir, priceFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return book, nil
	}
	if err != nil {
		return nil, fmt.Errorf("imported prices: %w", err)
	}
	for _, f := range files {
		from, format, ok := parseImportName(f.Name())
		if !ok {
			continue
		}
		path := filepath.Join(dataDir, priceFolder, f.Name())
		more, _, err := readBook(path, format, from)
		if err != nil {
			return nil, fmt.Errorf("imported prices %s: %w; remove the file to go on without it", path, err)
		}
		book = book.Merge(more)
	}
	return book, nil
}

// readBook reads a price list in one of the known formats.
func readBook(path, format string, from time.Time) (*cost.Book, []string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	switch format {
	case "litellm":
		return cost.ParseLiteLLM(bytes.NewReader(data), from)
	case "genai":
		return cost.ParseGenAIPrices(bytes.NewReader(data), "genai-prices "+from.Format(time.DateOnly))
	case "occam":
		book, err := cost.Parse(bytes.NewReader(data))
		return book, nil, err
	}
	return nil, nil, usageError("--format is %q: it must be litellm, genai or occam", format)
}

func (a *app) importPricesCommand(path *string) *cobra.Command {
	var format string
	var apply bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Show what a price list would change; with --apply, use it from now on", Args: oneArg("the file of a price list"),
		RunE: func(_ *cobra.Command, args []string) error { return a.importPrices(*path, args[0], format, apply) },
	}
	cmd.Flags().StringVar(&format, "format", "litellm", "litellm (its model_prices map), genai (genai-prices' data.json or data_v2.json) or occam")
	cmd.Flags().BoolVar(&apply, "apply", false, "keep the list in the data folder; a running server takes it at its next start")
	return cmd
}

func (a *app) importPrices(configPath, path, format string, apply bool) error {
	cfg, err := config.Load(configPath, a.getenv)
	if err != nil {
		return err
	}
	book, err := loadBook(cfg.DataDir)
	if err != nil {
		return err
	}
	next, skipped, err := readBook(path, format, a.now())
	if err != nil {
		return err
	}
	changes := book.Diff(next, a.now())
	if a.json {
		err = a.printJSON(map[string]any{"changes": changeLines(changes), "skipped": notNil(skipped), "applied": apply})
	} else {
		for _, line := range changeLines(changes) {
			fmt.Fprintln(a.stdout, line)
		}
		fmt.Fprintf(a.stdout, "%d changes; %d entries are left out, because they are not priced by text tokens alone: see --json\n", len(changes), len(skipped))
	}
	if err != nil {
		return err
	}
	if !apply {
		fmt.Fprintln(a.stderr, "nothing is applied yet: give the command again with --apply")
		return nil
	}
	folder := filepath.Join(cfg.DataDir, priceFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	kept := filepath.Join(folder, importName(a.now(), format))
	if err := os.WriteFile(kept, data, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "applied: the list is kept as %s; remove that file to take it back. A running server takes it at its next start\n", kept)
	return nil
}

func changeLines(changes []cost.Change) []string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = c.String()
	}
	return lines
}

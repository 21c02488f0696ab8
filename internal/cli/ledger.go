package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/store"
)

func (a *app) ledgerCommand() *cobra.Command {
	var path, out string
	cmd := &cobra.Command{Use: "ledger", Short: "Verify, export and import the ledger", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.PersistentFlags().StringVar(&path, "config", "occam.yaml", "configuration file")
	verify := &cobra.Command{Use: "verify", Short: "Recompute the hash chain, the sums and the head", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verifyLedger(cmd.Context(), path) }}
	export := &cobra.Command{Use: "export", Short: "Write the ledger as JSON Lines", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.exportLedger(cmd.Context(), path, out) }}
	export.Flags().StringVar(&out, "out", "-", "file to write, - for stdout")
	restore := &cobra.Command{Use: "import FILE", Short: "Fill an empty store from an export, checking the chain on the way", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.importLedger(cmd.Context(), path, args[0]) }}
	cmd.AddCommand(verify, export, restore)
	return cmd
}

// readStore opens the configured store to read, also beside a process that serves.
func (a *app) readStore(ctx context.Context, path string) (*store.Store, error) {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, storeDSN(cfg), store.Options{Mode: store.ReadOnly, Dir: cfg.DataDir, Log: slog.New(slog.NewTextHandler(a.stderr, nil))})
}

// storeDSN is what store.Open takes for a configuration.
func storeDSN(cfg *config.Config) string {
	if cfg.Store == "sqlite" {
		return "sqlite:" + cfg.DataDir
	}
	return cfg.Store
}

func (a *app) verifyLedger(ctx context.Context, path string) error {
	s, err := a.readStore(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	report, err := s.Verify(ctx)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(map[string]any{"ok": report.OK(), "entries": report.Entries, "attempts": report.Attempts, "open": report.Open,
			"remarks": notNil(report.Remarks), "problems": notNil(report.Problems), "problems_found": report.Found})
	} else {
		fmt.Fprintf(a.stdout, "%d attempts in %d chained entries, %d without an outcome\n", report.Attempts, report.Entries, report.Open)
		for _, line := range report.Remarks {
			fmt.Fprintf(a.stdout, "note: %s\n", line)
		}
		for _, line := range report.Problems {
			fmt.Fprintf(a.stdout, "PROBLEM: %s\n", line)
		}
	}
	if err == nil && !report.OK() {
		return fmt.Errorf("the ledger is damaged: %d problems; restore a backup with `occam ledger import`, and keep this copy", report.Found)
	}
	if err == nil && !a.json {
		fmt.Fprintln(a.stdout, "ok: every row is as it was written")
	}
	return err
}

// notNil makes an empty list of none, so that JSON shows [].
func notNil(lines []string) []string {
	if lines == nil {
		return []string{}
	}
	return lines
}

func (a *app) exportLedger(ctx context.Context, path, out string) error {
	s, err := a.readStore(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	if out == "-" {
		return s.Export(ctx, a.stdout)
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("the export cannot be written: %w", err)
	}
	return errors.Join(s.Export(ctx, file), file.Sync(), file.Close())
}

func (a *app) importLedger(ctx context.Context, path, from string) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	in := io.NopCloser(a.stdin)
	if from != "-" {
		if in, err = os.Open(from); err != nil {
			return fmt.Errorf("the export cannot be read: %w", err)
		}
	}
	defer in.Close()
	if !strings.HasPrefix(storeDSN(cfg), "postgres") {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return err
		}
	}
	if err := store.Import(ctx, storeDSN(cfg), store.Options{Dir: cfg.DataDir}, in); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "imported; check it with `occam ledger verify`")
	return nil
}

package cli

import (
	"bufio"
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
	cmd := a.group("ledger", "Verify, export, import and back up the ledger; forget and redact what was kept", nil)
	cmd.Example = "  occam ledger verify\n  occam ledger backup /mnt/backup/occam-2026-11-26\n  occam ledger forget 01M8C3…"
	configFlag(cmd, &path)
	verify := &cobra.Command{Use: "verify", Short: "Recompute the hash chain, the sums and the head", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verifyLedger(cmd.Context(), path) }}
	export := &cobra.Command{Use: "export", Short: "Write the ledger as JSON Lines", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.exportLedger(cmd.Context(), path, out) }}
	export.Flags().StringVar(&out, "out", "-", "file to write, - for stdout")
	restore := &cobra.Command{Use: "import FILE", Short: "Fill an empty store from an export, checking the chain on the way", Args: oneArg("the export's file, or - for stdin"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.importLedger(cmd.Context(), path, args[0]) }}
	backup := &cobra.Command{Use: "backup DIR", Short: "Copy the whole SQLite store into a new folder, also beside a running server", Args: oneArg("the folder to make"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backupStore(cmd.Context(), path, args[0]) }}
	cmd.AddCommand(verify, export, restore, backup, a.acceptRollbackCommand(&path), a.forgetCommand(&path), a.redactCommand(&path))
	return cmd
}

func (a *app) backupStore(ctx context.Context, path, dir string) error {
	s, err := a.readStore(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Backup(ctx, dir); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"backup": dir})
	}
	fmt.Fprintf(a.stderr, "copied to %s: a data folder of its own; keep it away from this disk\n", dir)
	return nil
}

// acceptance is what somebody types who accepts that a part of the ledger is lost.
const acceptance = "accept the loss"

func (a *app) acceptRollbackCommand(path *string) *cobra.Command {
	var confirm string
	cmd := &cobra.Command{
		Use: "accept-rollback", Short: "Go on with a database that is older than its head file, and write the loss into the chain", Args: noArgs,
		Long: "A start refuses a database that holds less than the head file beside it proves was written. When the newest database cannot be\n" +
			"put back, this accepts what is lost. It asks for the words \"" + acceptance + "\", and writes into the chain, for good, what is missing.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.acceptRollback(cmd.Context(), *path, confirm) },
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the words, for scripts")
	return cmd
}

func (a *app) acceptRollback(ctx context.Context, path, confirm string) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		return errors.Join(s.Close(), a.tellAcceptance(false, "nothing was done: the database holds everything that its head file knows of"))
	}
	if !errors.Is(err, store.ErrRolledBack) {
		return err
	}
	if confirm == "" {
		fmt.Fprintf(a.stderr, "%v\n\nWhat is missing is lost for good, and its money with it. To go on, type: %s\n> ", err, acceptance)
		confirm, _ = bufio.NewReader(a.stdin).ReadString('\n') // an end without a line is no acceptance
	}
	if strings.TrimSpace(confirm) != acceptance {
		return usageError("nothing was done: the words are %q", acceptance)
	}
	opts, err := storeOptions(cfg, slog.New(slog.NewTextHandler(a.stderr, nil)))
	if err != nil {
		return err
	}
	opts.AcceptRollback = true
	if s, err = store.Open(ctx, storeDSN(cfg), opts); err != nil {
		return err
	}
	return errors.Join(s.Close(), a.tellAcceptance(true, "accepted; `occam ledger verify` shows what was written into the chain"))
}

func (a *app) tellAcceptance(accepted bool, text string) error {
	if a.json {
		return a.printJSON(map[string]any{"accepted": accepted})
	}
	_, err := fmt.Fprintln(a.stderr, text)
	return err
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
		return fmt.Errorf("the export cannot be written: %w; name another file with --out", err)
	}
	if err := errors.Join(s.Export(ctx, file), file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("the export to %s is not whole: %w", out, err), os.Remove(out))
	}
	if a.json {
		return a.printJSON(map[string]any{"export": out})
	}
	return nil
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
	if a.json {
		return a.printJSON(map[string]any{"imported": from})
	}
	fmt.Fprintln(a.stderr, "imported; check it with `occam ledger verify`")
	return nil
}

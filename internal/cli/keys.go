package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/store"
)

func (a *app) keysCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "keys", Short: "Virtual keys: what apps send instead of the provider's key", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.PersistentFlags().StringVar(&path, "config", "occam.yaml", "configuration file")
	cmd.AddCommand(a.createKeyCommand(&path),
		&cobra.Command{Use: "list", Short: "Every key with its limits; never its secret", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd.Context(), path) }},
		&cobra.Command{Use: "revoke ID", Short: "Make a key invalid for good", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.changeStore(cmd.Context(), path, func(tx *store.Tx) error { return tx.Keys().Revoke(args[0]) })
			}})
	return cmd
}

func (a *app) createKeyCommand(path *string) *cobra.Command {
	var limits store.KeyLimits
	var budget float64
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a key and show its secret, once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limits.Period != "day" && limits.Period != "month" {
				return usageError("--period is %q: it must be day or month", limits.Period)
			}
			if limits.Budget = cost.FromUSD(budget); budget < 0 {
				return usageError("--budget must not be negative")
			}
			return a.createKey(cmd.Context(), *path, args[0], limits)
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&budget, "budget", 0, "dollars a period (default: no limit)")
	flags.StringVar(&limits.Period, "period", "month", "day or month, in UTC")
	flags.IntVar(&limits.RequestsPerMinute, "requests-per-minute", 0, "default: no limit")
	flags.IntVar(&limits.TokensPerMinute, "tokens-per-minute", 0, "default: no limit")
	flags.StringSliceVar(&limits.Models, "models", nil, "models it may name (default: all)")
	flags.StringSliceVar(&limits.Tasks, "tasks", nil, "tasks it may use (default: all)")
	return cmd
}

func (a *app) createKey(ctx context.Context, path, name string, limits store.KeyLimits) error {
	var key store.Key
	var secret string
	err := a.changeStore(ctx, path, func(tx *store.Tx) (err error) {
		key, secret, err = tx.Keys().Create(name, "app", limits)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"id": key.ID, "name": key.Name, "secret": secret})
	}
	fmt.Fprintf(a.stdout, "%s\n", secret)
	fmt.Fprintf(a.stderr, "key %s (%s): this secret is shown once and is not stored\n", key.ID, key.Name)
	return nil
}

// changeStore opens the configured store to write. On SQLite one process at a time may.
func (a *app) changeStore(ctx context.Context, path string, change func(*store.Tx) error) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Update(ctx, change)
}

// keyRow is one row of `occam keys list --json`.
type keyRow struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Hint    string          `json:"hint"`
	Created time.Time       `json:"created"`
	Revoked *time.Time      `json:"revoked"`
	Limits  store.KeyLimits `json:"limits"`
}

func (a *app) listKeys(ctx context.Context, path string) error {
	s, err := a.readStore(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	var keys []store.Key
	if err := s.View(ctx, func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err }); err != nil {
		return err
	}
	rows := make([]keyRow, len(keys))
	for i, k := range keys {
		rows[i] = keyRow{ID: k.ID, Name: k.Name, Hint: k.Hint, Created: k.Created, Limits: k.Limits}
		if !k.Revoked.IsZero() {
			rows[i].Revoked = &k.Revoked
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"keys": rows})
	}
	for _, r := range rows {
		state := "valid"
		if r.Revoked != nil {
			state = "revoked " + r.Revoked.Format(time.DateOnly)
		}
		budget := "no budget"
		if r.Limits.Budget > 0 {
			budget = fmt.Sprintf("$%.2f a %s", r.Limits.Budget.USD(), r.Limits.Period)
		}
		fmt.Fprintf(a.stdout, "%s  %-20s %s…  %s, %s\n", r.ID, r.Name, r.Hint, state, budget)
	}
	return nil
}

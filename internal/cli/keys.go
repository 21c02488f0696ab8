package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/gateway"
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
			RunE: func(cmd *cobra.Command, args []string) error { return a.revokeKey(cmd.Context(), path, args[0]) }})
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
			return a.createKey(cmd.Context(), *path, newKey{args[0], limits})
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&budget, "budget", 0, "dollars a period (default: no limit)")
	flags.StringVar(&limits.Period, "period", "month", "day or month, in UTC")
	flags.IntVar(&limits.RequestsPerMinute, "requests-per-minute", 0, "default: no limit")
	flags.IntVar(&limits.TokensPerMinute, "tokens-per-minute", 0, "default: no limit")
	flags.IntVar(&limits.Escalations, "escalations-per-minute", 0, "a task's requests that may go to a model that costs money (default: no limit)")
	flags.StringVar(&limits.Degrade, "degrade", "", "cheaper model that answers when the budget has no room for the one asked for")
	flags.StringSliceVar(&limits.Models, "models", nil, "models it may name (default: all)")
	flags.StringSliceVar(&limits.Tasks, "tasks", nil, "tasks it may use (default: all)")
	return cmd
}

// A newKey is what is asked for of a key.
type newKey struct {
	Name   string          `json:"name"`
	Limits store.KeyLimits `json:"limits"`
}

// A madeKey is a key with its secret, which is told once.
type madeKey struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

func makeKey(ctx context.Context, s *store.Store, k newKey) (made madeKey, err error) {
	err = s.Update(ctx, func(tx *store.Tx) error {
		key, secret, err := tx.Keys().Create(k.Name, gateway.RoleApp, k.Limits)
		made = madeKey{key.ID, key.Name, secret}
		return err
	})
	return made, err
}

func revokeKey(ctx context.Context, s *store.Store, id string) error {
	return s.Update(ctx, func(tx *store.Tx) error { return tx.Keys().Revoke(id) })
}

func (a *app) createKey(ctx context.Context, path string, k newKey) error {
	var made madeKey
	err := a.changeStored(ctx, path,
		func(client *http.Client) error { return command(ctx, client, http.MethodPost, "/keys", k, &made) },
		func(s *store.Store) (err error) { made, err = makeKey(ctx, s, k); return err })
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	fmt.Fprintf(a.stdout, "%s\n", made.Secret)
	fmt.Fprintf(a.stderr, "key %s (%s): this secret is shown once and is not stored\n", made.ID, made.Name)
	return nil
}

func (a *app) revokeKey(ctx context.Context, path, id string) error {
	return a.changeStored(ctx, path,
		func(client *http.Client) error {
			return command(ctx, client, http.MethodPost, "/keys/revoke?id="+url.QueryEscape(id), nil, &struct{}{})
		},
		func(s *store.Store) error { return revokeKey(ctx, s, id) })
}

// changeStored lets the server that runs on the data make a change, so that it counts from the next request on, or makes it in the
// store where none runs.
func (a *app) changeStored(ctx context.Context, path string, there func(*http.Client) error, here func(*store.Store) error) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	if client := running(ctx, cfg.DataDir); client != nil {
		return there(client)
	}
	s, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	return here(s)
}

// controlNewKey makes a key for a command. The next request may use it.
func (s *server) controlNewKey(w http.ResponseWriter, r *http.Request) {
	var k newKey
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&k)
	var made madeKey
	if err == nil {
		made, err = makeKey(r.Context(), s.store, k)
	}
	if err == nil {
		err = s.rewire(nil)
	}
	reply(w, made, err)
}

// controlRevokeKey makes a key invalid for a command. The next request may not use it.
func (s *server) controlRevokeKey(w http.ResponseWriter, r *http.Request) {
	err := revokeKey(r.Context(), s.store, r.URL.Query().Get("id"))
	if err == nil {
		err = s.rewire(nil)
	}
	reply(w, struct{}{}, err)
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

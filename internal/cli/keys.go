package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/store"
)

func (a *app) keysCommand() *cobra.Command {
	var path string
	cmd := a.group("keys", "Virtual keys: what apps send instead of the provider's key", func(cmd *cobra.Command) error { return a.listKeys(cmd.Context(), path) })
	cmd.Example = "  occam keys create billing-app --budget 25 --requests-per-minute 600\n  occam keys list\n  occam keys revoke 01M8C3XR1Y…"
	configFlag(cmd, &path)
	cmd.AddCommand(a.createKeyCommand(&path), a.limitKeyCommand(&path),
		&cobra.Command{Use: "list", Short: "Every key with its limits; never its secret", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd.Context(), path) }},
		&cobra.Command{Use: "revoke ID", Short: "Make a key invalid for good", Args: oneArg("a key's ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.changeKey(cmd.Context(), path, args[0], url.Values{"do": {"revoke"}})
			}})
	return cmd
}

func (a *app) createKeyCommand(path *string) *cobra.Command {
	var limits limitFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a key and show its secret, once", Args: oneArg("a name for the key, such as the app's"),
		RunE: func(cmd *cobra.Command, args []string) error {
			form, err := limits.form()
			if err != nil {
				return err
			}
			form.Set("name", args[0])
			return a.createKey(cmd.Context(), *path, form)
		},
	}
	limits.add(cmd)
	return cmd
}

func (a *app) limitKeyCommand(path *string) *cobra.Command {
	var limits limitFlags
	cmd := &cobra.Command{
		Use: "limits ID", Short: "Give a key other limits: what is not named is not limited", Args: oneArg("a key's ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			form, err := limits.form()
			if err != nil {
				return err
			}
			form.Set("do", "limits")
			return a.changeKey(cmd.Context(), *path, args[0], form)
		},
	}
	limits.add(cmd)
	return cmd
}

// limitFlags are the limits of a key as flags.
type limitFlags struct {
	budget                                float64
	period, degrade                       string
	requests, tokens, escalations, labels int
	models, tasks                         []string
}

func (l *limitFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Float64Var(&l.budget, "budget", 0, "dollars a period (default: no limit)")
	flags.StringVar(&l.period, "period", "month", "day or month, in UTC")
	flags.IntVar(&l.requests, "requests-per-minute", 0, "default: no limit")
	flags.IntVar(&l.tokens, "tokens-per-minute", 0, "default: no limit")
	flags.IntVar(&l.escalations, "escalations-per-minute", 0, "a task's requests that may go to a model that costs money (default: no limit)")
	flags.IntVar(&l.labels, "labels-per-day", 0, "labels that it may give (default: no limit)")
	flags.StringVar(&l.degrade, "degrade", "", "cheaper model that answers when the budget has no room for the one asked for")
	flags.StringSliceVar(&l.models, "models", nil, "models it may name (default: all)")
	flags.StringSliceVar(&l.tasks, "tasks", nil, "tasks it may use (default: all)")
}

// form is what the admin API takes.
func (l *limitFlags) form() (url.Values, error) {
	if l.period != "day" && l.period != "month" {
		return nil, usageError("--period is %q: it must be day or month", l.period)
	}
	if !(l.budget >= 0 && l.budget <= 1e9) {
		return nil, usageError("--budget is %v: it must be a number of dollars, such as 25 or 0.50", l.budget)
	}
	form := url.Values{"period": {l.period}, "degrade": {l.degrade}, "models": {strings.Join(l.models, ",")}, "tasks": {strings.Join(l.tasks, ",")}}
	if l.budget > 0 {
		form.Set("budget", strconv.FormatFloat(l.budget, 'f', -1, 64))
	}
	for name, n := range map[string]int{"requests_per_minute": l.requests, "tokens_per_minute": l.tokens, "escalations_per_minute": l.escalations, "labels_per_day": l.labels} {
		if n != 0 {
			form.Set(name, strconv.Itoa(n))
		}
	}
	return form, nil
}

func (a *app) createKey(ctx context.Context, path string, form url.Values) error {
	type made struct{ ID, Name, Secret string }
	call := func(c *admin, out any) error { return c.post(ctx, "/api/keys", form, out) }
	return show(ctx, a, path, call, func(k made) {
		fmt.Fprintf(a.stdout, "%s\n", k.Secret)
		fmt.Fprintf(a.stderr, "key %s (%s): this secret is shown once and is not stored\n", k.ID, k.Name)
	})
}

// changeKey changes a key as it is now.
func (a *app) changeKey(ctx context.Context, path, id string, form url.Values) error {
	route := "/api/keys/" + url.PathEscape(id)
	call := func(c *admin, out any) error {
		var now struct{ Name, Version string }
		if err := c.get(ctx, route, &now); err != nil {
			return err
		}
		form.Set("version", now.Version)
		form.Set("confirm", now.Name)
		return c.post(ctx, route, form, out)
	}
	return show(ctx, a, path, call, func(struct{}) { fmt.Fprintf(a.stdout, "key %s: done, from the next request on\n", id) })
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
	if len(rows) == 0 {
		fmt.Fprintln(a.stderr, "There is no key, so the API asks for none: make the first with `occam keys create NAME`.")
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

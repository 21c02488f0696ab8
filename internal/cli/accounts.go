package cli

import (
	"context"
	"fmt"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) accountsCommand() *cobra.Command {
	var path, role string
	cmd := a.group("accounts", "Who may log in to the dashboard and its API", func(cmd *cobra.Command) error { return a.listAccounts(cmd.Context(), path) })
	cmd.Example = "  occam accounts add ann --role admin\n  occam accounts reset-password ann"
	configFlag(cmd, &path)
	change := func(do string) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			form := url.Values{"name": {args[0]}, "do": {do}}
			if do == "create" || do == "set" {
				form.Set("role", role)
			}
			return a.changeAccount(cmd.Context(), path, form)
		}
	}
	add := &cobra.Command{Use: "add NAME", Short: "Make an account and show its password, once", Args: oneArg("the account's name"), RunE: change("create")}
	set := &cobra.Command{Use: "set-role NAME", Short: "Give an account another role, and a new password", Args: oneArg("the account's name"), RunE: change("set")}
	for _, c := range []*cobra.Command{add, set} {
		c.Flags().StringVar(&role, "role", "viewer", "viewer looks, reviewer also answers the review queue, admin does everything")
	}
	cmd.AddCommand(add, set,
		&cobra.Command{Use: "list", Short: "Every account with its role", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listAccounts(cmd.Context(), path) }},
		&cobra.Command{Use: "reset-password NAME", Short: "Give an account a new password, which is shown once", Args: oneArg("the account's name"), RunE: change("reset")},
		&cobra.Command{Use: "remove NAME", Short: "End an account and its sessions", Args: oneArg("the account's name"), RunE: change("remove")})
	return cmd
}

func (a *app) changeAccount(ctx context.Context, path string, form url.Values) error {
	type changed struct{ Account, Password string }
	call := func(c *admin, out any) error { return c.post(ctx, "/api/settings/accounts", form, out) }
	return show(ctx, a, path, call, func(done changed) {
		if done.Password == "" {
			fmt.Fprintf(a.stdout, "account %s is removed\n", done.Account)
			return
		}
		fmt.Fprintln(a.stdout, done.Password)
		fmt.Fprintf(a.stderr, "account %s: this password is shown once and cannot be read back; its sessions have ended\n", done.Account)
	})
}

// accountRow is one account of `occam accounts list --json`.
type accountRow struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// settingsReport is what GET /api/settings answers, as far as the command line shows it.
type settingsReport struct {
	Accounts      []accountRow
	Configuration struct{ YAML string }
	Actions       []struct {
		At                       time.Time
		By, What, Object, Detail string
	}
}

func (a *app) listAccounts(ctx context.Context, path string) error {
	c, err := a.admin(ctx, path)
	if err != nil {
		return err
	}
	defer c.close()
	var s settingsReport
	if err := c.get(ctx, "/api/settings", &s); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"accounts": append([]accountRow{}, s.Accounts...)})
	}
	if len(s.Accounts) == 0 {
		fmt.Fprintln(a.stderr, "There is no account yet: `occam serve` makes the first one, or `occam accounts add NAME --role admin`.")
	}
	for _, account := range s.Accounts {
		fmt.Fprintf(a.stdout, "%-24s %s\n", account.Name, account.Role)
	}
	return nil
}

func (a *app) settingsCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "settings", Short: "The configuration in force, without secrets, and who changed what", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			call := func(c *admin, out any) error { return c.get(ctx, "/api/settings", out) }
			return show(ctx, a, path, call, a.printSettings)
		}}
	configFlag(cmd, &path)
	return cmd
}

func (a *app) printSettings(s settingsReport) {
	fmt.Fprint(a.stdout, s.Configuration.YAML)
	if len(s.Actions) == 0 {
		return
	}
	fmt.Fprintln(a.stdout, "\n# who changed what, newest first")
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, x := range s.Actions {
		fmt.Fprintf(w, "# %s\t%s\t%s\t%s\t%s\n", x.At.Format(time.DateTime), x.By, x.What, x.Object, x.Detail)
	}
	_ = w.Flush() // stdout went away
}

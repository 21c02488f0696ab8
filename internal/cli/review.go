package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"occam/internal/task"
)

func (a *app) reviewCommand() *cobra.Command {
	var path, taskName string
	cmd := a.group("review", "Texts that wait for a person, the most valuable first", nil)
	cmd.Example = "  occam review next --task ticket-triage\n  occam review skip 01M8C3…"
	configFlag(cmd, &path)
	next := &cobra.Command{Use: "next", Short: "Take the next text, for ten minutes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.nextReview(cmd.Context(), path, taskName) }}
	next.Flags().StringVar(&taskName, "task", "", "task (default: the one with the longest queue)")
	answer := &cobra.Command{Use: "answer ID FIELD=VALUE…", Short: "Say what is right; every field must be named", Args: atLeastTwo,
		Example: "  occam review answer 01KB… category=refund_status order_id=AB-1234",
		RunE: func(cmd *cobra.Command, args []string) error {
			form := url.Values{"do": {"accept"}}
			for _, pair := range args[1:] {
				field, value, ok := strings.Cut(pair, "=")
				if !ok {
					return usageError("%q is no FIELD=VALUE", pair)
				}
				form.Add("f."+field, value)
			}
			return a.closeReview(cmd.Context(), path, args[0], form)
		}}
	skip := &cobra.Command{Use: "skip ID", Short: "Leave a text unanswered", Args: oneArg("the ID of a text"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.closeReview(cmd.Context(), path, args[0], url.Values{"do": {"skip"}})
		}}
	cmd.AddCommand(next, answer, skip)
	return cmd
}

func atLeastTwo(cmd *cobra.Command, args []string) error {
	if len(args) < 2 {
		return usageError("%s needs a text's ID and FIELD=VALUE for each field; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

// reviewReport is what GET /api/review answers.
type reviewReport struct {
	Task, ID, Why, Text string
	Queues              []struct {
		Task    string
		Waiting int64
	}
	Fields []struct {
		Name, Kind  string
		Values      []string
		Suggestion  string
		Suggestions []string
	}
}

func (a *app) nextReview(ctx context.Context, path, taskName string) error {
	call := func(c *admin, out any) error { return c.get(ctx, "/api/review?task="+url.QueryEscape(taskName), out) }
	return show(ctx, a, path, call, func(r reviewReport) {
		for _, q := range r.Queues {
			fmt.Fprintf(a.stderr, "%s: %d waiting\n", q.Task, q.Waiting)
		}
		if r.ID == "" {
			fmt.Fprintln(a.stderr, "Nothing waits for you.")
			return
		}
		fmt.Fprintf(a.stdout, "%s  %s: %s\n\n%s\n\n", r.ID, r.Task, r.Why, visible(r.Text))
		command := "occam review answer " + r.ID
		for _, f := range r.Fields {
			suggested := []string{f.Suggestion}
			if f.Kind == string(task.Labels) {
				suggested = f.Suggestions // each is named, none where there is none
			}
			fmt.Fprintf(a.stdout, "  %s (%s): %s\n", f.Name, f.Kind, orDash(visible(strings.Join(suggested, ", "))))
			for _, value := range suggested {
				if visible(value) != value {
					continue // it cannot be typed
				}
				command += " " + f.Name + "=" + quoteForShell(value)
			}
		}
		fmt.Fprintf(a.stdout, "\nnext: %s\n", command)
	})
}

// visible shows control characters and marks of direction in a customer's text instead of letting the terminal obey them.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) || unicode.IsSpace(r) && !unicode.IsControl(r) || r == '\u200d' { // which joins emoji
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

// quoteForShell is a text as a POSIX shell takes it, whatever the app's customer wrote in it.
func quoteForShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func (a *app) closeReview(ctx context.Context, path, id string, form url.Values) error {
	call := func(c *admin, out any) error { return c.post(ctx, "/api/review/"+url.PathEscape(id), form, out) }
	return show(ctx, a, path, call, func(done struct{ Task string }) {
		fmt.Fprintf(a.stdout, "%s: written down; next: occam review next --task %s\n", done.Task, done.Task)
	})
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/store"
)

func (a *app) requestsCommand() *cobra.Command {
	var path string
	cmd := a.group("requests", "Requests and the whole story of one", func(cmd *cobra.Command) error { return a.listRequests(cmd.Context(), path, nil) })
	cmd.Example = "  occam requests list --task ticket-triage --from 2026-11-01\n  occam requests show 01M8C3…"
	configFlag(cmd, &path)
	list := &cobra.Command{Use: "list", Short: "Requests, newest first", Args: noArgs}
	flags := map[string]*string{}
	for name, what := range map[string]string{"task": "only of this task", "tier": "only answered by this tier", "model": "only by this model", "key": "only of this key",
		"state": "only with this ledger state", "from": "from this day on, such as 2026-11-01", "to": "up to this day", "cursor": "go on after an earlier list"} {
		flags[name] = list.Flags().String(name, "", what)
	}
	failed := list.Flags().Bool("failed", false, "only those that failed")
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		query := url.Values{}
		for name, value := range flags {
			if *value != "" {
				query.Set(name, *value)
			}
		}
		if *failed {
			query.Set("failed", "1")
		}
		return a.listRequests(cmd.Context(), path, query)
	}
	cmd.AddCommand(list, &cobra.Command{Use: "show ID", Short: "One request: every attempt, why, what it cost, what spoke for the answer", Args: oneArg("the request's ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.showRequest(cmd.Context(), path, args[0]) }})
	return cmd
}

// requestLine is one row of GET /api/requests.
type requestLine struct {
	ID, Task, Model, Reason string
	At                      time.Time
	By                      string  `json:"answered_by"`
	Cost                    float64 `json:"cost_usd"`
	Saved                   float64 `json:"saved_usd"`
	Unpriced                bool
	Latency                 time.Duration `json:"latency_ns"`
}

func (l *requestLine) price() string {
	if l.Unpriced {
		return "unpriced"
	}
	return fmt.Sprintf("$%.6f", l.Cost)
}

func (a *app) listRequests(ctx context.Context, path string, query url.Values) error {
	type page struct {
		Requests []requestLine
		Next     string `json:"next_cursor"`
	}
	call := func(c *admin, out any) error { return c.get(ctx, "/api/requests?"+query.Encode(), out) }
	return show(ctx, a, path, call, func(p page) {
		if len(p.Requests) == 0 {
			fmt.Fprintln(a.stderr, "No request fits.")
			return
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TIME\tREQUEST\tTASK\tANSWERED BY\tCOST\tSAVED\tWAITED\tWHY")
		for _, r := range p.Requests {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t$%.6f\t%s\t%s\n", r.At.Format(time.DateTime), r.ID, orDash(r.Task), orDash(r.By), r.price(), r.Saved, r.Latency.Round(10*time.Microsecond), r.Reason)
		}
		_ = w.Flush() // stdout went away
		if p.Next != "" {
			fmt.Fprintf(a.stderr, "older ones: occam requests list --cursor %s\n", p.Next)
		}
	})
}

// requestStory is what GET /api/requests/{id} answers.
type requestStory struct {
	requestLine
	Text  string
	Steps []struct {
		Tier, Model, Provider, Reason, State string
		Answered, Audit                      bool
		Confidence                           float64
		MinConfidence                        float64       `json:"min_confidence"`
		Cost                                 float64       `json:"cost_usd"`
		Price                                string        `json:"price_version"`
		Latency                              time.Duration `json:"latency_ns"`
		Because                              []struct {
			Field, Value, Against string
			Margin, Bias          float64
			Words                 []struct {
				Text   string
				Weight float64
			}
		}
		Lack    string `json:"because_lack"`
		Nearest []struct {
			Text     string
			Labels   json.RawMessage
			Likeness float64
		}
		NearestLack string `json:"nearest_lack"`
		Unscored    bool
	}
}

func (a *app) showRequest(ctx context.Context, path, id string) error {
	call := func(c *admin, out any) error { return c.get(ctx, "/api/requests/"+url.PathEscape(id), out) }
	return show(ctx, a, path, call, a.printStory)
}

func (a *app) printStory(s requestStory) {
	w := a.stdout
	fmt.Fprintf(w, "%s  %s  task %s\n  answered by %s: %s; cost %s, saved $%.6f, waited %s\n", s.ID, s.At.Format(time.DateTime), orDash(s.Task), orDash(s.By), s.Reason,
		s.price(), s.Saved, s.Latency.Round(10*time.Microsecond))
	if s.Text != "" {
		fmt.Fprintf(w, "  text %s\n", clip(s.Text))
	}
	for i, x := range s.Steps {
		fmt.Fprintf(w, "  %d. %s %s", i+1, orDash(x.Tier), x.Model)
		if x.Provider != "" {
			fmt.Fprintf(w, " at %s", x.Provider)
		}
		price := fmt.Sprintf("$%.6f (%s%s)", x.Cost, x.State, map[bool]string{true: ", price " + x.Price}[x.Price != ""])
		if x.State == string(store.Unpriced) {
			price = "unpriced"
		}
		fmt.Fprintf(w, ": %s; %s, %s\n", x.Reason, price, x.Latency.Round(10*time.Microsecond))
		switch {
		case x.Confidence > 0 && x.MinConfidence > 0:
			fmt.Fprintf(w, "     confidence %.4f, answers from %.4f on\n", x.Confidence, x.MinConfidence)
		case x.Confidence > 0:
			fmt.Fprintf(w, "     confidence %.4f\n", x.Confidence)
		case x.Unscored:
			fmt.Fprintln(w, "     it tells no confidence: its certificate covers every answer that fits the schema")
		}
		for _, b := range x.Because {
			fmt.Fprintf(w, "     %s = %s rather than %s, by %.2f (%+.2f before any word)\n", b.Field, orDash(b.Value), orDash(b.Against), b.Margin, b.Bias)
			for _, word := range b.Words {
				fmt.Fprintf(w, "       %+.2f  %q\n", word.Weight, word.Text)
			}
		}
		for _, n := range x.Nearest {
			fmt.Fprintf(w, "     like %.2f  %s  %s\n", n.Likeness, n.Labels, clip(n.Text))
		}
		if x.Lack != "" {
			fmt.Fprintf(w, "     what spoke for its answer is not known: %s\n", x.Lack)
		}
		if x.NearestLack != "" {
			fmt.Fprintf(w, "     no training example like it is shown: %s\n", x.NearestLack)
		}
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/lifecycle"
	"occam/internal/store"
)

func (a *app) tasksCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "tasks", Short: "Where every task stands, and what a person can do about it", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listTasks(cmd.Context(), path) }}
	cmd.PersistentFlags().StringVar(&path, "config", "occam.yaml", "configuration file")
	resume := false
	pause := &cobra.Command{
		Use: "pause TASK", Short: "Let the generalist answer everything, and train and promote nothing", Args: oneArg("the task's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			command := map[bool]lifecycle.Command{false: lifecycle.Pause, true: lifecycle.Resume}[resume]
			return a.command(cmd.Context(), path, order{Task: args[0], Command: command})
		},
	}
	pause.Flags().BoolVar(&resume, "resume", false, "go on after a pause")
	cmd.AddCommand(a.discoverCommand(&path),
		&cobra.Command{Use: "check TASK", Short: "Look for wrong labels, duplicates and contradictions among a task's examples", Args: oneArg("the task's name"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.checkTask(cmd.Context(), path, args[0]) }},
		&cobra.Command{Use: "list", Short: "Every task with its state", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listTasks(cmd.Context(), path) }},
		&cobra.Command{Use: "show TASK", Short: "One task: its models, the evidence about them, its history", Args: oneArg("the task's name"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.showTask(cmd.Context(), path, args[0]) }},
		&cobra.Command{Use: "revoke-labels KEY", Short: "Take back every label that a key, or a person at the review queue, gave", Args: oneArg("a key's ID or a person's name"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.revokeLabels(cmd.Context(), path, args[0])
			}},
		pause)
	return cmd
}

func (a *app) revokeLabels(ctx context.Context, path, key string) error {
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	n, err := r.revoke(ctx, key)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(n)
	}
	fmt.Fprintf(a.stdout, "%d labels of %q are revoked; the next training run is without them\n", n.Labels, key)
	return nil
}

// oneArg wants exactly one argument, and says which.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError("%s needs %s; see `%s --help`", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

func (a *app) listTasks(ctx context.Context, path string) error {
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	all, err := r.tasks(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"tasks": append([]lifecycle.Status{}, all...)})
	}
	if len(all) == 0 {
		fmt.Fprintln(a.stderr, "There are no tasks yet: name one under tasks in the configuration.")
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TASK\tSTATE\tSINCE\tMODEL\tCOVERS\tCOMPARED\tNEXT")
	for _, st := range all {
		lead, covers, compared := modelNamed(st.Lead), "–", "–"
		if len(st.Models) > 0 && st.Models[0].Certificate != nil {
			covers = fmt.Sprintf("%.1f %%", 100*st.Models[0].Certificate.Coverage)
		}
		if len(st.Models) > 0 && st.Models[0].Evidence != nil {
			e := st.Models[0].Evidence
			compared = fmt.Sprintf("%d, %d differ", e.Compared, e.Disagreed)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", st.Task, stateName(&st), st.Since.Format(time.DateTime), lead, covers, compared, st.Next)
	}
	return w.Flush()
}

func stateName(st *lifecycle.Status) string {
	if st.Paused {
		return string(st.State) + " (paused)"
	}
	return string(st.State)
}

// modelNamed is how people see a content hash.
func modelNamed(hash string) string {
	if hash == "" {
		return "–"
	}
	return hash[:min(8, len(hash))]
}

// find returns one task among all, or says which there are.
func find(all []lifecycle.Status, name string) (*lifecycle.Status, error) {
	i := slices.IndexFunc(all, func(st lifecycle.Status) bool { return st.Task == name })
	if i >= 0 {
		return &all[i], nil
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Task
	}
	return nil, fmt.Errorf("there is no task %q; there are: %s", name, strings.Join(names, ", "))
}

// A taskReport is the document of `occam tasks show --json`.
type taskReport struct {
	*lifecycle.Status
	History []historyLine `json:"history"` // newest first
}

type historyLine struct {
	Version int64     `json:"version"`
	At      time.Time `json:"at"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
}

const historyShown = 50

func (a *app) showTask(ctx context.Context, path, name string) error {
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	all, err := r.tasks(ctx)
	if err != nil {
		return err
	}
	st, err := find(all, name)
	if err != nil {
		return err
	}
	report := taskReport{Status: st}
	err = r.store.View(ctx, func(tx *store.Tx) error {
		steps, err := tx.Tasks().History(name, historyShown)
		for _, s := range steps {
			report.History = append(report.History, historyLine{s.Version, s.At, s.From, s.To, s.Actor, s.Reason})
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(report)
	}
	printTask(a.stdout, &report)
	return nil
}

func printTask(w io.Writer, r *taskReport) {
	fmt.Fprintf(w, "%s: %s since %s\n  %s\n  next: %s\n", r.Task, stateName(r.Status), r.Since.Format(time.DateTime), r.Reason, r.Next)
	fmt.Fprintf(w, "  promises %s accuracy %.4g at %.4g confidence; %s answers what no model may; auto %v; %.3g %% of answers audited now\n",
		r.Target.Promise, r.Target.Accuracy, r.Target.Confidence, r.Generalist, r.Auto, 100*r.Audit)
	e := r.Examples
	fmt.Fprintf(w, "  examples: %d kept, %d labelled (%d by people), %d drawn at random since the last alarm, %d barred from training\n",
		e.Examples, e.Labelled, e.ByPerson, e.Uniform, e.Barred)
	if t := r.Training; t.Looks > 0 {
		fmt.Fprintf(w, "  training: run %d at %s because %s: %s\n", t.Looks, t.At.Format(time.DateTime), t.Why, orDash(t.Result))
	}
	for _, m := range r.Models {
		printPlaced(w, &m)
	}
	fmt.Fprintln(w, "  history:")
	for _, h := range r.History {
		fmt.Fprintf(w, "    %s  v%d  %s → %s  by %s: %s\n", h.At.Format(time.DateTime), h.Version, orDash(h.From), h.To, h.Actor, h.Reason)
	}
}

func printPlaced(w io.Writer, m *lifecycle.ModelStatus) {
	fmt.Fprintf(w, "  %s %s (%s)", m.Place, modelNamed(m.Model), orDash(m.Mode))
	if m.Void != "" {
		fmt.Fprintf(w, "; may not answer: %s\n", m.Void)
		return
	}
	fmt.Fprintf(w, "; on %d locked rows accuracy %s, covers %.1f %%, served accuracy %s\n", m.Evaluation.N, percent(m.Evaluation.Accuracy),
		100*m.Evaluation.Coverage, percent(m.Evaluation.ServedAccuracy))
	e := m.Evidence
	if e == nil {
		return
	}
	fmt.Fprintf(w, "    audits: %d, %d wrong, %d failed; the error rate is in [%.4f, %.4f] (up to %.3g allowed); alarm at %.0f, now %.3g\n",
		e.Audits, e.Wrong, e.Missing, e.Low, e.High, e.Allowed, e.Limit, e.Change)
	for _, x := range e.Warnings {
		fmt.Fprintf(w, "    warning without labels: %s was %.3g and is %.3g since, noticed at request %d\n", x.Sign, x.Usual, x.Now, x.At)
	}
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// command gives a person's command for the state that the task is in now.
func (a *app) command(ctx context.Context, path string, o order) error {
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	all, err := r.tasks(ctx)
	if err != nil {
		return err
	}
	before, err := find(all, o.Task)
	if err != nil {
		return err
	}
	o.By, o.Version = operator(), before.Version
	after, err := r.do(ctx, o)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(after)
	}
	fmt.Fprintf(a.stdout, "%s: %s → %s: %s\n", o.Task, stateName(before), stateName(&after), after.Reason)
	return nil
}

func (a *app) discoverCommand(path *string) *cobra.Command {
	var m lifecycle.Making
	cmd := &cobra.Command{
		Use: "discover", Short: "Jobs in the traffic of the running server that are no task yet, and whether they are worth it", Args: noArgs,
		Example: "  occam tasks discover\n  occam tasks discover --make s3f0c… --name ticket-triage",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.discover(cmd.Context(), *path, m) },
	}
	cmd.Flags().StringVar(&m.Group, "make", "", "make this group a task")
	cmd.Flags().StringVar(&m.Name, "name", "", "name of the task to make")
	cmd.Flags().Float64Var(&m.Audit, "audit", 0.01, "share of the new task's answers that is audited")
	cmd.Flags().BoolVar(&m.Auto, "auto", false, "let occam promote the new task's models by itself")
	return cmd
}

func (a *app) discover(ctx context.Context, path string, m lifecycle.Making) error {
	if (m.Group == "") != (m.Name == "") {
		return usageError("--make GROUP and --name NAME go together")
	}
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	if r.client == nil {
		return errors.New("no server runs on this data: start `occam serve` with capture.prompts: true and send traffic through it, then ask again")
	}
	if m.Group != "" {
		m.By = operator()
		var st lifecycle.Status
		if err := r.call(ctx, http.MethodPost, "/groups", m, &st); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(st)
		}
		fmt.Fprintf(a.stdout, "%s: %s; next: %s\n", st.Task, st.State, st.Next)
		return nil
	}
	groups := []lifecycle.Group{}
	if err := r.call(ctx, http.MethodGet, "/groups", nil, &groups); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"groups": groups})
	}
	return a.printGroups(groups)
}

func (a *app) printGroups(groups []lifecycle.Group) error {
	if len(groups) == 0 {
		fmt.Fprintln(a.stderr, "Nothing was found yet. Only traffic since the server started counts, and capture.prompts must be on.")
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tREQUESTS\tMODEL\tANSWERS\tENTROPY\tSPENT\tA MONTH\tVERDICT")
	for _, g := range groups {
		monthly := "–"
		if g.Monthly != nil {
			monthly = fmt.Sprintf("$%.2f", *g.Monthly)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s, %d\t%.1f bits\t$%.4f\t%s\t%s: %s\n", g.ID, g.Requests, g.Model, g.Shape, g.Answers, g.Entropy, g.Spent,
			monthly, g.Verdict, g.Reason)
	}
	return w.Flush()
}

package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

func (a *app) tasksCommand() *cobra.Command {
	var path string
	cmd := a.group("tasks", "Where every task stands, and what a person can do about it", func(cmd *cobra.Command) error { return a.onData(cmd.Context(), path, listTasks) })
	cmd.Example = "  occam tasks\n  occam tasks show ticket-triage\n  occam tasks pause ticket-triage\n  occam tasks pause ticket-triage --resume"
	configFlag(cmd, &path)
	// about makes a subcommand about one task or key.
	about := func(use, short, what string, work func(name string) work) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: oneArg(what),
			RunE: func(cmd *cobra.Command, args []string) error { return a.onData(cmd.Context(), path, work(args[0])) }}
	}
	resume := false
	pause := about("pause TASK", "Let the generalist answer everything, and train and promote nothing", "the task's name", func(name string) work {
		return instruct(order{Task: name, Command: map[bool]lifecycle.Command{false: lifecycle.Pause, true: lifecycle.Resume}[resume]})
	})
	pause.Flags().BoolVar(&resume, "resume", false, "go on after a pause")
	cmd.AddCommand(a.discoverCommand(&path), pause,
		&cobra.Command{Use: "check TASK", Short: "Look for wrong labels, duplicates and contradictions among a task's examples", Args: oneArg("the task's name"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.checkTask(cmd.Context(), path, args[0]) }},
		&cobra.Command{Use: "list", Short: "Every task with its state", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.onData(cmd.Context(), path, listTasks) }},
		about("show TASK", "One task: its models, the evidence about them, its history", "the task's name", showTask),
		about("cancel-training TASK", "End the training run that is queued or under way", "the task's name", cancelTraining),
		about("revoke-labels KEY", "Take back every label that a key, or a person at the review queue, gave", "a key's ID or a person's name", revokeLabels))
	return cmd
}

// A result is what a command has to say: a document for programs, and the same for people.
type result struct {
	document any
	print    func(w io.Writer) error
}

// said is a result of one line.
func said(document any, format string, args ...any) result {
	return result{document, func(w io.Writer) error { _, err := fmt.Fprintf(w, format+"\n", args...); return err }}
}

// work is what a command does on the running server, or on the data where none runs.
type work func(ctx context.Context, r *remote) (result, error)

// onData does work on the configured data and prints what came of it.
func (a *app) onData(ctx context.Context, path string, do work) error {
	r, err := a.reach(ctx, path)
	if err != nil {
		return err
	}
	defer r.close()
	out, err := do(ctx, r)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printJSON(out.document)
	}
	return out.print(a.stdout)
}

func revokeLabels(key string) work {
	return func(ctx context.Context, r *remote) (result, error) {
		n, err := r.revoke(ctx, key)
		return said(n, "%d labels of %q are revoked; the next training run is without them", n.Labels, key), err
	}
}

func cancelTraining(name string) work {
	return func(ctx context.Context, r *remote) (result, error) {
		job, err := r.cancelTraining(ctx, name)
		return said(job, "%s: the training run that began as job %s ends; the next one comes with more labels", name, job.Job), err
	}
}

// oneArg wants exactly one argument, and says which.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usageError("%s needs %s; see `%s --help`", cmd.CommandPath(), what, cmd.CommandPath())
		case 1:
			return nil
		}
		return usageError("%s takes %s and nothing behind it, but got %q; see `%s --help`", cmd.CommandPath(), what, args[1:], cmd.CommandPath())
	}
}

func listTasks(ctx context.Context, r *remote) (result, error) {
	all, err := r.tasks(ctx)
	return result{map[string]any{"tasks": append([]lifecycle.Status{}, all...)}, func(w io.Writer) error { return printTasks(w, all) }}, err
}

func printTasks(to io.Writer, all []lifecycle.Status) error {
	if len(all) == 0 {
		fmt.Fprintln(to, "There are no tasks yet: name one under tasks in the configuration, or make one with `occam tasks discover`.")
		return nil
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
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

func showTask(name string) work {
	return func(ctx context.Context, r *remote) (result, error) {
		all, err := r.tasks(ctx)
		if err != nil {
			return result{}, err
		}
		st, err := find(all, name)
		if err != nil {
			return result{}, err
		}
		report := taskReport{Status: st}
		err = r.store.View(ctx, func(tx *store.Tx) error {
			steps, err := tx.Tasks().History(name, historyShown)
			for _, s := range steps {
				report.History = append(report.History, historyLine{s.Version, s.At, s.From, s.To, s.Actor, s.Reason})
			}
			return err
		})
		return result{report, func(w io.Writer) error { printTask(w, &report); return nil }}, err
	}
}

func printTask(w io.Writer, r *taskReport) {
	fmt.Fprintf(w, "%s: %s since %s\n  %s\n  next: %s\n", r.Task, stateName(r.Status), r.Since.Format(time.DateTime), r.Reason, r.Next)
	fmt.Fprintf(w, "  promises %s accuracy %.4g at %.4g confidence; %s answers what no model may; auto %v; %.3g %% of answers audited now\n",
		r.Target.Promise, r.Target.Accuracy, r.Target.Confidence, r.Generalist, r.Auto, 100*r.Audit)
	e := r.Examples
	fmt.Fprintf(w, "  examples: %d kept, %d labelled (%d by people), %d drawn at random since the last alarm, %d barred from training\n",
		e.Examples, e.Labelled, e.ByPerson, e.Uniform, e.Barred)
	if o := r.Outside; o.Outside > 0 {
		fmt.Fprintf(w, "  outside the schema: %d of %d answers of the generalist, of requests drawn at random since the last alarm\n", o.Outside, o.Answers)
	}
	if t := r.Training; t.Looks > 0 {
		fmt.Fprintf(w, "  training: run %d at %s because %s: %s\n", t.Looks, t.At.Format(time.DateTime), t.Why, orDash(t.Result))
		if t.Needed > 0 {
			fmt.Fprintf(w, "  a certificate takes about %d labelled requests drawn at random, %d more than there are: %s\n", t.Needed,
				max(0, t.Needed-r.Examples.Uniform), t.Arithmetic)
		}
		if t.Choice != nil {
			fmt.Fprint(w, indented(t.Choice.Text()))
		}
	}
	for _, m := range r.Models {
		printPlaced(w, &m)
	}
	fmt.Fprintln(w, "  history:")
	for _, h := range r.History {
		fmt.Fprintf(w, "    %s  v%d  %s → %s  by %s: %s\n", h.At.Format(time.DateTime), h.Version, orDash(h.From), h.To, h.Actor, h.Reason)
	}
}

// indented puts two blanks before every line.
func indented(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

func printPlaced(w io.Writer, m *lifecycle.ModelStatus) {
	fmt.Fprintf(w, "  %s %s (%s)", m.Place, modelNamed(m.Model), orDash(m.Mode))
	if m.Void != "" {
		fmt.Fprintf(w, "; may not answer: %s\n", m.Void)
		return
	}
	fmt.Fprintf(w, "; on %d locked rows accuracy %s, covers %.1f %%, served accuracy %s\n", m.Evaluation.N, percent(m.Evaluation.Accuracy),
		100*m.Evaluation.Coverage, percent(m.Evaluation.ServedAccuracy))
	printEvidence(w, m.Evidence)
	for _, t := range m.Tiers {
		fmt.Fprintf(w, "    then %s (%s), which answers as %s%s\n", t.Name, orDash(t.Mode), t.Version, map[bool]string{true: "; may not answer: " + t.Void}[t.Void != ""])
		printEvidence(w, t.Evidence)
	}
}

func printEvidence(w io.Writer, e *lifecycle.EvidenceStatus) {
	if e == nil {
		return
	}
	fmt.Fprintf(w, "    audits: %d, %d wrong, %d failed; the error rate is in [%.4f, %.4f] (up to %.3g allowed); alarm at %.0f, now %.3g\n",
		e.Audits, e.Wrong, e.Missing, e.Low, e.High, e.Allowed, e.Limit, e.Change)
	if e.Alarm {
		fmt.Fprintf(w, "    ALARM after %d audits: %s\n", e.AlarmAt, e.Reason)
	}
	if r := e.Rare; r != nil {
		fmt.Fprintf(w, "    rare classes (%d, %.3g %% of their answers audited besides): %d audits, %d wrong, at most %.3g may be", len(r.Classes), 100*r.Audit, r.Audits, r.Wrong, r.Allowed)
		if r.Alarm {
			fmt.Fprintf(w, "; NOT ANSWERED since: %s", r.Reason)
		}
		fmt.Fprintln(w)
	}
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

// instruct gives a person's command for the state that the task is in now.
func instruct(o order) work {
	return func(ctx context.Context, r *remote) (result, error) {
		all, err := r.tasks(ctx)
		if err != nil {
			return result{}, err
		}
		before, err := find(all, o.Task)
		if err != nil {
			return result{}, err
		}
		o.By, o.Version = operator(), before.Version
		after, err := r.do(ctx, o)
		return said(after, "%s: %s → %s: %s", o.Task, stateName(before), stateName(&after), after.Reason), err
	}
}

func (a *app) discoverCommand(path *string) *cobra.Command {
	var m lifecycle.Making
	var promise string
	cmd := &cobra.Command{
		Use: "discover", Short: "Jobs in traffic that is no task yet, and whether they are worth it", Args: noArgs,
		Example: "  occam tasks discover\n  occam tasks discover --make s3f0c… --name ticket-triage",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (m.Group == "") != (m.Name == "") {
				return usageError("--make GROUP and --name NAME go together")
			}
			m.Target.Promise = task.Promise(promise)
			return a.onData(cmd.Context(), *path, discover(m))
		},
	}
	cmd.Flags().StringVar(&m.Group, "make", "", "make this group a task")
	cmd.Flags().StringVar(&m.Name, "name", "", "name of the task to make")
	cmd.Flags().Float64Var(&m.Audit, "audit", 0.01, "share of the new task's answers that is audited")
	cmd.Flags().BoolVar(&m.Auto, "auto", false, "let occam promote the new task's models by itself")
	cmd.Flags().StringVar(&promise, "promise", string(task.DefaultTarget.Promise), "what the new task promises: served or system")
	cmd.Flags().Float64Var(&m.Target.Accuracy, "accuracy", task.DefaultTarget.Accuracy, "accuracy that the new task promises")
	cmd.Flags().Float64Var(&m.Target.Confidence, "confidence", task.DefaultTarget.Confidence, "confidence of that promise")
	return cmd
}

func discover(m lifecycle.Making) work {
	return func(ctx context.Context, r *remote) (result, error) {
		if m.Group == "" {
			groups, err := r.groups(ctx)
			return result{map[string]any{"groups": orEmpty(groups)}, func(w io.Writer) error { return printGroups(w, groups) }}, err
		}
		m.By = operator()
		st, err := r.makeTask(ctx, m)
		return said(st, "%s: %s; next: %s", st.Task, st.State, st.Next), err
	}
}

func printGroups(to io.Writer, groups []lifecycle.Group) error {
	if len(groups) == 0 {
		fmt.Fprintln(to, "Nothing was found yet: start `occam serve` with capture.prompts: true and send traffic through it.")
		return nil
	}
	dollars := func(v *float64) string {
		if v == nil {
			return "–"
		}
		return fmt.Sprintf("$%.2f", *v)
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tREQUESTS\tMODEL\tANSWERS\tENTROPY\tSPENT\tA MONTH\tSAVED AT MOST\tVERDICT")
	for _, g := range groups {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s, %d\t%.1f bits\t$%.4f\t%s\t%s\t%s: %s\n", g.ID, g.Requests, g.Model, g.Shape, g.Answers, g.Entropy, g.Spent,
			dollars(g.Monthly), dollars(g.Saving), g.Verdict, g.Reason)
	}
	return w.Flush()
}

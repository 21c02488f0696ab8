package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/calibration"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

func (a *app) modelsCommand() *cobra.Command {
	var path string
	cmd := a.group("models", "Trained models with their certificates; promote one, or roll back", func(cmd *cobra.Command) error { return a.listModels(cmd.Context(), path, "") })
	cmd.Example = "  occam models list ticket-triage\n  occam models promote ticket-triage\n  occam models rollback ticket-triage"
	configFlag(cmd, &path)
	cmd.AddCommand(
		&cobra.Command{Use: "list [TASK]", Short: "Every stored model, newest first", Args: atMostOne,
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.listModels(cmd.Context(), path, strings.Join(args, ""))
			}},
		&cobra.Command{Use: "certificate MODEL", Short: "A model's certificates as JSON, with their entries in the ledger's chain",
			Args: oneArg("a model's hash, or its beginning"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.exportCertificate(cmd.Context(), path, args[0])
			}},
		&cobra.Command{Use: "show MODEL", Short: "One model: its certificate in full, and what was measured", Args: oneArg("a model's hash, or its beginning"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.showModel(cmd.Context(), path, args[0]) }},
		&cobra.Command{
			Use: "promote TASK [MODEL]", Short: "Take a task's model one state on, or make another stored model its candidate",
			Args: func(cmd *cobra.Command, args []string) error {
				if len(args) < 1 || len(args) > 2 {
					return usageError("occam models promote needs a task, and may name a model; see `occam models promote --help`")
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.onData(cmd.Context(), path, instruct(order{Task: args[0], Command: lifecycle.Promote, Model: strings.Join(args[1:], "")}))
			},
		},
		&cobra.Command{Use: "rollback TASK", Short: "Let what answered before answer again", Args: oneArg("the task's name"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.onData(cmd.Context(), path, instruct(order{Task: args[0], Command: lifecycle.RollBack}))
			}})
	return cmd
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError("%s takes one task at most; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

// A modelReport is one model of `occam models list --json` and, with its certificate, of `occam models show --json`.
type modelReport struct {
	Model       string                   `json:"model"` // content hash of the file
	Task        string                   `json:"task"`
	Tier        string                   `json:"tier"`
	Bytes       int64                    `json:"bytes"`
	Stored      time.Time                `json:"stored_at"`
	Place       string                   `json:"place,omitempty"` // lead, incumbent, previous
	Mode        string                   `json:"mode,omitempty"`  // in the cascade
	Certificate *calibration.Certificate `json:"certificate"`
	Hash        string                   `json:"certificate_hash,omitempty"`
	Notices     []chained                `json:"ledger,omitempty"` // what happened to its certificates, as the ledger's chain has it
	// Evidence is what audits say now, by tier: the live confidence sequence and the alarm.
	Evidence map[string]*lifecycle.EvidenceStatus `json:"evidence,omitempty"`
	lifecycle.ModelReport
}

// chained is a notice with its place in the ledger's chain.
type chained struct {
	Lane int64 `json:"lane"`
	Seq  int64 `json:"entry"`
	store.Notice
}

// modelReports reads the stored models with their places in their tasks.
func (a *app) modelReports(ctx context.Context, path, taskName string) ([]modelReport, error) {
	r, err := a.reach(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	stored, err := lifecycle.Models(ctx, r.store, taskName)
	if err != nil {
		return nil, err
	}
	tasks, err := r.tasks(ctx)
	if err != nil {
		return nil, err
	}
	notices, err := r.store.Notices(ctx, taskName)
	if err != nil {
		return nil, err
	}
	all := make([]modelReport, len(stored))
	for i, m := range stored {
		all[i] = modelReport{Model: m.Hash, Task: m.Task, Tier: m.Tier, Bytes: m.Bytes, Stored: m.Created, Certificate: m.Certificate, ModelReport: m.Report}
		if m.Certificate != nil {
			all[i].Hash = m.Certificate.Hash()
		}
		for _, n := range notices {
			if n.Subject == m.ID || strings.HasPrefix(n.Subject, m.ID+"/") {
				all[i].Notices = append(all[i].Notices, chained{n.Lane, n.Seq, n})
			}
		}
		for _, st := range tasks {
			for _, placed := range st.Models {
				if placed.Model == m.Hash && st.Task == m.Task {
					all[i].Place, all[i].Mode = placed.Place, placed.Mode
					all[i].Evidence = evidenceByTier(&placed)
				}
			}
		}
	}
	return all, nil
}

func evidenceByTier(m *lifecycle.ModelStatus) map[string]*lifecycle.EvidenceStatus {
	by := map[string]*lifecycle.EvidenceStatus{}
	if m.Certificate != nil && m.Evidence != nil {
		by[m.Certificate.Tier] = m.Evidence
	}
	for _, t := range m.Tiers {
		by[t.Name] = t.Evidence
	}
	return by
}

func (a *app) listModels(ctx context.Context, path, taskName string) error {
	all, err := a.modelReports(ctx, path, taskName)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"models": all})
	}
	if len(all) == 0 {
		fmt.Fprintln(a.stderr, "There are no models yet: `occam serve` trains them from traffic, or name a file of `occam train` with tasks.NAME.model.")
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tTASK\tSTORED\tPLACE\tSIZE\tCOVERS\tSERVED ACCURACY [95 %]\tVERDICT")
	for _, m := range all {
		verdict := m.Reason
		if m.Refusal != "" {
			verdict = "refused: " + m.Refusal
		}
		place := m.Place
		if m.Mode != "" {
			place = m.Place + ", " + m.Mode
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f MB\t%.1f %%\t%s\t%s\n", modelNamed(m.Model), m.Task, m.Stored.Format(time.DateTime), orDash(place),
			float64(m.Bytes)/1e6, 100*m.Evaluation.Coverage, percent(m.Evaluation.ServedAccuracy), verdict)
	}
	return w.Flush()
}

// findModel returns the one model whose name or hash begins with what a person gave.
func (a *app) findModel(ctx context.Context, path, prefix string) (*modelReport, error) {
	all, err := a.modelReports(ctx, path, "")
	if err != nil {
		return nil, err
	}
	var found []*modelReport
	for i := range all {
		m := &all[i]
		if strings.HasPrefix(m.Model, prefix) || strings.HasPrefix(m.Specialist, prefix) || m.Task+"@"+modelNamed(m.Specialist) == prefix {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("there is no model %s: see `occam models list`", prefix)
	case len(found) > 1:
		return nil, fmt.Errorf("%d models begin with %s: give more of the hash", len(found), prefix)
	}
	return found[0], nil
}

func (a *app) showModel(ctx context.Context, path, prefix string) error {
	m, err := a.findModel(ctx, path, prefix)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(m)
	}
	printModel(a.stdout, m)
	return nil
}

// A certificateReport is what `occam models certificate` exports: everything that is promised, and what the ledger's chain says
// happened to it.
type certificateReport struct {
	Model        string             `json:"model"`
	Task         string             `json:"task"`
	Certificates []certificateEntry `json:"certificates"`
	Ledger       []chained          `json:"ledger"`
}

type certificateEntry struct {
	Tier        string                   `json:"tier"`
	Hash        string                   `json:"hash"` // SHA-256 of the certificate's JSON
	Certificate *calibration.Certificate `json:"certificate"`
	// Live is the confidence sequence and the alarm, by the audits so far; null while the model is not used.
	Live *lifecycle.EvidenceStatus `json:"live"`
}

// exportCertificate prints a model's certificates as JSON, whether or not --json was given: it is for machines and for keeping.
func (a *app) exportCertificate(ctx context.Context, path, prefix string) error {
	m, err := a.findModel(ctx, path, prefix)
	if err != nil {
		return err
	}
	r := certificateReport{Model: m.Model, Task: m.Task, Ledger: m.Notices}
	if m.Certificate != nil && (len(m.Tiers) == 0 || m.Certificate.Tier != m.Tiers[0].Name) {
		r.Certificates = append(r.Certificates, certificateEntry{m.Certificate.Tier, m.Hash, m.Certificate, m.Evidence[m.Certificate.Tier]})
	}
	for _, t := range m.Tiers {
		r.Certificates = append(r.Certificates, certificateEntry{t.Name, t.Certificate.Hash(), t.Certificate, m.Evidence[t.Name]})
	}
	if len(r.Certificates) == 0 {
		return fmt.Errorf("model %s has no certificate: it may answer nothing", modelNamed(m.Model))
	}
	return a.printJSON(r)
}

func printModel(w io.Writer, m *modelReport) {
	fmt.Fprintf(w, "model %s of task %s\n", m.Model, m.Task)
	fmt.Fprintf(w, "  %.1f MB, tier %s, %s %s in %.1f s, stored %s\n", float64(m.Bytes)/1e6, m.Tier, m.Origin, m.TrainedAt.Format(time.DateTime), m.Seconds, m.Stored.Format(time.DateTime))
	if m.Why != "" {
		fmt.Fprintf(w, "  trained because %s\n", m.Why)
	}
	if m.Refusal != "" {
		fmt.Fprintf(w, "  REFUSED: %s\n", m.Refusal)
	} else {
		fmt.Fprintf(w, "  %s\n", m.Reason)
	}
	c := m.Counts
	fmt.Fprintf(w, "  rows: train %d, calibration %d, test %d (locked), background %d, gold %d, duplicates removed %d\n",
		c.Train, c.Calibration, c.Test, c.Background, c.Gold, c.Duplicates)
	e := m.Evaluation
	fmt.Fprintf(w, "  on the locked test rows: accuracy %s, covers %.1f %%, served accuracy %s\n", percent(e.Accuracy), 100*e.Coverage, percent(e.ServedAccuracy))
	if p := m.People; p != nil {
		fmt.Fprintf(w, "  against people's labels (%d gold rows): accuracy %s, served accuracy %s\n", p.N, percent(p.Accuracy), percent(p.ServedAccuracy))
	}
	if m.Judged > 0 {
		low, high := calibration.Interval(m.TeacherWrong, m.Judged, 0.95)
		fmt.Fprintf(w, "  the generalist against people: %d wrong of %d [%.1f %%, %.1f %%]\n", m.TeacherWrong, m.Judged, 100*low, 100*high)
	}
	for _, f := range m.Findings {
		fmt.Fprintf(w, "  finding: %s\n", f.Detail)
	}
	printTruth(w, m.Truth)
	if m.Choice != nil {
		fmt.Fprint(w, m.Choice.Text())
	}
	if m.Certificate == nil || len(m.Tiers) == 0 || m.Certificate.Tier != m.Tiers[0].Name {
		printFullCertificate(w, m.Certificate, m.Hash)
		if m.Certificate != nil {
			printEvidence(w, m.Evidence[m.Certificate.Tier])
		}
	}
	for _, t := range m.Tiers {
		printFullCertificate(w, t.Certificate, t.Certificate.Hash())
		printEvidence(w, m.Evidence[t.Name])
	}
	for _, n := range m.Notices {
		fmt.Fprintf(w, "ledger entry %d/%d  %s  %s %s: %s\n", n.Lane, n.Seq, n.At.Format(time.DateTime), n.Kind, modelNamed(n.Hash), n.Text)
	}
}

// printTruth sets agreement with the teacher and accuracy against people's labels side by side.
func printTruth(w io.Writer, t *calibration.Truth) {
	if t == nil {
		return
	}
	fmt.Fprintf(w, "  of the answers it would give on %d rows that no certificate saw:\n", t.Rows)
	fmt.Fprintf(w, "    against the teacher: %.2f %% differ, at most %.2f %%\n", 100*t.Differ, 100*t.DifferHigh)
	if t.Judged == 0 {
		fmt.Fprintln(w, "    against people: no row was labelled by a person, so accuracy is not known; agreement is not truth")
		return
	}
	fmt.Fprintf(w, "    against people (%d rows): wrong between %.2f %% and %.2f %%\n", t.Judged, 100*t.Low, 100*t.High)
	fmt.Fprintf(w, "      by people's labels alone at most %.2f %%; free of assumptions, from agreement and the teacher's errors, %.2f %% to %.2f %%; agreement corrected on the judged rows at most %.2f %%\n",
		100*t.Direct, 100*t.FreeLow, 100*t.FreeHigh, 100*t.Assisted)
	fmt.Fprintf(w, "      the teacher itself is wrong in %.2f %% to %.2f %%; where they differ in being right: %d for the specialist, %d for the teacher\n",
		100*t.TeacherLow, 100*t.TeacherTop, t.Versus.Gains, t.Versus.Harms)
	fmt.Fprintf(w, "      (if %s)\n", calibration.ChosenRegardless)
}

// printFullCertificate prints everything that is promised, on what evidence, and while what holds.
func printFullCertificate(w io.Writer, c *calibration.Certificate, hash string) {
	if c == nil {
		fmt.Fprintln(w, "no certificate: it may answer nothing")
		return
	}
	promise := map[string]string{calibration.Served: "of the answers it gives, at most this share is wrong", calibration.System: "of all requests, at most this share gets a wrong answer from it"}
	fmt.Fprintf(w, "certificate %s\n", hash)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("promise", "%s risk <= %.4g: %s", c.Promise, c.Risk, promise[c.Promise])
	line("confidence", "%.4g (this certification spent %.3g of the %.3g that may fail)", 1-c.Delta, c.Level, c.Delta)
	line("task", "%s, tier %s, scope %s (what counts as wrong)", c.Task, c.Tier, c.Scope)
	line("specialist", "%s %s", c.Specialist, c.Model)
	line("score", "%s", c.Score)
	line("answers when", "score >= %.6g and in-scope score >= %.6g", c.Threshold, c.Floor)
	line("evidence", "%d calibration rows (%s), %d accepted, %d wrong; upper bound %.4f; method %s", c.N, c.Split, c.Accepted, c.Errors, c.Upper, c.Method)
	line("coverage", "%.2f %%", 100*c.Coverage)
	line("labels", "%s", orDash(c.Labels))
	for _, source := range c.Sources {
		line("labels of", "%s, prompt %s: %d calibration rows", source.Name, orDash(source.Prompt), source.Rows)
	}
	line("teacher", "%s, prompt %s", orDash(c.Teacher), orDash(c.PromptHash))
	if !c.From.IsZero() {
		line("window", "%s to %s", c.From.Format(time.DateTime), c.To.Format(time.DateTime))
	}
	line("issued", "%s", c.IssuedAt.Format(time.DateTime))
	line("audit share", "%.3g", c.AuditRate)
	for _, row := range c.Fields {
		line("field", "%s: %d accepted, %d wrong, upper bound %.4f; %s", row.Name, row.Accepted, row.Errors, row.Upper, row.Note)
	}
	for _, row := range c.Classes {
		line("class", "%s: %d accepted, %d wrong, upper bound %.4f; %s", row.Name, row.Accepted, row.Errors, row.Upper, row.Note)
	}
	for _, f := range c.Alone {
		if f.Certified {
			line("field alone", "%s: %s risk <= %.4g from score %.6g on, %.2f %% of requests; %d accepted, %d wrong, upper bound %.4f", f.Field, c.Promise, c.Risk,
				f.Threshold, 100*f.Coverage, f.Accepted, f.Errors, f.Upper)
			continue
		}
		line("field alone", "%s: not certified, about %d more labels; %s", f.Field, f.More, f.Why)
	}
	for tier, limit := range c.Below {
		line("reached by", "requests that tier %s scored below %.6g", modelNamed(tier), limit)
	}
	for _, condition := range c.ValidIf {
		line("valid while", "%s", condition)
	}
}

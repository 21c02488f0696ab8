package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/datacheck"
	"occam/internal/lifecycle"
	"occam/internal/specialist"
	"occam/internal/task"
)

type trainFlags struct {
	data, taskFile, out string
	tiers               []string
	refit, skipBad      bool
	curve               bool
	accuracy, volume    float64
	promise             string
	seed                uint64
	memory              int64 // MB
	keep                int
	warm                string
	compare             bool
}

func (a *app) trainCommand() *cobra.Command {
	var f trainFlags
	cmd := &cobra.Command{
		Use: "train --data train.jsonl", Short: "Train, calibrate and certify a specialist", Args: noArgs,
		Example: "  occam train --data tickets.jsonl --out tickets.occam\n  occam train --data tickets.csv --task ticket-triage.yaml --refit",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.train(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "labelled examples: JSON Lines, OpenAI chat lines, or CSV (required)")
	flags.StringVar(&f.taskFile, "task", "", "task file; without it the task is inferred from the data")
	flags.StringVar(&f.out, "out", "", "model file to write (default: the task's name with .occam)")
	flags.StringSliceVar(&f.tiers, "tiers", []string{"linear"}, "tiers to train; only linear is")
	flags.BoolVar(&f.refit, "refit", false, "use every row for the weights and a cross-fitted certificate")
	flags.BoolVar(&f.skipBad, "skip-bad", false, "report lines that cannot be used and go on without them")
	flags.BoolVar(&f.curve, "curve", false, "also measure what more labels would bring: about two more trainings")
	flags.Float64Var(&f.accuracy, "accuracy", 0, "target accuracy, such as 0.97 (default: the task's, or 0.97)")
	flags.Float64Var(&f.volume, "volume", 1_000_000, "requests a month, for the table of plans")
	flags.StringVar(&f.promise, "promise", "", "served or system (default: the task's, or served)")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the split and of training")
	flags.StringVar(&f.warm, "warm", "", "an earlier model file of the task: its calibration is taken over, which saves most of the work; not with --refit")
	flags.IntVar(&f.keep, "keep-examples", 0, "labelled examples that the model file shall hold, for explanations to name: whoever may ask for those reads them")
	flags.Int64Var(&f.memory, "memory", 4096, "MB that training may take, about; larger data (about 1/64 of it and more) are streamed from disk")
	return cmd
}

func (a *app) train(ctx context.Context, f trainFlags) error {
	if f.data == "" {
		return usageError("--data is missing: occam train --data train.jsonl")
	}
	if i := slices.IndexFunc(f.tiers, func(t string) bool { return t != "linear" }); i >= 0 {
		return usageError("tier %q is not trained: a model of the configuration is measured by the running server, so list it in the task's `tiers` and run `occam serve`", f.tiers[i])
	}
	if f.warm != "" && f.refit {
		return usageError("--warm saves the folds of calibration, which --refit needs: use one of the two")
	}
	if large, err := lifecycle.Large(f.data, f.memory<<20); err != nil {
		return err
	} else if large {
		return a.trainLarge(ctx, f)
	}
	examples, err := a.readExamples(f.data, f.skipBad)
	if err != nil {
		return err
	}
	t, err := a.taskFor(f, fieldsOf(examples))
	if err != nil {
		return err
	}
	if problems := task.CheckLabels(t.Fields, examples, f.data); len(problems) > 0 {
		a.reportProblems(problems)
		return fmt.Errorf("%d labels of %s are not allowed by the schema of task %s: correct the rows named above, or give the schema the values that it lacks", len(problems), f.data, t.Name)
	}
	if f.out, err = modelPath(f.out, t); err != nil {
		return err
	}
	checked := datacheck.Quick(t.Fields, examples)
	f.compare = true
	trained, err := a.runTraining(ctx, t, examples, f)
	if err != nil {
		return err
	}
	if err := judge(ctx, checked, trained); err != nil {
		return err
	}
	data := summarise(f.data, checked)
	if err := trained.Plan(ctx, a.planOffline(t, f.volume)); err != nil {
		return err
	}
	if f.curve {
		if data.Curve, err = a.learningCurve(ctx, t, examples, f.seed); err != nil {
			return err
		}
	}
	return a.finishTraining(f, trained, func(r *trainReport) { r.Data, r.RefitCost = data, trained.RefitCost })
}

// modelPath is where a task's model goes, checked before anything is trained.
func modelPath(out string, t *task.Task) (string, error) {
	if out == "" {
		out = t.Name + ".occam"
	}
	if err := lifecycle.Writable(out); err != nil {
		return "", fmt.Errorf("--out: %w", err)
	}
	return out, nil
}

// finishTraining writes the model and the report.
func (a *app) finishTraining(f trainFlags, trained *lifecycle.Trained, complete func(*trainReport)) error {
	if err := trained.Save(f.out); err != nil {
		return err
	}
	report := newTrainReport(trained, f.out, a.now())
	complete(&report)
	if a.json {
		return a.printJSON(report)
	}
	a.printTrainReport(report, trained)
	return nil
}

// taskFor reads the task file, or makes a task of the fields that the data show.
func (a *app) taskFor(f trainFlags, infer func() ([]task.Field, error)) (*task.Task, error) {
	var t *task.Task
	var err error
	if f.taskFile != "" {
		t, err = config.LoadTask(f.taskFile)
	} else {
		t, err = inferTask(f.data, infer)
	}
	if err != nil {
		return nil, err
	}
	if f.accuracy != 0 {
		t.Target.Accuracy = f.accuracy
	}
	if f.promise != "" {
		t.Target.Promise = task.Promise(f.promise)
	}
	return t, checkTarget(t.Target)
}

func checkTarget(target task.Target) error {
	switch {
	case !(target.Accuracy > 0 && target.Accuracy < 1):
		return usageError("a target accuracy of %v makes no sense: it is a share between 0 and 1, such as 0.97", target.Accuracy)
	case target.Promise != task.Served && target.Promise != task.System:
		return usageError("--promise is %q: it must be served or system", target.Promise)
	}
	return nil
}

// judge completes a quick data check by what the models of the training's folds said of the rows that they had not seen.
func judge(ctx context.Context, checked *datacheck.Report, t *lifecycle.Trained) error {
	order := t.Judged.Rows // blocks are looked for in the file's order
	by := make([]int, len(order))
	for i := range by {
		by[i] = i
	}
	slices.SortStableFunc(by, func(i, j int) int { return order[i].Line - order[j].Line })
	rows, predictions := make([]task.Example, len(by)), make([]task.Prediction, len(by))
	for k, i := range by {
		rows[k], predictions[k] = order[i], t.Judged.Predictions[i]
	}
	more, err := datacheck.Judge(ctx, t.Task.Fields, rows, predictions, datacheck.Options{})
	if err != nil {
		return err
	}
	checked.Findings = append(checked.Findings, more.Findings...)
	checked.Skipped, checked.Ceilings = append(checked.Skipped, more.Skipped...), more.Ceilings
	return nil
}

// runTraining trains with one progress line a stage.
func (a *app) runTraining(ctx context.Context, t *task.Task, examples []task.Example, f trainFlags) (*lifecycle.Trained, error) {
	var earlier *specialist.Model
	if f.warm != "" {
		loaded, err := lifecycle.LoadModel(f.warm)
		if err != nil {
			return nil, err
		}
		defer loaded.Close()
		earlier = loaded.Model
	}
	progress, finish := a.stages()
	trained, err := lifecycle.Train(ctx, lifecycle.TrainOptions{Task: t, Examples: examples, Refit: f.refit, Seed: f.seed,
		Keep: f.keep, Warm: earlier, CompareRefit: f.compare, Now: a.now, Progress: progress})
	finish()
	return trained, err
}

// trainReport is the document of `occam train --json`.
type trainReport struct {
	Task        string                   `json:"task"`
	Examples    lifecycle.Counts         `json:"examples"`
	Data        dataSummary              `json:"data"` // what is wrong with the examples, as far as it shows without a model
	Tiers       []tierReport             `json:"tiers"`
	Chosen      string                   `json:"chosen"`
	Certificate *calibration.Certificate `json:"certificate"`
	Shortfall   string                   `json:"shortfall,omitempty"` // why nothing is certified
	Choice      *cascade.Choice          `json:"choice"`              // every plan with its price, and which one was chosen
	Model       string                   `json:"model"`
	RefitCost   *lifecycle.RefitCost     `json:"refit_cost,omitempty"` // what a held-out certificate costs in accuracy against --refit
	Stream      *specialist.StreamUse    `json:"stream,omitempty"`     // of data that did not fit the memory allowed
}

type tierReport struct {
	Name           string               `json:"name"`
	Bytes          int                  `json:"bytes"`
	TrainSeconds   float64              `json:"train_seconds"`
	Accuracy       lifecycle.Proportion `json:"accuracy"`
	Coverage       float64              `json:"coverage"`
	ServedAccuracy lifecycle.Proportion `json:"served_accuracy"`
	USDPer1k       *float64             `json:"usd_per_1k"` // of the tier with the generalist behind it; null when the generalist is unpriced
	Verdict        string               `json:"verdict"`
}

// assumedUsage is what one request costs the generalist when there is no traffic to measure: the published scenario's.
var assumedUsage = cost.Usage{Input: 500, Output: 50}

const assumedGeneralist = "gpt-4o"

// planOffline is what is known of a plan's costs without traffic.
func (a *app) planOffline(t *task.Task, volume float64) lifecycle.PlanOptions {
	o := lifecycle.PlanOptions{Now: a.now(), Volume: volume, VolumeFrom: "assumed, see --volume", Generalist: cascade.Price{Unknown: true}}
	t.Generalist = cmp.Or(t.Generalist, assumedGeneralist)
	if price, priced := cost.Default().Lookup("", t.Generalist, a.now()); priced {
		o.Generalist = cascade.Price{PerCall: price.Cost(assumedUsage, a.now()).USD(),
			From: fmt.Sprintf("%d tokens in, %d out, assumed", assumedUsage.Input, assumedUsage.Output)}
	}
	return o
}

func newTrainReport(t *lifecycle.Trained, path string, at time.Time) trainReport {
	e := t.Evaluation
	tier := tierReport{
		Name: "linear", Bytes: t.Bytes, TrainSeconds: t.Seconds, Accuracy: e.Accuracy,
		Coverage: e.Coverage, ServedAccuracy: e.ServedAccuracy, Verdict: verdict(t),
	}
	generalist := t.Task.Generalist
	if generalist == "" {
		generalist = assumedGeneralist
	}
	report := trainReport{Task: t.Task.Name, Examples: t.Counts, Chosen: "generalist", Certificate: t.Certificate, Choice: t.Choice, Model: path}
	if price, priced := cost.Default().Lookup("", generalist, at); priced {
		full := price.Cost(assumedUsage, at).USD() * 1000
		mixed := full * (1 - e.Coverage)
		tier.USDPer1k = &mixed
		report.Tiers = []tierReport{tier, {Name: generalist, USDPer1k: &full, Accuracy: lifecycle.NewProportion(0, 0), Verdict: "reference, accuracy not measured"}}
	} else {
		report.Tiers = []tierReport{tier}
	}
	if t.Certificate != nil {
		report.Chosen = "linear"
	} else {
		report.Shortfall = t.Shortfall.Error()
	}
	return report
}

func verdict(t *lifecycle.Trained) string {
	if t.Certificate == nil {
		return "not certified: the generalist keeps answering"
	}
	return fmt.Sprintf("certified: answers %.1f %% of requests", 100*t.Certificate.Coverage)
}

func (a *app) printTrainReport(r trainReport, t *lifecycle.Trained) {
	w := a.stdout
	fmt.Fprintf(w, "task %s: %s\n", r.Task, describeFields(t.Task.Fields))
	fmt.Fprintf(w, "data  train %d, calibration %d, test %d", r.Examples.Train, r.Examples.Calibration, r.Examples.Test)
	fmt.Fprintf(w, "; %d duplicates removed, %d rows without every label\n", r.Examples.Duplicates, r.Examples.Unlabelled)
	r.Data.print(w)
	if u := r.Stream; u != nil {
		fmt.Fprintf(w, "streamed from disk: %d rows read %s; the vocabulary, one of two heads and spans learned from %d of them; %d more calibrated\n",
			u.Examples, times(u.Passes), u.Sample, u.Tuning)
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "  %-10s %9s  %-22s %8s  %-22s %8s  %s\n", "tier", "size", "accuracy [95 %]", "covers", "served accuracy [95 %]", "$/1k*", "verdict")
	for _, tier := range r.Tiers {
		size, accuracy, covers, served := "–", "–", "–", "–"
		if tier.Bytes > 0 {
			size = fmt.Sprintf("%.1f MB", float64(tier.Bytes)/1e6)
			accuracy, covers, served = percent(tier.Accuracy), fmt.Sprintf("%.1f %%", 100*tier.Coverage), percent(tier.ServedAccuracy)
		}
		price := "unpriced"
		if tier.USDPer1k != nil {
			price = fmt.Sprintf("%.3f", *tier.USDPer1k)
		}
		fmt.Fprintf(w, "  %-10s %9s  %-22s %8s  %-22s %8s  %s\n", tier.Name, size, accuracy, covers, served, price, tier.Verdict)
	}
	fmt.Fprintf(w, "  * assuming %d tokens in, %d out; what the tier may not answer goes to the generalist\n\n", assumedUsage.Input, assumedUsage.Output)
	if r.Choice != nil {
		fmt.Fprintln(w, r.Choice.Text())
	}
	a.printCertificate(t)
	a.printChoice(r.RefitCost)
	fmt.Fprintf(w, "Wrote %s. Next: occam eval --model %s --data test.jsonl\n", r.Model, r.Model)
}

func (a *app) printCertificate(t *lifecycle.Trained) {
	w := a.stdout
	if t.Certificate == nil {
		fmt.Fprintf(w, "No certificate: %v\n", t.Shortfall)
		return
	}
	c := t.Certificate
	fmt.Fprintf(w, "Certificate (%s, %s): %s risk <= %.3g at %.0f %% confidence.\n", c.Method, c.Split, c.Promise, c.Risk, 100*(1-c.Delta))
	fmt.Fprintf(w, "  %d of %d calibration rows accepted, %d wrong; upper bound %.4f.\n", c.Accepted, c.N, c.Errors, c.Upper)
}

// printChoice says what the kind of certificate that was chosen costs.
func (a *app) printChoice(r *lifecycle.RefitCost) {
	switch {
	case r == nil:
	case r.Refit:
		fmt.Fprintf(a.stdout, "Cross-fitted: the weights learned from all %d rows, and the certificate is an estimate without proof (docs/guarantees.md has how often it broke).\n"+
			"  A held-out one, which is exact, would leave %d rows to learn from: about %.1f points of accuracy less (on %d rows).\n", r.RefitRows, r.HeldOutRows, r.Points, r.Measured)
	default:
		fmt.Fprintf(a.stdout, "Held out: the certificate is exact, and the weights learned from %d of %d rows. With --refit they would learn from all:\n"+
			"  about %.1f points of accuracy more (on %d rows), with a certificate that has no proof.\n", r.HeldOutRows, r.RefitRows, r.Points, r.Measured)
	}
}

func describeFields(fields []task.Field) string {
	var parts []string
	for _, f := range fields {
		part := fmt.Sprintf("%s (%s)", f.Name, f.Kind)
		if len(f.Values) > 0 {
			part = fmt.Sprintf("%s (%s of %d)", f.Name, f.Kind, len(f.Values))
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func percent(p lifecycle.Proportion) string {
	return fmt.Sprintf("%5.1f %% [%.1f, %.1f]", 100*p.Value, 100*p.Low, 100*p.High)
}

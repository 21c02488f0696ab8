package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"occam/internal/datacheck"
	"occam/internal/task"
)

type dataFlags struct {
	taskFile, reference string
	quick, strict       bool
	show                int
	seed                uint64
}

func (a *app) dataCommand() *cobra.Command {
	cmd := a.group("data", "What is wrong with labelled examples, and what more would bring", nil)
	cmd.Example = "  occam data check tickets.jsonl\n  occam data curve tickets.jsonl"
	cmd.AddCommand(a.dataCheckCommand(), a.dataCurveCommand())
	return cmd
}

func (a *app) dataCheckCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Find duplicates, contradictions, wrong labels and categories that cannot be told apart", Args: oneFile,
		Example: "  occam data check tickets.jsonl\n  occam data check train.jsonl --reference test.jsonl --json",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.dataCheck(cmd.Context(), args[0], f) },
	}
	f.common(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.reference, "reference", "", "rows that must not be trained on, such as a test file: leaks are reported")
	flags.BoolVar(&f.quick, "quick", false, "only the checks that train no model")
	flags.BoolVar(&f.strict, "strict", false, "exit with 3 when anything worse than a note is found")
	flags.IntVar(&f.show, "show", 5, "groups of rows to print for each finding; --json holds all")
	return cmd
}

func (a *app) dataCurveCommand() *cobra.Command {
	var f dataFlags
	cmd := &cobra.Command{
		Use: "curve FILE", Short: "Measure what more labels would bring, and for which categories", Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return a.dataCurve(cmd.Context(), args[0], f) },
	}
	f.common(cmd)
	return cmd
}

func (f *dataFlags) common(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.taskFile, "task", "", "task file; without it the task is inferred from the data")
	cmd.Flags().Uint64Var(&f.seed, "seed", 1, "seed of the folds and subsets")
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("name one data file: %s train.jsonl", cmd.CommandPath())
	}
	return nil
}

// dataReport is the document of `occam data check --json`.
type dataReport struct {
	File       string         `json:"file"`
	Task       string         `json:"task"`
	Unreadable []task.Problem `json:"unreadable"` // lines that cannot be used at all
	*datacheck.Report

	texts, reference []task.Example
}

func (a *app) dataCheck(ctx context.Context, path string, f dataFlags) error {
	if f.show < 0 {
		return usageError("--show is %d: it must be 0 or more", f.show)
	}
	examples, problems, err := readAll(path)
	if err != nil {
		return err
	}
	t, err := a.taskFor(trainFlags{data: path, taskFile: f.taskFile}, fieldsOf(examples))
	if err != nil {
		return err
	}
	report := dataReport{File: path, Task: t.Name, Unreadable: append([]task.Problem{}, problems...), texts: examples}
	if f.reference != "" {
		if report.reference, err = a.readExamples(f.reference, false); err != nil {
			return err
		}
	}
	if f.quick {
		report.Report = datacheck.Quick(t.Fields, examples)
	} else {
		progress, finish := a.stages()
		report.Report, err = datacheck.Check(ctx, t.Fields, examples, datacheck.Options{Seed: f.seed, Progress: progress, Reference: report.reference})
		finish()
		if err != nil {
			return err
		}
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		a.printDataReport(report, f.show)
	}
	if n := report.serious(); err == nil && f.strict && n > 0 {
		return fmt.Errorf("%w%s: %d findings worse than a note", hidden{errBar}, path, n)
	}
	return err
}

// readAll reads a data file whose bad lines are part of the result.
func readAll(path string) ([]task.Example, []task.Problem, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("the data cannot be read: %w", err)
	}
	defer file.Close()
	examples, problems, err := task.ReadExamples(file, path)
	if err == nil && len(examples) == 0 {
		err = fmt.Errorf("%s holds no usable example; its first problem: %s", path, problems[0])
	}
	return examples, problems, err
}

// stages returns a progress function that draws one bar a stage, and what ends the last one.
func (a *app) stages() (progressed func(stage string, done, total int), finish func()) {
	var bar *progress
	current := ""
	finish = func() {
		if bar != nil {
			bar.finish("")
		}
	}
	return func(stage string, done, total int) {
		if stage != current {
			finish()
			current, bar = stage, a.newProgress(stage, total)
		}
		bar.set(done, "")
	}, finish
}

func (r dataReport) serious() int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity != datacheck.Note {
			n++
		}
	}
	if len(r.Unreadable) > 0 {
		n++
	}
	return n
}

func (a *app) printDataReport(r dataReport, show int) {
	w := a.stdout
	fmt.Fprintf(w, "%s: %d rows", r.File, r.Rows)
	if r.Reference > 0 {
		fmt.Fprintf(w, ", compared with %d reference rows", r.Reference)
	}
	fmt.Fprintln(w)
	if len(r.Unreadable) > 0 {
		fmt.Fprintf(w, "\nerror    unreadable: %d lines cannot be used\n", len(r.Unreadable))
		for i, p := range r.Unreadable[:min(show, len(r.Unreadable))] {
			fmt.Fprintf(w, "    line %d: %s\n", p.Line, p.Reason)
			if i == show-1 && len(r.Unreadable) > show {
				fmt.Fprintf(w, "    … and %d more\n", len(r.Unreadable)-show)
			}
		}
	}
	for _, f := range r.Findings {
		r.printFinding(w, f, show)
	}
	if len(r.Findings) == 0 && len(r.Unreadable) == 0 {
		fmt.Fprintln(w, "Nothing was found.")
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "\nnot checked: %s\n", s)
	}
	for _, c := range r.Ceilings {
		printCeiling(w, c)
	}
}

func printCeiling(w io.Writer, c datacheck.Ceiling) {
	fmt.Fprintf(w, "\nBest accuracy to hope for in %s: about %.1f %% (%.1f to %.1f); the specialist reaches %.1f %% out of fold.\n",
		c.Field, 100*c.Estimate, 100*c.Low, 100*c.High, 100*c.Now)
	fmt.Fprintf(w, "  By count %.1f %%: %.0f rows contradictory, %.0f mislabelled, %.0f undecidable.", 100*c.Counted, c.Contradictory, c.Mislabelled, c.Undecidable)
	if c.ByPairs > 0 {
		fmt.Fprintf(w, " By near-duplicates %.1f %%: %d of %d differ in the label.", 100*c.ByPairs, c.NearConflict, c.NearPairs)
	}
	fmt.Fprintf(w, "\n  It assumes %s.\n", c.Assumes)
}

func (r dataReport) printFinding(w io.Writer, f datacheck.Finding, show int) {
	name := strings.ReplaceAll(string(f.Kind), "_", " ")
	if f.Field != "" {
		name += " in " + f.Field
	}
	fmt.Fprintf(w, "\n%-8s %s: %d rows\n  %s\n  %s\n", f.Severity, name, f.Rows, f.Why, f.Do)
	for i, g := range f.Groups {
		if i == show {
			fmt.Fprintf(w, "    … and %d more; --json lists all\n", len(f.Groups)-show)
			return
		}
		r.printGroup(w, g)
	}
}

func quoted(values []string) (all []string) {
	for _, v := range values {
		all = append(all, strconv.Quote(v))
	}
	return all
}

// rowsShown of one group; the rest is counted.
const rowsShown = 4

func (r dataReport) printGroup(w io.Writer, g datacheck.Group) {
	head := quoted(g.Values)
	if g.Note != "" {
		head = append(head, g.Note)
	}
	if len(head) > 0 {
		fmt.Fprintf(w, "  - %s\n", strings.Join(head, "  "))
	}
	for i, row := range g.Rows {
		if i == rowsShown {
			fmt.Fprintf(w, "    … and %d more rows\n", len(g.Rows)-rowsShown)
			return
		}
		fmt.Fprintf(w, "    %-12s %s%s\n", rowPlace(row), clip(r.text(row)), opinion(row, g.Score))
	}
}

func rowPlace(row datacheck.Row) string {
	place := fmt.Sprintf("line %d", row.Line)
	if row.Reference {
		place += " of the reference"
	}
	return place
}

func (r dataReport) text(row datacheck.Row) string {
	if row.Reference {
		return r.reference[row.Index].Text
	}
	return r.texts[row.Index].Text
}

// opinion shows a row's label and what it should probably be.
func opinion(row datacheck.Row, score float64) string {
	switch {
	case row.Label == nil:
		return ""
	case row.Suggested == nil:
		return fmt.Sprintf("  %s", row.Label.AppendJSON(nil))
	case score > 0 && score <= 1:
		return fmt.Sprintf("  %s -> %s? (%.2f)", row.Label.AppendJSON(nil), row.Suggested.AppendJSON(nil), score)
	}
	return fmt.Sprintf("  %s -> %s?", row.Label.AppendJSON(nil), row.Suggested.AppendJSON(nil))
}

const clipRunes = 70

// clip quotes the beginning of a text; quoting shows control characters and marks of direction instead of obeying them.
func clip(text string) string {
	runes := 0
	for i := range text {
		if runes++; runes > clipRunes {
			return strconv.Quote(text[:i]) + "…"
		}
	}
	return strconv.Quote(text)
}

func (a *app) dataCurve(ctx context.Context, path string, f dataFlags) error {
	examples, problems, err := readAll(path)
	if err != nil {
		return err
	}
	a.reportProblems(problems)
	t, err := a.taskFor(trainFlags{data: path, taskFile: f.taskFile}, fieldsOf(examples))
	if err != nil {
		return err
	}
	curve, err := a.learningCurve(ctx, t, examples, f.seed)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(curve)
	}
	w := a.stdout
	fmt.Fprintf(w, "%d labelled rows, %d of them held out\n\n  %8s  %s\n", curve.Labelled, curve.HeldOut, "rows", "accuracy [95 %]")
	for _, p := range curve.Points {
		fmt.Fprintf(w, "  %8d  %5.1f %% [%.1f, %.1f]\n", p.Rows, 100*p.Accuracy, 100*p.Low, 100*p.High)
	}
	fmt.Fprintf(w, "  %8d  %5.1f %% [%.1f, %.1f]  forecast, 90 %%\n\n", curve.Twice.Rows, 100*curve.Twice.Accuracy, 100*curve.Twice.Low, 100*curve.Twice.High)
	fmt.Fprintf(w, "Fitted error: %.3g x rows^-%.2f + %.3g. It assumes %s.\n", curve.Fit.Scale, curve.Fit.Exponent, curve.Fit.Floor, curve.Assumes)
	for i, g := range curve.Categories[:min(10, len(curve.Categories))] {
		if i == 0 {
			fmt.Fprintf(w, "\nTwice the labels would save most errors in:\n  %8s %8s %8s %16s\n", "rows", "held out", "wrong", "saved per 1,000")
		}
		fmt.Fprintf(w, "  %8d %8d %8d %16.1f  %q\n", g.Rows, g.HeldOut, g.Wrong, g.PerMille, g.Value)
	}
	return nil
}

func (a *app) learningCurve(ctx context.Context, t *task.Task, examples []task.Example, seed uint64) (*datacheck.LearningCurve, error) {
	progress, finish := a.stages()
	defer finish()
	return datacheck.Curve(ctx, t.Fields, examples, datacheck.Options{Seed: seed, Progress: progress})
}

// dataSummary is the "data" member of `occam train --json`: the findings, with a few of their rows' lines.
type dataSummary struct {
	Findings []findingSummary         `json:"findings"`
	Ceilings []datacheck.Ceiling      `json:"ceilings,omitempty"` // the best accuracy to hope for, by field
	Curve    *datacheck.LearningCurve `json:"curve,omitempty"`
	file     string
}

type findingSummary struct {
	Kind     datacheck.Kind `json:"kind"`
	Field    string         `json:"field,omitempty"`
	Severity string         `json:"severity"`
	Rows     int            `json:"rows"`
	Why      string         `json:"why"`
	Do       string         `json:"do"`
	Lines    []int          `json:"lines,omitempty"` // of the first rows, most telling first
	lines    []string
}

const (
	linesShown = 3
	maxLines   = 200 // of a finding in the JSON document
)

func summarise(file string, r *datacheck.Report) dataSummary {
	s := dataSummary{Findings: []findingSummary{}, Ceilings: r.Ceilings, file: file}
	for _, f := range r.Findings {
		short := findingSummary{Kind: f.Kind, Field: f.Field, Severity: f.Severity, Rows: f.Rows, Why: f.Why, Do: f.Do}
		for _, g := range f.Groups {
			for _, row := range g.Rows[:min(len(g.Rows), maxLines-len(short.Lines))] {
				short.Lines = append(short.Lines, row.Line)
			}
			switch {
			case len(short.lines) == linesShown:
			case len(g.Values) > 0:
				short.lines = append(short.lines, strings.Join(quoted(g.Values), " / "))
			case len(g.Rows) > 0:
				short.lines = append(short.lines, rowPlace(g.Rows[0]))
			}
		}
		s.Findings = append(s.Findings, short)
	}
	return s
}

// print writes a line for everything worse than a note.
func (s dataSummary) print(w io.Writer) {
	serious := 0
	for _, f := range s.Findings {
		if f.Severity == datacheck.Note {
			continue
		}
		serious++
		fmt.Fprintf(w, "  %s: %s in %s, %d rows (%s …)\n", f.Severity, strings.ReplaceAll(string(f.Kind), "_", " "), f.Field, f.Rows, strings.Join(f.lines, ", "))
	}
	if serious > 0 {
		fmt.Fprintf(w, "  rows and advice: occam data check %s\n", s.file)
	}
	if s.Curve == nil {
		return
	}
	t := s.Curve.Twice
	last := s.Curve.Points[len(s.Curve.Points)-1]
	fmt.Fprintf(w, "  curve: %d rows %.1f %%; %d would give about %.1f %% [%.1f, %.1f]", last.Rows, 100*last.Accuracy, t.Rows, 100*t.Accuracy, 100*t.Low, 100*t.High)
	for i, g := range s.Curve.Categories[:min(linesShown, len(s.Curve.Categories))] {
		fmt.Fprintf(w, "%s%q", []string{"; most for ", ", ", ", "}[i], g.Value)
	}
	fmt.Fprintln(w)
}

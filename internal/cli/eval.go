package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"occam/internal/cascade"
	"occam/internal/lifecycle"
	"occam/internal/specialist"
	"occam/internal/task"
)

func (a *app) evalCommand() *cobra.Command {
	var model, data string
	var minAccuracy float64
	var skipBad bool
	cmd := &cobra.Command{
		Use: "eval --model FILE.occam --data test.jsonl", Short: "Score a specialist on labelled examples", Args: noArgs,
		Example: "  occam eval --model ticket-triage.occam --data test.jsonl\n  occam eval --model ticket-triage.occam --data test.jsonl --min-accuracy 0.95 --json",
		RunE:    func(*cobra.Command, []string) error { return a.eval(model, data, minAccuracy, skipBad) },
	}
	cmd.Flags().StringVar(&model, "model", "", "model file made by occam train (required)")
	cmd.Flags().StringVar(&data, "data", "", "labelled examples (required)")
	cmd.Flags().Float64Var(&minAccuracy, "min-accuracy", 0, "exit with 3 when the accuracy is below this share")
	cmd.Flags().BoolVar(&skipBad, "skip-bad", false, "report lines that cannot be used and go on without them")
	return cmd
}

func (a *app) eval(modelPath, data string, minAccuracy float64, skipBad bool) error {
	if modelPath == "" || data == "" {
		return usageError("--model and --data are both needed: occam eval --model FILE.occam --data test.jsonl")
	}
	if !(minAccuracy >= 0 && minAccuracy <= 1) {
		return usageError("--min-accuracy is %v: it is a share between 0 and 1, such as 0.97", minAccuracy)
	}
	loaded, err := lifecycle.LoadModel(modelPath)
	if err != nil {
		return err
	}
	defer loaded.Close()
	examples, err := a.readExamples(data, skipBad)
	if err != nil {
		return err
	}
	e := lifecycle.Evaluate(loaded.Model, loaded.Certificate, examples, a.now)
	if a.json {
		err = a.printJSON(e)
	} else {
		a.printEvaluation(e, loaded.Model.Fields())
	}
	if err == nil && e.Accuracy.Value < minAccuracy {
		return fmt.Errorf("%waccuracy %.4f is below the bar of %.4f", hidden{errBar}, e.Accuracy.Value, minAccuracy)
	}
	return err
}

func (a *app) printEvaluation(e lifecycle.Evaluation, fields []task.Field) {
	w := a.stdout
	fmt.Fprintf(w, "%d examples\n", e.N)
	for _, f := range fields {
		r := e.Fields[f.Name]
		fmt.Fprintf(w, "  %-14s %s", f.Name, percent(r.Accuracy))
		if r.MacroF1 != nil {
			fmt.Fprintf(w, "   macro F1 %.3f", *r.MacroF1)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "  %-14s %s   (95 %% intervals, exact binomial)\n", "all fields", percent(e.Accuracy))
	fmt.Fprintf(w, "may answer %.1f %% of them; right in %s of those\n", 100*e.Coverage, percent(e.ServedAccuracy))
	for _, f := range fields {
		printWeak(w, f, e.Fields[f.Name])
	}
	fmt.Fprintf(w, "p50 %.0f µs, p99 %.0f µs, %.0f predictions a second on one core\n", e.LatencyUS.P50, e.LatencyUS.P99, e.PerSecond)
}

// weakShown is how many weak or rare categories the text names; --json holds more.
const weakShown = 10

// printWeak names the categories that the field's accuracy says too little about.
func printWeak(w io.Writer, f task.Field, r lifecycle.FieldReport) {
	if r.WeakCount == 0 {
		return
	}
	fmt.Fprintf(w, "of %d categories of %s, %d are weak (surely worse than the field) or rare (too few rows here to tell):\n", len(f.Values), f.Name, r.WeakCount)
	for _, c := range r.Weak[:min(len(r.Weak), weakShown)] {
		fmt.Fprintf(w, "  %-4s  %6d rows  recall %s  %s\n", c.Why, c.N, percent(c.Recall), c.Value.AppendJSON(nil))
	}
	if more := r.WeakCount - weakShown; more > 0 {
		fmt.Fprintf(w, "  and %d more, see --json\n", more)
	}
}

func (a *app) predictCommand() *cobra.Command {
	var model, examples string
	var explain bool
	cmd := &cobra.Command{
		Use: "predict --model FILE.occam", Short: "Answer JSON Lines from stdin, streaming", Args: noArgs,
		Example: "  occam predict --model tickets.occam < texts.jsonl\n  occam predict --model tickets.occam --explain --examples train.jsonl < texts.jsonl",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.predict(cmd.Context(), model, explain, examples) },
	}
	cmd.Flags().StringVar(&model, "model", "", "model file made by occam train (required)")
	cmd.Flags().BoolVar(&explain, "explain", false, "say which words spoke for and against each answer")
	cmd.Flags().StringVar(&examples, "examples", "", "with --explain: the training file, to name the examples most alike")
	return cmd
}

// predictLine is one answer of `occam predict`.
type predictLine struct {
	ID         json.RawMessage `json:"id"`
	Output     json.RawMessage `json:"output"`
	Confidence float64         `json:"confidence"`
	Served     bool            `json:"served"`
	Reason     cascade.Reason  `json:"reason"`

	Reasons []specialist.Reason `json:"reasons,omitempty"` // with --explain
	Nearest []specialist.Alike  `json:"nearest,omitempty"` // of --examples, or of those that the model file holds
}

// nearestShown is how many examples an explanation names.
const nearestShown = 3

// A predictor answers lines.
type predictor struct {
	*lifecycle.LoadedModel
	explain  bool
	examples []task.Example
}

// maxPredictLine is the longest input line in bytes.
const maxPredictLine = task.MaxLine

func (a *app) predict(ctx context.Context, modelPath string, explain bool, examples string) error {
	if modelPath == "" {
		return usageError("--model is missing: occam predict --model FILE.occam < texts.jsonl")
	}
	loaded, err := lifecycle.LoadModel(modelPath)
	if err != nil {
		return err
	}
	defer loaded.Close()
	p := predictor{LoadedModel: loaded, explain: explain}
	if examples != "" {
		if !explain {
			return usageError("--examples goes with --explain")
		}
		if p.examples, err = a.readExamples(examples, false); err != nil {
			return err
		}
	}
	return a.predictLines(ctx, &p)
}

func (a *app) predictLines(ctx context.Context, p *predictor) error {
	out := bufio.NewWriter(a.stdout)
	in := bufio.NewReaderSize(a.stdin, 1<<16)
	bad := 0
	for number := 1; ctx.Err() == nil; number++ {
		line, err := readLine(in, maxPredictLine)
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(line) > maxPredictLine {
			return errors.Join(fmt.Errorf("stdin line %d is longer than 16 MB", number), out.Flush())
		}
		if len(line) > 1 {
			if problem := p.answer(line, out); problem != nil {
				bad++
				fmt.Fprintf(a.stderr, "stdin:%d: %v\n", number, problem)
			}
		}
		if in.Buffered() == 0 { // answer at once when the caller waits, in blocks when it does not
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if bad > 0 {
		return errors.Join(out.Flush(), fmt.Errorf("%d lines could not be answered", bad))
	}
	return out.Flush()
}

// readLine reads a line, or the beginning of one that is longer than most.
func readLine(in *bufio.Reader, most int) (line []byte, err error) {
	for len(line) <= most {
		var piece []byte
		piece, err = in.ReadSlice('\n')
		line = append(line, piece...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
	return line, nil
}

func (l *predictor) answer(line []byte, out io.Writer) error {
	var in struct {
		ID   json.RawMessage `json:"id"`
		Text *string         `json:"text"`
	}
	if !utf8.Valid(line) {
		return errors.New("not valid UTF-8")
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return errors.New(`not a JSON object such as {"id":"1","text":"…"}`)
	}
	if in.Text == nil {
		return errors.New(`"text" is missing`)
	}
	if in.ID == nil {
		in.ID = json.RawMessage("null")
	}
	var p task.Prediction
	l.Model.Predict(*in.Text, &p)
	tier := l.Tier(cascade.Live)
	reason := tier.Decide(l.Model.Fields(), *in.Text, &p)
	answer := predictLine{ID: in.ID, Output: task.AppendAnswer(nil, l.Model.Fields(), p.Values), Confidence: p.Confidence,
		Served: reason == cascade.Certified, Reason: reason}
	if l.explain {
		answer.Reasons = l.Model.Explain(*in.Text)
		for _, n := range l.Model.Nearest(*in.Text, l.examples, nearestShown) {
			e := l.examples[n.Index]
			answer.Nearest = append(answer.Nearest, specialist.Alike{ID: e.ID, Text: e.Text, Labels: e.Labels, Likeness: n.Likeness})
		}
		if l.examples == nil {
			answer.Nearest = l.Model.Alike(*in.Text, nearestShown)
		}
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(answer)
}

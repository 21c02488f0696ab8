package cli

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

func (a *app) adviseCommand() *cobra.Command {
	var data string
	var f breakevenFlags
	cmd := &cobra.Command{
		Use: "advise (--data FILE | --task NAME)", Short: "Fine-tune or not, with reasons", Args: noArgs,
		Example: "  occam advise --data tickets.jsonl --volume 50k\n  occam advise --task ticket-triage --target 0.97 --measured gpt-6-luna=0.98",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			return a.advise(cmd.Context(), data, f)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "recorded or labelled answers: JSON Lines, OpenAI chat lines, or CSV")
	f.workloadFlags(cmd, assumedGeneralist)
	f.seed = 1
	return cmd
}

func (a *app) advise(ctx context.Context, data string, f breakevenFlags) error {
	var seen []cost.Observation
	var err error
	name := f.task
	switch {
	case data != "":
		name = taskName(data)
		var examples []task.Example
		if examples, err = a.readExamples(data, false); err == nil {
			seen, err = observe(func(each func(task.Example, time.Time)) error {
				for _, e := range examples {
					each(e, time.Time{})
				}
				return nil
			})
		}
	case f.task != "":
		seen, err = a.recordedAnswers(ctx, f)
	default:
		return usageError("--data or --task is missing: occam advise --data tickets.jsonl, or --task NAME for what was recorded")
	}
	if err != nil {
		return err
	}
	analysis, scenario, err := a.compare(ctx, f)
	if err != nil {
		return err
	}
	facts := cost.Observe(name, seen)
	facts.Target = scenario.Target
	if f.task != "" {
		facts.OutputTokens = scenario.OutputTokens
	}
	facts.CheapModel, facts.CheapAccuracy = cheapestMeasured(analysis, scenario)
	advice := cost.Advise(facts, analysis)
	if a.json {
		return a.printJSON(advice)
	}
	_, err = fmt.Fprint(a.stdout, advice.Text())
	return err
}

// cheapestMeasured is the cheapest API model to switch to whose measured accuracy meets the target, else the cheapest measured.
func cheapestMeasured(analysis *cost.Analysis, scenario cost.Scenario) (model string, accuracy float64) {
	for _, p := range analysis.Plans { // the cheapest first
		name, ok := strings.CutPrefix(p.Name, "switch to ")
		i := slices.IndexFunc(scenario.Measured, func(m cost.MeasuredTier) bool { return m.Tier == name && m.Accuracy > 0 })
		if !ok || i < 0 {
			continue
		}
		if m := scenario.Measured[i]; model == "" || accuracy < scenario.Target && m.Accuracy >= scenario.Target {
			model, accuracy = name, m.Accuracy
		}
	}
	return model, accuracy
}

// recordedAnswers are what was last said of the texts of a task that were kept.
func (a *app) recordedAnswers(ctx context.Context, f breakevenFlags) ([]cost.Observation, error) {
	s, err := a.readStore(ctx, f.config)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	all, err := observe(func(each func(task.Example, time.Time)) error {
		return s.View(ctx, func(tx *store.Tx) error { return eachAnswer(tx, f.task, each) })
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no answers of task %q were kept: capture.prompts must be on; or give --data", f.task)
	}
	return all, err
}

// eachAnswer looks at every text of a task that was kept, with what was last said of it.
func eachAnswer(tx *store.Tx, name string, each func(task.Example, time.Time)) error {
	for after := int64(0); ; {
		page, next, err := tx.Examples().Page(name, after, 1000)
		if err != nil {
			return err
		}
		for _, e := range page {
			if n := len(e.Labels); n > 0 {
				each(task.Example{Text: e.Text, Labels: e.Labels[n-1].Output, Source: e.Labels[n-1].Source}, e.At)
			}
		}
		if after = next; after == 0 {
			return nil
		}
	}
}

// observe reduces answers to what advice looks at. They come twice: first it is seen what each field is, as training sees it.
func observe(answers func(each func(task.Example, time.Time)) error) ([]cost.Observation, error) {
	var seen task.Inference
	if err := answers(func(e task.Example, _ time.Time) { seen.Add(&e) }); err != nil {
		return nil, err
	}
	chosen := map[string]bool{} // fields whose values come from a set, also where the text happens to hold one
	if fields, err := seen.Fields(); err == nil {
		for _, f := range fields {
			chosen[f.Name] = f.Kind != task.Span
		}
	}
	var all []cost.Observation
	err := answers(func(e task.Example, at time.Time) { all = append(all, observation(e, at, chosen)) })
	return all, err
}

// observation reduces an example: the answer without what was copied from the text.
func observation(e task.Example, at time.Time, chosen map[string]bool) cost.Observation {
	answer, copied := reduce(e, chosen)
	h := fnv.New64a()
	h.Write([]byte(e.Text))
	return cost.Observation{At: at, Input: h.Sum64(), Answer: answer, Copied: copied, Trusted: e.Source == "person"}
}

// longLabel is the length in bytes above which an answer that does not stand in the text counts as free text.
const longLabel = 60

func reduce(e task.Example, chosen map[string]bool) (answer string, copied bool) {
	names := make([]string, 0, len(e.Labels))
	for name := range e.Labels {
		names = append(names, name)
	}
	slices.Sort(names)
	copied = true
	var b strings.Builder
	for _, name := range names {
		v := e.Labels[name]
		switch {
		case v.IsString() && !chosen[name] && strings.Contains(e.Text, v.Text()):
			fmt.Fprintf(&b, "%s=<copied>;", name)
			continue
		case v.IsString() && !chosen[name] && len(v.Text()) > longLabel:
			copied = false
		}
		fmt.Fprintf(&b, "%s=%s;", name, v.AppendJSON(nil))
	}
	return b.String(), copied
}

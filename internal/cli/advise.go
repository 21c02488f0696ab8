package cli

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"occam/internal/cost"
	"occam/internal/task"
)

func (a *app) adviseCommand() *cobra.Command {
	var data string
	var f breakevenFlags
	cmd := &cobra.Command{
		Use: "advise --data FILE", Short: "Fine-tune or not, with reasons", Args: noArgs,
		Example: "  occam advise --data tickets.jsonl --volume 50k",
		RunE:    func(*cobra.Command, []string) error { return a.advise(data, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&data, "data", "", "recorded or labelled answers: JSON Lines, OpenAI chat lines, or CSV (required)")
	flags.StringVar(&f.volume, "volume", "1M", "requests a month, such as 50k or 1M")
	flags.StringVar(&f.tokens, "tokens", "500/50", "tokens in/out of one request")
	flags.StringVar(&f.generalist, "generalist", assumedGeneralist, "the model that answers today")
	flags.StringArrayVar(&f.set, "set", nil, "override an assumption: name=value")
	f.seed = 1
	return cmd
}

func (a *app) advise(data string, f breakevenFlags) error {
	if data == "" {
		return usageError("--data is missing: occam advise --data tickets.jsonl")
	}
	examples, err := a.readExamples(data, false)
	if err != nil {
		return err
	}
	scenario, err := a.scenario(f)
	if err != nil {
		return err
	}
	analysis, err := cost.Analyze(cost.Default(), scenario, rand.New(rand.NewPCG(f.seed, 0)))
	if err != nil {
		return err
	}
	advice := cost.Advise(cost.Observe(taskName(data), observations(examples)), analysis)
	if a.json {
		return a.printJSON(advice)
	}
	_, err = fmt.Fprint(a.stdout, advice.Text())
	return err
}

// observations reduces examples to what advice looks at: the answer without what was copied from the text.
func observations(examples []task.Example) []cost.Observation {
	out := make([]cost.Observation, len(examples))
	for i, e := range examples {
		answer, copied := reduce(e)
		h := fnv.New64a()
		h.Write([]byte(e.Text))
		out[i] = cost.Observation{Input: h.Sum64(), Answer: answer, Copied: copied, Trusted: e.Source == "person"}
	}
	return out
}

// longLabel is the length in bytes above which an answer that does not stand in the text counts as free text.
const longLabel = 60

func reduce(e task.Example) (answer string, copied bool) {
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
		case v.IsString() && strings.Contains(e.Text, v.Text()):
			fmt.Fprintf(&b, "%s=<copied>;", name)
			continue
		case v.IsString() && len(v.Text()) > longLabel:
			copied = false
		}
		fmt.Fprintf(&b, "%s=%s;", name, v.AppendJSON(nil))
	}
	return b.String(), copied
}

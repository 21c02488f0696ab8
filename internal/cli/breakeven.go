package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"occam/internal/cost"
)

type breakevenFlags struct {
	volume, tokens, generalist, host, svg string
	coverage                              float64
	set                                   []string
	article                               bool
	task, config                          string
	seed                                  uint64
}

func (a *app) breakevenCommand() *cobra.Command {
	var f breakevenFlags
	cmd := &cobra.Command{
		Use: "breakeven", Short: "What each plan costs a month, and from which volume it pays", Args: noArgs,
		Example: "  occam breakeven --volume 1M --tokens 500/50 --generalist gpt-4o --host g5.xlarge\n  occam breakeven --article",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.breakeven(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.volume, "volume", "1M", "requests a month, such as 50k or 1M")
	flags.StringVar(&f.tokens, "tokens", "500/50", "tokens in/out of one request")
	flags.StringVar(&f.generalist, "generalist", "gpt-4o", "the model that answers today")
	flags.StringVar(&f.host, "host", "", "GPU server that stands for hosted models (default: all in the price book)")
	flags.Float64Var(&f.coverage, "coverage", 0, "measured coverage of the embedded specialist, such as 0.84 (default: assumed)")
	flags.StringArrayVar(&f.set, "set", nil, "override an assumption: name=value, such as engineer_usd_per_hour=0")
	flags.StringVar(&f.task, "task", "", "take volume, tokens, peak and coverage from this task's recorded traffic")
	flags.StringVar(&f.config, "config", "occam.yaml", "configuration file, with --task")
	flags.BoolVar(&f.article, "article", false, "reproduce the published scenario, then with exact and today's prices")
	flags.StringVar(&f.svg, "svg", "", "write the picture of cost against volume to this file")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the uncertainty samples")
	return cmd
}

func (a *app) breakeven(ctx context.Context, f breakevenFlags) error {
	analysis, err := a.analyze(ctx, f)
	if err != nil {
		return err
	}
	if f.svg != "" {
		if err := os.WriteFile(f.svg, []byte(analysis.SVG()), 0o644); err != nil {
			return fmt.Errorf("the picture cannot be written: %w", err)
		}
		fmt.Fprintf(a.stderr, "wrote %s\n", f.svg)
	}
	if a.json {
		return a.printJSON(analysis)
	}
	_, err = fmt.Fprint(a.stdout, analysis.Text())
	return err
}

func (a *app) analyze(ctx context.Context, f breakevenFlags) (*cost.Analysis, error) {
	if f.article {
		return cost.ArticleAnalysis(cost.Default(), a.now())
	}
	scenario, err := a.scenario(f)
	if err != nil {
		return nil, err
	}
	if f.task != "" {
		if err := a.fromTraffic(ctx, f, &scenario); err != nil {
			return nil, err
		}
	}
	return cost.Analyze(cost.Default(), scenario, rand.New(rand.NewPCG(f.seed, 0)))
}

func (a *app) scenario(f breakevenFlags) (cost.Scenario, error) {
	volume, err := parseCount(f.volume)
	if err != nil {
		return cost.Scenario{}, usageError("--volume: %v", err)
	}
	in, out, err := parseTokens(f.tokens)
	if err != nil {
		return cost.Scenario{}, usageError("--tokens: %v", err)
	}
	scenario := cost.Scenario{
		Workload:   cost.Workload{Volume: volume, InputTokens: in, OutputTokens: out, At: a.now()},
		Generalist: f.generalist, Host: f.host, Assumptions: cost.DefaultAssumptions(),
	}
	for _, s := range f.set {
		if err := setAssumption(&scenario.Assumptions, s); err != nil {
			return cost.Scenario{}, usageError("--set %s: %v", s, err)
		}
	}
	if f.coverage != 0 {
		scenario.Measured = []cost.MeasuredTier{{Tier: "embedded", Coverage: f.coverage, CoverageLow: f.coverage, CoverageHigh: f.coverage, Source: "--coverage"}}
	}
	return scenario, nil
}

func setAssumption(assumptions *cost.Assumptions, text string) error {
	name, number, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("expected name=value")
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return fmt.Errorf("%q is no number", number)
	}
	return assumptions.Set(name, value, "--set")
}

var countPattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([kKmMbB]?)$`)

// parseCount reads 50000, 50k, 1M or 1.5M.
func parseCount(text string) (float64, error) {
	m := countPattern.FindStringSubmatch(strings.NewReplacer(",", "", "_", "").Replace(text))
	if m == nil {
		return 0, fmt.Errorf("%q is no count: write 50000, 50k or 1M", text)
	}
	value, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, err
	}
	value *= map[string]float64{"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[strings.ToLower(m[2])]
	if value <= 0 {
		return 0, fmt.Errorf("%q must be more than zero", text)
	}
	return value, nil
}

func parseTokens(text string) (in, out float64, err error) {
	first, second, ok := strings.Cut(text, "/")
	if !ok {
		return 0, 0, fmt.Errorf("%q: write tokens in/out, such as 500/50", text)
	}
	if in, err = parseCount(first); err != nil {
		return 0, 0, err
	}
	out, err = parseCount(second)
	return in, out, err
}

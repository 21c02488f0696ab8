package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/cost"
)

type breakevenFlags struct {
	volume, tokens, generalist, provider, host, svg string
	coverage, prefix, target                        float64
	set, measured                                   []string
	article, all                                    bool
	given                                           func(flag string) bool // on the command line
	task, config                                    string
	seed                                            uint64
}

func (a *app) breakevenCommand() *cobra.Command {
	var f breakevenFlags
	cmd := &cobra.Command{
		Use: "breakeven", Short: "What each plan costs a month, and from which volume it pays", Args: noArgs,
		Example: "  occam breakeven --volume 1M --tokens 500/50 --generalist gpt-4o --host g5.xlarge\n  occam breakeven --article",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			return a.breakeven(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	f.workloadFlags(cmd, "gpt-4o")
	flags.StringVar(&f.host, "host", "", "GPU server that stands for hosted models (default: all in the price book)")
	flags.Float64Var(&f.coverage, "coverage", 0, "measured coverage of the embedded specialist, such as 0.84 (default: assumed)")
	flags.BoolVar(&f.article, "article", false, "reproduce the published scenario, then with exact and today's prices")
	flags.BoolVar(&f.all, "all", false, "print every plan, not a selection of each kind")
	flags.StringVar(&f.svg, "svg", "", "write the picture of cost against volume to this file")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the uncertainty samples")
	return cmd
}

// workloadFlags are those of every command that puts a break-even question.
func (f *breakevenFlags) workloadFlags(cmd *cobra.Command, generalist string) {
	flags := cmd.Flags()
	flags.StringVar(&f.volume, "volume", "1M", "requests a month, such as 50k or 1M")
	flags.StringVar(&f.tokens, "tokens", "500/50", "tokens in/out of one request")
	flags.Float64Var(&f.prefix, "prefix", 0, "tokens at the beginning of the prompt that all requests share, for prompt caching")
	flags.StringVar(&f.generalist, "generalist", generalist, "the model that answers today (with --task: the task's)")
	flags.StringVar(&f.provider, "provider", "", "who sells it, where several do")
	flags.Float64Var(&f.target, "target", 0, "accuracy that an answer must have, such as 0.97")
	flags.StringArrayVar(&f.measured, "measured", nil, "accuracy that was measured of a model: name=accuracy, such as gpt-6-luna=0.96")
	flags.StringArrayVar(&f.set, "set", nil, "override an assumption: name=value, such as engineer_usd_per_hour=0")
	flags.StringVar(&f.task, "task", "", "take model, volume, tokens, peak, cache and coverage from this task's recorded traffic")
	flags.StringVar(&f.config, "config", defaultConfig, "configuration file: its imported prices, and with --task its ledger")
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
	analysis.Whole = f.all
	_, err = fmt.Fprint(a.stdout, analysis.Text())
	return err
}

func (a *app) analyze(ctx context.Context, f breakevenFlags) (*cost.Analysis, error) {
	if f.article {
		return cost.ArticleAnalysis(cost.Default(), a.now())
	}
	analysis, _, err := a.compare(ctx, f)
	return analysis, err
}

// compare answers the question that the flags put, and returns it too, with what was recorded filled in.
func (a *app) compare(ctx context.Context, f breakevenFlags) (*cost.Analysis, cost.Scenario, error) {
	scenario, err := a.scenario(f)
	if err != nil {
		return nil, scenario, err
	}
	book, err := a.bookAt(f.config)
	if err != nil {
		return nil, scenario, err
	}
	if err := known(book, f, a.now()); err != nil {
		return nil, scenario, err
	}
	if f.task != "" {
		if err := a.fromTraffic(ctx, f, book, &scenario); err != nil {
			return nil, scenario, err
		}
	}
	if err := overrides(f, &scenario); err != nil {
		return nil, scenario, err
	}
	analysis, err := cost.Analyze(book, scenario, rand.New(rand.NewPCG(f.seed, 0)))
	return analysis, scenario, err
}

// known refuses names that the price book does not know: a misspelt one would be left out of the answer.
func known(book *cost.Book, f breakevenFlags, now time.Time) error {
	if host, ok := book.GPU(f.host, now); f.host != "" && (!ok || host.GPUs == 0) {
		var skus []string
		for _, h := range book.Hosts() {
			if h.GPUs > 0 {
				skus = append(skus, h.SKU)
			}
		}
		return usageError("--host %s: the price book has no such GPU server; it has: %s", f.host, strings.Join(skus, "; "))
	}
	for _, text := range f.measured {
		name, _, _ := strings.Cut(text, "=")
		if len(book.Sellers(name, now)) == 0 && !slices.Contains([]string{embeddedTier, "llama-3.2-1b", "llama-3.2-3b"}, name) {
			return usageError("--measured %s: %q is neither a model of the price book (see `occam prices list`) nor one of %s, llama-3.2-1b, llama-3.2-3b",
				text, name, embeddedTier)
		}
	}
	return nil
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
	if !(f.target >= 0 && f.target < 1) {
		return cost.Scenario{}, usageError("--target is %g: it is a share below 1, such as 0.97", f.target)
	}
	return cost.Scenario{
		Workload:   cost.Workload{Volume: volume, InputTokens: in, OutputTokens: out, PrefixTokens: f.prefix, At: a.now()},
		Generalist: f.generalist, Provider: f.provider, Host: f.host, Target: f.target, Assumptions: cost.DefaultAssumptions(),
	}, nil
}

// overrides puts what was said on the command line above what was recorded and assumed.
func overrides(f breakevenFlags, scenario *cost.Scenario) error {
	for _, s := range f.set {
		if err := setAssumption(&scenario.Assumptions, s); err != nil {
			return usageError("--set %s: %v", s, err)
		}
	}
	if f.coverage != 0 {
		scenario.Measured = slices.DeleteFunc(scenario.Measured, func(m cost.MeasuredTier) bool { return m.Tier == embeddedTier })
		scenario.Measured = append(scenario.Measured, cost.MeasuredTier{Tier: embeddedTier, Coverage: f.coverage, CoverageLow: f.coverage, CoverageHigh: f.coverage, Source: "--coverage"})
	}
	for _, text := range f.measured {
		name, number, _ := strings.Cut(text, "=")
		accuracy, err := strconv.ParseFloat(number, 64)
		if err != nil || !(accuracy > 0 && accuracy <= 1) {
			return usageError("--measured %s: write name=accuracy, such as gpt-6-luna=0.96", text)
		}
		i := slices.IndexFunc(scenario.Measured, func(m cost.MeasuredTier) bool { return m.Tier == name })
		if i < 0 {
			scenario.Measured = append(scenario.Measured, cost.MeasuredTier{Tier: name, Source: "--measured"})
			i = len(scenario.Measured) - 1
		}
		scenario.Measured[i].Accuracy = accuracy
	}
	return nil
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

// countPattern has commas between thousands only: elsewhere they would be decimal points.
var countPattern = regexp.MustCompile(`^((?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9][0-9_]*)(?:\.[0-9]+)?)([kKmMbB]?)$`)

// parseCount reads 50000, 50k, 1M, 1.5M or 1,500,000.
func parseCount(text string) (float64, error) {
	m := countPattern.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no count: write 50000, 50k or 1M", text)
	}
	value, err := strconv.ParseFloat(strings.NewReplacer(",", "", "_", "").Replace(m[1]), 64)
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

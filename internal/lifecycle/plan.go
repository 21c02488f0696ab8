package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// PlanOptions is what the choice of a plan rests on, beside the specialist.
type PlanOptions struct {
	// Ask puts an input of the past to a model, to measure it; nil: tiers served elsewhere are not measured.
	Ask func(ctx context.Context, taskName, model, input string, scored bool) (Asked, error)
	// Model says where a model is; ok is false where the configuration has none of this name. nil: it has none.
	Model func(name string) (s Source, ok bool)
	// Generalist is what a call to the generalist costs.
	Generalist cascade.Price
	Volume     float64 // requests a month; 0: not known
	VolumeFrom string
	Budget     cost.Amount // for answers to measure tiers with
	Now        time.Time
	Report     func(done, total int) // of answers that are bought; may be nil

	keep answerKeeper // nil: nothing is kept
}

// Plan certifies the tiers after the specialist, each on what the tiers before leave to it, and chooses the cheapest plan that
// keeps the promise. Afterwards t.Choice has every plan with its price and the reason for or against it, t.Certificate is nil
// where the specialist is no part of the chosen plan, and t.Tiers are the chosen plan's tiers after it.
func (t *Trained) Plan(ctx context.Context, o PlanOptions) error {
	p := newPlanner(t, o)
	if err := p.walk(ctx, way{path: t.after.start}); err != nil {
		return err
	}
	p.choice.Spent = p.asker.spent.USD()
	p.finish()
	return nil
}

// A planner walks every way through a task's tiers.
type planner struct {
	*Trained
	options PlanOptions
	tiers   []string
	asker   *asker
	choice  *cascade.Choice
	plans   []way // of the candidates, in their order
}

// A way is a plan under way: which tiers it has so far.
type way struct {
	at     int // of the next tier
	path   *calibration.Path
	stages []cascade.Stage
	linear bool // the specialist is part of it
	tiers  []PlannedTier
	before string // the last tier that is part of it
	wrong  func(row int) bool
	below  map[string]float64
}

func newPlanner(t *Trained, o PlanOptions) *planner {
	if o.Report == nil {
		o.Report = func(int, int) {}
	}
	if o.keep == nil {
		o.keep = noKeeper{}
	}
	tiers := t.Task.Tiers
	if len(tiers) == 0 {
		tiers = []string{linear}
	}
	rest := cmp.Or(t.Task.Generalist, "the generalist")
	p := &planner{Trained: t, options: o, tiers: tiers, asker: &asker{task: t.Task, ask: o.Ask, keep: o.keep, budget: o.Budget,
		known: map[string]*answers{}, fresh: map[string]bool{}, report: o.Report}}
	p.choice = &cascade.Choice{Promise: promised(t.Task.Target, len(tiers)), Volume: o.Volume, VolumeFrom: o.VolumeFrom, Audit: t.Task.Audit,
		Generalist: rest, Rest: rest, Prices: map[string]cascade.Price{rest: o.Generalist, linear: {From: "in this process"}}}
	if t.Task.OnDoubt == "review" {
		p.choice.Rest = "a person"
	}
	t.Choice = p.choice
	if t.deferred != nil {
		p.choice.Escalations = append(p.choice.Escalations, *t.deferred)
	}
	return p
}

type noKeeper struct{}

func (noKeeper) load(context.Context, string) (*answers, error) { return &answers{}, nil }
func (noKeeper) save(context.Context, string, *answers) error   { return nil }

// promised says what every certified tier keeps.
func promised(target task.Target, tiers int) string {
	if target.Promise == task.System && tiers > 1 {
		return fmt.Sprintf("at most %.3g %% of all requests get a wrong answer from it, %.3g %% from all tiers, at %.4g %% confidence",
			100*(1-target.Accuracy)/float64(tiers), 100*(1-target.Accuracy), 100*target.Confidence)
	}
	if target.Promise == task.System {
		return fmt.Sprintf("at most %.3g %% of all requests get a wrong answer from it, at %.4g %% confidence", 100*(1-target.Accuracy), 100*target.Confidence)
	}
	return fmt.Sprintf("at least %.4g %% of its answers are right, at %.4g %% confidence", 100*target.Accuracy, 100*target.Confidence)
}

// walk tries the next tier and does without it. The plan with every tier comes first: what is bought for it serves the others.
func (p *planner) walk(ctx context.Context, w way) error {
	if w.at == len(p.tiers) {
		p.emit(w, "")
		return nil
	}
	if err := p.with(ctx, w); err != nil {
		return err
	}
	without := w
	without.path = w.path.Fork()
	without.path.Pass()
	without.at++
	return p.walk(ctx, without)
}

// with makes the next tier part of the plan, if it can be.
func (p *planner) with(ctx context.Context, w way) error {
	name := p.tiers[w.at]
	var next way
	var problem string
	var err error
	if name == linear {
		next, problem = p.withLinear(w)
	} else {
		next, problem, err = p.withModel(ctx, w, name)
	}
	if err != nil {
		return err
	}
	if problem != "" {
		p.emit(next, problem)
		return nil
	}
	next.at++
	return p.walk(ctx, next)
}

func (p *planner) withLinear(w way) (way, string) {
	r := p.after
	w.stages = append(slices.Clone(w.stages), cascade.Stage{Tier: linear, Reach: 1, Size: w.at})
	if p.Certificate == nil {
		return w, p.uncertified(linear, p.Shortfall)
	}
	c := p.Certificate
	stage := &w.stages[len(w.stages)-1]
	stage.Coverage, stage.Wrong = c.Coverage, c.Upper
	w.path, w.linear, w.before = r.path.Fork(), true, linear
	w.wrong = func(row int) bool { return r.outcomes[row].Wrong }
	w.below = map[string]float64{c.Specialist: r.path.Limit()}
	return w, ""
}

// withModel measures and certifies a model served elsewhere on what reaches it.
func (p *planner) withModel(ctx context.Context, w way, name string) (_ way, problem string, err error) {
	r := p.after
	rows, _ := w.path.Reaching()
	w.stages = append(slices.Clone(w.stages), cascade.Stage{Tier: name, Reach: share(len(rows), len(r.rows)), Size: w.at})
	source, problem := p.source(name)
	if problem == "" {
		problem = p.tooDear(w)
	}
	if problem != "" {
		return w, problem, nil
	}
	have, grid, err := p.answers(ctx, w, name)
	p.price(name, source)
	switch {
	case ctx.Err() != nil:
		return w, "", context.Cause(ctx)
	case err != nil:
		return w, "not measured: " + err.Error(), nil
	}
	outcomes := make([]calibration.Outcome, len(rows))
	for i, row := range rows {
		outcomes[i] = have.outcome(p.Task.Fields, &r.rows[row])
	}
	dropped := p.compare(&w, name, rows, outcomes)
	path := w.path.Fork()
	tier, err := path.Certify(grid, outcomes, nil)
	if err != nil {
		return w, "", err
	}
	var short *calibration.Shortfall
	switch {
	case dropped != "":
		return w, dropped, nil
	case errors.As(tier.Err, &short):
		p.lacks(short, len(rows))
		short.Of = p.after.labelled
		return w, p.uncertified(name+" after "+cmp.Or(w.before, "nothing"), short), nil
	}
	return p.joined(w, path, name, source, have, tier), "", nil
}

// uncertified says in a few words what a tier lacks, and in a note with the arithmetic.
func (p *planner) uncertified(what string, short *calibration.Shortfall) string {
	p.choice.Notes = append(p.choice.Notes, what+": "+short.Error())
	if short.More > 0 {
		return fmt.Sprintf("not certified: about %d more labels are needed", short.Label())
	}
	return "not certified: its error rate is too high for the target"
}

// lacks notes how many calibration rows would do for a tier that only lacked labels, if as many of them reach it as now.
func (p *planner) lacks(short *calibration.Shortfall, reach int) {
	if short.Needed > 0 && reach > 0 {
		needed := short.Needed * len(p.after.rows) / reach
		if p.after.lacking == 0 || needed < p.after.lacking {
			p.after.lacking = needed
		}
	}
}

// tierNeeded is how many labelled rows in all would do for a tier that only lacked labels, where all is what there is now.
func (t *Trained) tierNeeded(all int) int64 {
	if t.after == nil || t.after.lacking == 0 || len(t.after.rows) == 0 {
		return 0
	}
	return int64(t.after.lacking) * int64(all) / int64(len(t.after.rows))
}

// joined is the way with a model that was certified on it.
func (p *planner) joined(w way, path *calibration.Path, name string, source Source, have *answers, tier calibration.TierResult) way {
	r := p.after
	planned := PlannedTier{Name: name, Provider: source.Provider, Upstream: source.Upstream, Version: have.Version, Prompt: askedWith(p.Task)}
	about := calibration.Certificate{Task: p.Task.Name, Specialist: planned.hash(), Model: planned.describe(), Score: cascade.ScoreConstant, Scope: "all",
		Floor: math.Inf(-1), IssuedAt: p.options.Now.UTC(), Tier: name, AuditRate: p.Task.Audit, ValidIf: append(calibration.Conditions(),
			"the provider answers with the same version of the model, asked with the same prompt", "the tiers before it are the same and ask it for the same requests")}
	if have.Scored {
		about.Score = cascade.ScoreLogProb
	}
	if len(w.below) > 0 {
		about.Below = w.below
	}
	of := p.origin
	about.Labels, about.Sources, about.Teacher, about.PromptHash, about.From, about.To = of.Labels, of.Sources, of.Teacher, of.PromptHash, of.From, of.To
	certificate := tier.Certificate(about)
	planned.Certificate = &certificate
	stage := &w.stages[len(w.stages)-1]
	stage.Coverage, stage.Wrong = share(tier.Accepted, len(r.rows)), tier.Upper
	w.tiers = append(slices.Clone(w.tiers), planned)
	w.path, w.before = path, name
	w.wrong = func(row int) bool { return have.outcome(p.Task.Fields, &r.rows[row]).Wrong }
	below := map[string]float64{planned.hash(): path.Limit()}
	for tier, limit := range w.below {
		below[tier] = limit
	}
	w.below = below
	return w
}

// source finds a model, or says why it cannot be measured.
func (p *planner) source(name string) (Source, string) {
	if p.options.Model == nil {
		p.choice.Prices[name] = cascade.Price{Unknown: true}
		return Source{}, p.byServer()
	}
	source, ok := p.options.Model(name)
	switch {
	case !ok:
		p.choice.Prices[name] = cascade.Price{Unknown: true}
		return source, "not measured: the configuration has no model of this name"
	case !source.Priced:
		p.choice.Prices[name] = cascade.Price{Unknown: true}
		return source, "not measured: it has no price in the book (see `occam prices`), so no budget would bound what that costs"
	case p.options.Ask == nil:
		return source, p.byServer()
	}
	return source, ""
}

// byServer is the problem of a model where nothing can be asked, with a note on what to do.
func (p *planner) byServer() string {
	note := fmt.Sprintf("models of the configuration are measured by the running server only: give the task these `tiers` and `capture: {prompts: true}` "+
		"in occam.yaml and run `occam serve`; its next training run asks them, within `calibration_budget`, and `occam tasks show %s` has the plan", p.Task.Name)
	if !slices.Contains(p.choice.Notes, note) {
		p.choice.Notes = append(p.choice.Notes, note)
	}
	return "not measured here: `occam serve` does that when it trains the task"
}

// price notes what a model's calls cost, by those that were made.
func (p *planner) price(name string, source Source) {
	price := cascade.Price{Hosting: source.Monthly, From: "no call was made"}
	if have := p.asker.known[name]; have != nil && have.Calls > 0 {
		price.PerCall, price.From = have.mean(), fmt.Sprintf("mean of %d calls", have.Calls)
	}
	p.choice.Prices[name] = price
}

// tooDear says that a tier cannot pay on this way even if it answered everything that reaches it.
func (p *planner) tooDear(w way) string {
	last := w.stages[len(w.stages)-1]
	best, ok := p.choice.Cheapest()
	if price, measured := p.choice.Prices[last.Tier]; !ok || !measured || price.Unknown {
		return ""
	}
	ideal := cascade.Candidate{Stages: slices.Clone(w.stages)}
	ideal.Stages[len(ideal.Stages)-1].Coverage = last.Reach
	if least, priced := p.choice.Cost(&ideal); priced && least >= best {
		return "not measured: even if it answered all that reaches it, another plan would be cheaper"
	}
	return ""
}

// gridRows is how many rows of other traffic a model answers so that thresholds can be chosen without a calibration label.
const gridRows = 100

// answers buys what a model says of the rows that reach it, and makes the grid of its scores.
func (p *planner) answers(ctx context.Context, w way, name string) (*answers, []float64, error) {
	r := p.after
	rows, others := w.path.Reaching()
	wanted := make([]*task.Example, len(rows))
	for i, row := range rows {
		wanted[i] = &r.rows[row]
	}
	have, err := p.asker.need(ctx, name, wanted)
	if err != nil {
		return have, nil, err
	}
	if !have.Scored {
		return have, []float64{0}, nil
	}
	free := make([]*task.Example, 0, gridRows)
	for _, row := range others[:min(len(others), gridRows)] {
		free = append(free, &r.others[row])
	}
	if have, err = p.asker.need(ctx, name, free); err != nil {
		return have, nil, err
	}
	scores := make([]float64, len(free))
	for i, e := range free {
		scores[i] = have.outcome(p.Task.Fields, e).Score
	}
	if len(scores) == 0 {
		return have, fixedGrid(), nil
	}
	return have, calibration.Grid(scores, gridSize), nil
}

// fixedGrid is used where there is no other traffic: log-probabilities that were written down before any was seen.
func fixedGrid() []float64 {
	var grid []float64
	for _, p := range []float64{.9999999, .999999, .99999, .9999, .999, .99, .97, .95, .9, .8, .7, .6, .5, .3, .1, 1e-3, 1e-9} {
		grid = append(grid, math.Log(p))
	}
	return append(grid, -1e6)
}

// compare sets the model beside the tier before it on what that defers, and says if escalating does not pay.
func (p *planner) compare(w *way, name string, rows []int, outcomes []calibration.Outcome) (dropped string) {
	if w.wrong == nil {
		return ""
	}
	first, second := make([]bool, len(rows)), make([]bool, len(rows))
	for i, row := range rows {
		first[i], second[i] = w.wrong(row), outcomes[i].Wrong
	}
	e := escalation(w.before, name, first, second, p.Task.Target)
	e.Against = p.origin.Labels
	if !slices.ContainsFunc(p.choice.Escalations, func(have cascade.Escalation) bool { return have.From == e.From && have.To == e.To }) {
		p.choice.Escalations = append(p.choice.Escalations, e)
	}
	if !e.Pays {
		return "dropped: " + e.Verdict
	}
	return ""
}

func escalation(from, to string, firstWrong, secondWrong []bool, target task.Target) cascade.Escalation {
	delta := 1 - target.Confidence
	c := calibration.Compare(firstWrong, secondWrong, target.Confidence)
	return cascade.Escalation{From: from, To: to, Rows: c.Rows, Gains: c.Gains, Harms: c.Harms, P: c.P, Pays: c.Pays(delta), Verdict: c.Verdict(delta)}
}

func (p *planner) emit(w way, problem string) {
	p.choice.Candidates = append(p.choice.Candidates, cascade.Candidate{Stages: w.stages, Problem: problem})
	p.plans = append(p.plans, w)
}

// finish takes the cheapest plan and makes it the one that is stored.
func (p *planner) finish() {
	p.choice.Decide()
	for i, c := range p.choice.Candidates {
		if c.Chosen {
			p.Tiers = p.plans[i].tiers
			if !p.plans[i].linear {
				p.Certificate = nil
			}
		}
	}
	for _, e := range p.choice.Escalations {
		if e.To == p.choice.Generalist && !e.Pays {
			p.choice.Notes = append(p.choice.Notes, fmt.Sprintf("people's labels do not show that %s does better on what %s defers: "+
				"a person (on_doubt: review) or the cheaper answer is to be preferred", e.To, e.From))
		}
	}
	slices.SortStableFunc(p.choice.Candidates, func(a, b cascade.Candidate) int { return cmp.Compare(len(a.Stages), len(b.Stages)) })
}

func share(k, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(k) / float64(n)
}

// recordedDays is how far back a task's traffic is looked at.
const recordedDays = 30

// economy is what the ledger knows of a task: requests a month, extrapolated, and what a call to its generalist costs.
func (c *Controller) economy(ctx context.Context, t *task.Task) (volume float64, from string, generalist cascade.Price, err error) {
	now := c.opts.Now()
	window := store.Window{From: now.AddDate(0, 0, -recordedDays), To: now}
	totals, err := c.opts.Store.Totals(ctx, store.TotalsQuery{Window: window, Task: t.Name,
		By: []store.Dimension{store.ByTier, store.ByState, store.ByAudit}})
	if err != nil {
		return 0, "", generalist, err
	}
	lasted, err := c.opts.Store.Lasted(ctx, t.Name)
	if err != nil {
		return 0, "", generalist, err
	}
	var requests, calls int64
	var spent cost.Amount
	for _, total := range totals {
		requests += total.Requests
		if total.Tier == "generalist" && total.State == store.Settled {
			calls += total.Attempts
			spent += total.Cost
		}
	}
	generalist = cascade.Price{Unknown: calls == 0, From: "no priced call is recorded"}
	if calls > 0 {
		generalist.PerCall, generalist.From = spent.USD()/float64(calls), fmt.Sprintf("mean of %d recorded calls", calls)
	}
	days := min(recordedDays, max(lasted.Hours()/24, 1.0/24))
	const monthDays = 730.5 / 24
	return float64(requests) / days * monthDays, fmt.Sprintf("extrapolated from %d requests in %.2g days", requests, days), generalist, nil
}

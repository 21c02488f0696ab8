package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/store"
	"occam/internal/task"
)

// Options of Start. Store and Publish are required.
type Options struct {
	Store *store.Store
	// Publish makes deployments the ones that new requests use. Nobody else does.
	Publish func([]Deployment) error
	Tasks   []Setup
	// Capture keeps what tasks' requests ask and what was answered, to learn from. Without it nothing is ever trained.
	Capture   bool
	Retention time.Duration // of what was captured; 0: for ever
	Log       *slog.Logger  // default discards
	Now       func() time.Time
	Every     time.Duration // how often to look whether something is to be done; default 1 s
	Workers   int           // goroutines of a training run; default 1, so that requests keep the other cores
	// Ask puts an input of the past to a model of the configuration, to measure it as a tier; nil: such tiers are not measured.
	Ask func(ctx context.Context, taskName, model, input string, scored bool) (Asked, error)
	// Model says where a model of the configuration is; nil: it has none.
	Model func(name string) (Source, bool)
	// Train makes a model; default Train. Tests replace it.
	Train func(context.Context, TrainOptions) (*Trained, error)
}

// A Setup is one task as it is configured.
type Setup struct {
	Task *task.Task
	// Model is a model that the configuration names; it goes live when it is new and certified. nil: none.
	Model *LoadedModel
}

// A Deployment is one task with the models in front of its generalist. Task is a copy whose Audit is the share in force.
type Deployment struct {
	Task  *task.Task
	Tiers []Tier
}

// A Tier is one model of a Deployment.
type Tier struct {
	cascade.Tier
	Model  engine.Predictor // nil for one that is served elsewhere
	Served *PlannedTier     // where that is, and what was certified there
}

const (
	queueComparisons = 1024
	queueSigns       = 8192
	queueCaptures    = 2048
	queueReviews     = 256
	queueTraffic     = 1024
	storePatience    = 10 * time.Second
)

// A Controller runs the lifecycle of every task. Its callbacks (Example, Compare, …) never block: what does not fit a queue is
// counted and dropped, an audit as a missing one. Everything that it decides is in the store before it takes effect, but a
// withdrawal, which takes effect first.
type Controller struct {
	opts     Options
	owner    string
	subjects map[string]*subject // only the loop touches what they hold
	names    []string
	policies atomic.Pointer[map[string]*policy]
	view     atomic.Pointer[[]Status]

	comparisons chan Comparison
	signs       chan signed
	captures    chan store.Example
	reviews     chan queuedReview
	traffic     chan Traffic
	orders      chan func(context.Context) // nil where no loop runs
	dropped     dropped
	training    atomic.Pointer[run]
	finder      *finder   // only the loop touches it
	unwritten   bool      // the last try to write evidence failed
	expired     time.Time // when retention was last looked after
	followed    time.Time // when the leader's evidence was last read, by a process that does not lead
	overheard   time.Time // when what the finder heard was last written

	// Of the lead among processes that share a database; only the loop touches it.
	leading bool
	term    time.Time  // of the lead
	passed  []evidence // to be passed on to the leader

	stop context.CancelFunc
	wg   sync.WaitGroup
}

type dropped struct{ comparisons, signs, captures, reviews, traffic atomic.Int64 }

// Open loads where every task stands and publishes it, without going on from there: for a person's command while no server
// runs. Close it too.
func Open(ctx context.Context, o Options) (*Controller, error) {
	if o.Store == nil || o.Publish == nil {
		return nil, errors.New("lifecycle: a Controller needs a Store and somewhere to Publish")
	}
	o.defaults()
	c := &Controller{
		opts: o, owner: store.NewID(o.Now()), subjects: map[string]*subject{},
		comparisons: make(chan Comparison, queueComparisons), signs: make(chan signed, queueSigns),
		captures: make(chan store.Example, queueCaptures), reviews: make(chan queuedReview, queueReviews),
		traffic: make(chan Traffic, queueTraffic), finder: newFinder(o.Store.Redacted),
	}
	for _, setup := range o.Tasks {
		if err := c.adopt(ctx, setup); err != nil {
			return nil, fmt.Errorf("lifecycle: task %s: %w", setup.Task.Name, err)
		}
	}
	if err := errors.Join(c.adoptMade(ctx), c.loadTraffic(ctx)); err != nil {
		return nil, err
	}
	if !o.Store.Shared() { // else it is not known yet who leads
		c.leading = true
		for _, name := range c.names {
			c.step(ctx, c.subjects[name])
		}
	}
	return c, c.publish()
}

// Start is Open, and goes on: it learns, trains, promotes and withdraws until Close.
func Start(ctx context.Context, o Options) (*Controller, error) {
	c, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	c.orders = make(chan func(context.Context))
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.wg.Go(func() { c.loop(running) })
	c.wg.Go(func() { c.record(running) })
	c.wg.Go(func() { c.countAll(running) })
	return c, nil
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Workers <= 0 {
		o.Workers = 1
	}
	if o.Train == nil {
		o.Train = Train
	}
}

// Close ends the background work, a training run too, and writes what is not written yet.
func (c *Controller) Close() {
	if c.stop != nil {
		c.stop()
		c.wg.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), storePatience)
	defer cancel()
	c.drain(ctx)
	if c.leading {
		c.flush(ctx)
	}
	c.passOn(ctx)
	c.resign(ctx)
	c.keepTraffic(ctx, true)
}

// drain takes in what still waits in the queues.
func (c *Controller) drain(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case comparison := <-c.comparisons:
			c.judge(ctx, &comparison)
		case t := <-c.traffic:
			c.finder.add(t)
		case e := <-c.captures:
			c.recordExample(ctx, e)
		case q := <-c.reviews:
			c.recordReview(ctx, q)
		default:
			return
		}
	}
}

// loop is the one goroutine that touches the subjects.
func (c *Controller) loop(ctx context.Context) {
	changed, unwatch := c.opts.Store.Watch()
	defer unwatch()
	tick := time.NewTicker(c.opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case comparison := <-c.comparisons:
			c.judge(ctx, &comparison)
		case s := <-c.signs:
			c.see(s)
		case t := <-c.traffic:
			c.finder.add(t)
		case order := <-c.orders:
			order(ctx)
		case <-changed:
			c.refresh(ctx)
		case <-tick.C:
			c.tick(ctx)
		}
	}
}

// inLoop runs f in the loop and waits for it; at once where no loop runs.
func (c *Controller) inLoop(ctx context.Context, f func(context.Context)) error {
	if c.orders == nil {
		f(ctx)
		return nil
	}
	done := make(chan struct{})
	select {
	case c.orders <- func(ctx context.Context) { defer close(done); f(ctx) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

// tick does what time brings.
func (c *Controller) tick(ctx context.Context) {
	leads := c.lead(ctx)
	for _, name := range c.names {
		s := c.subjects[name]
		c.missingAudits(ctx, s)
		if leads {
			c.step(ctx, s)
		}
	}
	if leads {
		c.gather(ctx)
		c.flush(ctx)
	} else {
		c.follow(ctx)
	}
	c.republish()
	c.passOn(ctx)
	c.keepTraffic(ctx, false)
	c.expire(ctx)
	c.show()
}

// judge adds one comparison to what is known of a model, and withdraws it at once when that raises the alarm.
func (c *Controller) judge(ctx context.Context, cmp *Comparison) {
	s := c.subjects[cmp.Task]
	if s == nil {
		return
	}
	o := s.observed(cmp.Specialist)
	if o.gauge == nil {
		return
	}
	if cmp.Answered && !cmp.Extra && (!cmp.Missing || cmp.Outside) {
		c.tally(s, cmp.Outside)
	}
	if cmp.Outside && o.gauge.Outside.stands() {
		cmp.Missing, cmp.Agreed = false, false // it is known: the generalist said something else
	}
	rare := cmp.Answered && cmp.Rare && o.gauge.Rare != nil
	if !rare && !cmp.counts(s.record) {
		return
	}
	if !c.leading {
		c.pass(cmp)
		return
	}
	if rare && o.gauge.observeRare(cmp.audit()) {
		c.barRare(ctx, s, o)
	}
	if !cmp.counts(s.record) {
		return
	}
	if !cmp.Missing {
		o.gauge.onDay(c.opts.Now(), !cmp.Agreed)
	}
	before := o.gauge.evidence().Alarm
	alarm, err := o.gauge.observe(cmp.audit(), o.certificate.Delta)
	if err != nil {
		c.opts.Log.Error("the evidence about a model cannot go on", "task", s.task.Name, "model", short(o.hash), "error", err)
	}
	if alarm && before == "" {
		c.withdraw(ctx, s)
		c.tierWithdrawn(ctx, s, o)
	}
}

// barRare takes the rare classes away from a tier whose answers in them are wrong more often than at calibration.
func (c *Controller) barRare(ctx context.Context, s *subject, o observed) {
	if err := c.publish(); err != nil {
		c.opts.Log.Error("publishing", "task", s.task.Name, "error", err)
	}
	names, _ := rareClasses(o.certificate)
	why := fmt.Sprintf("%s, in %s", o.gauge.Rare.Status().Reason, strings.Join(names, ", "))
	c.opts.Log.Warn("a tier answers no more in its rare classes", "task", s.task.Name, "tier", o.certificate.Tier, "reason", why)
	if err := c.vouchTier(ctx, store.ClassesBarred, s, o, why); err != nil {
		c.opts.Log.Error("the ledger", "task", s.task.Name, "error", err)
	}
}

// tierWithdrawn tells people and the ledger that a tier after the first answers no more. The rest of its plan goes on.
func (c *Controller) tierWithdrawn(ctx context.Context, s *subject, o observed) {
	if first, _ := o.first(); first == o.certificate {
		return // the task's own step said so
	}
	why := o.gauge.evidence().Alarm
	c.opts.Log.Warn("a tier answers no more", "task", s.task.Name, "tier", o.certificate.Tier, "reason", why)
	if err := c.vouchTier(ctx, store.CertificateSuspended, s, o, why); err != nil {
		c.opts.Log.Error("the ledger", "task", s.task.Name, "error", err)
	}
}

// withdraw publishes first and writes then: no request more than need be is answered by a model under an alarm.
func (c *Controller) withdraw(ctx context.Context, s *subject) {
	if err := c.publish(); err != nil {
		c.opts.Log.Error("publishing a withdrawal", "task", s.task.Name, "error", err)
	}
	c.step(ctx, s)
}

// missingAudits counts comparisons that found no room as audits that failed.
func (c *Controller) missingAudits(ctx context.Context, s *subject) {
	lost := s.lost.Swap(0)
	for range lost {
		for _, p := range s.record.Placements() {
			h := s.held[p.Model]
			if h == nil || !s.record.Answers(p.Model) {
				continue
			}
			if first, _ := h.first(); first != nil {
				c.judge(ctx, &Comparison{Task: s.task.Name, Specialist: first.Specialist, Answered: true, Missing: true})
				break
			}
		}
	}
}

// step takes a task through every step that is due.
func (c *Controller) step(ctx context.Context, s *subject) {
	moved := false
	for range 8 { // Decide comes to rest sooner; a bug must not spin here
		next, due := Decide(s.record, s.facts(c.opts.Now()))
		if !due {
			break
		}
		if err := c.move(ctx, s, next, "occam"); err != nil {
			c.opts.Log.Error("a step of a task", "task", s.task.Name, "to", next.State, "error", err)
			break
		}
		moved = true
	}
	if moved {
		if err := c.publish(); err != nil {
			c.opts.Log.Error("publishing", "task", s.task.Name, "error", err)
		}
	}
	c.noteTiers(ctx, s)
}

// move makes one step durable, in one transaction with the evidence that belongs to it.
func (c *Controller) move(ctx context.Context, s *subject, next Record, actor string) error {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	if err := c.hold(ctx, s, next); err != nil {
		return err
	}
	undo, err := s.enter(next)
	if err != nil {
		undo()
		return err
	}
	c.noteWithdrawals(ctx, s, next)
	var now store.TaskState
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) (err error) {
		state, err := taskState(s, next)
		if err != nil {
			return err
		}
		if now, err = tx.Tasks().Advance(state, next.Reason, actor); err != nil {
			return err
		}
		return s.putGauges(tx)
	})
	if err != nil {
		undo()
		if errors.Is(err, store.ErrConflict) {
			before := s.version
			if err = errors.Join(err, c.reload(ctx, s)); s.version == before && c.leading { // it is the evidence that another process wrote
				err = errors.Join(err, c.overwrite(ctx, s))
			}
		}
		return err
	}
	s.gaugesWritten()
	c.opts.Log.Info("task", "task", s.task.Name, "from", s.record.State, "to", next.State, "actor", actor, "reason", next.Reason)
	s.record, s.version = next, now.Version
	return c.hold(ctx, s, next)
}

// enter begins the counts of the lead's new stage, and its evidence anew where a person judged an alarm false. undo takes that back,
// for a step that cannot be written: else the comparisons of one stage would count for the next.
func (s *subject) enter(next Record) (undo func(), err error) {
	undo = func() {}
	h := s.held[next.Lead]
	if h == nil {
		return undo, nil
	}
	restart := s.record.State == Suspended && next.State == Shadow
	err = h.gauges(func(_ string, g *gauge, _ *int64) error {
		before, earlier := *g, undo
		undo = func() { *g = before; earlier() }
		g.enter(next.State)
		if restart {
			return g.restart()
		}
		return nil
	})
	return undo, err
}

// publish tells the data plane what may answer now. A model whose evidence is not sound is never among what may, whatever the
// record says.
func (c *Controller) publish() error {
	deployments := make([]Deployment, 0, len(c.names))
	policies := make(map[string]*policy, len(c.names))
	for _, name := range c.names {
		s := c.subjects[name]
		d := s.deployment()
		deployments = append(deployments, d)
		policies[name] = s.policy(d)
	}
	if err := c.opts.Publish(deployments); err != nil {
		return fmt.Errorf("lifecycle: the new state was refused, the old one stays: %w", err)
	}
	for i, name := range c.names {
		c.subjects[name].published = deployments[i]
	}
	c.policies.Store(&policies)
	c.show()
	return nil
}

// republish publishes what changed without a step: evidence that the leader saw, or enough of it for fewer audits.
func (c *Controller) republish() {
	if !slices.ContainsFunc(c.names, func(name string) bool { return c.subjects[name].stale() }) {
		return
	}
	if err := c.publish(); err != nil {
		c.opts.Log.Error("publishing", "error", err)
	}
}

// refresh takes in what was changed elsewhere: a newer state, a newer model, or what else the caller's Publish is made of.
func (c *Controller) refresh(ctx context.Context) {
	if err := c.adoptMade(ctx); err != nil {
		c.opts.Log.Error("taking on a task that was made elsewhere", "error", err)
	}
	for _, name := range c.names {
		s := c.subjects[name]
		before := s.version
		err := c.reload(ctx, s)
		if err == nil && (!c.leading || s.version != before) { // somebody else has moved it
			err = c.reloadGauges(ctx, s)
		}
		if err != nil {
			c.opts.Log.Error("reading a task's state", "task", name, "error", err)
			continue
		}
		if c.leading {
			c.step(ctx, s)
		}
	}
	if err := c.publish(); err != nil {
		c.opts.Log.Error("publishing", "error", err)
	}
}

// Refresh publishes anew, after something that Publish is made of has changed outside.
func (c *Controller) Refresh(ctx context.Context) error { return c.inLoop(ctx, c.refresh) }

// expire ends the retention of what was captured, now and then.
func (c *Controller) expire(ctx context.Context) {
	now := c.opts.Now()
	if c.opts.Retention <= 0 || now.Sub(c.expired) < time.Hour {
		return
	}
	c.expired = now
	c.expireTraffic(ctx, now.Add(-c.opts.Retention))
	const batch = 1000
	for {
		var n int64
		err := c.opts.Store.Update(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.Examples().Expire(now.Add(-c.opts.Retention), batch)
			return err
		})
		if err != nil {
			c.opts.Log.Error("ending the retention of examples", "error", err)
		}
		if err != nil || n < batch {
			return
		}
	}
}

// flush writes evidence that has changed.
func (c *Controller) flush(ctx context.Context) {
	dirty := slices.DeleteFunc(slices.Clone(c.names), func(name string) bool { return !c.subjects[name].dirty() })
	if len(dirty) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		for _, name := range dirty {
			if err := errors.Join(c.subjects[name].putGauges(tx), c.subjects[name].putOutside(tx)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if !c.unwritten { // it is tried again with every tick
			c.opts.Log.Error("writing the evidence about models; it is kept in memory and tried again", "error", err)
		}
		c.unwritten = true
		if errors.Is(err, store.ErrConflict) {
			c.yield(ctx, dirty)
		}
		return
	}
	c.unwritten = false
	for _, name := range dirty {
		c.subjects[name].gaugesWritten()
		c.subjects[name].outside.unwritten = false
	}
}

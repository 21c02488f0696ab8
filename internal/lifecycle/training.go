package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/drift"
	"occam/internal/store"
	"occam/internal/task"
)

// jobTrain is the kind of a training run in the store's job queue.
const jobTrain = "train"

const (
	jobLease    = 30 * time.Second
	countEvery  = 10 * time.Second
	refitRows   = 3000    // below, new requests confirm a certificate sooner than rows that are held out
	maxRows     = 200_000 // newest rows that a run learns from
	pageRows    = 5000
	judgedNeed  = 30 // requests that both the generalist and a person labelled, before the generalist's errors are bounded
	teacherFail = 0.05
)

// A ModelReport is what is known of a stored model beside its file.
type ModelReport struct {
	Specialist string              `json:"specialist"` // hash of the weights, as the ledger names it
	Refusal    string              `json:"refusal,omitempty"`
	Reason     string              `json:"reason,omitempty"`
	Origin     string              `json:"origin"` // "trained" or "configuration"
	Why        string              `json:"why,omitempty"`
	TrainedAt  time.Time           `json:"trained_at"`
	Seconds    float64             `json:"train_seconds"`
	Counts     Counts              `json:"examples"`
	Evaluation Evaluation          `json:"evaluation"`
	People     *Evaluation         `json:"people,omitempty"` // against people's labels alone
	Versus     *Versus             `json:"versus,omitempty"`
	Unrivalled bool                `json:"unrivalled,omitempty"` // no model was live when it was trained
	Curve      []calibration.Point `json:"curve,omitempty"`
	Baseline   drift.Baseline      `json:"baseline,omitzero"`
	Shortfall  string              `json:"shortfall,omitempty"`
	Tiers      []PlannedTier       `json:"tiers,omitempty"`  // after the specialist
	Choice     *cascade.Choice     `json:"choice,omitempty"` // the plans that were considered
	Truth      *calibration.Truth  `json:"truth,omitempty"`  // agreement with the teacher beside accuracy against people's labels
	Findings   []Finding           `json:"findings,omitempty"`
	Triggers   []Trigger           `json:"triggers,omitempty"` // words that one key's labels gave power over the answers
	// Of requests that both the generalist and a person labelled.
	Judged       int `json:"judged,omitempty"`
	TeacherWrong int `json:"teacher_wrong,omitempty"`
}

// teacherError bounds how often the generalist is wrong; negative when too few answers were judged to say.
func (r *ModelReport) teacherError() float64 {
	if r.Judged < judgedNeed {
		return -1
	}
	return calibration.Upper(r.TeacherWrong, r.Judged, teacherFail)
}

// countAll keeps the counts of what there is to learn from fresh, beside the loop: they take a while where there is much.
func (c *Controller) countAll(ctx context.Context) {
	for {
		began := time.Now()
		var names []string
		if c.inLoop(ctx, func(context.Context) { names = slices.Clone(c.names) }) != nil {
			return
		}
		for _, name := range names {
			var since time.Time
			var counts store.ExampleCount
			err := c.inLoop(ctx, func(context.Context) { since = c.subjects[name].record.AlarmAt })
			if err == nil {
				counts, err = c.count(ctx, name, since)
			}
			if err == nil {
				err = c.inLoop(ctx, func(ctx context.Context) { c.counted(ctx, c.subjects[name], counts, since) })
			}
			if err != nil && ctx.Err() == nil {
				c.opts.Log.Error("counting examples", "task", name, "error", err)
			}
		}
		rest := max(min(countEvery, 10*c.opts.Every), 20*time.Since(began)) // where there is much to count, it is counted less often
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

func (c *Controller) count(ctx context.Context, taskName string, since time.Time) (counts store.ExampleCount, err error) {
	err = c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		counts, err = tx.Examples().Count(taskName, since)
		return err
	})
	return counts, err
}

// counted takes in fresh counts, unless the task was suspended while they were made.
func (c *Controller) counted(ctx context.Context, s *subject, counts store.ExampleCount, since time.Time) {
	if !since.Equal(s.record.AlarmAt) {
		return
	}
	s.counts = counts
	if !c.leading {
		s.waiting = "another process leads: it trains"
		return
	}
	c.wantTraining(ctx, s)
	c.startTraining(ctx)
}

// wantTraining queues a run when one is due. What the run is for is written in the same transaction, so that a crash costs
// neither the run nor the account of how often the task was certified.
func (c *Controller) wantTraining(ctx context.Context, s *subject) {
	reason, due := WantsTraining(s.untried(), s.task, s.progress, s.counts, c.opts.Now())
	if obstacle := s.outside.obstacle(); due && obstacle != "" {
		reason, due = obstacle, false
	}
	if s.waiting = reason; !due {
		return
	}
	p := s.progress
	p.Looks++
	p.At, p.Rows, p.ByPerson, p.Needed, p.Why, p.Result = c.opts.Now().UTC(), s.counts.Uniform, s.counts.ByPerson, 0, reason, ""
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Jobs().Add(store.Job{Kind: jobTrain, Task: s.task.Name}); err != nil {
			return err
		}
		return putProgress(tx, s.task.Name, p)
	})
	switch {
	case errors.Is(err, store.ErrExists):
		s.waiting = "a run is queued or running"
	case err != nil:
		c.opts.Log.Error("queueing a training run", "task", s.task.Name, "error", err)
	default:
		s.progress = p
	}
}

// untried is the record as training sees it: a shadow that waits for its confirmation, or for comparisons that its certificate
// allows, which may never come, is no reason to wait for it when there is much more to learn from.
func (s *subject) untried() Record {
	r := s.record
	if e := s.evidence(r.Lead); r.State == Shadow && (e.Unconfirmed != "" || !e.enough(shadowNeeded)) {
		r.State = Observing
	}
	return r
}

func putProgress(tx *store.Tx, taskName string, p Progress) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	records := tx.Records(kindProgress)
	have, err := records.Get(taskName)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	have.Name, have.Value = taskName, value
	return records.Put(have)
}

// A run is one training run under way in this process.
type run struct {
	job      store.Job
	task     *task.Task
	record   Record
	progress Progress
	live     *LoadedModel // what it must beat
	cancel   context.CancelCauseFunc
	stage    atomic.Pointer[string]
	share    atomic.Int64 // of the stage, in percent
}

var errCancelled = errors.New("the run was cancelled")

// startTraining claims a queued run, one at a time, and starts it beside the loop.
func (c *Controller) startTraining(ctx context.Context) {
	if c.training.Load() != nil {
		return
	}
	var job store.Job
	ok := false
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) (err error) {
		job, ok, err = tx.Jobs().Claim(c.owner, jobLease, jobTrain)
		return err
	})
	if err != nil {
		c.opts.Log.Error("claiming a training run", "error", err)
	}
	if err != nil || !ok {
		return
	}
	s := c.subjects[job.Task]
	if s == nil {
		c.endJob(ctx, job, fmt.Errorf("there is no task %q any more", job.Task))
		return
	}
	r := &run{job: job, task: s.task, record: s.record, progress: s.progress}
	if h := s.held[s.record.incumbent()]; h != nil {
		r.live = h.LoadedModel
	}
	running, cancel := context.WithCancelCause(ctx)
	r.cancel = cancel
	c.training.Store(r)
	c.wg.Go(func() {
		defer cancel(nil)
		unrecorded := c.train(running, r)
		c.training.Store(nil)
		_ = c.inLoop(ctx, func(ctx context.Context) { // fails only when the controller ends
			if s.unrecorded = ""; unrecorded != nil {
				s.unrecorded = fmt.Sprintf("repeats the last run when its lease has ended, because its result could not be written: %v", unrecorded)
			}
			c.refresh(ctx)
		})
	})
}

// train does one run: every step before the last can be repeated, and the last is one transaction. The error says why that came to nothing.
func (c *Controller) train(ctx context.Context, r *run) error {
	stop := c.keepLease(ctx, r)
	made, err := besideServing(func() (m made, err error) {
		defer func() { // a run must not end the process that answers requests
			if fault := recover(); fault != nil {
				c.opts.Log.Error("a training run ended by a fault of the program", "task", r.task.Name, "fault", fault, "stack", string(debug.Stack()))
				err = fmt.Errorf("a fault of the program: %v", fault)
			}
		}()
		return c.makeModel(ctx, r)
	})
	stop()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return nil // the process ends: the lease runs out and the run is taken up again
	case cause != nil:
		err = cause
	}
	p := r.progress
	p.Result, p.Needed, p.Arithmetic, p.Choice, p.TierNeeded = made.result, made.needed, made.arithmetic, made.choice, made.tierNeeded
	if err != nil {
		p.Result = err.Error()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePatience)
	defer cancel()
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		if err == nil && made.row != nil {
			if _, err := tx.Models().Add(*made.row); err != nil {
				return err
			}
		}
		if err := putProgress(tx, r.task.Name, p); err != nil {
			return err
		}
		return tx.Jobs().Finish(r.job.ID, c.owner, nil, err, c.opts.Now().Add(time.Minute))
	})
	if err != nil {
		c.opts.Log.Error("recording a training run", "task", r.task.Name, "result", p.Result, "error", err)
	}
	return err
}

// made is what a run led to.
type made struct {
	row    *store.Model // nil when nothing was certified
	result string
	needed int64

	tierNeeded int64           // rows that would do for a tier that only lacked labels
	arithmetic string          // of needed
	choice     *cascade.Choice // the plans there were
}

// makeModel reads the examples, trains, certifies, compares and stores the file.
func (c *Controller) makeModel(ctx context.Context, r *run) (made, error) {
	examples, err := c.examples(ctx, r.task.Name)
	if err != nil {
		return made{}, err
	}
	curated := Curate(r.task, examples, r.record.AlarmAt, nil)
	trained, err := c.opts.Train(ctx, c.trainOptions(r, curated))
	if err != nil {
		return made{}, err
	}
	if err := c.plan(ctx, r, trained, examples); err != nil {
		return made{}, err
	}
	doubts, err := c.doubts(ctx, r, curated)
	if err != nil && ctx.Err() != nil {
		return made{}, err
	}
	if err != nil { // the model is none the worse
		c.opts.Log.Warn("the labels of a training run could not be checked", "task", r.task.Name, "error", err)
	}
	curated.Findings = append(curated.Findings, doubts...)
	verdict, versus := judge(trained, r.live)
	if trained.Certificate == nil && len(trained.Tiers) == 0 {
		m := made{result: "nothing was certified: " + verdict.Refusal, choice: trained.Choice}
		if trained.Shortfall != nil {
			m.needed, m.arithmetic = int64(trained.Shortfall.Needed), trained.Shortfall.Arithmetic
		}
		if n := int64(trained.Counts.Calibration); n > 0 { // needed are calibration rows, and only a part of the rows becomes one
			m.needed = m.needed * int64(len(curated.Examples)) / n
		}
		return m, nil
	}
	data, err := trained.encode()
	if err != nil {
		return made{}, err
	}
	hash, err := c.opts.Store.SaveModel(ctx, data)
	if err != nil {
		return made{}, err
	}
	report := reportOf(trained, verdict, versus, curated)
	report.Why, report.Unrivalled = r.progress.Why, r.live == nil
	all := certificates(trained.Certificate, trained.Tiers)
	if err := c.vouch(ctx, store.CertificateIssued, r.task.Name, hash, verdict.Reason+verdict.Refusal, all); err != nil {
		return made{}, err
	}
	row, err := modelRow(r.task.Name, hash, len(data), all[0], report)
	result := verdict.Reason
	if verdict.Refusal != "" {
		result = "refused: " + verdict.Refusal
	}
	return made{row: &row, result: result, choice: trained.Choice, tierNeeded: trained.tierNeeded(len(curated.Examples))}, err
}

// plan certifies the tiers after the specialist and chooses the cheapest plan that keeps the promise.
func (c *Controller) plan(ctx context.Context, r *run, t *Trained, examples []store.Example) error {
	if t.after == nil {
		return nil // a test's trainer knows of no tiers
	}
	o := PlanOptions{Ask: c.opts.Ask, Model: c.opts.Model, Budget: cost.FromUSD(r.task.CalibrationBudget), Now: c.opts.Now(), Report: func(done, total int) {
		stage := "measure tiers"
		r.stage.Store(&stage)
		r.share.Store(int64(100 * done / max(total, 1)))
	}}
	alive := map[string]bool{}
	for i := range examples {
		alive[examples[i].ID] = examples[i].Text != ""
	}
	o.keep = storedAnswers{c.opts.Store, alive}
	var err error
	if o.Volume, o.VolumeFrom, o.Generalist, err = c.economy(ctx, r.task); err != nil {
		return err
	}
	return t.Plan(ctx, o)
}

func (c *Controller) trainOptions(r *run, curated Curated) TrainOptions {
	o := TrainOptions{
		Task: r.task, Examples: curated.Examples, Background: curated.Background, Gold: curated.Gold, Said: curated.Said, Suspects: curated.Suspects, Reversals: curated.Reversals, Seed: splitSeed(r.task),
		Look: r.progress.Looks, Doubtful: !r.record.AlarmAt.IsZero(), Lock: true, From: curated.From, To: curated.To,
		Now: c.opts.Now, Workers: c.opts.Workers,
		Progress: func(stage string, done, total int) {
			r.stage.Store(&stage)
			r.share.Store(int64(100 * done / max(total, 1)))
		},
	}
	for _, e := range curated.Examples {
		if e.Source == curated.Teacher { // some labels are the generalist's: the promise is agreement with it
			o.Teacher, o.PromptHash = curated.Teacher, curated.Prompt
			o.Refit = r.confirmable(len(curated.Examples))
			o.Confirm = o.Refit
			break
		}
	}
	return o
}

// confirmable reports whether few rows may all teach, because a shadow is to come that proves the promise anew. It proves that of the
// specialist alone: tiers after it are certified on what it leaves to them, which only rows that are held out tell.
func (r *run) confirmable(rows int) bool {
	return rows < refitRows && len(r.task.Tiers) <= 1 && (r.record.State == Observing || r.record.State == Suspended)
}

func reportOf(t *Trained, verdict Contender, v *Versus, curated Curated) ModelReport {
	return ModelReport{
		Specialist: t.Model.Hash(), Refusal: verdict.Refusal, Reason: verdict.Reason, Origin: "trained", TrainedAt: t.TrainedAt, Seconds: t.Seconds,
		Counts: t.Counts, Evaluation: t.Evaluation, People: t.People, Versus: v, Curve: t.Curve, Baseline: t.Baseline, Findings: curated.Findings, Triggers: t.Triggers,
		Judged: curated.Judged, TeacherWrong: curated.TeacherWrong, Tiers: t.Tiers, Choice: t.Choice, Truth: t.Truth,
	}
}

func modelRow(taskName, hash string, size int, certificate *calibration.Certificate, report ModelReport) (store.Model, error) {
	m := store.Model{Task: taskName, Tier: "linear", Hash: hash, Bytes: int64(size)}
	var err error
	if certificate != nil {
		if m.Certificate, err = json.Marshal(certificate); err != nil {
			return m, err
		}
	}
	m.Report, err = json.Marshal(report)
	return m, err
}

// examples reads a task's newest examples.
func (c *Controller) examples(ctx context.Context, taskName string) ([]store.Example, error) {
	var all []store.Example
	for after := int64(0); ; {
		var page []store.Example
		err := c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
			page, after, err = tx.Examples().Page(taskName, after, pageRows)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		all = all[max(0, len(all)-maxRows):]
		if after == 0 {
			return all, nil
		}
	}
}

// keepLease renews the run's lease until the returned function is called, and cancels the run when that was asked for or the
// lease was lost.
func (c *Controller) keepLease(ctx context.Context, r *run) (stop func()) {
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(jobLease / 10)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				c.renew(ctx, r)
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (c *Controller) renew(ctx context.Context, r *run) {
	var job store.Job
	note := ""
	if stage := r.stage.Load(); stage != nil {
		note = *stage
	}
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) (err error) {
		job, err = tx.Jobs().Renew(r.job.ID, c.owner, jobLease, float64(r.share.Load())/100, note)
		return err
	})
	switch {
	case errors.Is(err, store.ErrLeaseLost):
		r.cancel(store.ErrLeaseLost)
	case err == nil && job.Cancel:
		r.cancel(errCancelled)
	case err != nil && ctx.Err() == nil:
		c.opts.Log.Warn("renewing the lease of a training run", "task", r.task.Name, "error", err)
	}
}

// endJob ends a run that made no model. A failure is tried again later, as often as the queue allows.
func (c *Controller) endJob(ctx context.Context, job store.Job, failure error) {
	err := c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.Jobs().Finish(job.ID, c.owner, nil, failure, c.opts.Now().Add(time.Minute))
	})
	if err != nil && !errors.Is(err, store.ErrLeaseLost) {
		c.opts.Log.Error("ending a training run", "task", job.Task, "error", err)
	}
}

// install stores a model that the configuration names and puts it live, if it is certified and was never seen before.
func (c *Controller) install(ctx context.Context, s *subject, m *LoadedModel) error {
	hash, err := c.opts.Store.SaveModel(ctx, m.data)
	if err != nil {
		return err
	}
	contender := Contender{Model: hash, Reason: "named in the configuration"}
	all := append(certificates(m.Certificate, m.Tiers), nil)
	if all[0] == nil {
		contender.Refusal = "it is not certified. " + m.Shortfall
	}
	known := false
	err = c.opts.Store.View(ctx, func(tx *store.Tx) error {
		models, err := tx.Models().List(s.task.Name)
		known = slices.ContainsFunc(models, func(have store.Model) bool { return have.Hash == hash })
		return err
	})
	if err != nil || known {
		return err
	}
	if err := c.vouch(ctx, store.CertificateIssued, s.task.Name, hash, contender.Reason, all); err != nil {
		return err
	}
	report := ModelReport{Specialist: m.Model.Hash(), Origin: "configuration", Reason: contender.Reason, Refusal: contender.Refusal, TrainedAt: m.TrainedAt,
		Counts: m.Counts, Evaluation: m.Evaluation, Curve: m.Curve, Baseline: m.Baseline, Shortfall: m.Shortfall, Tiers: m.Tiers, Choice: m.Choice}
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := modelRow(s.task.Name, hash, len(m.data), all[0], report)
		if err != nil {
			return err
		}
		_, err = tx.Models().Add(row)
		return err
	})
	if err != nil {
		return err
	}
	return c.goLive(ctx, s, contender)
}

// goLive puts a model that the configuration names live, or refuses it. Of replicas that start at once one does.
func (c *Controller) goLive(ctx context.Context, s *subject, contender Contender) (err error) {
	for range 3 {
		next := s.record
		if next.Seen != contender.Model {
			next = next.consider(contender)
		}
		if next.Lead == contender.Model {
			next = next.entered(Live, "the configuration names it")
		}
		if err = c.move(ctx, s, next.stamped(s.record, c.opts.Now().UTC()), "configuration"); !errors.Is(err, store.ErrConflict) {
			return err
		}
		if s.record.Seen == contender.Model && s.record.State != Candidate { // a replica was quicker; one that leads may have made it a candidate only
			return nil
		}
	}
	return err
}

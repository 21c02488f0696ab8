package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cascade"
	"occam/internal/store"
	"occam/internal/task"
)

// A bench is a controller on a real store, with the data plane played by the test.
type bench struct {
	t     *testing.T
	dir   string
	setup Setup
	store *store.Store
	*Controller

	mu        sync.Mutex
	published []Deployment
	asked     int // requests so far
	clock     time.Time
	barred    bool // the generalist's answers
	unplain   bool // the requests
	train     func(context.Context, TrainOptions) (*Trained, error)
	model     func(string) (Source, bool)
}

func newBench(t *testing.T, change func(*Setup)) *bench { return newBenchWith(t, nil, change) }

func newBenchWith(t *testing.T, train func(context.Context, TrainOptions) (*Trained, error), change func(*Setup)) *bench {
	b := &bench{t: t, dir: t.TempDir(), setup: Setup{Task: colours()}, clock: noon}
	b.train = train
	b.setup.Task.Auto, b.setup.Task.Audit = true, .3
	if change != nil {
		change(&b.setup)
	}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock = b.clock.Add(time.Millisecond)
	return b.clock
}

// pass lets time go by.
func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock = b.clock.Add(d)
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(b.t.Context(), "sqlite:"+b.dir, store.Options{Now: b.now, Durability: store.Normal}); err != nil {
		b.t.Fatal(err)
	}
	b.Controller, err = Start(b.t.Context(), Options{Store: b.store, Tasks: []Setup{b.setup}, Capture: true, Now: b.now, Every: 5 * time.Millisecond,
		Log: testLog(b.t), Train: b.train, Model: b.model, Publish: func(d []Deployment) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.published = d
			return nil
		}})
	if err != nil {
		b.t.Fatal(err)
	}
}

func testLog(t *testing.T) *slog.Logger {
	if os.Getenv("OCCAM_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (b *bench) close() {
	if b.Controller == nil {
		return
	}
	b.Controller.Close()
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
	b.Controller = nil
}

// crash ends the process without writing anything more.
func (b *bench) crash() {
	b.Controller.stop()
	b.Controller.wg.Wait()
	if err := b.store.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.pass(2 * jobLease)
	b.open()
}

func (b *bench) tiers() []Tier {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.published[0].Tiers
}

func (b *bench) status() Status { return b.Status()[0] }

// ask sends requests; the generalist answers them as the given colour map says, and what the tiers say is compared as the
// gateway would.
func (b *bench) ask(n int, teach func(colour string) string) {
	for _, e := range colourRows(100_000+b.asked, n) {
		b.asked++
		at := b.now()
		id := store.NewID(at)
		truth := e.Labels["colour"].Text()
		if teach != nil {
			truth = teach(truth)
		}
		values := []task.Value{task.String(truth), task.Null}
		if !slices.Contains(b.setup.Task.Fields[0].Values, truth) {
			values = nil // outside the schema, as the gateway says it
		}
		b.one(id, at, e.Text, values)
	}
}

func (b *bench) one(id string, at time.Time, text string, values []task.Value) {
	fields := b.setup.Task.Fields
	var watched []Comparison
	b.mu.Lock()
	d := b.published[0]
	b.mu.Unlock()
	for _, tier := range d.Tiers {
		if tier.Mode == cascade.Suspended || tier.Mode == cascade.Off || tier.Served != nil { // a bench has no models served elsewhere
			continue
		}
		var p task.Prediction
		tier.Model.Predict(text, &p)
		cmp := Comparison{RequestID: id, At: at, Task: d.Task.Name, Specialist: tier.Identity.Specialist, Input: text, Predicted: p, Values: values,
			Model: "gpt-4o-2024-08-06", PromptHash: "p", Accepted: tier.Decide(fields, text, &p) == cascade.Certified,
			Missing: values == nil, Outside: values == nil,
			Agreed: values != nil && p.Values[0].Equal(values[0]) && p.Values[1].Equal(values[1])}
		may := tier.Mode == cascade.Live || tier.Mode == cascade.Canary && cascade.InShare(hash64(text), tier.Share)
		b.See(Glance{RequestID: id, At: at, Task: d.Task.Name, Specialist: tier.Identity.Specialist, Input: text, Predicted: &p, Answered: may && cmp.Accepted})
		if may && cmp.Accepted {
			if cascade.InShare(hash64("audit"+id), d.Task.Audit) {
				cmp.Answered = true
				b.Compare(cmp)
			}
			return
		}
		watched = append(watched, cmp)
	}
	b.Example(Answer{RequestID: id, At: at, Task: d.Task.Name, Input: text, Values: values, Model: "gpt-4o-2024-08-06", PromptHash: "p", Barred: b.barred, Unplain: b.unplain, Outside: values == nil})
	for _, cmp := range watched {
		b.Compare(cmp)
	}
}

// document is a stored one, "" where there is none.
func (b *bench) document(kind, name string) (text string) {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(tx *store.Tx) error {
		r, err := tx.Records(kind).Get(name)
		text = string(r.Value)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		b.t.Fatal(err)
	}
	return text
}

// patience is so long that only a broken test uses it up.
const patience = 5 * time.Minute

// until waits for a condition.
func (b *bench) until(what string, ok func(Status) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok(b.status()) {
			return
		}
	}
	b.t.Fatalf("no %s; the task is %+v", what, b.status())
}

// askUntil sends requests in small lots until a condition holds.
func (b *bench) askUntil(what string, teach func(string) string, ok func(Status) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s := b.status()
		if ok(s) {
			return
		}
		if !s.Training.Running && s.Training.Waiting != "a run is queued or running" {
			b.ask(25, teach)
			b.pass(time.Second)
		}
	}
	b.t.Fatalf("no %s; the task is %+v", what, b.status())
}

func in(states ...State) func(Status) bool {
	return func(s Status) bool {
		for _, st := range states {
			if s.State == st {
				return true
			}
		}
		return false
	}
}

// trains skips a test that trains models where tests must be quick.
func trains(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("trains models")
	}
}

// history is the states a task went through, oldest first.
func (b *bench) history() (states []string, reasons []string) {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(tx *store.Tx) error {
		all, err := tx.Tasks().History("colours", 100)
		for i := len(all) - 1; i >= 0; i-- {
			states = append(states, all[i].To)
			reasons = append(reasons, all[i].Reason)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return states, reasons
}

func TestFromTrafficToLiveAndBack(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	if got := b.status(); got.State != Observing || len(b.tiers()) != 0 {
		t.Fatalf("a new task is %+v", got)
	}
	b.askUntil("live model", nil, in(Live))
	if tiers := b.tiers(); len(tiers) != 1 || tiers[0].Mode != cascade.Live {
		t.Fatalf("tiers %+v", tiers)
	}
	c := b.tiers()[0].Certificate
	if c.Teacher != "gpt-4o-2024-08-06" || c.PromptHash != "p" || c.Labels != "gpt-4o-2024-08-06" {
		t.Errorf("certificate %+v", c)
	}
	// What red was is called blue from now on: audits notice, and the generalist answers again.
	renamed := func(colour string) string {
		return map[string]string{"red": "blue"}[colour] + map[bool]string{true: colour}[colour != "red"]
	}
	b.askUntil("alarm", renamed, in(Suspended))
	if tiers := b.tiers(); tiers[0].Mode != cascade.Suspended {
		t.Errorf("tiers %+v", tiers)
	}
	if s := b.status(); s.AlarmAt.IsZero() || !strings.Contains(s.Reason, "error rate") {
		t.Errorf("status %+v", s)
	}
	b.askUntil("new live model", renamed, in(Live))
	states, reasons := b.history()
	want := "observing candidate shadow canary live suspended candidate shadow canary live"
	if got := strings.Join(states, " "); got != want {
		t.Errorf("states  %s\nwant    %s\nreasons %s", got, want, strings.Join(reasons, "\n        "))
	}
	var p task.Prediction
	right := 0
	for _, e := range colourRows(900_000, 300) {
		b.tiers()[0].Model.Predict(e.Text, &p)
		right += one(p.Values[0].Text() == renamed(e.Labels["colour"].Text()))
	}
	if right < 285 {
		t.Errorf("the new model is right on %d of 300", right)
	}
}

func TestNothingIsLostInACrash(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	seen := map[State]bool{}
	for range 60 {
		before := b.status()
		b.crash()
		after := b.status()
		if after.Version < before.Version || after.Training.Looks < before.Training.Looks-1 {
			t.Fatalf("before the crash %+v\nafter it %+v", before.Record, after.Record)
		}
		seen[after.State] = true
		if after.State == Live {
			break
		}
		b.ask(60, nil)
		b.pass(time.Minute)
		time.Sleep(30 * time.Millisecond)
	}
	b.askUntil("live model", nil, in(Live))
	states, _ := b.history()
	if got := strings.Join(states, " "); got != "observing candidate shadow canary live" {
		t.Errorf("states %s: a step was lost or made twice", got)
	}
}

func TestTwoOperators(t *testing.T) {
	b := newBench(t, func(s *Setup) { s.Task.Auto = false })
	b.askUntil("candidate", nil, in(Candidate))
	seen := b.status()
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = b.Do(t.Context(), "colours", Promote, "", fmt.Sprint("operator ", i), seen.Version)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "shadow"):
			t.Errorf("the one who was late reads: %v", err)
		}
	}
	if s := b.status(); won != 1 || s.State != Shadow {
		t.Errorf("%d won; the task is %s", won, s.State)
	}
}

func TestByHand(t *testing.T) {
	trains(t)
	b := newBench(t, func(s *Setup) { s.Task.Auto = false })
	do := func(cmd Command, model string) error {
		_, err := b.Do(t.Context(), "colours", cmd, model, "ann", b.status().Version)
		return err
	}
	if err := do(Promote, ""); err == nil {
		t.Error("nothing was promoted")
	}
	b.askUntil("candidate", nil, in(Candidate))
	for _, want := range []State{Shadow, Canary, Live} {
		if err := do(Promote, ""); err != nil || b.status().State != want {
			t.Fatalf("%v; want %s, have %+v", err, want, b.status())
		}
		if want == Shadow {
			if err := do(Promote, ""); err == nil || !strings.Contains(err.Error(), "cross-fitted") {
				t.Fatalf("promoted before new requests confirmed it: %v", err)
			}
			b.askUntil("confirmed", nil, func(s Status) bool { return !strings.Contains(s.Next, "cross-fitted") })
		}
	}
	model := b.status().Lead
	if err := do(Pause, ""); err != nil || b.tiers()[0].Mode != cascade.Off {
		t.Fatalf("paused: %v, %+v", err, b.tiers())
	}
	if err := do(Resume, ""); err != nil || b.tiers()[0].Mode != cascade.Live {
		t.Fatalf("resumed: %v, %+v", err, b.tiers())
	}
	if err := do(RollBack, ""); err != nil || b.status().State != Suspended || b.tiers()[0].Mode != cascade.Suspended {
		t.Fatalf("rolled back: %v, %+v", err, b.status())
	}
	if err := do(Promote, model[:6]); err != nil || b.status().State != Shadow {
		t.Fatalf("tried again: %v, %+v", err, b.status())
	}
	if err := do(Promote, "ffffff"); err == nil || !strings.Contains(err.Error(), "has no model") {
		t.Errorf("an unknown model: %v", err)
	}
	if _, err := b.Do(t.Context(), "unknown", Promote, "", "ann", 1); err == nil || !strings.Contains(err.Error(), "colours") {
		t.Errorf("an unknown task: %v", err)
	}
	all, err := b.Models(t.Context(), "colours")
	if err != nil || len(all) != 1 || all[0].Hash != model || all[0].Certificate == nil || all[0].Report.Specialist == "" {
		t.Errorf("models %+v, %v", all, err)
	}
}

func TestBarredAnswersTeachNothing(t *testing.T) {
	b := newBench(t, nil)
	b.barred = true
	b.ask(700, nil)
	b.until("count", func(s Status) bool { b.pass(time.Second); return s.Examples.Barred >= 690 })
	if s := b.status(); s.State != Observing || s.Training.Looks != 0 || !strings.Contains(s.Training.Waiting, "forbid training") {
		t.Errorf("status %+v", s)
	}
}

// What no tier is ever asked says nothing of what a tier is asked: it is no part of the sample that calibrates.
func TestRequestsThatNoTierIsAskedDoNotCalibrate(t *testing.T) {
	b := newBench(t, nil)
	b.unplain = true
	b.ask(700, nil)
	b.until("count", func(s Status) bool { b.pass(time.Second); return s.Examples.Examples >= 690 })
	if s := b.status(); s.Examples.Uniform != 0 || s.Training.Looks != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestASpoiledModelFileNeverAnswers(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	path := b.dir + "/models/" + b.status().Lead + ".occam"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.crash()
	if s := b.status(); s.State != Suspended || len(b.tiers()) != 0 || !strings.Contains(s.Reason, "hash") {
		t.Errorf("status %+v, tiers %+v", s.Record, b.tiers())
	}
}

func TestAStricterTargetVoidsTheCertificate(t *testing.T) {
	trains(t)
	b := newBench(t, nil)
	b.askUntil("live model", nil, in(Live))
	b.setup.Task.Target.Accuracy = .99
	b.crash()
	if s := b.status(); s.State != Suspended || !strings.Contains(s.Reason, "the task promises served accuracy 0.99") {
		t.Errorf("status %+v", s.Record)
	}
}

func TestModelFromTheConfiguration(t *testing.T) {
	trains(t)
	trained := trainColours(t, 900, nil)
	path := t.TempDir() + "/colours.occam"
	if err := trained.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	b := newBench(t, func(s *Setup) { s.Model, s.Task.Auto = loaded, false })
	if s := b.status(); s.State != Live || len(b.tiers()) != 1 {
		t.Fatalf("status %+v", s)
	}
	if _, err := b.Do(t.Context(), "colours", RollBack, "", "ann", b.status().Version); err != nil {
		t.Fatal(err)
	}
	b.crash()
	if s := b.status(); s.State != Suspended {
		t.Errorf("a restart put the model live again: %+v", s.Record)
	}
}

// Replicas that start at once with a model that none of them knows yet all start, and it is stored and put live once.
func TestReplicasInstallAModelAtOnce(t *testing.T) {
	trains(t)
	path := t.TempDir() + "/colours.occam"
	if err := trainColours(t, 900, nil).Save(path); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{Durability: store.Normal})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is to be kept
	const replicas = 8
	errs, states := make([]error, replicas), make([]Status, replicas)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range replicas {
		loaded, err := LoadModel(path)
		if err != nil {
			t.Fatal(err)
		}
		defer loaded.Close()
		wg.Go(func() {
			<-begin
			c, err := Open(t.Context(), Options{Store: db, Tasks: []Setup{{Task: colours(), Model: loaded}}, Publish: func([]Deployment) error { return nil }})
			if errs[i] = err; err != nil {
				return
			}
			defer c.Close()
			if errs[i] = c.Refresh(t.Context()); errs[i] == nil {
				states[i] = c.Status()[0]
			}
		})
	}
	close(begin)
	wg.Wait()
	models, err := Models(t.Context(), db, "colours")
	if err != nil || len(models) != 1 || models[0].Report.Origin != "configuration" {
		t.Fatalf("models %+v, %v", models, err)
	}
	for i := range replicas {
		if errs[i] != nil || states[i].State != Live || states[i].Lead != models[0].Hash {
			t.Errorf("replica %d: %v, %+v", i, errs[i], states[i].Record)
		}
	}
	err = db.View(t.Context(), func(tx *store.Tx) error {
		steps, err := tx.Tasks().History("colours", 100)
		if len(steps) != 2 { // observing, live
			t.Errorf("%d steps: %+v", len(steps), steps)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFeedback(t *testing.T) {
	b := newBench(t, nil)
	b.ask(30, nil)
	var e store.Example
	b.until("examples", func(Status) bool {
		return b.store.View(t.Context(), func(tx *store.Tx) error {
			page, _, err := tx.Examples().Page("colours", 0, 30)
			if len(page) == 0 {
				return errors.New("none yet")
			}
			e = page[0]
			return err
		}) == nil
	})
	say := func(id string, o task.Output) error { return b.Feedback(t.Context(), id, "ann", o) }
	if err := say(e.RequestID, task.Output{"colour": task.String("blue")}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		id   string
		o    task.Output
		want error
	}{
		{"unknown", task.Output{"colour": task.String("blue")}, ErrUnknownRequest},
		{e.RequestID, task.Output{"colour": task.String("mauve")}, ErrBadLabels},
		{e.RequestID, task.Output{"size": task.String("big")}, ErrBadLabels},
		{e.RequestID, nil, ErrBadLabels},
	} {
		if err := say(bad.id, bad.o); !errors.Is(err, bad.want) {
			t.Errorf("%s %v: %v, want %v", bad.id, bad.o, err, bad.want)
		}
	}
	b.pass(time.Minute)
	b.until("label", func(s Status) bool { b.pass(time.Second); return s.Examples.ByPerson == 1 })
	err := b.store.Update(context.WithoutCancel(t.Context()), func(tx *store.Tx) error { _, err := tx.Examples().Revoke("ann"); return err })
	if err != nil {
		t.Fatal(err)
	}
	b.until("revocation", func(s Status) bool { b.pass(time.Second); return s.Examples.ByPerson == 0 })
}

// A stream of callbacks that nobody takes must not hold up requests.
func TestCallbacksNeverBlock(t *testing.T) {
	b := newBench(t, nil)
	block := make(chan struct{})
	go func() { _ = b.inLoop(context.Background(), func(context.Context) { <-block }) }()
	time.Sleep(20 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 3 * queueSigns {
			id := fmt.Sprint("r", i)
			b.Compare(Comparison{RequestID: id, Task: "colours", Answered: true, Agreed: true, Input: "x"})
			b.Example(Answer{RequestID: id, Task: "colours", Input: "x"})
			b.Doubt(Doubt{RequestID: id, Task: "colours", Input: "x"})
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("a callback waits")
	}
	close(block)
	b.until("count of what was dropped", func(s Status) bool { return s.Dropped.Comparisons > 0 && s.Dropped.Signs > 0 })
}

// A run that fails (a full disk, bad examples) costs the task nothing but the run.
func TestAFailedRun(t *testing.T) {
	var calls atomic.Int64
	b := newBenchWith(t, func(context.Context, TrainOptions) (*Trained, error) {
		calls.Add(1)
		return nil, errors.New("no space left on device")
	}, nil)
	b.ask(500, nil)
	b.until("failure", func(s Status) bool { return strings.Contains(s.Training.Result, "no space left") })
	if s := b.status(); s.State != Observing || s.Training.Looks != 1 {
		t.Errorf("%+v", s)
	}
	b.until("second try", func(Status) bool { b.pass(time.Minute); return calls.Load() >= 2 })
}

// A fault of the program in a training run fails the run, not the server.
func TestARunThatPanics(t *testing.T) {
	b := newBenchWith(t, func(context.Context, TrainOptions) (*Trained, error) { panic("index out of range") }, nil)
	b.ask(500, nil)
	b.until("failure", func(s Status) bool { return strings.Contains(s.Training.Result, "index out of range") })
}

// What waits in the queues when the server stops is taken in before it ends.
func TestAStopTakesInWhatWaits(t *testing.T) {
	c := quietController(t, func(*Options) {})
	if !c.leading {
		t.Fatal("a process alone does not lead")
	}
	const n = 40
	for i := range n {
		id := fmt.Sprint("r", i)
		c.Compare(Comparison{RequestID: id, At: noon, Task: "colours", Input: "a thing " + id, Values: []task.Value{task.String("red"), task.Null},
			Model: "gpt-4o", PromptHash: "p", Answered: true, Predicted: task.Prediction{Values: []task.Value{task.String("blue"), task.Null}}})
	}
	c.Close()
	err := c.opts.Store.View(t.Context(), func(tx *store.Tx) error {
		waiting, err := tx.Reviews().Waiting("colours")
		if waiting != n {
			t.Errorf("%d of %d reviews are there", waiting, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.comparisons)+len(c.captures) > 0 {
		t.Errorf("%d comparisons and %d examples wait still", len(c.comparisons), len(c.captures))
	}
}

// A run can be cancelled, and its successor sees the same account of looks.
func TestACancelledRun(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lease to be renewed")
	}
	started := make(chan struct{}, 10)
	b := newBenchWith(t, func(ctx context.Context, _ TrainOptions) (*Trained, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}, nil)
	b.ask(500, nil)
	<-started
	err := b.store.Update(t.Context(), func(tx *store.Tx) error {
		jobs, err := tx.Jobs().List("colours", 1)
		if err != nil {
			return err
		}
		return tx.Jobs().Stop(jobs[0].ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.until("end of the run", func(s Status) bool { return strings.Contains(s.Training.Result, "cancelled") })
}

// A run that is really under way, in the middle of making weights, stops when it is cancelled: nothing of it is seen, requests are kept
// as before, and a later run makes the model.
func TestARunUnderWayIsCancelled(t *testing.T) {
	trains(t)
	under := make(chan string, 1)
	var runs atomic.Int64
	var wrong atomic.Pointer[string]
	b := newBenchWith(t, func(ctx context.Context, o TrainOptions) (*Trained, error) {
		if runs.Add(1) > 1 {
			return Train(ctx, o)
		}
		report := o.Progress
		o.Progress = func(stage string, done, total int) {
			report(stage, done, total)
			if stage == "train" && done > 0 && done < total && ctx.Err() == nil {
				under <- fmt.Sprintf("%s %d of %d", stage, done, total)
				<-ctx.Done() // it goes on from here, and must notice
			}
		}
		trained, err := Train(ctx, o)
		if err == nil || trained != nil || !errors.Is(err, context.Canceled) {
			text := fmt.Sprintf("training went on to its end: %v", err)
			wrong.Store(&text)
		}
		return trained, err
	}, nil)
	b.ask(500, nil)
	var at string
	b.until("run under way", func(s Status) bool {
		select {
		case at = <-under:
		default:
		}
		return at != "" && s.Training.Running && s.Training.Stage == "train"
	})
	job, err := b.CancelTraining(t.Context(), "colours")
	if err != nil {
		t.Fatal(err)
	}
	b.until("end of the run that was at "+at, func(s Status) bool { return !s.Training.Running && strings.Contains(s.Training.Result, "cancelled") })
	if text := wrong.Load(); text != nil {
		t.Error(*text)
	}
	err = b.store.View(t.Context(), func(tx *store.Tx) error {
		j, err := tx.Jobs().Get(job)
		if j.State != store.JobCancelled {
			t.Errorf("the job is %+v", j)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(b.dir + "/models")
	if len(files) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if all, err := b.Models(t.Context(), "colours"); err != nil || len(all) > 0 || b.status().State != Observing || len(b.tiers()) > 0 {
		t.Errorf("models %+v, %v; the task is %+v", all, err, b.status().Record)
	}
	if _, err := b.CancelTraining(t.Context(), "colours"); err == nil || !strings.Contains(err.Error(), "no training run") {
		t.Errorf("cancelled twice: %v", err)
	}
	b.askUntil("live model", nil, in(Live))
	if n := runs.Load(); n < 2 {
		t.Errorf("%d runs", n)
	}
}

func TestACrashInTheMiddleOfARun(t *testing.T) {
	var calls atomic.Int64
	b := newBenchWith(t, func(ctx context.Context, _ TrainOptions) (*Trained, error) {
		if calls.Add(1) == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errors.New("second run")
	}, nil)
	b.ask(500, nil)
	b.until("run", func(Status) bool { return calls.Load() == 1 })
	b.crash()
	b.until("run taken up again", func(s Status) bool { return strings.Contains(s.Training.Result, "second run") })
	if s := b.status(); s.Training.Looks != 1 {
		t.Errorf("the same run counts as %d looks", s.Training.Looks)
	}
}

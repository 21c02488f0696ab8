package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

// update runs f in a transaction that must succeed.
func update(t testing.TB, s *store.Store, f func(*store.Tx) error) {
	t.Helper()
	must(t, s.Update(ctx, f))
}

func testTransactions(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	boom := errors.New("boom")
	err := s.Update(ctx, func(tx *store.Tx) error {
		must(t, tx.Records("k").Put(store.Record{Name: "a", Value: json.RawMessage(`1`)}))
		if _, err := tx.Records("k").Get("a"); err != nil {
			t.Errorf("inside: %v", err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.Records("k").Get("a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after undoing: %v", err)
		}
		if err := tx.Records("k").Put(store.Record{Name: "b"}); err == nil {
			t.Error("a View wrote")
		}
		return nil
	}))
}

func testTasks(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	create := store.TaskState{Name: "triage", State: "observing", Data: json.RawMessage(`{"live":""}`)}
	changed, stop := s.Watch()
	defer stop()
	update(t, s, func(tx *store.Tx) error { _, err := tx.Tasks().Advance(create, "created", "occam"); return err })
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Error("the watcher was not told")
	}
	err := s.Update(ctx, func(tx *store.Tx) error { _, err := tx.Tasks().Advance(create, "created", "occam"); return err })
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	// Ten operators press promote at once: one wins, the others are told.
	var won, lost atomic.Int32
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			err := s.Update(ctx, func(tx *store.Tx) error {
				next := store.TaskState{Name: "triage", State: "shadow", Version: 1, Data: json.RawMessage(fmt.Sprint(i))}
				_, err := tx.Tasks().Advance(next, "promote", fmt.Sprint("operator ", i))
				return err
			})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, store.ErrConflict) && strings.Contains(err.Error(), "shadow"):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || lost.Load() != 9 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
	must(t, s.Close())
	s = open(t, dsn, opts)
	must(t, s.View(ctx, func(tx *store.Tx) error {
		history, err := tx.Tasks().History("triage", 10)
		must(t, err)
		if len(history) != 2 || history[0].From != "observing" || history[0].To != "shadow" || history[0].Version != 2 || history[1].From != "" {
			t.Errorf("%+v", history)
		}
		all, err := tx.Tasks().List()
		if len(all) != 1 || all[0].State != "shadow" || all[0].Version != 2 || string(all[0].Data) != string(history[0].Data) {
			t.Errorf("%+v", all)
		}
		if _, err := tx.Tasks().Get("other"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("an unknown task: %v", err)
		}
		return err
	}))
	unknown := store.TaskState{Name: "other", State: "live", Version: 3}
	err = s.Update(ctx, func(tx *store.Tx) error { _, err := tx.Tasks().Advance(unknown, "", ""); return err })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("advancing an unknown task: %v", err)
	}
}

func example(id string, at time.Time, category string) store.Example {
	return store.Example{ID: id, Task: "triage", RequestID: "r-" + id, At: at, Text: "text of " + id, InputHash: 1 << 63,
		Labels: []store.Label{{Example: id, At: at, Key: "key-1", Source: "gpt-4o", Trainable: true,
			Output: task.Output{"category": task.String(category), "order_id": task.Null}}}}
}

// sameExample ignores nothing but the representation of times.
func sameExample(a, b store.Example) bool {
	text := func(e store.Example) string { raw, _ := json.Marshal(e); return string(raw) }
	return text(a) == text(b)
}

func testExamples(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	var all []store.Example
	for i := range 25 {
		e := example(fmt.Sprintf("e%02d", i), noon.Add(time.Duration(i)*time.Hour), "refund")
		e.Uniform, e.Labels[0].Prompt, e.Labels[0].Trainable = i%5 == 0, "prompt-1", i != 20
		all = append(all, e)
		if i%2 == 0 {
			must(t, s.Capture(ctx, e))
			captured(t, s, e.RequestID)
		} else {
			update(t, s, func(tx *store.Tx) error { return tx.Examples().Add(e) })
		}
	}
	must(t, s.Capture(ctx, all[0])) // again: nothing changes
	all[1].Uniform = true           // again, and this time it was drawn
	update(t, s, func(tx *store.Tx) error { return tx.Examples().Add(all[1]) })
	update(t, s, func(tx *store.Tx) error {
		examples := tx.Examples()
		person := store.Label{Example: "e03", At: noon, Key: "ann", Source: "person", Output: task.Output{"category": task.String("lost")}, Trainable: true}
		must(t, examples.Label(person))
		person.Output = task.Output{"category": task.String("found")} // she thinks again
		must(t, examples.Label(person))
		all[3].Labels = append(all[3].Labels, person)
		person.Example = "unknown"
		if err := examples.Label(person); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("label of an unknown example: %v", err)
		}
		all[5].Gold = true
		return examples.SetGold(true, "e05")
	})
	must(t, s.View(ctx, func(tx *store.Tx) error {
		var got []store.Example
		for after := int64(0); ; {
			page, next, err := tx.Examples().Page("triage", after, 10)
			must(t, err)
			got = append(got, page...)
			if after = next; after == 0 {
				break
			}
		}
		if !slices.EqualFunc(got, all, sameExample) {
			t.Errorf("got  %+v\nwant %+v", got, all)
		}
		c, err := tx.Examples().Count("triage", noon.Add(5*time.Hour))
		if want := (store.ExampleCount{Examples: 25, Gold: 1, Labelled: 24, ByPerson: 1, Uniform: 3, Barred: 1}); c != want {
			t.Errorf("%+v", c)
		}
		return err
	}))
	update(t, s, func(tx *store.Tx) error {
		if n, err := tx.Examples().Revoke("key-1"); n != 25 || err != nil {
			t.Errorf("revoked %d, %v", n, err)
		}
		if n, err := tx.Examples().Forget("r-e05"); n != 1 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		if n, err := tx.Examples().Expire(noon.Add(10*time.Hour), 4); n != 4 || err != nil {
			t.Errorf("expired %d, %v", n, err)
		}
		if n, err := tx.Examples().Expire(noon.Add(10*time.Hour), 100); n != 5 || err != nil {
			t.Errorf("expired %d more, %v", n, err)
		}
		c, err := tx.Examples().Count("triage", time.Time{})
		if c.Examples != 15 || c.Labelled != 0 {
			t.Errorf("%+v", c)
		}
		return err
	})
}

// captured waits for an example that is on its way.
func captured(t testing.TB, s *store.Store, request string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := s.View(ctx, func(tx *store.Tx) error { _, err := tx.Examples().ByRequest(request); return err })
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrNotFound) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func testExampleBounds(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	for name, change := range map[string]func(*store.Example){
		"too long":  func(e *store.Example) { e.Text = strings.Repeat("x", store.MaxText+1) },
		"binary":    func(e *store.Example) { e.Text = "\xff" },
		"NUL":       func(e *store.Example) { e.Text = "a\x00" },
		"no id":     func(e *store.Example) { e.ID = "" },
		"no task":   func(e *store.Example) { e.Task = "" },
		"no source": func(e *store.Example) { e.Labels[0].Source = "" },
	} {
		e := example("e", noon, "refund")
		change(&e)
		if err := s.Capture(ctx, e); err == nil {
			t.Errorf("Capture took an example that is %s", name)
		}
		if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Examples().Add(e) }); err == nil {
			t.Errorf("Add took an example that is %s", name)
		}
	}
}

func testModels(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	content := bytes.Repeat([]byte("weights "), 400_000)
	hash, err := s.SaveModel(ctx, content)
	must(t, err)
	again, err := s.SaveModel(ctx, content)
	if must(t, err); again != hash {
		t.Errorf("saved again under %s", again)
	}
	var m store.Model
	update(t, s, func(tx *store.Tx) (err error) {
		m, err = tx.Models().Add(store.Model{Task: "triage", Tier: "linear", Hash: hash, Bytes: int64(len(content)), Report: json.RawMessage(`{"n":1}`)})
		must(t, err)
		must(t, tx.Models().SetCertificate(m.ID, json.RawMessage(`{"threshold":0.5}`)))
		if err := tx.Models().SetCertificate("triage@unknown", nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a certificate for an unknown model: %v", err)
		}
		_, err = tx.Models().Add(store.Model{Task: "triage", Hash: hash}) // again: nothing changes
		return err
	})
	must(t, s.Close())
	s = open(t, dsn, opts)
	must(t, s.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Models().List("triage")
		if len(all) != 1 || all[0].ID != "triage@"+hash[:8] || string(all[0].Certificate) != `{"threshold":0.5}` || all[0].Tier != "linear" {
			t.Errorf("%+v", all)
		}
		return err
	}))
	got, err := s.LoadModel(ctx, hash)
	if must(t, err); !bytes.Equal(got, content) {
		t.Error("the file came back changed")
	}
	for _, bad := range []string{"", "../../etc/passwd", strings.Repeat("0", 64)} {
		if _, err := s.LoadModel(ctx, bad); err == nil {
			t.Errorf("loaded %q", bad)
		}
	}
}

// testModelFiles spoils a model's file: it must not be loaded. Where the database has it, it is healed.
func testModelFiles(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	hash, err := s.SaveModel(ctx, []byte("weights"))
	must(t, err)
	dir := filepath.Join(s.Dir(), "models")
	must(t, os.WriteFile(filepath.Join(dir, hash+".occam"), []byte("wei"), 0o600))
	got, err := s.LoadModel(ctx, hash)
	if (err == nil) != b.Shared || err == nil && string(got) != "weights" {
		t.Errorf("a cut file: %q, %v", got, err)
	}
	if n, err := s.CleanModels(ctx); n != 0 || err != nil {
		t.Errorf("a young file was removed: %d, %v", n, err)
	}
	old := time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, hash+".occam"), old, old))
	if n, err := s.CleanModels(ctx); n != 1 || err != nil {
		t.Errorf("removed %d files without a model, %v", n, err)
	}
}

func testKeys(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	limits := store.KeyLimits{Budget: 5e9, Period: "month", Models: []string{"gpt-4o"}}
	var key store.Key
	var secret string
	update(t, s, func(tx *store.Tx) (err error) {
		key, secret, err = tx.Keys().Create("billing team", "app", limits)
		return err
	})
	if !key.Matches(secret) || key.Matches(secret+"x") || len(secret) != 49 || !strings.HasPrefix(secret, key.Hint) {
		t.Errorf("%q, %+v", secret, key)
	}
	update(t, s, func(tx *store.Tx) error {
		limits.Budget = 7e9
		must(t, tx.Keys().SetLimits(key.ID, limits))
		must(t, tx.Keys().Revoke(key.ID))
		must(t, tx.Keys().Revoke(key.ID))
		if err := tx.Keys().Revoke("unknown"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revoking an unknown key: %v", err)
		}
		keys, err := tx.Keys().List()
		if len(keys) != 1 || keys[0].Revoked.IsZero() || keys[0].Hash != key.Hash || keys[0].Limits.Budget != 7e9 || keys[0].Limits.Models[0] != "gpt-4o" {
			t.Errorf("%+v", keys)
		}
		return err
	})
}

func testRecords(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	put := func(r store.Record) error {
		return s.Update(ctx, func(tx *store.Tx) error { return tx.Records("detector").Put(r) })
	}
	must(t, put(store.Record{Name: "triage/linear", Value: json.RawMessage(`{"m":1}`)}))
	if err := put(store.Record{Name: "triage/linear", Value: json.RawMessage(`2`)}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}
	must(t, put(store.Record{Name: "triage/linear", Version: 1, Value: json.RawMessage(`{"m":2}`)}))
	if err := put(store.Record{Name: "triage/linear", Version: 1, Value: json.RawMessage(`{"m":3}`)}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an old version: %v", err)
	}
	if err := put(store.Record{Name: "x", Value: json.RawMessage(`{`)}); err == nil {
		t.Error("took what is no JSON")
	}
	update(t, s, func(tx *store.Tx) error {
		all, err := tx.Records("detector").List()
		if len(all) != 1 || all[0].Version != 2 || string(all[0].Value) != `{"m":2}` {
			t.Errorf("%+v", all)
		}
		must(t, tx.Records("detector").Delete("triage/linear"))
		if _, err := tx.Records("detector").Get("triage/linear"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		return err
	})
}

func testReviews(t *testing.T, b Backend) {
	dsn, opts := b.New(t)
	clock := noon
	opts.Now = func() time.Time { return clock }
	s := open(t, dsn, opts)
	update(t, s, func(tx *store.Tx) error {
		for i := range 3 {
			id := fmt.Sprint("e", i)
			must(t, tx.Examples().Add(example(id, noon, "refund")))
			r := store.Review{ID: "v" + id, Task: "triage", RequestID: "r-" + id, Example: id, At: noon, Priority: float64(i), Reason: "no tier may answer"}
			must(t, tx.Reviews().Add(r))
			must(t, tx.Reviews().Add(r))
		}
		return nil
	})
	next := func(owner string) (r store.Review) {
		t.Helper()
		update(t, s, func(tx *store.Tx) (err error) { r, err = tx.Reviews().Next("triage", owner, time.Minute); return err })
		return r
	}
	if a, b, c := next("ann"), next("bob"), next("ann"); a.ID != "ve2" || b.ID != "ve1" || c.ID != "ve2" {
		t.Errorf("%s, %s, %s", a.ID, b.ID, c.ID)
	}
	update(t, s, func(tx *store.Tx) error {
		answer := task.Output{"category": task.String("lost"), "order_id": task.String("A1")}
		r, err := tx.Reviews().Close("ve2", "ann", answer)
		if r.State != store.ReviewDone || !r.Output["order_id"].Equal(task.String("A1")) {
			t.Errorf("%+v", r)
		}
		e, _ := tx.Examples().ByRequest("r-e2")
		if len(e.Labels) != 2 || e.Labels[1].Key != "ann" || e.Labels[1].Source != "person" {
			t.Errorf("%+v", e.Labels)
		}
		if _, err := tx.Reviews().Close("ve2", "bob", nil); !errors.Is(err, store.ErrConflict) {
			t.Errorf("closed twice: %v", err)
		}
		return err
	})
	if r := next("ann"); r.ID != "ve0" {
		t.Errorf("%s", r.ID)
	}
	update(t, s, func(tx *store.Tx) error {
		_, err := tx.Reviews().Close("ve0", "ann", nil)
		must(t, err)
		if _, err := tx.Reviews().Next("triage", "ann", time.Minute); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Bob has the last one: %v", err)
		}
		return nil
	})
	clock = clock.Add(2 * time.Minute)
	if r := next("ann"); r.ID != "ve1" {
		t.Errorf("after Bob's lease: %s", r.ID)
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		skipped, err := tx.Reviews().List("triage", store.ReviewSkipped, 10)
		if n, _ := tx.Reviews().Waiting("triage"); len(skipped) != 1 || n != 1 {
			t.Errorf("%+v, %d waiting", skipped, n)
		}
		return err
	}))
}

func testJobs(t *testing.T, b Backend) {
	dsn, opts := b.New(t)
	clock := noon
	opts.Now = func() time.Time { return clock }
	s := open(t, dsn, opts)
	var job store.Job
	update(t, s, func(tx *store.Tx) (err error) {
		job, err = tx.Jobs().Add(store.Job{Kind: "train", Task: "triage", Payload: json.RawMessage(`{"tiers":["linear"]}`), MaxTries: 2})
		return err
	})
	err := s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.Jobs().Add(store.Job{Kind: "train", Task: "triage"})
		return err
	})
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("queued twice: %v", err)
	}
	claim := func(owner string) (j store.Job, err error) {
		ok := false
		err = s.Update(ctx, func(tx *store.Tx) (err error) {
			j, ok, err = tx.Jobs().Claim(owner, time.Minute, "discover", "train")
			return err
		})
		if err == nil && !ok {
			return j, store.ErrNotFound
		}
		return j, err
	}
	var got atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if _, err := claim(fmt.Sprint("worker-", i)); err == nil {
				got.Add(1)
			} else if !errors.Is(err, store.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got.Load() != 1 {
		t.Fatalf("%d workers have the job", got.Load())
	}
	var first store.Job
	must(t, s.View(ctx, func(tx *store.Tx) (err error) { first, err = tx.Jobs().Get(job.ID); return err }))
	clock = clock.Add(2 * time.Minute) // the worker hangs
	second, err := claim("second")
	if must(t, err); second.ID != job.ID || second.Tries != 2 || string(second.Payload) != `{"tiers":["linear"]}` {
		t.Errorf("%+v", second)
	}
	update(t, s, func(tx *store.Tx) error {
		if _, err := tx.Jobs().Renew(job.ID, first.Owner, time.Minute, 0.5, ""); !errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("the first worker renews: %v", err)
		}
		if err := tx.Jobs().Finish(job.ID, first.Owner, nil, nil, clock); !errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("the first worker finishes: %v", err)
		}
		j, err := tx.Jobs().Renew(job.ID, "second", time.Minute, 0.5, "epoch 3")
		if j.Progress != 0.5 || j.Note != "epoch 3" || j.Cancel {
			t.Errorf("%+v", j)
		}
		return err
	})
	clock = clock.Add(2 * time.Minute) // dies again: it was tried often enough
	if _, err := claim("third"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("tried too often: %v", err)
	}
	testJobEnds(t, s, job.ID, claim, &clock)
}

// testJobEnds goes through the other ways in which a job can end, after the first one has failed.
func testJobEnds(t *testing.T, s *store.Store, failed string, claim func(string) (store.Job, error), clock *time.Time) {
	state := func(id string) (j store.Job) {
		must(t, s.View(ctx, func(tx *store.Tx) (err error) { j, err = tx.Jobs().Get(id); return err }))
		return j
	}
	add := func() (j store.Job) {
		update(t, s, func(tx *store.Tx) (err error) {
			j, err = tx.Jobs().Add(store.Job{Kind: "train", Task: "triage"})
			return err
		})
		return j
	}
	if j := state(failed); j.State != store.JobFailed || j.Failure == "" {
		t.Errorf("%+v", j)
	}
	retried := add()
	must(t, second(claim("w")))
	update(t, s, func(tx *store.Tx) error {
		return tx.Jobs().Finish(retried.ID, "w", nil, errors.New("disk full"), clock.Add(time.Hour))
	})
	if j := state(retried.ID); j.State != store.JobQueued || j.Failure != "disk full" {
		t.Errorf("%+v", j)
	}
	if _, err := claim("w"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is not due yet: %v", err)
	}
	*clock = clock.Add(time.Hour)
	must(t, second(claim("w")))
	update(t, s, func(tx *store.Tx) error {
		return tx.Jobs().Finish(retried.ID, "w", json.RawMessage(`{"model":"m"}`), nil, time.Time{})
	})
	if j := state(retried.ID); j.State != store.JobDone || j.Progress != 1 || string(j.Result) != `{"model":"m"}` {
		t.Errorf("%+v", j)
	}
	stopped := add()
	update(t, s, func(tx *store.Tx) error { return tx.Jobs().Stop(stopped.ID) })
	running := add()
	must(t, second(claim("w")))
	update(t, s, func(tx *store.Tx) error {
		must(t, tx.Jobs().Stop(running.ID))
		j, err := tx.Jobs().Renew(running.ID, "w", time.Minute, 0, "")
		if !j.Cancel {
			t.Error("the worker is not told to stop")
		}
		must(t, err)
		must(t, tx.Jobs().Finish(running.ID, "w", nil, errors.New("stopped"), *clock))
		if err := tx.Jobs().Stop(running.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("stopped twice: %v", err)
		}
		return nil
	})
	for _, id := range []string{stopped.ID, running.ID} {
		if j := state(id); j.State != store.JobCancelled || j.Ended.IsZero() {
			t.Errorf("%+v", j)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// testBudgets lets many callers spend one budget: together they may not go above it, and what they held comes back.
func testBudgets(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	before := Paid("before", noon) // spent before there was a budget
	must(t, s.Intend(ctx, before))
	must(t, s.Finish(ctx, Settle(before, 500)))
	budget := store.Budget{Key: "key-1", Start: store.PeriodStart("month", noon), Limit: 10_500}
	all := store.Budget{Task: "triage", Start: store.PeriodStart("day", noon), Limit: 1e9}
	var admitted, refused atomic.Int64
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			a := Paid(fmt.Sprint("a", i), noon)
			switch err := s.IntendWithin(ctx, a, budget, all); {
			case err == nil:
				admitted.Add(1)
				if err := s.Finish(ctx, Settle(a, 1000)); err != nil {
					t.Error(err)
				}
			case errors.Is(err, store.ErrBudget):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if admitted.Load() != 10 || refused.Load() != 30 {
		t.Errorf("%d admitted, %d refused", admitted.Load(), refused.Load())
	}
	balance := func(b store.Budget) store.Balance { have, err := s.BudgetBalance(ctx, b); must(t, err); return have }
	if have := balance(budget); have != (store.Balance{Spent: 10_500}) {
		t.Errorf("%+v", have)
	}
	if have := balance(all); have.Spent != 10_500 {
		t.Errorf("%+v", have)
	}
	if have := balance(store.Budget{Key: "key-2", Start: budget.Start}); have != (store.Balance{}) {
		t.Errorf("%+v", have)
	}
	// What an attempt holds is freed by its outcome, and by recovery.
	budget.Limit = 20_500
	for i := range 300 {
		a := Paid(fmt.Sprint("v", i), noon)
		must(t, s.IntendWithin(ctx, a, budget))
		must(t, s.Finish(ctx, withState(a, store.Void)))
	}
	must(t, s.IntendWithin(ctx, Paid("open", noon), budget))
	if have := balance(budget); have != (store.Balance{Spent: 10_500, Reserved: 1000}) {
		t.Errorf("%+v", have)
	}
	must(t, s.Close())
	s = open(t, dsn, opts)
	if have := balance(budget); have != (store.Balance{Spent: 11_500}) {
		t.Errorf("after recovery: %+v", have)
	}
	verified(t, s)
}

package engine

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// fakeUpstreams makes upstreams that are never dialled.
func fakeUpstreams(t interface{ Fatal(...any) }, names ...string) (r Route) {
	for _, name := range names {
		u, err := NewUpstream(Options{Name: name, BaseURL: "http://" + name + ".test/v1"})
		if err != nil {
			t.Fatal(err)
		}
		r.Targets = append(r.Targets, Target{Upstream: u, Model: "m"})
	}
	return r
}

func reply(status int, header ...string) *Reply {
	r := &Reply{Status: status, Header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func half() float64 { return .5 }

// trip runs one request along a route; answer says what each call gives. It returns the last outcome.
func trip(r Route, rand func() float64, answer func(Target) (*Reply, error)) (*Reply, error) {
	t := r.Start(Patience{}, time.Now, rand)
	defer t.End()
	for {
		target, err := t.Next(context.Background())
		if err != nil {
			return nil, err
		}
		reply, err := answer(target)
		if !t.Report(reply, err) {
			return reply, err
		}
	}
}

// F22: an upstream that fails every time gets at most 1.2 calls a request, and 3.
func TestARetryStormIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a")
		calls, requests, refused := 0, 0, 0
		for start := time.Now(); time.Since(start) < time.Minute; {
			requests++
			_, err := trip(r, half, func(Target) (*Reply, error) { calls++; return reply(500), nil })
			var f *Failure
			if errors.As(err, &f) && f.Kind == Open {
				refused++
				if f.After <= 0 {
					t.Fatal("refused without saying until when")
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		if float64(calls) > 1.2*float64(requests)+3 || refused == 0 {
			t.Errorf("%d calls for %d requests, %d refused", calls, requests, refused)
		}
	})
}

// The retry budget holds without the breaker too: failures that alternate with successes never open it.
func TestTheRetryBudgetHoldsOverAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := new(gate)
		type request struct{ retries int }
		var active []*request
		requests, retries := 0, 0
		for range rapid.IntRange(1, 300).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0:
				g.begin(retryShare)
				requests++
				active = append(active, new(request))
			case 1:
				if len(active) > 0 && g.retry(retryShare) {
					active[0].retries++
					retries++
				}
			default:
				if len(active) > 0 {
					g.end(active[0].retries)
					active = active[1:]
				}
			}
			waiting := 0
			for _, a := range active {
				waiting += a.retries
			}
			if float64(waiting) > retryReserve+retryShare*float64(len(active))+1 && waiting > g.retrying {
				rt.Fatalf("%d retries at once among %d requests", waiting, len(active))
			}
		}
		if float64(retries) > retryShare*float64(requests)+retryReserve {
			rt.Fatalf("%d retries for %d requests", retries, requests)
		}
	})
}

// F23: a dead primary gets few calls while a fallback answers.
func TestADeadPrimaryIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "primary", "fallback")
		primary := 0
		for range 15 {
			start := time.Now()
			got, err := trip(r, half, func(at Target) (*Reply, error) {
				if at.Upstream.Name == "primary" {
					primary++
					return nil, &Failure{Upstream: "primary", Kind: Refused, Err: errors.New("refused")}
				}
				return reply(200), nil
			})
			if err != nil || got.Status != 200 {
				t.Fatal(got, err)
			}
			if waited := time.Since(start); waited > 0 {
				t.Errorf("waited %v before the fallback", waited)
			}
			time.Sleep(4 * time.Second)
		}
		if primary > 4 {
			t.Errorf("%d calls to the dead primary", primary)
		}
	})
}

// F24: Retry-After is obeyed by every request, as seconds and as a date, and those that wait do not come back together.
func TestRetryAfterIsObeyed(t *testing.T) {
	for name, value := range map[string]func() string{
		"seconds": func() string { return "4" },
		"date":    func() string { return time.Now().Add(4 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := fakeUpstreams(t, "a")
				start := time.Now()
				var mu sync.Mutex
				var back []time.Duration
				for i := range 3 {
					rand := float64(i) / 3
					go func() {
						first := true
						got, err := trip(r, func() float64 { return rand }, func(Target) (*Reply, error) {
							time.Sleep(time.Millisecond)
							if first {
								first = false
								return reply(429, "Retry-After", value()), nil
							}
							mu.Lock()
							back = append(back, time.Since(start))
							mu.Unlock()
							return reply(200), nil
						})
						if err != nil || got.Status != 200 {
							t.Errorf("%v %v", got, err)
						}
					}()
				}
				time.Sleep(time.Second)
				_, err := trip(r, half, func(Target) (*Reply, error) { t.Error("called during the pause"); return reply(200), nil })
				var f *Failure
				if !errors.As(err, &f) || f.Kind != Limited || f.Reply().Status != 429 || f.After <= 0 {
					t.Errorf("during the pause: %v", err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(back) != 3 {
					t.Fatal(back)
				}
				for _, at := range back {
					if at < 3*time.Second { // a date has whole seconds
						t.Errorf("called again after %v", at)
					}
				}
				if spread := (back[2] - back[0]).Seconds() / back[0].Seconds(); spread < .2 {
					t.Errorf("all came back within %.0f %%", 100*spread)
				}
			})
		})
	}
}

// F26: at recovery one probe goes out, then the upstream is opened step by step.
func TestRecoveryIsARamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a")
		var down atomic.Bool
		var calls, out atomic.Int64
		down.Store(true)
		call := func(Target) (*Reply, error) {
			calls.Add(1)
			out.Add(1)
			time.Sleep(100 * time.Millisecond)
			out.Add(-1)
			if down.Load() {
				return reply(500, "X-Should-Retry", "false"), nil
			}
			return reply(200), nil
		}
		for range tripAfter {
			_, _ = trip(r, half, call)
		}
		time.Sleep(openAlone)
		down.Store(false)
		calls.Store(0)
		crowd := func() {
			for range 1000 {
				go func() { _, _ = trip(r, half, call) }()
			}
		}
		crowd()
		time.Sleep(50 * time.Millisecond)
		if calls.Load() != 1 {
			t.Errorf("%d probes", calls.Load())
		}
		limits := []int64{1}
		for range 6 {
			time.Sleep(100 * time.Millisecond)
			crowd()
			synctest.Wait()
			limits = append(limits, out.Load())
		}
		for i := 1; i < len(limits); i++ {
			if limits[i] > 2*limits[i-1]+2 {
				t.Errorf("the ramp jumps: %v", limits)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if g := r.Targets[0].Upstream.gate("m"); g.out != 0 || g.active != 0 || g.retrying != 0 {
			t.Errorf("the gate counts wrong: %+v", g)
		}
	})
}

// F26: a thousand clients have waited and come back as they are told, on top of the steady traffic. In the first second after the
// probe the upstream gets at most twice its steady rate, and everybody is served in the end.
func TestF26HerdAtRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, latency = 200, 100 * time.Millisecond
		r := fakeUpstreams(t, "a")
		var down atomic.Bool
		var mu sync.Mutex
		var at []time.Duration // of the calls since the recovery
		var recovered time.Time
		call := func(Target) (*Reply, error) {
			mu.Lock()
			if !down.Load() && !recovered.IsZero() {
				at = append(at, time.Since(recovered))
			}
			mu.Unlock()
			time.Sleep(latency)
			if down.Load() {
				return reply(500, "X-Should-Retry", "false"), nil
			}
			return reply(200), nil
		}
		stop := make(chan struct{})
		var traffic sync.WaitGroup
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second / rate):
					traffic.Go(func() { _, _ = trip(r, half, call) })
				}
			}
		})
		time.Sleep(3 * time.Second) // what is usual
		down.Store(true)
		time.Sleep(5 * time.Second)
		var served atomic.Int64
		for range 1000 {
			traffic.Go(func() {
				for {
					_, err := trip(r, half, call)
					var f *Failure
					if !errors.As(err, &f) {
						if !down.Load() {
							served.Add(1)
							return
						}
						time.Sleep(time.Second)
						continue
					}
					time.Sleep(f.After)
				}
			})
		}
		time.Sleep(2 * time.Second)
		mu.Lock()
		recovered = time.Now()
		mu.Unlock()
		down.Store(false)
		time.Sleep(time.Minute)
		close(stop)
		traffic.Wait()
		first := at[0] // the probe
		inFirstSecond, whileProbing := 0, 0
		for _, x := range at {
			if x < first+latency {
				whileProbing++
			}
			if x < first+latency+time.Second {
				inFirstSecond++
			}
		}
		t.Logf("probes %d, calls in the first second %d at a steady rate of %d, %d of 1000 served", whileProbing, inFirstSecond, rate, served.Load())
		if whileProbing != 1 || inFirstSecond > 2*rate || served.Load() != 1000 {
			t.Error("the herd came through")
		}
	})
}

func TestAProbeThatFailsDoublesThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a")
		fail := func(Target) (*Reply, error) { return reply(503, "X-Should-Retry", "false"), nil }
		for range tripAfter {
			_, _ = trip(r, half, fail)
		}
		last := time.Duration(0)
		for range 6 {
			_, err := trip(r, half, func(Target) (*Reply, error) { t.Error("called while open"); return reply(200), nil })
			var f *Failure
			if !errors.As(err, &f) || f.After < last || f.After > longestAlone {
				t.Fatalf("after %v: %v", last, err)
			}
			last = f.After
			time.Sleep(f.After)
			_, _ = trip(r, half, fail)
		}
	})
}

func TestWhatIsRetried(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply *Reply
		err   error
		calls int
	}{
		{"ok", reply(200), nil, 1},
		{"bad request", reply(400), nil, 1},
		{"unauthorised", reply(401), nil, 1},
		{"server error", reply(500), nil, 3},
		{"overloaded", reply(529), nil, 3},
		{"told not to", reply(500, "X-Should-Retry", "false"), nil, 1},
		{"told to", reply(409, "X-Should-Retry", "true"), nil, 3},
		{"a long pause", reply(429, "Retry-After", "3600"), nil, 1},
		{"refused", nil, &Failure{Kind: Refused}, 3},
		{"broken", nil, &Failure{Kind: Broken}, 3},
		{"timeout", nil, &Failure{Kind: Timeout}, 1},
		{"cancelled", nil, &Failure{Kind: Cancelled}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			_, _ = trip(fakeUpstreams(t, "a"), half, func(Target) (*Reply, error) { calls++; return c.reply, c.err })
			if calls != c.calls {
				t.Errorf("%s: %d calls, want %d", c.name, calls, c.calls)
			}
		})
	}
}

func TestFallbackGoesDownTheChainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a", "b", "c")
		var order string
		got, err := trip(r, half, func(at Target) (*Reply, error) {
			order += at.Upstream.Name
			if at.Upstream.Name == "c" && len(order) > 3 {
				return reply(200), nil
			}
			return reply(502), nil
		})
		if err != nil || got.Status != 200 || order != "abcc" {
			t.Errorf("%s: %v %v", order, got, err)
		}
	})
}

func TestCancelDuringBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a")
		tr := r.Start(Patience{}, time.Now, half)
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := tr.Next(ctx); err != nil {
			t.Fatal(err)
		}
		if !tr.Report(reply(500), nil) {
			t.Fatal("not retried")
		}
		cancel()
		_, err := tr.Next(ctx)
		var f *Failure
		if !errors.As(err, &f) || f.Kind != Cancelled {
			t.Errorf("%v", err)
		}
		tr.End()
		if g := r.Targets[0].Upstream.gate("m"); g.out != 0 || g.active != 0 || g.retrying != 0 {
			t.Errorf("%+v", g)
		}
	})
}

// A retry is given back where it was taken, also when the request went on elsewhere after its wait: a model does not lose its retries.
func TestARetryIsGivenBackWhereItWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := fakeUpstreams(t, "a", "b")
		a, b := r.Targets[0].Upstream.gate("m"), r.Targets[1].Upstream.gate("m")
		one := r.Start(Patience{}, time.Now, half)
		if at, err := one.Next(context.Background()); err != nil || at.Upstream.Name != "a" {
			t.Fatal(at, err)
		}
		b.pause(time.Now().Add(100*time.Millisecond), true) // so the request is tried again at a, in 0.3 s
		if !one.Report(reply(500), nil) || a.retrying != 1 {
			t.Fatal("no retry")
		}
		a.pause(time.Now().Add(time.Minute), true)
		if at, err := one.Next(context.Background()); err != nil || at.Upstream.Name != "b" {
			t.Fatal(at, err)
		}
		one.Report(reply(200), nil)
		one.End()
		if a.retrying != 0 || b.retrying != 0 || a.active != 0 || b.active != 0 {
			t.Errorf("%d and %d retries are counted after the end, %d and %d requests", a.retrying, b.retrying, a.active, b.active)
		}
	})
}

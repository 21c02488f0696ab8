package gateway

import (
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/store"
	"occam/internal/task"
)

// dice gives what a test says, one number after another, and no audit after that.
func dice(numbers ...float64) func() float64 {
	return func() float64 {
		if len(numbers) == 0 {
			return .999
		}
		next := numbers[0]
		numbers = numbers[1:]
		return next
	}
}

func (w *world) waitCompared(t *testing.T, n int) []Comparison {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(w.compared()) < n && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	return w.compared()
}

// An answer in a rare class has a second chance to be audited, and what was drawn for that alone says so: it is no part of the
// uniform sample.
func TestRareClassesAreAuditedMoreOften(t *testing.T) {
	for _, c := range []struct {
		name        string
		rolls       []float64
		rareClass   string
		audited     bool
		rare, extra bool
		reason      string
		share       float64
	}{
		{"drawn uniformly", []float64{.005}, "refund", true, true, false, "audit", .01},
		{"drawn for its class", []float64{.5, .04}, "refund", true, true, true, "audit_rare", .99 * .05},
		{"not drawn", []float64{.5, .5}, "refund", false, false, false, "", 0},
		{"another class", []float64{.5, .04}, "other", false, false, false, "", 0},
		{"another class, drawn uniformly", []float64{.005}, "other", true, false, false, "audit", .01},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(w *world, o *Options) {
				o.Rand, w.snap.Tasks[0].Audit = dice(c.rolls...), .01
				w.tier.Rare = &cascade.Stratum{Values: map[string]bool{c.rareClass: true}, Audit: .05}
			})
			w.answer = `{"category":"refund","order_id":"A-1"}`
			w.post(taskBody)
			if !c.audited {
				time.Sleep(20 * time.Millisecond)
				if got := w.compared(); len(got) != 0 {
					t.Errorf("audited: %+v", got)
				}
				return
			}
			got := w.waitCompared(t, 1)
			if len(got) != 1 || got[0].Rare != c.rare || got[0].Extra != c.extra || !got[0].Agreed {
				t.Fatalf("%+v", got)
			}
			if rows := w.book.paid(); len(rows) != 1 || rows[0].Reason != c.reason || !rows[0].Audit || rows[0].AuditShare != c.share {
				t.Errorf("ledger %+v", rows)
			}
		})
	}
}

// That an answer was drawn for an audit is in the ledger before the generalist is asked; what the generalist then says, or fails to
// say, cannot undo it, and a failure is a missing value.
func TestAnAuditIsRecordedBeforeItsOutcome(t *testing.T) {
	w := newWorld(t, func(w *world, o *Options) { o.Rand, w.snap.Tasks[0].Audit = func() float64 { return 0 }, 1 })
	var before []store.Attempt
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		w.book.mu.Lock()
		for _, id := range w.book.order {
			before = append(before, *w.book.rows[id])
		}
		w.book.mu.Unlock()
		rw.WriteHeader(http.StatusInternalServerError)
	}
	w.post(taskBody)
	got := w.waitCompared(t, 1)
	if len(got) != 1 || !got[0].Missing || got[0].Outside || got[0].Agreed || got[0].Values != nil || !got[0].Answered {
		t.Fatalf("a failed audit is %+v", got)
	}
	if len(before) != 1 || !before[0].Audit || before[0].Reason != "audit" || before[0].State != store.Pending {
		t.Errorf("when the generalist was asked the ledger held %+v", before)
	}
}

// A tier that is barred in a class leaves that class to the generalist and answers the others.
func TestABarredClassIsNotAnswered(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) {
		w.tier.Rare = &cascade.Stratum{Values: map[string]bool{"refund": true}, Barred: true}
	})
	w.answer = `{"category":"refund","order_id":"A-1"}`
	if res, _ := w.post(taskBody); res.Header.Get("X-Occam-Reason") != string(cascade.IsSuspended) {
		t.Errorf("a barred class: %v", res.Header)
	}
	w.model.p.Values = []task.Value{task.String("other"), task.String("A-1")}
	if res, _ := w.post(taskBody); res.Header.Get("X-Occam-Reason") != "certified" {
		t.Errorf("another class: %v", res.Header)
	}
}

// A tier at an upstream is asked in the task's own words whatever the app's are, only about what its certificate was made for, and
// answers only as the version that was certified.
func TestATierServedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		body := w.bodies[len(w.bodies)-1]
		model := "gpt-4o"
		if strings.Contains(body, `"mini"`) {
			model = "mini-2024"
		}
		_, _ = rw.Write([]byte(`{"model":"` + model + `","choices":[{"message":{"role":"assistant","content":"{\"category\":\"refund\",\"order_id\":\"A-1\"}"},` +
			`"logprobs":{"content":[{"token":"x","logprob":-0.1}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`))
	}
	cheap := upstreamTier(w)
	w.snap.Tasks[0].Tiers = append(w.snap.Tasks[0].Tiers, cheap)
	w.tier = &w.snap.Tasks[0].Tiers[0]
	w.publish()
	one := func(score float64) string {
		w.model.p.Score = score
		res, _ := w.post(taskBody)
		return res.Header.Get("X-Occam-Model")
	}
	if got := one(1); got != "mini" || len(w.bodies) != 1 || !strings.Contains(w.bodies[0], "JSON Schema") || !strings.Contains(w.bodies[0], `"logprobs":true`) {
		t.Errorf("left by the specialist: %s, asked %q", got, w.bodies)
	}
	if got := one(1.7); got != "gpt-4o" { // below the threshold of 2, above the place where its walk stopped
		t.Errorf("between: %s", got)
	}
	w.snap.Tasks[0].Tiers[0].Mode = cascade.Suspended // then nobody knows what it would have left
	w.publish()
	if got := one(1); got != "gpt-4o" {
		t.Errorf("with the specialist suspended: %s", got)
	}
	w.snap.Tasks[0].Tiers[0].Mode = cascade.Live
	w.snap.Tasks[0].Tiers[1].Version = "mini-2025"
	w.publish()
	if got := one(1); got != "gpt-4o" {
		t.Errorf("another version: %s", got)
	}
	w.snap.Tasks[0].Tiers[1].Version, w.snap.Tasks[0].Tiers[1].Mode = "mini-2024", cascade.Shadow
	before := len(w.bodies)
	w.publish()
	if got := one(1); got != "gpt-4o" || len(w.bodies) != before+1 {
		t.Errorf("a tier that is paid by the call was asked in shadow: %s, %d calls", got, len(w.bodies)-before)
	}
}

// upstreamTier is a cheap model behind the specialist, certified on what that scores below 1.5.
func upstreamTier(w *world) Tier {
	id := calibration.Identity{Task: "triage", Specialist: "mini as it was certified", Score: cascade.ScoreLogProb}
	return Tier{Route: engine.Route{Targets: []engine.Target{{Upstream: w.upstream("cheap", w.URL+"/v1"), Model: "mini"}}},
		Tier: cascade.Tier{Name: "mini", Mode: cascade.Live, Identity: id, Version: "mini-2024",
			Certificate: &calibration.Certificate{Task: id.Task, Specialist: id.Specialist, Score: id.Score, Threshold: -1, Floor: math.Inf(-1),
				Accepted: 100, N: 100, Upper: .02, Risk: .03, Below: map[string]float64{"abcdef0123": 1.5}}}}
}

// A tier at an upstream that gave no valid answer has predicted nothing: what the tier before it said is not taken for its prediction.
func TestNoAnswerIsNoPrediction(t *testing.T) {
	var decided []Decision
	w := newWorld(t, func(_ *world, o *Options) {
		o.OnDecision = func(d Decision) {
			copied := clone(d.Predicted)
			d.Predicted = &copied
			decided = append(decided, d)
		}
	})
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"mini"`) {
			_, _ = io.WriteString(rw, w.reply())
			return
		}
		_, _ = io.WriteString(rw, `{"model":"mini-2024","choices":[{"message":{"role":"assistant","content":"I cannot say"},"logprobs":{"content":[{"token":"x","logprob":-0.1}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`)
	}
	w.snap.Tasks[0].Tiers = append(w.snap.Tasks[0].Tiers, upstreamTier(w))
	w.model.p.Score = 1
	w.publish()
	if res, _ := w.post(taskBody); res.Header.Get("X-Occam-Reason") != string(cascade.InvalidOutput) || res.Header.Get("X-Occam-Model") != "gpt-4o" {
		t.Errorf("%v", res.Header)
	}
	for _, c := range w.compared() {
		if c.Tier == "mini" {
			t.Errorf("compared: %+v", c)
		}
	}
	if len(decided) != 2 || decided[1].Tier != "mini" || decided[1].Predicted.Values != nil || decided[1].Predicted.Confidence != 0 {
		t.Errorf("%+v", decided)
	}
}

package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// line is one line of a batch.
func line(body string) *Line {
	now := time.Now()
	return &Line{ID: store.NewID(now), Began: now, API: openai.Chat, Body: []byte(body)}
}

// A line that a specialist answers and that cannot be put to the generalist for an audit keeps its answer; the audit counts as missing.
func TestALineThatCannotBeAudited(t *testing.T) {
	w := newWorld(t, speaking(engine.Anthropic), func(w *world, _ *Options) { w.snap.Tasks[0].Audit = 1 })
	done := w.server.Sort(context.Background(), line(strings.Replace(taskBody, "{", `{"seed":7,`, 1))) // Anthropic has no word for a seed
	if done.Refused != nil || !strings.Contains(string(done.Answer), "refund") || done.Ask != nil {
		t.Errorf("%+v", done)
	}
	if c := w.compared(); len(c) != 1 || !c[0].Missing || !c[0].Answered {
		t.Errorf("%+v", c)
	}
}

// F40 in a batch: an input that crashes the specialist goes to the generalist, also when it is not shown to the specialist any more,
// and every row that is written has an ID.
func TestF40PoisonInABatch(t *testing.T) {
	model := &fragile{}
	w := newWorld(t, func(w *world, _ *Options) { w.tier.Specialist = model })
	for i := range crashesAllowed + 2 {
		done := w.server.Sort(context.Background(), line(strings.Replace(taskBody, "refund A-1 please", "poison", 1)))
		if done.Ask == nil {
			t.Fatalf("%+v", done)
		}
		for _, a := range done.Rows {
			if !store.IsLine(a.ID) || a.Reason != string(cascade.Failed) {
				t.Errorf("time %d: %+v", i, a)
			}
		}
	}
	if n := model.crashes.Load(); n != crashesAllowed {
		t.Errorf("%d crashes", n)
	}
}

// A specialist's answer to a line has the form of its task's answers, as it has outside of batches.
func TestALineIsAnsweredInItsTasksForm(t *testing.T) {
	w := newWorld(t)
	form, err := task.ParseForm("{{category}}", ticketFields[:1])
	if err != nil {
		t.Fatal(err)
	}
	w.model.p.Values, w.model.p.FieldConfidence = w.model.p.Values[:1], w.model.p.FieldConfidence[:1]
	w.snap.Tasks[0].Task = &task.Task{Name: "triage", Fields: ticketFields[:1], Generalist: "gpt-4o", Answer: form}
	w.publish()
	body := `{"model":"triage","messages":[{"role":"user","content":"refund A-1 please"}]}`
	_, online := w.post(body)
	done := w.server.Sort(context.Background(), line(body))
	if said := `"content":"refund"`; !strings.Contains(online, said) || !strings.Contains(string(done.Answer), said) {
		t.Errorf("online %s, in a batch %s", online, done.Answer)
	}
}

// behind puts a second specialist behind the first, certified on what that scores below 1.5.
func (w *world) behind(second engine.Predictor) {
	id := calibration.Identity{Task: "triage", Specialist: "beef456789", Score: "s"}
	w.snap.Tasks[0].Tiers = append(w.snap.Tasks[0].Tiers, Tier{Specialist: second, Tier: cascade.Tier{Name: "encoder", Mode: cascade.Live, Identity: id,
		Certificate: &calibration.Certificate{Task: id.Task, Specialist: id.Specialist, Score: id.Score, Threshold: 2, Accepted: 100, N: 100, Upper: .02, Risk: .03,
			Below: map[string]float64{"abcdef0123": 1.5}}}})
	w.tier = &w.snap.Tasks[0].Tiers[0]
	w.publish()
}

// What the first specialist of a task leaves is answered by the second one in a batch too.
func TestALineGoesDownTheCascade(t *testing.T) {
	w := newWorld(t)
	w.behind(&parrot{p: w.model.p})
	w.model.p.Score = 1
	done := w.server.Sort(context.Background(), line(taskBody))
	if done.Answer == nil || done.Row.Tier != "encoder" || len(done.Rows) != 2 {
		t.Errorf("%+v", done)
	}
}

// saidToALine is a line's result as its provider gives it.
type saidToALine struct {
	status int
	body   string
}

// Audits of lines are drawn, weighed and compared as everywhere: with the probability of the draw, whatever the share is when the result
// comes, in rare classes once more, and one that fails counts as missing.
func TestAuditsOfLines(t *testing.T) {
	for _, c := range []struct {
		name        string
		rolls       []float64
		got         saidToALine
		reason      string
		share       float64
		extra       bool
		comparisons int
		missing     bool
	}{
		{"drawn uniformly", []float64{.2}, saidToALine{200, "the answer"}, "audit", .25, false, 1, false},
		{"drawn for its class", []float64{.5, .4}, saidToALine{200, "the answer"}, "audit_rare", .75 * .5, true, 1, false},
		{"not drawn", []float64{.5, .6}, saidToALine{}, "", 0, false, 0, false},
		{"failed", []float64{.2}, saidToALine{500, `{"error":{"message":"no"}}`}, "audit", .25, false, 1, true},
		{"unreadable", []float64{.2}, saidToALine{200, `no JSON`}, "audit", .25, false, 1, true},
		{"not run", []float64{.2}, saidToALine{0, ""}, "audit", .25, false, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(w *world, o *Options) {
				o.Rand, w.snap.Tasks[0].Audit = dice(c.rolls...), .25
				w.tier.Rare = &cascade.Stratum{Values: map[string]bool{"refund": true}, Audit: .5}
			})
			l := line(taskBody)
			done := w.server.Sort(context.Background(), l)
			if done.Answer == nil || (done.Ask != nil) != (c.reason != "") {
				t.Fatalf("%+v", done)
			}
			if done.Ask == nil {
				return
			}
			if a := done.Ask.Intent; a.Reason != c.reason || a.AuditShare != c.share || !a.Audit {
				t.Errorf("%+v", a)
			}
			later := *w.snap.Tasks[0].Task
			later.Audit = .01
			w.snap = &Snapshot{Limits: w.snap.Limits, Book: w.snap.Book, Fallback: w.snap.Fallback, Tasks: []Task{{Task: &later, Tiers: w.snap.Tasks[0].Tiers}}}
			w.publish()
			if c.got.body == "the answer" {
				c.got.body = w.reply()
			}
			w.server.Settle(context.Background(), l, done.Ask, c.got.status, []byte(c.got.body))
			got := w.compared()
			if len(got) != c.comparisons {
				t.Fatalf("%+v", got)
			}
			for _, one := range got {
				if !one.Answered || !one.Accepted || !one.Rare || one.Extra != c.extra || one.Share != c.share || one.Missing != c.missing || one.Agreed == c.missing {
					t.Errorf("%+v", one)
				}
			}
		})
	}
}

// A line that is looked at again after a crash, and is now put to the provider, has an attempt of its own for that: one that a specialist
// answered before the crash is in the ledger already, and what is in the ledger stays as it is.
func TestALineThatIsLookedAtAgain(t *testing.T) {
	w := newWorld(t)
	l := line(taskBody)
	before := w.server.Sort(context.Background(), l)
	w.tier.Mode = cascade.Suspended
	w.publish()
	after := w.server.Sort(context.Background(), l)
	if before.Answer == nil || after.Ask == nil || after.Ask.Intent.ID == before.Row.ID || !store.IsLine(after.Ask.Intent.ID) {
		t.Errorf("%+v, then %+v", before, after)
	}
	if again := w.server.Sort(context.Background(), l); again.Ask.Intent.ID != after.Ask.Intent.ID {
		t.Errorf("its attempt is %s, then %s", after.Ask.Intent.ID, again.Ask.Intent.ID)
	}
}

// F40 in a batch: a line that crashes the gateway itself is an error of that line, wherever it does; what it cost is known as it is of
// other requests.
func TestF40PoisonForTheGatewayInABatch(t *testing.T) {
	crash := func(text string) {
		if strings.Contains(text, "poison") {
			panic("poison")
		}
	}
	w := newWorld(t, func(_ *world, o *Options) {
		o.OnDecision = func(d Decision) { crash(d.Input) }
		o.OnTraffic = func(tr Traffic) { crash(tr.Messages[0].Text) }
	})
	ctx := context.Background()
	if done := w.server.Sort(ctx, line(strings.Replace(taskBody, "please", "poison", 1))); done.Refused == nil || done.Refused.Status != 500 || done.Ask != nil || done.Rows != nil {
		t.Errorf("%+v", done)
	}
	l := line(strings.Replace(plainBody, "hi", "poison", 1))
	done := w.server.Sort(ctx, l)
	if done.Ask == nil {
		t.Fatalf("%+v", done)
	}
	if a := w.server.Settle(ctx, l, done.Ask, 200, []byte(w.reply())); a.State != store.Settled || a.Cost != gpt4oCost/2 {
		t.Errorf("%+v", a)
	}
	if status, _, body := w.server.Call(ctx, l, 0); status != 500 || !strings.Contains(string(body), "internal_error") {
		t.Errorf("%d %s", status, body)
	}
	w.expectBill(store.Settled)
}

package cascade

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"occam/internal/calibration"
	"occam/internal/task"
)

var fields = []task.Field{
	{Name: "category", Kind: task.Category, Values: []string{"a", "b"}},
	{Name: "id", Kind: task.Span, Nullable: true},
}

func certified(mode Mode) Tier {
	id := calibration.Identity{Task: "t", Specialist: "s1", Score: "score"}
	return Tier{Name: "linear", Mode: mode, Identity: id, Certificate: &calibration.Certificate{Task: id.Task, Specialist: id.Specialist,
		Score: id.Score, Threshold: 2, Floor: -1, Accepted: 100, N: 100, Upper: .03, Risk: .03}}
}

func prediction() task.Prediction {
	return task.Prediction{Values: []task.Value{task.String("a"), task.String("X-1")}, Confidence: .9, Score: 2, InScope: -1}
}

func TestDecide(t *testing.T) {
	nan := math.NaN()
	for want, change := range map[Reason]func(*Tier, *task.Prediction){
		Certified:      func(*Tier, *task.Prediction) {},
		BelowThreshold: func(_ *Tier, p *task.Prediction) { p.Score = math.Nextafter(2, 0) },
		OutOfScope:     func(_ *Tier, p *task.Prediction) { p.InScope = -1.01 },
		NoCertificate:  func(t *Tier, _ *task.Prediction) { t.Certificate = nil },
		InvalidOutput:  func(_ *Tier, p *task.Prediction) { p.Score = nan },
	} {
		tier, p := certified(Live), prediction()
		change(&tier, &p)
		if got := tier.Decide(fields, "about X-1", &p); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for name, c := range map[string]struct {
		change func(*Tier, *task.Prediction)
		want   Reason
	}{
		"other weights":       {func(t *Tier, _ *task.Prediction) { t.Identity.Specialist = "s2" }, NoCertificate},
		"other score":         {func(t *Tier, _ *task.Prediction) { t.Identity.Score = "x" }, NoCertificate},
		"other task":          {func(t *Tier, _ *task.Prediction) { t.Identity.Task = "x" }, NoCertificate},
		"other teacher":       {func(t *Tier, _ *task.Prediction) { t.Identity.Teacher = "x" }, NoCertificate},
		"proves nothing":      {func(t *Tier, _ *task.Prediction) { t.Certificate.Upper = .5 }, NoCertificate},
		"span not in input":   {func(_ *Tier, p *task.Prediction) { p.Values[1] = task.String("X-2") }, InvalidOutput},
		"category not listed": {func(_ *Tier, p *task.Prediction) { p.Values[0] = task.String("c") }, InvalidOutput},
		"category null":       {func(_ *Tier, p *task.Prediction) { p.Values[0] = task.Null }, InvalidOutput},
		"a value missing":     {func(_ *Tier, p *task.Prediction) { p.Values = p.Values[:1] }, InvalidOutput},
		"in-scope NaN":        {func(_ *Tier, p *task.Prediction) { p.InScope = nan }, InvalidOutput},
		"span null":           {func(_ *Tier, p *task.Prediction) { p.Values[1] = task.Null }, Certified},
	} {
		tier, p := certified(Live), prediction()
		c.change(&tier, &p)
		if got := tier.Decide(fields, "about X-1", &p); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// However scores fall: what is answered is at or above the threshold and the floor of a valid certificate.
func TestNothingBelowItsThresholdIsAnswered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tier, p := certified(Live), prediction()
		p.Score, p.InScope = rapid.Float64().Draw(t, "score"), rapid.Float64().Draw(t, "in scope")
		tier.Certificate.Threshold, tier.Certificate.Floor = rapid.Float64().Draw(t, "threshold"), rapid.Float64().Draw(t, "floor")
		if tier.Decide(fields, "X-1", &p) == Certified && !(p.Score >= tier.Certificate.Threshold && p.InScope >= tier.Certificate.Floor) {
			t.Fatalf("answered %+v under %+v", p, tier.Certificate)
		}
	})
}

func TestPlan(t *testing.T) {
	ok := Request{Plain: true, Readable: true, Hash: 1}
	for _, c := range []struct {
		name string
		tier Tier
		r    Request
		want Step
	}{
		{"live", certified(Live), ok, Step{Role: Answer}},
		{"shadow", certified(Shadow), ok, Step{Watch, InShadow}},
		{"suspended", certified(Suspended), ok, Step{Skip, IsSuspended}},
		{"off", certified(Off), ok, Step{Skip, IsOff}},
		{"unknown mode", certified("x"), ok, Step{Skip, IsOff}},
		{"no mode", certified(""), ok, Step{Skip, IsOff}},
		{"tools", certified(Live), Request{Readable: true}, Step{Skip, NotPlain}},
		{"unreadable", certified(Live), Request{Plain: true}, Step{Skip, Unreadable}},
		{"canary of none", certified(Canary), ok, Step{Watch, NotInCanary}},
	} {
		if got := Plan(nil, []Tier{c.tier}, c.r); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	all := certified(Canary)
	all.Share = 1
	rapid.Check(t, func(t *rapid.T) {
		r := ok
		r.Hash = rapid.Uint64().Draw(t, "hash")
		if Plan(nil, []Tier{all}, r)[0].Role != Answer {
			t.Fatal("a canary of everything left a request out")
		}
	})
}

func TestCanaryShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.Uint64().Draw(t, "hash")
		small, large := rapid.Float64Range(0, 1).Draw(t, "a"), rapid.Float64Range(0, 1).Draw(t, "b")
		if small > large {
			small, large = large, small
		}
		if InShare(hash, small) && !InShare(hash, large) {
			t.Fatal("a growing canary took an input back")
		}
	})
	for _, share := range []float64{0, .01, .1, .5, 1} {
		in := 0
		const n = 100_000
		for i := range uint64(n) { // hashes in a row, the worst case
			if InShare(i, share) {
				in++
			}
		}
		if sd := math.Sqrt(share * (1 - share) / n); math.Abs(float64(in)/n-share) > 5*sd {
			t.Errorf("share %v: %v of the hashes", share, float64(in)/n)
		}
	}
}

func TestAuditDraw(t *testing.T) {
	if Audited(0, 0) || !Audited(1, .9999) || Audited(.01, .01) || !Audited(.01, .00999) {
		t.Error("the draw is not u < share")
	}
}

// In any stretch of time a budget lets through at most its burst and its rate, and a refusal says when to come back.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Budget{PerMinute: rapid.Float64Range(.5, 600).Draw(t, "rate"), Burst: rapid.Float64Range(0, 50).Draw(t, "burst")}
		start := time.Unix(1_800_000_000, 0)
		now, elapsed, taken := start, time.Duration(0), 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			step := time.Duration(rapid.Int64Range(-int64(time.Minute), int64(time.Minute)).Draw(t, "step"))
			now = now.Add(step)
			elapsed += max(step, 0)
			ok, wait := b.Take(now, 1)
			if ok {
				taken++
			}
			if limit := max(b.Burst, 1) + elapsed.Minutes()*b.PerMinute; float64(taken) > limit+1e-6 {
				t.Fatalf("%d taken, limit %v", taken, limit)
			}
			if !ok {
				if wait <= 0 {
					t.Fatal("refused without a wait")
				}
				now = now.Add(wait + time.Millisecond)
				elapsed += wait + time.Millisecond
				if again, _ := b.Take(now, 1); !again {
					t.Fatalf("refused again after the wait of %v", wait)
				}
				taken++
			}
		}
	})
	large := Budget{PerMinute: 60, Burst: 10}
	now := time.Unix(1_800_000_000, 0)
	if ok, _ := large.Take(now, 25); !ok {
		t.Error("what is more than the burst is never taken")
	}
	if ok, wait := large.Take(now, 1); ok || wait != 16*time.Second {
		t.Errorf("a debt of 15 at one a second takes %v", wait)
	}
	large.Correct(-20)
	if ok, _ := large.Take(now, 5); !ok {
		t.Error("nothing was given back")
	}
	unlimited := Budget{}
	if ok, _ := unlimited.Take(time.Time{}, 1); !ok {
		t.Error("the zero budget is unlimited")
	}
}

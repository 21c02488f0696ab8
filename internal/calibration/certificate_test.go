package calibration

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func issued(t *testing.T) (Certificate, Identity) {
	t.Helper()
	outcomes := make([]Outcome, 400)
	for i := range outcomes {
		outcomes[i] = Outcome{Score: float64(i) / 400, Wrong: i%40 == 0 && i < 100}
	}
	result, err := Certify(Goal{Promise: Served, Risk: 0.05, Delta: 0.05}, evenGrid(100), outcomes)
	if err != nil {
		t.Fatal(err)
	}
	now := Identity{Task: "triage", Specialist: "abc", Score: "margin-v1", Teacher: "gpt-4o-2024-08-06", PromptHash: "p1"}
	return result.Certificate(Certificate{
		Task: now.Task, Specialist: now.Specialist, Score: now.Score, Teacher: now.Teacher, PromptHash: now.PromptHash,
		Labels: "teacher", Floor: math.Inf(-1), IssuedAt: time.Date(2026, 5, 1, 10, 0, 0, 123456789, time.FixedZone("X", 3600)),
	}), now
}

func evenGrid(size int) []float64 {
	scores := make([]float64, size)
	for i := range scores {
		scores[i] = float64(i) / float64(size)
	}
	return Grid(scores, size)
}

func TestCertificateSurvivesJSON(t *testing.T) {
	for _, floor := range []float64{math.Inf(-1), 0, -1.5} {
		c, now := issued(t)
		c.Floor = floor
		text, err := json.Marshal(&c)
		if err != nil {
			t.Fatal(err)
		}
		var back Certificate
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if back.Hash() != c.Hash() || back.Floor != floor || back.Void(now) != "" {
			t.Errorf("round trip with floor %v changed the certificate:\n%s", floor, text)
		}
	}
}

func TestAnyChangeVoids(t *testing.T) {
	c, now := issued(t)
	if reason := c.Void(now); reason != "" {
		t.Fatalf("fresh certificate is void: %s", reason)
	}
	for what, changed := range map[string]Identity{
		"task":       {"other", now.Specialist, now.Score, now.Teacher, now.PromptHash},
		"specialist": {now.Task, "other", now.Score, now.Teacher, now.PromptHash},
		"score":      {now.Task, now.Specialist, "other", now.Teacher, now.PromptHash},
		"teacher":    {now.Task, now.Specialist, now.Score, "other", now.PromptHash},
		"prompt":     {now.Task, now.Specialist, now.Score, now.Teacher, "other"},
	} {
		if reason := c.Void(changed); !strings.Contains(reason, what) {
			t.Errorf("a changed %s gives reason %q", what, reason)
		}
	}
	if (*Certificate)(nil).Void(now) == "" || (&Certificate{}).Void(Identity{}) == "" {
		t.Error("no certificate, or an empty one, is not void")
	}
	hash := c.Hash()
	c.Threshold += 0.01
	if c.Hash() == hash {
		t.Error("a changed threshold keeps the hash")
	}
}

func TestReachesOnlyWhatEarlierTiersLeft(t *testing.T) {
	c := &Certificate{Below: map[string]float64{"linear": 2}}
	if c.Reaches("linear", 2) || !c.Reaches("linear", 1.9) || !c.Reaches("linear", math.NaN()) || !c.Reaches("encoder", 9) {
		t.Error("Reaches does not follow Below")
	}
}

func TestAcceptsNeedsScoreAndScope(t *testing.T) {
	c := &Certificate{Threshold: 0.5, Floor: -1}
	nan := math.NaN()
	for _, row := range []struct {
		score, scope float64
		want         bool
	}{{0.5, -1, true}, {0.4, 5, false}, {0.9, -2, false}, {nan, 0, false}, {1, nan, false}, {math.Inf(1), 0, true}} {
		if got := c.Accepts(row.score, row.scope); got != row.want {
			t.Errorf("Accepts(%v, %v) = %v", row.score, row.scope, got)
		}
	}
	if (*Certificate)(nil).Accepts(1, 1) {
		t.Error("a nil certificate accepts")
	}
}

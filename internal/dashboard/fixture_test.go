package dashboard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// fixedNow is the time in all fixtures.
var fixedNow = time.Date(2026, 11, 21, 15, 4, 5, 0, time.UTC)

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{Durability: store.Normal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A traffic is what seed writes into a ledger.
type traffic struct {
	requests  int
	days      int
	task      string
	local     float64 // share answered by the specialist
	perLocal  cost.Amount
	simulated bool
	from      int // number of the first request, so that identifiers differ
}

const specialistModel = "ticket-triage@4f1c9a2b77d0"

// attempt returns one attempt of request i.
func (q traffic) attempt(i, seq int, at time.Time) store.Attempt {
	return store.Attempt{ID: fmt.Sprintf("A%06d-%d", i, seq), RequestID: fmt.Sprintf("R%06d", i), Seq: seq, At: at, Task: q.task,
		KeyID: "support-app"}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seed writes requests spread over the days before fixedNow: the specialist first, then the generalist where it did not answer.
func seed(t testing.TB, s *store.Store, q traffic) {
	t.Helper()
	ctx, rng := context.Background(), rand.New(rand.NewPCG(1, 2))
	each := cost.Amount(1_750_000)
	for i := q.from; i < q.from+q.requests; i++ {
		at := fixedNow.Add(-time.Duration(q.requests+q.from-i) * time.Duration(q.days) * 24 * time.Hour / time.Duration(q.requests+1))
		reference := each + cost.Amount(rng.IntN(200_000))
		seq := 0
		served := rng.Float64() < q.local
		if q.local > 0 {
			a := q.attempt(i, seq, at)
			a.Tier, a.Model, a.Latency, a.Confidence, a.Reason = "linear", specialistModel, time.Duration(200+rng.IntN(300))*time.Microsecond,
				0.4+0.3*rng.Float64(), "below_threshold"
			if served {
				a.Answered, a.Status, a.Reference, a.Reason, a.Confidence = true, 200, reference, "certified", 0.83+0.165*rng.Float64()
			}
			if q.perLocal > 0 {
				a.Provider, a.Price, a.CostHigh = "gpu", "2026-11", q.perLocal
				must(t, s.Intend(ctx, a))
				a.State, a.Cost, a.CostLow = store.Settled, q.perLocal, q.perLocal
				must(t, s.Finish(ctx, a))
			} else {
				must(t, s.RecordFree(ctx, a))
			}
			seq++
		}
		audit := served && rng.Float64() < 0.02
		if served && !audit {
			continue
		}
		a := q.attempt(i, seq, at.Add(time.Millisecond))
		a.Tier, a.Model, a.Provider, a.Price, a.CostHigh, a.Audit = "generalist", "gpt-4o", "openai", "2026-11-01", 3*each, audit
		a.Simulated = q.simulated
		if q.task == "" {
			a.Tier = ""
		}
		must(t, s.Intend(ctx, a))
		a.State, a.Cost, a.CostLow, a.CostHigh = store.Settled, reference, reference, reference
		a.Status, a.Latency = 200, time.Duration(600+rng.IntN(900))*time.Millisecond
		a.Usage = cost.Usage{Input: 500, Output: 50}
		if !audit {
			a.Answered, a.Reference, a.Reason = true, reference, map[bool]string{true: "", false: "no_tier"}[q.local > 0]
			if q.task == "" {
				a.Reference, a.Reason = 0, "passthrough"
			}
		}
		must(t, s.Finish(ctx, a))
	}
}

// ticketTask is a task with a certified specialist.
func ticketTask() TaskView {
	certificate := &calibration.Certificate{Task: "ticket-triage", Specialist: "4f1c9a2b77d0", Promise: calibration.Served, Risk: 0.03, Delta: 0.05,
		Method: "fallback-4", Split: "held-out", Labels: "import", Threshold: 2.31, N: 2000, Accepted: 1684, Errors: 33, Upper: 0.0264, Coverage: 0.842, IssuedAt: fixedNow.AddDate(0, 0, -12)}
	var curve []calibration.Point
	for i := range 40 {
		c := float64(i+1) / 40
		curve = append(curve, calibration.Point{Threshold: 6 - 8*c, Coverage: c, Served: 0.006 + 0.027*c*c*c*c, System: c * (0.006 + 0.027*c*c*c*c)})
	}
	return TaskView{Name: "ticket-triage", Generalist: "gpt-4o", State: "live", Target: task.DefaultTarget, Since: fixedNow.AddDate(0, 0, -12),
		Fields:   []task.Field{{Name: "category", Kind: task.Category, Values: categories()}, {Name: "order_id", Kind: task.Span, Nullable: true}},
		Commands: []string{"rollback", "pause"}, Confusions: confusions(), Audits: audits(),
		Tiers: []TierView{{Name: "linear", Model: specialistModel, Mode: "live", Bytes: 6_200_000, Certificate: certificate, MinConfidence: 0.81,
			Curve: curve, Evaluation: &Evaluation{Rows: 2000, Right: 1862, Served: 1690, ServedRight: 1662, P50: 210 * time.Microsecond, P99: 640 * time.Microsecond}}}}
}

func categories() []string {
	all := []string{"parcel_late", "refund_status"}
	for i := len(all); i < 50; i++ {
		all = append(all, fmt.Sprintf("category_%d", i))
	}
	return all
}

func confusions() []Confusion {
	return []Confusion{{"category", "refund_status", "refund_request", 9}, {"category", "card_lost", "card_stolen", 7}, {"category", "cancel_order", "change_order", 4}}
}

func audits() []AuditDay {
	var all []AuditDay
	for i := range 14 {
		all = append(all, AuditDay{fixedNow.AddDate(0, 0, i-14).Truncate(24 * time.Hour), 120 + i, []int{2, 1, 3, 2, 2, 4, 1, 2, 3, 1, 2, 2, 3, 2}[i]})
	}
	return all
}

// queueReview puts one ticket into the review queue.
func queueReview(t testing.TB, s *store.Store) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		text := "Hi, where is my parcel? Order AB-1234 was due on Monday.\nThanks <b>Eva</b>"
		if err := tx.Examples().Add(store.Example{ID: "R1", RequestID: "R1", Task: "ticket-triage", At: fixedNow, Text: text}); err != nil {
			return err
		}
		return tx.Reviews().Add(store.Review{ID: "R1", Task: "ticket-triage", RequestID: "R1", Example: "R1", At: fixedNow, Priority: 3,
			Reason: "no tier may answer", Suggestion: []byte(`{"category":"parcel_late","order_id":"AB-1234"}`)})
	}))
}

func fixedTasks(views ...TaskView) func(context.Context) ([]TaskView, error) {
	return func(context.Context) ([]TaskView, error) { return views, nil }
}

// serve starts a dashboard over a source.
func serve(t testing.TB, o Options) *httptest.Server {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return fixedNow }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	}
	done := make(chan struct{})
	o.Done, o.Version = done, "test"
	server := httptest.NewServer(New(o))
	t.Cleanup(func() { close(done); server.Close() })
	return server
}

func get(t testing.TB, url string) (int, http.Header, string) {
	t.Helper()
	reply, err := http.Get(url)
	must(t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	must(t, err)
	return reply.StatusCode, reply.Header, string(body)
}

func wantText(t testing.TB, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func flush(t testing.TB, s *store.Store) { // free rows wait for a batch
	t.Helper()
	time.Sleep(150 * time.Millisecond)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *dollars) UnmarshalJSON(data []byte) error {
	usd, err := strconv.ParseFloat(string(data), 64)
	*m = dollars(cost.FromUSD(usd))
	return err
}

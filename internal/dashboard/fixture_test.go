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
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/datacheck"
	"occam/internal/drift"
	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

// fixedNow is the time in all fixtures.
var fixedNow = time.Date(2026, 11, 21, 15, 4, 5, 0, time.UTC)

func openStore(t testing.TB) *store.Store { return openStoreAt(t, nil) }

// openStoreAt opens a store whose clock the caller sets.
func openStoreAt(t testing.TB, clock *time.Time) *store.Store {
	t.Helper()
	o := store.Options{Durability: store.Normal}
	if clock != nil {
		o.Now = func() time.Time { return *clock }
	}
	s, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), o)
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
	live      time.Time // before it the specialist answered nothing
	from      int       // number of the first request, so that identifiers differ
}

const specialistModel = "ticket-triage@4f1c9a2b"

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
		served := rng.Float64() < q.local && at.After(q.live)
		if q.local > 0 {
			a := q.attempt(i, seq, at)
			a.Tier, a.Model, a.Latency, a.Confidence, a.Reason = "linear", specialistModel, time.Duration(200+rng.IntN(300))*time.Microsecond,
				0.4+0.3*rng.Float64(), map[bool]string{true: "below_threshold", false: "shadow"}[at.After(q.live)]
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
		Method: "fallback-4", Split: "held-out", Labels: "gpt-4o-2024-08-06", Teacher: "gpt-4o-2024-08-06", Threshold: 2.31, N: 2000, Accepted: 1684, Errors: 33, Upper: 0.0264, Coverage: 0.842, IssuedAt: fixedNow.AddDate(0, 0, -12)}
	var curve []calibration.Point
	for i := range 40 {
		c := float64(i+1) / 40
		curve = append(curve, calibration.Point{Threshold: 6 - 8*c, Coverage: c, Served: 0.006 + 0.027*c*c*c*c, System: c * (0.006 + 0.027*c*c*c*c)})
	}
	choice := &cascade.Choice{Promise: "at least 97 % of every tier's answers are right", Volume: 40_000, VolumeFrom: "from this month", Audit: 0.02, Rest: "gpt-4o", Generalist: "gpt-4o",
		Prices: map[string]cascade.Price{"linear": {}, "gpt-4o-mini": {PerCall: 0.0001}, "gpt-4o": {PerCall: 0.00186}},
		Candidates: []cascade.Candidate{{}, {Stages: []cascade.Stage{{Tier: "linear", Reach: 1, Coverage: 0.845, Wrong: 0.0264, Size: 1}}},
			{Stages: []cascade.Stage{{Tier: "linear", Reach: 1, Coverage: 0.845, Wrong: 0.0264, Size: 1}, {Tier: "gpt-4o-mini", Reach: 0.155, Coverage: 0.09, Size: 2}}, Problem: "gpt-4o-mini is not certified: it needs 210 more labels"}},
		Escalations: []cascade.Escalation{{From: "linear", To: "gpt-4o", Rows: 310, Gains: 96, Harms: 14, P: 2.1e-15, Pays: true, Against: "imports", Verdict: "pays: the next tier is right far more often"}}}
	choice.Decide()
	return TaskView{Name: "ticket-triage", Choice: choice, Generalist: "gpt-4o", State: "live", Target: task.DefaultTarget, Since: fixedNow.AddDate(0, 0, -12), Note: "200 comparisons, 3 differ: no more than allowed",
		Next: "training: the live model is recent: it is retrained at 2026-12-09 15:04 (retrain: 30d)", Outside: lifecycle.OutsideCount{Answers: 640, Outside: 3},
		Warnings: []Warning{{"of the requests that the specialist of model 4f1c9a2b sees, and without labels: requests are longer than at calibration (1 % then, 3.2 % since, noticed at request 8120)", false}},
		Training: Training{Runs: 2, At: fixedNow.AddDate(0, 0, -15), Why: "3400 labelled requests are there to learn from", Result: "certified: 97.4 % of its answers are right at least"},
		Fields:   []task.Field{{Name: "category", Kind: task.Category, Values: categories()}, {Name: "order_id", Kind: task.Span, Nullable: true}},
		Commands: []string{"rollback", "pause"}, Confusions: confusions(), Audits: audits(),
		Tiers: []TierView{{Name: "linear", Model: specialistModel, Mode: "live", Bytes: 6_200_000, Certificate: certificate, MinConfidence: 0.81,
			Evidence: &lifecycle.EvidenceStatus{Status: drift.Status{Audits: 1771, Wrong: 30, Missing: 2, Low: 0.0098, High: 0.0269, Change: 2.4, Limit: 400}, Allowed: 0.03, Stage: "live"},
			Truth:    &calibration.Truth{Rows: 2000, Judged: 400, Differ: 0.031, DifferHigh: 0.038, TeacherLow: 0.008, TeacherTop: 0.036, Low: 0.004, High: 0.041},
			Curve:    curve, Evaluation: &Evaluation{Rows: 2000, Right: 1862, Served: 1690, ServedRight: 1662, P50: 210 * time.Microsecond, P99: 640 * time.Microsecond}}}}
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

// trains queues a training run of a task.
func trains(t testing.TB, s *store.Store, name string) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Jobs().Add(store.Job{Kind: "train", Task: name})
		return err
	}))
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

// everything is a dashboard with all its pages and commands, none of which does anything.
func everything(s *store.Store) Options {
	return Options{Source: s, Database: s, Tasks: fixedTasks(ticketTask()), Verifier: s.Verify,
		Command:  func(context.Context, Order) error { return nil },
		Groups:   someGroups,
		MakeTask: func(context.Context, lifecycle.Making) error { return nil },
		Abilities: func(context.Context) ([]gateway.Abilities, error) {
			return []gateway.Abilities{{Provider: "openai", Model: "gpt-4o", Schema: gateway.Enforced, Logprobs: true, Usage: true, StreamUsage: true, Priced: true},
				{Provider: "gpu", Model: "Llama-3.2-3B-Instruct", Schema: gateway.Ignored, Usage: true}}, nil
		},
		Batches: func(context.Context) ([]BatchView, error) {
			return []BatchView{{ID: "batch_01KB0A", Endpoint: "/v1/chat/completions", Status: "in_progress", Created: fixedNow.Add(-time.Hour), Total: 5000, Completed: 4310, Specialist: 4102, Failed: 3,
				MayCancel: true, Parts: []BatchPart{{Provider: "openai", Model: "gpt-4o", Lines: 898, Done: 208, State: "running"}}},
				{ID: "batch_01KAZZ", Endpoint: "/v1/chat/completions", Status: "completed", Created: fixedNow.Add(-30 * time.Hour), Total: 800, Completed: 800, Specialist: 655}}, nil
		},
		CancelTraining: func(context.Context, string) (string, error) { return "J1", nil },
		CancelBatch:    func(context.Context, string) error { return nil },
		Explain:        someReasons, CheckData: someTrouble,
		Configuration: func() Configuration {
			return Configuration{YAML: "listen: 127.0.0.1:8080\ndata_dir: ./occam-data\nstore: sqlite\nproviders:\n  openai:\n    type: openai\n    base_url: https://api.openai.com/v1\n    api_key: (hidden)\n",
				Capture: true, Retention: 30 * 24 * time.Hour, Redact: "contacts"}
		}}
}

func someGroups(context.Context) ([]lifecycle.Group, error) {
	monthly, saving := 87.6, 86.724
	return []lifecycle.Group{
		{ID: "s01c4", Requests: 2700, First: fixedNow.AddDate(0, 0, -9), Last: fixedNow, Model: "gpt-4o", System: "You sort support tickets of a shop.",
			Template: "Ticket: {{input}}", Shape: "json", Fields: ticketTask().Fields, Answers: 47, Entropy: 4.9, Spent: 26.28, Monthly: &monthly, Saving: &saving,
			Verdict: lifecycle.WorthIt, Reason: "at most $86.72 of $87.60 a month would be saved; how much, a certificate will say", Offered: true},
		{ID: "u77ab", Requests: 310, Model: "gpt-4o", Template: "Translate: {{input}}", Shape: "free text", Answers: 300, Entropy: 8.2, Spent: 3.1,
			Verdict: lifecycle.NotWorthIt, Reason: "the answers are free text, which a specialist must not invent"},
		{ID: "p0e91", Requests: 120, Model: "gpt-4o-mini", System: "Is this mail angry?", Template: "{{input}}", Shape: "json", Fields: []task.Field{{Name: "angry", Kind: task.Boolean}},
			Answers: 2, Entropy: 0.8, Spent: 0.02, Verdict: lifecycle.CannotTellYet, Reason: "needs 380 more requests to learn and certify from", More: 380, Offered: true},
	}, nil
}

const keptText = "Hello, where is my parcel? It was promised for Monday and the tracking has not moved for a week. Order AB-1234. Thanks, Eva"

// someReasons explains any answer to keptText.
func someReasons(_ context.Context, _, _, text string) (*engine.Explanation, error) {
	words := []specialist.WordWeight{{Text: "parcel", Weight: 1.9}, {Text: "tracking", Weight: 1.2}, {Text: "Thanks", Weight: -0.6}, {Text: "Monday", Weight: 0.4}, {Text: "promised", Weight: -0.2}}
	for i := range words {
		words[i].Start = strings.Index(text, words[i].Text)
		words[i].End = words[i].Start + len(words[i].Text)
	}
	reasons := []specialist.Reason{{Field: "category", Value: task.String("parcel_late"), Against: task.String("refund_status"), Margin: 2.35, Bias: -0.35, Words: words},
		{Field: "order_id", Value: task.String("AB-1234"), Margin: 4.1, Candidates: []specialist.SpanCandidate{{Text: "AB-1234", Probability: 0.984}, {Text: "", Probability: 0.016}}}}
	nearest := []specialist.Alike{{ID: "7", Text: "My parcel has not come. Order <b>ZZ-77</b> was promised for Friday.", Labels: task.Output{"category": task.String("parcel_late"), "order_id": task.String("ZZ-77")}, Likeness: 0.83},
		{ID: "91", Text: "The tracking shows nothing since Tuesday", Labels: task.Output{"category": task.String("parcel_late"), "order_id": task.Value{}}, Likeness: 0.61}}
	return &engine.Explanation{Reasons: reasons, Nearest: nearest}, nil
}

// keepText keeps the text of a request, as capture does.
func keepText(t testing.TB, s *store.Store, request string) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		return tx.Examples().Add(store.Example{ID: request, RequestID: request, Task: "ticket-triage", At: fixedNow, Text: keptText})
	}))
}

// someTrouble is what a data check finds.
func someTrouble(_ context.Context, name string, progress func(string, int, int)) (*lifecycle.DataCheck, error) {
	progress("near texts", 1, 2)
	examples := []task.Example{{ID: "R000004", Text: keptText}, {ID: "R000019", Text: "Where is my refund? I sent the shoes back two weeks ago."}, {ID: "R000020", Text: "where is my refund?? I sent the shoes back two weeks ago"}}
	late, refund := task.String("parcel_late"), task.String("refund_status")
	report := &datacheck.Report{Rows: 3, Findings: []datacheck.Finding{
		{Kind: "near_conflict", Field: "category", Severity: datacheck.Error, Rows: 2, Why: "nearly the same text has two labels", Do: "decide which one is right",
			Groups: []datacheck.Group{{Values: []string{"parcel_late", "refund_status"}, Rows: []datacheck.Row{{Index: 1, ID: "R000019", Label: &refund}, {Index: 2, ID: "R000020", Label: &late, Suggested: &refund}}}}},
		{Kind: "suspicious_label", Field: "category", Severity: datacheck.Warning, Rows: 1, Why: "a model that did not see the row is sure of another label", Do: "look at the row",
			Groups: []datacheck.Group{{Rows: []datacheck.Row{{Index: 0, ID: "R000004", Label: &refund, Suggested: &late}}}}}},
		Ceilings: []datacheck.Ceiling{{Field: "category", Estimate: 0.972, Low: 0.961, High: 0.98, Now: 0.941}}}
	return &lifecycle.DataCheck{Report: report, Examples: examples, Labels: []lifecycle.Finding{{Kind: "key_cap", Key: "support-app", Count: 40, Detail: "one key gave more labels than may count"}}}, nil
}

// checked runs a data check of ticket-triage to its end, and leaves some entries in the log of changes.
func checked(t testing.TB, d *served, s *store.Store) {
	t.Helper()
	d.keepCheck(t.Context(), &verdict{At: fixedNow.Add(-2 * time.Hour), By: "admin", OK: true, Entries: 1254, Attempts: 977})
	must(t, d.beginDataCheck("ticket-triage", "admin"))
	for range 500 {
		d.data.mu.Lock()
		done := d.data.running == nil
		d.data.mu.Unlock()
		if done {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i, what := range []string{"checked the ledger", "changed a key's limits", "gave a task a command"} {
		a := Action{At: fixedNow.Add(time.Duration(i) * time.Minute), By: "admin", What: what, Object: []string{"", "support-app", "ticket-triage"}[i], Detail: []string{"intact", "", "promote"}[i]}
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { return logAction(tx, a) }))
	}
}

// someKeys makes three keys and returns the first one's ID.
func someKeys(t testing.TB, s *store.Store) string {
	t.Helper()
	first := ""
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		for i, l := range []store.KeyLimits{{Budget: 25 * cost.USD, Period: "month", RequestsPerMinute: 600, Tasks: []string{"ticket-triage"}, Degrade: "gpt-4o-mini"}, {Period: "day", TokensPerMinute: 90_000}, {Period: "month"}} {
			k, _, err := tx.Keys().Create([]string{"support-app", "night-batch", "an-old-app"}[i], "app", l)
			if err != nil {
				return err
			}
			if i == 0 {
				first = k.ID
			}
			if i == 2 {
				if err := tx.Keys().Revoke(k.ID); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	return first
}

// live takes ticket-triage through its life, and the clock to now.
func live(t testing.TB, s *store.Store, clock *time.Time) {
	t.Helper()
	for i, step := range [][2]string{{"observing", "the task is new: the generalist answers"}, {"candidate", "model 4f1c9a2b was trained: 97.4 % of its answers are right at least, covers 84.2 %"},
		{"shadow", "promoted by hand"}, {"canary", "300 comparisons, 4 differ: no more than allowed"}, {"live", "200 comparisons, 3 differ: no more than allowed"}} {
		must(t, s.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Tasks().Advance(store.TaskState{Name: "ticket-triage", State: step[0], Version: int64(i)}, step[1], []string{"occam", "occam", "admin", "occam", "occam"}[i])
			return err
		}))
		*clock = clock.Add(36 * time.Hour)
	}
	*clock = fixedNow
}

// someModels stores three models of ticket-triage: an old one, the one in use, and one that was refused.
func someModels(t testing.TB, s *store.Store) {
	t.Helper()
	for i, m := range []store.Model{{Report: []byte(`{"specialist":"0aa1b2c3d4e5","reason":"certified: 95.9 % of its answers are right at least"}`), Certificate: []byte(`{}`)},
		{Report: []byte(`{"specialist":"4f1c9a2b77d0","reason":"better than the one before: 41 gains, 12 harms, p = 0.0001"}`), Certificate: []byte(`{}`)},
		{Report: []byte(`{"specialist":"77aa88bb99cc","refusal":"no better than the live one: 14 gains, 17 harms, p = 0.72"}`)}} {
		hash, err := s.SaveModel(t.Context(), []byte(fmt.Sprint("a model ", i)))
		must(t, err)
		m.Task, m.Tier, m.Hash, m.Bytes = "ticket-triage", "linear", hash, 6_200_000
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Models().Add(m); return err }))
	}
}

// A served dashboard is one with its address.
type served struct {
	*Dashboard
	url string
}

// serve starts a dashboard over a source.
func serve(t testing.TB, o Options) *httptest.Server {
	t.Helper()
	_, server := start(t, o)
	return server
}

func serveAll(t testing.TB, o Options) *served {
	t.Helper()
	d, server := start(t, o)
	return &served{d, server.URL}
}

func start(t testing.TB, o Options) (*Dashboard, *httptest.Server) {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return fixedNow }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	}
	done := make(chan struct{})
	o.Done, o.Version = done, "test"
	d := New(o)
	server := httptest.NewServer(d)
	t.Cleanup(func() { close(done); server.Close() })
	return d, server
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

// setAccount creates an account or changes its role and password. An empty password makes a new one, which is returned.
func setAccount(ctx context.Context, db Database, name string, role Role, password string) (string, error) {
	return changeAccount(ctx, db, accountChange{name: name, role: role, password: password, seen: -1, by: "occam", at: time.Now().UTC()})
}

package batch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/gateway"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/specialist"
	"occam/internal/task"
)

// BenchmarkBackfill measures a backfill that a trained specialist answers, from the upload's begin to the batch's end: reading, predicting,
// the ledger's row of every ticket and the output file, all durable. go test -run '^$' -bench Backfill -benchtime 100000x ./internal/batch
func BenchmarkBackfill(b *testing.B) {
	model := trained(b)
	p, err := sim.New(sim.Options{APIKey: "key"})
	if err != nil {
		b.Fatal(err)
	}
	server, err := p.Listen()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	o, err := openOffice(b.TempDir(), server.URL, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer o.close()
	if err := o.publish(model); err != nil {
		b.Fatal(err)
	}
	web := httptest.NewServer(o.desk)
	defer web.Close()
	content := backfill(b.N, 0)
	app := client{t: b, url: web.URL}
	before := cpuTime(b)
	b.ResetTimer()
	batch := app.await(app.begin(content, "/v1/chat/completions"))
	b.StopTimer()
	counts := batch["request_counts"].(map[string]any)
	if counts["completed"] != float64(b.N) || batch["occam"].(map[string]any)["specialist"] != float64(b.N) {
		b.Fatalf("%v", batch)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tickets/s")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/ticket")
	b.ReportMetric(0, "ns/op")
}

// trained is a specialist of the bundled tickets.
func trained(t testing.TB) *specialist.Model {
	t.Helper()
	examples := sample.Tickets(1, 3000)
	fields, err := task.InferFields(examples)
	if err != nil {
		t.Fatal(err)
	}
	model, err := specialist.Train(context.Background(), fields, examples, specialist.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// publish lets a model answer every ticket.
func (o *office) publish(model *specialist.Model) error {
	triage := &task.Task{Name: "triage", Fields: model.Fields(), Generalist: "gpt-4o"}
	return o.desk.Publish(&gateway.Snapshot{Book: cost.Default(), Fallback: o.up, Tasks: []gateway.Task{{Task: triage, Tiers: []gateway.Tier{{Specialist: model,
		Tier: cascade.Tier{Name: "linear", Mode: cascade.Live, Identity: calibration.Identity{Task: "triage", Specialist: "abcdef0123", Score: "s"},
			Certificate: &calibration.Certificate{Task: "triage", Specialist: "abcdef0123", Score: "s", Threshold: -1e9, Floor: -1e9, Accepted: 1000, N: 1000, Upper: .02, Risk: .03}}}}}}})
}

// backfill is a file of n tickets, of which every so many-th is for another model than the specialist; 0: none.
func backfill(n, other int) string {
	var content strings.Builder
	tickets := sample.Tickets(2, min(n, 5000))
	for i := range n {
		model := "triage"
		if other > 0 && i%other == 0 {
			model = "gpt-4o-mini"
		}
		line, _ := json.Marshal(map[string]any{"custom_id": fmt.Sprint("t-", i), "method": "POST", "url": "/v1/chat/completions",
			"body": map[string]any{"model": model, "max_tokens": 60, "messages": []map[string]string{{"role": "user", "content": tickets[i%len(tickets)].Text}}}})
		content.Write(append(line, '\n'))
	}
	return content.String()
}

// cpuTime is what the system charged this process: a busy machine does not change it much.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

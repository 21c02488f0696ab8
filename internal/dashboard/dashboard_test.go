package dashboard

import (
	"testing"
)

func TestOverviewSaysTheSaving(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 400, days: 14, task: "ticket-triage", local: 0.84, simulated: true})
	flush(t, s)
	server := serve(t, Options{Source: s, Tasks: fixedTasks(ticketTask())})
	status, _, body := get(t, server.URL+"/")
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	wantText(t, body, "Saved this month", "would have cost", "simulated", "ticket-triage", "Spend per day")
}

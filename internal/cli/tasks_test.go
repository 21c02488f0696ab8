package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"occam/internal/cascade"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

func read[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

type shownTask struct {
	Task    string
	State   string
	Lead    string
	Version int64
	History []struct{ To, Actor, Reason string }
}

// The lifecycle by hand: over the socket of a running server, and on the data itself when none runs.
func TestTasksAndModels(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	f := newFixture(t, nil, "capture: {prompts: true}\n")
	base, _, stop := serve(t, f.config)
	for range 2 {
		st := read[struct{ Tasks []shownTask }](t, mustRun(t, "", "tasks", "list", "--json", "--config", f.config)).Tasks[0]
		if st.Task != "triage" || st.State != "live" || st.Lead == "" {
			t.Fatalf("%+v", st)
		}
		model := read[map[string]any](t, mustRun(t, "", "models", "show", st.Lead[:8], "--json", "--config", f.config))
		if model["certificate_hash"] == "" || model["place"] != "lead" || model["origin"] != "configuration" {
			t.Errorf("%v", model)
		}
		if text := mustRun(t, "", "models", "show", st.Lead[:8], "--config", f.config); !strings.Contains(text, "promise") || !strings.Contains(text, "valid while") {
			t.Errorf("the certificate is not shown in full:\n%s", text)
		}
		if code, _, stderr := run(t, "", "models", "promote", "triage", "--config", f.config); code != 1 || !strings.Contains(stderr, "live already") {
			t.Errorf("promoting what is live: %d %s", code, stderr)
		}
		mustRun(t, "", "tasks", "pause", "triage", "--config", f.config)
		mustRun(t, "", "tasks", "pause", "--resume", "triage", "--config", f.config)
		for _, args := range [][]string{{"tasks", "show", "nothing"}, {"models", "show", "ffff"}, {"models", "rollback", "nothing"}} {
			if code, _, stderr := run(t, "", append(args, "--config", f.config)...); code != 1 || !strings.Contains(stderr, "there is no") {
				t.Errorf("%v: %d %s", args, code, stderr)
			}
		}
		if code, _, _ := run(t, "", "tasks", "show", "--config", f.config); code != exitUsage {
			t.Errorf("no argument: exit %d", code)
		}
		stop() // and once more without a server
	}
	if out := mustRun(t, "", "tasks", "discover", "--json", "--config", f.config); out != "{\"groups\":[]}\n" {
		t.Errorf("no groups: %s", out)
	}
	if out := mustRun(t, "", "tasks", "discover", "--config", f.config); !strings.Contains(out, "Nothing was found yet") {
		t.Errorf("discover without a server: %s", out)
	}
	if code, _, stderr := run(t, "", "tasks", "cancel-training", "triage", "--config", f.config); code != 1 || !strings.Contains(stderr, "no training run") {
		t.Errorf("nothing to cancel: %d %s", code, stderr)
	}
	mustRun(t, "", "models", "rollback", "triage", "--config", f.config)
	base, _, stop = serve(t, f.config)
	response, _ := post(t, base, "triage", f.tickets[0].Text)
	if got := response.Header.Get("X-Occam-Reason"); got != "suspended" {
		t.Errorf("after a rollback the reason is %q", got)
	}
	shown := read[shownTask](t, mustRun(t, "", "tasks", "show", "triage", "--json", "--config", f.config))
	if shown.State != "suspended" || len(shown.History) < 6 || !strings.Contains(shown.History[0].Reason, "by hand") {
		t.Errorf("%+v", shown)
	}
	feedback := func(body string) int {
		response, err := http.Post(base+"/v1/feedback", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	if status := feedback(`{"request_id":"nobody","labels":{"order_id":null}}`); status != 404 {
		t.Errorf("feedback on an unknown request: %d", status)
	}
	if out := mustRun(t, "", "tasks", "revoke-labels", "ann", "--json", "--config", f.config); !strings.Contains(out, `"labels":0`) {
		t.Errorf("revoked: %s", out)
	}
	stop()
}

// A task whose last run certified nothing says how many more labels it takes, with the arithmetic, and which plans there were.
func TestWhatATaskStillNeeds(t *testing.T) {
	choice := &cascade.Choice{Rest: "gpt-4o", Generalist: "gpt-4o", Candidates: []cascade.Candidate{{}, {Stages: []cascade.Stage{{Tier: "linear"}}, Problem: "not certified: about 188 more labels are needed"}}}
	choice.Decide()
	r := taskReport{Status: &lifecycle.Status{Task: "triage", Examples: store.ExampleCount{Uniform: 600}, Training: lifecycle.TrainingStatus{Progress: lifecycle.Progress{
		Looks: 1, Needed: 1840, Result: "nothing was certified", Arithmetic: "among the 81 most confident rows 0 were wrong", Choice: choice}}}}
	var out strings.Builder
	printTask(&out, &r)
	for _, want := range []string{"takes about 1840 labelled requests", "1240 more than there are", "among the 81 most confident rows", "linear → gpt-4o", "about 188 more labels"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

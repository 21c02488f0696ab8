package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"occam/internal/dashboard"
	"occam/internal/lifecycle"
	"occam/internal/sim"
	"occam/internal/store"
)

// TestAccountsAndSettings: the same commands work beside a running server and without one, and each leaves a line in the log.
func TestAccountsAndSettings(t *testing.T) {
	_, upstream := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {openai: {type: openai, base_url: "+upstream+", api_key: sk-canary}}\n")
	try := func(where string) {
		t.Helper()
		eva := "eva-" + where
		password := strings.TrimSpace(mustRun(t, "", "accounts", "add", "--config", s.config, eva, "--role", "viewer"))
		if len(password) < 15 {
			t.Errorf("%s: the password is %q", where, password)
		}
		if code, _, stderr := run(t, "", "accounts", "add", "--config", s.config, eva); code != exitFailed || !strings.Contains(stderr, "already") {
			t.Errorf("%s: a second account of the name: exit %d %s", where, code, stderr)
		}
		again := strings.TrimSpace(mustRun(t, "", "accounts", "reset-password", "--config", s.config, eva))
		if again == password || len(again) < 15 {
			t.Errorf("%s: the new password is %q", where, again)
		}
		if out := mustRun(t, "", "accounts", "list", "--config", s.config); !strings.Contains(out, eva) || !strings.Contains(out, "viewer") || strings.Contains(out, again) {
			t.Errorf("%s: %s", where, out)
		}
		mustRun(t, "", "accounts", "set-role", "--config", s.config, eva, "--role", "reviewer")
		mustRun(t, "", "accounts", "remove", "--config", s.config, eva)
		if code, _, stderr := run(t, "", "accounts", "remove", "--config", s.config, eva); code != exitFailed || !strings.Contains(stderr, "no account") {
			t.Errorf("%s: removing twice: exit %d %s", where, code, stderr)
		}
		out := mustRun(t, "", "settings", "--config", s.config)
		for _, want := range []string{"api_key: (hidden)", "removed an account", "gave an account a new password", eva, operator()} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the settings lack %q:\n%s", where, want, out)
			}
		}
		if strings.Contains(out, "sk-canary") || strings.Contains(out, again) {
			t.Errorf("%s: the settings hold a secret:\n%s", where, out)
		}
	}
	mustRun(t, "", "accounts", "add", "--config", s.config, "boss", "--role", "admin") // nobody else: the first one
	try("alone")
	_, _, stop := serve(t, s.config)
	try("beside")
	stop()
	if code, _, stderr := run(t, "", "accounts", "remove", "--config", s.config, "boss"); code != exitFailed || !strings.Contains(stderr, "last account") {
		t.Errorf("the last admin: exit %d %s", code, stderr)
	}
}

// TestRequestsOnTheCommandLine: a request that passed through is listed, and its story told, as the pages do.
func TestRequestsOnTheCommandLine(t *testing.T) {
	_, upstream := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {openai: {type: openai, base_url: "+upstream+"}}\n")
	base, _, stop := serve(t, s.config)
	defer stop()
	response, _ := ask(t, base, "gpt-4o", false)
	id := response.Header.Get("X-Occam-Request-Id")
	var list struct {
		Requests []struct{ ID, Model string }
	}
	for range 100 { // rows that cost nothing are written in batches
		decode(t, mustRun(t, "", "requests", "list", "--config", s.config, "--model", "gpt-4o", "--json"), &list)
		if len(list.Requests) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(list.Requests) == 0 || id != "" && list.Requests[0].ID != id {
		t.Fatalf("the list is %+v, the request was %q", list, id)
	}
	out := mustRun(t, "", "requests", "show", "--config", s.config, list.Requests[0].ID)
	if !strings.Contains(out, "gpt-4o at openai") || !strings.Contains(out, "price ") {
		t.Errorf("the story is %s", out)
	}
	if code, _, stderr := run(t, "", "requests", "show", "--config", s.config, "nosuch"); code != exitFailed || !strings.Contains(stderr, "no request") {
		t.Errorf("exit %d %s", code, stderr)
	}
	if code, _, stderr := run(t, "", "requests", "list", "--config", s.config, "--from", "yesterday"); code != exitFailed || !strings.Contains(stderr, "2026-11-30") {
		t.Errorf("exit %d %s", code, stderr)
	}
}

// TestReviewOnTheCommandLine: what a person says at the terminal becomes a label, and the next text follows.
func TestReviewOnTheCommandLine(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"+
		"tasks: {triage: {schema: {type: object, properties: {category: {type: string, enum: [refund, late]}, order_id: {type: [string, 'null']}}}, input: '{{ticket}}', generalist: gpt-4o}}\n")
	a := &app{stderr: t.Output(), getenv: func(string) string { return "" }, now: time.Now}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := a.reach(context.Background(), s.config)
	must(err)
	must(r.store.Update(context.Background(), func(tx *store.Tx) error {
		for _, id := range []string{"R1", "R2"} {
			if err := tx.Examples().Add(store.Example{ID: id, RequestID: id, Task: "triage", At: time.Now(), Text: "Where is order AB-1? " + id}); err != nil {
				return err
			}
			if err := tx.Reviews().Add(store.Review{ID: id, Task: "triage", RequestID: id, Example: id, At: time.Now(), Reason: "random slice", Suggestion: []byte(`{"category":"late","order_id":"AB-1"}`)}); err != nil {
				return err
			}
		}
		return nil
	}))
	r.close()
	out := mustRun(t, "", "review", "next", "--config", s.config)
	if !strings.Contains(out, "Where is order AB-1?") || !strings.Contains(out, `occam review answer R1 category='late' order_id='AB-1'`) {
		t.Errorf("next: %s", out)
	}
	if code, _, stderr := run(t, "", "review", "answer", "--config", s.config, "R1", "category=nonsense", "order_id=AB-1"); code != exitFailed || !strings.Contains(stderr, "does not fit") {
		t.Errorf("a wrong category: exit %d %s", code, stderr)
	}
	mustRun(t, "", "review", "answer", "--config", s.config, "R1", "category=refund", "order_id=")
	if out := mustRun(t, "", "review", "next", "--config", s.config); !strings.Contains(out, "R2") {
		t.Errorf("after R1: %s", out)
	}
	mustRun(t, "", "review", "skip", "--config", s.config, "R2")
	var left reviewReport
	must(json.Unmarshal([]byte(mustRun(t, "", "review", "next", "--config", s.config, "--json")), &left))
	if left.ID != "" || left.Queues[0].Waiting != 0 {
		t.Errorf("left is %+v", left)
	}
	if out := mustRun(t, "", "tasks", "check", "--config", s.config, "triage"); !strings.Contains(out, "2 examples") {
		t.Errorf("check: %s", out)
	}
}

// TestSuggestedAnswerIsOneCommand: the command that `occam review next` suggests runs as it stands, whatever a customer wrote.
func TestSuggestedAnswerIsOneCommand(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"+
		"tasks: {triage: {schema: {type: object, properties: {topics: {type: array, items: {type: string, enum: [refund, late, broken]}}, order_id: {type: [string, 'null']}}}, input: '{{ticket}}', generalist: gpt-4o}}\n")
	const hostile = "it's $(touch owned) `touch owned`"
	s.stored(func(opened *store.Store) error {
		return opened.Update(t.Context(), func(tx *store.Tx) error {
			if err := tx.Examples().Add(store.Example{ID: "R1", RequestID: "R1", Task: "triage", At: time.Now(), Text: hostile + "\x1b]0;title\a \u202edlog 🙂 für\nyou"}); err != nil {
				return err
			}
			suggestion, err := json.Marshal(map[string]any{"topics": []string{"refund", "late"}, "order_id": hostile})
			if err != nil {
				return err
			}
			return tx.Reviews().Add(store.Review{ID: "R1", Task: "triage", RequestID: "R1", Example: "R1", At: time.Now(), Reason: "random slice", Suggestion: suggestion})
		})
	})
	text, command, ok := strings.Cut(mustRun(t, "", "review", "next", "--config", s.config), "next: ")
	if !strings.Contains(text, hostile+`\x1b]0;title\a \u202edlog 🙂 für`+"\nyou\n") {
		t.Errorf("a terminal would obey %q", text)
	}
	if !ok {
		t.Fatal("no command is suggested")
	}
	dir := t.TempDir()
	shell := exec.Command("sh", "-c", `occam() { for word; do printf '%s\n' "$word"; done; }; `+command)
	shell.Dir = dir
	words, err := shell.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, command)
	}
	if _, err := os.Stat(filepath.Join(dir, "owned")); err == nil {
		t.Error("a customer's text is run as a command")
	}
	args := append(strings.Split(strings.TrimSpace(string(words)), "\n"), "--config", s.config)
	mustRun(t, "", args...)
	s.stored(func(opened *store.Store) error {
		return opened.View(t.Context(), func(tx *store.Tx) error {
			done, err := tx.Reviews().Get("R1")
			if id, topics := done.Output["order_id"], done.Output["topics"]; id.Text() != hostile || len(topics.Members()) != 2 {
				t.Errorf("what was said is kept as %+v", done.Output)
			}
			return err
		})
	})
}

// TestAFailedCheckFails: a data check that found nothing out ends with 1, also with --json.
func TestAFailedCheckFails(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n")
	s.stored(func(*store.Store) error { return nil })
	socket, err := net.Listen("unix", filepath.Join(filepath.Dir(s.config), "data", controlName))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: socket, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"task":"triage","result":{"failure":"the disk is gone","rows":0,"findings":null}}`)
	})}}
	server.Start()
	defer server.Close()
	for _, flags := range [][]string{nil, {"--json"}} {
		code, stdout, stderr := run(t, "", append([]string{"tasks", "check", "triage", "--config", s.config}, flags...)...)
		if code != exitFailed || !strings.Contains(stderr, "the disk is gone") || json.Valid([]byte(stdout)) != (flags != nil) {
			t.Errorf("%v: exit %d\n%s%s", flags, code, stdout, stderr)
		}
	}
}

// TestEveryRouteHasACommand: the command that a route names is there, with the flag that it names.
func TestEveryRouteHasACommand(t *testing.T) {
	a := &app{stderr: t.Output(), getenv: func(string) string { return "" }, now: time.Now}
	s, err := store.Open(context.Background(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server := &server{}
	site := dashboard.New(dashboard.Options{Source: s, Database: s, Login: true, Groups: server.groups, MakeTask: server.makeTask, CheckData: server.checkData,
		Command: server.command, Batches: server.batchViews, CancelBatch: server.cancelBatch, CancelTraining: server.cancelTraining, Abilities: server.abilities, Verifier: s.Verify})
	commands := 0
	for _, r := range site.Routes() {
		if r.CLI == "" {
			if strings.HasPrefix(r.Path, "/api/") {
				t.Errorf("%s %s has no command", r.Method, r.Path)
			}
			continue
		}
		words := strings.Fields(r.CLI)
		flag := ""
		if last := words[len(words)-1]; strings.HasPrefix(last, "--") {
			flag, words = strings.TrimPrefix(last, "--"), words[:len(words)-1]
		}
		cmd, rest, err := a.root().Find(words[1:])
		if err != nil || len(rest) > 0 || cmd.RunE == nil || flag != "" && cmd.Flags().Lookup(flag) == nil {
			t.Errorf("%s %s: there is no %q: %v, %q", r.Method, r.Path, r.CLI, err, rest)
		}
		commands++
	}
	if commands < 40 {
		t.Errorf("only %d routes were looked at", commands)
	}
}

// TestNoNetworkWithoutAnAccount (S12): an address that other machines reach is refused with exit 2 and the fix until there is an account;
// then nobody looks without it. On the loopback interface the first start makes one.
func TestNoNetworkWithoutAnAccount(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\nself_test: false\n")
	listen := func(address string) {
		text := "listen: \"" + address + "\"\ndata_dir: data\nproviders: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\nself_test: false\n"
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.7:0", "occam.example:0"} {
		listen(address)
		code, _, stderr := run(t, "", "serve", "--config", s.config, "--for", "1s")
		if code != exitUsage || !strings.Contains(stderr, "occam accounts add NAME --role admin") || strings.Contains(stderr, "password") {
			t.Errorf("%s: exit %d: %s", address, code, stderr)
		}
	}
	listen("127.0.0.1:0")
	if out := mustRun(t, "", "accounts", "list", "--config", s.config); strings.Contains(out, "admin") {
		t.Errorf("a refused start made an account: %s", out)
	}
	mustRun(t, "", "accounts", "add", "boss", "--role", "admin", "--config", s.config)
	listen("0.0.0.0:0")
	base, _, stop := serve(t, s.config)
	defer stop()
	port := base[strings.LastIndex(base, ":"):]
	for _, path := range []string{"/api/overview", "/api/keys", "/api/settings"} {
		response, err := http.Get("http://127.0.0.1" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without an account: status %d", path, response.StatusCode)
		}
	}
}

// TestTwoOperatorsAtOnce: of two who press promote at the same time one wins, and the other is told.
func TestTwoOperatorsAtOnce(t *testing.T) {
	s := newStand(t, "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"+
		"tasks: {triage: {schema: {type: object, properties: {category: {type: string, enum: [refund, late]}}}, input: '{{ticket}}', generalist: gpt-4o}}\n")
	base, password, stop := serveWithPassword(t, s.config)
	defer stop()
	press := func(command string, version int64) (int, string) {
		form := url.Values{"command": {command}, "confirm": {"triage"}, "version": {fmt.Sprint(version)}}
		r, err := http.NewRequest(http.MethodPost, base+"/api/tasks/triage/command", strings.NewReader(form.Encode()))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		r.SetBasicAuth("admin", password)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer response.Body.Close()
		var answer struct{ Error struct{ What string } }
		_ = json.NewDecoder(response.Body).Decode(&answer)
		return response.StatusCode, answer.Error.What
	}
	var before struct{ Tasks []lifecycle.Status }
	decode(t, mustRun(t, "", "tasks", "list", "--config", s.config, "--json"), &before)
	version := before.Tasks[0].Version
	type outcome struct {
		status int
		what   string
	}
	results := make(chan outcome, 2)
	for range 2 {
		go func() { status, what := press("pause", version); results <- outcome{status, what} }()
	}
	got := []outcome{<-results, <-results}
	slices.SortFunc(got, func(a, b outcome) int { return a.status - b.status })
	if got[0].status != 200 || got[1].status != http.StatusConflict || got[1].what == "" {
		t.Errorf("two at once: %+v", got)
	}
	if status, what := press("resume", version); status != http.StatusConflict || !strings.Contains(what, "quicker") {
		t.Errorf("for a state that is no more: %d %q", status, what)
	}
	if status, _ := press("resume", version+1); status != 200 {
		t.Errorf("for the state as it is: %d", status)
	}
}

var shownOnce = regexp.MustCompile(`password \(shown once\): (\S+)`)

// serveWithPassword starts a server on new data and returns the first account's password.
func serveWithPassword(t *testing.T, config string) (base, password string, stop func() int) {
	t.Helper()
	base, stderr, stop := serve(t, config)
	m := shownOnce.FindStringSubmatch(stderr.String())
	if m == nil {
		t.Fatalf("no password in %s", stderr)
	}
	return strings.TrimSuffix(base, "/v1"), m[1], stop
}

// TestStoryOfARealAnswer: for a request that a trained specialist looked at, with its text kept, the story says which words spoke for
// the answer, and its confidence against the threshold, on the command line and in the page.
func TestStoryOfARealAnswer(t *testing.T) {
	f := newFixtureOf(t, sim.Options{}, "audit: 1", "capture: {prompts: true, retention: 1d}\n")
	base, password, stop := serveWithPassword(t, f.config)
	defer stop()
	var told struct {
		Text  string
		Steps []struct {
			Tier          string
			Confidence    float64
			MinConfidence float64 `json:"min_confidence"`
			Because       []struct {
				Field, Value string
				Margin, Bias float64
				Words        []struct{ Weight float64 }
			}
		}
	}
	response, reply := post(t, base, "triage", f.tickets[0].Text)
	if response.StatusCode != 200 {
		t.Fatal(reply)
	}
	id := response.Header.Get("X-Occam-Request-Id")
	for range 300 { // what is kept is written behind the request
		code, out, _ := run(t, "", "requests", "show", "--config", f.config, id, "--json")
		if code == exitDone && json.Unmarshal([]byte(out), &told) == nil && told.Text != "" && len(told.Steps) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if told.Text != f.tickets[0].Text || len(told.Steps) == 0 || told.Steps[0].Tier != "linear" || told.Steps[0].MinConfidence <= 0 || told.Steps[0].Confidence <= 0 {
		t.Fatalf("the story is %+v", told)
	}
	for _, b := range told.Steps[0].Because {
		sum := b.Bias
		for _, w := range b.Words {
			sum += w.Weight
		}
		if b.Value == "" && len(b.Words) > 0 {
			t.Errorf("%+v has no value", b)
		}
		if len(b.Words) > 0 && len(b.Words) < 12 && (sum-b.Margin > 1e-3 || b.Margin-sum > 1e-3) {
			t.Errorf("%s: the words add up to %v, the margin is %v", b.Field, sum, b.Margin)
		}
	}
	if len(told.Steps[0].Because) == 0 {
		t.Error("nothing spoke for the answer")
	}
	page, err := http.NewRequest(http.MethodGet, base+"/requests/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	page.SetBasicAuth("admin", password)
	got, err := http.DefaultClient.Do(page)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != 200 || !strings.Contains(string(body), "What spoke for") || !strings.Contains(string(body), "answers from") {
		t.Errorf("the page: %d, %v", got.StatusCode, err)
	}
}

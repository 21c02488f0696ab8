package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

// post sends a form and returns the answer.
func post(t testing.TB, address string, form url.Values) (int, string) {
	t.Helper()
	reply, err := http.PostForm(address, form)
	must(t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	must(t, err)
	return reply.StatusCode, string(body)
}

// TestKeysAreMadeChangedAndRevoked: the secret is shown once, a change needs the version that was seen, revoking needs the name.
func TestKeysAreMadeChangedAndRevoked(t *testing.T) {
	s := openStore(t)
	told := 0
	o := everything(s)
	o.KeysChanged = func() error { told++; return nil }
	server := serve(t, o)
	status, page := post(t, server.URL+"/keys", url.Values{"name": {"billing"}, "budget": {"25.50"}, "period": {"day"}, "requests_per_minute": {"60"}, "tasks": {"a, b"}})
	var keys []store.Key
	must(t, s.View(t.Context(), func(tx *store.Tx) (err error) { keys, err = tx.Keys().List(); return err }))
	if status != 200 || len(keys) != 1 || told != 1 {
		t.Fatalf("status %d, %d keys, told %d times", status, len(keys), told)
	}
	k := keys[0]
	if k.Limits.Budget != cost.FromUSD(25.5) || k.Limits.Period != "day" || k.Limits.RequestsPerMinute != 60 || fmt.Sprint(k.Limits.Tasks) != "[a b]" || k.Role != "app" {
		t.Errorf("the key is %+v", k)
	}
	secret := k.Hint + strings.SplitN(page[strings.Index(page, "<code>"+k.Hint)+len("<code>"+k.Hint):], "<", 2)[0]
	if !k.Matches(secret) {
		t.Fatalf("the page shows %q, which is not the secret", secret)
	}
	for _, path := range []string{"/keys", "/keys/" + k.ID, "/api/keys", "/api/keys/" + k.ID, "/settings", "/api/settings"} {
		if _, _, body := get(t, server.URL+path); strings.Contains(body, secret) {
			t.Errorf("%s shows the secret again", path)
		}
	}
	var seen struct{ Version string }
	getJSON(t, server.URL+"/api/keys/"+k.ID, &seen)
	change := func(form url.Values) int {
		status, _ := post(t, server.URL+"/api/keys/"+k.ID, form)
		return status
	}
	if got := change(url.Values{"do": {"limits"}, "budget": {"1"}, "version": {"0"}}); got != http.StatusConflict {
		t.Errorf("a change of what nobody saw: %d", got)
	}
	if got := change(url.Values{"do": {"limits"}, "budget": {"1"}, "version": {seen.Version}}); got != 200 {
		t.Errorf("a change: %d", got)
	}
	if got := change(url.Values{"do": {"limits"}, "budget": {"2"}, "version": {seen.Version}}); got != http.StatusConflict {
		t.Errorf("the second of two operators: %d", got)
	}
	getJSON(t, server.URL+"/api/keys/"+k.ID, &seen)
	if got := change(url.Values{"do": {"revoke"}, "confirm": {"bill"}, "version": {seen.Version}}); got != http.StatusBadRequest {
		t.Errorf("a wrong name: %d", got)
	}
	if got := change(url.Values{"do": {"revoke"}, "confirm": {"billing"}, "version": {seen.Version}}); got != 200 || told != 3 {
		t.Errorf("revoking: %d, told %d times", got, told)
	}
	for _, form := range []url.Values{{"name": {""}}, {"name": {"x"}, "budget": {"-1"}}, {"name": {"x"}, "budget": {"NaN"}}, {"name": {"x"}, "period": {"year"}}, {"name": {"x"}, "tokens_per_minute": {"many"}}} {
		if status, _ := post(t, server.URL+"/api/keys", form); status != http.StatusBadRequest {
			t.Errorf("%v: status %d", form, status)
		}
	}
}

// TestMassAssignment (S08): no form of a lesser role changes what is not its own, whatever else it holds.
func TestMassAssignment(t *testing.T) {
	server, _, viewer, o := guarded(t)
	c := browser(t)
	logIn(t, c, server.URL, "eva", viewer)
	reply, err := c.PostForm(server.URL+"/settings/password", url.Values{"old": {viewer}, "new": {"correct horse battery"}, "role": {"admin"}, "name": {"admin"}, "version": {"0"}, "do": {"set"}})
	must(t, err)
	reply.Body.Close()
	all, err := listAccounts(t.Context(), o.Database)
	must(t, err)
	for _, a := range all {
		if want := map[string]Role{"admin": Admin, "eva": Viewer}[a.name]; a.role != want {
			t.Errorf("%s is %s now", a.name, a.role)
		}
	}
	if eva, _ := checkPassword(t.Context(), o.Database, "eva", "correct horse battery"); eva.role != Viewer {
		t.Error("the password was not changed")
	}
}

// TestEveryChangeIsLogged: who did what stands in the settings, newest first, and never a secret.
func TestEveryChangeIsLogged(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 3, days: 1, task: "ticket-triage"})
	o := everything(s)
	o.Login = true
	clock := fixedNow
	o.Now = func() time.Time { clock = clock.Add(time.Second); return clock }
	d, _ := start(t, o)
	by := func(path string, form url.Values) {
		t.Helper()
		w := request(t, d, path, form)
		if w.Code >= 400 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	by("/api/settings/accounts", url.Values{"name": {"boss"}, "role": {"admin"}, "do": {"create"}})
	by("/api/settings/accounts", url.Values{"name": {"boss"}, "do": {"reset"}})
	by("/api/keys", url.Values{"name": {"billing"}})
	by("/api/tasks/ticket-triage/command", url.Values{"command": {"pause"}, "confirm": {"ticket-triage"}, "version": {"0"}})
	by("/api/groups/s01c4", url.Values{"name": {"triage"}})
	by("/api/ledger/verify", nil)
	by("/api/batches/b1", nil)
	var actions []Action
	must(t, s.View(t.Context(), func(tx *store.Tx) (err error) { actions, err = listActions(tx, 100); return err }))
	want := []string{"stopped a batch b1", "checked the ledger", "made a task of discovered traffic triage", "gave a task a command ticket-triage", "made a key", "gave an account a new password boss", "made an account boss"}
	if len(actions) != len(want) {
		t.Fatalf("the log is %+v", actions)
	}
	for i, a := range actions {
		if !strings.HasPrefix(a.What+" "+a.Object, want[i]) || a.By != "maria" || a.At.IsZero() {
			t.Errorf("line %d is %+v, want %s by maria", i, a, want[i])
		}
	}
}

// request sends a form to the command line's door, as maria.
func request(t *testing.T, d *Dashboard, path string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set(OperatorHeader, "maria")
	w := httptest.NewRecorder()
	d.Trusted().ServeHTTP(w, r)
	return w
}

// TestTheLogIsBounded: the oldest lines give way.
func TestTheLogIsBounded(t *testing.T) {
	s := openStore(t)
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		for i := range maxActions + 5 {
			if err := logAction(tx, Action{At: fixedNow.Add(time.Duration(i) * time.Second), What: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.View(t.Context(), func(tx *store.Tx) error {
		all, err := listActions(tx, maxActions*2)
		if err == nil && (len(all) != maxActions || all[0].What != fmt.Sprint(maxActions+4) || all[maxActions-1].What != "5") {
			t.Errorf("%d lines from %s to %s", len(all), all[len(all)-1].What, all[0].What)
		}
		return err
	}))
}

// TestStorySaysWhatSpokeForTheAnswer: with the text kept, the words with their weights; without it, that it is not known.
func TestStorySaysWhatSpokeForTheAnswer(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 60, days: 3, task: "ticket-triage", local: 0.5})
	flush(t, s)
	o := everything(s)
	server := serve(t, o)
	id := escalated(t, s)
	_, _, body := get(t, server.URL+"/requests/"+id)
	wantText(t, body, "the request’s text was not kept")
	keepText(t, s, id)
	_, _, body = get(t, server.URL+"/requests/"+id)
	wantText(t, body, "<mark>parcel</mark>", "parcel_late", "rather than refund_status, by 2.35", "&#43;1.90", "−0.60", "98.4", "before any word: −0.35",
		"Training examples most like it (2)", "Order &lt;b&gt;ZZ-77&lt;/b&gt; was promised", "category: parcel_late, order_id: none", "0.83")
	var told struct {
		Text  string
		Steps []struct {
			Because []because
			Nearest []nearby
		}
	}
	getJSON(t, server.URL+"/api/requests/"+id, &told)
	b := told.Steps[0].Because
	if told.Text != keptText || len(b) != 2 || len(told.Steps[0].Nearest) != 2 || told.Steps[0].Nearest[0].ID != "7" {
		t.Fatalf("the story is %+v", told)
	}
	sum := b[0].Bias
	for _, w := range b[0].Words {
		sum += w.Weight
	}
	if abs(sum-b[0].Margin) > 1e-9 {
		t.Errorf("the words add up to %v, the margin is %v", sum, b[0].Margin)
	}
	o.Explain = func(context.Context, string, string, string) (*engine.Explanation, error) {
		return nil, lifecycle.ErrNoModel
	}
	_, _, body = get(t, serve(t, o).URL+"/requests/"+id)
	wantText(t, body, "the model that answered is no longer kept")
}

// TestStoryOfACascade: of a request that went through three tiers each attempt says who was asked, its confidence against its own
// threshold, what it cost at which prices, and what spoke for its answer or why that is not known.
func TestStoryOfACascade(t *testing.T) {
	s := openStore(t)
	at := fixedNow.Add(-time.Hour)
	for seq, a := range []store.Attempt{
		{Tier: "linear", Model: specialistModel, Confidence: 0.46, Reason: "below_threshold", State: store.Free},
		{Tier: "gpt-4o-mini", Model: "gpt-4o-mini", Provider: "openai", Confidence: 0.62, Reason: "below_threshold", Price: "2026-11-01", Cost: 105_000},
		{Tier: "local-3b", Model: "llama", Provider: "gpu", Reason: "out_of_scope", Price: "2026-10-01", Cost: 20_000},
		{Tier: "generalist", Model: "gpt-4o", Provider: "openai", Answered: true, Price: "2026-11-01", Cost: 1_750_000, Reference: 1_750_000},
	} {
		a.ID, a.RequestID, a.Seq, a.At, a.Task = fmt.Sprint("C-", seq), "C", seq, at.Add(time.Duration(seq)*time.Second), "ticket-triage"
		if a.State == store.Free {
			a.State = ""
			must(t, s.RecordFree(t.Context(), a))
			continue
		}
		costs := a.Cost
		a.Cost, a.CostHigh = 0, 3*costs
		must(t, s.Intend(t.Context(), a))
		a.State, a.Status, a.Cost, a.CostLow, a.CostHigh = store.Settled, 200, costs, costs, costs
		must(t, s.Finish(t.Context(), a))
	}
	keepText(t, s, "C")
	view := ticketTask()
	view.Tiers = append(view.Tiers, TierView{Name: "gpt-4o-mini", Model: "gpt-4o-mini-2026-07", Mode: "live", MinConfidence: 0.75, Certificate: &calibration.Certificate{Score: cascade.ScoreLogProb}},
		TierView{Name: "local-3b", Model: "llama", Mode: "live", Certificate: &calibration.Certificate{Score: cascade.ScoreConstant}})
	o := everything(s)
	o.Tasks = fixedTasks(view)
	explain := o.Explain
	o.Explain = func(ctx context.Context, task, model, text string) (*engine.Explanation, error) {
		why, err := explain(ctx, task, model, text)
		why.Nearest = nil
		return why, err
	}
	url := serve(t, o).URL
	_, _, body := get(t, url+"/requests/C")
	wantText(t, body, "Confidence 0.46, answers from 0.81 on", "Confidence 0.62, answers from 0.75 on", "It tells no confidence: its certificate covers every answer that fits the schema",
		"$0.00011", "$0.00002", "$0.00175", "2026-10-01", "2026-11-01", "<mark>parcel</mark>", "No training example like it is shown: the model’s file holds none",
		"What spoke for its answer is not known: it is served elsewhere", "The specialist gpt-4o-mini did not answer", "The generalist answered")
	var told story
	getJSON(t, url+"/api/requests/C", &told)
	if len(told.Steps) != 4 || len(told.Steps[0].Because) != 2 || told.Steps[1].Lack == "" || told.Steps[1].MinConfidence != 0.75 || !told.Steps[2].Unscored || told.Steps[3].Lack != "" {
		t.Errorf("the story is %+v", told.Steps)
	}
}

// TestATrainingRunIsEnded: the button is there while a run is queued or under way, for admins; the second try is told that there is none.
func TestATrainingRunIsEnded(t *testing.T) {
	s := openStore(t)
	o := everything(s)
	o.CancelTraining = func(ctx context.Context, name string) (job string, err error) {
		err = s.Update(ctx, func(tx *store.Tx) error {
			j, ok, err := lifecycle.TrainingJob(tx, name)
			if err == nil && !ok {
				err = errors.New("there is no training run under way")
			}
			if err != nil {
				return err
			}
			job = j.ID
			return tx.Jobs().Stop(j.ID)
		})
		return job, err
	}
	server := serve(t, o)
	const button = "End this training run"
	if _, _, body := get(t, server.URL+"/tasks/ticket-triage"); strings.Contains(body, button) {
		t.Error("there is a button, and no training run")
	}
	trains(t, s, "ticket-triage")
	_, _, body := get(t, server.URL+"/tasks/ticket-triage")
	wantText(t, body, button, "It waits for its turn.")
	o.Login = true
	d := New(o)
	viewer := httptest.NewRequest(http.MethodGet, "/tasks/ticket-triage", nil)
	w := httptest.NewRecorder()
	d.mux.ServeHTTP(w, viewer.WithContext(context.WithValue(viewer.Context(), whoKey{}, session{name: "eva", role: Viewer})))
	if page := w.Body.String(); w.Code != 200 || strings.Contains(page, button) || !strings.Contains(page, "It waits for its turn.") {
		t.Errorf("a viewer sees status %d and a button: %v", w.Code, strings.Contains(page, button))
	}
	if status, body := post(t, server.URL+"/api/tasks/ticket-triage/cancel-training", nil); status != 200 || !strings.Contains(body, `"job":"`) {
		t.Errorf("status %d: %s", status, body)
	}
	if status, body := post(t, server.URL+"/api/tasks/ticket-triage/cancel-training", nil); status != http.StatusConflict || !strings.Contains(body, "no training run") {
		t.Errorf("a second one: %d %s", status, body)
	}
	if status, _ := post(t, server.URL+"/api/tasks/nobody/cancel-training", nil); status != http.StatusNotFound {
		t.Errorf("of no task: %d", status)
	}
	if _, _, body := get(t, server.URL+"/tasks/ticket-triage"); strings.Contains(body, button) {
		t.Error("the button outlives the run")
	}
	_, _, body = get(t, server.URL+"/api/settings")
	wantText(t, body, "ended a training run")
}

// TestDataCheckRunsOnce: it runs behind the request, one at a time, and what it found stays on the page.
func TestDataCheckRunsOnce(t *testing.T) {
	hold := make(chan struct{})
	o := everything(openStore(t))
	o.CheckData = func(ctx context.Context, name string, progress func(string, int, int)) (*lifecycle.DataCheck, error) {
		progress("near texts", 1, 4)
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return someTrouble(ctx, name, progress)
	}
	server := serve(t, o)
	_, _, body := get(t, server.URL+"/tasks/ticket-triage/data")
	wantText(t, body, "occam tasks check ticket-triage")
	if status, _ := post(t, server.URL+"/api/tasks/ticket-triage/data", nil); status != http.StatusAccepted {
		t.Fatalf("status %d", status)
	}
	if status, body := post(t, server.URL+"/api/tasks/ticket-triage/data", nil); status != http.StatusConflict || !strings.Contains(body, "running already") {
		t.Errorf("a second one: %d %s", status, body)
	}
	var page dataPage
	for page.Running == nil || page.Running.Stage == "" {
		getJSON(t, server.URL+"/api/tasks/ticket-triage/data", &page)
	}
	close(hold)
	for page.Result == nil {
		page = dataPage{}
		getJSON(t, server.URL+"/api/tasks/ticket-triage/data", &page)
	}
	if r := page.Result; len(r.Findings) != 2 || r.Findings[0].Groups[0].Rows[1].Suggested != "refund_status" || !strings.Contains(r.Findings[0].Groups[0].Rows[1].Text, "refund??") {
		t.Errorf("the result is %+v", r)
	}
	_, _, body = get(t, server.URL+"/tasks/ticket-triage/data")
	wantText(t, body, "Near conflict in category", "where is my refund??", "early the same text has two labels", "Best accuracy to hope for")
	o.CheckData = func(context.Context, string, func(string, int, int)) (*lifecycle.DataCheck, error) {
		return nil, errors.New("disk is full")
	}
	server = serve(t, o)
	post(t, server.URL+"/api/tasks/ticket-triage/data", nil)
	for page = (dataPage{}); page.Result == nil; {
		getJSON(t, server.URL+"/api/tasks/ticket-triage/data", &page)
	}
	if page.Result.Failure != "disk is full" {
		t.Errorf("the failure is %q", page.Result.Failure)
	}
}

// TestWhatNeedsYou: a suspended task, an unpriced call and a spent budget stand on the overview with where to look.
func TestWhatNeedsYou(t *testing.T) {
	s := openStore(t)
	id := someKeys(t, s)
	a := traffic{}.attempt(1, 0, fixedNow)
	a.Model, a.Provider, a.CostHigh, a.KeyID = "gpt-4o", "openai", 30*cost.USD, id
	must(t, s.Intend(t.Context(), a))
	a.State, a.Status, a.Answered, a.Cost, a.CostLow, a.CostHigh = store.Settled, 200, true, 24*cost.USD, 24*cost.USD, 24*cost.USD
	must(t, s.Finish(t.Context(), a))
	u := traffic{}.attempt(2, 0, fixedNow)
	u.Model, u.Provider = "nobody-knows-it", "somewhere"
	must(t, s.Intend(t.Context(), u))
	u.State, u.Status, u.Answered = store.Unpriced, 200, true
	must(t, s.Finish(t.Context(), u))
	view := ticketTask()
	view.State, view.Warnings = "suspended", []Warning{{"the audits found too many wrong answers", true}, {"somebody paused it", false}}
	o := everything(s)
	o.Tasks = fixedTasks(view)
	_, _, body := get(t, serve(t, o).URL+"/")
	wantText(t, body, "ticket-triage: The audits found too many wrong answers.", "1 call has no known price", "occam prices import FILE", "The key support-app has spent $24.00 of its $25.00", "/keys/"+id)
}

// TestLedgerCheckOutlivesARestart: the last verdict is kept, and the heads of the chain are shown.
func TestLedgerCheckOutlivesARestart(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 5, days: 1})
	post(t, serve(t, everything(s)).URL+"/ledger/verify", nil)
	_, _, body := get(t, serve(t, everything(s)).URL+"/ledger")
	wantText(t, body, "Intact: 5 calls")
	heads, err := s.Heads(t.Context())
	must(t, err)
	if len(heads) != 1 || len(heads[0].Hash) != 64 || !strings.Contains(body, heads[0].Hash) {
		t.Errorf("heads %+v", heads)
	}
}

// TestPagesAreCompressed for those who take it, and plain for others.
func TestPagesAreCompressed(t *testing.T) {
	server := serve(t, everything(openStore(t)))
	for encoding, want := range map[string]string{"gzip": "gzip", "identity": ""} {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/breakeven", nil)
		must(t, err)
		r.Header.Set("Accept-Encoding", encoding)
		reply, err := http.DefaultClient.Do(r)
		must(t, err)
		reply.Body.Close()
		if got := reply.Header.Get("Content-Encoding"); got != want || reply.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: Content-Encoding %q, Vary %q", encoding, got, reply.Header.Get("Vary"))
		}
	}
}

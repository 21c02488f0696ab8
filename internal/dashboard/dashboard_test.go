package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/finops"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

func TestOverviewSaysTheSaving(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 400, days: 14, task: "ticket-triage", local: 0.84, simulated: true})
	seed(t, s, traffic{requests: 20, days: 14, from: 1000, simulated: true})
	flush(t, s)
	server := serve(t, Options{Source: s, Tasks: fixedTasks(ticketTask())})
	status, header, body := get(t, server.URL+"/")
	if status != 200 || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, headers %v", status, header)
	}
	wantText(t, body, "Saved this month", "The 400 requests of your tasks would have cost", "simulated", "ticket-triage", "Spend per day", "no money was spent")
	var o struct {
		Saved    float64 `json:"saved_usd"`
		Would    float64 `json:"would_have_cost_usd"`
		Did      float64 `json:"did_cost_usd"`
		Requests int64   `json:"requests"`
		Local    *share  `json:"answered_by_specialists"`
		Buckets  []bucket
		Tasks    []struct {
			Name  string
			Proof *proof `json:"certificate"`
		}
	}
	getJSON(t, server.URL+"/api/overview", &o)
	totals, err := s.Totals(t.Context(), store.TotalsQuery{Window: store.Month(2026, 11), Task: "ticket-triage"})
	must(t, err)
	if want := totals[0].Cost.USD(); abs(o.Did-want) > 1e-9 {
		t.Errorf("did cost %v, the ledger says %v", o.Did, want)
	}
	if abs(o.Would-o.Did-o.Saved) > 1e-9 || o.Saved <= 0 || o.Requests != 420 || o.Local == nil || o.Local.Of != 400 {
		t.Errorf("the overview does not add up: %+v", o)
	}
	if len(o.Buckets) != 30 || len(o.Tasks) != 1 || o.Tasks[0].Proof == nil || o.Tasks[0].Proof.Threshold != 2.31 {
		t.Errorf("%d days, tasks %+v", len(o.Buckets), o.Tasks)
	}
}

func abs(v float64) float64 { return max(v, -v) }

func getJSON(t testing.TB, url string, into any) {
	t.Helper()
	status, header, body := get(t, url)
	if status != 200 || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: status %d, %s: %s", url, status, header.Get("Content-Type"), body)
	}
	must(t, json.Unmarshal([]byte(body), into))
}

// TestPassThroughSavesNothing: what belongs to no task has no alternative, so its cost stands aside.
func TestPassThroughSavesNothing(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 30, days: 5})
	server := serve(t, Options{Source: s})
	var o struct {
		Saved float64 `json:"saved_usd"`
		Did   float64 `json:"passed_through_usd"`
	}
	getJSON(t, server.URL+"/api/overview", &o)
	if o.Saved != 0 || o.Did <= 0 {
		t.Errorf("saved %v, passed through %v", o.Saved, o.Did)
	}
}

func TestLossIsSaidPlainly(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 50, days: 5, task: "ticket-triage", local: 0.9, perLocal: 4_000_000})
	_, _, body := get(t, serve(t, Options{Source: s, Tasks: fixedTasks(ticketTask())}).URL+"/")
	wantText(t, body, "You are losing money", "more than without occam", "let the generalist answer it again")
	if strings.Contains(body, "Saved this month") {
		t.Error("a loss is called a saving")
	}
}

// TestUnpricedIsNeverZero: an attempt without a price is named, and its row shows no amount.
func TestUnpricedIsNeverZero(t *testing.T) {
	s := openStore(t)
	a := traffic{}.attempt(1, 0, fixedNow)
	a.Model, a.Provider, a.CostHigh = "nobody-knows-it", "somewhere", cost.USD
	must(t, s.Intend(t.Context(), a))
	a.State, a.Status, a.Answered, a.CostHigh = store.Unpriced, 200, true, 0
	must(t, s.Finish(t.Context(), a))
	a = traffic{task: "ticket-triage"}.attempt(2, 0, fixedNow)
	a.Model, a.Provider, a.Tier, a.CostHigh = "gpt-4o", "somewhere", "generalist", cost.USD
	must(t, s.Intend(t.Context(), a))
	a.State, a.Status, a.Answered, a.CostHigh, a.Reference = store.Unpriced, 200, true, 0, cost.USD // the fallback of a model that has a price
	must(t, s.Finish(t.Context(), a))
	server := serve(t, Options{Source: s})
	var list struct {
		Rows []row `json:"requests"`
	}
	getJSON(t, server.URL+"/api/requests", &list)
	for _, r := range list.Rows {
		if r.Saved != 0 || !r.Unpriced {
			t.Errorf("what has no price saved %v: %+v", r.Saved, r)
		}
	}
	var o overview
	getJSON(t, server.URL+"/api/overview", &o)
	if o.Saved != 0 || len(list.Rows) != 2 {
		t.Errorf("%v is said to be saved of %d requests without a price", o.Saved, len(list.Rows))
	}
	_, _, body := get(t, server.URL+"/")
	wantText(t, body, "2 attempts have no known price")
	_, _, body = get(t, server.URL+"/requests")
	wantText(t, body, "unpriced")
	_, _, body = get(t, server.URL+"/requests/R000001")
	wantText(t, body, "an unknown amount")
}

func TestEmptyLedgerSaysWhatToDo(t *testing.T) {
	server := serve(t, Options{Source: openStore(t)})
	_, _, body := get(t, server.URL+"/")
	wantText(t, body, "export OPENAI_BASE_URL="+server.URL+"/v1", "occam train")
	_, _, body = get(t, server.URL+"/requests")
	wantText(t, body, "export OPENAI_BASE_URL="+server.URL+"/v1")
}

// hostile is what an app may send as a name.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'&`

func TestHostileNamesStayText(t *testing.T) {
	s := openStore(t)
	a := store.Attempt{ID: "A" + hostile[:40], RequestID: "R" + hostile[:40], At: fixedNow, Task: hostile[:50], Tier: "t" + hostile[:40],
		Model: hostile, KeyID: hostile[:40], Provider: hostile[:40], Reason: hostile, Answered: true, Status: 200, Price: hostile[:40], CostHigh: 5}
	must(t, s.Intend(t.Context(), a))
	a.State, a.Cost, a.CostLow = store.Settled, 5, 5
	must(t, s.Finish(t.Context(), a))
	view := TaskView{Name: hostile[:50], Generalist: hostile, State: hostile, Note: hostile, Tiers: []TierView{{Name: hostile, Model: hostile, Mode: hostile, Shortfall: hostile}}}
	server := serve(t, Options{Source: s, Tasks: fixedTasks(view), Version: hostile})
	pages := []string{"/", "/requests", "/requests?task=" + escape(hostile), "/requests/" + escapePath(a.RequestID), "/tasks/" + escapePath(view.Name), "/" + escapePath(hostile),
		"/requests/" + escapePath(hostile), "/?month=" + escape(hostile), "/requests?cursor=" + escape(hostile), "/requests?from=" + escape(hostile)}
	for _, page := range pages {
		_, header, body := get(t, server.URL+page)
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img src=x") {
			t.Errorf("%s: the name became markup", page)
		}
		if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no policy", page)
		}
	}
	_, _, body := get(t, server.URL+"/requests/"+escapePath(a.RequestID))
	wantText(t, body, "&lt;script&gt;alert(1)")
}

func TestRequestsFilterAndPages(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 120, days: 3, task: "ticket-triage", local: 0.5})
	seed(t, s, traffic{requests: 10, days: 3, from: 500})
	flush(t, s)
	server := serve(t, Options{Source: s})
	seen := map[string]bool{}
	for cursor := ""; ; {
		var page struct {
			Rows []row  `json:"requests"`
			Next string `json:"next_cursor"`
		}
		getJSON(t, server.URL+"/api/requests?cursor="+cursor, &page)
		for _, r := range page.Rows {
			if seen[r.ID] {
				t.Fatalf("request %s stands on two pages", r.ID)
			}
			seen[r.ID] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 130 {
		t.Errorf("the pages hold %d requests, want 130", len(seen))
	}
	var page struct {
		Rows []row `json:"requests"`
	}
	getJSON(t, server.URL+"/api/requests?task=ticket-triage&tier=generalist", &page)
	for _, r := range page.Rows {
		if r.Task != "ticket-triage" {
			t.Errorf("the filter let %+v through", r)
		}
	}
	day := fixedNow.AddDate(0, 0, -1).Format(time.DateOnly)
	getJSON(t, server.URL+"/api/requests?from="+day+"&to="+day, &page)
	for _, r := range page.Rows {
		if r.At.Format(time.DateOnly) != day {
			t.Errorf("the requests of %s hold one of %s", day, r.At)
		}
	}
	if len(page.Rows) == 0 {
		t.Errorf("no request of %s", day)
	}
	for query, fix := range map[string]string{"from=yesterday": "2026-11-30", "state=lost": "settled", "cursor=!": "newest"} {
		status, _, body := get(t, server.URL+"/requests?"+query)
		if status != http.StatusBadRequest || !strings.Contains(body, fix) {
			t.Errorf("%s: status %d, want 400 and a fix that names %q", query, status, fix)
		}
	}
}

func TestStoryExplainsAnEscalation(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 60, days: 3, task: "ticket-triage", local: 0.5, simulated: true})
	flush(t, s)
	_, _, body := get(t, serve(t, Options{Source: s, Tasks: fixedTasks(ticketTask())}).URL+"/requests/"+escalated(t, s))
	wantText(t, body, "The specialist linear did not answer", "score is below the certified threshold", "answers from 0.81 on",
		"The generalist answered", "simulated", "2026-11-01", "500 in, 50 out")
}

// brokenSource fails like a database that went away.
type brokenSource struct{ Source }

var errBroken = errors.New("disk I/O error at /secret/path")

func (brokenSource) Totals(context.Context, store.TotalsQuery) ([]store.Total, error) {
	return nil, errBroken
}

func TestBrokenLedgerTellsNoSecrets(t *testing.T) {
	server := serve(t, Options{Source: brokenSource{openStore(t)}})
	for _, path := range []string{"/", "/api/overview"} {
		status, _, body := get(t, server.URL+path)
		if status != 500 || strings.Contains(body, "secret") || !strings.Contains(body, "log of occam") {
			t.Errorf("%s: status %d: %s", path, status, body)
		}
	}
}

func TestForeignHostsAndMachinesAreRefused(t *testing.T) {
	handler := New(Options{Source: openStore(t), Hosts: []string{"Occam.example"}})
	try := func(host, remote string) int {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = host, remote
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	for _, host := range []string{"localhost:8080", "127.0.0.1", "[::1]:8080", "occam.example", "OCCAM.EXAMPLE:8080"} {
		if got := try(host, "127.0.0.1:999"); got != 200 {
			t.Errorf("host %s: status %d", host, got)
		}
	}
	for _, host := range []string{"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "10.0.0.1", "evil.example:80@localhost"} {
		if got := try(host, "127.0.0.1:999"); got != http.StatusMisdirectedRequest {
			t.Errorf("host %q: status %d, want it refused", host, got)
		}
	}
	if got := try("localhost", "10.1.2.3:999"); got != http.StatusForbidden {
		t.Errorf("another machine without a login: status %d", got)
	}
}

func TestEventsTellOfANewRequest(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 3, days: 1})
	server := serve(t, Options{Source: s})
	reply, err := http.Get(server.URL + "/events")
	must(t, err)
	defer reply.Body.Close()
	events := make(chan string, 8)
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := reply.Body.Read(buffer)
			if err != nil {
				close(events)
				return
			}
			events <- string(buffer[:n])
		}
	}()
	first := wait(t, events)
	a := traffic{}.attempt(77, 0, fixedNow)
	a.Model = "m"
	must(t, s.RecordFree(t.Context(), a))
	if second := wait(t, events); second == first || !strings.HasPrefix(second, "event: change\n") {
		t.Errorf("after a new request came %q, before it %q", second, first)
	}
}

func wait(t *testing.T, events <-chan string) string {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event came")
		return ""
	}
}

// TestEveryPageRenders: a template that breaks on some data is found without a browser.
func TestEveryPageRenders(t *testing.T) {
	for name, address := range fixturePages(t) {
		status, _, body := get(t, address)
		if want := map[string]int{"not-found": 404}[name]; status != max(want, 200) || !strings.Contains(body, "</html>") {
			t.Errorf("%s: status %d: %.200s", name, status, body)
		}
	}
}

func TestBreakEven(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 300, days: 10, task: "ticket-triage", local: 0.84})
	flush(t, s)
	server := serve(t, Options{Source: s, Tasks: fixedTasks(ticketTask())})
	ask := func(query string) (p struct {
		Asked    question
		Analysis struct {
			Best    string
			Refused bool
			Plans   []struct {
				Name    string
				Monthly float64 `json:"monthly_usd"`
			}
		}
	}) {
		getJSON(t, server.URL+"/api/breakeven?"+query, &p)
		return p
	}
	p := ask("volume=1000000&input=500&output=50&model=gpt-4o")
	if p.Analysis.Plans[0].Name != "all gpt-4o" || abs(p.Analysis.Plans[0].Monthly-1750) > 1e-6 {
		t.Errorf("a million requests to gpt-4o: %+v", p.Analysis.Plans[0])
	}
	if again := ask("volume=1000000&input=500&output=50&model=gpt-4o"); again.Analysis.Best != p.Analysis.Best {
		t.Error("the same question has two answers")
	}
	if p = ask("task=ticket-triage"); !p.Asked.Measured || abs(p.Asked.Coverage-0.845) > 1e-9 || p.Asked.Input != 500 || p.Asked.Volume < 800 || p.Asked.Volume > 1000 {
		t.Errorf("of the task's traffic was taken %+v", p.Asked)
	}
	for _, query := range []string{"volume=-1", "scale=NaN", "input=many", "coverage=2", "model=" + escape(hostile), "task=unknown"} {
		if status, _, body := get(t, server.URL+"/breakeven?"+query); status != http.StatusBadRequest || strings.Contains(body, "<script>alert") {
			t.Errorf("%s: status %d", query, status)
		}
	}
}

// TestBreakEvenOfSeveralSellers shows the page also for a model that more than one seller has, as after an import of prices.
func TestBreakEvenOfSeveralSellers(t *testing.T) {
	more, _, err := cost.ParseLiteLLM(strings.NewReader(`{"azure/gpt-4o":{"litellm_provider":"azure","mode":"chat","input_cost_per_token":3e-6,"output_cost_per_token":1.2e-5}}`), fixedNow.AddDate(0, 0, -1))
	must(t, err)
	book := cost.Default().Merge(more)
	server := serve(t, Options{Source: openStore(t), Book: func() *cost.Book { return book }})
	var p breakEven
	for provider, want := range map[string]string{"": "azure", "openai": "openai"} {
		getJSON(t, server.URL+"/api/breakeven?provider="+provider, &p)
		if p.Asked.Provider != want || p.Asked.Model != "gpt-4o" || p.Analysis == nil {
			t.Errorf("asked %+v, want %s", p.Asked, want)
		}
	}
}

func TestCommandsAreTypedAndAllowed(t *testing.T) {
	var got []string
	refuse := error(nil)
	view := ticketTask()
	view.Version = 12
	server := serve(t, Options{Source: openStore(t), Tasks: fixedTasks(view), Command: func(_ context.Context, o Order) error {
		got = append(got, strings.TrimSpace(fmt.Sprint(o.Task, " ", o.Command, " ", o.By, " ", o.Version, " ", o.Model)))
		return refuse
	}})
	send := func(command, confirm string) int {
		reply, err := http.PostForm(server.URL+"/api/tasks/ticket-triage/command", map[string][]string{"command": {command}, "confirm": {confirm}, "version": {"12"}})
		must(t, err)
		reply.Body.Close()
		return reply.StatusCode
	}
	if status := send("rollback", "ticket-triage"); status != 200 || len(got) != 1 || got[0] != "ticket-triage rollback this machine 12" {
		t.Errorf("status %d, carried out %v", status, got)
	}
	if status := send("rollback", "ticket"); status != http.StatusBadRequest || len(got) != 1 {
		t.Errorf("a wrong name: status %d, carried out %v", status, got)
	}
	if status := send("promote", "ticket-triage"); status != http.StatusConflict || len(got) != 1 {
		t.Errorf("a command that is not offered: status %d, carried out %v", status, got)
	}
	refuse = errors.New("somebody was quicker")
	if status := send("pause", "ticket-triage"); status != http.StatusConflict || len(got) != 2 {
		t.Errorf("a refused command: status %d, carried out %v", status, got)
	}
	seen := map[string][]string{"command": {"rollback"}, "confirm": {"ticket-triage"}, "version": {"11"}}
	reply, err := http.PostForm(server.URL+"/tasks/ticket-triage/command", seen)
	must(t, err)
	reply.Body.Close()
	if reply.StatusCode != http.StatusConflict || len(got) != 3 || got[2] != "ticket-triage rollback this machine 11" {
		t.Errorf("a page that is out of date: status %d, carried out %v", reply.StatusCode, got)
	}
	refuse, seen = nil, map[string][]string{"command": {"promote"}, "confirm": {"ticket-triage"}, "version": {"12"}, "model": {"0aa1"}}
	reply, err = http.PostForm(server.URL+"/api/tasks/ticket-triage/command", seen)
	must(t, err)
	reply.Body.Close()
	if reply.StatusCode != 200 || got[len(got)-1] != "ticket-triage promote this machine 12 0aa1" {
		t.Errorf("another model: status %d, carried out %v", reply.StatusCode, got)
	}
	_, _, body := get(t, server.URL+"/tasks/ticket-triage")
	wantText(t, body, "Type the task’s name to confirm", "Roll back", `name="version" value="12"`)
}

func TestSpendAddsUp(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 300, days: 18, task: "ticket-triage", local: 0.84})
	seed(t, s, traffic{requests: 30, days: 18, from: 1000})
	flush(t, s)
	hosting := finops.Charge{Kind: finops.Hosting, What: "aws g5.xlarge", Start: fixedNow.AddDate(0, 0, -1), End: fixedNow, Amount: 24 * cost.USD, Hours: 24}
	server := serve(t, Options{Source: s, Charges: func(context.Context, []finops.Row, store.Window) ([]finops.Charge, error) {
		return []finops.Charge{hosting}, nil
	}})
	var p struct {
		Did     dollars `json:"did_cost_usd"`
		Through dollars `json:"passed_through_usd"`
		Spent   []part
		ByModel []slice `json:"by_model"`
		ByDay   []slice `json:"by_day"`

		Forecast finops.Quantiles `json:"month_forecast_nano_usd"`
	}
	getJSON(t, server.URL+"/api/spend", &p)
	if total(p.ByModel) != total(p.ByDay) || total(p.ByDay)+dollars(hosting.Amount) != p.Did+p.Through {
		t.Errorf("by model %v, by day %v, in all %v and %v", total(p.ByModel), total(p.ByDay), p.Did, p.Through)
	}
	if p.Forecast.P10 < cost.Amount(total(p.ByDay[1:])) {
		t.Errorf("the month is forecast to cost %v and has cost %v", p.Forecast.P10, total(p.ByDay))
	}
	_, _, body := get(t, server.URL+"/spend")
	wantText(t, body, "Hosting", "Shutdown calendar", "in 8 cases of 10", "gpt-4o")
}

func total(all []slice) (sum dollars) {
	for _, s := range all {
		sum += s.Cost
	}
	return sum
}
func TestLedgerIsCheckedAndCompared(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 40, days: 4})
	server := serve(t, Options{Source: s, Verifier: s.Verify})
	reply, err := http.Post(server.URL+"/api/ledger/verify", "", nil)
	must(t, err)
	var c verdict
	must(t, json.NewDecoder(reply.Body).Decode(&c))
	reply.Body.Close()
	if !c.OK || c.Attempts != 40 {
		t.Errorf("the check says %+v", c)
	}
	_, _, body := get(t, server.URL+"/ledger")
	wantText(t, body, "Intact: 40 calls")
	totals, err := s.Totals(t.Context(), store.TotalsQuery{})
	must(t, err)
	upload := func(amount, provider string) (int, string) {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		must(t, w.WriteField("provider", provider))
		must(t, w.WriteField("month", "2026-11"))
		f, err := w.CreateFormFile("invoice", "openai.csv")
		must(t, err)
		fmt.Fprintf(f, "date,line_item,amount\n2026-11-20,gpt-4o,%s\n", amount)
		w.Close()
		reply, err := http.Post(server.URL+"/ledger/invoice", w.FormDataContentType(), &form)
		must(t, err)
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		must(t, err)
		return reply.StatusCode, string(body)
	}
	if status, body := upload(strings.TrimPrefix(totals[0].Cost.String(), "$"), "openai"); status != 200 || !strings.Contains(body, "It agrees") {
		t.Errorf("the right invoice: %d %s", status, body)
	}
	if status, body := upload("12.50", "openai"); status != 200 || !strings.Contains(body, "It does not agree") {
		t.Errorf("a wrong invoice: %d", status)
	}
	for _, bad := range [][2]string{{"<script>alert(1)</script>", "openai"}, {"1.00", hostile}} {
		if status, body := upload(bad[0], bad[1]); status != http.StatusBadRequest || strings.Contains(body, "<script>alert") {
			t.Errorf("%v: status %d", bad, status)
		}
	}
}

// TestGroups: what traffic holds is listed, and one click makes it a task.
func TestGroups(t *testing.T) {
	var made []lifecycle.Making
	refuse := error(nil)
	server := serve(t, Options{Source: openStore(t), MakeTask: func(_ context.Context, m lifecycle.Making) error { made = append(made, m); return refuse },
		Groups: someGroups})
	var list struct{ Groups []lifecycle.Group }
	getJSON(t, server.URL+"/api/groups", &list)
	if len(list.Groups) != 3 || list.Groups[0].ID != "s01c4" || *list.Groups[0].Monthly != 87.6 || !list.Groups[0].Offered {
		t.Errorf("groups %+v", list.Groups)
	}
	_, _, body := get(t, server.URL+"/groups")
	wantText(t, body, "worth it", "$86.72 a month", "Make it a task", `value="category-01c4"`, "free text")
	send := func(form map[string][]string) (status int) {
		reply, err := http.PostForm(server.URL+"/api/groups/s01c4", form)
		must(t, err)
		reply.Body.Close()
		return reply.StatusCode
	}
	if status := send(map[string][]string{"name": {"triage"}, "audit": {"0.05"}, "auto": {"on"}}); status != 200 || len(made) != 1 ||
		made[0] != (lifecycle.Making{Group: "s01c4", Name: "triage", Audit: .05, Auto: true, By: "this machine"}) {
		t.Errorf("status %d, made %+v", status, made)
	}
	for _, audit := range []string{"often", "NaN", "2", "-1"} {
		if status := send(map[string][]string{"name": {"triage"}, "audit": {audit}}); status != http.StatusBadRequest || len(made) != 1 {
			t.Errorf("audit %s: status %d, made %+v", audit, status, made)
		}
	}
	if name := suggestName(lifecycle.Group{ID: "s01c4", Fields: []task.Field{{Name: "カテゴリ"}}}); name != "task-01c4" {
		t.Errorf("a name of a field in another script: %q", name)
	}
	refuse = errors.New("there is a task of this name")
	if status := send(map[string][]string{"name": {"triage"}}); status != http.StatusConflict {
		t.Errorf("refused: status %d", status)
	}
	if status, _, _ := get(t, serve(t, Options{Source: openStore(t)}).URL+"/api/groups"); status != http.StatusNotFound {
		t.Errorf("without the control loop: status %d", status)
	}
}

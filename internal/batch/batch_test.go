package batch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/gateway"
	"occam/internal/sim"
	"occam/internal/store"
)

// A backfill: the specialist answers what it may, two models of the provider the rest in several batches, at half price; what is
// wrong with a line is said of that line.
func TestBackfill(t *testing.T) {
	p, url := provide(t, sim.Options{})
	o, c := work(t, url, Limits{PartLines: 150})
	lines := strings.Split(strings.TrimSpace(tickets(900)), "\n")
	lines = append(lines,
		request("free-1", "gpt-4o-mini", "tell me a story", false),
		request("t-1", "gpt-4o", "refund again", true),                                            // line 902: the ID was used
		`{"custom_id":"broken"`,                                                                   // line 903
		request("unknown", "no-such-model", "hello", false),                                       // the provider knows no such model
		strings.Replace(request("url", "gpt-4o", "x", true), "chat/completions", "embeddings", 1), // line 905
		strings.Replace(request("stream", "gpt-4o", "refund", true), `"max_tokens":100`, `"stream":true`, 1),
		`{"custom_id":"huge","method":"POST","url":"/v1/chat/completions","body":{"model":"`+strings.Repeat("x", maxLine)+`"}}`, // line 907
		"")
	content := "\xef\xbb\xbf" + strings.Join(lines, "\r\n\r\n") + strings.TrimSpace(request("last", "gpt-4o", "refund the last", true))
	b := c.await(c.begin(content, "/v1/chat/completions"))
	good, bad := c.results(b)
	counts := b["request_counts"].(map[string]any)
	if b["status"] != Completed || counts["total"] != 908.0 || counts["completed"] != 902.0 || counts["failed"] != 6.0 {
		t.Errorf("%v: %d good, %d bad: %v", b, len(good), len(bad), bad)
	}
	for i := range 900 {
		one, ok := good[fmt.Sprintf("t-%d", i)]
		want := "triage@abcdef01"
		if i%3 == 0 {
			want = "gpt-4o"
		}
		if !ok || one.Response.Status != 200 || one.Response.Occam.Model != want || !strings.Contains(one.Response.Body.Choices[0].Message.Content, `"category":`) {
			t.Fatalf("t-%d: %+v", i, one)
		}
	}
	for name, code := range map[string]string{"line 1803": "duplicate_custom_id", "line 1805": "invalid_json_line", "url": "invalid_url", "line 1813": "line_too_long"} {
		if one, ok := bad[name]; !ok || one.Error == nil || one.Error.Code != code {
			t.Errorf("%s: %+v, want %s", name, bad[name].Error, code)
		}
	}
	for name, status := range map[string]int{"unknown": 404, "stream": 400} {
		if one := bad[name]; one.Response == nil || one.Response.Status != status || one.Response.Body.Error.Message == "" {
			t.Errorf("%s: %+v", name, one)
		}
	}
	o.checkBackfill(t, p)
	if info, err := os.Stat(o.service.path(b["output_file_id"].(string))); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the output file: %v %v", info, err)
	}
	if left, _ := os.ReadDir(o.service.opts.Dir); len(left) != 4 { // .home, input, output, errors
		t.Errorf("files are left over: %v", left)
	}
}

// checkBackfill checks the books of TestBackfill.
func (o *office) checkBackfill(t *testing.T, p *sim.Provider) {
	t.Helper()
	free, audits, halved := 0, 0, cost.Amount(0)
	for _, a := range o.reconcile(t, p) {
		switch {
		case a.State == store.Free && a.Answered:
			free++
			if a.Reference <= 0 {
				t.Errorf("%s was saved at %v", a.ID, a.Reference)
			}
		case a.Audit:
			audits++
		}
		halved += a.Cost
	}
	marks := map[string]bool{}
	for _, m := range p.BatchMarks() {
		if marks[m[metaPart]] || m[metaBatch] == "" {
			t.Errorf("the provider has a batch twice: %v", m)
		}
		marks[m[metaPart]] = true
	}
	if free != 601 || audits == 0 || len(marks) < 4 || halved == 0 {
		t.Errorf("%d free answers, %d audits, %d batches", free, audits, len(marks))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	answered := 0
	for _, one := range o.comparisons {
		if one.Answered {
			answered++
		}
	}
	if answered != audits || len(o.examples) != 300 {
		t.Errorf("%d of %d audits were compared, %d examples", answered, audits, len(o.examples))
	}
	for _, charge := range p.Bill() {
		if charge.Route != "/v1/batches" {
			t.Errorf("billed at %s", charge.Route)
		}
	}
}

// What the provider does not run costs nothing and is told; what it ran and lost is bounded.
func TestProviderTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		plan   sim.BatchPlan
		none   bool
		calls  bool
		status string
		good   int
		code   string // of the lines of the provider
		void   int
	}{
		"expires":       {plan: sim.BatchPlan{Expire: 7}, status: Expired, good: 47, code: "batch_expired", void: 13},
		"fails":         {plan: sim.BatchPlan{Fail: "invalid_request"}, status: Completed, good: 40, code: "batch_rejected", void: 20},
		"refused":       {plan: sim.BatchPlan{Refuse: 400}, status: Completed, good: 40, code: "batch_rejected", void: 20},
		"calls":         {plan: sim.BatchPlan{Refuse: 400}, calls: true, status: Completed, good: 60, void: 20},
		"no batch API":  {none: true, calls: true, status: Completed, good: 60, void: 20},
		"reply is lost": {plan: sim.BatchPlan{LoseReply: true}, status: Completed, good: 60},
	} {
		t.Run(name, func(t *testing.T) {
			p, url := provide(t, sim.Options{NoBatches: c.none, Batches: func(int) sim.BatchPlan { return c.plan }})
			o, app := work(t, url, Limits{Calls: c.calls})
			o.task.Audit = 0
			b := app.await(app.begin(tickets(60), "/v1/chat/completions"))
			good, bad := app.results(b)
			if b["status"] != c.status || len(good) != c.good || len(bad) != 60-c.good {
				t.Fatalf("%v: %d good, %d bad", b, len(good), len(bad))
			}
			for id, one := range bad {
				if one.Error == nil || one.Error.Code != c.code {
					t.Errorf("%s: %+v", id, one)
				}
			}
			void := 0
			for _, a := range o.reconcile(t, p) {
				if a.State == store.Void {
					void++
				}
			}
			if void != c.void {
				t.Errorf("%d attempts are void, want %d", void, c.void)
			}
			if n := len(p.BatchMarks()); n > 1 {
				t.Errorf("%d batches were made", n)
			}
		})
	}
}

// claudeTicket is like ticket, but what is not for the specialist is asked of a model at Anthropic.
func claudeTicket(i int) string {
	if i%3 == 0 {
		return request(fmt.Sprintf("t-%d", i), "claude-haiku-4-5", fmt.Sprintf("tell me story %d", i), false)
	}
	return ticket(i)
}

func lines(n int, line func(int) string) string {
	var all strings.Builder
	for i := range n {
		all.WriteString(line(i) + "\n")
	}
	return all.String()
}

// Lines for a model at Anthropic go to its own batch API, in its words and at half price; their answers come back in the app's words.
func TestLinesAtAnthropic(t *testing.T) {
	p, url := provide(t, sim.Options{})
	o, app := work(t, url, Limits{PartLines: 15})
	o.task.Audit = 0
	content := lines(120, claudeTicket) +
		strings.Replace(request("seed", "claude-haiku-4-5", "x", false), `"max_tokens"`, `"seed":7,"max_tokens"`, 1) + "\n" +
		strings.Replace(request("empty", "claude-haiku-4-5", "x", false), `{"role":"user","content":"x"}`, "", 1)
	b := app.await(app.begin(content, "/v1/chat/completions"))
	good, bad := app.results(b)
	if b["status"] != Completed || len(good) != 120 || len(bad) != 2 {
		t.Errorf("%v: %d good, %v", b, len(good), bad)
	}
	if one := good["t-3"].Response; one.Occam.Model != "claude-haiku-4-5" || one.Body.Usage.Prompt == 0 || one.Body.Choices[0].Message.Content == "" {
		t.Errorf("%+v", one)
	}
	// What its API has no word for is refused before anything is sent; what it refuses itself is told in the app's words.
	for id, message := range map[string]string{"seed": "seed", "empty": "empty array"} {
		if one := bad[id].Response; one == nil || one.Status != 400 || !strings.Contains(one.Body.Error.Message, message) {
			t.Errorf("%s: %+v", id, bad[id])
		}
	}
	o.reconcile(t, p)
	for _, charge := range p.Bill() {
		if charge.Route != "/v1/batches" {
			t.Errorf("billed at %s", charge.Route)
		}
	}
	if n, batches := len(p.Bill()), len(p.BatchMarks()); n != 40 || batches != 3 {
		t.Errorf("%d lines were billed, in %d batches", n, batches)
	}
	if left, _ := os.ReadDir(o.service.opts.Dir); len(left) != 4 { // .home, input, output, errors
		t.Errorf("files are left over: %v", left)
	}
}

// What Anthropic does not run costs nothing and is told; a batch whose making was not answered is found again.
func TestTroubleAtAnthropic(t *testing.T) {
	for name, c := range map[string]struct {
		plan   sim.BatchPlan
		none   bool
		calls  bool
		cancel bool
		status string
		good   int
		code   string // of the lines of the provider
		void   int
	}{
		"expires":       {plan: sim.BatchPlan{Expire: 7}, status: Expired, good: 47, code: "batch_expired", void: 13},
		"fails":         {plan: sim.BatchPlan{Fail: "yes"}, status: Completed, good: 40, void: 20},
		"refused":       {plan: sim.BatchPlan{Refuse: 400}, status: Completed, good: 40, code: "batch_rejected", void: 20},
		"calls":         {plan: sim.BatchPlan{Refuse: 400}, calls: true, status: Completed, good: 60, void: 20},
		"no batch API":  {none: true, calls: true, status: Completed, good: 60, void: 20},
		"reply is lost": {plan: sim.BatchPlan{LoseReply: true, Delay: 300 * time.Millisecond}, status: Completed, good: 60},
		"a result lost": {plan: sim.BatchPlan{Drop: 5}, status: Completed, good: 56, code: "missing_result"},
		"is cancelled":  {plan: sim.BatchPlan{Delay: 300 * time.Millisecond}, cancel: true, status: Cancelled, good: 40, code: "batch_cancelled", void: 20},
	} {
		t.Run(name, func(t *testing.T) {
			p, url := provide(t, sim.Options{NoBatches: c.none, Batches: func(int) sim.BatchPlan { return c.plan }})
			o, app := work(t, url, Limits{Calls: c.calls})
			o.task.Audit = 0
			id := app.begin(lines(60, claudeTicket), "/v1/chat/completions")
			for c.cancel && len(p.BatchMarks()) == 0 {
				time.Sleep(time.Millisecond)
			}
			if c.cancel {
				app.do("POST", "/v1/batches/"+id+"/cancel", "", nil)
			}
			b := app.await(id)
			good, bad := app.results(b)
			if b["status"] != c.status || len(good) != c.good || len(bad) != 60-c.good {
				t.Fatalf("%v: %d good, %d bad", b, len(good), len(bad))
			}
			for id, one := range bad {
				if c.code == "" && (one.Response == nil || one.Response.Status != 500) || c.code != "" && (one.Error == nil || one.Error.Code != c.code) {
					t.Errorf("%s: %+v", id, one)
				}
			}
			void, low, high := 0, cost.Amount(0), cost.Amount(0)
			for _, a := range o.attempts(t) {
				if a.State == store.Void {
					void++
				}
				low, high = low+a.CostLow, high+a.CostHigh
			}
			if void != c.void || p.Total() < low || p.Total() > high {
				t.Errorf("%d attempts are void, want %d; billed %v, the ledger says %v to %v", void, c.void, p.Total(), low, high)
			}
			if n := len(p.BatchMarks()); n > 1 {
				t.Errorf("%d batches were made", n)
			}
		})
	}
}

// A line that the provider ran without giving its result is estimated, and its bounds hold the bill.
func TestLostResults(t *testing.T) {
	p, url := provide(t, sim.Options{Batches: func(int) sim.BatchPlan { return sim.BatchPlan{Drop: 5} }})
	o, app := work(t, url, Limits{})
	o.task.Audit = 0
	good, bad := app.results(app.await(app.begin(tickets(60), "/v1/chat/completions")))
	if len(good) != 56 || len(bad) != 4 {
		t.Errorf("%d good, %d bad", len(good), len(bad))
	}
	var low, high cost.Amount
	r, _, err := o.store.Requests(context.Background(), store.Filter{Limit: 500}, "")
	if err != nil {
		t.Fatal(err)
	}
	estimated := 0
	for _, one := range r {
		for _, a := range one.Attempts {
			if low, high = low+a.CostLow, high+a.CostHigh; a.State == store.Estimated {
				estimated++
			}
		}
	}
	if estimated != 4 || p.Total() < low || p.Total() > high {
		t.Errorf("%d estimated; billed %v, the ledger says %v to %v", estimated, p.Total(), low, high)
	}
}

// A cancelled batch keeps what was answered, and the provider is told to stop.
func TestCancel(t *testing.T) {
	p, url := provide(t, sim.Options{Batches: func(int) sim.BatchPlan { return sim.BatchPlan{Delay: 300 * time.Millisecond} }})
	o, app := work(t, url, Limits{})
	id := app.begin(tickets(90), "/v1/chat/completions")
	for len(p.BatchMarks()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if status, text := app.do("POST", "/v1/batches/"+id+"/cancel", "", nil); status != 200 || decode(text)["status"] != Cancelling {
		t.Errorf("%d %s", status, text)
	}
	b := app.await(id)
	good, bad := app.results(b)
	if b["status"] != Cancelled || len(good) != 60 || len(bad) != 30 || bad["t-0"].Error.Code != "batch_cancelled" {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	o.reconcile(t, p)
	if status, text := app.do("POST", "/v1/batches/"+id+"/cancel", "", nil); status != 400 {
		t.Errorf("%d %s", status, text)
	}
}

// Of a batch that is cancelled while it is read, each line that was not read is told, as are those that were not sent.
func TestCancelWhileReading(t *testing.T) {
	const lines = 3000
	p, url := provide(t, sim.Options{})
	o, app := work(t, url, Limits{chunk: 20})
	id := app.begin(tickets(lines)+ticket(0), "/v1/chat/completions")
	if status, text := app.do("POST", "/v1/batches/"+id+"/cancel", "", nil); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	b := app.await(id)
	good, bad := app.results(b)
	counts := b["request_counts"].(map[string]any)
	if b["status"] != Cancelled || len(good)+len(bad) != lines+1 || counts["total"] != lines+1.0 || counts["failed"] != float64(len(bad)) {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	t.Logf("%d answered, %d cancelled", len(good), len(bad))
	if one := bad[fmt.Sprintf("t-%d", lines-1)]; one.Error == nil || one.Error.Line != lines {
		t.Errorf("the last line: %+v", one)
	}
	for name, one := range bad {
		if want := fmt.Sprintf("line %d", lines+1); one.Error == nil || (one.Error.Code != "batch_cancelled") != (name == want) {
			t.Errorf("%s: %+v", name, one.Error)
		}
	}
	if n := len(p.Bill()); n != 0 {
		t.Errorf("%d lines were put to the provider", n)
	}
	o.reconcile(t, p)
}

// What a key's budget has no room for goes to its cheaper model, in a batch of its own, and what does not fit there either is refused.
func TestDegrade(t *testing.T) {
	for name, c := range map[string]struct {
		budget cost.Amount
		poor   bool
	}{"room for most": {30_480_000, false}, "not even for the cheaper model": {600_000, true}} {
		t.Run(name, func(t *testing.T) {
			p, url := provide(t, sim.Options{})
			key := store.Key{ID: "key", Role: "app", Hash: store.HashSecret("sk-occam-a"),
				Limits: store.KeyLimits{Models: []string{"gpt-4o"}, Budget: c.budget, Period: "month", Degrade: "gpt-4o-mini"}}
			o, app := work(t, url, Limits{}, key)
			o.task.Audit = 0
			app.key = "sk-occam-a"
			b := app.await(app.begin(request("free", "gpt-4o", "hi", false)+"\n"+tickets(90), "/v1/chat/completions"))
			good, bad := app.results(b)
			by := map[string]int{}
			for _, one := range good {
				if by[one.Response.Occam.Model]++; one.Response.Occam.Model == "gpt-4o-mini" && one.Response.Occam.Reason != "budget" {
					t.Errorf("%+v", one.Response.Occam)
				}
			}
			t.Logf("answered by %v, %d refused", by, len(bad))
			if by["triage@abcdef01"] != 60 || by["gpt-4o-mini"] == 0 || len(good)+len(bad) != 91 || (len(bad) > 0) != c.poor {
				t.Errorf("answered by %v, %d refused", by, len(bad))
			}
			for id, one := range bad {
				if one.Response == nil || one.Response.Body.Error.Code != "insufficient_quota" {
					t.Errorf("%s: %+v", id, one)
				}
			}
			o.reconcile(t, p)
			if spent := p.Total(); spent > c.budget {
				t.Errorf("the key spent %v", spent)
			}
			if left, _ := os.ReadDir(o.service.opts.Dir); len(left) > 4 {
				t.Errorf("files are left over: %v", left)
			}
		})
	}
}

// Embeddings are asked at the provider's batch price like everything else; a sentence that is no request fails by itself.
func TestEmbeddings(t *testing.T) {
	p, url := provide(t, sim.Options{})
	o, app := work(t, url, Limits{PartLines: 20})
	line := func(id, body string) string {
		return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/embeddings","body":%s}`+"\n", id, body)
	}
	var text strings.Builder
	for i := range 50 {
		text.WriteString(line(fmt.Sprint("e-", i), fmt.Sprintf(`{"model":"text-embedding-3-small","dimensions":8,"input":["ticket %d","again %d"]}`, i, i)))
	}
	text.WriteString(line("bad", `{"model":"text-embedding-3-small"}`))
	b := app.await(app.begin(text.String(), "/v1/embeddings"))
	status, content := app.do("GET", "/v1/files/"+fmt.Sprint(b["output_file_id"])+"/content", "", nil)
	seen := map[string]bool{}
	for _, text := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		var one struct {
			CustomID string `json:"custom_id"`
			Response struct {
				Body struct {
					Data []struct{ Embedding []float64 }
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &one); err != nil || len(one.Response.Body.Data) != 2 || len(one.Response.Body.Data[1].Embedding) != 8 {
			t.Fatalf("%d %.200s: %v", status, text, err)
		}
		seen[one.CustomID] = true
	}
	if _, bad := app.results(b); b["status"] != Completed || len(seen) != 50 || len(bad) != 1 || bad["bad"].Response.Status != 400 {
		t.Errorf("%v: %d answered, %v", b, len(seen), bad)
	}
	paid := 0
	for _, a := range o.reconcile(t, p) {
		if a.Cost > 0 {
			paid++
		}
	}
	if paid != 50 || len(p.BatchMarks()) != 3 {
		t.Errorf("%d lines were paid, in %d batches", paid, len(p.BatchMarks()))
	}
}

// What a key may not pay is not sent; what it may not use is refused; what is another key's is not there.
func TestKeys(t *testing.T) {
	p, url := provide(t, sim.Options{})
	secrets := []string{"sk-occam-a", "sk-occam-b"}
	keys := make([]store.Key, 2)
	for i := range keys {
		keys[i] = store.Key{ID: fmt.Sprint("key", i), Role: "app", Hash: store.HashSecret(secrets[i])}
	}
	keys[0].Limits = store.KeyLimits{Models: []string{"gpt-4o"}, Budget: 9_000_000, Period: "month"} // for some of 30 × 0.0006 $
	o, app := work(t, url, Limits{}, keys...)
	o.task.Audit = 0
	app.key = secrets[0]
	b := app.await(app.begin(tickets(90)+request("other", "gpt-4o-mini", "hi", false), "/v1/chat/completions"))
	good, bad := app.results(b)
	poor := 0
	for _, one := range bad {
		if one.Response != nil && one.Response.Status == 429 && one.Response.Body.Error.Code == "insufficient_quota" {
			poor++
		}
	}
	if bad["other"].Response.Status != 403 || poor == 0 || poor == 30 || len(good)+poor != 90 {
		t.Errorf("%d good, %d over budget: %v", len(good), poor, bad["other"])
	}
	o.reconcile(t, p)
	if spent := p.Total(); spent > 9_000_000 {
		t.Errorf("the key spent %v", spent)
	}
	other := client{t: t, url: app.url, key: secrets[1]}
	for _, path := range []string{"/v1/files/" + b["input_file_id"].(string), "/v1/files/" + b["output_file_id"].(string) + "/content", "/v1/batches/" + b["id"].(string)} {
		if status, _ := other.do("GET", path, "", nil); status != 404 {
			t.Errorf("another key reads %s: %d", path, status)
		}
		if status, _ := app.do("GET", path, "", nil); status != 200 {
			t.Errorf("its own key does not read %s: %d", path, status)
		}
	}
	if status, _ := other.do("DELETE", "/v1/files/"+b["input_file_id"].(string), "", nil); status != 404 {
		t.Errorf("another key deletes a file: %d", status)
	}
	for _, list := range []string{"/v1/files", "/v1/batches"} {
		_, mine := app.do("GET", list, "", nil)
		_, theirs := other.do("GET", list, "", nil)
		if len(decode(mine)["data"].([]any)) == 0 || len(decode(theirs)["data"].([]any)) != 0 {
			t.Errorf("%s: %s; to another key: %s", list, mine, theirs)
		}
	}
	if status, _ := (client{t: t, url: app.url}).do("GET", "/v1/files", "", nil); status != 401 {
		t.Errorf("without a key: %d", status)
	}
}

// What cannot be a batch is refused, each with its reason.
func TestBadRequests(t *testing.T) {
	_, url := provide(t, sim.Options{})
	o, app := work(t, url, Limits{FileBytes: 4000, StoredBytes: 9000, Lines: 3})
	if status, text := app.upload(strings.Repeat("x", 5000)); status != 413 {
		t.Errorf("a large file: %d %v", status, text)
	}
	_, file := app.upload(ticket(1))
	id := file["id"].(string)
	for body, want := range map[string]int{
		`{`: 400,
		`{"input_file_id":"file-none","endpoint":"/v1/chat/completions","completion_window":"24h"}`:                                                      404,
		`{"input_file_id":"` + id + `","endpoint":"/v1/completions","completion_window":"24h"}`:                                                          400,
		`{"input_file_id":"` + id + `","endpoint":"/v1/chat/completions","completion_window":"1h"}`:                                                      400,
		`{"input_file_id":"` + id + `","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{"k":"` + strings.Repeat("v", 600) + `"}}`: 400,
	} {
		if status, text := app.do("POST", "/v1/batches", "application/json", strings.NewReader(body)); status != want {
			t.Errorf("%.90s: %d %s", body, status, text)
		}
	}
	for _, c := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"POST", "/v1/files", "application/json", "{}", 400},
		{"POST", "/v1/files", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b--", 400},
		{"POST", "/v1/files", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nabc", 400},
		{"POST", "/v1/files", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../x\"\r\n\r\nabc\r\n--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--b--", 400},
		{"GET", "/v1/files?limit=0", "", "", 400},
		{"GET", "/v1/files?after=x", "", "", 400},
		{"GET", "/v1/files/..%2f..%2foccam.db/content", "", "", 404},
		{"PUT", "/v1/files", "", "", 404},
		{"GET", "/v1/batches/batch_none", "", "", 404},
	} {
		if status, text := app.do(c.method, c.path, c.kind, strings.NewReader(c.body)); status != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, status, text, c.want)
		}
	}
	for content, code := range map[string]string{"\n\r\n": "empty_file", tickets(4): "too_many_lines"} {
		b := app.await(app.begin(content, "/v1/chat/completions"))
		if b["status"] != Failed || b["errors"].(map[string]any)["data"].([]any)[0].(map[string]any)["code"] != code {
			t.Errorf("%s: %v", code, b)
		}
	}
	full := false
	for range 4 {
		status, said := app.upload(strings.Repeat("y", 3000))
		full = full || status == 413 && said["error"].(map[string]any)["code"] == "storage_full"
	}
	if !full {
		t.Error("more is stored than stored_bytes allows")
	}
	if status, _ := app.do("DELETE", "/v1/files/"+id, "", nil); status != 200 {
		t.Errorf("delete: %d", status)
	}
	if status, _ := app.do("GET", "/v1/files/"+id, "", nil); status != 404 {
		t.Errorf("a deleted file: %d", status)
	}
	o.checkUsed(t)
}

// checkUsed compares the count of stored bytes with the folder.
func (o *office) checkUsed(t *testing.T) {
	t.Helper()
	sum := int64(0)
	entries, _ := os.ReadDir(o.service.opts.Dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	if used := o.service.used.Load(); used != sum-int64(len(o.service.home)) && used != sum {
		t.Errorf("%d bytes are counted, %d are there", used, sum)
	}
}

// Files go when their time has come, with what is known of old batches.
func TestExpiry(t *testing.T) {
	_, url := provide(t, sim.Options{})
	o, app := work(t, url, Limits{})
	b := app.await(app.begin(tickets(3), "/v1/chat/completions"))
	o.service.opts.Now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	if status, _ := app.do("GET", "/v1/files/"+b["input_file_id"].(string), "", nil); status != http.StatusNotFound {
		t.Errorf("an expired file: %d", status)
	}
	if err := o.service.sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(o.service.opts.Dir); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	if status, _ := app.do("GET", "/v1/batches/"+b["id"].(string), "", nil); status != http.StatusNotFound {
		t.Errorf("an old batch: %d", status)
	}
}

// A request that is forgotten is in no file of its batch any more, every other line stays as it was, and the ledger keeps its row. A
// batch that runs keeps its lines.
func TestForget(t *testing.T) {
	slow := make(chan struct{})
	p, url := provide(t, sim.Options{Batches: func(n int) sim.BatchPlan {
		if n == 1 {
			<-slow
		}
		return sim.BatchPlan{}
	}})
	o, app := work(t, url, Limits{})
	content := "\xef\xbb\xbf" + lines(6, func(i int) string { return strings.Replace(ticket(i), "please", fmt.Sprintf("secret-%d", i), 1) }) +
		`{"custom_id":"bad","method":"GET","url":"/v1/chat/completions","body":{"model":"secret-7"}}`
	b := app.await(app.begin(content, "/v1/chat/completions"))
	before := o.reconcile(t, p)
	var forgotten []string // t-1, by a specialist; t-3, by the provider; the broken one
	status, output := app.do("GET", "/v1/files/"+b["output_file_id"].(string)+"/content", "", nil)
	_, failed := app.do("GET", "/v1/files/"+b["error_file_id"].(string)+"/content", "", nil)
	for _, text := range strings.Split(string(output)+string(failed), "\n") {
		line := decode([]byte(text))
		if name := line["custom_id"]; name == "t-1" || name == "t-3" || name == "bad" {
			forgotten = append(forgotten, strings.TrimPrefix(line["id"].(string), resultPrefix))
		}
	}
	if status != 200 || len(forgotten) != 3 {
		t.Fatalf("%d %v", status, forgotten)
	}
	n, err := Forget(context.Background(), o.store, o.service.opts.Dir, append(forgotten, store.NewID(time.Now()), "no ID"))
	if err != nil || n != 6 {
		t.Errorf("%d lines are forgotten: %v", n, err)
	}
	_, input := app.do("GET", "/v1/files/"+b["input_file_id"].(string)+"/content", "", nil)
	_, after := app.do("GET", "/v1/files/"+b["output_file_id"].(string)+"/content", "", nil)
	_, afterwards := app.do("GET", "/v1/files/"+b["error_file_id"].(string)+"/content", "", nil)
	kept := string(input) + string(after) + string(afterwards)
	for _, gone := range []string{"secret-1", "parcel 3", "secret-7", `"t-1"`, `"t-3"`, `"bad"`} {
		if strings.Contains(kept, gone) {
			t.Errorf("%s is still there:\n%s", gone, kept)
		}
	}
	if len(input) != len(content) || len(after) != len(output) || strings.Count(kept, `"forgotten"`) != 3 {
		t.Errorf("the files changed their shape:\n%s", kept)
	}
	was, is := strings.Split(content, "\n"), strings.Split(string(input), "\n")
	if is[0] != was[0] || is[2] != was[2] || is[5] != was[5] {
		t.Errorf("other lines changed:\n%s", input)
	}
	if rows := o.reconcile(t, p); len(rows) != len(before) {
		t.Errorf("the ledger has %d attempts, it had %d", len(rows), len(before))
	}
	id := app.begin(tickets(6), "/v1/chat/completions")
	for app.get(id)["occam"].(map[string]any)["read"] != 6.0 {
		time.Sleep(time.Millisecond)
	}
	running, err := Get(context.Background(), o.store, id)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Forget(context.Background(), o.store, o.service.opts.Dir, []string{store.NewIDOf(running.Created, [10]byte{1})}); err == nil || n != 0 {
		t.Errorf("lines of a batch that runs: %d are forgotten", n)
	}
	close(slow)
	app.await(id)
}

// front stands before a provider: meet sees each request to it, and may answer it itself.
func front(t *testing.T, provider string, meet func(http.ResponseWriter, *http.Request) (answered bool)) (url string) {
	t.Helper()
	there, err := neturl.Parse(provider)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(there)
	pass.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !meet(w, r) {
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// A provider that was asked for a batch may have made it, whatever it says to the question which batches there are: nothing is taken
// for void, and nothing is asked anew, before that is known.
func TestALostBatchIsNotGivenUp(t *testing.T) {
	p, url := provide(t, sim.Options{Batches: func(int) sim.BatchPlan { return sim.BatchPlan{LoseReply: true} }})
	var made, refused atomic.Bool
	url = front(t, url, func(w http.ResponseWriter, r *http.Request) (answered bool) {
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/batches":
			made.Store(true)
		case "GET /v1/batches":
			if made.Load() && !refused.Swap(true) {
				w.WriteHeader(http.StatusUnauthorized) // a key that is being replaced
				return true
			}
		}
		return false
	})
	o, app := work(t, url, Limits{Calls: true})
	o.task.Audit = 0
	b := app.await(app.begin(tickets(60), "/v1/chat/completions"))
	if good, bad := app.results(b); len(good) != 60 || !refused.Load() {
		t.Errorf("%d good, %v", len(good), bad)
	}
	for _, a := range o.reconcile(t, p) {
		if a.State == store.Void {
			t.Errorf("the provider ran %s, the ledger says it was never sent", a.ID)
		}
	}
	if n := len(p.Bill()); n != 20 {
		t.Errorf("%d lines were billed", n)
	}
}

// Of a batch whose key is revoked nothing more is sent: neither a part that was not sent yet, nor one of the lines that are asked one by one.
func TestNothingIsSentForARevokedKey(t *testing.T) {
	for name, c := range map[string]struct {
		options sim.Options
		limits  Limits
		at      string // the request to the provider during which the key is revoked
		billed  int
	}{
		"parts": {limits: Limits{PartLines: 4}, at: "POST /v1/files", billed: 4},
		"calls": {sim.Options{NoBatches: true}, Limits{Calls: true, CallsAtOnce: 1}, "POST /v1/chat/completions", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, url := provide(t, c.options)
			revoke := func() {}
			url = front(t, url, func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method+" "+r.URL.Path == c.at {
					revoke()
				}
				return false
			})
			o, app := work(t, url, c.limits, store.Key{ID: "key", Role: "app", Hash: store.HashSecret("sk-occam-a"), Limits: store.KeyLimits{Budget: cost.USD, Period: "month"}})
			revoke = func() {
				if err := o.desk.Publish(&gateway.Snapshot{Book: cost.Default(), Fallback: o.up, Keys: gateway.NewKeyring([]store.Key{{ID: "other", Role: "app"}})}); err != nil {
					t.Error(err)
				}
			}
			app.key = "sk-occam-a"
			id := app.begin(lines(10, func(i int) string { return request(fmt.Sprint("l-", i), "gpt-4o", "hello", false) }), "/v1/chat/completions")
			b, err := Get(context.Background(), o.store, id)
			for deadline := time.Now().Add(patience); err == nil && !b.over() && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				b, err = Get(context.Background(), o.store, id)
			}
			if err != nil || b.Status != Completed || b.Counts.Completed != int64(c.billed) || b.Counts.Failed != int64(10-c.billed) {
				t.Errorf("%+v %v", b, err)
			}
			failed, _ := os.ReadFile(o.service.path(b.Errors))
			if n := strings.Count(string(failed), `"invalid_api_key"`); n != 10-c.billed || len(p.Bill()) != c.billed {
				t.Errorf("%d lines are told, %d were billed: %s", n, len(p.Bill()), failed)
			}
			o.reconcile(t, p)
		})
	}
}

// A batch is worked on once in a process, also when it is taken on a second time while it runs: by whoever made it, and by the look for
// batches that nobody works on.
func TestABatchIsTakenOnOnce(t *testing.T) {
	_, url := provide(t, sim.Options{})
	met := make(chan bool)
	url = front(t, url, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method+" "+r.URL.Path == "POST /v1/files" {
			<-met
		}
		return false
	})
	o, app := work(t, url, Limits{})
	id := app.begin(tickets(30), "/v1/chat/completions")
	running := func() *run {
		o.service.mu.Lock()
		defer o.service.mu.Unlock()
		return o.service.running[id]
	}
	first := running()
	err := o.service.takeOn(context.Background(), id)
	second := running()
	close(met)
	if err != nil || first == nil || second != first {
		t.Errorf("it is worked on twice: %v", err)
	}
	if b := app.await(id); b["status"] != Completed {
		t.Errorf("%v", b)
	}
}

// Whether a line was put to the provider before is known before it is asked, however long the ledger cannot be read.
func TestNoLineIsAskedWhileTheLedgerCannotBeRead(t *testing.T) {
	p, url := provide(t, sim.Options{})
	o, _ := work(t, url, Limits{})
	away, err := store.Open(context.Background(), "sqlite:"+t.TempDir(), store.Options{Durability: store.Normal})
	if err != nil {
		t.Fatal(err)
	}
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	r := &run{Service: &Service{opts: Options{Store: away, Desk: o.desk, Now: time.Now}}, b: &Batch{Endpoint: "/v1/chat/completions"}, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	body := []byte(`{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}`)
	if got := r.callOne(ctx, &stored{Request: store.NewID(time.Now()), Began: time.Now(), Body: body}); got.Error == nil || len(p.Bill()) != 0 {
		t.Errorf("%+v, %d calls", got, len(p.Bill()))
	}
}

// A batch whose lines are asked one by one ends when it is cancelled, also while its provider asks for a long pause.
func TestCancelDuringALongPause(t *testing.T) {
	_, url := provide(t, sim.Options{NoBatches: true})
	var asked atomic.Int64
	url = front(t, url, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/chat/completions" {
			return false
		}
		asked.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	o, app := work(t, url, Limits{Calls: true})
	o.task.Audit = 0
	id := app.begin(tickets(60), "/v1/chat/completions")
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if status, text := app.do("POST", "/v1/batches/"+id+"/cancel", "", nil); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	b := app.await(id)
	good, bad := app.results(b)
	if b["status"] != Cancelled || len(good) != 40 || len(bad) != 20 {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	for id, one := range bad {
		if one.Error == nil || one.Error.Code != "batch_cancelled" {
			t.Errorf("%s: %+v", id, one)
		}
	}
}

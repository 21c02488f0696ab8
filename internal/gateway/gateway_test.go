package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/store"
	"occam/internal/task"
)

// A provider is an upstream on loopback that keeps its own bill.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	bodies  []string
	headers []http.Header
	bill    cost.Amount
	handle  http.HandlerFunc // nil: answers like the public API
	answer  string           // what it says
}

func newProvider(t *testing.T) *provider {
	p := &provider{answer: `{"category":"refund","order_id":"A-1"}`}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

const gpt4oUsage = `{"prompt_tokens":500,"completion_tokens":50,"total_tokens":550,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}`

// price of gpt4oUsage at $2.50 and $10 per million.
const gpt4oCost = cost.Amount(500*2500 + 50*10000)

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.bodies = append(p.bodies, string(body))
	p.headers = append(p.headers, r.Header.Clone())
	handle := p.handle
	p.mu.Unlock()
	if handle != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		handle(w, r)
		return
	}
	p.charge()
	if strings.Contains(string(body), `"stream":true`) {
		p.stream(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", "req_1")
	fmt.Fprint(w, p.reply())
}

func (p *provider) charge() {
	p.mu.Lock()
	p.bill += gpt4oCost
	p.mu.Unlock()
}

func (p *provider) reply() string {
	text, _ := json.Marshal(p.answer)
	return `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":` +
		string(text) + `,"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":` + gpt4oUsage + `,"unknown":[1, 2]}`
}

func (p *provider) frames() []string {
	chunk := func(delta, finish string) string {
		return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]}` + "\n\n"
	}
	out := []string{chunk(`{"role":"assistant","content":""}`, "null")}
	for i := 0; i < len(p.answer); i += 5 {
		text, _ := json.Marshal(p.answer[i:min(i+5, len(p.answer))])
		out = append(out, chunk(`{"content":`+string(text)+`}`, "null"))
	}
	return append(out, chunk(`{}`, `"stop"`),
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-2024-08-06","choices":[],"usage":`+gpt4oUsage+"}\n\n",
		"data: [DONE]\n\n")
}

func (p *provider) stream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, f := range p.frames() {
		fmt.Fprint(w, f)
		w.(http.Flusher).Flush()
	}
}

func (p *provider) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.bodies...)
}

// A book keeps a ledger in memory and fails the test when the ledger's discipline is broken.
type book struct {
	t       *testing.T
	mu      sync.Mutex
	rows    map[string]*store.Attempt
	order   []string
	free    []store.Attempt
	down    bool
	onFinal func()
}

func newBook(t *testing.T) *book { return &book{t: t, rows: map[string]*store.Attempt{}} }

func (b *book) IntendWithin(ctx context.Context, a store.Attempt, _ ...store.Budget) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return store.ErrUnavailable
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := b.rows[a.ID]; ok {
		b.t.Errorf("attempt %s intended twice", a.ID)
	}
	a.State = store.Pending
	b.rows[a.ID] = &a
	b.order = append(b.order, a.ID)
	return nil
}

func (b *book) Finish(_ context.Context, a store.Attempt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	row, ok := b.rows[a.ID]
	switch {
	case !ok:
		b.t.Errorf("attempt %s finished without an intent", a.ID)
		return store.ErrNoIntent
	case row.State != store.Pending:
		b.t.Errorf("attempt %s finished twice", a.ID)
		return store.ErrNoIntent
	case a.State == store.Estimated && (a.CostLow > a.Cost || a.Cost > a.CostHigh):
		b.t.Errorf("attempt %s: estimate %v outside %v to %v", a.ID, a.Cost, a.CostLow, a.CostHigh)
	}
	*row = a
	if b.onFinal != nil {
		b.onFinal()
	}
	return nil
}

func (b *book) RecordFree(_ context.Context, a store.Attempt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.State = store.Free
	b.free = append(b.free, a)
	return nil
}

// paid returns the rows of calls that may have cost money, in order; it waits until none is open.
func (b *book) paid() []store.Attempt {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		var out []store.Attempt
		open := 0
		for _, id := range b.order {
			out = append(out, *b.rows[id])
			if b.rows[id].State == store.Pending {
				open++
			}
		}
		b.mu.Unlock()
		if open == 0 {
			return out
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d intents are still open", open)
		}
	}
}

// freeRows returns the rows of answers that cost nothing; they are written after the answer, so it waits for n of them.
func (b *book) freeRows(n int) []store.Attempt {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		free := append([]store.Attempt(nil), b.free...)
		b.mu.Unlock()
		if len(free) >= n || time.Now().After(deadline) {
			return free
		}
	}
}

func (b *book) total() (sum cost.Amount) {
	for _, a := range b.paid() {
		sum += a.Cost
	}
	return sum
}

// A parrot is a specialist that always predicts the same.
type parrot struct {
	p     task.Prediction
	panic bool
}

func (m *parrot) Predict(_ string, p *task.Prediction) {
	if m.panic {
		panic("poison")
	}
	*p = clone(&m.p)
}

var ticketFields = []task.Field{
	{Name: "category", Kind: task.Category, Values: []string{"refund", "delivery", "other"}},
	{Name: "order_id", Kind: task.Span, Nullable: true},
}

const ticketSchema = `{"type":"object","properties":{"category":{"type":"string","enum":["refund","delivery","other"]},"order_id":{"type":["string","null"]}},"required":["category","order_id"],"additionalProperties":false}`

// A world is a gateway with one provider and one task on a loopback listener.
type world struct {
	*provider
	t      *testing.T
	book   *book
	server *Server
	web    *httptest.Server
	snap   *Snapshot
	model  *parrot
	tier   *Tier

	mu          sync.Mutex
	examples    []Example
	comparisons []Comparison
	reviews     []Review
}

func newWorld(t *testing.T, change ...func(*world, *Options)) *world {
	t.Helper()
	w := &world{provider: newProvider(t), t: t, book: newBook(t)}
	id := calibration.Identity{Task: "triage", Specialist: "abcdef0123", Score: "s"}
	w.model = &parrot{p: task.Prediction{Values: []task.Value{task.String("refund"), task.String("A-1")},
		FieldConfidence: []float64{.99, .99}, Confidence: .98, Score: 3, InScope: 1}}
	tier := Tier{Specialist: w.model, Tier: cascade.Tier{Name: "linear", Mode: cascade.Live, Identity: id,
		Certificate: &calibration.Certificate{Task: "triage", Specialist: "abcdef0123", Score: "s", Threshold: 2, Floor: 0,
			Accepted: 1000, N: 1000, Upper: .02, Risk: .03}}}
	w.snap = &Snapshot{Limits: Limits{Patience: engine.Patience{Retries: -1}}, Book: cost.Default(), Fallback: w.upstream("openai", w.URL+"/v1"), Tasks: []Task{{
		Task: &task.Task{Name: "triage", Fields: ticketFields, Generalist: "gpt-4o"}, Tiers: []Tier{tier}}}}
	w.tier = &w.snap.Tasks[0].Tiers[0]
	o := Options{Ledger: w.book, Rand: func() float64 { return .999 },
		OnExample:    func(e Example) { w.mu.Lock(); w.examples = append(w.examples, e); w.mu.Unlock() },
		OnComparison: func(c Comparison) { w.mu.Lock(); w.comparisons = append(w.comparisons, c); w.mu.Unlock() },
		OnReview:     func(r Review) { w.mu.Lock(); w.reviews = append(w.reviews, r); w.mu.Unlock() }}
	for _, f := range change {
		f(w, &o)
	}
	var err error
	if w.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	w.publish()
	w.web = httptest.NewServer(w.server)
	t.Cleanup(w.web.Close)
	return w
}

func (w *world) publish() {
	w.t.Helper()
	if err := w.server.Publish(w.snap); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) upstream(name, url string) *engine.Upstream {
	w.t.Helper()
	u, err := engine.NewUpstream(engine.Options{Name: name, BaseURL: url, Key: "sk-provider-secret", Messages: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(u.Close)
	return u
}

func (w *world) post(body string) (*http.Response, string) {
	w.t.Helper()
	res, err := http.Post(w.web.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		w.t.Fatal(err)
	}
	return res, string(text)
}

const (
	plainBody  = `{"model":"gpt-4o", "messages":[{"role":"user","content":"hi"}],"x_unknown":{"a":[1,2, 3]}}`
	streamBody = `{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`
	taskBody   = `{"model":"gpt-4o","messages":[{"role":"user","content":"refund A-1 please"}],"response_format":{"type":"json_schema","json_schema":{"name":"t","strict":true,"schema":` + ticketSchema + `}}}`
)

func withStream(body string) string { return strings.Replace(body, "{", `{"stream":true,`, 1) }

func TestPassThroughIsByteForByteBothWays(t *testing.T) {
	w := newWorld(t)
	res, body := w.post(plainBody)
	if got := w.seen()[0]; got != plainBody {
		t.Errorf("the provider saw\n%s\nwant\n%s", got, plainBody)
	}
	if body != w.reply() {
		t.Errorf("the app got\n%s\nwant\n%s", body, w.reply())
	}
	if res.Header.Get("X-Occam-Reason") != "passthrough" || res.Header.Get("X-Occam-Cost-Usd") != "0.001750000" || res.Header.Get("X-Request-Id") != "req_1" {
		t.Errorf("headers: %v", res.Header)
	}
	w.expectBill(store.Settled)
}

func (w *world) expectBill(state store.State) {
	w.t.Helper()
	rows := w.book.paid()
	if len(rows) != 1 || rows[0].State != state || rows[0].Cost != w.bill {
		w.t.Errorf("ledger %+v, bill %v", rows, w.bill)
	}
}

func TestPassThroughStreamIsByteForByte(t *testing.T) {
	w := newWorld(t)
	res, body := w.post(streamBody)
	if got := w.seen()[0]; got != streamBody {
		t.Errorf("the provider saw\n%s\nwant\n%s", got, streamBody)
	}
	if want := strings.Join(w.frames(), ""); body != want {
		t.Errorf("the app got\n%s\nwant\n%s", body, want)
	}
	if res.Trailer.Get("X-Occam-Cost-Usd") != "0.001750000" {
		t.Errorf("trailer: %v", res.Trailer)
	}
	w.expectBill(store.Settled)
}

func TestSpecialistAnswersWithoutACall(t *testing.T) {
	w := newWorld(t)
	res, body := w.post(taskBody)
	var reply struct {
		Object, Model string
		Choices       []struct{ Message struct{ Content string } }
		Usage         struct{ Total_tokens *int }
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatal(err, body)
	}
	if reply.Object != "chat.completion" || reply.Model != "gpt-4o" || reply.Choices[0].Message.Content != `{"category":"refund","order_id":"A-1"}` || *reply.Usage.Total_tokens != 0 {
		t.Errorf("reply %s", body)
	}
	h := res.Header
	if h.Get("X-Occam-Task") != "triage" || h.Get("X-Occam-Model") != "triage@abcdef01" || h.Get("X-Occam-Reason") != "certified" ||
		h.Get("X-Occam-Confidence") != "0.9800" || h.Get("X-Occam-Cost-Usd") != "0.000000000" {
		t.Errorf("headers %v", h)
	}
	if n := len(w.seen()); n != 0 {
		t.Errorf("%d calls upstream", n)
	}
	if free := w.book.freeRows(1); len(free) != 1 || !free[0].Answered || free[0].Reference == 0 {
		t.Errorf("ledger %+v", free)
	}
}

func TestDecisionsReachTheGeneralistWithTheirReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*world, *Options)
		body   string
		reason string
	}{
		{"low score", func(w *world, _ *Options) { w.model.p.Score = 1 }, taskBody, "below_threshold"},
		{"out of scope", func(w *world, _ *Options) { w.model.p.InScope = -1 }, taskBody, "out_of_scope"},
		{"shadow", func(w *world, _ *Options) { w.tier.Mode = cascade.Shadow }, taskBody, "shadow"},
		{"suspended", func(w *world, _ *Options) { w.tier.Mode = cascade.Suspended }, taskBody, "suspended"},
		{"canary of nobody", func(w *world, _ *Options) { w.tier.Mode = cascade.Canary }, taskBody, "not_in_canary"},
		{"other weights", func(w *world, _ *Options) { w.tier.Identity.Specialist = "other-weights" }, taskBody, "no_certificate"},
		{"span not in the input", func(w *world, _ *Options) { w.model.p.Values[1] = task.String("B-2") }, taskBody, "invalid_output"},
		{"crash", func(w *world, _ *Options) { w.model.panic = true }, taskBody, "tier_failed"},
		{"tools", nil, strings.Replace(taskBody, "{", `{"tools":[{"type":"function","function":{"name":"f"}}],`, 1), "not_plain"},
		{"an image", nil, strings.Replace(taskBody, `"refund A-1 please"`, `[{"type":"image_url","image_url":{"url":"x"}}]`, 1), "unreadable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.change != nil {
				c.change(w, nil)
				w.publish()
			}
			res, body := w.post(c.body)
			if body != w.reply() || res.Header.Get("X-Occam-Reason") != c.reason || res.Header.Get("X-Occam-Model") != "gpt-4o" {
				t.Errorf("reason %q, body %s", res.Header.Get("X-Occam-Reason"), body)
			}
			w.expectBill(store.Settled)
			if c.reason == "unreadable" {
				return
			}
			if len(w.examples) != 1 || w.examples[0].Values[0].Text() != "refund" || w.examples[0].Unplain != (c.reason == "not_plain") {
				t.Errorf("examples %+v", w.examples)
			}
		})
	}
}

func TestStreamOfASpecialistHasTheGeneralistsShape(t *testing.T) {
	w := newWorld(t)
	_, body := w.post(strings.Replace(taskBody, "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1))
	var kinds []string
	for _, line := range strings.Split(body, "\n\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var chunk struct {
			Object  string
			Choices []struct {
				Delta         map[string]any
				Finish_reason any
			}
			Usage any
		}
		switch err := json.Unmarshal([]byte(data), &chunk); {
		case data == "[DONE]":
			kinds = append(kinds, "done")
		case err != nil:
			t.Fatalf("%v in %s", err, data)
		case len(chunk.Choices) == 0:
			kinds = append(kinds, "usage")
		case chunk.Choices[0].Finish_reason != nil:
			kinds = append(kinds, "finish")
		case chunk.Choices[0].Delta["role"] != nil:
			kinds = append(kinds, "role")
		default:
			kinds = append(kinds, "content")
		}
	}
	if got := strings.Join(kinds, " "); got != "role content finish usage done" {
		t.Errorf("chunks: %s\n%s", got, body)
	}
}

func TestNothingIsSentWithoutAnIntent(t *testing.T) {
	w := newWorld(t)
	w.book.down = true
	res, body := w.post(plainBody)
	if res.StatusCode != 503 || !strings.Contains(body, "ledger_unavailable") || len(w.seen()) != 0 {
		t.Errorf("%d %s, %d calls", res.StatusCode, body, len(w.seen()))
	}
	if res, _ := w.post(taskBody); res.StatusCode != 200 {
		t.Errorf("a free answer got %d while the ledger is down", res.StatusCode)
	}
}

func TestTheOutcomeIsRecordedBeforeTheReplyEnds(t *testing.T) {
	w := newWorld(t)
	released := make(chan struct{})
	w.book.onFinal = func() { <-released }
	res, err := http.Post(w.web.URL+"/v1/chat/completions", "application/json", strings.NewReader(streamBody))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(`"usage":{`)) {
		n, err := res.Body.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatal(err)
		}
	}
	if bytes.Contains(got, []byte("[DONE]")) {
		t.Error("the end mark came before the outcome was recorded")
	}
	close(released)
	rest, _ := io.ReadAll(res.Body)
	if string(got)+string(rest) != strings.Join(w.frames(), "") {
		t.Errorf("stream changed: %s%s", got, rest)
	}
}

func TestAuditAsksTheGeneralistInTheBackground(t *testing.T) {
	for _, answer := range []string{`{"category":"refund","order_id":"A-1"}`, `{"category":"other","order_id":null}`, "rubbish"} {
		w := newWorld(t, func(w *world, o *Options) { o.Rand = func() float64 { return 0 }; w.snap.Tasks[0].Audit = .01 })
		w.answer = answer
		res, _ := w.post(taskBody)
		if res.Header.Get("X-Occam-Reason") != "certified" {
			t.Fatal(res.Header)
		}
		for deadline := time.Now().Add(time.Minute); len(w.compared()) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		c := w.compared()[0]
		if !c.Answered || c.Share != .01 || c.Missing != (answer == "rubbish") || c.Outside != c.Missing || c.Agreed != strings.Contains(answer, "refund") {
			t.Errorf("%s: %+v", answer, c)
		}
		if rows := w.book.paid(); len(rows) != 1 || !rows[0].Audit || rows[0].State != store.Settled || rows[0].Answered || rows[0].Seq != 1 {
			t.Errorf("ledger %+v", rows)
		}
	}
}

func (w *world) compared() []Comparison {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Comparison(nil), w.comparisons...)
}

func TestUpstreamErrorsPassThrough(t *testing.T) {
	w := newWorld(t)
	w.snap.Fallback = w.upstream("openai", w.URL+"/v1")
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{429, `{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, "slow down"},
		{401, `{"error":{"message":"bad key"}}`, "bad key"},
		{502, `<html>nginx</html>`, "upstream_error"},
		{200, `<html>hello</html>`, "upstream_bad_reply"},
	} {
		w.handle = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-Goog-Api-Key", "sk-provider-secret")
			rw.Header().Set("Set-Cookie", "a=b")
			rw.WriteHeader(c.status)
			io.WriteString(rw, c.body)
		}
		res, body := w.post(plainBody)
		want := c.status
		if c.status == 200 {
			want = 502
		}
		if res.StatusCode != want || !strings.Contains(body, c.want) || !json.Valid([]byte(body)) {
			t.Errorf("%d: got %d %s", c.status, res.StatusCode, body)
		}
		if res.Header.Get("X-Goog-Api-Key")+res.Header.Get("Set-Cookie") != "" {
			t.Errorf("headers leaked: %v", res.Header)
		}
	}
	w.book.paid()
}

func TestUnreachableUpstreamIsVoid(t *testing.T) {
	w := newWorld(t)
	w.provider.Close()
	res, body := w.post(plainBody)
	if res.StatusCode != 502 || !strings.Contains(body, "upstream_unreachable") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if rows := w.book.paid(); len(rows) != 1 || rows[0].State != store.Void {
		t.Errorf("%+v", rows)
	}
}

func TestModelsListsTasks(t *testing.T) {
	w := newWorld(t)
	res, err := http.Get(w.web.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if !bytes.Contains(body, []byte(`"triage"`)) {
		t.Errorf("%s", body)
	}
}

func TestTheTasksNameIsAModel(t *testing.T) {
	w := newWorld(t)
	w.model.p.Score = 0
	res, _ := w.post(`{"model":"triage","messages":[{"role":"user","content":"refund A-1 please"}]}`)
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	sent := w.seen()[0]
	if !strings.Contains(sent, `"model":"gpt-4o"`) || !strings.Contains(sent, `"json_schema"`) || !json.Valid([]byte(sent)) {
		t.Errorf("the generalist got %s", sent)
	}
}

package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
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
	"occam/internal/gateway"
	"occam/internal/sim"
	"occam/internal/store"
	"occam/internal/task"
)

var fields = []task.Field{
	{Name: "category", Kind: task.Category, Values: []string{"refund", "delivery", "other"}},
	{Name: "order_id", Kind: task.Span, Nullable: true},
}

const schema = `{"type":"object","properties":{"category":{"type":"string","enum":["refund","delivery","other"]},"order_id":{"type":["string","null"]}},"required":["category","order_id"],"additionalProperties":false}`

// embeddingPrices are what the simulated provider charges for embeddings, which the built-in book does not know.
const embeddingPrices = `{"version":"test","llm":[{"model":"text-embedding-3-small","provider":"openai","in":0.02,"out":0,"batch_mult":0.5,"src":"the simulator"}]}`

// A half is a specialist that is sure of refunds only.
type half struct{}

func (half) Predict(text string, p *task.Prediction) {
	*p = task.Prediction{Values: []task.Value{task.String("refund"), task.Null}, FieldConfidence: []float64{.99, .99}, Confidence: .5, InScope: 1}
	if strings.Contains(text, "refund") {
		p.Confidence, p.Score = .98, 3
	}
}

// oracle is the truth: a delivery, or every fiftieth refund too.
func oracle(input string) task.Output {
	if strings.Contains(input, "refund") {
		return task.Output{"category": task.String("refund"), "order_id": task.Null}
	}
	return task.Output{"category": task.String("delivery"), "order_id": task.Null}
}

// An office is a gateway with its batch service on real files and a real store, before a provider at url.
type office struct {
	store   *store.Store
	desk    *gateway.Server
	service *Service
	up      *engine.Upstream
	claude  *engine.Upstream // the same provider in Anthropic's words
	task    *task.Task

	mu          sync.Mutex
	comparisons []gateway.Comparison
	examples    []gateway.Example
}

// openOffice opens the data in dir. Parts are small, so that there are many.
func openOffice(dir, url string, limits Limits, keys ...store.Key) (*office, error) {
	return openOfficeOn("sqlite:"+dir, dir, url, limits, keys...)
}

// openOfficeOn opens one on a database that others may use too.
func openOfficeOn(dsn, dir, url string, limits Limits, keys ...store.Key) (*office, error) {
	o := &office{task: &task.Task{Name: "triage", Fields: fields, Generalist: "gpt-4o", Audit: .05}}
	var err error
	if o.store, err = store.Open(context.Background(), dsn, store.Options{Dir: dir, Lease: 2 * time.Second, Durability: store.Normal, FreeDelay: time.Millisecond}); err != nil {
		return nil, err
	}
	if o.up, err = engine.NewUpstream(engine.Options{Name: "openai", BaseURL: url + "/v1", Key: "key", Simulated: true}); err != nil {
		return nil, err
	}
	if o.claude, err = engine.NewUpstream(engine.Options{Name: "anthropic", Kind: engine.Anthropic, BaseURL: url + "/v1", Key: "key", Simulated: true}); err != nil {
		return nil, err
	}
	o.desk, err = gateway.New(gateway.Options{Ledger: o.store,
		Offline:      func(w http.ResponseWriter, r *http.Request, key *store.Key) { o.service.ServeHTTP(w, r, key) },
		OnComparison: func(c gateway.Comparison) { o.mu.Lock(); o.comparisons = append(o.comparisons, c); o.mu.Unlock() },
		OnExample:    func(e gateway.Example) { o.mu.Lock(); o.examples = append(o.examples, e); o.mu.Unlock() }})
	if err != nil {
		return nil, err
	}
	book, err := cost.Parse(strings.NewReader(embeddingPrices))
	if err != nil {
		return nil, err
	}
	book = cost.Default().Merge(book)
	snap := &gateway.Snapshot{Book: book, Fallback: o.up,
		Models: map[string]engine.Route{"claude-haiku-4-5": {Targets: []engine.Target{{Upstream: o.claude, Model: "claude-haiku-4-5"}}}}, Limits: gateway.Limits{Patience: engine.Patience{Retries: -1}},
		Tasks: []gateway.Task{{Task: o.task,
			Tiers: []gateway.Tier{{Specialist: half{}, Tier: cascade.Tier{Name: "linear", Mode: cascade.Live,
				Identity: calibration.Identity{Task: "triage", Specialist: "abcdef0123", Score: "s"},
				Certificate: &calibration.Certificate{Task: "triage", Specialist: "abcdef0123", Score: "s", Threshold: 2,
					Accepted: 1000, N: 1000, Upper: .02, Risk: .03}}}}}}}
	if len(keys) > 0 {
		snap.Keys = gateway.NewKeyring(keys)
	}
	if err := o.desk.Publish(snap); err != nil {
		return nil, err
	}
	limits.Poll, limits.listLag, limits.lease = 5*time.Millisecond, 50*time.Millisecond, time.Second
	o.service, err = New(Options{Store: o.store, Desk: o.desk, Dir: dir + "/files", Limits: limits})
	return o, err
}

func (o *office) close() {
	o.service.Close()
	o.desk.Close()
	o.up.Close()
	o.claude.Close()
	_ = o.store.Close()
}

// A client uses the API as an app does.
type client struct {
	t   testing.TB
	url string
	key string
}

func (c client) do(method, path, kind string, body io.Reader) (int, []byte) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil // the gateway was killed
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, text
}

func (c client) upload(content string) (int, map[string]any) {
	c.t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("purpose", "batch")
	f, _ := w.CreateFormFile("file", "tickets.jsonl")
	_, _ = io.WriteString(f, content)
	_ = w.Close()
	status, text := c.do("POST", "/v1/files", w.FormDataContentType(), &form)
	return status, decode(text)
}

func decode(text []byte) map[string]any {
	var document map[string]any
	_ = json.Unmarshal(text, &document)
	return document
}

func (c client) begin(content, endpoint string) string {
	c.t.Helper()
	status, file := c.upload(content)
	if status != 200 {
		c.t.Fatalf("upload: %d %v", status, file)
	}
	status, text := c.do("POST", "/v1/batches", "application/json", strings.NewReader(fmt.Sprintf(
		`{"input_file_id":%q,"endpoint":%q,"completion_window":"24h","metadata":{"run":"nightly"}}`, file["id"], endpoint)))
	b := decode(text)
	if status != 200 || b["object"] != "batch" || b["metadata"].(map[string]any)["run"] != "nightly" {
		c.t.Fatalf("create: %d %s", status, text)
	}
	return b["id"].(string)
}

func (c client) get(id string) map[string]any {
	_, text := c.do("GET", "/v1/batches/"+id, "", nil)
	return decode(text)
}

const patience = 10 * time.Minute // a million tickets take some

// await waits until the batch has ended.
func (c client) await(id string) map[string]any {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b := c.get(id)
		switch b["status"] {
		case Completed, Failed, Expired, Cancelled:
			return b
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the batch does not end: %v", b)
		}
	}
}

// A line is a result as an app reads it.
type outLine struct {
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int `json:"status_code"`
		Body   struct {
			Choices []struct{ Message struct{ Content string } }
			Usage   struct {
				Prompt int `json:"prompt_tokens"`
			}
			Error struct{ Code, Message string }
		}
		Occam struct{ Model, Reason string }
	}
	Error *struct {
		Code string
		Line int
	}
}

// results reads the output and the error file; a custom_id that stands in them twice fails the test.
func (c client) results(b map[string]any) (good, bad map[string]outLine) {
	c.t.Helper()
	read := func(member string) map[string]outLine {
		all := map[string]outLine{}
		id, ok := b[member].(string)
		if !ok {
			return all
		}
		status, text := c.do("GET", "/v1/files/"+id+"/content", "", nil)
		if status != 200 {
			c.t.Fatalf("%s: %d", member, status)
		}
		for line := range bytes.Lines(text) {
			var one outLine
			if err := json.Unmarshal(line, &one); err != nil {
				c.t.Fatalf("%s: %v: %s", member, err, line)
			}
			name := one.CustomID
			if one.Error != nil && one.Error.Line > 0 && (name == "" || one.Error.Code == "duplicate_custom_id") {
				name = fmt.Sprintf("line %d", one.Error.Line)
			}
			if _, twice := all[name]; twice {
				c.t.Errorf("%s has %s twice", member, name)
			}
			all[name] = one
		}
		return all
	}
	good, bad = read("output_file_id"), read("error_file_id")
	for id := range good {
		if _, both := bad[id]; both {
			c.t.Errorf("%s was answered and refused", id)
		}
	}
	return good, bad
}

func request(id, model, text string, task bool) string {
	format := ""
	if task {
		format = `,"response_format":{"type":"json_schema","json_schema":{"name":"t","schema":` + schema + `}}`
	}
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":%q,"max_tokens":100,"messages":[{"role":"user","content":%q}]%s}}`, id, model, text, format)
}

// ticket is the i-th request: two of three are for the specialist, the rest for the generalist.
func ticket(i int) string {
	text := fmt.Sprintf("refund %d please, it came broken", i)
	if i%3 == 0 {
		text = fmt.Sprintf("where is parcel %d", i)
	}
	return request(fmt.Sprintf("t-%d", i), "gpt-4o", text, true)
}

func tickets(n int) string { return lines(n, ticket) }

// provide starts a simulated provider.
func provide(t *testing.T, o sim.Options) (*sim.Provider, string) {
	t.Helper()
	o.Oracle, o.APIKey = oracle, "key"
	p, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server, err := p.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return p, server.URL
}

// work opens an office in a new folder and serves it.
func work(t *testing.T, url string, limits Limits, keys ...store.Key) (*office, client) {
	t.Helper()
	o, err := openOffice(t.TempDir(), url, limits, keys...)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(o.desk)
	t.Cleanup(func() { web.Close(); o.close() })
	return o, client{t: t, url: web.URL}
}

// reconcile compares the ledger with the provider's bill, to the nano-dollar, and checks that nothing is left open.
func (o *office) reconcile(t *testing.T, p *sim.Provider) (attempts []store.Attempt) {
	t.Helper()
	attempts = o.attempts(t)
	var sum cost.Amount
	for _, a := range attempts {
		sum += a.Cost
	}
	if sum != p.Total() {
		t.Errorf("the ledger says %v, the provider billed %v", sum, p.Total())
	}
	return attempts
}

// attempts are those of the ledger, of which none may be open.
func (o *office) attempts(t *testing.T) (attempts []store.Attempt) {
	t.Helper()
	report, err := o.store.Verify(context.Background())
	if err != nil || !report.OK() {
		t.Errorf("the ledger does not verify: %v %v", err, report.Problems)
	}
	for cursor := ""; ; {
		page, next, err := o.store.Requests(context.Background(), store.Filter{Limit: 500}, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			for _, a := range r.Attempts {
				if a.State == store.Pending {
					t.Errorf("%s is still open", a.ID)
				}
				attempts = append(attempts, a)
			}
		}
		if cursor = next; cursor == "" {
			return attempts
		}
	}
}

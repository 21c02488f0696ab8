package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/task"
)

// syncBuffer collects what a running server says.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var apiLine = regexp.MustCompile(`API +(http://\S+)/v1`)

// serve runs `occam serve` until stop is called, which returns its exit code.
func serve(t *testing.T, configPath string) (base string, stderr *syncBuffer, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stderr = &syncBuffer{}
	exit := make(chan int, 1)
	go func() {
		exit <- Run(ctx, []string{"serve", "--config", configPath}, strings.NewReader(""), io.Discard, stderr)
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-exit })
	t.Cleanup(func() { stop() })
	for range 600 {
		if m := apiLine.FindStringSubmatch(stderr.String()); m != nil {
			return m[1], stderr, stop
		}
		select {
		case code := <-exit:
			t.Fatalf("serve ended with %d:\n%s", code, stderr)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("serve is not ready:\n%s", stderr)
	return "", nil, nil
}

// fixture is a provider, a trained model and a configuration that ties them together.
type fixture struct {
	provider *sim.Provider
	config   string
	tickets  []sample.Ticket
}

func newFixture(t *testing.T, script sim.Script, extra string) *fixture {
	t.Helper()
	return newFixtureOf(t, sim.Options{Script: script}, "", extra)
}

// newFixtureOf has its own provider and more members of the task.
func newFixtureOf(t *testing.T, o sim.Options, ofTask, extra string) *fixture {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.occam"), smallModel(t), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fixture{tickets: sample.Traffic(2, 200), config: filepath.Join(dir, "occam.yaml")}
	truth := map[string]task.Output{}
	for _, x := range f.tickets {
		truth[x.Text] = x.Truth
	}
	var err error
	o.Seed = 1
	if o.Oracle == nil {
		o.Oracle = func(in string) task.Output { return truth[in] }
	}
	if f.provider, err = sim.New(o); err != nil {
		t.Fatal(err)
	}
	listening, err := f.provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	schema := task.Schema(modelFields(t, filepath.Join(dir, "m.occam")))
	text := fmt.Sprintf(`listen: 127.0.0.1:0
data_dir: data
self_test: false
providers: {openai: {type: openai, base_url: %s/v1, api_key: sk-canary-key, simulated: true}}
tasks:
  triage: {schema: %s, generalist: gpt-4o, model: m.occam, target: {promise: system, accuracy: 0.93}, %s}
%s`, listening.URL, schema, cmp.Or(ofTask, "audit: 0"), extra)
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

var (
	smallModelOnce  sync.Once
	smallModelBytes []byte
)

// smallModel is a model of few tickets that answers some and defers some, trained once for all tests.
func smallModel(t *testing.T) []byte {
	t.Helper()
	smallModelOnce.Do(func() {
		data, model := filepath.Join(t.TempDir(), "train.jsonl"), filepath.Join(t.TempDir(), "m.occam")
		writeTickets(t, data, 1, 1200)
		mustRun(t, "", "train", "--data", data, "--out", model, "--promise", "system", "--accuracy", "0.93")
		var err error
		if smallModelBytes, err = os.ReadFile(model); err != nil {
			t.Fatal(err)
		}
	})
	return smallModelBytes
}

// post asks for one ticket by the task's own name.
func post(t *testing.T, base, model, text string) (*http.Response, string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": text}}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(base+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(reply)
}

// A server answers by name, escalates, writes every call down, stops cleanly, and its ledger equals the provider's bill.
func TestServe(t *testing.T) {
	f := newFixture(t, nil, "")
	base, stderr, stop := serve(t, f.config)
	served := 0
	for _, x := range f.tickets {
		response, reply := post(t, base, "triage", x.Text)
		if response.StatusCode != 200 || response.Header.Get("X-Occam-Request-Id") == "" || response.Header.Get("X-Occam-Task") != "triage" {
			t.Fatalf("status %d: %s", response.StatusCode, reply)
		}
		if response.Header.Get("X-Occam-Reason") == "certified" {
			served++
		}
	}
	if served == 0 || served == len(f.tickets) {
		t.Errorf("%d of %d served: expected some but not all", served, len(f.tickets))
	}
	if got := int(f.provider.Served()); got != len(f.tickets)-served {
		t.Errorf("the provider saw %d calls, expected %d", got, len(f.tickets)-served)
	}
	for _, path := range []string{"/healthz", "/readyz", "/v1/models", "/"} {
		response, err := http.Get(base + path)
		if err != nil || response.StatusCode != 200 {
			t.Errorf("GET %s: %v %v", path, response.StatusCode, err)
		}
		response.Body.Close()
	}
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(stderr.String(), "canary") {
		t.Error("the key is in the log")
	}
	var report spendReport
	decode(t, mustRun(t, "", "report", "--config", f.config, "--json"), &report)
	if got := report.Statement.Spent.Total(); got != f.provider.Total() || got == 0 {
		t.Errorf("the ledger says %s, the provider's bill %s", got, f.provider.Total())
	}
	if report.Statement.Saved != report.Statement.WouldHaveCost-report.Statement.Spent.Total() || report.Statement.Saved <= cost.Amount(0) {
		t.Errorf("statement: %+v", report.Statement)
	}
}

// What goes wrong upstream reaches the app as the provider said it, or as a proper error body; the ledger stays whole.
func TestServeBadUpstream(t *testing.T) {
	faults := []sim.Fault{{Kind: sim.Status, Status: 429, RetryAfter: "7"}, {Kind: sim.Status, Status: 400}, {Kind: sim.ResetBeforeHeaders}, {Kind: sim.CutJSON}, {Kind: sim.Hang}}
	for _, fault := range faults {
		t.Run(string(fault.Kind)+fmt.Sprint(fault.Status), func(t *testing.T) {
			f := newFixture(t, sim.Always(fault), "limits: {first_byte_timeout: 1s, total_timeout: 2s}\n")
			base, _, stop := serve(t, f.config)
			response, reply := post(t, base, "gpt-4o", "What is the capital of France?")
			var body struct {
				Error *struct{ Message, Type string }
			}
			if fault.Kind != sim.CutJSON && (json.Unmarshal([]byte(reply), &body) != nil || body.Error == nil || body.Error.Message == "") {
				t.Errorf("status %d, no OpenAI error body: %s", response.StatusCode, reply)
			}
			if fault.Status != 0 && response.StatusCode != fault.Status {
				t.Errorf("status %d, the provider said %d", response.StatusCode, fault.Status)
			}
			if escalated, _ := post(t, base, "triage", "Write a poem about 17th-century France"); fault.Status != 0 && escalated.StatusCode != fault.Status {
				t.Errorf("escalated: status %d, the provider said %d", escalated.StatusCode, fault.Status)
			}
			if fault.RetryAfter != "" && response.Header.Get("Retry-After") == "" {
				t.Error("Retry-After is lost")
			}
			if fault.Status == 0 && fault.Kind != sim.CutJSON && response.StatusCode/100 != 5 {
				t.Errorf("status %d: %s", response.StatusCode, reply)
			}
			if code := stop(); code != 0 {
				t.Errorf("exit %d", code)
			}
			var verified struct{ OK bool }
			decode(t, mustRun(t, "", "ledger", "verify", "--config", f.config, "--json"), &verified)
			if !verified.OK {
				t.Error("the ledger does not verify")
			}
		})
	}
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	provider := "providers: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"
	taken := write("taken.yaml", "data_dir: a\nlisten: "+listener.Addr().String()+"\n"+provider)
	corrupt := write("m.occam", strings.Repeat("not a model ", 100))
	damaged := write("damaged.yaml", "data_dir: b\nlisten: 127.0.0.1:0\n"+provider+
		"tasks: {t: {generalist: gpt-4o, model: "+corrupt+", schema: {type: object, properties: {category: {type: string, enum: [a, b]}}}}}\n")
	for path, want := range map[string]string{taken: "another program listens on", damaged: "m.occam"} {
		if code, _, stderr := run(t, "", "serve", "--config", path); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", filepath.Base(path), code, stderr)
		}
	}
}

func modelFields(t *testing.T, path string) []task.Field {
	t.Helper()
	loaded, err := lifecycle.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	fields := make([]task.Field, len(loaded.Model.Fields()))
	for i, f := range loaded.Model.Fields() { // copies: the originals may point into the mapped file
		fields[i] = task.Field{Name: strings.Clone(f.Name), Kind: f.Kind, Nullable: f.Nullable}
		for _, v := range f.Values {
			fields[i].Values = append(fields[i].Values, strings.Clone(v))
		}
	}
	return fields
}

// Package sdktest drives `occam serve`, as a second process, with the real client libraries that apps use: the gateway is a
// drop-in only if none of them notices it. A simulated provider stands behind it.
package sdktest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/task"
)

const (
	startLimit  = 30 * time.Second
	clientLimit = 3 * time.Minute
	trainRows   = 3000
	askedRows   = 40
	taskName    = "ticket-triage"
)

// built is what every test needs and only the first one pays for: the binary and a trained model.
type built struct {
	dir, binary, model, schema, tickets string
	fields                              []task.Field
	inputs                              []sim.Input
}

var (
	buildOnce sync.Once
	product   built
	buildErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if product.dir != "" {
		_ = os.RemoveAll(product.dir)
	}
	os.Exit(code)
}

func build(t *testing.T) built {
	t.Helper()
	buildOnce.Do(func() { buildErr = product.make() })
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return product
}

func (b *built) make() (err error) {
	if b.dir, err = os.MkdirTemp("", "occam-sdktest-"); err != nil {
		return err
	}
	b.binary = filepath.Join(b.dir, "occam")
	if err := command("go", "build", "-o", b.binary, "occam"); err != nil {
		return err
	}
	examples := sample.Tickets(1, trainRows)
	if b.fields, err = task.InferFields(examples); err != nil {
		return err
	}
	var data bytes.Buffer
	lines := json.NewEncoder(&data)
	for _, e := range examples {
		if err := lines.Encode(map[string]any{"id": e.ID, "text": e.Text, "labels": e.Labels}); err != nil {
			return err
		}
	}
	train := filepath.Join(b.dir, taskName+".jsonl")
	b.model, b.schema, b.tickets = filepath.Join(b.dir, "model.occam"), filepath.Join(b.dir, "schema.json"), filepath.Join(b.dir, "tickets.json")
	if err := errors.Join(os.WriteFile(train, data.Bytes(), 0o600), os.WriteFile(b.schema, task.Schema(b.fields), 0o600), b.writeTickets()); err != nil {
		return err
	}
	// a target that so few rows can prove: these tests are about the wire
	return command(b.binary, "train", "--data", train, "--out", b.model, "--accuracy", "0.94")
}

// writeTickets gives the clients what to ask and what is true.
func (b *built) writeTickets() error {
	type asked struct {
		Text     string     `json:"text"`
		Category string     `json:"category"`
		OrderID  task.Value `json:"order_id"`
	}
	var list []asked
	for _, t := range sample.Traffic(2, 2*askedRows) {
		if t.OutOfScope || len(list) == askedRows {
			continue
		}
		b.inputs = append(b.inputs, sim.Input{ID: t.ID, Text: t.Text, Truth: t.Truth})
		list = append(list, asked{t.Text, t.Truth[sample.Category].Text(), t.Truth[sample.OrderID]})
	}
	raw, err := json.Marshal(map[string]any{"categories": sample.Categories(), "tickets": list})
	if err != nil {
		return err
	}
	return os.WriteFile(b.tickets, raw, 0o600)
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

// An occam is a running `occam serve` with its simulated provider.
type occam struct {
	built
	url      string // base address of the API, with /v1
	data     string // its data folder
	provider *sim.Provider
	process  *exec.Cmd
	ended    chan error
	log      *lockedBuffer
}

const configText = `listen: 127.0.0.1:0
data_dir: %q
durability: normal
providers:
  openai: {type: openai, base_url: %q, api_key: test-key, simulated: true}
models:
  gpt-4o: {provider: openai}
limits: {first_byte_timeout: 10s, idle_timeout: 10s}
tasks:
  ticket-triage:
    schema: %q
    generalist: gpt-4o
    model: %q
    target: {accuracy: 0.94}
    audit: 0
`

// serve starts a provider and a gateway in front of it, and stops both when the test ends.
func serve(t *testing.T) *occam {
	t.Helper()
	b := build(t)
	traffic := sim.Traffic{}
	provider, err := sim.New(sim.Options{Oracle: traffic.Oracle(b.inputs), APIKey: "test-key"})
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(upstream.Close)
	o := &occam{built: b, data: t.TempDir(), provider: provider, log: &lockedBuffer{}, ended: make(chan error, 1)}
	config := filepath.Join(t.TempDir(), "occam.yaml")
	text := fmt.Sprintf(configText, o.data, upstream.URL+"/v1", b.schema, b.model)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o.start(t, config)
	t.Cleanup(func() { o.stop(t) })
	return o
}

var apiLine = regexp.MustCompile(`API\s+(http://\S+/v1)`)

func (o *occam) start(t *testing.T, config string) {
	t.Helper()
	o.process = exec.Command(o.binary, "serve", "--config", config)
	stderr, err := o.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.process.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(io.TeeReader(stderr, o.log))
		for lines.Scan() {
			if m := apiLine.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		o.ended <- o.process.Wait()
	}()
	select {
	case o.url = <-address:
	case err := <-o.ended:
		t.Fatalf("occam serve ended: %v\n%s", err, o.log)
	case <-time.After(startLimit):
		t.Fatalf("occam serve does not say where it listens\n%s", o.log)
	}
}

// stop ends the gateway as an operator would, and expects a clean end.
func (o *occam) stop(t *testing.T) {
	t.Helper()
	if o.process.ProcessState != nil {
		return
	}
	_ = o.process.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-o.ended:
		if err != nil {
			t.Errorf("occam serve ended with %v\n%s", err, o.log)
		}
	case <-time.After(startLimit):
		_ = o.process.Process.Kill()
		t.Errorf("occam serve did not end within %v of SIGTERM\n%s", startLimit, o.log)
	}
}

// lockedBuffer collects a child's log while tests may print it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// run runs a client program and makes a subtest of each line that it prints: "ok NAME", "skip NAME: reason" or
// "FAIL NAME: reason".
func (o *occam) run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "OPENAI_BASE_URL="+o.url, "OPENAI_API_KEY=test-key", "OCCAM_TICKETS="+o.tickets,
		"ANTHROPIC_BASE_URL="+strings.TrimSuffix(o.url, "/v1"), "ANTHROPIC_API_KEY=test-key", "NO_PROXY=127.0.0.1,localhost",
		"LANGSMITH_TRACING=false", "AI_SDK_LOG_WARNINGS=false")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	checks := 0
	for line := range strings.Lines(string(out)) {
		verdict, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		check, reason, _ := strings.Cut(rest, ": ")
		switch verdict {
		case "ok":
			t.Run(rest, func(*testing.T) {})
		case "skip":
			t.Run(check, func(t *testing.T) { t.Skip("skipped: " + reason) })
		case "FAIL":
			t.Run(check, func(t *testing.T) { t.Error(reason) })
		default:
			continue
		}
		checks++
	}
	if err != nil || checks == 0 {
		t.Fatalf("%s: %d checks, then %v\n%s%s", strings.Join(args, " "), checks, err, out, stderr.Bytes())
	}
	if t.Failed() {
		t.Logf("log of occam serve:\n%s", o.log)
	}
}

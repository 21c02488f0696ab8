// Package sdktest drives `occam serve`, as a second process, with the real client libraries that apps use: the gateway is a
// drop-in only if none of them notices it. A simulated provider stands behind it.
package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/sim/occamtest"
	"occam/internal/task"
)

const (
	clientLimit = 3 * time.Minute
	trainRows   = 3000
	askedRows   = 40
	taskName    = "ticket-triage"
)

// product is what every test needs and only the first one pays for: the program and a trained model.
var product = occamtest.Build{Prepare: train}

func TestMain(m *testing.M) { os.Exit(product.Main(m)) }

func train(b *occamtest.Build) error {
	examples := sample.Tickets(1, trainRows)
	fields, err := task.InferFields(examples)
	if err != nil {
		return err
	}
	var data bytes.Buffer
	lines := json.NewEncoder(&data)
	for _, e := range examples {
		if err := lines.Encode(map[string]any{"id": e.ID, "text": e.Text, "labels": e.Labels}); err != nil {
			return err
		}
	}
	rows := b.File(taskName + ".jsonl")
	if err := errors.Join(os.WriteFile(rows, data.Bytes(), 0o600), os.WriteFile(b.File("schema.json"), task.Schema(fields), 0o600),
		writeTickets(b.File("tickets.json"))); err != nil {
		return err
	}
	// a target that so few rows can prove: these tests are about the wire
	return occamtest.Command(b.Program, "train", "--data", rows, "--out", b.File("model.occam"), "--accuracy", "0.94")
}

// asked are the tickets that the clients send.
func asked() []sim.Input {
	var inputs []sim.Input
	for _, t := range sample.Traffic(2, 2*askedRows) {
		if !t.OutOfScope && len(inputs) < askedRows {
			inputs = append(inputs, sim.Input{ID: t.ID, Text: t.Text, Truth: t.Truth})
		}
	}
	return inputs
}

// writeTickets tells the clients what to ask and what is true.
func writeTickets(path string) error {
	var list []map[string]any
	for _, in := range asked() {
		list = append(list, map[string]any{"text": in.Text, sample.Category: in.Truth[sample.Category], sample.OrderID: in.Truth[sample.OrderID]})
	}
	raw, err := json.Marshal(map[string]any{"categories": sample.Categories(), "tickets": list})
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// An occam is a running `occam serve` with its simulated provider.
type occam struct {
	*occamtest.Process
	data     string // its data folder
	provider *sim.Provider
}

const configText = `listen: 127.0.0.1:0
data_dir: %q
durability: normal
self_test: false
providers:
  openai: {type: openai, base_url: %q, api_key: test-key, simulated: true}
  claude: {type: anthropic, base_url: %q, api_key: test-key, simulated: true, prices: anthropic}
models:
  gpt-4o: {provider: openai}
  claude-haiku-4-5: {provider: claude}
batches: {poll: 100ms}
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
	product.Need(t)
	provider, err := sim.New(sim.Options{Oracle: sim.Traffic{}.Oracle(asked()), APIKey: "test-key"})
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(upstream.Close)
	data, config := t.TempDir(), filepath.Join(t.TempDir(), "occam.yaml")
	text := fmt.Sprintf(configText, data, upstream.URL+"/v1", upstream.URL+"/v1", product.File("schema.json"), product.File("model.occam"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &occam{Process: occamtest.Serve(t, product.Program, config), data: data, provider: provider}
	t.Cleanup(func() { o.Stop(t) })
	return o
}

// run runs a client program and makes a subtest of each line that it prints: "ok NAME" or "FAIL NAME: reason".
func (o *occam) run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "OPENAI_BASE_URL="+o.URL, "OPENAI_API_KEY=test-key", "OCCAM_TICKETS="+product.File("tickets.json"),
		"ANTHROPIC_BASE_URL="+strings.TrimSuffix(o.URL, "/v1"), "ANTHROPIC_API_KEY=test-key", "NO_PROXY=127.0.0.1,localhost",
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
		t.Logf("log of occam serve:\n%s", o.Log())
	}
}

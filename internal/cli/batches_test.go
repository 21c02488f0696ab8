package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/sim"
)

// A batch of a running server is seen and stopped from the command line, and from there too while no server runs.
func TestBatches(t *testing.T) {
	slow := sim.Options{Batches: func(int) sim.BatchPlan { return sim.BatchPlan{Delay: time.Hour} }}
	_, url := newProvider(t, slow)
	path := filepath.Join(t.TempDir(), "occam.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: data\nproviders: {openai: {type: openai, base_url: %s, api_key: key, simulated: true}}\nbatches: {poll: 20ms}\n", url)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base, stderr, stop := serve(t, path)
	id := makeBatch(t, base)
	show := func() string { return mustRun(t, "", "batches", "show", id, "--config", path) }
	for deadline := time.Now().Add(time.Minute); !strings.Contains(show(), "batch_sim000000"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the provider's batch is not shown:\n%s\n%s", show(), stderr)
		}
	}
	list := mustRun(t, "", "batches", "list", "--config", path)
	var listed struct {
		Batches []struct{ ID, Status string }
	}
	decode(t, mustRun(t, "", "batches", "--json", "--config", path), &listed)
	if !strings.Contains(list, id) || len(listed.Batches) != 1 || listed.Batches[0].Status != "in_progress" {
		t.Errorf("%s\n%+v", list, listed)
	}
	if code, _, said := run(t, "", "batches", "cancel", "batch_none", "--config", path); code != 1 || !strings.Contains(said, "not found") {
		t.Errorf("cancelling nothing: %d %s", code, said)
	}
	if code := stop(); code != 0 {
		t.Errorf("serve ended with %d\n%s", code, stderr)
	}
	if !strings.Contains(stderr.String(), "state=sent") {
		t.Errorf("the log says nothing of the batch:\n%s", stderr)
	}
	mustRun(t, "", "batches", "cancel", id, "--config", path)
	_, stderr, _ = serve(t, path)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(show(), "cancelling"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the batch goes on:\n%s\n%s", show(), stderr)
		}
	}
}

// makeBatch uploads one request and makes a batch of it.
func makeBatch(t *testing.T, base string) string {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("purpose", "batch")
	f, _ := w.CreateFormFile("file", "one.jsonl")
	_, _ = io.WriteString(f, `{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}}`)
	_ = w.Close()
	var made struct{ ID string }
	for _, step := range []struct {
		path, kind string
		body       func() io.Reader
	}{
		{"/v1/files", w.FormDataContentType(), func() io.Reader { return &form }},
		{"/v1/batches", "application/json", func() io.Reader {
			return strings.NewReader(`{"input_file_id":"` + made.ID + `","endpoint":"/v1/chat/completions","completion_window":"24h"}`)
		}},
	} {
		res, err := http.Post(base+step.path, step.kind, step.body())
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(res.Body).Decode(&made); err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %d %v", step.path, res.StatusCode, err)
		}
		res.Body.Close()
	}
	return made.ID
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestF35Restart: the real program restarts in its place, by SIGUSR2, while apps ask over connections that they keep and over new
// ones. None of their requests fails, and the ledger has every call that the provider answered.
func TestF35Restart(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	restarts, requests := 3, int64(1000)
	if os.Getenv("OCCAM_FAULTS") != "" {
		restarts, requests = 10, 10_000
	}
	dir := t.TempDir()
	built.Need(t)
	program := built.Program
	var calls atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/chat/completions" {
			calls.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`)
	}))
	defer provider.Close()
	config := filepath.Join(dir, "occam.yaml")
	text := "listen: 127.0.0.1:0\ndata_dir: data\nself_test: false\nproviders: {openai: {type: openai, base_url: " + provider.URL + "/v1}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "serve", "--config", config)
	command.Dir = dir
	starts := make(chan string, 2*restarts)
	var mu sync.Mutex
	var said bytes.Buffer
	command.Stderr = writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		said.Write(p)
		if m := regexp.MustCompile(`API +(http://\S+)/v1`).FindSubmatch(p); m != nil {
			starts <- string(m[1])
		}
		return len(p), nil
	})
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	started := func() string {
		select {
		case base := <-starts:
			return base
		case <-time.After(time.Minute):
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("it did not start:\n%s", said.String())
			return ""
		}
	}
	base := started()
	done, failed := askThrough(t, base, func() { // the restarts, one after the other
		for range restarts {
			before := calls.Load()
			if err := command.Process.Signal(syscall.SIGUSR2); err != nil {
				t.Error(err)
			}
			if at := started(); at != base {
				t.Errorf("it listens on %s after a restart, before on %s", at, base)
			}
			for calls.Load() < before+100 {
				time.Sleep(time.Millisecond)
			}
		}
	}, requests)
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
	t.Logf("%d restarts, %d requests, %d failed", restarts, done, failed)
	if failed > 0 || done < requests {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	export := exec.Command(program, "ledger", "export", "--config", config)
	export.Dir = dir
	rows, err := export.Output()
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(strings.Count(string(rows), `"state":"settled"`)); n != calls.Load() || n != done {
		t.Errorf("%d settled rows, the provider answered %d calls of %d requests", n, calls.Load(), done)
	}
}

// askThrough asks with sixteen clients, half of which connect anew for every request, until the work beside it is done and so many
// requests are.
func askThrough(t *testing.T, base string, work func(), least int64) (done, failed int64) {
	var asked, wrong atomic.Int64
	var finished atomic.Bool
	var clients sync.WaitGroup
	for i := range 16 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}, Timeout: time.Minute}
		defer client.CloseIdleConnections()
		clients.Go(func() {
			for !finished.Load() || asked.Load() < least {
				response, err := client.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"is it?"}]}`))
				asked.Add(1)
				if err != nil {
					wrong.Add(1)
					t.Error(err)
					continue
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"usage"`)) {
					wrong.Add(1)
					t.Errorf("%d %s %v", response.StatusCode, body, err)
				}
			}
		})
	}
	work()
	finished.Store(true)
	clients.Wait()
	return asked.Load(), wrong.Load()
}

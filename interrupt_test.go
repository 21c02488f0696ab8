package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterrupt: the real program, stopped by a real signal in the middle of its work and while it serves, ends cleanly.
func TestInterrupt(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	built.Need(t)
	program := built.Program
	config := filepath.Join(dir, "occam.yaml")
	text := "listen: 127.0.0.1:0\ndata_dir: data\nproviders: {up: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		wait string
		code int
	}{
		"serving":     {[]string{"serve", "--config", config}, "Ready in", 0},
		"in training": {[]string{"demo", "--once"}, "train", 1},
	} {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(program, tc.args...)
			var stderr bytes.Buffer
			said := make(chan bool, 1)
			command.Stderr = writerFunc(func(p []byte) (int, error) {
				stderr.Write(p)
				if strings.Contains(stderr.String(), tc.wait) {
					select {
					case said <- true:
					default:
					}
				}
				return len(p), nil
			})
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			<-said
			if err := command.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- command.Wait() }()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				_ = command.Process.Kill()
				t.Fatalf("still running a minute after the interrupt:\n%s", stderr.String())
			}
			if code := command.ProcessState.ExitCode(); code != tc.code || strings.Contains(stderr.String(), "panic") {
				t.Errorf("exit %d, want %d:\n%s", code, tc.code, stderr.String())
			}
		})
	}
	t.Run("twice", func(t *testing.T) { secondSignal(t, program) })
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "occam-demo-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) < time.Minute {
			t.Logf("a demo's folder is left: %s (another demo may be running)", dir)
		}
	}
}

// secondSignal (F34): a stop waits for an answer under way; a second signal does not.
func secondSignal(t *testing.T, program string) {
	asked := make(chan bool, 1)
	provider := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- true
		<-r.Context().Done()
	}))
	defer provider.Close()
	config := filepath.Join(t.TempDir(), "occam.yaml")
	text := "listen: 127.0.0.1:0\ndata_dir: data\nproviders: {up: {type: openai, base_url: " + provider.URL + "/v1}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "serve", "--config", config)
	address := make(chan string, 1)
	api := regexp.MustCompile(`API +(http://\S+)/v1`)
	command.Stderr = writerFunc(func(p []byte) (int, error) {
		if m := api.FindSubmatch(p); m != nil {
			address <- string(m[1])
		}
		return len(p), nil
	})
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	base := <-address
	go func() {
		response, err := http.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[]}`))
		if err == nil {
			_ = response.Body.Close()
		}
	}()
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // until it is no longer ready
		response, err := http.Get(base + "/readyz")
		if err != nil {
			break
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("still ready after the first signal")
		}
	}
	select {
	case <-ended:
		t.Fatal("the first signal did not wait for the answer under way")
	case <-time.After(200 * time.Millisecond):
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = command.Process.Kill()
		t.Fatal("the second signal did not end it")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestF31MemoryCap: the real program in a control group of 256 MiB, or, where the machine permits none, with GOMEMLIMIT of as much,
// takes bodies at its limit from more apps than fit: some get their answer and the others a 503 that they may repeat. It is not
// killed, and never takes more than 240 MiB.
func TestF31MemoryCap(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	lasts := 3 * time.Second
	if os.Getenv("OCCAM_FAULTS") != "" {
		lasts = 30 * time.Second
	}
	const bound = 256 << 20
	dir := t.TempDir()
	built.Need(t)
	program := built.Program
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(200 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"`+strings.Repeat("yes ", 1<<18)+`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`)
	}))
	defer provider.Close()
	config := filepath.Join(dir, "occam.yaml")
	text := "listen: 127.0.0.1:0\ndata_dir: data\nself_test: false\nproviders: {openai: {type: openai, base_url: " + provider.URL + "/v1}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	group, killed := memoryGroup(t, bound)
	serve := program + " serve --config " + config
	command := exec.Command("sh", "-c", "exec "+serve)
	if group != "" {
		command = exec.Command("sh", "-c", "echo $$ > "+group+"/cgroup.procs && exec "+serve)
	} else {
		command.Env = append(os.Environ(), "GOMEMLIMIT="+strconv.Itoa(bound))
	}
	command.Dir = dir
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
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	base := <-address
	good, shed := crowdOf(t, 64, base, lasts)
	peak := peakMemory(t, command.Process.Pid)
	t.Logf("in a control group: %v; %d answered, %d told to come back, peak %d MiB, %d killed", group != "", good, shed, peak>>20, killed())
	if good == 0 || shed == 0 {
		t.Errorf("%d answered, %d told to come back: the load is not what this test is about", good, shed)
	}
	if peak > 240<<20 {
		t.Errorf("it took %d MiB at its peak", peak>>20)
	}
	if n := killed(); n != 0 {
		t.Errorf("%d processes of the group were killed", n)
	}
	if status := postLarge(base, 100); status != http.StatusOK {
		t.Errorf("afterwards a small request gets %d", status)
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Error(err)
	}
}

// crowdOf has n apps send bodies of nearly 4 MiB, over and over.
func crowdOf(t *testing.T, n int, base string, lasts time.Duration) (good, shed int64) {
	var answered, refused atomic.Int64
	var apps sync.WaitGroup
	end := time.Now().Add(lasts)
	for range n {
		apps.Go(func() {
			for time.Now().Before(end) {
				switch status := postLarge(base, 4<<20-200); status {
				case http.StatusOK:
					answered.Add(1)
				case http.StatusServiceUnavailable:
					refused.Add(1)
					time.Sleep(100 * time.Millisecond)
				default:
					t.Errorf("status %d", status)
				}
			}
		})
	}
	apps.Wait()
	return answered.Load(), refused.Load()
}

// postLarge posts a prompt of so many bytes. A connection that is cut while it sends counts as refused: the answer was on its way.
func postLarge(base string, size int) (status int) {
	body := `{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat("x", size) + `"}]}`
	response, err := http.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return http.StatusServiceUnavailable
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// memoryGroup makes a control group with a limit of memory. It returns "" where the machine permits none.
func memoryGroup(t *testing.T, bound int) (dir string, killed func() int) {
	t.Helper()
	none := func() int { return 0 }
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", none
	}
	for line := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) < 3 {
			continue
		}
		root, limit, events := "/sys/fs/cgroup", "memory.max", "memory.events"
		switch part[1] {
		case "":
		case "memory":
			root, limit, events = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"
		default:
			continue
		}
		dir := filepath.Join(root, part[2], fmt.Sprint("occam-test-", os.Getpid()))
		if os.Mkdir(dir, 0o700) != nil {
			continue
		}
		t.Cleanup(func() {
			for range 100 { // until the process has left it
				if os.Remove(dir) == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		if os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(bound)), 0o600) != nil {
			continue
		}
		return dir, func() int {
			text, _ := os.ReadFile(filepath.Join(dir, events))
			for line := range bytes.Lines(text) {
				if n, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
					kills, _ := strconv.Atoi(string(n))
					return kills
				}
			}
			return 0
		}
	}
	t.Log("this machine permits no control group for memory: the program is bounded by GOMEMLIMIT alone")
	return "", none
}

// peakMemory is the most memory that a process has had in RAM, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("the program is gone: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			return n << 10
		}
	}
	t.Fatal("the system does not say how much memory a process took")
	return 0
}

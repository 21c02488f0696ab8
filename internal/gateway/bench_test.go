package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/sample"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

// The bench runs four processes on loopback: this one makes the load, and three copies of the test binary are the provider,
// the floor (Go's own ReverseProxy, with the body read first) and the gateway with a real ledger. CPU is what the operating
// system charged the measured process. It ends by comparing the ledger with the provider's own count.
//
//	make bench-gateway            # or: OCCAM_BENCH=1 go test -run TestBenchGateway -v ./internal/gateway

const benchRole = "OCCAM_BENCH_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func() error{"provider": benchProvider, "floor": benchFloor, "gateway": benchGateway}
	if role := roles[os.Getenv(benchRole)]; role != nil {
		if err := role(); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// serveRole listens on a free port, says which on stdout, and serves until the parent says to stop.
func serveRole(h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, h)
}

func benchProvider() error {
	p := &provider{answer: strings.Repeat("the ticket is a billing question about order A12345 ", 5)[:250]}
	whole := []byte(p.reply())
	var frames [][]byte
	for _, f := range p.frames() {
		frames = append(frames, []byte(f))
	}
	var chats atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, chats.Load()) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		chats.Add(1)
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
			_, _ = w.Write(whole)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, f := range frames {
			if _, err := w.Write(f); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	return serveRole(mux)
}

func benchFloor() error {
	to, err := url.Parse(os.Getenv("OCCAM_BENCH_UPSTREAM"))
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true},
		FlushInterval: -1,
	}
	return serveRole(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // else the proxy loses the end of streams that come at once
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
}

func benchGateway() error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if path := os.Getenv("OCCAM_BENCH_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	durability := store.Full
	if os.Getenv("OCCAM_BENCH_DURABILITY") == "normal" {
		durability = store.Normal
	}
	dsn := os.Getenv("OCCAM_BENCH_LEDGER")
	ledger, err := store.Open(ctx, dsn, store.Options{Durability: durability})
	if err != nil {
		return err
	}
	snap, err := benchSnapshot()
	if err != nil {
		return err
	}
	s, err := New(Options{Ledger: ledger, Rand: func() float64 { return 1 }})
	if err != nil {
		return err
	}
	if err := s.Publish(snap); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }() // the parent closes it
	fmt.Println(l.Addr())
	if err := s.Serve(ctx, l, 10*time.Second); err != nil {
		return err
	}
	pprof.StopCPUProfile()
	s.Close()
	if err := ledger.Close(); err != nil { // free rows are written in batches, the last one here
		return err
	}
	if ledger, err = store.Open(context.Background(), dsn, store.Options{Mode: store.ReadOnly}); err != nil {
		return err
	}
	counts, err := ledger.Counts(context.Background())
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(os.Stdout).Encode(counts), ledger.Close())
}

func benchSnapshot() (*Snapshot, error) {
	up, err := engine.NewUpstream(engine.Options{Name: "openai", BaseURL: os.Getenv("OCCAM_BENCH_UPSTREAM") + "/v1", Key: "sk-bench"})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(os.Getenv("OCCAM_BENCH_MODEL"))
	if err != nil {
		return nil, err
	}
	model, _, err := specialist.Decode(data)
	if err != nil {
		return nil, err
	}
	t := sample.Task()
	id := calibration.Identity{Task: t.Name, Specialist: model.Hash(), Score: model.ScoreDefinition()}
	everything := &calibration.Certificate{Task: id.Task, Specialist: id.Specialist, Score: id.Score, Accepted: 1, Risk: .5, Threshold: -1e9, Floor: -1e9}
	return &Snapshot{Fallback: up, Book: cost.Default(), Limits: Limits{InFlight: 4096}, Tasks: []Task{{Task: &t,
		Tiers: []Tier{{Specialist: model, Tier: cascade.Tier{Name: "linear", Mode: cascade.Live, Identity: id, Certificate: everything}}}}}}, nil
}

// A child is one process of the bench.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	url    string
}

func startRole(t *testing.T, role string, env ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), append(env, benchRole+"="+role)...)
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewReader(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Signal(syscall.SIGKILL); _ = c.cmd.Wait() })
	line, err := c.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not start: %v", role, err)
	}
	c.url = "http://" + strings.TrimSpace(line)
	return c
}

func (c *child) cpu() time.Duration { return cpuOf(c.cmd.Process.Pid) }

// cpuOf is user and system time that a process has used.
func cpuOf(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+2:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (c *child) peakMB() (mb int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	for _, line := range strings.Split(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return kb / 1024
		}
	}
	return 0
}

// A load is what one run sends.
type load struct {
	name    string
	body    func(i int64) []byte
	stream  bool
	workers int           // closed loop
	rate    float64       // open loop, when > 0: latency counts from the scheduled time
	window  time.Duration // measured, after a warm-up of a third
	total   int64         // stop after so many requests instead
}

type measured struct {
	PerSecond, CPUMicros, P50, P99 float64
	LoadMicros                     float64 // CPU that making the load takes a request, on the same cores
	PeakMB                         int
	Requests, Failed               int64
}

func (l load) run(t *testing.T, c *child) measured {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	var sent, done, failed atomic.Int64
	var mu sync.Mutex
	var latencies []float64
	warm := time.Now().Add(l.window / 3)
	end := warm.Add(l.window)
	one := func(i int64, scheduled time.Time) {
		err := l.one(client, c.url, i)
		done.Add(1)
		if err != nil && failed.Add(1) <= 3 {
			t.Logf("%s: %v", l.name, err)
		}
		if scheduled.After(warm) {
			mu.Lock()
			latencies = append(latencies, float64(time.Since(scheduled).Microseconds())/1000)
			mu.Unlock()
		}
	}
	var cpu0, cpu1, own0, own1 time.Duration
	var done0, done1 int64
	var wg sync.WaitGroup
	wg.Go(func() {
		if l.total > 0 {
			return
		}
		time.Sleep(time.Until(warm))
		cpu0, own0, done0 = c.cpu(), cpuOf(os.Getpid()), done.Load()
		time.Sleep(time.Until(end))
		cpu1, own1, done1 = c.cpu(), cpuOf(os.Getpid()), done.Load()
	})
	if l.rate > 0 {
		every := time.Duration(float64(time.Second) / l.rate)
		for at := time.Now(); at.Before(end); at = at.Add(every) {
			time.Sleep(time.Until(at))
			wg.Go(func() { one(sent.Add(1), at) })
		}
	} else {
		for range l.workers {
			wg.Go(func() {
				for {
					i := sent.Add(1)
					if l.total > 0 && i > l.total || l.total == 0 && time.Now().After(end) {
						sent.Add(-1)
						return
					}
					one(i, time.Now())
				}
			})
		}
	}
	wg.Wait()
	slices.Sort(latencies)
	at := func(q float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[min(int(q*float64(len(latencies))), len(latencies)-1)]
	}
	each := func(cpu time.Duration) float64 { return float64(cpu.Microseconds()) / float64(max(done1-done0, 1)) }
	return measured{PerSecond: float64(done1-done0) / l.window.Seconds(), CPUMicros: each(cpu1 - cpu0), LoadMicros: each(own1 - own0),
		P50: at(.5), P99: at(.99), PeakMB: c.peakMB(), Requests: sent.Load(), Failed: failed.Load()}
}

func (l load) one(client *http.Client, base string, i int64) error {
	req, err := http.NewRequest("POST", base+"/v1/chat/completions", bytes.NewReader(l.body(i)))
	if err != nil {
		return err
	}
	req.Header["Content-Type"] = []string{"application/json"}
	req.Header["Authorization"] = []string{"Bearer sk-app"}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode != 200:
		return fmt.Errorf("status %d: %.200s", res.StatusCode, body)
	case l.stream && !bytes.HasSuffix(body, []byte("data: [DONE]\n\n")):
		return fmt.Errorf("a stream of %d bytes without its end mark", len(body))
	case !l.stream && !bytes.Contains(body, []byte(`"usage"`)):
		return fmt.Errorf("no reply: %.200s", body)
	}
	return nil
}

func chatBody(model, system, user string, stream bool) []byte {
	m := map[string]any{"model": model, "temperature": 0, "max_tokens": 50, "messages": []any{
		map[string]any{"role": "system", "content": system}, map[string]any{"role": "user", "content": user}}}
	if stream {
		m["stream"], m["stream_options"] = true, map[string]any{"include_usage": true}
	}
	b, _ := json.Marshal(m)
	return b
}

func TestBenchGateway(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("set OCCAM_BENCH=1, or run make bench-gateway")
	}
	window := 4 * time.Second
	if d, err := time.ParseDuration(os.Getenv("OCCAM_BENCH_WINDOW")); err == nil {
		window = d
	}
	dir := t.TempDir()
	model := filepath.Join(dir, "tickets.occam")
	trained, err := specialist.Train(context.Background(), sample.Fields(), sample.Tickets(1, 2000), specialist.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(model, trained.Encode(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	up := startRole(t, "provider")
	filler := strings.Repeat("My order has not arrived and I would like to know where it is please. ", 30)[:2000]
	pass := func(stream bool) func(int64) []byte {
		return func(i int64) []byte {
			return chatBody("gpt-4o-mini", "Classify the ticket.", "#"+strconv.FormatInt(i, 10)+" "+filler, stream)
		}
	}
	tickets := sample.Tickets(7, 2000)
	task := sample.Task()
	texts := make([]string, 2000)
	for i := range texts {
		texts[i] = ticketOf(60, tickets, i)
	}
	triage := func(i int64) []byte { return taskRequest(&task, texts[i%2000]) }
	loads := []load{
		{name: "pass-through, 32 at once", body: pass(false), workers: 32, window: window},
		{name: "stream, 32 at once", body: pass(true), stream: true, workers: 32, window: window},
		{name: "pass-through, 500 a second", body: pass(false), rate: 500, window: window},
		{name: "pass-through, 256 at once", body: pass(false), workers: 256, window: window},
		{name: "2,000 streams, 64 at once", body: pass(true), stream: true, workers: 64, total: 2000},
		{name: "specialist, 32 at once", body: triage, workers: 32, window: window},
	}
	only := os.Getenv("OCCAM_BENCH_ONLY")
	fmt.Printf("%-28s %-16s %10s %10s %9s %9s %9s %8s\n", "load", "server", "requests/s", "CPU µs", "load's µs", "p50 ms", "p99 ms", "peak MB")
	for _, l := range loads {
		if only != "" && !strings.Contains(l.name, only) {
			continue
		}
		var floor measured
		if !strings.HasPrefix(l.name, "specialist") {
			floor = benchOne(t, l, "floor", "", dir, up, model)
		}
		for _, durability := range []string{"normal", "full"} {
			m := benchOne(t, l, "gateway", durability, dir, up, model)
			if floor.CPUMicros > 0 {
				fmt.Printf("%-28s %-16s CPU %.2f x the floor, added p99 %+.2f ms\n", "", "", m.CPUMicros/floor.CPUMicros, m.P99-floor.P99)
			}
		}
	}
}

// ticketOf is a ticket of so many words: the i-th and those after it.
func ticketOf(words int, tickets []task.Example, i int) string {
	var all []string
	for ; len(all) < words; i++ {
		all = append(all, strings.Fields(tickets[i%len(tickets)].Text)...)
	}
	return strings.Join(all[:words], " ")
}

// taskRequest is what an app sends that has its tickets classified by a general model.
func taskRequest(t *task.Task, text string) []byte {
	b, _ := json.Marshal(map[string]any{"model": t.Generalist, "messages": []any{
		map[string]any{"role": "system", "content": t.System}, map[string]any{"role": "user", "content": text}}})
	return b
}

// benchOne measures one server under one load, and checks the ledger against the provider.
func benchOne(t *testing.T, l load, role, durability, dir string, up *child, model string) measured {
	t.Helper()
	before := count(t, up)
	c := startRole(t, role, "OCCAM_BENCH_UPSTREAM="+up.url, "OCCAM_BENCH_DURABILITY="+durability, "OCCAM_BENCH_MODEL="+model,
		"OCCAM_BENCH_LEDGER=sqlite:"+filepath.Join(dir, fmt.Sprintf("%s-%s-%d", role, durability, time.Now().UnixNano())))
	m := l.run(t, c)
	fmt.Printf("%-28s %-16s %10.0f %10.1f %9.1f %9.2f %9.2f %8d\n", l.name, strings.TrimSuffix(role+" "+durability, " "), m.PerSecond, m.CPUMicros, m.LoadMicros,
		m.P50, m.P99, m.PeakMB)
	if m.Failed > 0 {
		t.Errorf("%s on %s: %d of %d requests failed", l.name, role, m.Failed, m.Requests)
	}
	if role != "gateway" {
		_ = c.cmd.Process.Kill()
		return m
	}
	_ = c.stdin.Close()
	var counts store.Counts
	if err := json.NewDecoder(c.stdout).Decode(&counts); err != nil {
		t.Errorf("%s: the gateway did not end well: %v", l.name, err)
	}
	calls := count(t, up) - before
	if counts.Settled != calls || counts.Settled+counts.Free != m.Requests || counts.Open+counts.Estimated+counts.Unpriced+counts.Void != 0 {
		t.Errorf("%s: %d requests, the provider counts %d calls, the ledger %+v", l.name, m.Requests, calls, counts)
	}
	return m
}

func count(t *testing.T, up *child) int64 {
	t.Helper()
	res, err := http.Get(up.url + "/count")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	n, _ := strconv.ParseInt(string(text), 10, 64)
	return n
}

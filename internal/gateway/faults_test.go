package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/store"
)

// quick sets short timeouts upstream.
func quick(t engine.Timeouts) func(*world, *Options) {
	return func(w *world, _ *Options) {
		u, err := engine.NewUpstream(engine.Options{Name: "openai", BaseURL: w.URL + "/v1", Key: "sk-provider-secret", Timeouts: t})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(u.Close)
		w.snap.Fallback = u
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// bills are a provider's own, by the ID of the ledger's row that it was sent.
type bills struct {
	mu sync.Mutex
	by map[string]cost.Amount
}

func (b *bills) add(r *http.Request, amount cost.Amount) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil {
		b.by = map[string]cost.Amount{}
	}
	b.by[r.Header.Get("X-Client-Request-Id")] += amount
}

// meteredStream bills the prompt with the first chunk and a token with every further one, and notices when it is cancelled.
func meteredStream(bill *bills, cancelled *atomic.Int64, gap time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		bill.add(r, 20*2500)
		for i := range 20 {
			bill.add(r, 10000)
			fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"word%d "},"logprobs":null,"finish_reason":null}]}`+"\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-time.After(gap):
			case <-r.Context().Done():
				cancelled.Add(1)
				return
			}
		}
		fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n"+`data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":20}}`+"\n\ndata: [DONE]\n\n")
	}
}

// F13: the app goes away in the middle of a stream.
func TestF13DisconnectInAStream(t *testing.T) {
	for _, drain := range []bool{false, true} {
		t.Run(fmt.Sprintf("drain %v", drain), func(t *testing.T) {
			w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.Drain = drain })
			var bill bills
			var cancelled atomic.Int64
			w.handle = meteredStream(&bill, &cancelled, 2*time.Millisecond)
			n := size(100, 500)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					req, _ := http.NewRequestWithContext(ctx, "POST", w.web.URL+"/v1/chat/completions", strings.NewReader(streamBody))
					res, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					lines := bufio.NewScanner(res.Body)
					for range i % 10 * 2 {
						lines.Scan()
					}
					cancel()
					res.Body.Close()
				})
				if i%20 == 19 {
					wg.Wait()
				}
			}
			wg.Wait()
			rows := w.book.paid()
			if len(rows) != n {
				t.Fatalf("%d rows for %d requests", len(rows), n)
			}
			settled := 0
			for _, a := range rows {
				low, high := a.CostLow, a.CostHigh
				if a.State == store.Settled {
					settled++
					low, high = a.Cost, a.Cost
				}
				if b := bill.by[a.ID]; b < low || b > high {
					t.Errorf("%s: the bill of %v is outside %v to %v", a.State, b, low, high)
				}
			}
			if drain && (settled != n || cancelled.Load() != 0) {
				t.Errorf("drained: %d of %d settled, %d cancelled", settled, n, cancelled.Load())
			}
			if !drain && cancelled.Load() < int64(n)/2 {
				t.Errorf("only %d of %d were cancelled upstream", cancelled.Load(), n)
			}
		})
	}
}

// F14: apps go away before the first byte, two hundred a second: each call is cancelled upstream as soon as its own app is gone.
func TestF14DisconnectBeforeTheFirstByte(t *testing.T) {
	w := newWorld(t)
	n := size(50, 500)
	type call struct{ left, cancelled time.Time }
	calls := make([]call, n)
	arrived, cancelled := make(chan int, n), make(chan int, n)
	w.handle = func(_ http.ResponseWriter, r *http.Request) {
		i, _ := strconv.Atoi(r.Header.Get("Idempotency-Key"))
		arrived <- i
		<-r.Context().Done()
		calls[i].cancelled = time.Now()
		cancelled <- i
	}
	leave := make([]context.CancelFunc, n)
	var wg sync.WaitGroup
	for i := range n {
		var ctx context.Context
		ctx, leave[i] = context.WithCancel(context.Background())
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", w.web.URL+"/v1/chat/completions", strings.NewReader(plainBody))
			req.Header.Set("Idempotency-Key", strconv.Itoa(i))
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	for range n {
		<-arrived
	}
	for i := range n {
		calls[i].left = time.Now()
		leave[i]()
		time.Sleep(5 * time.Millisecond)
	}
	wg.Wait()
	late := make([]time.Duration, 0, n)
	for range n {
		i := <-cancelled
		late = append(late, calls[i].cancelled.Sub(calls[i].left))
	}
	within(t, "half of the calls were cancelled after", percentile(late, 50), 100*time.Millisecond)
	within(t, "the slowest was cancelled after", slices.Max(late), 100*time.Millisecond)
	for _, a := range w.book.paid() {
		if a.State != store.Estimated || a.CostLow != 0 || a.CostHigh == 0 {
			t.Errorf("%+v", a)
		}
	}
	wait(t, "slots are freed", func() bool { return w.server.inFlight.Load() == 0 })
}

// F15: an upstream that never answers.
func TestF15NoAnswer(t *testing.T) {
	w := newWorld(t, quick(engine.Timeouts{FirstByte: 30 * time.Millisecond}))
	w.handle = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	began := time.Now()
	res, body := w.post(plainBody)
	within(t, "beyond the timeout", time.Since(began)-30*time.Millisecond, 100*time.Millisecond)
	if res.StatusCode != 504 || !strings.Contains(body, "upstream_timeout") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if a := w.book.paid()[0]; a.State != store.Estimated {
		t.Errorf("%+v", a)
	}
	wait(t, "the slot is freed", func() bool { return w.server.inFlight.Load() == 0 })
}

// F16, F17, F19: a stream that stalls, breaks or trickles on ends with an error event and without an end mark.
func TestF16ToF19StreamsThatDoNotEnd(t *testing.T) {
	first := func(w http.ResponseWriter, p *provider) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, f := range p.frames()[:3] {
			fmt.Fprint(w, f)
			w.(http.Flusher).Flush()
		}
	}
	for name, c := range map[string]struct {
		timeouts engine.Timeouts
		then     func(w http.ResponseWriter, r *http.Request)
		code     string
	}{
		"stall": {engine.Timeouts{Idle: 50 * time.Millisecond}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "upstream_timeout"},
		"reset": {engine.Timeouts{}, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "upstream_broken"},
		"reset in a line": {engine.Timeouts{}, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"id":"chatcm`)
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
			panic(http.ErrAbortHandler)
		}, "upstream_broken"},
		"reset between lines": {engine.Timeouts{}, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"id":"chatcmpl-1","choices":[]}`+"\n")
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
			panic(http.ErrAbortHandler)
		}, "upstream_broken"},
		"trickle": {engine.Timeouts{Idle: time.Second, Total: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, ":\n")
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}, "upstream_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, quick(c.timeouts), func(w *world, _ *Options) { w.snap.Limits.Patience = engine.Patience{} })
			w.handle = func(rw http.ResponseWriter, r *http.Request) {
				w.charge()
				first(rw, w.provider)
				c.then(rw, r)
			}
			_, body := w.post(streamBody)
			events := events(t, body)
			last := events[len(events)-1]
			if !strings.Contains(last, c.code) || strings.Contains(body, "[DONE]") {
				t.Errorf("stream: %s", body)
			}
			for _, e := range events {
				if !json.Valid([]byte(e)) {
					t.Errorf("an event that is no JSON: %s", e)
				}
			}
			a := w.book.paid()
			if len(a) != 1 || a[0].State != store.Estimated || w.bill < a[0].CostLow || w.bill > a[0].CostHigh {
				t.Errorf("ledger %+v, bill %v", a, w.bill)
			}
			if n := len(w.seen()); n != 1 {
				t.Errorf("%d calls although the app had bytes", n)
			}
		})
	}
}

// events splits a stream the way a client does: events end with a blank line.
func events(t *testing.T, stream string) (out []string) {
	t.Helper()
	for _, block := range strings.Split(stream, "\n\n") {
		var data []string
		for _, line := range strings.Split(block, "\n") {
			if d, ok := strings.CutPrefix(line, "data: "); ok {
				data = append(data, d)
			}
		}
		if data != nil {
			out = append(out, strings.Join(data, "\n"))
		}
	}
	if len(out) == 0 {
		t.Fatalf("no events in %q", stream)
	}
	return out
}

// F18: an upstream that goes silent leaves nothing behind.
func TestF18SilentUpstreamsLeakNothing(t *testing.T) {
	w := newWorld(t, quick(engine.Timeouts{FirstByte: 20 * time.Millisecond}))
	w.handle = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	w.post(plainBody)
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { w.post(plainBody) })
	}
	wg.Wait()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+5; time.Sleep(time.Millisecond) {
		http.DefaultClient.CloseIdleConnections()
		w.snap.Fallback.Close() // a connection that was made too late waits for its next use
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines were %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// F20: malformed replies. None panics, none is believed, none is billed twice or below zero.
func TestF20MalformedReplies(t *testing.T) {
	chunk := func(more string) string {
		return `data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"hello there"},"finish_reason":null}]` + more + "}\n\n"
	}
	usage := `,"usage":{"prompt_tokens":20,"completion_tokens":4}`
	known := cost.Amount(20*2500 + 4*10000)
	const sse, js = "text/event-stream", "application/json"
	long := strings.Repeat("x", 10<<20)
	for _, c := range []struct {
		name, kind, body string
		state            store.State
		cost             cost.Amount
		status           int
	}{
		{"good", js, `{"choices":[]` + usage + `}`, store.Settled, known, 200},
		{"usage null", js, `{"choices":[],"usage":null}`, store.Estimated, 0, 200},
		{"usage absent", js, `{"choices":[]}`, store.Estimated, 0, 200},
		{"usage negative", js, `{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":1}}`, store.Estimated, 0, 200},
		{"usage huge", js, `{"choices":[],"usage":{"prompt_tokens":1e30,"completion_tokens":1}}`, store.Estimated, 0, 200},
		{"usage a string", js, `{"choices":[],"usage":"5"}`, store.Estimated, 0, 200},
		{"usage counts strings", js, `{"choices":[],"usage":{"prompt_tokens":"5"}}`, store.Estimated, 0, 200},
		{"bad JSON", js, `{"choices":[`, store.Estimated, 0, 502},
		{"empty", js, ``, store.Estimated, 0, 502},
		{"HTML", "text/html", `<html>`, store.Estimated, 0, 502},
		{"wrong type for good JSON", "text/plain", `{"choices":[]` + usage + `}`, store.Settled, known, 200},
		{"a list", js, `[]`, store.Estimated, 0, 502},
		{"null", js, `null`, store.Estimated, 0, 502},
		{"SSE as JSON", js, chunk("") + "data: [DONE]\n\n", store.Estimated, 0, 502},
		{"JSON as SSE", sse, `{"choices":[]` + usage + `}`, store.Estimated, 0, 200},
		{"stream without usage", sse, chunk("") + "data: [DONE]\n\n", store.Estimated, 0, 200},
		{"stream with usage in the chunk", sse, chunk(usage) + "data: [DONE]\n\n", store.Settled, known, 200},
		{"two usage chunks", sse, chunk(usage) + chunk(usage) + "data: [DONE]\n\n", store.Settled, known, 200},
		{"usage then broken usage", sse, chunk(usage) + chunk(`,"usage":{"prompt_tokens":-1}`) + "data: [DONE]\n\n", store.Estimated, 0, 200},
		{"no end mark, no finish", sse, chunk(usage), store.Estimated, 0, 200},
		{"no end mark but a finish", sse, `data: {"choices":[{"delta":{},"finish_reason":"stop"}]` + usage + "}\n\n", store.Settled, known, 200},
		{"no final newline", sse, chunk(usage) + "data: [DONE]", store.Settled, known, 200},
		{"cut line", sse, chunk("") + `data: {"choices":[{"del`, store.Estimated, 0, 200},
		{"10 MB line", sse, "data: " + long + "\n\n" + chunk(usage) + "data: [DONE]\n\n", store.Settled, known, 200},
		{"10 MB usage chunk", sse, `data: {"x":"` + long + `"` + usage + "}\n\ndata: [DONE]\n\n", store.Estimated, 0, 200},
		{"comments", sse, ": ping\n\n" + chunk(usage) + ": ping\n\ndata: [DONE]\n\n", store.Settled, known, 200},
		{"CRLF", sse, strings.ReplaceAll(chunk(usage)+"data: [DONE]\n\n", "\n", "\r\n"), store.Settled, known, 200},
		{"usage null in chunks", sse, chunk(`,"usage":null`) + chunk(usage) + "data: [DONE]\n\n", store.Settled, known, 200},
		{"error event", sse, chunk("") + `data: {"error":{"message":"boom"}}` + "\n\n", store.Estimated, 0, 200},
		{"empty stream", sse, "", store.Estimated, 0, 200},
		{"only the end mark", sse, "data: [DONE]\n\n", store.Estimated, 0, 200},
		{"end mark twice", sse, chunk(usage) + "data: [DONE]\n\ndata: [DONE]\n\n", store.Settled, known, 200},
		{"data after the end mark", sse, chunk(usage) + "data: [DONE]\n\n" + chunk(`,"usage":{"prompt_tokens":99,"completion_tokens":9}`), store.Settled, known, 200},
		{"binary", sse, "data: \x00\xff\xfe\n\ndata: [DONE]\n\n", store.Estimated, 0, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.handle = func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", c.kind)
				io.WriteString(rw, c.body)
			}
			res, body := w.post(streamBody)
			if res.StatusCode != c.status || c.status == 200 && !strings.HasPrefix(body, c.body[:min(len(c.body), 100)]) {
				t.Errorf("%d %.200s", res.StatusCode, body)
			}
			if c.status == 200 && c.name != "data after the end mark" && body != c.body {
				t.Errorf("%d bytes became %d", len(c.body), len(body))
			}
			a := w.book.paid()
			if len(a) != 1 || a[0].State != c.state || c.cost != 0 && a[0].Cost != c.cost || a[0].Cost < 0 || a[0].CostLow < 0 || a[0].CostHigh < a[0].Cost {
				t.Errorf("ledger %+v", a)
			}
		})
	}
}

// F21: usage is missing in a stream. The estimate is near, the flag is set, and what the gateway asks for in the app's place
// does not reach the app.
func TestF21UsageIsAbsent(t *testing.T) {
	w := newWorld(t)
	text := strings.Repeat("Your parcel left our warehouse on Tuesday and should reach you within two working days. ", 4)
	w.answer = text
	prompt := strings.Repeat("Where is my order? I have waited for it since last week and nobody answers me. ", 5)
	input, _ := engine.CountTokens("gpt-4o", prompt)
	output, _ := engine.CountTokens("gpt-4o", text)
	honest := cost.Amount((input+6)*2500 + output*10000) // three tokens a message and three for the reply
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for i, f := range w.frames() {
			if i != len(w.frames())-2 { // no usage
				fmt.Fprint(rw, f)
			}
		}
	}
	w.post(`{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"` + prompt + `"}]}`)
	a := w.book.paid()[0]
	if off := float64(a.Cost-honest) / float64(honest); a.State != store.Estimated || off > .1 || off < -.1 {
		t.Errorf("%s: estimated %v, billed %v, off by %.1f %%", a.State, a.Cost, honest, 100*off)
	}
	if honest < a.CostLow || honest > a.CostHigh {
		t.Errorf("%v is outside %v to %v", honest, a.CostLow, a.CostHigh)
	}
}

func TestF21InjectedUsageDoesNotReachTheApp(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.AskUsage = true })
	var asked string
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = string(body)
		rw.Header().Set("Content-Type", "text/event-stream")
		for _, f := range w.frames() {
			if strings.Contains(asked, "include_usage") && !strings.Contains(f, `"usage"`) && !strings.Contains(f, "[DONE]") {
				f = strings.Replace(f, "}\n\n", `,"usage":null}`+"\n\n", 1)
			}
			if strings.Contains(asked, "include_usage") || !strings.Contains(f, `"usage"`) {
				fmt.Fprint(rw, f)
				rw.(http.Flusher).Flush()
			}
		}
	}
	plain := `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"say \"usage\":null"}]}`
	w.answer = `he said ","usage":null and {"usage":{}}`
	_, with := w.post(plain)
	if !strings.Contains(asked, `"include_usage":true`) {
		t.Fatalf("usage was not asked for: %s", asked)
	}
	w.snap = &Snapshot{Fallback: w.snap.Fallback, Book: w.snap.Book}
	w.publish()
	_, without := w.post(plain)
	if strings.Contains(asked, "include_usage") {
		t.Fatalf("usage was asked for: %s", asked)
	}
	if with != without {
		t.Errorf("the app got\n%s\ninstead of\n%s", with, without)
	}
	if rows := w.book.paid(); rows[0].State != store.Settled || rows[1].State != store.Estimated {
		t.Errorf("%+v", rows)
	}
}

// F22: an upstream that fails every time is not hammered.
func TestF22RetryStorm(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.Patience = engine.Patience{} })
	var calls atomic.Int64
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		rw.WriteHeader(500)
		io.WriteString(rw, "{}")
	}
	var wg sync.WaitGroup
	const n = 200
	for range n {
		wg.Go(func() {
			if res, _ := w.post(plainBody); res.StatusCode != 500 && res.StatusCode != 503 {
				t.Errorf("status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	if calls.Load() > n*12/10+3 {
		t.Errorf("%d calls for %d requests", calls.Load(), n)
	}
	if len(w.book.paid()) != int(calls.Load()) {
		t.Errorf("%d rows for %d calls", len(w.book.paid()), calls.Load())
	}
}

// F23: the fallback answers while the first upstream is dead, and every attempt is in the ledger.
func TestF23Fallback(t *testing.T) {
	w := newWorld(t)
	dead := httptest.NewServer(nil)
	dead.Close()
	w.snap.Models = map[string]engine.Route{"gpt-4o": {Targets: []engine.Target{
		{Upstream: w.upstream("dead", dead.URL), Model: "gpt-4o"}, {Upstream: w.snap.Fallback, Model: "gpt-4o"}}}}
	w.publish()
	for range 15 {
		if res, body := w.post(plainBody); res.StatusCode != 200 || body != w.reply() {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	tried := 0
	for _, a := range w.book.paid() {
		if a.Provider == "dead" {
			tried++
			if a.State != store.Void || a.Answered {
				t.Errorf("%+v", a)
			}
		}
	}
	if tried == 0 || tried > 4 {
		t.Errorf("the dead upstream was tried %d times", tried)
	}
	if w.book.total() != w.bill {
		t.Errorf("ledger %v, bill %v", w.book.total(), w.bill)
	}
}

// F27: identical requests are not merged.
func TestF27IdenticalRequests(t *testing.T) {
	w := newWorld(t)
	n := size(100, 500)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { w.post(plainBody) })
	}
	wg.Wait()
	if len(w.seen()) != n || w.book.total() != w.bill {
		t.Errorf("%d calls; ledger %v, bill %v", len(w.seen()), w.book.total(), w.bill)
	}
}

// F28: beyond its limit the gateway refuses at once and says when to come back; what it took on it finishes.
func TestF28Overload(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.InFlight = 20 })
	release := make(chan struct{})
	w.handle = func(rw http.ResponseWriter, _ *http.Request) { <-release; w.charge(); io.WriteString(rw, w.reply()) }
	var good, shed atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			res, body := w.post(plainBody)
			switch {
			case res.StatusCode == 200:
				good.Add(1)
			case res.StatusCode == 503 && res.Header.Get("Retry-After") != "" && strings.Contains(body, "overloaded"):
				shed.Add(1)
			default:
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
	wait(t, "80 are refused while 20 are served", func() bool { return shed.Load() == 80 })
	close(release)
	wg.Wait()
	if good.Load() != 20 || w.book.total() != w.bill {
		t.Errorf("%d answered; ledger %v, bill %v", good.Load(), w.book.total(), w.bill)
	}
}

// serve runs the gateway the way `occam serve` does.
func (w *world) serve() (address string, stop func() error) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, l, size(2*time.Second, 10*time.Second)) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() { _ = stop() })
	return l.Addr().String(), stop
}

// F29: clients that send their bytes one by one are cut, others do not notice.
func TestF29SlowLoris(t *testing.T) {
	patience, gap := size(200*time.Millisecond, 10*time.Second), size(20*time.Millisecond, 5*time.Second)
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.Body = patience })
	w.server.headerPatience = patience
	address, _ := w.serve()
	honest := func() (took []time.Duration) {
		for range size(50, 500) {
			began := time.Now()
			if res, _ := w.post(taskBody); res.StatusCode != 200 {
				t.Error(res.Status)
			}
			took = append(took, time.Since(began))
		}
		return took
	}
	baseline := p99(honest())
	n := size(100, 2000)
	closed := make(chan string, n)
	var open atomic.Int64
	for i := range n {
		head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: "
		if i%2 == 1 {
			head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
		}
		go func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				closed <- err.Error()
				return
			}
			defer c.Close()
			go func() {
				fmt.Fprint(c, head)
				open.Add(1)
				for range 1000 {
					if _, err := fmt.Fprint(c, "a"); err != nil {
						return
					}
					time.Sleep(gap)
				}
			}()
			c.SetReadDeadline(time.Now().Add(size(5*time.Second, 15*time.Second)))
			answer, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				closed <- "still open"
				return
			}
			closed <- strings.SplitN(string(answer), "\r\n", 2)[0]
		}()
	}
	wait(t, "the slow ones have begun", func() bool { return open.Load() == int64(n) })
	time.Sleep(size(0, time.Second))
	within(t, fmt.Sprintf("p99 of honest requests, %v without slow ones", baseline.Round(time.Microsecond)), p99(honest()), 2*baseline)
	for range n {
		if how := <-closed; how == "still open" {
			t.Fatal("a slow connection was not closed")
		}
	}
	if len(w.seen()) != 0 {
		t.Error("a half request was sent upstream")
	}
}

// F30: a reader that does not read holds neither memory nor the upstream for long.
func TestF30SlowReader(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.Write = 100 * time.Millisecond })
	address, _ := w.serve()
	over := make(chan struct{})
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		defer close(over)
		rw.Header().Set("Content-Type", "text/event-stream")
		frame := []byte("data: {\"x\":\"" + strings.Repeat("x", 32<<10) + "\"}\n\n")
		for r.Context().Err() == nil {
			if _, err := rw.Write(frame); err != nil {
				return
			}
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(streamBody), streamBody)
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("the upstream is still blocked by a reader that does not read")
	}
	if a := w.book.paid(); len(a) != 1 || a[0].State != store.Estimated {
		t.Errorf("%+v", a)
	}
}

// F34: a stop lets open streams end, takes no new ones, and leaves no intent open.
func TestF34Drain(t *testing.T) {
	w := newWorld(t)
	address, stop := w.serve()
	release := make(chan struct{})
	var started atomic.Int64
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		w.charge()
		rw.Header().Set("Content-Type", "text/event-stream")
		frames := w.frames()
		fmt.Fprint(rw, frames[0])
		rw.(http.Flusher).Flush()
		started.Add(1)
		<-release
		fmt.Fprint(rw, strings.Join(frames[1:], ""))
	}
	n := int64(size(50, 200))
	bodies := make(chan string, n)
	for range n {
		go func() {
			res, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(streamBody))
			if err != nil {
				bodies <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			bodies <- string(body)
		}()
	}
	wait(t, "all streams are open", func() bool { return started.Load() == n })
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- stop() }()
	rec := httptest.NewRecorder()
	wait(t, "readiness fails", func() bool {
		rec = httptest.NewRecorder()
		w.server.ServeHTTP(rec, httptest.NewRequest("GET", "/readyz", nil))
		return rec.Code == 503
	})
	within(t, "readiness failed after", time.Since(began), 100*time.Millisecond)
	if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		c.SetReadDeadline(time.Now().Add(time.Second))
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			t.Error("a new request was taken while draining")
		}
		c.Close()
	}
	close(release)
	for range n {
		if body := <-bodies; body != strings.Join(w.frames(), "") {
			t.Errorf("a stream was cut: %s", body)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if w.book.total() != w.bill {
		t.Errorf("ledger %v, bill %v", w.book.total(), w.bill)
	}
}

// F36, F37: snapshots are swapped under load without one failed request, and every answer names one model that its row names.
func TestF37HotSwap(t *testing.T) {
	w := newWorld(t)
	done := make(chan struct{})
	var swaps int
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			next := *w.snap.Tasks[0].Task
			tier := *w.tier
			cert := *tier.Certificate
			tier.Identity.Specialist = fmt.Sprintf("%08d", i)
			cert.Specialist = tier.Identity.Specialist
			tier.Certificate = &cert
			snap := &Snapshot{Fallback: w.snap.Fallback, Book: w.snap.Book, Tasks: []Task{{Task: &next, Tiers: []Tier{tier}}}}
			if err := w.server.Publish(snap); err != nil {
				t.Error(err)
			}
			if err := w.server.Publish(&Snapshot{Tasks: []Task{{}}}); err == nil {
				t.Error("a broken snapshot was published")
			}
			swaps++
			time.Sleep(time.Millisecond)
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	named := map[string]string{}
	for range 8 {
		wg.Go(func() {
			for range 50 {
				res, body := w.post(taskBody)
				if res.StatusCode != 200 || res.Header.Get("X-Occam-Reason") != "certified" {
					t.Errorf("%d %s", res.StatusCode, body)
				}
				mu.Lock()
				named[res.Header.Get("X-Occam-Request-Id")] = res.Header.Get("X-Occam-Model")
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close(done)
	swapping.Wait()
	for _, a := range w.book.freeRows(400) {
		if named[a.RequestID] != a.Model {
			t.Errorf("the answer named %s, its row %s", named[a.RequestID], a.Model)
		}
	}
	if swaps < 5 || len(named) != 400 {
		t.Errorf("%d swaps, %d answers", swaps, len(named))
	}
}

func TestTwoThousandStreamsFromAnInstantUpstream(t *testing.T) {
	w := newWorld(t)
	want := strings.Join(w.frames(), "")
	n := 2000
	if testing.Short() {
		n = 200
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range n / 16 {
				if _, body := w.post(streamBody); body != want {
					t.Errorf("a stream of %d bytes, want %d", len(body), len(want))
				}
			}
		})
	}
	wg.Wait()
	if w.book.total() != w.bill {
		t.Errorf("ledger %v, bill %v", w.book.total(), w.bill)
	}
}

func TestACrashIsA500(t *testing.T) {
	w := newWorld(t, func(_ *world, o *Options) { o.OnExample = func(Example) { panic("crash") } })
	w.model.p.Score = 0
	rec := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }() // the answer was out: the connection is given up
		w.server.ServeHTTP(rec, httptest.NewRequest("POST", "/v1/chat/completions", bytes.NewBufferString(taskBody)))
	}()
	if res, _ := w.post(plainBody); res.StatusCode != 200 {
		t.Error("the gateway did not survive")
	}
	if w.server.inFlight.Load() != 0 {
		t.Error("a crash keeps its place")
	}
}

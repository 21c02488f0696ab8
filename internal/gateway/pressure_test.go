package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/engine"
	"occam/internal/store"
)

// whole says that faults are run at the size that the criteria name, with their bounds in milliseconds; they need a machine of
// their own:
//
//	make faults               # or: OCCAM_FAULTS=1 go test -run 'F[0-9]|S[0-9]' -v ./internal/gateway
var whole = os.Getenv("OCCAM_FAULTS") != ""

// size is that of a fault's test, every day or whole.
func size[T any](everyDay, inFull T) T {
	if whole {
		return inFull
	}
	return everyDay
}

// within checks a bound in time, which only holds where nothing else runs.
func within(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	t.Logf("%s: %v (at most %v)", what, took.Round(time.Millisecond/10), bound)
	if whole && took > bound {
		t.Errorf("%s took %v, at most %v is allowed", what, took, bound)
	}
}

// percentile of durations, sorted in place.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)*p/100]
}

func p99(d []time.Duration) time.Duration { return percentile(d, 99) }

// A crowd is clients that ask over and over for a while.
type crowd struct {
	good, shed atomic.Int64
	mu         sync.Mutex
	refusals   []time.Duration
}

// ask makes n clients ask until the time is over. A refused client waits a little, less than it is told.
func (c *crowd) ask(w *world, client *http.Client, n int, lasts time.Duration) {
	var wg sync.WaitGroup
	end := time.Now().Add(lasts)
	for range n {
		wg.Go(func() {
			for time.Now().Before(end) {
				began := time.Now()
				res, err := client.Post(w.web.URL+"/v1/chat/completions", "application/json", strings.NewReader(plainBody))
				if err != nil {
					w.t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				switch {
				case res.StatusCode == 200:
					c.good.Add(1)
				case (res.StatusCode == 503 || res.StatusCode == 429) && res.Header.Get("Retry-After") != "":
					c.shed.Add(1)
					c.mu.Lock()
					c.refusals = append(c.refusals, time.Since(began))
					c.mu.Unlock()
					time.Sleep(100 * time.Millisecond)
				default:
					w.t.Errorf("%d %v", res.StatusCode, res.Header)
				}
			}
		})
	}
	wg.Wait()
}

// F28: five times as many clients as there are places: those that are let in are served as fast as ever, the others are told at once
// to come back, and afterwards all is as before.
func TestF28GoodputUnderOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: its bars are shares of what the machine can do, which the race detector takes away")
	}
	const places = 20
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.InFlight = places })
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(200 * time.Millisecond)
		io.WriteString(rw, w.reply())
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
	defer client.CloseIdleConnections()
	lasts := size(1500*time.Millisecond, time.Minute)
	var peak, over, after crowd
	peak.ask(w, client, places, lasts)
	over.ask(w, client, 5*places, lasts)
	began := time.Now()
	after.ask(w, client, places, size(500*time.Millisecond, 5*time.Second))
	goodput := float64(over.good.Load()) / float64(peak.good.Load())
	t.Logf("%d answers at capacity, %d and %d refused at five times that: goodput %.0f %%; afterwards %d answers, %d refused, in %v",
		peak.good.Load(), over.good.Load(), over.shed.Load(), 100*goodput, after.good.Load(), after.shed.Load(), time.Since(began).Round(time.Millisecond))
	if goodput < size(.5, .9) || over.shed.Load() == 0 || peak.shed.Load() != 0 || after.shed.Load() != 0 {
		t.Error("overload costs those that are let in")
	}
	within(t, "p99 of the refusals", p99(over.refusals), 50*time.Millisecond)
}

// memory is what the heap and the stacks hold after a collection.
func memory() (heap, stacks int64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}

// F19, F30: a stream that trickles holds at most 64 KiB of the gateway's buffers and other heap. The same streams without the gateway between say
// what of it is the test's own.
func TestF19F30MemoryOfSlowStreams(t *testing.T) {
	w := newWorld(t)
	n := size(200, 500)
	release := make(chan struct{})
	var open atomic.Int64
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(rw, "data: {\"choices\":[]}\n\n")
		rw.(http.Flusher).Flush()
		open.Add(1)
		defer open.Add(-1)
		for r.Context().Err() == nil {
			select {
			case <-release:
				return
			case <-time.After(50 * time.Millisecond):
				fmt.Fprint(rw, ":")
				rw.(http.Flusher).Flush()
			}
		}
	}
	streams := func(address string) (heap, stacks int64) {
		heapBefore, stacksBefore := memory()
		var conns []net.Conn
		for range n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(streamBody), streamBody)
		}
		wait(t, "all are open", func() bool { return open.Load() == int64(n) })
		time.Sleep(200 * time.Millisecond)
		heap, stacks = memory()
		for _, c := range conns {
			c.Close()
		}
		wait(t, "all end", func() bool { return w.server.inFlight.Load() == 0 && open.Load() == 0 })
		return (heap - heapBefore) / int64(n), (stacks - stacksBefore) / int64(n)
	}
	address, _ := w.serve()
	streams(w.Listener.Addr().String()) // what the first ones leave behind is not counted
	directHeap, directStacks := streams(w.Listener.Addr().String())
	heap, stacks := streams(address)
	t.Logf("%d slow streams: %d KiB of heap and %d KiB of stacks each in the gateway; %d and %d KiB in the provider and the client",
		n, (heap-directHeap)>>10, (stacks-directStacks)>>10, directHeap>>10, directStacks>>10)
	if heap-directHeap > 64<<10 {
		t.Errorf("a slow stream holds %d KiB of the gateway", (heap-directHeap)>>10)
	}
	close(release)
}

// F30: many readers that do not read are cut by the write deadline, their calls upstream end, and the ledger is closed.
func TestF30ManySlowReaders(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.Write = size(200*time.Millisecond, 5*time.Second) })
	address, _ := w.serve()
	n := size(50, 500)
	var open atomic.Int64
	frame := []byte("data: {\"x\":\"" + strings.Repeat("x", 32<<10) + "\"}\n\n")
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Add(-1)
		rw.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := rw.Write(frame); err != nil {
				return
			}
		}
	}
	began := time.Now()
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(streamBody), streamBody)
			buf := make([]byte, 1000)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
	}
	wait := func(what string, ok func() bool) {
		for deadline := time.Now().Add(size(30*time.Second, time.Minute)); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain: %s", what)
			}
		}
	}
	wait("all calls are upstream", func() bool { return len(w.seen()) == n })
	wait("all calls end", func() bool { return open.Load() == 0 && w.server.inFlight.Load() == 0 })
	within(t, "the last slow reader was cut after", time.Since(began), 30*time.Second)
	for _, a := range w.book.paid() {
		if a.State != store.Estimated {
			t.Errorf("%+v", a)
		}
	}
}

// F31: bodies beyond the limit of what may be in flight are refused while they arrive; claims of a length take no room.
func TestF31BodiesInFlightAreBounded(t *testing.T) {
	w := newWorld(t, func(w *world, _ *Options) { w.snap.Limits.HeldBytes = 8 << 20 })
	address, _ := w.serve()
	release := make(chan struct{})
	w.handle = func(rw http.ResponseWriter, _ *http.Request) { <-release; io.WriteString(rw, w.reply()) }
	for range 100 { // a hundred claims of 4 MB each
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{", 4<<20)
	}
	wait(t, "the claims are in", func() bool { return w.server.held.Load() >= 100*16<<10 })
	if n := w.server.inFlight.Load(); n != 0 {
		t.Errorf("%d requests without a body have places", n)
	}
	if res, text := w.quick(address, plainBody, release); res != 200 {
		t.Errorf("claims keep others out: %d %s", res, text)
	}
	release = make(chan struct{})
	w.handle = func(rw http.ResponseWriter, _ *http.Request) { <-release; io.WriteString(rw, w.reply()) }
	big := strings.Replace(plainBody, "hi", strings.Repeat("x", 3<<20), 1)
	statuses := make(chan int, 10)
	for range 10 {
		before, refused := len(w.seen()), len(statuses)
		go func() {
			res, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(big))
			if err != nil {
				statuses <- 503 // it was cut while it sent
				return
			}
			res.Body.Close()
			statuses <- res.StatusCode
		}()
		wait(t, "it is upstream, or refused", func() bool { return len(w.seen()) > before || len(statuses) > refused })
	}
	if held := w.server.held.Load(); held > 8<<20 {
		t.Errorf("%d bytes in flight", held)
	}
	close(release)
	count := map[int]int{}
	for range 10 {
		count[<-statuses]++
	}
	if count[200] != 2 || count[503] != 8 {
		t.Errorf("%v", count)
	}
}

// quick posts while the provider answers at once.
func (w *world) quick(address, body string, release chan struct{}) (int, string) {
	close(release)
	res, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// F32: after many requests that ended in every way there are as many goroutines and open files as before.
func TestF32NothingLeaks(t *testing.T) {
	w := newWorld(t, quick(engine.Timeouts{FirstByte: 100 * time.Millisecond}))
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		switch kind := r.Header.Get("Openai-Beta"); kind {
		case "timeout":
			<-r.Context().Done()
		case "reset":
			panic(http.ErrAbortHandler)
		case "cut":
			rw.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(rw, w.frames()[0])
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "stream", "cancel":
			w.provider.stream(rw)
		default:
			io.WriteString(rw, w.reply())
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	one := func(i int) {
		kind := []string{"good", "stream", "cancel", "reset", "cut", "timeout"}[i%6]
		if kind == "timeout" && i%60 != 5 {
			kind = "good" // they take long
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "POST", w.web.URL+"/v1/chat/completions", strings.NewReader(streamBody))
		req.Header.Set("Openai-Beta", kind)
		res, err := client.Do(req)
		if err != nil {
			return
		}
		defer res.Body.Close()
		if kind == "cancel" {
			_, _ = bufio.NewReader(res.Body).ReadString('\n')
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	settle := func() (int, int) {
		client.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		w.snap.Fallback.Close()
		return runtime.NumGoroutine(), openFiles(t)
	}
	for i := range 120 {
		one(i)
	}
	wait(t, "the first ones end", func() bool { return w.server.inFlight.Load() == 0 })
	time.Sleep(100 * time.Millisecond)
	goroutines, files := settle()
	var wg sync.WaitGroup
	n := size(3000, 100_000)
	for c := range 16 {
		wg.Go(func() {
			for i := range n / 16 {
				one(c + 16*i)
			}
		})
	}
	wg.Wait()
	var now, nowFiles int
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if now, nowFiles = settle(); now <= goroutines+5 && nowFiles <= files+5 {
			break
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines were %d, %d files were %d before:\n%s", now, goroutines, nowFiles, files, stacks[:runtime.Stack(stacks, true)])
		}
	}
	t.Logf("%d requests: goroutines %d before and %d after, files %d and %d", n, goroutines, now, files, nowFiles)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not on Linux
	}
	return len(entries)
}

// F27: identical requests are not merged, so nothing of one tenant's can reach another.
func TestF27IdenticalRequestsOfTenants(t *testing.T) {
	w := newWorld(t)
	a, b := newTenant("a", store.KeyLimits{}), newTenant("b", store.KeyLimits{})
	w.ring(a, b)
	var calls atomic.Int64
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		io.WriteString(rw, strings.Replace(w.reply(), "chatcmpl-1", r.Header.Get("X-Client-Request-Id"), 1)) // each call's answer is its own
	}
	n := size(100, 500)
	answers := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			who := []tenant{a, b}[i%2]
			res, text := w.send(who.secret, plainBody)
			mu.Lock()
			defer mu.Unlock()
			if before, ok := answers[text]; ok || res.StatusCode != 200 {
				t.Errorf("%s and %s got the same answer: %d %s", before, who.ID, res.StatusCode, text)
			}
			answers[text] = who.ID
		})
	}
	wg.Wait()
	rows := map[string]int{}
	for _, a := range w.book.paid() {
		rows[a.KeyID]++
	}
	if calls.Load() != int64(n) || rows["a"] != n/2 || rows["b"] != n/2 {
		t.Errorf("%d calls for %d requests, rows %v", calls.Load(), n, rows)
	}
}

// Schemas are remembered once they are compared, but not so many and so large ones that an app could fill the memory with them.
func TestSchemasDoNotFillTheMemory(t *testing.T) {
	w := newWorld(t)
	kept := 0
	for i := range 20 {
		schema := fmt.Sprintf(`{"type":"object","description":"%d%s","properties":{}}`, i, strings.Repeat("x", 1<<20))
		if w.snap.sameSchema(&w.snap.Tasks[0], []byte(schema)) {
			t.Fatal("any schema is the task's")
		}
	}
	w.snap.schemas.Range(func(key, _ any) bool { kept += len(key.(string)); return true })
	if kept > 1<<20 {
		t.Errorf("%d bytes of 20 MiB of schemas are kept", kept)
	}
}

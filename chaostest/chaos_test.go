// Package chaostest kills `occam serve` while it works and then compares its ledger with the provider's own bill: nothing that
// was paid for may be missing, and nothing that was answered.
//
// OCCAM_CHAOS_KILLS sets how often TestKillUnderLoad kills (default 4; `make chaos` says 100).
package chaostest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/sim"
	"occam/internal/sim/occamtest"
	"occam/internal/store"
)

const (
	clients    = 16
	pause      = 20 * time.Millisecond // of a client between requests: the machine is also to do something else
	maxTokens  = 60
	clientWait = 20 * time.Second
)

var product occamtest.Build

func TestMain(m *testing.M) { os.Exit(product.Main(m)) }

// A scene is a provider and a gateway that dies and comes back on the same data.
type scene struct {
	t        *testing.T
	provider *sim.Provider
	data     string
	config   string
	url      atomic.Pointer[string] // of the gateway; nil while it is down
	process  *occamtest.Process
}

func newScene(t *testing.T, durability string, o sim.Options) *scene {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped in a short run: it builds the program and kills it")
	}
	product.Need(t)
	provider, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(upstream.Close)
	s := &scene{t: t, provider: provider, data: t.TempDir(), config: filepath.Join(t.TempDir(), "occam.yaml")}
	text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: %q\ndurability: %s\nself_test: false\nproviders:\n  openai: {type: openai, base_url: %q, api_key: k, simulated: true}\n",
		s.data, durability, upstream.URL+"/v1")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scene) start() {
	s.t.Helper()
	s.process = occamtest.Serve(s.t, product.Program, s.config)
	s.url.Store(&s.process.URL)
}

func (s *scene) kill() {
	s.t.Helper()
	s.url.Store(nil)
	s.process.Kill(s.t)
}

// A seen is what one client knows about one of its requests.
type seen struct {
	name      string // in its text
	requestID string // the gateway's, where a header came back
	answered  bool   // the whole answer came
}

// send makes one request; stream also ends after `chunks` events if that is not negative.
func (s *scene) send(ctx context.Context, url, name string, stream bool, onEvent func(n int)) seen {
	result := seen{name: name}
	body, _ := json.Marshal(map[string]any{"model": "gpt-4o", "max_tokens": maxTokens, "stream": stream,
		"stream_options": map[string]bool{"include_usage": true}, "messages": []any{map[string]string{"role": "user", "content": "request " + name}}})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return result
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return result
	}
	defer response.Body.Close()
	result.requestID = response.Header.Get("X-Occam-Request-Id")
	var all strings.Builder
	buf := make([]byte, 4096)
	for events := 0; ; {
		n, err := response.Body.Read(buf)
		all.Write(buf[:n])
		if onEvent != nil && n > 0 {
			if count := strings.Count(all.String(), "\n\n"); count > events {
				events = count
				onEvent(events)
			}
		}
		if err != nil {
			whole := err == io.EOF && response.StatusCode == http.StatusOK
			result.answered = whole && (!stream || strings.Contains(all.String(), "data: [DONE]"))
			return result
		}
	}
}

// load runs clients until ctx ends and returns what they saw.
func (s *scene) load(ctx context.Context) func() []seen {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []seen
	var next atomic.Int64
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(pause)
				url := s.url.Load()
				if url == nil {
					continue
				}
				i := next.Add(1)
				one, cancel := context.WithTimeout(context.WithoutCancel(ctx), clientWait) // the last answers are waited for
				result := s.send(one, *url, fmt.Sprintf("chaos-%06d", i), i%2 == 0, nil)
				cancel()
				mu.Lock()
				all = append(all, result)
				mu.Unlock()
			}
		})
	}
	return func() []seen {
		wg.Wait()
		return all
	}
}

func kills() int {
	if n, err := strconv.Atoi(os.Getenv("OCCAM_CHAOS_KILLS")); err == nil && n > 0 {
		return n
	}
	return 4
}

func TestKillUnderLoad(t *testing.T) {
	for _, durability := range []string{"full", "normal"} {
		t.Run(durability, func(t *testing.T) {
			s := newScene(t, durability, sim.Options{Seed: 1, Latency: sim.Latency{FirstToken: 20 * time.Millisecond, PerToken: time.Millisecond, Sigma: 0.6}})
			r := rand.New(rand.NewPCG(7, 7))
			s.start()
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			results := s.load(ctx)
			for range kills() {
				time.Sleep(200*time.Millisecond + time.Duration(r.Int64N(int64(1200*time.Millisecond))))
				s.kill()
				s.start()
			}
			time.Sleep(300 * time.Millisecond)
			stop()
			all := results()
			s.process.Stop(t)
			s.reconcile(all)
		})
	}
}

// reconcile checks the invariants of the ledger against the bill. The gateway names each attempt to the provider by the ID of its row,
// so that the bill can be compared row by row: whatever was billed has an attempt, which is settled at the amount on the bill or
// estimated with bounds around it; what was not billed claims nothing; every answer that reached its app is settled; no intent is
// left open.
func (s *scene) reconcile(all []seen) {
	t := s.t
	t.Helper()
	attempts, requests := map[string]store.Attempt{}, map[string][]store.Attempt{}
	for _, r := range occamtest.Ledger(t, s.data) {
		requests[r.ID] = r.Attempts
		for _, a := range r.Attempts {
			attempts[a.ID] = a
		}
	}
	bill := map[string]cost.Amount{}
	states := map[store.State]int{}
	without, missing := 0, 0
	for _, c := range s.provider.Bill() {
		if _, twice := bill[c.ClientID]; twice {
			t.Errorf("attempt %s is billed twice: the gateway has sent it again", c.ClientID)
		}
		bill[c.ClientID] = c.Amount
		a, known := attempts[c.ClientID]
		if !known {
			without++
			t.Errorf("%v was billed for attempt %s, which the ledger does not have", c.Amount, c.ClientID)
			continue
		}
		states[a.State]++
		checkBilled(t, a, c.Amount)
	}
	for id, a := range attempts {
		if _, billed := bill[id]; !billed {
			checkBilled(t, a, 0) // as far as anybody knows
		}
	}
	answered := 0
	for _, one := range all {
		if !one.answered {
			continue
		}
		answered++
		if own := requests[one.requestID]; len(own) != 1 || own[0].State != store.Settled || !own[0].Answered {
			missing++
			t.Errorf("%s was answered, the ledger has %+v", one.name, own)
		} else if _, billed := bill[own[0].ID]; !billed {
			t.Errorf("%s was answered and not billed: %+v", one.name, own)
		}
	}
	t.Logf("%d kills: %d requests, %d answered whole, %d billed: %v; %d attempts in the ledger; %d answered are missing, %d billed without an intent",
		kills(), len(all), answered, len(bill), states, len(attempts), missing, without)
	if answered == 0 || answered == len(all) && kills() > 2 {
		t.Errorf("%d of %d requests were answered: the test shows nothing", answered, len(all))
	}
}

// checkBilled compares an attempt with what the provider billed for it: to the nano-dollar where it is settled, within its bounds where
// it is estimated.
func checkBilled(t *testing.T, a store.Attempt, billed cost.Amount) {
	t.Helper()
	low, high := a.CostLow, a.CostHigh
	switch a.State {
	case store.Settled:
		low, high = a.Cost, a.Cost
	case store.Estimated:
	case store.Void:
		low, high = 0, 0
	default:
		t.Errorf("attempt %s is %s", a.ID, a.State)
	}
	if billed < low || billed > high {
		t.Errorf("%v was billed, the ledger says %v to %v: %+v", billed, low, high, a)
	}
}

// TestKillDuringStream kills the gateway after the k-th event of a stream.
func TestKillDuringStream(t *testing.T) {
	s := newScene(t, "full", sim.Options{Seed: 2, Latency: sim.Latency{PerToken: 4 * time.Millisecond}})
	last, step := 20, 5
	if kills() > 20 {
		step = 1
	}
	var all []seen
	for k := 0; k <= last; k += step {
		s.start()
		url := s.process.URL
		died := make(chan struct{})
		var once sync.Once
		die := func(n int) {
			if n >= k {
				once.Do(func() { s.kill(); close(died) })
			}
		}
		if k == 0 {
			go func() {
				for int64(len(s.provider.Bill())) == int64(len(all)) {
					time.Sleep(100 * time.Microsecond)
				}
				die(0)
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), clientWait)
		all = append(all, s.send(ctx, url, fmt.Sprintf("stream-%02d", k), true, die))
		cancel()
		<-died
	}
	s.start()
	s.process.Stop(t)
	attempts := map[string]store.Attempt{}
	for _, r := range occamtest.Ledger(t, s.data) {
		for _, a := range r.Attempts {
			attempts[a.ID] = a
		}
	}
	charges := s.provider.Bill()
	if len(attempts) != len(all) || len(charges) != len(all) {
		t.Fatalf("%d requests, %d attempts in the ledger, %d on the bill", len(all), len(attempts), len(charges))
	}
	for _, charge := range charges {
		a, known := attempts[charge.ClientID]
		if !known {
			t.Errorf("%v was billed for attempt %s, which the ledger does not have", charge.Amount, charge.ClientID)
		}
		checkBilled(t, a, charge.Amount)
	}
}

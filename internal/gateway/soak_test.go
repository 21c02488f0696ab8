package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/sample"
	"occam/internal/specialist"
	"occam/internal/store"
	"occam/internal/task"
)

// F33: the gateway under a mixed load for as long as OCCAM_SOAK says, after a warm-up of ten minutes or a third of that: its memory
// stays as it is, and so do its answers' times. Ends by comparing the ledger with the provider's own count.
//
//	make soak                     # an hour; or: OCCAM_SOAK=8h make soak
func TestF33Soak(t *testing.T) {
	lasts, err := time.ParseDuration(os.Getenv("OCCAM_SOAK"))
	if err != nil {
		t.Skip("set OCCAM_SOAK to a duration, or run make soak")
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
	c := startRole(t, "gateway", "OCCAM_BENCH_UPSTREAM="+up.url, "OCCAM_BENCH_DURABILITY=full", "OCCAM_BENCH_MODEL="+model,
		"OCCAM_BENCH_LEDGER=sqlite:"+filepath.Join(dir, "ledger"))
	s := &soak{child: c, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}, tickets: sample.Tickets(7, 2000)}
	warm := min(10*time.Minute, lasts/3)
	s.run(t, lasts, warm)
	s.client.CloseIdleConnections()
	slope := slopeOf(s.memory)
	first, second := s.halves(warm, lasts)
	t.Logf("%v after %v of warm-up, %d requests, %d of them cut by their app: memory %.1f MiB, %+.2f MiB an hour; p99 %v in the first half, %v in the second (%+.1f %%)",
		lasts-warm, warm, s.sent, s.cut, s.memory[len(s.memory)-1].y, slope, first.Round(10*time.Microsecond), second.Round(10*time.Microsecond), 100*(second.Seconds()/first.Seconds()-1))
	if slope > 1 {
		t.Errorf("memory grows by %.2f MiB an hour, at most 1 is allowed", slope)
	}
	if second > first*11/10 {
		t.Errorf("p99 went from %v to %v, at most a tenth more is allowed", first, second)
	}
	_ = c.stdin.Close()
	var counts store.Counts
	if err := json.NewDecoder(c.stdout).Decode(&counts); err != nil {
		t.Fatalf("the gateway did not end well: %v", err)
	}
	if calls := count(t, up); counts.Open != 0 || counts.Settled > calls || counts.Settled+counts.Estimated < calls {
		t.Errorf("the provider counts %d calls, the ledger %+v", calls, counts)
	}
}

// A point of a line; x in hours.
type point struct{ x, y float64 }

// slopeOf is that of the line with the least squares.
func slopeOf(points []point) float64 {
	var x, y, xx, xy float64
	for _, p := range points {
		x, y, xx, xy = x+p.x, y+p.y, xx+p.x*p.x, xy+p.x*p.y
	}
	n := float64(len(points))
	return (n*xy - x*y) / (n*xx - x*x)
}

type soak struct {
	*child
	client  *http.Client
	tickets []task.Example
	memory  []point // MiB, each second after the warm-up

	mu        sync.Mutex
	latencies []timed
	sent, cut int
}

type timed struct{ at, took time.Duration } // at: since the start

const soakRate = 100 // requests a second

// run sends requests at an even rate: of ten, six pass through, two are streams, one of which is cut by its app, and two are answered
// by the specialist.
func (s *soak) run(t *testing.T, lasts, warm time.Duration) {
	began := time.Now()
	var wg sync.WaitGroup
	next := began
	for i := 0; time.Since(began) < lasts; i++ {
		time.Sleep(time.Until(next))
		at := next.Sub(began)
		wg.Go(func() { s.one(t, i, at) })
		if i%soakRate == 0 && at > warm {
			s.memory = append(s.memory, point{at.Hours(), s.residentMB()})
		}
		next = next.Add(time.Second / soakRate)
	}
	wg.Wait()
}

func (s *soak) one(t *testing.T, i int, at time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kind := i % 10
	ticket := sample.Task()
	body := chatBody("gpt-4o-mini", "Classify the ticket.", strconv.Itoa(i)+strings.Repeat(" where is my order", 100), kind >= 6)
	if kind >= 8 {
		body = taskRequest(&ticket, s.tickets[i%len(s.tickets)].Text)
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/chat/completions", strings.NewReader(string(body)))
	if err != nil {
		t.Error(err)
		return
	}
	res, err := s.client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if kind == 6 {
		_, _ = io.ReadFull(res.Body, make([]byte, 100+rand.IntN(2000)))
		cancel()
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.StatusCode != 200 || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%d %v", res.StatusCode, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	if kind == 6 {
		s.cut++
		return
	}
	s.latencies = append(s.latencies, timed{at, time.Since(began)})
}

// halves are the 99th percentiles of the two halves after the warm-up.
func (s *soak) halves(warm, lasts time.Duration) (first, second time.Duration) {
	var parts [2][]time.Duration
	for _, l := range s.latencies {
		if l.at > warm {
			half := 0
			if l.at > warm+(lasts-warm)/2 {
				half = 1
			}
			parts[half] = append(parts[half], l.took)
		}
	}
	return p99(parts[0]), p99(parts[1])
}

// residentMB is the memory that the process has now, in MiB.
func (c *child) residentMB() float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.cmd.Process.Pid))
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

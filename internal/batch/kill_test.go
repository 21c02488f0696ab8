package batch

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/sim"
	"occam/internal/store"
)

// Environment of the child process: where its data and its provider are, and whether lines are called one by one.
const (
	childDir   = "OCCAM_BATCH_CHILD_DIR"
	childURL   = "OCCAM_BATCH_CHILD_URL"
	childCalls = "OCCAM_BATCH_CHILD_CALLS"
	childDSN   = "OCCAM_BATCH_CHILD_DSN"   // "": SQLite in the data folder
	childModel = "OCCAM_BATCH_CHILD_MODEL" // file of a model that answers every ticket; limits are those of production then
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		limits := Limits{PartLines: 150, chunk: 200, CallsAtOnce: 4, Calls: os.Getenv(childCalls) != ""}
		if os.Getenv(childModel) != "" {
			limits = Limits{}
		}
		o, err := openOfficeOn(cmp.Or(os.Getenv(childDSN), "sqlite:"+dir), dir, os.Getenv(childURL), limits)
		if err != nil {
			log.Fatal(err)
		}
		if name := os.Getenv(childModel); name != "" {
			if err := o.publishFile(name); err != nil {
				log.Fatal(err)
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("http://" + l.Addr().String())
		log.Fatal(http.Serve(l, o.desk))
	}
	os.Exit(m.Run())
}

// start runs a gateway as a process of its own.
func start(t *testing.T, dir, url, calls string, env ...string) (*exec.Cmd, client) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(append(os.Environ(), childDir+"="+dir, childURL+"="+url, childCalls+"="+calls), env...)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return child, client{t: t, url: strings.TrimSpace(address)}
}

func kills(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("OCCAM_BATCH_KILLS"))
	switch {
	case err == nil:
		return n
	case testing.Short():
		return 3
	}
	return 12
}

// mixedTicket asks a model at OpenAI or at Anthropic for what is not for the specialist.
func mixedTicket(i int) string {
	if i%2 == 0 {
		return claudeTicket(i)
	}
	return ticket(i)
}

// Whenever the gateway is killed, the batch goes on: no line is lost, none is answered, billed or entered twice, and the provider
// is asked for no batch twice.
func TestKillDuringABatch(t *testing.T) {
	const count = 2400
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	p, url := provide(t, sim.Options{Batches: func(n int) sim.BatchPlan {
		return sim.BatchPlan{Delay: time.Duration(n%4) * 30 * time.Millisecond, LoseReply: n%3 == 1}
	}})
	dir := t.TempDir()
	child, app := start(t, dir, url, "")
	id := app.begin(lines(count, mixedTicket), "/v1/chat/completions")
	var seen []string
	for range kills(t) {
		time.Sleep(time.Duration(dice.Int64N(int64(400 * time.Millisecond))))
		_ = child.Process.Kill()
		_ = child.Wait()
		child, app = start(t, dir, url, "")
		now := app.get(id)
		done := 0
		parts := now["occam"].(map[string]any)["parts"].([]any)
		for _, part := range parts {
			if part.(map[string]any)["state"] == settled {
				done++
			}
		}
		seen = append(seen, fmt.Sprintf("%v %v lines, %d of %d parts", now["status"], now["occam"].(map[string]any)["read"], done, len(parts)))
	}
	b := app.await(id)
	t.Logf("killed at %q", seen)
	good, bad := app.results(b)
	_ = child.Process.Kill()
	_ = child.Wait()
	if b["status"] != Completed || len(good) != count || len(bad) != 0 {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	counts := b["request_counts"].(map[string]any)
	if counts["total"] != float64(count) || counts["completed"] != float64(count) {
		t.Errorf("the batch counts %v", counts)
	}
	checkAskedOnce(t, p, count)
	s, err := store.Open(context.Background(), "sqlite:"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	(&office{store: s}).checkMixed(t, p, count)
}

// checkAskedOnce checks that the provider was asked for each batch and each line of mixedTicket once.
func checkAskedOnce(t *testing.T, p *sim.Provider, count int) {
	t.Helper()
	marks := map[string]bool{}
	for _, m := range p.BatchMarks() {
		if m != nil && marks[m[metaPart]] { // Anthropic keeps no marks
			t.Errorf("the provider was asked twice for part %s", m[metaPart])
		}
		marks[m[metaPart]] = true
	}
	billed, at := map[string]bool{}, map[string]int{}
	for _, charge := range p.Bill() {
		if at[charge.Model]++; billed[charge.ClientID] {
			t.Errorf("line %s was billed twice", charge.ClientID)
		}
		billed[charge.ClientID] = true
	}
	if at["gpt-4o"] < count/6 || at["claude-haiku-4-5"] < count/6 {
		t.Errorf("billed lines: %v", at)
	}
}

// checkMixed checks the ledger of a batch of mixedTickets.
func (o *office) checkMixed(t *testing.T, p *sim.Provider, count int) {
	t.Helper()
	free, answers := 0, 0
	for _, a := range o.reconcile(t, p) {
		if a.Answered {
			answers++
		}
		if a.Answered && a.State == store.Free {
			free++
		}
	}
	if free != count/3*2 || answers != count {
		t.Errorf("the ledger has %d free answers and %d in all, of %d lines", free, answers, count)
	}
}

// Lines that are called one by one are never billed twice either: one that was under way when the gateway was killed is told to
// the app, whose ledger row holds what it may have cost.
func TestKillDuringCalls(t *testing.T) {
	p, url := provide(t, sim.Options{NoBatches: true, Latency: sim.Latency{FirstToken: 3 * time.Millisecond}})
	dir := t.TempDir()
	child, app := start(t, dir, url, "yes")
	id := app.begin(tickets(900), "/v1/chat/completions")
	for range kills(t) / 2 {
		time.Sleep(50 * time.Millisecond)
		_ = child.Process.Kill()
		_ = child.Wait()
		child, app = start(t, dir, url, "yes")
	}
	b := app.await(id)
	good, bad := app.results(b)
	_ = child.Process.Kill()
	_ = child.Wait()
	for id, one := range bad {
		if one.Error == nil || one.Error.Code != "interrupted" {
			t.Errorf("%s: %+v", id, one)
		}
	}
	if len(good)+len(bad) != 900 || len(good) < 600 {
		t.Errorf("%d good, %d bad", len(good), len(bad))
	}
	t.Logf("%d answered, %d interrupted", len(good), len(bad))
	seen := map[string]int{}
	for _, charge := range p.Bill() {
		if seen[charge.ReplyID]++; seen[charge.ReplyID] > 1 {
			t.Errorf("%s was billed twice", charge.ReplyID)
		}
	}
	if n := len(p.Bill()); n > 300 {
		t.Errorf("300 lines were called %d times", n)
	}
	s, err := store.Open(context.Background(), "sqlite:"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	totals, err := s.Totals(context.Background(), store.TotalsQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var low, high cost.Amount
	for _, sum := range totals {
		low, high = low+sum.CostLow, high+sum.CostHigh
	}
	if billed := p.Total(); billed < low || billed > high {
		t.Errorf("billed %v, the ledger says %v to %v", billed, low, high)
	}
}

package batch

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"occam/internal/sim"
	"occam/internal/store"
	"occam/internal/store/storetest"
)

// gateways are two processes on one database.
type gateways struct {
	t        *testing.T
	url, dsn string
	dirs     [2]string
	children [2]*exec.Cmd
	apps     [2]client
}

func (g *gateways) open(i int) {
	g.children[i], g.apps[i] = start(g.t, g.dirs[i], g.url, "", childDSN+"="+g.dsn)
}

func (g *gateways) kill(i int) {
	_ = g.children[i].Process.Kill()
	_ = g.children[i].Wait()
}

// Two gateways share a PostgreSQL database, each with a folder of its own. A file that one took is a batch at the other, whoever works on
// it may be killed, the other goes on, and either shows and hands out the results. No line is lost, answered, billed or entered twice.
func TestTwoGateways(t *testing.T) {
	const count = 1500
	server := storetest.StartPostgres(t)
	dsn, _ := server.Backend().New(t)
	p, url := provide(t, sim.Options{Batches: func(n int) sim.BatchPlan {
		return sim.BatchPlan{Delay: 200 * time.Millisecond, LoseReply: n%3 == 1}
	}})
	g := &gateways{t: t, url: url, dsn: dsn, dirs: [2]string{t.TempDir(), t.TempDir()}}
	for i := range g.children {
		g.open(i)
		t.Cleanup(func() { g.kill(i) })
	}
	content := lines(count, mixedTicket)
	status, file := g.apps[0].upload(content)
	if status != 200 {
		t.Fatalf("upload: %d %v", status, file)
	}
	g.kill(0) // its folder is not needed any more
	_, text := g.apps[1].do("POST", "/v1/batches", "application/json", strings.NewReader(fmt.Sprintf(
		`{"input_file_id":%q,"endpoint":"/v1/chat/completions","completion_window":"24h"}`, file["id"])))
	id, _ := decode(text)["id"].(string)
	if id == "" {
		t.Fatalf("create: %s", text)
	}
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for n := range max(2, kills(t)/2) {
		g.open(n % 2)
		time.Sleep(time.Second + time.Duration(dice.Int64N(int64(600*time.Millisecond)))) // a lease, and some work
		g.kill(1 - n%2)                                                                   // whoever worked on it
		now := g.apps[n%2].get(id)
		t.Logf("killed at %v, %v lines read", now["status"], now["occam"].(map[string]any)["read"])
	}
	last := 1 - (max(2, kills(t)/2)-1)%2
	other := 1 - last
	b := g.apps[other].await(id)
	g.open(last) // a gateway that did not work on it hands out the results
	good, bad := g.apps[last].results(b)
	if b["status"] != Completed || len(good) != count || len(bad) != 0 {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	if here, _ := os.ReadDir(g.dirs[other] + "/files"); len(here) != 1 {
		t.Errorf("copies are left over: %v", here)
	}
	checkForgotten(t, dsn, g.apps[other], decode(text), content)
	if status, _ := g.apps[last].do("DELETE", "/v1/files/"+file["id"].(string), "", nil); status != 200 {
		t.Errorf("delete: %d", status)
	}
	if status, _ := g.apps[other].do("GET", "/v1/files/"+file["id"].(string)+"/content", "", nil); status != 404 {
		t.Errorf("a deleted file at the other gateway: %d", status)
	}
	g.kill(last)
	g.kill(other)
	checkAskedOnce(t, p, count)
	s, err := store.Open(context.Background(), dsn, store.Options{Mode: store.ReadOnly, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	(&office{store: s}).checkMixed(t, p, count)
	// Outcomes stand in other lanes than their intents: the ledger moves all the same.
	var export bytes.Buffer
	if err := s.Export(context.Background(), &export); err != nil {
		t.Fatal(err)
	}
	moved := "sqlite:" + t.TempDir()
	if err := store.Import(context.Background(), moved, store.Options{}, &export); err != nil {
		t.Fatal(err)
	}
	copied, err := store.Open(context.Background(), moved, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	(&office{store: copied}).checkMixed(t, p, count)
}

// checkForgotten checks that a line, which the database holds in pieces, can be forgotten.
func checkForgotten(t *testing.T, dsn string, app client, b map[string]any, content string) {
	t.Helper()
	s, err := store.Open(context.Background(), dsn, store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stored, err := Get(context.Background(), s, b["id"].(string))
	if err != nil {
		t.Fatal(err)
	}
	l := lineIn{text: []byte(strings.Split(content, "\n")[700])}
	stored.parse(&l)
	if n, err := Forget(context.Background(), s, t.TempDir(), []string{l.request}); err != nil || n != 2 {
		t.Errorf("%d lines are forgotten: %v", n, err)
	}
	_, after := app.do("GET", "/v1/files/"+stored.Input+"/content", "", nil)
	if want := strings.Replace(content, string(l.text), strings.Repeat(" ", len(l.text)), 1); string(after) != want {
		t.Error("the input is not what it was without the line")
	}
}

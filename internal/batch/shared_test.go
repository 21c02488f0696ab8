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

// Two gateways share a PostgreSQL database, each with a folder of its own. A file that one took is a batch at the other, whoever works on
// it may be killed, the other goes on, and either shows and hands out the results. No line is lost, answered, billed or entered twice.
func TestTwoGateways(t *testing.T) {
	const count = 1500
	server := storetest.StartPostgres(t)
	dsn, _ := server.Backend().New(t)
	p, url := provide(t, sim.Options{Batches: func(n int) sim.BatchPlan {
		return sim.BatchPlan{Delay: 200 * time.Millisecond, LoseReply: n%3 == 1}
	}})
	dirs := [2]string{t.TempDir(), t.TempDir()}
	var children [2]*exec.Cmd
	var apps [2]client
	open := func(i int) { children[i], apps[i] = start(t, dirs[i], url, "", childDSN+"="+dsn) }
	kill := func(i int) {
		_ = children[i].Process.Kill()
		_ = children[i].Wait()
	}
	for i := range children {
		open(i)
		t.Cleanup(func() { kill(i) })
	}
	status, file := apps[0].upload(lines(count, mixedTicket))
	if status != 200 {
		t.Fatalf("upload: %d %v", status, file)
	}
	kill(0) // its folder is not needed any more
	_, text := apps[1].do("POST", "/v1/batches", "application/json", strings.NewReader(fmt.Sprintf(
		`{"input_file_id":%q,"endpoint":"/v1/chat/completions","completion_window":"24h"}`, file["id"])))
	id, _ := decode(text)["id"].(string)
	if id == "" {
		t.Fatalf("create: %s", text)
	}
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for n := range max(2, kills(t)/2) {
		open(n % 2)
		time.Sleep(time.Second + time.Duration(dice.Int64N(int64(600*time.Millisecond)))) // a lease, and some work
		kill(1 - n%2)                                                                     // whoever worked on it
		now := apps[n%2].get(id)
		t.Logf("killed at %v, %v lines read", now["status"], now["occam"].(map[string]any)["read"])
	}
	last := 1 - (max(2, kills(t)/2)-1)%2
	other := 1 - last
	b := apps[other].await(id)
	open(last) // a gateway that did not work on it hands out the results
	good, bad := apps[last].results(b)
	if b["status"] != Completed || len(good) != count || len(bad) != 0 {
		t.Errorf("%v: %d good, %d bad", b, len(good), len(bad))
	}
	if here, _ := os.ReadDir(dirs[other] + "/files"); len(here) != 1 {
		t.Errorf("copies are left over: %v", here)
	}
	if status, _ := apps[last].do("DELETE", "/v1/files/"+file["id"].(string), "", nil); status != 200 {
		t.Errorf("delete: %d", status)
	}
	if status, _ := apps[other].do("GET", "/v1/files/"+file["id"].(string)+"/content", "", nil); status != 404 {
		t.Errorf("a deleted file at the other gateway: %d", status)
	}
	kill(last)
	kill(other)
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

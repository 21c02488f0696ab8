package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"occam/internal/gateway"
	"occam/internal/sim"
	"occam/internal/store"
)

// A stand is a configuration without tasks, beside simulated providers.
type stand struct {
	t      *testing.T
	config string
}

// newProvider starts a simulated provider and returns it with its base_url.
func newProvider(t *testing.T, o sim.Options) (*sim.Provider, string) {
	t.Helper()
	p, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	listening, err := p.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	return p, listening.URL + "/v1"
}

func newStand(t *testing.T, text string) *stand {
	t.Helper()
	s := &stand{t: t, config: filepath.Join(t.TempDir(), "occam.yaml")}
	s.write(text)
	return s
}

func (s *stand) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.config, []byte("listen: 127.0.0.1:0\ndata_dir: data\n"+text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// rows are the ledger's attempts, oldest first.
func (s *stand) rows() (all []store.Attempt) {
	s.t.Helper()
	a := &app{getenv: os.Getenv, now: time.Now, stderr: io.Discard}
	ledger, err := a.readStore(context.Background(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ledger.Close()
	requests, _, err := ledger.Requests(context.Background(), store.Filter{Limit: 500}, "")
	if err != nil {
		s.t.Fatal(err)
	}
	for i := len(requests) - 1; i >= 0; i-- {
		all = append(all, requests[i].Attempts...)
	}
	return all
}

func ask(t *testing.T, base, model string, stream bool) (*http.Response, string) {
	t.Helper()
	response, err := http.Post(base+"/v1/chat/completions", "application/json",
		strings.NewReader(fmt.Sprintf(`{"model":%q,"stream":%v,"messages":[{"role":"user","content":"What is the capital of France?"}]}`, model, stream)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(reply)
}

// The configuration's fallbacks are asked in their order, and each attempt is in the ledger.
func TestConfiguredFallbacks(t *testing.T) {
	first, firstURL := newProvider(t, sim.Options{Script: sim.Always(sim.Fault{Kind: sim.Status, Status: 500})})
	second, secondURL := newProvider(t, sim.Options{})
	s := newStand(t, fmt.Sprintf("providers:\n  a: {type: openai, base_url: %s, prices: openai}\n  b: {type: openai, base_url: %s, prices: openai}\n"+
		"models:\n  gpt-4o: {provider: a, fallbacks: [{provider: b, upstream: gpt-4o-mini}]}\nself_test: false\n", firstURL, secondURL))
	base, _, stop := serve(t, s.config)
	response, reply := ask(t, base, "gpt-4o", false)
	if response.StatusCode != 200 || response.Header.Get("X-Occam-Model") != "gpt-4o-mini" {
		t.Errorf("%d %s %v", response.StatusCode, reply, response.Header)
	}
	stop()
	rows := s.rows()
	if first.Served() != 1 || second.Served() != 1 || len(rows) != 2 || rows[0].Provider != "a" || rows[1].Provider != "b" || !rows[1].Answered {
		t.Errorf("served %d and %d; ledger %+v", first.Served(), second.Served(), rows)
	}
}

// ask_usage makes streams exact whose app does not ask for usage; on_disconnect: drain bills a call whose app went away.
func TestConfiguredUsageAndDrain(t *testing.T) {
	for _, exact := range []bool{false, true} {
		provider, url := newProvider(t, sim.Options{Latency: sim.Latency{PerToken: 5 * time.Millisecond}})
		limits := "limits: {ask_usage: false, on_disconnect: cancel}\n"
		if exact {
			limits = "limits: {ask_usage: true, on_disconnect: drain}\n"
		}
		s := newStand(t, "providers: {openai: {type: openai, base_url: "+url+"}}\n"+limits)
		base, _, stop := serve(t, s.config)
		_, reply := ask(t, base, "gpt-4o", true)
		if strings.Contains(reply, `"usage":{`) || !strings.Contains(reply, "[DONE]") {
			t.Errorf("the app did not ask for usage and got %s", reply)
		}
		leave(t, base)
		stop()
		for _, a := range s.rows() {
			if (a.State == store.Settled) != exact {
				t.Errorf("exact %v: %+v", exact, a)
			}
		}
		if bill := provider.Total(); exact && bill == 0 {
			t.Error("nothing was billed")
		}
	}
}

// leave asks for a stream that lasts and goes away after its first line.
func leave(t *testing.T, base string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	body, _ := json.Marshal(map[string]any{"model": "gpt-4o", "stream": true, "messages": []map[string]string{{"role": "user", "content": "Tell me more."}}})
	request, _ := http.NewRequestWithContext(ctx, "POST", base+"/v1/chat/completions", strings.NewReader(string(body)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

// F36: a hundred reloads under load, every fifth of a configuration that is wrong. No request fails, wrong ones change nothing,
// right ones count from the next request on.
func TestF36ReloadUnderLoad(t *testing.T) {
	_, firstURL := newProvider(t, sim.Options{})
	second, secondURL := newProvider(t, sim.Options{})
	text := func(to string, inFlight int) string {
		return fmt.Sprintf("providers:\n  a: {type: openai, base_url: %s, prices: openai}\n  b: {type: openai, base_url: %s, prices: openai}\n"+
			"models:\n  gpt-4o: {provider: %s}\nself_test: false\nlimits: {in_flight: %d}\n", firstURL, secondURL, to, inFlight)
	}
	s := newStand(t, text("a", 100))
	base, _, stop := serve(t, s.config)
	done := make(chan struct{})
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if response, reply := ask(t, base, "gpt-4o", asked.Add(1)%2 == 0); response.StatusCode != 200 || strings.Contains(reply, `"error"`) {
					failed.Add(1)
					t.Errorf("%d %s", response.StatusCode, reply)
				}
			}
		})
	}
	for i := range 100 {
		for before := asked.Load(); asked.Load() < before+5; time.Sleep(time.Millisecond) { // a load between any two
		}
		if i%5 == 4 {
			s.write([]string{"providers: {", text("nobody", 1), text("a", 100) + "lisen: x\n", text("a", 100) + "durability: normal\n"}[i/5%4])
			if code, _, stderr := run(t, "", "reload", "--config", s.config); code != exitFailed {
				t.Fatalf("a wrong configuration was taken: exit %d %s", code, stderr)
			}
			continue
		}
		s.write(text([]string{"a", "b"}[i%2], 100+i))
		if code, _, stderr := run(t, "", "reload", "--config", s.config); code != exitDone {
			t.Fatalf("exit %d %s", code, stderr)
		}
	}
	s.write(text("b", 100))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for before := second.Served(); second.Served() < before+20; time.Sleep(time.Millisecond) {
	}
	close(done)
	load.Wait()
	stop()
	t.Logf("%d requests, %d failed, 100 reloads of which 20 invalid", asked.Load(), failed.Load())
	for _, a := range s.rows() {
		if a.State != store.Settled && a.State != store.Estimated {
			t.Errorf("%+v", a)
		}
	}
}

// Keys that are made and revoked while the server runs count from the next request on.
func TestKeysWhileTheServerRuns(t *testing.T) {
	_, url := newProvider(t, sim.Options{})
	s := newStand(t, "providers: {openai: {type: openai, base_url: "+url+"}}\n")
	base, _, stop := serve(t, s.config)
	defer stop()
	status := func(secret string) int {
		t.Helper()
		request, _ := http.NewRequest("POST", base+"/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
		request.Header.Set("Authorization", "Bearer "+secret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		io.Copy(io.Discard, response.Body)
		return response.StatusCode
	}
	if got := status("anything"); got != 200 {
		t.Errorf("before the first key: %d", got)
	}
	var key struct{ ID, Name, Secret string }
	decode(t, mustRun(t, "", "keys", "create", "app", "--config", s.config, "--budget", "5", "--escalations-per-minute", "3", "--degrade", "gpt-4o-mini", "--json"), &key)
	if status(key.Secret) != 200 || status("anything") != 401 {
		t.Error("a new key does not count at once")
	}
	if out := mustRun(t, "", "keys", "list", "--config", s.config, "--json"); strings.Contains(out, key.Secret) || !strings.Contains(out, `"degrade":"gpt-4o-mini"`) || !strings.Contains(out, `"escalations_per_minute":3`) {
		t.Errorf("keys list: %s", out)
	}
	mustRun(t, "", "keys", "revoke", key.ID, "--config", s.config)
	if got := status(key.Secret); got != 401 {
		t.Errorf("a revoked key: %d", got)
	}
	if code, _, stderr := run(t, "", "keys", "revoke", "nosuchkey", "--config", s.config); code != exitFailed || !strings.Contains(stderr, "nosuchkey") {
		t.Errorf("exit %d %s", code, stderr)
	}
	stop()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(s.config), "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // S04
		if content, err := os.ReadFile(filepath.Join(filepath.Dir(s.config), "data", e.Name())); err == nil && strings.Contains(string(content), key.Secret) {
			t.Errorf("%s holds the secret in plain", e.Name())
		}
	}
}

// The server finds out at its start what its models really do, without holding up requests; the findings are kept for a day, stand
// in the ledger, and `occam doctor` shows them, beside a running server and without one.
func TestSelfTestAtStart(t *testing.T) {
	honest, honestURL := newProvider(t, sim.Options{})
	deaf, deafURL := newProvider(t, sim.Options{Script: sim.Always(sim.Fault{Kind: sim.ProseForJSON})})
	release := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer stuck.Close()
	text := fmt.Sprintf("providers:\n  honest: {type: openai, base_url: %s, prices: openai}\n  deaf: {type: openai, base_url: %s, prices: openai}\n"+
		"models:\n  a: {provider: honest, upstream: gpt-4o, fallbacks: [{provider: deaf, upstream: gpt-4o}]}\n", honestURL, deafURL)
	s := newStand(t, text)
	var first diagnosis
	decode(t, mustRun(t, "", "doctor", "--config", s.config, "--json"), &first) // no server runs: doctor asks
	check := func(when string, d diagnosis) {
		t.Helper()
		if len(d.Models) != 2 || d.Models[0].Provider != "deaf" || d.Models[0].Schema != gateway.Ignored || d.Models[1].Schema != gateway.Enforced ||
			!d.Models[1].Usage || !d.Models[1].StreamUsage || !d.Models[1].Priced || d.Models[0].Error != "" {
			t.Errorf("%s: %+v", when, d.Models)
		}
	}
	check("doctor", first)
	served := [2]int64{honest.Served(), deaf.Served()}
	if served[0] < 2 || served[1] < 2 {
		t.Errorf("%v calls", served)
	}
	_, _, stop := serve(t, s.config)
	var again diagnosis
	decode(t, mustRun(t, "", "doctor", "--config", s.config, "--json"), &again)
	check("doctor beside a server", again)
	var shown diagnosis
	dir := filepath.Join(filepath.Dir(s.config), "data")
	if err := command(t.Context(), running(t.Context(), dir), http.MethodGet, "/api/models", nil, &shown); err != nil {
		t.Error(err)
	}
	check("GET /api/models", shown)
	if honest.Served() != served[0] || deaf.Served() != served[1] {
		t.Error("what was found out a moment ago was asked again")
	}
	s.write(strings.Replace(text, "models:", "  stuck: {type: openai, base_url: "+stuck.URL+"/v1}\nmodels:\n  b: {provider: stuck, upstream: gpt-4o}", 1))
	stop()
	base, stderr, stop := serve(t, s.config) // a self-test that hangs holds up nothing
	if response, reply := ask(t, base, "a", false); response.StatusCode != 200 {
		t.Errorf("%d %s", response.StatusCode, reply)
	}
	close(release)
	if code := stop(); code != 0 {
		t.Errorf("exit %d %s", code, stderr)
	}
	tests := 0
	for _, a := range s.rows() {
		if a.Reason == "self_test" {
			tests++
			if a.State == store.Pending || !a.Audit {
				t.Errorf("%+v", a)
			}
		}
	}
	if tests < int(served[0]+served[1]) {
		t.Errorf("%d rows of self-tests for %v calls", tests, served)
	}
}

// TestKeysThatCannotBeRead: what was known of the keys holds while the database is away; where nothing was, nobody is let in.
func TestKeysThatCannotBeRead(t *testing.T) {
	opened, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{store: opened, log: slog.New(slog.DiscardHandler)}
	if s.keyring() != nil {
		t.Error("keys, but nobody has made one")
	}
	err = opened.Update(t.Context(), func(tx *store.Tx) error { _, _, err := tx.Keys().Create("app", "app", store.KeyLimits{}); return err })
	if err != nil {
		t.Fatal(err)
	}
	known := s.keyring()
	if known == nil {
		t.Fatal("no keys, but there is one")
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	if s.keyring() != known {
		t.Error("a database that is away takes an app's key from it")
	}
	if fresh := (&server{store: opened, log: s.log}); fresh.keyring() == nil {
		t.Error("everybody is let in while the keys were never read")
	}
}

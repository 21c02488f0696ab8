package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		"models:\n  gpt-4o: {provider: a, fallbacks: [{provider: b, upstream: gpt-4o-mini}]}\n", firstURL, secondURL))
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

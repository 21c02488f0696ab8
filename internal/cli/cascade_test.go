package cli

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/cascade"
	"occam/internal/config"
	"occam/internal/lifecycle"
	"occam/internal/sim"
	"occam/internal/task"
)

// A riddle is a request of which half say plainly what they are about, and the others in words that no specialist could have
// learnt.
type riddle struct{ text, colour string }

func riddles(from, n int) []riddle {
	all := make([]riddle, n)
	for i := range all {
		r := rand.New(rand.NewPCG(uint64(from+i), 5))
		colour := []string{"red", "green", "blue"}[r.IntN(3)]
		word := map[string][]string{"red": {"crimson", "scarlet", "ruby"}, "green": {"emerald", "olive", "lime"}, "blue": {"navy", "azure", "indigo"}}[colour][r.IntN(3)]
		if r.IntN(2) == 0 {
			var b strings.Builder
			for range 8 {
				b.WriteByte(byte('a' + r.IntN(26)))
			}
			word = b.String()
		}
		things := []string{"bicycle", "lamp", "kettle", "jacket", "table", "window", "chair", "sofa", "mug", "door"}
		thing := func() string { return things[r.IntN(len(things))] }
		all[i] = riddle{fmt.Sprintf("it is the %s %s next to the %s, seen at %d", word, thing(), thing(), 100+r.IntN(900)), colour}
	}
	return all
}

// A cascadeBench is a provider with three models in a server's cascade: linear, a cheap one and the generalist.
type cascadeBench struct {
	t        *testing.T
	provider *sim.Provider
	config   string
	base     string
	renamed  atomic.Bool // the cheap model answers as another version
	mu       sync.Mutex
	truth    map[string]string
	asked    int
}

func newCascadeBench(t *testing.T) *cascadeBench {
	b := &cascadeBench{t: t, truth: map[string]string{}}
	var err error
	b.provider, err = sim.New(sim.Options{Seed: 3, Skills: map[string]sim.Skill{"gpt-4o-mini": {MistakeRate: .02, Unsure: .5}},
		Alias: func(model string) string {
			if model == "gpt-4o-mini" && b.renamed.Load() {
				return "gpt-4o-mini-2026-11-01"
			}
			return model
		},
		Oracle: func(in string) task.Output {
			b.mu.Lock()
			defer b.mu.Unlock()
			return task.Output{"colour": task.String(b.truth[in])}
		}})
	if err != nil {
		t.Fatal(err)
	}
	listening, err := b.provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	b.config = filepath.Join(t.TempDir(), "occam.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
data_dir: data
durability: normal
capture: {prompts: true}
providers: {openai: {type: openai, base_url: %s/v1, api_key: sk-x, simulated: true}}
models: {gpt-4o: {provider: openai}, gpt-4o-mini: {provider: openai}}
tasks:
  colours:
    schema: {type: object, properties: {colour: {type: string, enum: [red, green, blue]}}}
    generalist: gpt-4o
    tiers: [linear, gpt-4o-mini]
    calibration_budget: 0.50
    audit: 0.05
    auto: true
    target: {promise: served, accuracy: 0.95, confidence: 0.9}
`, listening.URL)
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.base, _, _ = serve(t, b.config)
	return b
}

// ask sends requests and counts by whom they were answered, and how many rightly.
func (b *cascadeBench) ask(n int) (by map[string]int, right int) {
	b.t.Helper()
	all := riddles(b.asked, n)
	b.asked += n
	b.mu.Lock()
	for _, r := range all {
		b.truth[r.text] = r.colour
	}
	b.mu.Unlock()
	by = map[string]int{}
	var mu sync.Mutex
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, r := range all {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			response, reply := post(b.t, b.base, "colours", r.text)
			var got struct {
				Choices []struct{ Message struct{ Content string } }
			}
			if err := json.Unmarshal([]byte(reply), &got); err != nil || response.StatusCode != http.StatusOK || len(got.Choices) != 1 {
				b.t.Errorf("status %d: %s", response.StatusCode, reply)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			model, _, _ := strings.Cut(response.Header.Get("X-Occam-Model"), "@")
			by[model]++
			if strings.Contains(got.Choices[0].Message.Content, `"`+r.colour+`"`) {
				right++
			}
		})
	}
	group.Wait()
	return by, right
}

func (b *cascadeBench) status() lifecycle.Status {
	b.t.Helper()
	var s struct{ Tasks []lifecycle.Status }
	decode(b.t, mustRun(b.t, "", "tasks", "list", "--config", b.config, "--json"), &s)
	return s.Tasks[0]
}

// until asks until the task is in a state.
func (b *cascadeBench) until(state lifecycle.State) lifecycle.Status {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		s := b.status()
		if s.State == state {
			return s
		}
		if s.Training.Running || s.State == lifecycle.Observing { // there is enough to learn from
			time.Sleep(100 * time.Millisecond)
			continue
		}
		b.ask(40)
	}
	b.t.Fatalf("the task is %+v", b.status())
	panic("not reached")
}

// A whole cascade over real HTTP: the specialist answers what it can, a cheap model was measured on what that leaves, certified and
// priced, and answers most of it, and the generalist answers the rest. The certificates are in the ledger's chain, every call that
// they took stands in the ledger, and a new version of the cheap model answers nothing.
func TestThreeTiers(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models")
	}
	b := newCascadeBench(t)
	mustRun(t, "", "tasks", "pause", "colours", "--config", b.config)
	b.ask(2900) // a quarter is held out, and half of that reaches the cheap model
	mustRun(t, "", "tasks", "pause", "--resume", "colours", "--config", b.config)
	st := b.until(lifecycle.Live)
	if len(st.Models) == 0 || len(st.Models[0].Tiers) != 1 || st.Models[0].Choice == nil {
		t.Fatalf("no plan of several tiers: %+v\n%s", st.Models, mustRun(t, "", "tasks", "show", "colours", "--config", b.config))
	}
	checkPlan(t, st.Models[0])
	before := b.provider.Served()
	by, right := b.ask(600)
	audits := int(b.provider.Served()-before) - by["gpt-4o"] - by["gpt-4o-mini"]
	if by["colours"] < 200 || by["gpt-4o-mini"] < 100 || right < 600*90/100 {
		t.Errorf("answered by %v, %d right", by, right)
	}
	t.Logf("answered by %v, %d of 600 right, about %d audits (simulated)\n%s", by, right, audits, st.Models[0].Choice.Text())
	b.checkRenamed()
	b.checkMoved()
	b.checkLedger(st.Models[0])
}

// checkRenamed: a cheap model that answers as another version answers no app from its first answer on, is soon asked only now and then,
// and says why; when the certified version is back it answers again.
func (b *cascadeBench) checkRenamed() {
	t := b.t
	t.Helper()
	tier := func() lifecycle.TierStatus { return b.status().Models[0].Tiers[0] }
	b.renamed.Store(true)
	asked := 0
	for ; tier().Void == "" && asked < 1200; asked += 40 {
		if by, right := b.ask(40); by["gpt-4o-mini"] != 0 || right < 32 {
			t.Errorf("another version of the cheap model answered: %v, %d right", by, right)
		}
	}
	if now := tier(); now.Mode != string(cascade.Suspended) || !strings.Contains(now.Void, "gpt-4o-mini-2026-11-01") {
		t.Errorf("after %d requests the tier is %q: %s", asked, now.Mode, now.Void)
	}
	before := b.provider.Served()
	by, _ := b.ask(200)
	if refused := int(b.provider.Served()-before) - by["gpt-4o"]; by["gpt-4o-mini"] != 0 || refused > 50 {
		t.Errorf("answered by %v, and %d calls more", by, refused)
	}
	b.renamed.Store(false)
	for range 30 {
		if b.ask(80); tier().Void == "" {
			return
		}
	}
	t.Errorf("the certified version is back, and the tier is %+v", tier())
}

// checkMoved: a reload that sends the cheap model's requests elsewhere stops it with the first request, and the rest of the plan goes
// on; the ledger's chain says why. Where it is sent back it answers again.
func (b *cascadeBench) checkMoved() {
	t := b.t
	t.Helper()
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(model string) {
		t.Helper()
		moved := strings.Replace(string(text), "gpt-4o-mini: {provider: openai}", "gpt-4o-mini: "+model, 1)
		if err := os.WriteFile(b.config, []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
		mustRun(t, "", "reload", "--config", b.config)
	}
	reload("{provider: openai, upstream: gpt-4.1-nano}")
	by, right := b.ask(60)
	tier := b.status().Models[0].Tiers[0]
	if by["gpt-4o-mini"] != 0 || by["colours"] < 20 || right < 50 || tier.Mode != string(cascade.Suspended) || tier.Void == "" {
		t.Errorf("moved: answered by %v, %d right; %+v", by, right, tier)
	}
	reload("{provider: openai}")
	if by, right = b.ask(120); by["gpt-4o-mini"] < 10 || right < 100 {
		t.Errorf("back again: answered by %v, %d right", by, right)
	}
	const want = "certificate issued, certificate voided, certificate restored, certificate voided, certificate restored" // renamed, then moved
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {                                       // a process that only reads sees notices a moment later
		var export certificateReport
		decode(t, mustRun(t, "", "models", "certificate", b.status().Models[0].Model[:12], "--config", b.config), &export)
		var kinds []string
		for _, n := range export.Ledger {
			if strings.HasSuffix(n.Subject, "/gpt-4o-mini") {
				kinds = append(kinds, n.Kind)
			}
		}
		got := strings.Join(kinds, ", ")
		if got == want {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the chain says of the tier: %s", got)
		}
	}
}

// Where a tier's model is in the configuration decides, with the same snapshot, whether it is asked.
func TestATierIsAskedOnlyWhereItWasCertified(t *testing.T) {
	for _, c := range []struct {
		name, models string
		want         cascade.Mode
		upstream     string
	}{
		{"as certified", "cheap: {provider: one, upstream: gpt-4o-mini}", cascade.Live, "gpt-4o-mini"},
		{"a fallback was not certified and is not asked", "cheap: {provider: one, upstream: gpt-4o-mini, fallbacks: [{provider: two}]}", cascade.Live, "gpt-4o-mini"},
		{"another provider", "cheap: {provider: two, upstream: gpt-4o-mini}", cascade.Suspended, "gpt-4o-mini"},
		{"another model", "cheap: {provider: one, upstream: gpt-4.1-nano}", cascade.Suspended, "gpt-4.1-nano"},
		{"its own name upstream", "cheap: {provider: one}", cascade.Suspended, "cheap"},
		{"gone", "other: {provider: one}", cascade.Suspended, "gpt-4o-mini"},
	} {
		path := filepath.Join(t.TempDir(), "occam.yaml")
		text := "data_dir: data\nproviders: {one: {type: openai, base_url: 'http://127.0.0.1:1/v1', api_key: sk-x}, two: {type: openai, base_url: 'http://127.0.0.1:2/v1', api_key: sk-x}}\nmodels: {" + c.models + "}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(path, os.Getenv)
		if err != nil {
			t.Fatal(err)
		}
		w, err := newWiring(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		certified := lifecycle.Tier{Tier: cascade.Tier{Name: "cheap", Mode: cascade.Live}, Served: &lifecycle.PlannedTier{Name: "cheap", Provider: "one", Upstream: "gpt-4o-mini"}}
		got := w.tier(certified)
		if got.Mode != c.want || len(got.Route.Targets) != 1 || got.Route.Targets[0].Model != c.upstream || got.Route.Targets[0].Upstream == nil {
			t.Errorf("%s: %s, asked at %+v", c.name, got.Mode, got.Route.Targets)
		}
		if certified.Mode != cascade.Live {
			t.Errorf("%s: what the lifecycle decided was changed", c.name)
		}
		w.close(nil)
	}
}

// checkPlan: the plan with both tiers was chosen because it is the cheapest proven one, and says so.
func checkPlan(t *testing.T, m lifecycle.ModelStatus) {
	t.Helper()
	chosen := m.Choice.Chosen()
	if name := chosen.Name("gpt-4o"); name != "linear → gpt-4o-mini → gpt-4o" {
		t.Fatalf("chose %s\n%s", name, m.Choice.Text())
	}
	for _, c := range m.Choice.Candidates {
		if c.Problem == "" && c.Monthly != nil && *c.Monthly < *chosen.Monthly {
			t.Errorf("%s is cheaper", c.Name("gpt-4o"))
		}
	}
	if len(m.Choice.Escalations) != 1 || !m.Choice.Escalations[0].Pays || m.Choice.Spent <= 0 || m.Choice.Spent > .5 {
		t.Errorf("escalations %+v, $%v spent", m.Choice.Escalations, m.Choice.Spent)
	}
	cheap := m.Tiers[0].Certificate
	if cheap.Score != cascade.ScoreLogProb || cheap.Below[m.Certificate.Specialist] == 0 || cheap.N >= m.Certificate.N || cheap.Accepted == 0 {
		t.Errorf("the cheap model's certificate is %+v, the specialist's %+v", cheap, m.Certificate)
	}
	if m.Certificate.Level != cheap.Level || m.Certificate.Level > m.Certificate.Delta/3 {
		t.Errorf("delta is not shared: %v and %v of %v", m.Certificate.Level, cheap.Level, m.Certificate.Delta)
	}
}

// checkLedger: what the measuring cost stands in the ledger under its own purpose, the certificates are in its chain, and people see
// all of it.
func (b *cascadeBench) checkLedger(m lifecycle.ModelStatus) {
	t := b.t
	t.Helper()
	var verified struct {
		OK      bool     `json:"ok"`
		Remarks []string `json:"remarks"`
	}
	decode(t, mustRun(t, "", "ledger", "verify", "--config", b.config, "--json"), &verified)
	var export certificateReport
	decode(t, mustRun(t, "", "models", "certificate", m.Model[:12], "--config", b.config), &export)
	if len(export.Certificates) != 2 || len(export.Ledger) < 2 {
		t.Fatalf("%+v", export)
	}
	for _, c := range export.Certificates {
		found := false
		for _, n := range export.Ledger {
			found = found || n.Hash == c.Hash && n.Kind == "certificate issued" && n.Seq > 0
		}
		if c.Live == nil || c.Live.Audits == 0 || c.Live.High <= c.Live.Low || c.Live.Alarm {
			t.Errorf("of %s the audits say %+v", c.Tier, c.Live)
		}
		if !found || c.Certificate.Hash() != c.Hash {
			t.Errorf("the certificate of %s is not in the chain", c.Tier)
		}
	}
	shown := mustRun(t, "", "models", "show", m.Model[:12], "--config", b.config)
	for _, want := range []string{"linear → gpt-4o-mini → gpt-4o", "chosen: the cheapest", "escalation pays", "ledger entry", "reached by"} {
		if !strings.Contains(shown, want) {
			t.Errorf("`occam models show` lacks %q:\n%s", want, shown)
		}
	}
	calls := strings.Count(mustRun(t, "", "ledger", "export", "--config", b.config), `"reason":"calibration"`)
	if calls < 100 {
		t.Errorf("%d calls for calibration in the ledger", calls)
	}
}

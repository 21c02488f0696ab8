package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/store"
	"occam/internal/task"
)

// TestProof runs the whole life of a task with the real program, killed at random moments: an app that knows nothing of occam
// sends tickets; occam discovers the task, trains, certifies, shadows, canaries, goes live; the taxonomy shifts; the audits
// notice, the certificate is suspended, people label, a new model goes live. It takes minutes: OCCAM_PROOF=1, or the number
// of kills. OCCAM_PROOF_PICTURE names a folder for a picture of what was measured.
func TestProof(t *testing.T) { prove(t, ticketWorld, "OCCAM_PROOF") }

// TestProofOnData is the same on public data: OCCAM_PROOF_BANKING77 and OCCAM_PROOF_ABCD are the numbers of kills.
func TestProofOnData(t *testing.T) {
	t.Run("banking77", func(t *testing.T) { prove(t, bankingWorld, "OCCAM_PROOF_BANKING77") })
	t.Run("abcd", func(t *testing.T) { prove(t, abcdWorld, "OCCAM_PROOF_ABCD") })
}

func prove(t *testing.T, in func(*testing.T) *world, env string) {
	kills, err := strconv.Atoi(os.Getenv(env))
	if err != nil {
		t.Skipf("set %s to the number of kills, such as 10", env)
	}
	p := newProof(t, in(t), kills)
	p.phase("observe, discover", p.observe, nil)
	p.discover()
	p.phase("learn: train, certify, shadow, canary", 40_000, p.in("live"))
	p.phase("live", p.live, nil)
	p.shift()
	p.phase("the taxonomy shifts", 40_000, p.in("suspended"))
	p.phase("suspended; people label 50", p.rest, nil)
	p.feedback(50)
	p.phase("learn again", 60_000, p.in("live"))
	p.phase("live again", p.live, nil)
	p.settle()
	p.report()
}

// A world is the traffic of one proof.
type world struct {
	name                string
	system              string
	fields              []task.Field
	accuracy, audit     float64
	observe, live, rest int // tickets of these phases
	lot, look           int // tickets side by side, and lots between two looks at the task's state
	next                func(shifted bool) (text string, truth task.Output, ok bool)
}

// marker stands before every text after the shift: another app sends them.
const marker = "[via the new app] "

// ticketWorld is the bundled generator: six categories at first; after the shift six more, and half of the old ones under
// another name.
func ticketWorld(*testing.T) *world {
	w := &world{name: "tickets", system: sample.SystemPrompt, fields: sample.Fields(), accuracy: .97, audit: .1, observe: 500, live: 2000, rest: 300, lot: 30, look: 8}
	names := sample.Categories()
	var tickets []sample.Ticket
	at := 0
	w.next = func(shifted bool) (string, task.Output, bool) {
		for {
			if at == len(tickets) {
				tickets = slices.Concat(make([]sample.Ticket, at), sample.Traffic(uint64(100+at), at+8000)[at:])
			}
			x := tickets[at]
			at++
			class := slices.Index(names, x.Truth[sample.Category].Text())
			if x.OutOfScope || class < 0 || class >= 6 && !shifted || class >= 12 {
				continue
			}
			truth := x.Truth
			if shifted && class < 3 {
				truth = task.Output{sample.Category: task.String(names[30+class]), sample.OrderID: truth[sample.OrderID]}
			}
			return mark(x.Text, shifted), truth, true
		}
	}
	return w
}

func mark(text string, shifted bool) string {
	if shifted {
		return marker + text
	}
	return text
}

// bankingWorld is BANKING77: 35 of its intents at first; after the shift 70, of which seven go by another name.
func bankingWorld(t *testing.T) *world {
	rows := slices.Concat(publicRows(t, "banking77/train.jsonl"), publicRows(t, "banking77/test.jsonl"))
	names := categoriesOf(rows)
	w := &world{name: "banking77", system: "Sort the customer's question to a bank.", fields: []task.Field{{Name: "category", Kind: task.Category, Values: names}},
		accuracy: .95, audit: .1, observe: 300, live: 1000, rest: 200, lot: 20, look: 3}
	w.next = fromRows(rows, nil, func(e task.Example, shifted bool) (task.Output, bool) {
		class := slices.Index(names, e.Labels["category"].Text())
		if class >= 70 || class >= 35 && !shifted {
			return nil, false
		}
		if shifted && class < 7 {
			class += 70
		}
		return task.Output{"category": task.String(names[class])}, true
	})
	return w
}

// abcdWorld is ABCD: six of its ten kinds of request and the order's ID, from the customer's opening; after the shift all ten, three of
// them by another name, from everything that the customer said.
func abcdWorld(t *testing.T) *world {
	rows := slices.Concat(publicRows(t, "abcd/train.jsonl"), publicRows(t, "abcd/test.jsonl"))
	later := slices.Concat(publicRows(t, "abcd/train.customer.jsonl"), publicRows(t, "abcd/test.customer.jsonl"))
	for _, all := range [][]task.Example{rows, later} {
		for i, e := range all {
			kind, _, _ := strings.Cut(e.Labels["category"].Text(), ".")
			all[i].Labels = task.Output{"category": task.String(kind), "order_id": e.Labels["order_id"]}
		}
	}
	names := categoriesOf(rows)
	renamed := map[string]string{names[0]: "sign_in", names[1]: "profile", names[2]: "wrong_order"}
	w := &world{name: "abcd", system: "Say what kind of request this chat is, and find the order's ID.", accuracy: .93, audit: .2, observe: 100, live: 300, rest: 100, lot: 10, look: 3,
		fields: []task.Field{{Name: "category", Kind: task.Category, Values: append(slices.Clone(names), "profile", "sign_in", "wrong_order")},
			{Name: "order_id", Kind: task.Span, Nullable: true}}}
	w.next = fromRows(rows, later, func(e task.Example, shifted bool) (task.Output, bool) {
		name := e.Labels["category"].Text()
		if shifted {
			name = cmp.Or(renamed[name], name)
		} else if slices.Index(names, name) >= 6 {
			return nil, false
		}
		return task.Output{"category": task.String(name), "order_id": e.Labels["order_id"]}, true
	})
	return w
}

// fromRows sends rows in a random order, each once; later ones, where there are any, after the shift. What is left at the shift is mixed
// anew: in the old order the classes that were sent before it would come back only at the end.
func fromRows(rows, later []task.Example, truth func(e task.Example, shifted bool) (task.Output, bool)) func(bool) (string, task.Output, bool) {
	mix := rand.New(rand.NewPCG(5, 5))
	for _, all := range [][]task.Example{rows, later} {
		mix.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	used, mixed := map[string]bool{}, false
	return func(shifted bool) (string, task.Output, bool) {
		if shifted && !mixed {
			mix.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			mixed = true
		}
		from := rows
		if shifted && later != nil {
			from = later
		}
		for _, e := range from {
			text := mark(e.Text, shifted)
			if used[text] || !shifted && used[e.Text] || later == nil && used[e.Text] {
				continue
			}
			if o, ok := truth(e, shifted); ok {
				used[text] = true
				if later == nil {
					used[e.Text] = true
				}
				return text, o, true
			}
		}
		return "", nil, false
	}
}

func publicRows(t *testing.T, name string) []task.Example {
	path := filepath.Join("..", "shared", "data", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("the public data are not here: %v", err)
	}
	examples, problems, err := task.ReadExamples(bytes.NewReader(data), path)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return examples
}

func categoriesOf(rows []task.Example) []string {
	var names []string
	for _, e := range rows {
		names = append(names, e.Labels["category"].Text())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type proof struct {
	t *testing.T
	*world
	program  string
	config   string
	provider *sim.Provider
	random   *rand.Rand

	mu      sync.Mutex
	process *os.Process
	exited  chan struct{} // closed when it has
	base    string
	truth   map[string]task.Output
	shifted bool
	phases  []*figures
	answers []answer
	kills   int         // still to come
	deaths  []time.Time // when the lives of the program ended by a kill; the zero time: not by one
}

// figures are what one phase came to.
type figures struct {
	name                                 string
	requests, served, right, servedRight int
	spent                                float64
	state                                string
	began                                time.Time
	seconds                              float64
}

// An answer is what the app got.
type answer struct {
	id        string
	truth     task.Output
	sent, got time.Time
	free      bool // a specialist's
	life      int  // of the program: counts its starts
}

func newProof(t *testing.T, w *world, kills int) *proof {
	p := &proof{t: t, world: w, truth: map[string]task.Output{}, random: rand.New(rand.NewPCG(7, 7)), kills: kills}
	dir := t.TempDir()
	p.program, p.config = filepath.Join(dir, "occam"), filepath.Join(dir, "occam.yaml")
	if out, err := exec.Command("go", "build", "-o", p.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var err error
	p.provider, err = sim.New(sim.Options{Seed: 1, MistakeRate: .005, Confusable: sample.Confusable, Oracle: func(in string) task.Output {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.truth[in]
	}})
	if err != nil {
		t.Fatal(err)
	}
	listening, err := p.provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: data\ndurability: normal\ncapture: {prompts: true}\n"+
		"providers: {openai: {type: openai, base_url: %s/v1, api_key: sk-x, simulated: true}}\n", listening.URL)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(func() { p.kill() })
	return p
}

var apiAddress = regexp.MustCompile(`API +(http://\S+)/v1`)

// start runs the program, again and again where it is killed before it is ready.
func (p *proof) start() {
	p.t.Helper()
	for !p.launch() {
	}
}

func (p *proof) launch() bool {
	p.t.Helper()
	command := exec.Command(p.program, "serve", "--config", p.config)
	var said bytes.Buffer
	ready, exited := make(chan string, 1), make(chan struct{})
	command.Stderr = writerFunc(func(b []byte) (int, error) {
		said.Write(b)
		if m := apiAddress.FindStringSubmatch(said.String()); m != nil && strings.Contains(said.String(), "Ready in") {
			select {
			case ready <- m[1]:
			default:
			}
		}
		return len(b), nil
	})
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = command.Wait()
		close(exited)
	}()
	p.mu.Lock()
	p.process, p.exited = command.Process, exited
	p.deaths = append(p.deaths, time.Time{})
	p.mu.Unlock()
	select {
	case p.base = <-ready:
		return true
	case <-exited:
		if !p.dying() {
			p.t.Fatalf("the program ended by itself:\n%s", said.String())
		}
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("not ready:\n%s", said.String())
	}
	return false
}

// dying reports whether the program was killed.
func (p *proof) dying() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.deaths[len(p.deaths)-1].IsZero()
}

// kill ends the program as a power switch would.
func (p *proof) kill() {
	p.strike()
	<-p.exited
}

// strike sends SIGKILL and notes when.
func (p *proof) strike() {
	p.mu.Lock()
	if life := len(p.deaths) - 1; p.deaths[life].IsZero() {
		p.deaths[life] = time.Now()
	}
	victim := p.process
	p.mu.Unlock()
	_ = victim.Kill()
}

// struck counts the kills so far.
func (p *proof) struck() (n int) {
	for _, at := range p.deaths {
		if !at.IsZero() {
			n++
		}
	}
	return n
}

// ticket makes the next ticket of the present taxonomy.
func (p *proof) ticket() (string, task.Output, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, truth, ok := p.next(p.shifted)
	if ok {
		p.truth[text] = truth
	}
	return text, truth, ok
}

func (p *proof) shift() { p.mu.Lock(); p.shifted = true; p.mu.Unlock() }

// phase sends up to n tickets, until done says so, and kills the program at random moments on the way.
func (p *proof) phase(name string, n int, done func() bool) {
	p.t.Helper()
	f := &figures{name: name, began: time.Now()}
	p.phases = append(p.phases, f)
	spentBefore := p.provider.Total().USD()
	more := true
	for sent := 0; more && sent < n && (done == nil || !done()); sent += p.world.lot {
		var falling *time.Timer
		if p.kills > 0 && p.random.IntN(5) == 0 {
			p.kills--
			falling = time.AfterFunc(time.Duration(p.random.IntN(150))*time.Millisecond, p.strike)
		}
		more = p.send(f, min(p.world.lot, n-sent))
		if falling != nil && falling.Stop() {
			p.strike() // the lot was quicker
		}
		if done != nil {
			time.Sleep(300 * time.Millisecond) // about a hundred tickets a second
		}
	}
	p.alive()
	f.spent, f.seconds, f.state = p.provider.Total().USD()-spentBefore, time.Since(f.began).Seconds(), p.state()
	if done != nil && !done() {
		p.t.Fatalf("%s: not there after %d tickets: %s", name, n, p.run("tasks", "show", "tickets"))
	}
	p.t.Logf("%s: %d tickets, %d served, %.0f s, now %s", name, f.requests, f.served, f.seconds, f.state)
}

// send sends some tickets side by side, and reports whether there are more. One that got no answer because the program died is sent
// again, as an app would.
func (p *proof) send(f *figures, n int) bool {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []func() error
	more := true
	for range n {
		text, truth, ok := p.ticket()
		if more = ok; !ok {
			break
		}
		one := func() error { return p.ask(f, &mu, text, truth) }
		wg.Go(func() {
			if err := one(); err != nil {
				mu.Lock()
				failed = append(failed, one)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for len(failed) > 0 {
		p.restart()
		again := failed
		failed = nil
		for _, one := range again {
			if err := one(); err != nil {
				failed = append(failed, one)
			}
		}
	}
	return more
}

// restart starts the program that was killed.
func (p *proof) restart() {
	p.t.Helper()
	if !p.dying() {
		time.Sleep(200 * time.Millisecond) // for a kill that is on its way
	}
	if !p.dying() {
		p.t.Fatal("the program gave no answer though nobody killed it")
	}
	<-p.exited
	p.start()
}

// alive starts the program again if it was killed.
func (p *proof) alive() {
	time.Sleep(50 * time.Millisecond) // for a kill that is on its way
	if p.dying() {
		p.restart()
	}
}

func (p *proof) ask(f *figures, mu *sync.Mutex, text string, truth task.Output) error {
	body, err := json.Marshal(map[string]any{"model": "gpt-4o", "temperature": 0,
		"messages":        []map[string]string{{"role": "system", "content": p.system}, {"role": "user", "content": text}},
		"response_format": map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "ticket", "strict": true, "schema": json.RawMessage(task.Schema(p.fields))}}})
	if err != nil {
		return err
	}
	p.mu.Lock()
	life := len(p.deaths)
	p.mu.Unlock()
	sent := time.Now()
	res, err := http.Post(p.base+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var reply struct {
		Choices []struct{ Message struct{ Content string } }
	}
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		return fmt.Errorf("status %d: %s, %v", res.StatusCode, data, err)
	}
	got := time.Now()
	if err := json.Unmarshal(data, &reply); err != nil {
		return err
	}
	values, err := task.ParseAnswer(p.fields, []byte(reply.Choices[0].Message.Content))
	right := err == nil
	for i, field := range p.fields {
		right = right && values[i].Equal(truth[field.Name])
	}
	served := res.Header.Get("X-Occam-Reason") == "certified"
	mu.Lock()
	defer mu.Unlock()
	p.answers = append(p.answers, answer{res.Header.Get("X-Occam-Request-Id"), truth, sent, got, served, life})
	f.requests++
	for count, add := range map[*int]bool{&f.served: served, &f.right: right, &f.servedRight: served && right} {
		if add {
			*count++
		}
	}
	return nil
}

// run runs a command of the program beside the server.
func (p *proof) run(args ...string) []byte {
	p.t.Helper()
	command := exec.Command(p.program, append(args, "--config", p.config)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		p.t.Logf("%v: %v %s", args, err, stderr.String())
		return nil
	}
	return out
}

func (p *proof) state() string {
	var st struct {
		State    string
		Training struct {
			Running bool
			Waiting string
		}
	}
	for { // the app is asleep while a model is trained: on a busy machine it would outrun the training by far
		_ = json.Unmarshal(p.run("tasks", "show", "tickets", "--json"), &st) // before there is a task there is no state
		if !st.Training.Running && !strings.Contains(st.Training.Waiting, "queued or running") {
			return st.State
		}
		if p.kills > 0 && p.random.IntN(10) == 0 { // training is taken up again
			p.kills--
			p.kill()
			p.start()
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// in returns a condition that looks now and then, because a look is a process.
func (p *proof) in(state string) func() bool {
	n, reached := 0, false
	return func() bool {
		if n++; n%p.look == 0 && !reached {
			reached = p.state() == state
		}
		return reached
	}
}

func (p *proof) discover() {
	p.t.Helper()
	var found struct {
		Groups []struct{ ID, Shape, Verdict, Reason string }
	}
	for range 20 { // what was overheard in the two seconds before a kill is lost
		if err := json.Unmarshal(p.run("tasks", "discover", "--json"), &found); err != nil {
			p.t.Fatal(err)
		}
		if len(found.Groups) > 0 {
			break
		}
		p.send(p.phases[0], 10)
	}
	if len(found.Groups) != 1 || found.Groups[0].Shape != "json" {
		p.t.Fatalf("discovered %+v", found)
	}
	p.t.Logf("discovered: %s, %s", found.Groups[0].Verdict, found.Groups[0].Reason)
	if p.run("tasks", "discover", "--make", found.Groups[0].ID, "--name", "tickets", "--auto", "--audit", fmt.Sprint(p.audit), "--accuracy", fmt.Sprint(p.accuracy)) == nil {
		p.t.Fatal("the group did not become a task")
	}
}

// feedback: people label the newest requests.
func (p *proof) feedback(n int) {
	p.t.Helper()
	done := 0
	for i := len(p.answers) - 1; i >= 0 && done < n; i-- {
		body, err := json.Marshal(map[string]any{"request_id": p.answers[i].id, "labels": p.answers[i].truth})
		if err != nil {
			p.t.Fatal(err)
		}
		res, err := http.Post(p.base+"/v1/feedback", "application/json", bytes.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == 200 {
			done++
		} else if len(p.answers)-i > 3*n {
			break
		}
	}
	p.t.Logf("people labelled %d requests", done)
	if done < n/2 {
		p.t.Errorf("only %d labels were taken", done)
	}
}

// settle stops the program and checks that nothing was lost: every answer is in the ledger, and the provider's bill lies in
// the ledger's bounds.
func (p *proof) settle() {
	p.t.Helper()
	_ = p.process.Signal(os.Interrupt)
	<-p.exited
	s, err := store.Open(p.t.Context(), "sqlite:"+filepath.Join(filepath.Dir(p.config), "data"), store.Options{Durability: store.Normal})
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	p.account(s)
	totals, err := s.Totals(p.t.Context(), store.TotalsQuery{})
	if err != nil || len(totals) != 1 {
		p.t.Fatalf("totals %+v, %v", totals, err)
	}
	bill := p.provider.Total()
	p.t.Logf("the bill is %v, the ledger says %v to %v; %d kills", bill, totals[0].CostLow, totals[0].CostHigh, p.struck())
	if bill < totals[0].CostLow || bill > totals[0].CostHigh {
		p.t.Error("the bill lies outside the ledger's bounds")
	}
	if report, err := s.Verify(p.t.Context()); err != nil || !report.OK() {
		p.t.Errorf("the ledger does not verify: %+v, %v", report, err)
	}
	var history []string
	err = s.View(p.t.Context(), func(tx *store.Tx) error {
		steps, err := tx.Tasks().History("tickets", 100)
		for _, step := range slices.Backward(steps) {
			history = append(history, step.To)
			p.t.Logf("  %s → %s: %s", step.From, step.To, step.Reason)
		}
		return err
	})
	got := strings.Join(slices.Compact(history), " ")
	got = strings.ReplaceAll(got, "candidate shadow candidate shadow", "candidate shadow") // a shadow that nothing confirmed had a successor
	if err != nil || !strings.HasPrefix(got, "observing candidate shadow canary live suspended candidate shadow canary live") {
		p.t.Errorf("history %s, %v", got, err)
	}
}

// unwritten is how long an answer that cost nothing may wait to be written: docs/ledger.md.
const unwritten = 100 * time.Millisecond

// account finds every answer in the ledger. Missing may be only what cost nothing, was sent just before a kill, and was the newest of its
// kind: rows are written in the order of the answers, so an answer that was got before another was asked for is written no later.
func (p *proof) account(s *store.Store) {
	p.t.Helper()
	var missing []answer
	newest := map[int]time.Time{} // by life: when the newest free answer that is in the ledger was asked for
	slowest := time.Duration(0)   // of the paid answers: each waited for a commit
	free := 0
	for _, a := range p.answers {
		_, found, err := s.Request(p.t.Context(), a.id)
		switch {
		case err != nil:
			p.t.Fatal(err)
		case !found:
			missing = append(missing, a)
		case a.free && a.sent.After(newest[a.life]):
			newest[a.life] = a.sent
		case !a.free:
			slowest = max(slowest, a.got.Sub(a.sent))
		}
		if a.free {
			free++
		}
	}
	oldest := time.Duration(0)
	for _, a := range missing {
		death := p.deaths[a.life-1]
		age := death.Sub(a.got)
		oldest = max(oldest, age)
		switch {
		case !a.free:
			p.t.Errorf("an answer that cost money is missing: %s", a.id)
		case death.IsZero():
			p.t.Errorf("an answer is missing though the program was not killed: %s", a.id)
		case a.got.Before(newest[a.life]):
			p.t.Errorf("an answer is missing that came before one that is in the ledger: %s", a.id)
		case age > unwritten+slowest:
			p.t.Errorf("an answer is missing %v after it was sent; a commit takes up to %v", age, slowest)
		}
	}
	p.t.Logf("%d answers (%d free), %d kills; missing in the ledger: 0 that cost money, %d free ones, sent at most %d ms before a kill", len(p.answers), free,
		p.struck(), len(missing), oldest.Milliseconds())
}

func (p *proof) report() {
	var b strings.Builder
	b.WriteString("\n| phase | tickets | answered by the specialist | right, of all | right, of its answers | spent (simulated) | after it |\n|---|---|---|---|---|---|---|\n")
	share := func(k, n int) string {
		if n == 0 {
			return "–"
		}
		return fmt.Sprintf("%.1f %%", 100*float64(k)/float64(n))
	}
	for _, f := range p.phases {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s of %d | $%.2f | %s |\n", f.name, f.requests, share(f.served, f.requests), share(f.right, f.requests),
			share(f.servedRight, f.served), f.served, f.spent, cmp.Or(f.state, "task made"))
		// the promise is agreement with the generalist, which is wrong in half a percent; the time between shift and alarm is what
		// the audits are for
		if low := calibration.Lower(f.served-f.servedRight, f.served, .001); low > 1-p.accuracy+.005 && f.name != "the taxonomy shifts" {
			p.t.Errorf("%s: %d of %d served answers are wrong, more than chance allows", f.name, f.served-f.servedRight, f.served)
		}
	}
	p.t.Log(b.String())
	if folder := os.Getenv("OCCAM_PROOF_PICTURE"); folder != "" && !p.t.Failed() {
		if err := os.WriteFile(filepath.Join(folder, "proof-"+p.world.name+".svg"), p.picture(), 0o644); err != nil {
			p.t.Error(err)
		}
	}
}

// TestServingWhileTraining measures how long certified answers take at fifty requests a second, while nothing else is done and while
// a model is trained beside them (RELIABILITY F41: at most twice as long, at the 99th percentile). OCCAM_BENCH=1.
func TestServingWhileTraining(t *testing.T) {
	if os.Getenv("OCCAM_BENCH") == "" {
		t.Skip("set OCCAM_BENCH=1")
	}
	p := newProof(t, ticketWorld(t), 0)
	p.phase("observe", p.observe, nil)
	p.discover()
	p.phase("learn", 40_000, p.in("live"))
	p.phase("live", p.live, nil)
	const window = 3 * time.Second
	idle := p.paced(5 * window)
	p.feedback(230) // enough for the live model to be trained again at once
	var training []time.Duration
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline) && len(training) < 5*150; {
		if !p.training() {
			if len(training) > 0 {
				break
			}
			p.paced(time.Second)
			continue
		}
		latencies := p.paced(window)
		if p.training() {
			training = append(training, latencies...)
		}
	}
	if len(idle) < 300 || len(training) < 100 {
		t.Fatalf("%d answers while idle, %d while a model was trained: too few", len(idle), len(training))
	}
	at := func(all []time.Duration, share float64) time.Duration {
		slices.Sort(all)
		return all[int(share*float64(len(all)-1))]
	}
	ratio := float64(at(training, .99)) / float64(at(idle, .99))
	t.Logf("certified answers at 50 requests a second: idle p50 %v p99 %v (%d), while a model is trained p50 %v p99 %v (%d); p99 ratio %.2f",
		at(idle, .5), at(idle, .99), len(idle), at(training, .5), at(training, .99), len(training), ratio)
	if ratio > 2 {
		t.Errorf("training makes the 99th percentile %.2f times as long", ratio)
	}
}

// training reports whether a model is being trained.
func (p *proof) training() bool {
	var st struct{ Training struct{ Running bool } }
	_ = json.Unmarshal(p.run("tasks", "show", "tickets", "--json"), &st)
	return st.Training.Running
}

// paced sends fifty tickets a second, whether or not the ones before have their answers, and returns how long the specialist's answers
// took.
func (p *proof) paced(length time.Duration) []time.Duration {
	f := &figures{}
	from := len(p.answers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
		text, truth, ok := p.ticket()
		if !ok {
			break
		}
		wg.Go(func() {
			if err := p.ask(f, &mu, text, truth); err != nil {
				p.t.Error(err)
			}
		})
	}
	wg.Wait()
	var took []time.Duration
	for _, a := range p.answers[from:] {
		if a.free {
			took = append(took, a.got.Sub(a.sent))
		}
	}
	return took
}

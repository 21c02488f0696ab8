package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/sim"
	"occam/internal/sim/occamtest"
	"occam/internal/store"
	"occam/internal/store/storetest"
	"occam/internal/task"
)

// Two processes share a PostgreSQL database, and either is killed at random moments: the task goes from traffic to a live model,
// every step is taken once, both serve the model, and what either sees of it counts.
func TestTwoReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models")
	}
	r := newReplicas(t)
	for i := range 60 {
		r.ask(i % 2)
	}
	var found struct{ Groups []struct{ ID string } }
	r.until("a group that both heard of", func() bool {
		found.Groups = nil
		r.document(&found, 0, "tasks", "discover", "--json")
		return len(found.Groups) == 1
	})
	r.document(new(any), 1, "tasks", "discover", "--make", found.Groups[0].ID, "--name", "colours", "--auto", "--audit", "0.5", "--json")
	dice := rand.New(rand.NewPCG(9, 9))
	kills := 0
	r.until("a live model in both processes", func() bool {
		for i := range 40 {
			r.ask(i % 2)
		}
		if kills < 4 && dice.IntN(3) == 0 {
			r.replace(kills % 2)
			kills++
		}
		time.Sleep(200 * time.Millisecond)
		return r.ask(0) == "certified" && r.ask(1) == "certified"
	})
	for which := range 2 {
		before := r.compared()
		for range 60 {
			r.ask(which)
		}
		r.until(fmt.Sprintf("evidence from process %d", which), func() bool { return r.compared() >= before+10 })
	}
	r.account(kills)
}

type replicas struct {
	t       *testing.T
	configs [2]string
	running [2]*occamtest.Process
	asked   int
	dsn     string
}

func newReplicas(t *testing.T) *replicas {
	r := &replicas{t: t}
	server := storetest.StartPostgres(t)
	r.dsn, _ = server.Backend().New(t)
	built.Need(t)
	provider, err := sim.New(sim.Options{Seed: 1, Write: func(truth task.Output) string { return truth["colour"].Text() }, Oracle: func(in string) task.Output {
		for word, colour := range colourWords {
			if strings.Contains(in, word) {
				return task.Output{"colour": task.String(colour)}
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	listening, err := provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	for i := range r.configs {
		r.configs[i] = filepath.Join(t.TempDir(), "occam.yaml")
		text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: data\nstore: %q\ncapture: {prompts: true}\n"+
			"providers: {openai: {type: openai, base_url: %s/v1, api_key: sk-x, simulated: true}}\n", r.dsn, listening.URL)
		if err := os.WriteFile(r.configs[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.running[i] = occamtest.Serve(t, built.Program, r.configs[i])
		t.Cleanup(func() { r.running[i].Stop(t) })
	}
	return r
}

var colourWords = map[string]string{"crimson": "red", "scarlet": "red", "ruby": "red", "emerald": "green", "olive": "green", "lime": "green",
	"navy": "blue", "azure": "blue", "indigo": "blue"}

// replace kills a process and starts it again.
func (r *replicas) replace(i int) {
	r.running[i].Kill(r.t)
	r.running[i] = occamtest.Serve(r.t, built.Program, r.configs[i])
}

// ask asks one process for the colour of a new text, and returns why it answered as it did.
func (r *replicas) ask(i int) (reason string) {
	r.t.Helper()
	r.asked++
	dice := rand.New(rand.NewPCG(uint64(r.asked), 4))
	words := []string{"crimson", "scarlet", "ruby", "emerald", "olive", "lime", "navy", "azure", "indigo"}
	things := []string{"lamp", "kettle", "jacket", "table", "window", "sofa", "mug", "door"}
	text := fmt.Sprintf("Which colour is meant here? One word.\n\nitem %d: the %s %s beside the %s", r.asked, words[dice.IntN(9)], things[dice.IntN(8)], things[dice.IntN(8)])
	body, err := json.Marshal(map[string]any{"model": "gpt-4o", "messages": []map[string]string{{"role": "user", "content": text}}})
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := http.Post(r.running[i].URL+"/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	if data, err := io.ReadAll(response.Body); err != nil || response.StatusCode != 200 {
		r.t.Fatalf("status %d: %s %v", response.StatusCode, data, err)
	}
	return response.Header.Get("X-Occam-Reason")
}

// document runs a command on one process's configuration.
func (r *replicas) document(into any, i int, args ...string) {
	r.t.Helper()
	out, err := exec.Command(built.Program, append(args, "--config", r.configs[i])...).Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		r.t.Fatalf("%v: %v %s", args, err, out)
	}
}

// compared is how many answers of the model were compared with the generalist's, as both processes say: by one as well as
// by the other, whichever of them leads.
func (r *replicas) compared() int {
	least := math.MaxInt
	for which := range 2 {
		var st struct {
			Models []struct{ Evidence struct{ Audits int } }
		}
		r.document(&st, which, "tasks", "show", "colours", "--json")
		if len(st.Models) == 0 {
			return 0
		}
		least = min(least, st.Models[0].Evidence.Audits)
	}
	return least
}

func (r *replicas) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		if ok() {
			return
		}
	}
	var st any
	r.document(&st, 0, "tasks", "show", "colours", "--json")
	r.t.Fatalf("no %s: %v\n%s\n%s", what, st, r.running[0].Log(), r.running[1].Log())
}

// account looks at the history: every step once, in order, and every training run ended once.
func (r *replicas) account(kills int) {
	r.t.Helper()
	s, err := store.Open(r.t.Context(), r.dsn, store.Options{Mode: store.ReadOnly, Dir: r.t.TempDir()})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	err = s.View(r.t.Context(), func(tx *store.Tx) error {
		steps, err := tx.Tasks().History("colours", 100)
		if err != nil {
			return err
		}
		var states []string
		for i, step := range steps {
			if want := int64(len(steps) - i); step.Version != want {
				r.t.Errorf("step %d has version %d", want, step.Version)
			}
			states = append([]string{step.To}, states...)
		}
		if got := strings.Join(states, " "); got != "observing candidate shadow canary live" {
			r.t.Errorf("states %s: a step was lost or taken twice", got)
		}
		jobs, err := tx.Jobs().List("colours", 100)
		models, modelsErr := tx.Models().List("colours")
		if err != nil || modelsErr != nil {
			return fmt.Errorf("%w %w", err, modelsErr)
		}
		tries := 0
		for _, j := range jobs {
			tries += j.Tries
			if j.State != store.JobDone {
				r.t.Errorf("job %+v", j)
			}
		}
		if len(models) != 1 || len(jobs) != 1 {
			r.t.Errorf("%d models from %d training runs", len(models), len(jobs))
		}
		r.t.Logf("%d kills, %d requests, states %v, %d training run taken up %d times", kills, r.asked, states, len(jobs), tries)
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
}

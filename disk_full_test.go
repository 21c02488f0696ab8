//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"occam/internal/sim"
	"occam/internal/sim/occamtest"
	"occam/internal/store"
	"occam/internal/task"
)

// The disk under a running server fills (RELIABILITY F05): the specialist goes on answering, no call that costs money leaves the process
// any more, nothing half-written is accepted, and everything goes on within two seconds of room being there again, without a restart.
// Afterwards the ledger is whole and agrees with what the provider served.
func TestServingOnAFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and trains a model")
	}
	f := newFullDisk(t)
	known := f.certain("red")
	if status := f.feedbackOn(known); status != http.StatusOK {
		t.Fatalf("feedback: status %d", status)
	}
	if a := f.ask("x1"); a.status != http.StatusOK || a.reason == "certified" {
		t.Fatalf("a text that the specialist does not know: %+v", a)
	}
	f.fill()
	f.whileFull(known)
	if err := os.Remove(f.filler); err != nil {
		t.Fatal(err)
	}
	room := time.Now()
	for f.paid().status != http.StatusOK || f.feedbackOn(f.certain("blue")) != http.StatusOK {
		if time.Since(room) > time.Minute {
			t.Fatalf("room is there again, and the server says %+v\n%s", f.paid(), f.server.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(room)
	t.Logf("everything works again %v after there was room; %d paid calls were refused before, %d certified answers given", took, f.refused, f.certified)
	if os.Getenv("OCCAM_QUIET") != "" && took > 2*time.Second { // a bar in seconds needs a machine of its own
		t.Errorf("recovery took %v", took)
	}
	f.account()
}

// fullDisk is a server with a specialist whose data stands on a small disk.
type fullDisk struct {
	t        *testing.T
	server   *occamtest.Process
	provider *sim.Provider
	config   string
	filler   string
	asked    int

	refused, certified int // while the disk was full
	answered           map[string]bool
}

func newFullDisk(t *testing.T) *fullDisk {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) }) // the test's own mount
	f := &fullDisk{t: t, filler: filepath.Join(disk, "filler"), answered: map[string]bool{}}
	built.Need(t)
	var err error
	if f.provider, err = sim.New(sim.Options{Seed: 1, Oracle: func(in string) task.Output { return task.Output{"colour": task.String(colourIn(in))} }}); err != nil {
		t.Fatal(err)
	}
	listening, err := f.provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	dir := t.TempDir()
	f.config = filepath.Join(dir, "occam.yaml")
	var rows bytes.Buffer
	for i := range 1200 {
		text := f.text([]string{"red", "green", "blue"}[i%3])
		fmt.Fprintf(&rows, "{\"text\":%q,\"labels\":{\"colour\":%q}}\n", text, colourIn(text))
	}
	data, model := filepath.Join(dir, "rows.jsonl"), filepath.Join(dir, "colours.occam")
	text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: %s\ncapture: {prompts: true}\n"+
		"providers: {openai: {type: openai, base_url: %s/v1, api_key: sk-x, simulated: true}}\nmodels: {gpt-4o: {provider: openai}}\n"+
		"tasks:\n  colours:\n    schema: {type: object, properties: {colour: {type: string, enum: [red, green, blue]}}}\n    generalist: gpt-4o\n    model: %s\n"+
		"    audit: 0\n    target: {promise: served, accuracy: 0.95, confidence: 0.9}\n", disk, listening.URL, model)
	taskFile := "name: colours\nschema: {type: object, properties: {colour: {type: string, enum: [red, green, blue]}}}\ntarget: {promise: served, accuracy: 0.95, confidence: 0.9}\n"
	err = errors.Join(os.WriteFile(f.config, []byte(text), 0o600), os.WriteFile(data, rows.Bytes(), 0o600), os.WriteFile(filepath.Join(dir, "task.yaml"), []byte(taskFile), 0o600),
		occamtest.Command(built.Program, "train", "--task", filepath.Join(dir, "task.yaml"), "--data", data, "--out", model))
	if err != nil {
		t.Fatal(err)
	}
	f.server = occamtest.Serve(t, built.Program, f.config)
	t.Cleanup(func() { f.server.Stop(t) })
	return f
}

// text is a new text that names a colour, or nonsense for what is none.
func (f *fullDisk) text(colour string) string {
	f.asked++
	dice := rand.New(rand.NewPCG(uint64(f.asked), 4))
	things := []string{"lamp", "kettle", "jacket", "table", "window", "sofa", "mug", "door"}
	thing := func() string { return things[dice.IntN(len(things))] }
	var words []string
	for word, c := range colourWords {
		if c == colour {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return fmt.Sprintf("zq%d wv%d xk%d", f.asked, dice.IntN(1e6), dice.IntN(1e6))
	}
	return fmt.Sprintf("item %d: the %s %s beside the %s", f.asked, words[dice.IntN(len(words))], thing(), thing())
}

func colourIn(text string) string {
	for word, colour := range colourWords {
		if strings.Contains(text, word) {
			return colour
		}
	}
	return "red"
}

// A got is what an app got.
type got struct {
	status             int
	id, reason, answer string
	took               time.Duration
}

// ask asks the task for the colour of a new text; paid asks a model past every task.
func (f *fullDisk) ask(colour string) got { return f.post("colours", f.text(colour)) }
func (f *fullDisk) paid() got             { return f.post("gpt-4o", "Write a poem about "+f.text("")) }

func (f *fullDisk) post(model, text string) got {
	f.t.Helper()
	body, err := json.Marshal(map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": text}}})
	if err != nil {
		f.t.Fatal(err)
	}
	a := f.send("/chat/completions", body)
	if a.status == http.StatusOK {
		f.answered[a.id] = true
	}
	return a
}

func (f *fullDisk) send(path string, body []byte) got {
	f.t.Helper()
	began := time.Now()
	response, err := http.Post(f.server.URL+path, "application/json", bytes.NewReader(body))
	if err != nil {
		f.t.Fatalf("%v\n%s", err, f.server.Log())
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return got{response.StatusCode, response.Header.Get("X-Occam-Request-Id"), response.Header.Get("X-Occam-Reason"), string(data), time.Since(began)}
}

// certain asks until the specialist answers: one text in twenty is too unusual for it, and is the generalist's.
func (f *fullDisk) certain(colour string) got {
	f.t.Helper()
	var a got
	for range 20 {
		if a = f.ask(colour); a.reason == "certified" {
			if a.status != http.StatusOK || !strings.Contains(a.answer, colour) {
				f.t.Fatalf("a %s thing: %+v", colour, a)
			}
			return a
		}
	}
	f.t.Fatalf("the specialist does not answer: %+v\n%s", a, f.server.Log())
	return a
}

func (f *fullDisk) feedbackOn(a got) (status int) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // what is kept of a request is kept a moment after its answer
		body := fmt.Sprintf(`{"request_id":%q,"labels":{"colour":"red"}}`, a.id)
		if status = f.send("/feedback", []byte(body)).status; status != http.StatusNotFound || time.Now().After(deadline) {
			return status
		}
	}
}

// fill takes all room of the disk.
func (f *fullDisk) fill() {
	file, err := os.Create(f.filler)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it is full
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// whileFull asks for everything while nothing can be written. The journal has a little room that was taken before; when that is used up
// paid calls must be refused.
func (f *fullDisk) whileFull(known got) {
	f.t.Helper()
	for i := 0; f.refused < 50; i++ {
		if i > 20_000 {
			f.t.Fatal("the disk is full and paid calls go on")
		}
		served := f.provider.Served()
		for _, a := range []got{f.paid(), f.ask("x")} { // past the task, and what the specialist leaves
			switch {
			case a.status == http.StatusOK && f.refused == 0:
			case (a.status == http.StatusServiceUnavailable || a.status == http.StatusInsufficientStorage) && strings.Contains(a.answer, "ledger_unavailable"):
				if f.refused++; f.provider.Served() != served {
					f.t.Fatal("the provider served a call that was refused")
				}
			default:
				f.t.Fatalf("a call that costs money on a full disk: %+v", a)
			}
			if f.refused > 0 && a.status == http.StatusOK {
				f.t.Errorf("paid after a refusal: %+v", a)
			}
		}
		f.certain([]string{"red", "green", "blue"}[i%3])
		f.certified++
	}
	if status := f.send("/feedback", fmt.Appendf(nil, `{"request_id":%q,"labels":{"colour":"red"}}`, known.id)).status; status < 500 {
		f.t.Errorf("feedback on a full disk: status %d", status)
	}
}

// account compares the ledger with what was answered and what the provider served, after the server ended.
func (f *fullDisk) account() {
	t := f.t
	t.Helper()
	served := f.provider.Served()
	f.server.Stop(t)
	if out, err := exec.Command(built.Program, "ledger", "verify", "--config", f.config).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Dir(f.filler), store.Options{Mode: store.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing is to be kept
	for id := range f.answered {
		if _, ok, err := s.Request(t.Context(), id); err != nil || !ok {
			t.Errorf("the answer %s is not in the ledger: %v", id, err)
		}
	}
	counts, err := s.Counts(t.Context())
	if err != nil || counts.Settled != served || counts.Open > 0 || counts.Estimated > 0 {
		t.Errorf("the provider served %d calls, the ledger has %+v, %v", served, counts, err)
	}
}

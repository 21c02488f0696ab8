package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/lifecycle"
	"occam/internal/store"
)

// A writable is one kind of object that a route changes: a form that does it, and every field that the route reads.
type writable struct {
	path   string
	form   func(*massWorld) url.Values
	reads  string // besides those of form
	hashes bool   // it takes a password's hash: all privileged fields come at once
}

var writables = map[string]writable{
	"/tasks/{name}/command":         {"/tasks/ticket-triage/command", fixedForm("command", "pause", "confirm", "ticket-triage", "version", "0"), "model", false},
	"/tasks/{name}/cancel-training": {"/tasks/ticket-triage/cancel-training", fixedForm(), "", false},
	"/tasks/{name}/data":            {"/tasks/ticket-triage/data", fixedForm(), "", false},
	"/groups/{id}":                  {"/groups/s01c4", fixedForm("name", "made"), "audit auto", false},
	"/batches/{id}":                 {"/batches/batch_01KB0A", fixedForm(), "", false},
	"/ledger/verify":                {"/ledger/verify", fixedForm(), "", false},
	"/ledger/invoice":               {"/ledger/invoice", fixedForm(), "provider month invoice", false},
	"/review/{id}":                  {"/review/REVIEW", fixedForm("do", "accept", "f.category", "parcel_late", "f.order_id", "AB-1234"), "", false},
	"/keys":                         {"/keys", fixedForm("name", "made"), "budget period requests_per_minute tokens_per_minute escalations_per_minute labels_per_day models tasks degrade", false},
	"/keys/{id}": {"/keys/KEY", func(w *massWorld) url.Values {
		return url.Values{"do": {"limits"}, "version": {w.keyVersion()}}
	}, "confirm budget period requests_per_minute tokens_per_minute escalations_per_minute labels_per_day models tasks degrade", false},
	"/settings/accounts": {"/settings/accounts", fixedForm("name", "zoe", "do", "set", "role", "viewer"), "version", true},
	"/settings/password": {"/settings/password", fixedForm("old", "a password of ten", "new", "a password of ten"), "", true},
	"/login":             {"/login", fixedForm("name", "eva", "password", "a password of ten", "next", "/"), "", true},
	"/logout":            {"", nil, "", false}, // reads nothing, and would end the sessions of this test
}

func fixedForm(pairs ...string) func(*massWorld) url.Values {
	return func(*massWorld) url.Values {
		form := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
		return form
	}
}

// massWorld is a dashboard whose every change can be seen.
type massWorld struct {
	t       *testing.T
	s       *store.Store
	d       *Dashboard
	base    string
	clients map[Role]*http.Client
	key     string
	reviews int
	since   time.Time // of the request under way

	mu   sync.Mutex
	now  time.Time
	done []string // what the program was told to do
}

// privileged are the fields that nobody may set beside those of a form: all of the stored objects and of what the program is told, and
// every field of every form.
func privileged(t *testing.T) []string {
	var all []string
	for _, object := range []any{store.Key{}, store.KeyLimits{}, store.Review{}, store.Example{}, store.Job{}, accountRecord{}, accountChange{}, session{}, Action{}, Order{},
		lifecycle.Making{}, keyRow{}, TaskView{}, TierView{}, BatchView{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(object)) {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if tag == "" || tag == "-" {
				tag = strings.ToLower(f.Name)
			}
			all = append(all, f.Name, tag)
		}
	}
	files, err := filepath.Glob("web/*.html")
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`\bname="([a-z._-]+)"`).FindAllStringSubmatch(string(text), -1) {
			all = append(all, m[1])
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool { return name == "" || name == "-" })
}

// attack is what a field is set to: another person, more rights, more money.
func attack(field string) string {
	switch strings.ToLower(field) {
	case "role":
		return "admin"
	case "by", "owner", "actor", "who", "name":
		return "boss"
	case "do":
		return "remove"
	case "version", "seen":
		return "0"
	}
	return "1"
}

// state is everything that a request could have changed, without what differs each time.
func (w *massWorld) state() (all []string) {
	accounts, err := listAccounts(w.t.Context(), w.s)
	must(w.t, err)
	for _, a := range accounts {
		all = append(all, fmt.Sprint("account ", a.name, " ", a.role))
	}
	must(w.t, w.s.View(w.t.Context(), func(tx *store.Tx) error {
		keys, err := tx.Keys().List()
		for _, k := range keys {
			limits, _ := json.Marshal(k.Limits)
			all = append(all, fmt.Sprint("key ", k.Name, " ", k.Role, " ", k.Revoked.IsZero(), " ", k.ID == w.key, " ", string(limits)))
		}
		actions, actErr := listActions(tx, 20)
		for _, a := range actions {
			if !a.At.After(w.since) {
				break
			}
			all = append(all, strings.ReplaceAll(fmt.Sprint("logged ", a.By, " ", a.What, " ", a.Object == w.key), w.key, "KEY"))
		}
		if w.reviews > 0 {
			r, revErr := tx.Reviews().Get(fmt.Sprint("V", w.reviews))
			must(w.t, revErr)
			all = append(all, fmt.Sprint("review ", r.Task, r.Example == r.ID, r.Priority, r.Reason, string(r.Suggestion), r.State, r.Owner, r.Output))
		}
		return errors.Join(err, actErr)
	}))
	w.d.sessions.mu.Lock()
	for _, one := range w.d.sessions.open {
		all = append(all, fmt.Sprint("session ", one.name, " ", one.role))
	}
	w.d.sessions.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(all, w.done...)
}

// changes are the states that a request added or took away, as a bag.
func changes(before, after []string) string {
	n := map[string]int{}
	for _, s := range before {
		n[s]--
	}
	for _, s := range after {
		n[s]++
	}
	var all []string
	for s, k := range n {
		if k != 0 {
			all = append(all, fmt.Sprintf("%+d %s", k, s))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (w *massWorld) keyVersion() (version string) {
	must(w.t, w.s.View(w.t.Context(), func(tx *store.Tx) error {
		keys, err := tx.Keys().List()
		for _, k := range keys {
			if k.ID == w.key {
				version = keyVersion(&k)
			}
		}
		return err
	}))
	return version
}

func newMassWorld(t *testing.T) *massWorld {
	w := &massWorld{t: t, s: openStore(t), clients: map[Role]*http.Client{Nobody: browser(t)}, now: fixedNow}
	told := func(what string, args ...any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.done = append(w.done, what+fmt.Sprintf(" %+v", args))
	}
	o := everything(w.s)
	o.Login, o.Log = true, slog.New(slog.DiscardHandler)
	o.Now = func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = w.now.Add(2 * time.Millisecond)
		return w.now
	}
	o.Command = func(_ context.Context, order Order) error { told("command", order); return nil }
	o.MakeTask = func(_ context.Context, m lifecycle.Making) error { told("make", m); return nil }
	o.CancelTraining = func(_ context.Context, name string) (string, error) { told("end training", name); return "J", nil }
	o.CancelBatch = func(_ context.Context, id string) error { told("stop batch", id); return nil }
	o.Verifier, o.CheckData = nil, func(context.Context, string, func(string, int, int)) (*lifecycle.DataCheck, error) {
		return nil, errors.New("not now")
	}
	d, server := start(t, o)
	w.d, w.base = d, server.URL
	for _, a := range []login{{name: "boss", role: Admin}, {name: "ada", role: Admin}, {name: "eva", role: Viewer}, {name: "rita", role: Reviewer}, {name: "zoe", role: Viewer}} {
		_, err := setAccount(t.Context(), w.s, a.name, a.role, "a password of ten")
		must(t, err)
		if a.name != "boss" && a.name != "zoe" {
			w.clients[a.role] = browser(t)
			logIn(t, w.clients[a.role], w.base, a.name, "a password of ten")
		}
	}
	must(t, w.s.Update(t.Context(), func(tx *store.Tx) error {
		k, _, err := tx.Keys().Create("billing", "app", store.KeyLimits{Period: "month"})
		w.key = k.ID
		return err
	}))
	return w
}

// send makes one request with fields beside the form's own, in the body and in the address, and returns what it changed.
func (w *massWorld) send(to writable, api string, role Role, fields []string) string {
	w.t.Helper()
	path := to.path
	if strings.HasSuffix(path, "REVIEW") {
		w.reviews++
		id := fmt.Sprint("V", w.reviews)
		must(w.t, w.s.Update(w.t.Context(), func(tx *store.Tx) error {
			if err := tx.Examples().Add(store.Example{ID: id, RequestID: id, Task: "ticket-triage", At: fixedNow, Text: keptText}); err != nil {
				return err
			}
			return tx.Reviews().Add(store.Review{ID: id, Task: "ticket-triage", RequestID: id, Example: id, At: fixedNow, Priority: 3, Reason: "random slice"})
		}))
		path = "/review/" + id
	}
	path = strings.Replace(path, "KEY", w.key, 1)
	form, query := to.form(w), url.Values{}
	for _, name := range fields {
		form.Set(name, attack(name))
		query.Set(name, attack(name))
	}
	if path == "/settings/password" && role != Nobody { // a new password ends the sessions
		name := map[Role]string{Viewer: "eva", Reviewer: "rita", Admin: "ada"}[role]
		w.d.sessions.endAll(name)
		logIn(w.t, w.clients[role], w.base, name, "a password of ten")
	}
	w.d.sessions.mu.Lock()
	clear(w.d.sessions.tries)
	w.d.sessions.mu.Unlock()
	w.since = w.d.Now()
	before := w.state()
	reply, err := w.clients[role].PostForm(w.base+api+path+"?"+query.Encode(), form)
	must(w.t, err)
	reply.Body.Close()
	return changes(before, w.state())
}

// TestMassAssignmentOfEveryField (S08): every object that a route changes, as every role, with every field of every stored object and of
// every other form beside its own: what changes is what the form alone changes, and nothing where the role is too low.
func TestMassAssignmentOfEveryField(t *testing.T) {
	t.Parallel()
	w := newMassWorld(t)
	fields := privileged(t)
	tried, done := 0, map[string]bool{}
	for _, r := range w.d.Routes() {
		pattern := strings.TrimPrefix(r.Path, "/api")
		if r.Method != http.MethodPost || done[pattern] && pattern != r.Path {
			continue
		}
		to, known := writables[pattern]
		if !known {
			t.Errorf("POST %s is not in the table: say what it changes", r.Path)
			continue
		}
		if done[pattern] = true; to.form == nil {
			continue
		}
		own := strings.Fields(to.reads)
		for name := range to.form(w) {
			own = append(own, name)
		}
		others := slices.DeleteFunc(slices.Clone(fields), func(name string) bool { return slices.Contains(own, name) })
		for _, role := range []Role{Nobody, Viewer, Reviewer, Admin} {
			want := w.send(to, "", role, nil)
			if role < r.Least && want != "" {
				t.Errorf("%s as %s changed:\n%s", r.Path, role, want)
			}
			if role >= r.Least && want == "" && !strings.HasPrefix(pattern, "/ledger/") && pattern != "/tasks/{name}/data" {
				t.Errorf("%s as %s changes nothing", r.Path, role) // nothing would be tested
			}
			sets := [][]string{others}
			if role >= r.Least && !to.hashes { // a lesser role is refused before the form is read
				for _, name := range others {
					sets = append(sets, []string{name})
				}
			}
			for _, set := range sets {
				tried++
				if got := w.send(to, "", role, set); got != want {
					t.Errorf("%s as %s with %.80v changed:\n%s\nwithout:\n%s", r.Path, role, set, got, want)
				}
			}
		}
	}
	if tried < 1000 {
		t.Errorf("only %d requests were tried", tried)
	}
	t.Logf("%d requests, %d privileged fields", tried, len(fields))
}

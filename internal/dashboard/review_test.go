package dashboard

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"occam/internal/store"
	"occam/internal/task"
)

func TestReviewQueue(t *testing.T) {
	s := openStore(t)
	queueReview(t, s)
	server := serve(t, Options{Source: s, Database: s, Tasks: fixedTasks(ticketTask())})
	_, _, body := get(t, server.URL+"/review")
	wantText(t, body, "<mark>AB-1234</mark>", "&lt;b&gt;Eva&lt;/b&gt;", `<option value="parcel_late" selected>`, "ticket-triage: 1")
	send := func(values url.Values) int {
		reply, err := http.PostForm(server.URL+"/api/review/R1", values)
		must(t, err)
		reply.Body.Close()
		return reply.StatusCode
	}
	if status := send(url.Values{"do": {"accept"}, "f.category": {"made up"}}); status != http.StatusBadRequest {
		t.Errorf("a category that does not exist: status %d", status)
	}
	if status := send(url.Values{"do": {"accept"}, "f.category": {"refund_status"}, "f.order_id": {""}}); status != 200 {
		t.Errorf("a correction: status %d", status)
	}
	if status := send(url.Values{"do": {"skip"}}); status != http.StatusConflict {
		t.Errorf("a second answer: status %d", status)
	}
	if status, _, _ := get(t, server.URL+"/review/none"); status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
		t.Errorf("an unknown text: status %d", status)
	}
	must(t, s.View(t.Context(), func(tx *store.Tx) error {
		done, err := tx.Reviews().Get("R1")
		if err != nil {
			return err
		}
		if v := done.Output["category"]; v.Text() != "refund_status" || !done.Output["order_id"].IsNull() || done.State != store.ReviewDone {
			t.Errorf("what was said is kept as %+v", done)
		}
		return nil
	}))
	_, _, body = get(t, server.URL+"/review")
	wantText(t, body, "Nothing waits for you")
}

// TestBooleanAnswers takes what is neither true nor false for no answer: as false it would be learned from.
func TestBooleanAnswers(t *testing.T) {
	fields := []task.Field{{Name: "urgent", Kind: task.Boolean}}
	for text, want := range map[string]string{"true": "true", "false": "false", "True": "", "yes": ""} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(url.Values{"f.urgent": {text}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		got, err := readOutput(fields, r)
		if v := got["urgent"]; (err == nil) != (want != "") || err == nil && string(v.AppendJSON(nil)) != want {
			t.Errorf("%q is %v (%v), want %s", text, got, err, want)
		}
	}
}

func TestSpansAreMarked(t *testing.T) {
	var b strings.Builder
	for _, p := range mark("AB-1 and AB-1, not CD-2", []string{"AB-1", "CD-2"}) {
		if p.Marked {
			b.WriteString("[" + p.Text + "]")
		} else {
			b.WriteString(p.Text)
		}
	}
	if got, want := b.String(), "[AB-1] and [AB-1], not [CD-2]"; got != want {
		t.Errorf("marked %q, want %q", got, want)
	}
}

func TestSettings(t *testing.T) {
	server, password, viewerPassword, _ := guarded(t)
	c := browser(t)
	logIn(t, c, server.URL, "admin", password)
	post := func(path string, values url.Values) int {
		reply, err := c.PostForm(server.URL+path, values)
		must(t, err)
		reply.Body.Close()
		return reply.StatusCode
	}
	if status := post("/settings/accounts", url.Values{"name": {"otto"}, "role": {"reviewer"}}); status != 200 {
		t.Errorf("a new account: status %d", status)
	}
	if status := post("/settings/accounts", url.Values{"name": {"otto"}, "role": {"root"}}); status != http.StatusBadRequest {
		t.Errorf("an unknown role: status %d", status)
	}
	if status := post("/settings/accounts", url.Values{"name": {"admin"}, "do": {"remove"}}); status != http.StatusConflict {
		t.Errorf("removing the last admin: status %d", status)
	}
	viewer := browser(t)
	logIn(t, viewer, server.URL, "eva", viewerPassword)
	if status := post("/settings/accounts", url.Values{"name": {"eva"}, "do": {"remove"}}); status != 200 {
		t.Errorf("removing an account: status %d", status)
	}
	if reply, err := viewer.Get(server.URL + "/"); err != nil || reply.StatusCode != http.StatusSeeOther {
		t.Error("a removed account's session goes on")
	}
	if status := post("/settings/password", url.Values{"old": {"not it at all"}, "new": {"a new password"}}); status != http.StatusForbidden {
		t.Errorf("a password change without the old one: status %d", status)
	}
	if status := post("/settings/password", url.Values{"old": {password}, "new": {"a new password"}}); status != http.StatusSeeOther {
		t.Errorf("a password change: status %d", status)
	}
	if reply := logIn(t, browser(t), server.URL, "admin", "a new password"); reply.StatusCode != http.StatusSeeOther {
		t.Errorf("the new password: status %d", reply.StatusCode)
	}
}

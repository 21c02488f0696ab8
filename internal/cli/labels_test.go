package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"occam/internal/lifecycle"
	"occam/internal/sample"
)

// Labels over HTTP: for requests that nobody knows, from a key that was revoked, by the thousand from one key; and all of a key's
// labels taken back.
func TestLabelsOfKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	f := newFixture(t, nil, "capture: {prompts: true}\n")
	base, _, stop := serve(t, f.config)
	newKey := func(name string) string {
		out := mustRun(t, "", "keys", "create", name, "--json", "--config", f.config)
		var made struct{ Secret string }
		if err := json.Unmarshal([]byte(out), &made); err != nil || made.Secret == "" {
			t.Fatalf("%v in %s", err, out)
		}
		return made.Secret
	}
	honest, flooder := newKey("honest"), newKey("flooder")
	call := func(key, path string, document any) (int, http.Header, string) {
		body, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, base+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+key)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		data, _ := io.ReadAll(response.Body)
		return response.StatusCode, response.Header, string(data)
	}
	var ids []string
	for _, x := range f.tickets[:150] {
		if x.OutOfScope {
			continue // the generalist has no legal answer, so nothing is kept
		}
		status, header, body := call(honest, "/v1/chat/completions", map[string]any{"model": "triage", "messages": []map[string]string{{"role": "user", "content": x.Text}}})
		if status != 200 {
			t.Fatalf("status %d: %s", status, body)
		}
		ids = append(ids, header.Get("X-Occam-Request-Id"))
	}
	labels := map[string]any{"category": sample.Categories()[0]}
	feedback := func(key, id string) int {
		status, _, _ := call(key, "/v1/feedback", map[string]any{"request_id": id, "labels": labels})
		return status
	}
	for _, id := range ids {
		wait(t, "the request to be kept", func() bool { return feedback(flooder, id) == 200 })
	}
	if status := feedback(honest, "01UNKNOWN"); status != 404 {
		t.Errorf("an unknown request: %d", status)
	}
	for range 7 { // a thousand, most of them said before
		for _, id := range ids {
			if status := feedback(flooder, id); status != 200 {
				t.Fatalf("status %d", status)
			}
		}
	}
	byPeople := func() int64 {
		return read[lifecycle.Status](t, mustRun(t, "", "tasks", "show", "triage", "--json", "--config", f.config)).Examples.ByPerson
	}
	wait(t, "count of labels", func() bool { return byPeople() == int64(len(ids)) })
	keys := mustRun(t, "", "keys", "list", "--json", "--config", f.config)
	id := keyID(t, keys, "flooder")
	if out := mustRun(t, "", "tasks", "revoke-labels", id, "--json", "--config", f.config); !strings.Contains(out, fmt.Sprintf(`"labels":%d`, len(ids))) {
		t.Errorf("revoked: %s", out)
	}
	wait(t, "labels taken back", func() bool { return byPeople() == 0 })
	mustRun(t, "", "keys", "revoke", id, "--config", f.config)
	if status := feedback(flooder, ids[0]); status != 401 {
		t.Errorf("a revoked key: %d", status)
	}
	stop()
}

// keyID finds a key by its name.
func keyID(t *testing.T, list, name string) string {
	t.Helper()
	var found struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(list), &found); err != nil {
		t.Fatal(err)
	}
	for _, k := range found.Keys {
		if k["name"] == name {
			return fmt.Sprint(k["id"])
		}
	}
	t.Fatalf("no key %s in %s", name, list)
	return ""
}

// A schema that changes midway: requests with another schema are none of the task's. No specialist answers them, nothing is learned from
// them, and they are a group of their own.
func TestASchemaThatChangesMidway(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	f := newFixture(t, nil, "capture: {prompts: true}\n")
	base, _, stop := serve(t, f.config)
	shape := func(values string) json.RawMessage {
		return json.RawMessage(`{"type":"object","properties":{"category":{"type":"string","enum":[` + values + `]},"mood":{"type":"string","enum":["good","bad"]}},` +
			`"required":["category","mood"],"additionalProperties":false}`)
	}
	for i, x := range f.tickets[:30] {
		body, err := json.Marshal(map[string]any{"model": "gpt-4o", "messages": []map[string]string{{"role": "user", "content": x.Text}},
			"response_format": map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "x", "strict": true, "schema": shape(`"a","b"`)}}})
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.Post(base+"/v1/chat/completions", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("X-Occam-Task"); got != "none" || response.StatusCode != 200 {
			t.Fatalf("request %d with another schema belongs to %q, status %d", i, got, response.StatusCode)
		}
	}
	wait(t, "a group of its own", func() bool {
		groups := read[struct{ Groups []lifecycle.Group }](t, mustRun(t, "", "tasks", "discover", "--json", "--config", f.config)).Groups
		return len(groups) == 1 && groups[0].Requests == 30 && len(groups[0].Fields) == 2
	})
	if st := read[lifecycle.Status](t, mustRun(t, "", "tasks", "show", "triage", "--json", "--config", f.config)); st.Examples.Examples != 0 {
		t.Errorf("%d examples were kept of another schema", st.Examples.Examples)
	}
	stop()
}

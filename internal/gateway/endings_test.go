package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"occam/internal/engine"
)

// That a provider stops a model is told to apps in a header and in the list of models, and to people in the log: by the provider's
// own list where it says so, by the price book where it does not.
func TestModelsThatEnd(t *testing.T) {
	var log bytes.Buffer
	soon := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.DateOnly)
	far := time.Now().Add(400 * 24 * time.Hour).Unix()
	w := newWorld(t, func(_ *world, o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprintf(rw, `{"object":"list","data":[{"id":"gpt-4o","object":"model","deprecation_date":%q},{"id":"gpt-far","object":"model","expiration_date":%d},{"id":"gpt-4o-mini","object":"model"}]}`, soon, far)
			return
		}
		w.charge()
		io.WriteString(rw, w.reply())
	}
	w.snap.Models = map[string]engine.Route{"far": {Targets: []engine.Target{{Upstream: w.snap.Fallback, Model: "gpt-far"}}}}
	w.publish()
	told := map[string]bool{}
	for range 2 { // the second look says nothing new
		w.server.lookForEndings(context.Background(), w.snap)
		w.server.warnOfEndings(w.snap, told)
	}
	if res, _ := w.post(plainBody); res.Header.Get("X-Occam-Model-Shutdown") != soon {
		t.Errorf("headers %v, want %s", res.Header, soon)
	}
	if res, _ := w.post(strings.Replace(plainBody, "gpt-4o", "far", 1)); res.Header.Get("X-Occam-Model-Shutdown") != "" {
		t.Errorf("warned of an end in a year: %v", res.Header)
	}
	res, err := http.Get(w.web.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct {
		Data []struct{ ID, Shutdown_date string }
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	dates := map[string]string{}
	for _, m := range list.Data {
		dates[m.ID] = m.Shutdown_date
	}
	if dates["gpt-4o"] != soon || dates["far"] == "" || dates["gpt-4o-mini"] != "2027-01-14" { // the last as the price book says
		t.Errorf("%v", dates)
	}
	if _, task := dates["triage"]; !task {
		t.Errorf("the task is not listed: %v", dates)
	}
	if warnings := strings.Count(log.String(), "stops a model"); warnings != 1 {
		t.Errorf("%d warnings:\n%s", warnings, log.String())
	}
}

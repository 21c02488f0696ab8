package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// `occam doctor` takes the price of a task's generalist from where its calls are priced: by the upstream's name, of the provider's
// seller, also where the book knows more than one.
func TestDoctorKnowsWhoSells(t *testing.T) {
	for text, want := range map[string]bool{
		"providers: {acme: {type: openai, base_url: 'http://127.0.0.1:9/v1', prices: openai}}\nmodels: {big: {provider: acme, upstream: gpt-4o}}\ntasks: {triage: {generalist: big, ":     true,
		"providers: {acme: {type: openai, base_url: 'http://127.0.0.1:9/v1', prices: openai}}\ntasks: {triage: {generalist: gpt-4o, ":                                                     true,
		"providers: {acme: {type: openai, base_url: 'http://127.0.0.1:9/v1'}}\ntasks: {triage: {generalist: gpt-4o, ":                                                                     false,
		"providers: {acme: {type: openai, base_url: 'http://127.0.0.1:9/v1', hosting: {sku: aws g5.xlarge}}}\nmodels: {big: {provider: acme}}\ntasks: {triage: {generalist: big, ":        true,
		"providers: {acme: {type: openai, base_url: 'http://127.0.0.1:9/v1', prices: openai}}\nmodels: {gpt-4o: {provider: acme, upstream: ours}}\ntasks: {triage: {generalist: gpt-4o, ": false,
	} {
		s := newStand(t, "self_test: false\n"+text+"schema: {type: object, properties: {category: {type: string, enum: [refund, late]}}}, input: '{{ticket}}'}}\n")
		list := filepath.Join(t.TempDir(), "prices.json")
		sellers := `{"gpt-4o":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":2.5e-6,"output_cost_per_token":1e-5},` +
			`"azure/gpt-4o":{"litellm_provider":"azure","mode":"chat","input_cost_per_token":2.6e-6,"output_cost_per_token":1.1e-5}}`
		if err := os.WriteFile(list, []byte(sellers), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, imported := range []bool{false, true} {
			if imported {
				mustRun(t, "", "prices", "import", list, "--apply", "--config", s.config)
			}
			if code, stdout, _ := run(t, "", "doctor", "--offline", "--config", s.config); (code == exitDone) != want {
				t.Errorf("exit %d after an import: %v\n%s\n%s", code, imported, text, stdout)
			}
		}
	}
}

// What `occam doctor` says of a provider holds neither user, nor password, nor parameters of its address.
func TestDoctorTellsNoPassword(t *testing.T) {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"data":[]}`) }))
	defer provider.Close()
	at := strings.TrimPrefix(provider.URL, "http://")
	for _, address := range []string{"http://ann:canary@" + at + "/v1", "http://" + at + "/v1?key=canary", "http://ann:canary@127.0.0.1:9/v1"} {
		s := newStand(t, fmt.Sprintf("self_test: false\nproviders: {acme: {type: openai, base_url: %q, api_key: canary}}\n", address))
		_, stdout, stderr := run(t, "", "doctor", "--config", s.config)
		if strings.Contains(stdout+stderr, "canary") || !strings.Contains(stdout, "provider acme") {
			t.Errorf("%s: %s%s", address, stdout, stderr)
		}
	}
}

// `occam doctor` says which models that the configuration names their providers stop: by the providers' own lists, by the price book
// where they say nothing or are not asked. One that is stopped already fails it.
func TestDoctorNamesModelsThatEnd(t *testing.T) {
	soon, past := time.Now().Add(20*24*time.Hour).UTC(), time.Now().Add(-20*24*time.Hour).UTC()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprintf(w, `{"data":[{"id":"gpt-soon","shutdown_date":%q},{"id":"gpt-gone","retires_at":%q},{"id":"gpt-4o"}]}`,
				soon.Format(time.DateOnly), past.Format(time.RFC3339))
		}
	}))
	defer provider.Close()
	doctor := func(models string, flags ...string) (int, string) {
		dir := t.TempDir()
		cfg := filepath.Join(dir, "occam.yaml")
		text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: %q\nself_test: false\nproviders: {acme: {type: openai, base_url: %q, prices: openai}}\nmodels:\n%s",
			dir, provider.URL+"/v1", models)
		if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := run(t, "", append([]string{"doctor", "--config", cfg}, flags...)...)
		return code, stdout + stderr
	}
	line := func(text, has string) string {
		for l := range strings.Lines(text) {
			if strings.Contains(l, has) {
				return l
			}
		}
		return ""
	}
	const named = "  quick: {provider: acme, upstream: gpt-soon}\n"
	code, said := doctor(named)
	if l := line(said, "model quick"); code != 0 || !strings.HasPrefix(l, "ok ") || !strings.Contains(l, "acme stops gpt-soon on "+soon.Format(time.DateOnly)) {
		t.Errorf("exit %d, %q\n%s", code, l, said)
	}
	code, said = doctor(named + "  old: {provider: acme, upstream: gpt-gone}\n")
	if l := line(said, "model old"); code != exitFailed || !strings.HasPrefix(l, "BAD") || !strings.Contains(l, past.Format(time.DateOnly)) {
		t.Errorf("exit %d, %q\n%s", code, l, said)
	}
	for _, flags := range [][]string{nil, {"--offline"}} { // that gpt-4o ends says the price book only
		_, said = doctor(named+"  gpt-4o: {provider: acme}\n", flags...)
		if l := line(said, "model gpt-4o "); !strings.Contains(l, "on 2027-01-14") || (line(said, "model quick") == "") != (flags != nil) {
			t.Errorf("%v: %s", flags, said)
		}
	}
}

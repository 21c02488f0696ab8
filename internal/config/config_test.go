package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"occam/internal/task"
)

func noEnv(string) string { return "" }

func TestExampleIsValid(t *testing.T) {
	c, err := Parse(Example, func(name string) string { return "sk-" + name })
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Providers["openai"].APIKey; got != "sk-OPENAI_API_KEY" {
		t.Errorf("api_key = %q", got)
	}
	if c.FirstProvider != "openai" {
		t.Errorf("first provider = %q", c.FirstProvider)
	}
	if d := Default(); c.Limits != d.Limits {
		t.Errorf("the example says that its limits are the defaults: %+v, they are %+v", c.Limits, d.Limits)
	}
	if time.Duration(c.Capture.Retention) != 30*24*time.Hour {
		t.Errorf("retention = %v", time.Duration(c.Capture.Retention))
	}
}

func TestExampleTaskIsValid(t *testing.T) {
	var uncommented []string
	inTask := false
	for line := range strings.SplitSeq(string(Example), "\n") {
		inTask = inTask || strings.HasPrefix(line, "# tasks:")
		if inTask {
			line = strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		}
		uncommented = append(uncommented, line)
	}
	c, err := Parse([]byte(strings.Join(uncommented, "\n")), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := c.TaskList()
	if err != nil {
		t.Fatal(err)
	}
	got := tasks[0]
	if got.Name != "ticket-triage" || len(got.Fields) != 2 || got.Fields[0].Kind != task.Category || got.Fields[1].Kind != task.Span {
		t.Errorf("task = %+v", got)
	}
	if got.Target != task.DefaultTarget || got.Audit != 0.01 {
		t.Errorf("target %+v audit %v", got.Target, got.Audit)
	}
}

func TestModelsHaveFallbacks(t *testing.T) {
	c, err := Parse([]byte(minimal+"models:\n  m: {provider: first, upstream: big, max_output: 9, fallbacks: [{provider: second}, {provider: first, upstream: small}]}\n"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Models["m"]
	if m.Provider != "first" || m.Upstream != "big" || m.MaxOutput != 9 || len(m.Fallbacks) != 2 || m.Fallbacks[0].Provider != "second" || m.Fallbacks[1].Upstream != "small" {
		t.Errorf("%+v", m)
	}
}

const minimal = "providers:\n  second: {type: openai, base_url: http://127.0.0.1:1/v1}\n  first: {type: openai, base_url: http://127.0.0.1:2/v1}\n"

func TestDefaults(t *testing.T) {
	c, err := Parse([]byte(minimal), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:8080" || c.FirstProvider != "second" || c.Limits.BodyBytes != 4<<20 {
		t.Errorf("defaults: %+v", c)
	}
}

func TestRetrain(t *testing.T) {
	for text, want := range map[string]time.Duration{"": task.DefaultRetrain, ", retrain: 36h": 36 * time.Hour, ", retrain: 30d": 30 * 24 * time.Hour, ", retrain: 0s": 0} {
		c, err := Parse([]byte(minimal+"tasks: {t: {schema: {type: object, properties: {c: {type: string, enum: [a, b]}}}"+text+"}}\n"), noEnv)
		if err != nil {
			t.Fatal(err)
		}
		if tasks, err := c.TaskList(); err != nil || tasks[0].Retrain != want {
			t.Errorf("%q: %v, %+v; want %v", text, err, tasks, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"unknown key", minimal + "lisen: x\n", "[4:1] unknown key \"lisen\": did you mean listen?"},
		{"a key without its line", minimal + "datadir: x\n", "did you mean data_dir?"},
		{"a key in the wrong place", minimal + "body_bytes: 9\n", "unknown key \"body_bytes\" here: there is limits.body_bytes"},
		{"a key like no other", minimal + "xylophone: 9\n", "occam init"},
		{"a word for a number", minimal + "limits: {in_flight: many}\n", "a whole number must stand here"},
		{"a word for yes", minimal + "tasks: {t: {schema: s.json, auto: perhaps}}\n", "true or false must stand here"},
		{"a list for a text", minimal + "data_dir: [a]\n", "a text must stand here"},
		{"a time without its unit", minimal + "limits: {body_timeout: 10}\n", "30s"},
		{"UTF-16", "\xff\xfea\x00:\x00", "UTF-8"},
		{"an address without a port", minimal + "listen: localhost\n", "127.0.0.1:8080"},
		{"a port that is none", minimal + "listen: 127.0.0.1:99999\n", "listen is"},
		{"bad review webhook", minimal + "reviews: {answered: app.example.com}\n", "reviews.answered"},
		{"unknown key inside", minimal + "limits: {body_byte: 3}\n", "body_byte"},
		{"unknown key in a task", minimal + "tasks: {t: {schema: s.json, tier: [x]}}\n", "tier"},
		{"no providers", "listen: 127.0.0.1:1\n", "providers is empty"},
		{"bad type", "providers: {a: {type: magic, base_url: http://x/v1}}\n", "providers.a: type"},
		{"bad url", "providers: {a: {type: openai, base_url: api.openai.com}}\n", "base_url"},
		{"unknown provider", minimal + "models: {m: {provider: nobody}}\n", "nobody"},
		{"bad promise", minimal + "tasks: {t: {schema: s.json, target: {promise: sure}}}\n", "target.promise"},
		{"bad template", minimal + "tasks: {t: {schema: s.json, input: plain}}\n", "no {{variable}}"},
		{"bad doubt", minimal + "tasks: {t: {schema: s.json, on_doubt: shrug}}\n", "on_doubt"},
		{"bad retrain", minimal + "tasks: {t: {schema: s.json, retrain: -1h}}\n", "retrain"},
		{"bad audit", minimal + "tasks: {t: {schema: s.json, audit: 2}}\n", "audit"},
		{"unknown fallback", minimal + "models: {m: {provider: first, fallbacks: [{provider: nobody}]}}\n", "nobody"},
		{"unknown key in a fallback", minimal + "models: {m: {provider: first, fallbacks: [{provider: second, weight: 1}]}}\n", "weight"},
		{"bad hedge", minimal + "models: {m: {provider: first, hedge_after: -1s}}\n", "hedge_after"},
		{"bad disconnect", minimal + "limits: {on_disconnect: wait}\n", "on_disconnect"},
		{"no room for one body", minimal + "limits: {held_bytes: 5000}\n", "held_bytes"},
		{"bad retries", minimal + "limits: {retries: 99}\n", "limits.retries"},
		{"audit that is no number", minimal + "tasks: {t: {schema: s.json, audit: .nan}}\n", "audit"},
		{"rare audit that is no number", minimal + "tasks: {t: {schema: s.json, audit_rare: .nan}}\n", "audit_rare"},
		{"endless calibration budget", minimal + "tasks: {t: {schema: s.json, calibration_budget: .inf}}\n", "calibration_budget"},
		{"retry share that is no number", minimal + "limits: {retry_share: .nan}\n", "retry_share"},
		{"bad retry share", minimal + "limits: {retry_share: 0}\n", "retry_share"},
		{"bad timeout", minimal + "limits: {write_timeout: 0s}\n", "timeout"},
		{"bad timeout of a provider", "providers: {a: {type: openai, base_url: http://x/v1, timeouts: {idle: -1s}}}\n", "timeouts"},
		{"bad charge", minimal + "charges: [{kind: gpu, usd: 1, date: 2026-11-23}]\n", "number 1: kind"},
		{"bad day", minimal + "charges: [{kind: labels, usd: 1, date: yesterday}]\n", "2026-11-23"},
		{"charge without a day", minimal + "charges: [{kind: labels, usd: 1}]\n", "date is missing"},
		{"free charge", minimal + "charges: [{kind: labels, date: 2026-11-23}]\n", "usd"},
		{"bad host", minimal + "dashboard: {hosts: [https://occam.example.com]}\n", "dashboard.hosts"},
		{"bad store", minimal + "store: mysql://x\n", "store must be"},
		{"bad redaction", minimal + "capture: {redact: [e-mail]}\n", "card, email"},
		{"bad pattern", minimal + "capture: {patterns: {customer: '('}}\n", "customer"},
		{"bad retention", minimal + "capture: {retention: -1d}\n", "retention"},
		{"bad webhook", minimal + "alerts: {webhook: hooks.slack.com}\n", "alerts.webhook"},
		{"bad budget", minimal + "alerts: {budget_usd_per_month: -5}\n", "budget_usd_per_month"},
		{"bad threshold", minimal + "alerts: {soft: 80}\n", "alerts.soft"},
		{"not yaml", "\t{{{", "[1:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.yaml), noEnv)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestRedaction(t *testing.T) {
	c, err := Parse([]byte(minimal+"capture: {patterns: {customer: 'C-[0-9]{6}'}}\n"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	clean, err := c.Capture.Redaction()
	if err != nil || clean("C-123456 pays with 4111111111111111, ann@example.com") != "[customer] pays with [card], ann@example.com" {
		t.Errorf("the default kinds and one's own pattern: %v", err)
	}
	if c, err = Parse([]byte(minimal+"capture: {redact: []}\n"), noEnv); err != nil {
		t.Fatal(err)
	}
	if clean, err := c.Capture.Redaction(); clean != nil || err != nil {
		t.Errorf("redact: [] still redacts, %v", err)
	}
}

// TestMarkAndUnset: a byte order mark is no part of the first key, and what the environment does not hold is remembered.
func TestMarkAndUnset(t *testing.T) {
	c, err := Parse([]byte("\ufeffproviders:\r\n  a: {type: openai, base_url: http://x/v1, api_key: \"${NO_KEY}\"}\r\nlisten: 127.0.0.1:0\r\n"), noEnv)
	if err != nil || c.Listen != "127.0.0.1:0" || c.FirstProvider != "a" {
		t.Fatalf("%+v, %v", c, err)
	}
	if want := (Unset{"NO_KEY", "providers.a.api_key"}); len(c.Unset) != 1 || c.Unset[0] != want {
		t.Errorf("unset %v, want %v", c.Unset, want)
	}
}

// TestEveryKeyIsInTheExample: `occam init` shows all there is.
func TestEveryKeyIsInTheExample(t *testing.T) {
	for _, path := range keysOf(reflect.TypeFor[Config](), "", nil) {
		if key := path[strings.LastIndex(path, ".")+1:]; !regexp.MustCompile(`\b` + key + `:`).Match(Example) {
			t.Errorf("example.yaml does not speak of %s", path)
		}
	}
}

func TestErrorsNeverShowSecrets(t *testing.T) {
	for _, near := range []string{"api_key: sk-canary", "api_key: \"sk-canary, x\"", "base_url: http://ann:canary@x/v1", "apikey: sk-canary",
		"API-KEY: sk-canary words", "token: 'sk-canary'", "api_key:\n      sk-canary", "api_key: >-\n      sk-canary\n      more-canary", "api_key: [sk-canary]", "secret_key: {a: sk-canary}"} {
		if _, err := Parse([]byte("providers:\n  a:\n    "+near+"\n    tipe: openai\n"), noEnv); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", near, err)
		}
	}

	yaml := "providers:\n  a: {type: openai, base_url: \"nonsense\", api_key: \"${KEY}\"}\n"
	_, err := Parse([]byte(yaml), func(string) string { return "sk-canary" })
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func TestExpand(t *testing.T) {
	env := func(name string) string { return map[string]string{"A": "${B}", "B": "b"}[name] }
	for in, want := range map[string]string{"x${A}y${B}": "x${B}yb", "p$ss": "p$ss", "${A": "${A", "": ""} {
		if got := expand(in, env); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLoadTakesPathsFromTheFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("s.json", `{"type":"object","properties":{"b":{"type":"boolean"},"a":{"type":"string"}}}`)
	write("occam.yaml", minimal+"tasks: {t: {schema: s.json}}\n")
	write("task.yaml", "name: t\nschema: s.json\ntiers: [linear]\n")
	c, err := Load(filepath.Join(dir, "occam.yaml"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != filepath.Join(dir, "occam-data") {
		t.Errorf("data_dir = %q", c.DataDir)
	}
	tasks, err := c.TaskList()
	if err != nil {
		t.Fatal(err)
	}
	if tasks[0].Fields[0].Name != "b" {
		t.Errorf("field order lost: %+v", tasks[0].Fields)
	}
	if _, err := Load(filepath.Join(dir, "missing.yaml"), noEnv); err == nil || !strings.Contains(err.Error(), "occam init") {
		t.Errorf("missing file: %v", err)
	}
	alone, err := LoadTask(filepath.Join(dir, "task.yaml"))
	if err != nil || alone.Name != "t" || len(alone.Fields) != 2 {
		t.Errorf("task file: %+v, %v", alone, err)
	}
}

// TestMaskedSaysWhatIsOff: what is switched off is not left out, which would read as the default.
func TestMaskedSaysWhatIsOff(t *testing.T) {
	c, err := Parse([]byte(minimal+"self_test: false\nlimits: {retries: 0}\ncapture: {retention: 0s, redact: []}\n"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	on, err := Parse([]byte(minimal), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"self_test: false", "retries: 0", "retention: 0s", "redact: []"} {
		if !strings.Contains(c.Masked(), want) || strings.Contains(on.Masked(), want) {
			t.Errorf("%s:\n%s", want, c.Masked())
		}
	}
}

// TestMaskedHoldsNoSecret: what people are shown is valid YAML of the same configuration, without one byte of a secret.
func TestMaskedHoldsNoSecret(t *testing.T) {
	secrets := []string{"sk-canary-1", "canary-2", "canary-3", "canary-4", "canary-5", "canary-6", "canary-7", "canary-8"}
	c, err := Parse([]byte(`store: postgres://u:canary-2@db/occam?sslpassword=canary-3
providers: {a: {type: openai, base_url: "https://u:canary-4@host/v1", api_key: "${KEY}", timeouts: {idle: 90s}}, b: {type: openai, base_url: http://x/v1, api_key: none}}
alerts: {webhook: "https://hooks.example/canary-5"}
reviews: {needed: "https://hooks.example/canary-6", answered: "https://app.example/canary-7", secret: canary-8}
tasks: {t: {schema: {type: object, properties: {category: {type: string, enum: [x, y]}}}, model: m.occam, generalist: gpt-4o}}
`), func(name string) string { return map[string]string{"KEY": "sk-canary-1"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	text := c.Masked()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("the masked configuration holds %s:\n%s", s, text)
		}
	}
	for _, want := range []string{"retention: 30d", "idle: 1m30s", "api_key: (hidden)", "enum:", "total_timeout: 10m", "api_key: none", "listen: 127.0.0.1:8080"} {
		if !strings.Contains(text, want) {
			t.Errorf("the masked configuration lacks %q:\n%s", want, text)
		}
	}
	if _, err := Parse([]byte(strings.Replace(text, "(hidden)", "x", 1)), noEnv); err != nil && !strings.Contains(err.Error(), "webhook") {
		t.Errorf("it cannot be read again: %v\n%s", err, text)
	}
}

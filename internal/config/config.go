// Package config reads occam.yaml: one struct, one default, a strict decode in which an unknown key is an error with its line.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"occam/internal/redact"
	"occam/internal/task"
)

// Example is the commented configuration that `occam init` writes.
//
//go:embed example.yaml
var Example []byte

// Config is the whole configuration. Everything has a default but providers.
type Config struct {
	Listen     string              `yaml:"listen"`
	DataDir    string              `yaml:"data_dir"`
	Store      string              `yaml:"store"`      // "sqlite" or postgres://…
	Durability string              `yaml:"durability"` // "full" or "normal": what a power cut may take, see docs/ledger.md
	Providers  map[string]Provider `yaml:"providers"`
	Models     map[string]Model    `yaml:"models"`
	Tasks      map[string]Task     `yaml:"tasks"`
	Capture    Capture             `yaml:"capture"`
	Limits     Limits              `yaml:"limits"`
	Alerts     Alerts              `yaml:"alerts"`
	Reviews    Reviews             `yaml:"reviews"`
	Charges    []Charge            `yaml:"charges"`
	SelfTest   bool                `yaml:"self_test"` // at its start the server asks each model it names what it supports
	Dashboard  Dashboard           `yaml:"dashboard"`
	Batches    Batches             `yaml:"batches"`

	FirstProvider string  `yaml:"-"` // where a model that is not listed goes
	Unset         []Unset `yaml:"-"` // what the file wants of the environment and does not find there
}

// Unset is a ${NAME} of the file that the environment does not hold.
type Unset struct {
	Name string // of the variable
	Key  string // whose value misses it, such as providers.openai.api_key
}

// Provider is one upstream server and its key. The key is sent to BaseURL's origin and nowhere else.
type Provider struct {
	Type      string   `yaml:"type"` // "openai" (any compatible server), "azure" or "anthropic"
	BaseURL   string   `yaml:"base_url"`
	APIKey    string   `yaml:"api_key"`
	Prices    string   `yaml:"prices"`   // whose prices in the price book apply; default: the provider's own name
	Messages  bool     `yaml:"messages"` // an OpenAI-compatible server that speaks Anthropic's /v1/messages too: they are passed through
	Hosting   *Hosting `yaml:"hosting"`
	Training  *bool    `yaml:"training"`  // false: the provider's terms forbid training on its answers
	Simulated bool     `yaml:"simulated"` // every figure it causes is labelled so
	Timeouts  Timeouts `yaml:"timeouts"`  // where they differ from those of limits
}

// Timeouts bound one exchange with a provider. Zero: as limits says.
type Timeouts struct {
	Connect   Duration `yaml:"connect"`
	FirstByte Duration `yaml:"first_byte"`
	Idle      Duration `yaml:"idle"`
	Total     Duration `yaml:"total"`
}

// Hosting says what a provider's hardware costs when it is rented by the hour.
type Hosting struct {
	SKU      string `yaml:"sku"`
	Replicas int    `yaml:"replicas"`
}

// Model maps the name that apps use to a provider and the name it knows.
type Model struct {
	Place      `yaml:",inline"`
	Fallbacks  []Place  `yaml:"fallbacks"`   // asked in this order when the places before them fail before their first byte
	HedgeAfter Duration `yaml:"hedge_after"` // a call without a first byte for so long gets a second one beside it; 0: none
}

// Place is one model at one provider.
type Place struct {
	Provider  string `yaml:"provider"`
	Upstream  string `yaml:"upstream"`   // the provider's name of the model; default: the name that apps use
	MaxOutput int64  `yaml:"max_output"` // most tokens it writes when a request sets no limit; default: what is published
}

// Task is one narrow job as the configuration writes it.
type Task struct {
	Schema     Schema      `yaml:"schema"`
	Input      string      `yaml:"input"`
	System     string      `yaml:"system"`
	ByInput    bool        `yaml:"by_input"` // requests are recognised by the words around the input
	Answer     string      `yaml:"answer"`   // how the answer is written, see task.ParseForm; default: compact JSON
	Generalist string      `yaml:"generalist"`
	Target     task.Target `yaml:"target"`
	Tiers      []string    `yaml:"tiers"`
	OnDoubt    string      `yaml:"on_doubt"`
	Audit      *float64    `yaml:"audit"`
	AuditRare  *float64    `yaml:"audit_rare"`
	Auto       bool        `yaml:"auto"`
	Retrain    *Duration   `yaml:"retrain"` // age at which a live model is trained anew; 0: never for its age; default 7d
	// Calibration is how many dollars one training run may spend on answers of the models among Tiers, to certify them.
	Calibration *float64 `yaml:"calibration_budget"`
	Model       string   `yaml:"model"` // a trained .occam file, served as soon as its certificate allows
}

// Capture says which prompts are kept, and what of them. Without it the ledger holds counts and hashes, never text.
type Capture struct {
	Prompts   bool              `yaml:"prompts"`
	Retention Duration          `yaml:"retention"` // 0: for ever
	Redact    []string          `yaml:"redact"`    // kinds that are replaced before anything is stored, see redact.Kinds
	Patterns  map[string]string `yaml:"patterns"`  // by name, regular expressions of what is replaced too
}

// Dashboard says how browsers reach the pages.
type Dashboard struct {
	Hosts []string `yaml:"hosts"` // names, besides the loopback interface's: what a Host header may say
}

// Redaction returns what changes every text before it is stored, nil where nothing is to be changed.
func (c Capture) Redaction() (func(text string) string, error) {
	rules, err := redact.New(c.Redact, c.Patterns)
	if err != nil {
		return nil, fmt.Errorf("capture: redact: %w", err)
	}
	if len(c.Redact)+len(c.Patterns) == 0 {
		return nil, nil
	}
	return rules.Text, nil
}

// Alerts says where people are told of what needs them, and from which spend on. Everything is logged too.
type Alerts struct {
	Webhook string  `yaml:"webhook"`              // takes a POST of {"text": "…"}, as Slack's incoming webhooks do
	Budget  float64 `yaml:"budget_usd_per_month"` // of everything together; 0: none
	Soft    float64 `yaml:"soft"`                 // share of a budget from which people are told
}

// Batches bounds the files and batches of /v1/files and /v1/batches.
type Batches struct {
	FileBytes   int64    `yaml:"file_bytes"`   // of one upload
	StoredBytes int64    `yaml:"stored_bytes"` // of all files together
	Retention   Duration `yaml:"retention"`    // of files and of ended batches
	Poll        Duration `yaml:"poll"`         // between two looks at a provider's batch
	OnReject    string   `yaml:"on_reject"`    // "fail" or "calls": what becomes of lines of which a provider takes no batch
}

// What becomes of lines of which a provider takes no batch.
const (
	Fail  = "fail"  // they go to the error file
	Calls = "calls" // each is an ordinary call, at the full price
)

// Charge is money that no call caused and no provider's hosting says: a training run, or labels that were paid for. It counts
// against what was saved.
type Charge struct {
	Kind string  `yaml:"kind"` // "training" or "labels"
	Task string  `yaml:"task"` // "" where several tasks share it
	What string  `yaml:"what"`
	USD  float64 `yaml:"usd"`
	Date Day     `yaml:"date"`
}

// A Day is written as 2026-11-23.
type Day struct{ time.Time }

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (d *Day) UnmarshalYAML(data []byte) (err error) {
	d.Time, err = time.Parse(time.DateOnly, strings.Trim(strings.TrimSpace(string(data)), `"'`))
	if err != nil {
		return errors.New("a day is written as 2026-11-23")
	}
	return nil
}

// MarshalYAML implements yaml.BytesMarshaler.
func (d Day) MarshalYAML() ([]byte, error) { return []byte(d.Format(time.DateOnly)), nil }

// Reviews says who is told that a request waits for a person, and that its answer is there.
type Reviews struct {
	Needed   string `yaml:"needed"`   // webhook for people, Slack-compatible; default: alerts.webhook
	Answered string `yaml:"answered"` // webhook for the app
	Secret   string `yaml:"secret"`   // signs what Answered gets: X-Occam-Signature is sha256= and the HMAC of the body, in hex
	URL      string `yaml:"url"`      // of the dashboard, as people reach it
}

// Limits bounds what one process takes on, and how long it waits for whom.
type Limits struct {
	BodyBytes      int64    `yaml:"body_bytes"`
	InFlight       int      `yaml:"in_flight"`
	HeldBytes      int64    `yaml:"held_bytes"` // of the bodies of all requests in flight
	ConnectTimeout Duration `yaml:"connect_timeout"`
	FirstByte      Duration `yaml:"first_byte_timeout"`
	Idle           Duration `yaml:"idle_timeout"`
	Total          Duration `yaml:"total_timeout"`
	Body           Duration `yaml:"body_timeout"`  // for an app's request to arrive
	Write          Duration `yaml:"write_timeout"` // for an app to take a piece of its answer
	Drain          Duration `yaml:"drain_timeout"` // for answers under way when the server stops
	Retries        int      `yaml:"retries"`       // of one request, before its first byte
	RetryWait      Duration `yaml:"retry_wait"`    // longest pause before a retry; a longer Retry-After is handed to the app
	RetryShare     float64  `yaml:"retry_share"`   // of a model's requests that may be retried
	OnDisconnect   string   `yaml:"on_disconnect"` // "cancel" or "drain" the call of an app that goes away
	AskUsage       bool     `yaml:"ask_usage"`     // streams that pass through are asked for usage, which is taken out again
}

// What becomes of the call of an app that goes away.
const (
	Cancel = "cancel" // it is cancelled, and recorded with its bounds
	Drain  = "drain"  // it is read to its end, and billed exactly
)

// Default is the configuration that an empty file means.
func Default() Config {
	return Config{
		Listen:     "127.0.0.1:8080",
		DataDir:    "./occam-data",
		Store:      "sqlite",
		Durability: "full",
		SelfTest:   true,
		Capture:    Capture{Prompts: false, Retention: Duration(30 * 24 * time.Hour), Redact: []string{"card", "iban", "key"}},
		Alerts:     Alerts{Soft: 0.8},
		Batches: Batches{FileBytes: 1 << 30, StoredBytes: 10 << 30, Retention: Duration(30 * 24 * time.Hour), Poll: Duration(30 * time.Second),
			OnReject: Fail},
		Limits: Limits{
			BodyBytes: 4 << 20, InFlight: 512, HeldBytes: 256 << 20,
			ConnectTimeout: Duration(5 * time.Second), FirstByte: Duration(60 * time.Second),
			Idle: Duration(60 * time.Second), Total: Duration(10 * time.Minute),
			Body: Duration(30 * time.Second), Write: Duration(30 * time.Second), Drain: Duration(30 * time.Second),
			Retries: 2, RetryWait: Duration(10 * time.Second), RetryShare: 0.2, OnDisconnect: Cancel,
		},
	}
}

// A Duration is written as "90s", "10m" or, for days, "30d".
type Duration time.Duration

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (d *Duration) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	unit, written := time.Duration(1), text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		unit, written = 24, days+"h"
	}
	parsed, err := time.ParseDuration(written)
	if err != nil {
		return fmt.Errorf("%q is no time: it is written as 30s, 10m or 7d", text)
	}
	*d = Duration(unit * parsed)
	return nil
}

// A Schema is a JSON Schema, inline or as the path of a file.
type Schema struct {
	Path string
	JSON []byte
}

// UnmarshalYAML implements yaml.BytesUnmarshaler, which keeps the order of an inline schema's properties.
func (s *Schema) UnmarshalYAML(data []byte) error {
	if err := yaml.Unmarshal(data, &s.Path); err == nil {
		return nil
	}
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return err
	}
	s.Path, s.JSON = "", asJSON
	return nil
}

// Load reads, completes and checks a configuration file. Relative paths in it are taken from the file's folder.
func Load(path string, getenv func(string) string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no configuration at %s: run `occam init` to write one, or name yours with --config", path)
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w; name another with --config", err)
	}
	c, err := Parse(data, getenv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.resolvePaths(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse decodes and checks a configuration; paths stay as written and schema files are not read.
func Parse(data []byte, getenv func(string) string) (*Config, error) {
	c := Default()
	data, err := text(data)
	if err == nil {
		err = decode(data, &c)
	}
	if err != nil {
		return nil, err
	}
	var order struct {
		Providers yaml.MapSlice `yaml:"providers"`
	}
	if err := yaml.Unmarshal(data, &order); err == nil && len(order.Providers) > 0 {
		c.FirstProvider = fmt.Sprint(order.Providers[0].Key)
	}
	c.expand(getenv)
	return &c, c.check()
}

// expand replaces ${NAME} in the values that may hold secrets or addresses, after decoding, so that no secret is parsed as
// YAML or shown in a decoding error.
func (c *Config) expand(getenv func(string) string) {
	fill := func(key string, value *string) {
		*value = expand(*value, func(name string) string {
			found := getenv(name)
			if found == "" {
				c.Unset = append(c.Unset, Unset{name, key})
			}
			return found
		})
	}
	fill("listen", &c.Listen)
	fill("data_dir", &c.DataDir)
	fill("store", &c.Store)
	fill("alerts.webhook", &c.Alerts.Webhook)
	fill("reviews.needed", &c.Reviews.Needed)
	fill("reviews.answered", &c.Reviews.Answered)
	fill("reviews.secret", &c.Reviews.Secret)
	fill("reviews.url", &c.Reviews.URL)
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		p := c.Providers[name]
		fill("providers."+name+".base_url", &p.BaseURL)
		fill("providers."+name+".api_key", &p.APIKey)
		c.Providers[name] = p
	}
}

// expand replaces ${NAME} only: a bare $ is legal in a password. What the environment holds is not expanded again.
func expand(s string, getenv func(string) string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(before)
		out.WriteString(getenv(name))
		s = after
	}
}

func (c *Config) resolvePaths(dir string) error {
	c.DataDir = from(dir, c.DataDir)
	for name, t := range c.Tasks {
		if t.Model != "" {
			t.Model = from(dir, t.Model)
		}
		if err := t.Schema.read(dir); err != nil {
			return fmt.Errorf("tasks.%s: %w", name, err)
		}
		c.Tasks[name] = t
	}
	return nil
}

func (s *Schema) read(dir string) error {
	if s.Path == "" {
		return nil
	}
	schema, err := os.ReadFile(from(dir, s.Path))
	if err != nil {
		return fmt.Errorf("the schema cannot be read: %w; its path is taken from the configuration's folder", err)
	}
	s.JSON = schema
	return nil
}

func from(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func validURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

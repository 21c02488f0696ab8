package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/task"
)

// providerHint is what a newcomer's empty file should have held.
const providerHint = `providers is empty: name at least one, such as
  providers:
    openai: {type: openai, base_url: https://api.openai.com/v1, api_key: "${OPENAI_API_KEY}"}`

func (c *Config) check() error {
	if len(c.Providers) == 0 {
		return errors.New(providerHint)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		if err := c.Providers[name].check(); err != nil {
			return fmt.Errorf("providers.%s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Models)) {
		if err := c.checkModel(c.Models[name]); err != nil {
			return fmt.Errorf("models.%s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tasks)) {
		t := c.Tasks[name]
		if err := errors.Join(t.check(), t.checkTiers(c.Models)); err != nil {
			return fmt.Errorf("tasks.%s: %w", name, err)
		}
		if (t.OnDoubt == "review" || t.OnDoubt == "both") && !c.Capture.Prompts {
			return fmt.Errorf("tasks.%s: on_doubt: %s needs capture.prompts: true: a person can only judge what is kept", name, t.OnDoubt)
		}
	}
	if c.Store != "sqlite" && !strings.HasPrefix(c.Store, "postgres://") && !strings.HasPrefix(c.Store, "postgresql://") {
		return errors.New("store must be sqlite or postgres://user:pass@host/db")
	}
	if err := checkListen(c.Listen); err != nil {
		return err
	}
	if c.Durability != "full" && c.Durability != "normal" {
		return fmt.Errorf("durability is %q: it must be full or normal", c.Durability)
	}
	if err := errors.Join(c.Capture.check(), c.Alerts.check(), c.Reviews.check()); err != nil {
		return err
	}
	for i, charge := range c.Charges {
		if err := charge.check(); err != nil {
			return fmt.Errorf("charges, number %d: %w", i+1, err)
		}
	}
	for _, h := range c.Dashboard.Hosts {
		if h == "" || strings.ContainsAny(h, "/:* ") {
			return fmt.Errorf("dashboard.hosts: %q is no host name: write it without scheme, port and path, such as occam.example.com", h)
		}
	}
	if err := c.Batches.check(); err != nil {
		return err
	}
	return c.Limits.check()
}

func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return fmt.Errorf("listen is %q: it must be an address and a port, such as 127.0.0.1:8080", address)
	}
	return nil
}

func (r Reviews) check() error {
	for name, address := range map[string]string{"needed": r.Needed, "answered": r.Answered, "url": r.URL} {
		if address != "" && !validURL(address) {
			return fmt.Errorf("reviews.%s must be a full http(s) address", name)
		}
	}
	return nil
}

func (b Batches) check() error {
	switch {
	case b.FileBytes < 1024 || b.StoredBytes < b.FileBytes:
		return errors.New("batches: file_bytes must be at least 1024, and stored_bytes at least file_bytes")
	case b.Retention < Duration(time.Hour) || b.Poll <= 0:
		return errors.New("batches: retention must be at least 1h, and poll positive")
	case b.OnReject != Fail && b.OnReject != Calls:
		return fmt.Errorf("batches: on_reject is %q: it must be fail or calls", b.OnReject)
	}
	return nil
}

func (c *Config) checkModel(m Model) error {
	if m.HedgeAfter < 0 {
		return errors.New("hedge_after is negative")
	}
	for _, at := range append([]Place{m.Place}, m.Fallbacks...) {
		if c.Providers[at.Provider].Type == "" {
			return fmt.Errorf("provider %q is not among providers (%s)", at.Provider, strings.Join(slices.Sorted(maps.Keys(c.Providers)), ", "))
		}
		if at.MaxOutput < 0 {
			return errors.New("max_output is negative")
		}
	}
	return nil
}

func (c Capture) check() error {
	if c.Retention < 0 {
		return errors.New("capture.retention must not be negative; 0s keeps for ever")
	}
	_, err := c.Redaction()
	return err
}

func (a Alerts) check() error {
	switch {
	case a.Webhook != "" && !validURL(a.Webhook):
		return errors.New("alerts.webhook must be a full http(s) address")
	case !(a.Budget >= 0 && a.Budget <= 1e9):
		return errors.New("alerts.budget_usd_per_month must be a number of dollars")
	case !(a.Soft > 0 && a.Soft <= 1):
		return errors.New("alerts.soft must be a share above 0, such as 0.8")
	}
	return nil
}

func (c Charge) check() error {
	switch {
	case c.Kind != "training" && c.Kind != "labels":
		return fmt.Errorf("kind is %q: it must be training or labels; servers are hosting of a provider", c.Kind)
	case !(c.USD > 0 && c.USD <= 1e9):
		return errors.New("usd must be more than zero dollars")
	case c.Date.IsZero():
		return errors.New("date is missing, such as 2026-11-23")
	}
	return nil
}

func (l Limits) check() error {
	for _, d := range []Duration{l.ConnectTimeout, l.FirstByte, l.Idle, l.Total, l.Body, l.Write, l.Drain, l.RetryWait} {
		if d <= 0 {
			return errors.New("limits: every timeout must be positive")
		}
	}
	switch {
	case l.BodyBytes < 1024 || l.InFlight < 1:
		return errors.New("limits: body_bytes must be at least 1024 and in_flight at least 1")
	case l.HeldBytes < l.BodyBytes:
		return errors.New("limits.held_bytes must not be smaller than body_bytes: no request of that size would be let in")
	case l.Retries < 0 || l.Retries > 10:
		return fmt.Errorf("limits.retries is %d: it must be from 0 to 10", l.Retries)
	case !(l.RetryShare > 0 && l.RetryShare <= 1):
		return fmt.Errorf("limits.retry_share is %v: it is a share above 0, such as 0.2; retries: 0 makes none", l.RetryShare)
	case l.OnDisconnect != Cancel && l.OnDisconnect != Drain:
		return fmt.Errorf("limits.on_disconnect is %q: it must be cancel or drain", l.OnDisconnect)
	}
	return nil
}

func (p Provider) check() error {
	if !slices.Contains([]string{"openai", "azure", "anthropic"}, p.Type) {
		return fmt.Errorf("type is %q: it must be openai (any compatible server), azure or anthropic", p.Type)
	}
	if !validURL(p.BaseURL) {
		return errors.New("base_url must be a full http(s) address such as https://api.openai.com/v1")
	}
	if t := p.Timeouts; t.Connect < 0 || t.FirstByte < 0 || t.Idle < 0 || t.Total < 0 {
		return errors.New("timeouts must not be negative")
	}
	return nil
}

func (t Task) check() error {
	if t.Schema.Path == "" && len(t.Schema.JSON) == 0 {
		return errors.New("schema is missing: give a JSON Schema inline or the path of one")
	}
	if t.Input != "" {
		if _, err := task.ParseTemplate(t.Input); err != nil {
			return err
		}
	}
	if t.ByInput && len(strings.Trim(t.Input, " \n"))-len("{{x}}") < 8 {
		return errors.New("by_input needs an input with at least a few words around its {{variable}}: they are what the requests are recognised by")
	}
	if !slices.Contains([]string{"", "generalist", "review", "both"}, t.OnDoubt) {
		return fmt.Errorf("on_doubt is %q: it must be generalist, review or both", t.OnDoubt)
	}
	if t.Audit != nil && !(*t.Audit >= 0 && *t.Audit <= 1) {
		return fmt.Errorf("audit is %v: it is a share between 0 and 1", *t.Audit)
	}
	if t.AuditRare != nil && !(*t.AuditRare >= 0 && *t.AuditRare <= 1) {
		return fmt.Errorf("audit_rare is %v: it is a share between 0 and 1", *t.AuditRare)
	}
	if t.Retrain != nil && *t.Retrain < 0 {
		return fmt.Errorf("retrain is %v: it is an age such as 7d, or 0s for never", time.Duration(*t.Retrain))
	}
	if t.Calibration != nil && !(*t.Calibration >= 0 && *t.Calibration <= 1e9) {
		return fmt.Errorf("calibration_budget is %v: it is an amount in dollars", *t.Calibration)
	}
	return t.Target.Check()
}

// linearTier is the embedded specialist; every other tier is one of the configuration's models.
const linearTier = "linear"

// maxTiers bounds a cascade: the plans to compare double with each tier.
const maxTiers = 4

func (t Task) checkTiers(models map[string]Model) error {
	if len(t.Tiers) > maxTiers {
		return fmt.Errorf("tiers: there are %d, %d are possible", len(t.Tiers), maxTiers)
	}
	for i, tier := range t.Tiers {
		_, known := models[tier]
		switch {
		case slices.Contains(t.Tiers[:i], tier):
			return fmt.Errorf("tiers: %s stands there twice", tier)
		case tier == t.Generalist:
			return fmt.Errorf("tiers: %s is the generalist, which answers what no tier may anyway", tier)
		case tier == linearTier && i > 0:
			return errors.New("tiers: linear costs nothing, so it comes first")
		case tier != linearTier && !known:
			return fmt.Errorf("tiers: %q is neither linear nor among models (%s)", tier, strings.Join(slices.Sorted(maps.Keys(models)), ", "))
		}
	}
	return nil
}

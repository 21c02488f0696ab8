package config

import (
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// masked stands where a secret was.
const masked = "(hidden)"

// Masked is the configuration in force as YAML, defaults included, without any secret: it may be shown to people.
func (c *Config) Masked() string {
	shown := *c
	shown.Providers = maps.Clone(c.Providers)
	for name, p := range shown.Providers {
		if p.APIKey != "" && p.APIKey != "none" {
			p.APIKey = masked
		}
		p.BaseURL = p.Address()
		shown.Providers[name] = p
	}
	shown.Store = withoutPassword(shown.Store)
	for _, secret := range []*string{&shown.Alerts.Webhook, &shown.Reviews.Needed, &shown.Reviews.Answered, &shown.Reviews.Secret} {
		if *secret != "" {
			*secret = masked // whoever has a webhook may post
		}
	}
	text, err := yaml.MarshalWithOptions(shown, yaml.OmitEmpty())
	if err != nil {
		return "# the configuration cannot be shown: " + err.Error() + "\n"
	}
	return string(text) + c.switchedOff()
}

// switchedOff names, as comments, what is off though it is on by default: nothing and zero are left out above.
func (c *Config) switchedOff() (lines string) {
	for _, x := range []struct {
		off  bool
		line string
	}{{!c.SelfTest, "self_test: false"}, {c.Limits.Retries == 0, "limits.retries: 0"}, {c.Capture.Retention == 0, "capture.retention: 0s"},
		{len(c.Capture.Redact) == 0, "capture.redact: []"}} {
		if x.off {
			lines += "# " + x.line + "\n"
		}
	}
	return lines
}

// Address is the provider's address as people may see it.
func (p Provider) Address() string { return withoutPassword(p.BaseURL) }

// withoutPassword hides what an address holds beside its place: user, password and parameters.
func withoutPassword(address string) string {
	if !strings.Contains(address, "://") {
		if strings.Contains(address, "password=") {
			return masked // a PostgreSQL connection string in keywords
		}
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return masked
	}
	if u.User != nil {
		u.User = url.User("hidden")
	}
	if u.RawQuery != "" {
		u.RawQuery = "hidden"
	}
	return u.String()
}

// MarshalYAML writes whole days as "30d".
func (d Duration) MarshalYAML() (any, error) {
	const day = Duration(24 * time.Hour)
	if d >= day && d%day == 0 {
		return strings.TrimSuffix(time.Duration(d/24).String(), "h0m0s") + "d", nil
	}
	text := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text, nil
}

// MarshalYAML writes the path, or the schema itself.
func (s Schema) MarshalYAML() (any, error) {
	if s.Path != "" {
		return s.Path, nil
	}
	var inline yaml.MapSlice
	if err := yaml.Unmarshal(s.JSON, &inline); err != nil {
		return nil, err
	}
	return inline, nil
}

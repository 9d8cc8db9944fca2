package sip

import (
	"errors"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

func TestConfig(t *testing.T) {
	if err := defaults.Validate(); err != nil {
		t.Errorf("the defaults are wrong: %v", err)
	}
	tests := []struct {
		key    string
		change func(*Config)
	}{
		{"listen", func(c *Config) { c.Listen = nil }},
		{"listen[1]", func(c *Config) { c.Listen = []string{"udp://[::1]:5060", "tcp://127.0.0.1:5060"} }},
		{"listen[0]", func(c *Config) { c.Listen = []string{"udp://localhost:5060"} }},
		{"domains", func(c *Config) { c.Domains = nil }},
		{"domains[0]", func(c *Config) { c.Domains = []string{"a b"} }},
		{"algorithms", func(c *Config) { c.Algorithms = nil }},
		{"algorithms[0]", func(c *Config) { c.Algorithms = []string{"SHA-1"} }},
		{"algorithms[1]", func(c *Config) { c.Algorithms = []string{"MD5", "MD5"} }},
		{"nonce_lifetime", func(c *Config) { c.NonceLifetime = 0 }},
		{"registration.min", func(c *Config) { c.Registration.Min = 0 }},
		{"registration.default", func(c *Config) { c.Registration.Default = time.Second }},
		{"registration.max", func(c *Config) { c.Registration.Max = 1000 * time.Hour }},
		{"limits.body", func(c *Config) { c.Limits.Body = 0 }},
		{"limits.contacts", func(c *Config) { c.Limits.Contacts = 0 }},
	}
	for _, test := range tests {
		c := defaults
		test.change(&c)
		invalid, ok := errors.AsType[*plugin.InvalidKey](c.Validate())
		if !ok || invalid.Key != test.key {
			t.Errorf("%s: %v", test.key, invalid)
		}
	}
}

func TestPluginOpens(t *testing.T) {
	if _, err := plugin.Open[plugin.Transport](t.Context(), Plugin, plugin.Env{Instance: "sip"}, Plugin.NewConfig()); err != nil {
		t.Error(err)
	}
}

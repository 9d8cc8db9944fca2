package sip

import (
	"errors"
	"strings"
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
		{"listen[1]", func(c *Config) { c.Listen = []string{"udp://[::1]:5060", "tls://127.0.0.1:5060"} }},
		{"listen[1]", func(c *Config) { c.Listen = []string{"tcp://[::1]:5060", "tcp://[0::1]:5060"} }},
		{"listen[0]", func(c *Config) { c.Listen = []string{"udp://localhost:5060"} }},
		{"domains", func(c *Config) { c.Domains = nil }},
		{"domains[0]", func(c *Config) { c.Domains = []string{"a b"} }},
		{"domains[1]", func(c *Config) { c.Domains = []string{"a.example", "A.example"} }},
		{"aliases[1]", func(c *Config) { c.Aliases = []string{"2001:db8::1", "192.0.2.1:5060"} }},
		{"algorithms", func(c *Config) { c.Algorithms = nil }},
		{"algorithms[0]", func(c *Config) { c.Algorithms = []string{"SHA-1"} }},
		{"algorithms[1]", func(c *Config) { c.Algorithms = []string{"MD5", "MD5"} }},
		{"nonce_lifetime", func(c *Config) { c.NonceLifetime = 0 }},
		{"registration.min", func(c *Config) { c.Registration.Min = 0 }},
		{"registration.default", func(c *Config) { c.Registration.Default = time.Second }},
		{"registration.max", func(c *Config) { c.Registration.Max = 1000 * time.Hour }},
		{"limits.body", func(c *Config) { c.Limits.Body = 0 }},
		{"limits.contacts", func(c *Config) { c.Limits.Contacts = 0 }},
		{"limits.connections", func(c *Config) { c.Limits.Connections = 0 }},
		{"limits.connections_per_address", func(c *Config) { c.Limits.ConnectionsPerAddress = c.Limits.Connections + 1 }},
		{"limits.udp_message", func(c *Config) { c.Limits.UDPMessage = 1299 }},
		{"limits.udp_message", func(c *Config) { c.Limits.UDPMessage = 65_001 }},
		{"limits.requests_per_source", func(c *Config) { c.Limits.RequestsPerSource = 0 }},
		{"limits.requests_per_account", func(c *Config) { c.Limits.RequestsPerAccount = maxRate + 1 }},
		{"peers[0].certificates[1]", func(c *Config) {
			c.Peers = []Peer{{Name: "a", Certificates: []string{"proxy.example.com", "*.example.com"}}}
		}},
		{"peers[1].certificates[0]", func(c *Config) {
			c.Peers = []Peer{{Name: "a", Certificates: []string{"sip:x.example"}}, {Name: "b", Certificates: []string{"SIP:X.example"}}}
		}},
		{"peers[0].name", func(c *Config) { c.Peers = []Peer{{Addresses: []string{"192.0.2.1"}}} }},
		{"peers[1].name", func(c *Config) {
			c.Peers = []Peer{{Name: "a", Addresses: []string{"192.0.2.1"}}, {Name: "a", Addresses: []string{"192.0.2.2"}}}
		}},
		{"peers[0].addresses", func(c *Config) { c.Peers = []Peer{{Name: "a"}} }},
		{"peers[0].addresses[0]", func(c *Config) { c.Peers = []Peer{{Name: "a", Addresses: []string{"proxy.example.com"}}} }},
		{"peers[0].addresses[0]", func(c *Config) { c.Peers = []Peer{{Name: "a", Addresses: []string{"0.0.0.0/0"}}} }},
		{"peers[0].addresses[1]", func(c *Config) { c.Peers = []Peer{{Name: "a", Addresses: []string{"192.0.2.1", "192.0.2.1/32"}}} }},
		{"peers[0].account", func(c *Config) {
			c.Peers = []Peer{{Name: "a", Addresses: []string{"192.0.2.1"}, Account: strings.Repeat("x", 300)}}
		}},
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

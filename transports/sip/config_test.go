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
		{"listen[1]", func(c *Config) { c.Listen = []string{"udp://[::1]:5060", "sctp://127.0.0.1:5060"} }},
		{"listen[1]", func(c *Config) { c.Listen = []string{"tcp://[::1]:5060", "tcp://[0::1]:5060"} }},
		{"listen[0]", func(c *Config) { c.Listen = []string{"udp://localhost:5060"} }},
		{"listen[1]", func(c *Config) { c.Listen = []string{"ws://[::1]:5060", "tcp://[::1]:5060"} }},
		{"listen[2]", func(c *Config) { c.Listen = []string{"tls://[::1]:0", "tls://[::1]:5061", "tcp://[::1]:5061"} }},
		{"listen", func(c *Config) { c.TLS.Certificate = "a" }},
		{"tls.certificate", func(c *Config) { c.Listen = []string{"tls://127.0.0.1:5061"} }},
		{"tls.certificate", func(c *Config) { c.Listen = []string{"wss://127.0.0.1:443"} }},
		{"tls.key", func(c *Config) { c.Listen, c.TLS.Certificate = []string{"wss://127.0.0.1:443"}, "a" }},
		{"tls.client_ca", func(c *Config) {
			c.Listen, c.TLS = []string{"tls://[::1]:5061"}, TLS{Certificate: "a", Key: "b", Clients: "optional"}
		}},
		{"tls.client_ca", func(c *Config) {
			c.Listen, c.TLS = []string{"tls://[::1]:5061"}, TLS{Certificate: "a", Key: "b", ClientCA: "c", Clients: "none"}
		}},
		{"tls.clients", func(c *Config) { c.TLS.Clients = "some" }},
		{"websocket.path", func(c *Config) { c.WebSocket.Path = "sip" }},
		{"websocket.origins[0]", func(c *Config) { c.WebSocket.Origins = []string{"https://app.example.com"} }},
		{"websocket.origins[1]", func(c *Config) { c.WebSocket.Origins = []string{"*.example.com", "[a"} }},
		{"push_providers[0]", func(c *Config) { c.PushProviders = []string{"a b"} }},
		{"push_providers[1]", func(c *Config) { c.PushProviders = []string{"fcm", "fcm"} }},
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
		{"peers[0].certificates", func(c *Config) {
			c.Peers = []Peer{{Name: "a", Certificates: []string{"proxy.example.com"}}}
		}},
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

func TestListenersThatGetAlong(t *testing.T) {
	for _, listen := range [][]string{
		{"udp://127.0.0.1:5060", "tcp://127.0.0.1:5060", "ws://127.0.0.1:80", "tcp://[::1]:5060"},
		{"udp://127.0.0.1:0", "tcp://127.0.0.1:0", "ws://127.0.0.1:0"},
	} {
		c := defaults
		c.Listen = listen
		if err := c.Validate(); err != nil {
			t.Errorf("%v: %v", listen, err)
		}
	}
}

func TestClientAddress(t *testing.T) {
	c := Config{Listen: []string{"udp://[::]:5060", "tls://0.0.0.0:5061", "wss://192.0.2.1:443", "wss://192.0.2.2:443"}}
	for network, want := range map[string]string{"udp": "[::1]:5060", "tcp": "", "tls": "127.0.0.1:5061", "ws": "", "wss": "192.0.2.1:443"} {
		if got := c.ClientAddress(network); got != want {
			t.Errorf("%s: %q", network, got)
		}
	}
}

func TestPluginOpens(t *testing.T) {
	if _, err := plugin.Open[plugin.Transport](t.Context(), Plugin, plugin.Env{Instance: "sip"}, Plugin.NewConfig()); err != nil {
		t.Error(err)
	}
}

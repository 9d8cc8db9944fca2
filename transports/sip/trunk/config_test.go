package trunk

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

func TestDefaults(t *testing.T) {
	if err := defaults.Validate(); err != nil {
		t.Error(err)
	}
	if Plugin.Protocol != "sip" || Plugin.Registrar {
		t.Errorf("%+v", Plugin)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		key    string // that is wrong; empty: none
		change func(*Config)
	}{
		{"", func(c *Config) { c.NextHop = "sip:gw.example.net;transport=tls" }},
		{"", func(c *Config) { c.NextHop = "SIPS:gw.example.net:5071" }},
		{"", func(c *Config) { c.NextHop = "sip:[2001:db8::1]:5060" }},
		{"", func(c *Config) { c.Listen = "[::1]:5080" }},
		{"", func(c *Config) { c.NameServers = []string{"192.0.2.53", "[2001:db8::53]:5353", "2001:db8::54"} }},
		{"", func(c *Config) { c.Username, c.Password, c.NextHop = "u", "p", "sip:gw.example.net" }},
		{"", func(c *Config) { c.Probe.Every = 0 }},
		{"next_hop", func(c *Config) { c.NextHop = "gw.example.net" }},
		{"next_hop", func(c *Config) { c.NextHop = "sip:user@gw.example.net" }},
		{"next_hop", func(c *Config) { c.NextHop = "sip:gw.example.net;transport=ws" }},
		{"next_hop", func(c *Config) { c.NextHop = "sips:gw.example.net;transport=udp" }},
		{"next_hop", func(c *Config) { c.NextHop = "sip:gw.example.net?Route=x" }},
		{"next_hop", func(c *Config) { c.NextHop = "tel:+44" }},
		{"listen", func(c *Config) { c.Listen = "localhost:5080" }},
		{"domain", func(c *Config) { c.Domain = "" }},
		{"number_domain", func(c *Config) { c.NumberDomain = "a b" }},
		{"username", func(c *Config) { c.Password, c.NextHop = "p", "sip:gw.example.net" }},
		{"username", func(c *Config) { c.Username = "u" }},
		{"password", func(c *Config) { c.Username, c.Password, c.NextHop = "u", "a\nb", "sip:gw.example.net" }},
		{"name_servers", func(c *Config) { c.NameServers = []string{"dns.example.net"} }},
		{"name_servers", func(c *Config) { c.NameServers = slices.Repeat([]string{"192.0.2.53"}, 4) }},
		{"probe.every", func(c *Config) { c.Probe.Every = time.Millisecond }},
		{"probe.failures", func(c *Config) { c.Probe.Failures = 0 }},
		{"tls.key", func(c *Config) { c.TLS.Certificate = "certificate.pem" }},
		{"tls.ca", func(c *Config) { c.TLS.CA = "no such file" }},
		{"limits.udp_message", func(c *Config) { c.Limits.UDPMessage = 100 }},
	} {
		config := defaults
		test.change(&config)
		var keys []string
		for _, mistake := range plugin.Mistakes(config.Validate()) {
			invalid, ok := mistake.(*plugin.InvalidKey)
			if !ok {
				t.Fatalf("%T: %v", mistake, mistake)
			}
			keys = append(keys, invalid.Key)
		}
		if want := []string{test.key}; test.key == "" && keys != nil || test.key != "" && !slices.Equal(keys, want) {
			t.Errorf("%+v: %q are wrong, want %q", config, keys, test.key)
		}
	}
}

func TestAvoided(t *testing.T) {
	a, now := newAvoided(), time.Now()
	hop := func(i int) wire.Target {
		return wire.Target{Network: "udp", Address: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.1:%d", i+1))}
	}
	a.add(hop(1), 0, now)
	a.add(hop(2), time.Hour, now)
	ports := func(now time.Time) (ports []uint16) {
		for _, h := range a.last([]wire.Target{hop(1), hop(2), hop(3), hop(4)}, now) {
			ports = append(ports, h.Address.Port()-1)
		}
		return ports
	}
	for _, test := range []struct {
		after time.Duration
		want  []uint16
	}{
		{0, []uint16{3, 4, 1, 2}}, {avoidFor, []uint16{1, 3, 4, 2}}, {maxAvoidFor, []uint16{1, 2, 3, 4}},
	} {
		if got := ports(now.Add(test.after)); !slices.Equal(got, test.want) {
			t.Errorf("%s later: %v, want %v", test.after, got, test.want)
		}
	}
	a.remove(hop(2))
	if a.has(hop(2), now) || !a.has(hop(1), now) {
		t.Error("remove")
	}
	for i := range 2 * maxAvoided {
		a.add(hop(i), 0, now)
	}
	if len(a.until) > maxAvoided {
		t.Errorf("%d are remembered", len(a.until))
	}
}

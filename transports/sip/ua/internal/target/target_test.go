package target

import (
	"errors"
	"testing"

	"github.com/imgate/imgate/engine/plugin"
)

// settings are a configuration that knows where clients reach the server.
type settings struct{ udp, tcp string }

func (settings) Validate() error { return nil }

func (s settings) ClientAddress(network string) string {
	return map[string]string{"udp": s.udp, "tcp": s.tcp}[network]
}

type bare struct{}

func (bare) Validate() error { return nil }

func TestOf(t *testing.T) {
	both := func(address string) Server { return Server{UDP: address, TCP: address} }
	for _, c := range []struct {
		asked, network string
		settings       plugin.Config
		want           Server
	}{
		{"h:1", "", settings{"c:2", "c:3"}, both("h:1")},
		{"h:1", "tcp", settings{"c:2", "c:3"}, Server{TCP: "h:1"}},
		{"sip:h:1", "", nil, both("h:1")},
		{"tcp://h:1", "", nil, Server{TCP: "h:1"}},
		{"tcp://h", "tcp", nil, Server{TCP: "h:5060"}},
		{"udp://[::1]", "", nil, Server{UDP: "[::1]:5060"}},
		{"tls://h", "", nil, Server{TLS: "h:5061"}},
		{"h", "ws", nil, Server{WS: "h:80"}},
		{"wss://h/sip", "", nil, Server{WSS: "h:443/sip"}},
		{"wss://[::1]:8443/", "", nil, Server{WSS: "[::1]:8443"}},
		{"", "", settings{"[::1]:5070", "[::1]:5071"}, Server{UDP: "[::1]:5070", TCP: "[::1]:5071"}},
		{"", "tcp", settings{"[::1]:5070", "[::1]:5071"}, Server{TCP: "[::1]:5071"}},
		{"", "", settings{tcp: "c:3"}, Server{TCP: "c:3"}},
		{"", "", settings{}, both(fallback)},
		{"", "", bare{}, both(fallback)},
		{"", "", nil, both(fallback)},
		{"127.0.0.1", "", nil, both("127.0.0.1:5060")},
		{"127.0.0.1:5070", "", nil, both("127.0.0.1:5070")},
		{"::1", "", nil, both("[::1]:5060")},
		{"[::1]:5070", "", nil, both("[::1]:5070")},
		{"sip.example.com", "", nil, both("sip.example.com:5060")},
	} {
		if got, err := Of(c.asked, c.network, c.settings); got != c.want || err != nil {
			t.Errorf("%q, %q, %v: %v, %v, want %v", c.asked, c.network, c.settings, got, err, c.want)
		}
	}
}

func TestOfRefuses(t *testing.T) {
	for _, c := range []struct {
		asked, network string
		settings       plugin.Config
	}{
		{"h:1", "sctp", nil},
		{"tcp://h:1", "udp", nil},
		{"tls://h:1", "tcp", nil},
		{"", "wss", settings{"c:2", "c:3"}},
		{"", "tcp", settings{udp: "c:2"}},
	} {
		if got, err := Of(c.asked, c.network, c.settings); !errors.As(err, new(plugin.ErrUsage)) {
			t.Errorf("%q, %q: %v, %v", c.asked, c.network, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	var n Names
	if got, err := n.Of("udp", nil); err != nil || len(got) != 1 || got[0].UDP != fallback {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, name := range []string{"a:1", "b:2"} {
		if err := n.Set(name); err != nil {
			t.Fatal(err)
		}
	}
	got, err := n.Of("", settings{"c:3", "c:3"})
	if err != nil || len(got) != 2 || got[0] != (Server{UDP: "a:1", TCP: "a:1"}) || got[1] != (Server{UDP: "b:2", TCP: "b:2"}) || n.String() != "a:1, b:2" {
		t.Errorf("two: %v, %v, %v", got, err, &n)
	}
	if _, err := (Names{"a:1", "tcp://b:2"}).Of("udp", nil); !errors.As(err, new(plugin.ErrUsage)) {
		t.Errorf("over another network: %v", err)
	}
	for len(n) < maxNames {
		if err := n.Set("x"); err != nil {
			t.Fatal(err)
		}
	}
	if n.Set("one more") == nil {
		t.Error("there is no limit")
	}
}

package sip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// dispatching makes one address of this machine a peer that says whom it has its
// requests from.
func dispatching(c *Config) {
	c.Peers = []Peer{{Name: "kamailio", Addresses: []string{"127.5.0.1"}, Dispatches: true}}
}

// behind writes the Via that a client's request has when a proxy has brought it.
func behind(request, source string) string {
	address := netip.MustParseAddrPort(source)
	via := fmt.Sprintf("Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKclient;rport=%d;received=%s\r\n", address.Port(), address.Addr())
	return strings.Replace(request, "Max-Forwards", via+"Max-Forwards", 1)
}

// brought is a client behind a proxy: what it sends, the proxy brings.
type brought struct {
	*client
	source string
}

func (b brought) ask(headers string) string {
	b.t.Helper()
	b.send(behind(b.request("REGISTER", "sip:sip.example.com", headers, ""), b.source))
	return b.receive()
}

func (b *brought) login() {
	b.t.Helper()
	found := nonceIn.FindStringSubmatch(b.ask(""))
	if found == nil {
		b.t.Fatal("no challenge")
	}
	b.nonce, b.nc = found[1], 0
}

func (b *brought) guess(password string) string {
	b.t.Helper()
	b.nc++
	return b.ask(b.authorization("REGISTER", "sip:sip.example.com", fmt.Sprintf("%08x", b.nc), password))
}

// TestDispatchedSources: behind a dispatching peer each client has its own
// lockouts and limits; what a stranger says of others behind him means nothing.
func TestDispatchedSources(t *testing.T) {
	_, d, _ := openTown(t, func(c *Config) {
		dispatching(c)
		c.Limits.RequestsPerSource = 10
	})
	proxy := func(source, username string) *brought {
		b := &brought{at(t, d, "udp", "127.5.0.1", username), source}
		b.login()
		return b
	}
	thief := proxy("198.51.100.1:5060", "1001")
	for range freeTries + 1 {
		want(t, thief.guess("wrong"), "401 Unauthorized")
	}
	want(t, thief.guess("wrong"), "500 Try Again Later")
	want(t, proxy("198.51.100.1:4000", "1001").guess("wrong"), "500 Try Again Later")
	want(t, proxy("198.51.100.2:5060", "1001").guess(password), "200 OK")
	want(t, proxy("198.51.100.1:5061", "1002").guess(password), "200 OK")

	// A nonce is good where it went to, and not behind the same proxy elsewhere.
	other := proxy("198.51.100.3:5060", "1001")
	other.source = "198.51.100.4:5060"
	want(t, other.guess(password), "401 Unauthorized", "stale=true")

	// A flood of one is his own.
	answer := thief.ask("")
	for range 1000 { // what a second brings back may be more than it asks for, on a busy machine
		if status(answer) == "500 Try Again Later" {
			break
		}
		answer = thief.ask("")
	}
	want(t, answer, "500 Try Again Later")
	want(t, proxy("198.51.100.5:5060", "1003").guess(password), "200 OK")

	// Who isn't trusted can write into Via what he likes.
	liar := brought{at(t, d, "udp", "127.5.0.2", "1001"), "198.51.100.6:5060"}
	liar.login()
	for i := range freeTries + 1 {
		liar.source = fmt.Sprintf("198.51.100.%d:5060", 10+i)
		want(t, liar.guess("wrong"), "401 Unauthorized")
	}
	want(t, liar.guess("wrong"), "500 Try Again Later")
}

// TestPeerIsExempt: what a peer asks by itself isn't limited.
func TestPeerIsExempt(t *testing.T) {
	for name, peers := range map[string]func(*Config){"dispatching": dispatching, "vouching": func(c *Config) {
		c.Peers = []Peer{{Name: "core", Addresses: []string{"127.5.0.1"}, Account: "acc-core"}}
	}} {
		_, d, _ := openTown(t, func(c *Config) {
			peers(c)
			c.Limits.RequestsPerSource, c.Limits.RequestsPerAccount = 1, 1
		})
		c := at(t, d, "udp", "127.5.0.1", "1001")
		for range 100 {
			c.send(c.request("OPTIONS", bob, "", ""))
			want(t, c.receive(), "200 OK")
		}
		for range 100 {
			if name == "vouching" {
				c.send(c.request("MESSAGE", bob, "", "x"))
				want(t, c.receive(), "202 Accepted")
			}
		}
	}
}

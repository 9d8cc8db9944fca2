package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Config is the section of a SIP transport in the configuration file.
type Config struct {
	Listen    []string  `yaml:"listen" doc:"where to listen: udp://ADDRESS:PORT or tcp:// (usually port 5060), tls:// (5061), ws:// (80), wss:// (443)"`
	TLS       TLS       `yaml:"tls"`
	WebSocket WebSocket `yaml:"websocket"`
	Domains   []string  `yaml:"domains" doc:"the domains that are ours; the first is the realm of whoever comes from elsewhere"`
	Aliases   []string  `yaml:"aliases" doc:"what else clients call this server: its names in DNS, the address that a NAT gives it"`
	// MD5 comes first by default: the order is our preference (RFC 8760 §2.4),
	// but old clients, sipp among them, take the first challenge and know nothing
	// else.
	Algorithms    []string      `yaml:"algorithms" doc:"digest algorithms in the order in which they are offered: MD5, SHA-256"`
	NonceLifetime time.Duration `yaml:"nonce_lifetime" doc:"how long a client may use a nonce"`
	Registration  Registration  `yaml:"registration"`
	Peers         []Peer        `yaml:"peers" doc:"proxies and gateways that are trusted because of the address that they send from, over UDP only where the network keeps strangers from writing that address, or because of their certificate"`
	PushProviders []string      `yaml:"push_providers" doc:"whose apps the section push can have woken, as clients call them in pn-provider: apns, fcm, webpush, …; a client with another one gets 555; empty: nobody is woken, and what clients say of it is passed over"`
	Limits        Limits        `yaml:"limits"`
}

// Registration says how long bindings last.
type Registration struct {
	Min     time.Duration `yaml:"min" doc:"who asks for less gets 423"`
	Default time.Duration `yaml:"default" doc:"for who doesn't ask"`
	Max     time.Duration `yaml:"max" doc:"who asks for more gets this"`
}

// Limits of what is let in.
type Limits struct {
	Body                  int `yaml:"body" doc:"octets of a message's body"`
	Contacts              int `yaml:"contacts" doc:"contacts in one registration"`
	Connections           int `yaml:"connections" doc:"connections at once, over TCP, TLS and WebSockets together"`
	ConnectionsPerAddress int `yaml:"connections_per_address" doc:"connections from one address at once"`
	// UDPMessage is 8,192 octets by default: the buffer into which libre, and so
	// baresip, reads a datagram. Whoever has phones with pjsip wants 4,000.
	UDPMessage int `yaml:"udp_message" doc:"octets of a request that goes over UDP, in fragments, to a device that has no connection; up to 1300 it goes over UDP anyway"`

	RequestsPerSource  int `yaml:"requests_per_source" doc:"requests a second from one IPv4 address or IPv6 /64 that nobody has proved himself with, twice as many at once; more are refused, and beyond twice as many not answered. Peers are exempt; one that dispatches says whose request it is"`
	RequestsPerAccount int `yaml:"requests_per_account" doc:"messages and registrations a second with the credentials of one account, twice as many at once; more are refused"`
}

var defaults = Config{
	Listen:        []string{"udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"},
	Domains:       []string{"sip.example.com"},
	TLS:           TLS{Clients: clientsNone},
	WebSocket:     WebSocket{Path: "/"},
	Algorithms:    []string{"MD5", "SHA-256"},
	NonceLifetime: 5 * time.Minute,
	Registration:  Registration{Min: time.Minute, Default: time.Hour, Max: 2 * time.Hour},
	Limits:        Limits{Body: 64 << 10, Contacts: 10, Connections: 10_000, ConnectionsPerAddress: 256, UDPMessage: 8192, RequestsPerSource: 5000, RequestsPerAccount: 1000},
}

// Validate names every key that is wrong.
func (c Config) Validate() error {
	var p problems
	c.checkListen(&p)
	c.checkTLS(&p)
	c.WebSocket.check(&p)
	c.checkNames(&p)
	c.checkAuthentication(&p)
	c.checkRegistration(&p)
	checkPeers(c.Peers, &p)
	c.checkPush(&p)
	c.checkCertified(&p)
	c.Limits.check(&p)
	return errors.Join(p...)
}

// problems are keys that are wrong.
type problems []error

func (p *problems) expect(ok bool, key, expected string) {
	if !ok {
		*p = append(*p, &plugin.InvalidKey{Key: key, Expected: expected})
	}
}

func (c Config) checkNames(p *problems) {
	p.expect(len(c.Domains) > 0, "domains", "at least one domain such as sip.example.com")
	for i, domain := range c.Domains {
		key := fmt.Sprintf("domains[%d]", i)
		same := func(other string) bool { return strings.EqualFold(other, domain) }
		p.expect(isDomain(domain), key, "a domain such as sip.example.com")
		p.expect(!slices.ContainsFunc(c.Domains[:i], same), key, "each domain once")
	}
	for i, alias := range c.Aliases {
		_, err := netip.ParseAddr(alias)
		p.expect(err == nil || isDomain(alias), fmt.Sprintf("aliases[%d]", i), "a host name or an IP address, without a port")
	}
}

func (c Config) checkAuthentication(p *problems) {
	p.expect(len(c.Algorithms) > 0, "algorithms", "MD5, SHA-256 or both")
	for i, algorithm := range c.Algorithms {
		known := algorithm == "MD5" || algorithm == "SHA-256"
		p.expect(known && !slices.Contains(c.Algorithms[:i], algorithm), fmt.Sprintf("algorithms[%d]", i), "MD5 or SHA-256, each once")
	}
	p.expect(c.NonceLifetime >= time.Second && c.NonceLifetime <= 24*time.Hour, "nonce_lifetime", "between 1s and 24h")
}

func (c Config) checkRegistration(p *problems) {
	r := c.Registration
	p.expect(r.Min >= time.Second && r.Min <= time.Hour, "registration.min", "between 1s and 1h (RFC 3261 §10.3)")
	p.expect(r.Default >= r.Min && r.Default <= r.Max, "registration.default", "between registration.min and registration.max")
	p.expect(r.Max >= r.Min && r.Max <= 30*24*time.Hour, "registration.max", "between registration.min and 720h")
}

func (l Limits) check(p *problems) {
	p.expect(l.Body > 0 && l.Body <= 64<<10, "limits.body", "between 1 and 65536: what a UDP datagram holds")
	p.expect(l.Contacts > 0 && l.Contacts <= 100, "limits.contacts", "between 1 and 100")
	p.expect(l.Connections > 0 && l.Connections <= 1_000_000, "limits.connections", "between 1 and 1000000")
	p.expect(l.ConnectionsPerAddress > 0 && l.ConnectionsPerAddress <= l.Connections, "limits.connections_per_address", "between 1 and limits.connections")
	p.expect(l.UDPMessage >= udpAnyway && l.UDPMessage <= wire.MaxDatagram, "limits.udp_message", fmt.Sprintf("between %d and %d", udpAnyway, wire.MaxDatagram))
	p.expect(l.RequestsPerSource > 0 && l.RequestsPerSource <= maxRate, "limits.requests_per_source", "between 1 and 1000000")
	p.expect(l.RequestsPerAccount > 0 && l.RequestsPerAccount <= maxRate, "limits.requests_per_account", "between 1 and 1000000")
}

// maxRate is the largest rate, a second.
const maxRate = 1_000_000

// udpAnyway is the size, in octets, up to which a request goes over UDP whatever
// else there is (RFC 3261 §18.1.1).
const udpAnyway = 1300

// isDomain accepts what can stand in a realm and behind an @.
func isDomain(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

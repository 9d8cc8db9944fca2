package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Config is the section of a SIP transport in the configuration file.
type Config struct {
	Listen  []string `yaml:"listen" doc:"where to listen: udp://ADDRESS:PORT"`
	Domains []string `yaml:"domains" doc:"the domains that are ours; the first is the realm of whoever comes from elsewhere"`
	// MD5 comes first by default: the order is our preference (RFC 8760 §2.4),
	// but old clients, sipp among them, take the first challenge and know nothing
	// else.
	Algorithms    []string      `yaml:"algorithms" doc:"digest algorithms in the order in which they are offered: MD5, SHA-256"`
	NonceLifetime time.Duration `yaml:"nonce_lifetime" doc:"how long a client may use a nonce"`
	Registration  Registration  `yaml:"registration"`
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
	Body     int `yaml:"body" doc:"octets of a message's body"`
	Contacts int `yaml:"contacts" doc:"contacts in one registration"`
}

var defaults = Config{
	Listen:        []string{"udp://127.0.0.1:5060"},
	Domains:       []string{"sip.example.com"},
	Algorithms:    []string{"MD5", "SHA-256"},
	NonceLifetime: 5 * time.Minute,
	Registration:  Registration{Min: time.Minute, Default: time.Hour, Max: 2 * time.Hour},
	Limits:        Limits{Body: 64 << 10, Contacts: 10},
}

// Validate names every key that is wrong.
func (c Config) Validate() error {
	var errs []error
	wrong := func(ok bool, key, expected string) {
		if !ok {
			errs = append(errs, &plugin.InvalidKey{Key: key, Expected: expected})
		}
	}
	wrong(len(c.Listen) > 0, "listen", `at least one address such as "udp://127.0.0.1:5060"`)
	for i, listen := range c.Listen {
		_, err := parseListen(listen)
		wrong(err == nil, fmt.Sprintf("listen[%d]", i), `an address such as "udp://127.0.0.1:5060" (an IP address, not a name)`)
	}
	wrong(len(c.Domains) > 0, "domains", "at least one domain such as sip.example.com")
	for i, domain := range c.Domains {
		wrong(isDomain(domain), fmt.Sprintf("domains[%d]", i), "a domain such as sip.example.com")
	}
	wrong(len(c.Algorithms) > 0, "algorithms", "MD5, SHA-256 or both")
	for i, algorithm := range c.Algorithms {
		known := algorithm == "MD5" || algorithm == "SHA-256"
		wrong(known && !slices.Contains(c.Algorithms[:i], algorithm), fmt.Sprintf("algorithms[%d]", i), "MD5 or SHA-256, each once")
	}
	wrong(c.NonceLifetime >= time.Second && c.NonceLifetime <= 24*time.Hour, "nonce_lifetime", "between 1s and 24h")
	r := c.Registration
	wrong(r.Min >= time.Second && r.Min <= time.Hour, "registration.min", "between 1s and 1h (RFC 3261 §10.3)")
	wrong(r.Default >= r.Min && r.Default <= r.Max, "registration.default", "between registration.min and registration.max")
	wrong(r.Max >= r.Min && r.Max <= 30*24*time.Hour, "registration.max", "between registration.min and 720h")
	wrong(c.Limits.Body > 0 && c.Limits.Body <= 64<<10, "limits.body", "between 1 and 65536: what a UDP datagram holds")
	wrong(c.Limits.Contacts > 0 && c.Limits.Contacts <= 100, "limits.contacts", "between 1 and 100")
	return errors.Join(errs...)
}

var errListen = errors.New("not an address to listen on")

func parseListen(s string) (netip.AddrPort, error) {
	rest, ok := strings.CutPrefix(s, "udp://")
	if !ok {
		return netip.AddrPort{}, errListen
	}
	return netip.ParseAddrPort(rest)
}

// addresses returns the addresses to listen on.
func (c Config) addresses() ([]netip.AddrPort, error) {
	var addresses []netip.AddrPort
	for _, listen := range c.Listen {
		address, err := parseListen(listen)
		if err != nil {
			return nil, fmt.Errorf("listen %q: %w", listen, err)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// ClientAddress is where a client on this machine reaches the door, for the
// commands that play one: host:port of its first listener.
func (c Config) ClientAddress() string {
	addresses, err := c.addresses()
	if err != nil || len(addresses) == 0 {
		return ""
	}
	address := addresses[0]
	if address.Addr().IsUnspecified() {
		return netip.AddrPortFrom(loopback(address.Addr()), address.Port()).String()
	}
	return address.String()
}

func loopback(unspecified netip.Addr) netip.Addr {
	if unspecified.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// isDomain accepts what can stand in a realm and behind an @.
func isDomain(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

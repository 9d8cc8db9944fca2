package trunk

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/certificates"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// Config is the section of a SIP trunk in the configuration file.
type Config struct {
	NextHop string `yaml:"next_hop" doc:"where messages go, whatever their domain: a SIP URI such as sip:gw.example.net;transport=tls, sips:gw.example.net or sip:192.0.2.1:5060; empty: to the servers of the recipient's domain, by NAPTR and SRV (RFC 3263)"`
	Listen  string `yaml:"listen" doc:"the local ADDRESS:PORT that messages over UDP are sent from; empty: any, of IPv4 and of IPv6"`
	Domain  string `yaml:"domain" doc:"the domain in which we send: that of a sender who is a number, and ours in probes"`

	NumberDomain string `yaml:"number_domain" doc:"the domain of a recipient who is a number; empty: the host of next_hop"`
	UserPhone    bool   `yaml:"user_phone" doc:"whether the URI of a recipient who is a number says so: user=phone"`

	Username string `yaml:"username" doc:"who we are to a server that asks for credentials; empty: we have none"`
	Password string `yaml:"password" doc:"what we prove that with"`
	Realm    string `yaml:"realm" doc:"the realm in which these credentials are good; empty: any that the next hop names"`

	Assert           bool `yaml:"assert" doc:"whether the sender goes along as P-Asserted-Identity (RFC 3325): for a next hop that trusts us"`
	PrivateAddresses bool `yaml:"private_addresses" doc:"without next_hop: whether a recipient's domain may lead to addresses of private networks and of this machine"`

	NameServers []string               `yaml:"name_servers" doc:"the DNS servers to ask, ADDRESS or ADDRESS:PORT, at most 3; empty: those of /etc/resolv.conf"`
	Probe       Probe                  `yaml:"probe"`
	TLS         certificates.DialFiles `yaml:"tls"`
	Limits      Limits                 `yaml:"limits"`
}

// Probe says how the next hop is asked whether it is there.
type Probe struct {
	Every    time.Duration `yaml:"every" doc:"how often next_hop is sent OPTIONS; 0s: never"`
	Failures int           `yaml:"failures" doc:"after how many without an answer messages wait until there is one; a 408, 430 or 503 is none"`
}

// Limits of what is sent.
type Limits struct {
	// UDPMessage is 8,192 octets by default, as that of the SIP door.
	UDPMessage int `yaml:"udp_message" doc:"octets of a request that goes over UDP, in fragments, to a next hop that can't be reached over TCP; up to 1300 it goes over UDP anyway"`
}

var defaults = Config{
	Domain:    "sip.example.com",
	UserPhone: true,
	Probe:     Probe{Every: 30 * time.Second, Failures: 3},
	Limits:    Limits{UDPMessage: 8192},
}

const (
	maxCredential  = 256 // octets
	maxNameServers = 3
	udpAnyway      = 1300 // octets (RFC 3261 §18.1.1)
)

// Validate names every key that is wrong.
func (c Config) Validate() error {
	var p problems
	next, err := c.nextHop()
	p.expect(err == nil, "next_hop", `a SIP URI without a user, such as "sip:gw.example.net;transport=tls", over udp, tcp or tls`)
	_, err = c.listeners()
	p.expect(err == nil, "listen", `an address such as "192.0.2.7:5080" (an IP address, not a name)`)
	p.expect(isDomain(c.Domain), "domain", "a domain such as sip.example.com")
	p.expect(c.NumberDomain == "" || isDomain(c.NumberDomain), "number_domain", "a domain such as sip.example.com")
	c.checkCredentials(&p, next != nil)
	_, err = c.nameServers()
	p.expect(err == nil, "name_servers", `at most 3 addresses such as "192.0.2.53" or "192.0.2.53:5353"`)
	p.expect(c.Probe.Every == 0 || c.Probe.Every >= time.Second && c.Probe.Every <= time.Hour, "probe.every", "0s, or between 1s and 1h")
	p.expect(c.Probe.Failures >= 1 && c.Probe.Failures <= 100, "probe.failures", "between 1 and 100")
	p.expect(c.Limits.UDPMessage >= udpAnyway && c.Limits.UDPMessage <= wire.MaxDatagram, "limits.udp_message", fmt.Sprintf("between %d and %d", udpAnyway, wire.MaxDatagram))
	return errors.Join(append(p, c.TLS.Validate("tls."))...)
}

// problems are keys that are wrong.
type problems []error

func (p *problems) expect(ok bool, key, expected string) {
	if !ok {
		*p = append(*p, &plugin.InvalidKey{Key: key, Expected: expected})
	}
}

// checkCredentials: without a next hop anybody whom a sender names could ask for
// them.
func (c Config) checkCredentials(p *problems, hasNext bool) {
	p.expect(c.Username != "" || c.Password == "" && c.Realm == "", "username", "a name, where there is a password or a realm")
	p.expect(isCredential(c.Username), "username", "at most 256 octets, without control characters")
	p.expect(isCredential(c.Password), "password", "at most 256 octets, without control characters")
	p.expect(isCredential(c.Realm), "realm", "at most 256 octets, without control characters")
	p.expect(c.Username == "" || hasNext, "username", "none, where there is no next_hop: else any server could ask for our credentials")
}

func isCredential(s string) bool {
	return len(s) <= maxCredential && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// isDomain accepts what can stand behind an @, an IP address too.
func isDomain(s string) bool { return len(s) <= 253 && wire.IsHost(s) }

var errNextHop = errors.New("not a SIP URI of a server")

// nextHop reads where messages go; nil: that isn't said.
func (c Config) nextHop() (*sip.Uri, error) {
	if c.NextHop == "" {
		return nil, nil
	}
	u, err := parseHop(c.NextHop)
	return &u, err
}

// parseHop reads the URI of a server.
func parseHop(text string) (sip.Uri, error) {
	u, err := wire.ParseURI(text)
	if err != nil || u.User != "" || strings.Contains(text, "?") {
		return u, errNextHop
	}
	known := []string{"", "udp", "tcp", "tls"}
	if wire.IsSecure(u) {
		known = []string{"", "tcp", "tls"}
	}
	transport, _ := u.UriParams.Get("transport")
	if !slices.Contains(known, strings.ToLower(transport)) {
		return u, errNextHop
	}
	return u, nil
}

// listeners are the UDP sockets to send from.
func (c Config) listeners() ([]wire.Listener, error) {
	if c.Listen == "" {
		return []wire.Listener{
			{Network: "udp", Address: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)},
			{Network: "udp", Address: netip.AddrPortFrom(netip.IPv6Unspecified(), 0)},
		}, nil
	}
	address, err := netip.ParseAddrPort(c.Listen)
	return []wire.Listener{{Network: "udp", Address: address}}, err
}

var errNameServers = errors.New("too many name servers")

func (c Config) nameServers() ([]netip.AddrPort, error) {
	if len(c.NameServers) > maxNameServers {
		return nil, errNameServers
	}
	var servers []netip.AddrPort
	for _, text := range c.NameServers {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			address, wrong := netip.ParseAddr(text)
			if wrong != nil {
				return nil, wrong
			}
			server = netip.AddrPortFrom(address, 53)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

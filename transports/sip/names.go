package sip

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/transports/sip/wire"
)

// names are what we go by in the URI of a request or of a route.
type names struct {
	domains   []string // in lower case
	aliases   []string // likewise
	addresses []netip.AddrPort
}

// newNames adds where we listen to our names.
func newNames(domains, aliases []string, listening []netip.AddrPort) names {
	return names{domains: domains, aliases: aliases, addresses: wire.Reachable(listening)}
}

// hasDomain tells whether a domain is ours, by any port.
func (n *names) hasDomain(host string) bool {
	return slices.Contains(n.domains, strings.ToLower(host))
}

// include tells whether a URI leads to us: to a domain or an alias of ours, or
// to where we listen.
func (n *names) include(u sip.Uri) bool {
	bare := strings.ToLower(strings.Trim(u.Host, "[]"))
	if n.hasDomain(u.Host) || slices.Contains(n.aliases, bare) {
		return true
	}
	host, err := netip.ParseAddr(bare)
	return err == nil && slices.Contains(n.addresses, netip.AddrPortFrom(host.Unmap(), portOf(u)))
}

// defaultPort is where SIP is spoken over UDP and TCP (RFC 3261 §19.1.2).
const defaultPort = 5060

// portOf is the port of a URI, or the usual one of how it wants to be reached
// (RFC 3261 §19.1.2, RFC 7118 §5.1).
func portOf(u sip.Uri) uint16 {
	if u.Port != 0 {
		return uint16(u.Port)
	}
	transport, _ := u.UriParams.Get("transport")
	switch transport, secure := strings.ToLower(transport), wire.IsSecure(u); {
	case transport == "wss" || transport == "ws" && secure:
		return 443
	case transport == "ws":
		return 80
	case transport == "tls" || secure:
		return 5061
	default:
		return defaultPort
	}
}

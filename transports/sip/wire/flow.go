package wire

import (
	"errors"
	"net/netip"
	"strings"
)

// Flow is the identity of a connection (RFC 5626 §3): the way on which a
// request came and on which requests go back. Over UDP it is the socket and the
// peer's address, so it outlives a restart. Over anything else it is one
// connection and no other: its ID can't be guessed, and ends with it.
type Flow struct {
	Network string // "udp", "tcp", "tls", "ws" or "wss"
	Local   netip.AddrPort
	Remote  netip.AddrPort
	ID      string // of a connection; empty over UDP
}

// IsSecure tells whether what goes over the flow is encrypted, as sips promises.
func (f *Flow) IsSecure() bool { return f.Network == "tls" || f.Network == "wss" }

// leadsTo tells whether what came on another flow may be the answer to what was
// sent on this one: over a connection only on that; over UDP also from
// another port, and from another IPv6 address of the same /64, since a host that
// changes its temporary addresses (RFC 8981) answers from the newest.
func (f *Flow) leadsTo(o Flow) bool {
	return f.Network == o.Network && f.ID == o.ID && (f.ID != "" || Sharer(f.Remote.Addr()) == Sharer(o.Remote.Addr()))
}

// ErrBadFlow is what ParseFlow returns.
var ErrBadFlow = errors.New("not a flow")

// maxFlowID is more than any ID of ours has, in octets.
const maxFlowID = 64

// String returns the form that ParseFlow reads, for a binding.
func (f Flow) String() string {
	s := f.Network + ";" + f.Local.String() + ";" + f.Remote.String()
	if f.ID != "" {
		s += ";" + f.ID
	}
	return s
}

// ParseFlow is the inverse of String.
func ParseFlow(s string) (Flow, error) {
	network, rest, _ := strings.Cut(s, ";")
	local, rest, _ := strings.Cut(rest, ";")
	remote, id, hasID := strings.Cut(rest, ";")
	f := Flow{Network: network, ID: id}
	var err, err2 error
	f.Local, err = netip.ParseAddrPort(local)
	f.Remote, err2 = netip.ParseAddrPort(remote)
	if err != nil || err2 != nil || f.Remote.Port() == 0 {
		return Flow{}, ErrBadFlow
	}
	switch {
	case network == "udp" && !hasID:
	case isStream(network) && IsToken(id) && len(id) <= maxFlowID:
	default:
		return Flow{}, ErrBadFlow
	}
	return f, nil
}

// isStream tells whether a network has connections.
func isStream(network string) bool {
	_, found := transports[network]
	return found && network != "udp"
}

// isSecure tells whether a network has TLS.
func isSecure(network string) bool { return network == "tls" || network == "wss" }

// transports are the names of the networks in a Via (RFC 3261 §20.42, RFC 7118
// §5.2).
var transports = map[string]string{"udp": "UDP", "tcp": "TCP", "tls": "TLS", "ws": "WS", "wss": "WSS"}

package wire

import (
	"errors"
	"net/netip"
	"strings"
)

// Flow is the identity of a connection (RFC 5626 §3): the way on which a
// request came and on which requests go back. Over UDP it is the socket and the
// peer's address, so it outlives a restart.
type Flow struct {
	Network string // "udp"
	Local   netip.AddrPort
	Remote  netip.AddrPort
}

// ErrBadFlow is what ParseFlow returns.
var ErrBadFlow = errors.New("not a flow")

// String returns the form that ParseFlow reads, for a binding.
func (f Flow) String() string {
	return f.Network + ";" + f.Local.String() + ";" + f.Remote.String()
}

// ParseFlow is the inverse of String.
func ParseFlow(s string) (Flow, error) {
	network, rest, _ := strings.Cut(s, ";")
	local, remote, _ := strings.Cut(rest, ";")
	f := Flow{Network: network}
	var err, err2 error
	f.Local, err = netip.ParseAddrPort(local)
	f.Remote, err2 = netip.ParseAddrPort(remote)
	if network != "udp" || err != nil || err2 != nil || f.Remote.Port() == 0 {
		return Flow{}, ErrBadFlow
	}
	return f, nil
}

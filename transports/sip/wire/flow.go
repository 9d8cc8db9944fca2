package wire

import (
	"errors"
	"net/netip"
	"strings"
)

// Flow is the identity of a connection (RFC 5626 §3): the way on which a
// request came and on which requests go back. Over UDP it is the socket and the
// peer's address, so it outlives a restart. Over TCP it is one connection and no
// other: its ID can't be guessed, and ends with it.
type Flow struct {
	Network string // "udp" or "tcp"
	Local   netip.AddrPort
	Remote  netip.AddrPort
	ID      string // of a connection; empty over UDP
}

// leadsTo tells whether what came on another flow may be the answer to what was
// sent on this one: over TCP only on the same connection; over UDP also from
// another port, and from another IPv6 address of the same /64, since a host that
// changes its temporary addresses (RFC 8981) answers from the newest.
func (f *Flow) leadsTo(o Flow) bool {
	return f.Network == o.Network && f.ID == o.ID && (f.ID != "" || sharer(f.Remote.Addr()) == sharer(o.Remote.Addr()))
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
	switch network {
	case "udp":
		if hasID {
			return Flow{}, ErrBadFlow
		}
	case "tcp":
		if !IsToken(id) || len(id) > maxFlowID {
			return Flow{}, ErrBadFlow
		}
	default:
		return Flow{}, ErrBadFlow
	}
	return f, nil
}

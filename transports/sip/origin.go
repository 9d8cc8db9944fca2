package sip

import (
	"net/netip"
	"strings"

	"github.com/imgate/imgate/transports/sip/wire"
)

// origin is where a request comes from, as the defence sees it. What a trusted
// peer brings comes from the peer; if that dispatches, it comes from where the
// peer says that it got it.
type origin struct {
	peer    *Peer
	source  netip.Addr     // an IPv4 address, or the first one of an IPv6 /64: see wire.Sharer
	address netip.AddrPort // of whoever sent it to us, or to the dispatching peer
	flow    string         // the ID of the client's own connection; empty: none, or not its own
	// isClients tells that nobody but one client sends from the address, or over
	// the connection. It isn't so behind a peer that doesn't dispatch.
	isClients bool
	// mayBeForged tells that the sender could have written any address: it came
	// over UDP, from nobody whom we trust to keep it out.
	mayBeForged bool

	counted bool // among the requests of its source
}

// originOf returns where a request comes from.
func originOf(x *wire.Exchange, peer *Peer) origin {
	o := origin{peer: peer, address: x.Flow.Remote, flow: x.Flow.ID, isClients: peer == nil, mayBeForged: peer == nil && x.Flow.ID == ""}
	if peer != nil {
		o.flow = ""
	}
	if peer != nil && peer.Dispatches {
		if hop, found := x.Behind(); found {
			o.address, o.isClients, o.mayBeForged = hop.Address, true, strings.EqualFold(hop.Transport, "UDP")
		}
	}
	o.source = wire.Sharer(o.address.Addr()).Addr()
	return o
}

// isPeer tells that a request is the peer's own, or that it doesn't say whose
// else.
func (o *origin) isPeer() bool { return o.peer != nil && !o.isClients }

// sourceOctets are those by which nonces, the guard and the rates know the
// source.
func (o *origin) sourceOctets() [16]byte { return o.source.As16() }

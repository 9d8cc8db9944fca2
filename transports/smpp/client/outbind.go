package client

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/imgate/imgate/transports/smpp/wire"
)

var errUninvited = errors.New("no outbind with the configured system_id and password")

// outbound serves a connection on which an SMSC asks us to bind (SMPP 3.4
// §2.2.1, §4.1.7): as a receiver, since it has something for us.
func (c *Client) outbound(ctx context.Context, conn net.Conn) {
	log := c.log.With("mode", bindReceiver, "peer", conn.RemoteAddr())
	if !c.admits(conn.RemoteAddr()) {
		log.Warn("outbind refused", "reason", "the address isn't in outbind.networks")
		return
	}
	ctx, stop := c.whileActive(ctx)
	defer stop()
	if ctx.Err() != nil {
		return // the SMSC tries the other nodes
	}
	b := c.newBind(conn, bindReceiver)
	b.invited = make(chan wire.Outbind, 1)
	if _, err := b.run(ctx, log); err != nil && ctx.Err() == nil {
		log.Warn("not bound to the SMSC that asked for it", "reason", err)
	}
}

// admits tells whether an SMSC may come from an address.
func (c *Client) admits(address net.Addr) bool {
	source, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return false
	}
	from := source.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(c.networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// invite notes that the SMSC asks us to bind; on a connection that we have made it
// has no business to.
func (b *bind) invite(o *wire.Outbind) {
	select {
	case b.invited <- *o:
	default:
	}
}

// awaitInvitation waits until the SMSC has asked, and shown who it is.
func (b *bind) awaitInvitation(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.client.config.BindWithin)
	defer cancel()
	select {
	case o := <-b.invited:
		if c := b.client.config.Outbind; !same(o.SystemID, c.SystemID) || !same(o.Password, c.Password) {
			return errUninvited
		}
		return nil
	case <-b.session.Done():
		return errUninvited
	case <-ctx.Done():
		return errUninvited
	}
}

// same compares in a time that tells nothing.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

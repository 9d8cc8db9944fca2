package load

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// remote is a server, and what an endpoint has tried there. Several are nodes of
// one gateway, of which one at a time takes traffic.
type remote struct {
	name        string         // host:port as it was given
	address     netip.AddrPort // where what it sends comes from
	source      string         // completes a bare rport in answers
	requests    uint64
	unavailable uint64 // it answered 503
	silent      uint64 // it was left for another because it didn't answer
}

// open opens one socket to all servers: connected to the only one, or one that
// each of several sees at the same address.
func open(ctx context.Context, servers []string) (*net.UDPConn, netip.AddrPort, []remote, error) {
	var conn *net.UDPConn
	var remotes []remote
	for _, server := range servers {
		dialled, err := new(net.Dialer).DialContext(ctx, "udp", server)
		if err != nil {
			return nil, netip.AddrPort{}, nil, fmt.Errorf("reach the SIP server: %w", err)
		}
		address := target.Remote(dialled)
		remotes = append(remotes, remote{
			name: server, address: address, source: fmt.Sprintf(";received=%s;rport=%d", address.Addr(), address.Port()),
		})
		if conn == nil {
			conn = dialled.(*net.UDPConn) // that is what a dialler makes for "udp"
			continue
		}
		dialled.Close()
	}
	local := target.Local(conn)
	if len(servers) == 1 {
		return conn, local, remotes, nil
	}
	conn.Close()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		return nil, netip.AddrPort{}, nil, fmt.Errorf("open a socket: %w", err)
	}
	return conn, target.Local(conn), remotes, nil
}

// several tells whether there is another server to go to.
func (e *endpoint) several() bool { return len(e.remotes) > 1 }

// from is the server at an address; -1: what comes from there isn't heard.
func (e *endpoint) from(source netip.AddrPort) int {
	if !e.several() {
		return 0 // the socket is connected
	}
	source = netip.AddrPortFrom(source.Addr().Unmap().WithZone(""), source.Port())
	return slices.IndexFunc(e.remotes, func(r remote) bool { return r.address == source })
}

// write sends to a server. It ignores errors: a packet that could not be sent is
// repeated like one that was lost.
func (e *endpoint) write(packet []byte, server int) {
	if e.several() {
		_, _ = e.conn.WriteToUDPAddrPort(packet, e.remotes[server].address)
		return
	}
	_, _ = e.conn.Write(packet)
}

// leave goes on to the next server with a request, and with those that follow.
func (e *endpoint) leave(x *exchange) {
	next := (x.server + 1) % len(e.remotes)
	if e.chosen == x.server {
		e.chosen = next
	}
	x.server = next
}

// ask sends a request to the server whose turn it is.
func (e *endpoint) ask(x *exchange, now time.Time) {
	e.remotes[x.server].requests++
	x.asked, x.interval = now, e.timers.t1
	x.repeatAt = now.Add(x.interval)
	e.write(x.packet, x.server)
}

// turn asks the server whose turn it is, where that isn't the one that was asked
// last. A server that doesn't answer is left with the very same request, since it
// may have been taken.
func (e *endpoint) turn(x *exchange, now time.Time) (asked bool) {
	switch {
	case x.asked.IsZero(): // after a rest
	case e.several() && now.Sub(x.asked) >= e.timers.silence():
		e.remotes[x.server].silent++
		x.unsure = true
		e.leave(x)
	default:
		return false
	}
	e.ask(x, now)
	return true
}

// refused goes on to the next server with a request that one doesn't take now;
// if none of them does, after a while. It has other credentials then, because
// the first are good once, and is another transaction, because a server keeps
// its answer to the first.
func (e *endpoint) refused(x *exchange, index int) {
	e.remotes[x.server].unavailable++
	e.leave(x)
	x.refusals++
	x.generation++
	e.build(x, index)
	now := time.Now()
	if x.refusals%len(e.remotes) != 0 {
		e.ask(x, now)
		return
	}
	x.asked, x.repeatAt = time.Time{}, now.Add(e.timers.t1)
}

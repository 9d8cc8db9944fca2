package ua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// Server is where a node of the gateway is, host:port by network; empty: not over
// this one. WS and WSS may have a path behind it.
type Server struct{ UDP, TCP, TLS, WS, WSS string }

func (s Server) address(network string) string {
	switch network {
	case "tcp":
		return s.TCP
	case "tls":
		return s.TLS
	case "ws":
		return s.WS
	case "wss":
		return s.WSS
	}
	return s.UDP
}

// network is the first over which the server is.
func (s Server) network() string {
	for _, network := range []string{"udp", "tcp", "tls", "ws"} {
		if s.address(network) != "" {
			return network
		}
	}
	return "wss"
}

// Attempts is what an agent has tried with one of its servers.
type Attempts struct {
	Server      string // host:port
	Requests    int64  // that were sent to it, each once for as often as its turn came
	Repeats     int64  // that were sent again for want of an answer
	Answered    int64  // final responses other than 503
	Unavailable int64  // 503
	Silent      int64  // no answer in time, or no connection, or one that ended before the answer
}

// node is one of an agent's servers.
type node struct {
	Server
	requests, repeats, answered, unavailable, silent atomic.Int64
}

// Attempts returns what was tried with each server, in their order.
func (a *Agent) Attempts() []Attempts {
	all := make([]Attempts, len(a.nodes))
	for i, n := range a.nodes {
		all[i] = Attempts{
			Server: n.address(a.network), Requests: n.requests.Load(), Repeats: n.repeats.Load(),
			Answered: n.answered.Load(), Unavailable: n.unavailable.Load(), Silent: n.silent.Load(),
		}
	}
	return all
}

// Unsure is how many messages were sent anew with another CSeq, because a server
// wanted other credentials, although another may have taken the first: they may
// arrive twice and be charged twice.
func (a *Agent) Unsure() int64 { return a.unsure.Load() }

// count notes what a server did with a request.
func (n *node) count(response *sip.Response, err error) {
	switch {
	case err != nil:
		n.silent.Add(1)
	case response.StatusCode == sip.StatusServiceUnavailable:
		n.unavailable.Add(1)
	default:
		n.answered.Add(1)
	}
}

// leave goes on to the server after this one, unless somebody already has.
func (a *Agent) leave(server int) {
	a.chosen.CompareAndSwap(int32(server), int32((server+1)%len(a.nodes)))
}

// peer is one of several that a socket talks to.
type peer struct {
	*net.UDPConn
	to netip.AddrPort
}

func (p peer) Write(packet []byte) (int, error) { return p.WriteToUDPAddrPort(packet, p.to) }

func (p peer) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(p.to) }

// dialAll opens one socket to all servers, so that each sees the agent at the
// same address: to a server that takes over nothing has changed.
func (a *Agent) dialAll(ctx context.Context) error {
	var local netip.AddrPort
	remotes := make([]netip.AddrPort, len(a.nodes))
	for i := len(a.nodes) - 1; i >= 0; i-- {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", a.nodes[i].UDP)
		if err != nil {
			return fmt.Errorf("reach the SIP server: %w", err)
		}
		local, remotes[i] = target.Local(conn), target.Remote(conn)
		conn.Close()
	}
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	ended := make(chan struct{})
	for i, remote := range remotes {
		a.links[i] = newLink(peer{socket, remote}, "udp")
		a.links[i].ended = ended
	}
	go a.readAll(socket, slices.Clone(a.links), remotes)
	return nil
}

// readAll reads what the servers send; what others send is dropped.
func (a *Agent) readAll(socket *net.UDPConn, links []*link, remotes []netip.AddrPort) {
	defer close(links[0].ended)
	parser := sip.NewParser()
	buffer := make([]byte, maxPacket)
	for {
		n, source, err := socket.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			for _, l := range links {
				a.failAll(l, err)
			}
			return
		}
		from := slices.Index(remotes, netip.AddrPortFrom(source.Addr().Unmap().WithZone(""), source.Port()))
		if err == nil && from >= 0 {
			a.receive(links[from], parser, buffer[:n])
		}
	}
}

// dialFirst connects to the first server that is there.
func (a *Agent) dialFirst(ctx context.Context) error {
	var failed []error
	for i := range a.nodes {
		_, err := a.dial(ctx, a.network, i)
		if err == nil {
			a.chosen.Store(int32(i))
			return nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

package wire

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// socket is a UDP socket of ours.
type socket struct {
	conn   *net.UDPConn
	local  netip.AddrPort
	sentBy string // what we write into a Via
}

// receiveBuffer is what we ask the kernel for, in octets, so that a burst
// survives a pause of ours. It may give less.
const receiveBuffer = 4 << 20

func listenUDP(address netip.AddrPort) (*socket, error) {
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	// What the kernel gives is what there is: no error.
	_ = conn.SetReadBuffer(receiveBuffer)
	_ = conn.SetWriteBuffer(receiveBuffer)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	return &socket{conn: conn, local: local, sentBy: sentBy(local)}, nil
}

// sentBy is the address for our Via. A socket on all addresses names the first
// that others can reach; because of rport the answers find us anyway.
func sentBy(local netip.AddrPort) string {
	if !local.Addr().IsUnspecified() {
		return netip.AddrPortFrom(local.Addr().WithZone(""), local.Port()).String() // the zone is ours alone
	}
	for _, own := range ownAddresses() {
		if own.Is4() == local.Addr().Is4() && own.IsGlobalUnicast() {
			return netip.AddrPortFrom(own, local.Port()).String()
		}
	}
	if local.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port()).String()
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), local.Port()).String()
}

// Reachable returns where others reach listeners: at their addresses and, in the
// place of one on all addresses, at each that this machine has.
func Reachable(listening []netip.AddrPort) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range listening {
		if !a.Addr().IsUnspecified() {
			all = append(all, a)
			continue
		}
		for _, own := range ownAddresses() {
			all = append(all, netip.AddrPortFrom(own, a.Port()))
		}
	}
	return all
}

// ownAddresses are those of this machine; none if the system doesn't tell.
func ownAddresses() []netip.Addr {
	addresses, _ := net.InterfaceAddrs()
	var own []netip.Addr
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own
}

func (s *socket) send(packet []byte, to netip.AddrPort) error {
	_, err := s.conn.WriteToUDPAddrPort(packet, to)
	return err
}

// socket finds a socket by its address. If we have none such it is the first of
// the same family, so that a binding outlives a change of the configuration, and
// serves a node that takes over from the one where it was made.
func (e *Endpoint) socket(local netip.AddrPort) *socket {
	i := slices.IndexFunc(e.sockets, func(s *socket) bool { return s.local == local })
	if i < 0 {
		i = slices.IndexFunc(e.sockets, func(s *socket) bool { return s.local.Addr().Is4() == local.Addr().Is4() })
	}
	if i < 0 {
		return nil
	}
	return e.sockets[i]
}

// readPause is how long a reader waits after an error that isn't the end.
const readPause = 10 * time.Millisecond

func (e *Endpoint) readUDP(s *socket, queues []chan *Request) {
	buffer := make([]byte, MaxMessage+1)
	for {
		n, source, err := s.conn.ReadFromUDPAddrPort(buffer)
		switch {
		case err == nil:
			source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
			e.receiveDatagram(s, buffer[:n], source, queues)
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			e.counters.readErrors.Add(1)
			time.Sleep(readPause)
		}
	}
}

// receiveDatagram reads one datagram. A request goes to the worker for its
// source.
func (e *Endpoint) receiveDatagram(s *socket, data []byte, source netip.AddrPort, queues []chan *Request) {
	if isKeepAlive(data) {
		e.counters.keepAlives.Add(1)
		return
	}
	if isSTUN(data) {
		e.receiveSTUN(s, data, source)
		return
	}
	a := arrival{link: s, flow: Flow{Network: "udp", Local: s.local, Remote: source}, data: data}
	a.request, a.response, a.refusal = Parse(data, e.config.MaxBody)
	if !e.receive(&a) {
		return
	}
	select {
	case e.queueFor(source, queues) <- a.request:
	default:
		e.pressure.note(pressureOverflow, time.Now()) // the peer repeats it
	}
}

// isKeepAlive tells the empty datagrams that hold a NAT's binding open.
func isKeepAlive(data []byte) bool {
	if len(data) > 4 {
		return false
	}
	for _, c := range data {
		if c != 0 && c != '\r' && c != '\n' && c != ' ' {
			return false
		}
	}
	return true
}

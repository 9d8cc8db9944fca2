package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"
)

// acceptor is a listener of ours for connections.
type acceptor struct {
	network  string
	listener net.Listener
	local    netip.AddrPort
}

// unacknowledged is how long a peer may leave what was sent unacknowledged: no
// longer than a transaction waits, so that its flow ends with the first attempt
// that fails.
const unacknowledged = 30 * time.Second

// watchPeer has the kernel find out that a peer has vanished without a word:
// when it doesn't acknowledge what we send, and when it doesn't answer probes,
// which begin after two minutes of silence so that a phone's radio may sleep.
// Where the kernel can't, Limits.Idle does.
func watchPeer(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4})
	_ = setUserTimeout(tcp, unacknowledged)
}

func (e *Endpoint) listenTCP(network string, address netip.AddrPort) (*acceptor, error) {
	if isSecure(network) && e.config.TLS == nil {
		return nil, errNoCertificate
	}
	family := "tcp4"
	if address.Addr().Is6() {
		family = "tcp6"
	}
	listener, err := net.ListenTCP(family, net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	return &acceptor{network: network, listener: listener, local: addrPort(listener.Addr())}, nil
}

// errNoCertificate: Config.TLS is missing.
var errNoCertificate = errors.New("no certificate")

// addrPort returns the address of a TCP socket; none if a isn't one.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	address := tcp.AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
}

// Pauses after an error of Accept: the system has no files or no memory left,
// and gets time to find some.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// accept lets connections in until the listener is closed. No other error ends
// it.
func (e *Endpoint) accept(ctx context.Context, listener net.Listener, admit func(net.Conn)) {
	pause := acceptPauseMin
	for {
		conn, err := listener.Accept()
		if err == nil {
			pause = acceptPauseMin
			admit(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		e.pressure.note(pressureAccept, time.Now(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, acceptPauseMax)
		}
	}
}

// admit starts the reader of a connection, or closes it at once if there are
// too many.
func (e *Endpoint) admit(s *service, a *acceptor, conn net.Conn) {
	socket := conn
	if isSecure(a.network) {
		conn = tls.Server(conn, e.config.TLS)
	}
	c := e.newConnection(a.network, conn)
	c.open = a.network == "tcp"
	displaced, why, ok := e.connections.add(c)
	if !ok {
		e.pressure.note(why, time.Now())
		socket.Close()
		return
	}
	if displaced != nil {
		e.pressure.note(why, time.Now())
		displaced.close(causeDisplaced)
	}
	counters := e.counters.of(c)
	counters.accepted.Add(1)
	counters.now.Add(1)
	watchPeer(socket)
	s.readers.Go(func() { e.attend(s, c) })
}

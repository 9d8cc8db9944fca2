package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ListenConfig is how a listener behaves. Zero values mean the defaults.
type ListenConfig struct {
	TLS         *tls.Config   // nil: none
	Connections int           // at once; more are closed unanswered; default 1,000
	PerAddress  int           // of those, from one IPv4 address, or one /64 of IPv6; default 100
	Strangers   bool          // whether those of whom Know wasn't told make room for others when there are too many
	Handshake   time.Duration // that TLS may take; default 10 s. Config.Bind bounds what follows
	Log         *slog.Logger  // default: nobody reads it
}

func (c ListenConfig) withDefaults() ListenConfig {
	c.Connections = orDefault(c.Connections, 1000)
	c.PerAddress = orDefault(c.PerAddress, 100)
	c.Handshake = orDefault(c.Handshake, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Listener lets connections in.
type Listener struct {
	listener net.Listener
	config   ListenConfig

	accepted, tooMany, tooManyOfOne, handshakes, errors atomic.Uint64

	mu     sync.Mutex
	guests guests
}

// Listen opens a listener on an address like "192.0.2.1:2775" or ":3550".
func Listen(ctx context.Context, address string, c ListenConfig) (*Listener, error) {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err // it names the address
	}
	return newListener(listener, c), nil
}

func newListener(listener net.Listener, c ListenConfig) *Listener {
	return &Listener{listener: listener, config: c.withDefaults(), guests: guests{perAddress: map[netip.Prefix]int{}}}
}

// Addr is where it listens.
func (l *Listener) Addr() netip.AddrPort { return addrPort(l.listener.Addr()) }

// Close lets nobody in any more. Connections that are there go on.
func (l *Listener) Close() error { return l.listener.Close() }

// Pauses after an error of Accept: the system has no files or no memory left,
// and gets time to find some.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// Serve lets connections in until ctx is done or Close is called, and calls
// serve for each on a goroutine of its own, with TLS established if there is
// any; the connection is closed when serve returns. Serve itself returns when
// all of them have; the listener is closed then. No other error of the system
// ends it.
func (l *Listener) Serve(ctx context.Context, serve func(ctx context.Context, conn net.Conn)) {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	for pause := acceptPauseMin; ; {
		conn, err := l.listener.Accept()
		switch {
		case err == nil:
			pause = acceptPauseMin
			l.admit(conn, func(g *guest) {
				group.Go(func() { l.attend(ctx, g, serve) })
			})
		case errors.Is(err, net.ErrClosed):
			return
		default:
			l.failed(err)
			sleep(ctx, pause)
			pause = min(2*pause, acceptPauseMax)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// failed counts an error of Accept. Pauses bound how often it is logged.
func (l *Listener) failed(err error) {
	l.errors.Add(1)
	l.config.Log.Warn("connections can't be accepted", "error", err)
}

// admit starts to attend to a connection, or closes it at once if there are too
// many.
func (l *Listener) admit(conn net.Conn, attend func(*guest)) {
	g := &guest{conn: conn, who: sharer(conn), peer: addrPort(conn.RemoteAddr())}
	if !l.enter(g) {
		conn.Close()
		return
	}
	l.accepted.Add(1)
	attend(g)
}

// sharer is whom the limit per address counts: an IPv4 address, or the /64 of
// an IPv6 address, which is what one customer has at least.
func sharer(conn net.Conn) netip.Prefix {
	address := addrPort(conn.RemoteAddr()).Addr().WithZone("")
	prefix, _ := address.Prefix(min(64, address.BitLen())) // there are that many bits
	return prefix
}

func (l *Listener) enter(g *guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guests.perAddress[g.who] >= l.config.PerAddress {
		l.tooManyOfOne.Add(1)
		if !l.guests.makeRoom(g.who) {
			return false
		}
	}
	if l.guests.open >= l.config.Connections {
		l.tooMany.Add(1)
		if !l.guests.makeRoom(netip.Prefix{}) {
			return false
		}
	}
	l.guests.enter(g, l.config.Strangers)
	return true
}

func (l *Listener) leave(g *guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guests.leave(g)
}

// Know says that the peer of a connection, which has that address, is no stranger:
// it needn't make room for others.
func (l *Listener) Know(peer netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guests.know(peer)
}

// attend sees a connection to its end.
func (l *Listener) attend(ctx context.Context, g *guest, serve func(context.Context, net.Conn)) {
	conn := g.conn
	defer l.leave(g)
	defer conn.Close()
	watchPeer(conn)
	if l.config.TLS == nil {
		serve(ctx, conn)
		return
	}
	secure, err := l.handshake(ctx, conn)
	if err != nil {
		l.handshakes.Add(1)
		l.config.Log.Debug("TLS not established", "peer", addrPort(conn.RemoteAddr()), "error", err)
		return
	}
	defer secure.Close()
	serve(ctx, secure)
}

func (l *Listener) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Handshake)
	defer cancel()
	secure := tls.Server(conn, l.config.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return secure, nil
}

// watchPeer has the kernel find out that a peer has vanished without a word.
func watchPeer(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4})
	}
}

// ListenerCounts is what a listener counted since it was opened.
type ListenerCounts struct {
	Open         int    // connections, now
	Accepted     uint64 // connections that were let in
	TooMany      uint64 // connections that were closed because there were too many: they, or strangers in their place
	TooManyOfOne uint64 // the same because their address had too many
	Handshakes   uint64 // closed because TLS could not be established
	Errors       uint64 // of the system, when accepting
}

// Counts returns what was counted so far.
func (l *Listener) Counts() ListenerCounts {
	l.mu.Lock()
	open := l.guests.open
	l.mu.Unlock()
	return ListenerCounts{
		Open:         open,
		Accepted:     l.accepted.Load(),
		TooMany:      l.tooMany.Load(),
		TooManyOfOne: l.tooManyOfOne.Load(),
		Handshakes:   l.handshakes.Load(),
		Errors:       l.errors.Load(),
	}
}

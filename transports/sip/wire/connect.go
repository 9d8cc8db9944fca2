package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Target is a server that Connect reaches.
type Target struct {
	Network    string // "udp", "tcp" or "tls"
	Address    netip.AddrPort
	ServerName string // tls: the name that its certificate must have; empty: Address
}

// How servers are dialled.
const (
	dialTimeout = 5 * time.Second
	dialPause   = time.Second     // after an attempt that failed
	dialledIdle = 3 * time.Minute // ends a connection on which nothing comes
	maxDialled  = 1000            // targets at once
)

// errTooManyTargets: no more connections are opened.
var errTooManyTargets = errors.New("too many connections to servers are open")

// Connect returns the flow to a server: over UDP from a socket of ours, else the
// connection that is open to it, or a new one. All who ask for the same target
// meanwhile wait for one attempt, which takes five seconds at most and is not
// made again within a second if it fails; it goes on if ctx ends. What comes on
// the connection is served like what comes on any other. ErrNoFlow: no socket
// of ours can reach the server; ErrClosed: Serve doesn't run, and doesn't begin
// soon.
func (e *Endpoint) Connect(ctx context.Context, t Target) (Flow, error) {
	switch t.Network {
	case "udp":
		return e.connectUDP(t.Address)
	case "tcp", "tls":
		return e.connectStream(ctx, t)
	}
	return Flow{}, net.UnknownNetworkError(t.Network)
}

func (e *Endpoint) connectUDP(to netip.AddrPort) (Flow, error) {
	i := slices.IndexFunc(e.sockets, func(s *socket) bool { return s.local.Addr().Is4() == to.Addr().Is4() })
	if i < 0 {
		return Flow{}, ErrNoFlow
	}
	return Flow{Network: "udp", Local: e.sockets[i].local, Remote: to}, nil
}

func (e *Endpoint) connectStream(ctx context.Context, t Target) (Flow, error) {
	d, first, err := e.dialled.find(t, time.Now())
	if err != nil {
		return Flow{}, err
	}
	if first {
		go e.dial(d)
	}
	select {
	case <-d.done:
		if d.err != nil {
			return Flow{}, d.err
		}
		return d.connection.flow, nil
	case <-ctx.Done():
		return Flow{}, ctx.Err()
	}
}

// dial makes the attempt.
func (e *Endpoint) dial(d *dialling) {
	c, err := e.open(d)
	if err != nil {
		e.dialled.fail(d, fmt.Errorf("connect to %s %s: %w", d.target.Network, d.target.Address, err), time.Now())
		return
	}
	e.dialled.succeed(d, c)
}

// open opens a connection and has it read.
func (e *Endpoint) open(d *dialling) (*connection, error) {
	s := e.service()
	if s == nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.target.Address.String())
	if err != nil {
		return nil, err
	}
	watchPeer(conn)
	if d.target.Network == "tls" {
		secure := tls.Client(conn, e.dialTLS(d.target))
		_ = conn.SetWriteDeadline(time.Now().Add(dialTimeout)) // stays: see shakeHands
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secure
	}
	c := e.newConnection(d.target.Network, conn)
	c.open, c.dialled = true, d
	c.sentBy = sentBy(e.listened(d.target.Network, c.flow.Local))
	if !e.serve(c) {
		c.cut()
		return nil, ErrClosed
	}
	return c, nil
}

func (e *Endpoint) dialTLS(t Target) *tls.Config {
	config := e.config.DialTLS.Clone()
	config.ServerName = t.ServerName
	if config.ServerName == "" {
		config.ServerName = t.Address.Addr().WithZone("").String()
	}
	return config
}

// dialling is an attempt to reach a target, and then the connection to it.
type dialling struct {
	target     Target
	done       chan struct{} // closed when it is known what came of it:
	connection *connection
	err        error
	until      time.Time // if it failed: when the next attempt may be made
}

// diallings are those under way, those that have a connection, and those that
// failed a moment ago.
type diallings struct {
	mu       sync.Mutex
	byTarget map[Target]*dialling
}

func newDiallings() *diallings { return &diallings{byTarget: map[Target]*dialling{}} }

// find returns the attempt for a target. The first to ask for one makes it.
func (t *diallings) find(target Target, now time.Time) (d *dialling, first bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.byTarget[target]; d != nil && !d.isStale(now) {
		return d, false, nil
	}
	if len(t.byTarget) >= maxDialled {
		t.sweep(now)
	}
	if len(t.byTarget) >= maxDialled {
		return nil, false, errTooManyTargets
	}
	d = &dialling{target: target, done: make(chan struct{})}
	t.byTarget[target] = d
	return d, true, nil
}

// sweep forgets what failed long enough ago, and what is gone.
func (t *diallings) sweep(now time.Time) {
	for target, d := range t.byTarget {
		if d.isStale(now) {
			delete(t.byTarget, target)
		}
	}
}

// isStale tells whether another attempt may be made. The table is locked.
func (d *dialling) isStale(now time.Time) bool {
	switch {
	case d.connection != nil:
		return d.connection.isGone()
	case d.err != nil:
		return !now.Before(d.until)
	default:
		return false
	}
}

// succeed notes the connection that came of an attempt.
func (t *diallings) succeed(d *dialling, c *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.connection = c
	close(d.done)
}

// fail notes that an attempt failed.
func (t *diallings) fail(d *dialling, err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.err, d.until = err, now.Add(dialPause)
	close(d.done)
}

// remove forgets a connection that has ended, if we opened it.
func (t *diallings) remove(c *connection) {
	if c.dialled == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byTarget[c.dialled.target] == c.dialled {
		delete(t.byTarget, c.dialled.target)
	}
}

// listened returns the address at which we listen where we have opened a
// connection from, so that the server can come back if that is gone (RFC 3261
// §18.2.2); local if we don't.
func (e *Endpoint) listened(network string, local netip.AddrPort) netip.AddrPort {
	for _, a := range e.acceptors {
		if a.network == network && a.local.Addr().Is4() == local.Addr().Is4() {
			return netip.AddrPortFrom(local.Addr(), a.local.Port())
		}
	}
	return local
}

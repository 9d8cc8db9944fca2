package admin

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

// boundedListener holds a number of connections at once. One more takes the
// place of the one that has rested longest between two requests, so that idle
// strangers don't keep a probe out; while all are at work it waits.
type boundedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  func()

	mu      sync.Mutex
	resting []net.Conn // that have no request, the longest first
	crowded bool       // somebody waits for a slot
}

func newBoundedListener(l net.Listener, n int) *boundedListener {
	closed := make(chan struct{})
	return &boundedListener{
		Listener: l,
		slots:    make(chan struct{}, n),
		closed:   closed,
		close:    sync.OnceFunc(func() { close(closed) }),
	}
}

// Accept is net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.takeSlot() {
		conn.Close()
		return nil, net.ErrClosed
	}
	return &boundedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// takeSlot returns false if the listener is closed meanwhile.
func (l *boundedListener) takeSlot() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	l.makeRoom()
	select {
	case l.slots <- struct{}{}:
		l.mu.Lock()
		l.crowded = false
		l.mu.Unlock()
		return true
	case <-l.closed:
		return false
	}
}

// makeRoom closes the connection that has rested longest. If none rests, the
// next one that would has to go.
func (l *boundedListener) makeRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crowded = len(l.resting) == 0
	if !l.crowded {
		l.resting[0].Close()
		l.resting = l.resting[1:]
	}
}

// note is http.Server.ConnState.
func (l *boundedListener) note(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rests := state == http.StateNew || state == http.StateIdle
	switch {
	case !rests:
		l.resting = slices.DeleteFunc(l.resting, func(c net.Conn) bool { return c == conn })
	case l.crowded && state == http.StateIdle:
		l.crowded = false
		conn.Close()
	default:
		l.resting = append(l.resting, conn)
	}
}

// Close is net.Listener.
func (l *boundedListener) Close() error {
	l.close()
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	release func()
}

func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

package postgres

import (
	"encoding/binary"
	"net"
	"net/url"
	"sync"
	"testing"
)

// relay passes octets between nodes and a server, and can stop doing so without
// a word, as a network does that has failed.
type relay struct {
	t        testing.TB
	listener net.Listener
	server   string
	spoil    bool // it gives sessions numbers of its own, as a pooler does

	mu     sync.Mutex
	gate   *gate // of connections that come now
	copies sync.WaitGroup
	conns  []net.Conn
}

// gate holds up what its connections send to the server behind so many octets.
type gate struct {
	mu    sync.Mutex
	moved *sync.Cond
	left  int // octets that may still pass; negative: no end
	held  int // octets that wait
	open  bool
}

func newGate() *gate {
	g := &gate{left: -1}
	g.moved = sync.NewCond(&g.mu)
	return g
}

func startRelay(t testing.TB, at string) (*relay, string) {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, listener: l, server: u.Host, gate: newGate()}
	r.copies.Go(r.accept)
	t.Cleanup(r.close)
	u.Host = l.Addr().String()
	return r, u.String()
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp4", r.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		g := r.gate
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		r.copies.Go(func() { r.copy(server, client, g.pass) })
		r.copies.Go(func() { r.copy(client, server, r.answer) })
	}
}

// copy copies until an end closes, and then closes the other.
func (r *relay) copy(to, from net.Conn, pass func(net.Conn, []byte) error) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if err := pass(to, buffer[:n]); err != nil {
			return
		}
	}
}

func (r *relay) answer(to net.Conn, octets []byte) error {
	if r.spoil {
		spoilNumber(octets)
	}
	_, err := to.Write(octets)
	return err
}

// spoilNumber changes the process number in BackendKeyData: 'K', length 12,
// number, key.
func spoilNumber(octets []byte) {
	for i := 0; i+9 <= len(octets); i++ {
		if octets[i] == 'K' && binary.BigEndian.Uint32(octets[i+1:]) == 12 {
			octets[i+8] ^= 1
			return
		}
	}
}

// pass writes what may pass, and the rest when the gate opens.
func (g *gate) pass(to net.Conn, octets []byte) error {
	g.mu.Lock()
	n := len(octets)
	if g.left >= 0 {
		n = min(n, g.left)
		g.left -= n
	}
	g.mu.Unlock()
	if _, err := to.Write(octets[:n]); err != nil {
		return err
	}
	if n == len(octets) {
		return nil
	}
	g.mu.Lock()
	g.held += len(octets) - n
	g.moved.Broadcast()
	for !g.open {
		g.moved.Wait()
	}
	g.mu.Unlock()
	_, err := to.Write(octets[n:])
	return err
}

// stopAfter lets so many more octets of the present connections pass. Those
// that come later have a gate of their own.
func (r *relay) stopAfter(octets int) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	stopped := r.gate
	stopped.mu.Lock()
	stopped.left = octets
	stopped.mu.Unlock()
	r.gate = newGate()
	return stopped
}

// waitHeld waits until octets are held up.
func (g *gate) waitHeld() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held == 0 {
		g.moved.Wait()
	}
}

// lift opens the gate for ever.
func (g *gate) lift() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.left = true, -1
	g.moved.Broadcast()
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.gate.lift()
	r.copies.Wait()
}

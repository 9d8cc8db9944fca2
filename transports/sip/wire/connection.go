package wire

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// cause is why a connection ended.
type cause uint8

const (
	causePeer       cause = iota // the peer, or the network
	causeIdle                    // it sent nothing for too long
	causeSlowSender              // a message took too long to come
	causeSlowReader              // the peer didn't take what we wrote
	causeMalformed               // nobody knew where the next message began
	causeMemory                  // all together held too much
	causeShutdown                // we are going
	causeDismissed               // its peer is better off elsewhere
	causeHandshake               // its handshake failed, or took too long
	causeDisplaced               // others needed the room, and nobody had proved anything on it
	causes
)

var causeNames = [causes]string{"peer", "idle", "slow_sender", "slow_reader", "malformed", "memory", "shutdown", "dismissed", "handshake", "displaced"}

// maxQueued is how much may wait to be written on one connection, in octets.
const maxQueued = 256 << 10

// MaxDialledQueue is the same for a connection that we have opened: whoever has
// Connect open one bounds what he sends, and its peer isn't just anybody.
const MaxDialledQueue = 8 << 20

// flushWithin bounds how long Close waits for what is still to be written, and
// how long a peer may take to see why we hang up.
const flushWithin = time.Second

// connection is a TCP connection, with what it carries: SIP as it is, in TLS, or
// in the frames of a WebSocket. One goroutine reads it, and there is one that
// writes while there is something to write.
type connection struct {
	flow      Flow
	conn      net.Conn // a *tls.Conn if there is TLS
	framed    bool     // it is a WebSocket
	endpoint  *Endpoint
	sentBy    string
	dialled   *dialling     // nil: the peer opened it
	kept      atomic.Bool   // see Exchange.Keep
	owed      atomic.Int32  // answers to requests that were begun
	dismissed atomic.Bool   // see Endpoint.Dismiss
	done      chan struct{} // closed when requests can't be sent on it any more

	opening      *list.Element     // in connections, until the handshake is over
	stranger     *list.Element     // in connections, until it is kept
	strangerHere *list.Element     // likewise, among those from its address
	certificate  *x509.Certificate // of the peer, checked; set by the handshake

	mu      sync.Mutex
	open    bool    // there is no handshake, or it is over
	queue   *[]byte // what the writer takes next; nil: nothing
	queued  int     // octets in the queue and in the writer's hand
	held    int     // how many of them the budget knows
	writing bool    // there is a writer
	ending  bool    // no more is queued
	closed  bool
}

func (e *Endpoint) newConnection(network string, conn net.Conn) *connection {
	local := addrPort(conn.LocalAddr())
	return &connection{
		flow:     Flow{Network: network, Local: local, Remote: addrPort(conn.RemoteAddr()), ID: rand.Text()},
		conn:     conn,
		framed:   network == "ws" || network == "wss",
		endpoint: e,
		sentBy:   sentBy(local),
		done:     make(chan struct{}),
	}
}

// send queues a message for the writer; it never waits. A peer who leaves too
// much unread loses the connection. ErrNoFlow: it is gone, and since we never
// dial a client, so is what was to be sent (RFC 3261 §18.2.2 would have us open
// another for a response).
func (c *connection) send(packet []byte, _ netip.AddrPort) error {
	if !c.framed {
		return c.put(nil, packet)
	}
	var head [maxFrameHead]byte
	return c.put(appendFrameHead(head[:0], opcodeOf(packet), len(packet)), packet)
}

// put queues a packet behind its head.
func (c *connection) put(head, packet []byte) error {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return ErrNoFlow
	}
	why, ok := c.enqueue(head, packet)
	c.mu.Unlock()
	if ok {
		return nil
	}
	c.close(why)
	return ErrNoFlow
}

func (c *connection) maxQueued() int {
	if c.dialled != nil {
		return MaxDialledQueue
	}
	return maxQueued
}

// enqueue tells why a packet can't wait, if it can't.
func (c *connection) enqueue(head, packet []byte) (cause, bool) {
	queued := c.queued + len(head) + len(packet)
	if c.queued > 0 && queued > c.maxQueued() {
		return causeSlowReader, false
	}
	if held := max(0, queued-smallBuffer); held > c.held {
		if !c.endpoint.budget.take(held - c.held) {
			return causeMemory, false
		}
		c.held = held
	}
	c.queued = queued
	if c.queue == nil {
		c.queue = c.endpoint.packets.Get().(*[]byte)
		*c.queue = (*c.queue)[:0]
	}
	*c.queue = append(append(*c.queue, head...), packet...)
	c.startWriter()
	return 0, true
}

func (c *connection) startWriter() {
	if !c.writing {
		c.writing = true
		c.endpoint.writers.Go(c.write)
	}
}

// write writes until there is nothing left to write.
func (c *connection) write() {
	batch, last := c.batch()
	for ; batch != nil; batch, last = c.batch() {
		if _, err := c.conn.Write(*batch); err != nil {
			c.close(causeOfWrite(err))
			return
		}
		c.written(batch)
	}
	if last {
		c.closeWrite()
	}
}

func causeOfWrite(err error) cause {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return causeSlowReader
	}
	return causePeer
}

// batch takes everything that is queued. If there is nothing the writer ends;
// last: nothing will follow.
func (c *connection) batch() (batch *[]byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch = c.queue
	c.queue = nil
	if batch == nil {
		c.writing = false
		return nil, c.ending
	}
	within := c.endpoint.config.Limits.WriteTimeout
	if c.ending {
		within = min(within, flushWithin)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(within)) // fails only when it is closed
	return batch, false
}

func (c *connection) written(batch *[]byte) {
	c.mu.Lock()
	c.queued -= len(*batch)
	held := max(0, c.queued-smallBuffer)
	if !c.closed { // else all was given back
		c.endpoint.budget.give(c.held - held)
		c.held = held
	}
	c.mu.Unlock()
	if cap(*batch) <= maxPooled {
		c.endpoint.packets.Put(batch)
	}
}

// finish lets what is queued go out, in a short while, and no more.
func (c *connection) finish() { c.finishWith(frameGoingAway) }

// finishWith is finish with another last frame, if it is a WebSocket.
func (c *connection) finishWith(frame string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	if c.framed && c.open {
		c.enqueue([]byte(frame), nil) // if it doesn't fit the peer sees the end without it
	}
	c.ending = true
	close(c.done)
	if c.writing {
		_ = c.conn.SetWriteDeadline(time.Now().Add(flushWithin)) // fails only when it is closed
	}
	c.startWriter()
}

// closeWrite tells the peer that no more comes.
func (c *connection) closeWrite() {
	conn := c.conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
		stop := time.AfterFunc(flushWithin, func() { conn.Close() }) // crypto/tls would wait for five seconds
		defer stop.Stop()
		_ = secure.CloseWrite() // fails only when it is gone
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails only when it is gone
	}
}

// close ends the connection. Only the first cause counts.
func (c *connection) close(why cause) {
	if !c.end() {
		return
	}
	e := c.endpoint
	e.connections.remove(c)
	e.dialled.remove(c)
	counters := e.counters.of(c)
	counters.now.Add(-1)
	counters.ended[why].Add(1)
	switch why {
	case causeSlowReader:
		e.pressure.note(pressureSlow, time.Now())
	case causeMemory:
		e.pressure.note(pressureMemory, time.Now())
	}
	c.cut()
}

// cut closes the connection without a word: crypto/tls would wait until the peer
// takes its last one.
func (c *connection) cut() {
	if secure, ok := c.conn.(*tls.Conn); ok {
		secure.NetConn().Close()
		return
	}
	c.conn.Close()
}

// isGone tells whether no requests can be sent on the connection any more.
func (c *connection) isGone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// end returns false if the connection has ended already.
func (c *connection) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if !c.ending {
		c.ending = true
		close(c.done)
	}
	c.closed = true
	c.endpoint.budget.give(c.held)
	c.held = 0
	return true
}

// dismiss has the reader hang up.
func (c *connection) dismiss() {
	c.dismissed.Store(true)
	_ = c.conn.SetReadDeadline(time.Now()) // fails only when it is closed
}

// hangUp closes a connection behind the last answer. If it were closed with
// something unread, the system would throw the answer away.
func (c *connection) hangUp(why cause) {
	c.finish()
	_ = c.conn.SetReadDeadline(time.Now().Add(flushWithin)) // fails only when it is closed
	buffer := make([]byte, smallBuffer)
	for left := maxSkipped; left > 0; {
		n, err := c.conn.Read(buffer)
		if err != nil {
			break
		}
		left -= n
	}
	c.close(why)
}

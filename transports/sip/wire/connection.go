package wire

import (
	"crypto/rand"
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
	causes
)

var causeNames = [causes]string{"peer", "idle", "slow_sender", "slow_reader", "malformed", "memory", "shutdown", "dismissed"}

// maxQueued is how much may wait to be written on one connection, in octets.
const maxQueued = 256 << 10

// flushWithin bounds how long Close waits for what is still to be written, and
// how long a peer may take to see why we hang up.
const flushWithin = time.Second

// connection is a stream to a peer who opened it. One goroutine reads it, and
// there is one that writes while there is something to write.
type connection struct {
	flow      Flow
	conn      net.Conn
	endpoint  *Endpoint
	sentBy    string
	dialled   *dialling     // nil: the peer opened it
	kept      atomic.Bool   // see Exchange.Keep
	owed      atomic.Int32  // answers to requests that were begun
	dismissed atomic.Bool   // see Endpoint.Dismiss
	done      chan struct{} // closed when requests can't be sent on it any more

	certificate *x509.Certificate // of the peer, checked; set before anything is read

	framer framer // the reader's

	mu      sync.Mutex
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
		endpoint: e,
		sentBy:   local.String(),
		done:     make(chan struct{}),
		framer:   framer{maxBody: e.config.MaxBody},
	}
}

// send queues a message for the writer; it never waits. A peer who leaves too
// much unread loses the connection. ErrNoFlow: it is gone, and since we never
// dial a client, so is what was to be sent (RFC 3261 §18.2.2 would have us open
// another for a response).
func (c *connection) send(packet []byte, _ netip.AddrPort) error {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return ErrNoFlow
	}
	why, ok := c.enqueue(packet)
	c.mu.Unlock()
	if ok {
		return nil
	}
	c.close(why)
	return ErrNoFlow
}

// enqueue tells why a packet can't wait, if it can't.
func (c *connection) enqueue(packet []byte) (cause, bool) {
	queued := c.queued + len(packet)
	if c.queued > 0 && queued > maxQueued {
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
	*c.queue = append(*c.queue, packet...)
	if !c.writing {
		c.writing = true
		c.endpoint.writers.Go(c.write)
	}
	return 0, true
}

// write writes until there is nothing left to write.
func (c *connection) write() {
	for batch := c.batch(); batch != nil; batch = c.batch() {
		if _, err := c.conn.Write(*batch); err != nil {
			c.close(causeOfWrite(err))
			return
		}
		c.written(batch)
	}
}

func causeOfWrite(err error) cause {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return causeSlowReader
	}
	return causePeer
}

// batch takes everything that is queued. With the last of it the writer ends.
func (c *connection) batch() *[]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	batch := c.queue
	c.queue = nil
	if batch == nil {
		c.writing = false
		if c.ending {
			c.closeWrite()
		}
		return nil
	}
	within := c.endpoint.config.Limits.WriteTimeout
	if c.ending {
		within = min(within, flushWithin)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(within)) // fails only when it is closed
	return batch
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
func (c *connection) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.ending = true
	close(c.done)
	if c.writing {
		_ = c.conn.SetWriteDeadline(time.Now().Add(flushWithin)) // fails only when it is closed
		return
	}
	c.closeWrite()
}

// closeWrite tells the peer that no more comes.
func (c *connection) closeWrite() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // fails only when it is gone
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
	e.counters.ended[why].Add(1)
	switch why {
	case causeSlowReader:
		e.pressure.note(pressureSlow, time.Now())
	case causeMemory:
		e.pressure.note(pressureMemory, time.Now())
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
	buffer := c.framer.buffer[:cap(c.framer.buffer)]
	for left := maxSkipped; left > 0; {
		n, err := c.conn.Read(buffer)
		if err != nil {
			break
		}
		left -= n
	}
	c.close(why)
}

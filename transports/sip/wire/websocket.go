package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// Frames of RFC 6455 §5.2. The library reads; we write, since it would have the
// sender wait for the peer.
const (
	frameText   = 0x81 // whole
	frameBinary = 0x82 // whole
	frameClose  = 0x88

	framePing          = "\x89\x00"
	frameGoingAway     = "\x88\x02\x03\xe9" // Close with status 1001
	frameProtocolError = "\x88\x02\x03\xea" // Close with status 1002

	maxFrameHead = 10 // octets
)

// opcodeOf tells what frame a message travels in: text, as RFC 7118 §5 has it
// for all that is UTF-8.
func opcodeOf(packet []byte) byte {
	if utf8.Valid(packet) {
		return frameText
	}
	return frameBinary
}

func appendFrameHead(b []byte, opcode byte, length int) []byte {
	switch {
	case length < 126:
		return append(b, opcode, byte(length))
	case length <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, opcode, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(b, opcode, 127), uint64(length))
	}
}

// socketReader reads a WebSocket.
type socketReader struct {
	reader
	socket *websocket.Conn
	inbox  inbox
	ended  bool // what is below the library has told
	why    cause
	left   atomic.Bool // nobody reads any more
}

// errSocketEnded: see socketReader.why.
var errSocketEnded = errors.New("connection has ended")

// run reads until the connection has to end, and tells why.
func (r *socketReader) run() cause {
	defer r.letGo()
	ctx := context.WithoutCancel(r.service.ctx) // else each read would cost a timer; socketConn knows the deadlines
	for {
		_, message, err := r.socket.Reader(ctx)
		if err == nil {
			r.began = time.Now()
			err = r.collect(message)
		}
		if err != nil {
			return r.causeOf(err)
		}
		r.began = time.Time{}
		r.take(r.inbox.buffer)
		r.inbox.release(r.endpoint.budget)
	}
}

// letGo ends the library's part. What is still to be written doesn't need it.
func (r *socketReader) letGo() {
	r.inbox.release(r.endpoint.budget)
	r.left.Store(true)
	_ = r.socket.CloseNow() // fails only when it is closed
}

// errNoRoom: see budget.
var errNoRoom = errors.New("no memory for the message")

// collect reads a message to its end.
func (r *socketReader) collect(message io.Reader) error {
	for {
		room := r.inbox.room(r.endpoint.budget)
		if room == nil {
			return errNoRoom
		}
		n, err := message.Read(room)
		r.inbox.add(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// causeOf tells why a connection has to end that can't be read.
func (r *socketReader) causeOf(err error) cause {
	switch {
	case r.ended:
		return r.why
	case errors.Is(err, errNoRoom):
		return causeMemory
	case errors.Is(err, websocket.ErrMessageTooBig): // the library has said so: 1009
		r.endpoint.counters.tooLarge.Add(1)
		return causeMalformed
	case websocket.CloseStatus(err) != -1:
		return causePeer
	}
	r.endpoint.counters.malformed.Add(1)
	r.finishWith(frameProtocolError)
	return causeMalformed
}

// take handles a message of the WebSocket: one of SIP (RFC 7118 §5), or a
// keep-alive, as on a stream.
func (r *socketReader) take(data []byte) {
	if len(bytes.Trim(data, "\r\n")) == 0 {
		r.keepAlive()
		if len(data) >= len("\r\n\r\n") {
			r.pong()
		}
		return
	}
	a := arrival{link: r.connection, flow: r.flow, data: data}
	a.request, a.response, a.refusal = parseWhole(data, r.endpoint.config.MaxBody)
	if a.refusal == nil {
		r.active, r.messages = r.now, true
	}
	if r.endpoint.receive(&a) {
		r.hand(a.request)
	}
}

// parseWhole is Parse for what comes without anything behind it: Content-Length
// may be missing, and has to be right if it is there.
func parseWhole(data []byte, maxBody int) (*Request, *Response, *Refusal) {
	text, body, refusal := split(data)
	if refusal != nil {
		return nil, nil, refusal
	}
	d := readHead(text)
	if d.fault == nil && d.has(fieldContentLength) {
		if n, ok := Number(d.value(fieldContentLength), 1<<32); !ok || n != uint64(len(body)) {
			d.fault = refuse("Content-Length Mismatch")
		}
	}
	return d.finish(body, maxBody)
}

// pingAfter is how long a WebSocket may be silent before it is asked for a sign
// of life: less than the minute after which proxies usually give one up.
const pingAfter = 50 * time.Second

// pingAt is when a WebSocket is asked for a sign of life; zero: not now.
func (r *reader) pingAt() time.Time {
	if !r.framed || !r.messages || !r.began.IsZero() || r.pinged.After(r.now) {
		return time.Time{}
	}
	return r.now.Add(pingAfter)
}

// ping asks for a sign of life, if it is time for that.
func (r *reader) ping(now time.Time) {
	if at := r.pingAt(); !at.IsZero() && !now.Before(at) {
		r.pinged = now
		_ = r.put(nil, []byte(framePing)) // fails only when the connection is gone
	}
}

// earlier returns the earlier of two times; b may be zero: never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// socketConn is the connection as the library sees it.
type socketConn struct {
	net.Conn
	reader *socketReader
}

// Read reads while nothing says that the connection has to end.
func (c *socketConn) Read(b []byte) (int, error) {
	n, why := c.reader.read(b)
	if n == 0 {
		c.reader.ended, c.reader.why = true, why
		return 0, errSocketEnded
	}
	return n, nil
}

// Write queues a frame; the library writes those whole that it writes by itself.
func (c *socketConn) Write(frame []byte) (int, error) {
	if frame[0] == frameClose {
		c.reader.finishWith(string(frame))
		return len(frame), nil
	}
	return len(frame), c.reader.put(nil, frame)
}

// Close is called behind a Close frame, which is still to go out and behind which
// the reader ends, or when that has ended, or because the peer leaves a control
// frame half said.
func (c *socketConn) Close() error {
	if !c.reader.left.Load() && !c.reader.isGone() {
		c.reader.close(causeSlowSender)
	}
	return nil
}

package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// maxFrame is the longest PDU that is read, in octets: none with one of our
// messages in it is longer.
const maxFrame = 16 << 10

// writeWithin bounds a write: who measures must not wait for one who doesn't read.
const writeWithin = 10 * time.Second

// stream cuts a connection into PDUs, and keeps what is to be written until
// nothing more is there to be read.
type stream struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	held int // octets of the PDU that was read last
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, in: bufio.NewReaderSize(conn, maxFrame)}
}

var errFraming = errors.New("what comes is not SMPP")

// next returns the next PDU; it is valid until next is called again.
func (s *stream) next() ([]byte, error) {
	_, _ = s.in.Discard(s.held) // it was peeked at, so it is there
	s.held = 0
	head, err := s.in.Peek(4)
	if err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head)
	if length < pdu.HeaderLen || length > maxFrame {
		return nil, errFraming
	}
	frame, err := s.in.Peek(int(length))
	if err != nil {
		return nil, err
	}
	s.held = int(length)
	return frame, nil
}

// more tells whether next would return a PDU without waiting.
func (s *stream) more() bool {
	buffered := s.in.Buffered() - s.held
	if buffered < 4 {
		return false
	}
	head, _ := s.in.Peek(s.held + 4)
	return uint32(buffered) >= binary.BigEndian.Uint32(head[s.held:])
}

// queue has a PDU written with the next flush. It can't fail: what we write, we
// have made up.
func (s *stream) queue(p *wire.Packet) { s.out, _ = wire.Encode(s.out, p) }

// respond answers a request.
func (s *stream) respond(frame []byte, status pdu.Status, body wire.Body) {
	s.queue(&wire.Packet{ID: wire.ResponseTo(idOf(frame)), Status: status, Sequence: sequenceOf(frame), Body: body})
}

// flush writes what is queued.
func (s *stream) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin)) // fails only when it is closed, and then so does Write
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

func idOf(frame []byte) pdu.ID         { return pdu.ID(binary.BigEndian.Uint32(frame[4:])) }
func statusOf(frame []byte) pdu.Status { return pdu.Status(binary.BigEndian.Uint32(frame[8:])) }
func sequenceOf(frame []byte) uint32   { return binary.BigEndian.Uint32(frame[12:]) }

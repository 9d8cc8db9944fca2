package ua

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// Sizes in octets.
const (
	maxDatagram = 65_000 // UDP over IPv4 carries at most 65,507
	maxPacket   = 65_535 // that is read
	// needsStream is the largest request for UDP if there is TCP (RFC 3261
	// §18.1.1).
	needsStream = 1300
)

// writeWithin bounds how long the server may take to read what we write.
const writeWithin = 10 * time.Second

// link is a socket connected to the server.
type link struct {
	conn    net.Conn
	network string
	local   netip.AddrPort
	reader  *bufio.Reader // of a stream; belongs to the reading goroutine
	buffer  []byte        // likewise
	pongs   chan struct{}
	ended   chan struct{} // closed when nothing more is read

	writing sync.Mutex
}

func newLink(conn net.Conn, network string) *link {
	l := &link{conn: conn, network: network, local: target.Local(conn), pongs: make(chan struct{}, 1), ended: make(chan struct{})}
	if l.isStream() {
		l.reader = bufio.NewReader(conn)
		return l
	}
	l.buffer = make([]byte, maxPacket)
	return l
}

func (l *link) isStream() bool { return l.network != "udp" }

// isBroken tells whether a connection has ended. A UDP socket goes on.
func (l *link) isBroken() bool {
	select {
	case <-l.ended:
		return l.isStream()
	default:
		return false
	}
}

// close returns when nothing is read any more.
func (l *link) close() error {
	err := l.conn.Close()
	<-l.ended
	if errors.Is(err, net.ErrClosed) {
		return nil // it broke before
	}
	return err
}

// write sends one packet whole.
func (l *link) write(packet []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := l.conn.Write(packet)
	return err
}

// next reads one packet. It is valid until the next call.
func (l *link) next() ([]byte, error) {
	if l.isStream() {
		return l.nextOfStream()
	}
	n, err := l.conn.Read(l.buffer)
	return l.buffer[:n], err
}

var errFraming = errors.New("the server sent what can't be told apart into messages")

// nextOfStream reads a message up to the end that its Content-Length says (RFC
// 3261 §18.3). Empty lines in front are the answers to our pings.
func (l *link) nextOfStream() ([]byte, error) {
	l.buffer = l.buffer[:0]
	length := 0
	for {
		line, err := l.reader.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		end := len(bytes.TrimRight(line, "\r\n")) == 0
		if end && len(l.buffer) == 0 {
			l.ponged()
			continue
		}
		l.buffer = append(l.buffer, line...)
		if end {
			break
		}
		if n, found := contentLength(string(line)); found {
			length = n
		}
		if length < 0 || len(l.buffer) > maxPacket {
			return nil, errFraming
		}
	}
	if len(l.buffer)+length > maxPacket {
		return nil, errFraming
	}
	head := len(l.buffer)
	l.buffer = append(l.buffer, make([]byte, length)...)
	_, err := io.ReadFull(l.reader, l.buffer[head:])
	return l.buffer, err
}

// contentLength reads the field of that name; a value that is none is -1.
func contentLength(line string) (n int, found bool) {
	name, value, _ := strings.Cut(line, ":")
	name = strings.TrimSpace(name)
	if !strings.EqualFold(name, "Content-Length") && !strings.EqualFold(name, "l") {
		return 0, false
	}
	length, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
	if err != nil {
		return -1, true
	}
	return int(length), true
}

func (l *link) ponged() {
	select {
	case l.pongs <- struct{}{}:
	default:
	}
}

// ping asks the server for a sign of life (RFC 5626 §4.4.1).
func (l *link) ping() error {
	select {
	case <-l.pongs: // of an earlier one
	default:
	}
	return l.write([]byte("\r\n\r\n"))
}

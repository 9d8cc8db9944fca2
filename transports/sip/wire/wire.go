// Package wire is SIP as it travels: sockets, connections and the flows on them,
// the codec with its strict validator, and non-INVITE transactions (RFC 3261
// §17). It hands valid requests to a handler, writes what it is told to write,
// and answers retransmissions by itself. It bounds what peers can take of
// memory, connections and time. It dials servers when it is told to, and never a
// client. What it speaks: UDP, TCP, TLS, WebSockets (RFC 7118) with and without
// TLS, and as much STUN as keep-alives need.
//
// It must not know the gateway: no accounts, no policies, no storage. What a
// request means is the business of the door that uses this package.
//
// Of github.com/emiago/sipgo it uses the URI parser, behind a check of its own.
// Framing, header values and transactions are ours: sipgo takes the last of two
// contradicting headers, changes the case of methods, loses a Via whose port is
// wrong, and keeps 5 KB for each finished transaction.
//
// Of github.com/coder/websocket it uses the opening handshake and the reader. It
// writes frames by itself, through the queue that every connection has: the
// library's writer would wait for the peer.
package wire

import (
	"errors"
	"time"
)

// Timers of RFC 3261 §17, table 4.
const (
	T1 = 500 * time.Millisecond // round-trip estimate
	T2 = 4 * time.Second        // longest pause between retransmissions

	timerF = 64 * T1 // how long a client transaction waits for a final response
	timerJ = 64 * T1 // how long a server transaction answers retransmissions
)

// Limits of what is read and written.
const (
	MaxMessage    = 65_535    // octets of a UDP datagram
	MaxDatagram   = 65_000    // octets of a message that is sent over UDP
	maxHead       = 32 << 10  // octets of a header section
	maxHeaders    = 128       // header fields in a message
	maxHeaderLine = 8 << 10   // octets of a header field, folded lines together
	maxCSeq       = 1<<31 - 1 // RFC 3261 §8.1.1.5
)

// magicCookie begins every branch of RFC 3261 (§8.1.1.7).
const magicCookie = "z9hG4bK"

// Errors of a client transaction.
var (
	ErrTimeout  = errors.New("no final response within 32 s")
	ErrTooLarge = errors.New("message too large")
	// ErrNeedsStream: a request is larger than a datagram may be. It can be sent
	// on a stream flow of the same device, or again with a larger MaxDatagram.
	ErrNeedsStream = errors.New("message too large for a datagram")
	ErrUnsafe      = errors.New("value would break the header section")
	ErrNoFlow      = errors.New("flow is gone")
	ErrClosed      = errors.New("endpoint is closed")
)

// Header is a header field. Names are in their usual long form if this package
// knows the field, otherwise as they were written.
type Header struct{ Name, Value string }

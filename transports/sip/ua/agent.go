// Package ua is a small SIP user agent over UDP, and the commands with which a
// person tries the gateway: send, listen and bench.
//
// It is the other side of the wire and the yardstick, so it shares no code
// with our server: it must not know the transport nor its wire, the engine, or
// anything but the contract. What it reads comes from a stranger, and what it
// prints goes to a terminal: nothing passes unchecked from one to the other.
package ua

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/ua/internal/target"
)

// maxDatagram is in octets; UDP over IPv4 carries at most 65,507.
const maxDatagram = 65_000

// Config says who an agent is.
type Config struct {
	Address  message.Address // its address-of-record
	Password string
	Server   string // host:port

	// Handle is given each message that arrives, once. It is called from one
	// goroutine, before the message is answered, and must not wait for the
	// agent. False refuses the message for now (480). Nil refuses all.
	Handle func(Incoming) bool

	timers timers // zero: those of RFC 3261
}

// Agent is one UDP socket with one identity. Its methods may be called from
// several goroutines.
type Agent struct {
	config Config
	conn   *net.UDPConn
	local  netip.AddrPort
	callID string // of its registrations: one for all (RFC 3261 §10.2.4)
	tag    string // of its answers, the same for a repeated request
	cseq   atomic.Uint32
	login  login
	closed chan struct{}

	mu      sync.Mutex
	pending map[string]chan answer // client transactions by branch
	taken   recent                 // what Handle took; belongs to the reading goroutine
}

// answer is what becomes of a client transaction.
type answer struct {
	response *sip.Response
	err      error
}

// ErrNoAnswer is what a request returns that nobody answered within 64*T1
// (RFC 3261 §17.1.2.2). Whether it arrived isn't known.
var ErrNoAnswer = errors.New("no answer")

// Dial opens an agent's socket. Nothing is sent yet.
func Dial(ctx context.Context, config Config) (*Agent, error) {
	if err := config.Address.Validate(); err != nil {
		return nil, err
	}
	if config.timers == (timers{}) {
		config.timers = standardTimers
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", config.Server)
	if err != nil {
		return nil, fmt.Errorf("reach the SIP server: %w", err)
	}
	socket := conn.(*net.UDPConn)
	a := &Agent{
		config:  config,
		conn:    socket,
		local:   target.Local(conn),
		callID:  rand.Text(),
		tag:     rand.Text(),
		closed:  make(chan struct{}),
		pending: map[string]chan answer{},
	}
	a.login.username, a.login.password = config.Address.User, config.Password
	go a.read()
	return a, nil
}

// Close lets go of the socket and returns when no Handle runs any more.
func (a *Agent) Close() error {
	err := a.conn.Close()
	<-a.closed
	return err
}

// Local is the address that the agent is reached at.
func (a *Agent) Local() netip.AddrPort { return a.local }

func (a *Agent) read() {
	defer close(a.closed)
	parser := sip.NewParser()
	buffer := make([]byte, 65_535)
	for {
		n, err := a.conn.Read(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			a.failAll(err)
			return
		case errors.Is(err, syscall.ECONNREFUSED):
			a.failAll(err) // ICMP: nobody listens there (RFC 3261 §17.1.4)
		case err != nil:
			continue // one datagram that could not be read
		default:
			a.receive(parser, buffer[:n])
		}
	}
}

// receive takes one datagram from the network. What is not SIP is dropped.
func (a *Agent) receive(parser *sip.Parser, datagram []byte) {
	parsed, err := parser.ParseSIP(append([]byte(nil), datagram...))
	if err != nil {
		return
	}
	switch m := parsed.(type) {
	case *sip.Response:
		a.dispatch(m)
	case *sip.Request:
		a.serve(m)
	}
}

// dispatch hands a response to its transaction, if that still waits.
func (a *Agent) dispatch(r *sip.Response) {
	via := r.Via()
	if via == nil || r.CSeq() == nil {
		return
	}
	branch, _ := via.Params.Get("branch")
	a.mu.Lock()
	defer a.mu.Unlock()
	tell(a.pending[branch], answer{response: r})
}

func (a *Agent) failAll(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, waiting := range a.pending {
		tell(waiting, answer{err: err})
	}
}

// tell never blocks: a transaction that has been told enough needs no more.
func tell(waiting chan answer, what answer) {
	select {
	case waiting <- what:
	default:
	}
}

func (a *Agent) open(branch string) chan answer {
	waiting := make(chan answer, 4)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending[branch] = waiting
	return waiting
}

func (a *Agent) forget(branch string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pending, branch)
}

// timers are those of a non-INVITE client transaction (RFC 3261 §17.1.2.2).
type timers struct{ t1, t2 time.Duration }

var standardTimers = timers{t1: 500 * time.Millisecond, t2: 4 * time.Second}

// timeout is Timer F.
func (t timers) timeout() time.Duration { return 64 * t.t1 }

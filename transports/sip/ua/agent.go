// Package ua is a small SIP user agent over UDP and TCP, and the commands with
// which a person tries the gateway: send, listen and bench.
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
)

// Config says who an agent is.
type Config struct {
	Address  message.Address // its address-of-record
	Password string

	// Where the server is, host:port: over UDP, over TCP, or both. With both it
	// is UDP, and TCP once a request is too large for UDP.
	UDP, TCP string

	// Handle is given each message that arrives, once. It is called from one
	// goroutine, before the message is answered, and must not wait for the
	// agent. False refuses the message for now (480). Nil refuses all.
	Handle func(Incoming) bool

	timers timers // zero: the usual ones
}

// Agent is one identity that talks to one server. Its methods may be called
// from several goroutines.
type Agent struct {
	config   Config
	callID   string // of its registrations: one for all (RFC 3261 §10.2.4)
	tag      string // of its answers, the same for a repeated request
	instance string // of the device (RFC 5626 §4.1)
	cseq     atomic.Uint32
	login    login

	dialing sync.Mutex // held while the link is replaced

	mu      sync.Mutex
	link    *link
	shut    bool
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

// Dial opens an agent's socket, or connection. Nothing is sent yet.
func Dial(ctx context.Context, config Config) (*Agent, error) {
	if err := config.Address.Validate(); err != nil {
		return nil, err
	}
	if config.timers == (timers{}) {
		config.timers = standardTimers
	}
	a := &Agent{
		config: config, callID: rand.Text(), tag: rand.Text(), instance: newInstance(),
		pending: map[string]chan answer{},
	}
	a.login.username, a.login.password = config.Address.User, config.Password
	network := "udp"
	if config.UDP == "" {
		network = "tcp"
	}
	if _, err := a.dial(ctx, network); err != nil {
		return nil, err
	}
	return a, nil
}

// newInstance returns the name of a device: a random UUID (RFC 9562 §5.4).
func newInstance() string {
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Close lets go of the socket and returns when no Handle runs any more.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.shut = true
	l := a.link
	a.mu.Unlock()
	return l.close()
}

// Local is the address that the agent is reached at.
func (a *Agent) Local() netip.AddrPort { return a.current().local }

func (a *Agent) current() *link {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.link
}

// dial opens a link and puts it in the place of the one before, whose reader
// has ended then.
func (a *Agent) dial(ctx context.Context, network string) (*link, error) {
	server := a.config.UDP
	if network == "tcp" {
		server = a.config.TCP
	}
	var dialer net.Dialer
	dialer.Timeout = a.config.timers.timeout()
	conn, err := dialer.DialContext(ctx, network, server)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nobodyListens(server, network, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the SIP server: %w", err)
	}
	l := newLink(conn, network)
	if before := a.current(); before != nil {
		_ = before.close() // it is of no use any more
	}
	if !a.adopt(l) {
		conn.Close()
		return nil, net.ErrClosed
	}
	go a.read(l)
	return l, nil
}

// adopt makes a link the current one, unless the agent was closed meanwhile.
func (a *Agent) adopt(l *link) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.shut {
		a.link = l
	}
	return !a.shut
}

// connected returns the link to the server: a new one if the connection broke.
func (a *Agent) connected(ctx context.Context) (*link, error) {
	a.dialing.Lock()
	defer a.dialing.Unlock()
	l := a.current()
	if !l.isBroken() {
		return l, nil
	}
	return a.dial(ctx, "tcp")
}

// stream returns a connection to the server for what is too large for UDP. If
// there can't be one, UDP has to do (RFC 3261 §18.1.1).
func (a *Agent) stream(ctx context.Context, over *link) *link {
	a.dialing.Lock()
	defer a.dialing.Unlock()
	if l := a.current(); l != over {
		return l
	}
	if l, err := a.dial(ctx, "tcp"); err == nil {
		return l
	}
	return over
}

func (a *Agent) read(l *link) {
	defer close(l.ended)
	parser := sip.NewParser()
	for {
		packet, err := l.next()
		switch {
		case err == nil:
			a.receive(l, parser, packet)
		case !l.isStream() && errors.Is(err, syscall.ECONNREFUSED):
			a.failAll(err) // ICMP: nobody listens there (RFC 3261 §17.1.4)
		case !l.isStream() && !errors.Is(err, net.ErrClosed):
			continue // one datagram that could not be read
		default:
			l.conn.Close()
			a.failAll(err)
			return
		}
	}
}

// receive takes one packet from the network. What is not SIP is dropped.
func (a *Agent) receive(l *link, parser *sip.Parser, packet []byte) {
	parsed, err := parser.ParseSIP(append([]byte(nil), packet...))
	if err != nil {
		return
	}
	switch m := parsed.(type) {
	case *sip.Response:
		a.dispatch(m)
	case *sip.Request:
		a.serve(l, m)
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

// timers are those of a non-INVITE client transaction (RFC 3261 §17.1.2.2), and
// of a connection that is kept alive (RFC 5626 §4.4.1).
type timers struct {
	t1, t2     time.Duration
	ping, pong time.Duration // between pings, and how long the answer may take
}

var standardTimers = timers{t1: 500 * time.Millisecond, t2: 4 * time.Second, ping: 30 * time.Second, pong: 10 * time.Second}

// timeout is Timer F.
func (t timers) timeout() time.Duration { return 64 * t.t1 }

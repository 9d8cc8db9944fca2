// Package ua is a small SIP user agent over UDP, TCP, TLS and WebSockets, and the
// commands with which a person tries the gateway: send, listen and bench.
//
// It is the other side of the wire and the yardstick, so it shares no code
// with our server: it must not know the transport nor its wire, the engine, or
// anything but the contract. What it reads comes from a stranger, and what it
// prints goes to a terminal: nothing passes unchecked from one to the other.
package ua

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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

	// Where the server is, as in Server: over one network, or over UDP and TCP. Then
	// it is UDP, and TCP once a request is too large for UDP.
	UDP, TCP, TLS, WS, WSS string
	// Secure is for TLS and WSS; nil: the certificate must be the one of the address's
	// domain, signed by somebody whom the system trusts.
	Secure *tls.Config

	// Others are further nodes of the same gateway, of which one at a time takes
	// traffic. The agent stays with the one that answered last. One that answers
	// 503, or nothing for 4*T1, is left for the next: with the very same request,
	// so that it is known as a repeat if it was taken and only the answer was
	// lost. What is tried in turn is UDP, or TCP if the agent has no UDP.
	Others []Server

	// Handle is given each message that arrives, once. It is called from one
	// goroutine at a time, before the message is answered, and must not wait for the
	// agent. False refuses the message for now (480). Nil refuses all.
	Handle func(Incoming) bool
	// Again is told of each message that comes again after Handle took it, in a
	// transaction of its own: somebody who doesn't look at Call-ID and CSeq gets
	// it twice. It is called as Handle is. Nil: nobody wants to know.
	Again func(Incoming)

	// Ping is how often KeepRegistered asks over a connection for a sign of life;
	// zero: every 30 s. A server that gives none within 10 s is left.
	Ping time.Duration

	timers timers // zero: the usual ones
}

// Agent is one identity that talks to one gateway. Its methods may be called
// from several goroutines.
type Agent struct {
	config   Config
	callID   string // of its registrations: one for all (RFC 3261 §10.2.4)
	tag      string // of its answers, the same for a repeated request
	instance string // of the device (RFC 5626 §4.1)
	cseq     atomic.Uint32
	login    login
	network  string // over which it begins
	nodes    []*node
	chosen   atomic.Int32 // which of them is asked first
	unsure   atomic.Int64

	dialing sync.Mutex // held while a link is replaced

	mu      sync.Mutex
	links   []*link // to each node; nil: none yet
	shut    bool
	pending map[string]waiter // client transactions by branch

	serving sync.Mutex // held while Handle runs
	taken   recent     // what Handle took
}

func (c *Config) server() Server {
	return Server{UDP: c.UDP, TCP: c.TCP, TLS: c.TLS, WS: c.WS, WSS: c.WSS}
}

// waiter is who waits for what comes on a link.
type waiter struct {
	link    *link
	server  int
	answers chan<- answer
}

// answer is what becomes of a client transaction.
type answer struct {
	server   int
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
	if config.Ping > 0 {
		config.timers.ping = config.Ping
	}
	a := &Agent{
		config: config, callID: rand.Text(), tag: rand.Text(), instance: newInstance(),
		network: config.server().network(), pending: map[string]waiter{},
	}
	a.login.username, a.login.password = config.Address.User, config.Password
	for _, server := range append([]Server{config.server()}, config.Others...) {
		if server.address(a.network) == "" {
			return nil, errNetworks
		}
		a.nodes = append(a.nodes, &node{Server: server})
	}
	a.links = make([]*link, len(a.nodes))
	open := a.dialFirst
	if a.several() && a.network == "udp" {
		open = a.dialAll
	}
	if err := open(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

var errNetworks = errors.New("all servers must be reached over the same network")

// several tells whether there is another server to go to.
func (a *Agent) several() bool { return len(a.nodes) > 1 }

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
	links := slices.Clone(a.links)
	a.mu.Unlock()
	var failed []error
	for _, l := range links {
		if l != nil {
			failed = append(failed, l.close())
		}
	}
	return errors.Join(failed...)
}

// Local is the address that the agent is reached at.
func (a *Agent) Local() netip.AddrPort { return a.current().local }

// Connected tells whether the agent's connection still stands. Over UDP there is none
// that could break.
func (a *Agent) Connected() bool { return !a.current().isBroken() }

func (a *Agent) current() *link {
	chosen := int(a.chosen.Load())
	if l := a.linkTo(chosen); l != nil {
		return l
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.links, func(l *link) bool { return l != nil }) // Dial has made one
	return a.links[i]
}

func (a *Agent) linkTo(server int) *link {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.links[server]
}

// dial opens a link to a server and puts it in the place of the one before,
// whose reader has ended then.
func (a *Agent) dial(ctx context.Context, network string, server int) (*link, error) {
	address := a.nodes[server].address(network)
	conn, err := a.open(ctx, network, address)
	if err != nil {
		return nil, unreached(address, network, err)
	}
	l := newLink(conn, network)
	if before := a.linkTo(server); before != nil {
		_ = before.close() // it is of no use any more
	}
	if !a.adopt(l, server) {
		conn.Close()
		return nil, net.ErrClosed
	}
	go a.read(l)
	return l, nil
}

// adopt makes a link the one to a server, unless the agent was closed meanwhile.
func (a *Agent) adopt(l *link, server int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.shut {
		a.links[server] = l
	}
	return !a.shut
}

// connected returns the link to a server: a new one if the connection broke.
func (a *Agent) connected(ctx context.Context, server int) (*link, error) {
	a.dialing.Lock()
	defer a.dialing.Unlock()
	if l := a.linkTo(server); l != nil && !l.isBroken() {
		return l, nil
	}
	return a.dial(ctx, a.streamNetwork(), server)
}

// streamNetwork is the one over which connections are made.
func (a *Agent) streamNetwork() string {
	if a.network == "udp" {
		return "tcp"
	}
	return a.network
}

// stream returns a connection to the only server for what is too large for UDP.
// If there can't be one, UDP has to do (RFC 3261 §18.1.1).
func (a *Agent) stream(ctx context.Context, over *link) *link {
	a.dialing.Lock()
	defer a.dialing.Unlock()
	if l := a.current(); l != over {
		return l
	}
	if l, err := a.dial(ctx, "tcp", 0); err == nil {
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
			a.failAll(l, err) // ICMP: nobody listens there (RFC 3261 §17.1.4)
		case !l.isStream() && !errors.Is(err, net.ErrClosed):
			continue // one datagram that could not be read
		default:
			l.conn.Close()
			a.failAll(l, err)
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
	if w, found := a.pending[branch]; found {
		w.tell(answer{response: r})
	}
}

// failAll tells everybody who waits for what comes on a link.
func (a *Agent) failAll(l *link, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.pending {
		if w.link == l {
			w.tell(answer{err: err})
		}
	}
}

// tell never blocks: a transaction that has been told enough needs no more.
func (w waiter) tell(what answer) {
	what.server = w.server
	select {
	case w.answers <- what:
	default:
	}
}

func (a *Agent) expect(branch string, w waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending[branch] = w
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

// silence is how long one of several servers may take to answer.
func (t timers) silence() time.Duration { return 4 * t.t1 }

// patience is how long to wait for a server before it counts as silent.
func (a *Agent) patience() time.Duration {
	if a.several() {
		return a.config.timers.silence()
	}
	return a.config.timers.timeout()
}

package wire

import (
	"context"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Handler handles a request. Requests from one source come to it one after the
// other in the order of their arrival; so it must not wait for long, and answers
// later if need be. A panic is answered with 500.
type Handler func(ctx context.Context, x *Exchange)

// Endpoint is a set of sockets and connections with the transactions on them.
type Endpoint struct {
	config      Config
	sockets     []*socket
	acceptors   []*acceptor
	addresses   []netip.AddrPort
	connections *connections
	dialled     *diallings
	budget      *budget
	server      *serverTable
	client      *clientTable
	seed        maphash.Seed
	counters    counters
	pressure    pressure
	packets     sync.Pool      // of *[]byte: responses, and what waits to be written
	writers     sync.WaitGroup // of connections
	closed      atomic.Bool

	begun   chan struct{} // closed when Serve begins, or never will
	mu      sync.Mutex
	serving *service // nil: Serve doesn't run, or is about to end
}

// service is what reads connections while Serve runs.
type service struct {
	ctx     context.Context
	readers sync.WaitGroup
	queues  []chan *Request // of the workers
}

// link is what carries messages to a peer: a UDP socket, or a connection.
type link interface {
	// send writes a message, or queues it; it doesn't keep packet. ErrNoFlow:
	// the connection is gone.
	send(packet []byte, to netip.AddrPort) error
}

// Listen opens the sockets. Nothing is read before Serve.
func Listen(listeners []Listener, config Config) (*Endpoint, error) {
	e := newEndpoint(config)
	for _, l := range listeners {
		if err := e.listen(l); err != nil {
			e.Close()
			return nil, fmt.Errorf("listen on %s %s: %w", l.Network, l.Address, err)
		}
	}
	e.show(config.Metrics)
	return e, nil
}

func newEndpoint(config Config) *Endpoint {
	config = config.withDefaults()
	return &Endpoint{
		config:      config,
		connections: newConnections(config.Limits),
		dialled:     newDiallings(),
		budget:      newBudget(config.Limits.MaxBuffered),
		server:      newServerTable(time.Now(), config.Pending, config.Finished),
		client:      newClientTable(),
		seed:        maphash.MakeSeed(),
		counters:    counters{networks: newConnectionCounters()},
		pressure:    pressure{log: config.Log},
		begun:       make(chan struct{}),
		packets:     sync.Pool{New: func() any { return new([]byte) }},
	}
}

func (e *Endpoint) listen(l Listener) error {
	switch l.Network {
	case "udp":
		s, err := listenUDP(l.Address)
		if err != nil {
			return err
		}
		e.sockets = append(e.sockets, s)
		e.addresses = append(e.addresses, s.local)
	case "tcp", "tls", "ws", "wss":
		a, err := e.listenTCP(l.Network, l.Address)
		if err != nil {
			return err
		}
		e.acceptors = append(e.acceptors, a)
		e.addresses = append(e.addresses, a.local)
	default:
		return net.UnknownNetworkError(l.Network)
	}
	return nil
}

// Addrs returns the addresses of the listeners in their order, with the ports
// that the system chose where the configuration says 0.
func (e *Endpoint) Addrs() []netip.AddrPort { return slices.Clone(e.addresses) }

// Close closes the sockets and the connections; what waits to be written on
// those has a second. What runs in Do ends with ErrClosed.
func (e *Endpoint) Close() {
	e.closed.Store(true)
	e.end()
	for _, a := range e.acceptors {
		a.listener.Close()
	}
	for _, s := range e.sockets {
		s.conn.Close()
	}
	all := e.connections.close()
	for _, c := range all {
		c.finish()
	}
	e.writers.Wait()
	for _, c := range all {
		c.close(causeShutdown)
	}
}

// Serve reads and hands requests to handle until ctx is done or Close is
// called, and waits for the handlers. By then nobody is let in any more and
// nothing is read; sockets and connections stay open for what is still to be
// answered, until Close.
func (e *Endpoint) Serve(ctx context.Context, handle Handler) {
	s := &service{ctx: ctx, queues: make([]chan *Request, e.config.Workers)}
	var workers sync.WaitGroup
	for i := range s.queues {
		s.queues[i] = make(chan *Request, e.config.Backlog)
		workers.Go(func() { e.work(ctx, s.queues[i], handle) })
	}
	e.begin(s)
	stop := context.AfterFunc(ctx, e.stopReading)
	defer stop()
	for _, socket := range e.sockets {
		s.readers.Go(func() { e.readUDP(socket, s.queues) })
	}
	for _, a := range e.acceptors {
		s.readers.Go(func() {
			e.accept(ctx, a.listener, func(conn net.Conn) { e.admit(s, a, conn) })
		})
	}
	s.readers.Wait()
	for _, q := range s.queues {
		close(q)
	}
	workers.Wait()
}

// begin lets Connect use a service, which has a reader until end.
func (e *Endpoint) begin(s *service) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.begun: // and it is over
		return
	default:
		close(e.begun)
	}
	s.readers.Add(1)
	e.serving = s
}

// end keeps Connect from beginning anything new.
func (e *Endpoint) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.begun:
	default:
		close(e.begun)
	}
	if e.serving != nil {
		e.serving.readers.Done()
		e.serving = nil
	}
}

// service waits until Serve runs. It returns nil if that doesn't come soon, or
// is over.
func (e *Endpoint) service() *service {
	select {
	case <-e.begun:
	case <-time.After(dialTimeout):
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.serving
}

// serve has a connection read that we have opened. It returns false if Serve
// doesn't run.
func (e *Endpoint) serve(c *connection) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.serving == nil || !e.connections.addDialled(c) {
		return false
	}
	e.counters.of(c).now.Add(1)
	s := e.serving
	s.readers.Go(func() { e.attend(s, c) })
	return true
}

// stopReading ends the readers. Whoever would connect now is better off with
// who comes after us.
func (e *Endpoint) stopReading() {
	e.end()
	for _, a := range e.acceptors {
		a.listener.Close()
	}
	now := time.Now()
	for _, s := range e.sockets {
		_ = s.conn.SetReadDeadline(now) // fails only when it is closed
	}
	for _, c := range e.connections.all() {
		_ = c.conn.SetReadDeadline(now) // fails only when it is closed
	}
}

// arrival is a message that came.
type arrival struct {
	link     link
	flow     Flow
	data     []byte // all of it, as it came
	request  *Request
	response *Response
	refusal  *Refusal
}

// receive gives a response to its transaction, and refuses what did not pass the
// validator. It returns true if there is a request for a worker.
func (e *Endpoint) receive(a *arrival) bool {
	if a.request != nil {
		a.request.Flow, a.request.link = a.flow, a.link
	}
	if e.config.Observers.Watched() {
		e.showReceived(a)
	}
	switch {
	case a.refusal != nil:
		e.refuse(a.request, a.refusal)
	case a.response != nil:
		e.counters.responses.Add(1)
		if !e.client.deliver(a.response, a.flow) {
			e.counters.unmatched.Add(1)
		}
	default:
		e.counters.requests.Add(1)
		return true
	}
	return false
}

// refuse answers what did not pass the validator, if it can be answered.
func (e *Endpoint) refuse(r *Request, refusal *Refusal) {
	kind := &e.counters.malformed
	if refusal.Exceeds {
		kind = &e.counters.tooLarge
	}
	kind.Add(1)
	e.config.Log.Debug("message refused unread", "reason", refusal.Phrase, "answered", r != nil)
	if r != nil && r.Method != "ACK" {
		e.exchange(r).write(Reply{Status: refusal.Status, Phrase: refusal.Phrase})
	}
}

// queueFor is the queue of the worker for a source.
func (e *Endpoint) queueFor(source netip.AddrPort, queues []chan *Request) chan *Request {
	return queues[maphash.Comparable(e.seed, source)%uint64(len(queues))]
}

func (e *Endpoint) work(ctx context.Context, queue <-chan *Request, handle Handler) {
	for r := range queue {
		if ctx.Err() != nil {
			continue // the peer repeats it, to whoever comes after us
		}
		e.handle(ctx, r, handle)
	}
}

func (e *Endpoint) handle(ctx context.Context, r *Request, handle Handler) {
	x := e.exchange(r)
	if o, kept, found := e.server.find(x.key, time.Now()); found {
		e.counters.retransmissions.Add(1)
		x.again(o, kept)
		return
	}
	defer x.Recover()
	handle(ctx, x)
}

func (e *Endpoint) exchange(r *Request) *Exchange {
	return &Exchange{Request: r, endpoint: e, key: e.server.key(r)}
}

// Connected tells whether a request can be sent on a flow: over TCP whether the
// connection is still there, over UDP whether a socket of ours can reach the
// peer.
func (e *Endpoint) Connected(f Flow) bool {
	_, ok := e.way(f, 0)
	return ok
}

// Dismiss hangs up on a peer, so that it connects anew, perhaps to somebody
// else: what is written goes out, what comes is read no more. It returns false
// as long as answers are under way on that connection, and does nothing; true
// if the connection is gone.
func (e *Endpoint) Dismiss(f Flow) bool {
	c := e.connections.find(f)
	if c == nil {
		return true
	}
	if c.owed.Load() > 0 {
		return false
	}
	c.dismiss()
	return true
}

// Do sends a request on a flow and waits for its final response: ErrTimeout
// after 32 s, ErrUnsafe and ErrTooLarge if it can't be written, ErrNeedsStream
// if it is too large for UDP, ErrNoFlow if no socket of ours can reach the peer
// or the connection is gone or goes meanwhile, ErrClosed after Close, or what
// the system or ctx says. It never dials.
func (e *Endpoint) Do(ctx context.Context, f Flow, o Outgoing) (*Response, error) {
	w, ok := e.way(f, o.MaxDatagram)
	if !ok {
		return nil, ErrNoFlow
	}
	response, err := e.client.do(ctx, &o, &w, func(packet []byte) error { return e.send(w.link, w.flow, o.CallID, packet) })
	if err == ErrNoFlow && e.closed.Load() {
		err = ErrClosed
	}
	return response, err
}

// way is how requests of ours get to a peer.
type way struct {
	link      link
	flow      Flow
	transport string          // for the Via
	sentBy    string          // for the Via
	limit     int             // octets of a message
	tooLarge  error           // what it is if there are more
	gone      <-chan struct{} // closed when the connection has ended; nil over UDP, where requests are repeated
}

// way finds the way of a flow. maxDatagram is that of Outgoing.
func (e *Endpoint) way(f Flow, maxDatagram int) (way, bool) {
	if isStream(f.Network) {
		c := e.connections.find(f)
		if c == nil || c.isGone() {
			return way{}, false
		}
		return way{link: c, flow: f, transport: transports[c.flow.Network], sentBy: c.sentBy, limit: maxHead + e.config.MaxBody, tooLarge: ErrTooLarge, gone: c.done}, true
	}
	s := e.socket(f.Local)
	if s == nil || f.Network != "udp" || s.local.Addr().Is4() != f.Remote.Addr().Is4() {
		return way{}, false
	}
	f.Local = s.local // it may have been another's: see socket
	limit := min(or(maxDatagram, e.config.MaxUDP), MaxDatagram)
	return way{link: s, flow: f, transport: "UDP", sentBy: s.sentBy, limit: limit, tooLarge: ErrNeedsStream}, true
}

// send writes a message to a peer.
func (e *Endpoint) send(l link, f Flow, call string, packet []byte) error {
	if e.config.Observers.Watched() {
		e.showSent(f, call, packet)
	}
	err := l.send(packet, f.Remote)
	switch {
	case err == nil:
		e.counters.sent.Add(1)
	case e.closed.Load():
		return ErrClosed
	case err == ErrNoFlow:
		e.counters.lost.Add(1)
	default:
		e.counters.writeErrors.Add(1)
	}
	return err
}

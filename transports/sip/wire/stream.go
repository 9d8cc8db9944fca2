package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// acceptor is a listener of ours for connections.
type acceptor struct {
	network  string
	listener net.Listener
	local    netip.AddrPort
}

// unacknowledged is how long a peer may leave what was sent unacknowledged: no
// longer than a transaction waits, so that its flow ends with the first attempt
// that fails.
const unacknowledged = 30 * time.Second

// watchPeer has the kernel find out that a peer has vanished without a word:
// when it doesn't acknowledge what we send, and when it doesn't answer probes,
// which begin after two minutes of silence so that a phone's radio may sleep.
// Where the kernel can't, Limits.Idle does.
func watchPeer(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4})
	_ = setUserTimeout(tcp, unacknowledged)
}

func listenTCP(network string, address netip.AddrPort) (*acceptor, error) {
	family := "tcp4"
	if address.Addr().Is6() {
		family = "tcp6"
	}
	listener, err := net.ListenTCP(family, net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	return &acceptor{network: network, listener: listener, local: addrPort(listener.Addr())}, nil
}

// addrPort returns the address of a TCP socket; none if a isn't one.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	address := tcp.AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
}

// Pauses after an error of Accept: the system has no files or no memory left,
// and gets time to find some.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// accept lets connections in until the listener is closed. No other error ends
// it.
func (e *Endpoint) accept(ctx context.Context, listener net.Listener, admit func(net.Conn)) {
	pause := acceptPauseMin
	for {
		conn, err := listener.Accept()
		if err == nil {
			pause = acceptPauseMin
			admit(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		e.pressure.note(pressureAccept, time.Now(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, acceptPauseMax)
		}
	}
}

// admit starts the reader of a connection, or closes it at once if there are
// too many.
func (e *Endpoint) admit(s *service, a *acceptor, conn net.Conn) {
	c := e.newConnection(a.network, conn)
	if why, ok := e.connections.add(c); !ok {
		e.pressure.note(why, time.Now())
		conn.Close()
		return
	}
	e.counters.accepted.Add(1)
	watchPeer(conn)
	s.readers.Go(func() { e.attend(s, c) })
}

// attend reads a connection to its end. When Serve ends it stays open for what
// is still to be answered, until Close.
func (e *Endpoint) attend(s *service, c *connection) {
	defer c.framer.release(e.budget)
	now := time.Now()
	r := streamReader{connection: c, queues: s.queues, opened: now, active: now, messages: c.dialled != nil}
	why := r.run(s.ctx)
	if why == causeShutdown {
		return
	}
	c.close(why)
	if e.config.Closed != nil {
		e.config.Closed(c.flow)
	}
}

// streamReader reads a connection.
type streamReader struct {
	*connection
	queues []chan *Request

	opened   time.Time // when the connection was
	now      time.Time // of the last read
	active   time.Time // when there was something that counts
	began    time.Time // when the message began that isn't complete; zero: none has
	messages bool      // there was one, or none has to come soon
	answered bool      // the peer is told why the connection ends
}

// run reads until the connection has to end, and tells why. causeShutdown: it
// may stay open.
func (r *streamReader) run(ctx context.Context) cause {
	for {
		room := r.framer.room(r.endpoint.budget)
		if room == nil {
			return causeMemory
		}
		n, why := r.read(ctx, room)
		if why == causeDismissed {
			r.hangUp(why)
		}
		if n == 0 {
			return why
		}
		r.framer.add(n)
		if !r.takeAll(ctx) {
			if r.answered {
				r.hangUp(causeMalformed)
			}
			return causeMalformed
		}
	}
}

// read reads what there is; nothing if the connection has to end.
func (r *streamReader) read(ctx context.Context, room []byte) (int, cause) {
	for {
		deadline, why := r.deadline()
		_ = r.conn.SetReadDeadline(deadline) // fails only when it is closed
		if why, over := r.isOver(ctx); over {
			return 0, why
		}
		n, err := r.conn.Read(room)
		now := time.Now()
		if n > 0 {
			if now.Sub(r.now) > pingWithin {
				r.framer.forgetCRLF()
			}
			r.now = now
			return n, 0
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, causePeer
		}
		if why, over := r.isOver(ctx); over {
			return 0, why
		}
		if later, _ := r.deadline(); !now.Before(later) {
			return 0, why
		} // else Keep came in the meantime
	}
}

// isOver tells whether somebody wants no more to be read, and why.
func (r *streamReader) isOver(ctx context.Context) (cause, bool) {
	switch {
	case ctx.Err() != nil:
		return causeShutdown, true
	case r.dismissed.Load():
		return causeDismissed, true
	}
	return 0, false
}

// pingWithin is how far the two halves of a ping may be apart.
const pingWithin = time.Second

// deadline is until when something has to come, and what it means if nothing
// does.
func (r *streamReader) deadline() (time.Time, cause) {
	limits := &r.endpoint.config.Limits
	switch {
	case !r.messages:
		return r.opened.Add(limits.MessageTimeout), causeSlowSender
	case !r.began.IsZero():
		return r.began.Add(limits.MessageTimeout), causeSlowSender
	case r.dialled != nil:
		return r.active.Add(dialledIdle), causeIdle
	case r.kept.Load():
		return r.active.Add(limits.Idle), causeIdle
	default:
		return r.active.Add(limits.Unproven), causeIdle
	}
}

// takeAll handles all that has come. It returns false if the connection can't
// go on.
func (r *streamReader) takeAll(ctx context.Context) bool {
	for u := r.framer.next(); u.kind != unitNone; u = r.framer.next() {
		r.began = time.Time{}
		if !r.take(ctx, &u) {
			return false
		}
	}
	if r.began.IsZero() && r.framer.inMessage() {
		r.began = time.Now()
	}
	return true
}

func (r *streamReader) take(ctx context.Context, u *unit) bool {
	switch u.kind {
	case unitMessage:
		return r.takeMessage(ctx, u)
	case unitBroken:
		r.takeBroken(u)
		return false
	default:
		r.takeKeepAlive(u.kind)
		return true
	}
}

// takeMessage hands a message on. It returns false if that doesn't even look
// like SIP.
func (r *streamReader) takeMessage(ctx context.Context, u *unit) bool {
	r.messages = true
	a := arrival{link: r.connection, flow: r.flow, data: u.data}
	a.request, a.response, a.refusal = u.draft.finish(u.body, r.framer.maxBody)
	if a.refusal == nil {
		r.active = r.now
	}
	if r.endpoint.receive(&a) {
		r.hand(ctx, a.request)
	}
	return u.draft.isSIP()
}

// takeBroken answers what can't be read to its end, if enough of it is there.
func (r *streamReader) takeBroken(u *unit) {
	a := arrival{link: r.connection, flow: r.flow, data: u.data, refusal: refuse("Not SIP")}
	if u.draft != nil {
		a.request, _, a.refusal = u.draft.finish(nil, r.framer.maxBody)
	}
	r.answered = a.request != nil
	r.endpoint.receive(&a)
}

// takeKeepAlive answers a ping with a pong (RFC 5626 §4.4.1). Only who was
// marked with Keep can hold a connection open with that.
func (r *streamReader) takeKeepAlive(kind unitKind) {
	counters := &r.endpoint.counters
	counters.keepAlives.Add(1)
	if r.kept.Load() {
		r.active = r.now
	}
	if kind == unitPing {
		counters.pings.Add(1)
		_ = r.send([]byte("\r\n"), r.flow.Remote) // fails only when the connection is gone
	}
}

// patience is how long a reader waits for a worker that has too much to do.
const patience = time.Second

// hand gives a request to its worker. If that has too much to do the connection
// isn't read for a while: over TCP nobody repeats what we drop, so when patience
// ends the peer is told.
func (r *streamReader) hand(ctx context.Context, request *Request) {
	e := r.endpoint
	queue := e.queueFor(r.flow.Remote, r.queues)
	select {
	case queue <- request:
		return
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case queue <- request:
	case <-r.done:
	case <-ctx.Done():
	case now := <-timer.C:
		e.pressure.note(pressureOverflow, now)
		e.exchange(request).write(Reply{Status: 503, RetryAfter: patience})
	}
}

package wire

import (
	"errors"
	"os"
	"time"
)

// reader reads a connection: what streams and WebSockets have in common.
type reader struct {
	*connection
	service *service

	opened   time.Time // when the connection was, or its handshake was over
	now      time.Time // of the last read, or when it was opened
	active   time.Time // when there was something that counts
	began    time.Time // when the message began that isn't complete; zero: none has
	pinged   time.Time // when a WebSocket was asked for a sign of life
	messages bool      // there was one, or none has to come soon
}

// attend makes the handshakes of a connection and reads it to its end. When Serve
// ends it stays open for what is still to be answered, until Close.
func (e *Endpoint) attend(s *service, c *connection) {
	r := reader{connection: c, service: s, messages: c.dialled != nil}
	r.begin()
	if c.framed {
		socket := &socketReader{reader: r}
		socket.attend(socket.upgrade, socket.run)
		return
	}
	stream := &streamReader{reader: r, framer: framer{maxBody: e.config.MaxBody}}
	stream.attend(nil, stream.run)
}

// attend is that of the endpoint. What comes behind a handshake has a goroutine
// of its own: for an idle connection, the stack that a handshake takes is large.
func (r *reader) attend(upgrade func() error, run func() cause) {
	if r.open {
		r.leave(run())
		return
	}
	if why, ok := r.shakeHands(upgrade); !ok {
		r.leave(why)
		return
	}
	r.service.readers.Go(func() { r.leave(run()) })
}

// leave ends a connection that is read no more.
func (r *reader) leave(why cause) {
	if why == causeShutdown {
		return
	}
	if r.flow.Network != "tcp" && why != causeHandshake {
		r.hangUp(why) // TLS and WebSockets have a word for the end
	}
	r.close(why)
	if r.endpoint.config.Closed != nil && r.open {
		r.endpoint.config.Closed(r.flow)
	}
}

// begin sets the clock.
func (r *reader) begin() {
	r.opened = time.Now()
	r.now, r.active = r.opened, r.opened
}

// read reads what there is; nothing if the connection has to end.
func (r *reader) read(room []byte) (int, cause) {
	for {
		deadline, why := r.deadline()
		_ = r.conn.SetReadDeadline(earlier(deadline, r.pingAt())) // fails only when it is closed
		if why, over := r.isOver(); over {
			return 0, why
		}
		n, err := r.conn.Read(room)
		now := time.Now()
		if n > 0 {
			r.now = now
			return n, 0
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, causePeer
		}
		if why, over := r.isOver(); over {
			return 0, why
		}
		if later, _ := r.deadline(); !now.Before(later) {
			return 0, why
		} // else Keep came in the meantime, or a ping is due
		r.ping(now)
	}
}

// isOver tells whether somebody wants no more to be read, and why.
func (r *reader) isOver() (cause, bool) {
	switch {
	case r.service.ctx.Err() != nil:
		return causeShutdown, true
	case r.dismissed.Load():
		return causeDismissed, true
	}
	return 0, false
}

// deadline is until when something has to come, and what it means if nothing
// does.
func (r *reader) deadline() (time.Time, cause) {
	limits := &r.endpoint.config.Limits
	switch {
	case !r.messages:
		return r.opened.Add(limits.MessageTimeout), causeSlowSender
	case !r.began.IsZero():
		return r.began.Add(limits.MessageTimeout), causeSlowSender
	case r.pinged.After(r.now):
		return r.pinged.Add(unacknowledged), causePeer
	case r.dialled != nil:
		return r.active.Add(dialledIdle), causeIdle
	case r.kept.Load():
		return r.active.Add(limits.Idle), causeIdle
	default:
		return r.active.Add(limits.Unproven), causeIdle
	}
}

// keepAlive notes a sign of life. Only who was marked with Keep can hold a
// connection open with that.
func (r *reader) keepAlive() {
	r.endpoint.counters.keepAlives.Add(1)
	if r.kept.Load() {
		r.active = r.now
	}
}

func (r *reader) pong() {
	r.endpoint.counters.pings.Add(1)
	_ = r.send([]byte("\r\n"), r.flow.Remote) // fails only when the connection is gone
}

// patience is how long a reader waits for a worker that has too much to do.
const patience = time.Second

// hand gives a request to its worker. If that has too much to do the connection
// isn't read for a while: over TCP nobody repeats what we drop, so when patience
// ends the peer is told.
func (r *reader) hand(request *Request) {
	e := r.endpoint
	queue := e.queueFor(r.flow.Remote, r.service.queues)
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
	case <-r.service.ctx.Done():
	case now := <-timer.C:
		e.pressure.note(pressureOverflow, now)
		e.exchange(request).write(Reply{Status: 503, RetryAfter: patience})
	}
}

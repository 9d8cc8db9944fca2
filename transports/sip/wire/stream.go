package wire

import "time"

// streamReader reads a stream: a connection without frames.
type streamReader struct {
	reader
	framer   framer
	answered bool // the peer is told why the connection ends
}

// pingWithin is how far the two halves of a ping may be apart.
const pingWithin = time.Second

// run reads until the connection has to end, and tells why. causeShutdown: it
// may stay open.
func (r *streamReader) run() cause {
	defer r.framer.release(r.endpoint.budget)
	for {
		room := r.framer.room(r.endpoint.budget)
		if room == nil {
			return causeMemory
		}
		before := r.now
		n, why := r.read(room)
		if why == causeDismissed {
			r.hangUp(why)
		}
		if n == 0 {
			return why
		}
		if r.now.Sub(before) > pingWithin {
			r.framer.forgetCRLF()
		}
		r.framer.add(n)
		if !r.takeAll() {
			if r.answered {
				r.hangUp(causeMalformed)
			}
			return causeMalformed
		}
	}
}

// takeAll handles all that has come. It returns false if the connection can't
// go on.
func (r *streamReader) takeAll() bool {
	for u := r.framer.next(); u.kind != unitNone; u = r.framer.next() {
		r.began = time.Time{}
		if !r.take(&u) {
			return false
		}
	}
	if r.began.IsZero() && r.framer.inMessage() {
		r.began = time.Now()
	}
	return true
}

func (r *streamReader) take(u *unit) bool {
	switch u.kind {
	case unitMessage:
		return r.takeMessage(u)
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
func (r *streamReader) takeMessage(u *unit) bool {
	r.messages = true
	a := arrival{link: r.connection, flow: r.flow, data: u.data}
	a.request, a.response, a.refusal = u.draft.finish(u.body, r.framer.maxBody)
	if a.refusal == nil {
		r.active = r.now
	}
	if r.endpoint.receive(&a) {
		r.hand(a.request)
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

// takeKeepAlive answers a ping with a pong (RFC 5626 §4.4.1).
func (r *streamReader) takeKeepAlive(kind unitKind) {
	r.keepAlive()
	if kind == unitPing {
		r.pong()
	}
}

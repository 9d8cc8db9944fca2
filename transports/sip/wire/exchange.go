package wire

import (
	"crypto/x509"
	"runtime/debug"
	"time"
)

// Exchange is a request and the answer to it. Until Begin it is stateless: what
// is answered is forgotten and a repetition is handled like a new request. After
// Begin, retransmissions are absorbed, and answered as the request was for 32 s
// (RFC 3261 §17.2.2). What was begun is answered or abandoned once.
//
// An Exchange belongs to one goroutine at a time.
type Exchange struct {
	*Request
	endpoint *Endpoint
	key      key
	begun    bool
	done     bool
}

// Begin makes the exchange a transaction. ErrRepeated: another worker has the
// same request; nothing is to be answered. ErrFull: there are too many.
func (x *Exchange) Begin() error {
	err := x.endpoint.server.begin(x.key)
	switch err {
	case nil:
		x.begun = true
		x.owe(1)
	case ErrRepeated:
		x.endpoint.counters.retransmissions.Add(1)
	case ErrFull:
		x.endpoint.pressure.note(pressureBusy, time.Now())
	}
	return err
}

// Answer sends the final response. Only the first counts.
func (x *Exchange) Answer(reply Reply) {
	if x.done {
		return
	}
	x.done = true
	x.write(reply)
	if x.begun {
		x.owe(-1)
	}
}

// Abandon ends the exchange without a response, so that the peer's repetition
// is handled like a new request.
func (x *Exchange) Abandon() {
	if x.begun && !x.done {
		x.endpoint.server.abandon(x.key)
		x.owe(-1)
	}
	x.done = true
}

// owe counts the answers that are under way on the connection on which the
// request came.
func (x *Exchange) owe(n int32) {
	if c, ok := x.link.(*connection); ok {
		c.owed.Add(n)
	}
}

// Keep marks the connection on which the request came as one of a client that
// we know: it may be silent for Limits.Idle, and doesn't give way where there are
// too many. Over UDP it does nothing.
func (x *Exchange) Keep() {
	if c, ok := x.link.(*connection); ok && c.kept.CompareAndSwap(false, true) {
		x.endpoint.connections.keep(c)
	}
}

// Certificate is the client's, checked against Config.TLS.ClientCAs; nil if the
// connection has none.
func (x *Exchange) Certificate() *x509.Certificate {
	if c, ok := x.link.(*connection); ok {
		return c.certificate
	}
	return nil
}

// Recover is to be deferred by whoever goes on with an exchange in a goroutine
// of its own: it answers a panic with 500.
func (x *Exchange) Recover() {
	p := recover()
	if p == nil {
		return
	}
	x.endpoint.counters.panics.Add(1)
	x.endpoint.config.Log.Error("panic while handling a request", "method", x.Method, "panic", p, "stack", string(debug.Stack()))
	x.Answer(Reply{Status: 500})
}

// again answers a retransmission.
func (x *Exchange) again(o outcome, kept []byte) {
	switch {
	case o == trying:
	case kept != nil:
		x.send(kept)
	default:
		x.write(Reply{Status: o.status(), RetryAfter: o.retryAfter()})
	}
}

// write builds a response, notes it if the exchange is a transaction, and sends
// it.
func (x *Exchange) write(reply Reply) {
	b := x.endpoint.packets.Get().(*[]byte)
	defer x.endpoint.packets.Put(b)
	tag := x.endpoint.server.tag(x.key)
	packet, err := AppendReply((*b)[:0], x.Request, reply, tag)
	if err != nil {
		x.endpoint.counters.unsafe.Add(1)
		reply = Reply{Status: 500}
		packet, _ = AppendReply((*b)[:0], x.Request, reply, tag) // nothing in it is ours
	}
	if cap(packet) <= maxPooled {
		*b = packet
	}
	if x.begun {
		x.note(&reply, packet)
	}
	x.send(packet)
}

// note keeps the response for retransmissions: as little of it as possible.
func (x *Exchange) note(reply *Reply, packet []byte) {
	var whole []byte
	if !reply.isPlain() {
		whole = append(whole, packet...)
	}
	x.endpoint.server.finish(x.key, finished(reply), whole, time.Now())
}

// send writes a response. If that fails over UDP the peer repeats its request
// and gets it then; over TCP the peer has gone, and the response with it. The
// failure is counted.
func (x *Exchange) send(packet []byte) {
	f := x.Flow
	f.Remote = x.destination()
	_ = x.endpoint.send(x.link, f, x.CallID, packet)
}

package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
)

// Session is one connection between an ESME and an SMSC, of either side. What
// may be sent in which state of bind is its user's business.
//
// One goroutine reads, one writes, and one watches the clock. What they share is
// guarded by mu; a method whose name ends in Locked wants it held.
type Session struct {
	conn     net.Conn
	config   Config
	handler  Handler
	counters *Counters
	local    netip.AddrPort
	remote   netip.AddrPort
	opened   time.Time
	done     chan struct{} // closed when leaving
	over     chan struct{} // closed when ending
	finished chan struct{} // closed when Run returns

	mu       sync.Mutex
	gate     gate
	out      output
	calls    map[uint32]*call // our requests that wait for their responses, by sequence number
	idle     []*call          // to be used again
	last     uint32           // our last sequence number
	underWay int              // requests of the peer that have no answer yet
	inWindow int
	inPace   pace
	bound    bool
	heard    time.Time // when something came last
	used     time.Time // when the last request went either way that was not enquire_link
	probe    probe
	hearing  chan struct{} // closed at the next sign of the peer; nil: nobody waits for one
	nonsense int           // PDUs that made no sense, one after the other

	parting parting
	leaving bool  // no request of ours begins any more
	ending  bool  // nothing is queued any more: what is, goes out, and that's it
	closed  bool  // the connection is
	why     error // of the first who wanted it to end
}

// NewSession makes a session of a connection, which is the session's from now
// on. Run must follow.
func NewSession(conn net.Conn, c Config, h Handler) *Session {
	now := time.Now()
	s := &Session{
		conn:     conn,
		config:   c.withDefaults(),
		handler:  h,
		local:    addrPort(conn.LocalAddr()),
		remote:   addrPort(conn.RemoteAddr()),
		opened:   now,
		done:     make(chan struct{}),
		over:     make(chan struct{}),
		finished: make(chan struct{}),
		calls:    map[uint32]*call{},
		heard:    now,
		used:     now,
	}
	s.counters = s.config.Counters
	s.out.init(&s.mu)
	s.limitLocked(s.config.Limits) // nobody else knows the session yet
	return s
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

// Run reads until the session ends, and returns when nothing of it is left: no
// goroutine, no connection, no Do without an outcome. When ctx is done the
// connection is closed at once: see Unbind for a better way.
func (s *Session) Run(ctx context.Context) {
	defer close(s.finished)
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	var group sync.WaitGroup
	group.Go(s.write)
	group.Go(s.watch)
	s.end(s.read())
	group.Wait()
	s.handler.Closed(s, s.abandon())
}

// Close ends the session at once.
func (s *Session) Close() { s.end(ErrClosed) }

// Done is closed when the session takes no more requests of ours: it is about
// to end, or has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Bound tells whether a bind has succeeded. Once a request of the peer was read behind
// the response to a bind of ours, that one counts.
func (s *Session) Bound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound
}

// RemoteAddr is the peer's address; zero if the connection has none.
func (s *Session) RemoteAddr() netip.AddrPort { return s.remote }

// LocalAddr is our address; zero if the connection has none.
func (s *Session) LocalAddr() netip.AddrPort { return s.local }

// Limit changes the limits: those of an account are known after its bind.
func (s *Session) Limit(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limitLocked(l.withDefaults())
	s.advanceLocked()
}

func (s *Session) limitLocked(l Limits) {
	s.gate.window, s.inWindow = l.Window, l.InWindow
	s.gate.pace.limit(l.Rate, outBurst)
	s.inPace.limit(l.InRate, inBurst)
}

// end closes the connection. Only the first reason counts.
func (s *Session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(why)
}

func (s *Session) endLocked(why error) {
	s.finishLocked(why)
	if s.closed {
		return
	}
	s.closed = true
	s.closeLocked()
}

// closeLocked closes the connection without a good-bye of TLS, which could wait
// for the peer: who has time for one has hangUp.
func (s *Session) closeLocked() {
	if secure, ok := s.conn.(*tls.Conn); ok {
		secure.NetConn().Close()
		return
	}
	s.conn.Close()
}

// finishLocked lets what is queued go out, and no more. Only the first reason
// counts.
func (s *Session) finishLocked(why error) {
	if s.why == nil {
		s.why = why
	}
	s.leaveLocked()
	if s.ending {
		return
	}
	s.ending = true
	close(s.over)
	s.out.wakeAll()
}

// leaveLocked begins no more requests of ours.
func (s *Session) leaveLocked() {
	if s.leaving {
		return
	}
	s.leaving = true
	close(s.done)
	s.dismissLocked()
}

// Respond answers a request of the peer: once each. It never waits. b may be
// nil; where the response has a body, t is left out then (SMPP 3.4 §4.4.2). What
// b or t don't allow to be written is answered with ESME_RSYSERR.
func (s *Session) Respond(to Packet, status pdu.Status, b Body, t TLVs) {
	if isAnswerless(to.ID) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay = max(0, s.underWay-1)
	if s.ending {
		s.counters.Lost.Add(1)
		return
	}
	s.respondLocked(&to, status, b, t)
	s.settleLocked(false)
}

// Ignore ends a request of the peer without an answer, instead of Respond: nobody
// knows what became of it, and the peer is to say it again.
func (s *Session) Ignore(to Packet) {
	if isAnswerless(to.ID) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay = max(0, s.underWay-1)
	s.settleLocked(false)
}

// respondLocked queues an answer.
func (s *Session) respondLocked(to *Packet, status pdu.Status, b Body, t TLVs) {
	p := Packet{ID: ResponseTo(to.ID), Status: status, Sequence: to.Sequence, Body: b, TLVs: t}
	if b == nil && known[kindOf(p.ID)].layout != nil {
		p.TLVs = nil
	}
	if err := s.queueLocked(&p); err != nil {
		s.config.Log.Error("answer can't be written", "pdu", Name(p.ID), "error", err)
		p = Packet{ID: p.ID, Status: RSysErr, Sequence: to.Sequence}
		_ = s.queueLocked(&p) // fails only for what has a body, or an unknown command_id: those we don't answer so
	}
	if isBind(to.ID) && p.Status == ROK {
		s.bound = true
	}
}

// isAnswerless tells whether a request has no response (SMPP 3.4 §4.1.7, §4.12).
func isAnswerless(id pdu.ID) bool { return id == pdu.OutbindID || id == pdu.AlertNotificationID }

func isBind(id pdu.ID) bool {
	return id == pdu.BindReceiverID || id == pdu.BindTransmitterID || id == pdu.BindTransceiverID
}

// isPaced tells whether a request carries a message, which rates are about.
func isPaced(id pdu.ID) bool {
	switch id {
	case pdu.SubmitSMID, pdu.SubmitMultiID, pdu.DeliverSMID, pdu.DataSMID:
		return true
	}
	return false
}

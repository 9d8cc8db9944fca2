package server

import (
	"context"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// state is that of a session (SMPP 3.4 §2.2). Which of the BOUND states it is in,
// its bind says; UNBOUND is the wire's.
type state uint8

const (
	stateOpen    state = iota
	stateBinding       // its credentials are being checked
	stateBound
	stateClosed
)

// session is a connection of an ESME.
type session struct {
	door     *Door
	wire     *wire.Session
	listener *wire.Listener // nil: we have connected
	id       string         // random: sequence numbers are unique within it
	secure   bool           // TLS

	mu    sync.Mutex
	state state
	bind  atomic.Pointer[bind] // nil: it isn't bound

	greeted atomic.Bool  // its bind has been answered: messages may come to it
	sending atomic.Int64 // messages that Send has given it
	waiting chan submission
	vouched vouched
	threads wire.Threads
}

// bind is what is known of an ESME once it is bound.
type bind struct {
	systemID string
	password string // to check it again
	mode     pdu.ID // wire's request: bind_receiver, …
	version  uint8
	account  plugin.Account
	terms    terms
	ranges   string // address_range
	reach    reach
	dialect  translate.Dialect
	bound    *bound // its account's
	since    time.Time
}

// sends tells whether the ESME may submit (SMPP 3.4 §2.3).
func (b *bind) sends() bool { return b.mode != pdu.BindReceiverID }

// receives tells whether the ESME takes deliver_sm.
func (b *bind) receives() bool { return b.mode != pdu.BindTransmitterID }

// shortNames tells whether the ESME's message ids have eight characters (SMPP 3.3
// §6.2.3).
func (b *bind) shortNames() bool { return b.version < translate.Version34 }

// newSession makes a session of a connection that came to a listener, or that we have
// made ourselves.
func (d *Door) newSession(conn net.Conn, secure bool, l *wire.Listener) *session {
	s := &session{door: d, listener: l, id: message.NewPublicID(), secure: secure, waiting: make(chan submission, d.config.InWindow)}
	c := d.wire
	c.Trace = s.show
	s.wire = wire.NewSession(conn, c, s)
	return s
}

// run carries the session until it ends.
func (s *session) run(ctx context.Context) {
	var answering sync.WaitGroup
	answering.Go(s.answerAll)
	s.wire.Run(ctx)
	answering.Wait()
}

// Request is wire.Handler: it answers a request of the ESME, or sees to it that it
// will be answered.
func (s *session) Request(_ *wire.Session, p wire.Packet) {
	defer s.recover(p)
	switch p.ID {
	case pdu.BindReceiverID, pdu.BindTransmitterID, pdu.BindTransceiverID:
		s.requestBind(p)
	case pdu.OutbindID, pdu.AlertNotificationID:
		// Only an SMSC says that, and it has no answer (SMPP 3.4 §4.1.7, §4.12).
	case pdu.DeliverSMID:
		s.refuse(p, wire.RInvCmdID) // only an SMSC says that (SMPP 3.4 §4.6)
	default:
		s.ask(p)
	}
}

// ask sees to a request that only a transmitter or a transceiver may make (SMPP
// 3.4 §2.3).
func (s *session) ask(p wire.Packet) {
	b := s.bind.Load()
	if b == nil || !b.sends() {
		s.refuse(p, wire.RInvBndSts)
		return
	}
	if failure := s.door.gate.Active(); failure != nil {
		s.refuse(p, translate.StatusOf(failure))
		return
	}
	now := time.Now()
	switch p.ID {
	case pdu.SubmitSMID, pdu.DataSMID:
		s.submit(b, p, now)
	case pdu.SubmitMultiID:
		s.submitMulti(b, p, now)
	case pdu.QuerySMID, pdu.CancelSMID, pdu.ReplaceSMID:
		s.askAbout(b, p, now)
	default:
		s.refuse(p, wire.RInvCmdID)
	}
}

// Closed is wire.Handler.
func (s *session) Closed(_ *wire.Session, why error) {
	close(s.waiting)
	s.mu.Lock()
	s.state = stateClosed
	b := s.bind.Load()
	s.mu.Unlock()
	if b == nil {
		return
	}
	s.door.table.remove(s, b)
	s.door.logUnbind(s, b, why)
	if b.receives() {
		s.door.bindings.changed(b)
	}
}

// anyDestination stands for what needn't be within a session's address_range.
const anyDestination = ""

// receives tells whether a message to a destination may go over the session.
func (s *session) receives(destination string) bool {
	b := s.bind.Load()
	if b == nil || !b.receives() || !s.greeted.Load() || destination != anyDestination && !b.reach.covers(destination) {
		return false
	}
	select {
	case <-s.wire.Done():
		return false
	default:
		return true
	}
}

// recover answers a request whose handling has panicked, and goes on: it shall not
// take the node with it.
func (s *session) recover(p wire.Packet) {
	cause := recover()
	if cause == nil {
		return
	}
	s.door.log.Error("handling a request panicked", "request", wire.Name(p.ID), "peer", s.wire.RemoteAddr(), "reason", cause, "stack", string(debug.Stack()))
	s.refuse(p, wire.RSysErr)
}

// later handles a request on a goroutine of its own.
func (s *session) later(p wire.Packet, handle func()) {
	s.door.tasks.run(func() {
		defer s.recover(p)
		handle()
	})
}

// refuse answers a request with a status that isn't ESME_ROK.
func (s *session) refuse(p wire.Packet, status pdu.Status) {
	s.respond(p, status, nil, nil)
}

// respond answers a request, and counts it.
func (s *session) respond(p wire.Packet, status pdu.Status, body wire.Body, t wire.TLVs) {
	s.door.metrics.answered(p.ID, status)
	s.wire.Respond(p, status, body, t)
}

// remote is where the ESME connects from.
func (s *session) remote() netip.Addr { return s.wire.RemoteAddr().Addr() }

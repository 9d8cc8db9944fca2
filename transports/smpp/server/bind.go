package server

import (
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Deadlines of a bind.
const (
	// bindWithin is how long a connection may be without a bind that succeeded.
	bindWithin = 5 * time.Second
	// authenticateWithin bounds the check of credentials: less than bindWithin, so
	// that a bind that nobody could check is answered.
	authenticateWithin = 3 * time.Second
	// aliveWithin is how long the sessions of an account have for a sign of life when
	// another one wants to bind and there are as many as there may be.
	aliveWithin = 1500 * time.Millisecond
)

// refusal is why a bind is refused.
type refusal struct {
	status pdu.Status
	reason string // for the log
}

// requestBind begins a bind. A session has one at a time, and one in all: who
// wants another mode unbinds first.
func (s *session) requestBind(p wire.Packet) {
	s.mu.Lock()
	isOpen := s.state == stateOpen
	if isOpen {
		s.state = stateBinding
	}
	s.mu.Unlock()
	request, ok := p.Body.(*wire.Bind)
	if !isOpen || !ok {
		s.refuse(p, wire.RAlyBnd)
		return
	}
	s.later(p, func() { s.answerBind(p, request) })
}

// answerBind checks a bind and answers it. The ESME is told before a message can
// come to it.
func (s *session) answerBind(p wire.Packet, request *wire.Bind) {
	now := time.Now()
	b, why := s.door.admit(s, request, now)
	if why == nil {
		why = s.enterAfterDead(b)
	}
	if why != nil {
		s.reopen()
		s.door.logRefusal(s, request, why, now)
		s.refuse(p, why.status)
		return
	}
	s.door.logBind(s, b)
	s.limit(b)
	s.respond(p, wire.ROK, &wire.BindResp{Mode: wire.ResponseTo(p.ID), SystemID: s.door.config.SystemID}, b.greeting())
	s.greeted.Store(true)
	if b.receives() {
		s.door.bindings.changed(b)
	}
}

// greeting is what a peer of 3.4 and later is told in bind_resp (SMPP 3.4 §4.1.2).
func (b *bind) greeting() wire.TLVs {
	if b.version < translate.Version34 {
		return nil
	}
	return wire.TLVs{wire.Uint8(wire.TagScInterfaceVersion, b.version)}
}

// admit decides on a bind. Whether the system_id isn't known, the password is
// wrong, the address isn't one of the account's, or too many wrong passwords came
// from it: the answer is the same, ESME_RINVPASWD, so that nobody learns which
// accounts there are, nor that he has found a password.
func (d *Door) admit(s *session, request *wire.Bind, now time.Time) (*bind, *refusal) {
	if failure := d.gate.Active(); failure != nil {
		return nil, &refusal{translate.StatusOf(failure), string(failure.Reason)}
	}
	source := s.remote()
	if d.guard.refuses(source, request.SystemID, now) {
		return nil, &refusal{wire.RInvPaswd, "too many wrong passwords from there"}
	}
	account, why := d.authenticate(request, now)
	if why != nil && why.status == wire.RInvPaswd {
		d.guard.wrong(source, request.SystemID, now)
	}
	if why != nil {
		return nil, why
	}
	b, why := d.examine(s, request, account, now)
	if why != nil && why.status == wire.RInvPaswd {
		d.guard.wrong(source, request.SystemID, now)
		return nil, why
	}
	d.guard.right(source, request.SystemID, now)
	return b, why
}

// authenticate asks whose credentials these are.
func (d *Door) authenticate(request *wire.Bind, now time.Time) (plugin.Account, *refusal) {
	proof := &plugin.Password{SystemID: request.SystemID, Password: request.Password}
	account, err := d.gate.Authenticate(d.authenticating.Context(now), plugin.Credentials{Password: proof})
	if err == nil {
		return account, nil
	}
	failure := message.AsFailure(err)
	switch {
	case failure.Temporary:
		return account, &refusal{translate.StatusOf(failure), string(failure.Reason)}
	case failure.Reason == message.Unauthenticated:
		return account, &refusal{wire.RInvPaswd, "wrong credentials"}
	}
	return account, &refusal{wire.RBindFail, failure.Error()} // right, but suspended
}

// examine looks at what an account may do, and at what a bind asks for.
func (d *Door) examine(s *session, request *wire.Bind, account plugin.Account, now time.Time) (*bind, *refusal) {
	t, err := termsOf(account, d.config)
	if err != nil {
		return nil, &refusal{wire.RBindFail, err.Error()}
	}
	if !t.admits(s.remote()) {
		return nil, &refusal{wire.RInvPaswd, "not one of the account's networks"}
	}
	if t.tlsOnly && !s.secure {
		return nil, &refusal{wire.RBindFail, "the account must use TLS"}
	}
	if len(account.Identities) == 0 {
		return nil, &refusal{wire.RBindFail, "the account has no identities"}
	}
	r, err := parseReach(request.AddressRange.Number)
	if err != nil {
		return nil, &refusal{wire.RBindFail, err.Error()}
	}
	b := &bind{
		systemID: request.SystemID, password: request.Password,
		mode: request.Mode, version: versionOf(request.InterfaceVersion),
		account: account, terms: t, ranges: request.AddressRange.Number, reach: r, dialect: d.config.Dialect, since: now,
	}
	b.dialect.Version = b.version
	return b, nil
}

// versionOf is the version that a peer speaks, by its interface_version (SMPP 3.4
// §5.2.4): below 3.4 all is 3.3, and of what comes after 5.0 we know nothing.
func versionOf(n uint8) uint8 {
	switch {
	case n < translate.Version34:
		return translate.Version33
	case n < translate.Version50:
		return translate.Version34
	}
	return translate.Version50
}

// enterAfterDead makes a session bound, if need be in the place of one that has
// died unnoticed: an ESME that has crashed, or lost its network, shall not wait until
// that is found out.
func (s *session) enterAfterDead(b *bind) *refusal {
	why := s.enter(b)
	if why != accountIsFull || !s.door.table.anyDead(s.door.working, b.account.ID) {
		return why
	}
	return s.enter(b)
}

// enter makes a session bound, if there is room: from here on the ESME may submit,
// since it may do that as soon as it has read the answer.
func (s *session) enter(b *bind) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateClosed {
		return &refusal{wire.RSysErr, "the ESME has left before it was answered"}
	}
	if why := s.door.table.add(s, b); why != nil {
		return why
	}
	s.state = stateBound
	s.bind.Store(b)
	if s.listener != nil {
		s.listener.Know(s.wire.RemoteAddr())
	}
	return nil
}

// reopen lets the ESME try again, until bindWithin is over.
func (s *session) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateBinding {
		s.state = stateOpen
	}
}

package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// Deadlines of what waits for the disk.
const (
	// acceptWithin bounds a submission: longer than ESMEs wait.
	acceptWithin = 30 * time.Second
	// inTurn is how long one submission may hold up the answers to those behind it,
	// or up to a second longer.
	inTurn = 100 * time.Millisecond
)

// submission is a request whose messages are being decided upon.
type submission struct {
	id       pdu.ID // of the request
	sequence uint32
	ticket   plugin.Ticket
	multi    *multi // instead of ticket, of submit_multi
}

// request is as much of it as who answers needs.
func (w *submission) request() wire.Packet { return wire.Packet{ID: w.id, Sequence: w.sequence} }

// hops is how many more hops a message from an ESME may take: SMPP has no such
// count, so it is what SIP begins with (RFC 3261 §8.1.1.6).
const hops = 70

// submit takes in a submit_sm or data_sm. It runs on the reader's goroutine, so
// that messages are submitted in the order in which they came.
//
// replace_if_present_flag is ignored (SMPP 3.4 §5.2.18): to find what it would
// replace takes a look at all that waits, and to replace that and to take this
// one in would be two steps, of which one may fail. The recipient gets both.
func (s *session) submit(b *bind, p wire.Packet, now time.Time) {
	if !b.bound.rate.take(1, b.terms.rate, now) {
		s.refuse(p, wire.RThrottled)
		return
	}
	if short, ok := p.Body.(*wire.Short); ok && short.Source.Number == "" {
		short.Source = b.usual()
	}
	in, err := b.dialect.Incoming(p, now)
	if err != nil {
		s.refuse(p, statusOfError(err))
		return
	}
	ticket, status := s.handIn(b, p, &in, 0, now)
	if ticket == nil {
		s.refuse(p, status)
		return
	}
	s.await(submission{id: p.ID, sequence: p.Sequence, ticket: ticket})
}

// await has a submission answered once it is decided. There is room: the wire
// lets in no more requests than that.
func (s *session) await(w submission) { s.waiting <- w }

// statusOfError is what an error of translate says to the peer.
func statusOfError(err error) pdu.Status {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Status
	}
	return wire.RSysErr
}

// handIn submits a message, or a part of one: the number-th of a request. nil: the
// request is to be refused with the status.
func (s *session) handIn(b *bind, p wire.Packet, in *translate.Incoming, number int, now time.Time) (plugin.Ticket, pdu.Status) {
	m := in.Message
	if m == nil {
		return nil, wire.RInvEsmClass // a delivery receipt: only an SMSC says that (SMPP 3.4 §5.2.12)
	}
	account, ok := s.vouched.of(b, m.From)
	if !ok {
		return nil, wire.RInvSrcAdr
	}
	m.Received, m.Transport, m.Peer, m.Hops = now, s.door.instance, b.systemID, hops
	return s.door.gate.Submit(plugin.Arrival{
		Message: m, Account: account, Key: s.key(b, p, number), Call: s.call(false, p.Sequence),
		ShortName: b.shortNames(), Part: in.Part,
	}), wire.ROK
}

// vouched is the sender that an ESME last sent from, with the account that vouches
// for it: most use few. Only the reader's goroutine touches it.
type vouched struct {
	by      *bind
	from    message.Address
	account plugin.Account
}

func (v *vouched) of(b *bind, from message.Address) (plugin.Account, bool) {
	if v.by == b && v.from == from {
		return v.account, true
	}
	account, ok := b.terms.vouch(b.account, from)
	if ok {
		*v = vouched{b, from, account}
	}
	return account, ok
}

// usual is the source address of an ESME that gives none.
func (b *bind) usual() wire.Address {
	user := usualSender(b.account).User
	digits, international := strings.CutPrefix(user, "+")
	switch {
	case strings.Trim(digits, "0123456789") != "":
		return wire.Address{TON: 5, NPI: 0, Number: user}
	case international:
		return wire.Address{TON: 1, NPI: 1, Number: digits}
	default:
		return wire.Address{TON: 0, NPI: 1, Number: digits}
	}
}

// key is the same when an ESME repeats a request on its connection, and differs
// when it says something new.
func (s *session) key(b *bind, p wire.Packet, number int) string {
	h := sha256.New()
	head := make([]byte, 0, 512)
	head = append(append(head, s.id...), b.account.ID...)
	head = binary.BigEndian.AppendUint32(head, uint32(number))
	whole, err := wire.Encode(head, &p)
	if err != nil {
		// It has been decoded; what can't be written again is known by its number.
		whole = binary.BigEndian.AppendUint32(head, p.Sequence)
	}
	h.Write(whole)
	return base64.RawURLEncoding.EncodeToString(h.Sum(head[:0])[:18])
}

// call names an exchange for traces, begun by us or by the ESME.
func (s *session) call(ours bool, sequence uint32) string {
	name := make([]byte, 0, 40)
	name = append(name, s.id...)
	if ours {
		name = append(name, "-out"...)
	}
	return string(strconv.AppendUint(append(name, '-'), uint64(sequence), 10))
}

// answerAll answers submissions in their order. That the committer writes in the
// same order makes it cheap: one goroutine wakes up for all that one write has
// accepted. What takes longer is waited for elsewhere.
func (s *session) answerAll() {
	for w := range s.waiting {
		if s.answer(s.door.inTurn.Context(time.Now()), &w) {
			continue
		}
		s.later(w.request(), func() { s.answerLate(&w) })
	}
}

// answerLate waits as long as there is any hope.
func (s *session) answerLate(w *submission) {
	if !s.answer(s.door.accepting.Context(time.Now()), w) {
		s.wire.Ignore(w.request())
	}
}

// answer answers a submission. It returns false if that isn't decided, and ctx
// has ended.
func (s *session) answer(ctx context.Context, w *submission) (decided bool) {
	decided = true // also if it panics
	defer s.recover(w.request())
	if w.multi != nil {
		return s.answerMulti(ctx, w)
	}
	answer, err := w.ticket.Accepted(ctx)
	switch {
	case err == nil:
		s.respond(w.request(), wire.ROK, &wire.ShortResp{Of: wire.ResponseTo(w.id), MessageID: translate.MessageID(answer.PublicID)}, nil)
	case !errors.Is(err, plugin.ErrUnknown):
		s.refuse(w.request(), translate.StatusOf(message.AsFailure(err)))
	case ctx.Err() != nil:
		return false
	default:
		s.wire.Ignore(w.request()) // it may have been kept: the ESME repeats it, and is told then
	}
	return true
}

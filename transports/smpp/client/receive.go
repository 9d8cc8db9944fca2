package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdutlv"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// A receipt may overtake the response that it is about, or come before the
// engine has noted that one: it is tried again for a while before the SMSC is
// asked to say it again, which not every SMSC does soon.
const (
	firstReport  = 50 * time.Millisecond // the first pause; each is twice the one before
	reportWithin = 2 * time.Second
)

// hops is how many hops a message may take that comes without a count: what SIP
// recommends (RFC 3261 §8.1.1.6).
const hops = 70

// arrived is a message of the SMSC that waits to be accepted.
type arrived struct {
	packet wire.Packet
	ticket plugin.Ticket
}

// Request takes what the SMSC sends. It is wire.Handler.
func (b *bind) Request(_ *wire.Session, p wire.Packet) {
	defer b.recover(p)
	switch p.ID {
	case pdu.DeliverSMID, pdu.DataSMID:
		b.receive(p, time.Now())
	case pdu.OutbindID:
		if o, ok := p.Body.(*wire.Outbind); ok {
			b.invite(o)
		}
	case pdu.AlertNotificationID: // has no answer, and we have asked for none
	default:
		b.session.Respond(p, wire.RInvBndSts, nil, nil) // not for an ESME (SMPP 3.4 §2.3)
	}
}

// recover answers a request whose handling has panicked, and goes on: an SMSC repeats
// it, and shall not take one node after the other with it.
func (b *bind) recover(p wire.Packet) {
	cause := recover()
	if cause == nil {
		return
	}
	b.client.log.Error("handling a request panicked", "request", wire.Name(p.ID), "peer", b.session.RemoteAddr(), "reason", cause, "stack", string(debug.Stack()))
	b.refuse(p, wire.RxPAppn)
}

// Closed notes the end. It is wire.Handler.
func (b *bind) Closed(_ *wire.Session, why error) {
	b.why = why
	close(b.tickets)
}

// receive hands in a message, or passes on a receipt.
func (b *bind) receive(p wire.Packet, now time.Time) {
	c := b.client
	if !b.session.Bound() {
		b.refuse(p, wire.RInvBndSts) // who has connected to us may not be our SMSC
		return
	}
	if c.gate.Active() != nil {
		b.refuse(p, wire.RxTAppn)
		return
	}
	in, err := c.config.Dialect.Incoming(p, now)
	switch {
	case err != nil:
		b.refuse(p, statusOf(err))
	case in.Receipt != nil:
		b.report(p, in.Receipt)
	default:
		c.metrics.delivered[deliveredMessage].Inc()
		b.tickets <- arrived{p, c.gate.Submit(b.arrival(p, in, now))} // has room: see inWindow
	}
}

func statusOf(err error) pdu.Status {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Status
	}
	return wire.RSysErr
}

// arrival is a message as the engine gets it. We vouch for its sender: whose
// number it is, the SMSC knows.
func (b *bind) arrival(p wire.Packet, in translate.Incoming, now time.Time) plugin.Arrival {
	c, m := b.client, in.Message
	m.Received, m.Transport, m.Peer, m.Hops = now, c.instance, b.session.RemoteAddr().Addr().String(), hops
	m.Report = message.ReportNothing // an SMSC gets no receipts
	return plugin.Arrival{
		Message: m,
		Account: plugin.Account{ID: c.config.Account, Identities: []message.Address{m.From}},
		Key:     b.key(p),
		Call:    b.call(false, p.Sequence),
		Part:    in.Part,
	}
}

// key is the same when the SMSC repeats a PDU on this connection, and differs for
// any other.
func (b *bind) key(p wire.Packet) string {
	h := sha256.New()
	if short, ok := p.Body.(*wire.Short); ok {
		for _, field := range []string{short.Source.Number, short.Destination.Number} {
			h.Write(binary.AppendUvarint(nil, uint64(len(field))))
			h.Write([]byte(field))
		}
		h.Write([]byte{short.ESMClass, short.DataCoding})
		h.Write(short.Text)
	}
	payload, _ := p.TLVs.Get(pdutlv.TagMessagePayload)
	h.Write(payload)
	return fmt.Sprintf("%s %s %d %s", b.client.instance, b.name, p.Sequence, base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12]))
}

// answerAll answers messages in the order of their arrival, each once it is ours.
func (b *bind) answerAll() {
	for a := range b.tickets {
		_, err := a.ticket.Accepted(b.accepting.Context(time.Now()))
		switch {
		case err == nil:
			b.answer(a.packet, wire.ROK)
		case errors.Is(err, plugin.ErrUnknown):
			b.session.Ignore(a.packet) // it may have been kept: the SMSC says it again
		default:
			b.refuse(a.packet, refusalOf(message.AsFailure(err)))
		}
	}
}

// refusalOf is the answer to a message that we don't take. What is wrong with this
// node passes, and says nothing of the message.
func refusalOf(f *message.Failure) pdu.Status {
	if f.Reason.OfNode() {
		return wire.RxTAppn
	}
	return translate.StatusOf(f)
}

func (b *bind) refuse(p wire.Packet, status pdu.Status) {
	b.client.metrics.refused.Inc()
	b.answer(p, status)
}

// answer answers a deliver_sm or data_sm; message_id is not used there (SMPP 3.4
// §4.6.2).
func (b *bind) answer(p wire.Packet, status pdu.Status) {
	b.session.Respond(p, status, &wire.ShortResp{Of: wire.ResponseTo(p.ID)}, nil)
}

// report passes a receipt on. That a message is on its way is no end, and of no
// interest.
func (b *bind) report(p wire.Packet, r *translate.Receipt) {
	if !r.Final {
		b.client.metrics.delivered[deliveredState].Inc()
		b.answer(p, wire.ROK)
		return
	}
	b.client.metrics.delivered[deliveredReceipt].Inc()
	ctx := b.accepting.Context(time.Now())
	b.client.reporters.run(func() {
		defer b.recover(p)
		err := b.client.gate.Report(ctx, r.MessageID, r.Status)
		if isEarly(err) {
			err = b.reportAgain(ctx, r, err)
		}
		if err != nil {
			b.refuse(p, refusalOfReport(err))
			return
		}
		b.answer(p, wire.ROK)
	})
}

func isEarly(err error) bool { return err != nil && message.AsFailure(err).Temporary }

// refusalOfReport: a receipt that can't be kept for now is to come again.
func refusalOfReport(err error) pdu.Status {
	if f := message.AsFailure(err); !f.Temporary {
		return translate.StatusOf(f)
	}
	return wire.RxTAppn
}

// reportAgain says for a while what the engine has refused because it may not know yet
// what it is about.
func (b *bind) reportAgain(ctx context.Context, r *translate.Receipt, refused error) error {
	if !b.patience.take(time.Now()) {
		return refused
	}
	gate := b.client.gate
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	for wait := firstReport; ; wait *= 2 {
		if !pause(ctx, wait) {
			return message.FailForNow(message.Unavailable, "nobody waits for it yet")
		}
		if inactive := gate.Active(); inactive != nil {
			return inactive
		}
		if err := gate.Report(ctx, r.MessageID, r.Status); !isEarly(err) {
			b.patience.rewarded()
			return err
		}
	}
}

package server

import (
	"context"
	"errors"
	"time"

	"github.com/fiorix/go-smpp/smpp/pdu"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/text"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// askAbout takes in what answerAbout answers. It counts like a submission: it costs us
// no less.
func (s *session) askAbout(b *bind, p wire.Packet, now time.Time) {
	if !b.bound.rate.take(1, b.terms.rate, now) {
		s.refuse(p, wire.RThrottled)
		return
	}
	s.later(p, func() { s.answerAbout(b, p, now) })
}

// answerAbout answers a question about a message that was submitted before, or a
// change to it.
func (s *session) answerAbout(b *bind, p wire.Packet, now time.Time) {
	ctx := s.door.accepting.Context(now)
	var response wire.Body
	var err error
	switch body := p.Body.(type) {
	case *wire.Query:
		response, err = s.query(ctx, b, body, now)
	case *wire.Cancel:
		err = s.cancel(ctx, b, body, now)
	case *wire.Replace:
		err = s.replace(ctx, b, p, body, now)
	default:
		err = &wire.Error{Status: wire.RSysErr, Reason: "no body"}
	}
	switch {
	case err == nil:
		s.respond(p, wire.ROK, response, nil)
	case errors.Is(err, plugin.ErrUnknown):
		s.wire.Ignore(p)
	default:
		s.refuse(p, statusAbout(p.ID, err))
	}
}

func statusAbout(of pdu.ID, err error) pdu.Status {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Status
	}
	return translate.StatusIn(of, message.AsFailure(err))
}

// query is query_sm (SMPP 3.4 §4.8).
func (s *session) query(ctx context.Context, b *bind, q *wire.Query, now time.Time) (*wire.QueryResp, error) {
	found, err := s.find(ctx, b, q.MessageID, q.Source, now)
	if err != nil {
		return nil, err
	}
	response := &wire.QueryResp{MessageID: q.MessageID, State: stateOf(found, b.version)}
	if !found.Ended.IsZero() {
		response.FinalDate = text.FormatAbsolute(found.Ended)
	}
	return response, nil
}

// stateOf is the message_state of a message (SMPP 3.4 §5.2.28, 5.0 §4.7.15). What
// the next hop has, and what may have got there, is still on its way.
func stateOf(found plugin.Submitted, version uint8) uint8 {
	switch found.State {
	case plugin.SubmittedScheduled:
		if version >= translate.Version50 {
			return wire.StateScheduled
		}
	case plugin.SubmittedDelivered:
		return wire.StateDelivered
	case plugin.SubmittedDiscarded:
		return wire.StateDeleted
	case plugin.SubmittedFailed:
		return uint8(translate.FailedState(found.Reason))
	}
	return wire.StateEnroute
}

// find finds a message of the account. If the request names its source address,
// it must be the one that the message had (SMPP 3.4 §4.8.1, §4.9.1, §4.10.1).
func (s *session) find(ctx context.Context, b *bind, name string, source wire.Address, now time.Time) (plugin.Submitted, error) {
	if name == "" {
		return plugin.Submitted{}, message.Fail(message.UnknownMessage, "no message_id")
	}
	found, err := s.door.gate.Find(ctx, b.account.ID, translate.PublicID(name))
	if err != nil || source.Number == "" {
		return found, err
	}
	like, err := b.read(wire.Packet{}, &wire.Short{Source: source, Destination: anyNumber}, now)
	if err != nil {
		return found, err
	}
	if like.From != found.From {
		return found, message.Fail(message.Conflict, "another source address")
	}
	return found, nil
}

// anyNumber stands where a request has no destination.
var anyNumber = wire.Address{TON: 1, NPI: 1, Number: "15550100"}

// read reads what a request says of a message as if it were submitted.
func (b *bind) read(p wire.Packet, as *wire.Short, now time.Time) (*message.Message, error) {
	as.Of = pdu.SubmitSMID
	p.ID, p.Body = as.Of, as
	in, err := b.dialect.Incoming(p, now)
	if err != nil {
		return nil, err
	}
	return in.Message, nil
}

// cancel is cancel_sm (SMPP 3.4 §4.9): of one message by its name, or of all that
// wait from a source to a destination. service_type makes no difference here.
func (s *session) cancel(ctx context.Context, b *bind, c *wire.Cancel, now time.Time) error {
	if c.MessageID != "" {
		if _, err := s.find(ctx, b, c.MessageID, c.Source, now); err != nil {
			return err
		}
		_, err := s.door.gate.Cancel(ctx, b.account.ID, plugin.Which{PublicID: translate.PublicID(c.MessageID)})
		return err
	}
	if c.Source.Number == "" {
		c.Source = b.usual()
	}
	like, err := b.read(wire.Packet{}, &wire.Short{Source: c.Source, Destination: c.Destination}, now)
	if err != nil {
		return err
	}
	_, err = s.door.gate.Cancel(ctx, b.account.ID, plugin.Which{From: like.From, Recipient: like.Recipient})
	if f, ok := errors.AsType[*message.Failure](err); ok && f.Reason == message.UnknownMessage {
		return &wire.Error{Status: wire.RCancelFail, Reason: "nothing waits"} // no message_id was wrong
	}
	return err
}

// replace is replace_sm (SMPP 3.4 §4.10). It says nothing of data_coding: the text
// is in the default alphabet. Without a text, the old one stays.
func (s *session) replace(ctx context.Context, b *bind, p wire.Packet, r *wire.Replace, now time.Time) error {
	found, err := s.find(ctx, b, r.MessageID, r.Source, now)
	if err != nil {
		return err
	}
	like, err := b.read(p, &wire.Short{
		Source: b.usual(), Destination: anyNumber,
		ScheduleTime: r.ScheduleTime, ValidityPeriod: r.ValidityPeriod, DefaultMessageID: r.DefaultMessageID,
		RegisteredDelivery: r.RegisteredDelivery, Text: r.Text,
	}, now)
	if err != nil {
		return err
	}
	account, ok := b.terms.vouch(b.account, found.From)
	if !ok {
		return &wire.Error{Status: wire.RInvSrcAdr, Reason: "the account may not send from there any more"}
	}
	by := plugin.Replacement{Account: account, From: found.From, Expires: like.Expires, Report: &like.Report}
	if len(like.Body) > 0 {
		by.ContentType, by.Body = like.ContentType, like.Body
	}
	if !like.NotBefore.IsZero() {
		by.NotBefore = &like.NotBefore
	}
	return s.door.gate.Replace(ctx, b.account.ID, translate.PublicID(r.MessageID), by)
}

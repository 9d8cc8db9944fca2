package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/smpp/translate"
	"github.com/imgate/imgate/transports/smpp/wire"
)

// multi is a submit_multi under way: one message for each recipient (SMPP 3.4
// §4.5). The response has room for one message_id: that of the first message
// that was accepted. query_sm, cancel_sm and replace_sm of that name concern this
// one alone; the others are cancelled by source and destination.
type multi struct {
	tickets      []plugin.Ticket
	destinations []wire.Address // of the tickets
	failed       []wire.Failed
}

// submitMulti takes in a submit_multi.
func (s *session) submitMulti(b *bind, p wire.Packet, now time.Time) {
	body, ok := p.Body.(*wire.Multi)
	if !ok {
		s.refuse(p, wire.RSysErr)
		return
	}
	if len(body.Lists) > 0 {
		s.refuse(p, wire.RCntSubDL) // there are none here
		return
	}
	if len(body.Destinations) == 0 {
		s.refuse(p, wire.RInvNumDests)
		return
	}
	if !b.bound.rate.take(len(body.Destinations), b.terms.rate, now) {
		s.refuse(p, wire.RThrottled)
		return
	}
	if body.Source.Number == "" {
		body.Source = b.usual()
	}
	messages, failed, err := b.dialect.IncomingMulti(p, now)
	if err != nil {
		s.refuse(p, statusOfError(err))
		return
	}
	w := &multi{failed: failed}
	for i, destination := range without(body.Destinations, failed) {
		ticket, status := s.handIn(b, p, &messages[i], i+1, now)
		if ticket == nil {
			w.failed = append(w.failed, wire.Failed{Address: destination, Status: status})
			continue
		}
		w.tickets, w.destinations = append(w.tickets, ticket), append(w.destinations, destination)
	}
	s.await(submission{id: p.ID, sequence: p.Sequence, multi: w})
}

// without returns the destinations that haven't failed yet. Both are in the order
// of the request.
func without(all []wire.Address, failed []wire.Failed) []wire.Address {
	left := make([]wire.Address, 0, len(all))
	for _, destination := range all {
		if len(failed) > 0 && failed[0].Address == destination {
			failed = failed[1:]
			continue
		}
		left = append(left, destination)
	}
	return left
}

// answerMulti is answer for a submit_multi. If no message at all is ours, the
// status is that of the first one, and there is no list.
func (s *session) answerMulti(ctx context.Context, w *submission) bool {
	response, isOurs := &wire.MultiResp{Failed: slices.Clip(w.multi.failed)}, false
	for i, ticket := range w.multi.tickets {
		answer, err := ticket.Accepted(ctx)
		switch {
		case err == nil && !isOurs:
			response.MessageID, isOurs = translate.MessageID(answer.PublicID), true
		case err == nil:
		case !errors.Is(err, plugin.ErrUnknown):
			status := translate.StatusOf(message.AsFailure(err))
			response.Failed = append(response.Failed, wire.Failed{Address: w.multi.destinations[i], Status: status})
		case ctx.Err() != nil:
			return false
		default:
			s.wire.Ignore(w.request()) // some may have been kept: the repeat joins them
			return true
		}
	}
	if !isOurs {
		s.refuse(w.request(), response.Failed[0].Status)
		return true
	}
	s.respond(w.request(), wire.ROK, response, nil)
	return true
}

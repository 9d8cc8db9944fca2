package pipeline

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// predecessor is a message that waited and whose place another one is to take.
// Until that is decided it is in no lane.
type predecessor struct {
	it *item
	e  *spool.Entry
}

// Replace puts another message in the place of one that waits. The end of the one
// and the other are one transaction; if the other is refused, the first goes back
// to its lane. See plugin.Gate.
func (p *Pipeline) Replace(ctx context.Context, transport, account, publicID string, by plugin.Replacement) error {
	now := time.Now()
	v, err := p.submitted(ctx, account, publicID)
	if err != nil {
		return err
	}
	e, err := p.waiting(ctx, v.ID)
	if err != nil {
		return toSubmitter(err)
	}
	a := plugin.Arrival{Message: successor(e, by, now), Account: by.Account}
	p.meter.doors[transport].received.Inc()
	examine(a.Message)
	if f := p.replaceable(e, a, by.From, account, now); f != nil {
		p.refused(refusedMessages, transport, now, f, "transport", transport, "peer", e.Message.Peer)
		return f
	}
	it := p.lanes.takeOut(e, unsentInLane)
	if it == nil {
		return toSubmitter(p.conflict(v.ID))
	}
	j := job{Arrival: a, ticket: newTicket(), replaces: &predecessor{it, e}}
	p.receive(now, transport, j)
	p.enqueue(j)
	_, err = j.ticket.Accepted(ctx)
	return err
}

// successor is what takes the place of a message.
func successor(e *spool.Entry, by plugin.Replacement, now time.Time) *message.Message {
	m := *e.Message
	if by.ContentType != "" {
		m.ContentType = by.ContentType
	}
	if by.Body != nil {
		m.Body, m.Missing = by.Body, 0
	}
	if by.NotBefore != nil {
		m.NotBefore = *by.NotBefore
	}
	if by.Report != nil {
		m.Report = *by.Report
	}
	switch {
	case by.Expires != nil:
		m.Expires = by.Expires
	case m.Expires != nil: // when its life ends stays as it was
		left := *m.Expires - now.Sub(m.Received)
		m.Expires = &left
	}
	return &m
}

// replaceable refuses what needs no decision.
func (p *Pipeline) replaceable(e *spool.Entry, a plugin.Arrival, from message.Address, account string, now time.Time) *message.Failure {
	switch {
	case a.Account.ID != account:
		return message.Fail(message.Forbidden, "account %s asks for account %s", a.Account.ID, account)
	case !from.IsZero() && from != e.Message.From:
		return message.Fail(message.UnknownMessage, "it isn't from %s", from)
	case !e.Expiry.After(now):
		return message.Fail(message.Conflict, "its life is over")
	case a.Message.Class == message.Composing:
		return message.Fail(message.UnsupportedType, "what waits isn't replaced by a typing notice")
	}
	return p.admit(a)
}

// putInPlace puts a message in the place of another. It isn't refused any more, nor
// taken back: that would leave neither.
func (p *Pipeline) putInPlace(old *predecessor, e *spool.Entry, with spool.With, done func(error)) error {
	rows, err := spool.Rows(e, with)
	if err != nil {
		return err
	}
	p.replaced(old, rows, done)
	return nil
}

// discardInPlace throws a message away, as the policy wants, that was to take the
// place of another.
func (p *Pipeline) discardInPlace(j job, it *item, e *spool.Entry, x ending, answer plugin.Answer) {
	p.noteEnd(e, &x)
	ended := summary(it, e, &x, nil)
	p.replaced(j.replaces, append(x.also, ended.Row()), func(err error) {
		if err != nil {
			j.ticket.refuse(message.AsFailure(err))
			return
		}
		j.ticket.accept(answer)
		j.ticket.resolve(x.outcome())
	})
}

// replaced ends a message in one transaction with what takes its place. An error
// that done gets: this node is no longer the active one, and the next finds out.
func (p *Pipeline) replaced(old *predecessor, by []plugin.Change, done func(error)) {
	x := ending{state: spool.StateFailed, failure: &message.Failure{Reason: message.Cancelled}, also: by, replaced: true}
	p.undelivered(old.it, old.e, x, func(err error) {
		if err != nil {
			err = message.FailForNow(message.StorageDown, "%w: %w", err, plugin.ErrUnknown)
		}
		done(err)
	})
}

package pipeline

import (
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

const (
	// receiptLife is how long a receipt waits for whom it is for.
	receiptLife = 72 * time.Hour
	// firstHops is what a message of ours begins with (RFC 3261 §8.1.1.6).
	firstHops = 70
)

// receiptStates are the ends of which a sender may be told. What a policy discards
// ends in silence.
var receiptStates = map[spool.StateName]message.ReceiptState{
	spool.StateDelivered: message.ReceiptDelivered, spool.StateFailed: message.ReceiptFailed,
	spool.StateHandedOver: message.ReceiptUnknown,
}

// isOurs tells a message that we have made: a receipt, or a notification.
func isOurs(m *message.Message) bool { return m.Transport == "" }

// receipt is the message that tells a sender how another one has ended; nil: it
// isn't to be told. No policy is asked: it goes the way that its message came, to
// whoever is there of the account that handed that in, and costs nothing. One of
// ours has no Report, so there is none of it.
func (p *Pipeline) receipt(it *item, e *spool.Entry, x *ending) *spool.Entry {
	m := e.Message
	if m.Report == message.ReportNothing || x.replaced || e.Submitter == "" {
		return nil
	}
	state, told := receiptStates[x.state]
	if !told || !m.Report.Wants(state) {
		return nil
	}
	back := &spool.Entry{
		Message: &message.Message{From: m.Recipient, Recipient: m.From, Received: x.at, Trace: m.Trace},
		Account: e.Submitter, Plan: plugin.DefaultPlan(),
	}
	if !asks(m) {
		report(back, m, state, x)
	} else if !p.notify(back, it, e, state, x) {
		return nil
	}
	if f := p.crowded(back); f != nil {
		p.refused(refusedReceipts, m.Transport, x.at, f, "transport", m.Transport, "id", m.ID)
		return nil
	}
	back.Message.ID = p.ids.New(x.at)
	back.Message.PublicID = p.names.Of(back.Message.ID)
	return back
}

// asks tells whether a message is a message/cpim whose sender wants notifications.
func asks(m *message.Message) bool {
	return content.Examine(m.ContentType, m.Body).Wants != message.ReportNothing
}

// report makes what goes back a receipt of a message, for doors whose protocol has
// such.
func report(back *spool.Entry, m *message.Message, state message.ReceiptState, x *ending) {
	r := &message.Receipt{PublicID: m.PublicID, State: state, Submitted: m.Received, Done: x.at}
	if state == message.ReceiptFailed {
		r.Reason = x.reason()
	}
	back.Message.ContentType, back.Message.Receipt = message.TypeReceipt, r
	back.Expiry, back.Plan.Transports = x.at.Add(receiptLife), []string{m.Transport}
}

// notify makes what goes back a notification of a message/cpim that asks for it
// (RFC 5438); false: somebody else tells its sender, or nobody can. Of its
// delivery tells the client that got it as it is, and of its failure the answer to
// its request, if that is still to come.
func (p *Pipeline) notify(back *spool.Entry, it *item, e *spool.Entry, state message.ReceiptState, x *ending) (ok bool) {
	if state == message.ReceiptFailed && it.beingAnswered(e, x.at) || state != message.ReceiptFailed && !x.unwrapped {
		return false
	}
	from, r := e.Message.Transport, back.Message
	if e.Submitter == from { // somebody for whom the instance vouches: only one that leads outside leads back
		back.Account = ""
		if !p.leadsOutside(from) {
			return false
		}
	}
	r.ContentType, r.Body, ok = content.Notify(e.Message.Body, state, x.at)
	r.Class, r.Hops = message.Notification, firstHops
	back.Expiry, back.Plan.Transports = x.at.Add(p.bounds.Load().notifications), p.likeDoor(from)
	return ok
}

// beingAnswered tells whether a sender still waits for the first outcome.
func (it *item) beingAnswered(e *spool.Entry, now time.Time) bool {
	return it.ticket != nil && !it.ticket.resolved.Load() && now.Sub(e.Message.Received) < within(e)
}

// likeDoor names an instance and, if devices register there, the others of its
// protocol: the sender's may be at any of them.
func (p *Pipeline) likeDoor(instance string) []string {
	door, all := p.Doors[instance], []string{instance}
	for _, name := range p.instances {
		if other := p.Doors[name]; name != instance && door.Registrar && other.Registrar && other.Protocol == door.Protocol {
			all = append(all, name)
		}
	}
	return all
}

// crowded tells whether no more of these may wait for their recipient. Otherwise
// one that never asks for them would fill the spool.
func (p *Pipeline) crowded(back *spool.Entry) *message.Failure {
	name := recipientName(back.Account, back.Message.Recipient)
	if _, forThem := p.lanes.counted(name); forThem >= p.bounds.Load().PerRecipient {
		return message.FailForNow(message.LimitReached, "%d messages wait for %s already", forThem, name)
	}
	return nil
}

// sendWhenMoved sends a receipt, which may be nil, once it is on disk. done, which
// may be nil, is told as well.
func (p *Pipeline) sendWhenMoved(receipt *spool.Entry, done func(error)) func(error) {
	if receipt == nil {
		return done
	}
	return func(err error) {
		if err == nil {
			p.sendReceipt(receipt)
		}
		if done != nil {
			done(err)
		}
	}
}

// sendReceipt puts a receipt into its lane.
func (p *Pipeline) sendReceipt(e *spool.Entry) {
	p.tell(plugin.Step{Name: plugin.StepStored, Message: e.Message, Began: e.Message.Received})
	if rests := p.lanes.add(p.newItem(e, nil, spool.State{})); rests {
		p.tell(plugin.Step{Name: plugin.StepWaiting, Message: e.Message})
	}
}

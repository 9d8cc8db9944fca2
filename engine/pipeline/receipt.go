package pipeline

import (
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// receiptLife is how long a receipt waits for whom it is for.
const receiptLife = 72 * time.Hour

// receiptStates are the ends of which a sender may be told. What a policy discards
// ends in silence.
var receiptStates = map[spool.StateName]message.ReceiptState{
	spool.StateDelivered: message.ReceiptDelivered, spool.StateFailed: message.ReceiptFailed,
	spool.StateHandedOver: message.ReceiptUnknown,
}

// receipt is the message that tells a sender how another one has ended; nil: it
// isn't to be told. A receipt itself has no Report, so there is none of a receipt.
func (p *Pipeline) receipt(e *spool.Entry, x *ending) *spool.Entry {
	m := e.Message
	if m.Report == message.ReportNothing || x.replaced || e.Submitter == "" {
		return nil
	}
	state, told := receiptStates[x.state]
	if !told || !m.Report.Wants(state) {
		return nil
	}
	if f := p.crowded(e.Submitter); f != nil {
		p.refused(refusedReceipts, m.Transport, x.at, f, "transport", m.Transport, "id", m.ID)
		return nil
	}
	about := &message.Receipt{PublicID: m.PublicID, State: state, Submitted: m.Received, Done: x.at}
	if state == message.ReceiptFailed {
		about.Reason = x.reason()
	}
	id := p.ids.New(x.at)
	return &spool.Entry{
		Message: &message.Message{
			ID: id, PublicID: p.names.Of(id), Received: x.at, From: m.Recipient, Recipient: m.From,
			ContentType: message.TypeReceipt, Receipt: about, Trace: m.Trace,
		},
		Account: e.Submitter, Expiry: x.at.Add(receiptLife), Plan: receiptPlan(m.Transport),
	}
}

// receiptPlan is what no policy is asked: a receipt goes the way its message came,
// to whoever is there of the account that handed that in, and costs nothing.
func receiptPlan(transport string) plugin.Plan {
	plan := plugin.DefaultPlan()
	plan.Transports = []string{transport}
	return plan
}

// crowded tells whether no more receipts may wait for an account. Otherwise one
// that never asks for them would fill the spool.
func (p *Pipeline) crowded(account string) *message.Failure {
	if _, forThem := p.lanes.counted(account); forThem >= p.bounds.Load().PerRecipient {
		return message.FailForNow(message.LimitReached, "%d messages wait for account %s already", forThem, account)
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

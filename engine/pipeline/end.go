package pipeline

import (
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// ending is how a message ends.
type ending struct {
	state     spool.StateName
	failure   *message.Failure // why, if it failed
	transport string           // that it went through; empty: it didn't get that far
	results   []result         // of the last attempt
	at        time.Time
	charge    *plugin.Record  // nil: nothing is to be settled
	replaced  bool            // another message takes its place, and goes on under its name
	unwrapped bool            // who has it, or may have it, got no message/cpim but the text in it
	also      []plugin.Change // that go with it
}

// outcome is what its sender is told.
func (x *ending) outcome() plugin.Outcome {
	switch x.state {
	case spool.StateFailed:
		return plugin.Outcome{State: plugin.OutcomeFailed, Failure: x.failure}
	case spool.StateDiscarded:
		return plugin.Outcome{State: plugin.OutcomeWaiting}
	}
	return plugin.Outcome{State: plugin.OutcomeDelivered}
}

func (x *ending) reason() message.Reason {
	if x.failure == nil {
		return ""
	}
	return x.failure.Reason
}

// delivered ends a message that a device, or the next hop, has taken.
func (p *Pipeline) delivered(l *lane, t turn, e *spool.Entry, by result, results []result) {
	it, now := t.it, time.Now()
	if !isOurs(e.Message) && e.Copy.IsZero() {
		p.meter.whole.Observe(now.Sub(e.Message.Received))
	}
	x := ending{state: spool.StateDelivered, transport: by.route.Transport, results: results, at: now}
	x.unwrapped = (t.fork == nil || t.fork.left() == 0) && it.state.unwrapped(results)
	var copied func(error)
	if isForAll(e) && by.route.Binding != nil && !it.state.Fallback && e.Expiry.After(now) {
		x.also, copied = p.copies(t, e, x)
	}
	p.lanes.finish(l, it)
	switch {
	case by.receipt.Final:
		x.charge = settlement(it, e, x, true)
		p.end(it, e, x, copied)
	case it.onDisk && len(by.receipt.PeerIDs)+it.state.unreported(by) > 0:
		if !paidOnDelivery(e) { // else its report tells whether it is paid
			x.charge = settlement(it, e, x, true)
		}
		by.receipt.Unwrapped = x.unwrapped
		p.handOver(it, e, by, x, copied)
	default: // nobody will say what becomes of it
		x.charge = settlement(it, e, x, !paidOnDelivery(e))
		x.state = spool.StateHandedOver
		p.end(it, e, x, copied)
	}
	it.ticket.resolve(x.outcome())
}

// fail ends a message that will never be delivered. The money goes back, also where
// parts of it were taken: what is paid for is the whole.
func (p *Pipeline) fail(l *lane, it *item, e *spool.Entry, f *message.Failure, results []result) {
	p.Log.Debug("message failed", "id", it.id, "attempt", it.state.Attempts, "reason", f)
	p.lanes.finish(l, it)
	p.undelivered(it, e, ending{state: spool.StateFailed, failure: f, results: results}, nil)
}

// drop ends a message that had to go at once and couldn't, unless it goes by the
// plan's fallback. A typing notice vanishes; for anything else the sender is told.
func (p *Pipeline) drop(l *lane, t turn, e *spool.Entry, f *message.Failure, results []result) {
	switch {
	case p.fallsBack(l, t, e, f, results):
	case e.Message.Class != message.Composing:
		p.fail(l, t.it, e, f, nil)
	default:
		p.lanes.finish(l, t.it)
		p.undelivered(t.it, e, ending{state: spool.StateDiscarded}, nil)
	}
}

// undelivered writes the end of a message that wasn't delivered and tells its sender.
func (p *Pipeline) undelivered(it *item, e *spool.Entry, x ending, done func(error)) {
	x.at = time.Now()
	x.charge = settlement(it, e, x, false)
	p.end(it, e, x, done)
	it.ticket.resolve(x.outcome())
}

// settlement is the record that charging gets; nil: nothing is reserved any more.
func settlement(it *item, e *spool.Entry, x ending, charged bool) *plugin.Record {
	if e.Record == nil || it.state.handedOver() && !paidOnDelivery(e) {
		return nil
	}
	record := *e.Record
	record.Charged, record.Transport, record.Settled = charged, x.transport, x.at
	return &record
}

// paidOnDelivery tells whether a message costs nothing until it has arrived.
func paidOnDelivery(e *spool.Entry) bool { return e.Plan.Charging.When == plugin.OnDelivery }

// end writes a message's end: fate, money, what is kept of it and the receipt for
// its sender in one transaction. done, which may be nil, is told once it is on disk.
func (p *Pipeline) end(it *item, e *spool.Entry, x ending, done func(error)) {
	p.noteEnd(e, &x)
	if !it.state.HandedOver {
		p.reports.forget(it)
	}
	f := spool.Fate{ID: it.id, State: it.state.State, Final: true, Record: x.charge}
	var room [4]spool.DeliverySummary
	var ended spool.Summary
	if e.Message.Class != message.Composing {
		ended = summary(it, e, &x, room[:0])
		f.Ended = &ended
	}
	var seen spool.Seen
	if it.keyed && !it.state.handedOver() { // else it was remembered then
		seen = it.seen(x.outcome())
		seen.Noted = x.at
		p.remember(seen)
		ended.Submission = it.digest
		if f.Ended == nil || seen.Late() {
			f.Seen = &seen
		}
	}
	switch {
	case it.onDisk:
		f.Receipt = p.receipt(it, e, &x)
		p.Spool.MoveWith(f, x.also, p.settleWhenMoved(x.charge, p.sendWhenMoved(f.Receipt, done)))
	case f.Ended != nil:
		p.Spool.Record(f.Ended, f.Seen, x.also...)
	}
}

// summary is what is kept of a message that has ended. room is for its parts.
func summary(it *item, e *spool.Entry, x *ending, room []spool.DeliverySummary) spool.Summary {
	s := e.Summary()
	s.State, s.Reason, s.Ended = x.state, x.reason(), x.at
	s.Attempts = it.state.Attempts
	if len(x.results) > 0 {
		s.Attempts++ // the last one
	}
	s.NoteSender(e, it.state.Fallback)
	s.Deliveries = parts(room, it.state.State, x.results)
	return s
}

// noteEnd counts a message's end and tells those who watch.
func (p *Pipeline) noteEnd(e *spool.Entry, x *ending) {
	transport := x.transport
	switch {
	case transport != "":
	case len(e.Plan.Transports) > 0: // through which it was meant to go
		transport = e.Plan.Transports[0]
	case len(e.Routes) > 0:
		transport = e.Routes[0].Transport
	}
	what := endedMessages
	switch {
	case isOurs(e.Message):
		what = endedReceipts
	case !e.Copy.IsZero():
		what = endedCopies
	}
	p.meter.end(endLabels{what: what, transport: transport, service: e.Plan.Service, outcome: x.state, reason: x.reason()})
	p.tell(plugin.Step{Name: plugin.StepName(x.state), Message: e.Message, Transport: x.transport, Reason: x.reason()})
}

// parts appends what each device has said: what is new, and what was noted before.
func parts(parts []spool.DeliverySummary, state spool.State, results []result) []spool.DeliverySummary {
	for _, d := range state.Deliveries {
		if !slices.ContainsFunc(results, func(r result) bool { return r.isOf(&d) }) {
			parts = append(parts, d.Summary())
		}
	}
	for i := range results {
		parts = append(parts, results[i].summary(state))
	}
	return parts
}

// summary is what has become of a device's part, named as it was taken now and before.
func (r *result) summary(before spool.State) spool.DeliverySummary {
	s := spool.DeliverySummary{Transport: r.route.Transport, Device: r.device, State: spool.StateFailed, Reason: r.reason(), PeerIDs: r.receipt.PeerIDs}
	for _, d := range before.Deliveries {
		if r.isOf(&d) {
			d.Parts = slices.Clip(d.Parts)
			name(&d, s.PeerIDs)
			s.PeerIDs = d.Summary().PeerIDs
		}
	}
	switch {
	case unanswered(*r):
		s.State = spool.StateUnknown
	case r.failure == nil && r.receipt.Final:
		s.State = spool.StateDelivered
	case r.failure == nil:
		s.State = spool.StateHandedOver
	}
	return s
}

// settleWhenMoved hands the record on once the outbox has it.
func (p *Pipeline) settleWhenMoved(charge *plugin.Record, done func(error)) func(error) {
	if charge == nil {
		return done
	}
	return func(err error) {
		if err == nil {
			p.settler.add(*charge)
		}
		if done != nil {
			done(err)
		}
	}
}

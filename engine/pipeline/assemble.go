package pipeline

import (
	"time"

	"github.com/imgate/imgate/engine/joining"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// How long a sender may let us wait for the other parts of a message.
const (
	minPartsWait = time.Second
	maxPartsWait = 24 * time.Hour
)

// assembled is a message that was joined from parts, on its way to a decision.
type assembled struct {
	set     *joining.Set
	planned *spool.Entry // nil until the policy has a plan
}

// submitPart takes a part of a message. With the last one the message goes the
// way of all others.
func (p *Pipeline) submitPart(now time.Time, transport string, a plugin.Arrival) plugin.Ticket {
	p.meter.parts.Inc()
	examine(a.Message)
	f := p.admit(a)
	if f == nil {
		f = admitPart(a)
	}
	if f != nil {
		p.refused(refusedParts, transport, now, f, "transport", transport, "peer", a.Message.Peer)
		return refused(f)
	}
	m := a.Message
	m.Received, m.Transport, m.Number = now, transport, numberOf(a.Account)
	t := newTicket()
	p.undecided.Add(1)
	set := p.sets.Add(now, a, func() (message.ID, string) { return p.nameJoined(now, &a) }, func(answer plugin.Answer, err error) {
		p.undecided.Add(-1)
		t.resolve(plugin.Outcome{State: plugin.OutcomeWaiting})
		if err == nil {
			t.accept(answer)
			return
		}
		f := message.AsFailure(err)
		p.refused(refusedParts, transport, now, f, "transport", transport, "peer", m.Peer)
		t.refuse(f)
	})
	if !m.ID.IsZero() {
		p.tell(plugin.Step{Name: plugin.StepReceived, Message: m, Began: now, Ended: now, Call: a.Call, Transport: transport})
	}
	if set != nil {
		p.assemble(set)
	}
	return t
}

// nameJoined gives a message its names when its first part comes. Whether another
// has a short one already isn't asked: one in four billion is the same.
func (p *Pipeline) nameJoined(now time.Time, a *plugin.Arrival) (message.ID, string) {
	id := p.ids.New(now)
	if a.ShortName {
		return id, spool.NewShortName()
	}
	return id, p.names.Of(id)
}

// admitPart refuses what can't be a part.
func admitPart(a plugin.Arrival) *message.Failure {
	part := a.Part
	switch {
	case part.Total < 2 || part.Number < 1 || part.Number > part.Total:
		return message.Fail(message.Malformed, "part %d of %d", part.Number, part.Total)
	case part.Wait < minPartsWait || part.Wait > maxPartsWait:
		return message.Fail(message.Malformed, "the other parts are to be awaited for %s, expected %s to %s", part.Wait, minPartsWait, maxPartsWait)
	case a.Message.Class == message.Composing:
		return message.Fail(message.UnsupportedType, "a typing notice in parts")
	}
	return nil
}

// assemble hands a message in whose parts are here, or as many as came in time.
func (p *Pipeline) assemble(set *joining.Set) {
	p.enqueue(job{Arrival: set.Arrival(), ticket: newTicket(), assembled: &assembled{set: set}})
}

// assembleOverdue hands in messages of which parts haven't come in time.
func (p *Pipeline) assembleOverdue() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for p.ctx.Err() == nil && !p.draining.Load() {
		set, pause := p.sets.Due(time.Now())
		if set != nil {
			p.assemble(set)
			continue
		}
		timer.Reset(pause)
		select {
		case <-p.ctx.Done():
		case <-p.sets.Changed():
		case <-timer.C:
		}
	}
}

// refuseAssembled takes back a message for now, or ends it: its parts, but for the
// last one, were accepted.
func (p *Pipeline) refuseAssembled(j job, f *message.Failure) {
	set, now := j.assembled.set, time.Now()
	if f.Temporary && (p.ctx.Err() != nil || !set.Stale(now)) {
		p.Log.Debug("message in parts refused for now", "transport", j.Message.Transport, "id", j.Message.ID, "missing", j.Message.Missing, "reason", f)
		p.sets.Stay(now, set, f)
		return
	}
	e := j.assembled.planned
	if e == nil {
		e = unplanned(j)
	}
	p.endAssembled(j, e, ending{state: spool.StateFailed, failure: f, at: now}, nil)
}

// unplanned is all that is known of a message for which the policy has no plan.
func unplanned(j job) *spool.Entry {
	return &spool.Entry{Message: j.Message, Submitter: j.Account.ID, Expiry: j.Message.Received}
}

// endIncomplete ends a message that waits for its other parts.
func (p *Pipeline) endIncomplete(set *joining.Set, why message.Reason, done func(error)) {
	j := job{Arrival: set.Arrival(), assembled: &assembled{set: set}}
	p.endAssembled(j, unplanned(j), ending{state: spool.StateFailed, failure: &message.Failure{Reason: why}, at: time.Now()}, done)
}

// endAssembled ends a message that doesn't get into the spool: its record is
// written as its parts leave. done, which may be nil, is told once that is on disk.
func (p *Pipeline) endAssembled(j job, e *spool.Entry, x ending, done func(error)) {
	set := j.assembled.set
	p.meter.door(e.Message.Transport).accepted.Inc()
	p.noteEnd(e, &x)
	ended := e.Summary()
	ended.State, ended.Reason, ended.Ended = x.state, x.reason(), x.at
	var receipt *spool.Entry
	if e.Message.Missing > 0 { // else the part that has completed it is told
		receipt = p.receipt(&item{}, e, &x)
	}
	p.undecided.Add(1)
	leaves := p.sets.Leave(x.at, set, x.reason())
	p.Spool.EndParts(&ended, receipt, leaves, nameRows(j, e), p.sendWhenMoved(receipt, func(err error) {
		p.undecided.Add(-1)
		if err == nil {
			p.endParts(j, x.refusal())
		} else {
			p.sets.Unsure(set)
		}
		if done != nil {
			done(err)
		}
	}))
}

// refusal is what the part is told that has completed the message.
func (x *ending) refusal() error {
	if x.failure == nil {
		return nil // not one that holds a nil
	}
	return x.failure
}

// endParts forgets the parts of a message once the disk has.
func (p *Pipeline) endParts(j job, refusal error) {
	p.meter.assembled.Inc()
	if j.Message.Missing > 0 {
		p.meter.incomplete.Inc()
	}
	p.sets.End(j.assembled.set, refusal)
}

// reserveAnew gives a reservation a key of its own if one was asked for before:
// charging takes each once, and may still be giving back the first one.
func (p *Pipeline) reserveAnew(set *joining.Set, e *spool.Entry) {
	if e.Record == nil {
		return
	}
	if set.Reserved {
		e.Record.Key = p.ids.New(time.Now())
	}
	set.Reserved = true
}

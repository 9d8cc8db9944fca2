package pipeline

import (
	"runtime/debug"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// runLane sends a lane's messages one after the other, until the lane rests or
// others have waited long enough.
func (p *Pipeline) runLane(l *lane) {
	for range burst {
		t, ok := p.lanes.begin(l, time.Now())
		if t.passed != nil {
			p.meter.passed.Inc()
			p.Log.Debug("message can't go; those behind it pass", "id", t.passed.id)
		}
		if !ok {
			return
		}
		p.takeTurn(l, t)
	}
	p.lanes.yield(l)
}

func (p *Pipeline) takeTurn(l *lane, t turn) {
	var e *spool.Entry
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("delivering panicked; the message is set aside", "id", t.it.id, "reason", cause, "stack", string(debug.Stack()))
			p.quarantine(l, t.it, e, message.Internal)
		}
	}()
	if t.do == actSend && p.Spool.Failing() {
		// What is sent now couldn't be noted.
		p.lanes.pause(t, time.Now().Add(storageRecheck))
		return
	}
	if e = p.payload(l, t); e == nil {
		return
	}
	switch t.do {
	case actExpire:
		p.fail(l, t.it, e, &message.Failure{Reason: message.Expired}, nil)
	case actDrop:
		p.drop(l, t, e, &message.Failure{Reason: message.Unavailable, Temporary: true}, nil)
	default:
		p.send(l, t, e)
	}
}

// payload returns a message's entry, from memory or read back; nil: not now.
func (p *Pipeline) payload(l *lane, t turn) *spool.Entry {
	if t.it.payload != nil {
		return t.it.payload
	}
	ids := p.lanes.ahead(l, t.it)
	entries, err := p.Spool.LoadNear(p.ctx, ids)
	e := entries[t.it.id]
	switch {
	case err != nil:
		p.Log.Error("reading a message back failed; it will be tried again", "id", t.it.id, "reason", err)
		p.lanes.pause(t, time.Now().Add(5*time.Second))
	case e == nil:
		p.Log.Error("a message is gone from the storage", "id", t.it.id)
		p.lanes.finish(l, t.it)
		p.forget(t.it.digest)
		p.reports.forget(t.it)
	}
	p.lanes.load(l, len(ids), entries)
	return e
}

// send makes one attempt at every device that the message hasn't reached.
func (p *Pipeline) send(l *lane, t turn, e *spool.Entry) {
	it, way := t.it, wayOf(e, t.it.state.Fallback)
	if r := it.answer; r != nil {
		it.answer = nil
		p.judge(l, t, e, []result{*r})
		return
	}
	now := time.Now()
	targets, refusal := p.targets(l, e, it, way, now)
	switch {
	case len(targets) > 0:
	case refusal != "":
		p.giveUp(l, t, e, &message.Failure{Reason: refusal}, nil)
		return
	case !p.exists(way):
		p.stranded(l, t, e)
		return
	default:
		p.unreachable(l, t, e)
		return
	}
	if targets = p.behindCopies(l, t, e, targets, now); len(targets) == 0 {
		return
	}
	defer p.noting(targets)()
	if it.mayRepeat {
		p.meter.repeated.Inc()
	}
	shot := shot{
		message: e.Outgoing(way.fallback), to: l.recipient, number: it.state.Attempts + 1, repeats: repeatsUnknown(&e.Plan.Retry),
		fallback: way.fallback, text: e.Plan.Text, named: it.id,
	}
	if !e.Copy.IsZero() {
		shot.named = e.Copy.Of
	}
	if !it.transient {
		shot.until = e.Expiry
	}
	ctx := p.attempting.Context(now)
	if len(targets) == 1 {
		p.judge(l, t, e, []result{p.attempt(ctx, shot, targets[0])})
		return
	}
	t.fork = &fork{p: p, shot: shot}
	taken := func() { it.ticket.resolve(plugin.Outcome{State: plugin.OutcomeDelivered}) }
	p.judge(l, t, e, t.fork.run(ctx, groups(e.Plan.Forking, targets), taken))
}

// noting counts attempts until their outcome is noted: a report that comes
// meanwhile may be about one of them.
func (p *Pipeline) noting(targets []target) (done func()) {
	count := func(n int64) {
		for _, t := range targets {
			p.sends[t.route.Transport].Add(n)
			for _, other := range t.others {
				p.sends[other.route.Transport].Add(n)
			}
		}
	}
	count(1)
	return func() { count(-1) }
}

// stranded is for a message of whose transports none exists any more.
func (p *Pipeline) stranded(l *lane, t turn, e *spool.Entry) {
	if p.fallsBack(l, t, e, &message.Failure{Reason: message.Undelivered}, nil) {
		return
	}
	p.Log.Error("no transport of the message's plan exists any more; it is set aside", "id", t.it.id)
	p.quarantine(l, t.it, e, message.Undelivered)
}

// unreachable is for a message whose recipient isn't registered, or is nobody who
// could be.
func (p *Pipeline) unreachable(l *lane, t turn, e *spool.Entry) {
	if e.Account == "" && p.fallsBack(l, t, e, &message.Failure{Reason: message.UnknownRecipient}, nil) {
		return
	}
	if t.it.transient {
		p.drop(l, t, e, &message.Failure{Reason: message.Unavailable, Temporary: true}, nil)
		return
	}
	p.lanes.offline(l, t)
	p.tell(plugin.Step{Name: plugin.StepWaiting, Message: e.Message, Reason: message.Unavailable})
}

package pipeline

import (
	"errors"
	"runtime/debug"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/ratelimit"
	"github.com/imgate/imgate/engine/spool"
)

// job is a submission on its way to a decision.
type job struct {
	plugin.Arrival
	digest    spool.Digest
	ticket    *ticket
	named     bool         // its short name is taken for it
	replaces  *predecessor // nil: no other message
	assembled *assembled   // nil: it came whole
}

// Submit takes a message from a door. See plugin.Gate.
func (p *Pipeline) Submit(transport string, a plugin.Arrival) plugin.Ticket {
	now := time.Now()
	if a.Part != nil {
		return p.submitPart(now, transport, a)
	}
	p.meter.doors[transport].received.Inc()
	examine(a.Message)
	if f := p.admit(a); f != nil {
		p.refused(refusedMessages, transport, now, f, "transport", transport, "peer", a.Message.Peer)
		return refused(f)
	}
	j := job{Arrival: a}
	joined := false
	if a.Key == "" {
		j.ticket = newTicket()
	} else {
		j.digest = spool.DigestKey(a.Key)
		j.ticket, joined = p.join(now, j.digest)
	}
	if joined {
		p.meter.joined.Inc()
		return j.ticket
	}
	p.receive(now, transport, j)
	p.enqueue(j)
	return j.ticket
}

// enqueue hands a submission to its decider.
func (p *Pipeline) enqueue(j job) {
	p.undecided.Add(1)
	select {
	case p.jobs[decider(j.Message)] <- j:
	default:
		p.refuse(j, message.FailForNow(message.Overloaded, "too many messages wait for a decision"))
	}
}

// admit refuses what needs no decision.
func (p *Pipeline) admit(a plugin.Arrival) *message.Failure {
	m := a.Message
	switch {
	case p.draining.Load():
		return message.FailForNow(message.Draining, "the node stops")
	case p.undecided.Load() >= maxUndecided:
		return message.FailForNow(message.Overloaded, "%d messages wait for a decision", maxUndecided)
	case p.Spool.Failing():
		return message.FailForNow(message.StorageDown, "the storage fails")
	case len(m.Body) > MaxBody:
		return message.Fail(message.TooLarge, "body of %d octets, at most %d", len(m.Body), MaxBody)
	case len(m.Body) > maxNotice && m.Class == message.Composing:
		return message.Fail(message.TooLarge, "typing notice of %d octets, at most %d", len(m.Body), maxNotice)
	case len(m.Headers) > maxHeaders:
		return message.Fail(message.TooLarge, "%d header fields, at most %d", len(m.Headers), maxHeaders)
	case !m.NotBefore.IsZero() && time.Until(m.NotBefore) > maxAhead:
		return message.Fail(message.Malformed, "not before %s, at most %s ahead", m.NotBefore.UTC(), maxAhead)
	case !a.Account.Owns(m.From):
		return message.Fail(message.Forbidden, "account %s doesn't own %s", a.Account.ID, m.From)
	}
	if err := m.Recipient.Validate(); err != nil {
		return &message.Failure{Reason: message.Malformed, Err: err}
	}
	return nil
}

// receive fills in what the engine says of a message.
func (p *Pipeline) receive(now time.Time, transport string, j job) {
	m := j.Message
	m.ID = p.ids.New(now)
	switch {
	case j.replaces != nil:
		m.PublicID = j.replaces.e.Message.PublicID
	case j.ShortName:
		m.PublicID = spool.NewShortName()
	default:
		m.PublicID = p.names.Of(m.ID)
	}
	m.Received = now
	m.Transport = transport
	m.Number = numberOf(j.Account)
	p.tell(plugin.Step{Name: plugin.StepReceived, Message: m, Began: now, Ended: now, Call: j.Call, Transport: transport})
}

// numberOf is the first of an account's identities without a domain; empty: it
// has none.
func numberOf(a plugin.Account) string {
	for _, identity := range a.Identities {
		if identity.Host == "" {
			return identity.User
		}
	}
	return ""
}

// examine fills in what follows from a message's content. Of what is only a
// notice nobody is told anything, and one of a message's end waits for as long as
// we say, since clients let it expire at once.
func examine(m *message.Message) {
	facts := content.Examine(m.ContentType, m.Body)
	m.Class = facts.Class
	switch {
	case m.Class != message.Text:
		m.Report = message.ReportNothing
	case m.Report == message.ReportNothing:
		m.Report = facts.Wants
	}
	if m.Class == message.Notification {
		m.Expires = nil
	}
}

// decider picks the goroutine that takes all messages of a pair.
func decider(m *message.Message) int {
	return int(conversationOf(m.From, m.Recipient) % deciders)
}

// decideAll takes one message after the other, so that a pair's stay in order.
func (p *Pipeline) decideAll(jobs <-chan job) {
	supply := &supply{p: p}
	for {
		select {
		case j := <-jobs:
			p.decide(j, supply)
		case <-p.ctx.Done():
			p.refuseLeft(jobs)
			return
		}
	}
}

func (p *Pipeline) refuseLeft(jobs <-chan job) {
	for {
		select {
		case j := <-jobs:
			p.refuse(j, message.FailForNow(message.Draining, "the node stops"))
		default:
			return
		}
	}
}

func (p *Pipeline) refuse(j job, err error) {
	f, m := message.AsFailure(err), j.Message
	p.decided(j)
	if j.assembled != nil {
		p.refuseAssembled(j, f)
		return
	}
	if j.replaces != nil {
		p.lanes.putBack(j.replaces.it, time.Now())
	}
	p.Log.Debug("message refused", "transport", m.Transport, "id", m.ID, "peer", m.Peer, "reason", f)
	p.refused(refusedMessages, m.Transport, m.Received, f, "transport", m.Transport, "peer", m.Peer, "id", m.ID)
	p.tell(plugin.Step{Name: plugin.StepRefused, Message: m, Reason: f.Reason})
	p.forget(j.digest)
	j.ticket.refuse(f)
}

// refused counts what is refused and tells the operator; about says whose it was.
func (p *Pipeline) refused(what, transport string, now time.Time, f *message.Failure, about ...any) {
	p.meter.refused.of(refusalLabels{what, transport, f.Reason}).Inc()
	p.notices.refused(what, now, f, about...)
}

// decide asks policy and charging, and puts the message.
func (p *Pipeline) decide(j job, supply *supply) {
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("deciding panicked; the message is refused", "id", j.Message.ID, "reason", cause, "stack", string(debug.Stack()))
			p.refuse(j, message.FailForNow(message.Internal, "panic"))
		}
	}()
	if j.ShortName {
		if err := p.nameShort(&j); err != nil {
			p.refuse(j, err)
			return
		}
	}
	e, answer, err := p.plan(j, supply)
	if err != nil {
		p.refuse(j, err)
		return
	}
	if e.Plan.Processing == plugin.Discard {
		p.discard(j, e, answer)
		return
	}
	if err := p.withinLimits(e); err != nil { // before anything is reserved
		p.refuse(j, err)
		return
	}
	if j.assembled != nil {
		p.reserveAnew(j.assembled.set, e)
	}
	reservation, err := p.authorize(e)
	if err != nil {
		p.refuse(j, err)
		return
	}
	if err := p.put(j, e, answer, reservation); err != nil {
		p.refuse(j, err)
	}
}

// discard throws a message away, as the policy wants; its sender thinks that it waits.
func (p *Pipeline) discard(j job, e *spool.Entry, answer plugin.Answer) {
	if err := p.count(e, nil); err != nil {
		p.refuse(j, err)
		return
	}
	p.decided(j)
	if j.assembled != nil {
		p.endAssembled(j, e, ending{state: spool.StateDiscarded, at: time.Now()}, nil)
		return
	}
	p.meter.doors[j.Message.Transport].accepted.Inc()
	it := p.newItem(e, j.ticket, spool.State{}) // which is never on disk
	x := ending{state: spool.StateDiscarded, at: time.Now(), also: nameRows(j, e)}
	if j.replaces != nil {
		p.discardInPlace(j, it, e, x, answer)
		return
	}
	p.end(it, e, x, nil)
	j.ticket.accept(answer)
	j.ticket.resolve(plugin.Outcome{State: plugin.OutcomeWaiting})
}

// withinLimits refuses a message that its rate limits have no room for.
func (p *Pipeline) withinLimits(e *spool.Entry) error {
	if len(e.Plan.Limits) == 0 {
		return nil
	}
	r := p.limiter.Full(e.Plan.Limits, e.Message.Received)
	if r == nil {
		return nil
	}
	p.limited(e, r)
	return r
}

// count counts a message with its rate limits while put writes it, or refuses it.
func (p *Pipeline) count(e *spool.Entry, put func([]spool.Window) error) error {
	if len(e.Plan.Limits) == 0 {
		return nil
	}
	err := p.limiter.Take(e.Plan.Limits, e.Message.Received, put)
	if r, ok := errors.AsType[*ratelimit.Refusal](err); ok {
		p.limited(e, r)
	}
	return err
}

func (p *Pipeline) limited(e *spool.Entry, r *ratelimit.Refusal) {
	p.meter.limited(limitLabels{e.Plan.Service, r.Limit.Name}).Inc()
}

// put makes the message ours. Once it is on disk its lane has it. An error: it is
// refused, and nothing is left of it.
func (p *Pipeline) put(j job, e *spool.Entry, answer plugin.Answer, reservation []plugin.Change) error {
	it := p.newItem(e, j.ticket, spool.State{})
	if e.Message.Class == message.Composing {
		if err := p.count(e, nil); err != nil {
			return err
		}
		p.accept(j, it, answer)
		return nil
	}
	it.onDisk = true
	began := time.Now()
	record := e.Record
	paid := p.payNow(e, began)
	done := func(err error) {
		if err != nil {
			p.notPut(j, e, record, err)
			return
		}
		if paid != nil {
			p.settler.add(*paid)
		}
		p.tell(plugin.Step{Name: plugin.StepStored, Message: e.Message, Began: began})
		p.accept(j, it, answer)
	}
	with := spool.With{Reservation: reservation, Charge: paid, Also: nameRows(j, e)}
	if j.assembled != nil {
		with.Parts = p.sets.Leave(began, j.assembled.set, "")
	}
	err := p.write(j.replaces, e, with, done)
	if err != nil {
		p.release(record)
	}
	return err
}

// write puts a message on disk, counted with its rate limits if it has any.
func (p *Pipeline) write(old *predecessor, e *spool.Entry, with spool.With, done func(error)) error {
	if len(e.Plan.Limits) == 0 {
		return p.store(old, e, with, done)
	}
	return p.count(e, func(windows []spool.Window) error {
		counted := with
		counted.Windows = windows
		return p.store(old, e, counted, done)
	})
}

func (p *Pipeline) store(old *predecessor, e *spool.Entry, with spool.With, done func(error)) error {
	if old != nil {
		return p.putInPlace(old, e, with, done)
	}
	return p.Spool.Put(e, with, done)
}

// notPut refuses a message that isn't on disk. One that may be stays as it is:
// this term ends, and the next finds out. Until then a repeat joins it.
func (p *Pipeline) notPut(j job, e *spool.Entry, record *plugin.Record, err error) {
	if !errors.Is(err, plugin.ErrUnknown) {
		if len(e.Plan.Limits) > 0 {
			p.limiter.GiveBack(e.Plan.Limits, e.Message.Received)
		}
		p.release(record)
		p.refuse(j, err)
		return
	}
	p.decided(j)
	p.Log.Debug("whether a message was kept isn't known", "transport", j.Message.Transport, "id", j.Message.ID, "peer", j.Message.Peer)
	if j.assembled != nil {
		p.sets.Unsure(j.assembled.set)
		return
	}
	j.ticket.refuse(message.AsFailure(err))
}

// accept runs on the committer's goroutine, in the order of the Puts.
func (p *Pipeline) accept(j job, it *item, answer plugin.Answer) {
	p.decided(j)
	p.meter.door(j.Message.Transport).accepted.Inc()
	if j.assembled != nil {
		p.foundOlder(it.id)
		p.endParts(j, nil)
	}
	j.ticket.accept(answer)
	if rests := p.lanes.add(it); rests {
		p.tell(plugin.Step{Name: plugin.StepWaiting, Message: j.Message})
	}
}

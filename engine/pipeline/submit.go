package pipeline

import (
	"cmp"
	"errors"
	"hash/maphash"
	"runtime/debug"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/content"
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// job is a submission on its way to a decision.
type job struct {
	plugin.Arrival
	digest spool.Digest
	ticket *ticket
}

// pairSeed spreads the pairs of sender and recipient over the deciders.
var pairSeed = maphash.MakeSeed()

// Submit takes a message from a door. See plugin.Gate.
func (p *Pipeline) Submit(transport string, a plugin.Arrival) plugin.Ticket {
	p.meter.doors[transport].received.Inc()
	now := time.Now()
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
	p.receive(now, transport, a.Message)
	p.tell(plugin.Step{Name: plugin.StepReceived, Message: a.Message, Began: now, Ended: now, Call: a.Call, Transport: transport})
	p.undecided.Add(1)
	select {
	case p.jobs[decider(a.Message)] <- j:
	default:
		p.refuse(j, message.FailForNow(message.Overloaded, "too many messages wait for a decision"))
	}
	return j.ticket
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
	case len(m.Body) > maxNotice && classOf(m) == message.Composing:
		return message.Fail(message.TooLarge, "typing notice of %d octets, at most %d", len(m.Body), maxNotice)
	case len(m.Headers) > maxHeaders:
		return message.Fail(message.TooLarge, "%d header fields, at most %d", len(m.Headers), maxHeaders)
	case !a.Account.Owns(m.From):
		return message.Fail(message.Forbidden, "account %s doesn't own %s", a.Account.ID, m.From)
	}
	if err := m.Recipient.Validate(); err != nil {
		return &message.Failure{Reason: message.Malformed, Err: err}
	}
	return nil
}

// receive fills in what the engine says of a message.
func (p *Pipeline) receive(now time.Time, transport string, m *message.Message) {
	m.ID = p.ids.New(now)
	m.PublicID = message.NewPublicID()
	m.Received = now
	m.Transport = transport
	m.Class = classOf(m)
}

func classOf(m *message.Message) message.Class {
	return content.ClassOf(content.MediaType(m.ContentType))
}

// decider picks the goroutine that takes all messages of a pair.
func decider(m *message.Message) int {
	var h maphash.Hash
	h.SetSeed(pairSeed)
	h.WriteString(m.From.User)
	h.WriteString(m.From.Host)
	h.WriteByte(0)
	h.WriteString(m.Recipient.User)
	h.WriteString(m.Recipient.Host)
	return int(h.Sum64() % deciders)
}

// decideAll takes one message after the other, so that a pair's stay in order.
func (p *Pipeline) decideAll(jobs <-chan job) {
	for {
		select {
		case j := <-jobs:
			p.decide(j)
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
	p.undecided.Add(-1)
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
func (p *Pipeline) decide(j job) {
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("deciding panicked; the message is refused", "id", j.Message.ID, "reason", cause, "stack", string(debug.Stack()))
			p.refuse(j, message.FailForNow(message.Internal, "panic"))
		}
	}()
	e, answer, err := p.plan(j)
	if err != nil {
		p.refuse(j, err)
		return
	}
	if e.Plan.Processing == plugin.Discard {
		p.discard(j, e, answer)
		return
	}
	reservation, err := p.authorize(j.Message, e)
	if err != nil {
		p.refuse(j, err)
		return
	}
	p.put(j, e, answer, reservation)
}

// discard throws a message away, as the policy wants; its sender thinks that it waits.
func (p *Pipeline) discard(j job, e *spool.Entry, answer plugin.Answer) {
	p.undecided.Add(-1)
	p.meter.doors[j.Message.Transport].accepted.Inc()
	it := newItem(e, j.ticket) // which is never on disk
	p.end(it, e, ending{state: spool.StateDiscarded, at: time.Now()}, nil)
	j.ticket.accept(answer)
	j.ticket.resolve(plugin.Outcome{State: plugin.OutcomeWaiting})
}

// plan asks the policy what is to happen to a message, or why it is refused.
func (p *Pipeline) plan(j job) (*spool.Entry, plugin.Answer, error) {
	m := j.Message
	answer := plugin.Answer{ID: m.ID, PublicID: m.PublicID}
	recipient, known, err := p.lookup(m.Recipient)
	if err != nil {
		return nil, answer, err
	}
	if f := p.full(cmp.Or(recipient.ID, m.Recipient.String())); f != nil {
		return nil, answer, f
	}
	plan, err := p.ask(j.Arrival, recipient, known)
	if err != nil {
		return nil, answer, err
	}
	e := &spool.Entry{Message: m, Account: recipient.ID, Key: j.Key, Expiry: expiry(m, plan), Plan: plan}
	switch plan.Processing {
	case plugin.Reject:
		return nil, answer, message.Fail(plan.Reason, "service %s rejects it", plan.Service)
	case plugin.Discard:
		return e, answer, nil
	case plugin.Deliver:
	default:
		return nil, answer, message.FailForNow(message.PolicyFailed, "service %s wants it to be processed as %q", plan.Service, plan.Processing)
	}
	if e.Plan.Transports, err = p.passable(plan, content.MediaType(m.ContentType)); err != nil {
		return nil, answer, err
	}
	if !known && !slices.ContainsFunc(e.Plan.Transports, p.leadsOutside) {
		return nil, answer, message.Fail(message.UnknownRecipient, "nobody has the address")
	}
	if plan.Answer == plugin.AnswerDelivered {
		answer.Within = min(plan.Within, plugin.MaxWithin)
	}
	if e.Transient() && m.Class != message.Composing && answer.Within == 0 {
		answer.Within = plugin.DefaultWithin // now or not at all: its sender is told which
	}
	e.Record = record(j.Account, e)
	return e, answer, nil
}

// ask asks the policy.
func (p *Pipeline) ask(a plugin.Arrival, recipient plugin.Account, known bool) (plugin.Plan, error) {
	q := p.question(a, recipient, known)
	began := time.Now()
	plan, err := p.Policy.Decide(p.authorizing.Context(a.Message.Received), q)
	ended := time.Now()
	p.meter.policy.Observe(ended.Sub(began))
	if err != nil {
		return plugin.Plan{}, err
	}
	p.tell(plugin.Step{Name: plugin.StepDecided, Message: a.Message, Began: began, Ended: ended, Service: plan.Service})
	return plan.WithDefaults(), nil
}

// full tells whether no more messages may wait, for this recipient or at all.
func (p *Pipeline) full(recipient string) *message.Failure {
	limits := p.bounds.Load()
	inAll, forThem := p.lanes.counted(recipient)
	if inAll += int(p.reports.held.Load()); inAll >= limits.Messages {
		return message.FailForNow(message.Overloaded, "%d messages wait already", inAll)
	}
	if forThem >= limits.PerRecipient {
		return message.FailForNow(message.LimitReached, "%d messages wait for %s already", forThem, recipient)
	}
	return nil
}

// leadsOutside tells whether an instance reaches others than those who register.
func (p *Pipeline) leadsOutside(instance string) bool { return !p.Doors[instance].Registrar }

// lookup finds the recipient's account; that there is none is no error.
func (p *Pipeline) lookup(a message.Address) (plugin.Account, bool, error) {
	account, err := p.Accounts.Lookup(p.authorizing.Context(time.Now()), a)
	if err == nil {
		return account, true, nil
	}
	if f, ok := errors.AsType[*message.Failure](err); ok && f.Reason == message.UnknownRecipient {
		return plugin.Account{}, false, nil
	}
	return plugin.Account{}, false, err
}

func (p *Pipeline) question(a plugin.Arrival, recipient plugin.Account, known bool) plugin.Question {
	m := a.Message
	q := plugin.Question{
		Message: plugin.QuestionMessage{
			ID: m.ID.String(), Type: content.MediaType(m.ContentType), Class: m.Class.String(), Size: len(m.Body),
		},
		Sender: plugin.QuestionSender{
			Account: a.Account.ID, Address: m.From.String(), User: m.From.User, Domain: m.From.Host,
			Attributes: a.Account.Attributes,
		},
		Recipient: plugin.QuestionRecipient{
			Address: m.Recipient.String(), User: m.Recipient.User, Domain: m.Recipient.Host, Local: known,
		},
		Transport: m.Transport, Protocol: p.Doors[m.Transport].Plugin, Peer: m.Peer, Time: m.Received.UTC(),
	}
	if m.Expires != nil {
		seconds := int(*m.Expires / time.Second)
		q.Message.Expires = &seconds
	}
	if known {
		q.Recipient.Devices = devices(p.Locations.Of(recipient.ID, m.Received))
		q.Recipient.Registered = q.Recipient.Devices > 0
	}
	return q
}

func devices(bindings []plugin.Binding) int {
	if len(bindings) < 2 {
		return len(bindings)
	}
	seen := map[string]bool{}
	for _, b := range bindings {
		seen[b.Device] = true
	}
	return len(seen)
}

// passable returns those of the plan's transports over which the type may go,
// as instances.
func (p *Pipeline) passable(plan plugin.Plan, mediaType string) ([]string, error) {
	var instances []string
	var accept []string
	found := false
	for _, name := range plan.Transports {
		for _, instance := range p.instances {
			door := p.Doors[instance]
			if instance != name && door.Plugin != name {
				continue
			}
			found = true
			types, limited := plan.MIME[door.Plugin]
			if !limited || slices.Contains(types, mediaType) {
				instances = append(instances, instance)
				continue
			}
			if accept == nil {
				accept = types
			}
		}
	}
	switch {
	case len(instances) > 0:
		return instances, nil
	case found:
		f := message.Fail(message.UnsupportedType, "%s isn't allowed over %v", mediaType, plan.Transports)
		f.Accept = accept
		return nil, f
	}
	return nil, message.FailForNow(message.PolicyFailed, "service %s wants transports %v, and there are none of these", plan.Service, plan.Transports)
}

// expiry is the end of a message's life, counted from receipt by our clock.
func expiry(m *message.Message, plan plugin.Plan) time.Time {
	life := min(plan.Store, plugin.MaxStore)
	if m.Expires != nil {
		life = min(life, max(0, *m.Expires))
	}
	if m.Class == message.Composing {
		life = 0 // what a crash leaves on disk has no life
	}
	return m.Received.Add(life)
}

// record begins the charging record of a message; nil: it costs nothing.
func record(sender plugin.Account, e *spool.Entry) *plugin.Record {
	c := e.Plan.Charging
	if c.Mode == plugin.ChargeNone {
		return nil
	}
	payer := c.Account
	if payer == "" {
		payer = sender.ID
	}
	return &plugin.Record{
		Key: e.Message.ID, Payer: payer, Destination: c.Destination, Units: units(len(e.Message.Body), c.UnitSize),
		From: e.Message.From, Recipient: e.Message.Recipient, Service: e.Plan.Service, Received: e.Message.Received,
	}
}

// units is the product's billing unit size: undefined means that a message is
// one whatever its length.
func units(size, unitSize int) int {
	if unitSize <= 0 {
		return 1
	}
	return max(1, (size+unitSize-1)/unitSize)
}

// authorize makes the reservation and takes the routes.
func (p *Pipeline) authorize(m *message.Message, e *spool.Entry) ([]plugin.Change, error) {
	if e.Record == nil {
		return nil, nil
	}
	began := time.Now()
	a, err := p.Charging.Authorize(p.authorizing.Context(began), plugin.Request{
		Key: m.ID, Payer: e.Record.Payer, Destination: e.Record.Destination, Units: e.Record.Units,
		From: m.From, Recipient: m.Recipient, HoldUntil: e.Expiry.Add(receiptWait),
	})
	ended := time.Now()
	p.meter.charging.Observe(ended.Sub(began))
	if err != nil {
		return nil, err
	}
	p.tell(plugin.Step{Name: plugin.StepAuthorized, Message: m, Began: began, Ended: ended})
	e.Record.Reserved = a.Reserved
	e.Routes = a.Routes
	return p.Tables.Own(a.Changes), nil
}

// release gives a reservation back for a message that wasn't accepted.
func (p *Pipeline) release(e *spool.Entry) {
	if e.Record == nil {
		return
	}
	back := *e.Record
	back.Settled = time.Now()
	p.settler.release(back)
}

// put makes the message ours. Once it is on disk its lane has it.
func (p *Pipeline) put(j job, e *spool.Entry, answer plugin.Answer, reservation []plugin.Change) {
	it := newItem(e, j.ticket)
	if e.Message.Class == message.Composing && e.Record == nil {
		p.accept(j, it, answer)
		return
	}
	it.onDisk = true
	began := time.Now()
	p.Spool.Put(e, reservation, func(err error) {
		if err != nil {
			p.notPut(j, e, err)
			return
		}
		p.tell(plugin.Step{Name: plugin.StepStored, Message: e.Message, Began: began})
		p.accept(j, it, answer)
	})
}

// notPut refuses a message that isn't on disk. One that may be stays as it is:
// this term ends, and the next finds out. Until then a repeat joins it.
func (p *Pipeline) notPut(j job, e *spool.Entry, err error) {
	if !errors.Is(err, plugin.ErrUnknown) {
		p.release(e)
		p.refuse(j, err)
		return
	}
	p.undecided.Add(-1)
	p.Log.Debug("whether a message was kept isn't known", "transport", j.Message.Transport, "id", j.Message.ID, "peer", j.Message.Peer)
	j.ticket.refuse(message.AsFailure(err))
}

// accept runs on the committer's goroutine, in the order of the Puts.
func (p *Pipeline) accept(j job, it *item, answer plugin.Answer) {
	p.undecided.Add(-1)
	p.meter.doors[j.Message.Transport].accepted.Inc()
	j.ticket.accept(answer)
	if rests := p.lanes.add(it); rests {
		p.tell(plugin.Step{Name: plugin.StepWaiting, Message: j.Message})
	}
}

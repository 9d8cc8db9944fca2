package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime/debug"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

const (
	// sendWait bounds one attempt. It is longer than SIP's 64*T1 of 32 s
	// (RFC 3261 §17.1.2.2), so that a transport's own limit comes first.
	sendWait = 40 * time.Second
	// forkGrace is how long the other contacts may still answer once one has
	// taken a message: a dead contact holds nothing up.
	forkGrace = 500 * time.Millisecond
)

// runLane sends a lane's messages one after the other, until the lane rests or
// others have waited long enough.
func (p *Pipeline) runLane(l *lane) {
	for range burst {
		t, ok := p.lanes.begin(l, time.Now())
		if t.passed != nil {
			p.Stats.Passed.Add(1)
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
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("delivering panicked; the message is set aside", "id", t.it.id, "reason", cause, "stack", string(debug.Stack()))
			p.quarantine(l, t.it, message.Internal)
		}
	}()
	if t.do == actSend && p.Spool.Failing() {
		// What is sent now couldn't be noted.
		p.lanes.pause(t, time.Now().Add(storageRecheck))
		return
	}
	e, ok := p.payload(l, t)
	if !ok {
		return
	}
	switch t.do {
	case actExpire:
		p.fail(l, t.it, e, &message.Failure{Reason: message.Expired})
	case actDrop:
		p.drop(l, t.it, e, &message.Failure{Reason: message.Unavailable, Temporary: true})
	default:
		p.send(l, t, e)
	}
}

// payload returns a message's entry, from memory or read back.
func (p *Pipeline) payload(l *lane, t turn) (*spool.Entry, bool) {
	if t.it.payload != nil {
		return t.it.payload, true
	}
	e, err := p.Spool.Load(p.ctx, t.it.id)
	switch {
	case err != nil:
		p.Log.Error("reading a message back failed; it will be tried again", "id", t.it.id, "reason", err)
		p.lanes.pause(t, time.Now().Add(5*time.Second))
	case e == nil:
		p.Log.Error("a message is gone from the storage", "id", t.it.id)
		p.lanes.finish(l, t.it)
		p.forget(t.it.digest)
	}
	return e, e != nil
}

// send makes one attempt at every device that the message hasn't reached.
func (p *Pipeline) send(l *lane, t turn, e *spool.Entry) {
	it, now := t.it, time.Now()
	targets, refusal := p.targets(l, e, it, now)
	switch {
	case len(targets) > 0:
	case refusal != "":
		p.refusedByAll(l, it, e, &message.Failure{Reason: refusal})
		return
	case !p.hasWay(e):
		p.Log.Error("no transport of the message's plan exists any more; it is set aside", "id", it.id)
		p.quarantine(l, it, message.Undelivered)
		return
	default:
		p.unreachable(l, t, e)
		return
	}
	defer p.noting(targets)()
	p.Stats.Attempts.Add(1)
	if it.state.Attempts > 0 {
		p.Stats.Repeated.Add(1)
	}
	taken := func() { it.ticket.resolve(plugin.Outcome{State: plugin.OutcomeDelivered}) }
	results := p.fork(l.recipient, e.Message, targets, taken)
	p.judge(l, t, e, results)
}

// hasWay tells whether any transport of the message's plan still exists.
func (p *Pipeline) hasWay(e *spool.Entry) bool {
	exists := func(instance string) bool { _, ok := p.Doors[instance]; return ok }
	return slices.ContainsFunc(e.Plan.Transports, exists) ||
		slices.ContainsFunc(e.Routes, func(r plugin.Route) bool { return exists(r.Transport) })
}

// noting counts attempts until their outcome is noted: a report that comes
// meanwhile may be about one of them.
func (p *Pipeline) noting(targets []target) (done func()) {
	for _, t := range targets {
		p.sends[t.route.Transport].Add(1)
	}
	return func() {
		for _, t := range targets {
			p.sends[t.route.Transport].Add(-1)
		}
	}
}

// unreachable is for a message whose recipient isn't registered.
func (p *Pipeline) unreachable(l *lane, t turn, e *spool.Entry) {
	if t.it.transient {
		p.drop(l, t.it, e, &message.Failure{Reason: message.Unavailable, Temporary: true})
		return
	}
	p.lanes.offline(l, t)
}

// target is one contact or next hop, with the delivery that it belongs to.
type target struct {
	route  plugin.Route
	door   plugin.Transport
	device string
}

// result is what became of one attempt at one target.
type result struct {
	target
	receipt plugin.Receipt
	failure *message.Failure // nil: it was taken
}

// targets are the ways to the devices that haven't refused the message.
// Contacts that are still silent about an earlier message are left out while
// there are others.
func (p *Pipeline) targets(l *lane, e *spool.Entry, it *item, now time.Time) (_ []target, refusal message.Reason) {
	var targets, silent []target
	for _, route := range p.routes(e, now) {
		t := target{route: route, door: p.Doors[route.Transport].Transport, device: deviceOf(route)}
		if t.door == nil {
			continue
		}
		if reason := it.state.refused(route.Transport, t.device); reason != "" {
			refusal = reason
			continue
		}
		t.route.Reference = reference(e.Message.PublicID, route.Transport, t.device)
		if p.lanes.silent(l.recipient, t.key()) {
			silent = append(silent, t)
			continue
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		targets = silent
	}
	if len(e.Routes) > 0 && len(targets) > 1 {
		targets = targets[:1] // in order: the next one is tried when this one refuses
	}
	return targets, refusal
}

// routes are those that charging named, else those of the first of the plan's
// transports that has any.
func (p *Pipeline) routes(e *spool.Entry, now time.Time) []plugin.Route {
	if len(e.Routes) > 0 {
		return e.Routes
	}
	var bindings []plugin.Binding
	if e.Account != "" {
		bindings = p.Locations.Of(e.Account, now)
	}
	for _, instance := range e.Plan.Transports {
		door, ok := p.Doors[instance]
		if !ok {
			continue
		}
		if !door.Registrar {
			return []plugin.Route{{Transport: instance}}
		}
		if routes := bound(bindings, e.Plan.Transports); len(routes) > 0 {
			return routes
		}
	}
	return nil
}

// bound are the ways to the bindings on a plan's transports: all devices are
// alike, whichever of the doors they registered at.
func bound(bindings []plugin.Binding, transports []string) []plugin.Route {
	routes := make([]plugin.Route, 0, len(bindings))
	for i := range bindings {
		if slices.Contains(transports, bindings[i].Transport) {
			routes = append(routes, plugin.Route{Transport: bindings[i].Transport, Binding: &bindings[i]})
		}
	}
	return routes
}

func deviceOf(r plugin.Route) string {
	if r.Binding == nil {
		return r.Address
	}
	return r.Binding.Device
}

// key names a target among those of its recipient.
func (t target) key() string {
	if t.route.Binding == nil {
		return t.route.Transport + "\x00" + t.route.Address
	}
	return t.route.Transport + "\x00" + t.route.Binding.Contact
}

// reference names a delivery to its peer: the message's public id, which
// nobody can guess, and which device it is for.
func reference(publicID, transport, device string) string {
	sum := sha256.Sum256([]byte(transport + "\x00" + device))
	return publicID + "." + hex.EncodeToString(sum[:4])
}

// fork sends to all targets at once. It returns when all have answered, or one
// has taken the message and the others have had their grace. It calls taken as
// soon as one of several has.
func (p *Pipeline) fork(r *recipient, m *message.Message, targets []target, taken func()) []result {
	if len(targets) == 1 {
		return []result{p.attempt(r, m, targets[0])}
	}
	answers := make(chan result, len(targets))
	for _, t := range targets {
		p.lanes.sent(r, t.key(), 1)
		p.sending.Go(func() {
			answer := p.attempt(r, m, t)
			p.lanes.sent(r, t.key(), -1)
			answers <- answer
		})
	}
	return gather(answers, len(targets), taken)
}

func gather(answers <-chan result, n int, taken func()) []result {
	var results []result
	var grace <-chan time.Time
	for len(results) < n {
		select {
		case r := <-answers:
			results = append(results, r)
			if r.failure == nil && grace == nil {
				grace = time.After(forkGrace)
				taken()
			}
		case <-grace:
			return results
		}
	}
	return results
}

// attempt is one call of a transport. One that panics is as good as a message
// that can't be built.
func (p *Pipeline) attempt(to *recipient, m *message.Message, t target) (r result) {
	r.target = t
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("transport panicked", "transport", t.route.Transport, "id", m.ID, "reason", cause, "stack", string(debug.Stack()))
			r.failure = message.Fail(message.Unbuildable, "panic")
		}
	}()
	underWay := p.sends[t.route.Transport]
	underWay.Add(1)
	defer underWay.Add(-1)
	now := time.Now()
	ctx, f := p.lanes.departs(p.attempting.Context(now), to, now)
	defer p.lanes.lands(to, f)
	receipt, err := t.door.Send(ctx, m, t.route)
	if err != nil {
		r.failure = message.AsFailure(err)
		return r
	}
	r.receipt = receipt
	return r
}

// judge derives a message's fate from what its devices said.
func (p *Pipeline) judge(l *lane, t turn, e *spool.Entry, results []result) {
	it := t.it
	var taken, pending *result
	for i := range results {
		r := &results[i]
		switch {
		case r.failure == nil:
			if taken == nil || r.receipt.Final {
				taken = r
			}
		case r.failure.Temporary:
			pending = r
		}
	}
	switch {
	case taken != nil:
		p.delivered(l, it, e, *taken)
	case p.ctx.Err() != nil:
		return // the node stops: the message is on disk as it was
	case pending == nil && p.nextRoute(l, e, it, results):
		p.lanes.retry(l, t, time.Now(), time.Time{})
	case pending == nil:
		p.refusedByAll(l, it, e, gravest(results))
	default:
		it.state.note(results)
		p.tryLater(l, t, e, *pending)
	}
}

// nextRoute tells whether charging has named another route than those that have
// just refused for good.
func (p *Pipeline) nextRoute(l *lane, e *spool.Entry, it *item, results []result) bool {
	if len(e.Routes) < 2 {
		return false
	}
	it.state.note(results)
	targets, _ := p.targets(l, e, it, time.Now())
	return len(targets) > 0
}

// gravest is the refusal that the sender gets: what a device said rather than
// that we couldn't build the message for it.
func gravest(results []result) *message.Failure {
	for _, r := range results {
		if r.failure.Reason != message.Unbuildable {
			return r.failure
		}
	}
	return results[0].failure
}

// refusedByAll is for a message that every device refused for good.
func (p *Pipeline) refusedByAll(l *lane, it *item, e *spool.Entry, f *message.Failure) {
	if f.Reason == message.Unbuildable {
		p.Log.Warn("message can't be built; it is set aside", "id", it.id, "reason", f)
		p.quarantine(l, it, message.Unbuildable)
		return
	}
	p.fail(l, it, e, f)
}

// tryLater lets a message wait for its next attempt.
func (p *Pipeline) tryLater(l *lane, t turn, e *spool.Entry, last result) {
	it := t.it
	if it.transient {
		p.drop(l, it, e, last.failure)
		return
	}
	pause := max(e.Plan.Retry[min(it.state.Attempts, len(e.Plan.Retry)-1)], plugin.MinRetry)
	it.state.Attempts++
	p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, nil)
	p.Log.Debug("attempt failed", "transport", last.route.Transport, "id", it.id, "attempt", it.state.Attempts, "reason", last.failure)
	now := time.Now()
	p.lanes.retry(l, t, now, now.Add(max(pause, last.failure.RetryAfter)))
}

// delivered ends a message that a device, or the next hop, has taken.
func (p *Pipeline) delivered(l *lane, it *item, e *spool.Entry, by result) {
	p.Stats.Delivered.Add(1)
	outcome := plugin.Outcome{State: plugin.OutcomeDelivered}
	charge := p.settlement(e, true, by.route.Transport)
	p.lanes.finish(l, it)
	if !by.receipt.Final {
		p.handOver(it, e, by, charge)
	} else {
		p.end(it, e, outcome, charge)
	}
	it.ticket.resolve(outcome)
}

// fail ends a message that will never be delivered. The money goes back.
func (p *Pipeline) fail(l *lane, it *item, e *spool.Entry, f *message.Failure) {
	p.Stats.Failed.Add(1)
	p.Log.Debug("message failed", "id", it.id, "attempt", it.state.Attempts, "reason", f)
	p.lanes.finish(l, it)
	p.ended(it, e, plugin.Outcome{State: plugin.OutcomeFailed, Failure: f})
}

// drop ends a message that had to go at once and couldn't. A typing notice
// vanishes; for anything else the sender is told.
func (p *Pipeline) drop(l *lane, it *item, e *spool.Entry, f *message.Failure) {
	if e.Message.Class != message.Composing {
		p.fail(l, it, e, f)
		return
	}
	p.Stats.Discarded.Add(1)
	p.lanes.finish(l, it)
	p.ended(it, e, plugin.Outcome{State: plugin.OutcomeWaiting})
}

// ended writes the end of a message that wasn't delivered and tells its sender.
func (p *Pipeline) ended(it *item, e *spool.Entry, o plugin.Outcome) {
	p.end(it, e, o, p.settlement(e, false, ""))
	it.ticket.resolve(o)
}

// settlement is the record that charging gets; nil: nothing was reserved.
func (p *Pipeline) settlement(e *spool.Entry, charged bool, transport string) *plugin.Record {
	if e.Record == nil {
		return nil
	}
	record := *e.Record
	record.Charged, record.Transport, record.Settled = charged, transport, time.Now()
	return &record
}

// end writes a message's end: fate and money in one transaction.
func (p *Pipeline) end(it *item, e *spool.Entry, o plugin.Outcome, charge *plugin.Record) {
	f := spool.Fate{ID: it.id, State: it.state.State, Final: true, Record: charge}
	if it.keyed {
		seen := it.seen(o)
		p.remember(seen)
		f.Seen = &seen
	}
	if it.onDisk {
		p.Spool.Move(f, p.settleWhenMoved(charge))
	}
}

// settleWhenMoved hands the record on once the outbox has it.
func (p *Pipeline) settleWhenMoved(charge *plugin.Record) func(error) {
	if charge == nil {
		return nil
	}
	return func(err error) {
		if err == nil {
			p.settler.add(*charge)
		}
	}
}

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
		p.drop(l, t.it, e, &message.Failure{Reason: message.Unavailable, Temporary: true})
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
	}
	p.lanes.load(l, len(ids), entries)
	return e
}

// send makes one attempt at every device that the message hasn't reached.
func (p *Pipeline) send(l *lane, t turn, e *spool.Entry) {
	it, now := t.it, time.Now()
	targets, refusal := p.targets(l, e, it, now)
	switch {
	case len(targets) > 0:
	case refusal != "":
		p.refusedByAll(l, it, e, &message.Failure{Reason: refusal}, nil)
		return
	case !p.hasWay(e):
		p.Log.Error("no transport of the message's plan exists any more; it is set aside", "id", it.id)
		p.quarantine(l, it, e, message.Undelivered)
		return
	default:
		p.unreachable(l, t, e)
		return
	}
	defer p.noting(targets)()
	if it.mayRepeat {
		p.meter.repeated.Inc()
	}
	taken := func() { it.ticket.resolve(plugin.Outcome{State: plugin.OutcomeDelivered}) }
	results := p.fork(l.recipient, e.Message, targets, it.state.Attempts+1, taken)
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
	p.tell(plugin.Step{Name: plugin.StepWaiting, Message: e.Message, Reason: message.Unavailable})
}

// target is one contact or next hop, with the delivery that it belongs to.
type target struct {
	route  plugin.Route
	door   plugin.Transport
	device string
	others []plugin.Route // the device's other ways, where this one is gone
}

// result is what became of one attempt at one target.
type result struct {
	target
	receipt plugin.Receipt
	failure *message.Failure // nil: it was taken
}

// reason is why the target didn't take the message; empty: it did.
func (r *result) reason() message.Reason {
	if r.failure == nil {
		return ""
	}
	return r.failure.Reason
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
	switch {
	case len(targets) < 2:
	case len(e.Routes) > 0:
		targets = targets[:1] // in order: the next one is tried when this one refuses
	default:
		targets = perDevice(targets)
	}
	return targets, refusal
}

// perDevice makes one target of the ways to each device (RFC 5626 §4.2): it gets a
// message once. The newest way comes first. Contacts that don't name their
// device stay apart.
func perDevice(targets []target) []target {
	merged := make([]target, 0, len(targets))
	for _, t := range slices.Backward(targets) {
		i := slices.IndexFunc(merged, func(o target) bool {
			return t.device != "" && o.device == t.device && o.route.Transport == t.route.Transport
		})
		if i < 0 {
			merged = append(merged, t)
			continue
		}
		merged[i].others = append(merged[i].others, t.route)
	}
	return merged
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

// peer is the contact, or the next hop.
func (t target) peer() string {
	if t.route.Binding == nil {
		return t.route.Address
	}
	return t.route.Binding.Contact
}

// key names a target among those of its recipient.
func (t target) key() string {
	return t.route.Transport + "\x00" + t.peer()
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
func (p *Pipeline) fork(r *recipient, m *message.Message, targets []target, n int, taken func()) []result {
	if len(targets) == 1 {
		return []result{p.attempt(r, m, targets[0], n)}
	}
	answers := make(chan result, len(targets))
	for _, t := range targets {
		p.lanes.sent(r, t.key(), 1)
		p.sending.Go(func() {
			answer := p.attempt(r, m, t, n)
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

// attempt is the n-th for this message at one target: over the first of its
// ways that isn't gone.
func (p *Pipeline) attempt(to *recipient, m *message.Message, t target, n int) result {
	r := p.try(to, m, t, n)
	for _, way := range t.others {
		if r.failure == nil || !r.failure.Temporary || r.failure.Reason != message.Unavailable {
			break
		}
		t.route = way
		r = p.try(to, m, t, n)
	}
	return r
}

// try is one call of a transport. One that panics is as good as a message that
// can't be built.
func (p *Pipeline) try(to *recipient, m *message.Message, t target, n int) (r result) {
	r.target = t
	began := time.Now()
	defer p.attempted(m, &r, began, n)
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("transport panicked", "transport", t.route.Transport, "id", m.ID, "reason", cause, "stack", string(debug.Stack()))
			r.failure = message.Fail(message.Unbuildable, "panic")
		}
	}()
	underWay := p.sends[t.route.Transport]
	underWay.Add(1)
	defer underWay.Add(-1)
	ctx, f := p.lanes.departs(p.attempting.Context(began), to, began)
	defer p.lanes.lands(to, f)
	receipt, err := t.door.Send(ctx, m, t.route)
	if err != nil {
		r.failure = message.AsFailure(err)
		return r
	}
	r.receipt = receipt
	return r
}

// attempted counts an attempt and tells those who watch.
func (p *Pipeline) attempted(m *message.Message, r *result, began time.Time, n int) {
	ended := time.Now()
	p.meter.attempted(r.route.Transport, ended.Sub(began), r.failure)
	p.tell(plugin.Step{
		Name: plugin.StepAttempted, Message: m, Began: began, Ended: ended, Attempt: n,
		Call: r.route.Reference, Transport: r.route.Transport, Peer: r.peer(), Reason: r.reason(),
	})
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
		p.delivered(l, it, e, *taken, results)
	case p.ctx.Err() != nil:
		return // the node stops: the message is on disk as it was
	case pending == nil && p.nextRoute(l, e, it, results):
		p.lanes.retry(l, t, time.Now(), time.Time{})
	case pending == nil:
		p.refusedByAll(l, it, e, gravest(results), results)
	default:
		it.state.note(results)
		it.mayRepeat = it.mayRepeat || slices.ContainsFunc(results, unanswered)
		p.tryLater(l, t, e, *pending)
	}
}

// unanswered tells whether a device may have the message all the same.
func unanswered(r result) bool { return r.failure != nil && r.failure.Reason == message.NoAnswer }

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
func (p *Pipeline) refusedByAll(l *lane, it *item, e *spool.Entry, f *message.Failure, results []result) {
	if f.Reason == message.Unbuildable {
		p.Log.Warn("message can't be built; it is set aside", "id", it.id, "reason", f)
		p.quarantine(l, it, e, message.Unbuildable)
		return
	}
	p.fail(l, it, e, f, results)
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
	p.tell(plugin.Step{Name: plugin.StepWaiting, Message: e.Message, Reason: last.failure.Reason})
}

package pipeline

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

const (
	// attemptLimit is how long an attempt takes at most until its outcome is
	// noted. See plugin.Deadlines for the second.
	attemptLimit = sendWait + time.Second + forkGrace
	maxStrangers = 10_000 // reports that are about no message we know

	// Messages whose report is expected and that stay in memory.
	maxReady     = 10_000
	maxReadySize = 4 << 10 // octets
)

// reports are the messages whose next hop is responsible and says later what
// became of them. Each is in the spool, whose limit bounds them.
type reports struct {
	held atomic.Int64 // messages

	mu     sync.Mutex
	byID   map[message.ID]*handedOver
	byPeer map[peerName]*handedOver
	// strangers are the names that were reported and that nobody knew, by when
	// that was first.
	strangers map[peerName]time.Time
}

// handedOver is a message whose report is expected.
type handedOver struct {
	it     *item
	partly bool // it waits until its other parts can be sent
	ending bool // a report of it, or its end without one, is being written
}

// peerName is a message as the peer of an instance calls it.
type peerName struct{ transport, id string }

func (r *reports) init() {
	r.byID = map[message.ID]*handedOver{}
	r.byPeer = map[peerName]*handedOver{}
	r.strangers = map[peerName]time.Time{}
}

// expect waits for the reports of a message that was handed over, or of which some
// parts were taken.
func (r *reports) expect(it *item) {
	if len(it.state.Deliveries) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &handedOver{it: it, partly: !it.state.HandedOver}
	for i := range it.state.Deliveries {
		d := &it.state.Deliveries[i]
		if !it.state.awaits(d) {
			continue
		}
		for _, part := range d.Parts {
			r.byPeer[peerName{d.Transport, part.PeerID}] = h
		}
	}
	if !h.partly {
		r.byID[it.id] = h
		r.held.Store(int64(len(r.byID)))
	}
}

// forget is for a message that has ended, or goes another way.
func (r *reports) forget(it *item) {
	if len(it.state.Deliveries) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, it.id)
	for _, d := range it.state.Deliveries {
		for _, part := range d.Parts {
			name := peerName{d.Transport, part.PeerID}
			if h := r.byPeer[name]; h != nil && h.it == it { // a peer may use a name twice
				delete(r.byPeer, name)
			}
		}
	}
	r.held.Store(int64(len(r.byID)))
}

// claim lets the caller alone end a message; release takes that back.
func (r *reports) claim(h *handedOver) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !h.ending
	h.ending = true
	return first
}

func (r *reports) release(h *handedOver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.ending = false
}

// handOver keeps a message until its report comes. x.charge is for the hand-over;
// nil: that costs nothing. done, which may be nil, is told once that is on disk.
func (p *Pipeline) handOver(it *item, e *spool.Entry, by result, x ending, done func(error)) {
	p.tell(plugin.Step{Name: plugin.StepHandedOver, Message: e.Message, Transport: by.route.Transport})
	it.payload = e // most reports come soon, and needn't read it back
	if it.size > maxReadySize || p.reports.held.Load() >= maxReady {
		it.payload = nil
	}
	p.reports.forget(it) // what it went to in part before counts no more
	it.state.HandedOver = true
	it.state.tookAll(by)
	f := spool.Fate{ID: it.id, State: it.state.State, Record: x.charge}
	if it.keyed {
		seen := it.seen(plugin.Outcome{State: plugin.OutcomeDelivered})
		p.remember(seen)
		seen.Noted = time.Now()
		f.Seen = &seen
	}
	p.Spool.MoveWith(f, x.also, p.settleWhenMoved(x.charge, done))
	p.reports.expect(it) // only now: what a report writes comes behind
}

// Report notes what became of a part, and ends the message with the last one that
// arrives, or the first one that doesn't. See plugin.Gate.
func (p *Pipeline) Report(ctx context.Context, transport, peerID string, s plugin.Status) error {
	name := peerName{transport, peerID}
	underWay := p.sends[transport].Load() > 0 // before the look: the one that it is about may be noted meanwhile
	h := p.reports.find(name)
	if h == nil {
		return p.reports.unknown(name, underWay, time.Now())
	}
	if h.partly {
		return written(ctx, func(done func(error)) error { return p.partReported(h.it, name, s, done) })
	}
	x := ending{state: spool.StateDelivered, transport: transport, at: time.Now()}
	if !s.Delivered {
		x.state, x.failure = spool.StateFailed, &message.Failure{Reason: cmp.Or(s.Reason, message.Undelivered)}
		p.Log.Debug("message failed after it was handed over", "transport", transport, "id", h.it.id, "reason", s.Reason)
	}
	return written(ctx, func(done func(error)) error {
		if s.Delivered && !p.partArrived(h, name, done) {
			return nil
		}
		return p.endHandedOver(ctx, h, x, done)
	})
}

func (r *reports) find(name peerName) *handedOver {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byPeer[name]
}

// unknown answers a report that is about no message we know. While attempts are
// under way it may have overtaken the receipt of one of these; once all that
// were when it first came must have ended, nobody waits for it.
func (r *reports) unknown(name peerName, underWay bool, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	since, again := r.strangers[name]
	if !underWay || again && now.Sub(since) > attemptLimit {
		delete(r.strangers, name)
		return nil
	}
	if !again {
		r.makeRoom()
		r.strangers[name] = now
	}
	return message.FailForNow(message.Unavailable, "attempts are under way, and it may be about one of these")
}

// makeRoom forgets some stranger if there are too many: those who say it again
// are told to try later once more.
func (r *reports) makeRoom() {
	for name := range r.strangers {
		if len(r.strangers) < maxStrangers {
			return
		}
		delete(r.strangers, name)
	}
}

// endHandedOver writes the end of a message that was handed over. An error: it
// isn't being written, and done isn't told.
func (p *Pipeline) endHandedOver(ctx context.Context, h *handedOver, x ending, done func(error)) error {
	if !p.reports.claim(h) {
		return message.FailForNow(message.StorageDown, "its report is being noted")
	}
	e := h.it.payload
	if e == nil {
		var err error
		if e, err = p.Spool.Load(ctx, h.it.id); err != nil {
			p.reports.release(h)
			return message.AsFailure(err)
		}
	}
	if e == nil {
		p.reports.forget(h.it)
		done(nil)
		return nil
	}
	if x.state == spool.StateFailed && h.it.state.mayFallBack(e, x.reason()) && e.Expiry.After(x.at) {
		p.fallBackLater(h, e, x, done)
		return nil
	}
	x.results = reported(h.it, x)
	x.unwrapped = h.it.state.tookUnwrapped()
	x.charge = settlement(h.it, e, x, x.state == spool.StateDelivered)
	p.end(h.it, e, x, func(err error) {
		if err == nil {
			p.reports.forget(h.it)
		}
		done(err)
	})
	return nil
}

// fallBackLater sends a message that the next hop has reported as failed by its
// plan's fallback, once that is on disk.
func (p *Pipeline) fallBackLater(h *handedOver, e *spool.Entry, x ending, done func(error)) {
	it := h.it
	p.reports.forget(it)
	it.state.note(reported(it, x))
	it.state.HandedOver = false
	it.state.Attempts++ // which was the hand-over
	it.payload = e
	p.lanes.rename(it, p.pairOf(e, wayOf(e, true)))
	p.fallBack(it, x.reason(), func(err error) {
		if err == nil { // else this node is no longer the active one
			p.lanes.bringBack(it)
		}
		done(err)
	})
}

// reported is what has become of the parts that were handed over.
func reported(it *item, x ending) (results []result) {
	for _, d := range it.state.Deliveries {
		if len(d.Parts) == 0 || !it.state.awaits(&d) {
			continue
		}
		r := result{target: target{route: plugin.Route{Transport: d.Transport}, device: d.Device}}
		r.receipt.Final = x.state == spool.StateDelivered
		if x.state == spool.StateFailed {
			r.failure = x.failure
		}
		results = append(results, r)
	}
	return results
}

// expireReports ends the messages whose report is overdue.
func (p *Pipeline) expireReports(now time.Time) {
	for _, h := range p.reports.overdue(now, sweepPage) {
		x := ending{state: spool.StateHandedOver, at: now, failure: &message.Failure{Reason: message.NoAnswer}}
		p.sweepFailed(p.endHandedOver(p.ctx, h, x, func(error) {}))
	}
}

// overdue returns up to n messages whose report has not come in time.
func (r *reports) overdue(now time.Time, n int) (overdue []*handedOver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.byID {
		if len(overdue) == n {
			break
		}
		if !h.ending && !h.it.expiry.Add(receiptWait).After(now) {
			overdue = append(overdue, h)
		}
	}
	return overdue
}

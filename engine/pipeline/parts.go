package pipeline

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// took notes the parts that were taken in attempts that failed, and tells whether
// there are any.
func (d *deliveries) took(results []result) (some bool) {
	for _, r := range results {
		if r.failure == nil || len(r.receipt.Progress) == 0 {
			continue
		}
		o := d.Delivery(r.route.Transport, r.device)
		o.Progress = bytes.Clone(r.receipt.Progress)
		name(o, r.receipt.PeerIDs)
		some = true
	}
	return some
}

// tookAll notes that all of the message was taken.
func (d *deliveries) tookAll(by result) {
	o := d.Delivery(by.route.Transport, by.device)
	o.Progress, o.Unknown, o.Unwrapped = nil, false, by.receipt.Unwrapped
	name(o, by.receipt.PeerIDs)
}

// name notes the names of parts, each once: a peer that has one name for several
// parts says once what became of them.
func name(o *spool.Delivery, peerIDs []string) {
	for _, id := range peerIDs {
		same := func(part spool.Part) bool { return part.PeerID == id }
		if len(o.Parts) < plugin.MaxParts && !slices.ContainsFunc(o.Parts, same) {
			o.Parts = append(o.Parts, spool.Part{PeerID: id})
		}
	}
}

// unreported is how many of the parts that went earlier aren't reported yet.
func (d *deliveries) unreported(by result) (n int) {
	if o := d.of(by.route.Transport, by.device); o != nil {
		for _, part := range o.Parts {
			if !part.Reported {
				n++
			}
		}
	}
	return n
}

// awaits tells whether what is reported of a device's parts counts: of the device
// that the message was handed over to, or, while it waits, of those that have
// taken some of it.
func (d *deliveries) awaits(o *spool.Delivery) bool {
	return o.Refused == "" && (len(o.Progress) == 0) == d.HandedOver
}

// part returns the part that a peer calls by a name, with its delivery; nil: there
// is none of which a report counts.
func (d *deliveries) part(name peerName) (*spool.Delivery, *spool.Part) {
	for i := range d.Deliveries {
		o := &d.Deliveries[i]
		if o.Transport != name.transport || !d.awaits(o) {
			continue
		}
		for j := range o.Parts {
			if part := &o.Parts[j]; part.PeerID == name.id {
				return o, part
			}
		}
	}
	return nil, nil
}

// partly tells whether a next hop has some of its parts.
func (d *deliveries) partly() bool {
	return slices.ContainsFunc(d.Deliveries, func(o spool.Delivery) bool { return len(o.Progress) > 0 })
}

// arrived notes that a part has, and tells whether all of its device's have.
func (d *deliveries) arrived(name peerName) (all bool) {
	o, part := d.part(name)
	if part == nil {
		return false
	}
	part.Reported = true
	return !slices.ContainsFunc(o.Parts, func(part spool.Part) bool { return !part.Reported })
}

// abandon forgets what devices have taken in part: the message goes another way.
func (d *deliveries) abandon() {
	for i := range d.Deliveries {
		if o := &d.Deliveries[i]; len(o.Progress) > 0 {
			o.Parts, o.Progress = nil, nil
		}
	}
}

// again lets devices have another attempt that have refused for a reason.
func (d *deliveries) again(why message.Reason) {
	for i := range d.Deliveries {
		if o := &d.Deliveries[i]; o.Refused == why {
			o.Refused = ""
		}
	}
}

// partArrived notes that a part of a message that was handed over has arrived.
// last: it was the last one, and done isn't told.
func (p *Pipeline) partArrived(h *handedOver, name peerName, done func(error)) (last bool) {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	if h.ending || h.it.state.arrived(name) {
		return true
	}
	p.Spool.Move(spool.Fate{ID: h.it.id, State: h.it.state.State}, done)
	return false
}

// partReported notes what became of a part of a message that waits until its other
// parts can be sent. Where it is lost, so is the message at this device: its next
// turn comes at once. An error: an attempt is under way.
func (p *Pipeline) partReported(it *item, name peerName, s plugin.Status, done func(error)) error {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	l, rests := p.lanes.restsIn(it)
	if !rests {
		return message.FailForNow(message.Unavailable, "an attempt at the rest of the message is under way")
	}
	o, part := it.state.part(name)
	switch {
	case part == nil: // it goes another way by now
		done(nil)
		return nil
	case s.Delivered:
		part.Reported = true
	default:
		o.Refused = cmp.Or(s.Reason, message.Undelivered)
		it.next = time.Time{}
		if l != nil && !l.active {
			p.lanes.activate(l)
		}
	}
	p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, done)
	return nil
}

// restsIn returns the lane in which a message rests; nil: in quarantine. The lock
// is held.
func (ls *lanes) restsIn(it *item) (l *lane, rests bool) {
	if ls.quarantined[it.id] == it {
		return nil, true
	}
	l = ls.byPair[it.pair]
	return l, l != nil && l.atWork != it && l.find(func(o *item) bool { return o == it }) != nil
}

// rename names the lane in which a message belongs that isn't in any.
func (ls *lanes) rename(it *item, to pair) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	it.pair = to
}

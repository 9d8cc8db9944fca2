package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/spool"
)

// deliveries is what has happened to a message at its devices.
type deliveries struct{ spool.State }

// of is what is noted of a device; nil: nothing.
func (d *deliveries) of(transport, device string) *spool.Delivery {
	for i := range d.Deliveries {
		if o := &d.Deliveries[i]; o.Transport == transport && o.Device == device {
			return o
		}
	}
	return nil
}

// mayHaveIt tells whether a device may have the message that didn't answer for
// good: it gets no other attempt.
func (d *deliveries) mayHaveIt() bool {
	return slices.ContainsFunc(d.Deliveries, func(o spool.Delivery) bool { return o.Refused == message.NoAnswer })
}

// handedOver tells whether a next hop has taken all of the message that was to
// report, whatever it has reported since.
func (d *deliveries) handedOver() bool {
	return slices.ContainsFunc(d.Deliveries, func(o spool.Delivery) bool { return len(o.Parts) > 0 && len(o.Progress) == 0 })
}

// note records what the devices said. A device has refused for good when every
// contact of its that was tried has.
func (d *deliveries) note(results []result) {
	for _, r := range results {
		d.noteUnknown(r)
		if r.failure == nil || r.failure.Temporary {
			continue
		}
		same := func(o result) bool {
			return o.route.Transport == r.route.Transport && o.device == r.device && o.failure != nil && o.failure.Temporary
		}
		if !slices.ContainsFunc(results, same) {
			d.Delivery(r.route.Transport, r.device).Refused = r.failure.Reason
		}
	}
}

// noteUnknown notes that an attempt wasn't answered, until a later one is. One for
// which there was no way doesn't tell.
func (d *deliveries) noteUnknown(r result) {
	if unanswered(r) {
		o := d.Delivery(r.route.Transport, r.device)
		o.Unknown, o.Unwrapped = true, r.receipt.Unwrapped
		return
	}
	if o := d.of(r.route.Transport, r.device); o != nil && !r.unreachable() {
		o.Unknown = false
	}
}

// unwrapped tells whether all that have taken the message now, or may have it since
// an attempt, got what is in a message/cpim and not that itself: none of their
// clients notifies its sender.
func (d *deliveries) unwrapped(results []result) bool {
	for i := range results {
		if r := &results[i]; (r.failure == nil || unanswered(*r)) && !r.receipt.Unwrapped {
			return false
		}
	}
	return !slices.ContainsFunc(d.Deliveries, func(o spool.Delivery) bool {
		return o.Unknown && !o.Unwrapped && !slices.ContainsFunc(results, func(r result) bool { return r.isOf(&o) && !r.unreachable() })
	})
}

// tookUnwrapped is what unwrapped told when the message was handed over.
func (d *deliveries) tookUnwrapped() bool {
	return slices.ContainsFunc(d.Deliveries, func(o spool.Delivery) bool { return len(o.Parts) > 0 && d.awaits(&o) && o.Unwrapped })
}

// departs notes an attempt and gives it a context that a registration ends.
func (ls *lanes) departs(ctx context.Context, r *recipient, now time.Time) (context.Context, *flight) {
	ctx, cancel := context.WithCancel(ctx)
	f := &flight{began: now, cancel: cancel}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	r.flights[f] = true
	return ctx, f
}

// lands ends what departs began.
func (ls *lanes) lands(r *recipient, f *flight) {
	f.cancel()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(r.flights, f)
}

// sent counts the requests to a contact that are unanswered.
func (ls *lanes) sent(r *recipient, contact string, n int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	r.inFlight[contact] += n
	if r.inFlight[contact] > 0 {
		return
	}
	delete(r.inFlight, contact)
	if len(r.lanes) == 0 && len(r.inFlight) == 0 && ls.recipients[r.name] == r {
		delete(ls.recipients, r.name)
	}
}

// silent tells whether a contact owes an answer to an earlier message whose
// lane has gone on without it.
func (ls *lanes) silent(r *recipient, contact string) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return r.inFlight[contact] > 0
}

package pipeline

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// sendWait bounds one attempt, at all devices that it is made at. It is longer than
// SIP's 64*T1 of 32 s (RFC 3261 §17.1.2.2), so that a transport's own limit comes
// first.
const sendWait = 40 * time.Second

// maxCalls bounds the attempts at one instance that are under way: a next hop
// that is slow leaves workers to the others.
const (
	maxCalls     = maxWorkers / 4 * 3
	crowdedPause = 5 * time.Second
)

// errCrowded is the cause of a failure that is this node's own.
var errCrowded = errors.New("too many attempts are under way")

// shot is what goes to the targets of one attempt.
type shot struct {
	message  *message.Message // as peers get it
	to       *recipient
	number   int // of the attempt
	fallback bool
	until    time.Time // see plugin.Route
	text     plugin.PlanText
	// named is the message by whose name peers know it: another one's, for a copy.
	named message.ID
	// repeats: what isn't answered may be tried again, so a registration may end it
	// before it is. Where the plan has no other attempt for that, it had better be.
	repeats bool
}

// attempt is one at one target: over the first of its ways that isn't gone.
func (p *Pipeline) attempt(ctx context.Context, s shot, t target) result {
	var unreached []string
	r := p.try(ctx, s, t)
	for _, other := range t.others {
		if !r.unreachable() {
			break
		}
		unreached = append(unreached, r.route.Transport)
		r = p.try(ctx, s, other)
	}
	if r.unreachable() {
		unreached = append(unreached, r.route.Transport)
	}
	r.unreached = unreached
	return r
}

// try is one call of a transport. One that panics is as good as a message that
// can't be built.
func (p *Pipeline) try(ctx context.Context, s shot, t target) (r result) {
	t.route.Reference = p.reference(s.named, t.route.Transport, t.device, s.fallback)
	t.route.Until, t.route.Text = s.until, s.text
	r.target = t
	began := time.Now()
	defer p.attempted(s, &r, began)
	defer func() {
		if cause := recover(); cause != nil {
			p.Log.Error("transport panicked", "transport", t.route.Transport, "id", s.message.ID, "reason", cause, "stack", string(debug.Stack()))
			r.failure = message.Fail(message.Unbuildable, "panic")
		}
	}()
	underWay, calls := p.sends[t.route.Transport], p.calls[t.route.Transport]
	underWay.Add(1)
	defer underWay.Add(-1)
	defer calls.Add(-1)
	if calls.Add(1) > maxCalls {
		r.failure = &message.Failure{Reason: message.Overloaded, Temporary: true, RetryAfter: crowdedPause, Err: errCrowded}
		return r
	}
	if s.repeats {
		var f *flight
		ctx, f = p.lanes.departs(ctx, s.to, began)
		defer p.lanes.lands(s.to, f)
	}
	receipt, err := t.door.Send(ctx, s.message, t.route)
	r.receipt = receipt
	if err != nil {
		r.failure = message.AsFailure(err)
	}
	p.bound(&r)
	return r
}

// bound drops a receipt that is out of bounds. Without one an attempt that failed
// begins anew the next time, at the same next hop: what it has of the message
// isn't known any more.
func (p *Pipeline) bound(r *result) {
	err := r.receipt.Validate(r.failure != nil)
	if err == nil {
		return
	}
	p.Log.Error("transport returned a receipt that is out of bounds", "transport", r.route.Transport, "reason", err)
	r.receipt = plugin.Receipt{Final: r.receipt.Final}
	if f := r.failure; f != nil && f.Temporary && f.Reason != message.NoAnswer {
		r.failure = message.FailForNow(message.Internal, "%w, after %w", err, f)
	}
}

// attempted counts an attempt and tells those who watch.
func (p *Pipeline) attempted(s shot, r *result, began time.Time) {
	ended := time.Now()
	p.meter.attempted(r.route.Transport, ended.Sub(began), r.failure)
	p.tell(plugin.Step{
		Name: plugin.StepAttempted, Message: s.message, Began: began, Ended: ended, Attempt: s.number,
		Call: r.route.Reference, Transport: r.route.Transport, Peer: r.peer(), Reason: r.reason(),
	})
}

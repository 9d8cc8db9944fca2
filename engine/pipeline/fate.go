package pipeline

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// judge derives a message's fate from what its devices said.
func (p *Pipeline) judge(l *lane, t turn, e *spool.Entry, results []result) {
	it := t.it
	p.weigh(&e.Plan.Retry, results)
	partly := it.onDisk && it.state.took(results)
	if partly {
		p.reports.expect(it)
	}
	var taken, pending *result
	for i := range results {
		r := &results[i]
		switch {
		case r.failure == nil:
			if taken == nil || r.receipt.Final {
				taken = r
			}
		case r.failure.Temporary && (pending == nil || !throttled(pending.failure)):
			pending = r
		}
	}
	switch {
	case taken != nil:
		p.delivered(l, t, e, *taken, results)
	case p.ctx.Err() != nil: // the node stops: the message is on disk as it was
		if partly {
			p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, nil)
		}
	case pending == nil && p.othersLeft(l, e, it, results):
		p.lanes.retry(l, t, time.Now(), time.Time{})
	case pending == nil:
		p.giveUp(l, t, e, gravest(results), results)
	default:
		it.state.note(results)
		it.mayRepeat = it.mayRepeat || slices.ContainsFunc(results, unanswered)
		p.tryLater(l, t, e, *pending, results, partly)
	}
}

// throttled tells whether the next hop wants less of everything.
func throttled(f *message.Failure) bool { return f.Temporary && f.Reason == message.Overloaded }

// weigh decides which failures are worth another attempt, where the plan has a
// say in that: from then on their Temporary tells.
func (p *Pipeline) weigh(plan *plugin.PlanRetry, results []result) {
	stopping := p.draining.Load()
	for i := range results {
		f := results[i].failure
		if f == nil || stopping && f.Temporary && f.Reason != message.NoAnswer {
			continue // nothing is given up because this node stops
		}
		if again := worthwhile(plan, f); again != f.Temporary {
			weighed := *f
			weighed.Temporary = again
			results[i].failure = &weighed
		}
	}
}

// worthwhile tells whether a failure is to be followed by another attempt. What
// can't be built is for the operator to see, whatever the plan says, and nothing is
// given up because this node has too much to do.
func worthwhile(plan *plugin.PlanRetry, f *message.Failure) bool {
	switch {
	case f.Reason == message.Unbuildable, errors.Is(f, errCrowded):
		return f.Temporary
	case f.Reason == message.NoAnswer && !repeatsUnknown(plan):
		return false
	case len(plan.Reasons) > 0:
		return slices.Contains(plan.Reasons, f.Reason)
	}
	return f.Temporary
}

// repeatsUnknown tells whether a device may get a message twice.
func repeatsUnknown(plan *plugin.PlanRetry) bool {
	return plan.Unknown != plugin.UnknownFail && plan.Unknown != plugin.UnknownFallback
}

// unanswered tells whether a device may have the message all the same.
func unanswered(r result) bool { return r.failure != nil && r.failure.Reason == message.NoAnswer }

// othersLeft tells whether there are others than those that have just refused for
// good: a route that charging named, or devices that were left out. If so, who has
// refused is noted.
func (p *Pipeline) othersLeft(l *lane, e *spool.Entry, it *item, results []result) bool {
	if !repeatsUnknown(&e.Plan.Retry) && slices.ContainsFunc(results, unanswered) {
		return false
	}
	before := slices.Clone(it.state.Deliveries)
	it.state.note(results)
	targets, _ := p.targets(l, e, it, wayOf(e, it.state.Fallback), time.Now())
	if len(targets) == 0 {
		it.state.Deliveries = before
	}
	return len(targets) > 0
}

// gravest is the refusal that the sender gets: that a device may have the message
// all the same, else what one said rather than that we couldn't build the message
// for it.
func gravest(results []result) *message.Failure {
	if i := slices.IndexFunc(results, unanswered); i >= 0 {
		return results[i].failure
	}
	for _, r := range results {
		if r.failure.Reason != message.Unbuildable {
			return r.failure
		}
	}
	return results[0].failure
}

// giveUp is for a message that every device has refused for good, or that was
// tried as often as its plan allows.
func (p *Pipeline) giveUp(l *lane, t turn, e *spool.Entry, f *message.Failure, results []result) {
	switch {
	case p.fallsBack(l, t, e, f, results):
	case f.Reason == message.Unbuildable:
		p.Log.Warn("message can't be built; it is set aside", "id", t.it.id, "reason", f)
		p.quarantine(l, t.it, e, message.Unbuildable)
	default:
		p.fail(l, t.it, e, f, results)
	}
}

// fallsBack sends a message that would fail by its plan's fallback, and tells
// whether there is one for it. It begins at once, with attempts of its own.
func (p *Pipeline) fallsBack(l *lane, t turn, e *spool.Entry, f *message.Failure, results []result) bool {
	it := t.it
	if !it.state.mayFallBack(e, f.Reason) {
		return false
	}
	it.state.note(results)
	if len(results) > 0 {
		it.state.Attempts++
	}
	p.fallBack(it, f.Reason, nil)
	switch to := p.pairOf(e, wayOf(e, true)); {
	case to != it.pair:
		p.lanes.move(l, it, to)
	case len(results) == 0:
		p.send(l, t, e) // its lane may have no turn for it
	default:
		p.lanes.retry(l, t, time.Now(), time.Time{})
	}
	return true
}

// fallBack notes that a message goes on by its plan's fallback. done, which may be
// nil, is told once that is on disk, if it is to be.
func (p *Pipeline) fallBack(it *item, why message.Reason, done func(error)) {
	p.meter.fallbacks.Inc()
	p.Log.Debug("message goes on by the fallback of its plan", "id", it.id, "reason", why)
	it.state.Fallback, it.state.Earlier = true, it.state.Attempts
	p.reports.forget(it)
	it.state.abandon()
	if it.onDisk {
		p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, done)
	}
}

// mayFallBack tells whether a plan has a fallback for a failure. Where a device
// may have the message, it is for the plan's retry.unknown to say.
func (d *deliveries) mayFallBack(e *spool.Entry, why message.Reason) bool {
	fallback := &e.Plan.Fallback
	if d.Fallback || len(fallback.Transports) == 0 {
		return false
	}
	unknown := why == message.NoAnswer || d.mayHaveIt()
	switch {
	case unknown && e.Plan.Retry.Unknown == plugin.UnknownFail:
		return false
	case unknown && e.Plan.Retry.Unknown == plugin.UnknownFallback:
		return true
	}
	return len(fallback.Reasons) == 0 || slices.Contains(fallback.Reasons, why)
}

// tryLater lets a message wait for its next attempt, if it may have one. Where the
// next hop wants less that one doesn't count, and is noted only if parts were taken.
func (p *Pipeline) tryLater(l *lane, t turn, e *spool.Entry, last result, results []result, partly bool) {
	it := t.it
	if it.transient {
		p.drop(l, t, e, last.failure, results)
		return
	}
	retry, made, uncounted := &e.Plan.Retry, it.state.Attempts-it.state.Earlier, throttled(last.failure)
	if retry.Attempts > 0 && made+1 >= retry.Attempts && !uncounted && !p.draining.Load() {
		p.giveUp(l, t, e, last.failure, results)
		return
	}
	pause := retry.Backoff[min(made, len(retry.Backoff)-1)]
	it.state.Attempts++
	if uncounted {
		it.state.Earlier++
		pause = cmp.Or(last.failure.RetryAfter, pause)
	}
	if partly || !uncounted {
		p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, nil)
	}
	p.Log.Debug("attempt failed", "transport", last.route.Transport, "id", it.id, "attempt", it.state.Attempts, "reason", last.failure)
	now := time.Now()
	p.lanes.later(l, t, last, now, now.Add(max(pause, last.failure.RetryAfter, plugin.MinPause)))
	p.tell(plugin.Step{Name: plugin.StepWaiting, Message: e.Message, Reason: last.failure.Reason})
}

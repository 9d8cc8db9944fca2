package pipeline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// ticket is plugin.Ticket.
type ticket struct {
	accepted chan struct{} // closed once answer or refusal is set
	answer   plugin.Answer
	refusal  *message.Failure

	first    chan struct{} // closed once outcome is set
	outcome  plugin.Outcome
	resolved atomic.Bool
}

func newTicket() *ticket {
	return &ticket{accepted: make(chan struct{}), first: make(chan struct{})}
}

// Accepted is plugin.Ticket.
func (t *ticket) Accepted(ctx context.Context) (plugin.Answer, error) {
	select {
	case <-t.accepted:
	case <-ctx.Done():
		return plugin.Answer{}, message.FailForNow(message.Overloaded, "no decision in time: %w: %w", ctx.Err(), plugin.ErrUnknown)
	}
	if t.refusal != nil {
		return plugin.Answer{}, t.refusal
	}
	return t.answer, nil
}

// First is plugin.Ticket.
func (t *ticket) First(ctx context.Context) plugin.Outcome {
	select {
	case <-t.first:
		return t.outcome
	case <-ctx.Done():
		return plugin.Outcome{State: plugin.OutcomeWaiting}
	}
}

func (t *ticket) accept(a plugin.Answer) {
	t.answer = a
	close(t.accepted)
}

func (t *ticket) refuse(f *message.Failure) {
	t.refusal = f
	close(t.accepted)
}

// resolve says the first outcome; what comes later isn't the first. A nil
// ticket is that of a message whose sender has long been answered.
func (t *ticket) resolve(o plugin.Outcome) {
	if t == nil || t.resolved.Swap(true) {
		return
	}
	t.outcome = o
	close(t.first)
}

// refused is the ticket of a submission that wasn't even looked at.
func refused(f *message.Failure) *ticket {
	t := newTicket()
	t.refuse(f)
	return t
}

// repeated is the ticket of a submission whose outcome is known already.
func repeated(s spool.Seen) *ticket {
	t := newTicket()
	t.accept(plugin.Answer{ID: s.ID, PublicID: s.PublicID, Within: time.Second})
	o := plugin.Outcome{State: s.State}
	if s.State == plugin.OutcomeFailed {
		o.Failure = &message.Failure{Reason: s.Reason}
	}
	t.resolve(o)
	return t
}

// joins are the submissions whose first outcome isn't known yet. A repeat of
// one gets the same ticket.
type joins struct {
	mu   sync.Mutex
	live map[spool.Digest]*ticket
}

// join returns the ticket for a submission and whether it is a repeat's.
func (p *Pipeline) join(now time.Time, d spool.Digest) (*ticket, bool) {
	p.joins.mu.Lock()
	defer p.joins.mu.Unlock()
	if t, ok := p.joins.live[d]; ok {
		return t, true
	}
	if s, ok := p.Seen.Lookup(now, d); ok {
		return repeated(s), true
	}
	t := newTicket()
	p.joins.live[d] = t
	return t, false
}

// forget makes room for a new try: refusals aren't remembered.
func (p *Pipeline) forget(d spool.Digest) {
	p.joins.mu.Lock()
	defer p.joins.mu.Unlock()
	delete(p.joins.live, d)
}

// remember notes the outcome of a submission. Seen first, then forget, under
// the same lock as join: a repeat never falls between.
func (p *Pipeline) remember(s spool.Seen) {
	p.joins.mu.Lock()
	defer p.joins.mu.Unlock()
	p.Seen.Remember(time.Now(), s)
	delete(p.joins.live, s.Digest)
}

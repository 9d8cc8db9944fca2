package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// ErrConflict is why a change to a message can't be made now: it is being sent
// at this moment, or the next hop has it, or it has ended.
var ErrConflict = errors.New("not now")

// Show returns one message. A *message.Failure with UnknownRecipient: there is
// none, or its record was forgotten.
func (p *Pipeline) Show(ctx context.Context, id message.ID) (View, error) {
	if v, waits := p.sets.Get(id); waits { // for its other parts
		return v, nil
	}
	e, err := p.Spool.Load(ctx, id)
	if err != nil {
		return View{}, unreadable(err)
	}
	if e != nil {
		return p.view(ctx, e)
	}
	// The spool first: one that ends between the two looks is found by the second.
	ended, err := p.Spool.History(ctx, id, message.ID{}, 1)
	switch {
	case err != nil:
		return View{}, unreadable(err)
	case len(ended) == 0 || ended[0].ID != id:
		return View{}, message.Fail(message.UnknownRecipient, "there is no message %s", id)
	}
	return ended[0], nil
}

func unreadable(err error) error {
	return &message.Failure{Reason: message.StorageDown, Temporary: true, Err: err}
}

// view is a message that is on disk and has not ended.
func (p *Pipeline) view(ctx context.Context, e *spool.Entry) (View, error) {
	v := e.Summary()
	if p.lanes.show(e, &v) || p.reports.show(e, &v) {
		return v, nil
	}
	// Somebody has it at work. What it went through before is on disk.
	state, err := p.Spool.State(ctx, v.ID)
	if err != nil {
		return v, unreadable(err)
	}
	v.State, v.Attempts, v.Deliveries = spool.StateSending, state.Attempts, state.Parts()
	v.NoteSender(e, state.Fallback)
	return v, nil
}

// find looks for a message that rests in its lane or in quarantine. None: it is
// at work, or elsewhere. The lock is held.
func (ls *lanes) find(e *spool.Entry) (*lane, *item) {
	if it := ls.quarantined[e.Message.ID]; it != nil {
		return nil, it
	}
	first := ls.p.pairOf(e, wayOf(e, false))
	for _, name := range [...]pair{first, ls.p.pairOf(e, wayOf(e, true)), first.timed(e.Message.ID)} {
		l := ls.byPair[name]
		if l == nil {
			continue
		}
		if it := l.find(func(it *item) bool { return it.id == e.Message.ID }); it != nil && it != l.atWork {
			return l, it
		}
	}
	return nil, nil
}

// show fills in where a message is, if it rests.
func (ls *lanes) show(e *spool.Entry, v *View) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, it := ls.find(e)
	if it == nil {
		return false
	}
	v.State, v.Attempts, v.Reason, v.Deliveries = spool.StateWaiting, it.state.Attempts, it.state.Quarantined, it.state.Parts()
	v.NoteSender(e, it.state.Fallback)
	switch {
	case l == nil:
		v.State = spool.StateQuarantined
	case l.timed:
		v.State, v.Next = spool.StateScheduled, it.next
	case !l.offline:
		v.Next = it.next
	}
	return true
}

func (r *reports) show(e *spool.Entry, v *View) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.byID[v.ID]
	if h == nil {
		return false
	}
	v.State, v.Attempts, v.Deliveries = spool.StateHandedOver, h.it.state.Attempts+1, h.it.state.Parts()
	v.NoteSender(e, h.it.state.Fallback)
	return true
}

// Cancel ends a message that waits, is scheduled or in quarantine, and returns when
// that is on disk: it fails with reason Cancelled, and its reservation goes back. Errors:
// UnknownRecipient: there is no such message; ErrConflict: it is being sent just
// now, the next hop has it, or it has ended; else temporary. If ctx ends first
// the message is ended all the same.
func (p *Pipeline) Cancel(ctx context.Context, id message.ID) error {
	return written(ctx, func(done func(error)) error { return p.endNow(ctx, id, message.Cancelled, done) })
}

// endNow ends a message that rests, or waits for its other parts.
func (p *Pipeline) endNow(ctx context.Context, id message.ID, reason message.Reason, done func(error)) error {
	if set := p.sets.Take(id); set != nil {
		p.endIncomplete(set, reason, done)
		return nil
	}
	e, err := p.waiting(ctx, id)
	if err != nil {
		return err
	}
	return p.endResting(e, reason, done)
}

func (p *Pipeline) endResting(e *spool.Entry, reason message.Reason, done func(error)) error {
	it := p.lanes.takeOut(e, anyItem)
	if it == nil {
		return p.conflict(e.Message.ID)
	}
	p.undelivered(it, e, ending{state: spool.StateFailed, failure: &message.Failure{Reason: reason}}, done)
	return nil
}

// waiting reads a message that has not ended.
func (p *Pipeline) waiting(ctx context.Context, id message.ID) (*spool.Entry, error) {
	e, err := p.Spool.Load(ctx, id)
	if err != nil {
		return nil, unreadable(err)
	}
	if e != nil {
		return e, nil
	}
	v, err := p.Show(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case v.Ended.IsZero():
		return nil, fmt.Errorf("%w: message %s isn't whole yet", ErrConflict, id)
	}
	return nil, fmt.Errorf("%w: message %s has ended: %s", ErrConflict, id, v.State)
}

// Which messages that rest in a lane, or in quarantine, which has none.
func anyItem(*lane, *item) bool           { return true }
func notInTurn(l *lane, _ *item) bool     { return l == nil || l.timed }
func unsentInLane(l *lane, it *item) bool { return l != nil && !it.state.partly() }

// takeOut takes a message away from everybody that rests and is such a one; nil: it
// isn't.
func (ls *lanes) takeOut(e *spool.Entry, which func(*lane, *item) bool) *item {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, it := ls.find(e)
	switch {
	case it == nil || !which(l, it):
		return nil
	case l == nil:
		delete(ls.quarantined, it.id)
		ls.talks.remove(it)
		return it
	}
	ls.remove(l, it)
	switch {
	case l.active:
	case l.empty():
		ls.drop(l)
	default:
		ls.rest(l)
	}
	return it
}

func (p *Pipeline) conflict(id message.ID) error {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	if p.reports.byID[id] != nil {
		return fmt.Errorf("%w: the next hop has message %s and will report", ErrConflict, id)
	}
	return fmt.Errorf("%w: message %s is being sent", ErrConflict, id)
}

// Requeue sends a message in quarantine on its way again, and one that is scheduled
// before its time, and ends the pause of one that waits: its lane goes at once. It
// returns when that is on disk; if ctx ends first it happens all the same. Errors
// are those of Cancel.
func (p *Pipeline) Requeue(ctx context.Context, id message.ID) error {
	e, err := p.waiting(ctx, id)
	if err != nil {
		return err
	}
	if p.lanes.hurry(e) {
		p.tell(plugin.Step{Name: plugin.StepRequeued, Message: e.Message})
		return nil
	}
	it := p.lanes.takeOut(e, notInTurn)
	if it == nil {
		return p.conflict(id)
	}
	it.state.Quarantined = ""
	it.state.again(message.Unbuildable)
	it.state.Hurried = !e.Message.NotBefore.IsZero()
	it.next, it.notBefore = time.Time{}, time.Time{}
	return written(ctx, func(done func(error)) error {
		p.Spool.Move(spool.Fate{ID: id, State: it.state.State}, func(err error) {
			if err == nil { // else this node is no longer the active one
				p.tell(plugin.Step{Name: plugin.StepRequeued, Message: e.Message})
				p.lanes.bringBack(it)
			}
			done(err)
		})
		return nil
	})
}

// hurry sets the lane of a message that waits to work; false: it doesn't wait.
func (ls *lanes) hurry(e *spool.Entry) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, _ := ls.find(e)
	if l == nil || l.timed {
		return false
	}
	l.rouse()
	if !l.active {
		ls.activate(l)
	}
	return true
}

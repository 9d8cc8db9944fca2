package pipeline

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// Aside is a message in quarantine, for the operator to see.
type Aside struct {
	ID       message.ID     `json:"id"`
	Reason   message.Reason `json:"reason"`
	Attempts int            `json:"attempts"`
	Expiry   time.Time      `json:"expiry"`
}

// quarantine takes a message out of the flow: trying again would fail again,
// or take the process with it. Its reservation stands until its life is over.
func (p *Pipeline) quarantine(l *lane, it *item, reason message.Reason) {
	p.Stats.Quarantined.Add(1)
	p.lanes.finish(l, it)
	it.state.Attempts++ // so that its row of state is known to exist, see spool.State
	it.state.Quarantined = reason
	ticket := it.ticket
	it.ticket = nil
	// Whoever is told finds it in quarantine.
	defer ticket.resolve(plugin.Outcome{State: plugin.OutcomeWaiting})
	if !it.onDisk {
		p.forget(it.digest)
		return // nothing was promised, nothing is kept
	}
	it.transient = false
	it.payload = nil
	p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State}, nil)
	p.lanes.setAside(it)
}

func (ls *lanes) setAside(it *item) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.quarantined[it.id] = it
}

// Quarantined lists the messages in quarantine, the oldest first.
func (p *Pipeline) Quarantined() []Aside {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	list := make([]Aside, 0, len(p.lanes.quarantined))
	for id, it := range p.lanes.quarantined {
		list = append(list, Aside{ID: id, Reason: it.state.Quarantined, Attempts: it.state.Attempts, Expiry: it.expiry})
	}
	slices.SortFunc(list, func(a, b Aside) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
	return list
}

// Requeue puts a message from quarantine back at the end of its lane. Failure:
// UnknownRecipient if no such message is in quarantine.
func (p *Pipeline) Requeue(ctx context.Context, id message.ID) error {
	it, err := p.takeAside(id)
	if err != nil {
		return err
	}
	reason := it.state.Quarantined
	it.state.Quarantined = ""
	it.next = time.Time{}
	if err := p.written(ctx, spool.Fate{ID: id, State: it.state.State}); err != nil {
		it.state.Quarantined = reason
		p.lanes.setAside(it)
		return err
	}
	p.lanes.add(it)
	return nil
}

// Cancel ends a message in quarantine. Its reservation goes back.
func (p *Pipeline) Cancel(ctx context.Context, id message.ID) error {
	return p.endAside(ctx, id, message.Cancelled)
}

// takeAside takes one message out of quarantine.
func (p *Pipeline) takeAside(id message.ID) (*item, error) {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	it, ok := p.lanes.quarantined[id]
	if !ok {
		return nil, message.Fail(message.UnknownRecipient, "no message %s is in quarantine", id)
	}
	delete(p.lanes.quarantined, id)
	return it, nil
}

func (p *Pipeline) endAside(ctx context.Context, id message.ID, reason message.Reason) error {
	it, err := p.takeAside(id)
	if err != nil {
		return err
	}
	e, err := p.Spool.Load(ctx, id)
	if err != nil {
		p.lanes.setAside(it)
		return err
	}
	if e == nil {
		return nil
	}
	p.Stats.Failed.Add(1)
	p.ended(it, e, plugin.Outcome{State: plugin.OutcomeFailed, Failure: &message.Failure{Reason: reason}})
	return nil
}

// expireQuarantined ends those whose life is over.
func (p *Pipeline) expireQuarantined(now time.Time) {
	for _, aside := range p.Quarantined() {
		if aside.Expiry.After(now) {
			continue
		}
		if err := p.endAside(p.ctx, aside.ID, message.Expired); err != nil {
			p.Log.Warn("ending a message in quarantine failed; it will be tried again", "id", aside.ID, "reason", err)
		}
	}
}

// written writes a message's state and waits until it is on disk.
func (p *Pipeline) written(ctx context.Context, f spool.Fate) error {
	done := make(chan error, 1)
	p.Spool.Move(f, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return message.FailForNow(message.StorageDown, "the storage doesn't answer in time")
	}
}

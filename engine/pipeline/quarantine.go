package pipeline

import (
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// quarantine takes a message out of the flow: trying again would fail again,
// or take the process with it. Its reservation stands until its life is over.
// e may be nil: then it couldn't be read.
func (p *Pipeline) quarantine(l *lane, it *item, e *spool.Entry, reason message.Reason) {
	p.meter.quarantined.Inc()
	if e != nil {
		p.tell(plugin.Step{Name: plugin.StepQuarantined, Message: e.Message, Reason: reason})
	}
	p.lanes.finish(l, it)
	it.state.Attempts++                  // so that its row of state is known to exist, see spool.State
	it.state.Earlier = it.state.Attempts // when it is requeued they are counted anew
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
	ls.talks.add(it)
}

// bringBack puts a message that was set aside into its lane again. Those that
// came after it and are waiting go in their order beside it.
func (ls *lanes) bringBack(it *item) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.insert(it)
}

// move puts a message that is at work into the lane of its other way.
func (ls *lanes) move(l *lane, it *item, to pair) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.remove(l, it)
	it.pair, it.next = to, time.Time{}
	ls.insert(it)
}

func (ls *lanes) insert(it *item) {
	l := ls.append(it)
	if last := len(l.items) - 1; last > 0 {
		l.items = l.items[:last]
		l.parked = append(l.parked, it)
	}
	if l.offline {
		l.restoreOrder()
	}
	if !l.active {
		ls.activate(l)
	}
}

// expireQuarantined ends those whose life is over.
func (p *Pipeline) expireQuarantined(now time.Time) {
	for _, id := range p.lanes.expiredAside(now, sweepPage) {
		p.sweepFailed(p.endNow(p.ctx, id, message.Expired, nil))
	}
}

func (ls *lanes) expiredAside(now time.Time, n int) (ids []message.ID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for id, it := range ls.quarantined {
		if len(ids) == n {
			break
		}
		if !it.expiry.After(now) {
			ids = append(ids, id)
		}
	}
	return ids
}

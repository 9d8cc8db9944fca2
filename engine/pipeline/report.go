package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// reports are the messages whose next hop is responsible and says later what
// became of them.
type reports struct {
	mu     sync.Mutex
	byPeer map[peerName]*item
}

// peerName is a message as the peer of an instance calls it.
type peerName struct{ transport, id string }

func (r *reports) init() {
	r.byPeer = map[peerName]*item{}
}

// expect waits for the report of a message that was handed over.
func (r *reports) expect(it *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range it.state.Deliveries {
		if d.PeerID != "" {
			r.byPeer[peerName{d.Transport, d.PeerID}] = it
		}
	}
}

// handOver keeps a message until its report comes. It is charged now: what
// costs is the hand-over.
func (p *Pipeline) handOver(it *item, e *spool.Entry, by result, charge *plugin.Record) {
	if by.receipt.PeerID == "" || !it.onDisk {
		p.end(it, e, plugin.Outcome{State: plugin.OutcomeDelivered}, charge)
		return
	}
	it.payload = nil
	it.state.HandedOver = true
	it.state.Delivery(by.route.Transport, by.device).PeerID = by.receipt.PeerID
	f := spool.Fate{ID: it.id, State: it.state.State, Record: charge}
	if it.keyed {
		seen := it.seen(plugin.Outcome{State: plugin.OutcomeDelivered})
		p.remember(seen)
		f.Seen = &seen
	}
	p.reports.expect(it)
	p.Spool.Move(f, p.settleWhenMoved(charge))
}

// Report ends a message that was handed over. See plugin.Gate.
func (p *Pipeline) Report(ctx context.Context, transport, peerID string, s plugin.Status) error {
	underWay := p.sends[transport].Load()
	it, ok := p.reports.take(peerName{transport, peerID})
	if !ok && underWay > 0 {
		return message.FailForNow(message.Unavailable, "%d attempts are under way, and it may be about one of these", underWay)
	}
	if !ok {
		return nil
	}
	if !s.Delivered {
		p.Stats.Failed.Add(1)
		p.Log.Debug("message failed after it was handed over", "transport", transport, "id", it.id, "reason", s.Reason)
	}
	err := p.written(ctx, spool.Fate{ID: it.id, State: it.state.State, Final: true})
	if err != nil {
		p.reports.expect(it)
		return message.AsFailure(err)
	}
	return nil
}

func (r *reports) take(name peerName) (*item, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	it, ok := r.byPeer[name]
	delete(r.byPeer, name)
	return it, ok
}

// expireReports ends the messages whose report is overdue.
func (p *Pipeline) expireReports(now time.Time) {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	for name, it := range p.reports.byPeer {
		if it.expiry.Add(receiptWait).After(now) {
			continue
		}
		delete(p.reports.byPeer, name)
		p.Spool.Move(spool.Fate{ID: it.id, State: it.state.State, Final: true}, nil)
	}
}

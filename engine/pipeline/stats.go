package pipeline

import (
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// countedAs are the names of ends in Counts.
var countedAs = map[spool.StateName]string{
	spool.StateDelivered: "delivered", spool.StateHandedOver: "delivered", spool.StateFailed: "failed", spool.StateDiscarded: "discarded",
}

// Counts reads what has happened since the process was started, for people and
// programs.
func (c *Meter) Counts() map[string]int64 {
	counts := map[string]int64{
		"submitted": 0, "accepted": 0, "attempts": 0, "refused": 0, "policy_fails": 0, "delivered": 0, "failed": 0, "discarded": 0,
		"joined": int64(c.joined.Value()), "repeated": int64(c.repeated.Value()), "passed": int64(c.passed.Value()),
		"quarantined": int64(c.quarantined.Value()), "settled": int64(c.settled.Value()),
	}
	c.instances.each(func(_ string, d *doorMeter) {
		counts["submitted"] += int64(d.received.Value())
		counts["accepted"] += int64(d.accepted.Value())
		counts["attempts"] += int64(d.taken.Value() + d.refused.Value() + d.failed.Value())
	})
	c.ended.each(func(l endLabels, n *plugin.Counter) { counts[countedAs[l.outcome]] += int64(n.Value()) })
	c.refused.each(func(l refusalLabels, n *plugin.Counter) {
		if l.what != refusedMessages {
			return
		}
		counts["refused"] += int64(n.Value())
		if l.reason == message.PolicyFailed {
			counts["policy_fails"] += int64(n.Value())
		}
	})
	return counts
}

// Snapshot is Counts, and what is in memory now.
func (p *Pipeline) Snapshot() map[string]int64 {
	counts := p.meter.Counts()
	awake, asleep := p.Locations.Count()
	counts["waiting"], counts["bindings"], counts["bindings_asleep"] = int64(p.held()), int64(awake), int64(asleep)
	return counts
}

// laneCounts is how much is in the lanes.
type laneCounts struct{ messages, quarantined, lanes, asleep int }

func (ls *lanes) counts() laneCounts {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return laneCounts{messages: ls.count, quarantined: len(ls.quarantined), lanes: len(ls.byPair), asleep: len(ls.asleep)}
}

package pipeline

import (
	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// Snapshot reads the counters and what is in memory now, for people and programs.
func (p *Pipeline) Snapshot() map[string]int64 {
	m := p.meter
	doors := func(counters ...func(*doorMeter) *plugin.Counter) (n int64) {
		for _, door := range m.doors {
			for _, counter := range counters {
				n += int64(counter(door).Value())
			}
		}
		return n
	}
	ended := func(outcome spool.StateName) int64 {
		return int64(m.ended.sum(func(l endLabels) bool { return l.outcome == outcome }))
	}
	refused := func(reason message.Reason) int64 {
		return int64(m.refused.sum(func(l refusalLabels) bool {
			return l.what == refusedMessages && (reason == "" || reason == l.reason)
		}))
	}
	return map[string]int64{
		"submitted": doors(func(d *doorMeter) *plugin.Counter { return d.received }),
		"accepted":  doors(func(d *doorMeter) *plugin.Counter { return d.accepted }),
		"attempts": doors(func(d *doorMeter) *plugin.Counter { return d.taken }, func(d *doorMeter) *plugin.Counter { return d.refused },
			func(d *doorMeter) *plugin.Counter { return d.failed }),
		"joined": int64(m.joined.Value()), "refused": refused(""), "policy_fails": refused(message.PolicyFailed),
		"delivered": ended(spool.StateDelivered) + ended(spool.StateHandedOver), "failed": ended(spool.StateFailed), "discarded": ended(spool.StateDiscarded),
		"repeated": int64(m.repeated.Value()), "passed": int64(m.passed.Value()),
		"quarantined": int64(m.quarantined.Value()), "settled": int64(m.settled.Value()),
		"waiting": int64(p.held()), "bindings": int64(p.Locations.Count()),
	}
}

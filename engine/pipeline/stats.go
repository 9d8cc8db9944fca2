package pipeline

import "sync/atomic"

// Stats counts what happens, since this node became active.
type Stats struct {
	Submitted   atomic.Int64 // handed in by doors
	Joined      atomic.Int64 // repeats of a submission, which joined the first one's outcome
	Refused     atomic.Int64 // not accepted
	Accepted    atomic.Int64
	Delivered   atomic.Int64
	Failed      atomic.Int64 // accepted, and never to be delivered
	Discarded   atomic.Int64 // by the policy, or typing notices nobody was there for
	Attempts    atomic.Int64 // at delivering
	Repeated    atomic.Int64 // attempts at a message that was attempted before
	Passed      atomic.Int64 // lanes that passed a message which couldn't go
	Quarantined atomic.Int64
	Settled     atomic.Int64
	PolicyFails atomic.Int64 // messages without a verdict
}

// Snapshot reads the counters and what is in memory now, for people and programs.
func (p *Pipeline) Snapshot() map[string]int64 {
	s := &p.Stats
	return map[string]int64{
		"submitted": s.Submitted.Load(), "joined": s.Joined.Load(), "refused": s.Refused.Load(),
		"accepted": s.Accepted.Load(), "delivered": s.Delivered.Load(), "failed": s.Failed.Load(),
		"discarded": s.Discarded.Load(), "attempts": s.Attempts.Load(), "repeated": s.Repeated.Load(),
		"passed": s.Passed.Load(), "quarantined": s.Quarantined.Load(), "settled": s.Settled.Load(),
		"policy_fails": s.PolicyFails.Load(),
		"waiting":      int64(p.lanes.waiting()), "bindings": int64(p.Locations.Count()),
	}
}

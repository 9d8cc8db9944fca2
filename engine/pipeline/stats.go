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

// Snapshot is Stats at one moment, for people and programs.
type Snapshot struct {
	Submitted   int64 `json:"submitted"`
	Joined      int64 `json:"joined"`
	Refused     int64 `json:"refused"`
	Accepted    int64 `json:"accepted"`
	Delivered   int64 `json:"delivered"`
	Failed      int64 `json:"failed"`
	Discarded   int64 `json:"discarded"`
	Attempts    int64 `json:"attempts"`
	Repeated    int64 `json:"repeated"`
	Passed      int64 `json:"passed"`
	Quarantined int64 `json:"quarantined"`
	Settled     int64 `json:"settled"`
	PolicyFails int64 `json:"policy_fails"`
	Waiting     int   `json:"waiting"`
	Bindings    int   `json:"bindings"`
}

// Snapshot reads the counters and what is in memory now.
func (p *Pipeline) Snapshot() Snapshot {
	s := &p.Stats
	return Snapshot{
		Submitted: s.Submitted.Load(), Joined: s.Joined.Load(), Refused: s.Refused.Load(),
		Accepted: s.Accepted.Load(), Delivered: s.Delivered.Load(), Failed: s.Failed.Load(),
		Discarded: s.Discarded.Load(), Attempts: s.Attempts.Load(), Repeated: s.Repeated.Load(),
		Passed: s.Passed.Load(), Quarantined: s.Quarantined.Load(), Settled: s.Settled.Load(),
		PolicyFails: s.PolicyFails.Load(),
		Waiting:     p.lanes.waiting(), Bindings: p.Locations.Count(),
	}
}

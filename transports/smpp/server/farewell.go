package server

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// An ESME whose node is no longer the active one submits in vain and hears of
// nothing. So it is unbound: it connects anew, and finds who is active.
const (
	// watchEvery is how often the door looks whether its node is active.
	watchEvery = 250 * time.Millisecond
	// stayFor is how long ESMEs stay with a node that says it is a standby: it may be
	// the active one again.
	stayFor = time.Second
	// stayWithoutStorage is how long they stay with one whose storage fails: most often
	// it fails for all nodes, and they may as well wait here.
	stayWithoutStorage = 30 * time.Second
	// leaveWithin bounds the end of their sessions.
	leaveWithin = 10 * time.Second
)

// farewell is how the ESMEs of a node leave that isn't the active one.
type farewell struct {
	reason message.Reason // why it isn't; empty: it is
	since  time.Time      // that reason
}

// due tells whether ESMEs are to leave now.
func (f *farewell) due(inactive *message.Failure, now time.Time) bool {
	stay, ends := patience(inactive)
	if !ends {
		*f = farewell{}
		return false
	}
	if inactive.Reason != f.reason {
		*f = farewell{reason: inactive.Reason, since: now}
	}
	return now.Sub(f.since) >= stay
}

// patience is how long ESMEs stay with a node that isn't active. False: they
// needn't leave.
func patience(inactive *message.Failure) (stay time.Duration, ends bool) {
	switch {
	case inactive == nil:
		return 0, false
	case inactive.Reason == message.Standby:
		return stayFor, true
	case inactive.Reason == message.Draining:
		return 0, true
	case inactive.Reason == message.StorageDown:
		return stayWithoutStorage, true
	}
	return 0, false
}

// sendAway unbinds ESMEs while this node isn't the active one.
func (d *Door) sendAway(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var f farewell
	for {
		select {
		case now := <-ticker.C:
			if f.due(d.gate.Active(), now) && d.table.count() > 0 {
				d.log.Info("this node isn't the active one: ESMEs are unbound, so that they find who is", "reason", string(f.reason))
				d.table.unbindAll(ctx, leaveWithin)
			}
		case <-ctx.Done():
			return
		}
	}
}

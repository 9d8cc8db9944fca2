package sip

import (
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/transports/sip/wire"
)

// A client with a connection whose node is no longer the active one hears of
// nothing until it registers again, an hour later. So the connection is closed:
// the client notices, connects anew and finds who is active.
const (
	// watchEvery is how often the door looks whether its node is active.
	watchEvery = 250 * time.Millisecond
	// stayFor is how long clients stay with a node that says it is a standby: it
	// may be the active one again, and what is under way is answered.
	stayFor = time.Second
	// stayWithoutStorage is how long they stay with one whose storage fails: most
	// often it fails for all nodes, and they may as well wait here.
	stayWithoutStorage = 30 * time.Second
	// leaveWithin is how long it takes until thousands have gone, so that they
	// don't all come to the next node at once.
	leaveWithin = 5 * time.Second
	// leaveTogether is how many go at once, at least.
	leaveTogether = 10
)

// farewell is how the clients of a node leave that isn't the active one.
type farewell struct {
	reason message.Reason // why it isn't; empty: it is
	since  time.Time      // that reason
	share  int            // how many leave at once; zero: none has yet
}

// due returns how many of so many clients are to leave now.
func (f *farewell) due(inactive *message.Failure, clients int, now time.Time) int {
	stay, ends := patience(inactive)
	if !ends {
		*f = farewell{}
		return 0
	}
	if inactive.Reason != f.reason {
		*f = farewell{reason: inactive.Reason, since: now}
	}
	if clients == 0 || now.Sub(f.since) < stay {
		return 0
	}
	if f.share == 0 {
		f.share = max(leaveTogether, clients/int(leaveWithin/watchEvery))
	}
	return f.share
}

// patience is how long clients stay with a node that isn't active. False: they
// needn't leave. One that drains ends soon, and they with it.
func patience(inactive *message.Failure) (stay time.Duration, ends bool) {
	switch {
	case inactive == nil:
		return 0, false
	case inactive.Reason == message.Standby:
		return stayFor, true
	case inactive.Reason == message.StorageDown:
		return stayWithoutStorage, true
	}
	return 0, false
}

// sendAway closes the connections of clients while this node isn't the active
// one. Those of proxies stay: they lead to many clients, and a proxy asks who is
// active.
func (d *Door) sendAway(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var f farewell
	for {
		select {
		case now := <-ticker.C:
			began := f.share > 0
			leaving := d.streams.someClients(f.due(d.gate.Active(), d.streams.countClients(), now))
			if len(leaving) > 0 && !began {
				d.log.Info("this node isn't the active one: connections of clients are closed, so that they find who is", "reason", string(f.reason))
			}
			d.dismiss(leaving)
		case <-ctx.Done():
			return
		}
	}
}

// dismiss closes connections, but those on which answers are under way.
func (d *Door) dismiss(flows []wire.Flow) {
	for _, flow := range flows {
		if d.endpoint.Load().Dismiss(flow) {
			d.streams.closed(flow)
		}
	}
}

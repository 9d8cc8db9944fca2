package standby

import (
	"errors"
	"fmt"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// Reason is why the role of a node changes.
type Reason string

// The reasons.
const (
	Start    Reason = "start"    // the node was started: as the first one, as the one that had the lease last, or beside an active one
	Expired  Reason = "expired"  // the other node didn't renew its lease
	Released Reason = "released" // the other node gave it up
	Handover Reason = "handover" // from one node to another, on purpose
	Renewal  Reason = "renewal"  // the lease couldn't be renewed in time
	Fenced   Reason = "fenced"   // another node took the lease
	Storage  Reason = "storage"  // the storage failed, or works again
)

var reasons = [...]Reason{Start, Expired, Released, Handover, Renewal, Fenced, Storage}

// errNamesake: another process has the lease under this node's name.
var errNamesake = fmt.Errorf("another node of this name is active: %w", plugin.ErrHeld)

// saidStorage is what a view has said that can't see the lease.
const saidStorage = "storage"

// view is what a node makes of the lease that it sees.
type view struct {
	node   string
	fence  plugin.Fence // of its own last lease; 0: it had none
	looked bool
	unsure bool // it may have acquired a lease and not have heard of it
	waits  bool // it was said that this node is a standby
	said   string
}

// consider tells why a node would take a lease. plugin.ErrHeld: it can't have it.
func (v *view) consider(l plugin.Lease) (Reason, error) {
	first := !v.looked
	v.looked = true
	if l.Node != v.node {
		v.unsure = false
	}
	switch {
	case l.State == plugin.LeaseReserved:
		if l.Next != v.node {
			return "", plugin.ErrHeld
		}
		return Handover, nil
	case l.State == plugin.LeaseHeld && l.Node != v.node:
		return "", plugin.ErrHeld
	case l.State == plugin.LeaseHeld && !first && l.Fence > v.fence && !v.unsure:
		return "", errNamesake
	case l.State == plugin.LeaseFree || l.Node == v.node && v.fence == 0:
		return Start, nil
	case l.State == plugin.LeaseReleased:
		return Released, nil
	case l.Node == v.node:
		return Storage, nil
	}
	return Expired, nil
}

func (v *view) acquired(f plugin.Fence) {
	v.fence, v.unsure, v.said = f, false, ""
	v.waits = true // whoever was active says itself how that ended
}

// lost notes what was said to be wrong when a lease was lost, if anything is.
func (v *view) lost(trouble error) {
	v.said = ""
	if trouble != nil {
		v.said = saidStorage
	}
}

// first tells whether a node that was never active waits for the first time.
func (v *view) first() bool {
	before := v.waits
	v.waits = true
	return !before
}

// news tells whether what a node waits for has changed. While somebody is about to
// take over there is none.
func (v *view) news(l plugin.Lease, err error) bool {
	held := errors.Is(err, plugin.ErrHeld)
	if held && l.State != plugin.LeaseHeld {
		return false
	}
	now := saidStorage
	switch {
	case errors.Is(err, errNamesake):
		now = "namesake"
	case held:
		now = "node " + l.Node
	}
	before := v.said
	v.said = now
	return now != before
}

// taken says why a node becomes the active one; l is the lease that it saw.
func taken(why Reason, node string, l plugin.Lease) string {
	switch why {
	case Expired:
		return fmt.Sprintf("takes over: node %s didn't renew its lease, which ran out %s ago", l.Node, shown(-l.Left))
	case Released:
		if l.Node == node {
			return "takes the lease again: no other node has come for it"
		}
		return fmt.Sprintf("takes over: node %s released its lease %s ago", l.Node, shown(-l.Left))
	case Handover:
		return fmt.Sprintf("takes over: node %s hands over", l.Node)
	case Storage:
		return "takes the lease again: the storage answers"
	}
	if l.State == plugin.LeaseFree {
		return "takes the lease: nobody had it"
	}
	return "takes the lease, which a node of this name had before"
}

func shown(d time.Duration) string { return fmt.Sprintf("%.1f s", max(d, 0).Seconds()) }

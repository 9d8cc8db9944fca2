package plugin

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// LocalLease is the lease of a storage that only one process can have open: it
// lives in memory and ends with the process, and only the fence is to be kept.
// Such a storage embeds the methods that it has in common with Leases, but for
// their contexts. It may be used from several goroutines.
type LocalLease struct {
	mu       sync.Mutex
	fence    Fence // of the newest lease; 0: there was none yet
	node     string
	ends     time.Time // when it runs out, or was released; zero: it wasn't acquired since the storage was opened
	released bool
	next     string // for whom it is reserved
	reserved time.Time
	nodes    map[string]attendance
}

// attendance is what a node said of itself, and when.
type attendance struct {
	note string
	at   time.Time
}

// NewLocalLease returns a lease that nobody holds, after one with a fence that
// was kept.
func NewLocalLease(last Fence) *LocalLease {
	return &LocalLease{fence: last, nodes: map[string]attendance{}}
}

// Acquire takes the lease for a node: see Leases. keep writes the new fence to
// disk before anybody works under it; its error is returned as it is. No other
// Acquire may run beside it.
func (l *LocalLease) Acquire(node string, ttl time.Duration, keep func(Fence) error) (Fence, error) {
	fence, err := l.following(node)
	if err != nil {
		return 0, err
	}
	if err := keep(fence); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence, l.node, l.ends = fence, node, time.Now().Add(ttl)
	l.released, l.next, l.reserved = false, "", time.Time{}
	return fence, nil
}

// following is the fence that a node gets if it takes the lease now.
func (l *LocalLease) following(node string) (Fence, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.held(now) && l.node != node || now.Before(l.reserved) && l.next != node {
		return 0, ErrHeld
	}
	return l.fence + 1, nil
}

func (l *LocalLease) held(now time.Time) bool { return !l.released && now.Before(l.ends) }

// Admits tells whether a fence is that of the newest lease.
func (l *LocalLease) Admits(f Fence) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f != 0 && f == l.fence
}

// Renew is that of Leases.
func (l *LocalLease) Renew(f Fence, ttl time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if f != l.fence || !l.held(now) {
		return ErrFenced
	}
	l.ends = now.Add(ttl)
	return nil
}

// Release is that of Leases.
func (l *LocalLease) Release(f Fence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); f == l.fence && l.held(now) {
		l.ends, l.released = now, true
	}
}

// Handover is that of Leases.
func (l *LocalLease) Handover(f Fence, to string, ttl time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if f != l.fence || !l.held(now) {
		return ErrFenced
	}
	l.ends, l.released = now, true
	l.next, l.reserved = to, now.Add(ttl)
	return nil
}

// Lease is that of Leases.
func (l *LocalLease) Lease() Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	d := Lease{Node: l.node, Fence: l.fence, State: LeaseExpired, Left: l.ends.Sub(now)}
	switch {
	case l.ends.IsZero():
		return Lease{Fence: l.fence, State: LeaseFree}
	case now.Before(l.reserved):
		d.State, d.Next, d.Left = LeaseReserved, l.next, l.reserved.Sub(now)
	case l.released:
		d.State = LeaseReleased
	case l.held(now):
		d.State = LeaseHeld
	}
	return d
}

// Attend is that of Leases.
func (l *LocalLease) Attend(node, note string) []Attendant {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.nodes[node] = attendance{note: note, at: now}
	maps.DeleteFunc(l.nodes, func(_ string, a attendance) bool { return now.Sub(a.at) > AttendanceKept })
	all := make([]Attendant, 0, len(l.nodes))
	for name, a := range l.nodes {
		all = append(all, Attendant{Node: name, Note: a.note, Ago: now.Sub(a.at)})
	}
	slices.SortFunc(all, func(a, b Attendant) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

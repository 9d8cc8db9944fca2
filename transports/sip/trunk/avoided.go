package trunk

import (
	"slices"
	"sync"
	"time"

	"github.com/imgate/imgate/transports/sip/wire"
)

// How long a server that didn't take a message is tried after the others.
const (
	avoidFor    = 30 * time.Second
	maxAvoidFor = 5 * time.Minute // whatever its Retry-After says
	maxAvoided  = 1024            // servers that are remembered
)

// avoided remembers which servers didn't answer, or wanted to be left alone (RFC
// 3261 §21.5.4).
type avoided struct {
	mu    sync.Mutex
	until map[wire.Target]time.Time
}

func newAvoided() *avoided { return &avoided{until: map[wire.Target]time.Time{}} }

// add notes that a server is to be left alone for a while; 0: the usual one.
func (a *avoided) add(hop wire.Target, while time.Duration, now time.Time) {
	if while <= 0 {
		while = avoidFor
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) >= maxAvoided {
		a.sweep(now)
	}
	a.until[hop] = now.Add(min(while, maxAvoidFor))
}

// sweep forgets what is over, and if that is nothing, anything.
func (a *avoided) sweep(now time.Time) {
	for hop, until := range a.until {
		if !now.Before(until) {
			delete(a.until, hop)
		}
	}
	for hop := range a.until {
		if len(a.until) < maxAvoided {
			return
		}
		delete(a.until, hop)
	}
}

func (a *avoided) remove(hop wire.Target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.until, hop)
}

func (a *avoided) has(hop wire.Target, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until[hop])
}

// last puts the servers that are to be left alone behind the others.
func (a *avoided) last(hops []wire.Target, now time.Time) []wire.Target {
	a.mu.Lock()
	defer a.mu.Unlock()
	rank := func(hop wire.Target) int {
		if now.Before(a.until[hop]) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(hops, func(x, y wire.Target) int { return rank(x) - rank(y) })
	return hops
}

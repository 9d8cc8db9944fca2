package pebble

import (
	"sync"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// lease says who may write. It is in memory: see the package's comment. Only
// the writer takes it, so that no write of an older fence comes behind.
type lease struct {
	mu    sync.Mutex
	fence plugin.Fence // of the newest lease; 0: there was none yet
	node  string
	ends  time.Time // zero: it was released, or held by a process that is gone
}

func (l *lease) held(now time.Time) bool { return now.Before(l.ends) }

// next is the fence that a node gets if it takes the lease now.
func (l *lease) next(node string, now time.Time) (plugin.Fence, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held(now) && l.node != node {
		return 0, plugin.ErrHeld
	}
	return l.fence + 1, nil
}

// take gives a node the lease.
func (l *lease) take(fence plugin.Fence, node string, ends time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence, l.node, l.ends = fence, node, ends
}

func (l *lease) renew(f plugin.Fence, now time.Time, ttl time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f != l.fence || !l.held(now) {
		return plugin.ErrFenced
	}
	l.ends = now.Add(ttl)
	return nil
}

func (l *lease) release(f plugin.Fence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f == l.fence {
		l.ends = time.Time{}
	}
}

// admits tells whether a fence is that of the newest lease.
func (l *lease) admits(f plugin.Fence) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f != 0 && f == l.fence
}

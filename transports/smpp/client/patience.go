package client

import (
	"sync"
	"time"
)

// Receipts that are about nobody's message come where several share a system_id:
// most of them must not wait until that is certain, since they keep the SMSC's window
// from what is ours.
const (
	maxEarly     = 10          // receipts of a bind that wait, or have lately waited in vain
	forgiveEvery = time.Second // one of these
)

// patience says whether a receipt may wait until it is known what it is about.
type patience struct {
	mu     sync.Mutex
	tried  int // that wait, or have waited in vain
	lately time.Time
}

// take tells whether one more may wait.
func (p *patience) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if forgiven := int(now.Sub(p.lately) / forgiveEvery); forgiven > 0 {
		p.tried, p.lately = max(0, p.tried-forgiven), now
	}
	if p.tried >= maxEarly {
		return false
	}
	p.tried++
	return true
}

// rewarded notes that one didn't wait in vain.
func (p *patience) rewarded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = max(0, p.tried-1)
}

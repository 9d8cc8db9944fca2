package server

import (
	"sync"
	"time"
)

// bucket limits requests to so many a second, with as many at once.
type bucket struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

// take tells whether n requests may pass now. What passes may overdraw, so that a
// submit_multi of more recipients than a second allows isn't refused for ever.
func (b *bucket) take(n int, perSecond float64, now time.Time) bool {
	if perSecond == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	burst := max(perSecond, 1)
	if b.last.IsZero() {
		b.left = burst
	} else if now.After(b.last) {
		b.left = min(burst, b.left+now.Sub(b.last).Seconds()*perSecond)
	}
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left -= float64(n)
	return true
}

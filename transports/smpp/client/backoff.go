package client

import (
	"math/rand/v2"
	"time"
)

// backoff makes the pauses between attempts to bind: each up to twice the one
// before, and cut by chance, so that the binds of many nodes don't come back at
// once.
type backoff struct {
	min, max time.Duration
	next     time.Duration // before chance cuts it; 0: min
}

// pause returns the next pause: between half and all of what it may be.
func (b *backoff) pause() time.Duration {
	d := max(b.next, b.min)
	b.next = min(2*d, b.max)
	return d/2 + rand.N(d/2+1)
}

// patiently makes the pauses as long as they get: what the SMSC refused for good
// it refuses again until somebody has mended it, and some lock an account out
// that tries too often.
func (b *backoff) patiently() { b.next = b.max }

func (b *backoff) reset() { b.next = 0 }

package sip

import "time"

// bucket is a token bucket as one number: the time, in Unix nanoseconds, at
// which all tokens that were taken are there again. Its zero value is full.
type bucket int64

// take takes a token. It returns 0, or how long it takes until there is one, and
// takes none. A token comes back after each pause, up to burst of them.
func (b *bucket) take(now time.Time, pause time.Duration, burst int) time.Duration {
	wait := b.wait(now, pause, burst)
	if wait == 0 {
		*b = max(*b, bucket(now.UnixNano())) + bucket(pause)
	}
	return wait
}

// wait returns how long it takes until there is a token; 0: there is one.
func (b *bucket) wait(now time.Time, pause time.Duration, burst int) time.Duration {
	empty := pause * time.Duration(burst)
	taken := min(time.Duration(*b-bucket(now.UnixNano())), empty) // it is more when a clock was put back
	return max(0, taken+pause-empty)
}

// give puts a token back.
func (b *bucket) give(pause time.Duration) { *b -= bucket(pause) }

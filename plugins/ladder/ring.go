package ladder

import "sync"

// ring keeps the last entries of one kind. E has no pointers, so that the
// collector has nothing to follow, however large the ring is.
type ring[E any] struct {
	mu      sync.Mutex
	entries []E
	next    uint64 // how many were ever added
}

func newRing[E any](size int) *ring[E] { return &ring[E]{entries: make([]E, size)} }

func (r *ring[E]) add(e *E) {
	r.mu.Lock()
	r.entries[r.next%uint64(len(r.entries))] = *e
	r.next++
	r.mu.Unlock()
}

// chunk is how many entries are looked at before those who add get their turn:
// some microseconds' worth.
const chunk = 256

// each calls look for what is in the ring, the oldest first, until it returns
// false. What is overwritten meanwhile is skipped. look runs under the ring's
// lock and must be quick; the entry is valid during the call only.
func (r *ring[E]) each(look func(*E) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.next // what comes later isn't waited for: it might never stop
	for at := r.oldest(); at < end; {
		if !look(&r.entries[at%uint64(len(r.entries))]) {
			return
		}
		at++
		if at%chunk == 0 {
			r.mu.Unlock()
			r.mu.Lock()
			at = max(at, r.oldest())
		}
	}
}

func (r *ring[E]) oldest() uint64 {
	if size := uint64(len(r.entries)); r.next > size {
		return r.next - size
	}
	return 0
}

package sip

import "sync"

// maxLosing is how many flows are told of at once: each waits for the disk, which
// takes several as fast as one.
const maxLosing = 16

// losses tells the gate of flows that are gone, without holding up whoever finds
// that out.
type losses struct {
	lose func(flow string)
	most int // that wait; those beyond are found when something is to be sent on them

	mu      sync.Mutex
	pending map[string]struct{} // those that wait, and those that are being told of
	waiting []string
	workers int
	closed  bool
	running sync.WaitGroup
}

func newLosses(most int, lose func(flow string)) *losses {
	return &losses{lose: lose, most: most, pending: map[string]struct{}{}}
}

// add has the gate told of a flow, unless it is about to be. It never blocks.
func (l *losses) add(flow string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, found := l.pending[flow]; found || l.closed || len(l.pending) >= l.most {
		return
	}
	l.pending[flow] = struct{}{}
	l.waiting = append(l.waiting, flow)
	if l.workers < maxLosing {
		l.workers++
		l.running.Go(l.work)
	}
}

func (l *losses) work() {
	for flow, ok := l.next(); ok; flow, ok = l.next() {
		l.lose(flow)
		l.done(flow)
	}
}

// next returns the flow that has waited longest. If there is none its worker
// ends.
func (l *losses) next() (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 || l.closed {
		l.waiting = nil
		l.workers--
		return "", false
	}
	flow := l.waiting[0]
	l.waiting = l.waiting[1:]
	return flow, true
}

func (l *losses) done(flow string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, flow)
}

// close waits for those that are being told of. The others are found by whoever
// comes after us.
func (l *losses) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.running.Wait()
}

package sip

import (
	"sync"
	"time"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/transports/sip/wire"
)

// maxLosing is how many flows are told of at once: each waits for the disk, which
// takes several as fast as one.
const maxLosing = 16

// losses tells the gate of flows that are gone, without holding up whoever finds
// that out.
type losses struct {
	tell func(flow string)
	most int // that wait; those beyond are found when something is to be sent on them

	mu      sync.Mutex
	pending map[string]struct{} // those that wait, and those that are being told of
	waiting []string
	workers int
	closed  bool
	running sync.WaitGroup
}

func newLosses(most int, tell func(flow string)) *losses {
	return &losses{tell: tell, most: most, pending: map[string]struct{}{}}
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
		l.tell(flow)
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

// ended notes that a connection is gone, and has the gate told if bindings were
// on it.
func (d *Door) ended(flow wire.Flow) {
	if d.streams.closed(flow) {
		d.lost(flow.String())
	}
}

// lost has the gate told that a flow is gone, so that nothing more is tried over
// it. A node that isn't the active one says nothing: clients leave it to find
// who is, and their bindings are his. Nor is it tried again: whoever finds the
// flow gone when he would send over it says so anew.
func (d *Door) lost(flow string) {
	if d.gate.Active() == nil {
		d.losses.add(flow)
	}
}

// tellLost tells the gate, and waits until it is on disk.
func (d *Door) tellLost(flow string) {
	if err := d.gate.Lost(d.accepting.Context(time.Now()), flow); err != nil {
		d.log.Debug("flow that is gone isn't noted", "error", err)
	}
}

// lostBehind does what lost does for a binding that couldn't be sent to since
// its connection is gone. What leads through a proxy may go over another
// connection of that proxy, and over UDP there is nothing that could be gone.
func (d *Door) lostBehind(b *plugin.Binding, w way) {
	if w.route == "" && w.flow.ID != "" {
		d.lost(b.Flow)
	}
}

// failedBehind does what lost does for a device whose proxy answers that its flow
// has failed (RFC 5626 §5.3.1). One that doesn't name the flow in its URI (§5.2) may
// have others behind the same.
func (d *Door) failedBehind(b *plugin.Binding, w way) {
	edge, ok := edgeOf(w.route)
	if ok && edge.User != "" && edge.UriParams.Has("ob") {
		d.lost(b.Flow)
	}
}

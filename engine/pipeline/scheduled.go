package pipeline

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// maxAhead is how far ahead a message may be scheduled.
const maxAhead = 30 * 24 * time.Hour

// early tells whether a message's time hasn't come.
func (it *item) early(now time.Time) bool { return it.notBefore.After(now) }

// timed names the lane of a message whose time hasn't come.
func (p pair) timed(id message.ID) pair {
	p.via = "\x00" + string(id[:]) // no instance has such a name
	return p
}

// holdBack gives a message a lane of its own until its time comes: there it holds
// up nothing. The lock is held.
func (ls *lanes) holdBack(it *item) {
	via := it.pair.via
	it.pair = it.pair.timed(it.id)
	l := ls.append(it)
	it.pair.via = via
	l.timed = true
	it.next = it.notBefore
	ls.waits(it)
	ls.unload(it)
	ls.rest(l)
}

// comesDue ends a lane that is a message's own: once its time has come it goes
// behind those that wait in its lane. The lock is held.
func (ls *lanes) comesDue(l *lane, now time.Time) {
	if len(l.items) > 0 && !l.items[0].next.After(now) {
		it := l.items[0]
		ls.remove(l, it)
		it.next = time.Time{}
		ls.enqueue(it)
	}
	ls.release(l, false)
}

// putBack puts a message into its lane again, at its place.
func (ls *lanes) putBack(it *item, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if it.early(now) {
		ls.holdBack(it)
		return
	}
	l := ls.append(it)
	slices.SortFunc(l.items, inOrder)
	if l.items[0] == it && it.next.After(now) {
		l.heldSince = now
	}
	if !l.active {
		ls.activate(l)
	}
}

// inOrder compares messages by their places in a lane: by when they came, or were
// to go.
func inOrder(a, b *item) int { return compareIDs(a.place(), b.place()) }

func (it *item) place() message.ID {
	id := it.id
	if !it.notBefore.IsZero() {
		at := uint64(it.notBefore.UnixMilli()) << 16
		binary.BigEndian.PutUint64(id[:], at|binary.BigEndian.Uint64(id[:])&0xffff)
	}
	return id
}

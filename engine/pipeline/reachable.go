package pipeline

import (
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
)

// reachPage is how many lanes are set to work before others get the lock.
const reachPage = 256

// Reachable sets to work what waits for an instance. See plugin.Gate. Each lane
// goes on in order, the one that has waited longest first. It takes no time where
// nothing waits, else some microseconds for each lane.
func (p *Pipeline) Reachable(instance string) {
	for page := range slices.Chunk(p.lanes.thatMissed(instance), reachPage) {
		p.lanes.goOn(instance, page)
	}
}

// oldLane is a lane with the message that goes next.
type oldLane struct {
	*lane
	first message.ID
}

// thatMissed takes off the list the lanes with messages that found no way at an
// instance, the oldest first.
func (ls *lanes) thatMissed(instance string) []oldLane {
	ls.mu.Lock()
	ls.reaches++
	ls.reached[instance] = ls.reaches
	lanes := make([]oldLane, 0, len(ls.unreached[instance]))
	for l := range ls.unreached[instance] {
		lanes = append(lanes, oldLane{l, l.first()})
	}
	delete(ls.unreached, instance)
	ls.mu.Unlock()
	slices.SortFunc(lanes, func(a, b oldLane) int { return compareIDs(a.first, b.first) })
	return lanes
}

// goOn sets lanes to work, unless their messages have gone, or have found another
// trouble since. Those that are to be quiet stay so.
func (ls *lanes) goOn(instance string, lanes []oldLane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	missed := func(it *item) bool { return slices.Contains(it.unreached, instance) }
	for _, l := range lanes {
		if l.find(missed) == nil {
			continue
		}
		quiet := l.quiet
		l.rouse()
		l.quiet = quiet
		if !l.active {
			ls.activate(l.lane)
		}
	}
}

// later lets a message, and those behind it, wait for its next attempt. Where the
// recipient has registered, or the next hop can be reached again, since the last
// one began, it comes at once.
func (ls *lanes) later(l *lane, t turn, last result, now, next time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.list(l, t.it, last.unreached)
	back := func(instance string) bool { return ls.reached[instance] > t.reaches }
	switch {
	case l.recipient.wakes != t.wakes || slices.ContainsFunc(last.unreached, back):
		next = time.Time{}
	case throttled(last.failure):
		l.throttle(t.it, next)
		return
	}
	l.hold(t.it, now, next)
	ls.p.awakenFor(l)
}

// list notes at which instances a message's last attempt found no way, if its lane
// leads outside. The lock is held.
func (ls *lanes) list(l *lane, it *item, unreached []string) {
	if l.pair.via != "" {
		return
	}
	it.unreached = unreached
	for _, instance := range unreached {
		if ls.unreached[instance] == nil {
			ls.unreached[instance] = map[*lane]bool{}
		}
		ls.unreached[instance][l] = true
		l.listed = true
	}
}

// unlist is for a lane that is empty. The lock is held.
func (ls *lanes) unlist(l *lane) {
	if !l.listed {
		return
	}
	for _, lanes := range ls.unreached {
		delete(lanes, l)
	}
}

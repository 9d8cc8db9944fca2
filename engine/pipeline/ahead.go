package pipeline

import (
	"slices"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/spool"
)

// Bounds of what is read ahead when a recipient comes back for whom much waits:
// one scan serves many messages.
const (
	aheadMessages = 64
	aheadBytes    = 64 << 10 // of payloads, roughly
	aheadLanes    = 16       // that are queued for the same recipient
)

// ahead returns the id of a message, and of those for its recipient that go soon
// and aren't in memory, in ascending order: as many as reading ahead has paid for.
func (ls *lanes) ahead(l *lane, it *item) []message.ID {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	most := l.recipient.ahead
	if most < 2 {
		return []message.ID{it.id}
	}
	var soon []*item
	ls.eachSoon(l, func(next *item) {
		if next.payload == nil && compareIDs(next.id, it.id) > 0 {
			soon = append(soon, next)
		}
	})
	slices.SortFunc(soon, func(a, b *item) int { return compareIDs(a.id, b.id) })
	ids, size := []message.ID{it.id}, it.size
	for _, next := range soon {
		if size += next.size; size > aheadBytes || len(ids) == most {
			break
		}
		ids = append(ids, next.id)
	}
	return ids
}

// load gives messages what was read ahead, and learns from it. Where most of what
// lies in between was for others, one message is read the next time; else twice
// as many.
func (ls *lanes) load(l *lane, asked int, entries map[message.ID]*spool.Entry) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.recipient.ahead = 1
	if 2*len(entries) > asked {
		l.recipient.ahead = min(2*asked, aheadMessages)
	}
	if len(entries) < 2 {
		return // there is none but the lane's own
	}
	ls.eachSoon(l, func(next *item) {
		if next.payload == nil {
			next.payload = entries[next.id]
		}
	})
}

// eachSoon calls f with what goes soon for a lane's recipient: of this lane,
// which the caller has at work, and of those that are queued. The lock is held.
func (ls *lanes) eachSoon(l *lane, f func(*item)) {
	queue := l.recipient.queue
	for _, o := range append([]*lane{l}, queue[:min(len(queue), aheadLanes)]...) {
		for _, it := range o.items[:min(len(o.items), burst)] {
			if it != o.atWork {
				f(it)
			}
		}
	}
}

// olderFirst compares lanes by the message that goes next.
func olderFirst(a, b *lane) int { return compareIDs(a.first(), b.first()) }

func (l *lane) first() (id message.ID) {
	if all := l.all(); len(all) > 0 {
		id = all[0].id
	}
	return id
}

package joining

import (
	"container/heap"
	"context"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// How a set is tried again that was refused for now after its time was over.
const (
	firstPause = 5 * time.Second
	mostPause  = 5 * time.Minute
	keptFor    = 24 * time.Hour // from its first part; and
	triedFor   = time.Hour      // at least that long from when its time was over
)

// Due returns a set whose time is over, for the caller to decide upon as if Add
// had returned it; or nil, and how long there is none unless Changed says so.
func (s *Sets) Due(now time.Time) (*Set, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.resting) == 0 || s.overdue >= maxOverdue {
		return nil, time.Hour
	}
	set := s.resting[0]
	if set.next.After(now) {
		return nil, set.next.Sub(now)
	}
	s.overdue++
	s.work(set)
	return set, 0
}

// Changed tells that Due may have something else to say.
func (s *Sets) Changed() <-chan struct{} { return s.changed }

// work lets the caller decide upon what is here.
func (s *Sets) work(set *Set) {
	s.resting.remove(set)
	set.atWork = true
	set.taken = make([]*part, 0, set.have)
	for _, p := range set.parts {
		if p != nil {
			set.taken = append(set.taken, p)
		}
	}
}

// rest lets a set wait until a time.
func (s *Sets) rest(set *Set, next time.Time) {
	set.next = next
	if set.index >= 0 {
		heap.Fix(&s.resting, set.index)
	} else {
		heap.Push(&s.resting, set)
	}
	if set.index == 0 {
		s.signal()
	}
}

func (s *Sets) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Stale tells whether a set is too old to be tried again.
func (t *Set) Stale(now time.Time) bool {
	last := t.began.Add(keptFor)
	if least := t.until.Add(triedFor); least.After(last) {
		last = least
	}
	return t.last == nil && !now.Before(last)
}

// Leave is what is to be written with the end of a set, or with its message. The
// reason for which it is refused, if it is, holds for the part that has completed
// it: all others were told that we have them.
func (s *Sets) Leave(now time.Time, set *Set, refusal message.Reason) *spool.Joined {
	j := &spool.Joined{ID: set.id, Kept: func() []spool.PartRow { return s.kept(set) }}
	for _, p := range set.taken {
		seen := spool.Seen{
			Digest: set.key.digest(p.number, p.contentType, p.body), ID: set.id, PublicID: set.public, At: now, Noted: now,
		}
		switch {
		case p != set.last:
			j.Numbers = append(j.Numbers, p.number)
		case refusal != "":
			seen.State, seen.Reason = plugin.OutcomeFailed, refusal
		}
		j.Seen = append(j.Seen, seen)
	}
	set.ended = j.Seen
	return j
}

// kept are the parts that are on disk now.
func (s *Sets) kept(set *Set) (rows []spool.PartRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range set.taken {
		if p.onDisk {
			rows = append(rows, set.row(p))
		}
	}
	return rows
}

// End forgets a set once what Leave said is on disk. Its parts are known for ten
// minutes more. The one that has completed it is told of the refusal; nil: it is
// accepted.
func (s *Sets) End(set *Set, refusal error) {
	s.mu.Lock()
	now := time.Now()
	for _, seen := range set.ended {
		s.seen.Remember(now, seen)
	}
	s.rested(set)
	s.drop(set)
	told := set.lastTold()
	s.mu.Unlock()
	set.tell(told, refusal)
}

// Stay puts a set back that is refused for now. The part that has completed it
// isn't kept; without one the set is tried again after a pause.
func (s *Sets) Stay(now time.Time, set *Set, refusal error) {
	s.mu.Lock()
	next, last := set.until, set.last
	switch {
	case last == nil:
		next = now.Add(min(firstPause<<min(set.tries, 10), mostPause))
		set.tries++
	case set.closed:
		next = now
	}
	s.rested(set)
	told := set.lastTold()
	set.taken, set.ended, set.last = nil, nil, nil
	switch {
	case last != nil:
		s.remove(set, last)
	case set.have == 0:
		s.drop(set)
	}
	if set.have > 0 {
		s.rest(set, next)
	}
	s.mu.Unlock()
	set.tell(told, refusal)
}

// rested ends a caller's decision.
func (s *Sets) rested(set *Set) {
	set.atWork = false
	if set.last == nil {
		s.overdue--
		s.signal()
	}
}

// Unsure says that it isn't known what became of a set: this node stops being the
// active one, and the next finds out.
func (s *Sets) Unsure(set *Set) {
	s.mu.Lock()
	told := set.lastTold()
	s.mu.Unlock()
	set.tell(told, message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown))
}

func (t *Set) lastTold() (told []Told) {
	if t.last != nil {
		told, t.last.told = t.last.told, nil
	}
	return told
}

// Restore reads what is on disk, and calls found with the ID of each message. It
// comes before anything else.
func (s *Sets) Restore(ctx context.Context, now time.Time, found func(message.ID)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var set *Set
	return s.spool.Parts(ctx, func(row spool.PartRow) {
		a, m := &row.Arrival, row.Arrival.Message
		as := newSet(row.Began, keyOf(a), a)
		if set == nil || set.id != m.ID { // one with the same key is older, and gets no more parts
			set, as.id, as.public, as.until = as, m.ID, m.PublicID, row.Until
			s.register(now, set)
			found(set.id)
		}
		if m.Received.Before(set.first.Message.Received) {
			set.first = as.first
		}
		p := newPart(m.Received, a)
		p.onDisk = true
		s.put(set, p)
	})
}

// schedule is a heap of sets at rest, the one to look at first in front.
type schedule []*Set

func (h schedule) Len() int           { return len(h) }
func (h schedule) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h schedule) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface.
func (h *schedule) Push(x any) {
	set := x.(*Set)
	set.index = len(*h)
	*h = append(*h, set)
}

// Pop is heap.Interface.
func (h *schedule) Pop() any {
	last := len(*h) - 1
	set := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	set.index = -1
	return set
}

func (h *schedule) remove(set *Set) {
	if set.index >= 0 {
		heap.Remove(h, set.index)
	}
}

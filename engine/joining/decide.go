package joining

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// How a set is tried again that was refused for now.
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
	set.taken = slices.DeleteFunc(slices.Clone(set.parts), func(p *part) bool { return p == nil })
}

// rest lets a set wait until a time.
func (s *Sets) rest(set *Set, next time.Time) {
	s.resting.remove(set)
	set.next = next
	s.resting.add(set)
	if s.resting[0] == set {
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
	return t.last == nil && !now.Before(later(t.began.Add(keptFor), t.until.Add(triedFor)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	s.decided(set, refusal, func() {
		now := time.Now()
		for _, seen := range set.ended {
			s.seen.Remember(now, seen)
		}
		s.rested(set)
		s.drop(set)
	})
}

// Stay puts a set back that is refused for now. The part that has completed it
// isn't kept; without one the set is tried again after a pause.
func (s *Sets) Stay(now time.Time, set *Set, refusal error) {
	s.decided(set, refusal, func() {
		s.rested(set)
		switch {
		case set.last != nil:
			s.remove(set, set.last)
		case set.have == 0:
			s.drop(set)
		}
		if set.have > 0 {
			s.rest(set, set.again(now))
		}
		set.taken, set.ended = nil, nil
	})
}

// Unsure says that it isn't known what became of a set: this node stops being the
// active one, and the next finds out.
func (s *Sets) Unsure(set *Set) {
	s.decided(set, message.FailForNow(message.StorageDown, "%w", plugin.ErrUnknown), func() {})
}

// decided tells whoever waits for the part that has completed a set.
func (s *Sets) decided(set *Set, err error, note func()) {
	s.mu.Lock()
	note()
	var told []Told
	if set.last != nil {
		told, set.last.told, set.last = set.last.told, nil, nil
	}
	s.mu.Unlock()
	set.tell(told, err)
}

// again is when a set is due that was refused for now.
func (t *Set) again(now time.Time) time.Time {
	switch {
	case t.last == nil:
		t.tries++
		return now.Add(min(firstPause<<min(t.tries-1, 10), mostPause))
	case t.closed:
		return now
	}
	return later(t.until, now.Add(firstPause)) // its peer may send the last one again
}

// rested ends a caller's decision.
func (s *Sets) rested(set *Set) {
	set.atWork = false
	if set.last == nil {
		s.overdue--
		s.signal()
	}
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

// schedule are the sets that rest, those to look at first in front. Most come, and
// leave, at the end.
type schedule []*Set

func (h *schedule) add(set *Set) {
	i, _ := h.find(set)
	*h = slices.Insert(*h, i, set)
}

func (h *schedule) remove(set *Set) {
	if i, rests := h.find(set); rests {
		*h = slices.Delete(*h, i, i+1)
	}
}

func (h *schedule) find(set *Set) (int, bool) {
	return slices.BinarySearchFunc(*h, set, func(a, b *Set) int {
		return cmp.Or(a.next.Compare(b.next), compareIDs(a.id, b.id))
	})
}

package pipeline

import (
	"container/heap"
	"time"
)

// maxDue bounds how many lanes are taken out at once: many messages may be scheduled
// for one moment, and the others mustn't wait for them.
const maxDue = 1024

// schedule is a heap of lanes at rest, the one to look at first in front.
type schedule []*lane

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].wakeAt.Before(s[j].wakeAt) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

// Push is heap.Interface.
func (s *schedule) Push(x any) {
	l := x.(*lane)
	l.index = len(*s)
	*s = append(*s, l)
}

// Pop is heap.Interface.
func (s *schedule) Pop() any {
	last := len(*s) - 1
	l := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	l.index = -1
	return l
}

// rest puts a lane into the schedule, or moves it within.
func (s *schedule) rest(l *lane) {
	l.wakeAt = l.nextLook()
	if l.index >= 0 {
		heap.Fix(s, l.index)
		return
	}
	heap.Push(s, l)
}

// remove takes a lane out of the schedule if it is in it.
func (s *schedule) remove(l *lane) {
	if l.index >= 0 {
		heap.Remove(s, l.index)
	}
}

// due takes out lanes whose time has come, at most maxDue, and tells when the next
// one's comes; zero: none is left.
func (s *schedule) due(now time.Time) (lanes []*lane, next time.Time) {
	for len(*s) > 0 && len(lanes) < maxDue && !(*s)[0].wakeAt.After(now) {
		lanes = append(lanes, heap.Pop(s).(*lane))
	}
	if len(*s) > 0 {
		next = (*s)[0].wakeAt
	}
	return lanes, next
}

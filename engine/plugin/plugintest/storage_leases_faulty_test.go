package plugintest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// plainLease is the lease of a plainDisk, and who attends.
type plainLease struct {
	fence    plugin.Fence
	holder   string // now or last; empty: nobody ever
	ends     time.Time
	released bool
	next     string // for whom it is reserved, or was
	reserved time.Time
	notes    map[string]plainNote
}

type plainNote struct {
	text string
	at   time.Time
}

func (s *plainStorage) Acquire(_ context.Context, node string, ttl time.Duration) (plugin.Fence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call(); err != nil {
		return 0, err
	}
	return s.acquire(s, node, ttl)
}

func (s *plainStorage) Renew(_ context.Context, f plugin.Fence, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call(); err != nil {
		return err
	}
	return s.renew(s, f, ttl)
}

func (s *plainStorage) Release(_ context.Context, f plugin.Fence) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.release(s, f)
}

func (s *plainStorage) Handover(_ context.Context, f plugin.Fence, to string, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cede(s, f, to, ttl)
}

func (s *plainStorage) Lease(context.Context) (plugin.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call(); err != nil {
		return plugin.Lease{}, err
	}
	return s.lease(s), nil
}

func (s *plainStorage) Attend(_ context.Context, node, note string) ([]plugin.Attendant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.attend(s, node, note)
}

// call counts a call that concerns the lease.
func (s *plainStorage) call() error {
	s.calls++
	s.scanned.Broadcast()
	return s.called(s)
}

func (l *plainLease) held() bool {
	return l.holder != "" && !l.released && time.Now().Before(l.ends)
}

func (l *plainLease) isReserved() bool { return time.Now().Before(l.reserved) }

func soundAcquire(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
	if s.held() && s.holder != node || s.isReserved() && s.next != node {
		return 0, plugin.ErrHeld
	}
	s.fence++
	s.holder, s.ends, s.released = node, time.Now().Add(ttl), false
	s.next, s.reserved = "", time.Time{}
	return s.fence, nil
}

func soundRenew(s *plainStorage, f plugin.Fence, ttl time.Duration) error {
	if f != s.fence || !s.held() {
		return plugin.ErrFenced
	}
	s.ends = time.Now().Add(ttl)
	return nil
}

func soundRelease(s *plainStorage, f plugin.Fence) error {
	if f == s.fence && s.held() {
		s.released, s.ends = true, time.Now()
	}
	return nil
}

func soundHandover(s *plainStorage, f plugin.Fence, to string, ttl time.Duration) error {
	if f != s.fence || !s.held() {
		return plugin.ErrFenced
	}
	s.released, s.ends = true, time.Now()
	s.next, s.reserved = to, s.ends.Add(ttl)
	return nil
}

func soundLease(s *plainStorage) plugin.Lease {
	l := plugin.Lease{Node: s.holder, Fence: s.fence, State: plugin.LeaseExpired, Left: time.Until(s.ends)}
	switch {
	case s.holder == "":
		l.State, l.Left = plugin.LeaseFree, 0
	case s.isReserved():
		l.State, l.Left, l.Next = plugin.LeaseReserved, time.Until(s.reserved), s.next
	case s.released:
		l.State = plugin.LeaseReleased
	case s.held():
		l.State = plugin.LeaseHeld
	}
	return l
}

func soundAttend(s *plainStorage, node, note string) ([]plugin.Attendant, error) {
	s.notes[node] = plainNote{note, time.Now()}
	var all []plugin.Attendant
	for name, n := range s.notes {
		all = append(all, plugin.Attendant{Node: name, Note: n.text, Ago: time.Since(n.at)})
	}
	slices.SortFunc(all, func(a, b plugin.Attendant) int { return cmp.Compare(a.Node, b.Node) })
	return all, nil
}

// leaseFault breaks the leases of a storage that is sound otherwise.
func leaseFault(name, breaks string, breakIt func(*plainStorage)) fault[StorageHarness] {
	return fault[StorageHarness]{name, breaks, brokenStorage(breakIt)}
}

var leaseFaults = []fault[StorageHarness]{
	leaseFault("gives the lease to everybody", "what one node holds another can't acquire", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			s.holder = node
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("refuses the holder", "the holder acquires again", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			if s.held() {
				return 0, plugin.ErrHeld
			}
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("gives the holder the fence that it has", "every Acquire returns a greater fence", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			if s.held() && s.holder == node {
				return s.fence, nil
			}
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("counts fences from one when it is opened", "fences go on growing after Close and Open", func(s *plainStorage) {
		s.reopen = func(d *plainDisk) *plainDisk {
			d.fence = 0
			return d
		}
	}),
	leaseFault("never ends a lease", "a lease runs out after its ttl", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			if s.holder != "" && !s.released && s.holder != node {
				return 0, plugin.ErrHeld
			}
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("doesn't extend", "Renew extends the lease", func(s *plainStorage) {
		s.renew = func(s *plainStorage, f plugin.Fence, _ time.Duration) error {
			return soundRenew(s, f, time.Until(s.ends))
		}
	}),
	leaseFault("revives a lease that ran out", "a lease that ran out can't be renewed", func(s *plainStorage) {
		s.renew = func(s *plainStorage, f plugin.Fence, ttl time.Duration) error {
			if f != s.fence || s.released {
				return plugin.ErrFenced
			}
			s.ends = time.Now().Add(ttl)
			return nil
		}
	}),
	leaseFault("renews for any fence", "an older fence can't renew", func(s *plainStorage) {
		s.renew = func(s *plainStorage, _ plugin.Fence, ttl time.Duration) error { return soundRenew(s, s.fence, ttl) }
	}),
	leaseFault("keeps a lease that was released", "Release frees the lease at once", func(s *plainStorage) {
		s.release = func(*plainStorage, plugin.Fence) error { return nil }
	}),
	leaseFault("revives a lease that was released", "a lease that was released can't be renewed", func(s *plainStorage) {
		s.renew = func(s *plainStorage, f plugin.Fence, ttl time.Duration) error {
			if f == s.fence && s.released && s.next == "" {
				return nil
			}
			return soundRenew(s, f, ttl)
		}
	}),
	leaseFault("releases for any fence", "Release with an older fence changes nothing", func(s *plainStorage) {
		s.release = func(s *plainStorage, _ plugin.Fence) error { return soundRelease(s, s.fence) }
	}),
	leaseFault("takes a late Release for an error", "Release with an older fence changes nothing", func(s *plainStorage) {
		s.release = func(s *plainStorage, f plugin.Fence) error {
			if f != s.fence {
				return plugin.ErrFenced
			}
			return soundRelease(s, f)
		}
	}),
	leaseFault("applies under an older fence", "Apply under an older fence is refused", func(s *plainStorage) {
		s.fenced = func(s *plainStorage, f plugin.Fence) bool { return f == 0 || f > s.fence }
	}),
	leaseFault("applies under a fence of the future", "Apply under a fence that nobody was given is refused", func(s *plainStorage) {
		s.fenced = func(s *plainStorage, f plugin.Fence) bool { return f < s.fence }
	}),
}

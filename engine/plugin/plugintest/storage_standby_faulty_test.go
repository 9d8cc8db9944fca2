package plugintest

import (
	"errors"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/plugin"
)

// tellFault breaks what Lease tells of a storage that is sound otherwise.
func tellFault(name, breaks string, spoil func(s *plainStorage, l *plugin.Lease)) fault[StorageHarness] {
	return leaseFault(name, breaks, func(s *plainStorage) {
		s.lease = func(s *plainStorage) plugin.Lease {
			l := soundLease(s)
			spoil(s, &l)
			return l
		}
	})
}

// attendFault breaks what Attend returns of a storage that is sound otherwise.
func attendFault(name, breaks string, spoil func(node string, all []plugin.Attendant) []plugin.Attendant) fault[StorageHarness] {
	return leaseFault(name, breaks, func(s *plainStorage) {
		s.attend = func(s *plainStorage, node, note string) ([]plugin.Attendant, error) {
			all, err := soundAttend(s, node, note)
			return spoil(node, all), err
		}
	})
}

var standbyFaults = slices.Concat(besideFaults, handoverFaults, tellFaults, attendFaults)

var besideFaults = []fault[StorageHarness]{
	leaseFault("writes long after it has looked at the fence", "once Acquire has returned nothing is written under an older fence", func(s *plainStorage) {
		s.apply = func(s *plainStorage, changes []plugin.Change) error {
			if changes[len(changes)-1].Table != "late" || s.applying {
				return soundApply(s, changes)
			}
			s.applying = true // from now on; once is enough
			for fence, scans := s.fence, s.scans; s.fence == fence || s.scans == scans; {
				s.scanned.Wait() // only the case gets here; it acquires, and then scans
			}
			return soundApply(s, changes)
		}
	}),
	leaseFault("locks the lease while it writes", "calls that concern the lease are answered beside Apply", func(s *plainStorage) {
		s.apply = func(s *plainStorage, changes []plugin.Change) error {
			if changes[0].Table == "beside" && len(s.table("beside")) == 0 {
				s.applying = true
				for calls := s.calls; s.calls == calls; {
					s.scanned.Wait() // only the case gets here; it calls all the time
				}
				s.applying = false
			}
			return soundApply(s, changes)
		}
		s.called = func(s *plainStorage) error {
			if s.applying && len(s.table("beside")) == 0 {
				return errors.New("locked")
			}
			return nil
		}
	}),
}

var handoverFaults = []fault[StorageHarness]{
	leaseFault("reserves for nobody at all", "a lease that is handed over is for the node that is named", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			if s.isReserved() {
				return 0, plugin.ErrHeld
			}
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("releases what it should reserve", "a lease that is handed over is for nobody else", func(s *plainStorage) {
		s.cede = func(s *plainStorage, f plugin.Fence, to string, _ time.Duration) error {
			return soundHandover(s, f, to, 0)
		}
	}),
	leaseFault("lets the giver take back", "a lease that is handed over is for nobody else", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			if s.isReserved() && node == s.holder {
				s.next = node
			}
			return soundAcquire(s, node, ttl)
		}
	}),
	leaseFault("reserves for an hour", "a reservation ends after its ttl", func(s *plainStorage) {
		s.cede = func(s *plainStorage, f plugin.Fence, to string, _ time.Duration) error {
			return soundHandover(s, f, to, leaseForever)
		}
	}),
	leaseFault("reserves beyond Acquire", "a reservation ends when the lease is acquired", func(s *plainStorage) {
		s.acquire = func(s *plainStorage, node string, ttl time.Duration) (plugin.Fence, error) {
			next, reserved := s.next, s.reserved
			f, err := soundAcquire(s, node, ttl)
			s.next, s.reserved = next, reserved
			return f, err
		}
		s.lease = func(s *plainStorage) plugin.Lease {
			reserved := s.reserved
			defer func() { s.reserved = reserved }()
			if !s.released {
				s.reserved = time.Time{}
			}
			return soundLease(s)
		}
	}),
	leaseFault("revives a lease that was handed over", "a lease that was handed over can't be renewed", func(s *plainStorage) {
		s.renew = func(s *plainStorage, f plugin.Fence, ttl time.Duration) error {
			if f == s.fence && s.next != "" {
				return nil
			}
			return soundRenew(s, f, ttl)
		}
	}),
	leaseFault("hands over for any fence", "an older fence can't hand over", func(s *plainStorage) {
		s.cede = func(s *plainStorage, f plugin.Fence, to string, ttl time.Duration) error {
			if f < s.fence {
				return nil
			}
			return soundHandover(s, f, to, ttl)
		}
	}),
	leaseFault("hands over what ran out", "a lease that ran out can't be handed over", func(s *plainStorage) {
		s.cede = func(s *plainStorage, f plugin.Fence, to string, ttl time.Duration) error {
			if f == s.fence && !s.released && !s.held() {
				return nil
			}
			return soundHandover(s, f, to, ttl)
		}
	}),
}

var tellFaults = []fault[StorageHarness]{
	tellFault("takes none for one that ran out", "Lease tells that it was never acquired", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseFree {
			l.State = plugin.LeaseExpired
		}
	}),
	tellFault("tells the fence of the lease before", "Lease tells who holds it, and for how long", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseHeld {
			l.Fence--
		}
	}),
	tellFault("doesn't tell for how long", "Lease tells who holds it, and for how long", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseHeld {
			l.Left = 0
		}
	}),
	tellFault("takes what ran out for released", "Lease tells that it ran out", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseExpired {
			l.State = plugin.LeaseReleased
		}
	}),
	tellFault("takes what was released for run out", "Lease tells that it was released", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseReleased && s.next == "" {
			l.State = plugin.LeaseExpired
		}
	}),
	tellFault("doesn't tell who comes next", "Lease tells for whom it is reserved", func(s *plainStorage, l *plugin.Lease) { l.Next = "" }),
	tellFault("takes what nobody came for for reserved", "Lease tells that nobody came for whom it was reserved", func(s *plainStorage, l *plugin.Lease) {
		if l.State == plugin.LeaseReleased && s.next != "" {
			l.State, l.Next = plugin.LeaseReserved, s.next
		}
	}),
	tellFault("ends the lease when it is asked", "asking for the lease changes nothing", func(s *plainStorage, _ *plugin.Lease) { s.released = true }),
}

var attendFaults = []fault[StorageHarness]{
	attendFault("tells a node of itself alone", "Attend returns what all nodes have said, by name", func(node string, all []plugin.Attendant) []plugin.Attendant {
		return slices.DeleteFunc(all, func(a plugin.Attendant) bool { return a.Node != node && len(all) > 2 })
	}),
	attendFault("tells the last one first", "Attend returns what all nodes have said, by name", func(_ string, all []plugin.Attendant) []plugin.Attendant {
		slices.Reverse(all)
		return all
	}),
	leaseFault("lets nobody attend without a lease", "Attend needs no lease", func(s *plainStorage) {
		s.attend = func(s *plainStorage, node, note string) ([]plugin.Attendant, error) {
			if !s.held() {
				return nil, plugin.ErrFenced
			}
			return soundAttend(s, node, note)
		}
	}),
	leaseFault("keeps the first note", "what a node says takes the place of what it said before", func(s *plainStorage) {
		s.attend = func(s *plainStorage, node, note string) ([]plugin.Attendant, error) {
			if before, ok := s.notes[node]; ok {
				note = before.text
			}
			return soundAttend(s, node, note)
		}
	}),
	attendFault("doesn't tell how long ago", "Attend tells how long ago a node spoke", func(_ string, all []plugin.Attendant) []plugin.Attendant {
		for i := range all {
			all[i].Ago = 0
		}
		return all
	}),
	leaseFault("tells since when a node is there", "Attend tells how long ago a node spoke", func(s *plainStorage) {
		s.attend = func(s *plainStorage, node, note string) ([]plugin.Attendant, error) {
			before, known := s.notes[node]
			all, err := soundAttend(s, node, note)
			if known {
				s.notes[node] = plainNote{note, before.at}
			}
			return all, err
		}
	}),
	attendFault("cuts a note after 1 KiB", "a note may be as large as the limit", func(_ string, all []plugin.Attendant) []plugin.Attendant {
		for i := range all {
			all[i].Note = all[i].Note[:min(len(all[i].Note), 1<<10)]
		}
		return all
	}),
}

package server

import (
	"net/netip"
	"sync"
	"time"
)

// What wrong passwords cost. Nobody is locked out because of what somebody else
// does from another address: a bind is refused unread only if wrong ones came
// from its own.
const (
	freeTries         = 3  // of one system_id from one address
	freeTriesTogether = 20 // of different system_ids from one address, which may be that of a proxy
	// underAttack is after how many wrong passwords for one system_id, from
	// wherever, each address has one try only.
	underAttack = 20

	backOffMin = time.Second
	backOffMax = 5 * time.Minute
	// forgetAfter is how long a wrong password counts after the last one.
	forgetAfter = 10 * time.Minute
	// maxSuspects bounds each table of the guard: some 2 MB.
	maxSuspects = 10_000
	// knownFor is how long a right password counts after the last one.
	knownFor = 30 * 24 * time.Hour
)

// guard makes guessing passwords slow.
type guard struct {
	mu        sync.Mutex
	addresses suspects[netip.Prefix]
	accounts  suspects[string] // by system_id
	pairs     suspects[pair]
	known     map[pair]time.Time // when the last right password came
}

// pair is a system_id as tried from one address.
type pair struct {
	source   netip.Prefix
	systemID string
}

// sharer is whom the guard takes for one: an IPv4 address, or the /64 of an IPv6
// address, which is what one customer has at least.
func sharer(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits) // there are that many bits
	return prefix
}

// refuses tells whether a bind isn't even to be looked at. What others do at an
// address doesn't concern a system_id that has bound from there before: it isn't
// locked out when it comes back from a lost network.
func (g *guard) refuses(source netip.Addr, systemID string, now time.Time) bool {
	from := sharer(source)
	who := pair{from, systemID}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pairs.isBlocked(who, now) {
		return true
	}
	last, found := g.known[who]
	isKnown := found && now.Sub(last) < knownFor
	return !isKnown && g.addresses.isBlocked(from, now)
}

// wrong notes a wrong password.
func (g *guard) wrong(source netip.Addr, systemID string, now time.Time) {
	from, free := sharer(source), freeTries
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.accounts.note(systemID, underAttack, now) >= underAttack {
		free = 1
	}
	if g.pairs.note(pair{from, systemID}, free, now) == 1 {
		g.addresses.note(from, freeTriesTogether, now)
	}
}

// right notes a right password: what was wrong before was a slip. What was tried
// with other names from that address still counts.
func (g *guard) right(source netip.Addr, systemID string, now time.Time) {
	who := pair{sharer(source), systemID}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pairs.known, who)
	if g.known == nil {
		g.known = map[pair]time.Time{}
	}
	if _, found := g.known[who]; !found && len(g.known) >= maxSuspects {
		delete(g.known, oldest(g.known))
	}
	g.known[who] = now
}

// oldest returns which has been there longest without a right password.
func oldest(known map[pair]time.Time) (who pair) {
	var since time.Time
	for k, last := range known {
		if since.IsZero() || last.Before(since) {
			who, since = k, last
		}
	}
	return who
}

// suspects are those of whom wrong passwords came. Of too many the one that was
// silent longest is forgotten.
type suspects[K comparable] struct {
	known map[K]*suspect
	swept time.Time
}

type suspect struct {
	wrong int
	last  time.Time
	until time.Time // blocked
}

func (s *suspects[K]) isBlocked(k K, now time.Time) bool {
	who, found := s.known[k]
	return found && now.Before(who.until)
}

// note counts a wrong password and returns how many there are now. From the
// free-th on each doubles the time for which no other is looked at.
func (s *suspects[K]) note(k K, free int, now time.Time) int {
	who, found := s.known[k]
	if !found {
		s.makeRoom(now)
		who = &suspect{}
		s.known[k] = who
	}
	if now.Sub(who.last) > forgetAfter {
		who.wrong = 0
	}
	who.wrong++
	who.last = now
	if who.wrong >= free {
		who.until = now.Add(backOff(who.wrong - free))
	}
	return who.wrong
}

// backOff is the time after so many wrong passwords beyond those that are free.
func backOff(more int) time.Duration {
	const doublings = 9 // 1 s becomes more than 5 minutes
	return min(backOffMin<<min(more, doublings), backOffMax)
}

// makeRoom keeps the table within its bound. It looks for those that may go once
// a minute, or when the table is full.
func (s *suspects[K]) makeRoom(now time.Time) {
	if s.known == nil {
		s.known = map[K]*suspect{}
	}
	if len(s.known) < maxSuspects && now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	var oldest K
	var since time.Time
	for k, who := range s.known {
		if now.Sub(who.last) > forgetAfter {
			delete(s.known, k)
			continue
		}
		if since.IsZero() || who.last.Before(since) {
			oldest, since = k, who.last
		}
	}
	if len(s.known) >= maxSuspects {
		delete(s.known, oldest)
	}
}

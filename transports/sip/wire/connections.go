package wire

import (
	"container/list"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// budget is what all connections together may still hold, in octets. So memory
// has a bound that doesn't grow with the number of connections.
type budget struct{ left atomic.Int64 }

func newBudget(octets int) *budget {
	b := &budget{}
	b.left.Store(int64(octets))
	return b
}

func (b *budget) take(n int) bool {
	if b.left.Add(int64(-n)) >= 0 {
		return true
	}
	b.give(n)
	return false
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }

// connections are those that are open. Nothing is kept of an address that has
// none.
type connections struct {
	limits     Limits
	mu         sync.RWMutex
	byID       map[string]*connection
	perAddress map[netip.Prefix]*neighbours
	opening    list.List // of *connection: those in a handshake, the oldest first
	strangers  list.List // of *connection: those that nobody has marked with Keep, the oldest first
	closed     bool
}

// neighbours are the connections from one address.
type neighbours struct {
	count     int
	strangers list.List // as in connections
}

func newConnections(limits Limits) *connections {
	return &connections{limits: limits, byID: map[string]*connection{}, perAddress: map[netip.Prefix]*neighbours{}}
}

// Sharer is whom limits per address take for one: an IPv4 address, or the /64 of
// an IPv6 address, which is what one customer has at least.
func Sharer(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits) // there are that many bits
	return prefix
}

// add lets a connection in, or says which pressure keeps it out. One that is
// still in its handshake, or that nobody has marked with Keep, gives way if need
// be, and is to be closed: so whoever opens connections and proves nothing keeps
// nobody else out. It is the oldest one, which has had the most time for that.
func (t *connections) add(c *connection) (displaced *connection, why pressureKind, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	address := Sharer(c.flow.Remote.Addr())
	here := t.perAddress[address]
	switch {
	case t.closed:
		return nil, pressureConnections, false
	case here != nil && here.count >= t.limits.MaxPerAddress:
		why, displaced = pressureAddress, oldest(&here.strangers)
	case len(t.byID) >= t.limits.MaxConnections:
		why, displaced = pressureConnections, oldest(&t.strangers)
	case !c.open && t.opening.Len() >= t.limits.MaxHandshakes:
		displaced = oldest(&t.opening)
	default:
		ok = true
	}
	if displaced != nil {
		t.take(displaced)
		why, ok = pressureHandshakes, true
	}
	if ok {
		t.put(c, address)
	}
	return displaced, why, ok
}

// oldest returns the first one of a list, nil if there is none.
func oldest(list *list.List) *connection {
	if list.Len() == 0 {
		return nil
	}
	return list.Front().Value.(*connection)
}

func (t *connections) put(c *connection, address netip.Prefix) {
	here := t.perAddress[address]
	if here == nil {
		here = &neighbours{}
		t.perAddress[address] = here
	}
	here.count++
	t.byID[c.flow.ID] = c
	c.stranger, c.strangerHere = t.strangers.PushBack(c), here.strangers.PushBack(c)
	if !c.open {
		c.opening = t.opening.PushBack(c)
	}
}

// keep notes that a connection doesn't give way any more.
func (t *connections) keep(c *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if here := t.perAddress[Sharer(c.flow.Remote.Addr())]; here != nil {
		t.forgetStranger(c, here)
	}
}

func (t *connections) forgetStranger(c *connection, here *neighbours) {
	if c.stranger != nil {
		t.strangers.Remove(c.stranger)
		here.strangers.Remove(c.strangerHere)
		c.stranger, c.strangerHere = nil, nil
	}
}

// opened notes that a handshake is over. It returns false if its connection had
// to give way.
func (t *connections) opened(c *connection) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetOpening(c)
	return t.byID[c.flow.ID] == c
}

func (t *connections) forgetOpening(c *connection) {
	if c.opening != nil {
		t.opening.Remove(c.opening)
		c.opening = nil
	}
}

// addDialled takes a connection up that we have opened: others bound those. It
// returns false if nobody is let in any more.
func (t *connections) addDialled(c *connection) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.byID[c.flow.ID] = c
	return true
}

// remove takes a connection out, if that has not happened yet.
func (t *connections) remove(c *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.take(c)
}

func (t *connections) take(c *connection) {
	if t.byID[c.flow.ID] != c {
		return
	}
	delete(t.byID, c.flow.ID)
	t.forgetOpening(c)
	if c.dialled != nil {
		return
	}
	address := Sharer(c.flow.Remote.Addr())
	here := t.perAddress[address]
	t.forgetStranger(c, here)
	if here.count--; here.count == 0 {
		delete(t.perAddress, address)
	}
}

// find returns the connection of a flow, nil if it is gone.
func (t *connections) find(f Flow) *connection {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[f.ID]
}

func (t *connections) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

func (t *connections) all() []*connection {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.byID))
}

// close lets nobody in any more and returns who is there.
func (t *connections) close() []*connection {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	return t.all()
}

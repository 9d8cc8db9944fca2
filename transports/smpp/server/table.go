package server

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Why a bind finds no room.
var (
	errAccountBinds = errors.New("the account has as many sessions as it may")
	errAllBinds     = errors.New("there are as many sessions as there may be")
)

// table is who is bound.
type table struct {
	most int // sessions in all

	mu       sync.Mutex
	accounts map[string]*bound
	total    int
}

// bound is an account with sessions.
type bound struct {
	rate     bucket
	sessions []*session
	next     int // where the search for a session begins
}

func newTable(most int) *table { return &table{most: most, accounts: map[string]*bound{}} }

// add lets a session in whose bind is good.
func (t *table) add(s *session, b *bind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= t.most {
		return errAllBinds
	}
	a := t.accounts[b.account.ID]
	if a == nil {
		a = &bound{}
	}
	if len(a.sessions) >= b.terms.binds {
		return errAccountBinds
	}
	a.sessions = append(a.sessions, s)
	t.accounts[b.account.ID] = a
	b.bound = a
	t.total++
	return nil
}

// remove takes out a session that was let in.
func (t *table) remove(s *session, b *bind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := b.bound
	a.sessions = slices.DeleteFunc(a.sessions, func(o *session) bool { return o == s })
	t.total--
	if len(a.sessions) == 0 {
		delete(t.accounts, b.account.ID)
	}
}

// pick returns the session over which a message goes to an account: of those
// that receive and whose address_range covers the destination the one with the
// fewest messages under way, so that one who reads slowly holds up nobody whom
// another could serve; of equals each in turn. nil: there is none.
func (t *table) pick(account, destination string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[account]
	if a == nil {
		return nil
	}
	var best *session
	var least int64
	first := a.next
	for i := range a.sessions {
		at := (first + i) % len(a.sessions)
		s := a.sessions[at]
		if n := s.sending.Load(); s.receives(destination) && (best == nil || n < least) {
			best, least = s, n
			a.next = at + 1
		}
	}
	if best != nil {
		best.sending.Add(1)
	}
	return best
}

// receiver returns the bind of a session of an account that receives, and the
// windows of all such together; nil: there is none.
func (t *table) receiver(account string) (receiver *bind, window int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.accounts[account]
	if a == nil {
		return nil, 0
	}
	for _, s := range a.sessions {
		if b := s.bind.Load(); b != nil && b.receives() {
			receiver = cmp.Or(receiver, b)
			window += b.terms.window
		}
	}
	return receiver, window
}

// has tells whether a system_id has a session from an address.
func (t *table) has(systemID string, source netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.accounts {
		for _, s := range a.sessions {
			if b := s.bind.Load(); b != nil && b.systemID == systemID && sharer(s.wire.RemoteAddr().Addr()) == sharer(source) {
				return true
			}
		}
	}
	return false
}

// count returns how many sessions are bound.
func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

func (t *table) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*session, 0, t.total)
	for _, a := range t.accounts {
		all = append(all, a.sessions...)
	}
	return all
}

// unbindAll ends all sessions in an orderly way, at the latest after limit.
func (t *table) unbindAll(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var leaving sync.WaitGroup
	for _, s := range t.all() {
		leaving.Go(func() { _ = s.wire.Unbind(ctx) }) // it ends anyway
	}
	leaving.Wait()
}

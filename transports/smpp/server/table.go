package server

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imgate/imgate/transports/smpp/wire"
)

// Why a bind finds no room.
var (
	accountIsFull = &refusal{wire.RBindFail, "the account has as many sessions as it may"}
	allIsFull     = &refusal{wire.RBindFail, "there are as many sessions as there may be"}
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
func (t *table) add(s *session, b *bind) *refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= t.most {
		return allIsFull
	}
	a := t.accounts[b.account.ID]
	if a == nil {
		a = &bound{}
	}
	if len(a.sessions) >= b.terms.binds {
		return accountIsFull
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

// anyDead asks all sessions of an account whether their ESMEs are there, and returns
// true if one wasn't: it has ended then.
func (t *table) anyDead(ctx context.Context, account string) bool {
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	var asking sync.WaitGroup
	var dead atomic.Bool
	for _, s := range t.of(account) {
		asking.Go(func() {
			if !s.wire.Alive(ctx) {
				dead.Store(true)
			}
		})
	}
	asking.Wait()
	return dead.Load()
}

// of returns the sessions of an account.
func (t *table) of(account string) []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.accounts[account]; a != nil {
		return slices.Clone(a.sessions)
	}
	return nil
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

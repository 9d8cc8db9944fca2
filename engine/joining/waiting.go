package joining

import (
	"bytes"
	"slices"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/spool"
)

// Named returns an account's message of which parts are here, by its public id.
func (s *Sets) Named(account, publicID string) (spool.Summary, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named[name{account, publicID}].summary()
}

// Get returns a message of which parts are here.
func (s *Sets) Get(id message.ID) (spool.Summary, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id].summary()
}

// Page returns up to n messages of which parts are here with from <= id, in the
// order of the ids.
func (s *Sets) Page(from message.ID, n int) []spool.Summary {
	ids := s.ids(func(id message.ID, _ *Set) bool { return compareIDs(id, from) >= 0 })
	slices.SortFunc(ids, compareIDs)
	page := make([]spool.Summary, 0, min(n, len(ids)))
	for _, id := range ids[:cap(page)] {
		if v, here := s.Get(id); here {
			page = append(page, v)
		}
	}
	return page
}

// Between returns the ids of an account's messages from a sender to a recipient of
// which parts are here.
func (s *Sets) Between(account string, from, recipient message.Address) []message.ID {
	return s.ids(func(_ message.ID, set *Set) bool {
		k := &set.key
		return k.account == account && k.from == from && k.recipient == recipient
	})
}

func (s *Sets) ids(of func(message.ID, *Set) bool) (ids []message.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, set := range s.byID {
		if of(id, set) {
			ids = append(ids, id)
		}
	}
	return ids
}

func compareIDs(a, b message.ID) int { return bytes.Compare(a[:], b[:]) }

// Take returns the set of a message for the caller to end, as if Due had returned
// it; nil: there is none, or it is being decided upon.
func (s *Sets) Take(id message.ID) *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.byID[id]
	if set == nil || set.atWork {
		return nil
	}
	s.overdue++
	s.work(set)
	return set
}

// Count is how many messages wait for their other parts, or are being decided upon.
func (s *Sets) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.sets
}

// summary is what is known of a message of which parts are here: until when the
// others are awaited is the end of its life as yet.
func (t *Set) summary() (spool.Summary, bool) {
	if t == nil {
		return spool.Summary{}, false
	}
	m := t.first.Message
	return spool.Summary{
		ID: t.id, PublicID: t.public, State: spool.StateWaiting, From: t.key.from, To: t.key.recipient,
		Type: m.ContentType, Size: t.octets, Missing: len(t.parts) - t.have, Received: t.began, Expiry: t.until, Next: t.next,
		Transport: m.Transport, Peer: m.Peer, Account: t.key.account,
	}, true
}

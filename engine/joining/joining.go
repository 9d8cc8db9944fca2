// Package joining keeps the parts of messages that come in several until all of
// them are here, or their time is over: in memory, and on disk before a peer is
// told that we have them. It knows a part again that comes once more, also a
// while after its message was joined.
//
// It must not know what becomes of a message that it has joined: whoever gets a
// Set says so.
package joining

import (
	"errors"
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// bounds are how much may wait for its other parts. Beyond them a part is refused
// for now.
type bounds struct {
	sets, octets         int // in all; octets of memory, roughly
	setsEach, octetsEach int // of one account
	body                 int // octets of a joined message: beyond that for good
}

const (
	setSize  = 1024 // octets that a set takes besides its parts
	partSize = 128  // that a part takes besides its body

	// maxOverdue is how many sets may be decided upon at once because their time is
	// over: after a time in which no node was active there may be many.
	maxOverdue = 64
)

// Sets are all messages of which parts are here and that haven't been decided
// upon. They may be used from several goroutines.
type Sets struct {
	spool  *spool.Spool
	seen   *spool.SeenTable
	bounds bounds

	mu       sync.Mutex
	open     map[key]*Set // those that take more parts
	byID     map[message.ID]*Set
	named    map[name]*Set
	accounts map[string]load
	all      load
	resting  schedule // those that nobody decides upon just now
	overdue  int      // that are being decided upon because their time is over
	changed  chan struct{}
}

// name is what an account knows a message by: a short one may be another account's
// too.
type name struct{ account, public string }

func (t *Set) name() name { return name{t.key.account, t.public} }

// load is how much waits.
type load struct{ sets, octets int }

// New returns an empty Sets. Joined messages may have that many octets.
func New(s *spool.Spool, seen *spool.SeenTable, maxBody int) *Sets {
	return &Sets{
		spool: s, seen: seen,
		bounds: bounds{sets: 100_000, setsEach: 10_000, octets: 256 << 20, octetsEach: 32 << 20, body: maxBody},
		open:   map[key]*Set{}, byID: map[message.ID]*Set{}, named: map[name]*Set{}, accounts: map[string]load{},
		changed: make(chan struct{}, 1),
	}
}

// Told gets to know, once, what became of a part: the answer, or why it was
// refused. It may be called before Add returns, or later on the committer's
// goroutine, and must not block.
type Told func(plugin.Answer, error)

// Name gives a message its names.
type Name func() (message.ID, string)

// Add takes a part: Arrival.Part isn't nil, its numbers are in order, and the
// message is the part's, which gets the names of the joined one unless it has come
// before or is refused at once. With the last one that is missing the message is
// complete: Add returns its set, whose caller decides upon it and then calls End,
// Stay or Unsure, which tells that part. The others are told when they are on disk.
//
// Failures: TooLarge, for good; LimitReached, Overloaded and those of
// Spool.PutPart: the part isn't kept, those before it are.
func (s *Sets) Add(now time.Time, a plugin.Arrival, name Name, told Told) *Set {
	set, tell := s.add(now, &a, name, told)
	if tell != nil {
		tell()
	}
	return set
}

// what is what a part is to be told at once, when the lock isn't held any more.
func (t Told) what(answer plugin.Answer, err error) func() { return func() { t(answer, err) } }

func (s *Sets) add(now time.Time, a *plugin.Arrival, name Name, told Told) (_ *Set, tell func()) {
	k, m := keyOf(a), a.Message
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.open[k]; set != nil {
		held := set.parts[a.Part.Number-1]
		switch {
		case held == nil && set.atWork:
			return nil, told.what(plugin.Answer{}, message.FailForNow(message.LimitReached, "the other parts are being decided upon"))
		case held == nil:
			return s.take(now, set, a, name, told)
		case held.same(m):
			return nil, set.repeat(held, told)
		}
	}
	seen, ok := s.seen.Lookup(now, k.digest(a.Part.Number, m.ContentType, m.Body))
	switch {
	case !ok:
		return s.take(now, newSet(now, k, a), a, name, told)
	case seen.State == plugin.OutcomeFailed:
		return nil, told.what(plugin.Answer{}, &message.Failure{Reason: seen.Reason})
	}
	return nil, told.what(plugin.Answer{PublicID: seen.PublicID}, nil)
}

// take adds a part to a set, which may be a new one. The lock is held: what
// follows from the part is written behind it.
func (s *Sets) take(now time.Time, set *Set, a *plugin.Arrival, name Name, told Told) (_ *Set, tell func()) {
	if f := s.full(set, len(a.Message.Body)); f != nil {
		return nil, told.what(plugin.Answer{}, f)
	}
	fresh := set.have == 0
	if fresh {
		set.id, set.public = name()
	}
	a.Message.ID, a.Message.PublicID = set.id, set.public
	p := newPart(now, a, told)
	completes := set.have+1 == len(set.parts)
	if !completes {
		row := set.row(p)
		if err := s.spool.PutPart(&row, func(err error) { s.written(set, p, err) }); err != nil {
			return nil, told.what(plugin.Answer{}, err)
		}
	}
	if fresh {
		s.register(now, set)
	}
	s.put(set, p)
	if !completes {
		return nil, nil
	}
	set.last = p
	s.work(set)
	return set, nil
}

// full tells whether there is no room for a part of so many octets.
func (s *Sets) full(set *Set, octets int) *message.Failure {
	own := s.accounts[set.key.account]
	switch b := &s.bounds; {
	case set.octets+octets > b.body:
		return message.Fail(message.TooLarge, "parts of %d octets, at most %d", set.octets+octets, b.body)
	case set.have == 0 && own.sets >= b.setsEach:
		return message.FailForNow(message.LimitReached, "%d messages of account %s wait for their other parts", own.sets, set.key.account)
	case own.octets+octets > b.octetsEach:
		return message.FailForNow(message.LimitReached, "parts of account %s take %d octets", set.key.account, own.octets)
	case set.have == 0 && s.all.sets >= b.sets:
		return message.FailForNow(message.Overloaded, "%d messages wait for their other parts", s.all.sets)
	case s.all.octets+octets > b.octets:
		return message.FailForNow(message.Overloaded, "parts take %d octets", s.all.octets)
	}
	return nil
}

// register makes a set the one that takes the parts of its message. One that did
// until now gets no more: its sender has begun to count anew.
func (s *Sets) register(now time.Time, set *Set) {
	if before := s.open[set.key]; before != nil {
		before.closed = true
		if !before.atWork {
			s.rest(before, now)
		}
	}
	s.open[set.key], s.byID[set.id], s.named[set.name()] = set, set, set
	s.charge(set, 1, setSize)
	s.rest(set, set.until)
}

// put adds a part.
func (s *Sets) put(set *Set, p *part) {
	set.parts[p.number-1] = p
	set.have++
	set.octets += len(p.body)
	s.charge(set, 0, partSize+len(p.body))
}

// remove takes out a part that isn't kept, and with the last one the set.
func (s *Sets) remove(set *Set, p *part) {
	set.parts[p.number-1] = nil
	set.have--
	set.octets -= len(p.body)
	s.charge(set, 0, -partSize-len(p.body))
	if set.have == 0 && !set.atWork {
		s.drop(set)
	}
}

// drop forgets a set.
func (s *Sets) drop(set *Set) {
	s.resting.remove(set)
	if s.open[set.key] == set {
		delete(s.open, set.key)
	}
	delete(s.byID, set.id)
	if s.named[set.name()] == set {
		delete(s.named, set.name())
	}
	s.charge(set, -1, -setSize-set.have*partSize-set.octets)
}

// charge counts what waits.
func (s *Sets) charge(set *Set, sets, octets int) {
	own := s.accounts[set.key.account]
	for _, l := range [...]*load{&own, &s.all} {
		l.sets += sets
		l.octets += octets
	}
	s.accounts[set.key.account] = own
	if own.sets == 0 {
		delete(s.accounts, set.key.account)
	}
}

// written runs on the committer's goroutine when a part is on disk, or isn't.
func (s *Sets) written(set *Set, p *part, err error) {
	s.mu.Lock()
	told := p.told
	p.told = nil
	p.onDisk = err == nil
	if err != nil && !errors.Is(err, plugin.ErrUnknown) && set.parts[p.number-1] == p {
		s.remove(set, p)
	}
	s.mu.Unlock()
	set.tell(told, err)
}

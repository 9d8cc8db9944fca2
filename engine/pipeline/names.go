package pipeline

import (
	"sync"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// shortNameTries bounds the search for a short name that is free. With a million
// in use one in four thousand isn't.
const shortNameTries = 16

// shortNames are those of messages that aren't decided upon: that they are in use
// the table doesn't tell yet.
type shortNames struct {
	mu    sync.Mutex
	given map[shortNamed]bool
}

type shortNamed struct{ account, name string }

// take tells whether a name was free.
func (s *shortNames) take(n shortNamed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := !s.given[n]
	s.given[n] = true
	return free
}

func (s *shortNames) giveBack(n shortNamed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.given, n)
}

// nameShort gives a message a short name that no other of its account has, where
// its peer bears no longer one.
func (p *Pipeline) nameShort(j *job) error {
	if !j.ShortName {
		return nil
	}
	for range shortNameTries {
		free, err := p.takeShort(shortNamed{j.Account.ID, j.Message.PublicID})
		if free || err != nil {
			j.named = free
			return err
		}
		m := *j.Message // others may look at the first one
		m.PublicID = spool.NewShortName()
		j.Message = &m
	}
	return message.FailForNow(message.LimitReached, "account %s has too many short names in use", j.Account.ID)
}

// takeShort takes a name, if it is free: in memory first, so that one that comes
// to the table meanwhile is seen in either.
func (p *Pipeline) takeShort(n shortNamed) (free bool, err error) {
	if !p.short.take(n) {
		return false, nil
	}
	id, err := p.Spool.Named(p.authorizing.Context(time.Now()), n.account, n.name)
	if err != nil || !id.IsZero() {
		p.short.giveBack(n)
	}
	if err != nil {
		return false, unreadable(err)
	}
	return id.IsZero(), nil
}

// decided ends the time for which a submission is neither accepted nor refused.
func (p *Pipeline) decided(j job) {
	p.undecided.Add(-1)
	if j.named {
		p.short.giveBack(shortNamed{j.Account.ID, j.Message.PublicID})
	}
}

// nameRows make a message's name lead to it, where it doesn't by itself.
func nameRows(j job, e *spool.Entry) []plugin.Change {
	if !j.named && j.replaces == nil {
		return nil
	}
	return []plugin.Change{spool.NameRow(e.Submitter, e.Message.PublicID, e.Message.ID)}
}

package pipeline

import (
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/engine/spool"
)

// shortNameTries bounds the search for a short name that is free. With a million
// in use one in four thousand isn't.
const shortNameTries = 16

// shortName is one that an account has in use.
type shortName struct{ account, name string }

// nameShort gives a message a short name that no other of its account has, where
// its peer bears no longer one. Those of messages that aren't on disk are in memory,
// which is asked first: one that comes to the table meanwhile is seen in either.
func (p *Pipeline) nameShort(j *job) error {
	for range shortNameTries {
		name := shortName{j.Account.ID, j.Message.PublicID}
		if _, taken := p.short.LoadOrStore(name, true); !taken {
			id, err := p.Spool.Named(p.authorizing.Context(time.Now()), name.account, name.name)
			j.named = err == nil && id.IsZero()
			if j.named {
				return nil
			}
			p.short.Delete(name)
			if err != nil {
				return unreadable(err)
			}
		}
		m := *j.Message // others may look at the first one
		m.PublicID = spool.NewShortName()
		j.Message = &m
	}
	return message.FailForNow(message.LimitReached, "account %s has too many short names in use", j.Account.ID)
}

// decided ends the time for which a submission is neither accepted nor refused.
func (p *Pipeline) decided(j job) {
	p.undecided.Add(-1)
	if j.named {
		p.short.Delete(shortName{j.Account.ID, j.Message.PublicID})
	}
}

// nameRows make a message's name lead to it, where it doesn't by itself.
func nameRows(j job, e *spool.Entry) []plugin.Change {
	joined := j.assembled != nil && spool.IsShortName(e.Message.PublicID)
	if !j.named && !joined && j.replaces == nil {
		return nil
	}
	return []plugin.Change{spool.NameRow(e.Submitter, e.Message.PublicID, e.Message.ID)}
}

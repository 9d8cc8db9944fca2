package pipeline

import (
	"hash/maphash"
	"slices"

	"github.com/imgate/imgate/engine/message"
)

// conversationSeed makes the numbers of conversations.
var conversationSeed = maphash.MakeSeed()

// conversationOf numbers what goes from a sender to a recipient, as it comes. Two
// of them may have the same number.
func conversationOf(from, to message.Address) uint64 {
	var h maphash.Hash
	h.SetSeed(conversationSeed)
	h.WriteString(from.User)
	h.WriteString(from.Host)
	h.WriteByte(0)
	h.WriteString(to.User)
	h.WriteString(to.Host)
	return h.Sum64()
}

// conversations are the messages that are ours by their conversation: whatever a
// policy has made of the recipient's address, and wherever they wait.
type conversations map[uint64]*item

func (c conversations) add(it *item) {
	first := c[it.conversation]
	if first != nil {
		first.before = it
	}
	it.before, it.after = nil, first
	c[it.conversation] = it
}

func (c conversations) remove(it *item) {
	if it.after != nil {
		it.after.before = it.before
	}
	switch {
	case it.before != nil:
		it.before.after = it.after
	case it.after != nil:
		c[it.conversation] = it.after
	default:
		delete(c, it.conversation)
	}
	it.before, it.after = nil, nil
}

// between returns the ids of up to n messages that may be from a sender to a
// recipient, in their order.
func (ls *lanes) between(from, to message.Address, n int) (ids []message.ID) {
	ls.mu.Lock()
	for it := ls.talks[conversationOf(from, to)]; it != nil; it = it.after {
		ids = append(ids, it.id)
	}
	ls.mu.Unlock()
	slices.SortFunc(ids, compareIDs)
	return ids[:min(len(ids), n)]
}

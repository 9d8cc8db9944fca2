package ledger

import (
	"container/heap"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// hold is an open reservation.
type hold struct {
	key    message.ID
	payer  *account
	amount plugin.Money
	until  time.Time
	place  int // in lapsing
}

// lapsing is a heap of the open holds; the first is the one to lapse next.
type lapsing []*hold

func (l lapsing) Len() int           { return len(l) }
func (l lapsing) Less(i, j int) bool { return l[i].until.Before(l[j].until) }

func (l lapsing) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

// Push is called by package heap.
func (l *lapsing) Push(x any) {
	h := x.(*hold)
	h.place = len(*l)
	*l = append(*l, h)
}

// Pop is called by package heap.
func (l *lapsing) Pop() any {
	last := len(*l) - 1
	h := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return h
}

// hold opens a reservation. One with the same key ends.
func (b *book) hold(h *hold) {
	if earlier, ok := b.holds[h.key]; ok {
		b.release(earlier)
	}
	b.holds[h.key] = h
	heap.Push(&b.lapsing, h)
	h.payer.held += h.amount
	h.payer.open++
	b.meters.reservations.Add(1)
}

// release ends a reservation in memory.
func (b *book) release(h *hold) {
	heap.Remove(&b.lapsing, h.place)
	delete(b.holds, h.key)
	h.payer.held -= h.amount
	h.payer.open--
	b.meters.reservations.Add(-1)
}

// sweep ends the reservations that have lapsed. Their rows are removed without
// waiting: what a crash leaves of them is swept when the book is opened again.
func (b *book) sweep(now time.Time) {
	var rows chunk
	for len(b.lapsing) > 0 && !b.lapsing[0].until.After(now) {
		lapsed := b.lapsing[0]
		b.release(lapsed)
		rows.add(b.tables, noHold(lapsed.key))
	}
	rows.commit(b.tables)
}

// chunkSize is how many octets of changes are committed at once where there may
// be many: well under plugin.MaxApply, and small enough for the changes of
// others to get in between.
const chunkSize = 1 << 20

// chunk gathers changes that needn't be committed all or nothing.
type chunk struct {
	changes []plugin.Change
	size    int
}

// add commits what was gathered if there is no room for one more change.
func (c *chunk) add(tables plugin.Tables, change plugin.Change) plugin.Commitment {
	var committed plugin.Commitment
	size := len(change.Key) + len(change.Value)
	if c.size+size > chunkSize {
		committed = c.commit(tables)
	}
	c.changes = append(c.changes, change)
	c.size += size
	return committed
}

// commit returns nil if there is nothing to commit.
func (c *chunk) commit(tables plugin.Tables) plugin.Commitment {
	if len(c.changes) == 0 {
		return nil
	}
	committed := tables.Commit(c.changes)
	*c = chunk{}
	return committed
}

package spool

import (
	"context"
	"slices"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
)

// PartRow is a part of a message whose other parts are awaited. Each has all that
// is known of the message, so that none depends on another one.
type PartRow struct {
	// Arrival has the part as its message, with the ID and the PublicID that all
	// have in common. Of the account's identities only the sender is kept.
	Arrival plugin.Arrival
	Began   time.Time // when the first of them came
	Until   time.Time // how long the others are awaited
}

// partFormat is the version of the rows in table parts.
const partFormat = 1

// row orders parts by their message, and those of one by their numbers.
func (p *PartRow) row() plugin.Change {
	a, m := &p.Arrival, p.Arrival.Message
	w := &writer{b: make([]byte, 0, 256+len(m.Body))}
	w.uint(partFormat)
	w.time(p.Began)
	w.time(p.Until)
	w.uint(uint64(a.Part.Reference))
	w.uint(uint64(a.Part.Total))
	w.string(a.Account.ID)
	w.uint(uint64(len(a.Account.Attributes)))
	for _, name := range sortedKeys(a.Account.Attributes) {
		w.string(name)
		w.string(a.Account.Attributes[name])
	}
	encodeMessage(w, m)
	w.string(m.Number)
	w.time(m.NotBefore)
	w.uint(uint64(m.Report))
	return plugin.Change{Table: tableParts, Key: partKey(m.ID, a.Part.Number), Value: w.b}
}

func partKey(id message.ID, number uint8) []byte { return append(id[:], number) }

func decodePart(key, value []byte) (PartRow, error) {
	if len(key) != len(message.ID{})+1 {
		return PartRow{}, errCorrupt
	}
	r := &reader{b: value}
	r.version(partFormat, partFormat)
	p := PartRow{Began: r.time(), Until: r.time()}
	part := &plugin.Part{
		Reference: uint16(r.uint()), Total: uint8(r.uint()), Number: key[len(key)-1], Wait: p.Until.Sub(p.Began),
	}
	p.Arrival = plugin.Arrival{Account: plugin.Account{ID: r.string(), Attributes: r.labels()}, Part: part}
	m := decodeMessage(r)
	m.Trace, m.Number, m.NotBefore, m.Report = r.string(), r.string(), r.time(), message.Report(r.uint())
	p.Arrival.Account.Identities = []message.Address{m.From}
	p.Arrival.Message = m
	if part.Number == 0 || part.Number > part.Total {
		r.fail()
	}
	return p, r.done()
}

// PutPart writes a part. What becomes of it is told as Put does.
func (s *Spool) PutPart(p *PartRow, done func(error)) error {
	row := p.row()
	if len(row.Value) > plugin.MaxValue {
		return message.Fail(message.TooLarge, "a part of %d octets with all that belongs to it, at most %d", len(row.Value), plugin.MaxValue)
	}
	return s.committer.Put([]plugin.Change{row}, 1, done)
}

// Parts calls f with each part that is on disk: those of one message one after
// the other.
func (s *Spool) Parts(ctx context.Context, f func(PartRow)) error {
	return scan(ctx, s.storage, tableParts, nil, func(key, value []byte) error {
		p, err := decodePart(key, value)
		if err == nil {
			f(p)
		}
		return err
	})
}

// Joined are the parts that have become a message, or have ended with it: they
// leave the disk in the transaction that says so.
type Joined struct {
	ID      message.ID
	Numbers []uint8 // of those that are on disk, or on their way there
	Seen    []Seen  // by which repeats of them are known
	// Kept returns those that the storage has and that must stay there if the
	// message isn't kept. It is called on the committer's goroutine.
	Kept func() []PartRow
}

// seenRows are new with the message.
func (j *Joined) seenRows() []plugin.Change {
	rows := make([]plugin.Change, len(j.Seen))
	for i := range j.Seen {
		rows[i] = j.Seen[i].row()
	}
	return rows
}

func (j *Joined) deletions() []plugin.Change {
	rows := make([]plugin.Change, len(j.Numbers))
	for i, number := range j.Numbers {
		rows[i] = plugin.Change{Table: tableParts, Key: partKey(j.ID, number)}
	}
	return rows
}

// undo writes back what deletions took away.
func (j *Joined) undo() []plugin.Change {
	kept := j.Kept()
	rows := make([]plugin.Change, len(kept))
	for i := range kept {
		rows[i] = kept[i].row()
	}
	return rows
}

// EndParts writes the record of a message that ends without having been in the
// spool, with the receipt that its sender gets, which may be nil, and other changes,
// and lets its parts go. done is told when that is on disk, or that this committer
// has ended before.
func (s *Spool) EndParts(ended *Summary, receipt *Entry, parts *Joined, also []plugin.Change, done func(error)) {
	changes := slices.Concat([]plugin.Change{ended.Row()}, parts.seenRows(), parts.deletions(), also)
	if receipt != nil {
		changes = append(changes, entryRow(receipt))
	}
	s.committer.Move(changes, done)
}
